"""A gather of rows from memory maps in the consumer itself: the least that delivers shuffled events of plain files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
from numpy.typing import NDArray

from hepfeed.bench.feeds.events import EventSet
from hepfeed.bench.feeds.side import Feed, Side
from hepfeed.tensors import Batch

__all__ = ["SIDES", "Gather"]


class _Feed(Feed):
    def __init__(self, events: EventSet, batch_size: int, seed: int) -> None:
        self._events, self._batch_size, self._seed = events, batch_size, seed
        self._maps: list[dict[str, NDArray[Any]]] = []
        for source in events.sources:
            with h5py.File(source.path) as file:
                nodes = {key: file[column.dataset] for key, column in source.columns.items()}
                where = {key: (node.id.get_offset(), node.dtype, node.shape) for key, node in nodes.items()}
            self._maps.append({key: np.memmap(source.path, d, "r", at, shape) for key, (at, d, shape) in where.items()})
        self._batch: Batch = {
            key: np.empty((batch_size, *shape), dtype) for key, (dtype, shape) in events.shapes.items()
        }

    def epoch(self, number: int) -> Iterator[Batch]:
        events = self._events
        order = np.random.default_rng((self._seed, number)).permutation(len(events))
        for first in range(0, len(order), self._batch_size):
            where = events.place(order[first : first + self._batch_size])
            for key, target in self._batch.items():
                for place, (file, row) in enumerate(where.tolist()):
                    target[place] = self._maps[file][key][row]
            batch = {key: target[: len(where)] for key, target in self._batch.items()}
            yield {**batch, "label": events.file_labels[where[:, 0]], "event": where}

    def close(self) -> None:
        self._maps.clear()


class Gather(Side):
    """Row by row from memory maps into one batch that is used again and again, in one thread."""

    name = "gather"
    title = "gather from memory maps, 1 thread"
    settings: ClassVar[dict[str, Any]] = {"threads": 1}
    advice = "https://numpy.org/doc/stable/reference/generated/numpy.memmap.html"

    def takes(self, events: EventSet) -> str | None:
        """Only what lies in the files as it is delivered."""
        for source in events.sources:
            with h5py.File(source.path) as file:
                for key, column in source.columns.items():
                    node = file[column.dataset]
                    if node.chunks is not None or not column.plain or column.rows or not node.dtype.isnative:
                        return f"{key} is not stored as it is delivered: only contiguous data sets can be mapped"
        return super().takes(events)

    def open(self, events: EventSet, folder: Path, workers: int, batch_size: int, seed: int) -> Feed:
        """Map the files."""
        return _Feed(events, batch_size, seed)


SIDES: tuple[Side, ...] = (Gather(),)
