"""A row of a comparison: what several sides that take turns needed for the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hepfeed.bench.clock import Clock

__all__ = ["Row"]


@dataclass(frozen=True)
class Row:
    """What one thing took.

    Attributes:
        group: ``"transforms"``, ``"maps"`` or ``"convolutions"``.
        what: Its name.
        bound: Seconds that the device can't beat, by its peaks: not measured.
        seconds: Of each side, by round.
        absent: Why others did not take part.
    """

    group: str
    what: str
    bound: float
    seconds: dict[str, list[float]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def race(self, runs: Mapping[str, Callable[[], Any]], clock: Clock, rounds: int) -> None:
        """Time all sides, one after another in each round."""
        for _ in range(rounds):
            for name, run in runs.items():
                self.seconds.setdefault(name, []).extend(clock.rounds(run, 1))
