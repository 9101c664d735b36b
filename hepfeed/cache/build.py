"""The builder: processes all events of a specification into a cache, before anything trains on it."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cloudpickle
import numpy as np
from numpy.typing import NDArray

from hepfeed.cache.build_task import BuildTask, TaskResult
from hepfeed.cache.inventory import Inventory, caches_below
from hepfeed.cache.key import CacheKey, Identity, make_key
from hepfeed.cache.lock import not_writable, writer_lock
from hepfeed.cache.plan import block_numbers, event_sizes, task_edges
from hepfeed.cache.shards import Shard, ShardNote, remove_notes
from hepfeed.cache.stock import Stock
from hepfeed.cache.store import cache_directory
from hepfeed.cache.verify import damaged_parts
from hepfeed.channel import Reply
from hepfeed.errors import CorruptDataError, HepfeedError, SourceError, SpecError
from hepfeed.form import StreamForm
from hepfeed.index import EventIndex, OnError
from hepfeed.parts.writer import PART_BYTES
from hepfeed.pipeline import Pipeline, Transform
from hepfeed.progress import Progress
from hepfeed.spec import SampleSpec, as_spec
from hepfeed.store import IndexStore
from hepfeed.worker import call_everywhere

__all__ = ["BuildProgress", "BuildReport", "build_cache"]

Ints = NDArray[np.int64]
_logger = logging.getLogger("hepfeed")
_FUNCTION = "hepfeed.cache.build_task:build_task"


@dataclass(frozen=True)
class BuildProgress:
    """How far a build has come.

    Attributes:
        events: Events that are done, those of earlier builds too.
        total: Events of the build, or of the shard.
        bytes: Of all parts.
        dense_bytes: That the events of this build take as they are delivered.
        written: Bytes that this build wrote.
    """

    events: int
    total: int
    bytes: int
    dense_bytes: int
    written: int


@dataclass(frozen=True)
class BuildReport:
    """What a build did.

    Attributes:
        directory: Of the cache.
        events: Events that the specification selects.
        processed: Events that this build took through the steps.
        removed: Events that the steps took out, of all builds.
        skipped: Events that this build left out because of an error.
        missing: Events that the cache does not have.
        bytes: Of all parts.
        seconds: That this build took.
        complete: Whether nothing is missing; of a shard: nothing of its share.
        full: Whether it ended because of ``max_bytes``.
        faults: The first errors of skipped events.
    """

    directory: str
    events: int
    processed: int
    removed: int
    skipped: int
    missing: int
    bytes: int
    seconds: float
    complete: bool
    full: bool = False
    faults: tuple[str, ...] = ()


def build_cache(
    spec: SampleSpec | Sequence[Any] | str | os.PathLike[str],
    directory: str | os.PathLike[str],
    *,
    transform: Sequence[Transform] | Transform | None = None,
    on_nonfinite: Literal["raise", "zero", "drop"] | None = None,
    on_error: OnError = "raise",
    identity: Identity = "stat",
    workers: int | None = None,
    resume: bool = False,
    fresh: bool = False,
    shard: Shard | None = None,
    dask: str | None = None,
    max_bytes: float | None = None,
    part_bytes: int = PART_BYTES,
    verify: bool = False,
    index: str | os.PathLike[str] | None = None,
    opening: Progress | None = None,
    progress: Callable[[BuildProgress], None] | None = None,
    on_wait: Callable[[str], None] | None = None,
) -> BuildReport:
    """Process every event that a specification selects, into ``directory/KEY``.

    A :class:`~hepfeed.DataProvider` with the same specification and steps and ``cache=directory`` finds it.  What an
    earlier build or training left is continued: only events that are missing are processed.

    Args:
        spec: The specification, its list form, or the path of its file.
        directory: Directory of caches; it is made where it is missing.
        transform: Steps and functions after those of the specification, as training will have them.
        on_nonfinite: As training will have it.
        on_error: ``"skip"`` leaves out files and events at fault, and counts them.
        identity: ``"content"``: the cache stays valid where files are copied or moved; every file is read for its hash.
        workers: Processes; by default one a processor.  Each takes two parts of memory and about 100 MB.
        resume: Fail where there is nothing to continue.
        fresh: Delete what there is, and begin anew.
        shard: Take only each n-th task, and write no manifest: see :func:`hepfeed.cache.merge.merge_cache`.
        dask: Address of a dask scheduler that runs the tasks, or ``"local"``.
        max_bytes: The parts take no more; what would exceed it is not kept, and the build ends.
        part_bytes: Bytes of a part, about.
        verify: In the end compare all checksums, and process damaged events again.
        index: Path of the index file; by default the user's own.
        opening: Called while files are opened.
        progress: Called as events are done.
        on_wait: Called with a sentence when another process builds the same cache, before waiting for it.

    Raises:
        SpecError: The specification or an option is wrong, or there is nothing to resume.
        SourceError: A file can't be read, or the directory can't be written.
        CorruptDataError: An event can't be read; or a part is damaged again after it was built again.
        ProcessError: A step raised, or what it makes can't be cached.
        ResourceError: The disk is full.
        ReaderError: A process died.
    """
    if resume and fresh:
        raise SpecError("resume and fresh exclude one another: continue what there is, or delete it")
    if shard is not None and (fresh or verify):
        raise SpecError(
            "a shard has no part in fresh or verify: delete the cache before, and verify it after the merge"
        )
    if max_bytes is not None and not max_bytes > 0:
        raise SpecError(f"max_bytes={max_bytes!r} is no size: use e.g. 20e9")
    if part_bytes < 1:
        raise SpecError(f"part_bytes={part_bytes!r} is no size: use e.g. {PART_BYTES}")
    if workers is not None and workers < 1:
        raise SpecError(f"workers={workers!r}: there must be one")
    begun = time.monotonic()
    read = as_spec(spec)
    pipeline = read.with_steps(transform, on_nonfinite)
    cores = workers or os.cpu_count() or 1
    store = IndexStore(index if index is not None else "")
    events = EventIndex(read, store=store, workers=cores, on_error=on_error, progress=opening)
    key = make_key(events, pipeline, identity)
    root = os.path.abspath(os.fspath(directory))
    where = cache_directory(root, key)
    if resume and not Inventory.take(where, key.digest).parts:
        raise SpecError(_nothing_to_resume(root, where, key))
    build = _Build(events, pipeline, key, where, on_error == "skip", part_bytes, shard, max_bytes, progress)
    runner = _Runner(cores, dask)
    if not (fresh or verify) and build.stock.tidy and not build.left:
        return build.report(begun)

    def wait() -> None:
        sentence = f"another process writes to {where}: waiting until it ends"
        (on_wait or _logger.warning)(sentence)

    with writer_lock(where, shared=shard is not None, on_wait=wait), _written(where):
        if fresh:
            build.stock.remove_all()
            remove_notes(where)
        build.take_stock()  # what another process has written meanwhile
        build.run(runner)
        if verify:
            build.verify(runner)
    return build.report(begun)


@contextlib.contextmanager
def _written(directory: str) -> Iterator[None]:
    """Turn what the system says of the directory into an error of hepfeed."""
    try:
        yield
    except HepfeedError:
        raise
    except OSError as error:
        raise not_writable(directory, error) from error


def _nothing_to_resume(root: str, where: str, key: CacheKey) -> str:
    """Say that there is nothing to continue, and what the caches that there are differ in."""
    text = f"there is nothing to resume in {where!r}: leave out --resume to begin"
    others: list[list[str]] = []
    with contextlib.suppress(SourceError):
        for directory in caches_below(root):
            manifest = Inventory.take(directory).manifest
            if manifest is not None:
                others.append(manifest.key.differences(key))
    if others:
        nearest = min(others, key=len)
        text += f"; the cache there differs in {'; '.join(nearest[:3])}"
    return text


class _Runner:
    """Where tasks run."""

    def __init__(self, workers: int, dask: str | None) -> None:
        self.workers, self._dask = workers, dask

    def __call__(self, calls: _Calls, on_note: Callable[[Any], None]) -> Generator[Reply, None, None]:
        if self._dask is not None and len(calls):
            from hepfeed.cache.dask_cluster import call_on_dask

            return call_on_dask(_FUNCTION, calls, self._dask, self.workers)
        return call_everywhere(_FUNCTION, calls, self.workers, on_note)

    @property
    def notes(self) -> bool:
        """Whether tasks tell how they get on."""
        return self._dask is None


class _Build:
    """A build at work."""

    def __init__(
        self,
        index: EventIndex,
        pipeline: Pipeline,
        key: CacheKey,
        directory: str,
        skip_errors: bool,
        part_bytes: int,
        shard: Shard | None,
        max_bytes: float | None,
        progress: Callable[[BuildProgress], None] | None,
    ) -> None:
        self._index, self._key, self._directory = index, key, directory
        self._shard, self._max_bytes = shard, max_bytes
        self._progress = progress or _nobody
        places, dense_bytes = index.place_keys(1)
        pickled = cloudpickle.dumps(pipeline)
        cache = (key.digest, directory)
        self._form = StreamForm(places, dense_bytes, index.catalog, pickled, 0, skip_errors, cache, part_bytes)
        self._edges = task_edges(index)
        self._skipped: list[tuple[int, int]] = []
        self._faults: list[str] = []
        self._processed = self._noted = self._dense = self._written = 0
        self._full = False
        self.take_stock()

    def take_stock(self) -> None:
        """Look at what the cache has."""
        self.stock = Stock(self._directory, self._key, self._index)

    @property
    def tasks(self) -> list[int]:
        """Numbers of the tasks of this build."""
        numbers = range(len(self._edges) - 1)
        return list(numbers if self._shard is None else numbers[self._shard.number :: self._shard.count])

    @property
    def left(self) -> int:
        """Events of this build that the cache does not have."""
        return sum(int((~self.stock.done[self._range(task)]).sum()) for task in self.tasks)

    def _range(self, task: int) -> slice:
        return slice(int(self._edges[task]), int(self._edges[task + 1]))

    def run(self, runner: _Runner) -> None:
        """Process what is missing, and write the manifest of what there is, whatever happens."""
        stock = self.stock
        stock.begin()
        todo = [task for task in self.tasks if not stock.done[self._range(task)].all()]
        calls = _Calls(self._call, todo)
        self._total = sum(len(stock.done[self._range(task)]) for task in self.tasks)
        self._before = self._total - self.left
        self._tell()
        try:
            with contextlib.closing(runner(calls, self._note)) as replies:
                for _, succeeded, value in replies:
                    if not succeeded:
                        raise value
                    self._take(value, calls, runner.notes)
        except BaseException:
            with contextlib.suppress(OSError, HepfeedError):  # the disk may be full; parts are found without it
                self._commit(whole=False)
            raise
        self._commit(whole=True)
        self._tell()

    def _call(self, task: int) -> tuple[Any, ...]:
        """Return the arguments of a task: its events that the cache does not have."""
        index, edges = self._index, self._edges
        place = int(edges[task]) + np.flatnonzero(~self.stock.done[self._range(task)])
        file, row = index.file_of(place), index.rows[place]
        sources = {number: index.sources[number] for number in np.unique(file).tolist()}
        weight = None if index.weights is None else index.weights[place]
        sizes, blocks = event_sizes(index, file, row), block_numbers(index, file, row)
        return self._form, index.store, BuildTask(file, row, index.file_class[file], weight, sizes, blocks, sources)

    def _note(self, note: tuple[int, int]) -> None:
        events, dense = note
        self._noted += events
        self._dense += dense
        self._tell()

    def _take(self, result: TaskResult, calls: _Calls, noted: bool) -> None:
        """Take in what a task wrote."""
        stock = self.stock
        for part in result.parts:
            if self._max_bytes is not None and stock.bytes + part.bytes > self._max_bytes:
                calls.stop()
                self._full = True
                stock.drop(part.name)
                continue
            stock.sums[part.name] = result.sums[part.name]
            stock.take(part)
            self._written += part.bytes
            self._processed += part.events + part.removed
        stock.skipped.update(result.skipped)
        self._skipped += result.skipped
        self._faults += [str(fault) for fault in result.faults]
        if not noted:
            self._noted = self._processed + len(self._skipped)
            self._dense = self._index.event_bytes * self._noted
        self._tell()

    def _tell(self) -> None:
        done = min(self._before + self._noted, self._total)
        self._progress(BuildProgress(done, self._total, self.stock.bytes, self._dense, self._written))

    def _commit(self, whole: bool) -> None:
        if self._shard is not None:
            own = {name: sums for name, sums in self.stock.sums.items() if name in self.stock.parts}
            if whole:
                skipped = [list(event) for event in sorted(self.stock.skipped)]
                ShardNote(self._shard, own, skipped).save(self._directory)
            return
        self.stock.refresh()
        if whole:
            self.stock.clear()
        self.stock.commit()

    def verify(self, runner: _Runner) -> None:
        """Compare all checksums; process the events of damaged parts again, once.

        Raises:
            CorruptDataError: A part is damaged again.
        """
        for again in (True, False):
            damaged = damaged_parts(self._directory, self.stock.parts, runner.workers)
            if not damaged:
                return
            shown = ", ".join(damaged[:5])
            if not again:
                raise CorruptDataError(
                    f"parts of {self._directory!r} are damaged though they were built again ({shown}): check the disk",
                    file=self._directory,
                )
            _logger.warning("%d parts of %s are damaged and built again: %s", len(damaged), self._directory, shown)
            self.stock.reject(damaged)
            self.run(runner)

    def report(self, begun: float) -> BuildReport:
        """Return what was done."""
        left = self.left
        return BuildReport(
            self._directory,
            len(self._index),
            self._processed,
            self.stock.removed,
            len(self._skipped),
            self.stock.missing,
            self.stock.bytes,
            time.monotonic() - begun,
            left == 0,
            self._full,
            tuple(self._faults[:20]),
        )


class _Calls(Sequence[tuple[Any, ...]]):
    """Arguments of tasks, made when they are given, so that those of all tasks are never in memory together."""

    def __init__(self, make: Callable[[int], tuple[Any, ...]], tasks: list[int]) -> None:
        self._make, self._tasks = make, tasks
        self._stopped = False

    def stop(self) -> None:
        """Let the tasks that were not given yet be without events."""
        self._stopped = True

    def __len__(self) -> int:
        return len(self._tasks)

    def __getitem__(self, place: Any) -> Any:
        form, store, task = self._make(self._tasks[place])
        if self._stopped:
            none = np.empty(0, np.int64)
            task = BuildTask(none, none, none, None, none, none, {})
        return form, store, task


def _nobody(progress: BuildProgress) -> None:
    """Nobody looks on."""
