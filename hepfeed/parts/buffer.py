"""Events that wait to be written as a part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from hepfeed.parts.columns import EventColumns, Storage, choose_storage, encode
from hepfeed.parts.form import ArrayForm
from hepfeed.tensors import Batch

__all__ = ["EventBuffer"]

Ints = NDArray[np.int64]
_BLOCK_BYTES = 64 << 10


@dataclass
class EventBuffer:
    """Encoded events of some batches, for one part.

    Attributes:
        forms: The arrays of a batch.
        rows: Path -> arrays, batch after batch.
        counts: Path of offsets -> rows of each event, batch after batch.
        counted_by: Path of ``rows`` -> path of ``counts``, or empty.
        event: ``(n, 2)`` of each batch.
        removed: ``(m, 2)`` of each batch.
        bytes: Of all arrays.
        whole: False where a signal ended :meth:`add` half way: such a buffer must not be written.
    """

    forms: tuple[ArrayForm, ...]
    rows: dict[str, list[NDArray[Any]]] = field(default_factory=dict)
    counts: dict[str, list[Ints]] = field(default_factory=dict)
    counted_by: dict[str, str] = field(default_factory=dict)
    event: list[Ints] = field(default_factory=list)
    removed: list[Ints] = field(default_factory=list)
    bytes: int = 0
    whole: bool = True
    _storage: dict[str, Storage] = field(default_factory=dict)

    @property
    def events(self) -> int:
        """Number of events."""
        return sum(map(len, self.event))

    def add(self, batch: Batch) -> None:
        """Encode the events of a batch, whose arrays have these forms, and keep them."""
        if not len(batch["event"]):
            return
        self.whole = False
        self.event.append(np.array(batch["event"], np.int64))
        for form in self.forms:
            value = batch[form.name]
            storage = self._storage.get(form.name) or self._storage.setdefault(form.name, choose_storage(form, value))
            self._keep(encode(form, value, storage))
        if "weight" in batch:
            self._keep(EventColumns({"weight": np.array(batch["weight"], np.float32)}, {}, {"weight": ""}))
        self.whole = True

    def _keep(self, columns: EventColumns) -> None:
        for path, array in columns.rows.items():
            self.rows.setdefault(path, []).append(array)
            self.bytes += array.nbytes
        for path, count in columns.counts.items():
            self.counts.setdefault(path, []).append(count)
            self.bytes += count.nbytes
        self.counted_by.update(columns.counted_by)

    def shape_of(self, form: ArrayForm) -> tuple[int, ...]:
        """Return the shape that a group's coords count in; empty where it has none."""
        return form.grid or (form.shape if f"{form.path}/coords" in self.rows else ())

    def offsets(self) -> dict[str, Ints]:
        """Return where each event's rows begin, ``(events + 1,)`` by path."""
        return {
            path: np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64)
            for path, counts in self.counts.items()
        }

    def block_events(self) -> int:
        """Return how many events make a block of about 64 KiB."""
        return max(1, min(self.events, _BLOCK_BYTES * self.events // max(1, self.bytes)))

    def checksums(self, block_events: int, offsets: dict[str, Ints]) -> NDArray[np.uint64]:
        """Return the xxh3 of each block's bytes in each column, ``(blocks, columns)``."""
        events = self.events
        ends = np.minimum(np.arange(1, -(-events // block_events) + 1) * block_events, events)
        sums = np.empty((len(ends), len(self.rows)), np.uint64)
        for column, (path, arrays) in enumerate(self.rows.items()):
            by = self.counted_by[path]
            row_bytes = arrays[0].nbytes // len(arrays[0]) if len(arrays[0]) else _row_bytes(arrays[0])
            stops = (offsets[by][ends] if by else ends) * row_bytes
            sums[:, column] = list(_sums(arrays, stops.tolist()))
        return sums


def _row_bytes(array: NDArray[Any]) -> int:
    return int(np.prod(array.shape[1:], dtype=np.int64)) * array.dtype.itemsize


def bytes_of(array: NDArray[Any]) -> memoryview:
    """Return the bytes of a contiguous array."""
    return array.reshape(-1).view(np.uint8).data if array.nbytes else memoryview(b"")


def _sums(arrays: list[NDArray[Any]], stops: list[int]) -> Iterator[int]:
    """Yield the xxh3 of the bytes of arrays, which follow one another, up to each stop."""
    views = iter(map(bytes_of, arrays))
    view, used, at = memoryview(b""), 0, 0
    for stop in stops:
        digest = xxhash.xxh3_64()
        while at < stop:
            if used == len(view):
                view, used = next(views), 0
                continue
            some = view[used : used + stop - at]
            digest.update(some)
            used += len(some)
            at += len(some)
        yield digest.intdigest()
