"""What a reader is told to do, and what it answers; all of it may be done again by another one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfeed.errors import HepfeedError
from hepfeed.parts.strips import Strips
from hepfeed.parts.writer import PartsWritten
from hepfeed.tensors import Batch, Structured

__all__ = ["MISSING", "REMOVED", "Finish", "Finished", "Flush", "Read", "ReadDone", "Recall", "RecallMany", "Recalled"]

Ints = NDArray[np.int64]

MISSING, REMOVED = -1, -2
"""In the place of a part: the cache does not have the event; it knows that the steps took it out."""


@dataclass(frozen=True)
class Finish:
    """A batch that was read and goes through the pipeline.

    Attributes:
        dropped: Rows that could not be read.
        counts: Rows of each event, for each set of jagged keys.
        weight: ``(n,)``, where events have weights.
        fresh: ``(n,)`` which events are to be written to the cache; None where nothing is.
    """

    stream: int
    slot: int
    epoch: int
    index: int
    file: Ints
    row: Ints
    label: Ints
    dropped: Ints
    counts: dict[str, Ints] = field(default_factory=dict)
    weight: NDArray[np.float32] | None = None
    fresh: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Recall:
    """A batch of events that were processed before: they come from the cache, and only the steps behind it run.

    Attributes:
        part: ``(n,)`` part of each event, :data:`MISSING` or :data:`REMOVED`.
        at: ``(n,)`` row in the part.
        runs: First row and number of rows of each event in its part, by path of the offsets.
        size: Bytes of the slot that the batch takes.
        fill: Whether events that the cache lacks are to be written to it.
    """

    stream: int
    slot: int
    epoch: int
    index: int
    file: Ints
    row: Ints
    label: Ints
    weight: NDArray[np.float32] | None
    part: Ints
    at: Ints
    runs: dict[str, tuple[Ints, Ints]]
    size: int
    fill: bool


@dataclass(frozen=True)
class RecallMany:
    """Batches of events that the cache has, one after another in one slot.

    Attributes:
        index: Of each batch in its epoch.
        bounds: ``(batches + 1,)`` where each batch begins.
        numbers: ``(5 + 2 paths, n)``: file, row, label, part and row in it; then first row and number of rows of each
            event in its part, for each of ``paths``.
        paths: Of offsets.
        size: Bytes of the slot that they take.
    """

    stream: int
    slot: int
    epoch: int
    index: tuple[int, ...]
    bounds: tuple[int, ...]
    numbers: Ints
    paths: tuple[str, ...]
    weight: NDArray[np.float32] | None
    size: int

    @property
    def file(self) -> Ints:
        """Files of the events."""
        line: Ints = self.numbers[0]
        return line

    @property
    def row(self) -> Ints:
        """Their rows."""
        line: Ints = self.numbers[1]
        return line

    @property
    def part(self) -> Ints:
        """Their parts; none is missing."""
        line: Ints = self.numbers[3]
        return line

    @property
    def whole(self) -> Recall:
        """All of it as if it were one batch."""
        return self._some(self.index[0], 0, self.numbers.shape[1])

    def batches(self) -> list[Recall]:
        """Return the batches one by one."""
        pieces = zip(self.index, self.bounds, self.bounds[1:])
        return [self._some(index, low, high) for index, low, high in pieces]

    def _some(self, index: int, low: int, high: int) -> Recall:
        file, row, label, part, at, *runs = self.numbers[:, low:high]
        return Recall(
            self.stream,
            self.slot,
            self.epoch,
            index,
            file,
            row,
            label,
            None if self.weight is None else self.weight[low:high],
            part,
            at,
            {path: (runs[2 * i], runs[2 * i + 1]) for i, path in enumerate(self.paths)},
            self.size,
            False,
        )


@dataclass
class Recalled:
    """The batches of a :class:`RecallMany`.

    Attributes:
        batches: One for each.
        damaged: As in :class:`Finished`; then there are no batches, and each is to be asked for alone.
        costs: Of reading, as :data:`hepfeed._core.Costs`.
    """

    batches: list[Finished] | Strips
    damaged: list[tuple[int, int]]
    costs: Ints


@dataclass(frozen=True)
class Flush:
    """Write to the cache what a reader has collected for it."""

    stream: int
    file: Ints = field(default_factory=lambda: np.empty(0, np.int64))


@dataclass
class Finished:
    """The tensors that a batch consists of.

    Attributes:
        names: Of the batch, in their order.
        tensors: (name, part) -> ``(dtype, shape, byte in the slot)``; the part is empty for plain arrays.
        structures: Name -> structured arrays, without their contents.
        inline: Name -> anything that is not an array of numbers.
        bytes: Bytes of the slot that are in use.
        failures: Events that were left out: ``(row of the batch, error)``.
        removed: Events that steps took out.
        written: What was written to the cache meanwhile.
        damaged: ``(part, block)`` of the cache that can't be read; block -1 is a whole part.
        costs: Of reading from the cache, as :data:`hepfeed._core.Costs`.
        again: Nothing was made: part of the batch is damaged in the cache, and must be told to be missing.
    """

    names: list[str]
    tensors: dict[tuple[str, str], tuple[str, tuple[int, ...], int]]
    structures: dict[str, Structured]
    inline: dict[str, Any]
    bytes: int
    total_ns: int
    failures: list[tuple[int, HepfeedError]]
    removed: int = 0
    written: PartsWritten | None = None
    damaged: list[tuple[int, int]] = field(default_factory=list)
    costs: Ints | None = None
    again: bool = False

    def batch(self, memory: NDArray[np.uint8], convert: Callable[[NDArray[Any]], Any]) -> Batch:
        """Return the batch in the bytes of its slot, each array as ``convert`` makes it."""
        parts: dict[str, dict[str, Any]] = {}
        for (name, part), (dtype, shape, at) in self.tensors.items():
            # No data lie at the end of the slot, so that an empty array could not begin there.
            array = np.ndarray(shape, dtype, memory, at) if math.prod(shape) else np.empty(shape, dtype)
            parts.setdefault(name, {})[part] = convert(array)
        found: Batch = {}
        for name in self.names:
            if name in self.structures:
                found[name] = self.structures[name].with_arrays(parts.get(name, {}))
            else:
                found[name] = self.inline[name] if name in self.inline else parts[name][""]
        return found


@dataclass(frozen=True)
class Read:
    """Events to read, sorted by file and row.

    Attributes:
        slot: ``(n,)`` slot of each event's batch.
        place: ``(n,)`` row in the batch.
        file: ``(n,)`` file in the catalog.
        row: ``(n,)`` row in the file.
        unit: ``(n,)`` unit of events that share chunks, or -1.
        at: ``(n,)`` rows of earlier events in the batch, for each set of jagged keys.
        totals: ``(n,)`` rows of the event's whole batch, for each set of jagged keys.
        kept: Unit -> rows of it that will be asked for later: decode them now and keep them.
        finish: The batch to finish at once, where these are all its events.
    """

    stream: int
    slot: Ints
    place: Ints
    file: Ints
    row: Ints
    unit: Ints
    kept: dict[int, Ints] = field(default_factory=dict)
    finish: Finish | None = None
    at: dict[str, Ints] = field(default_factory=dict)
    totals: dict[str, Ints] = field(default_factory=dict)


@dataclass
class ReadDone:
    """What reading cost; events that could not be read, ``(slot, place, error)``; the batch if it is finished."""

    costs: NDArray[np.int64]
    failures: list[tuple[int, int, HepfeedError]]
    finished: Finished | None = None
