"""All events that a specification names: which files, which rows, of what shape, in which class."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hepfeed import selection
from hepfeed.columns import Column, Extents
from hepfeed.errors import HepfeedError, SpecError
from hepfeed.expression import find_name
from hepfeed.file_events import missing_key
from hepfeed.form import KeyPlace, place_keys
from hepfeed.hdf5 import ChunkTable, DatasetInfo, FileInfo, KeyTable, SourceTable
from hepfeed.progress import Progress
from hepfeed.spec import Sample, SampleSpec
from hepfeed.splits import Splits
from hepfeed.store import IndexStore, Wanted, collector_paused, describe_files, load_tables_of
from hepfeed.weights import event_weights, weight_keys

__all__ = ["EventIndex", "Group", "KeyInfo", "OnError", "Source"]

OnError = Literal["raise", "skip"]
_LIBRARY_BLOCK = 64  # events that h5py reads together where a data set has no chunks of its own
_BLOCK_CHUNKS = 4  # of jagged events: a block takes so many chunks, so that a quarter more is decoded than needed
_logger = logging.getLogger("hepfeed")


@dataclass(frozen=True)
class KeyInfo:
    """A key as it is delivered.

    Attributes:
        name: In the batch.
        dtype: In the machine's byte order.
        shape: Of one event; of jagged keys, of one row.
        rows: Empty for dense keys; jagged keys of the same name here have the same number of rows in each event.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    rows: str = ""

    @property
    def row_bytes(self) -> int:
        """Bytes of one delivered event; of jagged keys, of one row."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


@dataclass(frozen=True)
class Source:
    """One file of the specification.

    Attributes:
        info: The file.
        keys: Batch name -> key in this file.
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

    def column(self, name: str) -> Column:
        """Return how a batch name is read."""
        return self.info.columns[self.keys[name]]

    def dataset(self, name: str) -> DatasetInfo:
        """Return the data set that a batch name stands for."""
        return self.info.datasets[self.column(name).dataset]

    def extents(self, name: str) -> Extents | None:
        """Return which rows make each event; None where each row is one."""
        rows = self.column(name).rows
        return self.info.extents[rows] if rows else None

    def form(self, name: str) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
        """Return dtype and shape as stored, of an event or of a row of it, and whether the key is jagged."""
        dataset, column = self.dataset(name), self.column(name)
        return *column.form(dataset.item, dataset.event_shape), column.jagged


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
        selected: Number of events that the filters keep, in all splits together.
        sample_files: Number of files of each sample.
        weights: ``(n_events,) float32``, where the specification has weights.
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
        self.selected = sum(len(rows[source.path]) for source in self.sources)
        self.sample_files = tuple(map(len, chosen))
        if splits is not None and split is not None:
            rows = self._split(splits, split, rows)
        per_file = [rows[source.path] for source in self.sources]
        self.rows = np.concatenate(per_file)
        self.file_start = np.cumsum([0, *map(len, per_file)], dtype=np.int64)
        self.file_class = np.repeat(
            [spec.classes[sample.label] for sample in spec.samples], [len(sources) for sources in chosen]
        ).astype(np.int64)
        self.groups = self._group(chosen, split)
        self._first = np.cumsum([0, *(source.events for source in self.sources)])[:-1]
        self._counts = {key.rows: self._count_rows(key.name) for key in self.keys if key.rows == key.name}
        self.weights = self._weigh() if spec.weights is not None else None
        self._warn_skipped()
        self._progress = None  # it ends with the constructor, and the index travels to other processes

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
        """Bytes of one delivered event, all keys together; of jagged keys, on the average."""
        total = 0.0
        for key in self.keys:
            total += key.row_bytes * (float(self._counts[key.rows].mean()) if key.rows else 1.0)
        return int(total)

    @property
    def catalog(self) -> str:
        """What the numbers of files mean to a reader."""
        return f"{self.spec.fingerprint()}:{len(self.sources)}"

    def place_keys(self, batch_size: int) -> tuple[tuple[KeyPlace, ...], int]:
        """Return where the keys of a batch lie in a slot; see :func:`hepfeed.form.place_keys`."""
        return place_keys([(key.name, key.dtype, key.shape, key.rows) for key in self.keys], batch_size)

    def file_of(self, events: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the file of each event."""
        return np.searchsorted(self.file_start, events, side="right") - 1

    @cached_property
    def _number(self) -> NDArray[np.int64]:
        """Number of each event among all events of all files; ascending."""
        numbers: NDArray[np.int64] = np.repeat(self._first, np.diff(self.file_start)) + self.rows
        return numbers

    def position(self, file: NDArray[np.int64], row: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the place in the index of events that are in it."""
        return np.searchsorted(self._number, self._first[file] + row)

    def find(self, event: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the place in the index of events ``(n, 2)``, file and row; -1 for those that are not in it."""
        number = self._first[event[:, 0]] + event[:, 1]
        place = np.minimum(np.searchsorted(self._number, number), len(self) - 1)
        return np.where(self._number[place] == number, place, -1)

    def counts(self, file: NDArray[np.int64], row: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
        """Return the number of rows of events, ``(n,)`` for each :attr:`KeyInfo.rows` of the jagged keys."""
        if not self._counts:
            return {}
        event = self._first[file] + row
        return {name: counts[event].astype(np.int64) for name, counts in self._counts.items()}

    @property
    def jagged(self) -> bool:
        """Whether events differ in size."""
        return bool(self._counts)

    def lengths(self, events: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of points of events: rows of the longest jagged key.

        Args:
            events: ``(n,)`` places in the index.
        """
        counts = self.counts(self.file_of(events), self.rows[events])
        if not counts:
            raise SpecError("no key is jagged, so that all events have the same length: leave out length-aware options")
        longest: NDArray[np.int64] = np.maximum.reduce(list(counts.values()))
        return longest

    def source_table(self, file: int) -> SourceTable:
        """Return what a reader must know of a file."""
        return self.source_tables([file])[file]

    def source_tables(self, files: Sequence[int]) -> dict[int, SourceTable]:
        """Return what a reader must know of files, by their numbers."""
        tables = load_tables_of([self.sources[file].info for file in files], self.store)
        return {file: self._source_table(self.sources[file], tables[self.sources[file].path]) for file in files}

    def _source_table(self, source: Source, tables: dict[str, ChunkTable]) -> SourceTable:
        keys = {}
        for key in self.keys:
            dataset = source.dataset(key.name)
            chunks = tables.get(dataset.key, ChunkTable.empty())
            keys[key.name] = KeyTable(source.column(key.name), dataset, chunks, key.dtype.str)
        used = {table.column.rows for table in keys.values()}
        extents = {name: extents for name, extents in source.info.extents.items() if name in used}
        return SourceTable(source.path, source.info.size, source.info.mtime_ns, keys, extents)

    # ---- the steps of the constructor ---------------------------------------------------------------------------

    def _open(self, splits: Splits | None) -> list[list[Source]]:
        """Describe all files, and resolve aliases; one list of sources for each sample."""
        wanted: list[Wanted] = []
        for sample in self.spec.samples:
            keys = tuple(dict.fromkeys(key for alternatives in sample.keys.values() for key in alternatives))
            named = self._columns_for_filters(sample, splits)
            also = tuple(sorted(key for name in named for key in _spellings(sample, name) if key not in keys))
            wanted += [Wanted(path, keys, also, sample.layout) for path in sample.files]
        known, errors = describe_files(
            wanted, store=self.store, workers=self._workers, on_error=self._on_error, progress=self._progress
        )
        self.skipped += errors
        with collector_paused():
            return [
                [found for path in sample.files if path in known for found in self._sources(sample, known[path], kinds)]
                for sample, kinds in ((sample, _Kinds()) for sample in self.spec.samples)
            ]

    def _columns_for_filters(self, sample: Sample, splits: Splits | None) -> set[str]:
        """Names of what is looked at to choose and to weigh events."""
        condition = self.spec.event_filter(sample)
        names = set(condition.keys) if condition else set()
        if splits is not None and splits.key:
            names.add(splits.key)
        return names.union(weight_keys(self.spec.weights) if self.spec.weights is not None else ())

    def _sources(self, sample: Sample, info: FileInfo, kinds: _Kinds) -> list[Source]:
        try:
            return [_resolve(sample, info, kinds)]
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
                if _alike(source, first):
                    agreeing[-1].append(source)
                    continue
                try:
                    for name in self.spec.names:
                        _same_form(name, source, first, self.spec.dtypes.get(name))
                    _same_rows(source, first)
                except SpecError as error:
                    if self._on_error == "raise":
                        raise
                    self.skipped.append(error)
                else:
                    agreeing[-1].append(source)
        return agreeing

    def _common_keys(self) -> tuple[KeyInfo, ...]:
        keys = []
        first_of: dict[str, str] = {}
        for name in self.spec.names:
            stored, shape, jagged = self.sources[0].form(name)
            wanted = self.spec.dtypes.get(name)
            dtype = np.dtype(wanted) if wanted else stored
            if not np.can_cast(stored, dtype, "same_kind"):
                raise SpecError(
                    f"dtypes asks for key {name!r} as {dtype}, but it is stored as {stored}, which does not convert",
                    key=name,
                )
            rows = first_of.setdefault(self.sources[0].column(name).rows, name) if jagged else ""
            keys.append(KeyInfo(name, dtype, shape, rows))
        return tuple(keys)

    def _count_rows(self, name: str) -> NDArray[Any]:
        """Rows of a jagged key in all events of all files; as small integers, for there may be many events."""
        counts = np.concatenate([extents.count for s in self.sources if (extents := s.extents(name)) is not None])
        return counts.astype(np.min_scalar_type(int(counts.max(initial=0))))

    def _weigh(self) -> NDArray[np.float32]:
        """Compute the weights of the selected events."""
        rule = self.spec.weights
        assert rule is not None
        columns: dict[str, list[NDArray[Any]]] = {name: [] for name in weight_keys(rule)}
        for number, source in enumerate(self.sources):
            rows = self.rows[self.file_start[number] : self.file_start[number + 1]]
            for name, parts in columns.items():
                parts.append(selection.read_column(source.info, _meant(source, name), single=False)[rows])
        label = self.file_class[self.file_of(np.arange(len(self)))]
        joined = {name: np.concatenate(parts) for name, parts in columns.items()}
        return event_weights(rule, joined, label, self.spec.classes)

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
                    {name: _meant(source, name) for name in sorted(condition.keys)},
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
            values = selection.read_column(source.info, _meant(source, splits.key)) if splits.key else None
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


_Kinds: TypeAlias = dict[str, tuple[dict[str, str], int]]
"""Form of files -> their keys and block, for those of a sample that were seen; thousands of files share them."""


def _resolve(sample: Sample, info: FileInfo, kinds: _Kinds) -> Source:
    """Choose the data set of each key, and check that they count the same events."""
    shared = info.form if not info.extents else ""
    kind = kinds.get(shared) if shared else None
    if kind is None:
        keys = {}
        for name, candidates in sample.keys.items():
            key = next((key for key in candidates if key in info.columns), None)
            if key is None:
                raise missing_key(info.path, candidates)
            keys[name] = key
        kind = keys, _block(info, keys)
        if shared:
            kinds[shared] = kind
    keys, block = kind
    if any(_events_of(info, key) != info.events for key in keys.values()):
        events = {name: _events_of(info, key) for name, key in keys.items()}
        lengths = ", ".join(f"{name!r} has {count}" for name, count in events.items())
        raise SpecError(
            f"the keys of {info.path!r} differ in their number of events: {lengths}; name keys with one row"
            " for each event",
            file=info.path,
        )
    if info.events == 0:
        raise SpecError(f"{info.path!r} holds no events: take the file out of the sample", file=info.path)
    return Source(info, keys, info.events, min(block, info.events))


def _spellings(sample: Sample, name: str) -> tuple[str, ...]:
    """Keys that a name in an expression may stand for: those of a key of the batch, a path, or a field of a table."""
    found = find_name(name, sample.keys)
    if found is not None:
        return sample.keys[found]
    group, slash, last = name.rpartition("/")
    return (name, f"{group}.{last}") if slash else (name,)


def _meant(source: Source, name: str) -> str:
    """The key of a file that a name in an expression stands for."""
    found = find_name(name, source.keys)
    if found is not None:
        return source.keys[found]
    return find_name(name, source.info.columns) or name


def _events_of(info: FileInfo, key: str) -> int:
    column = info.columns[key]
    return len(info.extents[column.rows]) if column.rows else info.datasets[column.dataset].events


def _block(info: FileInfo, keys: Mapping[str, str]) -> int:
    """Events that share chunks, judged by the keys that matter for the cost of reading."""
    costs: dict[str, tuple[float, float]] = {}  # data set -> bytes an event, events that share a chunk
    for key in keys.values():
        column = info.columns[key]
        dataset, extents = info.datasets[column.dataset], info.extents[column.rows] if column.rows else None
        rows = max(1.0, float(extents.count.mean())) if extents is not None else 1.0
        shared = dataset.chunk_events / rows
        if extents is not None and dataset.chunk_events > 1:
            # Events begin and end within chunks: of a block of them, the chunks at its ends are decoded for others too.
            shared = math.ceil(_BLOCK_CHUNKS * shared) if shared > 1 / 16 else 1.0
        if dataset.storage == "library" and not dataset.chunk:
            shared = _LIBRARY_BLOCK
        costs[dataset.key] = (dataset.event_bytes * rows, shared)
    total = sum(size for size, _ in costs.values())
    blocks = [shared for size, shared in costs.values() if size * 16 >= total]
    return max(1, int(max(blocks)))


def _same_form(name: str, source: Source, first: Source, wanted: str | None) -> None:
    (dtype, shape, jagged), (first_dtype, first_shape, first_jagged) = source.form(name), first.form(name)
    if jagged != first_jagged:
        these, those = ("jagged", "dense") if jagged else ("dense", "jagged")
        raise SpecError(
            f"key {name!r} is {these} in {source.path!r}, but {those} in {first.path!r}: all files must agree",
            file=source.path,
            key=name,
        )
    if shape != first_shape:
        raise SpecError(
            f"key {name!r} has events of shape {shape} in {source.path!r}, but {first_shape} in"
            f" {first.path!r}: all files must agree",
            file=source.path,
            key=name,
        )
    if dtype != first_dtype and wanted is None:
        raise SpecError(
            f"key {name!r} is {dtype} in {source.path!r}, but {first_dtype} in {first.path!r}: convert both with"
            f" dtypes={{{name!r}: '{np.promote_types(dtype, first_dtype)}'}}",
            file=source.path,
            key=name,
        )


def _alike(source: Source, first: Source) -> bool:
    """Whether files are known to be of the same form, so that their keys are too."""
    one, other = source.info, first.info
    return bool(one.form) and one.form == other.form and source.keys == first.keys and not one.extents


def _same_rows(source: Source, first: Source) -> None:
    """Check that keys which share their rows do so in all files."""
    shared = [{name: s.column(name).rows for name in s.keys if s.column(name).jagged} for s in (source, first)]
    for name, rows in shared[0].items():
        for other, other_rows in shared[0].items():
            if (rows == other_rows) != (shared[1][name] == shared[1][other]):
                raise SpecError(
                    f"keys {name!r} and {other!r} have rows in common in one of {source.path!r} and {first.path!r},"
                    " but not in the other: all files must agree",
                    file=source.path,
                    key=name,
                )
