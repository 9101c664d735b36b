"""Lanes: the endless order of each group of events that are drawn with one rate, in one partition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from hepfeed.index import EventIndex
from hepfeed.order import generator
from hepfeed.partition import deal_out, share_of

__all__ = ["Arranged", "Lane", "LaneLayout", "lay_out", "unit_starts"]

Arranged = Literal["full", "window", "mixed", "sequential"]
Ints = NDArray[np.int64]
_LOOKED_AT = 1 << 20  # events at a time, which bounds the memory that is needed for it

_permutations: WeakValueDictionary[tuple[int, ...], Ints] = WeakValueDictionary()
"""The permutations that lanes hold now; one of 1e7 events takes 80 MB, and half a second to make."""


def unit_starts(index: EventIndex) -> Ints:
    """Return ``(n_units + 1,)`` first event of each unit: a run of events of one file that share chunks."""
    n = len(index)
    block = np.array([source.block for source in index.sources], np.int64)
    begins = np.zeros(n, bool)
    begins[index.file_start[:-1][np.diff(index.file_start) > 0]] = True
    for low in range(0, n - 1, _LOOKED_AT):
        high = min(low + _LOOKED_AT + 1, n)  # each piece has the first event of the next one
        edges: Ints = np.clip(index.file_start, low, high)
        blocks = index.rows[low:high] // np.repeat(block, edges[1:] - edges[:-1])
        begins[low + 1 : high] |= blocks[1:] != blocks[:-1]
    return np.append(np.flatnonzero(begins), n).astype(np.int64)


@dataclass(frozen=True, eq=False)
class LaneLayout:
    """The events of a lane, and which of them are in this partition.

    Attributes:
        order: Random order of events (``"full"``) or of units (``"window"``), or units as they are.
        seed: Another seed, another order.
        number: Of the lane.
        start: First event.
        stop: Where its events end.
        unit_start: As :func:`unit_starts` returns it; not needed for ``"full"``.
        partition: Of ``partitions``.
        partitions: Canonical partitions of the order.
        owned: ``(n_units,) bool``: which units of the lane, sorted by size in descending order, are in this
            partition; None for all, and for ``"full"``.
        size: Events in this partition; the same for every time around.
    """

    order: Arranged
    seed: int
    number: int
    start: int
    stop: int
    unit_start: Ints
    partition: int
    partitions: int
    owned: NDArray[np.bool_] | None
    size: int

    def arrange(self, epoch: int, cycle: int) -> Ints:
        """Return the events (``"full"``) or units of this partition, for one time around."""
        if self.order == "full":
            events = self._permutation(epoch, cycle)
            return events[(self.partition - self.start) % self.partitions :: self.partitions]
        first, last = np.searchsorted(self.unit_start, [self.start, self.stop])
        units = np.arange(first, last, dtype=np.int64)
        if self.order == "window":
            units = self._random(epoch, cycle).permutation(units)
        if self.owned is None:
            return units
        by_size = np.argsort(-self.sizes(units), kind="stable")
        return units[np.sort(by_size[self.owned])]

    def _random(self, epoch: int, cycle: int) -> np.random.Generator:
        return generator(self.seed, "lane", epoch, self.number, cycle)

    def _permutation(self, epoch: int, cycle: int) -> Ints:
        """Return all events of the lane in random order: one array for all partitions, while one of them holds it."""
        key = (self.seed, epoch, self.number, cycle, self.start, self.stop)
        events = _permutations.get(key)
        if events is None:
            events = np.arange(self.start, self.stop, dtype=np.int64)
            self._random(epoch, cycle).shuffle(events)
            events.flags.writeable = False
            _permutations[key] = events
        return events

    def sizes(self, units: Ints) -> Ints:
        """Return the events of units."""
        return self.unit_start[units + 1] - self.unit_start[units]


def lay_out(
    ranges: list[tuple[int, int]], order: Arranged, seed: int, unit_start: Ints, partition: int, partitions: int
) -> list[LaneLayout]:
    """Lay out lanes over partitions, whose numbers of events are as equal as the order allows.

    With ``"full"`` order, positions are dealt out one by one, counted through all lanes: partitions differ by one
    event at most.  In the other orders whole units are dealt out, each to the partition that has the fewest events,
    lane by lane and largest first: partitions differ by one unit of the largest size at most.  How many units of each
    size a partition has does not depend on the order that they come in.

    Args:
        ranges: First event of each lane, and where it ends.
        order: As in :class:`LaneLayout`.
        seed: As in :class:`LaneLayout`.
        unit_start: As in :class:`LaneLayout`.
        partition: As in :class:`LaneLayout`.
        partitions: As in :class:`LaneLayout`.
    """
    loads = [0] * partitions
    layouts = []
    for number, (start, stop) in enumerate(ranges):
        owned, size = None, stop - start
        if order == "full":
            size = share_of(size, partition, partitions, start)
        elif partitions > 1:
            first, last = np.searchsorted(unit_start, [start, stop])
            sizes = -np.sort(-np.diff(unit_start[first : last + 1]), kind="stable")
            owned = deal_out(sizes, loads) == partition
            size = int(sizes[owned].sum())
        layout = LaneLayout(order, seed, number, start, stop, unit_start, partition, partitions, owned, size)
        layouts.append(layout)
    return layouts


class Lane:
    """The endless order of a lane: a new permutation for each time around.

    Args:
        layout: The events.
        epoch: Epoch.
    """

    def __init__(self, layout: LaneLayout, epoch: int) -> None:
        self._layout = layout
        self._epoch = epoch
        self._cycle = -1
        self._turn()

    def _turn(self) -> None:
        """Lay out the next time around: ``_order`` are events (full) or units, ``_ends`` where each unit ends."""
        self._cycle, self._at = self._cycle + 1, 0
        self._order = self._layout.arrange(self._epoch, self._cycle)
        if self._layout.order != "full":
            self._ends: Ints = np.cumsum(self._layout.sizes(self._order))

    def take(self, count: int) -> tuple[Ints, Ints, dict[int, Ints]]:
        """Return the next events, the unit of each, and what remains of a unit that was cut.

        A unit whose rest was kept may come again in the next time around, with rows that were not kept; so events
        after a turn stand alone, and nothing is kept of them.
        """
        events, units = [], []
        rest: dict[int, Ints] = {}
        turned = False
        while count > 0:
            if self._at == self._layout.size:
                self._turn()
                turned = True
            n = min(count, self._layout.size - self._at)
            event, unit, rest = self._slice(self._at, self._at + n)
            if turned:
                unit, rest = np.full(n, -1, np.int64), {}
            events.append(event)
            units.append(unit)
            self._at += n
            count -= n
        if not events:
            return np.empty(0, np.int64), np.empty(0, np.int64), {}
        return np.concatenate(events), np.concatenate(units), rest

    def skip(self, count: int) -> None:
        """Pass over the next events."""
        while count > 0:
            if self._at == self._layout.size:
                self._turn()
            n = min(count, self._layout.size - self._at)
            self._at += n
            count -= n

    def _slice(self, low: int, high: int) -> tuple[Ints, Ints, dict[int, Ints]]:
        if self._layout.order == "full":
            events = self._order[low:high]
            return events, np.full(len(events), -1, np.int64), {}
        i, j = (int(np.searchsorted(self._ends, at, side="right")) for at in (low, high - 1))
        units = self._order[i : j + 1]
        starts, sizes = self._layout.unit_start[units], self._layout.sizes(units)
        before = np.cumsum(sizes) - sizes
        everything = np.repeat(starts - before, sizes) + np.arange(int(sizes.sum()))
        unit_of = np.repeat(units, sizes)
        base = int(self._ends[i] - sizes[0])
        cut = slice(low - base, high - base)
        rest = everything[high - base :]
        return everything[cut], unit_of[cut], {int(units[-1]): rest} if len(rest) else {}
