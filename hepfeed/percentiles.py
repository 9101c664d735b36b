"""Percentiles of numbers of which zeros are counted, and the others gathered or counted in bins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfeed.ordered import BINS, bin_of, is_exact, lowest, number_of

__all__ = ["Counts", "Numbers"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_PENDING = 1 << 22  # codes that wait to be merged


class Counts:
    """How often integers came; memory goes with the number of distinct ones."""

    def __init__(self) -> None:
        self._codes: list[Ints] = []
        self._counts: list[Ints] = []

    def add(self, codes: Ints, counts: Ints) -> None:
        """Count some more."""
        self._codes.append(codes)
        self._counts.append(counts)
        if sum(map(len, self._codes[1:])) > _PENDING:
            self.total()

    def total(self) -> tuple[Ints, Ints]:
        """Return distinct integers in ascending order, and how often each came."""
        if len(self._codes) != 1:
            codes = np.concatenate([np.empty(0, np.int64), *self._codes])
            found, place = np.unique(codes, return_inverse=True)
            counts = np.zeros(len(found), np.int64)
            np.add.at(counts, place, np.concatenate([np.empty(0, np.int64), *self._counts]))
            self._codes, self._counts = [found], [counts]
        return self._codes[0], self._counts[0]


@dataclass
class Numbers:
    """The numbers of one channel.

    Attributes:
        dtype: A counted type, see :mod:`hepfeed.ordered`.
        zeros: How many are 0.
        values: The others, sorted; None where they were counted.
        bins: ``(n,)`` ascending bins that have numbers.
        counts: ``(n,)`` how many each has.
        fine: Bin -> its fine bins and their counts.
    """

    dtype: np.dtype[Any]
    zeros: int
    values: NDArray[Any] | None
    bins: Ints
    counts: Ints
    fine: dict[int, tuple[Ints, Ints]] = field(default_factory=dict)

    @classmethod
    def gathered(cls, values: NDArray[Any], zeros: int) -> Numbers:
        """Make the numbers from all that are not 0."""
        bins, counts = np.unique(bin_of(values), return_counts=True)
        return cls(values.dtype, zeros, np.sort(values), bins, counts.astype(np.int64))

    @property
    def active(self) -> int:
        """How many are not 0."""
        return int(self.counts.sum())

    def to_refine(self, percentiles: Sequence[float]) -> Ints:
        """Return the bins whose numbers percentiles need more exactly, ascending."""
        if self.values is not None or is_exact(self.dtype, fine=False):
            return np.empty(0, np.int64)
        ranks = [self._ranks(percentiles, active=True)[0], self._of_active(self._ranks(percentiles, active=False)[0])]
        needed = np.concatenate([each.reshape(-1) for each in ranks])
        return np.unique(self.bins[self._bin_places(needed[needed >= 0])])

    def percentiles(self, percentiles: Sequence[float], *, active: bool) -> Floats:
        """Return percentiles, between neighbours in proportion as :func:`numpy.percentile`; NaN where there are none.

        Args:
            percentiles: 0 .. 100.
            active: Of the numbers that are not 0.
        """
        ranks, part = self._ranks(percentiles, active)
        if not ranks.size:
            return np.full(len(percentiles), np.nan)
        places = ranks.reshape(-1) if active else self._of_active(ranks.reshape(-1))
        numbers = np.zeros(len(places))
        there = places >= 0
        numbers[there] = self._at(places[there])
        low, high = numbers.reshape(ranks.shape)
        made: Floats = low + (high - low) * part
        return made

    def spectrum(self, edges: Floats) -> Floats:
        """Return how many active numbers lie between edges; within a bin they are taken as evenly spread."""
        if self.values is not None:
            return np.histogram(self.values.astype(np.float64), edges)[0].astype(np.float64)
        below = np.cumsum(self.counts)
        x = np.stack([lowest(self.bins, self.dtype), lowest(np.minimum(self.bins + 1, BINS - 1), self.dtype)], 1)
        y = np.stack([below - self.counts, below], 1)
        return np.diff(np.interp(edges, x.reshape(-1), y.reshape(-1)))

    def _ranks(self, percentiles: Sequence[float], active: bool) -> tuple[Ints, Floats]:
        """Return ``(2, n)`` neighbours of each percentile in the sorted numbers, and ``(n,)`` how far between."""
        total = self.active + (0 if active else self.zeros)
        if not total:
            return np.empty((2, 0), np.int64), np.empty(0)
        position = np.asarray(percentiles, np.float64) / 100.0 * (total - 1)
        low = np.floor(position).astype(np.int64)
        return np.stack([low, np.minimum(low + 1, total - 1)]), position - low

    def _of_active(self, ranks: Ints) -> Ints:
        """Turn ranks among all numbers into ranks among the active ones; -1 for a zero."""
        negative = 0 if self.dtype.kind == "u" else int(self.counts[self.bins < BINS // 2].sum())
        beyond = np.where(ranks < negative + self.zeros, -1, ranks - self.zeros)
        return np.where(ranks < negative, ranks, beyond)

    def _bin_places(self, ranks: Ints) -> Ints:
        return np.searchsorted(np.cumsum(self.counts), ranks, "right").astype(np.int64)

    def _at(self, ranks: Ints) -> Floats:
        """Return active numbers by their ranks."""
        if self.values is not None:
            return self.values[ranks].astype(np.float64)
        before = np.cumsum(self.counts) - self.counts
        found = np.empty(len(ranks))
        for i, (place, rank) in enumerate(zip(self._bin_places(ranks).tolist(), ranks.tolist())):
            chosen = self.bins[place : place + 1]
            fine, counts = self.fine.get(int(chosen[0]), (None, None))
            if fine is not None and counts is not None:
                at = int(np.searchsorted(np.cumsum(counts), rank - before[place], "right"))
                fine = fine[at : at + 1]
            found[i] = number_of(chosen, fine, self.dtype)[0]
        return found
