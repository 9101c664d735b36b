"""The feed against its rivals and its floor: shuffled, mixed batches of LCD-like events.

Isolated: reading, mixing and handing over of batches; the consumer only counts them.  Every side delivers the same
events, verified before it is timed; page cache warm; sides alternate within a round, and ratios are formed by round.

    python benchmarks/bench_feed.py            # about 12 minutes
    python benchmarks/bench_feed.py --quick    # smaller sets, one round
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch.utils.data
from floor import floor_seconds
from lcd_sets import CLASSES, KEYS, STORAGE, TITLES, energy_sums, files_of, make_set
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rivals import BlockBuffer, MapStyle, memmap_gather

import hepfeed as hf

BATCH = 128
BUFFER = 2048
TARGETS = {  # (map-style, block buffer, gather)
    "auto": (150.0, 2.0, None),
    "100": (150.0, 4.0, None),
    "1": (2.5, 1.8, None),
    "contiguous": (5.0, 4.0, 1.0),
}
FLOOR_TARGET = 1.4


def rate(batches: Iterable[Any], seconds: float | None = None, skip: int = 0) -> float:
    """Events/s of a pass over batches; ends after ``seconds``, and does not count the first ``skip`` batches."""
    events, begun = 0, time.perf_counter()
    for number, batch in enumerate(batches):
        if number < skip:
            begun = time.perf_counter()
            continue
        events += len(batch["label"])
        if seconds is not None and time.perf_counter() - begun > seconds:
            break
    return events / (time.perf_counter() - begun)


def verify(batches: Iterable[Any], sums: NDArray[np.float64], complete: bool, most: int | None = None) -> None:
    """Check values, labels and, for a complete epoch, that each event came exactly once."""
    seen = np.zeros(sums.shape, int)
    per_class = len(sums) // len(CLASSES)
    for number, batch in enumerate(batches):
        file, row = batch["event"].numpy().T
        total = sum(batch[key].numpy().reshape(len(file), -1).sum(1, dtype=np.float64) for key in ("ECAL", "HCAL"))
        np.testing.assert_allclose(total, sums[file, row], rtol=1e-9)
        np.testing.assert_array_equal(batch["label"].numpy(), class_index()[file // per_class])
        np.add.at(seen, (file, row), 1)
        if most is not None and number + 1 >= most:
            break
    assert seen.max() == 1, "an event came twice"
    if complete:
        assert seen.min() == 1, f"{(seen == 0).sum()} events are missing"


def class_index() -> NDArray[np.int64]:
    """Class number of each entry of ``CLASSES``: alphabetical, as hepfeed numbers them."""
    return np.argsort(np.argsort(CLASSES))


class _Relabelled:
    """A rival's batches with hepfeed's class numbers."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Any:
        for batch in self.batches:
            yield {**batch, "label": torch.from_numpy(class_index())[batch["label"]]}


def measure(storage: str, directory: Path, files: int, events: int, rounds: int, slow_s: float) -> dict[str, Any]:
    """Measure one way of storage."""
    spec = make_set(directory, storage, files, events)
    paths = files_of(spec)
    sums = energy_sums(paths)
    dataset = hf.EventDataset(spec)
    feeds: dict[str, Callable[[], float]] = {}
    with (
        hf.DataLoader(dataset, BATCH, shuffle=True, num_workers=2, persistent_workers=True, seed=0) as two,
        hf.DataLoader(dataset, BATCH, shuffle=True, num_workers=0, seed=0) as none,
    ):
        verify(two, sums, complete=True)
        verify(none, sums, complete=True)
        map_style = torch.utils.data.DataLoader(
            MapStyle(paths, events, KEYS, len(CLASSES)), BATCH, shuffle=True, num_workers=2
        )
        map_here = torch.utils.data.DataLoader(MapStyle(paths, events, KEYS, len(CLASSES)), BATCH, shuffle=True)
        block = 100 if storage == "100" else 125
        blocks = BlockBuffer(paths, events, KEYS, len(CLASSES), block, BUFFER, BATCH)
        buffered = torch.utils.data.DataLoader(blocks, batch_size=None, num_workers=2, prefetch_factor=4)
        verify(_Relabelled(map_style), sums, complete=False, most=2)
        verify(_Relabelled(buffered), sums, complete=True)
        feeds["hepfeed"] = lambda: rate(two)
        feeds["hepfeed, 0 workers"] = lambda: rate(none, slow_s)
        feeds["torch map-style"] = lambda: rate(map_style, slow_s, skip=1)
        feeds["torch map-style, 0 workers"] = lambda: rate(map_here, slow_s / 2)
        feeds["torch block buffer"] = lambda: rate(buffered)
        if storage == "contiguous":
            feeds["memmap gather"] = lambda: memmap_gather(paths, events, KEYS, BATCH, slow_s / 2)
        feeds["floor"] = lambda: len(dataset) / floor_seconds(paths, KEYS, rounds=1)
        runs: dict[str, list[float]] = {name: [] for name in feeds}
        for _ in range(rounds):
            for name, feed in feeds.items():
                runs[name].append(feed())
        stats = two.stats()
    return {"storage": storage, "runs": runs, "bottleneck": stats["bottleneck"], "busy": stats["busy"]}


def ratio(result: dict[str, Any], name: str, over: str) -> float:
    """Median over the rounds of one rate over another."""
    runs = result["runs"]
    return float(np.median(np.array(runs[name]) / np.array(runs[over])))


def show(results: list[dict[str, Any]], console: Console) -> None:
    """Print the rates, and the ratios beside what they should reach."""
    table = Table(title=f"Events/s, batches of {BATCH}; median (lowest - highest) over rounds")
    for column in ("input", "feed", "events/s", "hepfeed is faster by", "should be"):
        table.add_column(column, justify="left" if column in ("input", "feed") else "right")
    for result in results:
        wanted = dict(zip(("torch map-style", "torch block buffer", "memmap gather"), TARGETS[result["storage"]]))
        for name, rates in result["runs"].items():
            base = "hepfeed, 0 workers" if name.endswith("0 workers") else "hepfeed"
            factor = "" if name == base else f"{ratio(result, base, name):.2f} x"
            target = wanted.get(name)
            aim = f"{target:g} x" if target else ""
            if name == "floor":
                aim = f"{1 / FLOOR_TARGET:.2f} x"
            if name == "torch map-style, 0 workers":
                aim = "1 x"
            spread = f"{np.median(rates):,.0f} ({min(rates):,.0f} - {max(rates):,.0f})"
            table.add_row(TITLES[result["storage"]], name, spread, factor, aim)
        table.add_section()
    console.print(table)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="keep the sets here; default: a temporary folder")
    parser.add_argument("--storage", choices=STORAGE, action="append", help="only these; default: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="4 classes x 2 files x 250 events, one round")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    files, events = (2, 250) if options.quick else (4, 1000)
    warnings.filterwarnings("ignore", message=".*not writable.*")
    console = Console()
    with tempfile.TemporaryDirectory() as scratch:
        directory = options.data or Path(scratch)
        results = []
        for storage in options.storage or STORAGE:
            console.print(f"measuring {TITLES[storage]} ...")
            rounds, slow_s = (1, 2.0) if options.quick else (options.rounds, 8.0)
            results.append(measure(storage, directory, files, events, rounds, slow_s))
        show(results, console)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
