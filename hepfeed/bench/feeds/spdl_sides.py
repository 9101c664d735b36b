"""SPDL: whole batches gathered from memory maps in threads, or blocks of HDF5 files read in worker processes."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hepfeed.bench.feeds.blocks import WINDOW_EVENTS, Block, BlockReader, blocks_of
from hepfeed.bench.feeds.events import EventSet
from hepfeed.bench.feeds.maps import Maps, write_maps
from hepfeed.bench.feeds.side import Feed, Side
from hepfeed.bench.feeds.stored import Form, Record, StoredSide
from hepfeed.tensors import Batch

__all__ = ["SIDES", "Spdl", "SpdlMaps", "SpdlMapsCells"]

_TIMEOUT_S = 120.0
"""Without a batch; the pipeline counts as dead then."""


class _PipelineFeed(Feed):
    """Epochs of one pipeline that runs on between them; an epoch that is left early ends it."""

    def __init__(self, build: Callable[[], Any]) -> None:
        self._build = build
        self._pipeline: Any = None

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of an epoch; the source of the pipeline counts epochs for itself."""
        if self._pipeline is None:
            self._pipeline = self._build()
            self._pipeline.start()
        complete = False
        try:
            yield from self._pipeline.get_iterator(timeout=_TIMEOUT_S)
            complete = True
        finally:
            if not complete:
                self.close()

    def close(self) -> None:
        """Stop the pipeline, its threads and processes."""
        if self._pipeline is not None:
            self._pipeline.stop()
            self._pipeline = None


class _Batches:
    """The numbers of the events of each batch, in another order in each pass."""

    def __init__(self, events: int, batch_size: int, seed: int) -> None:
        self._events, self._batch_size = events, batch_size
        self._random = np.random.default_rng(seed)

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        order = self._random.permutation(self._events)
        for first in range(0, len(order), self._batch_size):
            yield order[first : first + self._batch_size]


class _Blocks:
    """All blocks, in another order in each pass."""

    def __init__(self, blocks: list[Block], seed: int) -> None:
        self._blocks = blocks
        self._random = np.random.default_rng(seed)

    def __iter__(self) -> Iterator[Block]:
        for place in self._random.permutation(len(self._blocks)):
            yield self._blocks[place]


@dataclass
class _Mixer:
    """Collects the events of blocks, and gives back batches of random ones of them.

    Attributes:
        form: Of the events.
        batch_size: Events of a batch.
        random: Draws.
        waiting: Events of blocks that have come.
    """

    form: Form
    batch_size: int
    random: np.random.Generator
    waiting: list[Record]

    def accumulate(self, records: list[Record]) -> list[Batch] | None:
        """Take the events of a block; return whole batches when there are enough to mix."""
        self.waiting += records
        return self._batches(len(self.waiting) // self.batch_size) if len(self.waiting) >= WINDOW_EVENTS else None

    def flush(self) -> list[Batch] | None:
        """Return what is left at the end of an epoch."""
        return self._batches(-(-len(self.waiting) // self.batch_size)) if self.waiting else None

    def _batches(self, count: int) -> list[Batch]:
        mixed = [self.waiting[place] for place in self.random.permutation(len(self.waiting))]
        self.waiting = mixed[count * self.batch_size :]
        firsts = range(0, count * self.batch_size, self.batch_size)
        return [self.form.collate(mixed[first : first + self.batch_size]) for first in firsts]


def _aggregator(mixer: _Mixer) -> Any:
    """Return it as SPDL wants it: of a class that is derived from SPDL's own."""
    importlib.import_module("torch")  # in the worker: its tensors go back in shared memory
    base = importlib.import_module("spdl.pipeline.defs").Aggregator
    members = {
        "accumulate": lambda self, records: mixer.accumulate(records),
        "flush": lambda self: mixer.flush(),
        "__reduce__": lambda self: (_aggregator, (mixer,)),
    }
    return type("Mixer", (base,), members)()


class Spdl(Side):
    """Blocks of HDF5 files in random order, mixed in windows, in worker processes.

    h5py holds one lock for all threads, so what reads runs in processes, as SPDL advises for such functions; tensors
    come back in shared memory.
    """

    name = "spdl"
    title = "SPDL, HDF5 blocks"
    package = "spdl"
    settings: ClassVar[dict[str, Any]] = {
        "region": "ProcessPoolExecutorConfig",
        "concurrency": 1,
        "continuous": True,
        "sink buffer_size": 4,
        "shuffle": f"blocks, then {WINDOW_EVENTS:,} events of them in each process",
    }
    advice = "https://facebookresearch.github.io/spdl/latest/getting_started/parallelism.html"

    def open(self, events: EventSet, folder: Path, workers: int, batch_size: int, seed: int) -> Feed:
        """Return a feed that shuffles; see :class:`Side`."""
        spdl = importlib.import_module("spdl.pipeline")
        defs = importlib.import_module("spdl.pipeline.defs")
        reader, source = BlockReader(events), _Blocks(blocks_of(events), seed)

        def build() -> Any:
            builder = spdl.PipelineBuilder().add_source(source, continuous=self.settings["continuous"])
            if workers:  # spawned: there are threads already
                builder.to(getattr(defs, self.settings["region"])(max_workers=workers, mp_context="spawn"))
            mixer = _Mixer(reader.form, batch_size, np.random.default_rng(seed), [])
            builder.pipe(reader.read, concurrency=self.settings["concurrency"])
            builder.aggregate(_aggregator(mixer)).disaggregate()
            if workers:
                builder.to(defs.MAIN_PROCESS)
            return builder.add_sink(self.settings["sink buffer_size"]).build(num_threads=1)

        return _PipelineFeed(build)


class SpdlMaps(StoredSide):
    """Whole batches gathered from memory maps in threads: no copy between processes."""

    name = "spdl-maps"
    title = "SPDL, memory maps"
    package = "spdl"
    settings: ClassVar[dict[str, Any]] = {
        "executor": "threads",
        "concurrency": "as many as workers",
        "continuous": True,
        "sink buffer_size": 4,
        "shuffle": "full",
    }
    advice = "https://facebookresearch.github.io/spdl/latest/case_studies/data_format.html"

    def prepare(self, events: EventSet, folder: Path) -> None:
        """Write the arrays."""
        write_maps(events, self.form(events), folder)

    def open(self, events: EventSet, folder: Path, workers: int, batch_size: int, seed: int) -> Feed:
        """Return a feed that shuffles; see :class:`Side`."""
        spdl = importlib.import_module("spdl.pipeline")
        maps, threads = Maps(self.form(events), folder), max(1, workers)
        source = _Batches(len(maps), batch_size, seed)

        def build() -> Any:
            builder = spdl.PipelineBuilder().add_source(source, continuous=self.settings["continuous"])
            builder.pipe(maps.take, concurrency=threads).add_sink(self.settings["sink buffer_size"])
            return builder.build(num_threads=threads)

        return _PipelineFeed(build)


class SpdlMapsCells(SpdlMaps):
    """The same of the cells that are not 0."""

    name = "spdl-maps-cells"
    title = "SPDL, memory maps: cells"
    cells = True


SIDES: tuple[Side, ...] = (Spdl(), SpdlMaps(), SpdlMapsCells())
