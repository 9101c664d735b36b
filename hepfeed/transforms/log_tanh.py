"""The step that maps charges of any size to numbers below 1."""

from __future__ import annotations

import math

from pydantic import field_validator

from hepfeed.errors import SpecError
from hepfeed.programs import Operation
from hepfeed.transforms.pointwise import OnNegative, Pointwise

__all__ = ["LogTanh"]


class LogTanh(Pointwise):
    """Maps x to ``tanh(log(1 + x / scale))``: 0 stays 0, small x become ``x / scale``, large ones tend to 1.

    With ``t = x / scale`` this is ``t (t + 2) / (t (t + 2) + 2)``, which is how it is computed.  It is 0.6 at
    ``x = scale`` and 0.98 at ``x = 9 scale``.

    Attributes:
        keys: See :class:`~hepfeed.transforms.pointwise.Pointwise`.
        scale: Size of a typical number, above 0.
        on_negative: ``"raise"``: an error where ``x <= -scale``.  ``"clip"``: negative x count as 0.

    Raises:
        ProcessError: x is ``-scale`` or less.
    """

    scale: float = 1.0
    on_negative: OnNegative = "raise"

    @field_validator("scale")
    @classmethod
    def _check_scale(cls, scale: float) -> float:
        if not 0 < scale < math.inf or not 1.0 / scale < math.inf:
            raise SpecError(f"scale must be a number above 0, not {scale!r}")
        return scale

    def operations(self, key: str) -> tuple[Operation, ...]:
        """Return the function, after the clip."""
        clip = (Operation("clip", 0.0, math.inf),) if self.on_negative == "clip" else ()
        return (*clip, Operation("log_tanh", 1.0 / self.scale))

    @property
    def domain(self) -> str:
        """What numbers must be."""
        return f"x must be above {-self.scale!r}, and is {{value!r}}: give a larger scale, or on_negative='clip'"
