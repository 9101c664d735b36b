"""What other storage, a cache and sparse images would cost an event: tried on an excerpt of the events."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from hepfeed.advice.excerpt import Excerpt
from hepfeed.advice.meter import Meter
from hepfeed.check.forms import FORMS, Form
from hepfeed.dataset import EventDataset
from hepfeed.index import EventIndex
from hepfeed.pipeline import Pipeline
from hepfeed.prediction import EventCost
from hepfeed.spec import SampleSpec

__all__ = ["CacheCost", "Trial"]

_PLAIN = FORMS[0]
_MOST_COPIES = 64
_PAST_CACHES = 512 << 20
_FILLINGS = 2  # the first one opens the files and finds out how to inflate


@dataclass(frozen=True)
class CacheCost:
    """What an event costs with a cache.

    Attributes:
        filling: In the epoch that fills it.
        later: In those that read it.
        bytes: Of an event in it.
        end_s: Seconds at the end of the epoch that fills it, until all of it is on the disk.
    """

    filling: EventCost
    later: EventCost
    bytes: float
    end_s: float


class Trial:
    """Tries ways to keep the events, on an excerpt in a folder of its own.

    Args:
        excerpt: The events.
        index: All events.
        today: What an event costs as it is.
        meter: Measures.
        folder: For files of a moment.
    """

    def __init__(self, excerpt: Excerpt, index: EventIndex, today: EventCost, meter: Meter, folder: Path) -> None:
        self._excerpt, self._index, self._today = excerpt, index, today
        self._meter, self._folder = meter, folder
        self._store = folder / "index"
        self._numbers = count()

    @property
    def forms(self) -> list[Form]:
        """Forms that the files do not have already."""
        infos = self._excerpt.heavy
        forms = [form for form in FORMS if not (form.chunks == "one" and self._index.jagged)]
        return [form for form in forms if not all(form.is_that_of(info) for info in infos)]

    def form(self, form: Form, seconds: float) -> tuple[EventCost, int]:
        """Return what an event costs in files of a form, and the bytes of all files.

        Steps, hand-over and consumer cost what they cost today.
        """
        with self._written(form, copies=self._past_caches(form), linked=False) as spec:
            dataset = EventDataset(spec, index=self._store)
            tried = self._meter.sources(dataset, seconds)
            infos = [info for source in dataset.index.sources for info in source.info.datasets.values()]
            stored = sum(info.stored_bytes for info in infos) / len(dataset)
        size = self._size(dataset)
        tried = tried.times(size).decoded(self._excerpt.surplus(form))
        cost = replace(self._today, read=tried.read, inflate=tried.inflate, scatter=tried.scatter)
        return replace(cost, bytes_read=tried.bytes_read), round(stored * size * len(self._index))

    def cache(self, steps: Pipeline, seconds: float) -> CacheCost:
        """Return what an event costs with a cache of what comes out of some steps.

        Raises:
            HepfeedError: It can't be cached.
        """
        # Epochs of a few events would cost more than theirs: as many as one that fills the cache has time for.
        affordable = seconds / 4 / max(1e-6, self._today.reader) / self._excerpt.events
        with self._written(_PLAIN, steps, copies=max(1, min(_MOST_COPIES, int(affordable)))) as spec:
            for _ in range(_FILLINGS):
                dataset = EventDataset(spec, cache=self._folder / f"cache {next(self._numbers)}", index=self._store)
                filled, end_s = self._meter.filling(dataset)
            later, held = self._meter.cached(dataset, seconds / 2)
        size = self._size(dataset)
        filled, later = filled.times(size), later.times(size)
        reading = {stage: getattr(self._today, stage) for stage in ("read", "inflate", "scatter", "bytes_read")}
        return CacheCost(replace(filled, **reading), later, held * size, end_s)

    @contextmanager
    def _written(
        self, form: Form, steps: Pipeline | None = None, copies: int = 1, linked: bool = True
    ) -> Iterator[SampleSpec]:
        folder = self._folder / str(next(self._numbers))  # readers know files by their paths
        try:
            yield self._excerpt.write(folder, form, steps, copies, linked)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _past_caches(self, form: Form) -> int:
        """Return how many copies of files it takes that processors read them from memory, if all events do not fit.

        That matters where nothing is inflated, which takes longer.
        """
        if form.codec.filters:
            return 1
        events = min(_PAST_CACHES / max(1.0, self._excerpt.event_bytes), len(self._index))
        return max(1, min(_MOST_COPIES, round(events / self._excerpt.events)))

    def _size(self, dataset: EventDataset) -> float:
        """Return how large events are over those of the excerpt, where they differ in size."""
        return self._index.event_bytes / max(1, dataset.index.event_bytes) if self._index.jagged else 1.0
