"""The events of a specification as a map-style dataset over h5py, as one writes it for torch's ``DataLoader``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
import torch.utils.data

from hepfeed.batch_spec import BatchSpec
from hepfeed.bench.feeds.events import EventFile
from hepfeed.dataset import EventDataset
from hepfeed.draws import Draws
from hepfeed.filler import Filler
from hepfeed.tensors import Batch, Structured, concatenate

__all__ = ["H5pyEvents", "SameBatches", "places_of"]

_MOST_OPEN = 200
_CHUNK_BYTES, _MOST_CHUNK_BYTES = 16 << 20, 1 << 30
"""Of HDF5's cache of inflated chunks: for each data set, and for all in a process."""
_LARGE_BYTES = 1 << 20
"""What data sets that are smaller leave unused of a cache needs no room."""
_CHUNK_SLOTS = 10_007
"""h5py advises a prime number of 10 to 100 for each chunk that there is room for."""

Place = tuple[int, int, int]
"""Epoch, number of the batch, and place of the event in the dataset."""


class H5pyEvents(torch.utils.data.Dataset[Any]):
    """Reads event by event; a batch gets hepfeed's steps once it is collated.

    So batches are those of hepfeed bit for bit, whatever the specification asks for: filters, targets, steps that draw
    random numbers, weights.  Steps that work on a whole batch cost less that way than event by event.  Files and data
    sets stay open, with chunk caches as h5py advises.

    Args:
        dataset: Whose events.
        seed: Of the loader, for steps that draw random numbers.

    Attributes:
        chunk_bytes: Of HDF5's cache of inflated chunks, for each data set of an open file.
    """

    def __init__(self, dataset: EventDataset, seed: int) -> None:
        index = dataset.index
        self._rows, self._weights, self._seed = index.rows, index.weights, seed
        self._file = index.file_of(np.arange(len(index)))
        self._pipeline = dataset.pipeline
        self._dtypes = {key.name: key.dtype for key in index.keys}
        self._sources = []
        for source, label in zip(index.sources, index.file_class.tolist()):
            columns = {name: source.column(name) for name in self._dtypes}
            extents = {name: found for name in columns if (found := source.extents(name)) is not None}
            self._sources.append(EventFile(source.path, source.events, label, columns, extents, source.block))
        self._open: dict[int, tuple[h5py.File, dict[str, h5py.Dataset]]] = {}
        most = _MOST_CHUNK_BYTES // (_large(self._sources[0]) * min(_MOST_OPEN, len(self._sources)))
        self.chunk_bytes = min(_CHUNK_BYTES, max(_LARGE_BYTES, most))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: Place) -> tuple[Place, Batch]:
        number, row = int(self._file[place[2]]), int(self._rows[place[2]])
        source = self._sources[number]
        if number not in self._open:
            if len(self._open) >= _MOST_OPEN:
                self._open.pop(next(iter(self._open)))[0].close()
            file = h5py.File(source.path, "r", rdcc_nbytes=self.chunk_bytes, rdcc_nslots=_CHUNK_SLOTS)
            # A data set that is closed loses its chunk cache.
            self._open[number] = file, {column.dataset: file[column.dataset] for column in source.columns.values()}
        values = source.read(self._open[number][1], row, row + 1)
        values["label"], values["event"] = np.array([source.label]), np.array([[number, row]])
        return place, values

    def collate(self, events: list[tuple[Place, Batch]]) -> Batch:
        """Return the batch that hepfeed makes of the same events, with torch tensors."""
        (epoch, number, _), first = events[0]
        batch = {name: self._cast(name, concatenate([event[name] for _, event in events])) for name in first}
        if self._weights is not None:
            batch["weight"] = self._weights[[place for (_, _, place), _ in events]]
        if len(self._pipeline):
            batch = self._pipeline(batch, Draws(self._seed, epoch, number, batch["event"]))
        return {name: v.map(torch.as_tensor) if isinstance(v, Structured) else _tensor(v) for name, v in batch.items()}

    def _cast(self, name: str, values: Any) -> Any:
        if name not in self._dtypes:
            return values
        dtype = self._dtypes[name]
        if isinstance(values, Structured):
            return values.with_arrays(
                {**values.arrays(), "values": values.arrays()["values"].astype(dtype, copy=False)}
            )
        return values.astype(dtype, copy=False)

    def batch(self, spec: BatchSpec) -> Batch:
        """Read a batch in this process."""
        return self.collate([self[place] for place in places_of(spec)])

    def close(self) -> None:
        """Close the files that this process opened."""
        for file, _ in self._open.values():
            file.close()
        self._open.clear()


class SameBatches(torch.utils.data.Sampler[list[Place]]):
    """The batches of a filler, epoch after epoch, for the argument ``batch_sampler``.

    Args:
        filler: Decides which events make each batch.
        epoch: With which it begins.
    """

    def __init__(self, filler: Filler, epoch: int) -> None:
        self._filler = filler
        self._epoch = epoch

    def __iter__(self) -> Iterator[list[Place]]:
        epoch, self._epoch = self._epoch, self._epoch + 1  # with the first batch: torch makes iterators it never uses
        yield from map(places_of, self._filler.batches(epoch))

    def __len__(self) -> int:
        return self._filler.batches_in(self._epoch)


def places_of(spec: BatchSpec) -> list[Place]:
    """Return what :class:`H5pyEvents` reads for a batch of a filler."""
    assert spec.event is not None, "fillers say where the events are"
    return [(spec.epoch, spec.index, event) for event in spec.event.tolist()]


def _tensor(values: Any) -> torch.Tensor:
    return torch.as_tensor(np.ascontiguousarray(values))


def _large(source: EventFile) -> int:
    """Return how many of its data sets can fill a cache; 1 at least."""
    with h5py.File(source.path, "r") as file:
        sizes = [file[name].nbytes for name in {column.dataset for column in source.columns.values()}]
    return max(1, sum(1 for size in sizes if size > _LARGE_BYTES))
