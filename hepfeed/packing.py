"""Packing: which events of a window share a batch, judged by their number of points."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Oversize", "Packing", "cut", "cut_evenly"]

Ints = NDArray[np.int64]
Oversize = Literal["alone", "raise", "skip"]


@dataclass(frozen=True, eq=False)
class Packing:
    """How a window of events is cut into batches by length.

    Attributes:
        length: ``(n_events,) int64`` points of each event of the index.
        batch_size: Most events of a batch; without ``max_points`` all batches but the last one of an epoch have as
            many.
        matched: Whether the events of a batch are to be of similar length.
        max_points: Most points of a batch, or None.
        oversize: An event with more than ``max_points`` makes a batch of its own (``"alone"``), or none (``"skip"``).
    """

    length: Ints
    batch_size: int
    matched: bool
    max_points: int | None
    oversize: Oversize

    @cached_property
    def oversized(self) -> NDArray[np.bool_]:
        """``(n_events,) bool``: which events of the index have more than ``max_points``."""
        if self.max_points is None:
            return np.zeros(len(self.length), np.bool_)
        return self.length > self.max_points

    def skipped(self, event: Ints) -> NDArray[np.bool_]:
        """Return ``(n,) bool``: which of the events are in no batch."""
        return self.oversized[event] & (self.oversize == "skip")

    def typical_size(self) -> int:
        """Return about how many events a batch has."""
        if self.max_points is None:
            return self.batch_size
        points = int(self.length[~self.oversized].sum())
        count = len(self.length) - int(self.oversized.sum())
        return max(1, min(self.batch_size, self.max_points * count // max(1, points)))

    def pack(self, event: Ints, random: np.random.Generator | None, drop_last: bool) -> tuple[Ints, Ints]:
        """Cut the events of a window into batches.

        Events of a batch keep the order that they have in the window.  Matched batches are runs of the events sorted
        by length, equal lengths in the order of the window.

        Args:
            event: ``(n,)`` places in the index, in the order of the window.
            random: Puts matched batches into random order; None leaves all batches in the order of their first events.
            drop_last: Leave out the events at the end of the window that do not fill a batch (with ``max_points``).

        Returns:
            ``(m,)`` places in ``event``, batch by batch, and ``(batches + 1,)`` where in them each batch begins.
            An incomplete batch is the last one where only ``batch_size`` limits them.
        """
        large = self.oversized[event]
        place = np.flatnonzero(~large)
        if self.max_points is not None and drop_last:
            place = place[: _filled(self.length[event[place]], self.batch_size, self.max_points)]
        if self.matched:
            place = place[np.argsort(self.length[event[place]], kind="stable")]
        if self.max_points is None:
            bounds = self._by_count(len(place), random)
        else:
            bounds = cut_evenly(self.length[event[place]], self.batch_size, self.max_points)
        if self.oversize != "skip":
            alone = np.flatnonzero(large)
            place = np.concatenate([place, alone])
            bounds = np.concatenate([bounds, bounds[-1] + np.arange(1, len(alone) + 1)])
        return self._in_order(place, bounds, random)

    def _by_count(self, n: int, random: np.random.Generator | None) -> Ints:
        """Cut ``n`` sorted events by ``batch_size``; which lengths the incomplete batch gets is left to chance."""
        full, rest = divmod(n, self.batch_size)
        sizes = [self.batch_size] * full
        if rest:
            sizes.insert(full if random is None else int(random.integers(full + 1)), rest)
        return np.cumsum([0, *sizes], dtype=np.int64)

    def _in_order(self, place: Ints, bounds: Ints, random: np.random.Generator | None) -> tuple[Ints, Ints]:
        """Put batches into their order, and the events of each batch into that of the window."""
        sizes = np.diff(bounds)
        if not len(sizes):
            return place, bounds
        if self.matched and random is not None:
            turn = random.permutation(len(sizes))
        else:
            turn = np.minimum.reduceat(place, bounds[:-1])
        if self.max_points is None:
            turn = np.where(sizes < self.batch_size, len(place), turn)
        batches = np.argsort(turn)
        rank = np.empty(len(sizes), np.int64)
        rank[batches] = np.arange(len(sizes))
        order = np.lexsort((place, np.repeat(rank, sizes)))
        return place[order], np.concatenate([[0], np.cumsum(sizes[batches])]).astype(np.int64)


def cut(length: Ints, most_events: int, most_points: int) -> Ints:
    """Cut a run of events greedily: a batch ends before the first event that does not fit any more.

    Args:
        length: ``(n,)`` points of each event.
        most_events: Of a batch.
        most_points: Of a batch; an event that has more is a batch of its own.

    Returns:
        ``(batches + 1,) int64`` where each batch begins: batch b has events ``bounds[b]:bounds[b + 1]``.
    """
    return np.array(_cut(_ends(length), most_events, most_points), np.int64)


def cut_evenly(length: Ints, most_events: int, most_points: int) -> Ints:
    """Cut a run of events into no more batches than :func:`cut`, and all about equally full.

    Both limits are scaled down by the least common factor, found by bisection over ``most_points``, that still gives
    that number of batches.  (The least largest part of a sequence in m runs; bisection with a greedy check, as in
    Pinar and Aykanat, J. Parallel Distrib. Comput. 64 (2004) 974.)
    """
    ends = _ends(length)
    best = _cut(ends, most_events, most_points)
    batches = len(best) - 1
    if batches < 1:
        return np.array(best, np.int64)
    low, high = max(1, -(-ends[-1] // batches)), most_points
    while low < high:
        middle = (low + high) // 2
        tried = _cut(ends, -(-middle * most_events // most_points), middle)
        if len(tried) - 1 <= batches:
            best, high = tried, middle
        else:
            low = middle + 1
    return np.array(best, np.int64)


def _ends(length: Ints) -> list[int]:
    """Return the points before each event, and those of all; a list, in which a search costs less than in an array."""
    ends: list[int] = np.cumsum(np.concatenate([[0], length]), dtype=np.int64).tolist()
    return ends


def _cut(ends: list[int], most_events: int, most_points: int) -> list[int]:
    n = len(ends) - 1
    bounds, begin = [0], 0
    while begin < n:
        most = min(begin + most_events, n) + 1
        begin = max(begin + 1, bisect_right(ends, ends[begin] + most_points, begin + 1, most) - 1)
        bounds.append(begin)
    return bounds


def _filled(length: Ints, most_events: int, most_points: int) -> int:
    """Return how many events make batches of which the last one is full by either limit."""
    bounds = cut(length, most_events, most_points).tolist()
    if len(bounds) > 1:
        begin, end = bounds[-2:]
        if end - begin < most_events and length[begin:end].sum() < most_points:
            return int(begin)
    return int(bounds[-1])
