"""What a specification or an HDF5 file holds, what is wrong, what reading it costs, and what to change.

Nothing is printed and nothing is written here: ``hepfeed check`` shows the findings.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import h5py
import numpy as np
from numpy.typing import NDArray
from rich.filesize import decimal

from hepfeed import hdf5
from hepfeed.errors import HepfeedError, SourceError, SpecError
from hepfeed.filler import Filler, Window
from hepfeed.hdf5 import DatasetInfo
from hepfeed.index import EventIndex, KeyInfo, Source
from hepfeed.pool import NO_FUNCTIONS, ReaderPool, Stream
from hepfeed.progress import Progress
from hepfeed.reader import StreamForm, place_keys
from hepfeed.spec import HDF5_SUFFIXES, Sample, SampleSpec, hdf5_files
from hepfeed.stats import StageClock
from hepfeed.store import IndexStore

__all__ = [
    "ClassReport",
    "DatasetReport",
    "DirectoryReport",
    "Fault",
    "FileReport",
    "KeyReport",
    "KeyStorage",
    "Layout",
    "ReadCost",
    "SpecReport",
    "check_directory",
    "check_file",
    "check_spec",
]

_MOST_MISFITS = 20  # files that do not fit the others; each costs another look at all files
_MEASURED_EVENTS = 2048
_MEASURING_S = 5.0
_BATCH_EVENTS, _BATCH_BYTES = 128, 64 << 20
_GOOD_CHUNK_BYTES = 1 << 20
_SMALL_CHUNK_BYTES = 32 << 10
_SMALL_PIECE_BYTES = 256 << 10
_LARGE_CHUNK_BYTES = 16 << 20
_SMALL_DATA_BYTES = 4 << 20  # less than this of a key is read in no time, however it is stored
_SPARSE = 0.05
_MOST_IDS = 1 << 20  # rows of a table whose event numbers are looked at
_MOST_RAGGED = 1 << 10  # rows of variable length whose items are counted


# ---- findings


@dataclass(frozen=True)
class Fault:
    """An error that hepfeed would raise.

    Attributes:
        error: Class of :mod:`hepfeed.errors`.
        message: One sentence: what, where, and what to do.
        file: File at fault, or None.
        key: Data set at fault, or None.
        event: Row at fault, or None.
    """

    error: str
    message: str
    file: str | None
    key: str | None
    event: int | None


@dataclass(frozen=True)
class ClassReport:
    """The events of one label.

    Attributes:
        label: As in the specification.
        index: Class index.
        files: Files that can be read.
        events: Events in them.
        kept: Events after the filter.
    """

    label: str | int
    index: int
    files: int
    events: int
    kept: int


@dataclass(frozen=True)
class KeyStorage:
    """One way in which a key is stored.

    Attributes:
        files: Files that store it so.
        storage: ``"contiguous"``, ``"chunked"``, or ``"library"``: read through h5py, slower.
        reason: Why it is read through h5py; empty otherwise.
        chunk: Chunk shape, events first; empty without chunks.
        codec: HDF5 filters in words.
    """

    files: int
    storage: str
    reason: str
    chunk: tuple[int, ...]
    codec: str


@dataclass(frozen=True)
class KeyReport:
    """One key of the batches.

    Attributes:
        name: In the batch.
        shape: Of an event.
        dtype: As delivered.
        storages: How the files store it, the most frequent first.
        bytes: Of all events in memory, as stored types.
        stored_bytes: Of all events in the files.
        ratio: ``bytes / stored_bytes``; None where nothing is stored.
        occupancy: Part of the items that is not 0, of the measured events; None without a measurement.
        not_finite: Part of the items that is NaN or infinite; None without a measurement.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    storages: tuple[KeyStorage, ...]
    bytes: int
    stored_bytes: int
    ratio: float | None
    occupancy: float | None
    not_finite: float | None


@dataclass(frozen=True)
class ReadCost:
    """What reading costs, measured in this process with the readers' own code, in the order of training.

    Files that were read shortly before come from memory: the first epoch from disk may read slower.

    Attributes:
        events: Events that were measured.
        order: ``"window"`` or ``"full"``, see :class:`hepfeed.Filler`.
        block: Most events that share chunks.
        read_s: Seconds an event of getting bytes from the files.
        inflate_s: Seconds an event of decompression.
        scatter_s: Seconds an event of copying to the batches.
        events_per_s: Of one core.
        cores: Processors that this process may use.
        events_per_s_all: Expected of as many readers as there are processors.
        epoch_events: Events of an epoch.
        epoch_read_bytes: Expected from the files in an epoch.
        epoch_batch_bytes: Delivered in an epoch.
    """

    events: int
    order: str
    block: int
    read_s: float
    inflate_s: float
    scatter_s: float
    events_per_s: float
    cores: int
    events_per_s_all: float
    epoch_events: int
    epoch_read_bytes: int
    epoch_batch_bytes: int


