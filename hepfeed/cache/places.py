"""Where the cache has each event: tables of the consumer's process, from which it tells readers what to read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hepfeed.index import EventIndex
from hepfeed.parts.part import BOOKS, Part
from hepfeed.tasks import MISSING, REMOVED

__all__ = ["Contents", "Places"]

Ints = NDArray[np.int64]


class Contents:
    """What the parts of a cache hold, part after part; rows are counted over all of them.

    Attributes:
        start: ``(parts + 1,)`` first row of each part.
        first_block: ``(parts + 1,)`` number of its first block.
        parts: The parts, by number.
        event: Of each part ``(n, 2)``: file and row in the source.
        removed: Of each part ``(m, 2)``.
    """

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.event: list[Ints] = []
        self.removed: list[Ints] = []
        self.start: Ints = np.zeros(1, np.int64)
        self.first_block: Ints = np.zeros(1, np.int64)
        self._edges: dict[str, Ints] = {}
        self._waiting: list[dict[str, Ints]] = []  # offsets of parts that are not among these yet
        self._known: dict[str, int] = {}

    def add(self, part: Part, directory: str, read: Callable[[str], Ints] | None = None) -> None:
        """Take in a part.

        Args:
            part: The part.
            directory: Where its file lies.
            read: Returns one of its data sets; None reads the file.

        Raises:
            SourceError: The part can't be read.
            CorruptDataError: It fails a checksum, or is cut short.
        """
        if read is None:
            read = partial(part.read, directory=directory)
        event, removed = read("event"), read(f"{BOOKS}/removed")
        self._waiting.append({path: read(path) for path in part.stored if _is_edges(part, path)})
        self._known[part.name] = len(self.parts)
        self.parts.append(part)
        self.event.append(event)
        self.removed.append(removed)
        self.start = np.append(self.start, self.start[-1] + part.events)
        self.first_block = np.append(self.first_block, self.first_block[-1] + part.blocks)

    def _offsets(self) -> dict[str, Ints]:
        """Return the offsets of all parts, each with one number more than it has events."""
        if self._waiting:
            first = len(self.parts) - len(self._waiting)
            sizes = [part.events + 1 for part in self.parts[first:]]
            for path in {*self._edges, *(path for edges in self._waiting for path in edges)}:
                old = self._edges.get(path, np.zeros(int(self.start[first]) + first, np.int64))
                new = [edges.get(path, np.zeros(size, np.int64)) for edges, size in zip(self._waiting, sizes)]
                self._edges[path] = np.concatenate([old, *new])
            self._waiting.clear()
        return self._edges

    def totals(self) -> dict[str, int]:
        """Return the number of rows of all events, by path of their offsets."""
        last = self.start[1:] + np.arange(len(self.parts))
        return {path: int(edges[last].sum()) for path, edges in self._offsets().items()}

    def number(self, name: str) -> int:
        """Return the number of a part."""
        return self._known[name]

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def locate(self, row: Ints) -> tuple[Ints, Ints, dict[str, tuple[Ints, Ints]]]:
        """Return part, row in it, and the runs of rows, of events at rows of the cache.

        Rows that are :data:`~hepfeed.tasks.MISSING` or :data:`~hepfeed.tasks.REMOVED` stay so.
        """
        part = np.searchsorted(self.start, row, side="right") - 1
        at = row - self.start[part]
        missing = row < 0
        any_missing = bool(missing.any())
        edge = row + part
        if any_missing:
            part[missing], at[missing], edge[missing] = row[missing], -1, 0
        runs = {}
        for path, edges in self._offsets().items():
            begin = edges[edge]
            count = edges[edge + 1] - begin
            if any_missing:
                count[missing] = 0
            runs[path] = begin, count
        return part, at, runs


def _is_edges(part: Part, path: str) -> bool:
    return path.rpartition("/")[2] in ("offsets", "nodes") and path not in part.columns


class Places:
    """Where the cache has the events of an index.

    Attributes:
        row: ``(events,)`` row of each event of the index in the cache, :data:`MISSING` or :data:`REMOVED`.
        missing: Number of events that the cache does not have.
    """

    def __init__(self, index: EventIndex) -> None:
        self._index = index
        self.row: Ints = np.full(len(index), MISSING, np.int64)
        self._parts = 0
        self._damaged: dict[int, set[int]] = {}  # blocks of each part
        self.missing = len(index)

    def update(self, contents: Contents, damaged: Iterable[tuple[int, int]] = ()) -> None:
        """Take in parts that are new, and blocks that turned out to be damaged."""
        new = [(number, block) for number, block in damaged if block not in self._damaged.get(number, ())]
        for number, block in new:
            self._damaged.setdefault(number, set()).add(block)
            part, start = contents.parts[number], int(contents.start[number])
            low, high = _rows_of(part, block)
            self.row[(self.row >= start + low) & (self.row < start + high)] = MISSING
        for number in range(0 if new else self._parts, len(contents.parts)):
            self._add(contents, number)
        self._parts = len(contents.parts)
        self.missing = int((self.row == MISSING).sum())

    def _add(self, contents: Contents, number: int) -> None:
        """Take in what is right of a part; an event that two writers wrote is taken from the first."""
        place = self._index.find(contents.event[number])
        for block in self._damaged.get(number, ()):
            low, high = _rows_of(contents.parts[number], block)
            place[low:high] = -1
        here = np.flatnonzero(place >= 0)
        here = here[self.row[place[here]] == MISSING]
        self.row[place[here]] = contents.start[number] + here
        gone = self._index.find(contents.removed[number])
        self.row[gone[gone >= 0]] = REMOVED


def _rows_of(part: Part, block: int) -> tuple[int, int]:
    """First row and end of a block of a part; of block -1, which is all of it."""
    low = max(0, block) * part.block_events
    return low, part.events if block < 0 else min(low + part.block_events, part.events)
