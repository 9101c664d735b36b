"""Which partition a part of the events belongs to: shares that are as equal as what must stay together allows."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

__all__ = ["deal_out", "share_of"]


def share_of(count: int, partition: int, partitions: int, first: int = 0) -> int:
    """Return how many of ``count`` things, numbered from ``first`` on, fall to a partition.

    Number n falls to partition n modulo ``partitions``, so no two of them differ by more than one.
    """
    return max(0, -(-(count - (partition - first) % partitions) // partitions))


def deal_out(sizes: NDArray[np.int64], loads: list[int]) -> NDArray[np.int64]:
    """Give each unit to the partition that has the fewest events so far.

    Largest first, the greedy rule leaves no two partitions further apart than the largest unit, or than they were
    before (Graham, SIAM J. Appl. Math. 17 (1969) 416).  Once they are not further apart than a unit, a run of units of
    one size goes round in turn, which needs no loop.

    Args:
        sizes: ``(n,)`` events of each unit, descending.
        loads: Events of each partition before; those after are written to it.

    Returns:
        ``(n,) int64`` partition of each unit.
    """
    owner = np.empty(len(sizes), np.int64)
    edges = [0, *(np.flatnonzero(np.diff(sizes)) + 1).tolist(), len(sizes)] if len(sizes) else [0]
    for low, high in pairwise(edges):
        size = int(sizes[low])
        while low < high and max(loads) - min(loads) > size:
            least = loads.index(min(loads))
            owner[low] = least
            loads[least] += size
            low += 1
        turn = sorted(range(len(loads)), key=loads.__getitem__)
        owner[low:high] = np.array(turn)[np.arange(high - low) % len(turn)]
        for place, partition in enumerate(turn):
            loads[partition] += size * share_of(high - low, place, len(turn))
    return owner
