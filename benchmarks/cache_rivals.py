"""Other libraries over the same processed events, each in its own format, as its documentation advises.

Every rival writes the dense events once (``dense``), and once the cells that are not 0, which its workers make dense
again (``cells``); it delivers shuffled batches of dense float32 torch tensors and labels.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.utils.data
from cache_rows import KEYS, Arrays, Cells, Rows
from numpy.typing import NDArray

Stored = Literal["dense", "cells"]
Batch = dict[str, torch.Tensor]
Event = dict[str, Any]
_LABEL = struct.Struct("<q")
SHARD_BYTES = 64 << 20


@dataclass
class Rival:
    """A library over one of its formats.

    Attributes:
        name: Of the library, and of what it stores.
        epoch: Yields the batches of the next epoch.
        kept: What must live as long.
    """

    name: str
    epoch: Callable[[], Iterable[Batch]]
    kept: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Source:
    """What a rival is made of.

    Attributes:
        rows: Dense events.
        cells: The same, without what is 0.
        folder: For its files.
        batch: Events of a batch.
        workers: Processes or threads beside the consumer.
    """

    rows: Rows
    cells: Cells
    folder: Path
    batch: int
    workers: int

    def event(self, row: int, stored: Stored) -> Event:
        """Return one event as it is stored."""
        found: Event = {"label": int(self.rows.label[row])}
        for key in KEYS:
            if stored == "dense":
                found[key] = np.array(self.rows.arrays[key][row])
                continue
            start, stop = self.cells.offsets[key][row : row + 2]
            cells, values = self.cells.cells[key][start:stop], self.cells.values[key][start:stop]
            if start == stop:  # MDS takes no empty arrays
                cells, values = np.zeros(1, np.int32), np.zeros(1, np.float32)
            found[f"{key}_cells"], found[f"{key}_values"] = cells.astype(np.uint16), np.array(values)
        return found

    @property
    def collate(self) -> _Densify:
        """What makes a dense batch of events stored as cells."""
        return _Densify(self.cells.shapes)


@dataclass(frozen=True)
class _Densify:
    shapes: dict[str, tuple[int, ...]]

    def __call__(self, events: list[Event]) -> Batch:
        batch = {"label": torch.tensor([int(event["label"]) for event in events])}
        for key, shape in self.shapes.items():
            tensor = empty_tensor((len(events), *shape))
            images = tensor.numpy().reshape(len(events), -1)
            images[:] = 0
            for image, event in zip(images, events):
                image[event[f"{key}_cells"]] = event[f"{key}_values"]
            batch[key] = tensor
        return batch


def empty_tensor(shape: tuple[int, ...]) -> torch.Tensor:
    """Return a float32 tensor; in a worker, of shared memory, as torch's own collate function makes it."""
    if torch.utils.data.get_worker_info() is None:
        return torch.empty(shape)
    storage = torch.UntypedStorage._new_shared(4 * int(np.prod(shape)), device="cpu")
    return torch.empty(0).set_(storage).resize_(shape) if storage.nbytes() else torch.empty(shape)


def take_rows(rows: Rows, some: NDArray[np.int64]) -> Batch:
    """Gather dense events with one call a key."""
    batch = {"label": torch.from_numpy(rows.label[some])}
    for key, array in rows.arrays.items():
        batch[key] = empty_tensor((len(some), *array.shape[1:]))
        np.take(array, some, 0, out=batch[key].numpy(), mode="clip")
    return batch


def take_cells(cells: Cells, some: NDArray[np.int64]) -> Batch:
    """Gather events stored as cells, and make them dense with one scatter a key."""
    found = {key: torch.from_numpy(images) for key, images in cells.dense(some).items()}
    return {**found, "label": torch.from_numpy(cells.label[some])}


def _taker(source: Source, stored: Stored) -> Callable[[NDArray[np.int64]], Batch]:
    kept: Any = source.rows if stored == "dense" else source.cells
    take: Any = take_rows if stored == "dense" else take_cells
    return lambda some: take(kept, np.asarray(some))


# ---- torch ---------------------------------------------------------------------------------------------------------


class _ByEvent(torch.utils.data.Dataset[Batch]):
    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Batch:
        event = {key: torch.from_numpy(np.array(array[row])) for key, array in self.rows.arrays.items()}
        return {**event, "label": torch.tensor(self.rows.label[row])}


class _ByBatch(torch.utils.data.Dataset[Batch]):
    def __init__(self, rows: Rows | Cells) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, some: list[int]) -> Batch:
        rows = np.array(some)
        return take_rows(self.rows, rows) if isinstance(self.rows, Rows) else take_cells(self.rows, rows)


