"""What an event costs, measured in the feed itself: the stages of a reader, and the consumer's work on batches."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import cloudpickle
import numpy as np
import psutil
from numpy.typing import NDArray

from hepfeed.batch_spec import BatchSpec, Window
from hepfeed.cache.feed import CacheFeed
from hepfeed.collate import Collator
from hepfeed.dataset import EventDataset
from hepfeed.filler import Filler
from hepfeed.form import StreamForm
from hepfeed.index import EventIndex
from hepfeed.parts.writer import PART_BYTES
from hepfeed.pool import ReaderPool
from hepfeed.prediction import EventCost
from hepfeed.stats import StageClock
from hepfeed.stream import NO_PIPELINE, Stream

__all__ = ["Meter"]

_STAGES = ("read", "inflate", "scatter", "transform")
Ints = NDArray[np.int64]
_WARM_UP = 0.3  # of the time for sources
_AHEAD = 3  # batches for each reader, as the loader has with its default prefetch_factor


@dataclass
class _Spent:
    """What a number of events took."""

    events: int = 0
    reader_s: float = 0.0
    consumer_s: float = 0.0
    end_s: float = 0.0


class Meter:
    """Measures events in the processor time of readers and consumer, on which what else runs has little influence.

    Args:
        readers: Reader processes; they work for all measurements.
        batch_size: Events of a batch.
        window_events: As :class:`hepfeed.Filler` has it.
    """

    def __init__(self, readers: int, batch_size: int, window_events: int | None = None) -> None:
        self._pool = ReaderPool(readers)
        self._batch_size = batch_size
        self._window_events = window_events

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()

    def filler(self, dataset: EventDataset, *, full: bool = False, drop_last: bool = False) -> Filler:
        """Return what orders the events as a training does."""
        return Filler(
            dataset.index,
            batch_size=self._batch_size,
            order="full" if full else "auto",
            drop_last=drop_last and len(dataset) >= self._batch_size,
            window_events=self._window_events,
        )

    def sources(self, dataset: EventDataset, seconds: float) -> EventCost:
        """Measure windows of training epochs from the files, for about so long, after some that are not counted.

        Where one window takes longer than ``seconds``, it is what counts.  Chunks that the last window leaves
        unfinished are counted for the events that it took of them.
        """
        begun = time.monotonic() - self._pool.ring.made_s
        filler = self.filler(dataset)
        cost = self._windows(dataset, _Windows(filler, 0.0))
        if time.monotonic() - self._pool.ring.made_s - begun > seconds:
            return cost
        # As many windows as are under way at a time, so that all slots are there; and time to open most of the files.
        self._windows(dataset, _Windows(filler, _WARM_UP * seconds, least=2))
        return self._windows(dataset, _Windows(filler, (1 - _WARM_UP) * seconds))

    def _windows(self, dataset: EventDataset, windows: _Windows) -> EventCost:
        spent, clock = self._run(dataset, iter(windows), 2 * windows.filler.window_batches)
        return _cost(spent, clock).decoded(1 / windows.surplus())

    def filling(self, dataset: EventDataset) -> tuple[EventCost, float]:
        """Measure one epoch from the files that writes the cache of the dataset, from the first event to the last.

        Returns:
            The cost of an event, and the seconds at the end of the epoch until the last events are on the disk.
        """
        feed = _feed_of(dataset)
        feed.acquire()
        try:
            filler = self.filler(dataset)
            spent, clock = self._run(dataset, filler.windows(0), 2 * filler.window_batches, feed)
            begun = time.perf_counter()
            feed.commit()
            spent.end_s += time.perf_counter() - begun
        finally:
            feed.close()
        return _cost(spent, clock), spent.end_s

    def cached(self, dataset: EventDataset, seconds: float) -> tuple[EventCost, float]:
        """Measure epochs from the complete cache of the dataset; returns also the bytes of an event in it."""
        feed = _feed_of(dataset)
        together = feed.together(self._batch_size)
        filler = self.filler(dataset, full=True, drop_last=True)
        room = 2 * together * max(1, self._pool.num_readers)
        self._run(dataset, _repeated(filler, 0.0, least=2 * room), room, feed, together)
        spent, clock = self._run(dataset, _repeated(filler, seconds, least=2 * room), room, feed, together)
        return _cost(spent, clock), feed.store.bytes / len(dataset)

    def _run(
        self,
        dataset: EventDataset,
        work: Iterator[Window] | Iterator[BatchSpec],
        in_flight: int,
        feed: CacheFeed | None = None,
        together: int = 1,
    ) -> tuple[_Spent, StageClock]:
        """Deliver events as the loader does, to the last one; all that readers do is done when it returns."""
        index, clock, spent = dataset.index, StageClock(), _Spent()
        pickled = cloudpickle.dumps(dataset.pipeline) if len(dataset.pipeline) else NO_PIPELINE
        form = StreamForm(*index.place_keys(self._batch_size), dataset.catalog, pickled, seed=0, skip_errors=True)
        if feed is not None:
            form = replace(form, cache=feed.identity, part_bytes=PART_BYTES)
        collator = Collator(dataset.files, dataset.spec.n_classes)
        readers = self._pool.pids
        before, begun, made = _processor_s(readers), time.thread_time(), self._pool.ring.made_s
        stream = Stream(
            self._pool,
            work,
            form,
            index,
            in_flight=max(in_flight, _AHEAD * max(1, len(readers))),
            on_error="skip",
            clock=clock,
            on_skip=lambda error: None,
            cache=feed,
            together=together,
        )
        try:
            while (delivery := stream.next(0)) is not None:
                spent.events += len(delivery.spec)
                if len(delivery.spec):
                    collator(delivery, form)
                del delivery
            if stream.fills_cache:
                flushed = time.perf_counter()
                stream.flush()
                spent.end_s = time.perf_counter() - flushed
        finally:
            stream.close()
        # Slots get their memory once in a training, and batches of few events have slots as large as the others.
        spent.consumer_s = max(0.0, time.thread_time() - begun - (self._pool.ring.made_s - made))
        spent.reader_s = _processor_s(readers) - before
        return spent, clock


class _Windows:
    """Windows of one epoch after another until the time is over; it notes which events they take."""

    def __init__(self, filler: Filler, seconds: float, least: int = 1) -> None:
        self.filler = filler
        self._seconds = seconds
        self._least = least
        self._taken: list[list[Window]] = []

    def __iter__(self) -> Iterator[Window]:
        deadline = time.monotonic() + self._seconds
        for epoch in count(1):
            self._taken.append([])
            for window in self.filler.windows(epoch):
                self._taken[-1].append(window)
                last = sum(map(len, self._taken)) >= self._least and time.monotonic() >= deadline
                yield replace(window, kept={}) if last else window
                if last:
                    return

    def surplus(self) -> float:
        """Return how many events were decoded for each delivered one, over what that is in whole epochs."""
        index = self.filler.index
        if self.filler.order != "window" or index.jagged:  # jagged events that a window cuts off are decoded again
            return 1.0
        decoded = delivered = 0
        for windows in filter(None, self._taken):
            file, row = (np.concatenate([getattr(window, name) for window in windows]) for name in ("file", "row"))
            decoded += _decoded(index, file, row)
            delivered += len(row)
        whole = _decoded(index, index.file_of(np.arange(len(index))), index.rows) / len(index)
        return decoded / delivered / whole


def _decoded(index: EventIndex, file: Ints, row: Ints) -> int:
    """Return how many events the blocks have that hold some of these events."""
    size = np.array([source.block for source in index.sources])
    events = np.array([source.events for source in index.sources])
    stride = int(events.max()) + 1
    of_file, number = np.divmod(np.unique(file * stride + row // size[file]), stride)
    return int(np.minimum(size[of_file], events[of_file] - number * size[of_file]).sum())


def _repeated(filler: Filler, seconds: float, least: int) -> Iterator[BatchSpec]:
    """Yield batches of many epochs, as if they were one epoch's, until the time is over, but at least so many."""
    deadline = time.monotonic() + seconds
    specs = (spec for epoch in count(1) for spec in filler.batches(epoch))
    for number, spec in enumerate(specs):
        if number >= least and time.monotonic() >= deadline:
            return
        yield replace(spec, epoch=1, index=number)


def _feed_of(dataset: EventDataset) -> CacheFeed:
    feed = dataset.feed_of_cache(dataset.pipeline)
    assert feed is not None, "the dataset was made with a cache"
    return feed


def _processor_s(pids: list[int]) -> float:
    """Return the processor time that all threads of some processes have had, as exactly as the system knows it."""
    total = 0.0
    for pid in pids:
        times = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
        if times:
            total += sum(int(running) for running, *_ in times) * 1e-9
        else:  # systems without it know it to 10 ms
            used = psutil.Process(pid).cpu_times()
            total += used.user + used.system
    return total


def _cost(spent: _Spent, clock: StageClock) -> EventCost:
    """Divide the reader's time among its stages, whose own clocks run on where the reader is interrupted or waits."""
    events = max(1, spent.events)
    stages = {stage: clock.stages[stage] for stage in _STAGES}
    told = sum(stages.values())
    part = min(1.0, spent.reader_s / told) if told else 0.0
    return EventCost(
        **{stage: seconds * part / events for stage, seconds in stages.items()},
        other=(spent.reader_s - told * part) / events,
        consumer=spent.consumer_s / events,
        bytes_read=clock.counts["bytes_read"] / events,
    )
