"""The cache against gathers, the disk, and the epoch that fills it.

The set is LCD-like: gzip-4, four classes, ECAL 25 x 25 x 25 and HCAL 5 x 5 x 60 float32, 68.5 kB an event; batches of
128, shuffled and mixed.  Each side is verified event by event before it is timed; the sides of a table alternate, and
ratios are formed by round.  Tables are Markdown.

    python benchmarks/bench_cache.py               # all tables; about 15 minutes
    python benchmarks/bench_cache.py --quick       # smaller set, one round
    python benchmarks/bench_cache.py --only cold   # one table; may be given several times

Other libraries over the same events, each in its own format: ``hepfeed bench feed --inputs cached-cells,cached-dense``.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil
from cache_rows import KEYS, Rows, fill_cells, make_rows
from numpy.typing import NDArray

import hepfeed as hf
from hepfeed.bench.feeds.floor import floor_seconds
from hepfeed.bench.feeds.lcd import files_of, make_suppressed_set
from hepfeed.pool import ReaderPool
from hepfeed.tensors import Sparse
from hepfeed.transforms import Sparsify

BATCH = 128
MIB = 1 << 20
TARGETS = {"dense": (1.4, 2.0), "densified": (2.5, 4.0), "sparse": (None, 10.0)}  # one reader, two readers
SIZE_TARGETS, FILL_TARGET = (1 / 25, 2.5), 1.1
BUILD_TARGET, SCALE_TARGET, MEMORY_TARGET = 1.5, 1.7, 400.0
TRANSFORMS: dict[str, Any] = {"dense": [fill_cells, "cache"], "densified": None, "sparse": [Sparsify(keys=tuple(KEYS))]}
COPIES = 4
Line = tuple[str, ...]


@dataclass
class Bench:
    """What the tables share.

    Attributes:
        folder: For caches.
        spec: Of the sources.
        large: The same files :data:`COPIES` times, for what lasts too short otherwise.
        rows: ``{"dense", "densified"}``: the events as they must be delivered, without a 0 and as they are.
        rounds: In which the sides alternate.
        least_s: Of one timing.
        figures: All numbers, by table.
    """

    folder: Path
    spec: list[list[Any]]
    large: list[list[Any]]
    rows: dict[str, Rows]
    rounds: int
    least_s: float
    figures: dict[str, Any] = field(default_factory=dict)

    def dataset(self, kind: str = "densified", cache: Path | None = None, large: bool = False) -> hf.EventDataset:
        """Return the events, delivered dense without a 0, dense, or sparse."""
        spec, index = self.large if large else self.spec, self.folder / "index.sqlite"
        return hf.EventDataset(spec, transform=TRANSFORMS[kind], cache=cache, index=index, progress=False)

    def cache(self, kind: str, large: bool = False) -> Path:
        """Return where the cache of these events lies."""
        return self.folder / f"cache-{kind}{'-large' if large else ''}"

    def loader(self, kind: str, workers: int, pool: ReaderPool | None = None, large: bool = False) -> hf.DataLoader:
        """Return a loader over the cache of these events, which is filled by the first one."""
        dataset = self.dataset(kind, self.cache(kind, large), large)
        return hf.DataLoader(
            dataset, BATCH, shuffle=True, num_workers=workers, persistent_workers=pool is None, seed=0, pool=pool
        )

    def fill(self, kind: str, large: bool = False) -> None:
        """Fill a cache where it is not there; its pages are in memory then."""
        if not self.cache(kind, large).exists():
            with self.loader(kind, 2, large=large) as first:
                verify(first, self.rows[kind if kind == "dense" else "densified"], COPIES if large else 1)

    def filled(self, kind: str, workers: int, pool: ReaderPool | None = None, large: bool = False) -> hf.DataLoader:
        """Return a loader whose epochs come from the cache."""
        self.fill(kind, large)
        loader = self.loader(kind, workers, pool, large)
        loader.set_epoch(1)  # epoch 0 has the order of the sources
        assert loader.filler.order == "full", "the epoch does not come from the cache"
        return loader

    def parts(self, kind: str) -> list[Path]:
        """Return the files of a cache."""
        return sorted(self.cache(kind).rglob("*.h5"))


# ---- what is checked, and how time is taken ------------------------------------------------------------------------


def dense_of(value: Any) -> NDArray[Any]:
    """Return dense images of a tensor or of sparse ones."""
    if not isinstance(value, Sparse):
        return np.asarray(value.numpy())
    images = np.zeros((value.batch_size, *value.spatial_shape), np.float32)
    images[tuple(value.indices.numpy().T)] = value.features.numpy()[:, 0]
    return images


def verify(batches: Iterable[Any], rows: Rows, copies: int = 1) -> None:
    """Check that an epoch brings every event once, each bit of it right.

    With ``copies``, every file comes that often in a row.
    """
    seen = np.zeros((len(rows), copies), int)
    for batch in batches:
        file, row = batch["event"].numpy().T
        index = file // copies * rows.file_events + row
        for key in KEYS:
            np.testing.assert_array_equal(dense_of(batch[key]), rows.arrays[key][index])
        np.testing.assert_array_equal(batch["label"].numpy(), rows.label[index])
        np.add.at(seen, (index, file % copies), 1)
    assert (seen == 1).all(), f"{(seen == 0).sum()} events are missing, {(seen > 1).sum()} came twice"


def events_in(batches: Iterable[Any]) -> int:
    """Count the events of an epoch."""
    return sum(len(batch["label"]) for batch in batches)


def rate(epoch: Callable[[], Iterable[Any]], least_s: float) -> float:
    """Events/s of whole epochs, for ``least_s`` seconds or longer."""
    events, begun = 0, time.perf_counter()
    while (spent := time.perf_counter() - begun) < least_s or not events:
        events += events_in(epoch())
    return events / spent


def gather_rate(rows: Rows, least_s: float) -> float:
    """Events/s of a gather from memory maps, row by row into a batch that is there, in one thread."""
    out = rows.empty(BATCH)
    order = np.random.default_rng(0).permutation(len(rows))
    rows.gather(order[:BATCH], out)
    for key in KEYS:
        np.testing.assert_array_equal(out[key], rows.arrays[key][order[:BATCH]])

    def epoch() -> Iterator[dict[str, Any]]:
        for first in range(0, len(order) - BATCH + 1, BATCH):
            rows.gather(order[first : first + BATCH], out)
            yield {"label": range(BATCH)}

    events_in(epoch())  # maps the pages
    return rate(epoch, least_s)


def middle(values: Iterable[float]) -> float:
    """Return the median."""
    return float(np.median(list(values)))


def spread(values: list[float], form: str = ",.0f") -> str:
    """Return the median and the range."""
    return f"{middle(values):{form}} ({min(values):{form}} - {max(values):{form}})"


def ratios(one: list[float], other: list[float]) -> float:
    """Return the median of the ratios of each round."""
    return middle(a / b for a, b in zip(one, other))


def show(title: str, head: Line, lines: Iterable[Line]) -> None:
    """Print a Markdown table."""
    print(f"\n{title}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for line in lines:
        print(f"| {' | '.join(line)} |")
    sys.stdout.flush()


def copied(spec: list[list[Any]], folder: Path) -> list[list[Any]]:
    """Copy all files :data:`COPIES` times, the copies of a file next to one another in their order."""
    large = []
    for pattern, keys, name, weight in spec:
        (folder / name).mkdir(parents=True)
        for number, path in enumerate(files_of([[pattern]])):
            for copy in range(COPIES):
                shutil.copyfile(path, folder / name / f"{name}_{number:03d}{copy}.h5")
        large.append([str(folder / name / f"{name}_*.h5"), keys, name, weight])
    return large


# ---- cached epochs -------------------------------------------------------------------------------------------------


def gather(bench: Bench) -> None:
    """Cached epochs against a gather of the dense rows."""
    lines: list[Line] = []
    for kind, targets in TARGETS.items():
        rows = bench.rows["dense" if kind == "dense" else "densified"]
        large = kind != "dense"  # of which the gather's rows would fill the memory
        with bench.filled(kind, 1, large=large) as one, bench.filled(kind, 2, large=large) as two:
            loaders = {"1 reader": one, "2 readers": two}
            for loader in loaders.values():
                verify(loader, rows, COPIES if large else 1)
            runs: dict[str, list[float]] = {"gather": [], **{name: [] for name in loaders}}
            for _ in range(bench.rounds):
                runs["gather"].append(gather_rate(rows, bench.least_s))
                for name, loader in loaders.items():
                    runs[name].append(rate(lambda loader=loader: loader, bench.least_s))  # type: ignore[misc]
        bench.figures[f"gather {kind}"] = runs
        lines.append((kind, "gather, 1 thread", spread(runs["gather"]), "", ""))
        for name, target in zip(loaders, targets):
            factor = f"{ratios(runs[name], runs['gather']):.2f} x"
            lines.append((kind, f"hepfeed, {name}", spread(runs[name]), factor, f"{target:g} x" if target else ""))
    head = ("batches", "side", "events/s", "of the gather", "should be")
    show("Cached epochs against a gather of the dense rows, row by row from memory maps", head, lines)


def size(bench: Bench) -> None:
    """Bytes on disk."""
    rows = bench.rows["densified"]
    bench.fill("densified")
    stored = sum(path.stat().st_size for path in (bench.folder / "cache-densified").rglob("*") if path.is_file())
    source = 0
    for path in files_of(bench.spec):
        with h5py.File(path) as file:
            source += sum(file[key].id.get_storage_size() for key in KEYS)
    dense, events = rows.event_bytes, len(rows)
    bench.figures["size"] = {"stored": stored, "source": source, "dense": dense * events, "occupancy": rows.occupancy}
    occupancy = ", ".join(f"{key} {100 * part:.2f} %" for key, part in rows.occupancy.items())
    lines = [
        ("cache", f"{stored / events:,.0f}", "", ""),
        ("float32, dense", f"{dense:,.0f}", f"1/{dense * events / stored:.1f}", f"1/{1 / SIZE_TARGETS[0]:.0f}"),
        ("gzip-4 source, both keys", f"{source / events:,.0f}", f"{stored / source:.2f} x", f"{SIZE_TARGETS[1]:g} x"),
    ]
    show(f"Bytes on disk; occupancy {occupancy}", ("", "bytes an event", "cache is", "should be at most"), lines)


# ---- the epoch that fills the cache --------------------------------------------------------------------------------


def first_epoch(loader: hf.DataLoader, step_s: float) -> tuple[float, float]:
    """Seconds from the first batch of an epoch to its last one, and to its end."""
    iterator = iter(loader)
    next(iterator)
    begun = last = time.perf_counter()
    for _ in iterator:
        last = time.perf_counter()
        if step_s:
            time.sleep(step_s)
    return last + step_s - begun, time.perf_counter() - begun


def fill(bench: Bench) -> None:
    """The epoch that fills the cache against one without."""
    lines: list[Line] = []
    rows = bench.rows["densified"]
    for step_s in (0.0, 0.002, 0.005):
        runs: dict[str, list[float]] = {"without": [], "with": [], "gap": []}
        for number in range(bench.rounds):
            root = bench.folder / f"cache-fill-{1e3 * step_s:g}-{number}"
            plain = hf.DataLoader(bench.dataset(large=True), BATCH, shuffle=True, num_workers=2, seed=number)
            runs["without"].append(first_epoch(plain, step_s)[0])  # its readers end with it: none looks ahead
            with hf.DataLoader(
                bench.dataset(cache=root, large=True),
                BATCH,
                shuffle=True,
                num_workers=2,
                persistent_workers=True,
                seed=number,
            ) as loader:
                runs["with"].append(first_epoch(loader, step_s)[1])
                ended = time.perf_counter()
                first = next(iter(loader))
                runs["gap"].append(1e3 * (time.perf_counter() - ended))
                assert len(first["label"]) == BATCH
                if number == 0:
                    verify(loader, rows, COPIES)
                    assert loader.filler.order == "full", "the epoch does not come from the cache"
            shutil.rmtree(root)
        bench.figures[f"fill {step_s}"] = runs
        lines.append(
            (
                f"{1e3 * step_s:g} ms",
                *(f"{spread(runs[side], '.2f')} s" for side in ("without", "with")),
                f"{ratios(runs['with'], runs['without']):.2f} x",
                f"{FILL_TARGET:g} x",
                f"{spread(runs['gap'], '.0f')} ms",
            )
        )
    head = (
        "training step",
        "epoch without a cache",
        "that fills one",
        "ratio",
        "should be at most",
        "then, to a batch",
    )
    show(f"The first epoch of {COPIES * len(rows):,} events, two readers", head, lines)


def verified(bench: Bench) -> None:
    """The first epoch of a process, which compares checksums and maps the parts, against later ones."""
    lines: list[Line] = []
    for kind in ("densified", "dense"):
        runs: dict[str, list[float]] = {"first": [], "later": []}
        bench.fill(kind)
        for _ in range(bench.rounds):
            read_through(bench.parts(kind))
            with warm_pool(bench) as pool, bench.filled(kind, 2, pool) as loader:
                runs["first"].append(rate(lambda loader=loader: loader, 0.0))  # type: ignore[misc]
                runs["later"].append(rate(lambda loader=loader: loader, bench.least_s))  # type: ignore[misc]
        bench.figures[f"verified {kind}"] = runs
        factor = f"{ratios(runs['first'], runs['later']):.2f} x"
        lines.append((_stored(kind), spread(runs["first"]), spread(runs["later"]), factor))
    show("Verification, two readers, events/s", ("stored", "first epoch", "later ones", "first / later"), lines)


def _stored(kind: str) -> str:
    return "dense rows" if kind == "dense" else "cells"


@contextmanager
def warm_pool(bench: Bench) -> Iterator[ReaderPool]:
    """Two readers that have started, and whose shared memory is there, but that know no cache."""
    with closing(ReaderPool(2)) as pool:
        with hf.DataLoader(bench.dataset(), BATCH, shuffle=True, num_workers=2, seed=1, pool=pool) as loader:
            events_in(loader)
        yield pool


# ---- disk ----------------------------------------------------------------------------------------------------------


def read_through(paths: list[Path]) -> float:
    """Read files one after the other; returns seconds."""
    buffer = memoryview(bytearray(8 * MIB))
    begun = time.perf_counter()
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while os.readv(descriptor, [buffer]):
            pass
        os.close(descriptor)
    return time.perf_counter() - begun


def evict(paths: list[Path]) -> None:
    """Let the kernel forget the pages of files; those that a process has mapped stay."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)  # only clean pages are forgotten
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def bytes_read(pids: Iterable[int]) -> int:
    """Return what processes had fetched from the disk so far."""
    return sum(psutil.Process(pid).io_counters().read_bytes for pid in pids)


