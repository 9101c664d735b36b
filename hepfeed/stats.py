"""Where the time went: seconds of each stage, and the bottleneck by name."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rich.table import Table

__all__ = ["STAGES", "FeedStats", "StageClock"]

STAGES = ("read", "inflate", "scatter", "transform", "wait", "transfer")
_READER_STAGES = STAGES[:4]
_WAITING = 0.05  # a consumer that waits for less of its time is not starving

_ADVICE = {
    "read": "the disk or file system is the limit: use faster storage, or a copy on a local disk",
    "inflate": "decompression is the limit: add readers (num_workers), or store with less compression",
    "scatter": "copying events to their batches is the limit: add readers (num_workers), or larger inner chunks",
    "transform": "what is done to events is the limit: add readers (num_workers), or make dataset and functions faster",
    "transfer": "handing batches over is the limit: use outputs= instead of a slow delivery_fn",
    "consumer": "the consumer is the limit: the feed waits for the training loop",
}


class FeedStats(dict[str, Any]):
    """What :meth:`hepfeed.DataLoader.stats` returns; a dict that prints as a table.

    Keys:
        read, inflate, scatter, transform: Seconds of all readers together; ``transform`` is the pipeline.
        wait: Seconds that the consumer waited for a batch.
        transfer: Seconds of the consumer's process for dispatch, views, ``outputs`` and ``delivery_fn``, and to begin
            the copies to a device; the copies themselves run beside.
        readers: Number of readers (0: in the consumer's process).
        seconds: From the first request of an epoch to the last batch, over all epochs.
        events, batches: Delivered.
        skipped: Events left out by ``on_error="skip"``.
        removed: Events that steps of the pipeline took out, such as those that are not finite.
        restarts: Readers that died and were replaced.
        copies: Batches that were copied because the consumer kept earlier ones.
        bytes_read, bytes_inflated, chunks: From the files, and after decoding.
        bytes_sent: Copied to a device.
        events_per_s: ``events / seconds``.
        busy: Part of their time that the readers were busy.
        bottleneck: A stage's name, or ``"consumer"``.
        advice: What to do about it.

    Over any other dataset than an :class:`~hepfeed.EventDataset`, or with a ``collate_fn``, ``transform`` is all that
    is done for a batch: the dataset's own methods, ``collate_fn``, and in a reader the way into shared memory.
    ``read``, ``inflate``, ``scatter``, ``skipped``, ``removed``, ``bytes_read``, ``bytes_inflated`` and ``chunks`` are
    0 there, because only the dataset could know them; ``events`` are the examples that were taken from it.
    """

    def __rich__(self) -> Table:
        table = Table(
            title=f"{self['events']} events in {self['batches']} batches, {self['events_per_s']:.0f} events/s"
        )
        table.add_column("stage")
        table.add_column("seconds", justify="right")
        table.add_column("where")
        for stage in STAGES:
            where = f"{self['readers']} readers" if stage in _READER_STAGES and self["readers"] else "consumer"
            table.add_row(stage, f"{self[stage]:.3f}", where)
        table.caption = f"bottleneck: {self['bottleneck']}: {self['advice']}"
        return table

    def __str__(self) -> str:
        stages = ", ".join(f"{stage} {self[stage]:.3f} s" for stage in STAGES)
        return f"{self['events_per_s']:.0f} events/s ({stages}); bottleneck: {self['bottleneck']}: {self['advice']}"


class StageClock:
    """Adds up what :class:`FeedStats` reports; one for each loader."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.stages = dict.fromkeys(STAGES, 0.0)
        self.counts = dict.fromkeys(
            (
                *("events", "batches", "skipped", "removed", "restarts", "copies"),
                *("bytes_read", "bytes_inflated", "chunks", "bytes_sent"),
            ),
            0,
        )
        self.seconds = 0.0
        self.readers = 0
        self._last: float | None = None

    def begin(self) -> float:
        """Mark the start of an epoch, or of a request within it; returns the time."""
        now = self._clock()
        if self._last is not None:
            self.seconds += now - self._last
        self._last = now
        return now

    def end(self) -> None:
        """Mark the end of an epoch."""
        self.begin()
        self._last = None

    def since(self, begun: float) -> float:
        """Return seconds since ``begun``."""
        return self._clock() - begun

    def add_read(self, costs: Any) -> None:
        """Add what a reader reported, as :data:`hepfeed._core.Costs`."""
        for stage, spent in zip(_READER_STAGES, costs[:3]):
            self.stages[stage] += float(spent) * 1e-9
        for name, amount in zip(("bytes_read", "bytes_inflated", "chunks"), costs[3:]):
            self.counts[name] += int(amount)

    def report(self) -> FeedStats:
        """Return the figures so far."""
        busy = sum(self.stages[stage] for stage in _READER_STAGES)
        available = self.seconds * max(1, self.readers)
        starving = self.readers == 0 or self.stages["wait"] > _WAITING * self.seconds
        candidates = (*_READER_STAGES, "transfer")
        bottleneck = max(candidates, key=lambda stage: self.stages[stage]) if starving else "consumer"
        return FeedStats(
            **self.stages,
            **self.counts,
            readers=self.readers,
            seconds=self.seconds,
            events_per_s=self.counts["events"] / self.seconds if self.seconds else 0.0,
            busy=min(1.0, busy / available) if available else 0.0,
            bottleneck=bottleneck,
            advice=_ADVICE[bottleneck],
        )
