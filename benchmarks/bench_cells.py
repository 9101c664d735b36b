"""The kernels of the cache against NumPy and plain system calls, in one process and thread.

Calorimeter images of 25 x 25 x 25 float32, 2 % of them occupied, lie in files whose pages are in memory; events are
taken in random order, 128 a batch, and go to eight slots in turn.  Every result is compared before it is timed, and
times are the best of several in which the sides alternate.  ``should be`` is what the project asks of itself.

Then runs of 68 kB and 2 kB are read in random order from a file of 1 GiB that the page cache has forgotten; each round
reads other runs.

    python benchmarks/bench_cells.py [DIRECTORY] [--json FILE]      on the device to be measured
"""

from __future__ import annotations

import argparse
import ctypes
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from race import Side, race, write_table

from hepfeed import _cache
from hepfeed.reference import cells as reference

EVENTS, BATCH, SLOTS = 11_200, 128, 8
SHAPE = (25, 25, 25)
VOLUME = 15_625
OCCUPANCY = 0.022
COLD_BYTES = 1 << 30

Case = tuple[str, Callable[[], Any], str, Callable[[], Any], float | None]
"""Name, kernel, name of the rival, the rival, and how many times faster the kernel should be."""


def alternate(sides: Sequence[Callable[[], Any]], rounds: int = 5) -> list[float]:
    """Return the least time of each side."""
    times = race({str(number): Side(side) for number, side in enumerate(sides)}, rounds)
    return [min(each) for each in times.values()]