def cold(bench: Bench) -> None:
    """One shuffled epoch from a cold page cache, against reading the files through."""
    lines: list[Line] = []
    for kind in ("densified", "dense"):
        bench.fill(kind)
        parts = bench.parts(kind)
        total = sum(path.stat().st_size for path in parts)
        runs: dict[str, list[float]] = {"sequential": [], "epoch": [], "fetched": []}
        for _ in range(bench.rounds):
            evict(parts)
            before = bytes_read([os.getpid()])
            runs["sequential"].append(total / MIB / read_through(parts))
            assert bytes_read([os.getpid()]) - before > 0.9 * total, "the page cache was not cold"
            with warm_pool(bench) as pool, bench.filled(kind, 2, pool) as loader:
                pids = [os.getpid(), *pool.pids]
                evict(parts)
                before, begun = bytes_read(pids), time.perf_counter()
                assert events_in(loader) == len(bench.rows[kind])
                runs["epoch"].append(total / MIB / (time.perf_counter() - begun))
                runs["fetched"].append((bytes_read(pids) - before) / total)
        assert min(runs["fetched"]) > 0.9, "the page cache was not cold"
        bench.figures[f"cold {kind}"] = runs
        lines.append(
            (
                f"{_stored(kind)}, {total / MIB:,.0f} MiB",
                spread(runs["sequential"]),
                spread(runs["epoch"]),
                f"{ratios(runs['epoch'], runs['sequential']):.2f} x",
                f"{middle(runs['fetched']):.2f} x",
            )
        )
    head = ("stored", "read through, MiB/s", "shuffled epoch, MiB/s", "epoch / read through", "fetched / size")
    show("Cold page cache: one shuffled epoch, two readers", head, lines)


