"""torch's DataLoader over h5py in the three usual ways: event by event, batch by batch, and blocks into a buffer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
import torch
import torch.utils.data
from numpy.typing import NDArray

from hepfeed.bench.feeds.events import EventSet, Rows
from hepfeed.bench.feeds.side import Feed, Side
from hepfeed.tensors import Batch, Jagged, concatenate, take

__all__ = ["SIDES", "TorchBatched", "TorchBlock", "TorchMap", "TorchMapHere"]

_CHUNK_CACHE = {"rdcc_nbytes": 16 << 20, "rdcc_nslots": 10_007}
"""h5py's advice: room for the chunks that are in use, and 10 to 100 slots for each; 16 MiB hold 196 chunks of 56 kB."""
_DATA = "https://pytorch.org/docs/stable/data.html"
_H5PY = "https://docs.h5py.org/en/stable/high/file.html#chunk-cache"
_BUFFER = 2048
"""Events of the shuffle buffer, as many as a window of hepfeed has."""


class _Files:
    """Files that each process opens for itself, and keeps open."""

    def __init__(self, events: EventSet) -> None:
        self.events = events
        self._open: dict[int, dict[str, h5py.Dataset]] = {}
        self._handles: list[h5py.File] = []

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_open": {}, "_handles": []}

    def read(self, number: int, start: int, stop: int) -> Rows:
        """Read events of a file."""
        source = self.events.sources[number]
        if number not in self._open:
            handle = h5py.File(source.path, "r", **_CHUNK_CACHE)
            self._handles.append(handle)
            self._open[number] = {column.dataset: handle[column.dataset] for column in source.columns.values()}
        return source.read(self._open[number], start, stop)


class _ByEvent(torch.utils.data.Dataset[Batch]):
    """An item is an event."""

    def __init__(self, events: EventSet) -> None:
        self.files = _Files(events)
        self.start = events.file_start
        self.label = events.file_labels

    def __len__(self) -> int:
        return int(self.start[-1])

    def __getitem__(self, index: int) -> Batch:
        file = int(np.searchsorted(self.start, index, side="right")) - 1
        row = index - int(self.start[file])
        rows = self.files.read(file, row, row + 1)
        event: Batch = {key: _first(value) for key, value in rows.items()}
        return {**event, "label": int(self.label[file]), "event": torch.tensor([file, row])}


def _first(value: Any) -> torch.Tensor:
    return torch.as_tensor(value.values if isinstance(value, Jagged) else value[0])


class _Collate:
    """torch's own collate function, and values with offsets for events of different lengths."""

    def __init__(self, jagged: frozenset[str]) -> None:
        self.jagged = jagged

    def __call__(self, events: list[Batch]) -> Batch:
        dense = [{key: value for key, value in event.items() if key not in self.jagged} for event in events]
        batch: Batch = torch.utils.data.default_collate(dense)
        for key in self.jagged:
            parts = [event[key] for event in events]
            lengths = torch.tensor([0, *map(len, parts)])
            batch[key] = Jagged(torch.cat(parts), lengths.cumsum(0))
        return batch


class _ByBatch(_ByEvent):
    """torch asks for all events of a batch at once: they are read file by file, in the order in which they lie."""

    def __getitems__(self, indices: list[int]) -> Batch:
        index = np.sort(np.array(indices))
        file = np.searchsorted(self.start, index, side="right") - 1
        row = index - self.start[file]
        breaks = np.flatnonzero((np.diff(file) != 0) | (np.diff(row) != 1)) + 1
        parts = [self._slice(file[run], row[run]) for run in np.split(np.arange(len(index)), breaks)]
        return _tensors(_joined(parts))

    def _slice(self, file: NDArray[np.int64], row: NDArray[np.int64]) -> Batch:
        rows = self.files.read(int(file[0]), int(row[0]), int(row[-1]) + 1)
        return {**rows, "label": self.label[file], "event": np.stack([file, row], axis=1)}


def _same(batch: Any) -> Any:
    """Collate what is a batch already."""
    return batch


