"""Other ways to read the same events, each tuned as its documentation advises."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
import torch
import torch.utils.data
from numpy.typing import NDArray

Batch = dict[str, torch.Tensor]


class MapStyle(torch.utils.data.Dataset[Batch]):
    """The usual map-style dataset: open files are kept, each event is one slice of each key."""

    def __init__(self, files: list[str], events: int, keys: list[str], classes: int) -> None:
        self.files, self.events, self.keys = files, events, keys
        self.per_class = len(files) // classes
        self._open: dict[int, h5py.File] = {}

    def __len__(self) -> int:
        return len(self.files) * self.events

    def __getitem__(self, index: int) -> Batch:
        file, row = divmod(index, self.events)
        if file not in self._open:
            self._open[file] = h5py.File(self.files[file], "r", rdcc_nbytes=16 << 20)
        event = {key: torch.as_tensor(self._open[file][key][row]) for key in self.keys}
        return {**event, "label": torch.tensor(file // self.per_class), "event": torch.tensor([file, row])}


class BlockBuffer(torch.utils.data.IterableDataset[Batch]):
    """Reads blocks of whole chunks in random order into a buffer, and draws batches from it.

    Each worker has its part of the blocks.  Batches leave the worker whole (``batch_size=None``), which is what makes
    this the fastest of the usual ways.
    """

    def __init__(
        self,
        files: list[str],
        events: int,
        keys: list[str],
        classes: int,
        block: int,
        buffer: int,
        batch: int,
    ) -> None:
        self.files, self.events, self.keys, self.per_class = files, events, keys, len(files) // classes
        self.block, self.buffer, self.batch = block, buffer, batch
        self.epoch = 0

    def __iter__(self) -> Iterator[Batch]:
        info = torch.utils.data.get_worker_info()
        part, parts = (info.id, info.num_workers) if info else (0, 1)
        random = np.random.default_rng(self.epoch)
        blocks = [(f, r) for f in range(len(self.files)) for r in range(0, self.events, self.block)]
        mine = [blocks[i] for i in random.permutation(len(blocks))][part::parts]
        held: dict[str, list[NDArray[Any]]] = {}
        count = 0
        handles = {f: h5py.File(self.files[f], "r") for f, _ in mine}
        for file, row in mine:
            stop = min(row + self.block, self.events)
            for key in self.keys:
                held.setdefault(key, []).append(handles[file][key][row:stop])
            where = np.stack([np.full(stop - row, file), np.arange(row, stop)], 1)
            held.setdefault("event", []).append(where)
            count += stop - row
            if count >= self.buffer:
                yield from self._batches(held, random, whole=False)
                count = len(held["event"][0]) if held["event"] else 0
        yield from self._batches(held, random, whole=True)

    def _batches(
        self, held: dict[str, list[NDArray[Any]]], random: np.random.Generator, whole: bool
    ) -> Iterator[Batch]:
        columns = {key: np.concatenate(parts) for key, parts in held.items()}
        order = random.permutation(len(columns["event"]))
        usable = len(order) if whole else len(order) // 2 // self.batch * self.batch  # half stays to be mixed again
        for first in range(0, usable, self.batch):
            rows = order[first : min(first + self.batch, usable)]
            batch = {key: torch.from_numpy(column[rows]) for key, column in columns.items()}
            batch["label"] = batch["event"][:, 0] // self.per_class
            yield batch
        for key, column in columns.items():
            held[key] = [column[order[usable:]]]


def memmap_gather(files: list[str], events: int, keys: list[str], batch: int, seconds: float) -> float:
    """Events/s of a NumPy gather: row by row from memory maps into a preallocated batch, in one thread."""
    maps: list[list[NDArray[Any]]] = []
    for path in files:
        with h5py.File(path) as file:
            offsets = [(file[key].id.get_offset(), file[key].dtype, file[key].shape) for key in keys]
        maps.append([np.memmap(path, dtype, "r", offset, shape) for offset, dtype, shape in offsets])
    out = [np.empty((batch, *column.shape[1:]), column.dtype) for column in maps[0]]
    random = np.random.default_rng(0)
    order = random.permutation(len(files) * events)

    def gather(first: int) -> None:
        for place, index in enumerate(order[first : first + batch].tolist()):
            file, row = divmod(index, events)
            for target, source in zip(out, maps[file]):
                target[place] = source[row]

    whole = len(order) // batch * batch
    for first in range(0, whole, batch):  # maps the pages
        gather(first)
    done, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        gather(done % whole)
        done += batch
    return done / (time.perf_counter() - begun)
