"""hepfeed itself: with readers in processes, in threads and without any, by windows and fully shuffled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from hepfeed.bench.feeds.events import EventSet
from hepfeed.bench.feeds.side import Feed, Side
from hepfeed.tensors import Batch

__all__ = ["SIDES", "Hepfeed", "HepfeedFull", "HepfeedHere", "HepfeedThreads", "HepfeedWide"]


class _Feed(Feed):
    def __init__(self, loader: Any, first_epoch: int) -> None:
        self._loader = loader
        self._first_epoch = first_epoch

    def epoch(self, number: int) -> Iterator[Batch]:
        self._loader.set_epoch(self._first_epoch + number)
        yield from self._loader

    def close(self) -> None:
        self._loader.close()


class Hepfeed(Side):
    """hepfeed's loader with its defaults; a prepared input comes from its cache, in a full permutation."""

    name = "hepfeed"
    title = "hepfeed"
    settings: ClassVar[dict[str, Any]] = {"shuffle": True, "persistent_workers": True}
    advice = "README.md"
    _workers: ClassVar[int | None] = None

    def fits(self, events: EventSet) -> bool:
        """It has files and a cache."""
        return True

    def takes(self, events: EventSet) -> str | None:
        """It feeds all."""
        return None

    def prepare(self, events: EventSet, folder: Path) -> None:
        """Build the cache."""
        from hepfeed.cache.build import build_cache

        if events.prepared:
            build_cache(events.spec, folder)

    def open(self, events: EventSet, folder: Path, workers: int, batch_size: int, seed: int) -> Feed:
        """Open a loader."""
        from hepfeed.dataset import EventDataset
        from hepfeed.loader import DataLoader

        dataset = EventDataset(events.spec, cache=folder if events.prepared else None, progress=False)
        count = workers if self._workers is None else self._workers
        options = {**self.settings, **self.of_set(events), "persistent_workers": count > 0}
        loader: Any = DataLoader(dataset, batch_size, num_workers=count, seed=seed, **options)
        return _Feed(loader, first_epoch=int(events.prepared))  # epoch 0 has the order of the sources

    def of_set(self, events: EventSet) -> dict[str, Any]:
        """Return options that depend on the set."""
        return {}


class HepfeedHere(Hepfeed):
    """Without readers."""

    name = "hepfeed-0"
    title = "hepfeed, 0 workers"
    settings: ClassVar[dict[str, Any]] = {"shuffle": True}
    _workers: ClassVar[int | None] = 0


class HepfeedThreads(Hepfeed):
    """Readers are threads."""

    name = "hepfeed-threads"
    title = "hepfeed, threads"
    settings: ClassVar[dict[str, Any]] = {**Hepfeed.settings, "worker_method": "thread"}


class HepfeedFull(Hepfeed):
    """A full permutation of all events, whatever the files cost then."""

    name = "hepfeed-full"
    title = "hepfeed, fully shuffled"
    settings: ClassVar[dict[str, Any]] = {**Hepfeed.settings, "shuffle": "full"}

    def fits(self, events: EventSet) -> bool:
        """A prepared input is fully shuffled anyway."""
        return not events.prepared


class HepfeedWide(HepfeedFull):
    """A window of all events: as well shuffled as a full permutation, and chunks are decoded once, in much memory."""

    name = "hepfeed-wide"
    title = "hepfeed, a window of all events"
    settings: ClassVar[dict[str, Any]] = {**Hepfeed.settings, "shuffle": "window", "window_events": "all"}

    def of_set(self, events: EventSet) -> dict[str, Any]:
        """The window has all events."""
        return {"window_events": len(events), "window_bytes": max(1, 2 * len(events) * events.event_bytes)}


SIDES: tuple[Side, ...] = (Hepfeed(), HepfeedThreads(), HepfeedWide(), HepfeedFull(), HepfeedHere())
