"""The caches that a reader reads from and writes to."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hepfeed.draws import Draws
from hepfeed.errors import HepfeedError, ProcessError, ReaderError, ResourceError
from hepfeed.form import StreamForm
from hepfeed.parts.buffer import EventBuffer
from hepfeed.parts.form import ArrayForm
from hepfeed.parts.memory import write_to_memory
from hepfeed.parts.part import Part
from hepfeed.parts.reader import Allocate, Fetched, PartReader
from hepfeed.parts.table import CacheTable
from hepfeed.parts.writer import PartsWritten, PartWriter
from hepfeed.revocable_view import RevocableView
from hepfeed.tasks import Recall
from hepfeed.tensors import Batch

if TYPE_CHECKING:
    from hepfeed.pipeline import Pipeline

__all__ = ["Caches", "NoSteps"]


class NoSteps:
    """A pipeline without steps, for which nothing need be imported."""

    cached = 0

    def __len__(self) -> int:
        return 0

    def __call__(self, batch: Batch, draws: Draws, restore: bool = True) -> Batch:
        """Return the batch."""
        return batch

    after_cache = __call__

    def before_cache(
        self,
        batch: Batch,
        draws: Draws,
        restore: bool = True,
        on_random: Callable[[HepfeedError], None] | None = None,
    ) -> Batch:
        """Return the batch."""
        return batch


class Caches:
    """Reads and writes parts of caches in this process.

    Args:
        memory: Gives the bytes of a slot of shared memory: ``memory(slot, size)``.
        alone: Whether this process has nothing else to do, so that it may catch bus errors.
        sharers: Readers of this process, which have its descriptors in common.
    """

    def __init__(self, memory: Callable[[int, int], NDArray[np.uint8]], alone: bool, sharers: int = 1) -> None:
        self._memory, self._alone, self._sharers = memory, alone, sharers
        self._writers: dict[str, PartWriter] = {}
        self._reader: PartReader | None = None
        self._views: dict[str, RevocableView] = {}  # of parts in memory, by the key of the cache
        self._granted: dict[str, deque[int]] = {}
        self._abandoned = False

    def add(self, table: CacheTable, parts: Mapping[int, tuple[Part, int]]) -> None:
        """Make a cache known, and parts of it: number -> part and the number of its first block."""
        if self._reader is None:
            self._reader = PartReader(self._memory, self._alone, self._views, self._sharers)
        self._reader.add_cache(table)
        if parts:
            self._reader.add_parts(table.key, parts)

    def add_memory(self, key: str, path: str) -> None:
        """Make the shared memory of a cache known.

        Raises:
            OSError: It is gone.
        """
        if key not in self._views:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                self._views[key] = RevocableView(descriptor)
            finally:
                os.close(descriptor)

    def grant(self, key: str, slot: int) -> None:
        """Allow the next part of a cache to be written to a slot of its memory."""
        self._granted.setdefault(key, deque()).append(slot)

    def _to_memory(self, key: str, buffer: EventBuffer) -> Part | None:
        granted = self._granted.get(key)
        if not granted:
            return None
        slot = granted.popleft()
        try:
            return write_to_memory(self._views[key], slot, buffer)
        except ResourceError:
            return None

    def fetch(self, form: StreamForm, task: Recall, allocate: Allocate, bounds: Sequence[int] = ()) -> Fetched:
        """Read those events of a batch that the cache has; ``bad`` is true for the others too.

        Args:
            form: Of the stream.
            task: The batch.
            allocate: As in :meth:`hepfeed.parts.reader.PartReader.fetch`, and so are ``bounds``.
            bounds: Of several batches that are read as one; none of their events is missing.
        """
        assert self._reader is not None, "the cache was added"
        assert form.cache is not None
        key, _ = form.cache
        there = task.part >= 0
        if there.all():
            return self._reader.fetch(key, task.part, task.at, task.runs, allocate, bounds)
        here = np.flatnonzero(there)
        runs = {path: (start[here], count[here]) for path, (start, count) in task.runs.items()}
        fetched = self._reader.fetch(key, task.part[here], task.at[here], runs, allocate)
        bad = ~there
        bad[here] = fetched.bad
        fetched.bad = bad
        return fetched

    def forms(self, form: StreamForm) -> tuple[ArrayForm, ...]:
        """Return the arrays of a batch of a stream's cache."""
        assert self._reader is not None, "the cache was added"
        assert form.cache is not None
        return self._reader.forms(form.cache[0])

    def process(
        self,
        form: StreamForm,
        pipeline: Pipeline | NoSteps,
        batch: Batch,
        draws: Draws,
        restore: bool,
        fresh: NDArray[np.bool_] | None,
    ) -> Batch:
        """Run the steps before the cache point, and write what comes out.

        Args:
            form: Of the stream.
            pipeline: The steps.
            batch: Before them.
            draws: Of all its events.
            restore: As in :class:`~hepfeed.pipeline.Pipeline`.
            fresh: ``(n,)`` which events are to be written; None for none.
        """
        writer = None if fresh is None else self._writer(form)
        if writer is None or writer.failed or self._abandoned:
            return pipeline.before_cache(batch, draws, restore)
        given = draws.event
        weight = batch.get("weight")
        result = pipeline.before_cache(batch, draws, restore, writer.refuse)
        try:
            if weight is not None and not _same_weights(given, weight, result):
                raise ProcessError("a step before the cache point changes 'weight': put 'cache' before it")
            writer.add(result, given, fresh)
        except ProcessError as error:
            writer.refuse(error)
        return result

    def _writer(self, form: StreamForm) -> PartWriter:
        assert form.cache is not None
        key, directory = form.cache
        writer = self._writers.get(key)
        if writer is None:
            elsewhere = partial(self._to_memory, key)
            writer = self._writers[key] = PartWriter(directory, key.partition(":")[0], form.part_bytes, elsewhere)
        return writer

    def report(self, form: StreamForm) -> PartsWritten | None:
        """Return what was written to a stream's cache since the last report."""
        writer = self._writers.get(form.cache[0]) if form.cache else None
        return None if writer is None else writer.report()

    def flush(self, form: StreamForm) -> PartsWritten:
        """Write all that was collected for a stream's cache."""
        writer = self._writers.get(form.cache[0]) if form.cache else None
        return PartsWritten([]) if writer is None else writer.close()

    def abandon(self) -> None:
        """Write nothing more, neither to files nor to memory; may be called from any thread.

        Raises:
            OSError: The mappings of shared memory can't be taken back.
        """
        self._abandoned = True
        for view in list(self._views.values()):
            view.revoke()

    def close(self) -> None:
        """Write what was collected, and close all files."""
        for writer in self._writers.values():
            if self._abandoned:
                writer.refuse(ReaderError("a reader was given up: what it had collected for the cache is lost"))
            writer.close()
        self._writers.clear()
        if self._reader is not None:
            self._reader.close()
        for view in self._views.values():
            view.forget()


def _same_weights(given: NDArray[np.int64], weight: NDArray[np.float32], result: Batch) -> bool:
    """Whether the events that are left have the weights that they had."""
    event = np.asarray(result.get("event", given))
    if len(event) == len(given):
        return np.array_equal(np.asarray(result.get("weight")), weight)
    before = dict(zip(map(tuple, given.tolist()), weight.tolist()))
    return bool([before.get(tuple(each)) for each in event.tolist()] == np.asarray(result.get("weight")).tolist())
