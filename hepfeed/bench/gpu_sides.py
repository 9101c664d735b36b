"""The sides of ``hepfeed bench gpu``: where a training loop takes its batches from."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.utils.data

from hepfeed.bench.h5py_events import H5pyEvents, SameBatches
from hepfeed.bench.simulated import batch_bytes
from hepfeed.bench.simulated_bus import SimulatedBus
from hepfeed.bench.simulated_engine import SimulatedEngine
from hepfeed.cache.option import CacheOption
from hepfeed.dataset import EventDataset
from hepfeed.errors import ProcessError, SpecError
from hepfeed.filler import Filler
from hepfeed.loader import DataLoader
from hepfeed.progress import Progress
from hepfeed.spec import SampleSpec
from hepfeed.stats import FeedStats
from hepfeed.tensors import Batch, Structured
from hepfeed.transfer import Transfer
from hepfeed.walk import map_tensors

__all__ = ["FirstEpoch", "Hepfeed", "Replay", "Side", "Source", "Torch"]

_LATER = 1
"""The epoch that is compared: the first one that comes from the cache."""
_LEAST_BATCHES = 4


@dataclass(frozen=True)
class Source:
    """What all sides feed, and how.

    Attributes:
        spec: The events.
        batch_size: Events of a batch; an incomplete last batch is left out.
        num_workers: Readers of hepfeed, and workers of torch's loader.
        prefetch_factor: Batches ahead for each of them.
        cache: Of hepfeed.
        seed: Of the order and of random steps.
        device: Where batches are needed: a CUDA device, or None for the memory of this machine.
        bus: To a simulated device, over which hepfeed sends batches ahead as it does with a CUDA device; None else.
        replay_bytes: Most bytes of the batches that are replayed.
    """

    spec: SampleSpec
    batch_size: int = 128
    num_workers: int = 2
    prefetch_factor: int = 2
    cache: CacheOption = "auto"
    seed: int = 0
    device: torch.device | None = None
    bus: SimulatedBus | None = None
    replay_bytes: float = 1e9

    def dataset(self, cache: CacheOption) -> EventDataset:
        """Open the events.

        Raises:
            SpecError: They are too few for a measurement.
        """
        dataset = EventDataset(self.spec, cache=cache)
        if len(dataset) < _LEAST_BATCHES * self.batch_size:
            raise SpecError(
                f"there are {len(dataset):,} events, fewer than {_LEAST_BATCHES} batches of {self.batch_size}: give a"
                " smaller --batch-size"
            )
        return dataset

    def loader(self, dataset: EventDataset) -> DataLoader[Any]:
        """Return hepfeed's loader of events, which keeps its readers from epoch to epoch."""
        loader: DataLoader[Any] = DataLoader(
            dataset,
            self.batch_size,
            shuffle=True,
            num_workers=self.num_workers,
            prefetch_factor=self.prefetch_factor if self.num_workers else None,
            persistent_workers=self.num_workers > 0,
            drop_last=True,
            seed=self.seed,
            device=self.device,
        )
        if (bus := self.bus) is not None:
            loader._transfer = Transfer(torch.device("cpu"), lambda _: SimulatedEngine(bus))
        return loader

    @property
    def sends(self) -> bool:
        """Whether hepfeed's batches are sent to the device by its loader."""
        return self.bus is not None or self.device is not None


class Side(ABC):
    """A source of batches for a training loop.

    Attributes:
        name: For tables.
        resident: Batches lie on the device already, or are on their way.
        epoch: The epoch that :meth:`batches` begins with.
    """

    name: ClassVar[str]
    resident: bool = False
    epoch: ClassVar[int] = _LATER

    @abstractmethod
    def filler(self) -> Filler:
        """Return what decides which events make each batch."""

    @abstractmethod
    def batches(self) -> Generator[Batch, None, None]:
        """Yield the batches of the epoch :attr:`epoch`, and of those after it where there are some; to be closed."""

    def length(self) -> int | None:
        """Return how many batches there are; None for no end."""
        return None

    def stats(self) -> FeedStats | None:
        """Return where the time went so far, where the side knows."""
        return None

    def verify(self, batch: Batch, number: int, expected: Batch) -> None:
        """Compare a batch with the same events read by h5py.

        Raises:
            ProcessError: It is another one.
        """
        for name in sorted({*batch, *expected}):
            if name not in batch or name not in expected or _bits(batch[name]) != _bits(expected[name]):
                raise ProcessError(
                    f"{self.name} does not deliver in batch {number} of epoch {self.epoch} what h5py reads", key=name
                )

    def close(self) -> None:  # noqa: B027 - most have nothing to do
        """End what runs."""


