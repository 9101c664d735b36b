"""Some events of each class, in memory, which are written to small files in any form."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hepfeed import hdf5
from hepfeed.check.forms import Form, chunk_of
from hepfeed.columns import Column
from hepfeed.errors import SpecError
from hepfeed.hdf5 import DatasetInfo
from hepfeed.index import EventIndex, Group, Source
from hepfeed.pipeline import Pipeline
from hepfeed.prediction import amplification, tail
from hepfeed.spec import SampleSpec

__all__ = ["Excerpt", "heavy_datasets"]

Ints = NDArray[np.int64]
_MOST_CLASSES = 4
_SMALL_PART = 16  # a data set with a smaller part of the bytes does not matter for the cost


@dataclass
class _Piece:
    """Events of one file.

    Attributes:
        label: Of them.
        events: How many.
        rows: Path of a data set -> rows that the events have in it.
        offsets: Name of extents -> ``(events + 1,)`` where each event begins in its data sets.
    """

    label: str | int
    events: int
    rows: dict[str, NDArray[Any]] = field(default_factory=dict)
    offsets: dict[str, Ints] = field(default_factory=dict)


class Excerpt:
    """The first events of the first files of a few classes, as they are stored.

    Args:
        index: The events.
        events: Of each class, where its first file has so many.

    Attributes:
        heavy: Data sets of the first file that matter for the cost, the largest first.

    Raises:
        SpecError: A key is stored in a way that can't be written again so.
        HepfeedError: Its events can't be read.
    """

    def __init__(self, index: EventIndex, events: int) -> None:
        self._spec, self._index = index.spec, index
        self._columns = {name: index.sources[0].column(name) for name in index.spec.names}
        for name, column in self._columns.items():
            if column.variable or column.unravel or (column.fields and column.items):
                raise SpecError(f"key {name!r} is stored in a way that is not written again here", key=name)
        self.heavy = heavy_datasets(index)
        self._infos = {info.key: info for info in map(index.sources[0].dataset, index.spec.names)}
        jagged = [column.rows for column in self._columns.values() if column.jagged]
        self._tables = {rows: f"rows{number}" for number, rows in enumerate(dict.fromkeys(jagged))}
        self._pieces = [self._piece(group, events) for group in index.groups[:_MOST_CLASSES]]

    @property
    def events(self) -> int:
        """How many there are."""
        return sum(piece.events for piece in self._pieces)

    @property
    def event_bytes(self) -> float:
        """Bytes of an event, as stored types."""
        return sum(rows.nbytes for piece in self._pieces for rows in piece.rows.values()) / self.events

    def occupancy(self, dataset: str) -> float:
        """Return the part of the items of a data set that is not 0."""
        parts = [piece.rows[dataset] for piece in self._pieces]
        return sum(int(np.count_nonzero(part)) for part in parts) / max(1, sum(part.size for part in parts))

    def write(
        self, folder: Path, form: Form, steps: Pipeline | None = None, copies: int = 1, linked: bool = True
    ) -> SampleSpec:
        """Write a file for each class into a new folder; returns the specification that reads them.

        Of data sets in chunks whole chunks are written, as far as the events suffice: what a last one costs that is
        not full is for :func:`hepfeed.prediction.tail` to say.

        Args:
            folder: It is made.
            form: Of the data sets that matter; the others are contiguous.
            steps: Of the specification.
            copies: Names that each file gets, so that the specification has so many times the events.
            linked: All names of a file share its bytes, where the file system allows it; else each has its own.
        """
        folder.mkdir(parents=True)
        entries = []
        for number, piece in enumerate(self._pieces):
            events = self._whole(piece, form)
            path = folder / f"{number}.h5"
            self._write(path, piece, events, form)
            paths = [str(path), *(_second_name(path, copy, linked) for copy in range(1, copies))]
            keys = {name: (self._spelling(column),) for name, column in self._columns.items()}
            rules = {table: {"offsets": f"offsets/{table}"} for table in self._tables.values()}
            layout: Any = {"rows": rules} if rules else "dense"
            entries.append({"files": paths, "keys": keys, "label": piece.label, "layout": layout})
        return SampleSpec(entries, classes=self._spec.classes, dtypes=self._spec.dtypes, transforms=steps)

    def surplus(self, form: Form) -> float:
        """Return how many events all files have room for in their chunks, over how many :meth:`write` decodes.

        Both are for each event that is delivered; events that the filter leaves out are decoded with the others.
        """
        chunk = self._chunk(form)
        if chunk <= 1:
            return 1.0
        files = [source.events for source in self._index.sources]
        room = sum(tail(events, chunk) * events for events in files) / sum(files)
        filtered = amplification(len(self._index) / sum(files), chunk)
        ours = [self._whole(piece, form) for piece in self._pieces]
        return room * filtered / (sum(tail(events, chunk) * events for events in ours) / sum(ours))

    def _chunk(self, form: Form) -> int:
        """Return the events that share a chunk of the largest data set, where each row is an event."""
        chunk = () if self._tables else chunk_of(form, self.heavy[0])
        return chunk[0] if chunk else 1

    def _whole(self, piece: _Piece, form: Form) -> int:
        chunk = self._chunk(form)
        return piece.events // chunk * chunk or piece.events

    def _piece(self, group: Group, events: int) -> _Piece:
        index = self._index
        file = int(index.file_of(np.array([group.start]))[0])
        source = index.sources[file]
        stop = min(int(index.file_start[file + 1]), group.start + events)
        chosen = index.rows[group.start : stop]
        piece = _Piece(group.label, len(chosen))
        for name in index.spec.names:
            self._take(piece, source, name, chosen)
        return piece

    def _take(self, piece: _Piece, source: Source, name: str, chosen: Ints) -> None:
        """Read the rows of a key's data set."""
        ours, dataset, extents = self._columns[name], source.dataset(name), source.extents(name)
        if ours.dataset in piece.rows:
            return
        rows = chosen
        if extents is not None:
            start, count = extents.start[chosen], extents.count[chosen]
            offsets = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
            rows = np.arange(int(offsets[-1])) + np.repeat(start - offsets[:-1], count)
            if ours.jagged:
                piece.offsets[self._tables[ours.rows]] = offsets
        order = np.argsort(rows, kind="stable")
        values, _ = hdf5.read_rows(source.path, dataset.key, rows[order])
        piece.rows[ours.dataset] = values[np.argsort(order)]

    def _write(self, path: Path, piece: _Piece, events: int, form: Form) -> None:
        heavy = {info.key for info in self.heavy}
        with h5py.File(path, "w") as file:
            for column in {column.dataset: column for column in self._columns.values()}.values():
                stop = int(piece.offsets[self._tables[column.rows]][events]) if column.jagged else events
                rows = piece.rows[column.dataset][:stop]
                options = form.options(self._infos[column.dataset]) if column.dataset in heavy else {}
                if options:  # a chunk may be larger than the little that is written
                    options["maxshape"] = (None, *rows.shape[1:])
                file.create_dataset(self._place(column), data=rows, **options)
            for table, offsets in piece.offsets.items():
                file[f"offsets/{table}"] = offsets[: events + 1]

    def _place(self, column: Column) -> str:
        return f"{self._tables[column.rows] if column.jagged else 'dense'}/{column.dataset}"

    def _spelling(self, column: Column) -> str:
        part = ", ".join(column.fields) or column.items
        return f"{self._place(column)}[{part}]" if part else self._place(column)


def _second_name(path: Path, number: int, linked: bool) -> str:
    """Give a file another name, or a copy where that is wanted or the file system has no such names."""
    other = path.with_name(f"{path.stem}-{number}.h5")
    if linked:
        with contextlib.suppress(OSError):
            os.link(path, other)
            return str(other)
    shutil.copyfile(path, other)
    return str(other)


def heavy_datasets(index: EventIndex) -> list[DatasetInfo]:
    """Return the data sets of the first file that matter for the cost of reading, the largest first."""
    source = index.sources[0]
    infos = {info.key: info for info in map(source.dataset, index.spec.names)}
    sizes = {key: info.events * info.event_bytes for key, info in infos.items()}
    total = sum(sizes.values())
    heavy = [infos[key] for key, size in sizes.items() if size * _SMALL_PART >= total]
    return sorted(heavy, key=lambda info: -sizes[info.key])
