"""The step that changes the types of numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator

from hepfeed.draws import Draws
from hepfeed.errors import ProcessError, SpecError
from hepfeed.tensors import Graph, Jagged, Padded, Sparse
from hepfeed.transforms.lookup import at_event, check_made, find, measured, names_of, owners
from hepfeed.transforms.step import Batch, Keys, Step

__all__ = ["Cast", "Rounding", "cast_value", "check_dtype", "misfits"]

Rounding = Literal["exact", "nearest", "down"]


class Cast(Step):
    """Changes the type of values or features; a number that the type can't hold is an error, never another number.

    Floats may become less precise, as 0.1 does in float32; that is no error.

    Attributes:
        keys: Dense, jagged, padded or sparse arrays.
        dtype: Name of a NumPy type of numbers, e.g. ``"float32"``.
        rounding: From floats to integers: ``"exact"`` refuses fractions, ``"nearest"`` rounds (half to even),
            ``"down"`` takes the floor.

    Raises:
        ProcessError: A number is beyond the type's range, not finite where the type has integers, or has a fraction.
    """

    keys: Keys
    dtype: str
    rounding: Rounding = "exact"

    @field_validator("keys")
    @classmethod
    def _check_keys(cls, keys: Keys) -> Keys:
        for name in names_of(keys):
            check_made(name, "keys")
        return keys

    @field_validator("dtype", mode="before")
    @classmethod
    def _check_dtype(cls, dtype: Any) -> str:
        return check_dtype(dtype)

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with other types."""
        made = dict(batch)
        for key in names_of(self.keys):
            made[key] = cast_value(find(batch, key), np.dtype(self.dtype), batch, key, self.rounding)
        return made


def check_dtype(dtype: Any) -> str:
    """Return the name of a type of numbers.

    Raises:
        SpecError: It is no such type.
    """
    try:
        found = np.dtype(dtype) if dtype is not None else None
    except TypeError:
        found = None
    if found is None or found.kind not in "biuf":
        raise SpecError(f"dtype must be the name of a NumPy number, e.g. 'float32', not {dtype!r}")
    return str(found.name)


def cast_value(value: Any, dtype: np.dtype[Any], batch: Batch, key: str, rounding: Rounding = "exact") -> Any:
    """Return a dense, jagged, padded or sparse array with another type of numbers.

    Args:
        value: What is cast.
        dtype: The type.
        batch: Tells of which event a misfit is.
        key: Name of ``value``.
        rounding: See :class:`Cast`.

    Raises:
        ProcessError: A number does not fit.
    """
    if isinstance(value, Graph):
        raise ProcessError(f"key {key!r} is a Graph, whose edges are row numbers: it can't be cast", key=key)
    array = measured(value)
    if array.dtype.kind not in "biuf":
        raise ProcessError(f"key {key!r} has type {array.dtype}, which can't be cast to {dtype}", key=key)
    if rounding != "exact" and array.dtype.kind == "f" and dtype.kind in "iu":
        array = np.rint(array) if rounding == "nearest" else np.floor(array)
    wrong = misfits(array, dtype)
    if wrong is not None and wrong.any():
        row = np.flatnonzero(wrong.reshape(len(array), -1).any(1))[:1]
        bad = array[row[0]][wrong[row[0]]].ravel()[0].item()
        remedy = ", or give rounding='nearest' or 'down'" if dtype.kind in "iu" and bad % 1 else ""
        raise at_event(
            ProcessError,
            f"key {key!r} has {bad}, which {dtype} can't hold: choose another dtype{remedy}",
            batch,
            key,
            int(owners(value, row)[0]),
        )
    with np.errstate(invalid="ignore"):
        made = array.astype(dtype)
    if isinstance(value, Jagged | Padded):
        return replace(value, values=made)
    return replace(value, features=made) if isinstance(value, Sparse) else made


def misfits(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[np.bool_] | None:
    """Return which numbers a type can't hold; None where it holds all of their type."""
    if array.dtype == dtype or array.dtype.kind == "b" or not array.size:
        return None
    if dtype.kind == "b":
        return np.asarray((array != 0) & (array != 1))
    if dtype.kind == "f":
        if array.dtype.kind == "f" and array.dtype.itemsize <= dtype.itemsize:
            return None
        limit = float(np.finfo(dtype).max)
        if -limit <= float(array.min()) and float(array.max()) <= limit:  # neither is true of NaN
            return None
        with np.errstate(over="ignore"):
            return np.asarray(np.isinf(array.astype(dtype)) & np.isfinite(array))
    limits = np.iinfo(dtype)
    if array.dtype.kind in "iu":
        if int(array.min()) >= limits.min and int(array.max()) <= limits.max:
            return None
        return np.asarray((array < limits.min) | (array > limits.max))
    # Powers of two, which float64 holds: the largest int64 itself would be rounded up to a number that does not fit.
    wide = array.astype(np.float64)
    fits = (wide >= float(limits.min)) & (wide < 2.0 ** (limits.bits - (dtype.kind == "i"))) & (wide == np.floor(wide))
    return np.asarray(~fits)
