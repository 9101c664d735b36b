"""The end of an epoch that several partitions share: what they deliver once one of them lacks a full batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, cycle, repeat, zip_longest
from typing import Literal, Protocol

import numpy as np

from hepfeed.batch_spec import BatchSpec
from hepfeed.filler import Filler

__all__ = ["Ending", "JoinedEnding", "PaddedEnding", "Uneven"]

Uneven = Literal["pad", "drop"]


class Ending(Protocol):
    """What the partitions of an order deliver from the first step on at which one of them lacks a full batch."""

    def first_step(self, epoch: int) -> int:
        """Return the number of steps before, in which each partition delivers its own batches."""
        ...

    def steps(self, epoch: int) -> int:
        """Return the number of steps of an epoch."""
        ...

    def batches(self, epoch: int) -> Iterator[BatchSpec]:
        """Yield the global batches of the steps ``first_step .. steps - 1``, in the order of their numbers."""
        ...

    def remainder(self, epoch: int, world_size: int) -> int:
        """Return how many events of the last batches of all ranks, in their order, come before the repeated ones.

        0: none is repeated.  -1: the repeated ones do not stand at the end of these batches alone.
        """
        ...


@dataclass(frozen=True)
class _Shape:
    """How the events of all partitions fall into steps.

    Attributes:
        first: Steps in which each partition delivers its own batches.
        full: Steps of full batches, those before included.
        last: Events of each batch of the step after them; 0 where there is none.
        repeated: Events of that step that are repeated.
    """

    first: int
    full: int
    last: int
    repeated: int


class JoinedEnding:
    """The events that are left are joined and dealt anew, so that all batches of a step have as many events.

    Full batches stay whole, and come in the order of their numbers; the events of the incomplete ones follow, partition
    by partition.  The last step has up to ``batch_size`` events a batch.  Where they are not a multiple of the
    partitions, at most ``partitions - 1`` events are repeated, at the end of the last step, or left out.  The repeated
    ones are the first of the epoch, as those of torch's ``DistributedSampler``.

    Args:
        fillers: Of all partitions, whose batches have ``batch_size`` events but for the last one; without
            ``drop_last``.
        uneven: ``"pad"``: repeat events; ``"drop"``: leave events out.
        drop_last: Leave out the last step where its batches are not full.
    """

    def __init__(self, fillers: Sequence[Filler], uneven: Uneven, drop_last: bool) -> None:
        self._fillers = fillers
        self._uneven = uneven
        self._drop_last = drop_last

    def _shape(self, epoch: int) -> _Shape:
        counts = [filler.events(epoch) for filler in self._fillers]
        size, partitions = self._fillers[0].batch_size, len(counts)
        full, rest = divmod(sum(counts), size * partitions)
        last = rest // partitions if self._uneven == "drop" else -(-rest // partitions)
        if self._drop_last and last < size:
            last = 0
        return _Shape(min(counts) // size, full, last, max(0, last * partitions - rest))

    def first_step(self, epoch: int) -> int:
        """See :class:`Ending`."""
        return self._shape(epoch).first

    def steps(self, epoch: int) -> int:
        """See :class:`Ending`."""
        shape = self._shape(epoch)
        return shape.full + (shape.last > 0)

    def batches(self, epoch: int) -> Iterator[BatchSpec]:
        """See :class:`Ending`."""
        shape, partitions = self._shape(epoch), len(self._fillers)
        sizes = chain(
            repeat(self._fillers[0].batch_size, (shape.full - shape.first) * partitions),
            repeat(shape.last, partitions if shape.last else 0),
        )
        pieces = chain(self._remaining(epoch, shape.first), self._repeated(epoch, shape.repeated))
        held: list[BatchSpec] = []
        for index, size in enumerate(sizes, shape.first * partitions):
            while sum(map(len, held)) < size:
                held.append(next(pieces))
            events = _joined(held)
            held = [_cut(events, size, len(events))]
            yield replace(_cut(events, 0, size), index=index)

    def remainder(self, epoch: int, world_size: int) -> int:
        """See :class:`Ending`."""
        shape = self._shape(epoch)
        if not shape.repeated:
            return 0
        fresh = shape.last * world_size - shape.repeated
        return fresh if fresh > 0 else -1

    def _remaining(self, epoch: int, first: int) -> Iterator[BatchSpec]:
        """Yield the partitions' own batches from step ``first`` on: the full ones in their order, then the others."""
        incomplete = []
        for step in zip_longest(*(filler.batches(epoch, first) for filler in self._fillers)):
            for spec in step:
                if spec is None:
                    continue
                if len(spec) == self._fillers[0].batch_size:
                    yield spec
                else:
                    incomplete.append(spec)
        yield from incomplete

    def _repeated(self, epoch: int, count: int) -> Iterator[BatchSpec]:
        """Yield the first events of an epoch, at least ``count``, again and again."""
        opening: list[BatchSpec] = []
        for spec in self._remaining(epoch, 0):
            opening.append(spec)
            if sum(map(len, opening)) >= count:
                break
        yield from cycle(opening)


