"""The loader over any data set against torch's: batches, their cost, starts, resumes and memory.

Isolated: the data sets are trivial but for one, so what is timed is the way from the data set to the loop.  Both
sides run the same data set with two readers, alternate within a round, and are checked to deliver the same tensors
before they are timed.

    python benchmarks/bench_loader.py            # about 3 minutes
    python benchmarks/bench_loader.py --quick    # fewer batches, three rounds
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import torch.utils.data
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import hepfeed as hf

SIDES: dict[str, type[torch.utils.data.DataLoader[Any]]] = {
    "hepfeed": hf.DataLoader,
    "torch": torch.utils.data.DataLoader,
}
WORKERS = 2
ROW = 16_384  # numbers of 64 kB
BATCH = 128
PAGE = 4096 // 4  # numbers of a page
IMAGE = 256  # pixels a side
MIB = 1 << 20
STARTS = ("spawn", "forkserver")

START_SCRIPT = """
import sys, time
import numpy as np
from {module} import DataLoader

class Rows:
    def __len__(self):
        return 64

    def __getitem__(self, index):
        return np.full(16, index, np.float32)

if __name__ == "__main__":
    begun = time.perf_counter()
    iterator = iter(DataLoader(Rows(), 4, num_workers=2, multiprocessing_context=sys.argv[1]))
    batch = next(iterator)
    print(time.perf_counter() - begun, batch.sum().item())
"""


class Whole(torch.utils.data.Dataset[torch.Tensor]):
    """Batches of 8 MB that lie in the reader's private memory."""

    def __init__(self, batches: int) -> None:
        self.batches = batches
        self.memory = np.arange(BATCH * ROW, dtype=np.float32)

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self.memory)  # a tensor of its own: torch moves each to shared memory only once


class Rows(torch.utils.data.Dataset[torch.Tensor]):
    """Events of 64 kB that lie in the reader's private memory."""

    def __init__(self, batches: int) -> None:
        self.events = batches * BATCH
        self.memory = torch.arange(BATCH * ROW, dtype=torch.float32).view(BATCH, ROW)

    def __len__(self) -> int:
        return self.events

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.memory[index % BATCH]


