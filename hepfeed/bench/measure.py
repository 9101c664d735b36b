"""One quantity of one side in one row of a record: what can be compared with another record's."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Literal

__all__ = ["Better", "Measure"]

Better = Literal["higher", "lower", "unknown"]
"""Which of two values is the better one."""


@dataclass(frozen=True)
class Measure:
    """A measured quantity.

    Attributes:
        row: What was measured, as the record's table calls it.
        side: Who did it, such as ``"hepfeed"`` or a rival; empty where there are no sides.
        quantity: What the values are, such as ``"time"``.
        unit: Of the values; empty for pure numbers.
        better: Which values are better.
        values: One for each round; at least one.
    """

    row: str
    side: str
    quantity: str
    unit: str
    better: Better
    values: tuple[float, ...]

    @property
    def name(self) -> tuple[str, str, str, str]:
        """What has to be equal for two measures to be compared."""
        return self.row, self.side, self.quantity, self.unit

    @property
    def middle(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.values)

    def gain(self, first: Measure) -> float | None:
        """Return how many times as good this is as ``first``: above 1 is better; None where one of them is 0 or less.

        Where it is not known which values are better it is the ratio of the values.
        """
        above, below = (first, self) if self.better == "lower" else (self, first)
        if above.middle <= 0 or below.middle <= 0:
            return None
        return above.middle / below.middle

    def clearly_differs(self, other: Measure) -> bool:
        """Return whether both have several rounds, and every round of one lies above every round of the other."""
        if min(len(self.values), len(other.values)) < 2:
            return False
        return min(self.values) > max(other.values) or max(self.values) < min(other.values)
