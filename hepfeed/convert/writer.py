"""Events into HDF5 files that appear when they are complete."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hepfeed.convert.block import Block, Column, Field, Rows
from hepfeed.errors import CorruptDataError, HepfeedError, ResourceError

__all__ = ["EventWriter", "check_counts", "complete_file"]

# Small beside HDF5's 1 MB chunk cache and a window of events, large beside the cost of a read.
_CHUNK_BYTES = 128 << 10
_MOST_CHUNK_BYTES = 1 << 30  # HDF5 takes less than 4 GB


@contextmanager
def complete_file(path: Path) -> Iterator[h5py.File]:
    """Write an HDF5 file under a hidden name; at the end it is on the disk, and then it gets its own name.

    After an error, or an interruption, the hidden file is removed and what was there before stays.

    Raises:
        ResourceError: The file can't be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        opened = h5py.File(temporary, "w")  # locked: what another process writes now is not taken from it
    except OSError as error:
        raise ResourceError(
            f"could not write {path}: {error}; see that no other conversion writes it, or choose another folder",
            file=str(path),
        ) from error
    try:
        with opened as file:
            yield file
        _synchronise(temporary)
        temporary.replace(path)
        _synchronise(path.parent)
    except HepfeedError:
        raise
    except OSError as error:
        raise ResourceError(
            f"could not write {path}: {error}; free space, or choose another folder", file=str(path)
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _synchronise(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class EventWriter:
    """Appends blocks of events to the data sets of an open file.

    A dense key is the data set ``key (N, *shape)``.  Others are a group ``key`` with a data set for each column,
    ``(T, *shape)``, all events end to end, and ``offsets (N + 1,) int64``: event i owns rows
    ``offsets[i]:offsets[i + 1]``.

    Chunks hold about 128 kB, whole events and rows, and each is compressed once.

    Args:
        file: Open for writing; the caller's.
        fields: The keys.
        events: How many will come at most.
        level: Of deflate; 0 for none.
    """

    def __init__(self, file: h5py.File, fields: dict[str, Field], events: int, level: int) -> None:
        self._file = file
        self._fields = fields
        self._events = 0
        self._counts: dict[str, list[NDArray[np.int64]]] = {}
        self._columns: dict[str, dict[str, _Appender]] = {}
        for key, field in fields.items():
            dense = field.kind == "dense"
            self._columns[key] = {
                name: _Appender(file, f"{key}/{name}".rstrip("/"), column, level, events if dense else 0)
                for name, column in field.columns.items()
            }
            if not dense:
                self._counts[key] = []
                if field.spatial_shape:
                    file[key].attrs["spatial_shape"] = field.spatial_shape
            file[key].attrs.update(field.attributes)

    @property
    def events(self) -> int:
        """Events appended."""
        return self._events

    def append(self, block: Block, events: int, source: str) -> None:
        """Append the values of every key for so many events.

        Raises:
            CorruptDataError: They are not what ``fields`` promise; ``source`` is at fault.
        """
        parts: list[tuple[_Appender, NDArray[Any]]] = []
        for key, field in self._fields.items():
            values = block[key]
            arrays = values.columns if isinstance(values, Rows) else {"": values}
            rows = int(values.counts.sum()) if isinstance(values, Rows) else events
            fits = isinstance(values, Rows) == (field.kind != "dense")
            fits = fits and (not isinstance(values, Rows) or len(values.counts) == events)
            for name, column in field.columns.items():
                array = arrays.get(name)
                if fits and field.kind == "ragged" and rows == 0:
                    continue  # of a source without any row not even the type may be known
                if not fits or array is None or array.shape != (rows, *column.shape) or array.dtype != column.dtype:
                    came = "nothing" if array is None else f"{array.dtype} {array.shape}"
                    raise CorruptDataError(
                        f"expected {events} events of {key!r} as {field} from {source}, got {came}; "
                        "check that all files have the same types and shapes",
                        file=source,
                        key=key,
                    )
                parts.append((self._columns[key][name], array))
        # Only now, so that a block that is refused leaves every key with as many events.
        for appender, array in parts:
            appender.append(array)
        for key, counts in self._counts.items():
            values = block[key]
            assert isinstance(values, Rows)
            counts.append(values.counts)
        self._events += events

    def finish(self) -> None:
        """Write what is left, and the offsets."""
        for columns in self._columns.values():
            for appender in columns.values():
                appender.finish()
        for key, counts in self._counts.items():
            offsets = np.concatenate([np.zeros(1, np.int64), *counts]).cumsum(dtype=np.int64)
            self._file.create_dataset(f"{key}/offsets", data=offsets)


class _Appender:
    """Collects rows of one data set until they fill chunks.

    Args:
        file: Where the data set is made.
        path: Its name.
        column: Type and shape of its rows.
        level: Of deflate; 0 for none.
        most_rows: More rows than that will not come; 0 where it is not known.
    """

    def __init__(self, file: h5py.File, path: str, column: Column, level: int, most_rows: int) -> None:
        row_bytes = max(1, math.prod(column.shape) * column.dtype.itemsize)
        rows = max(1, _CHUNK_BYTES // row_bytes)
        self._chunk_rows = min(rows, most_rows) if most_rows else rows
        row_chunk = list(column.shape)
        while math.prod(row_chunk) * column.dtype.itemsize > _MOST_CHUNK_BYTES:
            axis = row_chunk.index(max(row_chunk))
            row_chunk[axis] = -(-row_chunk[axis] // 2)
        self._dataset = file.create_dataset(
            path,
            (0, *column.shape),
            column.dtype,
            maxshape=(None, *column.shape),
            chunks=(self._chunk_rows, *(max(1, n) for n in row_chunk)),
            **({"compression": "gzip", "compression_opts": level} if level else {}),
        )
        self._waiting: list[NDArray[Any]] = []
        self._waiting_rows = 0

    def append(self, rows: NDArray[Any]) -> None:
        """Take rows; they are written once they fill chunks."""
        if not len(rows):
            return
        # A copy, since a small view would keep the whole block of its source in memory.
        self._waiting.append(rows.copy() if len(rows) < self._chunk_rows else rows)
        self._waiting_rows += len(rows)
        if self._waiting_rows >= self._chunk_rows:
            self._write(self._waiting_rows // self._chunk_rows * self._chunk_rows)

    def finish(self) -> None:
        """Write the last rows."""
        if self._waiting_rows:
            self._write(self._waiting_rows)

    def _write(self, count: int) -> None:
        rows = self._waiting[0] if len(self._waiting) == 1 else np.concatenate(self._waiting)
        first = len(self._dataset)
        self._dataset.resize(first + count, axis=0)
        self._dataset[first:] = rows[:count]
        rest = rows[count:]
        self._waiting = [rest.copy()] if len(rest) else []
        self._waiting_rows = len(rest)


def check_counts(file: h5py.File, fields: dict[str, Field], events: int) -> None:
    """Check that every key of a written file has all events.

    Raises:
        ResourceError: It has not.
    """
    for key, field in fields.items():
        if field.kind == "dense":
            there, rows_there = len(file[key]), True
        else:
            offsets = file[f"{key}/offsets"]
            there = len(offsets) - 1
            rows_there = all(len(file[f"{key}/{name}"]) == offsets[-1] for name in field.columns)
        if there != events or not rows_there:
            raise ResourceError(
                f"expected {events} whole events of {key!r} in {file.filename}, found {there}; "
                "check the disk, and convert again",
                file=file.filename,
                key=key,
            )