@dataclass(frozen=True)
class SpecReport:
    """What a specification holds.

    Attributes:
        classes: By class index.
        keys: In the order of the specification; empty where no file can be read.
        faults: One for each file that fails, and for what does not go together.
        cost: What reading costs; None without a measurement.
        advice: What to change, the most important first.
    """

    classes: tuple[ClassReport, ...]
    keys: tuple[KeyReport, ...]
    faults: tuple[Fault, ...]
    cost: ReadCost | None
    advice: tuple[str, ...]


@dataclass(frozen=True)
class DatasetReport:
    """One data set of a file.

    Attributes:
        path: Within the file.
        shape: Of the data set.
        dtype: Of the items, in words.
        chunk: Chunk shape; empty without chunks.
        codec: HDF5 filters in words.
        stored_bytes: In the file.
        problem: Why it can't be a key; empty where it can, if its rows are events.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    chunk: tuple[int, ...]
    codec: str
    stored_bytes: int
    problem: str


@dataclass(frozen=True)
class Layout:
    """A known way to store events of different lengths.

    Attributes:
        name: Who writes it so.
        events: Number of events; None where the file does not say.
        rows: Rows of all events together.
        noun: What a row is, e.g. ``"hits"``.
        sentence: What was found, and where.
        members: Data sets whose rows are no events.
    """

    name: str
    events: int | None
    rows: int
    noun: str
    sentence: str
    members: tuple[str, ...]


@dataclass(frozen=True)
class FileReport:
    """What one HDF5 file holds.

    Attributes:
        path: The file.
        size: Bytes.
        datasets: All but index groups of PyTables.
        groups: Rows -> data sets of numbers with so many rows, which may count the same events.
        layouts: Known ragged layouts.
        events: Number of events that can be fed, 0 for none.
        keys: Data sets that can be fed together as they are.
        verdict: Whether the file can be fed, else why not: one sentence.
    """

    path: str
    size: int
    datasets: tuple[DatasetReport, ...]
    groups: dict[int, tuple[str, ...]]
    layouts: tuple[Layout, ...]
    events: int
    keys: tuple[str, ...]
    verdict: str


@dataclass(frozen=True)
class DirectoryReport:
    """What the HDF5 files below a directory hold.

    Attributes:
        path: The directory.
        files: Files that can be opened.
        faults: One for each that can't.
    """

    path: str
    files: tuple[FileReport, ...]
    faults: tuple[Fault, ...]


# ---- specifications


def check_spec(
    spec: SampleSpec | str | os.PathLike[str],
    *,
    measure: bool = True,
    events: int | None = None,
    index: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> SpecReport:
    """Open all files of a specification, and read some of their events.

    Args:
        spec: The specification, or the path of its YAML or JSON file.
        measure: Read events to find occupancy and cost.
        events: Read at least so many, in whole windows; default: 2,048, or as many as 5 s are enough for.
        index: Path of the index file; by default the user's own.
        progress: Called with (what is done, finished, total).

    Raises:
        SpecError: ``spec`` itself is wrong, or ``events`` is below 1.
    """
    if events is not None and events < 1:
        raise SpecError(f"events must be 1 or more, not {events}: leave the measurement out with measure=False")
    if not isinstance(spec, SampleSpec):
        spec = SampleSpec.load(spec)
    with IndexStore(index if index is not None else "") as store:
        found, errors = _open(spec, store, progress)
        if found is None:
            return SpecReport(_classes(spec, None), (), _faults(errors), None, ())
        filler = Filler(found, batch_size=_batch_size(found))
        contents = {key.name: _Contents() for key in found.keys}
        cost = None
        if measure:
            cost, failures = _measure(filler, contents, events, progress)
            errors += failures
        keys = tuple(_key(found, key, contents[key.name]) for key in found.keys)
        return SpecReport(_classes(spec, found), keys, _faults(errors), cost, tuple(_advise(found, filler, keys)))


def _faults(errors: Iterable[HepfeedError]) -> tuple[Fault, ...]:
    """Describe errors, each once."""
    faults = [Fault(type(e).__name__, str(e).splitlines()[0], e.file, e.key, e.event) for e in errors]
    return tuple(dict.fromkeys(faults))


def _open(
    spec: SampleSpec, store: IndexStore, progress: Progress | None
) -> tuple[EventIndex | None, list[HepfeedError]]:
    """Index the files that can be read and fit together; others are taken out, one after another."""
    errors: list[HepfeedError] = []
    while True:
        try:
            found = EventIndex(spec, store=store, on_error="skip", progress=progress)
        except HepfeedError as error:
            if error.file not in spec.files:
                return None, [*errors, *(_one_by_one(spec, store, progress) or [error])]
            errors.append(error)
            kept = set(spec.files) - {error.file}
            if not kept:
                return None, errors
            if len(errors) == _MOST_MISFITS:
                return None, [
                    *errors,
                    SpecError(f"the check ends after {_MOST_MISFITS} files that do not fit: mend them"),
                ]
            spec = _only(spec, kept)
            continue
        return found, [*errors, *found.skipped]


def _one_by_one(spec: SampleSpec, store: IndexStore, progress: Progress | None) -> list[HepfeedError]:
    """Return the error of each file for itself, whatever the filter."""
    errors = []
    bare = SampleSpec(
        [replace(sample, filter=None) for sample in spec.samples], classes=spec.classes, dtypes=spec.dtypes
    )
    for done, path in enumerate(bare.files, 1):
        try:
            EventIndex(_only(bare, {path}), store=store)
        except HepfeedError as error:
            errors.append(error)
        if progress:
            progress("looking at single files", done, len(bare.files))
    return errors


def _only(spec: SampleSpec, files: set[str]) -> SampleSpec:
    """Return a specification of some of its files."""
    samples = []
    for sample in spec.samples:
        places = [i for i, path in enumerate(sample.files) if path in files]
        if places:
            samples.append(_part(sample, places))
    return SampleSpec(samples, filter=spec.filter, classes=spec.classes, dtypes=spec.dtypes)


def _part(sample: Sample, places: list[int]) -> Sample:
    files = tuple(sample.files[i] for i in places)
    rates = sample.file_rates and tuple(sample.file_rates[i] for i in places)
    return replace(sample, files=files, patterns=files, file_rates=rates)


def _classes(spec: SampleSpec, found: EventIndex | None) -> tuple[ClassReport, ...]:
    files, events, kept = Counter[int](), Counter[int](), Counter[int]()
    if found is not None:
        sizes = np.diff(found.file_start).tolist()
        for number, source, size in zip(found.file_class.tolist(), found.sources, sizes, strict=True):
            files[number] += 1
            events[number] += source.events
            kept[number] += size
    labels = {sample.label: spec.classes[sample.label] for sample in spec.samples}
    ordered = sorted(labels.items(), key=lambda item: item[1])
    return tuple(ClassReport(label, n, files[n], events[n], kept[n]) for label, n in ordered)


def _key(found: EventIndex, key: KeyInfo, contents: _Contents) -> KeyReport:
    infos = [source.dataset(key.name) for source in found.sources]
    forms = Counter((info.storage, _reason(info), info.chunk, info.codec) for info in infos)
    size = sum(info.events * info.event_bytes for info in infos)
    stored = sum(info.stored_bytes for info in infos)
    return KeyReport(
        name=key.name,
        shape=key.shape,
        dtype=str(key.dtype),
        storages=tuple(KeyStorage(count, *form) for form, count in forms.most_common()),
        bytes=size,
        stored_bytes=stored,
        ratio=size / stored if stored else None,
        occupancy=contents.part(contents.occupied),
        not_finite=contents.part(contents.not_finite),
    )


def _reason(info: DatasetInfo) -> str:
    return f"filter {info.codec}" if info.reason == "filters" else info.reason


# ---- the cost of reading


@dataclass
class _Contents:
    """Counts of the items of a key in the events that were read."""

    items: int = 0
    occupied: int = 0
    not_finite: int = 0

    def add(self, values: NDArray[Any]) -> None:
        self.items += values.size
        self.occupied += int(np.count_nonzero(values))
        if values.dtype.kind in "fc":
            self.not_finite += values.size - int(np.count_nonzero(np.isfinite(values)))

    def part(self, count: int) -> float | None:
        return count / self.items if self.items else None


def _batch_size(found: EventIndex) -> int:
    return max(1, min(_BATCH_EVENTS, _BATCH_BYTES // max(1, found.event_bytes), len(found)))


def _measure(
    filler: Filler, contents: dict[str, _Contents], events: int | None, progress: Progress | None
) -> tuple[ReadCost, list[Exception]]:
    """Read windows of the first epoch as a reader does, and look at what they contain."""
    found, clock, errors = filler.index, StageClock(), list[Exception]()
    places, raw_bytes = place_keys([(key.name, key.dtype, key.shape) for key in found.keys], filler.batch_size)
    wanted = min(events or _MEASURED_EVENTS, len(found))
    seen = 0
    with contextlib.closing(ReaderPool(0)) as pool:
        stream = Stream(
            pool,
            _first_windows(filler, wanted, None if events else time.monotonic() + _MEASURING_S),
            StreamForm(places, raw_bytes, "check", NO_FUNCTIONS, seed=0, skip_errors=True),
            found.source_table,
            in_flight=filler.window_batches,
            on_error="skip",
            clock=clock,
            on_skip=errors.append,
        )
        while (delivery := stream.next(0)) is not None:
            for place in places:
                rows = len(delivery.spec) if delivery.kept is None else int(delivery.kept.max(initial=-1)) + 1
                values = place.view(delivery.memory, rows)
                contents[place.name].add(values if delivery.kept is None else values[delivery.kept])
            seen += len(delivery.spec)
            if progress:
                progress("reading events", min(seen, wanted), wanted)
        stream.close()
    return _cost(filler, clock, seen), errors


def _first_windows(filler: Filler, events: int, deadline: float | None) -> Iterator[Window]:
    """Yield windows up to so many events or to the deadline; the last one keeps nothing for the next."""
    seen = 0
    for window in filler.windows(0):
        seen += len(window.row)
        last = seen >= events or (deadline is not None and time.monotonic() > deadline)
        yield replace(window, kept={}) if last else window
        if last:
            return


def _cost(filler: Filler, clock: StageClock, seen: int) -> ReadCost:
    events = max(1, seen)
    read, inflate, scatter = (clock.stages[stage] / events for stage in ("read", "inflate", "scatter"))
    speed = 1 / max(read + inflate + scatter, 1e-9)
    cores = len(os.sched_getaffinity(0))
    epoch = filler.events(0)
    return ReadCost(
        events=seen,
        order=filler.order,
        block=max(source.block for source in filler.index.sources),
        read_s=read,
        inflate_s=inflate,
        scatter_s=scatter,
        events_per_s=speed,
        cores=cores,
        events_per_s_all=speed * cores,
        epoch_events=epoch,
        epoch_read_bytes=round(clock.counts["bytes_read"] / events * epoch),
        epoch_batch_bytes=filler.index.event_bytes * epoch,
    )


# ---- advice


def _advise(found: EventIndex, filler: Filler, keys: tuple[KeyReport, ...]) -> Iterator[str]:
    """Say what would make reading cheaper, by rules on the keys that matter for the cost."""
    total = sum(key.bytes for key in keys)
    for key in keys:
        if key.not_finite:
            yield (
                f"{key.name}: {key.not_finite:.2%} of its values are NaN or infinite, and so would the loss "
                "be: filter such events, or replace the values in process_fn"
            )
        if key.bytes * 16 < total or key.bytes < _SMALL_DATA_BYTES:
            continue
        yield from _advise_key(found.sources[0], key)
    block = max(source.block for source in found.sources)
    if filler.order == "window":
        yield (
            f"up to {block:,} events share a chunk: shuffle=True mixes whole windows and decodes each chunk "
            f"once; shuffle='full' would decode a chunk up to {block:,} times"
        )
    if block * found.event_bytes > _LARGE_CHUNK_BYTES:
        yield (
            f"events that share chunks take {decimal(block * found.event_bytes)}: a window mixes few such "
            "blocks of each class, so that the shuffle is coarse: rewrite with chunks of about 1 MB"
        )


def _advise_key(source: Source, key: KeyReport) -> Iterator[str]:
    info = source.dataset(key.name)
    command = _repack(info)
    for storage in key.storages:
        if storage.storage == "library":
            remedy = f"rewrite it: {command}"
            if storage.reason == "compact":
                continue
            yield f"{key.name}: read through h5py because of {storage.reason}, one reader at a time; {remedy}"
    if len(key.storages) > 1:
        forms = "; ".join(f"{s.files} files {_times(s.chunk) or s.storage} {s.codec}" for s in key.storages)
        yield f"{key.name}: the files store it in different ways ({forms}): rewrite them alike: {command}"
    chunk = key.storages[0].chunk
    if chunk:
        item = np.dtype(info.dtype).itemsize
        size = math.prod(chunk) * item
        pieces = math.prod(-(-n // c) for n, c in zip(key.shape, chunk[1:], strict=True))
        if size < _SMALL_CHUNK_BYTES or (pieces > 1 and size < _SMALL_PIECE_BYTES):
            cut = f" cut an event into {pieces:,} pieces" if pieces > 1 else " are small"
            yield (
                f"{key.name}: chunks of {_times(chunk)} ({decimal(size)}){cut}: rewrite with "
                f"{_good_events(info)} events a chunk: {command}"
            )
    sparse = key.occupancy is not None and key.occupancy < _SPARSE
    if sparse and any("none" in (s.codec, s.codec.replace("shuffle", "none")) for s in key.storages):
        yield (
            f"{key.name}: stored without compression, but {1 - (key.occupancy or 0):.1%} of it is 0: "
            f"compress it: {command}"
        )
    if key.dtype == "float64":
        yield f"{key.name}: float64 takes twice the memory of float32: dtypes={{{key.name!r}: 'float32'}}"


def _good_events(info: DatasetInfo) -> int:
    """Events in a chunk of about 1 MB."""
    return max(1, min(info.events, _GOOD_CHUNK_BYTES // max(1, info.event_bytes)))


def _repack(info: DatasetInfo) -> str:
    chunk = "x".join(str(n) for n in (_good_events(info), *info.event_shape))
    return f"h5repack -l {info.key}:CHUNK={chunk} -f {info.key}:GZIP=4 OLD.h5 NEW.h5"


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)


# ---- files

Nodes: TypeAlias = dict[str, h5py.Dataset]


def check_file(path: str | os.PathLike[str]) -> FileReport:
    """Look at all data sets of one HDF5 file.

    Raises:
        FileFormatError: It is not HDF5, or truncated; the message says what it is.
        SourceError: It is gone, or not permitted.
    """
    name = os.fspath(path)
    with hdf5.open_file(name) as file:
        nodes = {key: file[key] for key in hdf5.keys_of(file)}
        layouts = _recognise(nodes)
        datasets = tuple(_dataset(name, key, node) for key, node in nodes.items())
    inside = {member for layout in layouts for member in layout.members}
    free: dict[int, list[DatasetReport]] = defaultdict(list)
    groups: dict[int, list[str]] = defaultdict(list)
    for dataset in datasets:
        if not dataset.problem:
            groups[dataset.shape[0]].append(dataset.path)
            if dataset.path not in inside:
                free[dataset.shape[0]].append(dataset)
    events = _event_count(free, layouts)
    keys = tuple(dataset.path for dataset in free.get(events, ()))
    return FileReport(
        path=name,
        size=os.path.getsize(name),
        datasets=datasets,
        groups={rows: tuple(members) for rows, members in groups.items()},
        layouts=layouts,
        events=events,
        keys=keys,
        verdict=_verdict(events, keys, layouts, datasets),
    )


def check_directory(directory: str | os.PathLike[str], *, progress: Progress | None = None) -> DirectoryReport:
    """Look at all HDF5 files below a directory.

    Args:
        directory: Where to start; links are followed.
        progress: Called with (what is done, finished, total).

    Raises:
        SpecError: There is no such directory, or no HDF5 file in it.
    """
    name = os.fspath(directory)
    if not os.path.isdir(name):
        raise SpecError(f"{name!r} is no directory: name a directory, an HDF5 file or a specification")
    paths = hdf5_files(name)
    if not paths:
        raise SpecError(f"there is no file *{', *'.join(HDF5_SUFFIXES)} in {name!r}: name another directory")
    files, errors = [], list[HepfeedError]()
    for done, path in enumerate(paths, 1):
        try:
            files.append(check_file(path))
        except SourceError as error:
            errors.append(error)
        if progress:
            progress("opening files", done, len(paths))
    return DirectoryReport(name, tuple(files), _faults(errors))


def _dataset(path: str, key: str, node: h5py.Dataset) -> DatasetReport:
    plist = node.id.get_create_plist()
    info = DatasetInfo(
        key=key,
        shape=tuple(int(n) for n in node.shape or ()),
        dtype=node.dtype.str,
        storage="library",
        chunk=tuple(int(n) for n in node.chunks or ()),
        filters=tuple(plist.get_filter(i)[0] for i in range(plist.get_nfilters())),
        stored_bytes=int(node.id.get_storage_size()),
    )
    problem = _problem(path, key, node)
    return DatasetReport(key, info.shape, _type(node.dtype), info.chunk, info.codec, info.stored_bytes, problem)


def _problem(path: str, key: str, node: h5py.Dataset) -> str:
    """Say why a data set can't be a key."""
    if not node.shape:
        return "no event axis"
    if node.shape[0] == 0:
        return "no rows"
    if node.dtype.names or node.dtype.kind not in "biufc":
        return "not numbers"
    try:
        hdf5.describe(path, [key])
    except HepfeedError as error:
        return error.message
    return ""