# ---- building ------------------------------------------------------------------------------------------------------

_BUILD = """
import sys, time
from hepfeed.cache.build import build_cache
spec, directory, workers = sys.argv[1:]
begun = time.perf_counter()
build_cache(spec, directory, workers=int(workers))
print("seconds", time.perf_counter() - begun)
"""


def run_build(bench: Bench, spec: list[list[Any]], workers: int, sample: bool) -> tuple[float, float, int]:
    """Build a cache in a process of its own: seconds, peak MiB of all its processes (if sampled), bytes written."""
    directory = bench.folder / "cache-built"
    hf.SampleSpec(spec).save(bench.folder / "spec.yaml")
    environment = {**os.environ, "HEPFEED_INDEX": str(bench.folder / "index.sqlite")}
    command = [sys.executable, "-c", _BUILD, str(bench.folder / "spec.yaml"), str(directory), str(workers)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        peak = 0.0
        while sample and process.poll() is None:
            peak = max(peak, _proportional_mib(process.pid))
            time.sleep(0.02)
        output = process.communicate()[0]
        assert process.returncode == 0, "the build failed"
    seconds = next(float(line.split()[1]) for line in output.splitlines() if line.startswith("seconds"))
    written = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    shutil.rmtree(directory)
    return seconds, peak, written


def _proportional_mib(pid: int) -> float:
    """MiB of a process and its children; what several share counts once."""
    total = 0
    try:
        for process in (parent := psutil.Process(pid), *parent.children(recursive=True)):
            total += process.memory_full_info().pss
    except psutil.Error:
        return 0.0  # one has just ended
    return total / MIB


def build(bench: Bench) -> None:
    """The standalone build of a cache."""
    try:
        found = importlib.util.find_spec("hepfeed.cache.build")
    except ModuleNotFoundError:
        found = None
    if found is None:
        print("\nhepfeed.cache.build is not there: the table of builds is left out")
        return
    *_, written = run_build(bench, bench.large, 2, False)
    runs: dict[str, list[float]] = {f"{side} {n}": [] for side in ("build", "floor") for n in (1, 2)}
    for _ in range(bench.rounds):
        for workers in (1, 2):
            runs[f"build {workers}"].append(run_build(bench, bench.large, workers, False)[0])
            with tempfile.TemporaryDirectory(dir=bench.folder) as place:
                runs[f"floor {workers}"].append(floor_seconds(files_of(bench.large), KEYS, workers, 1, written, place))
    bench.figures["build"] = runs
    lines: list[Line] = [
        (
            str(n),
            f"{spread(runs[f'build {n}'], '.2f')} s",
            f"{spread(runs[f'floor {n}'], '.2f')} s",
            f"{ratios(runs[f'build {n}'], runs[f'floor {n}']):.2f} x",
            f"{BUILD_TARGET:g} x",
        )
        for n in (1, 2)
    ]
    show(
        f"Building a cache of {COPIES * len(bench.rows['densified']):,} events ({written / MIB:.0f} MiB)",
        ("readers", "build", "inflate all + write all", "ratio", "should be at most"),
        lines,
    )
    print(f"\nTwo against one: {ratios(runs['build 1'], runs['build 2']):.2f} x (should be {SCALE_TARGET:g} x).")
    events = len(bench.rows["densified"])
    sets = {f"{events:,}": bench.spec, f"{COPIES * events:,}": bench.large}
    peaks = {name: run_build(bench, spec, 2, True)[1] for name, spec in sets.items()}
    bench.figures["build memory"] = peaks
    memory = ((name, f"{peak:.0f} MiB", f"{MEMORY_TARGET / 1.048576:.0f} MiB") for name, peak in peaks.items())
    show("Peak memory of all processes of a build", ("events", "proportional set", "should be below"), memory)


TABLES: dict[str, Callable[[Bench], None]] = {
    "gather": gather,
    "size": size,
    "fill": fill,
    "verified": verified,
    "cold": cold,
    "build": build,
}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="keep the source files here; default: a temporary folder")
    parser.add_argument("--scratch", type=Path, help="where the temporary folder is made; default: $TMPDIR")
    parser.add_argument("--only", choices=list(TABLES), action="append", help="only these tables")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="4 classes x 2 files x 500 events, one round")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    files, events = (2, 500) if options.quick else (4, 1000)
    rounds, least_s = (1, 0.3) if options.quick else (options.rounds, 2.0)
    warnings.filterwarnings("ignore", message=".*not writable.*")
    with tempfile.TemporaryDirectory(dir=options.scratch, ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        stored = make_suppressed_set(options.data or folder, "auto", files, events)
        spec = [[pattern, KEYS, name, weight] for pattern, _, name, weight in stored]
        rows = {kind: make_rows(folder / f"rows-{kind}", spec, kind == "dense") for kind in ("dense", "densified")}
        bench = Bench(folder, spec, copied(spec, folder / "large"), rows, rounds, least_s)
        for name in options.only or TABLES:
            TABLES[name](bench)
    if options.json:
        options.json.write_text(json.dumps(bench.figures, indent=1))


if __name__ == "__main__":
    main()
