"""The step that looks for numbers that are not finite."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator

from hepfeed.draws import Draws
from hepfeed.errors import CorruptDataError, SpecError
from hepfeed.tensors import Graph, Jagged, Padded, Sparse, take
from hepfeed.transforms.lookup import at_event, find, measured, names_of, owners
from hepfeed.transforms.step import Batch, Keys, Step

__all__ = ["Finite"]

_BLOCK_BYTES = 1 << 18
"""So that a block is still in the cache when its result is read again."""


class Finite(Step):
    """Looks for NaN and infinite numbers: an error, zeros instead of them, or the events leave the batch.

    Only what is there counts: what pads a ``Padded`` array may be anything, and becomes 0 by ``"zero"``.

    Attributes:
        keys: Which keys; None: all but ``"label"`` and ``"event"``, so ``"weight"`` too.
        action: ``"raise"``, ``"zero"`` or ``"drop"``: all keys, ``"label"``, ``"event"`` and ``"weight"`` lose the
            events, so that ``"event"`` tells which are left.

    Raises:
        CorruptDataError: A number is not finite, for ``"raise"``; it names key, file number and row.
    """

    keys: Keys | None = None
    action: Literal["raise", "zero", "drop"] = "raise"

    @field_validator("keys")
    @classmethod
    def _check_keys(cls, keys: Keys | None) -> Keys | None:
        if keys is not None and {"label", "event"} & set(names_of(keys)):
            raise SpecError(f"'label' and 'event' are integers, which are always finite: leave them out of {keys!r}")
        return keys

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with finite numbers."""
        if self.keys is None:
            names: tuple[str, ...] = tuple(key for key in batch if key not in ("label", "event"))
        else:
            names = names_of(self.keys)
        made = dict(batch)
        faulty = np.zeros(len(batch["event"]), bool)
        for key in names:
            value = find(batch, key)
            array = None if isinstance(value, Graph) else measured(value)
            if array is None or array.dtype.kind not in "fc" or _all_finite(array):
                continue
            if self.action == "zero":
                made[key] = _with_zeros(value, array)
                continue
            wrong = ~np.isfinite(array)
            if isinstance(value, Padded):
                wrong[~value.mask] = False
            rows = np.flatnonzero(wrong.reshape(len(wrong), -1).any(axis=1))
            events = owners(value, rows)
            if self.action == "raise" and rows.size:
                found = array[rows[0]][wrong[rows[0]]].ravel()[0]
                raise at_event(
                    CorruptDataError,
                    f"key {key!r} must have finite numbers, and has {found}: leave such events out by"
                    " Finite(action='drop'), or give action='zero'",
                    batch,
                    key,
                    int(events[0]),
                )
            faulty[events] = True
        if faulty.any():
            kept = np.flatnonzero(~faulty)
            made = {key: take(value, kept) for key, value in made.items()}
        return made


def _all_finite(array: NDArray[Any]) -> bool:
    if not array.flags.c_contiguous:
        return bool(np.isfinite(array).all())
    flat = array.reshape(-1)
    block = _BLOCK_BYTES // array.itemsize
    return all(bool(np.isfinite(flat[start : start + block]).all()) for start in range(0, flat.size, block))


def _with_zeros(value: Any, array: NDArray[Any]) -> Any:
    zeroed = np.where(np.isfinite(array), array, array.dtype.type(0))
    if isinstance(value, Jagged | Padded):
        return replace(value, values=zeroed)
    return replace(value, features=zeroed) if isinstance(value, Sparse) else zeroed
