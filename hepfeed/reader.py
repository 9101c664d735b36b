"""The reader: reads the events of a window, each chunk once, and writes them to their places in the ring.

A reader imports no torch.  It runs in a process of its own (:mod:`hepfeed.worker`) or in the consumer's, with the same
bits.  All that it is told to do may be done again by another reader, so a dead one costs only its present task.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import math
import os
import pickle
import resource
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hepfeed import _core, hdf5
from hepfeed.draws import Draws
from hepfeed.errors import CorruptDataError, HepfeedError, ProcessError, SourceError
from hepfeed.hdf5 import ChunkTable, DatasetInfo, SourceTable
from hepfeed.inflaters import register_inflaters
from hepfeed.ring import RingView
from hepfeed.tensors import Batch, Jagged, Structured, concatenate, take

if TYPE_CHECKING:  # what the steps need is imported where a pipeline comes
    from hepfeed.pipeline import Pipeline

__all__ = ["Finish", "Finished", "KeyPlace", "Read", "ReadDone", "Reader", "StreamForm"]

Ints = NDArray[np.int64]
Counts = Mapping[str, Ints]
"""Rows of each event, for each set of jagged keys that have them in common."""
_ALIGN = 64
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


@dataclass(frozen=True)
class KeyPlace:
    """Where a key of a batch lies in a slot: ``(batch size, *shape)`` items from byte ``offset``.

    Attributes:
        name: In the batch.
        dtype: NumPy code.
        shape: Of one event; of jagged keys, of one row.
        offset: Byte in the slot; of jagged keys it depends on the batch, see :meth:`StreamForm.offsets`.
        rows: Empty for dense keys; jagged keys of the same name here have their rows in common.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    rows: str = ""

    @property
    def row_bytes(self) -> int:
        """Bytes of one event; of jagged keys, of one row."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    def view(self, slot: NDArray[np.uint8], rows: int, offset: int | None = None) -> NDArray[Any]:
        """Return the key's array in the bytes of a slot."""
        at = self.offset if offset is None else offset
        data = slot[at : at + rows * self.row_bytes]
        return data.view(self.dtype).reshape((rows, *self.shape))


@dataclass(frozen=True)
class StreamForm:
    """What all batches of one loader have in common.

    Attributes:
        keys: Keys as read.
        dense_bytes: Bytes of a slot that the dense ones take; the jagged ones follow.
        catalog: Which set of files the file numbers refer to.
        pipeline: Pickled :class:`~hepfeed.pipeline.Pipeline`; empty where there are no steps.
        seed: For random numbers.
        skip_errors: Leave out events for which a step raises.
    """

    keys: tuple[KeyPlace, ...]
    dense_bytes: int
    catalog: str
    pipeline: bytes
    seed: int
    skip_errors: bool

    def offsets(self, totals: Mapping[str, int]) -> tuple[dict[str, int], int]:
        """Return where each jagged key of a batch begins in its slot, and the bytes of the slot.

        Args:
            totals: Rows of all events of the batch together, by :attr:`KeyPlace.rows`.
        """
        at, used = {}, self.dense_bytes
        for key in self.keys:
            if key.rows:
                at[key.name] = used
                used = _aligned(used + totals[key.rows] * key.row_bytes)
        return at, max(used, 1)

    def arrays(self, slot: NDArray[np.uint8], events: int, counts: Counts) -> Batch:
        """Return the keys of a batch in the bytes of its slot.

        Args:
            slot: The bytes.
            events: Of the batch.
            counts: Rows of each of them, ``(events,)`` for each set of jagged keys.
        """
        offsets = {rows: _offsets(count) for rows, count in counts.items()}
        at, _ = self.offsets({rows: int(each[-1]) for rows, each in offsets.items()})
        batch: Batch = {}
        for key in self.keys:
            if key.rows:
                offset = offsets[key.rows]
                batch[key.name] = Jagged(key.view(slot, int(offset[-1]), at[key.name]), offset)
            else:
                batch[key.name] = key.view(slot, events)
        return batch


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGN) * _ALIGN


