"""Reading events of files: every chunk once, from the file's bytes to where the events are wanted.

What HDF5 itself must read, and parts of rows, go by way of arrays of their own.
"""

from __future__ import annotations

import errno
import os
import resource
import time
import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfeed import _core, hdf5
from hepfeed.errors import CorruptDataError, HepfeedError, SourceError
from hepfeed.form import KeyPlace, offsets_of
from hepfeed.hdf5 import ChunkTable, DatasetInfo, SourceTable
from hepfeed.inflaters import register_inflaters

__all__ = ["SourceReader", "max_open_files", "native_dataset", "row_addresses"]

Ints = NDArray[np.int64]


def max_open_files() -> int:
    """Descriptors that a reader may keep open: half of what the process may have, 256 at most."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 256 if soft == resource.RLIM_INFINITY else max(8, min(256, soft // 2 - 32))


class SourceReader:
    """Reads events of files to addresses in this process; keeps files open, and their data sets prepared.

    Args:
        sharers: Readers of this process, which have its descriptors in common.
    """

    def __init__(self, sharers: int = 1) -> None:
        register_inflaters()
        self._chunks = _core.ChunkReader()
        self._catalogs: dict[str, dict[int, SourceTable]] = {}
        self._datasets: dict[tuple[str, int, str], _core.Dataset] = {}
        self._open: OrderedDict[str, int] = OrderedDict()
        weakref.finalize(self, _close_files, self._open)
        self._max_open = max(1, max_open_files() // sharers)

    def add_files(self, catalog: str, tables: dict[int, SourceTable]) -> None:
        """Make files of a catalog known."""
        self._catalogs.setdefault(catalog, {}).update(tables)

    def path(self, catalog: str, number: int) -> str:
        """Return the path of a file."""
        return self._catalogs[catalog][number].path

    def counts(self, catalog: str, file: Ints, row: Ints, keys: Sequence[KeyPlace]) -> dict[str, Ints]:
        """Return the number of rows of events, ``(n,)`` for each :attr:`~hepfeed.form.KeyPlace.rows` of jagged keys."""
        files = self._catalogs[catalog]
        found: dict[str, Ints] = {}
        for name in {key.rows for key in keys if key.rows}:
            found[name] = np.empty(len(row), np.int64)
            for number in np.unique(file).tolist():
                here = file == number
                found[name][here] = _extents(files[number], name, row[here])[1]
        return found

    def close(self) -> None:
        """Close all files."""
        _close_files(self._open)

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
        if any(files[number].keys[name].column.rows for number, _, _, _ in runs):  # files may differ in it
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
            offsets = offsets_of(counts)
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
