"""A stream: one pass over the events, for one loader, and the batches of it that are on their way.

A stream makes tasks of windows and of batches that the cache has, and takes note of what readers answer.  Tasks are
idempotent, so those of a reader that died are sent again to another one.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hepfeed.cache.feed import CacheFeed
from hepfeed.filler import BatchSpec, Window
from hepfeed.form import StreamForm
from hepfeed.index import EventIndex
from hepfeed.parts.strips import Piece, Strips
from hepfeed.ranges import nvtx_range
from hepfeed.ring import PageLocks, Ring
from hepfeed.stats import StageClock
from hepfeed.tasks import MISSING, Finish, Finished, Flush, Read, ReadDone, Recall, Recalled, RecallMany

__all__ = ["NO_PIPELINE", "Delivery", "Pending", "Stream", "Task"]

MAX_LEASES = 3  # batches that the consumer may hold without copies: the present one, the last, and one on its way
NO_PIPELINE = b""
_READS_PER_READER = 3  # pieces of a window, for balance

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]


class Pool(Protocol):
    """What a stream needs of the readers."""

    num_readers: int
    ring: Ring
    worked_s: float

    @property
    def is_up(self) -> bool:
        """Whether there is a reader yet."""
        ...

    @property
    def is_idle(self) -> bool:
        """Whether a reader has nothing to do."""
        ...

    def in_hand(self, stream: Stream) -> list[Task]:
        """Return the tasks of a stream that readers have."""
        ...

    def add(self, stream: Stream) -> int:
        """Give a stream its number."""
        ...

    def remove(self, stream: Stream) -> None:
        """Forget a stream."""
        ...

    def dispatch(self, widens: bool = True) -> None:
        """Plan, and hand tasks to readers."""
        ...

    def pump(self, wait_s: float) -> None:
        """Dispatch, and take in what has arrived."""
        ...

    def wait(self, timeout_s: float) -> None:
        """Wait for something to arrive, and replace readers that take longer than ``timeout_s``."""
        ...

    def flush(self, stream: Stream) -> None:
        """Let readers write what they have collected for the cache of a stream."""
        ...


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
        pin: Page-locks the slot for copies to a device; see :meth:`hepfeed.ring.Ring.pin`.
    """

    spec: BatchSpec
    memory: Bytes
    finished: Finished | Piece | None
    kept: NDArray[np.int64] | None
    shared: bool
    pin: Callable[[PageLocks, bool], bool]
    events: int
    counts: dict[str, Ints]
    weight: NDArray[np.float32] | None


@dataclass(eq=False)
class Pending:
    """A batch on its way."""

    spec: BatchSpec
    slot: int
    counts: dict[str, Ints]
    weight: NDArray[np.float32] | None
    bytes: int
    reads_left: int = 0
    hits: int = 0  # events that the cache has
    failures: dict[int, Exception] = field(default_factory=dict)
    ready: bool = False
    finished: Finished | Piece | None = None
    group: SharedSlot | None = None
    delivery: Delivery | None = None  # where it was looked at before its turn


