"""Ranks: which of the global batches are delivered where, and what a rank reads for them.

The order of events is laid out over P canonical partitions.  Batch s of partition p is the global batch ``s P + p``,
and rank r of W delivers the global batches r, r + W, ...: those of partitions r, r + W, ..., because W divides P.  So
every W that divides P gives the same global batches.  From the first step at which a partition lacks a full batch, the
partitions share what is left, see :mod:`hepfeed.ending`; before it, a chunk is decoded on one rank only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice

import numpy as np
import xxhash
from numpy.typing import NDArray

from hepfeed.batch_spec import BatchSpec, Window, joined, numbered, part_of, window_of
from hepfeed.ending import Ending, JoinedEnding, PaddedEnding, Uneven
from hepfeed.errors import SpecError
from hepfeed.filler import Filler
from hepfeed.index import EventIndex
from hepfeed.lane import unit_starts

__all__ = ["RankFiller", "Ranks", "Uneven"]

_MUCH = 0.1  # of the batches of an epoch may be repeated or left out before a message says so
_logger = logging.getLogger("hepfeed")


@dataclass(frozen=True)
class Ranks:
    """The place of this process among those that share the events.

    Attributes:
        rank: Of this process.
        world_size: Number of processes, W.
        partitions: Canonical partitions, P.

    Raises:
        SpecError: There is no such rank, or W does not divide P.
    """

    rank: int = 0
    world_size: int = 1
    partitions: int = 1

    def __post_init__(self) -> None:
        for name in ("rank", "world_size", "partitions"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise SpecError(f"{name} must be an integer, not {value!r}")
        if self.world_size < 1 or not 0 <= self.rank < self.world_size:
            raise SpecError(f"rank must be in 0..world_size - 1, not rank {self.rank} of world_size {self.world_size}")
        if self.partitions < 1 or self.partitions % self.world_size:
            raise SpecError(
                f"world_size {self.world_size} does not divide the {self.partitions} canonical partitions of the order:"
                f" use a number of ranks that does, or another number of partitions"
            )

    @property
    def own(self) -> range:
        """The partitions that this rank serves."""
        return range(self.rank, self.partitions, self.world_size)


class RankFiller:
    """Makes the batch specifications of one rank, in the same number as those of every other rank.

    :attr:`hepfeed.BatchSpec.index` is the number of the global batch.  Batches of the rank's partitions come in turn,
    and those of one window of each are read together: a rank of ``P / W`` partitions needs memory for as many windows.

    Where batches have a fixed size, all those of a step have as many events: see
    :class:`~hepfeed.ending.JoinedEnding`.  With ``max_points`` they have no fixed size, and whole batches are repeated
    or left out: see :class:`~hepfeed.ending.PaddedEnding`.

    Args:
        make: Makes the filler of a partition; one without ``drop_last``, but with ``max_points``.
        ranks: Which partitions are served.
        uneven: ``"pad"`` repeats events, or batches, to make the partitions even; ``"drop"`` leaves them out.
        drop_last: Leave out an incomplete last step.
    """

    def __init__(self, make: Callable[[int], Filler], ranks: Ranks, uneven: Uneven, drop_last: bool = False) -> None:
        self.ranks = ranks
        self._uneven = uneven
        self._drop_last = drop_last
        self._fillers = [make(partition) for partition in range(ranks.partitions)]
        self._ending: Ending = (
            PaddedEnding(self._fillers, uneven)
            if self._fillers[0].packs
            else JoinedEnding(self._fillers, uneven, drop_last)
        )
        self._told = False

    @property
    def index(self) -> EventIndex:
        """The events."""
        return self._fillers[0].index

    @property
    def seed(self) -> int:
        """Another seed, another order."""
        return self._fillers[0].seed

    @property
    def order(self) -> str:
        """Order of the events of each partition, as in :class:`~hepfeed.Filler`."""
        return self._fillers[0].order

    def fingerprint(self) -> str:
        """Return 32 hexadecimal digits that change with the global batches; they are the same on every rank."""
        of_events = self._fillers[0].fingerprint()
        return xxhash.xxh3_128_hexdigest(f"{of_events} joined {self._uneven} {self._drop_last}".encode())

    def steps_in(self, epoch: int = 0) -> int:
        """Return the number of batches of each partition in an epoch.

        Raises:
            SpecError: ``uneven="drop"`` leaves none, because there are too few events or batches.
        """
        steps = self._ending.steps(epoch)
        counts = [filler.batches_in(epoch) for filler in self._fillers]
        if self._uneven == "drop" and not steps and any(counts):
            self._refuse(epoch, counts)
        if self._fillers[0].packs and not self._told:
            self._tell(steps, counts)
        return steps

    def _refuse(self, epoch: int, counts: list[int]) -> None:
        """Raise where it is not ``drop_last`` alone that leaves nothing."""
        partitions = len(counts)
        if self._fillers[0].packs:
            raise SpecError(
                f"partition {counts.index(0)} of {partitions} has no batch, so that nothing is left of the epoch:"
                " use uneven='pad', fewer partitions, or files with smaller chunks"
            )
        events = sum(filler.events(epoch) for filler in self._fillers)
        if events < partitions:
            raise SpecError(
                f"the epoch has {events} events for {partitions} partitions, so that uneven='drop' leaves none of them:"
                " use uneven='pad' or fewer partitions"
            )

    def _tell(self, steps: int, counts: list[int]) -> None:
        """Say once that many batches are repeated or left out."""
        changed = sum(abs(steps - count) for count in counts)
        if changed > _MUCH * sum(counts):
            self._told = True
            _logger.warning(
                "partitions are uneven, because a chunk is never divided: %d of %d batches of an epoch are %s",
                changed,
                sum(counts),
                "repeated" if self._uneven == "pad" else "left out",
            )

    def batches_in(self, epoch: int = 0) -> int:
        """Return the number of batches of this rank in an epoch."""
        return self.steps_in(epoch) * len(self.ranks.own)

    def window_batches_in(self, epoch: int = 0) -> int:
        """Return the most batches that are read together in an epoch."""
        return sum(self._fillers[partition].window_batches_in(epoch) for partition in self.ranks.own)

    def remainder(self, epoch: int = 0) -> int:
        """Return how many events of the last batches of all ranks, in their order, come before the repeated ones.

        0: none is repeated.  -1: more events are repeated than these batches have, or whole batches, so that leaving
        them out of the last batches does not do.
        """
        return self._ending.remainder(epoch, self.ranks.world_size)

    def batches(self, epoch: int, first_batch: int = 0) -> Iterator[BatchSpec]:
        """Yield the batch specifications of this rank in an epoch, from its batch ``first_batch`` on."""
        size, own = self.ranks.partitions, self.ranks.own
        end = self._own_steps(epoch)
        parts = [self._fillers[p].batches(epoch, step) for p, step in self._first_steps(first_batch)]
        for number in range(first_batch, end * len(own)):
            step, place = divmod(number, len(own))
            yield replace(next(parts[place]), index=step * size + own[place])
        yield from self._last_batches(epoch, first_batch)

    def windows(self, epoch: int, first_batch: int = 0) -> Iterator[Window]:
        """Yield the windows of this rank in an epoch, from its batch ``first_batch`` on."""
        size, steps = self.ranks.partitions, self._own_steps(epoch)
        heads = [
            _Head(p, size, step, self._own_windows(p, epoch, step, steps)) for p, step in self._first_steps(first_batch)
        ]
        while True:
            end = min(head.end() for head in heads)
            pieces = [piece for head in heads if (piece := head.take(end)) is not None]
            if not pieces:
                break
            yield joined(pieces)
        last = self._last_batches(epoch, first_batch)
        while specs := list(islice(last, self.window_batches_in(epoch))):
            yield window_of(specs, self._units(specs))

    def _own_steps(self, epoch: int) -> int:
        """Return the number of steps in which each partition delivers its own batches."""
        return min(self._ending.first_step(epoch), self.steps_in(epoch))

    def _first_steps(self, first_batch: int) -> list[tuple[int, int]]:
        """Return each partition of this rank, and the first batch of it that is wanted."""
        own = self.ranks.own
        step, passed = divmod(first_batch, len(own))
        return [(partition, step + (place < passed)) for place, partition in enumerate(own)]

    def _own_windows(self, partition: int, epoch: int, first: int, steps: int) -> Iterator[Window]:
        """Yield the windows of a partition from batch ``first`` on, up to batch ``steps - 1``."""
        if first >= steps:
            return
        for window in self._fillers[partition].windows(epoch, first):
            count = min(len(window.batches), steps - first)
            first += len(window.batches)
            if first >= steps:  # what would be kept is for batches that are dealt anew
                yield replace(part_of(window, 0, count), kept={})
                return
            yield window

    def _last_batches(self, epoch: int, first_batch: int) -> Iterator[BatchSpec]:
        """Yield the batches of this rank that the ending makes, from its batch ``first_batch`` on."""
        ranks = self.ranks
        passed = self._ending.first_step(epoch) * ranks.partitions
        first = max(ranks.rank, ranks.rank + first_batch * ranks.world_size - passed)
        return islice(self._ending.batches(epoch), first, None, ranks.world_size)

    def _units(self, specs: Sequence[BatchSpec]) -> NDArray[np.int64] | None:
        """Return the unit of each event, where events share chunks."""
        if max(source.block for source in self.index.sources) == 1:
            return None
        events = [spec.event for spec in specs if spec.event is not None]
        return np.searchsorted(self._unit_start, np.concatenate(events), side="right") - 1

    @cached_property
    def _unit_start(self) -> NDArray[np.int64]:
        return unit_starts(self.index)


class _Head:
    """What comes next of one partition.

    Args:
        partition: Of ``partitions``.
        partitions: All of them.
        step: Batch of the partition that comes next.
        windows: Its windows from there on.
    """

    def __init__(self, partition: int, partitions: int, step: int, windows: Iterator[Window]) -> None:
        self._partition, self._partitions = partition, partitions
        self._step = step
        self._windows = windows
        self._window: Window | None = None
        self._at = 0

    def end(self) -> int:
        """Return the number of the first global batch of the partition that is not at hand."""
        if self._window is None:
            self._window, self._at = next(self._windows, None), 0
        left = len(self._window.batches) - self._at if self._window is not None else 0
        return (self._step + left) * self._partitions + self._partition

    def take(self, end: int) -> Window | None:
        """Return the window of the batches at hand whose global numbers are below ``end``."""
        count = -(-(end - self._partition) // self._partitions) - self._step
        if self._window is None or count <= 0:
            return None
        piece = part_of(self._window, self._at, self._at + count)
        numbers: Sequence[int] = range(self._step * self._partitions + self._partition, end, self._partitions)
        self._step += count
        self._at += count
        if self._at == len(self._window.batches):
            self._window = None
        return numbered(piece, numbers)
