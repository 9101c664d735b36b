"""How an event is stored by a library that has a format of its own: whole arrays, or only the cells that are not 0."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hepfeed.bench.feeds.events import EventSet, Rows
from hepfeed.bench.feeds.side import Side
from hepfeed.tensors import Batch, Jagged

__all__ = ["EVENT", "Field", "Form", "Record", "StoredSide", "delivered", "empty", "label_and_event", "offsets_of"]

EVENT = "event"
"""Name of the array ``(3,) int64`` of every stored event: class number, file, row."""
_SIZE = struct.Struct("<q")
_IMAGE = 64
"""Arrays of fewer cells are stored whole."""

Record = dict[str, NDArray[Any]]
"""Name of a field -> array: one event as it is stored."""


@dataclass(frozen=True)
class Field:
    """An array of a stored event.

    Attributes:
        dtype: In the machine's byte order.
        shape: Of the array; of one row where ``variable``; never ``()``.
        variable: Whether events differ in their number of rows.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    variable: bool

    def decode(self, data: bytes, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Return the array that lies in bytes ``start:stop``; it shares their memory."""
        size = (len(data) if stop is None else stop) - start
        values = np.frombuffer(data, self.dtype, size // self.dtype.itemsize, start)
        return values.reshape(-1, *self.shape) if self.variable else values.reshape(self.shape)


@dataclass(frozen=True)
class Form:
    """What the events of a set look like in a format.

    Attributes:
        shapes: As of :class:`EventSet`.
        jagged: As of :class:`EventSet`.
        sparse: Keys of which only the cells that are not 0 are stored: their numbers in C order, and their values.
    """

    shapes: dict[str, tuple[np.dtype[Any], tuple[int, ...]]]
    jagged: frozenset[str]
    sparse: frozenset[str]

    @classmethod
    def of(cls, events: EventSet, cells: bool) -> Form:
        """Describe the events of a set.

        Args:
            events: The set.
            cells: Whether of images only the cells that are not 0 are stored.
        """
        images = {key for key, (_, shape) in events.shapes.items() if int(np.prod(shape)) >= _IMAGE}
        return cls(events.shapes, events.jagged, frozenset(images - events.jagged if cells else ()))

    @cached_property
    def fields(self) -> dict[str, Field]:
        """By name: ``k0``, ``k1`` ... by the number of the key, and ``c0`` ... for the numbers of cells."""
        found = {EVENT: Field(np.dtype(np.int64), (3,), variable=False)}
        for number, (key, (dtype, shape)) in enumerate(self.shapes.items()):
            native = dtype.newbyteorder("=")
            if key in self.sparse:
                wide = np.uint16 if np.prod(shape) <= 1 << 16 else np.uint32
                found[f"c{number}"] = Field(np.dtype(wide), (), variable=True)
                found[f"k{number}"] = Field(native, (), variable=True)
            else:
                found[f"k{number}"] = Field(native, shape if key in self.jagged else shape or (1,), key in self.jagged)
        return found

    def records(self, events: EventSet, file: int, first: int, rows: Rows) -> Iterator[Record]:
        """Yield the events of consecutive rows of a file, as they are stored; arrays share the memory of the rows."""
        label = events.sources[file].label
        one = next(iter(rows.values()))
        for place in range(one.events if isinstance(one, Jagged) else len(one)):
            record: Record = {EVENT: np.array([label, file, first + place])}
            for number, key in enumerate(self.shapes):
                values = rows[key][place]
                if key in self.sparse:
                    flat = values.reshape(-1)
                    (cells,) = np.nonzero(flat)
                    record[f"c{number}"] = cells.astype(self.fields[f"c{number}"].dtype)
                    record[f"k{number}"] = flat[cells]
                else:
                    record[f"k{number}"] = np.atleast_1d(values)
            yield record

    def pack(self, record: Record) -> bytes:
        """Return an event as bytes: one array after another, those of a variable length behind their size in bytes."""
        parts = []
        for name, field in self.fields.items():
            if field.variable:
                parts.append(_SIZE.pack(record[name].nbytes))
            parts.append(record[name].tobytes())
        return b"".join(parts)

    def unpack(self, data: bytes) -> Record:
        """Return the event of what :meth:`pack` returned; it shares the memory of the bytes."""
        record: Record = {}
        start = 0
        for name, field in self.fields.items():
            if field.variable:
                (size,) = _SIZE.unpack_from(data, start)
                start += _SIZE.size
            else:
                size = int(np.prod(field.shape)) * field.dtype.itemsize
            record[name] = field.decode(data, start, start + size)
            start += size
        return record

    def collate(self, records: Sequence[Record]) -> Batch:
        """Make a batch of stored events; of what, :func:`empty` says."""
        batch = label_and_event(np.stack([record[EVENT] for record in records]))
        for number, (key, (_, shape)) in enumerate(self.shapes.items()):
            field = self.fields[f"k{number}"]
            parts = [record[f"k{number}"] for record in records]
            if key in self.jagged:
                offsets = offsets_of([len(part) for part in parts])
                values = empty((int(offsets[-1]), *shape), field.dtype)
                np.concatenate(parts, out=np.asarray(values))
                batch[key] = Jagged(values, delivered(offsets))
                continue
            whole = empty((len(records), *shape), field.dtype)
            if key in self.sparse:
                images = np.asarray(whole).reshape(len(records), -1)
                images[:] = 0
                for image, record, part in zip(images, records, parts):
                    image[record[f"c{number}"]] = part
            else:
                np.stack(parts, out=np.asarray(whole).reshape(len(records), *field.shape))
            batch[key] = whole
        return batch


def label_and_event(stored: NDArray[np.int64]) -> Batch:
    """Return ``"label"`` and ``"event"`` of :data:`EVENT` arrays ``(B, 3)``."""
    return {"label": delivered(stored[:, 0].copy()), "event": delivered(stored[:, 1:].copy())}


def offsets_of(counts: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Return ``(events + 1,)``: where each event begins, and the end."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """Return an array for a batch: a torch tensor, or a NumPy array where torch has not been imported.

    A worker of torch's loader has it in shared memory, as torch's own collate function makes it.  Workers of a library
    that sends NumPy arrays need not wait until torch is imported.
    """
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return np.empty(shape, dtype)
    kind = delivered(np.empty(0, dtype)).dtype
    size = int(np.prod(shape)) * dtype.itemsize
    if torch.utils.data.get_worker_info() is None or not size:
        return torch.empty(shape, dtype=kind)
    storage = torch.UntypedStorage._new_shared(size, device="cpu")
    return torch.empty(0, dtype=kind).set_(storage).resize_(shape)


def delivered(array: NDArray[Any]) -> Any:
    """Return an array as a batch has it, on the same memory; see :func:`empty`."""
    torch: Any = sys.modules.get("torch")
    return array if torch is None else torch.from_numpy(array)


class StoredSide(Side):
    """A library that reads a format of its own.

    Attributes:
        cells: Of images only the cells that are not 0 are stored, and made dense again by the library's workers.
    """

    own_format: ClassVar[bool] = True
    cells: ClassVar[bool] = False

    def takes(self, events: EventSet) -> str | None:
        """Return why it can't feed such events; None where it can."""
        if self.cells and not events.sparse:
            return "it stores the cells that are not 0, and of these events most are not"
        return super().takes(events)

    def form(self, events: EventSet) -> Form:
        """Return how it stores events."""
        return Form.of(events, self.cells)
