"""The step that leaves padding out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator, model_validator

from hepfeed.draws import Draws
from hepfeed.errors import CorruptDataError, ProcessError, SpecError
from hepfeed.spec_options import RESERVED_NAMES
from hepfeed.tensors import Jagged, Padded, Structured
from hepfeed.transforms.lookup import at_event, check_made, describe, find, names_of
from hepfeed.transforms.step import Batch, Keys, Step

__all__ = ["Compact"]


class Compact(Step):
    """Leaves padding out: dense ``(B, L, ...)`` or ``Padded`` becomes ``Jagged (T, ...)``.

    Without ``valid`` and ``fill`` the keys are ``Padded``, whose mask says what is there: the inverse of ``PadRows``.

    Attributes:
        keys: Arrays with the same first two axes; they get the same offsets.
        valid: Key that says which rows are there, ``(B, L)`` of bool or of 0 and 1, as ``"tracks.valid"``; it leaves
            the batch unless it is one of ``keys``.
        column: Which number of a row of ``valid`` says it, where that is ``(B, L, F)``.
        fill: Number that pads instead, NaN too: a row of the first key is padding if it has no other number.

    Raises:
        ProcessError: A key has other axes or masks.
        CorruptDataError: A number of ``valid`` is neither 0 nor 1.
    """

    keys: Keys
    valid: str | None = None
    column: int | None = None
    fill: float | None = None

    @field_validator("keys")
    @classmethod
    def _check_keys(cls, keys: Keys) -> Keys:
        for name in names_of(keys):
            check_made(name, "keys")
        return keys

    @model_validator(mode="after")
    def _check(self) -> Compact:
        if self.valid is not None and self.fill is not None:
            raise SpecError("give valid or fill, not both")
        if self.column is not None and self.valid is None:
            raise SpecError("column needs valid, the key that it is a column of")
        return self

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with jagged arrays."""
        names = names_of(self.keys)
        there = self._there(batch, names[0])
        offsets = np.concatenate([[0], np.cumsum(there.sum(axis=1))]).astype(np.int64)
        made = dict(batch)
        for name in names:
            value = find(batch, name)
            array = self._array(batch, name)
            if array.shape[:2] != there.shape or (isinstance(value, Padded) and not np.array_equal(value.mask, there)):
                raise ProcessError(
                    f"key {name!r} must have the rows {there.shape} of {self.valid or names[0]!r}, and is"
                    f" {describe(value)}",
                    key=name,
                )
            made[name] = Jagged(array[there], offsets)
        if self.valid is not None and self.valid not in names and self.valid not in RESERVED_NAMES:
            del made[self.valid]
        return made

    def _array(self, batch: Batch, key: str) -> NDArray[Any]:
        """Return what a key holds, ``(B, L, ...)``."""
        value = find(batch, key)
        if self.valid is None and self.fill is None:
            if not isinstance(value, Padded):
                raise ProcessError(
                    f"key {key!r} must be padded with a mask, and is {describe(value)}: give valid or fill", key=key
                )
            return np.asarray(value.values)
        if isinstance(value, Structured) or value.ndim < 2:
            raise ProcessError(f"key {key!r} must be dense (B, L, ...), and is {describe(value)}", key=key)
        return np.asarray(value)

    def _there(self, batch: Batch, first: str) -> NDArray[np.bool_]:
        """Return which rows are there, ``(B, L)``."""
        if self.valid is not None:
            return self._of_valid(batch, self.valid)
        array = self._array(batch, first)
        if self.fill is None:
            return np.asarray(batch[first].mask)
        padding = np.isnan(array) if np.isnan(self.fill) else array == self.fill
        return np.asarray(~padding.all(axis=tuple(range(2, array.ndim))))

    def _of_valid(self, batch: Batch, key: str) -> NDArray[np.bool_]:
        array = self._array(batch, key)
        if self.column is not None:
            if array.ndim != 3 or not 0 <= self.column < array.shape[2]:
                raise ProcessError(
                    f"key {key!r} must be dense (B, L, F) with column {self.column}, and is {describe(array)}",
                    key=key,
                )
            array = array[..., self.column]
        if array.ndim != 2 or array.dtype.kind not in "biuf":
            raise ProcessError(
                f"key {key!r} must say of each row whether it is there, (B, L), and is {describe(array)}", key=key
            )
        wrong = np.argwhere((array != 0) & (array != 1))
        if len(wrong):
            event, row = (int(i) for i in wrong[0])
            raise at_event(
                CorruptDataError,
                f"key {key!r} must be 0 or 1 to say which rows are there, and is {array[event, row]}",
                batch,
                key,
                event,
            )
        return array.astype(bool)