class _Blocks(torch.utils.data.IterableDataset[Batch]):
    """Reads blocks of whole chunks in random order into a buffer, and draws batches from it.

    Each worker has its part of the blocks.  Half of the buffer stays to be mixed with what comes next.
    """

    def __init__(self, events: EventSet, batch_size: int, seed: int) -> None:
        self.files, self.events = _Files(events), events
        self.batch_size, self.seed, self.epoch = batch_size, seed, 0

    def __iter__(self) -> Iterator[Batch]:
        info = torch.utils.data.get_worker_info()
        part, parts = (info.id, info.num_workers) if info else (0, 1)
        blocks = np.random.default_rng((self.seed, self.epoch)).permutation(np.array(self._blocks()))[part::parts]
        random = np.random.default_rng((self.seed, self.epoch, part))
        self.epoch += 1
        held: list[Batch] = []
        count = 0
        for file, start, stop in blocks.tolist():
            where = np.stack([np.full(stop - start, file), np.arange(start, stop)], axis=1)
            label = np.full(stop - start, self.events.sources[file].label)
            held.append({**self.files.read(file, start, stop), "label": label, "event": where})
            count += stop - start
            if count >= _BUFFER:
                yield from self._drawn(held, random, count // 2 // self.batch_size * self.batch_size)
                count = sum(len(some["label"]) for some in held)
        yield from self._drawn(held, random, count)

    def _blocks(self) -> list[tuple[int, int, int]]:
        """File, first row and last of each block; small blocks that follow one another are joined."""
        found = []
        for number, source in enumerate(self.events.sources):
            step = source.block * max(1, self.batch_size // source.block)
            found += [(number, at, min(at + step, source.events)) for at in range(0, source.events, step)]
        return found

    def _drawn(self, held: list[Batch], random: np.random.Generator, usable: int) -> Iterator[Batch]:
        """Yield batches of so many events of what is held, and keep the others."""
        if not held:
            return
        whole = _joined(held)
        order = random.permutation(len(whole["label"]))
        for first in range(0, usable, self.batch_size):
            yield _tensors(_taken(whole, order[first : min(first + self.batch_size, usable)]))
        held[:] = [_taken(whole, order[usable:])]


def _joined(parts: list[Batch]) -> Batch:
    return {key: concatenate([part[key] for part in parts]) for key in parts[0]}


def _taken(batch: Batch, events: NDArray[np.int64]) -> Batch:
    return {key: take(value, events) for key, value in batch.items()}


def _tensors(batch: Batch) -> Batch:
    return {
        key: value.map(torch.from_numpy) if isinstance(value, Jagged) else torch.from_numpy(value)
        for key, value in batch.items()
    }


class _Feed(Feed):
    """Epochs of a DataLoader, whose samplers and datasets shuffle each anew."""

    def __init__(self, loader: torch.utils.data.DataLoader[Any]) -> None:
        self._loader: torch.utils.data.DataLoader[Any] | None = loader

    def epoch(self, number: int) -> Iterator[Batch]:
        assert self._loader is not None, "the feed is closed"
        yield from self._loader

    def close(self) -> None:
        self._loader = None  # its workers end with it


class TorchMap(Side):
    """A map-style dataset that keeps its files open and reads event by event, fully shuffled."""

    name = "torch-map"
    title = "torch DataLoader, map-style"
    settings: ClassVar[dict[str, Any]] = {"shuffle": True, "persistent_workers": True, **_CHUNK_CACHE}
    advice = f"{_DATA} {_H5PY}"

    def open(self, events: EventSet, folder: Path, workers: int, batch_size: int, seed: int) -> Feed:
        """Open a loader."""
        torch.manual_seed(seed)
        dataset, collate = self._reading(events)
        loader = torch.utils.data.DataLoader(
            dataset,
            batch_size,
            shuffle=True,
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=collate,
        )
        return _Feed(loader)

    def held(self, events: EventSet) -> float:
        """Return the part of the events that lies in the chunk caches of files that stay open."""
        return events.in_chunk_caches(_CHUNK_CACHE["rdcc_nbytes"])

    def _reading(self, events: EventSet) -> tuple[Any, Any]:
        """Return the dataset and its collate function; None for torch's own."""
        return _ByEvent(events), _Collate(events.jagged) if events.jagged else None


class TorchMapHere(TorchMap):
    """The same without workers."""

    name = "torch-map-0"
    title = "torch DataLoader, map-style, 0 workers"
    settings: ClassVar[dict[str, Any]] = {"shuffle": True, **_CHUNK_CACHE}
    versus = "hepfeed-0"

    def open(self, events: EventSet, folder: Path, workers: int, batch_size: int, seed: int) -> Feed:
        """Open a loader."""
        return super().open(events, folder, 0, batch_size, seed)


class TorchBatched(TorchMap):
    """A map-style dataset with ``__getitems__``, which reads the events of a batch in the order in which they lie."""

    name = "torch-batched"
    title = "torch DataLoader, __getitems__"

    def _reading(self, events: EventSet) -> tuple[Any, Any]:
        return _ByBatch(events), _same


class TorchBlock(Side):
    """An iterable dataset that reads blocks of whole chunks into a shuffle buffer, and makes the batches itself."""

    name = "torch-block"
    title = "torch DataLoader, block buffer"
    settings: ClassVar[dict[str, Any]] = {
        "buffer": _BUFFER,
        "batch_size": None,
        "prefetch_factor": 4,
        "persistent_workers": True,
    }
    advice = f"{_DATA}#disable-automatic-batching"

    def open(self, events: EventSet, folder: Path, workers: int, batch_size: int, seed: int) -> Feed:
        """Open a loader."""
        loader = torch.utils.data.DataLoader(
            _Blocks(events, batch_size, seed),
            batch_size=None,
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            persistent_workers=workers > 0,
        )
        return _Feed(loader)


SIDES: tuple[Side, ...] = (TorchMap(), TorchBatched(), TorchBlock(), TorchMapHere())