def torch_by_event(source: Source, stored: Stored) -> Rival | None:
    """Map-style over memory-mapped .npy files, default collate function."""
    if stored == "cells":
        return None  # events of different lengths are what the batched way below is for
    loader = torch.utils.data.DataLoader(
        _ByEvent(source.rows), source.batch, shuffle=True, num_workers=source.workers, persistent_workers=True
    )
    return Rival("torch, npy, by event", lambda: loader)


def torch_by_batch(source: Source, stored: Stored) -> Rival:
    """The same with a sampler of batches: one gather a key, straight into shared memory."""
    dataset = _ByBatch(source.rows if stored == "dense" else source.cells)
    sampler = torch.utils.data.BatchSampler(torch.utils.data.RandomSampler(dataset), source.batch, drop_last=False)
    loader = torch.utils.data.DataLoader(
        dataset, None, sampler=sampler, num_workers=source.workers, persistent_workers=True
    )
    return Rival(f"torch, npy, by batch: {stored}", lambda: loader)


# ---- others --------------------------------------------------------------------------------------------------------


def mosaic(source: Source, stored: Stored) -> Rival:
    """MosaicML Streaming, MDS shards without compression, read in place."""
    from streaming import MDSWriter, StreamingDataLoader, StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    clean_stale_shared_memory()
    columns = {"label": "int"}
    for key, array in source.rows.arrays.items():
        if stored == "dense":
            columns[key] = f"ndarray:float32:{','.join(map(str, array.shape[1:]))}"
        else:
            columns |= {f"{key}_cells": "ndarray:uint16", f"{key}_values": "ndarray:float32"}
    folder = str(source.folder)
    with MDSWriter(out=folder, columns=columns, size_limit=SHARD_BYTES, progress_bar=False) as writer:
        for row in range(len(source.rows)):
            writer.write(source.event(row, stored))
    dataset = StreamingDataset(local=folder, shuffle=True, batch_size=source.batch, num_canonical_nodes=1)
    loader = StreamingDataLoader(
        dataset,
        batch_size=source.batch,
        num_workers=source.workers,
        persistent_workers=True,
        collate_fn=None if stored == "dense" else source.collate,
    )
    return Rival(f"MosaicML Streaming: {stored}", lambda: loader)


def litdata(source: Source, stored: Stored) -> Rival:
    """LitData, optimized chunks, read in place."""
    os.environ.setdefault("LITDATA_DISABLE_VERSION_CHECK", "1")
    import litdata

    folder = str(source.folder)
    litdata.optimize(
        fn=_LitEvent(source, stored),
        inputs=list(range(len(source.rows))),
        output_dir=folder,
        chunk_size=source.batch,  # larger chunks are slower: what is shuffled is decoded in windows of a chunk
        num_workers=1,
        start_method="fork",
    )
    dataset = litdata.StreamingDataset(folder, shuffle=True, drop_last=False)
    loader = litdata.StreamingDataLoader(
        dataset,
        batch_size=source.batch,
        num_workers=source.workers,
        persistent_workers=True,
        collate_fn=None if stored == "dense" else source.collate,
    )
    return Rival(f"LitData: {stored}", lambda: loader)


@dataclass(frozen=True)
class _LitEvent:
    source: Source
    stored: Stored

    def __call__(self, row: int) -> Event:
        return self.source.event(row, self.stored)


