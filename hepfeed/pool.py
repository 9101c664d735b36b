"""A pool of readers and one ring, which any number of streams (train, validation, test) share.

Everything is driven by the consumer: a request for a batch sends tasks, waits for replies, and hands out the batch at
the head of its stream.  There is no thread.  Tasks are idempotent, so those of a reader that died are sent again to
another one; an event that kills its reader three times is an error.
"""

from __future__ import annotations

import logging
import os
import time
import weakref
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np

from hepfeed.cache.feed import CacheFeed
from hepfeed.cache.memory import PartMemory
from hepfeed.channel import WorkerLike
from hepfeed.crew import MAX_ATTEMPTS, Answer, Crew, Death, Member
from hepfeed.errors import FeedTimeoutError, ReaderError
from hepfeed.parts.writer import PartsWritten
from hepfeed.reader import Reader
from hepfeed.ring import Ring
from hepfeed.stream import Stream, Task
from hepfeed.tasks import MISSING, Finished, Flush, Read, ReadDone, Recall, RecallMany
from hepfeed.thread_worker import ThreadWorker
from hepfeed.worker import JOIN_TIMEOUT_S, Worker, WorkerProcess

__all__ = ["ReaderPool", "WorkerMethod"]

WorkerMethod = Literal["process", "thread"]

_TASKS_IN_HAND = 3  # of each reader: enough that it need not wait for the consumer
_FLUSH_S = 30.0

_logger = logging.getLogger("hepfeed")


