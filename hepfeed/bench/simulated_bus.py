"""The way to a device that is not there: copies one after another, each of which takes its bytes over a rate."""

from __future__ import annotations

import time
from collections.abc import Callable

from hepfeed.errors import SpecError

__all__ = ["SimulatedBus"]


class SimulatedBus:
    """Moments at which copies end, computed from those at which they were begun.

    Args:
        bytes_s: Bytes a second.
        clock: Gives the time in seconds.
        sleep: Waits for some seconds.

    Raises:
        SpecError: The rate is not above 0.

    Attributes:
        free_at: When the last copy ends.
        awaited: When the copy ends that the device's next step waits for.
    """

    def __init__(
        self,
        bytes_s: float = 12e9,
        *,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not bytes_s > 0:
            raise SpecError(f"the simulated bus must move some bytes a second, not {bytes_s!r}")
        self.bytes_s = bytes_s
        self.free_at = 0.0
        self.awaited = 0.0
        self.now = clock
        self._sleep = sleep

    def move(self, size: int) -> float:
        """Begin a copy, once the one before it has ended; returns when it ends."""
        self.free_at = max(self.now(), self.free_at) + size / self.bytes_s
        return self.free_at

    def wait_until(self, moment: float) -> None:
        """Wait for a moment; nothing spins, so that the core is free for readers."""
        while (left := moment - self.now()) > 0:
            self._sleep(left)
