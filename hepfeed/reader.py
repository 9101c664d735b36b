"""The reader: reads the events of a window, each chunk once, and writes them to their places in the ring.

A reader imports no torch.  It runs in a process of its own (:mod:`hepfeed.worker`) or in the consumer's, with the same
bits.  All that it is told to do may be done again by another reader, so a dead one costs only its present task.
"""

from __future__ import annotations

import errno
import os
import pickle
import random
import resource
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

from hepfeed import _core, hdf5
from hepfeed.errors import CorruptDataError, HepfeedError, ProcessError, SourceError
from hepfeed.hdf5 import ChunkTable, DatasetInfo, SourceTable
from hepfeed.inflaters import register_inflaters
from hepfeed.ring import RingView

__all__ = ["Finish", "Finished", "KeyPlace", "Read", "ReadDone", "Reader", "StreamForm"]

Ints = NDArray[np.int64]
Batch = dict[str, Any]
_ALIGN = 64


@dataclass(frozen=True)
class KeyPlace:
    """Where a key of a batch lies in a slot: ``(batch size, *shape)`` items from byte ``offset``."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def event_bytes(self) -> int:
        """Bytes of one event."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    def view(self, slot: NDArray[np.uint8], events: int) -> NDArray[Any]:
        """Return the key's array in the bytes of a slot."""
        data = slot[self.offset : self.offset + events * self.event_bytes]
        return data.view(self.dtype).reshape((events, *self.shape))


@dataclass(frozen=True)
class StreamForm:
    """What all batches of one loader have in common.

    Attributes:
        keys: Keys as read.
        raw_bytes: Bytes of a slot that they take.
        catalog: Which set of files the file numbers refer to.
        functions: Pickled list of functions on a batch, applied in their order.
        seed: For the functions' random numbers.
        skip_errors: Leave out events for which a function raises.
    """

    keys: tuple[KeyPlace, ...]
    raw_bytes: int
    catalog: str
    functions: bytes
    seed: int
    skip_errors: bool