def _offsets(counts: Ints) -> Ints:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def place_keys(
    keys: Sequence[tuple[str, np.dtype[Any], tuple[int, ...], str]], batch_size: int
) -> tuple[tuple[KeyPlace, ...], int]:
    """Lay out the keys of a batch in a slot, each on a cache line; returns them and the bytes of the dense ones.

    Args:
        keys: Name, dtype, shape and rows, as in :class:`KeyPlace`.
        batch_size: Most events of a batch.
    """
    offset = 0
    places = []
    for name, dtype, shape, rows in keys:
        place = KeyPlace(name, dtype.str, shape, -1 if rows else offset, rows)
        places.append(place)
        if not rows:
            offset = _aligned(offset + batch_size * place.row_bytes)
    return tuple(places), offset


@dataclass(frozen=True)
class Finish:
    """A batch that was read and goes through the pipeline.

    Attributes:
        dropped: Rows that could not be read.
        counts: Rows of each event, for each set of jagged keys.
        weight: ``(n,)``, where events have weights.
    """

    stream: int
    slot: int
    epoch: int
    index: int
    file: Ints
    row: Ints
    label: Ints
    dropped: Ints
    counts: dict[str, Ints] = field(default_factory=dict)
    weight: NDArray[np.float32] | None = None


@dataclass
class Finished:
    """The tensors that a batch consists of.

    Attributes:
        names: Of the batch, in their order.
        tensors: (name, part) -> ``(dtype, shape, byte in the slot)``; the part is empty for plain arrays.
        structures: Name -> structured arrays, without their contents.
        inline: Name -> anything that is not an array of numbers.
        bytes: Bytes of the slot that are in use.
        failures: Events that were left out: ``(row of the batch, error)``.
        removed: Events that steps took out.
    """

    names: list[str]
    tensors: dict[tuple[str, str], tuple[str, tuple[int, ...], int]]
    structures: dict[str, Structured]
    inline: dict[str, Any]
    bytes: int
    total_ns: int
    failures: list[tuple[int, HepfeedError]]
    removed: int = 0

    def batch(self, memory: NDArray[np.uint8], convert: Callable[[NDArray[Any]], Any]) -> Batch:
        """Return the batch in the bytes of its slot, each array as ``convert`` makes it."""
        parts: dict[str, dict[str, Any]] = {}
        for (name, part), (dtype, shape, at) in self.tensors.items():
            size = math.prod(shape) * np.dtype(dtype).itemsize
            parts.setdefault(name, {})[part] = convert(memory[at : at + size].view(dtype).reshape(shape))
        found: Batch = {}
        for name in self.names:
            if name in self.structures:
                found[name] = self.structures[name].with_arrays(parts.get(name, {}))
            else:
                found[name] = self.inline[name] if name in self.inline else parts[name][""]
        return found


@dataclass(frozen=True)
class Read:
    """Events to read, sorted by file and row.

    Attributes:
        slot: ``(n,)`` slot of each event's batch.
        place: ``(n,)`` row in the batch.
        file: ``(n,)`` file in the catalog.
        row: ``(n,)`` row in the file.
        unit: ``(n,)`` unit of events that share chunks, or -1.
        at: ``(n,)`` rows of earlier events in the batch, for each set of jagged keys.
        totals: ``(n,)`` rows of the event's whole batch, for each set of jagged keys.
        kept: Unit -> rows of it that will be asked for later: decode them now and keep them.
        finish: The batch to finish at once, where these are all its events.
    """

    stream: int
    slot: Ints
    place: Ints
    file: Ints
    row: Ints
    unit: Ints
    kept: dict[int, Ints] = field(default_factory=dict)
    finish: Finish | None = None
    at: dict[str, Ints] = field(default_factory=dict)
    totals: dict[str, Ints] = field(default_factory=dict)


@dataclass
class ReadDone:
    """What reading cost; events that could not be read, ``(slot, place, error)``; the batch if it is finished."""

    costs: NDArray[np.int64]
    failures: list[tuple[int, int, HepfeedError]]
    finished: Finished | None = None


@dataclass
class _Kept:
    """Events of a cut unit that were decoded with the rest of it."""

    rows: Ints
    arrays: dict[str, NDArray[np.uint8]]
    failed: dict[int, HepfeedError]


