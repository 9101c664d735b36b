"""The numbers that a key holds, whichever way: those of dense, jagged, padded and sparse arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfeed.errors import HepfeedError, ProcessError
from hepfeed.tensors import Jagged, Padded, Sparse, Structured
from hepfeed.transforms.lookup import at_event, describe, find
from hepfeed.transforms.step import Batch

__all__ = ["Items", "axis_of_rows"]


@dataclass(frozen=True)
class Items:
    """The numbers of a key, events one after another.

    Attributes:
        key: Where they come from.
        value: What the batch holds for it.
        rows: ``(T, *item)``: a dense array itself; values of jagged arrays; what is there of padded ones; features.
        offsets: ``(B + 1,) int64``: rows of event e are ``offsets[e] .. offsets[e + 1] - 1``.
    """

    key: str
    value: Any
    rows: NDArray[Any]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, batch: Batch, key: str) -> Items:
        """Return the numbers of a key.

        Raises:
            KeyMissingError: The batch has no such key.
            ProcessError: It holds no numbers.
        """
        value = find(batch, key)
        if isinstance(value, Jagged):
            made = cls(key, value, np.asarray(value.values), np.asarray(value.offsets, np.int64))
        elif isinstance(value, Padded):
            mask = np.asarray(value.mask)
            counts = np.concatenate([[0], np.cumsum(mask.sum(axis=1))])
            made = cls(key, value, np.asarray(value.values)[mask], counts.astype(np.int64))
        elif isinstance(value, Sparse):
            made = cls(key, value, np.asarray(value.features), value.offsets())
        elif isinstance(value, Structured) or not hasattr(value, "dtype"):
            raise ProcessError(f"key {key!r} must hold numbers, and is {describe(value)}", key=key)
        else:
            made = cls(key, value, np.asarray(value), np.arange(len(value) + 1, dtype=np.int64))
        if made.rows.dtype.kind not in "biuf" or made.rows.dtype.itemsize > 8:
            raise ProcessError(f"key {key!r} must hold integers or floats, and is {describe(value)}", key=key)
        return made

    @property
    def item_offsets(self) -> NDArray[np.int64]:
        """The same in single numbers: ``offsets`` times the numbers of a row."""
        return np.ascontiguousarray(self.offsets * math.prod(self.rows.shape[1:]))

    def axis(self, axis: int) -> int:
        """Return the axis of ``rows`` that an axis of one event is.

        Args:
            axis: Counted from 0; or from the end, -1 being the last.  Rows of jagged and padded arrays are axis 0 of an
                event, and channels of sparse ones axis D.

        Raises:
            ProcessError: There is no such axis, or rows lie along it, whose number differs between events.
        """
        return axis_of_rows(self.key, self.value, self.rows.ndim, axis)

    def put(self, rows: NDArray[Any]) -> Any:
        """Return the value with other numbers; padding is 0."""
        if isinstance(self.value, Jagged):
            return replace(self.value, values=rows)
        if isinstance(self.value, Padded):
            mask = np.asarray(self.value.mask)
            values = np.zeros((*mask.shape, *rows.shape[1:]), rows.dtype)
            values[mask] = rows
            return replace(self.value, values=values)
        return replace(self.value, features=rows) if isinstance(self.value, Sparse) else rows

    def fault(self, batch: Batch, place: int, message: str) -> HepfeedError:
        """Return an error about one number.

        Args:
            batch: Tells the event.
            place: Of the number in ``rows``, flat.
            message: What is wrong; ``{value}`` stands for the number.
        """
        row = place // max(1, math.prod(self.rows.shape[1:]))
        event = int(np.searchsorted(self.offsets, row, "right")) - 1
        text = message.format(value=self.rows.flat[place].item())
        return at_event(ProcessError, f"key {self.key!r}: {text}", batch, self.key, event)


def axis_of_rows(key: str, value: Any, ndim: int, axis: int) -> int:
    """Return the axis of the rows of a key, which have ``ndim`` axes, that an axis of one event is.

    Raises:
        ProcessError: There is no such axis, or rows lie along it; see :meth:`Items.axis`.
    """
    if isinstance(value, Sparse):
        first = len(value.spatial_shape)
    else:
        first = 1 if isinstance(value, Jagged | Padded) else 0
    all_axes = first + ndim - 1
    counted = axis + all_axes if axis < 0 else axis
    if not first <= counted < all_axes:
        raise ProcessError(
            f"axis {axis} of the events of key {key!r} holds no channels; it is {describe(value)}", key=key
        )
    return 1 + counted - first
