"""A pool of readers and one ring, which any number of streams (train, validation, test) share.

Everything is driven by the consumer: a request for a batch sends tasks, waits for replies, and hands out the batch at
the head of its stream.  There is no thread.  Tasks are idempotent, so those of a reader that died are sent again to
another one; an event that kills its reader three times is an error.
"""

from __future__ import annotations

import logging
import os
import select
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfeed.cache.feed import CacheFeed
from hepfeed.cache.memory import PartMemory
from hepfeed.errors import FeedTimeoutError, ReaderError
from hepfeed.filler import BatchSpec, Window
from hepfeed.form import StreamForm
from hepfeed.index import EventIndex
from hepfeed.parts.strips import Piece, Strips
from hepfeed.parts.writer import PartsWritten
from hepfeed.reader import Reader
from hepfeed.ring import Ring
from hepfeed.stats import StageClock
from hepfeed.tasks import MISSING, Finish, Finished, Flush, Read, ReadDone, Recall, Recalled, RecallMany
from hepfeed.worker import JOIN_TIMEOUT_S, Worker

__all__ = ["Delivery", "ReaderPool", "Stream"]

MAX_LEASES = 3  # batches that the consumer may hold without copies: the present one, the last, and one on its way
_MAX_ATTEMPTS = 3
_TASKS_IN_HAND = 3  # of each reader: enough that it need not wait for the consumer
_FLUSH_S = 30.0
_READS_PER_READER = 3  # pieces of a window, for balance

_logger = logging.getLogger("hepfeed")

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]


@dataclass
class Delivery:
    """A finished batch in its slot.

    Attributes:
        spec: Which events it holds; those of failures are taken out.
        memory: ``(bytes,) uint8`` of the slot; the slot is free again once no view of it is alive.
        finished: What the pipeline left, or None where there is none.
        events: Of the slot, failures too.
        counts: Rows of each of them, for each set of jagged keys.
        weight: Of the events of ``spec``, where events have weights.
        kept: Rows of the slot that are valid, where some failed; None for all.
        shared: Whether the consumer may keep views of ``memory``; else it must copy, so that the slot comes back.
        pin: Page-locks the slot for copies to a CUDA device.
    """

    spec: BatchSpec
    memory: Bytes
    finished: Finished | Piece | None
    kept: NDArray[np.int64] | None
    shared: bool
    pin: Callable[[], None]
    events: int
    counts: dict[str, Ints]
    weight: NDArray[np.float32] | None


@dataclass(eq=False)
class _Batch:
    """A batch on its way."""

    spec: BatchSpec
    slot: int
    counts: dict[str, Ints]
    weight: NDArray[np.float32] | None
    bytes: int
    reads_left: int = 0
    failures: dict[int, Exception] = field(default_factory=dict)
    ready: bool = False
    finished: Finished | Piece | None = None
    group: _Group | None = None


@dataclass(eq=False)
class _Group:
    """A slot that several batches share; it is free again once the last view of any of them is dead."""

    slot: int
    left: int
    bytes: int = 0
    shared: bool = True
    base: Bytes | None = None

    def lease(self, ring: Ring) -> Bytes:
        """Hand the slot out with one of its batches."""
        if self.base is None:
            self.shared = ring.leased < MAX_LEASES
            self.base = ring.lease(self.slot, self.bytes)
        base = self.base
        self.drop(ring)
        return base

    def drop(self, ring: Ring) -> None:
        """Count a batch out."""
        self.left -= 1
        if self.left == 0:
            if self.base is None:
                ring.release(self.slot)
            self.base = None


@dataclass(eq=False)
class _Task:
    """A call to a reader: method and argument, and the batches that it is for."""

    stream: Stream
    method: str
    argument: Read | Finish | Recall | RecallMany | Flush
    batches: list[_Batch]
    attempts: int = 0


