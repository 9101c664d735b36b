"""Reading events of parts: from the file's bytes, or the page cache, to their places in a batch."""

from __future__ import annotations

import errno
import os
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from hepfeed import _cache
from hepfeed.errors import SourceError
from hepfeed.form import aligned, offsets_of
from hepfeed.parts.form import ArrayForm, cell_type, structured
from hepfeed.parts.mapping import map_file, on_network, unmap
from hepfeed.parts.part import BOOKS, Part
from hepfeed.parts.table import CacheTable
from hepfeed.ring import RingView
from hepfeed.tensors import Batch, Graph, Jagged, Padded, Sparse

__all__ = ["Allocate", "Fetched", "PartReader", "slot_bytes"]

Ints = NDArray[np.int64]
Allocate = Callable[[str, tuple[int, ...]], NDArray[Any]]
_RIGHT, _DAMAGED = 1, 2
_MOST_OPEN = 512
_MOST_BATCHES = 16  # that are read as one


@dataclass
class Fetched:
    """Events that were read from parts.

    Attributes:
        batch: The arrays of all events but the bad ones.
        strips: Where several batches were asked for: instead, by name and part, the array of all of them, and the first
            row of each batch.
        bad: ``(n,)`` which events could not be read.
        damaged: ``(part, block)`` whose checksum is wrong, or that can't be read; block -1 is a whole part.
        costs: As :data:`hepfeed._core.Costs`.
    """

    batch: Batch
    strips: dict[str, dict[str, tuple[NDArray[Any], tuple[int, ...]]]]
    bad: NDArray[np.bool_]
    damaged: list[tuple[int, int]]
    costs: Ints


@dataclass
class _Column:
    """Where a column begins in each part: byte of its first row, and bytes of a row."""

    offset: Ints
    row_bytes: int


@dataclass
class _Opened:
    """The parts of a cache that a reader knows."""

    table: CacheTable
    verified: NDArray[np.uint8]
    parts: dict[int, Part] = field(default_factory=dict)
    first_block: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    block_events: Ints = field(default_factory=lambda: np.ones(0, np.int64))
    base: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))  # of mapped parts, else 0
    columns: dict[str, _Column] = field(default_factory=dict)
    sums: dict[int, NDArray[np.uint64]] = field(default_factory=dict)
    edges: dict[tuple[int, str], Ints] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)


