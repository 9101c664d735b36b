"""The step that leaves points out at random."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator

from hepfeed.draws import Draws
from hepfeed.errors import ProcessError, SpecError
from hepfeed.tensors import Jagged, Padded
from hepfeed.transforms.lookup import describe, find, names_of
from hepfeed.transforms.rows import per_row
from hepfeed.transforms.step import Batch, Keys, Step

__all__ = ["DropPoints"]


class DropPoints(Step):
    """Leaves every point out with a probability; those that stay keep their order.

    Attributes:
        keys: ``Jagged (T, ...)`` or ``Padded (B, L, ...)``, all of one kind.  They must have the same points, lose the
            same ones, and should be all keys that have these points.  Points of padded events move to the front; the
            padding is 0.
        probability: That a point is left out, below 1.
        at_least: Points that stay in each event, chosen at random if need be; events with fewer points stay whole.

    Raises:
        ProcessError: A key holds no points, or the keys have different points.
    """

    random: ClassVar[bool] = True

    keys: Keys
    probability: float
    at_least: int = 1

    @field_validator("keys")
    @classmethod
    def _check_keys(cls, keys: Keys) -> Keys:
        names_of(keys)
        return keys

    @field_validator("probability")
    @classmethod
    def _check_probability(cls, probability: float) -> float:
        if not 0 <= probability < 1:
            raise SpecError(f"probability must be from 0 to below 1, not {probability}")
        return probability

    @field_validator("at_least")
    @classmethod
    def _check_at_least(cls, at_least: int) -> int:
        if at_least < 0:
            raise SpecError(f"at_least must be 0 or more, not {at_least}")
        return at_least

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with fewer points."""
        names = names_of(self.keys)
        found = [find(batch, name) for name in names]
        first = _offsets(names[0], found[0])
        for name, value in zip(names[1:], found[1:]):
            if type(value) is not type(found[0]) or not _same_points(value, found[0]):
                raise ProcessError(
                    f"keys {names[0]!r} and {name!r} must have the same points, and are {describe(found[0])} and"
                    f" {describe(value)}: drop the points of each in a step of its own",
                    key=name,
                )
        kept = self._kept(first, per_row(first, 1, Draws.uniform, draws)[:, 0])
        counts = np.diff(np.concatenate([[0], np.cumsum(kept)])[first])
        made = dict(batch)
        for name, value in zip(names, found):
            made[name] = _thinned(value, kept, counts)
        return made

    def _kept(self, offsets: NDArray[np.int64], u: NDArray[np.float64]) -> NDArray[np.bool_]:
        kept: NDArray[np.bool_] = u >= self.probability
        counts = np.diff(np.concatenate([[0], np.cumsum(kept)])[offsets])
        for e in np.flatnonzero(counts < np.minimum(self.at_least, np.diff(offsets))):
            start, stop = offsets[e : e + 2]
            kept[start + np.argsort(-u[start:stop], kind="stable")[: self.at_least]] = True
        return kept


def _offsets(name: str, value: Any) -> NDArray[np.int64]:
    if isinstance(value, Jagged):
        return np.asarray(value.offsets)
    if isinstance(value, Padded):
        return np.concatenate([[0], np.cumsum(value.mask.sum(1))]).astype(np.int64)
    raise ProcessError(f"key {name!r} must be jagged or padded points, and is {describe(value)}", key=name)


def _same_points(one: Any, other: Any) -> bool:
    if isinstance(one, Jagged):
        return bool(np.array_equal(one.offsets, other.offsets))
    return bool(np.array_equal(one.mask, other.mask))


def _thinned(value: Any, kept: NDArray[np.bool_], counts: NDArray[np.int64]) -> Any:
    """Return the points that stay; those of padded events move to the front."""
    if isinstance(value, Jagged):
        return Jagged(value.values[kept], np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
    mask = np.arange(value.mask.shape[1]) < counts[:, None]
    values = np.zeros_like(value.values)
    values[mask] = value.values[value.mask][kept]
    return Padded(values, mask)
