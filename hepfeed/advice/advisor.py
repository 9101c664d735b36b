"""Predicts the speed of a specification, as it is and otherwise."""

from __future__ import annotations

import math
import os
import shlex
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from hepfeed.advice.alternatives import Trial
from hepfeed.advice.choices import Choices
from hepfeed.advice.disk import disk_rate
from hepfeed.advice.excerpt import Excerpt, heavy_datasets
from hepfeed.advice.meter import Meter
from hepfeed.advice.report import Advice
from hepfeed.advice.sentences import sentences
from hepfeed.check.forms import FORMS, chunk_of
from hepfeed.dataset import EventDataset
from hepfeed.errors import HepfeedError, SpecError
from hepfeed.index import EventIndex
from hepfeed.pipeline import Pipeline
from hepfeed.prediction import EventCost, Host
from hepfeed.processors import usable_processors
from hepfeed.progress import Progress
from hepfeed.ring import available_memory
from hepfeed.spec import SampleSpec, as_spec

__all__ = ["advise"]

_SECONDS = 10.0
_EXCERPT_BYTES = 24 << 20
_LARGEST_EXCERPT_BYTES = 96 << 20
_EXCERPT_CLASSES = 4
_MOST_READERS = 16  # that are started to see what cores cost one another
_SPARSE = 0.05
_FEW_BATCHES = 20  # of an epoch whose start is no small part of it
_TODAY, _CORES, _DISK, _FORMS, _CACHES = 0.25, 0.15, 0.1, 0.35, 0.15
"""Parts of the time for measuring."""


