"""Opens all files of a specification, and reports on them."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace

import numpy as np

from hepfeed.check.reading import Contents, batch_size_of, measure_reading
from hepfeed.check.reports import ClassReport, KeyReport, KeyStorage, SpecReport
from hepfeed.check.rules import changes
from hepfeed.errors import HepfeedError, SpecError
from hepfeed.fault import Fault
from hepfeed.filler import Filler
from hepfeed.hdf5 import DatasetInfo
from hepfeed.index import EventIndex, KeyInfo
from hepfeed.progress import Progress
from hepfeed.spec import SampleSpec
from hepfeed.store import IndexStore

__all__ = ["check_spec"]


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
        filler = Filler(found, batch_size=batch_size_of(found))
        contents = {key.name: Contents() for key in found.keys}
        cost = None
        if measure:
            cost, failures = measure_reading(filler, contents, events, progress)
            faults += failures
        keys = tuple(_key(found, key, contents[key.name]) for key in found.keys)
        return SpecReport(_classes(spec, found), keys, _each_once(faults), cost, tuple(changes(found, filler, keys)))


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


def _key(found: EventIndex, key: KeyInfo, contents: Contents) -> KeyReport:
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