def webdataset(source: Source, stored: Stored) -> Rival:
    """WebDataset, tar files of raw arrays, shuffle over shards and a buffer."""
    import webdataset as wds

    per_shard = -(-len(source.rows) // (8 * source.workers))  # as many for each worker
    pattern = str(source.folder / "shard-%05d.tar")
    with wds.ShardWriter(pattern, maxcount=per_shard, maxsize=1 << 40, verbose=0) as writer:
        for row in range(len(source.rows)):
            event = source.event(row, stored)
            arrays = {f"{name.lower()}.raw": array.tobytes() for name, array in event.items() if name != "label"}
            writer.write({"__key__": f"{row:08d}", "label.raw": _LABEL.pack(event["label"]), **arrays})
    shards = sorted(map(str, source.folder.glob("*.tar")))
    dataset = (
        wds.WebDataset(shards, shardshuffle=len(shards), detshuffle=False)
        .shuffle(1000)
        .map(_FromTar(source.cells.shapes, stored))
        .batched(source.batch, collation_fn=_stack if stored == "dense" else source.collate)
    )
    loader = wds.WebLoader(dataset, batch_size=None, num_workers=source.workers, persistent_workers=True)
    return Rival(f"WebDataset: {stored}", lambda: loader)


@dataclass(frozen=True)
class _FromTar:
    shapes: dict[str, tuple[int, ...]]
    stored: Stored

    def __call__(self, sample: Event) -> Event:
        event: Event = {"label": _LABEL.unpack(sample["label.raw"])[0]}
        for key, shape in self.shapes.items():
            if self.stored == "dense":
                event[key] = np.frombuffer(sample[f"{key.lower()}.raw"], np.float32).reshape(shape)
                continue
            event[f"{key}_cells"] = np.frombuffer(sample[f"{key.lower()}_cells.raw"], np.uint16)
            event[f"{key}_values"] = np.frombuffer(sample[f"{key.lower()}_values.raw"], np.float32)
        return event


def _stack(events: list[Event]) -> Batch:
    batch = {"label": torch.tensor([event["label"] for event in events])}
    for key in KEYS:
        batch[key] = empty_tensor((len(events), *events[0][key].shape))
        np.stack([event[key] for event in events], out=batch[key].numpy())
    return batch


def grain(source: Source, stored: Stored) -> Rival:
    """Grain: whole batches gathered from memory-mapped .npy files in its worker processes."""
    import grain

    kept: Any = source.rows if stored == "dense" else source.cells
    dataset = (
        grain.MapDataset.range(len(source.rows))
        .shuffle(seed=0)
        .batch(source.batch)
        .map(_GrainGather(kept))
        .repeat()
        .to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2))
        .mp_prefetch(grain.MultiprocessingOptions(num_workers=source.workers, per_worker_buffer_size=2))
    )
    batches = iter(dataset)  # one for all epochs: its workers start with it
    events = len(source.rows)

    def epoch() -> Iterator[Batch]:
        for _ in range(-(-events // source.batch)):
            yield {name: torch.from_numpy(array) for name, array in next(batches).items()}

    return Rival(f"Grain, npy: {stored}", epoch, [batches])


@dataclass(frozen=True)
class _GrainGather:
    kept: Any

    def __call__(self, some: NDArray[np.int64]) -> Arrays:
        if isinstance(self.kept, Cells):
            return {**self.kept.dense(some), "label": self.kept.label[some]}
        arrays = {key: np.take(array, some, 0, mode="clip") for key, array in self.kept.arrays.items()}
        return {**arrays, "label": self.kept.label[some]}


def spdl(source: Source, stored: Stored) -> Rival:
    """SPDL: whole batches gathered from memory-mapped .npy files in threads, without a copy between processes."""
    from spdl.pipeline import PipelineBuilder

    random = np.random.default_rng(0)
    gather = _taker(source, stored)

    def epoch() -> Iterator[Batch]:
        order = random.permutation(len(source.rows))
        builder = PipelineBuilder().add_source(
            order[first : first + source.batch] for first in range(0, len(order), source.batch)
        )
        builder = builder.pipe(gather, concurrency=source.workers).add_sink(2 * source.workers)
        pipeline = builder.build(num_threads=source.workers)
        with pipeline.auto_stop():
            yield from pipeline.get_iterator(timeout=60)

    return Rival(f"SPDL, npy: {stored}", epoch)


RIVALS: dict[str, tuple[str, Callable[[Source, Stored], Rival | None]]] = {
    "torch by event": ("torch", torch_by_event),
    "torch by batch": ("torch", torch_by_batch),
    "mosaicml-streaming": ("streaming", mosaic),
    "litdata": ("litdata", litdata),
    "webdataset": ("webdataset", webdataset),
    "grain": ("grain", grain),
    "spdl": ("spdl", spdl),
}
"""Name -> module that it needs, and what opens it."""


def open_rivals(rows: Rows, cells: Cells, folder: Path, batch: int, workers: int) -> Iterator[Rival | str]:
    """Yield all rivals that are installed, in both formats; of the others a note."""
    for name, (module, opener) in RIVALS.items():
        if importlib.util.find_spec(module) is None:
            yield f"{name} is not installed: left out"
            continue
        logging.getLogger(module).setLevel(logging.ERROR)
        for stored in ("dense", "cells"):
            place = folder / f"{name.replace(' ', '-')}-{stored}"
            place.mkdir(parents=True)
            source = Source(rows, cells, place, batch, workers)
            with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
                rival = opener(source, stored)  # type: ignore[arg-type]
            with suppress(OSError):
                place.rmdir()  # of those that read the .npy files
            if rival is not None:
                yield rival
