"""WebDataset: tar files of events."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, ClassVar

from hepfeed.bench.feeds.blocks import WINDOW_EVENTS
from hepfeed.bench.feeds.events import EventSet
from hepfeed.bench.feeds.maps import random_order, staged
from hepfeed.bench.feeds.maps_sides import LoaderFeed
from hepfeed.bench.feeds.side import Feed, Side
from hepfeed.bench.feeds.stored import Form, StoredSide
from hepfeed.tensors import Batch

__all__ = ["SIDES", "WebDataset", "WebDatasetCells"]

_SUFFIX = "raw"


class _Collate:
    """Makes batches of samples, which are bytes until then."""

    def __init__(self, form: Form) -> None:
        self.form = form

    def __call__(self, samples: list[dict[str, Any]]) -> Batch:
        return self.form.collate([self.form.unpack(sample[_SUFFIX]) for sample in samples])


class WebDataset(StoredSide):
    """Shards of events in an order that is random and always the same, a buffer that shuffles, batches in the workers.

    Events are decoded behind the buffer.  Each worker has as many shards as the others.
    """

    name = "webdataset"
    title = "WebDataset"
    package = "webdataset"
    settings: ClassVar[dict[str, Any]] = {
        "shards": 32,
        "shardshuffle": 32,
        "shuffle": WINDOW_EVENTS,
        "initial": WINDOW_EVENTS,
        "batched": "in the workers",
        "files of an event": 1,
        "persistent_workers": True,
        "stored order": "random, the same for all epochs; workers do not mix with one another",
    }
    advice = "https://webdataset.github.io/webdataset/sharding/"

    def prepare(self, events: EventSet, folder: Path) -> None:
        """Write tar files."""
        form = self.form(events)
        each = -(-len(events) // self.settings["shards"])
        writer = importlib.import_module("webdataset").ShardWriter
        pattern = str(folder / "shard-%05d.tar")
        with staged(events, form, folder) as maps, writer(pattern, maxcount=each, maxsize=1 << 40, verbose=0) as shards:
            for number in random_order(len(maps)):
                shards.write({"__key__": f"{number:09d}", _SUFFIX: form.pack(maps.record(number))})

    def open(self, events: EventSet, folder: Path, workers: int, batch_size: int, seed: int) -> Feed:
        """Return a feed that shuffles; see :class:`Side`."""
        webdataset = importlib.import_module("webdataset")
        shards = sorted(map(str, folder.glob("shard-*.tar")))
        dataset = webdataset.WebDataset(
            shards, shardshuffle=self.settings["shardshuffle"], detshuffle=True, seed=seed, empty_check=False
        )
        dataset = dataset.compose(
            webdataset.filters.detshuffle(self.settings["shuffle"], initial=self.settings["initial"], seed=seed)
        )
        dataset = dataset.batched(batch_size, collation_fn=_Collate(self.form(events)))
        persistent = self.settings["persistent_workers"] and workers > 0
        return LoaderFeed(
            webdataset.WebLoader(dataset, batch_size=None, num_workers=workers, persistent_workers=persistent)
        )


class WebDatasetCells(WebDataset):
    """The same of the cells that are not 0."""

    name = "webdataset-cells"
    title = "WebDataset: cells"
    cells = True


SIDES: tuple[Side, ...] = (WebDataset(), WebDatasetCells())
