"""``H5Reader`` of atlas-ftag-tools, with which ATLAS' flavour tagging reads its tables."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hepfeed.bench.feeds.events import EventSet
from hepfeed.bench.feeds.side import Feed, Side
from hepfeed.tensors import Batch

__all__ = ["SIDES", "Ftag"]

_NUMBER = "number"
_READ = 2048
"""Events of a read, as many as a window of hepfeed has; it takes a share of each file, and shuffles them."""


class _Feed(Feed):
    def __init__(self, events: EventSet, batch_size: int, seed: int) -> None:
        reader = importlib.import_module("ftag.hdf5").H5Reader
        self._events, self._batch_size = events, batch_size
        self._reader = reader(events.files, batch_size=max(_READ, batch_size), shuffle=True)
        for number, one in enumerate((self._reader, *self._reader.readers)):  # all begin with the seed 42
            one.rng = np.random.default_rng((seed, number))
        self._columns = events.sources[0].columns
        self._variables: dict[str, list[str]] = {}
        for column in self._columns.values():
            fields = self._variables.setdefault(column.dataset, [])
            fields += [name for name in column.fields if name not in fields]

    def epoch(self, number: int) -> Iterator[Batch]:
        variables = {name: list(fields) for name, fields in self._variables.items()}
        for tables in self._reader.stream(variables):
            rows = {key: column.apply(tables[column.dataset]) for key, column in self._columns.items()}
            where = self._events.place(np.asarray(rows[_NUMBER], np.int64))
            rows |= {"label": self._events.file_labels[where[:, 0]], "event": where}
            for first in range(0, len(where), self._batch_size):
                yield {key: value[first : first + self._batch_size] for key, value in rows.items()}

    def close(self) -> None:
        self._reader = None


class Ftag(Side):
    """Reads a share of each file, shuffles them, and batches are slices of that, in one thread."""

    name = "ftag"
    title = "ftag H5Reader"
    package = "atlas-ftag-tools"
    settings: ClassVar[dict[str, Any]] = {"batch_size": _READ, "shuffle": True, "equal_global_objects": False}
    advice = "https://umami-hep.github.io/atlas-ftag-tools/main/examples/index.html"

    def takes(self, events: EventSet) -> str | None:
        """Tables with a row a jet, one of them ``jets``, that number their events."""
        columns = [column for source in events.sources for column in source.columns.values()]
        if any(not column.fields or column.rows or column.items for column in columns):
            return "it reads fields of compound tables with a row a jet"
        if not any(column.dataset == "jets" for column in columns):
            return 'it needs a table "jets"'
        return super().takes(events) or unnumbered(events)

    def open(self, events: EventSet, folder: Path, workers: int, batch_size: int, seed: int) -> Feed:
        """Open a reader."""
        return _Feed(events, batch_size, seed)


def unnumbered(events: EventSet) -> str | None:
    """Return why a library that delivers no places of events can't be checked; None where the events are numbered."""
    if _NUMBER not in events.keys or not _counts(events):
        return f"its events can't be told: the set needs a key {_NUMBER!r} that counts them file after file"
    return None


def _counts(events: EventSet) -> bool:
    found: list[NDArray[Any]] = [rows[_NUMBER] for _, _, rows in events.blocks()]
    return np.array_equal(np.concatenate(found), np.arange(len(events)))


SIDES: tuple[Side, ...] = (Ftag(),)
