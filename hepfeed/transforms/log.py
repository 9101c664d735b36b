"""The step that takes logarithms."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import model_validator

from hepfeed.errors import SpecError
from hepfeed.programs import Operation
from hepfeed.transforms.pointwise import OnNegative, Pointwise

__all__ = ["Log"]


class Log(Pointwise):
    """Maps x to ``log(x + offset)``; exact to the last place of float64 also where x is much smaller than the offset.

    Attributes:
        keys: See :class:`~hepfeed.transforms.pointwise.Pointwise`.
        offset: Added first; 1 leaves 0 at 0.
        base: Of the logarithm: ``"e"``, 10 or 2.
        on_negative: ``"raise"``: an error where ``x + offset`` is not above 0.  ``"clip"``: negative x count as 0, for
            which the offset must be above 0.

    Raises:
        ProcessError: ``x + offset`` is not above 0.
    """

    offset: float = 1.0
    base: Literal["e", 10, 2] = "e"
    on_negative: OnNegative = "raise"

    @model_validator(mode="after")
    def _check(self) -> Log:
        if not math.isfinite(self.offset):
            raise SpecError(f"offset must be a finite number, not {self.offset!r}")
        if self.on_negative == "clip" and self.offset <= 0:
            raise SpecError(
                f"offset must be above 0 with on_negative='clip', so that 0 has a logarithm: {self.offset!r}"
            )
        return self

    def operations(self, key: str) -> tuple[Operation, ...]:
        """Return the logarithm, after the clip."""
        factor = 1.0 if self.base == "e" else 1.0 / math.log(self.base)
        clip = (Operation("clip", 0.0, math.inf),) if self.on_negative == "clip" else ()
        return (*clip, Operation("log", self.offset, factor))

    @property
    def domain(self) -> str:
        """What numbers must be."""
        remedy = ": give a larger offset, or on_negative='clip'" if self.on_negative == "raise" else ""
        return f"x + {self.offset!r} must be above 0 for its logarithm, and x is {{value!r}}{remedy}"