def max_open_files() -> int:
    """Descriptors that a reader may keep open: half of what the process may have, 256 at most."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 256 if soft == resource.RLIM_INFINITY else max(8, min(256, soft // 2 - 32))


def _keep_freed_memory() -> None:
    """Let the C library keep what arrays free: pages that are given back must be cleared again for every batch."""
    with contextlib.suppress(OSError, AttributeError):  # another C library has other ways
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        library.mallopt(_M_TRIM_THRESHOLD, 128 << 20)


class Reader:
    """Reads events and runs the user's functions.

    Args:
        ring: Descriptor of the ring, or None for a reader that reads to arrays only.
        alone: Whether it has the process for itself.
    """

    def __init__(self, ring: int | None = None, alone: bool = False) -> None:
        register_inflaters()
        if alone:
            _keep_freed_memory()
            gc.freeze()  # what was imported stays: the collector need not look at it again
        self._ring = None if ring is None else RingView(ring)
        self._alone = alone
        self._chunks = _core.ChunkReader()
        self._catalogs: dict[str, dict[int, SourceTable]] = {}
        self._datasets: dict[tuple[str, int, str], _core.Dataset] = {}
        self._streams: dict[int, StreamForm] = {}
        self._pipelines: dict[int, Pipeline | ProcessError | None] = {}
        self._open: OrderedDict[str, int] = OrderedDict()
        weakref.finalize(self, _close_files, self._open)
        self._max_open = max_open_files()
        self._kept: dict[tuple[int, int], _Kept] = {}

    # ---- what the reader knows -------------------------------------------------------------------------------------

    def add_files(self, catalog: str, tables: dict[int, SourceTable]) -> None:
        """Make files of a catalog known."""
        self._catalogs.setdefault(catalog, {}).update(tables)

    def add_stream(self, stream: int, form: StreamForm) -> None:
        """Make a stream known; functions that can't be loaded here are an error of its first batch."""
        self._streams[stream] = form
        try:
            self._pipelines[stream] = pickle.loads(form.pipeline) if form.pipeline else None
        except Exception as error:
            self._pipelines[stream] = ProcessError(
                f"a reader can't load process_fn or transform ({type(error).__name__}: {error}):"
                " define them in an importable module or in the main script"
            )

    def drop_stream(self, stream: int) -> None:
        """Forget a stream and what was kept for it."""
        self._streams.pop(stream, None)
        self._pipelines.pop(stream, None)
        self._kept = {key: kept for key, kept in self._kept.items() if key[0] != stream}

    def close(self) -> None:
        """Close all files."""
        _close_files(self._open)
        if self._ring is not None:
            self._ring.forget()

    # ---- reading ---------------------------------------------------------------------------------------------------

    def read(self, task: Read) -> ReadDone:
        """Read events into the slots of their batches, and finish the batch if that was asked for and all went well."""
        done = self._read(task)
        if task.finish is not None and not done.failures:
            done.finished = self.finish(task.finish)
        return done

    def _read(self, task: Read) -> ReadDone:
        assert self._ring is not None
        form = self._streams[task.stream]
        done = ReadDone(np.zeros(6, np.int64), [])
        at = self._destinations(form, task)
        if task.at:  # events of different lengths are not kept: they are decoded again where a unit was cut
            self._read_all(form, task, at, done)
            return done
        remembered = np.zeros(len(task.row), bool)
        for unit in np.unique(task.unit).tolist() if self._kept else ():
            if (task.stream, unit) in self._kept:
                kept_rows = self._kept[task.stream, unit].rows
                here = np.flatnonzero((task.unit == unit) & np.isin(task.row, kept_rows))
                remembered[here] = True
                self._recall(task, unit, here, at, done)
        if remembered.all():
            return done
        todo = np.flatnonzero(~remembered)
        fresh = [u for u in task.kept if (task.stream, u) not in self._kept and (task.unit[todo] == u).any()]
        kept = {unit: self._keep(form, task.kept[unit]) for unit in fresh}
        file = np.concatenate(
            [task.file[todo], *(np.full(len(k.rows), task.file[task.unit == u][0]) for u, k in kept.items())]
        )
        row = np.concatenate([task.row[todo], *(k.rows for k in kept.values())])
        addresses = {
            key.name: np.concatenate([at[key.name][todo], *(row_addresses(k.arrays[key.name]) for k in kept.values())])
            for key in form.keys
        }
        order = np.argsort(file, kind="stable")
        costs, failed = self.read_events(
            form.catalog, file[order], row[order], {name: a[order] for name, a in addresses.items()}
        )
        done.costs += costs
        for request, error in failed.items():
            i = int(order[request])
            if i < len(todo):
                done.failures.append((int(task.slot[todo[i]]), int(task.place[todo[i]]), error))
                continue
            for unit, k in kept.items():
                if task.file[task.unit == unit][0] == file[i] and row[i] in k.rows:
                    k.failed[int(row[i])] = error
        self._kept.update(((task.stream, unit), k) for unit, k in kept.items())
        return done

    def _destinations(self, form: StreamForm, task: Read) -> dict[str, NDArray[np.uint64]]:
        """Addresses of each event's items, for each key."""
        assert self._ring is not None
        slots, one, which = np.unique(task.slot, return_index=True, return_inverse=True)
        bases, starts = [], []
        for slot, event in zip(slots.tolist(), one.tolist()):
            offsets, size = form.offsets({rows: int(totals[event]) for rows, totals in task.totals.items()})
            bases.append(self._ring.address(slot, size))
            starts.append(offsets)
        base = np.array(bases, np.uint64)[which]
        places = {}
        for key in form.keys:
            if key.rows:
                start = np.array([offsets[key.name] for offsets in starts], np.int64)[which]
                step = task.at[key.rows]
            else:
                start, step = np.full(len(which), key.offset), task.place
            places[key.name] = base + (start + step * key.row_bytes).astype(np.uint64)
        return places

    def _read_all(self, form: StreamForm, task: Read, at: Mapping[str, NDArray[np.uint64]], done: ReadDone) -> None:
        order = np.argsort(task.file, kind="stable")
        addresses = {name: address[order] for name, address in at.items()}
        costs, failed = self.read_events(form.catalog, task.file[order], task.row[order], addresses)
        done.costs += costs
        for request, error in failed.items():
            i = int(order[request])
            done.failures.append((int(task.slot[i]), int(task.place[i]), error))

    def _keep(self, form: StreamForm, rows: Ints) -> _Kept:
        arrays = {key.name: np.empty((len(rows), key.row_bytes), np.uint8) for key in form.keys}
        return _Kept(rows, arrays, {})

    def _recall(self, task: Read, unit: int, here: Ints, at: Mapping[str, NDArray[np.uint64]], done: ReadDone) -> None:
        """Copy events that were decoded with an earlier window."""
        begun = time.perf_counter_ns()
        kept = self._kept[task.stream, unit]
        where = np.searchsorted(kept.rows, task.row[here])
        for name, array in kept.arrays.items():
            _core.copy_rows(row_addresses(array)[where], at[name][here], array.shape[1])
        for i in here[np.isin(task.row[here], list(kept.failed))].tolist() if kept.failed else ():
            done.failures.append((int(task.slot[i]), int(task.place[i]), kept.failed[int(task.row[i])]))
        if unit not in task.kept:
            del self._kept[task.stream, unit]
        done.costs[2] += time.perf_counter_ns() - begun

    def read_events(
        self, catalog: str, file: Ints, row: Ints, addresses: Mapping[str, NDArray[np.uint64]]
    ) -> tuple[Ints, dict[int, HepfeedError]]:
        """Read events to addresses in this process.

        Args:
            catalog: Which files ``file`` refers to.
            file: ``(n,)`` sorted.
            row: ``(n,)``.
            addresses: For each key ``(n,)``: where the bytes of each event go; of jagged keys all its rows.

        Returns:
            Costs, as :data:`hepfeed._core.Costs`; and for each event that could not be read its error.
        """
        costs = np.zeros(6, np.int64)
        failed: dict[int, HepfeedError] = {}
        cuts = [0, *(np.flatnonzero(np.diff(file)) + 1).tolist(), len(file)]
        runs = [(int(file[low]), low, high) for low, high in pairwise(cuts) if low < high]
        for first in range(0, len(runs), self._max_open):
            self._read_runs(catalog, runs[first : first + self._max_open], row, addresses, costs, failed)
        return costs, failed

    def _read_runs(
        self,
        catalog: str,
        runs: list[tuple[int, int, int]],
        row: Ints,
        addresses: Mapping[str, NDArray[np.uint64]],
        costs: Ints,
        failed: dict[int, HepfeedError],
    ) -> None:
        """Read runs of events, each of one file; all files fit into the open ones."""
        files = self._catalogs[catalog]
        opened: list[tuple[int, int, int, int]] = []
        for number, low, high in runs:
            try:
                opened.append((number, low, high, self._descriptor(files[number])))
            except SourceError as error:
                for i in range(low, high):
                    failed[i] = _with_event(error, int(row[i]))
        for name, address in addresses.items():
            direct = [run for run in opened if files[run[0]].keys[name].direct]
            if direct:
                self._read_direct(catalog, name, direct, row, address, costs, failed)
        for number, low, high, descriptor in opened:
            groups: dict[tuple[str, str], list[str]] = {}
            for name in addresses:
                table = files[number].keys[name]
                if not table.direct:
                    groups.setdefault((table.info.key, table.column.rows), []).append(name)
            for names in groups.values():
                self._read_shaped(catalog, (number, low, high, descriptor), names, row, addresses, costs, failed)

    def _read_direct(
        self,
        catalog: str,
        name: str,
        runs: list[tuple[int, int, int, int]],
        row: Ints,
        address: NDArray[np.uint64],
        costs: Ints,
        failed: dict[int, HepfeedError],
    ) -> None:
        """Read a key whose rows are delivered as they are, from all files in one call."""
        files = self._catalogs[catalog]
        parts = [(self._dataset(catalog, number, name), fd, low, high) for number, low, high, fd in runs]
        lengths = None
        if files[runs[0][0]].keys[name].column.rows:
            rows, lengths = np.zeros_like(row), np.zeros_like(row)
            for number, low, high, _ in runs:
                rows[low:high], lengths[low:high] = _extents(files[number], name, row[low:high])
            cost, failures = self._chunks.read(parts, rows, address, lengths)
        else:
            cost, failures = self._chunks.read(parts, row, address)
        costs += cost
        for i, fault, offset, error_number in failures:
            source = files[next(number for number, low, high, _ in runs if low <= i < high)]
            info = source.keys[name].info
            failed.setdefault(i, _read_error(source.path, info, int(row[i]), fault, offset, error_number))

    def _read_shaped(
        self,
        catalog: str,
        run: tuple[int, int, int, int],
        names: list[str],
        row: Ints,
        addresses: Mapping[str, NDArray[np.uint64]],
        costs: Ints,
        failed: dict[int, HepfeedError],
    ) -> None:
        """Read keys that are parts of the rows of one data set of one file, or that only h5py can read.

        Where that fails, event by event to find which.
        """
        number, low, high, descriptor = run
        source = self._catalogs[catalog][number]
        order = low + np.argsort(row[low:high], kind="stable")

        def deliver(places: Ints) -> None:
            values, counts = self._rows(catalog, number, descriptor, names, row[places], costs)
            begun = time.perf_counter_ns()
            for name in names:
                table = source.keys[name]
                made = np.ascontiguousarray(table.column.apply(values), table.dtype)
                row_bytes = made.nbytes // max(1, len(made))
                before = (np.cumsum(counts) - counts) * row_bytes
                origin = np.uint64(made.ctypes.data) + before.astype(np.uint64)
                _core.copy_runs(origin, addresses[name][places], counts * row_bytes)
            costs[2] += time.perf_counter_ns() - begun

        try:
            deliver(order)
        except (HepfeedError, OSError, RuntimeError):
            for i in order.tolist():
                try:
                    deliver(np.array([i]))
                except HepfeedError as error:
                    failed.setdefault(i, _with_event(error, int(row[i])))
                except (OSError, RuntimeError) as error:
                    key = source.keys[names[0]].info.key
                    failed.setdefault(
                        i,
                        CorruptDataError(
                            f"HDF5 can't read event {row[i]} of key {key!r} in {source.path!r} ({error}): produce the"
                            " file again, or leave such events out with on_error='skip'",
                            file=source.path,
                            key=key,
                            event=int(row[i]),
                        ),
                    )

    def _rows(
        self, catalog: str, number: int, descriptor: int, names: list[str], events: Ints, costs: Ints
    ) -> tuple[NDArray[Any], Ints]:
        """Return the rows of a data set, of which keys are parts, for events ``(n,)``, and how many each has."""
        source = self._catalogs[catalog][number]
        name = names[0]
        table = source.keys[name]
        column, info = table.column, table.info
        begun = time.perf_counter_ns()
        if column.variable:
            values, found = hdf5.read_rows(source.path, info.key, events)
            assert found is not None
            expected = source.extents[column.rows].count[events]
            wrong = np.flatnonzero(found != expected)
            if wrong.size:
                raise CorruptDataError(
                    f"event {events[wrong[0]]} of key {info.key!r} in {source.path!r} has {found[wrong[0]]} items, but"
                    f" {expected[wrong[0]]} of a key beside it",
                    file=source.path,
                    key=info.key,
                    event=int(events[wrong[0]]),
                )
            costs[0] += time.perf_counter_ns() - begun
            costs[3] += values.nbytes
            return values, found
        starts, counts = _extents(source, name, events)
        if info.storage == "library":
            offsets = _offsets(counts)
            rows = np.arange(int(offsets[-1])) + np.repeat(starts - offsets[:-1], counts)
            parts = [source.keys[each].column.fields for each in names]
            fields = tuple(dict.fromkeys(field for part in parts for field in part)) if all(parts) else ()
            values, _ = hdf5.read_rows(source.path, info.key, rows, fields)
            costs[0] += time.perf_counter_ns() - begun
            costs[3] += values.nbytes
            return values, counts
        values = np.empty((int(counts.sum()), *info.event_shape), info.item)
        before = (np.cumsum(counts) - counts) * info.event_bytes
        address = np.uint64(values.ctypes.data) + before.astype(np.uint64)
        dataset = self._dataset(catalog, number, name)
        cost, failures = self._chunks.read([(dataset, descriptor, 0, len(events))], starts, address, counts)
        costs += cost
        for i, fault, offset, error_number in failures:
            raise _read_error(source.path, info, int(events[i]), fault, offset, error_number)
        return values, counts

    def _dataset(self, catalog: str, number: int, name: str) -> _core.Dataset:
        key = (catalog, number, name)
        dataset = self._datasets.get(key)
        if dataset is None:
            table = self._catalogs[catalog][number].keys[name]
            dtype = table.dtype if table.column.plain else table.info.dtype
            dataset = self._datasets[key] = native_dataset(table.info, table.chunks, dtype)
        return dataset

    def _descriptor(self, source: SourceTable) -> int:
        """Open a file, or find it open; the least recently used one is closed where there are too many.

        Raises:
            SourceError: The file is gone, or is not the one that was indexed.
        """
        descriptor = self._open.get(source.path)
        if descriptor is not None:
            self._open.move_to_end(source.path)
            return descriptor
        while len(self._open) >= self._max_open:
            os.close(self._open.popitem(last=False)[1])
        try:
            descriptor = os.open(source.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            advice = "was it moved or deleted?" if error.errno == errno.ENOENT else "check permissions and mounts"
            raise SourceError(
                f"can't open {source.path!r} any more: {os.strerror(error.errno or 0)}; {advice}",
                file=source.path,
            ) from error
        status = os.fstat(descriptor)
        if (status.st_size, status.st_mtime_ns) != (source.size, source.mtime_ns):
            os.close(descriptor)
            raise SourceError(
                f"{source.path!r} has changed since it was indexed: make the data set anew", file=source.path
            )
        self._open[source.path] = descriptor
        return descriptor

    # ---- the pipeline ----------------------------------------------------------------------------------------------

    def finish(self, task: Finish) -> Finished:
        """Run the pipeline on a batch that was read, and leave its tensors in the slot."""
        assert self._ring is not None
        begun = time.perf_counter_ns()
        form = self._streams[task.stream]
        events = len(task.row)
        _, size = form.offsets({rows: int(count.sum()) for rows, count in task.counts.items()})
        slot = self._ring.bytes(task.slot, size)
        batch = form.arrays(slot, events, task.counts)
        batch.update(_identity(task))
        whole = np.ones(events, bool)
        whole[task.dropped] = False
        here = np.flatnonzero(whole)
        if not whole.all():
            batch = {name: take(values, here) for name, values in batch.items()}
        result, failed = self._process(form, task, batch, here)
        finished = self._place(task.slot, slot, result, size)
        finished.failures = [(int(here[i]), error) for i, error in failed]
        if isinstance(result.get("event"), np.ndarray):
            finished.removed = max(0, len(here) - len(failed) - len(result["event"]))
        finished.total_ns = time.perf_counter_ns() - begun
        return finished

    def _process(
        self, form: StreamForm, task: Finish, batch: Batch, here: Ints
    ) -> tuple[Batch, list[tuple[int, HepfeedError]]]:
        """Run the pipeline; where it raises, on each event alone to find which.

        Args:
            form: Of the stream.
            task: The batch.
            batch: Its arrays.
            here: Which of the task's events are in ``batch``.
        """
        pipeline = self._pipelines[task.stream]
        assert pipeline is not None, "a batch is finished only where there are steps"
        if isinstance(pipeline, ProcessError):
            raise pipeline
        event = np.stack([task.file[here], task.row[here]], 1)
        draws = Draws(form.seed, task.epoch, task.index, event)
        try:
            return pipeline(batch, draws, not self._alone), []
        except Exception as error:
            first = error
        # A function may have changed its batch in place: read the events again.
        batch = self._read_again(form, task, here)
        good: list[Batch] = []
        bad: list[tuple[int, HepfeedError]] = []
        for i, (file, row) in enumerate(event.tolist()):
            alone = np.array([i])
            one = {name: take(values, alone) for name, values in batch.items()}
            try:
                good.append(pipeline(one, draws.take(alone), not self._alone))
            except Exception as error:
                failure = _process_error(error, self._catalogs[form.catalog][file].path, row)
                if not form.skip_errors:
                    raise failure from error
                bad.append((i, failure))
        if not bad or not good:  # it raises for the batch as a whole
            file, row = event[0].tolist() if len(event) else (int(task.file[0]), None)
            raise _process_error(first, self._catalogs[form.catalog][file].path, row) from first
        return {name: concatenate([part[name] for part in good]) for name in good[0]}, bad

    def _read_again(self, form: StreamForm, task: Finish, here: Ints) -> Batch:
        counts = {rows: count[here] for rows, count in task.counts.items()}
        file, row = task.file[here], task.row[here]
        fresh, addresses = empty_batch(form.keys, len(here), counts)
        order = np.lexsort((row, file))
        self.read_events(form.catalog, file[order], row[order], {name: a[order] for name, a in addresses.items()})
        return {**fresh, **{name: values[here] for name, values in _identity(task).items()}}

    def _place(self, slot_number: int, slot: NDArray[np.uint8], result: Batch, used: int) -> Finished:
        """Put arrays into the slot, behind what was read; those that still lie there are left where they are."""
        assert self._ring is not None
        start = slot.ctypes.data
        finished = Finished(list(result), {}, {}, {}, used, 0, [])
        moving: list[tuple[NDArray[Any], int]] = []
        places: dict[tuple[int, int], int] = {}  # arrays that occur twice, as sites do in kernel maps, lie there once
        for name, value in result.items():
            if isinstance(value, Structured):
                finished.structures[name] = value.map(lambda array: np.empty(0, array.dtype))
                parts = value.arrays()
            else:
                array = value if isinstance(value, np.ndarray) else _as_array(value)
                if array is None or array.dtype.kind not in "biufc" or array.dtype.itemsize > 16:
                    finished.inline[name] = value
                    continue
                parts = {"": array}
            for part, given in parts.items():
                array = given.astype(given.dtype.newbyteorder("="), copy=False)
                at = array.ctypes.data - start
                if array.flags.c_contiguous and 0 <= at <= len(slot) - array.nbytes and array.nbytes:
                    finished.tensors[name, part] = (array.dtype.str, array.shape, at)
                    continue
                same = (array.ctypes.data, array.nbytes) if array.flags.c_contiguous and array.nbytes else None
                if same in places:
                    finished.tensors[name, part] = (array.dtype.str, array.shape, places[same])
                    continue
                used = _aligned(used)
                finished.tensors[name, part] = (array.dtype.str, array.shape, used)
                moving.append((array, used))
                if same is not None:
                    places[same] = used
                used += array.nbytes
        if moving:
            target = self._ring.bytes(slot_number, used)
            for array, at in moving:
                if array.flags.c_contiguous:
                    there = np.array([target.ctypes.data + at], np.uint64)
                    _core.copy_rows(np.array([array.ctypes.data], np.uint64), there, array.nbytes)
                else:
                    target[at : at + array.nbytes].view(array.dtype).reshape(array.shape)[...] = array
        finished.bytes = used
        return finished


def _identity(task: Finish) -> Batch:
    """What a batch has beside its keys."""
    made: Batch = {"label": task.label.copy(), "event": np.stack([task.file, task.row], 1)}
    if task.weight is not None:
        made["weight"] = task.weight.copy()
    return made


def empty_batch(keys: Sequence[KeyPlace], events: int, counts: Counts) -> tuple[Batch, dict[str, NDArray[np.uint64]]]:
    """Make arrays for the keys of events; returns them, and the addresses of each event's items."""
    batch: Batch = {}
    addresses: dict[str, NDArray[np.uint64]] = {}
    for key in keys:
        if key.rows:
            offsets = _offsets(counts[key.rows])
            values = np.empty((int(offsets[-1]), *key.shape), key.dtype)
            batch[key.name] = Jagged(values, offsets)
            step = offsets[:-1] * key.row_bytes
        else:
            values = np.empty((events, *key.shape), key.dtype)
            batch[key.name] = values
            step = np.arange(events) * key.row_bytes
        addresses[key.name] = np.uint64(values.ctypes.data) + step.astype(np.uint64)
    return batch, addresses


def _extents(source: SourceTable, name: str, events: Ints) -> tuple[Ints, Ints]:
    """First row and number of rows of events ``(n,)`` of a key."""
    column = source.keys[name].column
    if not column.rows:
        return events, np.ones(len(events), np.int64)
    extents = source.extents[column.rows]
    return extents.start[events], extents.count[events]


def _close_files(opened: OrderedDict[str, int]) -> None:
    for descriptor in opened.values():
        os.close(descriptor)
    opened.clear()


def native_dataset(info: DatasetInfo, chunks: ChunkTable, dtype: str) -> _core.Dataset:
    """Make the native form of a data set whose items are delivered as ``dtype``; compound ones only as stored."""
    stored, out = info.item, hdf5.type_of(dtype)
    chunked = info.storage == "chunked"
    return _core.Dataset(
        shape=info.shape,
        type=_type_code(stored),
        item=stored.itemsize,
        out_type=_type_code(out),
        out_item=out.itemsize,
        swap=stored.names is None and not stored.isnative and dtype != info.dtype,
        offset=info.offset,
        chunk=info.chunk if chunked else (),
        filters=info.filters if chunked else (),
        fill=info.fill,
        chunk_offset=chunks.offset,
        chunk_size=chunks.size,
        chunk_mask=chunks.mask,
    )


def _type_code(dtype: np.dtype[Any]) -> str:
    return "u1" if dtype.kind == "b" else f"{dtype.kind}{dtype.itemsize}"


def row_addresses(rows: NDArray[Any]) -> NDArray[np.uint64]:
    """Addresses of the rows of a contiguous array."""
    step = rows.nbytes // max(1, len(rows))
    return np.uint64(rows.ctypes.data) + np.arange(len(rows), dtype=np.uint64) * np.uint64(step)


def _as_array(value: object) -> NDArray[Any] | None:
    if not hasattr(value, "__array__") and not isinstance(value, int | float | list | tuple):
        return None
    try:
        array: NDArray[Any] = np.asarray(value)
    except ValueError:  # ragged
        return None
    return array


def _with_event(error: HepfeedError, event: int) -> HepfeedError:
    copy = type(error)(error.message, file=error.file, key=error.key, event=event)
    copy.__cause__ = error.__cause__
    return copy


def _read_error(path: str, info: DatasetInfo, event: int, fault: int, offset: int, error_number: int) -> HepfeedError:
    where = f"event {event} of key {info.key!r} in {path!r} (byte {offset} of the file)"
    remedy = "copy or produce the file again, or leave such events out with on_error='skip'"
    if fault == 1 and error_number:
        return SourceError(
            f"can't read {where}: {os.strerror(error_number)}; {remedy}", file=path, key=info.key, event=event
        )
    if fault == 1:
        return CorruptDataError(
            f"the file ends before {where}: it was cut short; {remedy}", file=path, key=info.key, event=event
        )
    what = "does not inflate" if fault == 2 else "fails its fletcher32 checksum"
    return CorruptDataError(f"the chunk of {where} {what}; {remedy}", file=path, key=info.key, event=event)


def _process_error(error: Exception, path: str, event: int | None) -> HepfeedError:
    """Say on which event the pipeline failed."""
    if isinstance(error, HepfeedError) and not isinstance(error, ProcessError):
        found = type(error)(error.message, file=path, key=error.key, event=event)
        found.__cause__ = error
        return found
    import traceback

    text = "".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip()
    which = "" if event is None else f" on event {event} of {path!r}"
    return ProcessError(
        f"process_fn or transform raised {type(error).__name__}: {error}{which}\n\n{text}", file=path, event=event
    )