class PaddedEnding:
    """Partitions that have fewer batches than another repeat theirs, or the epoch ends with the shortest.

    For batches without a fixed size (``max_points``), which can't be joined without making others of them.

    Args:
        fillers: Of all partitions.
        uneven: ``"pad"``: a short partition repeats its batches from its first one on, one that has none those of the
            partition with the most; ``"drop"``: the epoch ends with the partition that has the fewest.
    """

    def __init__(self, fillers: Sequence[Filler], uneven: Uneven) -> None:
        self._fillers = fillers
        self._uneven = uneven

    def _counts(self, epoch: int) -> list[int]:
        return [filler.batches_in(epoch) for filler in self._fillers]

    def first_step(self, epoch: int) -> int:
        """See :class:`Ending`."""
        return min(self._counts(epoch))

    def steps(self, epoch: int) -> int:
        """See :class:`Ending`."""
        return (max if self._uneven == "pad" else min)(self._counts(epoch))

    def batches(self, epoch: int) -> Iterator[BatchSpec]:
        """See :class:`Ending`."""
        counts, first = self._counts(epoch), self.first_step(epoch)
        fullest = counts.index(max(counts))
        donors = [self._fillers[partition if count else fullest] for partition, count in enumerate(counts)]
        parts = [
            chain(filler.batches(epoch, first), _endless(donor, epoch)) for filler, donor in zip(self._fillers, donors)
        ]
        for index in range(first * len(parts), self.steps(epoch) * len(parts)):
            yield replace(next(parts[index % len(parts)]), index=index)

    def remainder(self, epoch: int, world_size: int) -> int:
        """See :class:`Ending`."""
        return 0 if self.steps(epoch) == self.first_step(epoch) else -1


def _endless(filler: Filler, epoch: int) -> Iterator[BatchSpec]:
    while True:
        yield from filler.batches(epoch)


def _cut(spec: BatchSpec, low: int, high: int) -> BatchSpec:
    """Return the events ``low .. high - 1`` of a batch."""
    if (low, high) == (0, len(spec)):
        return spec
    event = None if spec.event is None else spec.event[low:high]
    return replace(spec, file=spec.file[low:high], row=spec.row[low:high], label=spec.label[low:high], event=event)


def _joined(specs: Sequence[BatchSpec]) -> BatchSpec:
    """Return a batch of the events of several."""
    if len(specs) == 1:
        return specs[0]
    file, row, label = (np.concatenate([getattr(spec, name) for spec in specs]) for name in ("file", "row", "label"))
    events = [spec.event for spec in specs if spec.event is not None]
    event = np.concatenate(events) if len(events) == len(specs) else None
    return replace(specs[0], file=file, row=row, label=label, event=event)
