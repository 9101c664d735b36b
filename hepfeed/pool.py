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
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hepfeed.cache.feed import CacheFeed
from hepfeed.cache.memory import PartMemory
from hepfeed.errors import ReaderError
from hepfeed.parts.writer import PartsWritten
from hepfeed.reader import Reader
from hepfeed.ring import Ring
from hepfeed.stream import Stream, Task
from hepfeed.tasks import MISSING, Finished, Flush, Read, ReadDone, Recall, RecallMany
from hepfeed.worker import JOIN_TIMEOUT_S, Worker

__all__ = ["ReaderPool"]

_MAX_ATTEMPTS = 3
_TASKS_IN_HAND = 3  # of each reader: enough that it need not wait for the consumer
_FLUSH_S = 30.0

_logger = logging.getLogger("hepfeed")


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
        self._queue: deque[Task] = deque()
        self._readers: list[_ReaderProcess] = []
        self._local = Reader(self.ring.descriptor) if num_readers == 0 else None
        self._local_knows = _Known()
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
            if stream.number in reader.knows.streams:
                reader.knows.streams.discard(stream.number)
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
        for method, *args in self._introductions(task, self._local_knows):
            getattr(local, method)(*args)
        try:
            value = getattr(local, task.method)(task.argument)
        except Exception as error:
            task.stream.failed(task, error)
            return
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
        return task.stream.finish_done(task.batches[0], value)

    def flush(self, stream: Stream) -> None:
        """Let readers write what they have collected for the cache of a stream, and wait for it."""
        if self._local is not None:
            if stream.number in self._local_knows.streams:
                self._reply(Task(stream, "flush", Flush(stream.number), []), self._local.flush(Flush(stream.number)))
            return
        for reader in self._readers:
            if stream.number in reader.knows.streams:
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
            calls.append(("add_files", stream.form.catalog, {file: stream.index.source_table(file) for file in fresh}))
        return calls

    def _assign(self) -> None:
        """Hand tasks to readers, in order; a unit's remains go to the reader that keeps them."""
        waiting: deque[Task] = deque()
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

    def _choose(self, task: Task) -> _ReaderProcess | None:
        keeper = self._keeper_of(task)
        if keeper is not None and len(keeper.in_hand) < 2 * _TASKS_IN_HAND:
            return keeper
        reader = min(self._readers, key=lambda r: len(r.in_hand))
        return reader if len(reader.in_hand) < _TASKS_IN_HAND else None

    def _keeper_of(self, task: Task) -> _ReaderProcess | None:
        if not self._keeper or not isinstance(task.argument, Read):
            return None
        for unit in np.unique(task.argument.unit).tolist():
            keeper = self._keeper.get((task.stream.number, unit))
            if keeper is not None:
                return keeper
        return None

    def _send(self, reader: _ReaderProcess, task: Task) -> None:
        for method, *args in self._introductions(task, reader.knows):
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
                reader.knows.use_grants(value)
            if stream.closed:
                self._settle(stream)
            elif succeeded:
                self._queue.extendleft(reversed(self._reply(task, value)))
            else:
                stream.failed(task, value)

    def _replace(self, dead: _ReaderProcess) -> None:
        """Start a reader in the place of one that died, and hand its tasks to the others again."""
        dead.worker.close()
        dead.knows.give_back()
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
        knows = [self._local_knows, *(reader.knows for reader in self._readers)]
        _close_all(self._readers, self.ring, self._local, self._owner)
        for each in knows:
            each.give_back()
        self._streams.clear()
        self._queue.clear()
        self._keeper.clear()


_NO_REPLY = 0


@dataclass
class _Known:
    """What a reader was told.

    Attributes:
        streams: Their numbers.
        files: Numbers of files, by catalog.
        parts: Numbers of parts, by the token of the cache.
        grants: Slots of the cache's memory that it may fill, by the token of the cache.
        memories: That they are of, in the same way.
    """

    streams: set[int] = field(default_factory=set)
    files: dict[str, set[int]] = field(default_factory=dict)
    parts: dict[str, set[int]] = field(default_factory=dict)
    grants: dict[str, set[int]] = field(default_factory=dict)
    memories: dict[str, PartMemory] = field(default_factory=dict)

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


class _ReaderProcess:
    """A reader's process and what it was told."""

    def __init__(self, ring: int) -> None:
        self.worker = Worker("hepfeed.reader:Reader", (ring, True), (ring,))
        self.in_hand: dict[int, Task] = {}
        self.knows = _Known()
        self.fills = False  # whether it may have something to write to a cache

    def fileno(self) -> int:
        return self.worker.fileno()


def _died(task: Task, code: int | None) -> ReaderError:
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