@dataclass(eq=False)
class SharedSlot:
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
class Task:
    """A call to a reader: method and argument, the batches that it is for, and the number of that reader."""

    stream: Stream
    method: str
    argument: Read | Finish | Recall | RecallMany | Flush
    batches: list[Pending]
    attempts: int = 0
    stalls: int = 0
    reader: int = 0


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
        pool: Pool,
        work: Iterator[Window | BatchSpec] | Iterator[Window] | Iterator[BatchSpec],
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
        self._is_full = False  # there is work, and no room for it
        self._pool_reference = weakref.ref(pool)  # the pool dies with its last user, though it knows its streams
        self._work: Iterator[Window | BatchSpec] = work
        self._next: Window | BatchSpec | None = None
        self._in_flight = self._most_in_flight = in_flight
        self.batches: deque[Pending] = deque()
        self.outstanding = 0  # tasks that readers have in hand

    def _peek(self) -> Window | BatchSpec | None:
        if self._next is None:
            self._next = next(self._work, None)
        return self._next

    @property
    def _pool(self) -> Pool:
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
        """Allow more slots to be filled ahead of the consumer; batches from the cache one more for each delivered one.

        To plan a window takes no longer the more batches it has, but batches of their own do.
        """
        self._most_in_flight = in_flight

    def plan(self, widens: bool = True) -> list[Task]:
        """Turn windows and batches into tasks, as far as there is room for them.

        Args:
            widens: There may be room for more than before, see :meth:`widen`.
        """
        tasks: list[Task] = []
        self._is_full = False
        if widens:
            step = 1 if isinstance(self._peek(), BatchSpec) else self._most_in_flight
            self._in_flight = min(self._in_flight + step, self._most_in_flight)
        while (work := self._peek()) is not None:
            room = self._in_flight - len(self.batches)
            if self.batches and room < (len(work.batches) if isinstance(work, Window) else 1):
                self._is_full = True
                break
            self._next = None
            tasks += self._read_tasks(work) if isinstance(work, Window) else self._recall_tasks(work)
        return tasks

    def _recall_tasks(self, spec: BatchSpec) -> list[Task]:
        """Make one task of a batch, and of the next ones where several are done at a time."""
        assert self.cache is not None
        # The first batches of an epoch are asked for one by one, so that none waits for others.
        self._rounds += 1
        together = min(self._together, 1 << min(16, (self._rounds - 1) // max(1, self._pool.num_readers)))
        specs = [spec]
        while len(specs) < together and isinstance(more := self._peek(), BatchSpec) and more.epoch == spec.epoch:
            specs.append(more)
            self._next = None
        batches = [Pending(spec, -1, {}, self._weight(spec), 0) for spec in specs]
        self.batches.extend(batches)
        task = self._recall_many(batches) if len(batches) > 1 else None
        return [task] if task is not None else [self._recall(batch) for batch in batches]

    def _recall_many(self, batches: list[Pending]) -> Task | None:
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
        group = SharedSlot(self._pool.ring.acquire(size), len(batches), size)
        for batch in batches:
            batch.group, batch.hits = group, len(batch.spec)
        weight = None if batches[0].weight is None else np.concatenate([batch.weight for batch in batches])
        bounds = tuple(np.cumsum([0, *map(len, specs)]).tolist())
        indices = tuple(spec.index for spec in specs)
        task = RecallMany(self.number, group.slot, specs[0].epoch, indices, bounds, numbers, tuple(runs), weight, size)
        return Task(self, "recall_many", task, batches)

    def _recall(self, batch: Pending) -> Task:
        """Look up where the cache has the events of a batch."""
        assert self.cache is not None
        spec = batch.spec
        part, at, runs, batch.bytes = self.cache.locate(self._positions(spec))
        batch.hits = len(part) - int(np.count_nonzero(part == MISSING))
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
        return Task(self, "recall", recall, [batch])

    def _weight(self, spec: BatchSpec) -> NDArray[np.float32] | None:
        weights = self.index.weights
        return None if weights is None else weights[self._positions(spec)]

    def _positions(self, spec: BatchSpec) -> Ints:
        return self.index.position(spec.file, spec.row) if spec.event is None else spec.event

    def _read_tasks(self, window: Window) -> list[Task]:
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
            tasks.append(Task(self, "read", read, members))
        if self.has_steps and len(tasks) == len(batches) == 1:
            whole = tasks[0].argument
            assert isinstance(whole, Read)
            tasks[0].argument = replace(whole, finish=self._finish(batches[0]))
        return tasks

    def _begin(self, spec: BatchSpec) -> Pending:
        """Take a slot for a batch."""
        counts = self.index.counts(spec.file, spec.row)
        _, size = self.form.offsets({rows: int(count.sum()) for rows, count in counts.items()})
        return Pending(spec, self._pool.ring.acquire(size), counts, self._weight(spec), size)

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
            HepfeedError: An event could not be read or processed, or readers die of it or take longer than
                ``timeout_s``, again and again.
        """
        begun = self.clock.begin()
        waited, worked, made = 0.0, self._pool.worked_s, self._pool.ring.made_s
        while True:
            if not (self.batches and self.batches[0].group and self.batches[0].ready):  # they come several at a time
                self._pool.pump(0.0)
            if not self.batches:
                if self._peek() is None:
                    return None
                continue
            if self.batches[0].ready:
                break
            before = self._pool.ring.made_s
            waited += self._wait(timeout_s)
            made += self._pool.ring.made_s - before  # which is part of that wait
        batch = self.batches.popleft()
        if self.cache is not None:
            self.clock.counts["cache_hits"] += batch.hits
            self.clock.counts["cache_misses"] += len(batch.spec) - batch.hits
        delivery = batch.delivery or self._deliver(batch)
        with nvtx_range("dispatch"):
            self._pool.dispatch()
        made = self._pool.ring.made_s - made
        self.clock.add_start(made)
        not_here = waited + made + self._pool.worked_s - worked
        self.clock.stages["transfer"] += max(0.0, self.clock.since(begun) - not_here)
        return delivery

    def _wait(self, timeout_s: float) -> float:
        """Wait until something arrives; returns the seconds.  Without readers it is done here, and is no wait."""
        pool = self._pool
        if not pool.num_readers:
            pool.wait(timeout_s)
            return 0.0
        before = self.clock.begin()
        starting, no_room = not pool.is_up, self._is_full and pool.is_idle
        try:
            with nvtx_range("wait"):
                pool.wait(timeout_s)
        finally:
            waited = self.clock.add_wait(before, starting=starting, no_room=no_room)
        return waited

    def queues(self) -> dict[str, int]:
        """Return what is where, as :class:`hepfeed.stats.FeedStats` has it; all 0 once this stream is closed."""
        pool = self._pool_reference()
        if self.closed or pool is None:
            return dict.fromkeys(("planned", "in_hand", "ready", "slots", "slots_free"), 0)
        batches = list(self.batches)
        at_readers = {id(batch) for task in pool.in_hand(self) for batch in task.batches}
        ready = sum(batch.ready for batch in batches)
        in_hand = sum(not batch.ready and id(batch) in at_readers for batch in batches)
        return {
            "planned": len(batches) - ready - in_hand,
            "in_hand": in_hand,
            "ready": ready,
            "slots": len(pool.ring),
            "slots_free": pool.ring.free,
        }

    def look(self) -> Delivery | None:
        """Return what :meth:`next` will, if it is there already; None otherwise, and where that would raise.

        It reads nothing and waits for nobody, and the batch stays first in line.
        """
        if self._pool.num_readers and not (self.batches and self.batches[0].ready):
            self._pool.pump(0.0)
        head = self.batches[0] if self.batches else None
        if head is None or not head.ready or (head.failures and self.on_error != "skip"):
            return None
        head.delivery = head.delivery or self._deliver(head)
        return head.delivery

    def _deliver(self, batch: Pending) -> Delivery:
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

    def give_back(self, batch: Pending) -> None:
        """Free the slot of a batch that is not delivered."""
        if batch.delivery is not None:  # leased, so that it comes back by itself
            batch.delivery = None
        elif batch.group is not None:
            batch.group.drop(self._pool.ring)
        elif batch.slot >= 0:
            self._pool.ring.release(batch.slot)

    # ---- replies ---------------------------------------------------------------------------------------------------

    def read_done(self, task: Task, done: ReadDone) -> list[Task]:
        """Take note of a finished read; returns the tasks that it makes possible."""
        self.clock.add_read(done.costs, task.reader)
        by_slot = {batch.slot: batch for batch in task.batches}
        for slot, place, error in done.failures:
            by_slot[slot].failures.setdefault(place, error)
        follow = []
        for batch in task.batches:
            batch.reads_left -= 1
            if batch.reads_left:
                continue
            if done.finished is not None:
                self.finish_done(batch, done.finished, task.reader)
                continue
            failed = batch.failures and self.on_error != "skip"
            if self.has_steps and not failed and len(batch.failures) < len(batch.spec):
                follow.append(Task(self, "finish", self._finish(batch), [batch]))
            else:
                batch.ready = True
        return follow

    def _finish(self, batch: Pending) -> Finish:
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

    def finish_done(self, batch: Pending, finished: Finished, reader: int) -> list[Task]:
        """Take note of a batch that went through the pipeline of a reader; returns what is to be done again."""
        if finished.costs is not None:
            self.clock.add_read(finished.costs, reader)
        if self.cache is not None:
            self.cache.take(finished.written, finished.damaged)
        self.clock.add_transform(finished.total_ns * 1e-9, reader)
        if finished.again:  # what the cache has of it is damaged: now it is known to be missing
            return [self._recall(batch)]
        self.clock.counts["removed"] += finished.removed
        batch.failures.update(finished.failures)
        batch.finished = finished
        batch.ready = True
        return []

    def recall_done(self, task: Task, recalled: Recalled) -> list[Task]:
        """Take note of batches that came from the cache together; returns what is to be done again."""
        assert self.cache is not None
        self.clock.add_read(recalled.costs, task.reader)
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
            self.finish_done(batch, finished, task.reader)
        return []

    def failed(self, task: Task, error: Exception) -> None:
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


def _row_places(batches: list[Pending], window: Window) -> tuple[dict[str, Ints], dict[str, Ints]]:
    """Rows of earlier events in the batch, and of the whole batch, of each event of a window, for jagged keys."""
    at: dict[str, Ints] = {}
    totals: dict[str, Ints] = {}
    first = np.cumsum([0, *(len(batch.spec) for batch in batches)])[window.batch]
    for rows in batches[0].counts if batches else ():
        before = [np.cumsum(batch.counts[rows]) - batch.counts[rows] for batch in batches]
        at[rows] = np.concatenate(before)[first + window.place]
        totals[rows] = np.array([int(batch.counts[rows].sum()) for batch in batches], np.int64)[window.batch]
    return at, totals