def _type(dtype: np.dtype[Any]) -> str:
    """Name a type in words."""
    if dtype.names:
        return f"table of {len(dtype.names)} field{'s' if len(dtype.names) > 1 else ''}"
    if (base := h5py.check_vlen_dtype(dtype)) is not None:
        return f"variable length {base}"
    if h5py.check_string_dtype(dtype):
        return "text"
    if h5py.check_ref_dtype(dtype):
        return "reference"
    return str(dtype)


def _event_count(free: dict[int, list[DatasetReport]], layouts: tuple[Layout, ...]) -> int:
    """Choose the number of rows that counts events: as a layout says, else the one that most data sets share.

    Of several such it is that of the data sets with most axes: numbers beside images say less.
    """
    said = [layout.events for layout in layouts if layout.events in free]
    if said:
        return said[0] or 0

    def evidence(rows: int) -> tuple[int, int, int]:
        return len(free[rows]), max(len(dataset.shape) for dataset in free[rows]), -rows

    return max(free, key=evidence, default=0)


def _verdict(
    events: int, keys: tuple[str, ...], layouts: tuple[Layout, ...], datasets: tuple[DatasetReport, ...]
) -> str:
    named = _listed(list(keys), 8)
    if not layouts and keys:
        return f"can be fed: {events:,} events with {'the key' if len(keys) == 1 else 'the keys'} {named}"
    if not layouts:
        held = _listed([f"{d.path} ({d.problem if d.dtype in d.problem else d.dtype})" for d in datasets], 4)
        remedy = ": copy their columns to data sets of numbers" if "table of" in held else ""
        return f"can't be fed: no data set has numbers with one row an event; there are {held}{remedy}"
    seen = " and ".join(layout.sentence for layout in layouts[:2])
    more = f" and {len(layouts) - 2} more such" if len(layouts) > 2 else ""
    direct = (
        f"the data sets that can be fed directly are: {named} ({events:,} events)"
        if keys
        else "there is no data set that can be fed directly"
    )
    return (
        f"{seen}{more}; this layout can't be fed as dense keys yet: write arrays of one shape for every "
        f"event, as images or padded rows; {direct}"
    )


