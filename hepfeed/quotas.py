"""How many events of each lane make a batch: exact shares of the rates, or random ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from hepfeed.order import generator

__all__ = ["Composition", "Exhausted", "Quotas"]

Composition = Literal["exact", "random"]
Exhausted = Literal["drain", "wrap", "stop"]

_ONE = 1 << 40  # credits are integers: shares are exact, and the same on every machine


class Quotas:
    """Deals out the places of one batch after another.

    With ``"exact"`` composition each lane earns ``batch size x rate / sum of rates`` of credit a batch and is paid in
    whole events; what is owed is carried over, so no lane is ever more than one event away from its share.

    Args:
        rates: Share of each lane; any positive numbers.
        sizes: Events of each lane.
        composition: ``"exact"``, or ``"random"``: multinomial with the same means.
        exhausted: What happens once a lane has no events left: the others go on without it (``"drain"``), it starts
            again (``"wrap"``), or the epoch ends (``"stop"``).
        seed: For the random composition.
        epoch: For the random composition.
    """

    def __init__(
        self,
        rates: Sequence[float],
        sizes: Sequence[int],
        *,
        composition: Composition = "exact",
        exhausted: Exhausted = "drain",
        seed: int = 0,
        epoch: int = 0,
    ) -> None:
        total = sum(rates)
        self._weights = [max(1, round(rate / total * _ONE)) for rate in rates]
        self._credits = [0] * len(rates)
        self._left = list(sizes)
        self._lanes = [i for i, size in enumerate(sizes) if size > 0]
        self._exhausted = exhausted
        self._random = generator(seed, "composition", epoch) if composition == "random" else None

    def next(self, size: int) -> list[int]:
        """Return the events of each lane in the next batch; they sum to ``size``, or less once the epoch ends."""
        counts = [0] * len(self._weights)
        missing = size
        while missing:
            active = [i for i in self._lanes if self._left[i] > 0 or self._exhausted != "drain"]
            if not active:
                break
            share = self._draw(active, missing) if self._random else self._earn(active, missing)
            if self._exhausted == "stop" and any(share[i] > self._left[i] for i in active):
                return [0] * len(counts)
            for i, count in share.items():
                if self._exhausted != "wrap":
                    count = min(count, self._left[i])
                self._left[i] -= count
                counts[i] += count
                missing -= count
        return counts

    def _draw(self, active: list[int], size: int) -> dict[int, int]:
        assert self._random is not None
        weights = np.array([self._weights[i] for i in active], float)
        return dict(zip(active, self._random.multinomial(size, weights / weights.sum()).tolist()))

    def _earn(self, active: list[int], size: int) -> dict[int, int]:
        total = sum(self._weights[i] for i in active)
        credit = {i: self._credits[i] + size * _ONE * self._weights[i] // total for i in active}
        share = {i: max(0, credit[i] // _ONE) for i in active}
        for i in active:
            credit[i] -= share[i] * _ONE
        while missing := size - sum(share.values()):  # below 0 where a lane that ran dry had got more than its share
            step = 1 if missing > 0 else -1
            able = [i for i in active if step > 0 or share[i]]
            for i in sorted(able, key=lambda i: (-step * credit[i], i))[: abs(missing)]:
                share[i] += step
                credit[i] -= step * _ONE
        for i in active:
            self._credits[i] = credit[i]
        return share
