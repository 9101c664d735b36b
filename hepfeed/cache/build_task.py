"""One task of a build: reads some events, runs the steps before the cache point, and writes parts.

It is a function of its arguments alone, so that it runs in this process, in another one, or on another machine.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hepfeed.cache.plan import batch_edges
from hepfeed.cache.sums import Sums, part_sums
from hepfeed.caches import Caches
from hepfeed.draws import Draws
from hepfeed.errors import HepfeedError
from hepfeed.form import StreamForm, empty_batch
from hepfeed.hdf5 import ChunkTable, KeyTable, SourceTable
from hepfeed.index import Source
from hepfeed.parts.form import ArrayForm, forms_of
from hepfeed.parts.part import Part
from hepfeed.pipeline import Pipeline
from hepfeed.reader import process_error
from hepfeed.source_reader import SourceReader
from hepfeed.store import IndexStore, load_tables
from hepfeed.tensors import Batch, take
from hepfeed.worker import note

__all__ = ["BuildTask", "TaskResult", "build_task"]

Ints = NDArray[np.int64]
_MOST_FAULTS = 20  # of a task that are reported; all are counted


@dataclass(frozen=True)
class BuildTask:
    """Events to process.

    Attributes:
        file: ``(n,)`` number of the file of each event, ascending.
        row: ``(n,)`` row in it.
        label: ``(n,)`` class index.
        weight: ``(n,) float32``, where events have weights.
        size: ``(n,)`` delivered bytes.
        block: ``(n,)`` number of the block whose events share chunks.
        sources: The files by number.
    """

    file: Ints
    row: Ints
    label: Ints
    weight: NDArray[np.float32] | None
    size: Ints
    block: Ints
    sources: dict[int, Source]


@dataclass
class TaskResult:
    """What became of a task.

    Attributes:
        parts: That were written.
        sums: Of each part.
        skipped: Events that were left out because of an error.
        faults: The first errors.
    """

    parts: list[Part] = field(default_factory=list)
    sums: dict[str, Sums] = field(default_factory=dict)
    skipped: list[tuple[int, int]] = field(default_factory=list)
    faults: list[HepfeedError] = field(default_factory=list)


def build_task(form: StreamForm, store: IndexStore, task: BuildTask) -> TaskResult:
    """Process the events of a task, and write them to parts of the cache that ``form`` names.

    Notes the number of events and their delivered bytes after each batch; see :func:`hepfeed.worker.note`.

    Args:
        form: What all tasks have in common.
        store: The index file, for the chunk tables; where it is not there the files are asked again.
        task: The events.

    Raises:
        SourceError: A file can't be read, or a part can't be written.
        CorruptDataError: An event can't be read.
        ResourceError: The disk is full.
        ProcessError: A step raised, or what it makes can't be cached.
    """
    if not len(task.row):
        return TaskResult()
    job = _Job(form, store, task)
    try:
        edges = batch_edges(task.size, task.block)
        for low, high in zip(edges[:-1].tolist(), edges[1:].tolist()):
            job.batch(np.arange(low, high))
            note((high - low, int(task.size[low:high].sum())))
        return job.finish()
    except (BrokenPipeError, ConnectionResetError):  # nobody waits for the result any more
        job.abandon()
        raise
    finally:
        job.close()


class _Job:
    """A task at work."""

    def __init__(self, form: StreamForm, store: IndexStore, task: BuildTask) -> None:
        self._form, self._task = form, task
        self._pipeline = _pipeline(form.pipeline)
        self._reader = SourceReader()
        self._reader.add_files(form.catalog, {n: _table(source, store, form) for n, source in task.sources.items()})
        self._caches = Caches(_no_slot, alone=True)
        self._forms: tuple[ArrayForm, ...] = ()
        self._made: Batch = {}
        self._result = TaskResult()

    def batch(self, here: Ints) -> None:
        """Process some events of the task."""
        batch, lost = self._read(here)
        for i, error in sorted(lost.items()):
            self._skip(int(here[i]), error)
        if lost:
            kept = np.setdiff1d(np.arange(len(here)), list(lost))
            batch, here = {name: take(values, kept) for name, values in batch.items()}, here[kept]
        if not len(here):
            return
        try:
            self._run(batch, here)
        except Exception as error:
            self._run_each(here, error)
        self._check()
        if not self._forms and self._made:
            self._forms = forms_of(self._made)
        self._made = {}

    def _read(self, here: Ints) -> tuple[Batch, dict[int, HepfeedError]]:
        """Read events to arrays of their own; returns also the errors of those that can't be read."""
        task, form = self._task, self._form
        file, row = task.file[here], task.row[here]
        counts = self._reader.counts(form.catalog, file, row, form.keys)
        batch, addresses = empty_batch(form.keys, len(here), counts)
        _, failed = self._reader.read_events(form.catalog, file, row, addresses)
        batch |= {"label": task.label[here], "event": np.stack([file, row], 1)}
        if task.weight is not None:
            batch["weight"] = task.weight[here]
        return batch, failed

    def _run(self, batch: Batch, here: Ints) -> None:
        event = np.stack([self._task.file[here], self._task.row[here]], 1)
        draws = Draws(self._form.seed, 0, 0, event)
        fresh = np.ones(len(here), bool)
        self._made = self._caches.process(self._form, self._pipeline, batch, draws, True, fresh)

    def _run_each(self, here: Ints, first: Exception) -> None:
        """Run the steps on each event alone, to find for which they raise.

        Raises:
            ProcessError: They raise for an event, which is not to be skipped; or for none, but for all together.
        """
        failures = 0
        for i in here.tolist():
            alone = np.array([i])
            batch, _ = self._read(alone)
            try:
                self._run(batch, alone)
            except Exception as error:
                failures += 1
                self._skip(i, error)
        if not failures:
            path, row = self._path(int(here[0])), int(self._task.row[here[0]])
            raise process_error(first, path, row) from first

    def _skip(self, i: int, error: Exception) -> None:
        path, row = self._path(i), int(self._task.row[i])
        found = (
            error if isinstance(error, HepfeedError) and error.event is not None else process_error(error, path, row)
        )
        if not self._form.skip_errors:
            raise found from error
        self._result.skipped.append((int(self._task.file[i]), row))
        if len(self._result.faults) < _MOST_FAULTS:
            self._result.faults.append(found)

    def _path(self, i: int) -> str:
        return self._reader.path(self._form.catalog, int(self._task.file[i]))

    def _check(self) -> None:
        """Take in what was written.

        Raises:
            HepfeedError: Something can't be written.
        """
        report = self._caches.report(self._form)
        if report is not None:
            self._result.parts += report.parts
            if report.error is not None:
                raise report.error

    def finish(self) -> TaskResult:
        """Write what is left, and return what became of all."""
        written = self._caches.flush(self._form)
        self._result.parts += written.parts
        if written.error is not None:
            raise written.error
        assert self._form.cache is not None
        _, directory = self._form.cache
        self._result.sums = {part.name: part_sums(part, directory, self._forms) for part in self._result.parts}
        return self._result

    def abandon(self) -> None:
        """Forget what was not written yet."""
        self._caches = Caches(_no_slot, alone=True)

    def close(self) -> None:
        """Write what was collected, and close all files."""
        self._caches.close()
        self._reader.close()


def _no_slot(slot: int, size: int) -> NDArray[np.uint8]:
    raise AssertionError("a build has no shared memory")


@lru_cache(maxsize=1)
def _pipeline(pickled: bytes) -> Pipeline:
    pipeline: Pipeline = pickle.loads(pickled)
    return pipeline


def _table(source: Source, store: IndexStore, form: StreamForm) -> SourceTable:
    """Return what is needed to read a file."""
    chunks: dict[str, ChunkTable] = load_tables(source.info, store)
    keys: dict[str, KeyTable] = {}
    for key in form.keys:
        dataset = source.dataset(key.name)
        table = chunks.get(dataset.key, ChunkTable.empty())
        keys[key.name] = KeyTable(source.column(key.name), dataset, table, key.dtype)
    info = source.info
    return SourceTable(info.path, info.size, info.mtime_ns, keys, info.extents)
