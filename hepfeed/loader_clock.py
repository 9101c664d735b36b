"""The clock of a loader: what it is to know of it, and who listens."""

from __future__ import annotations

from typing import Any, Protocol

from hepfeed.feed_iterator import PREFETCH_FACTOR
from hepfeed.live import publish
from hepfeed.stats import StageClock
from hepfeed.watch import draw

__all__ = ["clock_of"]


class Clocked(Protocol):
    """What a clock is to know of a loader."""

    dataset: Any
    num_workers: int
    prefetch_factor: int | None
    persistent_workers: bool
    pool: Any
    delivery_fn: Any
    watch: bool


def clock_of(loader: Clocked, feed: str) -> StageClock:
    """Return the clock of a loader, which publishes what it does.

    Args:
        loader: It.
        feed: As in the ``setting`` of :class:`hepfeed.stats.FeedStats`.
    """
    setting = {
        "feed": feed,
        "prefetch_factor": loader.prefetch_factor or PREFETCH_FACTOR,
        "persistent": loader.persistent_workers or loader.pool is not None,
        "delivery_fn": loader.delivery_fn is not None,
    }
    clock = StageClock(
        readers=loader.num_workers, setting=setting, listeners=(publish, draw) if loader.watch else (publish,)
    )
    split = getattr(loader.dataset, "split", None)
    clock.name = split if isinstance(split, str) else type(loader.dataset).__name__
    return clock
