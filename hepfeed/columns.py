"""How a key is read in one file: which data set, which part of its rows, and which rows make each event."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfeed.errors import SpecError, nearest

__all__ = ["Column", "Extents", "FileEvents", "parse_items", "parse_key"]

_KEY = re.compile(r"^(?P<path>[^\[\]]*?)(\[(?P<inside>[^\[\]]*)\])?$")
_ITEM = re.compile(r"^-?\d+(;-?\d+)*$|^-?\d*:-?\d*(:-?\d+)?$")


@dataclass(frozen=True)
class Extents:
    """Which rows of a flat data set belong to each event: ``start[e] <= row < start[e] + count[e]``.

    Attributes:
        start: ``(events,) int64`` first row; of no meaning where ``count`` is 0.
        count: ``(events,) int64`` rows.
    """

    start: NDArray[np.int64]
    count: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.count)

    @classmethod
    def of_counts(cls, count: NDArray[Any]) -> Extents:
        """Return the extents of events that lie one after another."""
        counts = np.asarray(count).astype(np.int64)
        return cls(np.cumsum(counts) - counts, counts)

    def tobytes(self) -> bytes:
        """Pack for the index file."""
        return self.start.tobytes() + self.count.tobytes()

    @classmethod
    def frombytes(cls, data: bytes) -> Extents:
        """Unpack what :meth:`tobytes` packed."""
        n = len(data) // 16
        return cls(np.frombuffer(data, np.int64, n), np.frombuffer(data, np.int64, n, 8 * n))


@dataclass(frozen=True)
class Column:
    """A key in one file.

    Attributes:
        dataset: Path of the HDF5 data set.
        fields: Fields of its compound type; several are stacked on a new last axis.  Empty: the whole row.
        items: Part of a row (of the field), an axis a part, as in ``"0, 1"``, ``"1:4"`` or ``"3;5;7"``; empty for all.
        rows: Name of the extents that say which rows make an event; empty: row e is event e.
        single: With ``rows``: each event has exactly one row, so the key is dense.
        variable: The items of the data set are arrays of variable length, one an event.
        unravel: Grid shape: items are flat voxel numbers (C order), delivered as coordinates ``(len(unravel),)`` int32.
    """

    dataset: str
    fields: tuple[str, ...] = ()
    items: str = ""
    rows: str = ""
    single: bool = False
    variable: bool = False
    unravel: tuple[int, ...] = ()

    @property
    def plain(self) -> bool:
        """Whether the rows of the data set are delivered as they are."""
        return not (self.fields or self.items or self.variable or self.unravel)

    @property
    def jagged(self) -> bool:
        """Whether events differ in their number of rows."""
        return bool(self.rows) and not self.single

    def apply(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Return the key's part of rows ``(n, ...)`` of the data set, ``(n, *shape of the key)``.

        Raises:
            SpecError: There is no such field, or the items are not within a row.
        """
        values = rows
        if self.fields:
            for name in self.fields:
                if name not in (rows.dtype.names or ()):
                    fields = rows.dtype.names or ()
                    what = nearest(name, fields) if fields else "it has no fields"
                    raise SpecError(f"data set {self.dataset!r} has no field {name!r}: {what}", key=self.dataset)
            parts = [rows[name] for name in self.fields]
            if len(parts) == 1:
                values = parts[0]
            else:
                dtype = np.result_type(*(part.dtype for part in parts))
                values = np.stack([part.astype(dtype) for part in parts], axis=-1)
        if self.items:
            shape = values.shape[1:]
            try:
                # From the last axis, so that a number takes away no axis that another part counts on.
                for axis, part in reversed(list(enumerate(parse_items(self.items), 1))):
                    values = values[(slice(None),) * axis + (part,)]
            except IndexError as error:
                raise SpecError(
                    f"[{self.items}] is not within a row of {self.dataset!r}, which has shape {shape}",
                    key=self.dataset,
                ) from error
        if self.unravel:
            flat = values.astype(np.int64)
            if flat.size and (flat.min() < 0 or flat.max() >= np.prod(self.unravel, dtype=np.int64)):
                raise SpecError(
                    f"data set {self.dataset!r} has voxel {flat.max()}, beyond its grid of {self.unravel}",
                    key=self.dataset,
                )
            values = np.stack(np.unravel_index(flat, self.unravel), axis=-1).astype(np.int32)
        return values

    def form(self, dtype: np.dtype[Any], shape: Sequence[int]) -> tuple[np.dtype[Any], tuple[int, ...]]:
        """Return dtype (machine byte order) and shape of one item of the key.

        Args:
            dtype: Of the data set's items.
            shape: Of one of its rows.
        """
        made = self.apply(np.zeros((1, *shape), dtype))
        return made.dtype.newbyteorder("="), made.shape[1:]


@dataclass(frozen=True)
class FileEvents:
    """The events of one file.

    Attributes:
        events: How many.
        columns: Key as asked for -> how it is read; keys that the file lacks are left out.
        extents: By name.
        layout: What was recognised, for reports; empty for dense rows.
    """

    events: int
    columns: dict[str, Column]
    extents: dict[str, Extents] = field(default_factory=dict)
    layout: str = ""


def parse_key(key: str) -> tuple[str, tuple[str, ...], str]:
    """Split a key into path, fields and items.

    ``"ECAL"`` is a data set; ``"jets[pt, eta]"`` fields of a compound one; ``"HitData[1:4]"`` or
    ``"HitData[1;3;6]"`` items of each row.
    A field after a dot (``"jets.pt"``) is not split here, because data sets may have dots in their names.

    Raises:
        SpecError: The key is not of these forms.
    """
    found = _KEY.match(key)
    if not found or not found["path"].strip("/ "):
        raise SpecError(f"key {key!r} is not of the form 'path', 'path[field, field]' or 'path[1:4]'", key=key)
    path, inside = found["path"].strip().strip("/"), found["inside"]
    if inside is None:
        return path, (), ""
    parts = [part.strip() for part in inside.split(",")]
    if all(_ITEM.match(part) for part in parts):
        return path, (), ", ".join(parts)
    if all(part and not _ITEM.match(part) for part in parts):
        return path, tuple(parts), ""
    raise SpecError(f"key {key!r} mixes fields and items in its brackets, or leaves one empty", key=key)


def parse_items(items: str) -> tuple[int | slice | list[int], ...]:
    """Return what a text such as ``"0, 1:4, 3;5;7"`` takes of each axis: a number, a range or a list."""
    index: list[int | slice | list[int]] = []
    for part in (part.strip() for part in items.split(",")):
        if ":" in part:
            index.append(slice(*(int(n) if n else None for n in part.split(":"))))
        elif ";" in part:
            index.append([int(n) for n in part.split(";")])
        else:
            index.append(int(part))
    return tuple(index)