def _listed(names: list[str], most: int) -> str:
    return (", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")) or "none"


# ---- layouts with events of different lengths


def _recognise(nodes: Nodes) -> tuple[Layout, ...]:
    """Find all layouts, the one with most rows first; a data set belongs to the first that claims it."""
    found: list[Layout] = []
    claimed: set[str] = set()
    for recogniser in _RECOGNISERS:
        for layout in recogniser(nodes):
            if claimed.isdisjoint(layout.members):
                found.append(layout)
                claimed.update(layout.members)
    return tuple(sorted(found, key=lambda layout: -layout.rows))


def _ragged(name: str, how: str, events: int, rows: int, noun: str, members: Iterable[str]) -> Layout:
    sentence = f"ragged {noun}: {events:,} events, {rows:,} {noun} ({name}: {how})"
    return Layout(name, events, rows, noun, sentence, tuple(members))


def _fields(node: h5py.Dataset) -> tuple[str, ...]:
    return node.dtype.names or ()


def _below(nodes: Nodes, group: str) -> list[str]:
    return [path for path in nodes if path.startswith(f"{group}/")]


def _sides(path: str) -> tuple[str, str]:
    """Split a path into its group and its name."""
    group, _, name = path.rpartition("/")
    return group, name


def _rows(node: h5py.Dataset) -> int:
    return int(node.shape[0]) if node.shape else 0


