"""Between arrays of a batch and the columns of a part: rows of bytes that lie event after event."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hepfeed import _cache
from hepfeed.parts.form import ArrayForm, cell_type
from hepfeed.tensors import Graph, Jagged, Padded, Sparse

__all__ = ["EventColumns", "Storage", "choose_storage", "encode"]

Ints = NDArray[np.int64]
Storage = Literal["rows", "cells"]
_SMALLEST_IMAGE = 256  # bytes; of smaller arrays the offsets would be most of what is stored
_LOOKED_AT = 32  # events, evenly spaced
_WORTH = 0.5  # cells are kept where they take less than this part of the dense bytes


@dataclass(frozen=True)
class EventColumns:
    """Arrays of some events as they are stored.

    Attributes:
        rows: Path -> ``(total, *item)``.
        counts: Path of offsets -> ``(events,)`` rows of each event.
        counted_by: Path of ``rows`` -> path of ``counts``; empty where each event has one row.
    """

    rows: dict[str, NDArray[Any]]
    counts: dict[str, Ints]
    counted_by: dict[str, str]


def choose_storage(form: ArrayForm, value: Any) -> Storage:
    """Choose how a dense array is stored, by the occupancy of the events at hand."""
    if form.kind != "dense" or form.row_bytes < _SMALLEST_IMAGE or not len(value):
        return "rows"
    some = np.ascontiguousarray(value[:: -(-len(value) // _LOOKED_AT)])
    active = int(_cache.count_cells(some, len(some)).sum())
    stored = active * (cell_type(form.items).itemsize + np.dtype(form.dtype).itemsize) + 8 * len(some)
    return "cells" if stored < _WORTH * form.row_bytes * len(some) else "rows"


def encode(form: ArrayForm, value: Any, storage: Storage) -> EventColumns:
    """Return the columns of one array, in memory of their own."""
    name = form.path
    if form.kind == "dense" and storage == "rows":
        return EventColumns({name: np.array(value, form.dtype, order="C")}, {}, {name: ""})
    offsets = f"{name}/offsets"
    if form.kind == "dense":
        images = np.ascontiguousarray(value)
        counts, coords, values = _cache.pack(images, len(images), cell_type(form.items).itemsize)
        rows = {f"{name}/coords": coords, f"{name}/values": values}
        return EventColumns(rows, {offsets: counts}, dict.fromkeys(rows, offsets))
    if isinstance(value, Jagged):
        rows = {f"{name}/values": np.array(value.values, form.dtype, order="C")}
        return EventColumns(rows, {offsets: np.diff(value.offsets)}, dict.fromkeys(rows, offsets))
    if isinstance(value, Padded):
        rows = {f"{name}/values": np.array(value.values, form.dtype, order="C"), f"{name}/mask": np.array(value.mask)}
        return EventColumns(rows, {}, dict.fromkeys(rows, ""))
    if isinstance(value, Sparse):
        width = cell_type(int(np.prod(form.grid, dtype=np.int64))).itemsize
        coords = _cache.ravel(np.ascontiguousarray(value.indices, np.int32), form.grid, width)
        rows = {f"{name}/coords": coords, f"{name}/values": np.array(value.features, form.dtype, order="C")}
        return EventColumns(rows, {offsets: np.diff(value.offsets())}, dict.fromkeys(rows, offsets))
    assert isinstance(value, Graph)
    edges = np.diff(value.edge_offsets)
    first = np.repeat(value.offsets[:-1], edges)
    rows = {f"{name}/edges": np.ascontiguousarray((value.edge_index - first).T, "<i4")}
    counts_of = {offsets: edges, f"{name}/nodes": np.diff(value.offsets)}
    return EventColumns(rows, counts_of, dict.fromkeys(rows, offsets))
