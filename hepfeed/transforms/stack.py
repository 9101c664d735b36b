"""The step that makes one array of several."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import field_validator

from hepfeed.draws import Draws
from hepfeed.errors import ProcessError
from hepfeed.spec_options import RESERVED_NAMES
from hepfeed.tensors import Jagged, Padded, Structured
from hepfeed.transforms.cast import cast_value, check_dtype
from hepfeed.transforms.lookup import check_made, describe, find, names_of
from hepfeed.transforms.step import Batch, Keys, Step

__all__ = ["Stack"]


class Stack(Step):
    """Puts several keys of one shape side by side on a new last axis: ``pt``, ``eta``, ``phi`` become ``(T, 3)``.

    Attributes:
        keys: Dense arrays of one shape, jagged ones with the same rows, or padded ones with the same mask; in the order
            of the new axis.
        into: Name of the result.
        dtype: NumPy type of the result; a number beyond its range is an error.
        keep: Keep ``keys`` in the batch as well.

    Raises:
        ProcessError: The keys' forms differ, or a number does not fit ``dtype``.
    """

    keys: Keys
    into: str
    dtype: str = "float32"
    keep: bool = False

    @field_validator("keys")
    @classmethod
    def _check_keys(cls, keys: Keys) -> Keys:
        names_of(keys)
        return keys

    @field_validator("into")
    @classmethod
    def _check_into(cls, into: str) -> str:
        return check_made(into, "into")

    @field_validator("dtype", mode="before")
    @classmethod
    def _check_dtype(cls, dtype: Any) -> str:
        return check_dtype(dtype)

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with one key instead of several."""
        names = names_of(self.keys)
        found = [find(batch, name) for name in names]
        for name, value in zip(names, found):
            if not _alike(found[0], value):
                raise ProcessError(
                    f"keys {names[0]!r} and {name!r} must be dense, jagged or padded arrays of the same rows to be"
                    f" stacked, and are {describe(found[0])} and {describe(value)}",
                    key=name,
                )
        dtype = np.dtype(self.dtype)
        first = _values(found[0])
        stacked = np.empty((*first.shape, len(names)), dtype)
        for i, (name, value) in enumerate(zip(names, found)):
            stacked[..., i] = _values(cast_value(value, dtype, batch, name))
        made = {key: value for key, value in batch.items() if self.keep or key not in names or key in RESERVED_NAMES}
        made[self.into] = replace(found[0], values=stacked) if isinstance(found[0], Jagged | Padded) else stacked
        return made


def _values(value: Any) -> Any:
    return value.values if isinstance(value, Jagged | Padded) else value


def _alike(one: Any, other: Any) -> bool:
    if type(one) is not type(other) or (isinstance(one, Structured) and not isinstance(one, Jagged | Padded)):
        return False
    if _values(one).shape != _values(other).shape:
        return False
    if isinstance(one, Jagged):
        return bool(np.array_equal(one.offsets, other.offsets))
    return not isinstance(one, Padded) or bool(np.array_equal(one.mask, other.mask))
