"""Times of calls on a device, and how they are said."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from hepfeed.bench.sheet import three_digits

__all__ = ["Clock", "milliseconds", "processor"]

_ROUND_S = 0.02
"""A round repeats what is shorter than this."""


def processor() -> str:
    """Return what the system calls the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def milliseconds(seconds: float) -> str:
    """Return a time with three digits."""
    return three_digits(seconds * 1e3)


class Clock:
    """Measures calls: with CUDA's events on a card, so that the time is the device's; else with the processor's clock.

    Attributes:
        device: Where the calls do their work, on its current stream.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def rounds(self, run: Callable[[], Any], count: int) -> list[float]:
        """Return the seconds of a call in each of some rounds; a call goes before them, for caches and choices.

        A round of what is short is the mean of several calls.
        """
        run()
        first = self._time(run, 1)
        repeats = max(1, int(_ROUND_S / max(first, 1e-7)))
        done = [first] if repeats == 1 else []  # what is long is not called once more than asked for
        return done[:count] + [self._time(run, repeats) / repeats for _ in range(count - len(done))]

    def _time(self, run: Callable[[], Any], repeats: int) -> float:
        """Return the seconds that some calls take together."""
        if self.device.type != "cuda":
            begun = time.perf_counter()
            for _ in range(repeats):
                run()
            return time.perf_counter() - begun
        with torch.cuda.device(self.device):
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()
            first.record()
            for _ in range(repeats):
                run()
            last.record()
            last.synchronize()
            return float(first.elapsed_time(last)) / 1e3
