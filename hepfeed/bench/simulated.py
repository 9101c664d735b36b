"""A device that is not there: what a GPU looks like to a training loop and to its feed, without computing anything."""

from __future__ import annotations

from collections import deque
from typing import Any

from torch import Tensor

from hepfeed.bench.simulated_bus import SimulatedBus
from hepfeed.bench.timeline import Timeline
from hepfeed.errors import SpecError
from hepfeed.walk import map_tensors

__all__ = ["SimulatedDevice", "batch_bytes"]

_LONGEST_S = 3600.0


class SimulatedDevice:
    """An asynchronous stream of steps of equal length, with a bus beside it.

    The copy of batch n begins when the loop hands it over and the copy before it has ended, and takes its bytes over
    the rate of the bus; a batch that its loader has sent ahead over the same bus, by a
    :class:`hepfeed.bench.simulated_engine.SimulatedEngine`, is on its way already.  Step n begins when copy n and step
    n - 1 have ended, and takes ``step_s``.  The loop goes on at once, and is held until step n - ``ahead`` has ended.

    These times are deadlines that follow from the moments at which the loop hands over its batches; the device's own
    are computed and not measured.  So a sleep that ends late is no wait of the device, unless the next batch comes too
    late because of it, and errors of sleeping do not add up.  Nothing spins: the core is free for readers.

    The *data wait* of a step is exact: the time between the end of the step before it and its own beginning.  It holds
    everything that keeps the batch from being there: the feed, the copy, and the Python code of the loop.

    A batch is held until its copy has ended, as page-locked memory under a transfer must be.  What a real device needs
    beside, such as the work of launching kernels or of page-locking, is not simulated.

    Args:
        step_s: Seconds of a step.
        bus: The way to it; None: one of 12 GB/s.
        ahead: Steps that may be under way while the loop goes on.  1: a loop that looks at the loss of the step before;
            0: one that waits for the loss of each step.

    Raises:
        SpecError: A number is out of range.
    """

    def __init__(
        self,
        step_s: float,
        bus: SimulatedBus | None = None,
        ahead: int = 1,
    ) -> None:
        if not 0 < step_s <= _LONGEST_S:
            raise SpecError(f"a simulated step must take some time, and an hour at most, not {step_s!r} s")
        if ahead < 0:
            raise SpecError(f"the loop can be 0 steps ahead or more, not {ahead}")
        self.step_s = step_s
        self.ahead = ahead
        self._bus = bus or SimulatedBus()
        self._step_ended: float | None = None
        self._sources: deque[tuple[float, Any]] = deque()  # (when it is copied, batch)
        self._steps: deque[float] = deque()  # ends of those under way
        self._timeline = Timeline()

    def step(self, batch: Any, resident: bool = False) -> None:
        """Queue the copy of a batch and a step on it, and return when no more than ``ahead`` steps are under way.

        Args:
            batch: A dict with ``"label"``; anything else in it is copied as well.
            resident: It lies on the device already, or is on its way.
        """
        if resident:
            there = max(self._bus.now(), self._bus.awaited)
        else:
            there = self._bus.move(batch_bytes(batch))
            self._sources.append((there, batch))
        before = there if self._step_ended is None else self._step_ended
        begins = max(there, before)
        self._step_ended = begins + self.step_s
        self._steps.append(self._step_ended)
        self._timeline.add(begins - before, self.step_s, len(batch["label"]))
        while len(self._steps) > self.ahead:
            self._bus.wait_until(self._steps.popleft())
        now = self._bus.now()
        while self._sources and self._sources[0][0] <= now:
            self._sources.popleft()

    def take(self) -> Timeline:
        """Wait for the last step, and return all steps; the wait of the first one is 0.  The next one begins anew."""
        if self._step_ended is not None:
            self._bus.wait_until(self._step_ended)
        self._step_ended = None
        self._sources.clear()
        self._steps.clear()
        done, self._timeline = self._timeline, Timeline()
        return done


def batch_bytes(batch: Any) -> int:
    """Return the bytes of all tensors of a batch."""
    total = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal total
        total += tensor.nbytes
        return tensor

    map_tensors(batch, count)
    return total