class Stream:
    """One pass over the events, with its place in the pool.

    Args:
        pool: The pool.
        work: What to do, in order: windows to read, and batches to take from the cache.
        form: What its batches have in common.
        index: The events.
        in_flight: Most slots that are filled ahead of the consumer.
        on_error: ``"raise"`` the first error, or ``"skip"`` and count events.
        clock: Where times and counts go.
        on_skip: Called with the error of each skipped event.
        cache: What is written meanwhile, or read.
        together: Batches from the cache that a reader does at a time, in one slot.
    """

    def __init__(
        self,
        pool: ReaderPool,
        work: Iterator[Window] | Iterator[BatchSpec],
        form: StreamForm,
        index: EventIndex,
        *,
        in_flight: int,
        on_error: str,
        clock: StageClock,
        on_skip: Callable[[Exception], None],
        cache: CacheFeed | None = None,
        together: int = 1,
    ) -> None:
        self.number = pool.add(self)
        self.form = form
        self.index = index
        self.clock = clock
        self.on_error = on_error
        self.on_skip = on_skip
        self.cache = cache
        self._together = together
        self._rounds = 0
        self.has_steps = form.pipeline != NO_PIPELINE or cache is not None
        self.closed = False
        self._pool_reference = weakref.ref(pool)  # the pool dies with its last user, though it knows its streams
        self._work: Iterator[Window | BatchSpec] = work
        self._next: Window | BatchSpec | None = None
        self._in_flight = in_flight
        self.batches: deque[_Batch] = deque()
        self.outstanding = 0  # tasks that readers have in hand

    def _peek(self) -> Window | BatchSpec | None:
        if self._next is None:
            self._next = next(self._work, None)
        return self._next

    @property
    def _pool(self) -> ReaderPool:
        pool = self._pool_reference()
        assert pool is not None, "who asks for batches holds the pool"
        return pool

    @property
    def planned(self) -> bool:
        """Whether everything was turned into tasks."""
        return self._peek() is None

    @property
    def fills_cache(self) -> bool:
        """Whether events of this pass are written to the cache."""
        return self.cache is not None and self.cache.fills

    def widen(self, in_flight: int) -> None:
        """Allow more slots to be filled ahead of the consumer."""
        self._in_flight = in_flight

    def plan(self) -> list[_Task]:
        """Turn windows and batches into tasks, as far as there is room for them."""
        tasks: list[_Task] = []
        while (work := self._peek()) is not None:
            room = self._in_flight - len(self.batches)
            if self.batches and room < (len(work.batches) if isinstance(work, Window) else 1):
                break
            self._next = None
            tasks += self._read_tasks(work) if isinstance(work, Window) else self._recall_tasks(work)
        return tasks

    def _recall_tasks(self, spec: BatchSpec) -> list[_Task]:
        """Make one task of a batch, and of the next ones where several are done at a time."""
        assert self.cache is not None
        # The first batches of an epoch are asked for one by one, so that none waits for others.
        self._rounds += 1
        together = min(self._together, 1 << min(16, (self._rounds - 1) // max(1, self._pool.num_readers)))
        specs = [spec]
        while len(specs) < together and isinstance(more := self._peek(), BatchSpec) and more.epoch == spec.epoch:
            specs.append(more)
            self._next = None
        batches = [_Batch(spec, -1, {}, self._weight(spec), 0) for spec in specs]
        self.batches.extend(batches)
        task = self._recall_many(batches) if len(batches) > 1 else None
        return [task] if task is not None else [self._recall(batch) for batch in batches]

    def _recall_many(self, batches: list[_Batch]) -> _Task | None:
        """Make one task of several batches; None where the cache lacks any of their events."""
        assert self.cache is not None
        specs = [batch.spec for batch in batches]
        part, at, runs, size = self.cache.locate(np.concatenate([self._positions(spec) for spec in specs]))
        if (part < 0).any():
            return None
        numbers = np.empty((5 + 2 * len(runs), len(part)), np.int64)
        for line, name in enumerate(("file", "row", "label")):
            np.concatenate([getattr(spec, name) for spec in specs], out=numbers[line])
        numbers[3], numbers[4] = part, at
        for i, (start, count) in enumerate(runs.values()):
            numbers[5 + 2 * i], numbers[6 + 2 * i] = start, count
        group = _Group(self._pool.ring.acquire(size), len(batches), size)
        for batch in batches:
            batch.group = group
        weight = None if batches[0].weight is None else np.concatenate([batch.weight for batch in batches])
        bounds = tuple(np.cumsum([0, *map(len, specs)]).tolist())
        indices = tuple(spec.index for spec in specs)
        task = RecallMany(self.number, group.slot, specs[0].epoch, indices, bounds, numbers, tuple(runs), weight, size)
        return _Task(self, "recall_many", task, batches)

    def _recall(self, batch: _Batch) -> _Task:
        """Look up where the cache has the events of a batch."""
        assert self.cache is not None
        spec = batch.spec
        part, at, runs, batch.bytes = self.cache.locate(self._positions(spec))
        if batch.slot < 0:
            batch.slot = self._pool.ring.acquire(batch.bytes)
        recall = Recall(
            self.number,
            batch.slot,
            spec.epoch,
            spec.index,
            spec.file,
            spec.row,
            spec.label,
            batch.weight,
            part,
            at,
            runs,
            batch.bytes,
            self.cache.fills,
        )
        return _Task(self, "recall", recall, [batch])

    def _weight(self, spec: BatchSpec) -> NDArray[np.float32] | None:
        weights = self.index.weights
        return None if weights is None else weights[self._positions(spec)]

    def _positions(self, spec: BatchSpec) -> Ints:
        return self.index.position(spec.file, spec.row) if spec.event is None else spec.event

    def _read_tasks(self, window: Window) -> list[_Task]:
        batches = [self._begin(spec) for spec in window.batches]
        self.batches.extend(batches)
        slots = np.array([batch.slot for batch in batches], np.int64)[window.batch]
        at, totals = _row_places(batches, window)
        tasks = []
        for low, high in self._cuts(window):
            some = slice(low, high)
            units = set(window.unit[some].tolist())
            read = Read(
                self.number,
                slots[some],
                window.place[some],
                window.file[some],
                window.row[some],
                window.unit[some],
                {unit: rows for unit, rows in window.kept.items() if unit in units},
                at={rows: each[some] for rows, each in at.items()},
                totals={rows: each[some] for rows, each in totals.items()},
            )
            members = [batches[i] for i in np.unique(window.batch[some]).tolist()]
            for batch in members:
                batch.reads_left += 1
            tasks.append(_Task(self, "read", read, members))
        if self.has_steps and len(tasks) == len(batches) == 1:
            whole = tasks[0].argument
            assert isinstance(whole, Read)
            tasks[0].argument = replace(whole, finish=self._finish(batches[0]))
        return tasks

    def _begin(self, spec: BatchSpec) -> _Batch:
        """Take a slot for a batch."""
        counts = self.index.counts(spec.file, spec.row)
        _, size = self.form.offsets({rows: int(count.sum()) for rows, count in counts.items()})
        return _Batch(spec, self._pool.ring.acquire(size), counts, self._weight(spec), size)

    def _cuts(self, window: Window) -> list[tuple[int, int]]:
        """Cut the events of a window into pieces of about equal size, but never within a unit."""
        n = len(window.row)
        pieces = self._pool.num_readers * _READS_PER_READER if len(window.batches) > 1 else 1
        if pieces <= 1:
            return [(0, n)]
        allowed = np.flatnonzero(
            np.diff(window.unit, prepend=-2) != 0
        )  # a unit's events are together: one file's block
        alone = np.flatnonzero(window.unit < 0)
        allowed = np.union1d(allowed, alone)
        wanted = np.linspace(0, n, pieces + 1)[1:-1]
        places = allowed[np.minimum(np.searchsorted(allowed, wanted), len(allowed) - 1)]
        edges = np.unique([0, *places.tolist(), n])
        return list(zip(edges[:-1].tolist(), edges[1:].tolist()))

    def next(self, timeout_s: float) -> Delivery | None:
        """Return the next batch, or None at the end.

        Raises:
            HepfeedError: An event could not be read or processed, a reader keeps dying, or nothing came in time.
        """
        deadline = time.monotonic() + timeout_s if timeout_s else None
        begun = self.clock.begin()
        waited = 0.0
        while True:
            if not (self.batches and self.batches[0].group and self.batches[0].ready):  # they come several at a time
                self._pool.pump(0.0)
            if not self.batches:
                if self._peek() is None:
                    return None
                continue
            if self.batches[0].ready:
                break
            before = time.perf_counter()
            if deadline is not None and time.monotonic() > deadline:
                raise FeedTimeoutError(
                    f"DataLoader timed out after {timeout_s:g} seconds: no batch arrived; a reader or its file"
                    " system hangs"
                )
            self._pool.pump(1.0 if deadline is None else max(0.01, min(1.0, deadline - time.monotonic())))
            waited += time.perf_counter() - before
        batch = self.batches.popleft()
        if self._pool.num_readers:
            self.clock.stages["wait"] += waited
        delivery = self._deliver(batch)
        self._pool.dispatch()
        self.clock.stages["transfer"] += max(0.0, self.clock.since(begun) - waited)
        return delivery

    def _deliver(self, batch: _Batch) -> Delivery:
        ring = self._pool.ring
        spec, kept = batch.spec, None
        if batch.failures:
            error = batch.failures[min(batch.failures)]
            if self.on_error != "skip":
                self.give_back(batch)
                raise error
            for place in sorted(batch.failures):
                self.clock.counts["skipped"] += 1
                self.on_skip(batch.failures[place])
            kept = np.setdiff1d(np.arange(len(spec)), list(batch.failures))
            spec = BatchSpec(spec.epoch, spec.index, spec.file[kept], spec.row[kept], spec.label[kept])
        size = batch.finished.bytes if batch.finished else batch.bytes
        weight = batch.weight if batch.weight is None or kept is None else batch.weight[kept]
        if batch.group is not None:
            slot, size = batch.group.slot, batch.group.bytes
            memory = batch.group.lease(ring)
            shared = batch.group.shared
        else:
            slot, shared = batch.slot, ring.leased < MAX_LEASES
            memory = ring.lease(slot, size)
        if not shared:
            self.clock.counts["copies"] += 1
        pin = partial(ring.pin, slot, size)
        events = len(batch.spec)
        return Delivery(spec, memory, batch.finished, kept, shared, pin, events, batch.counts, weight)

    def give_back(self, batch: _Batch) -> None:
        """Free the slot of a batch that is not delivered."""
        if batch.group is not None:
            batch.group.drop(self._pool.ring)
        elif batch.slot >= 0:
            self._pool.ring.release(batch.slot)

    # ---- replies ---------------------------------------------------------------------------------------------------

    def read_done(self, task: _Task, done: ReadDone) -> list[_Task]:
        """Take note of a finished read; returns the tasks that it makes possible."""
        self.clock.add_read(done.costs)
        by_slot = {batch.slot: batch for batch in task.batches}
        for slot, place, error in done.failures:
            by_slot[slot].failures.setdefault(place, error)
        follow = []
        for batch in task.batches:
            batch.reads_left -= 1
            if batch.reads_left:
                continue
            if done.finished is not None:
                self.finish_done(batch, done.finished)
                continue
            failed = batch.failures and self.on_error != "skip"
            if self.has_steps and not failed and len(batch.failures) < len(batch.spec):
                follow.append(_Task(self, "finish", self._finish(batch), [batch]))
            else:
                batch.ready = True
        return follow

    def _finish(self, batch: _Batch) -> Finish:
        spec = batch.spec
        dropped = np.array(sorted(batch.failures), np.int64)
        return Finish(
            self.number,
            batch.slot,
            spec.epoch,
            spec.index,
            spec.file,
            spec.row,
            spec.label,
            dropped,
            batch.counts,
            batch.weight,
            self.cache.claim(self._positions(spec)) if self.cache is not None else None,
        )

    def flush(self) -> None:
        """Write to the cache what readers have collected for it, and wait until it is there."""
        self._pool.flush(self)

    def finish_done(self, batch: _Batch, finished: Finished) -> list[_Task]:
        """Take note of a batch that went through the pipeline; returns what is to be done again."""
        if finished.costs is not None:
            self.clock.add_read(finished.costs)
        if self.cache is not None:
            self.cache.take(finished.written, finished.damaged)
        self.clock.stages["transform"] += finished.total_ns * 1e-9
        if finished.again:  # what the cache has of it is damaged: now it is known to be missing
            return [self._recall(batch)]
        self.clock.counts["removed"] += finished.removed
        batch.failures.update(finished.failures)
        batch.finished = finished
        batch.ready = True
        return []

    def recall_done(self, task: _Task, recalled: Recalled) -> list[_Task]:
        """Take note of batches that came from the cache together; returns what is to be done again."""
        assert self.cache is not None
        self.clock.add_read(recalled.costs)
        self.cache.take(None, recalled.damaged)
        group = task.batches[0].group
        assert group is not None
        if recalled.damaged:  # each alone, with what is damaged known to be missing
            self._pool.ring.release(group.slot)
            for batch in task.batches:
                batch.group = None
            return [self._recall(batch) for batch in task.batches]
        if isinstance(recalled.batches, Strips):
            group.bytes = recalled.batches.bytes
            for number, batch in enumerate(task.batches):
                batch.finished = Piece(recalled.batches, number)
                batch.ready = True
            return []
        group.bytes = max(finished.bytes for finished in recalled.batches)
        for batch, finished in zip(task.batches, recalled.batches):
            self.finish_done(batch, finished)
        return []

    def failed(self, task: _Task, error: Exception) -> None:
        """Let the first batch of a task raise when its turn comes."""
        for batch in task.batches:
            batch.failures[-1] = error
            batch.ready = True
        self.on_error = "raise"

    def close(self) -> None:
        """Give back all slots; those that a reader still writes to follow when it is done."""
        pool = self._pool_reference()
        was_closed, self.closed = self.closed, True
        if not was_closed and pool is not None:
            pool.remove(self)


NO_PIPELINE = b""


def _row_places(batches: list[_Batch], window: Window) -> tuple[dict[str, Ints], dict[str, Ints]]:
    """Rows of earlier events in the batch, and of the whole batch, of each event of a window, for jagged keys."""
    at: dict[str, Ints] = {}
    totals: dict[str, Ints] = {}
    first = np.cumsum([0, *(len(batch.spec) for batch in batches)])[window.batch]
    for rows in batches[0].counts if batches else ():
        before = [np.cumsum(batch.counts[rows]) - batch.counts[rows] for batch in batches]
        at[rows] = np.concatenate(before)[first + window.place]
        totals[rows] = np.array([int(batch.counts[rows].sum()) for batch in batches], np.int64)[window.batch]
    return at, totals


class ReaderPool:
    """Readers, and the ring that they fill.

    Args:
        num_readers: Processes; 0 reads in the consumer's process.
    """

    def __init__(self, num_readers: int) -> None:
        self.num_readers = num_readers
        self.ring = Ring()
        self._streams: dict[int, Stream] = {}
        self._closing: dict[int, Stream] = {}
        self._count = 0
        self._tasks = 0
        self._queue: deque[_Task] = deque()
        self._readers: list[_ReaderProcess] = []
        self._local = Reader(self.ring.descriptor) if num_readers == 0 else None
        self._local_known: tuple[set[int], dict[str, set[int]]] = (set(), {})
        self._local_parts: dict[str, set[int]] = {}
        self._local_grants: dict[str, set[int]] = {}
        self._verified: dict[str, int] = {}  # slot for each cache
        self._keeper: dict[tuple[int, int], _ReaderProcess] = {}  # who keeps the rest of a unit
        self._owner = os.getpid()
        self.restarts = 0
        try:
            for _ in range(num_readers):
                self._readers.append(_ReaderProcess(self.ring.descriptor))
        except BaseException:
            self.close()
            raise
        self._finalizer = weakref.finalize(self, _close_all, self._readers, self.ring, self._local, os.getpid())

    @property
    def pids(self) -> list[int]:
        """Process numbers of the readers."""
        return [reader.worker.pid for reader in self._readers]

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called, or this is a forked copy of the pool."""
        return self.ring.descriptor < 0 or self._owner != os.getpid()

    # ---- streams ---------------------------------------------------------------------------------------------------

    def add(self, stream: Stream) -> int:
        """Give a stream its number."""
        self._count += 1
        self._streams[self._count] = stream
        return self._count

    def remove(self, stream: Stream) -> None:
        """Forget a stream: its waiting tasks are dropped, its slots freed once no reader writes to them."""
        self._streams.pop(stream.number, None)
        if self.closed:
            return
        self._queue = deque(task for task in self._queue if task.stream is not stream)
        self._keeper = {key: reader for key, reader in self._keeper.items() if key[0] != stream.number}
        self._closing[stream.number] = stream
        self._settle(stream)

    def _settle(self, stream: Stream) -> None:
        if stream.outstanding:
            return
        del self._closing[stream.number]
        for batch in stream.batches:
            stream.give_back(batch)
        stream.batches.clear()
        if self._local is not None:
            self._local.drop_stream(stream.number)
        for reader in self._readers:
            if stream.number in reader.streams:
                reader.streams.discard(stream.number)
                reader.worker.call(_NO_REPLY, "drop_stream", stream.number)

    # ---- work ------------------------------------------------------------------------------------------------------

    def dispatch(self) -> None:
        """Plan, and hand tasks to readers, as far as there is room."""
        self.ring.reclaim()
        for stream in self._streams.values():
            self._queue.extend(stream.plan())
        if self._local is None:
            self._assign()

    def pump(self, wait_s: float) -> None:
        """Dispatch, and take in what has arrived; waits at most ``wait_s`` for a reply."""
        self.dispatch()
        if self._local is not None:
            self._work_here(self._local)
            return
        busy = [reader for reader in self._readers if reader.in_hand]
        if not busy:
            return
        unsent = [reader for reader in busy if reader.worker.has_unsent]
        ready, writable, _ = select.select(busy, unsent, [], wait_s)
        for reader in writable:
            reader.worker.flush()
        for reader in ready:
            self._take(reader)
        if ready:
            self._assign()

    def _work_here(self, local: Reader) -> None:
        """Work on one task in the consumer's process."""
        if not self._queue:
            return
        task = self._queue.popleft()
        for method, *args in self._introductions(task, *self._local_known, self._local_parts, self._local_grants):
            getattr(local, method)(*args)
        try:
            value = getattr(local, task.method)(task.argument)
        except Exception as error:
            task.stream.failed(task, error)
            return
        _use_grants(self._local_grants, value)
        self._queue.extendleft(reversed(self._reply(task, value)))

    def _reply(self, task: _Task, value: Any) -> list[_Task]:
        if task.method == "read":
            return task.stream.read_done(task, value)
        if task.method == "recall_many":
            return task.stream.recall_done(task, value)
        if task.method == "flush":
            if task.stream.cache is not None:
                task.stream.cache.take(value, [])
            return []
        return task.stream.finish_done(task.batches[0], value)

    def flush(self, stream: Stream) -> None:
        """Let readers write what they have collected for the cache of a stream, and wait for it."""
        if self._local is not None:
            if stream.number in self._local_known[0]:
                self._reply(_Task(stream, "flush", Flush(stream.number), []), self._local.flush(Flush(stream.number)))
            return
        for reader in self._readers:
            if stream.number in reader.streams:
                self._send(reader, _Task(stream, "flush", Flush(stream.number), []))
        deadline = time.monotonic() + _FLUSH_S
        while stream.outstanding:
            self.pump(1.0)
            if time.monotonic() > deadline:  # what comes later is found in the cache's directory
                _logger.warning("the disk is slow: the end of the cache is still being written")
                return

    def _slot_for(self, cache: CacheFeed) -> int:
        """Return the slot that says which blocks of a cache were verified."""
        key, blocks = cache.store.token, cache.blocks
        slot = self._verified.get(key)
        if slot is None:
            slot = self._verified[key] = self.ring.acquire(blocks)
            self.ring.view.bytes(slot, self.ring.view.ensure(slot, blocks))[:] = 0
        self.ring.view.ensure(slot, blocks)
        return slot

    def _introductions(
        self,
        task: _Task,
        streams: set[int],
        files: dict[str, set[int]],
        parts: dict[str, set[int]],
        grants: dict[str, set[int]],
    ) -> list[tuple[Any, ...]]:
        """Calls that tell a reader of the stream, the files and the parts of a task, where it does not know them."""
        stream = task.stream
        calls: list[tuple[Any, ...]] = []
        if stream.number not in streams:
            streams.add(stream.number)
            calls.append(("add_stream", stream.number, stream.form))
        if stream.cache is not None and stream.cache.store.memory is not None:
            calls += _memory_calls(stream.cache.store.memory, stream.cache.store.token, stream.fills_cache, grants)
        some = task.argument.file
        if isinstance(task.argument, Recall | RecallMany) and stream.cache is not None:
            feed, part = stream.cache, task.argument.part
            some = some[part == MISSING]
            told = parts.setdefault(feed.store.token, set())
            new = [number for number in np.unique(part).tolist() if number >= 0 and number not in told]
            if new or not told:
                told.update(new)
                calls.append(("add_cache", feed.table(self._slot_for(feed)), feed.parts(new)))
        known = files.setdefault(stream.form.catalog, set())
        fresh = [file for file in np.unique(some).tolist() if file not in known]
        if fresh:
            known.update(fresh)
            calls.append(("add_files", stream.form.catalog, {file: stream.index.source_table(file) for file in fresh}))
        return calls

    def _assign(self) -> None:
        """Hand tasks to readers, in order; a unit's remains go to the reader that keeps them."""
        waiting: deque[_Task] = deque()
        while self._queue:
            task = self._queue.popleft()
            reader = self._choose(task)
            if reader is None:
                waiting.append(task)
                if all(len(r.in_hand) >= _TASKS_IN_HAND for r in self._readers):
                    break
                continue
            self._send(reader, task)
        self._queue.extendleft(reversed(waiting))

    def _choose(self, task: _Task) -> _ReaderProcess | None:
        keeper = self._keeper_of(task)
        if keeper is not None and len(keeper.in_hand) < 2 * _TASKS_IN_HAND:
            return keeper
        reader = min(self._readers, key=lambda r: len(r.in_hand))
        return reader if len(reader.in_hand) < _TASKS_IN_HAND else None

    def _keeper_of(self, task: _Task) -> _ReaderProcess | None:
        if not self._keeper or not isinstance(task.argument, Read):
            return None
        for unit in np.unique(task.argument.unit).tolist():
            keeper = self._keeper.get((task.stream.number, unit))
            if keeper is not None:
                return keeper
        return None

    def _send(self, reader: _ReaderProcess, task: _Task) -> None:
        for method, *args in self._introductions(task, reader.streams, reader.files, reader.parts, reader.grants):
            reader.worker.call(_NO_REPLY, method, *args)
        if isinstance(task.argument, Read):
            for unit in np.unique(task.argument.unit).tolist() if self._keeper else ():
                self._keeper.pop((task.stream.number, unit), None)
            for unit in task.argument.kept:
                self._keeper[task.stream.number, unit] = reader
        reader.fills = task.method != "flush" and (reader.fills or task.stream.fills_cache)
        self._tasks += 1
        reader.in_hand[self._tasks] = task
        task.stream.outstanding += 1
        reader.worker.call(self._tasks, task.method, task.argument)

    def _take(self, reader: _ReaderProcess) -> None:
        replies = reader.worker.receive()
        if replies is None:
            self._replace(reader)
            return
        for number, succeeded, value in replies:
            task = reader.in_hand.pop(number, None)
            if task is None:
                if not succeeded:  # it could not start
                    raise value
                continue
            stream = task.stream
            stream.outstanding -= 1
            if succeeded:
                _use_grants(reader.grants, value)
            if stream.closed:
                self._settle(stream)
            elif succeeded:
                self._queue.extendleft(reversed(self._reply(task, value)))
            else:
                stream.failed(task, value)

    def _replace(self, dead: _ReaderProcess) -> None:
        """Start a reader in the place of one that died, and hand its tasks to the others again."""
        dead.worker.close()
        code = dead.worker.exit_code
        self.restarts += 1
        self._keeper = {key: reader for key, reader in self._keeper.items() if reader is not dead}
        again = []
        for position, task in enumerate(dead.in_hand.values()):
            task.stream.outstanding -= 1
            if task.stream.closed:
                self._settle(task.stream)
                continue
            task.stream.clock.counts["restarts"] += position == 0
            task.attempts += position == 0  # readers work in order: it died on the first
            if task.attempts >= _MAX_ATTEMPTS:
                task.stream.failed(task, _died(task, code))
                continue
            again.append(task)
        self._queue.extendleft(reversed(again))
        self._readers[self._readers.index(dead)] = _ReaderProcess(self.ring.descriptor)

    def close(self) -> None:
        """End the readers and give the memory back; batches that are held stay valid."""
        _close_all(self._readers, self.ring, self._local, self._owner)
        self._streams.clear()
        self._queue.clear()
        self._keeper.clear()


_NO_REPLY = 0


class _ReaderProcess:
    """A reader's process and what it was told."""

    def __init__(self, ring: int) -> None:
        self.worker = Worker("hepfeed.reader:Reader", (ring, True), (ring,))
        self.in_hand: dict[int, _Task] = {}
        self.streams: set[int] = set()
        self.files: dict[str, set[int]] = {}
        self.parts: dict[str, set[int]] = {}
        self.grants: dict[str, set[int]] = {}  # slots that it may fill, by the key of the cache
        self.fills = False  # whether it may have something to write to a cache

    def fileno(self) -> int:
        return self.worker.fileno()


def _memory_calls(memory: PartMemory, key: str, fills: bool, grants: dict[str, set[int]]) -> list[tuple[Any, ...]]:
    """Calls that tell a reader of the shared memory of a cache, and which slot of it the next part may fill."""
    calls: list[tuple[Any, ...]] = []
    if key not in grants:
        grants[key] = set()
        calls.append(("add_memory", key, memory.path))
    if fills and not grants[key] and (slot := memory.grant()) is not None:
        grants[key].add(slot)
        calls.append(("grant", key, slot))
    return calls


def _use_grants(grants: dict[str, set[int]], value: Any) -> None:
    """Take note of slots that a reader has filled."""
    finished = value.finished if isinstance(value, ReadDone) else value
    written = finished.written if isinstance(finished, Finished) else finished
    if isinstance(written, PartsWritten):
        for part in written.parts:
            for slots in grants.values():
                slots.discard(part.slot)


def _died(task: _Task, code: int | None) -> ReaderError:
    argument = task.argument
    if isinstance(argument, Flush):
        return ReaderError(f"a reader died {_MAX_ATTEMPTS} times while it wrote to the cache")
    file, row = int(argument.file[0]), int(argument.row[0])
    path = task.stream.index.files[file]
    how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with code {code}"
    return ReaderError(
        f"a reader {how} {_MAX_ATTEMPTS} times on {len(argument.row)} events, the first of them event {row} of"
        f" {path!r}: look for lack of memory or a crash in process_fn; num_workers=0 shows it in this process",
        file=path,
        event=row,
    )


def _close_all(readers: list[_ReaderProcess], ring: Ring, local: Reader | None, owner: int) -> None:
    for reader in readers:
        reader.worker.hang_up()
    deadline = time.monotonic() + (_FLUSH_S if any(reader.fills for reader in readers) else JOIN_TIMEOUT_S)
    for reader in readers:
        reader.worker.close(deadline - time.monotonic())
    readers.clear()
    if local is not None and owner == os.getpid():
        local.close()
    ring.close()
