"""Grain: blocks of HDF5 files, ArrayRecord files, or memory maps, read in its worker processes."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from hepfeed.bench.feeds.blocks import WINDOW_EVENTS, Block, BlockReader, blocks_of
from hepfeed.bench.feeds.events import EventSet
from hepfeed.bench.feeds.maps import Maps, write_maps
from hepfeed.bench.feeds.side import Feed, Side
from hepfeed.bench.feeds.stored import Form, StoredSide, delivered
from hepfeed.tensors import Batch, Jagged

__all__ = ["SIDES", "Grain", "GrainArrayRecord", "GrainArrayRecordCells", "GrainMaps", "GrainMapsCells"]

_EPOCH = "epoch"
_RECORDS = "events.array_record"
_JAGGED = ("/values", "/offsets")
_GUIDE = "https://google-grain.readthedocs.io/en/latest/tutorials/dataset_advanced_tutorial.html"
_ARRAY_RECORD_GUIDE = (
    "https://google-grain.readthedocs.io/en/latest/tutorials/data_sources/arrayrecord_data_source_tutorial.html"
)


def _flat(batch: Batch) -> dict[str, Any]:
    """A dictionary of NumPy arrays: Grain sends only those through shared memory."""
    found = {}
    for key, value in batch.items():
        if isinstance(value, Jagged):
            found.update({key + _JAGGED[0]: np.asarray(value.values), key + _JAGGED[1]: np.asarray(value.offsets)})
        else:
            found[key] = np.asarray(value)
    return found


def _whole(arrays: dict[str, Any]) -> Batch:
    """The batch again, as torch tensors on the same memory."""
    found: Batch = {}
    for key, array in arrays.items():
        name = key.removesuffix(_JAGGED[0])
        if name != key:
            found[name] = Jagged(delivered(array), delivered(arrays[name + _JAGGED[1]]))
        elif not key.endswith(_JAGGED[1]):
            found[key] = delivered(array)
    return found


class _GrainFeed(Feed):
    """Epochs of one endless iterator, whose workers start with it; an epoch that is left early ends it.

    Workers are not at the same place of the stream, so a batch may come before an epoch is over to which it does not
    belong: it waits.

    Args:
        events: Of an epoch.
        start: Makes the data set of all epochs from a first one.
        release: Called behind the end of an iterator.
    """

    def __init__(self, events: int, start: Callable[[int], Any], release: Callable[[], None] | None = None) -> None:
        self._events = events
        self._start = start
        self._release = release
        self._batches: Any = None
        self._first_epoch = 0
        self._early: list[tuple[int, Batch]] = []

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of an epoch."""
        if self._batches is None:
            self._batches, self._first_epoch = iter(self._start(number)), number
        left = self._events
        try:
            while left:
                batch = self._next(number - self._first_epoch)
                left -= len(batch["label"])
                yield batch
        finally:
            if left:
                self.close()

    def _next(self, epoch: int) -> Batch:
        for place, (of, batch) in enumerate(self._early):
            if of == epoch:
                del self._early[place]
                return batch
        while True:
            arrays = dict(next(self._batches))
            of, batch = int(arrays.pop(_EPOCH)), _whole(arrays)
            if of == epoch:
                return batch
            self._early.append((of, batch))

    def close(self) -> None:
        """End the workers."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None
            if self._release is not None:
                self._release()
        self._early.clear()


def _through_workers(grain: Any, dataset: Any, workers: int, settings: dict[str, Any]) -> Any:
    """Put the worker processes behind a data set of batches."""
    buffer = settings["per_worker_buffer_size"]
    return dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=buffer))


def _read_options(grain: Any, settings: dict[str, Any]) -> Any:
    return grain.ReadOptions(num_threads=settings["num_threads"], prefetch_buffer_size=settings["prefetch_buffer_size"])


@dataclass(frozen=True)
class _ReadWindow:
    """Reads some blocks, and cuts their events, mixed, into batches.

    Attributes:
        reader: Of the blocks.
        windows: Of an epoch.
        batch_size: Events of a batch.
        seed: Of the mixing.
    """

    reader: BlockReader
    windows: int
    batch_size: int
    seed: int

    def __call__(self, index: int, blocks: list[Block]) -> list[dict[str, Any]]:
        records = [record for block in blocks for record in self.reader.read(block)]
        mixed = [records[place] for place in np.random.default_rng((self.seed, index)).permutation(len(records))]
        firsts = range(0, len(mixed), self.batch_size)
        batches = (self.reader.form.collate(mixed[first : first + self.batch_size]) for first in firsts)
        return [{_EPOCH: np.array(index // self.windows), **_flat(batch)} for batch in batches]


@dataclass(frozen=True)
class _Split:
    """A transformation, as Grain calls it, of a window into its batches."""

    max_fan_out: int

    def flat_map(self, batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return batches


class Grain(Side):
    """Blocks of HDF5 files in random order, mixed in windows, in worker processes."""

    name = "grain"
    title = "Grain, HDF5 blocks"
    package = "grain"
    settings: ClassVar[dict[str, Any]] = {
        "num_threads": 1,
        "prefetch_buffer_size": 1,
        "per_worker_buffer_size": 4,
        "shuffle": f"blocks, then about {WINDOW_EVENTS:,} events of them",
    }
    advice = _GUIDE

    def open(self, events: EventSet, folder: Path, workers: int, batch_size: int, seed: int) -> Feed:
        """Return a feed that shuffles; see :class:`Side`."""
        grain = importlib.import_module("grain")
        blocks = blocks_of(events)
        most = max(stop - first for _, first, stop in blocks)
        together = -(-WINDOW_EVENTS // most)
        windows = -(-len(blocks) // together)
        reader = BlockReader(events)

        def start(epoch: int) -> Any:
            read = _ReadWindow(reader, windows, batch_size, seed + epoch)
            dataset = grain.MapDataset.source(blocks).shuffle(seed=seed + epoch)
            dataset = dataset.batch(together, batch_fn=list).repeat().map_with_index(read)
            dataset = dataset.to_iter_dataset(_read_options(grain, self.settings))
            split = _Split(-(-together * most // batch_size))
            dataset = grain.experimental.FlatMapIterDataset(dataset, split)
            return _through_workers(grain, dataset, workers, self.settings)

        return _GrainFeed(len(events), start, reader.close)


class _StoredGrain(StoredSide):
    """Batches of a format of its own, gathered in worker processes after a full shuffle."""

    package = "grain"
    settings: ClassVar[dict[str, Any]] = {
        "num_threads": 0,
        "prefetch_buffer_size": 0,
        "per_worker_buffer_size": 4,
        "shuffle": "full",
    }

    def _feed(self, source: Any, make: Callable[[Any], Batch], batch_size: int, workers: int, seed: int) -> Feed:
        """Return a feed of what ``make`` makes of a list of elements of the source."""
        grain = importlib.import_module("grain")
        events = len(source)

        def start(epoch: int) -> Any:
            dataset = grain.MapDataset.source(source).shuffle(seed=seed + epoch)
            dataset = dataset.batch(batch_size, batch_fn=list).repeat()
            dataset = dataset.map_with_index(_MakeBatch(make, -(-events // batch_size)))
            return _through_workers(
                grain, dataset.to_iter_dataset(_read_options(grain, self.settings)), workers, self.settings
            )

        return _GrainFeed(events, start)


@dataclass(frozen=True)
class _MakeBatch:
    make: Callable[[Any], Batch]
    batches: int

    def __call__(self, index: int, elements: Any) -> dict[str, Any]:
        return {_EPOCH: np.array(index // self.batches), **_flat(self.make(elements))}


@dataclass(frozen=True)
class _Take:
    maps: Maps

    def __call__(self, numbers: Sequence[int]) -> Batch:
        return self.maps.take(np.array(numbers))


class GrainMaps(_StoredGrain):
    """Whole batches gathered from memory maps."""

    name = "grain-maps"
    title = "Grain, memory maps"
    advice = _GUIDE

    def prepare(self, events: EventSet, folder: Path) -> None:
        """Write the arrays."""
        write_maps(events, self.form(events), folder)

    def open(self, events: EventSet, folder: Path, workers: int, batch_size: int, seed: int) -> Feed:
        """Return a feed that shuffles; see :class:`Side`."""
        maps = Maps(self.form(events), folder)
        return self._feed(range(len(maps)), _Take(maps), batch_size, workers, seed)


class GrainMapsCells(GrainMaps):
    """The same of the cells that are not 0."""

    name = "grain-maps-cells"
    title = "Grain, memory maps: cells"
    cells = True


@dataclass(frozen=True)
class _Unpack:
    form: Form

    def __call__(self, packed: Sequence[bytes]) -> Batch:
        return self.form.collate([self.form.unpack(data) for data in packed])


class GrainArrayRecord(_StoredGrain):
    """ArrayRecord, the format that its documentation advises for random access."""

    name = "grain-arrayrecord"
    title = "Grain, ArrayRecord"
    settings: ClassVar[dict[str, Any]] = {**_StoredGrain.settings, "writer": "group_size:1,uncompressed"}
    advice = _ARRAY_RECORD_GUIDE

    def prepare(self, events: EventSet, folder: Path) -> None:
        """Write one file, event by event."""
        module = importlib.import_module("array_record.python.array_record_module")
        form = self.form(events)
        writer = module.ArrayRecordWriter(str(folder / _RECORDS), self.settings["writer"])
        for file, first, rows in events.blocks():
            for record in form.records(events, file, first, rows):
                writer.write(form.pack(record))
        writer.close()

    def open(self, events: EventSet, folder: Path, workers: int, batch_size: int, seed: int) -> Feed:
        """Return a feed that shuffles; see :class:`Side`."""
        source = importlib.import_module("grain").sources.ArrayRecordDataSource([str(folder / _RECORDS)])
        return self._feed(source, _Unpack(self.form(events)), batch_size, workers, seed)


class GrainArrayRecordCells(GrainArrayRecord):
    """The same of the cells that are not 0."""

    name = "grain-arrayrecord-cells"
    title = "Grain, ArrayRecord: cells"
    cells = True


SIDES: tuple[Side, ...] = (Grain(), GrainMaps(), GrainMapsCells(), GrainArrayRecord(), GrainArrayRecordCells())