class ReaderPool:
    """Readers, and the ring that they fill.

    Args:
        num_readers: How many; 0 reads in the consumer's process.
        method: Whether a reader is a process, or a thread of the consumer's process; a thread can't be killed, and is
            for pipelines of hepfeed's own steps only, see :meth:`hepfeed.pipeline.Pipeline.need_native`.

    Attributes:
        worked_s: Seconds that the consumer's process read itself.
    """

    def __init__(self, num_readers: int, method: WorkerMethod = "process") -> None:
        self.num_readers = num_readers
        self.method: WorkerMethod = method
        self.ring = Ring()
        self._streams: dict[int, Stream] = {}
        self._closing: dict[int, Stream] = {}
        self._count = 0
        self._queue: deque[Task] = deque()
        self._local = Reader(self.ring.descriptor) if num_readers == 0 else None
        self._local_knows = _Known()
        self.worked_s = 0.0
        self._verified: dict[str, int] = {}  # slot for each cache
        self._keeper: dict[tuple[int, int], Member[Task, _Known]] = {}  # who keeps the rest of a unit
        self._owner = os.getpid()
        try:
            self._crew: Crew[Task, _Known] = Crew(
                partial(_start, method, self.ring.descriptor, num_readers), _Known, num_readers
            )
        except BaseException:
            self.ring.close()
            raise
        self._finalizer = weakref.finalize(self, _close_all, self._crew, self.ring, self._local, os.getpid())

    @property
    def pids(self) -> list[int]:
        """Process numbers of the readers."""
        return [process.pid for process in self.processes]

    @property
    def processes(self) -> list[WorkerProcess]:
        """The readers that are processes, as multiprocessing shows them."""
        return [WorkerProcess(each.worker) for each in self._crew.members if isinstance(each.worker, Worker)]

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called, or this is a forked copy of the pool."""
        return self.ring.descriptor < 0 or self._owner != os.getpid()

    @property
    def is_up(self) -> bool:
        """Whether there is a reader yet."""
        return self._local is not None or any(member.built for member in self._crew.members)

    @property
    def is_idle(self) -> bool:
        """Whether a reader has nothing to do."""
        return any(not member.in_hand for member in self._crew.members)

    def in_hand(self, stream: Stream) -> list[Task]:
        """Return the tasks of a stream that readers have."""
        tasks = [task for member in self._crew.members for task in list(member.in_hand.values())]
        return [task for task in tasks if task.stream is stream]

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
        for reader in self._crew.members:
            if stream.number in reader.notes.streams:
                reader.notes.streams.discard(stream.number)
                self._crew.tell(reader, "drop_stream", stream.number)

    # ---- work ------------------------------------------------------------------------------------------------------

    def dispatch(self, widens: bool = True) -> None:
        """Plan, and hand tasks to readers, as far as there is room.

        Args:
            widens: Streams that begin may plan one batch more than before.
        """
        self.ring.reclaim()
        for stream in self._streams.values():
            self._queue.extend(stream.plan(widens))
        if self._local is None:
            self._assign()

    def pump(self, wait_s: float) -> None:
        """Dispatch, and take in what has arrived; waits at most ``wait_s`` for a reply."""
        self.dispatch(widens=wait_s > 0)
        if self._local is not None:
            self._work_here(self._local)
            return
        self._take(self._crew.pump(wait_s))

    def wait(self, timeout_s: float) -> None:
        """Wait for a reply, at most 1 s; readers that take longer than ``timeout_s`` (0: for ever) are replaced.

        Raises:
            FeedTimeoutError: A second reader takes too long for the same events.
        """
        self.pump(self._crew.patience_s(timeout_s))
        late = self._crew.stalled(timeout_s)
        if late is None:
            return
        if self._crew.is_hopeless(late):
            raise _timed_out(late.oldest, timeout_s)
        self._take(self._crew.dismiss(late, timeout_s))

    def _take(self, events: list[Answer[Task, _Known] | Death[Task, _Known]]) -> None:
        for event in events:
            if isinstance(event, Death):
                self._replace(event)
            else:
                self._answered(event)
        if events:
            self._assign()

    def _work_here(self, local: Reader) -> None:
        """Work on one task in the consumer's process."""
        if not self._queue:
            return
        task = self._queue.popleft()
        begun = time.perf_counter()
        for method, *args in self._introductions(task, self._local_knows):
            getattr(local, method)(*args)
        try:
            value = getattr(local, task.method)(task.argument)
        except Exception as error:
            task.stream.failed(task, error)
            return
        finally:
            self.worked_s += time.perf_counter() - begun
        self._local_knows.use_grants(value)
        self._queue.extendleft(reversed(self._reply(task, value)))

    def _reply(self, task: Task, value: Any) -> list[Task]:
        if task.method == "read":
            return task.stream.read_done(task, value)
        if task.method == "recall_many":
            return task.stream.recall_done(task, value)
        if task.method == "flush":
            if task.stream.cache is not None:
                task.stream.cache.take(value, [])
            return []
        return task.stream.finish_done(task.batches[0], value, task.reader)

    def flush(self, stream: Stream) -> None:
        """Let readers write what they have collected for the cache of a stream, and wait for it."""
        if self._local is not None:
            if stream.number in self._local_knows.streams:
                self._reply(Task(stream, "flush", Flush(stream.number), []), self._local.flush(Flush(stream.number)))
            return
        for reader in self._crew.members:
            if stream.number in reader.notes.streams:
                self._send(reader, Task(stream, "flush", Flush(stream.number), []))
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

    def _introductions(self, task: Task, knows: _Known) -> list[tuple[Any, ...]]:
        """Calls that tell a reader of the stream, the files and the parts of a task, where it does not know them."""
        stream = task.stream
        calls: list[tuple[Any, ...]] = []
        if stream.number not in knows.streams:
            knows.streams.add(stream.number)
            calls.append(("add_stream", stream.number, stream.form))
        if stream.cache is not None and stream.cache.store.memory is not None:
            calls += knows.memory_calls(stream.cache.store.memory, stream.cache.store.token, stream.fills_cache)
        some = task.argument.file
        if isinstance(task.argument, Recall | RecallMany) and stream.cache is not None:
            feed, part = stream.cache, task.argument.part
            some = some[part == MISSING]
            told = knows.parts.setdefault(feed.store.token, set())
            new = [number for number in np.unique(part).tolist() if number >= 0 and number not in told]
            if new or not told:
                told.update(new)
                calls.append(("add_cache", feed.table(self._slot_for(feed)), feed.parts(new)))
        known = knows.files.setdefault(stream.form.catalog, set())
        fresh = [file for file in np.unique(some).tolist() if file not in known]
        if fresh:
            known.update(fresh)
            calls.append(("add_files", stream.form.catalog, stream.index.source_tables(fresh)))
        return calls

    def _assign(self) -> None:
        """Hand tasks to readers, in order; a unit's remains go to the reader that keeps them."""
        waiting: deque[Task] = deque()
        while self._queue:
            task = self._queue.popleft()
            reader = self._choose(task)
            if reader is None:
                waiting.append(task)
                if all(len(r.in_hand) >= _TASKS_IN_HAND for r in self._crew.members):
                    break
                continue
            self._send(reader, task)
        self._queue.extendleft(reversed(waiting))

    def _choose(self, task: Task) -> Member[Task, _Known] | None:
        keeper = self._keeper_of(task)
        if keeper is not None and len(keeper.in_hand) < 2 * _TASKS_IN_HAND:
            return keeper
        reader = min(self._crew.members, key=lambda r: len(r.in_hand))
        return reader if len(reader.in_hand) < _TASKS_IN_HAND else None

    def _keeper_of(self, task: Task) -> Member[Task, _Known] | None:
        if not self._keeper or not isinstance(task.argument, Read):
            return None
        for unit in np.unique(task.argument.unit).tolist():
            keeper = self._keeper.get((task.stream.number, unit))
            if keeper is not None:
                return keeper
        return None

    def _send(self, reader: Member[Task, _Known], task: Task) -> None:
        for method, *args in self._introductions(task, reader.notes):
            self._crew.tell(reader, method, *args)
        if isinstance(task.argument, Read):
            for unit in np.unique(task.argument.unit).tolist() if self._keeper else ():
                self._keeper.pop((task.stream.number, unit), None)
            for unit in task.argument.kept:
                self._keeper[task.stream.number, unit] = reader
        reader.notes.fills = task.method != "flush" and (reader.notes.fills or task.stream.fills_cache)
        task.stream.outstanding += 1
        task.reader = reader.number
        self._crew.give(reader, task, task.method, task.argument)

    def _answered(self, answer: Answer[Task, _Known]) -> None:
        task, stream = answer.call, answer.call.stream
        stream.outstanding -= 1
        if answer.succeeded:
            answer.member.notes.use_grants(answer.value)
        if stream.closed:
            self._settle(stream)
        elif answer.succeeded:
            self._queue.extendleft(reversed(self._reply(task, answer.value)))
        else:
            assert isinstance(answer.value, Exception)
            stream.failed(task, answer.value)

    def _replace(self, death: Death[Task, _Known]) -> None:
        """Start a reader in the place of one that died, and hand its tasks to the others again."""
        dead = death.member
        dead.notes.give_back()
        self._keeper = {key: reader for key, reader in self._keeper.items() if reader is not dead}
        again = []
        for position, task in enumerate(death.calls):
            task.stream.outstanding -= 1
            if task.stream.closed:
                self._settle(task.stream)
                continue
            task.stream.clock.counts["restarts"] += position == 0
            if task.attempts >= MAX_ATTEMPTS:
                task.stream.failed(task, _died(task, death))
                continue
            again.append(task)
        # The one that it died of or hung on comes last: those behind it may be of earlier batches.
        again.sort(key=lambda task: task is death.calls[0])
        self._queue.extendleft(reversed(again))
        self._crew.replace(dead)

    def close(self) -> None:
        """End the readers and give the memory back; batches that are held stay valid."""
        knows = [self._local_knows, *(reader.notes for reader in self._crew.members)]
        _close_all(self._crew, self.ring, self._local, self._owner)
        for each in knows:
            each.give_back()
        self._streams.clear()
        self._queue.clear()
        self._keeper.clear()


