"""How fast customers get round in a network of queues: the arithmetic under :mod:`hepfeed.bench.cluster`.

A closed network has a fixed number of customers, here readers, each of which thinks and then visits stations in turn.
The number of rounds a second follows from mean-value analysis: a customer that arrives finds the queue that the others
make (Reiser and Lavenberg, J. ACM 27 (1980) 313), and the queue of all but one is taken to be that of all, times
``(n - 1) / n`` (Schweitzer 1979; Bard, 3rd Int. Symp. on Modelling and Performance Evaluation of Computer Systems,
1979, 51).  This is exact for one customer and for very many; between them it is off by some per cent.  A queue is
served in the order of arrival with exponential times, or shared by all that wait: for the means that is the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["rounds_per_s"]

_ROUNDS = 10_000
_PRECISION = 1e-12


def rounds_per_s(groups: int, members: int, think_s: float, shared_s: Sequence[float], own_s: Sequence[float]) -> float:
    """Return how many rounds all customers together make in a second.

    Args:
        groups: Of customers, all alike: nodes.
        members: Customers of each group: readers.
        think_s: Seconds of a round that a customer waits for nobody.
        shared_s: Seconds of service that a round takes at each station that all customers share.
        own_s: The same for stations that each group has for itself.

    Returns:
        Rounds a second; infinite where a round takes no time.
    """
    customers = groups * members
    if think_s + sum(shared_s) + sum(own_s) == 0.0:
        return math.inf
    stations = len(shared_s) + len(own_s)
    shared = [customers / max(1, stations)] * len(shared_s)  # customers at each station
    own = [members / max(1, stations)] * len(own_s)
    rate = 0.0
    for _ in range(_ROUNDS):
        at_shared = [service * (1 + (customers - 1) / customers * queue) for service, queue in zip(shared_s, shared)]
        at_own = [service * (1 + (members - 1) / members * queue) for service, queue in zip(own_s, own)]
        before, rate = rate, customers / (think_s + sum(at_shared) + sum(at_own))
        shared = [rate * time for time in at_shared]
        own = [rate / groups * time for time in at_own]
        if abs(rate - before) <= _PRECISION * rate:
            break
    return rate