def place_keys(
    keys: Sequence[tuple[str, np.dtype[Any], tuple[int, ...]]], batch_size: int
) -> tuple[tuple[KeyPlace, ...], int]:
    """Lay out the keys of a batch in a slot, each on a cache line; returns them and the bytes in all."""
    offset = 0
    places = []
    for name, dtype, shape in keys:
        place = KeyPlace(name, dtype.str, shape, offset)
        places.append(place)
        offset += -(-batch_size * place.event_bytes // _ALIGN) * _ALIGN
    return tuple(places), offset


@dataclass(frozen=True)
class Finish:
    """A batch that was read and goes through the user's functions.

    Attributes:
        dropped: Rows that could not be read.
    """

    stream: int
    slot: int
    epoch: int
    index: int
    file: Ints
    row: Ints
    label: Ints
    dropped: Ints


@dataclass
class Finished:
    """The tensors that a batch consists of.

    Attributes:
        tensors: Name -> ``(dtype, shape, byte in the slot)``.
        inline: Name -> anything that is not an array of numbers.
        bytes: Bytes of the slot that are in use.
        failures: Events that were left out: ``(row of the batch, error)``.
    """

    tensors: dict[str, tuple[str, tuple[int, ...], int]]
    inline: dict[str, Any]
    bytes: int
    total_ns: int
    failures: list[tuple[int, HepfeedError]]


@dataclass(frozen=True)
class Read:
    """Events to read, sorted by file and row.

    Attributes:
        slot: ``(n,)`` slot of each event's batch.
        place: ``(n,)`` row in the batch.
        file: ``(n,)`` file in the catalog.
        row: ``(n,)`` row in the file.
        unit: ``(n,)`` unit of events that share chunks, or -1.
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


class Reader:
    """Reads events and runs the user's functions.

    Args:
        ring: Descriptor of the ring, or None for a reader that reads to arrays only.
        alone: Whether it has the process for itself.
    """

    def __init__(self, ring: int | None = None, alone: bool = False) -> None:
        register_inflaters()
        self._ring = None if ring is None else RingView(ring)
        self._alone = alone
        self._chunks = _core.ChunkReader()
        self._catalogs: dict[str, dict[int, SourceTable]] = {}
        self._datasets: dict[tuple[str, int, str], _core.Dataset] = {}
        self._streams: dict[int, StreamForm] = {}
        self._functions: dict[int, list[Callable[[Batch], Batch]] | ProcessError] = {}
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
            self._functions[stream] = pickle.loads(form.functions) if form.functions else []
        except Exception as error:
            self._functions[stream] = ProcessError(
                f"a reader can't load process_fn or transform ({type(error).__name__}: {error}):"
                " define them in an importable module or in the main script"
            )

    def drop_stream(self, stream: int) -> None:
        """Forget a stream and what was kept for it."""
        self._streams.pop(stream, None)
        self._functions.pop(stream, None)
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
        slots, which = np.unique(task.slot, return_inverse=True)
        base = np.array([self._ring.address(slot, form.raw_bytes) for slot in slots.tolist()], np.uint64)[which]
        done = ReadDone(np.zeros(6, np.int64), [])
        at = {
            key.name: base + np.uint64(key.offset) + task.place.astype(np.uint64) * np.uint64(key.event_bytes)
            for key in form.keys
        }
        remembered = np.zeros(len(task.row), bool)
        for unit in np.unique(task.unit).tolist() if self._kept else ():
            if (task.stream, unit) in self._kept:
                here = np.flatnonzero(task.unit == unit)
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

    def _keep(self, form: StreamForm, rows: Ints) -> _Kept:
        arrays = {key.name: np.empty((len(rows), key.event_bytes), np.uint8) for key in form.keys}
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
            addresses: For each key ``(n,)``: where the bytes of each event go.

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
            parts = []
            for number, low, high, descriptor in opened:
                if files[number].datasets[name][0].storage == "library":
                    self._read_library(files[number], name, row, low, high, address, costs, failed)
                else:
                    parts.append((self._dataset(catalog, number, name), descriptor, low, high))
            if not parts:
                continue
            cost, failures = self._chunks.read(parts, row, address)
            costs += cost
            for i, fault, offset, error_number in failures:
                source = files[next(number for number, low, high, _ in opened if low <= i < high)]
                info = source.datasets[name][0]
                failed.setdefault(i, _read_error(source.path, info, int(row[i]), fault, offset, error_number))

    def _read_library(
        self,
        source: SourceTable,
        name: str,
        row: Ints,
        low: int,
        high: int,
        address: NDArray[np.uint64],
        costs: Ints,
        failed: dict[int, HepfeedError],
    ) -> None:
        """Read a run of one file through h5py; where that fails, event by event to find which."""
        begun = time.perf_counter_ns()
        order = low + np.argsort(row[low:high], kind="stable")
        path, (info, _, dtype) = source.path, source.datasets[name]

        def deliver(places: Ints) -> None:
            values = np.ascontiguousarray(hdf5.read_rows(path, info.key, row[places]), dtype=dtype)
            flat = values.reshape(len(places), -1).view(np.uint8).reshape(len(places), -1)
            _core.copy_rows(row_addresses(flat), address[places], flat.shape[1])
            costs[3] += flat.nbytes

        try:
            deliver(order)
        except (HepfeedError, OSError, RuntimeError):
            for i in order.tolist():
                try:
                    deliver(np.array([i]))
                except HepfeedError as error:
                    failed.setdefault(i, _with_event(error, int(row[i])))
                except (OSError, RuntimeError) as error:
                    failed.setdefault(
                        i,
                        CorruptDataError(
                            f"HDF5 can't read event {row[i]} of key {info.key!r} in {path!r} ({error}): produce the"
                            " file again, or leave such events out with on_error='skip'",
                            file=path,
                            key=info.key,
                            event=int(row[i]),
                        ),
                    )
        costs[0] += time.perf_counter_ns() - begun

    def _dataset(self, catalog: str, number: int, name: str) -> _core.Dataset:
        key = (catalog, number, name)
        dataset = self._datasets.get(key)
        if dataset is None:
            dataset = self._datasets[key] = native_dataset(*self._catalogs[catalog][number].datasets[name])
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

    # ---- the user's functions --------------------------------------------------------------------------------------

    def finish(self, task: Finish) -> Finished:
        """Run the functions on a batch that was read, and leave their tensors in its slot."""
        assert self._ring is not None
        begun = time.perf_counter_ns()
        form = self._streams[task.stream]
        events = len(task.row)
        size = max(form.raw_bytes, 1)
        slot = self._ring.bytes(task.slot, size)
        batch: Batch = {key.name: key.view(slot, events) for key in form.keys}
        event = np.stack([task.file, task.row], 1)
        batch["label"], batch["event"] = task.label.copy(), event.copy()
        whole = np.ones(events, bool)
        whole[task.dropped] = False
        if not whole.all():
            batch = {name: values[whole] for name, values in batch.items()}
        result, failed = self._process(form, task, batch, event[whole])
        outside = np.flatnonzero(whole)
        tensors, inline, used = self._place(task.slot, slot, result, size)
        failures = [(int(outside[i]), error) for i, error in failed]
        return Finished(tensors, inline, used, time.perf_counter_ns() - begun, failures)

    def _process(
        self, form: StreamForm, task: Finish, batch: Batch, event: Ints
    ) -> tuple[Batch, list[tuple[int, HepfeedError]]]:
        functions = self._functions[task.stream]
        if isinstance(functions, ProcessError):
            raise functions
        purpose: tuple[int | str, ...] = ("process", form.seed, task.epoch, task.index)
        try:
            return apply_functions(functions, batch, purpose, not self._alone), []
        except Exception as error:
            first = error
        # Which event is it?  Read them again, for a function may have changed its batch in place, and try one by one.
        label = task.label[np.isin(np.arange(len(task.label)), task.dropped, invert=True)]
        batch = self._read_again(form, event, label)
        good: list[Batch] = []
        bad: list[tuple[int, HepfeedError]] = []
        for i, (file, row) in enumerate(event.tolist()):
            one = {name: values[i : i + 1] for name, values in batch.items()}
            try:
                good.append(apply_functions(functions, one, (*purpose, i), not self._alone))
            except Exception as error:
                failure = _process_error(error, self._catalogs[form.catalog][file].path, row)
                if not form.skip_errors:
                    raise failure from error
                bad.append((i, failure))
        if not bad or not good:  # it raises for the batch as a whole
            file, row = event[0].tolist() if len(event) else (int(task.file[0]), None)
            raise _process_error(first, self._catalogs[form.catalog][file].path, row) from first
        return {name: np.concatenate([np.asarray(part[name]) for part in good]) for name in good[0]}, bad

    def _read_again(self, form: StreamForm, event: Ints, label: Ints) -> Batch:
        order = np.lexsort((event[:, 1], event[:, 0]))
        fresh: Batch = {key.name: np.empty((len(event), *key.shape), key.dtype) for key in form.keys}
        addresses = {name: row_addresses(array)[order] for name, array in fresh.items()}
        self.read_events(form.catalog, event[order, 0], event[order, 1], addresses)
        return {**fresh, "label": label, "event": event}

    def _place(
        self, slot_number: int, slot: NDArray[np.uint8], result: Batch, used: int
    ) -> tuple[dict[str, tuple[str, tuple[int, ...], int]], dict[str, Any], int]:
        """Put arrays into the slot, behind what was read; those that still lie there are left where they are."""
        assert self._ring is not None
        start = slot.ctypes.data
        tensors: dict[str, tuple[str, tuple[int, ...], int]] = {}
        inline: dict[str, Any] = {}
        moving: list[tuple[NDArray[Any], int]] = []
        for name, value in result.items():
            array = value if isinstance(value, np.ndarray) else _as_array(value)
            if array is None or array.dtype.kind not in "biufc" or array.dtype.itemsize > 16:
                inline[name] = value
                continue
            array = array.astype(array.dtype.newbyteorder("="), copy=False)
            at = array.ctypes.data - start
            if array.flags.c_contiguous and 0 <= at <= len(slot) - array.nbytes and array.nbytes:
                tensors[name] = (array.dtype.str, array.shape, at)
                continue
            used = -(-used // _ALIGN) * _ALIGN
            tensors[name] = (array.dtype.str, array.shape, used)
            moving.append((array, used))
            used += array.nbytes
        if moving:
            target = self._ring.bytes(slot_number, used)
            for array, at in moving:
                if array.flags.c_contiguous:
                    there = np.array([target.ctypes.data + at], np.uint64)
                    _core.copy_rows(np.array([array.ctypes.data], np.uint64), there, array.nbytes)
                else:
                    target[at : at + array.nbytes].view(array.dtype).reshape(array.shape)[...] = array
        return tensors, inline, used


def _close_files(opened: OrderedDict[str, int]) -> None:
    for descriptor in opened.values():
        os.close(descriptor)
    opened.clear()


def apply_functions(
    functions: list[Callable[[Batch], Batch]], batch: Batch, purpose: tuple[int | str, ...], restore: bool = True
) -> Batch:
    """Apply functions in their order.

    NumPy's and Python's global random numbers, which such functions use, depend on ``purpose`` alone meanwhile.

    Args:
        functions: Each takes and returns a dict of arrays.
        batch: What the first one gets.
        purpose: Seed, epoch and batch.
        restore: Put the global random numbers back, as must be where they are also the user's.

    Raises:
        TypeError: A function returns something else than a dict.
    """
    before = (np.random.get_state(), random.getstate()) if restore else None  # noqa: NPY002
    number = xxhash.xxh3_64_intdigest(repr(purpose).encode()) % 2**32
    np.random.seed(number)  # noqa: NPY002
    random.seed(number)
    try:
        for function in functions:
            result: object = function(batch)
            if not isinstance(result, dict):
                name = getattr(function, "__name__", repr(function))
                raise TypeError(f"{name} must return a dict of arrays, not {type(result).__name__}")
            batch = result
        return batch
    finally:
        if before is not None:
            np.random.set_state(before[0])  # noqa: NPY002
            random.setstate(before[1])


def native_dataset(info: DatasetInfo, table: ChunkTable, dtype: str) -> _core.Dataset:
    """Make the native form of a data set that is delivered as ``dtype``."""
    stored, out = np.dtype(info.dtype), np.dtype(dtype)
    return _core.Dataset(
        shape=info.shape,
        type=_type_code(stored),
        item=stored.itemsize,
        out_type=_type_code(out),
        out_item=out.itemsize,
        swap=not stored.isnative,
        offset=info.offset,
        chunk=info.chunk if info.storage == "chunked" else (),
        filters=info.filters if info.storage == "chunked" else (),
        fill=info.fill,
        chunk_offset=table.offset,
        chunk_size=table.size,
        chunk_mask=table.mask,
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


def _process_error(error: Exception, path: str, event: int | None) -> ProcessError:
    import traceback

    text = "".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip()
    which = "" if event is None else f" on event {event} of {path!r}"
    return ProcessError(f"process_fn raised {type(error).__name__}: {error}{which}\n\n{text}", file=path, event=event)
