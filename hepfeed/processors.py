"""Processors that this process may use."""

from __future__ import annotations

import os

__all__ = ["usable_processors"]

_LIMIT = "/sys/fs/cgroup/cpu.max"


def usable_processors(limit: str = _LIMIT) -> float:
    """Return how many processors this process may use: those that it may run on, within its control group's quota.

    Args:
        limit: File with the quota and the period of a control group (a container, a batch job), in microseconds.
    """
    processors = float(len(os.sched_getaffinity(0)))
    try:
        with open(limit) as file:
            quota, period = file.read().split()
        return min(processors, int(quota) / int(period))
    except (OSError, ValueError):  # there is no control group, or it has no quota
        return processors