def advise(
    spec: SampleSpec | str | os.PathLike[str],
    *,
    batch_size: int | None = None,
    readers: int | None = None,
    step_s: float | None = None,
    seconds: float | None = None,
    cold: bool = False,
    index: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Advice:
    """Predict events/s of a specification on this machine, as it is and with other storage, readers, or a cache.

    Events are read for some seconds by a reader process, and some of them written to a temporary folder in other forms
    and read from there.  What is measured is the processor time of each event, on both sides; what follows from it is
    said in :mod:`hepfeed.prediction`.  It is what the feed reaches on a machine that does nothing else.

    Args:
        spec: The specification, or the path of its file.
        batch_size: Events of a batch; default: that of the specification's ``loader``.
        readers: Of today's feed; default: as for ``batch_size``.
        step_s: Seconds that a device computes on a batch.
        seconds: To measure for, about, by default 10; starting readers and writing files come on top of it.
        cold: Predict for files that come from the disk each time, and not from the page cache.
        index: Path of the index file; by default the user's own.
        progress: Called with (what is done, finished, total).

    Raises:
        SpecError: An option is out of its range, or there is no event to read; files at fault are left out.
    """
    seconds = _SECONDS if seconds is None else seconds
    _above("seconds", seconds, 0)
    _above("the time of a step", 1 if step_s is None else step_s, 0)
    _above("batch_size", 1 if batch_size is None else batch_size, 0)
    _above("the number of readers", 1 if readers is None else readers, -1)
    name = "SPEC" if isinstance(spec, SampleSpec) else os.fspath(spec)
    read = as_spec(spec)
    dataset = EventDataset(read, on_error="skip", index=index, progress=progress)
    options = read.loader.chosen(batch_size=batch_size, num_workers=readers)
    size, window = options["batch_size"], options["window_events"]
    tell = _Told(progress)
    notes: list[str] = []
    with Meter(1, size, window) as meter:
        today = meter.sources(dataset, seconds * _TODAY)
        tell()
        cores = max(1, round(usable_processors()))
        host = Host(cores, _contention(dataset, today, min(cores, _MOST_READERS), size, window, seconds * _CORES))
        tell()
        host = replace(host, disk_bytes_per_s=_disk(dataset, cold, seconds * _DISK, notes))
        tell()
        filler = meter.filler(dataset)
        choices = Choices(host, options["num_workers"], size, filler.events(0), step_s)
        choices.today(today)
        if choices.events < _FEW_BATCHES * size:
            count = -(-choices.events // size)
            notes.append(f"The start of an epoch is not predicted, and counts where one has so few batches ({count}).")
        if filler.order == "window":
            choices.shuffled(today, max(source.block for source in dataset.index.sources))
        try:
            excerpt = Excerpt(dataset.index, _excerpt_events(dataset.index, size))
        except (HepfeedError, OSError) as error:
            notes.append(f"Neither other files nor a cache are predicted: {error}")
        else:
            with tempfile.TemporaryDirectory(prefix="hepfeed-advice-") as folder:
                trial = Trial(excerpt, dataset.index, today, meter, Path(folder))
                _try_forms(trial, excerpt, choices, seconds * _FORMS, tell)
                _try_caches(trial, excerpt, choices, dataset, name, seconds * _CACHES, notes, tell)
        tell(last=True)
    return Advice(
        batch_size=size,
        readers=options["num_workers"],
        cores=cores,
        contention=host.contention,
        disk_bytes_per_s=host.disk_bytes_per_s,
        events=choices.events,
        event_bytes=dataset.index.event_bytes,
        order=filler.order,
        block=max(source.block for source in dataset.index.sources),
        choices=tuple(choices.found),
        sentences=sentences(choices.found),
        notes=tuple(notes),
    )


def _above(what: str, value: float, bound: float) -> None:
    if not bound < value < math.inf:
        raise SpecError(f"{what} must be above {bound}{' and finite' * (value == math.inf)}, not {value}")


class _Told:
    """Tells how many measurements are done."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._total = 5 + len(FORMS)
        self._done = -1
        self()

    def __call__(self, last: bool = False) -> None:
        self._done = self._total if last else min(self._done + 1, self._total)
        if self._progress:
            self._progress("measuring", self._done, self._total)


def _contention(
    dataset: EventDataset, today: EventCost, readers: int, batch_size: int, window: int | None, seconds: float
) -> float:
    """Return by how much an event gets dearer with each further core that is busy."""
    if readers < 2:
        return 0.0
    with Meter(readers, batch_size, window) as meter:
        busy = meter.sources(dataset, seconds)
    return max(0.0, busy.reader / max(today.reader, 1e-12) - 1) / (readers - 1)


def _disk(dataset: EventDataset, cold: bool, seconds: float, notes: list[str]) -> float | None:
    """Return what the disk delivers, where that counts."""
    if not cold:
        notes.append("This is for files that the page cache holds; --cold predicts for files that come from the disk.")
        return None
    files = dataset.files
    rate = disk_rate(files[:: max(1, len(files) // 16)], seconds)
    if rate is None:
        notes.append(
            "The file system can't read past the page cache, so that this is for files that the page cache holds."
        )
    return rate


def _excerpt_events(index: EventIndex, batch_size: int) -> int:
    """Return how many events of each class an excerpt takes: some batches, and whole chunks of any form."""
    classes = min(len(index.groups), _EXCERPT_CLASSES)
    size = max(1, index.event_bytes) * classes
    events = max(_EXCERPT_BYTES // size, 2 * batch_size // classes, 1)
    if not index.jagged:
        info = heavy_datasets(index)[0]
        events = max(events, *(chunk[0] for form in FORMS if (chunk := chunk_of(form, info))))
    return min(events, max(1, _LARGEST_EXCERPT_BYTES // size))


def _try_forms(trial: Trial, excerpt: Excerpt, choices: Choices, seconds: float, tell: _Told) -> None:
    forms = trial.forms
    for form in forms:
        cost, size = trial.form(form, seconds / len(forms))
        choices.form(form, cost, size, excerpt.heavy)
        tell()


def _try_caches(
    trial: Trial,
    excerpt: Excerpt,
    choices: Choices,
    dataset: EventDataset,
    name: str,
    seconds: float,
    notes: list[str],
    tell: _Told,
) -> None:
    """Add a cache, and one of sparse images where there are such."""
    memory = available_memory()
    build = f'hepfeed cache build {shlex.quote(name)} -o caches/, then train with cache="caches/"'
    try:
        choices.cache(trial.cache(dataset.pipeline, seconds / 2), memory, build)
        tell()
        keys = list(_sparse_keys(dataset, excerpt))
        if keys and len(dataset.pipeline):
            notes.append("Sparse images are not predicted, because the specification has steps already.")
        elif keys:
            step = {"sparsify": {"keys": keys}}
            command = f"transforms: [{{sparsify: {{keys: [{', '.join(keys)}]}}}}] in the specification, then {build}"
            choices.sparse(keys, trial.cache(Pipeline([step]), seconds / 2), memory, command)
            tell()
    except HepfeedError as error:
        notes.append(f"A cache is not predicted: {error}")


def _sparse_keys(dataset: EventDataset, excerpt: Excerpt) -> Iterator[str]:
    """Yield the keys that are images of which few cells are not 0."""
    heavy = {info.key for info in excerpt.heavy}
    for key in dataset.index.keys:
        column = dataset.index.sources[0].column(key.name)
        image = not key.rows and len(key.shape) >= 2 and column.plain and key.dtype.kind in "biuf"
        if image and column.dataset in heavy and excerpt.occupancy(column.dataset) < _SPARSE:
            yield key.name