@dataclass
class _Known:
    """What a reader was told.

    Attributes:
        streams: Their numbers.
        files: Numbers of files, by catalog.
        parts: Numbers of parts, by the token of the cache.
        grants: Slots of the cache's memory that it may fill, by the token of the cache.
        memories: That they are of, in the same way.
        fills: Whether it may have something to write to a cache.
    """

    streams: set[int] = field(default_factory=set)
    files: dict[str, set[int]] = field(default_factory=dict)
    parts: dict[str, set[int]] = field(default_factory=dict)
    grants: dict[str, set[int]] = field(default_factory=dict)
    memories: dict[str, PartMemory] = field(default_factory=dict)
    fills: bool = False

    def memory_calls(self, memory: PartMemory, token: str, fills: bool) -> list[tuple[Any, ...]]:
        """Return calls that tell of the shared memory of a cache, and which slot of it the next part may fill."""
        calls: list[tuple[Any, ...]] = []
        if token not in self.grants:
            self.grants[token], self.memories[token] = set(), memory
            calls.append(("add_memory", token, memory.path))
        if fills and not self.grants[token] and (slot := memory.grant()) is not None:
            self.grants[token].add(slot)
            calls.append(("grant", token, slot))
        return calls

    def use_grants(self, value: Any) -> None:
        """Take note of slots that were filled, as an answer tells."""
        finished = value.finished if isinstance(value, ReadDone) else value
        written = finished.written if isinstance(finished, Finished) else finished
        if isinstance(written, PartsWritten):
            for part in written.parts:
                for slots in self.grants.values():
                    slots.discard(part.slot)

    def give_back(self) -> None:
        """Give back the slots that were not filled."""
        for token, slots in self.grants.items():
            while slots:
                self.memories[token].give_back(slots.pop())


