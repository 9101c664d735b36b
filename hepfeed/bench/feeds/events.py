"""A set of events in HDF5 files, and how its events are read with h5py alone: what every feed must deliver."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hepfeed.columns import Column, Extents
from hepfeed.index import EventIndex
from hepfeed.spec import SampleSpec
from hepfeed.tensors import Jagged

__all__ = ["EventFile", "EventSet", "Rows"]

_CHUNK_CACHE_BYTES = 64 << 20

Rows = dict[str, Any]
"""Key -> array ``(B, *shape)``, or :class:`~hepfeed.tensors.Jagged` of arrays."""


@dataclass(frozen=True)
class EventFile:
    """A file of events.

    Attributes:
        path: Absolute.
        events: Number of events.
        label: Class number of all of them.
        columns: Key -> which part of which data set it is.
        extents: Key -> rows of each event, where an event is not a row.
        block: Events that share chunks.
    """

    path: str
    events: int
    label: int
    columns: dict[str, Column]
    extents: dict[str, Extents]
    block: int

    def read(self, file: Mapping[str, h5py.Dataset], start: int, stop: int) -> Rows:
        """Read events ``start:stop`` with h5py, each data set once.

        Args:
            file: The open file, or its data sets by their paths.
            start: First event.
            stop: One after the last.
        """
        stored: dict[tuple[str, str], NDArray[Any]] = {}
        found: Rows = {}
        for key, column in self.columns.items():
            where = column.dataset, column.rows
            if where not in stored:
                stored[where] = self._stored(file[column.dataset], key, start, stop)
            rows = stored[where]
            if column.variable:
                lengths = np.array([len(item) for item in rows], np.int64)
                values = np.concatenate([column.apply(item) for item in rows])
                found[key] = Jagged(_native(values), _offsets(lengths))
            elif column.jagged:
                found[key] = Jagged(_native(column.apply(rows)), _offsets(self.extents[key].count[start:stop]))
            else:
                found[key] = _native(column.apply(rows))
        return found

    def _stored(self, dataset: h5py.Dataset, key: str, start: int, stop: int) -> NDArray[Any]:
        """Rows of some events as they are stored."""
        if self.columns[key].variable or key not in self.extents:
            rows: NDArray[Any] = dataset[start:stop]
            return rows
        first, count = self.extents[key].start[start:stop], self.extents[key].count[start:stop]
        if np.array_equal(first[1:], first[:-1] + count[:-1]):
            rows = dataset[first[0] : first[-1] + count[-1]]
            return rows
        return np.concatenate([dataset[one : one + many] for one, many in zip(first, count)])


@dataclass(frozen=True)
class EventSet:
    """Events that all sides deliver.  It pickles, and holds no open file.

    Attributes:
        name: As in ``--inputs``.
        title: For tables.
        spec: What hepfeed reads them by: all events of the files, as they are stored.
        sources: The files, class by class, in the order of ``"event"``.
        classes: Names of the classes, by their numbers.
        shapes: Key -> dtype and shape of an event; of a jagged key, of one row of it.
        jagged: Keys whose events differ in their number of rows.
        event_bytes: Bytes of an event in a batch, on the average.
        prepared: Sides read what they have written in formats of their own, and not the files.
        sparse: Most cells are 0, so that storing only the others is worth it.
    """

    name: str
    title: str
    spec: SampleSpec
    sources: tuple[EventFile, ...]
    classes: tuple[str, ...]
    shapes: dict[str, tuple[np.dtype[Any], tuple[int, ...]]]
    jagged: frozenset[str]
    event_bytes: int
    prepared: bool = False
    sparse: bool = False

    @classmethod
    def of(cls, name: str, title: str, spec: SampleSpec, *, prepared: bool = False, sparse: bool = False) -> EventSet:
        """Find out what the files of a specification hold.

        Filters, targets, weights, types and steps of the specification are left out: the events are fed as stored.

        Raises:
            SpecError: Specification and files do not fit.
            SourceError: A file can't be read.
        """
        entries = [{**sample.entry(), "files": sample.files, "filter": None} for sample in spec.samples]
        plain = SampleSpec(entries, classes=spec.classes)
        index = EventIndex(plain)
        sources = []
        for source, label in zip(index.sources, index.file_class.tolist()):
            columns = {key.name: source.column(key.name) for key in index.keys}
            extents = {key: found for key in columns if (found := source.extents(key)) is not None}
            sources.append(EventFile(source.path, source.events, label, columns, extents, source.block))
        return cls(
            name=name,
            title=title,
            spec=plain,
            sources=tuple(sources),
            classes=tuple(str(label) for label in sorted(plain.classes, key=plain.classes.__getitem__)),
            shapes={key.name: (key.dtype, key.shape) for key in index.keys},
            jagged=frozenset(key.name for key in index.keys if key.rows),
            event_bytes=index.event_bytes,
            prepared=prepared,
            sparse=sparse,
        )

    def __len__(self) -> int:
        return sum(self.file_events)

    @property
    def files(self) -> list[str]:
        """Paths; ``batch["event"][:, 0]`` counts in this list."""
        return [source.path for source in self.sources]

    @property
    def file_events(self) -> list[int]:
        """Events of each file."""
        return [source.events for source in self.sources]

    @property
    def keys(self) -> list[str]:
        """Of a batch, beside ``"label"`` and ``"event"``."""
        return list(self.shapes)

    @cached_property
    def file_start(self) -> NDArray[np.int64]:
        """``(files + 1,)``: file f has the events ``file_start[f]:file_start[f + 1]`` of all that there are."""
        return np.cumsum([0, *self.file_events], dtype=np.int64)

    @cached_property
    def file_labels(self) -> NDArray[np.int64]:
        """``(files,)`` class number of the events of each file."""
        return np.array([source.label for source in self.sources], np.int64)

    def place(self, number: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return file and row, ``(B, 2)``, of events that are numbered file after file."""
        file = np.searchsorted(self.file_start, number, side="right") - 1
        return np.stack([file, number - self.file_start[file]], axis=1)

    def in_chunk_caches(self, cache_bytes: int) -> float:
        """Return the part of all chunked bytes that HDF5 needs to read once only.

        Chunks that are inflated stay in the cache of their data set while its file is open, where all of them fit.

        Args:
            cache_bytes: Of the chunk cache of each data set.
        """
        total = held = 0
        for source in self.sources:
            with h5py.File(source.path, "r") as file:
                for dataset in {column.dataset: file[column.dataset] for column in source.columns.values()}.values():
                    if dataset.chunks is None:
                        continue
                    chunks = [-(-length // chunk) for length, chunk in zip(dataset.shape, dataset.chunks)]
                    size = math.prod(chunks) * math.prod(dataset.chunks) * dataset.dtype.itemsize
                    total += size
                    held += size if size <= cache_bytes else 0
        return held / total if total else 0.0

    def blocks(self, events: int = 500) -> Iterator[tuple[int, int, Rows]]:
        """Read all events in the order of the files with h5py: yields (file, first row, some events)."""
        for number, source in enumerate(self.sources):
            with h5py.File(source.path, "r", rdcc_nbytes=_CHUNK_CACHE_BYTES) as file:
                for first in range(0, source.events, events):
                    yield number, first, source.read(file, first, min(first + events, source.events))


def _native(values: NDArray[Any]) -> NDArray[Any]:
    """The same in the machine's byte order."""
    return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))


def _offsets(counts: NDArray[Any]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