class Hepfeed(Side):
    """hepfeed, in the epochs after the first: from the cache, where ``cache`` allows for one.

    Args:
        source: What to feed.
        progress: Called while the first epoch fills the cache.

    Attributes:
        dataset: The events.
        caches: Whether there is a cache.
    """

    name = "hepfeed"

    def __init__(self, source: Source, progress: Progress | None = None) -> None:
        self.dataset = source.dataset(source.cache)
        self._loader = source.loader(self.dataset)
        self.resident = source.sends
        try:
            feed = self.dataset.feed_of_cache(self.dataset.pipeline)
            self.caches = feed is not None
            if feed is not None and (source.cache == "ram" or feed.missing):
                total = len(self._loader)
                for number, _ in enumerate(self._loader, 1):
                    if progress is not None:
                        progress("filling the cache", number, total)
            self._loader.set_epoch(_LATER)
            self._filler = self._loader.filler
        except BaseException:
            self._loader.close()
            raise

    def filler(self) -> Filler:
        """Return what decides which events make each batch."""
        assert isinstance(self._filler, Filler), "one process has one partition"
        return self._filler

    def batches(self) -> Generator[Batch, None, None]:
        """Yield epochs without end."""
        self._loader.set_epoch(self.epoch)
        while True:
            yield from self._loader

    def stats(self) -> FeedStats:
        """Return where the time went since the loader was made."""
        return self._loader.stats()

    def close(self) -> None:
        """End the readers."""
        self._loader.close()


class FirstEpoch(Side):
    """hepfeed in the first epoch: from the files, and writing a cache of its own where hepfeed would.

    Args:
        source: What to feed.
        caches: Whether hepfeed keeps a cache of such events.
    """

    name = "hepfeed, first epoch"
    epoch = 0

    def __init__(self, source: Source, caches: bool) -> None:
        self._source = source
        self._caches = caches
        self.resident = source.sends
        with closing(source.loader(source.dataset(None))) as loader:
            self._filler, self._length = loader.filler, len(loader)

    def filler(self) -> Filler:
        """Return what decides which events make each batch."""
        assert isinstance(self._filler, Filler), "one process has one partition"
        return self._filler

    def length(self) -> int:
        """Return the batches of an epoch."""
        return self._length

    def batches(self) -> Generator[Batch, None, None]:
        """Yield one epoch, with new readers and a new cache, which is deleted in the end."""
        with tempfile.TemporaryDirectory(prefix="hepfeed-bench-") as folder:
            dataset = self._source.dataset(Path(folder) / "cache" if self._caches else None)
            with self._source.loader(dataset) as loader:
                yield from loader


class Torch(Side):
    """torch's ``DataLoader`` over h5py: :class:`hepfeed.bench.h5py_events.H5pyEvents`, with hepfeed's order.

    It has persistent workers, and page-locks batches for a CUDA device.

    Args:
        source: What to feed.
        dataset: Its events.
        filler: Of the side that it is compared with.
    """

    name = "torch DataLoader"

    def __init__(self, source: Source, dataset: EventDataset, filler: Filler) -> None:
        self._source = source
        self._events = H5pyEvents(dataset, source.seed)
        self._filler = filler

    def filler(self) -> Filler:
        """Return what decides which events make each batch."""
        return self._filler

    def batches(self) -> Generator[Batch, None, None]:
        """Yield epochs without end, with new workers."""
        source, workers = self._source, self._source.num_workers
        loader = torch.utils.data.DataLoader(
            self._events,
            batch_sampler=SameBatches(self._filler, self.epoch),
            num_workers=workers,
            collate_fn=self._events.collate,
            persistent_workers=workers > 0,
            prefetch_factor=source.prefetch_factor if workers else None,
            pin_memory=source.device is not None,
        )
        try:
            while True:
                yield from loader
        finally:
            self._events.close()


class Replay(Side):
    """Batches of hepfeed that were copied to the device's memory before, again and again: the speed without loading.

    Args:
        side: Whose batches.
        source: How many of them.
    """

    name = "replay"
    resident = True

    def __init__(self, side: Hepfeed, source: Source) -> None:
        self._filler = side.filler()
        self._batches: list[Batch] = []
        most, held = self._filler.batches_in(self.epoch), 0
        with closing(side.batches()) as batches:
            for batch in batches:
                self._batches.append(map_tensors(batch, torch.clone))
                held += batch_bytes(batch)
                if len(self._batches) == most or held + batch_bytes(batch) > source.replay_bytes:
                    break

    def __len__(self) -> int:
        return len(self._batches)

    def filler(self) -> Filler:
        """Return what decides which events make each batch."""
        return self._filler

    def batches(self) -> Generator[Batch, None, None]:
        """Yield them without end."""
        while True:
            yield from self._batches


def _bits(value: Any) -> Any:
    """What two equal values have in common."""
    if isinstance(value, Structured):
        others = {
            name: part for name, part in vars(value).items() if not hasattr(part, "dtype") and name != "kernel_maps"
        }
        return others, {name: _bits(array) for name, array in value.arrays().items()}
    array = np.ascontiguousarray(torch.as_tensor(value).cpu().numpy())
    return array.dtype, array.shape, array.tobytes()