def _km3net(nodes: Nodes) -> Iterator[Layout]:
    for path, node in nodes.items():
        group, name = _sides(path)
        if name == "_indices" and {"index", "n_items"} <= set(_fields(node)):
            members = _below(nodes, group)
            rows = max((_rows(nodes[m]) for m in members if m != path), default=0)
            yield _ragged("KM3NeT", f"{path} has index and n_items", _rows(node), rows, _sides(group)[1], members)


def _icetray(nodes: Nodes) -> Iterator[Layout]:
    for path, node in nodes.items():
        group, name = _sides(path)
        table = f"{_sides(group)[0]}/{name}".lstrip("/")
        if _sides(group)[1] == "__I3Index__" and {"start", "stop"} <= set(_fields(node)) and table in nodes:
            how = f"{path} has start and stop"
            yield _ragged("IceTray", how, _rows(node), _rows(nodes[table]), f"rows of {name}", (path, table))


def _lhe(nodes: Nodes) -> Iterator[Layout]:
    for path, node in nodes.items():
        group, _ = _sides(path)
        particles = f"{group}/particles".lstrip("/")
        columns = {_text(column) for column in np.ravel(node.attrs.get("properties", ()))} | set(_fields(node))
        if {"start", "nparticles"} <= columns and particles in nodes and particles != path:
            how = f"{path} has start and nparticles"
            yield _ragged("LHE", how, _rows(node), _rows(nodes[particles]), "particles", (particles,))


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _larcv(nodes: Nodes) -> Iterator[Layout]:
    for path, node in nodes.items():
        group, name = _sides(path)
        voxels = f"{group}/voxels"
        if name == "extents" and f"{group}/voxel_extents" in nodes and voxels in nodes:
            how = f"{group} has extents and voxel_extents"
            yield _ragged("larcv3", how, _rows(node), _rows(nodes[voxels]), "voxels", _below(nodes, group))


