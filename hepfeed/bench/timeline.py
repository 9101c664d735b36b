"""What a device did, step by step: how long it waited for data, and how long it computed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Timeline"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Timeline:
    """Steps of a training loop, one after another.

    A step lasts from the end of the one before to its own end.  In its first part, the *data wait*, the device is idle
    because the batch is not there; in the rest it is busy.  Both together are the step, so that the data wait of all
    steps and the busy time add up to the seconds of the run.

    Attributes:
        wait_s: Data wait of each step.
        busy_s: Busy time of each step.
        events: Of the batch of each step.
    """

    wait_s: list[float] = field(default_factory=list)
    busy_s: list[float] = field(default_factory=list)
    events: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.events)

    def add(self, wait_s: float, busy_s: float, events: int) -> None:
        """Append a step."""
        self.wait_s.append(wait_s)
        self.busy_s.append(busy_s)
        self.events.append(events)

    def part(self, first: int, last: int | None = None) -> Timeline:
        """Return the steps ``first:last``."""
        return Timeline(self.wait_s[first:last], self.busy_s[first:last], self.events[first:last])

    @property
    def seconds(self) -> float:
        """Of all steps."""
        return sum(self.wait_s) + sum(self.busy_s)

    @property
    def events_per_s(self) -> float:
        """Events of all steps over their seconds; 0 where there is no step."""
        return sum(self.events) / self.seconds if self.seconds else 0.0

    @property
    def busy(self) -> float:
        """Part of the seconds that the device was busy; 0 where there is no step."""
        return sum(self.busy_s) / self.seconds if self.seconds else 0.0

    @property
    def fractions(self) -> Floats:
        """``(steps,)``: the data wait of each step as a part of the step."""
        wait, busy = np.array(self.wait_s, float), np.array(self.busy_s, float)
        whole = wait + busy
        parts: Floats = np.divide(wait, whole, out=np.zeros_like(whole), where=whole > 0)
        return parts

    def to_json(self) -> dict[str, Any]:
        """Return what a record keeps: milliseconds, for drawing."""
        return {
            "wait_ms": [round(1e3 * wait, 4) for wait in self.wait_s],
            "busy_ms": [round(1e3 * busy, 4) for busy in self.busy_s],
        }
