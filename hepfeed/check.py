"""What a specification holds, what is wrong, what reading it costs, and what to change.

Nothing is printed and nothing is written here: ``hepfeed check`` shows the findings.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.filesize import decimal

from hepfeed.errors import HepfeedError, SpecError
from hepfeed.fault import Fault
from hepfeed.filler import Filler, Window
from hepfeed.form import StreamForm, place_keys
from hepfeed.hdf5 import DatasetInfo
from hepfeed.index import EventIndex, KeyInfo, Source
from hepfeed.pool import ReaderPool
from hepfeed.progress import Progress
from hepfeed.spec import SampleSpec
from hepfeed.stats import StageClock
from hepfeed.store import IndexStore
from hepfeed.stream import NO_PIPELINE, Stream
from hepfeed.tensors import Jagged, take

__all__ = ["ClassReport", "KeyReport", "KeyStorage", "ReadCost", "SpecReport", "check_spec"]

_MEASURED_EVENTS = 2048
_MEASURING_S = 5.0
_BATCH_EVENTS, _BATCH_BYTES = 128, 64 << 20
_GOOD_CHUNK_BYTES = 1 << 20
_SMALL_CHUNK_BYTES = 32 << 10
_SMALL_PIECE_BYTES = 256 << 10
_LARGE_CHUNK_BYTES = 16 << 20
_SMALL_DATA_BYTES = 4 << 20  # less than this of a key is read in no time, however it is stored
_SPARSE = 0.05


# ---- findings


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
        faults = [Fault.of(error) for error in errors]
        if found is None:
            return SpecReport(_classes(spec, None), (), _each_once(faults), None, ())
        filler = Filler(found, batch_size=_batch_size(found))
        contents = {key.name: _Contents() for key in found.keys}
        cost = None
        if measure:
            cost, failures = _measure(filler, contents, events, progress)
            faults += failures
        keys = tuple(_key(found, key, contents[key.name]) for key in found.keys)
        return SpecReport(_classes(spec, found), keys, _each_once(faults), cost, tuple(_advise(found, filler, keys)))


def _each_once(faults: list[Fault]) -> tuple[Fault, ...]:
    return tuple(dict.fromkeys(faults))


def _open(
    spec: SampleSpec, store: IndexStore, progress: Progress | None
) -> tuple[EventIndex | None, list[HepfeedError]]:
    """Index the files that can be read and fit together; the errors of others, or why there is no index."""
    try:
        found = EventIndex(spec, store=store, on_error="skip", progress=progress)
    except HepfeedError as error:
        return None, _one_by_one(spec, store, progress) or [error]
    return found, found.skipped


def _one_by_one(spec: SampleSpec, store: IndexStore, progress: Progress | None) -> list[HepfeedError]:
    """Return the error of each file for itself, whatever the filter."""
    errors = []
    single = [
        replace(sample, files=(path,), patterns=(path,), rate=None, file_rates=None, filter=None)
        for sample in spec.samples
        for path in sample.files
    ]
    for done, sample in enumerate(single, 1):
        try:
            EventIndex(SampleSpec([sample], classes=spec.classes, dtypes=spec.dtypes), store=store)
        except HepfeedError as error:
            errors.append(error)
        if progress:
            progress("looking at single files", done, len(single))
    return errors


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
) -> tuple[ReadCost, list[Fault]]:
    """Read windows of the first epoch as a reader does, and look at what they contain."""
    found, clock, faults = filler.index, StageClock(), list[Fault]()
    keys = [(key.name, key.dtype, key.shape, key.rows) for key in found.keys]
    form = StreamForm(*place_keys(keys, filler.batch_size), "check", NO_PIPELINE, seed=0, skip_errors=True)
    wanted = min(events or _MEASURED_EVENTS, len(found))
    seen = 0
    with contextlib.closing(ReaderPool(0)) as pool:
        stream = Stream(
            pool,
            _first_windows(filler, wanted, None if events else time.monotonic() + _MEASURING_S),
            form,
            found,
            in_flight=filler.window_batches,
            on_error="skip",
            clock=clock,
            on_skip=lambda error: faults.append(Fault.of(error)),
        )
        while (delivery := stream.next(0)) is not None:
            for name, values in form.arrays(delivery.memory, delivery.events, delivery.counts).items():
                some = values if delivery.kept is None else take(values, delivery.kept)
                contents[name].add(some.values if isinstance(some, Jagged) else some)
            seen += len(delivery.spec)
            if progress:
                progress("reading events", min(seen, wanted), wanted)
        stream.close()
    return _cost(filler, clock, seen), faults


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
