"""The step that limits numbers to a range."""

from __future__ import annotations

import math

from pydantic import model_validator

from hepfeed.errors import SpecError
from hepfeed.programs import Operation
from hepfeed.transforms.pointwise import Pointwise

__all__ = ["Clip"]


class Clip(Pointwise):
    """Maps x to ``min(max(x, low), high)``; NaN stays.

    Attributes:
        keys: See :class:`~hepfeed.transforms.pointwise.Pointwise`.
        low: Least number; None for no limit.
        high: Largest number; None for no limit.

    Raises:
        SpecError: Neither is given, or low is above high.
    """

    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _check(self) -> Clip:
        if self.low is None and self.high is None:
            raise SpecError("give low, high or both")
        low, high = self._range()
        if not low <= high:
            raise SpecError(f"low must not be above high, and they are {low!r} and {high!r}")
        return self

    def _range(self) -> tuple[float, float]:
        return (-math.inf if self.low is None else self.low, math.inf if self.high is None else self.high)

    def operations(self, key: str) -> tuple[Operation, ...]:
        """Return the clip."""
        return (Operation("clip", *self._range()),)