class Small(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """A dict of 20 small tensors."""

    def __init__(self, batches: int) -> None:
        self.batches = batches
        self.tensors = {f"key {number}": torch.full((64,), float(number)) for number in range(20)}

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {key: tensor + index for key, tensor in self.tensors.items()}


class Pictures(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Compressed pictures whose rows are differences, as in PNG: inflated, summed up and scaled row by row."""

    def __init__(self, events: int) -> None:
        random = np.random.default_rng(0)
        rows = random.integers(0, 7, (32, IMAGE, IMAGE, 3), np.uint8)
        self.events = events
        self.stored = [zlib.compress(picture.tobytes()) for picture in rows]

    def __len__(self) -> int:
        return self.events

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        rows = np.frombuffer(zlib.decompress(self.stored[index % 32]), np.uint8).reshape(IMAGE, IMAGE, 3)
        picture = np.empty((3, IMAGE, IMAGE), np.float32)
        above: NDArray[np.uint8] = np.zeros((IMAGE, 3), np.uint8)
        for number, row in enumerate(rows):
            above = above + row
            picture[:, number] = above.T
        return torch.from_numpy((picture - 127.5) / 58.0), index


class Light(torch.utils.data.Dataset[torch.Tensor]):
    """Events that cost nothing."""

    def __init__(self, events: int) -> None:
        self.events = events

    def __len__(self) -> int:
        return self.events

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((256,), float(index))


def leaves(batch: Any) -> list[torch.Tensor]:
    """Return the tensors of a batch."""
    if isinstance(batch, torch.Tensor):
        return [batch]
    return [leaf for part in (batch.values() if isinstance(batch, dict) else batch) for leaf in leaves(part)]


def touch(batch: Any) -> None:
    """Read one number of each page, so that a mapping that was not touched yet is paid for."""
    for leaf in leaves(batch):
        leaf.reshape(-1)[::PAGE].sum()


def make(side: str, dataset: Any, **options: Any) -> torch.utils.data.DataLoader[Any]:
    """Return a side's loader."""
    return SIDES[side](dataset, num_workers=WORKERS, **options)


def verify(dataset: Any, options: dict[str, Any], most: int = 12) -> None:
    """Check that both sides deliver the same tensors."""
    iterators = [iter(make(side, dataset, **options)) for side in SIDES]
    for ours, theirs in itertools.islice(zip(*iterators), most):
        pairs = list(zip(leaves(ours), leaves(theirs), strict=True))
        assert pairs
        assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


def cpu_seconds(pids: list[int]) -> float:
    """CPU time that all threads of some processes have had."""
    spent = (path.read_text().split()[0] for pid in pids for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return sum(map(int, spent)) / 1e9


def epoch(side: str, dataset: Any, options: dict[str, Any]) -> tuple[float, float]:
    """Return seconds and CPU seconds a batch, after the first batches."""
    loader = make(side, dataset, **options)
    iterator: Any = iter(loader)
    pids = [os.getpid(), *(worker.pid for worker in iterator._workers)]
    skip, last = 2 * WORKERS + 2, len(loader) - 1
    seconds = cpu = 0.0
    for number, batch in enumerate(iterator):
        touch(batch)
        if number == skip:
            begun, spent = time.perf_counter(), cpu_seconds(pids)
        elif number == last:
            seconds, cpu = time.perf_counter() - begun, cpu_seconds(pids) - spent
    return seconds / (last - skip), cpu / (last - skip)


def second_epoch(side: str) -> float:
    """Seconds to the first batch of the second epoch of persistent readers."""
    loader = make(side, Light(64), batch_size=4, persistent_workers=True)
    for batch in loader:
        touch(batch)
    begun = time.perf_counter()
    batch = next(iter(loader))
    taken = time.perf_counter() - begun
    assert batch[:, 0].tolist() == [0.0, 1.0, 2.0, 3.0]
    return taken


def first_batch(side: str, method: str, folder: Path) -> float:
    """Seconds from the loader to its first batch, in a script whose data set needs no torch."""
    script = folder / f"start_{side}.py"
    script.write_text(START_SCRIPT.format(module="hepfeed" if side == "hepfeed" else "torch.utils.data"))
    home = str(Path(hf.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])}
    run = subprocess.run(
        [sys.executable, str(script), method], check=True, capture_output=True, text=True, env=environment, cwd=folder
    )
    taken, total = map(float, run.stdout.split())
    assert total == 16 * (0 + 1 + 2 + 3)
    return taken


def drift(side: str, epochs: int) -> float:
    """Growth of this process's private memory in MiB an epoch."""
    loader = make(side, Rows(4), batch_size=BATCH, persistent_workers=True)

    def memory_after(count: int) -> float:
        for _ in range(count):
            for batch in loader:
                touch(batch)
        gc.collect()
        return float(psutil.Process().memory_full_info().uss) / MIB

    before = memory_after(10)
    return (memory_after(epochs) - before) / epochs


def resume() -> tuple[float, float]:
    """Seconds from the loader to its first batch: after a resume in the middle, and cold."""
    dataset = Light(20_000)

    def loader() -> Any:
        return make("hepfeed", dataset, batch_size=4, shuffle=True)

    torch.manual_seed(0)
    whole = loader()
    taken, state, expected = 0, None, None
    for taken, batch in enumerate(whole, start=1):
        if taken == 2500:
            state = whole.state_dict()
        elif taken == 2501:
            expected = batch.clone()
            break

    def first(state: Any) -> tuple[float, torch.Tensor]:
        begun = time.perf_counter()
        fresh = loader()
        if state is not None:
            fresh.load_state_dict(state)
        batch = next(iter(fresh))
        return time.perf_counter() - begun, batch

    cold, _ = first(None)
    resumed, batch = first(state)
    assert taken == 2501
    assert torch.equal(batch, expected)
    return resumed, cold


class Report:
    """The table of results, and the numbers behind it."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.table = Table(title=f"{WORKERS} readers; medians of alternating rounds")
        for column in ("what", "hepfeed", "torch", "torch / hepfeed", "should be"):
            self.table.add_column(column, justify="left" if column == "what" else "right")
        self.figures: dict[str, Any] = {}

    def compare(self, what: str, runs: dict[str, list[float]], unit: str, scale: float, target: str) -> None:
        """Add a row of times, whose ratio is formed by round."""
        ratio = float(np.median(np.array(runs["torch"]) / np.array(runs["hepfeed"])))
        ours, theirs = (f"{np.median(runs[side]) * scale:.3g} {unit}" for side in SIDES)
        self.table.add_row(what, ours, theirs, f"{ratio:.2f} x", target)
        self.figures[what] = {**runs, "ratio": ratio}

    def state(self, what: str, values: tuple[str, str, str], target: str, figure: Any) -> None:
        """Add a row whose columns are given."""
        self.table.add_row(what, *values, target)
        self.figures[what] = figure


def alternate(rounds: int, measure: Callable[[str], Any]) -> dict[str, list[Any]]:
    """Measure both sides in turn."""
    runs: dict[str, list[Any]] = {side: [] for side in SIDES}
    for _ in range(rounds):
        for side in SIDES:
            runs[side].append(measure(side))
    return runs


def feeds(report: Report, batches: int, rounds: int) -> None:
    """Measure the flow of batches and its cost."""
    cases: list[tuple[str, Any, dict[str, Any], str, str]] = [
        ("8 MB, one tensor", Whole(batches), {"batch_size": None}, "5 x", "2 x"),
        ("8 MB, 128 x 64 kB", Rows(batches), {"batch_size": BATCH}, "5 x", "2 x"),
        ("20 small tensors", Small(10 * batches), {"batch_size": None}, "1.5 x", ""),
        ("pictures decoded in Python, 8", Pictures(2 * batches), {"batch_size": 8}, "1 x", ""),
    ]
    for name, dataset, options, wall, cpu in cases:
        report.console.print(f"measuring {name} ...")
        verify(dataset, options)
        runs = alternate(rounds, lambda side, case=(dataset, options): epoch(side, *case))
        for number, (what, target) in enumerate([("", wall), (", CPU", cpu)]):
            times = {side: [pair[number] for pair in pairs] for side, pairs in runs.items()}
            report.compare(f"{name}{what}", times, "ms a batch", 1e3, target)
    report.table.add_section()


def starts(report: Report, rounds: int) -> None:
    """Measure how long first batches take."""
    report.console.print("measuring starts ...")
    report.compare("second epoch of persistent readers", alternate(rounds, second_epoch), "ms", 1e3, "< 5 ms")
    with tempfile.TemporaryDirectory() as folder:
        for method in STARTS:
            runs = alternate(rounds, lambda side, method=method: first_batch(side, method, Path(folder)))
            report.compare(f"first batch after {method}, no torch in the data set", runs, "s", 1, "2 x")
    pairs = np.array([resume() for _ in range(rounds)])
    ratio = float(np.median(pairs[:, 0] / pairs[:, 1]))
    said = f"{np.median(pairs[:, 0]) * 1e3:.3g} ms"
    report.state(
        "first batch after a resume, over a cold start",
        (f"{said}, {ratio:.2f} x", "", ""),
        "< 2 x",
        {"resumed and cold": pairs.tolist()},
    )
    report.table.add_section()


def memory(report: Report, epochs: int) -> None:
    """Measure whether memory grows with the epochs."""
    report.console.print("measuring memory ...")
    grown = {side: drift(side, epochs) for side in SIDES}
    values = (f"{grown['hepfeed']:.3f} MiB", f"{grown['torch']:.3f} MiB", "")
    report.state(f"memory an epoch gains, over {epochs}", values, "< 1 MiB", grown)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=150, help="of 8 MB an epoch")
    parser.add_argument("--quick", action="store_true", help="60 batches, three rounds, 20 epochs")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*not writable.*")
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    rounds, batches, epochs = (3, 60, 20) if options.quick else (options.rounds, options.batches, 100)
    report = Report(Console())
    feeds(report, batches, rounds)
    starts(report, rounds)
    memory(report, epochs)
    report.table.caption = f"{psutil.cpu_count()} processors"
    report.console.print(report.table)
    if options.json:
        options.json.write_text(json.dumps(report.figures, indent=1))


if __name__ == "__main__":
    main()