def _region_references(nodes: Nodes) -> Iterator[Layout]:
    """Tables of LArPix, whose events point to their hits with HDF5 region references."""
    for path, node in nodes.items():
        columns = [n for n in _fields(node) if h5py.check_ref_dtype(node.dtype[n]) is h5py.RegionReference]
        if not columns or "event" not in _sides(path)[1].lower():
            continue
        group, _ = _sides(path)
        targets = {c: f"{group}/{c.removesuffix('_ref')}s".lstrip("/") for c in columns}
        pointed = [target for target in targets.values() if target in nodes]
        if not pointed:
            continue
        longest = max(pointed, key=lambda target: _rows(nodes[target]))
        column = next(c for c, target in targets.items() if target == longest)
        how = f"{path} has region references {column}"
        yield _ragged("LArPix", how, _rows(node), _rows(nodes[longest]), _sides(longest)[1], (path, *pointed))


def _packets(nodes: Nodes) -> Iterator[Layout]:
    for path, node in nodes.items():
        if {"packet_type", "timestamp", "dataword"} <= set(_fields(node)):
            rows = _rows(node)
            sentence = (
                f"{rows:,} LArPix packets in the order of readout ({path}) without event boundaries: "
                "build events of them first, e.g. by gaps in time"
            )
            yield Layout("LArPix packets", None, rows, "packets", sentence, (path,))