def _start(method: WorkerMethod, ring: int, count: int, number: int) -> WorkerLike:
    if method == "thread":
        return ThreadWorker("hepfeed.reader:Reader", (ring, False, number, count))
    return Worker("hepfeed.reader:Reader", (ring, True, number), (ring,))


def _died(task: Task, death: Death[Task, _Known]) -> ReaderError:
    argument = task.argument
    if isinstance(argument, Flush):
        return ReaderError(f"a reader died {task.attempts} times while it wrote to the cache")
    path, row = _first_event(task)
    return ReaderError(
        f"a reader {death.how} {task.attempts} times on {len(argument.file)} events, the first of them event {row} of"
        f" {path!r}: look for lack of memory or a crash in process_fn; num_workers=0 shows it in this process",
        file=path,
        event=row,
    )


def _timed_out(task: Task, timeout_s: float) -> FeedTimeoutError:
    said = f"DataLoader timed out after {timeout_s:g} seconds"
    if isinstance(task.argument, Flush):
        return FeedTimeoutError(f"{said}: two readers could not write to the cache in that time")
    path, row = _first_event(task)
    return FeedTimeoutError(
        f"{said}: two readers hung on {len(task.argument.file)} events, the first of them event {row} of {path!r}; look"
        " at the file system, or at process_fn, or allow a longer timeout",
        file=path,
        event=row,
    )


def _first_event(task: Task) -> tuple[str, int]:
    argument = task.argument
    assert not isinstance(argument, Flush)
    return task.stream.index.files[int(argument.file[0])], int(argument.row[0])


def _close_all(crew: Crew[Task, _Known], ring: Ring, local: Reader | None, owner: int) -> None:
    crew.close(_FLUSH_S if any(reader.notes.fills for reader in crew.members) else JOIN_TIMEOUT_S)
    if local is not None and owner == os.getpid():
        local.close()
    ring.close()
