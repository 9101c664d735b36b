"""The step that brings events to one length."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from hepfeed.draws import Draws
from hepfeed.errors import CorruptDataError, ProcessError, SpecError
from hepfeed.tensors import Padded
from hepfeed.transforms.cast import misfits
from hepfeed.transforms.lookup import at_event, check_made, describe, names_of, same_offsets
from hepfeed.transforms.step import Batch, Keys, Step

__all__ = ["PadRows"]


class PadRows(Step):
    """Brings the rows of each event to one length: ``Jagged (T, ...)`` becomes ``Padded (B, length, ...)`` with a mask.

    Attributes:
        keys: Jagged arrays of the same rows.
        length: Rows of each event afterwards.
        value: What pads; it must fit the types of ``keys``.
        overflow: What to do with longer events: ``"raise"``, or ``"truncate"``: keep their first ``length`` rows.
        sort_by: Key of one number a row, jagged, by which rows are sorted before; equal ones keep their order.  It may
            be one of ``keys``.  None: the order stays.
        descending: Sort the largest first.

    Raises:
        ProcessError: A key is not jagged or has other rows than the first, or an event has more rows.
        CorruptDataError: A number of ``sort_by`` is NaN, which has no place in an order.
    """

    keys: Keys
    length: int = Field(ge=1)
    value: float = 0
    overflow: Literal["raise", "truncate"] = "raise"
    sort_by: str | None = None
    descending: bool = True

    @field_validator("keys")
    @classmethod
    def _check_keys(cls, keys: Keys) -> Keys:
        for name in names_of(keys):
            check_made(name, "keys")
        return keys

    @model_validator(mode="after")
    def _check_sort(self) -> PadRows:
        if self.sort_by is None and "descending" in self.model_fields_set:
            raise SpecError("descending needs sort_by, the key to sort rows by")
        return self

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with padded arrays."""
        names = names_of(self.keys)
        found = same_offsets(batch, names)
        offsets = np.asarray(found[0].offsets)
        lengths = np.diff(offsets)
        longer = np.flatnonzero(lengths > self.length)
        if longer.size and self.overflow == "raise":
            i = int(longer[0])
            raise at_event(
                ProcessError,
                f"key {names[0]!r} has {lengths[i]} rows, and length is {self.length}: give a larger one, or"
                " overflow='truncate'",
                batch,
                names[0],
                i,
            )
        order = None if self.sort_by is None else self._order(batch, names[0], self.sort_by)
        kept = np.minimum(lengths, self.length)
        least = np.min_scalar_type(self.length)  # small numbers are compared several times faster
        mask = np.arange(self.length, dtype=least) < kept.astype(least)[:, None]
        runs = list(zip(offsets[:-1].tolist(), kept.tolist()))
        made = dict(batch)
        for name, value in zip(names, found):
            self._check_fill(name, value.values.dtype)
            rows = value.values if order is None else value.values[order]
            values = self._padding((len(lengths), self.length, *rows.shape[1:]), rows.dtype)
            for event, (start, count) in enumerate(runs):  # through the mask only tiny events are faster
                values[event, :count] = rows[start : start + count]
            made[name] = Padded(values, mask)
        return made

    def _padding(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return an array of ``value`` alone; where that is 0, memory that the system hands out cleared."""
        if self.value == 0 and not np.signbit(self.value):
            return np.zeros(shape, dtype)
        return np.full(shape, self.value, dtype)

    def _check_fill(self, key: str, dtype: np.dtype[Any]) -> None:
        wrong = misfits(np.asarray([self.value], np.float64), dtype)
        if wrong is not None and wrong.any():
            raise ProcessError(f"value {self.value} does not fit key {key!r} of {dtype}: cast the key first", key=key)

    def _order(self, batch: Batch, name: str, sort_by: str) -> NDArray[np.int64]:
        """Return the rows of all events, those of each event sorted."""
        by = same_offsets(batch, (name, sort_by))[1]
        values = np.asarray(by.values)
        if values.ndim != 1 or values.dtype.kind not in "biuf":
            raise ProcessError(
                f"sort_by must be a key of one number a row, and {sort_by!r} is {describe(by)}", key=sort_by
            )
        event = np.repeat(np.arange(by.events), by.lengths())
        wrong = np.flatnonzero(np.isnan(values)) if values.dtype.kind == "f" else np.zeros(0, np.int64)
        if wrong.size:
            raise at_event(
                CorruptDataError,
                f"key {sort_by!r}, by which rows are sorted, must not be NaN, and is",
                batch,
                sort_by,
                int(event[wrong[0]]),
            )
        if self.descending:
            # Sorted backwards from the end, so that equal numbers keep their order.
            order = len(values) - 1 - np.argsort(values[::-1], kind="stable")[::-1]
        else:
            order = np.argsort(values, kind="stable")
        # NumPy sorts 16-bit integers by radix, which is several times faster than by comparison.
        small = event.astype(np.uint16) if by.events <= 2**16 else event
        return np.asarray(order[np.argsort(small[order], kind="stable")])