def _offsets(nodes: Nodes) -> Iterator[Layout]:
    for path, node in nodes.items():
        group, name = _sides(path)
        if name != "offsets" or node.dtype.kind not in "iu" or node.ndim != 1 or _rows(node) < 2:
            continue
        rows = int(node[-1])
        members = [p for p in nodes if p != path and _sides(p)[0] == group and _rows(nodes[p]) == rows]
        if members:
            noun = _sides(group)[1] or "rows"
            how = f"{path} begins each event"
            yield _ragged("offsets", how, _rows(node) - 1, rows, noun, (path, *members))


def _sequence_counts(nodes: Nodes) -> Iterator[Layout]:
    for path, node in nodes.items():
        group, name = _sides(path)
        if name == "event_id.seq_cnt" and node.ndim == 2 and node.shape[1] == 2:
            rows = int(node[:, 1].sum())
            yield _ragged("pynuml", f"{path}", _rows(node), rows, f"rows of {_sides(group)[1]}", _below(nodes, group))


def _variable_length(nodes: Nodes) -> Iterator[Layout]:
    for path, node in nodes.items():
        if node.ndim != 1 or h5py.check_vlen_dtype(node.dtype) is None or h5py.check_string_dtype(node.dtype):
            continue
        some = node[:_MOST_RAGGED]
        rows = round(sum(map(len, some)) / max(1, len(some)) * _rows(node))
        noun = _sides(path)[1]
        name = "HDF5 variable length"
        about = "about " if _rows(node) > len(some) else ""
        sentence = f"ragged {noun}: {_rows(node):,} events, {about}{rows:,} items ({name}: {path})"
        yield Layout(name, _rows(node), rows, noun, sentence, (path,))


