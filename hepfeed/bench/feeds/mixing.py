"""How well an epoch was shuffled: classes within a batch, distance of stored neighbours, pairs from one block."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hepfeed.bench.feeds.checking import Findings
from hepfeed.bench.feeds.events import EventSet
from hepfeed.order import neighbour_distance, same_block_fraction

__all__ = ["Mixing", "compare"]

_LESS = 0.75
"""A side shuffles less than another one whose neighbours are this part as far apart."""
_UNEVEN = 1.5
"""A spread of classes within batches above this is worse than random."""


@dataclass(frozen=True)
class Mixing:
    """How well the events of an epoch were mixed.

    Attributes:
        class_spread: Standard deviation of the number of events of a class in a whole batch, over that of a random
            permutation (hypergeometric): 1 is random, 0 has the same number in each batch, above 1 comes in runs.  None
            with a single class or without a whole batch.
        classes_least: Fewest events of a class in a whole batch.
        classes_most: Most.
        distance: As :func:`hepfeed.order.neighbour_distance`: 1 is random, 0 the stored order.  None where the epoch
            was not complete.
        one_block: Pairs of a batch that share a block of chunks.
        one_block_random: The same of a random permutation.
    """

    class_spread: float | None
    classes_least: int | None
    classes_most: int | None
    distance: float | None
    one_block: float | None
    one_block_random: float

    @classmethod
    def of(cls, events: EventSet, findings: Findings, batch_size: int) -> Mixing:
        """Measure what came in one epoch; there must be no faults in it."""
        file, row = findings.events.T
        batch = np.repeat(np.arange(len(findings.batches)), findings.batches)
        counts = _class_counts(events, findings, batch, batch_size)
        several = len(counts) > 0 and len(events.classes) > 1
        blocks = np.array([source.block for source in events.sources])
        first = np.cumsum([0, *(-(-source.events // source.block) for source in events.sources)])
        pairs = bool((findings.batches > 1).any())
        number = events.file_start[file] + row
        return cls(
            class_spread=_spread(events, counts, batch_size) if several else None,
            classes_least=int(counts.min()) if several else None,
            classes_most=int(counts.max()) if several else None,
            distance=neighbour_distance(number) if findings.complete and len(number) > 1 else None,
            one_block=same_block_fraction(first[file] + row // blocks[file], batch) if pairs else None,
            one_block_random=_random_pairs(events),
        )


def _class_counts(events: EventSet, findings: Findings, batch: NDArray[np.int64], batch_size: int) -> NDArray[np.int64]:
    """``(whole batches, classes)`` events of each."""
    classes = len(events.classes)
    label = events.file_labels[findings.events[:, 0]]
    counts = np.bincount(batch * classes + label, minlength=len(findings.batches) * classes)
    whole: NDArray[np.int64] = counts.reshape(-1, classes)[findings.batches == batch_size]
    return whole


def _spread(events: EventSet, counts: NDArray[np.int64], batch_size: int) -> float | None:
    """Root of the mean over the classes of variance over hypergeometric variance; None where that is 0."""
    total = len(events)
    share = np.bincount(events.file_labels, events.file_events, len(events.classes)) / total
    random = batch_size * share * (1 - share) * (total - batch_size) / max(total - 1, 1)
    if not (random > 0).all():
        return None
    return float(np.sqrt((((counts - batch_size * share) ** 2).mean(0) / random).mean()))


def _random_pairs(events: EventSet) -> float:
    """Chance that two different events share a block."""
    together = 0
    for source in events.sources:
        whole, rest = divmod(source.events, source.block)
        together += whole * source.block * (source.block - 1) + rest * (rest - 1)
    return together / max(len(events) * (len(events) - 1), 1)


def compare(name: str, one: Mixing, base: str, other: Mixing) -> list[str]:
    """Say where one side shuffles less than the one that it is compared with, or the other way."""
    found = []
    for less, more, a, b in ((name, base, one, other), (base, name, other, one)):
        flattered = f"the rate of {less} is flattered"
        if a.distance is not None and b.distance is not None and a.distance < _LESS * b.distance:
            found.append(
                f"{less} shuffles less than {more} (distance of neighbours {a.distance:.3f} against {b.distance:.3f}): "
                f"{flattered}"
            )
        spread, others = a.class_spread or 0.0, b.class_spread or 0.0
        if spread > _UNEVEN * max(1.0, others):
            found.append(
                f"{less} mixes classes worse than {more} (spread {spread:.2f} against {others:.2f} of random): "
                f"{flattered}"
            )
    return found