class PartReader:
    """Reads events of caches in this process; keeps files open or mapped.

    Args:
        memory: Gives the bytes of a slot of shared memory: ``memory(slot, size)``.
        guarded: Whether bus errors are caught in this process, so that files may be mapped.
        views: Shared memory of parts that have no file, by the key of the cache.
        sharers: Readers of this process, which have its descriptors in common.
    """

    def __init__(
        self,
        memory: Callable[[int, int], NDArray[np.uint8]],
        guarded: bool,
        views: Mapping[str, RingView],
        sharers: int = 1,
    ) -> None:
        self._views = views
        if guarded:
            _cache.guard_bus_errors()
        self._memory = memory
        self._guarded = guarded
        self._most_open = max(1, _MOST_OPEN // sharers)
        self._caches: dict[str, _Opened] = {}
        self._open: OrderedDict[str, int] = OrderedDict()
        self._maps: dict[str, tuple[int, int]] = {}
        weakref.finalize(self, _close_all, self._open, self._maps)

    def add_cache(self, table: CacheTable) -> None:
        """Make a cache known, or its greater number of blocks."""
        verified = self._memory(table.verified, max(1, table.blocks))
        known = self._caches.get(table.key)
        if known is None:
            self._caches[table.key] = _Opened(table, verified)
        else:
            known.table, known.verified = table, verified

    def add_parts(self, key: str, parts: Mapping[int, tuple[Part, int]]) -> None:
        """Make parts of a cache known: number -> part and the number of its first block."""
        cache = self._caches[key]
        size = max(max(parts) + 1, len(cache.base))
        cache.base = _longer(cache.base, size)
        cache.first_block, cache.block_events = _longer(cache.first_block, size), _longer(cache.block_events, size)
        for column in cache.columns.values():
            column.offset = _longer(column.offset, size, -1)
        for number, (part, first_block) in parts.items():
            cache.parts[number] = part
            cache.first_block[number], cache.block_events[number] = first_block, part.block_events
            for path in part.columns:
                stored = part.stored[path]
                column = cache.columns.setdefault(path, _Column(np.full(size, -1, np.int64), stored.row_bytes))
                column.offset[number] = max(0, stored.offset)

    def forms(self, key: str) -> tuple[ArrayForm, ...]:
        """Return the arrays of a batch of a cache."""
        return self._caches[key].table.forms

    def close(self) -> None:
        """Close all files."""
        _close_all(self._open, self._maps)
        self._caches.clear()

    def fetch(
        self,
        key: str,
        part: Ints,
        at: Ints,
        runs: Mapping[str, tuple[Ints, Ints]],
        allocate: Allocate,
        bounds: Sequence[int] = (),
    ) -> Fetched:
        """Read events.

        Args:
            key: The cache.
            part: ``(n,)`` part of each event.
            at: ``(n,)`` row in it.
            runs: First row and number of rows of each event, ``(n,)``, by path of the offsets.
            allocate: Makes an array of a dtype and shape, for the batch.
            bounds: ``(batches + 1,)`` of several batches that are read as one, without graphs.  If an event can't be
                read, nothing is.
        """
        begun = time.perf_counter_ns()
        cache = self._caches[key]
        bad = np.zeros(len(part), bool)
        descriptor, damaged = self._prepare(cache, part, bad)
        damaged += self._verify(cache, part, at, bad)
        checked = time.perf_counter_ns()
        costs = np.array([checked - begun, 0, 0, 0, 0, 0], np.int64)
        batch: Batch = {}
        strips: dict[str, dict[str, tuple[NDArray[Any], tuple[int, ...]]]] = {}
        while not (bounds and bad.any()):
            here = np.flatnonzero(~bad)
            if not len(here):
                batch = {form.name: _no_events(form, allocate) for form in cache.table.forms}
                break
            guarded = self._guarded and cache.table.mapped
            if len(here) < len(part):
                some = {path: (start[here], count[here]) for path, (start, count) in runs.items()}
                job = _Fetch(cache, part[here], at[here], some, descriptor, guarded, allocate, ())
            else:
                job = _Fetch(cache, part, at, runs, descriptor, guarded, allocate, bounds)
            arrays = {form.name: job.arrays(form) for form in cache.table.forms}
            if bounds:
                strips = {form.name: job.with_edges(form, arrays[form.name]) for form in cache.table.forms}
            else:
                batch = {form.name: structured(form, arrays[form.name], len(here)) for form in cache.table.forms}
            costs[3] += job.bytes
            if not job.lost.any():
                break
            damaged += job.lost_blocks()
            bad[here[job.lost]] = True
        costs[2] = time.perf_counter_ns() - checked
        return Fetched(batch, strips, bad, sorted(set(damaged)), costs)

    # ---- files -----------------------------------------------------------------------------------------------------

    def _prepare(
        self, cache: _Opened, part: Ints, bad: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int32] | None, list[tuple[int, int]]]:
        """Open the parts of events; returns their descriptors, or None where all of them are in memory."""
        if (cache.base[part] != 0).all():
            return None, []
        descriptor = np.full(len(cache.base), -1, np.int32)
        failed: list[tuple[int, int]] = []
        numbers = np.unique(part).tolist()
        for number in numbers:
            if cache.base[number]:
                continue
            try:
                if number in cache.failed:
                    raise SourceError("")
                descriptor[number] = self._open_part(cache, number, len(numbers))
            except SourceError:
                cache.failed.add(number)
                failed.append((number, -1))
                bad[part == number] = True
        return descriptor if (descriptor >= 0).any() else None, failed

    def _open_part(self, cache: _Opened, number: int, needed: int) -> int:
        """Map a part, or open it; returns its descriptor, or -1 where it is in memory now.

        Raises:
            SourceError: It is gone, or is not the file that it was.
        """
        part = cache.parts[number]
        if part.slot >= 0:
            cache.base[number] = self._views[cache.table.key].address(part.slot, part.bytes)
            return -1
        path = os.path.join(cache.table.directory, part.name)
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path]
        while len(self._open) >= max(self._most_open, needed):
            os.close(self._open.popitem(last=False)[1])
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise SourceError(f"can't open {path!r}: {os.strerror(error.errno or 0)}", file=path) from error
        if os.fstat(descriptor).st_size < part.bytes:
            os.close(descriptor)
            raise SourceError(f"{path!r} is shorter than it was", file=path)
        if self._guarded and cache.table.mapped and not on_network(descriptor):
            try:
                address = map_file(descriptor, part.bytes)
            except OSError as error:
                if error.errno not in (errno.ENOMEM, errno.ENODEV):  # so many mappings, or a file system without
                    raise
            else:
                self._maps[path] = (address, part.bytes)
                os.close(descriptor)
                cache.base[number] = address
                return -1
        self._open[path] = descriptor
        return descriptor

    # ---- checksums -------------------------------------------------------------------------------------------------

    def _verify(self, cache: _Opened, part: Ints, at: Ints, bad: NDArray[np.bool_]) -> list[tuple[int, int]]:
        """Compare the checksums of blocks that nobody has looked at yet; returns all blocks that are damaged."""
        here = np.flatnonzero(~bad)
        block = cache.first_block[part[here]] + at[here] // cache.block_events[part[here]]
        state = cache.verified[block]
        if (state == _RIGHT).all():
            return []
        damaged = []
        for number in np.unique(block[state != _RIGHT]).tolist():
            of = int(part[here][block == number][0])
            which = number - int(cache.first_block[of])
            if cache.verified[number] != _DAMAGED:  # else a reader found it while this batch was on its way
                cache.verified[number] = _RIGHT if self._is_right(cache, of, which) else _DAMAGED
            if cache.verified[number] == _DAMAGED:
                damaged.append((of, which))
        bad[here] = cache.verified[block] == _DAMAGED
        return damaged

    def _is_right(self, cache: _Opened, number: int, block: int) -> bool:
        """Whether the bytes of a block are those that were written.

        They are read rather than mapped, so that those that are not in memory yet come in one piece.
        """
        part, directory = cache.parts[number], cache.table.directory
        if part.slot >= 0:
            return True
        try:
            if number not in cache.sums:
                cache.sums[number] = part.read(f"{BOOKS}/checksums", directory)
                for path in part.columns:
                    cache.edges[number, path] = part.edges(path, directory)
            expected = cache.sums[number][block]
            descriptor = os.open(os.path.join(directory, part.name), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            for path, sum_ in zip(part.columns, expected.tolist()):
                low, high = cache.edges[number, path][block : block + 2].tolist()
                # A data set without rows has no place in the file.
                data = _read(descriptor, part.stored[path].offset + low, high - low) if high > low else b""
                if len(data) != high - low or xxhash.xxh3_64_intdigest(data) != sum_:
                    return False
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True


class _Fetch:
    """One batch on its way."""

    def __init__(
        self,
        cache: _Opened,
        part: Ints,
        at: Ints,
        runs: Mapping[str, tuple[Ints, Ints]],
        descriptor: NDArray[np.int32] | None,
        guarded: bool,
        allocate: Allocate,
        bounds: Sequence[int],
    ) -> None:
        self._cache = cache
        self._bounds = bounds or (0, len(part))
        self._part, self._at, self._runs = part, at, runs
        self._descriptor = None if descriptor is None else descriptor[part]
        self._guarded = guarded
        self._allocate = allocate
        self.lost: NDArray[np.bool_] = np.zeros(len(part), bool)
        self.bytes = 0

    def lost_blocks(self) -> list[tuple[int, int]]:
        """Return the blocks of events that were right once and could not be read now."""
        lost = np.flatnonzero(self.lost)
        blocks = self._at[lost] // self._cache.block_events[self._part[lost]]
        return sorted(set(zip(self._part[lost].tolist(), blocks.tolist())))

    def with_edges(
        self, form: ArrayForm, arrays: dict[str, NDArray[Any]]
    ) -> dict[str, tuple[NDArray[Any], tuple[int, ...]]]:
        """Return arrays with the first row of each batch."""
        bounds = tuple(self._bounds)
        if form.kind in ("dense", "padded"):
            return {part: (array, bounds) for part, array in arrays.items()}
        first = offsets_of(self._runs[f"{form.path}/offsets"][1])
        rows = tuple(first[list(bounds)].tolist())
        shifted = tuple(bound + number for number, bound in enumerate(bounds))
        return {part: (array, shifted if part == "offsets" else rows) for part, array in arrays.items()}

    def arrays(self, form: ArrayForm) -> dict[str, NDArray[Any]]:
        """Read the arrays that something of the batch consists of, by the names that its class gives them."""
        if form.kind == "dense":
            return {"": self._dense(form)}
        name, events = form.path, len(self._part)
        if form.kind == "padded":
            values = self._allocate(form.dtype, (events, *form.shape))
            mask = self._allocate("|b1", (events, *form.shape[:1]))
            self._rows(f"{name}/values", values)
            self._rows(f"{name}/mask", mask)
            return {"values": values, "mask": mask}
        path = f"{name}/offsets"
        _, counts = self._runs[path]
        total = int(counts.sum())
        if form.kind == "jagged":
            values = self._allocate(form.dtype, (total, *form.shape))
            self._rows(f"{name}/values", values, path)
            return {"values": values, "offsets": self._offsets(counts)}
        if form.kind == "sparse":
            features = self._allocate(form.dtype, (total, *form.shape))
            self._rows(f"{name}/values", features, path)
            indices = self._allocate("<i4", (total, 1 + len(form.grid)))
            self._sites(form, indices, counts)
            return {"features": features, "indices": indices}
        edges = self._allocate("<i4", (total, 2))
        self._rows(f"{name}/edges", edges, path)
        offsets = self._offsets(self._runs[f"{name}/nodes"][1])
        shift = np.repeat(offsets[:-1], counts)[:, None]
        edge_index = (edges + shift).T.astype(np.int64)
        return {"edge_index": edge_index, "offsets": offsets, "edge_offsets": self._offsets(counts)}

    def _offsets(self, counts: Ints) -> Ints:
        """Return the offsets of each batch, one after another."""
        offsets = self._allocate("<i8", (len(counts) + len(self._bounds) - 1,))
        for number, (low, high) in enumerate(pairwise(self._bounds)):
            offsets[low + number] = 0
            np.cumsum(counts[low:high], out=offsets[low + number + 1 : high + number + 1])
        return offsets

    def _sites(self, form: ArrayForm, indices: NDArray[Any], counts: Ints) -> None:
        path = f"{form.path}/coords"
        cells, _memory = self._columns(path, f"{form.path}/offsets")
        width = self._cache.columns[path].row_bytes
        guarded = self._guarded and self._descriptor is None
        address = indices.ctypes.data
        for low, high in pairwise(self._bounds):
            some = slice(low, high)
            faults = _cache.unravel(cells[some], counts[some], form.grid, width, address, 0, guarded)
            self._fault(faults, some)
            address += int(counts[some].sum()) * indices.strides[0]

    def _dense(self, form: ArrayForm) -> NDArray[Any]:
        """Read a dense array, of which some parts keep rows and some cells."""
        made = self._allocate(form.dtype, (len(self._part), *form.shape))
        if f"{form.path}/coords" not in self._cache.columns:
            self._rows(form.path, made)
            return made
        as_cells = self._cache.columns[f"{form.path}/coords"].offset[self._part] >= 0
        if as_cells.all():
            self._images(form, made, slice(None))
        else:
            self._images(form, made, np.flatnonzero(as_cells))
            here = np.flatnonzero(~as_cells)
            place = (here * form.row_bytes).astype(np.uint64)
            self._runs_of(form.path, here, self._at[here], np.full(len(here), form.row_bytes), place, made)
        return made

    def _images(self, form: ArrayForm, made: NDArray[Any], here: Any) -> None:
        path = f"{form.path}/offsets"
        counts = self._runs[path][1][here]
        cells, _cells_memory = self._columns(f"{form.path}/coords", path, here)
        values, _values_memory = self._columns(f"{form.path}/values", path, here)
        step = np.arange(len(made), dtype=np.uint64)[here] * np.uint64(form.row_bytes)
        images = np.uint64(made.ctypes.data) + step
        width, item = cell_type(form.items).itemsize, np.dtype(form.dtype).itemsize
        guarded = self._guarded and self._descriptor is None
        self._fault(_cache.densify(cells, values, counts, images, form.items, width, item, guarded), here)

    def _rows(self, path: str, made: NDArray[Any], by: str = "") -> None:
        """Read the rows of all events, one after another, into an array."""
        column = self._cache.columns[path]
        start, counts = self._runs[by] if by else (self._at, None)
        self.bytes += made.nbytes
        if self._descriptor is None:
            base, address = self._cache.base, made.ctypes.data
            faults = _cache.gather(
                base, column.offset, self._part, start, counts, column.row_bytes, address, self._guarded
            )
            self._fault(faults, slice(None))
            return
        sizes = np.full(len(start), column.row_bytes) if counts is None else counts * column.row_bytes
        self._runs_of(path, slice(None), start, sizes, (np.cumsum(sizes) - sizes).astype(np.uint64), made)

    def _runs_of(
        self, path: str, here: Any, start: Ints, sizes: Ints, place: NDArray[np.uint64], made: NDArray[Any]
    ) -> None:
        """Read runs of rows of some events to bytes of an array."""
        column = self._cache.columns[path]
        offset = column.offset[self._part[here]] + start * column.row_bytes
        self._read(here, offset, sizes, np.uint64(made.ctypes.data) + place)

    def _columns(self, path: str, by: str, here: Any = slice(None)) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
        """Return addresses of events' rows: where they are mapped, or in memory that they are read to."""
        column = self._cache.columns[path]
        start, counts = self._runs[by]
        sizes = counts[here] * column.row_bytes
        self.bytes += int(sizes.sum())
        part, start = self._part[here], start[here]
        if self._descriptor is None:
            found = _cache.locate(self._cache.base, column.offset, part, start, column.row_bytes)
            return found, np.empty(0, np.uint8)
        first = offsets_of((sizes + 15) // 16 * 16)
        memory = np.zeros(int(first[-1]) + 16, np.uint8)
        target = np.uint64(memory.ctypes.data) + first[:-1].astype(np.uint64)
        self._read(here, column.offset[part] + start * column.row_bytes, sizes, target)
        return target, memory

    def _read(self, here: Any, offset: Ints, sizes: Ints, target: NDArray[np.uint64]) -> None:
        base = self._cache.base[self._part[here]]
        descriptor = np.full(len(base), -1, np.int32) if self._descriptor is None else self._descriptor[here]
        mapped = base != 0  # some parts may be mapped, or in shared memory, while others are not
        faults = np.zeros(len(sizes), np.uint8)
        if mapped.any():
            source = (base + offset.astype(np.uint64))[mapped]
            faults[mapped] = _cache.copy_runs(source, target[mapped], sizes[mapped], self._guarded)
        rest = ~mapped & (descriptor >= 0)
        if rest.any():
            errors = _cache.read_runs(descriptor[rest], offset[rest], sizes[rest], target[rest])
            faults[rest] = errors != 0
        self._fault(faults, here)

    def _fault(self, faults: NDArray[np.uint8], here: Any) -> None:
        if faults.any():
            self.lost[np.arange(len(self._part))[here][faults != 0]] = True


def _no_events(form: ArrayForm, allocate: Allocate) -> Any:
    """Return an array of no events; perhaps no part is known yet that says where it lies."""
    values = allocate(form.dtype, (0, *form.shape))
    offsets = np.zeros(1, np.int64)
    if form.kind == "padded":
        return Padded(values, allocate("|b1", (0, *form.shape[:1])))
    if form.kind == "sparse":
        return Sparse(values, allocate("<i4", (0, 1 + len(form.grid))), form.grid, 0)
    if form.kind == "jagged":
        return Jagged(values, offsets)
    return Graph(np.empty((2, 0), np.int64), offsets, offsets.copy()) if form.kind == "graph" else values


def slot_bytes(forms: tuple[ArrayForm, ...]) -> dict[str, int]:
    """Return how many bytes of a slot a batch takes at most.

    Returns:
        ``""``: for each event; path of offsets: for each row of the events; ``"aligned"``: for the batch.
    """
    sizes = {"": 2 * 8 + 4, "aligned": 2 * aligned(1)}  # events and weights
    for form in forms:
        sizes["aligned"] += 3 * aligned(1) + 2 * 8 * _MOST_BATCHES  # of at most 3 arrays, each on a line of its own
        if form.kind in ("dense", "padded"):
            sizes[""] += form.row_bytes + (form.shape[0] if form.kind == "padded" else 0)
            path = f"{form.path}/offsets"  # of images that are kept as cells
            sizes[path] = 0
            continue
        sizes[""] += 2 * 8
        sizes[f"{form.path}/nodes"] = 0
        sizes[f"{form.path}/offsets"] = form.row_bytes + 4 * (1 + len(form.grid)) * (form.kind == "sparse")
    return sizes


def _longer(array: NDArray[Any], size: int, fill: int = 0) -> NDArray[Any]:
    longer = np.full(size, fill, array.dtype)
    longer[: len(array)] = array
    return longer


def _read(descriptor: int, offset: int, size: int) -> bytes:
    data = os.pread(descriptor, size, offset)
    while 0 < len(data) < size:
        more = os.pread(descriptor, size - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def _close_all(opened: OrderedDict[str, int], maps: dict[str, tuple[int, int]]) -> None:
    for descriptor in opened.values():
        os.close(descriptor)
    opened.clear()
    for address, size in maps.values():
        unmap(address, size)
    maps.clear()
