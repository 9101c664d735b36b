"""LitData: optimized chunks without compression, read in place."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from hepfeed.bench.feeds.events import EventSet
from hepfeed.bench.feeds.maps import Maps, random_order, staged
from hepfeed.bench.feeds.maps_sides import LoaderFeed
from hepfeed.bench.feeds.side import Feed, Side
from hepfeed.bench.feeds.stored import Record, StoredSide

__all__ = ["SIDES", "LitData", "LitDataCells"]


def _litdata() -> Any:
    os.environ.setdefault("LITDATA_DISABLE_VERSION_CHECK", "1")  # which asks the internet
    return importlib.import_module("litdata")


@contextmanager
def _caches_beside(folder: Path) -> Iterator[None]:
    """Let it keep what it has not finished on the disk of its output, and not in a folder that all runs share."""
    names = ("DATA_OPTIMIZER_CACHE_FOLDER", "DATA_OPTIMIZER_DATA_CACHE_FOLDER")
    before = {name: os.environ.get(name) for name in names}
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        os.environ.update({name: str(Path(place, name)) for name in names})
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


@dataclass(frozen=True)
class _Sample:
    maps: Maps

    def __call__(self, number: int) -> Record:
        return {name: np.array(array) for name, array in self.maps.record(number).items()}


class LitData(StoredSide):
    """Chunks of events in an order that is random and always the same.

    It shuffles the chunks, and the events of each, but never mixes chunks; so events are mixed before they are stored.
    By default it decodes a window of events at once and shuffles windows of 256: where an event has 68 kB a window of
    decoding is 244 events, the two do not coincide, and version 0.2.76 decodes 28 events for each that it delivers.
    ``batch_decode=0`` decodes each event once, and lets a chunk be shuffled as a whole.
    """

    name = "litdata"
    title = "LitData"
    package = "litdata"
    settings: ClassVar[dict[str, Any]] = {
        "shuffle": True,
        "batch_decode": 0,
        "item_shuffle_window": "full",
        "drop_last": False,
        "persistent_workers": True,
        "chunk_bytes": "64MB",
        "stored order": "random, the same for all epochs: a batch comes from one or two chunks",
    }
    advice = "https://github.com/Lightning-AI/litData/blob/main/src/litdata/CHANGELOG.md"

    def prepare(self, events: EventSet, folder: Path) -> None:
        """Write chunks in one process, which keeps the order."""
        with staged(events, self.form(events), folder) as maps, _caches_beside(folder):
            _litdata().optimize(
                fn=_Sample(maps),
                inputs=random_order(len(maps)),
                output_dir=str(folder),
                chunk_bytes=self.settings["chunk_bytes"],
                num_workers=1,
                start_method="fork",
                keep_data_ordered=True,
                verbose=False,
            )

    def open(self, events: EventSet, folder: Path, workers: int, batch_size: int, seed: int) -> Feed:
        """Return a feed that shuffles; see :class:`Side`."""
        litdata = _litdata()
        options = {
            name: self.settings[name] for name in ("shuffle", "batch_decode", "item_shuffle_window", "drop_last")
        }
        return LoaderFeed(
            litdata.StreamingDataLoader(
                litdata.StreamingDataset(str(folder), seed=seed, **options),
                batch_size=batch_size,
                num_workers=workers,
                persistent_workers=self.settings["persistent_workers"] and workers > 0,
                collate_fn=self.form(events).collate,
            )
        )


class LitDataCells(LitData):
    """The same of the cells that are not 0."""

    name = "litdata-cells"
    title = "LitData: cells"
    cells = True


SIDES: tuple[Side, ...] = (LitData(), LitDataCells())