def _pandas_fixed(nodes: Nodes) -> Iterator[Layout]:
    for path, node in nodes.items():
        group, name = _sides(path)
        if name != "axis0" or f"{group}/axis1" not in nodes or f"{group}/block0_values" not in nodes:
            continue
        columns, rows = _rows(node), _rows(nodes[f"{group}/axis1"])
        ids = _pandas_column(nodes, group)
        how = "pandas, fixed layout: the columns lie in blocks by type"
        head = f"{rows:,} rows of {columns} columns in {group} ({how})"
        if ids is None or len(np.unique(ids)) == len(ids):
            yield Layout("pandas", rows, rows, "rows", head, (path, f"{group}/axis1"))
            continue
        events = len(np.unique(ids))
        sentence = f"ragged rows: {events:,} events, {head}"
        yield Layout("pandas", events, rows, "rows", sentence, tuple(_below(nodes, group)))


def _pandas_column(nodes: Nodes, group: str) -> NDArray[Any] | None:
    """Return the column that numbers events."""
    for items in _below(nodes, group):
        if not items.endswith("_items") or items.replace("_items", "_values") not in nodes:
            continue
        names = [_text(name) for name in nodes[items][...]]
        for place, name in enumerate(names):
            if name in _EVENT_COLUMNS:
                return np.asarray(nodes[items.replace("_items", "_values")][:, place])
    return None


def _pandas_table(nodes: Nodes) -> Iterator[Layout]:
    for path, node in nodes.items():
        if {"index", "values_block_0"} <= set(_fields(node)):
            width = math.prod(node.dtype["values_block_0"].shape)
            sentence = f"{_rows(node):,} rows with a block of {width:,} columns ({path}: pandas, table layout)"
            yield Layout("pandas", _rows(node), _rows(node), "rows", sentence, (path,))


_EVENT_COLUMNS = ("event", "event_id", "evt", "event_number", "eventID", "evid", "Event", "group_id")


def _row_tables(nodes: Nodes) -> Iterator[Layout]:
    """Tables with several rows an event, and a column with the event's number."""
    for path, node in nodes.items():
        column = next((name for name in _EVENT_COLUMNS if name in _fields(node)), None)
        if column is None or node.ndim != 1 or node.dtype[column].kind not in "iuf":
            continue
        ids = node.fields(column)[:_MOST_IDS]
        events = len(np.unique(ids))
        if events < len(ids):
            about = f", counted in the first {len(ids):,} rows" if len(ids) < _rows(node) else ""
            how = f"column {column!r} of {path} has the event's number{about}"
            yield _ragged("row table", how, events, _rows(node), "rows", (path,))


def _row_arrays(nodes: Nodes) -> Iterator[Layout]:
    """Arrays ``(rows, columns)`` with the event's number in column 0, beside data with one row an event."""
    counts = Counter(_rows(node) for node in nodes.values())
    for path, node in nodes.items():
        if node.ndim != 2 or node.dtype.kind not in "iuf" or not 2 <= node.shape[1] <= 64 or _rows(node) < 2:
            continue
        if not any(1 < count < _rows(node) for count in counts):
            continue
        ids = np.asarray(node[:_MOST_IDS, 0])
        events = int(np.count_nonzero(np.diff(ids))) + 1
        numbers = np.isfinite(ids).all() and (ids == np.round(ids)).all() and (np.diff(ids) >= 0).all()
        if numbers and len(ids) == _rows(node) and 1 < events < len(ids) and counts[events]:
            noun = "hits" if "hit" in path.lower() else "rows"
            how = f"column 0 of {path} has the event's number"
            yield _ragged("row table", how, events, _rows(node), noun, (path,))


_Recogniser: TypeAlias = Callable[[Nodes], Iterator[Layout]]
_RECOGNISERS: tuple[_Recogniser, ...] = (
    _km3net,
    _icetray,
    _lhe,
    _larcv,
    _region_references,
    _packets,
    _offsets,
    _sequence_counts,
    _variable_length,
    _pandas_fixed,
    _pandas_table,
    _row_tables,
    _row_arrays,
)
