"""A device that is not there: what a GPU looks like to a training loop and to its feed, without computing anything."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from torch import Tensor

from hepfeed.bench.timeline import Timeline
from hepfeed.errors import SpecError
from hepfeed.walk import map_tensors

__all__ = ["SimulatedDevice", "batch_bytes"]


class SimulatedDevice:
    """An asynchronous stream of steps of equal length, with a copy engine beside it.

    The copy of batch n begins when the loop hands it over and the copy before it has ended, and takes its bytes over
    the rate of the bus.  Step n begins when copy n and step n - 1 have ended, and takes ``step_s``.  The loop goes on
    at once, and is held until step n - ``ahead`` has ended.

    These times are deadlines that follow from the moments at which the loop hands over its batches; the device's own
    are computed and not measured.  So a sleep that ends late is no wait of the device, unless the next batch comes too
    late because of it, and errors of sleeping do not add up.  Nothing spins: the core is free for readers.

    The *data wait* of a step is exact: the time between the end of the step before it and its own beginning.  It holds
    everything that keeps the batch from being there: the feed, the copy, and the Python code of the loop.

    A batch is held until its copy has ended, as page-locked memory under a transfer must be.  What a real device needs
    beside, such as the work of launching kernels or of page-locking, is not simulated.

    Args:
        step_s: Seconds of a step.
        bus_bytes_s: Bytes a second of the bus.
        ahead: Steps that may be under way while the loop goes on.  1: a loop that looks at the loss of the step before;
            0: one that waits for the loss of each step.
        clock: Gives the time in seconds.
        sleep: Waits for some seconds.

    Raises:
        SpecError: A number is out of range.
    """

    def __init__(
        self,
        step_s: float,
        bus_bytes_s: float = 12e9,
        ahead: int = 1,
        *,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not step_s > 0:
            raise SpecError(f"a simulated step must take some time, not {step_s!r} s")
        if not bus_bytes_s > 0:
            raise SpecError(f"the simulated bus must move some bytes a second, not {bus_bytes_s!r}")
        if ahead < 0:
            raise SpecError(f"the loop can be 0 steps ahead or more, not {ahead}")
        self.step_s = step_s
        self.bus_bytes_s = bus_bytes_s
        self.ahead = ahead
        self._clock = clock
        self._sleep = sleep
        self._copy_ended = 0.0
        self._step_ended: float | None = None
        self._sources: deque[tuple[float, Any]] = deque()  # (when it is copied, batch)
        self._steps: deque[float] = deque()  # ends of those under way
        self._timeline = Timeline()

    def step(self, batch: Any, resident: bool = False) -> None:
        """Queue the copy of a batch and a step on it, and return when no more than ``ahead`` steps are under way.

        Args:
            batch: A dict with ``"label"``; anything else in it is copied as well.
            resident: It lies on the device already, so that nothing is copied.
        """
        now = self._clock()
        if not resident:
            self._copy_ended = max(now, self._copy_ended) + batch_bytes(batch) / self.bus_bytes_s
            self._sources.append((self._copy_ended, batch))
        there = now if resident else self._copy_ended
        before = there if self._step_ended is None else self._step_ended
        begins = max(there, before)
        self._step_ended = begins + self.step_s
        self._steps.append(self._step_ended)
        self._timeline.add(begins - before, self.step_s, len(batch["label"]))
        while len(self._steps) > self.ahead:
            self._until(self._steps.popleft())
        now = self._clock()
        while self._sources and self._sources[0][0] <= now:
            self._sources.popleft()

    def take(self) -> Timeline:
        """Wait for the last step, and return all steps; the wait of the first one is 0.  The next one begins anew."""
        if self._step_ended is not None:
            self._until(self._step_ended)
        self._copy_ended, self._step_ended = 0.0, None
        self._sources.clear()
        self._steps.clear()
        done, self._timeline = self._timeline, Timeline()
        return done

    def _until(self, moment: float) -> None:
        while (left := moment - self._clock()) > 0:
            self._sleep(left)


def batch_bytes(batch: Any) -> int:
    """Return the bytes of all tensors of a batch."""
    total = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal total
        total += tensor.nbytes
        return tensor

    map_tensors(batch, count)
    return total
