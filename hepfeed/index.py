"""All events that a specification names: which files, which rows, of what shape, in which class."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hepfeed import hdf5, selection
from hepfeed.errors import HepfeedError, KeyMissingError, SpecError, nearest
from hepfeed.hdf5 import ChunkTable, DatasetInfo, FileInfo, SourceTable
from hepfeed.progress import Progress
from hepfeed.spec import Sample, SampleSpec
from hepfeed.splits import Splits
from hepfeed.store import IndexStore, describe_files, load_tables

__all__ = ["EventIndex", "Group", "KeyInfo", "OnError", "Source"]

OnError = Literal["raise", "skip"]
_LIBRARY_BLOCK = 64  # events that h5py reads together where a data set has no chunks of its own
_logger = logging.getLogger("hepfeed")


@dataclass(frozen=True)
class KeyInfo:
    """A key as it is delivered: dtype in the machine's byte order, and the shape of one event."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def event_bytes(self) -> int:
        """Bytes of one delivered event."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


@dataclass(frozen=True)
class Source:
    """One file of the specification.

    Attributes:
        info: The file.
        keys: Batch name -> path of the data set in this file.
        events: Events in the file, before filter and split.
        block: Events that are cheapest to read together, because they share chunks.
    """

    info: FileInfo
    keys: dict[str, str]
    events: int
    block: int

    @property
    def path(self) -> str:
        """Absolute path."""
        return self.info.path

    def dataset(self, name: str) -> DatasetInfo:
        """Return the data set that a batch name stands for."""
        return self.info.datasets[self.keys[name]]


@dataclass(frozen=True)
class Group:
    """Events that are drawn with one rate: those of a sample, or of one file where rates are given per file.

    Attributes:
        label: As in the specification.
        class_index: Its number.
        rate: Relative number of events, or None for "as many as there are".
        start: First of its events, counted over the whole index.
        stop: One after the last.
    """

    label: str | int
    class_index: int
    rate: float | None
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


class EventIndex:
    """The events of a specification after filter and split.

    Everything that can be wrong with the files is found here, before the first batch.

    Args:
        spec: The specification.
        splits: How to divide the events; None for one undivided set.
        split: Which part of ``splits`` this is.
        store: The index file; by default the user's own.
        workers: Processes that open files and filter; by default the number of processors.
        on_error: ``"skip"`` leaves out files that can't be read and events with NaN in a filter key; they are
            logged and listed in :attr:`skipped`.
        progress: Called with (what is done, finished, total).

    Attributes:
        sources: The files, in the order of the specification.
        keys: The keys of a batch.
        rows: ``(n_events,) int64`` row of each event in its file; events are counted file after file.
        file_start: ``(n_files + 1,) int64``: file i has events ``file_start[i]:file_start[i + 1]``.
        file_class: ``(n_files,) int64`` class index of the events of each file.
        groups: Runs of events that are drawn with one rate.
        skipped: Errors that ``on_error="skip"`` passed over.

    Raises:
        SpecError: Files and specification do not fit, or no events are left.
        SourceError: A file can't be read.
    """

    def __init__(
        self,
        spec: SampleSpec,
        *,
        splits: Splits | None = None,
        split: str | None = None,
        store: IndexStore | None = None,
        workers: int | None = None,
        on_error: OnError = "raise",
        progress: Progress | None = None,
    ) -> None:
        if (splits is None) != (split is None):
            raise SpecError("split and splits go together: name the part, e.g. split='train'")
        self.spec = spec
        self.store = store or IndexStore()
        self.skipped: list[HepfeedError] = []
        self._workers = os.cpu_count() or 1 if workers is None else workers
        self._on_error = on_error
        self._progress = progress
        chosen = self._agreeing(self._open(splits))
        self.sources = tuple(source for sources in chosen for source in sources)
        self.keys = self._common_keys()
        rows = self._select(chosen)
        if splits is not None and split is not None:
            rows = self._split(splits, split, rows)
        per_file = [rows[source.path] for source in self.sources]
        self.rows = np.concatenate(per_file)
        self.file_start = np.cumsum([0, *map(len, per_file)], dtype=np.int64)
        self.file_class = np.repeat(
            [spec.classes[sample.label] for sample in spec.samples], [len(sources) for sources in chosen]
        ).astype(np.int64)
        self.groups = self._group(chosen, split)
        self._warn_skipped()

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"EventIndex({len(self)} events, {len(self.sources)} files, {len(self.groups)} groups)"

    @property
    def files(self) -> list[str]:
        """Paths; ``batch["event"][:, 0]`` counts in this list."""
        return [source.path for source in self.sources]

    @property
    def event_bytes(self) -> int:
        """Bytes of one delivered event, all keys together."""
        return sum(key.event_bytes for key in self.keys)

    def file_of(self, events: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the file of each event."""
        return np.searchsorted(self.file_start, events, side="right") - 1

    def tables(self, file: int) -> dict[str, ChunkTable]:
        """Return the chunk tables of a file, by path of the data set."""
        return load_tables(self.sources[file].info, self.store)

    def source_table(self, file: int) -> SourceTable:
        """Return what a reader must know of a file."""
        source, tables = self.sources[file], self.tables(file)
        datasets = {}
        for key in self.keys:
            dataset = source.dataset(key.name)
            datasets[key.name] = (dataset, tables.get(dataset.key, ChunkTable.empty()), key.dtype.str)
        return SourceTable(source.path, source.info.size, source.info.mtime_ns, datasets)

    # ---- the steps of the constructor ---------------------------------------------------------------------------

    def _open(self, splits: Splits | None) -> list[list[Source]]:
        """Describe all files, and resolve aliases; one list of sources for each sample."""
        wanted: list[tuple[str, list[str]]] = []
        for sample in self.spec.samples:
            candidates = [key for alternatives in sample.keys.values() for key in alternatives]
            wanted += [(path, candidates) for path in sample.files]
        known, errors = describe_files(
            wanted, store=self.store, workers=self._workers, on_error=self._on_error, progress=self._progress
        )
        self.skipped += errors
        return [
            [source for path in sample.files if path in known for source in self._sources(sample, known[path])]
            for sample in self.spec.samples
        ]

    def _sources(self, sample: Sample, info: FileInfo) -> list[Source]:
        try:
            return [_resolve(sample, info)]
        except HepfeedError as error:
            if self._on_error == "raise":
                raise
            self.skipped.append(error)
            return []

    def _agreeing(self, chosen: list[list[Source]]) -> list[list[Source]]:
        """Check that all files have the shapes and types of the first one."""
        first = next((source for sources in chosen for source in sources), None)
        if first is None:
            raise SpecError("no file of the specification can be read: " + "; ".join(map(str, self.skipped[:3])))
        agreeing: list[list[Source]] = []
        for sources in chosen:
            agreeing.append([])
            for source in sources:
                try:
                    for name in self.spec.names:
                        _same_form(name, source, first.dataset(name), first.path, self.spec.dtypes.get(name))
                except SpecError as error:
                    if self._on_error == "raise":
                        raise
                    self.skipped.append(error)
                else:
                    agreeing[-1].append(source)
        return agreeing

    def _common_keys(self) -> tuple[KeyInfo, ...]:
        keys = []
        for name in self.spec.names:
            first = self.sources[0].dataset(name)
            wanted = self.spec.dtypes.get(name)
            stored = np.dtype(first.dtype).newbyteorder("=")
            dtype = np.dtype(wanted) if wanted else stored
            if not np.can_cast(stored, dtype, "same_kind"):
                raise SpecError(
                    f"dtypes asks for key {name!r} as {dtype}, but it is stored as {stored}, which does not convert",
                    key=name,
                )
            keys.append(KeyInfo(name, dtype, first.event_shape))
        return tuple(keys)

    def _select(self, chosen: list[list[Source]]) -> dict[str, NDArray[np.int64]]:
        """Apply the filters; the rows of each file by path."""
        rows: dict[str, NDArray[np.int64]] = {}
        for sample, sources in zip(self.spec.samples, chosen):
            condition = self.spec.event_filter(sample)
            if condition is None or not sources:
                rows.update((source.path, np.arange(source.events, dtype=np.int64)) for source in sources)
                continue
            files = [
                (
                    source.info,
                    {name: _filter_key(sample, source, name) for name in sorted(condition.keys)},
                    source.events,
                )
                for source in sources
            ]
            kept, errors = selection.select(
                condition,
                files,
                store=self.store,
                workers=self._workers,
                on_error=self._on_error,
                progress=self._progress,
            )
            self.skipped += errors
            empty = np.empty(0, np.int64)
            rows.update((source.path, empty if r is None else r) for source, r in zip(sources, kept))
        return rows

    def _split(self, splits: Splits, split: str, rows: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
        """Divide all events of each file, and keep those of this part that the filter kept."""
        result = {}
        for source in self.sources:
            values = selection.read_column(source.path, splits.key, source.events) if splits.key else None
            part = splits.rows(split, source.path, source.events, values)
            result[source.path] = np.intersect1d(rows[source.path], part, assume_unique=True)
        return result

    def _group(self, chosen: list[list[Source]], split: str | None) -> tuple[Group, ...]:
        groups = []
        first = 0
        for sample, sources in zip(self.spec.samples, chosen):
            last = first + len(sources)
            runs: list[tuple[float | None, int, int]] = [(sample.rate, first, last)]
            if sample.file_rates is not None:
                rate_of = dict(zip(sample.files, sample.file_rates))
                runs = [(rate_of[source.path], first + i, first + i + 1) for i, source in enumerate(sources)]
            for rate, i, j in runs:
                start, stop = int(self.file_start[i]), int(self.file_start[j])
                if start < stop:
                    groups.append(Group(sample.label, self.spec.classes[sample.label], rate, start, stop))
            if self.file_start[first] == self.file_start[last]:
                self._no_events(sample, split)
            first = last
        if not groups:
            raise SpecError("no events are left: " + ("; ".join(map(str, self.skipped[:3])) or "the filter keeps none"))
        return tuple(groups)

    def _no_events(self, sample: Sample, split: str | None) -> None:
        part = f" in split {split!r}" if split else ""
        error = SpecError(
            f"label {sample.label!r} has no events{part} after the filter: loosen it, or take the sample out",
            file=sample.files[0],
        )
        if self._on_error == "raise":
            raise error
        self.skipped.append(error)

    def _warn_skipped(self) -> None:
        if self.skipped:
            shown = "; ".join(str(error) for error in self.skipped[:3])
            _logger.warning("%d faults were skipped, the first: %s", len(self.skipped), shown)


def _resolve(sample: Sample, info: FileInfo) -> Source:
    """Choose the data set of each key, and check that they count the same events."""
    keys = {}
    for name, candidates in sample.keys.items():
        key = next((key for key in candidates if key in info.datasets), None)
        if key is None:
            with hdf5.open_file(info.path) as file:
                existing = hdf5.keys_of(file)
            tried = " or ".join(repr(key) for key in candidates)
            raise KeyMissingError(
                f"key {tried} does not exist in {info.path!r}: {nearest(candidates[0], existing)}",
                file=info.path,
                key=candidates[0],
            )
        keys[name] = key
    datasets = {name: info.datasets[key] for name, key in keys.items()}
    events = {dataset.events for dataset in datasets.values()}
    if len(events) > 1:
        lengths = ", ".join(f"{name!r} has {dataset.events}" for name, dataset in datasets.items())
        raise SpecError(
            f"the keys of {info.path!r} differ in their number of events: {lengths}; name keys with one row"
            " for each event",
            file=info.path,
        )
    (n_events,) = events
    if n_events == 0:
        raise SpecError(f"{info.path!r} holds no events: take the file out of the sample", file=info.path)
    return Source(info, keys, n_events, _block(list(datasets.values())))


def _block(datasets: list[DatasetInfo]) -> int:
    """Events that share chunks, judged by the keys that matter for the cost of reading."""
    total = sum(dataset.event_bytes for dataset in datasets)
    block = 1
    for dataset in datasets:
        if dataset.event_bytes * 16 < total:
            continue
        shared = dataset.chunk_events
        if dataset.storage == "library" and not dataset.chunk:
            shared = _LIBRARY_BLOCK
        block = max(block, shared)
    return min(block, max(1, datasets[0].events))


def _same_form(name: str, source: Source, first: DatasetInfo, first_path: str, wanted: str | None) -> None:
    this = source.dataset(name)
    if this.event_shape != first.event_shape:
        raise SpecError(
            f"key {name!r} has events of shape {this.event_shape} in {source.path!r}, but {first.event_shape} in"
            f" {first_path!r}: all files must agree",
            file=source.path,
            key=name,
        )
    stored, expected = (np.dtype(dataset.dtype).newbyteorder("=") for dataset in (this, first))
    if stored != expected and wanted is None:
        raise SpecError(
            f"key {name!r} is {stored} in {source.path!r}, but {expected} in {first_path!r}: convert both with"
            f" dtypes={{{name!r}: '{np.promote_types(stored, expected)}'}}",
            file=source.path,
            key=name,
        )


def _filter_key(sample: Sample, source: Source, name: str) -> str:
    """The data set that a name in a filter stands for: a key of the batch, or a path."""
    if name in source.keys:
        return source.keys[name]
    return name