class Stored:
    """The images in files: dense, and as cells and values; with the addresses of shuffled batches."""

    def __init__(self, folder: Path) -> None:
        random = np.random.default_rng(0)
        some = random.exponential(size=(400, VOLUME)) * (random.random((400, VOLUME)) < OCCUPANCY)
        images = np.tile(some.astype(np.float32), (EVENTS // 400, 1))
        self.counts, cells, values = _cache.pack(images, EVENTS, 2)
        assert np.array_equal(self.counts[:400], reference.count_cells(images[:400], 400))
        twins = reference.pack(images[:400], 400, 2)[1:]
        assert all(np.array_equal(twin, made[: len(twin)]) for twin, made in zip(twins, (cells, values), strict=True))
        self.images, self.cells, self.values = (
            self.mapped(folder / name, array)
            for name, array in (("images.npy", images), ("cells.npy", cells), ("values.npy", values))
        )
        self.slots = [np.zeros((BATCH, *SHAPE), np.float32) for _ in range(SLOTS)]
        self.places = [addresses(slot, np.arange(BATCH) * VOLUME) for slot in self.slots]
        self.order = random.permutation(EVENTS)[: EVENTS // BATCH * BATCH].reshape(-1, BATCH)
        self.starts = starts = np.cumsum(self.counts) - self.counts
        self.batches = [
            (
                addresses(self.cells, starts[rows]),
                addresses(self.values, starts[rows]),
                self.counts[rows],
                addresses(self.images, rows * VOLUME),
            )
            for rows in self.order
        ]
        self.sites = np.zeros((BATCH * int(self.counts.max()), 4), np.int32)

    @staticmethod
    def mapped(path: Path, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        np.save(path, array)
        opened: np.ndarray[Any, Any] = np.load(path, mmap_mode="r")
        opened.sum()  # touches each page
        return opened

    def densify(self, guarded: bool = True) -> None:
        for number, (cells, values, counts, _) in enumerate(self.batches):
            images = self.places[number % SLOTS]
            assert not _cache.densify(cells, values, counts, images, VOLUME, 2, 4, guarded).any()

    def copy_runs(self) -> None:
        lengths = np.full(BATCH, VOLUME * 4)
        for number, (*_, images) in enumerate(self.batches):
            assert not _cache.copy_runs(images, self.places[number % SLOTS], lengths, True).any()

    def memcpy(self) -> None:
        for number, (*_, images) in enumerate(self.batches):
            for to, source in zip(self.places[number % SLOTS].tolist(), images.tolist(), strict=True):
                ctypes.memmove(to, source, VOLUME * 4)

    def gather(self) -> None:
        for number, rows in enumerate(self.order):
            slot = self.slots[number % SLOTS].reshape(BATCH, VOLUME)
            for place, row in enumerate(rows.tolist()):
                slot[place] = self.images[row]

    def unravel(self) -> None:
        for cells, _, counts, _ in self.batches:
            assert not _cache.unravel(cells, counts, SHAPE, 2, self.sites.ctypes.data, 0, True).any()

    def check(self) -> None:
        """Compare what the last batches left in the slots with the images."""
        for number in range(len(self.order) - SLOTS, len(self.order)):
            made = self.slots[number % SLOTS].reshape(BATCH, VOLUME)
            np.testing.assert_array_equal(made, self.images[self.order[number]])
            self.slots[number % SLOTS][:] = -1


def addresses(array: np.ndarray[Any, Any], items: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (array.ctypes.data + items * array.itemsize).astype(np.uint64)


def cases(stored: Stored) -> Iterator[Case]:
    for kernel in (stored.densify, stored.copy_runs, stored.memcpy, stored.gather):
        kernel()
        stored.check()
    yield "densify", stored.densify, "gather of dense rows", stored.gather, 4.0
    yield "densify", stored.densify, "memcpy of dense rows", stored.memcpy, 2.0
    yield "densify", stored.densify, "not guarded", lambda: stored.densify(guarded=False), None
    clear = lambda: [slot.fill(0) for _ in range(len(stored.order) // SLOTS) for slot in stored.slots]  # noqa: E731
    yield "densify", stored.densify, "clearing the slots", clear, None
    yield "copy_runs", stored.copy_runs, "gather of dense rows", stored.gather, 1.9
    stored.unravel()
    rows = stored.order[-1]
    runs = np.concatenate([stored.cells[stored.starts[row] :][: stored.counts[row]] for row in rows.tolist()])
    twin = reference.unravel(runs, stored.counts[rows], SHAPE)
    np.testing.assert_array_equal(stored.sites[: len(twin)], twin)
    yield "unravel", stored.unravel, "gather of dense rows", stored.gather, 10.0


def pack_cases(stored: Stored) -> Iterator[Case]:
    images = np.ascontiguousarray(stored.images[:BATCH])
    counts = stored.counts[:BATCH].copy()
    yield (
        f"count_cells, {BATCH} events",
        lambda: _cache.count_cells(images, BATCH),
        "twin",
        lambda: reference.count_cells(images, BATCH),
        5.0,
    )
    yield (
        f"pack, {BATCH} events",
        lambda: _cache.pack(images, BATCH, 2),
        "twin",
        lambda: reference.pack(images, BATCH, 2),
        5.0,
    )
    sites = reference.unravel(reference.pack(images, BATCH, 2)[1], counts, SHAPE)
    assert np.array_equal(_cache.ravel(sites, SHAPE, 2), reference.ravel(sites, SHAPE, 2))
    yield (
        f"ravel, {len(sites):,} sites",
        lambda: _cache.ravel(sites, SHAPE, 2),
        "twin",
        lambda: reference.ravel(sites, SHAPE, 2),
        5.0,
    )


def cold_reads(path: Path, run_bytes: int, calls: int) -> list[float]:
    """Runs a second of read_runs, the same run by run, and a loop of preads, from a cold page cache."""
    block = np.random.default_rng(0).integers(0, 256, 1 << 24, np.uint8)
    if not path.exists():
        with path.open("wb") as file:
            for _ in range(COLD_BYTES >> 24):
                file.write(block.tobytes())
            os.fsync(file.fileno())  # only clean pages are forgotten
    random = np.random.default_rng(run_bytes)
    out = np.zeros((BATCH, run_bytes), np.uint8)
    descriptor = os.open(path, os.O_RDONLY)
    descriptors = np.full(BATCH, descriptor, np.int32)
    lengths, places = np.full(BATCH, run_bytes), addresses(out, np.arange(BATCH) * run_bytes)

    def together(offsets: np.ndarray[Any, Any]) -> None:
        assert not _cache.read_runs(descriptors, offsets, lengths, places).any()

    def one_by_one(offsets: np.ndarray[Any, Any]) -> None:
        for i in range(BATCH):
            assert not _cache.read_runs(descriptors[:1], offsets[i : i + 1], lengths[:1], places[i : i + 1]).any()

    def preads(offsets: np.ndarray[Any, Any]) -> None:
        for i, offset in enumerate(offsets.tolist()):
            assert os.preadv(descriptor, [out[i]], offset) == run_bytes

    best = []
    for side in (together, one_by_one, preads):
        fastest = 0.0
        for _ in range(4):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            offsets = random.choice(COLD_BYTES // run_bytes - 1, (calls, BATCH), replace=False) * run_bytes
            start = time.perf_counter()
            for some in offsets:
                side(some)
            fastest = max(fastest, calls * BATCH / (time.perf_counter() - start))
            first = int(offsets[-1, 0])
            wanted = np.take(block, np.arange(first, first + run_bytes), mode="wrap")
            np.testing.assert_array_equal(out[0], wanted)
        best.append(fastest)
    os.close(descriptor)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", type=Path, help="to be measured; 1.8 GB are written there")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    _cache.guard_bus_errors()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        stored = Stored(Path(folder))
        for events, made in ((stored.order.size, cases(stored)), (BATCH, pack_cases(stored))):
            for name, kernel, rival_name, rival, target in made:
                ours, theirs = alternate((kernel, rival), 5 if events > BATCH else 30)
                row = {"kernel": name, "ms": 1e3 * ours, "items/s": events / ours, "rival": rival_name}
                rows.append({**row, "rival / kernel": theirs / ours, "should be": target})
        for run_bytes, calls in ((68_608, 8), (2_048, 16)):
            together, one_by_one, preads = cold_reads(Path(folder) / "cold", run_bytes, calls)
            for rival, rate in (("one by one", one_by_one), ("os.preadv", preads)):
                row = {"kernel": f"read_runs of {run_bytes:,} bytes, cold", "items/s": together, "rival": rival}
                rows.append({**row, "rival / kernel": together / rate})
    write_table("kernels of the cache, best times, one thread", rows, {"instruction set": _cache.isa()}, options.json)


if __name__ == "__main__":
    main()
