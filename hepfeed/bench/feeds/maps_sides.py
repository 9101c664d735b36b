"""torch's loader over memory-mapped arrays, event by event and batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.utils.data

from hepfeed.bench.feeds.events import EventSet
from hepfeed.bench.feeds.maps import Maps, write_maps
from hepfeed.bench.feeds.side import Feed, Side
from hepfeed.bench.feeds.stored import StoredSide
from hepfeed.tensors import Batch

__all__ = ["SIDES", "LoaderFeed", "TorchMaps", "TorchMapsByEvent", "TorchMapsCells"]


class LoaderFeed(Feed):
    """Epochs of a loader of torch, or of a class that is derived from it.

    Its workers stay between epochs; an epoch that is left early ends them, and the next one starts others.
    """

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of an epoch; the loader counts epochs for itself."""
        complete = False
        try:
            yield from self._loader
            complete = True
        finally:
            if not complete:
                self.close()

    def close(self) -> None:
        """End the workers."""
        iterator = getattr(self._loader, "_iterator", None)
        if iterator is not None:  # the loader ends its workers when it is collected, which may be late
            iterator._shutdown_workers()
            self._loader._iterator = None


class _ByEvent(torch.utils.data.Dataset[Batch]):
    def __init__(self, maps: Maps) -> None:
        self.maps = maps

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, number: int) -> Batch:
        batch = self.maps.form.collate([self.maps.record(number)])
        return {key: value[0] for key, value in batch.items()}


class _ByBatch(torch.utils.data.Dataset[Batch]):
    def __init__(self, maps: Maps) -> None:
        self.maps = maps

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, numbers: list[int]) -> Batch:
        return self.maps.take(np.array(numbers))


class _TorchSide(StoredSide):
    """Arrays in files that are mapped into memory."""

    package = None

    def prepare(self, events: EventSet, folder: Path) -> None:
        """Write the arrays."""
        write_maps(events, self.form(events), folder)


class TorchMapsByEvent(_TorchSide):
    """A map-style dataset, and the default collate function."""

    name = "torch-maps-event"
    title = "torch, memory maps, by event"
    settings: ClassVar[dict[str, Any]] = {"shuffle": True, "persistent_workers": True}
    advice = "https://docs.pytorch.org/docs/stable/data.html#map-style-datasets"

    def takes(self, events: EventSet) -> str | None:
        """Return why it can't feed such events; None where it can."""
        if events.jagged:
            return "torch's default collate function stacks events of one shape only"
        return super().takes(events)

    def open(self, events: EventSet, folder: Path, workers: int, batch_size: int, seed: int) -> Feed:
        """Return a feed that shuffles; see :class:`Side`."""
        return LoaderFeed(
            torch.utils.data.DataLoader(
                _ByEvent(Maps(self.form(events), folder)),
                batch_size,
                num_workers=workers,
                generator=torch.Generator().manual_seed(seed),
                shuffle=self.settings["shuffle"],
                persistent_workers=self.settings["persistent_workers"] and workers > 0,
            )
        )


class TorchMaps(_TorchSide):
    """A sampler of batches: one gather a key, straight into shared memory."""

    name = "torch-maps"
    title = "torch, memory maps, by batch"
    settings: ClassVar[dict[str, Any]] = {
        "batch_size": None,
        "sampler": "BatchSampler(RandomSampler)",
        "persistent_workers": True,
    }
    advice = "https://docs.pytorch.org/docs/stable/data.html#disable-automatic-batching"

    def open(self, events: EventSet, folder: Path, workers: int, batch_size: int, seed: int) -> Feed:
        """Return a feed that shuffles; see :class:`Side`."""
        dataset = _ByBatch(Maps(self.form(events), folder))
        order = torch.utils.data.RandomSampler(dataset, generator=torch.Generator().manual_seed(seed))
        return LoaderFeed(
            torch.utils.data.DataLoader(
                dataset,
                self.settings["batch_size"],
                sampler=torch.utils.data.BatchSampler(order, batch_size, drop_last=False),
                num_workers=workers,
                persistent_workers=self.settings["persistent_workers"] and workers > 0,
            )
        )


class TorchMapsCells(TorchMaps):
    """The same of the cells that are not 0: clear, and one scatter a key."""

    name = "torch-maps-cells"
    title = "torch, memory maps, by batch: cells"
    cells = True


SIDES: tuple[Side, ...] = (TorchMaps(), TorchMapsCells(), TorchMapsByEvent())
