"""An epoch of any dataset, read by worker processes: torch's multi-process iterator, with hepfeed's ring and crew.

Which worker makes which batch, its seeds, and what happens at errors and ends is torch's contract.  Batches come
through shared memory without copies, and a worker that dies or stalls is replaced: its successor goes on with the
random states that it left, so that the epoch is the same bit for bit.
"""

from __future__ import annotations

import logging
import signal
import warnings
import weakref
from collections import deque
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.context import BaseContext
from pickle import PicklingError
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterDataPipe, MapDataPipe, default_collate, default_convert
from torch.utils.data._utils.pin_memory import pin_memory
from torch.utils.data.dataloader import _sharding_worker_init_fn

from hepfeed.crew import MAX_ATTEMPTS, Answer, Crew, Death, Member
from hepfeed.cuda_engine import CudaEngine
from hepfeed.dataset_process import DatasetProcess
from hepfeed.dataset_reader import Caught, DatasetJob, Ended
from hepfeed.errors import FeedTimeoutError, ReaderError
from hepfeed.parcel import Parcel, unpack
from hepfeed.ranges import nvtx_range
from hepfeed.resumable import ResumableIterator
from hepfeed.ring import Ring
from hepfeed.sampler_states import take_states
from hepfeed.stats import StageClock
from hepfeed.stream import MAX_LEASES
from hepfeed.transfer import Sent, Transfer

__all__ = ["DatasetIterator"]

_JOIN_TIMEOUT_S = 1.0
_LONGEST_INDEX = 200
_logger = logging.getLogger("hepfeed")


@dataclass(eq=False)
class _Fetch:
    """A batch that a worker is to make.

    Attributes:
        place: In the order of batches.
        index: What the sampler said of it.
        number: It is this fetch of its worker in this epoch, counted from 0.
        epoch: Of the iterator.
        answer: What came back.
        ready: Whether it was taken note of, and waits for its turn.
        sent: The batch on its way to a device before its turn, or what went wrong with it.
    """

    place: int
    index: Any
    worker: int
    number: int
    slot: int
    epoch: int
    answer: Parcel | Caught | Ended | Exception | None = None
    ready: bool = False
    attempts: int = 0
    stalls: int = 0
    sent: Sent | Exception | None = None

    def send(self, crew: _Crew, member: _Member) -> None:
        """Give it to a worker."""
        crew.give(member, self, "fetch", self.number, self.index, self.slot)


@dataclass(eq=False)
class _Resume:
    """A new epoch of persistent workers."""

    shared_seed: int | None
    epoch: int
    attempts: int = 0
    stalls: int = 0

    def send(self, crew: _Crew, member: _Member) -> None:
        """Tell a worker of it."""
        crew.give(member, self, "resume", self.shared_seed)


_Call = _Fetch | _Resume
_Memory = NDArray[np.uint8]
_Member = Member[_Call, None]
_Crew = Crew[_Call, None]


@dataclass
class _Worker:
    """What the iterator knows of a worker.

    Attributes:
        active: Whether it has more to deliver in this epoch.
        assigned: Fetches that it was given in this epoch, in this process.
        tasks: Of them, those whose batch was not delivered yet.
        answered: Of them, those that it answered, up to the last one.
        openings: Calls that bring a new worker to where this process began the epoch.
        delivered: Fetches of this epoch that the consumer has seen, wherever it began.
        dataset: Pickled state of a stateful dataset after the last of them, or None.
        start: Random states at the start of the epoch; None: those of a new worker.
        random: Random states after the last fetch that the consumer has seen; None: those at the start.
    """

    active: bool = True
    assigned: int = 0
    tasks: int = 0
    answered: int = 0
    openings: list[tuple[Any, ...]] = field(default_factory=list)
    delivered: int = 0
    dataset: bytes | None = None
    start: bytes | None = None
    random: bytes | None = None

    @classmethod
    def resumed(cls, state: dict[str, Any], base_seed: int, iterable: bool) -> _Worker:
        """Return what is known of a worker that goes on where another one was."""
        dataset, start, random = state["dataset"], state["start"], state["random"]
        draws_again = iterable and dataset is None
        openings: list[tuple[Any, ...]] = [("set_random", start if draws_again else random or start, base_seed)]
        if iterable:
            openings.append(("restore", dataset, state["delivered"]))
        return cls(openings=openings, **state)

    def state(self) -> dict[str, Any]:
        """Return what :meth:`resumed` needs."""
        return {name: getattr(self, name) for name in ("active", "delivered", "dataset", "start", "random")}


class DatasetIterator(ResumableIterator):
    """Batches of one loader, in the order of its sampler.

    Args:
        loader: A :class:`hepfeed.DataLoader`, whose attributes say what to do.
        clock: Where times and counts go.
    """

    def __init__(self, loader: Any, clock: StageClock) -> None:
        super().__init__(loader)
        self._ring = Ring()
        self._clock = clock
        self._transfer: Transfer | None = loader._transfer
        self._locks: CudaEngine | None = None
        self._failure: Exception | None = None  # of the workers, found while looking for a batch before its turn
        self._in_order = loader.in_order
        self._most_tasks = max(1, loader.prefetch_factor or 0) * self._num_workers
        self._epoch = -1
        state_slots = [self._ring.acquire(0) for _ in range(self._num_workers)]
        start = partial(_start, _context(loader), self._job(loader), self._ring.descriptor, state_slots)
        try:
            self._crew: _Crew = Crew(start, _no_notes, self._num_workers)
        except BaseException:
            self._ring.close()
            raise
        self._finalizer = weakref.finalize(self, _close, self._crew, self._ring, self._transfer)
        self._workers = [_process(member) for member in self._crew.members]
        try:
            self._reset(loader, first_iter=True)
        except BaseException:
            self._shutdown_workers()
            raise

    def _job(self, loader: Any) -> DatasetJob:
        init = loader.worker_init_fn
        if isinstance(self._dataset, IterDataPipe | MapDataPipe):
            init = partial(_sharding_worker_init_fn, init, self._world_size, self._rank)
        return DatasetJob(
            dataset=self._dataset,
            iterable=self._iterable,
            auto_collation=self._auto_collation,
            collate_fn=None if self._collate_fn in (default_collate, default_convert) else self._collate_fn,
            drop_last=self._drop_last,
            worker_init_fn=init,
            base_seed=int(self._base_seed),
            worker_id=0,
            num_workers=self._num_workers,
            shared_seed=self._shared_seed,
            persistent=self._persistent_workers,
        )

    def _reset(self, loader: Any, first_iter: bool = False) -> None:
        """Begin an epoch, or go on with one."""
        if not first_iter:
            self._resumed = self._take_state(loader)
        self._before = take_states(self._generators)
        super()._reset(loader, first_iter)
        state, self._resumed = self._resumed, None
        self._begin_pass(state)
        self._epoch += 1
        if not first_iter:
            if state is not None:
                self._shared_seed = state["shared_seed"]
            for fetch in self._tasks.values():
                if fetch.answer is not None and fetch.sent is None:  # what was sent is leased, and comes back by itself
                    self._ring.release(fetch.slot)
            self._failure = None
            for member in self._crew.members:
                _Resume(self._shared_seed, self._epoch).send(self._crew, member)
        self._states = self._resumed_workers(state)
        for member, worker in zip(self._crew.members, self._states):
            for opening in worker.openings:
                self._crew.tell(member, *opening)
        self._send_idx = 0  # place of the next batch that is asked for
        self._rcvd_idx = 0  # place of the next batch that is delivered
        self._tasks: dict[int, _Fetch] = {}  # those between them
        self._arrived: deque[_Fetch] = deque()
        self._clock.start(self)
        for _ in range(self._most_tasks):
            self._try_put_index()

    def queues(self) -> dict[str, int]:
        """Return what is where, as :class:`hepfeed.stats.FeedStats` has it."""
        fetches = list(self._tasks.values())
        if not fetches:
            return dict.fromkeys(("planned", "in_hand", "ready", "slots", "slots_free"), 0)
        ready = sum(fetch.answer is not None for fetch in fetches)
        at_work = sum(bool(member.in_hand) for member in list(self._crew.members))
        in_hand = min(at_work, len(fetches) - ready)
        return {
            "planned": len(fetches) - ready - in_hand,
            "in_hand": in_hand,
            "ready": ready,
            "slots": len(self._ring),
            "slots_free": self._ring.free,
        }

    @property
    def reader_pids(self) -> list[int]:
        """Process numbers of the workers."""
        return [member.worker.pid for member in list(self._crew.members)]

    # ---- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last batch that the consumer has seen; what is on its way does not count."""
        ahead = [fetch.worker for _, fetch in sorted(self._tasks.items()) if self._states[fetch.worker].active]
        return {
            **super().state_dict(),
            "workers": [worker.state() for worker in self._states],
            "ahead": [*self._planned, *ahead],
            "turn": self._turn,
        }

    def _resumed_workers(self, state: dict[str, Any] | None) -> list[_Worker]:
        self._planned: deque[int] = deque()  # workers whose turn comes before those of the round
        self._turn = 0
        if state is None:
            return [_Worker() for _ in range(self._num_workers)]
        workers = state["workers"]
        if len(workers) != self._num_workers:
            if any(worker["random"] or worker["start"] for worker in workers):
                _logger.warning(
                    "the state was taken with num_workers=%d, not %d: the dataset draws other random numbers from here",
                    len(workers),
                    self._num_workers,
                )
            return [_Worker() for _ in range(self._num_workers)]
        self._planned.extend(state["ahead"])
        self._turn = state["turn"]
        return [_Worker.resumed(worker, state["base_seed"], self._iterable) for worker in workers]

    # ---- asking for batches ----------------------------------------------------------------------------------------

    def _try_put_index(self) -> None:
        """Ask the worker whose turn it is for the next batch, if there is one of both."""
        try:
            index = self._next_index()  # type: ignore[no-untyped-call]
        except StopIteration:
            return
        number = self._choose()
        if number is None:
            return
        worker = self._states[number]
        slot = self._ring.acquire(0)
        fetch = _Fetch(self._send_idx, index, number, worker.assigned, slot, self._epoch)
        fetch.send(self._crew, self._crew.members[number])
        worker.assigned += 1
        worker.tasks += 1
        self._tasks[self._send_idx] = fetch
        self._send_idx += 1

    def _choose(self) -> int | None:
        while self._planned:
            number = self._planned.popleft()
            if self._states[number].active:
                return number
        active = sum(worker.active for worker in self._states)
        for _ in range(self._num_workers):
            number, self._turn = self._turn, (self._turn + 1) % self._num_workers
            worker = self._states[number]
            if worker.active and (self._in_order or worker.tasks < self._most_tasks // active):
                return number
        return None

    # ---- delivering them -------------------------------------------------------------------------------------------

    def _next_data(self) -> Any:
        begun, self._waited = self._clock.begin(), 0.0
        if self._failure is not None:
            raise self._failure
        fetch = self._next_fetch()
        worker = self._states[fetch.worker]
        worker.tasks -= 1
        worker.delivered += 1
        if isinstance(fetch.answer, Parcel):
            worker.dataset, worker.random = fetch.answer.state, fetch.answer.random or worker.random
        self._try_put_index()
        self._count_delivered()
        try:
            return self._deliver(fetch)
        finally:
            self._clock.stages["transfer"] += max(0.0, self._clock.since(begun) - self._waited)

    def _next_fetch(self) -> _Fetch:
        """Wait for the batch whose turn it is, or for any where the order does not matter."""
        while True:
            while self._rcvd_idx < self._send_idx:
                head = self._tasks.get(self._rcvd_idx)
                if head is not None and (head.ready or self._states[head.worker].active):
                    break
                self._tasks.pop(self._rcvd_idx, None)
                self._rcvd_idx += 1
            else:
                self._clock.end()
                if self._transfer is not None:
                    self._transfer.finish()
                if not self._persistent_workers:
                    self._shutdown_workers()
                raise StopIteration
            if head.ready:
                self._rcvd_idx += 1
                return self._tasks.pop(head.place)
            fetch = self._receive()
            fetch.ready = True
            if isinstance(fetch.answer, ReaderError) and self._iterable:
                self._states[fetch.worker].active = False
            if isinstance(fetch.answer, Ended):
                self._end_of_worker(fetch)
            elif fetch.place == self._rcvd_idx:
                self._rcvd_idx += 1
                return self._tasks.pop(fetch.place)
            elif not self._in_order:
                return self._tasks.pop(fetch.place)

    def _end_of_worker(self, fetch: _Fetch) -> None:
        """Take note that a worker has delivered all of its iterable dataset."""
        self._ring.release(fetch.slot)
        self._tasks.pop(fetch.place, None)
        worker, member = self._states[fetch.worker], self._crew.members[fetch.worker]
        if worker.active:
            worker.active = False
            self._try_put_index()
        if not member.in_hand and not self._persistent_workers:
            member.worker.hang_up()

    def _receive(self) -> _Fetch:
        """Wait for an answer.

        Raises:
            FeedTimeoutError: Two workers, one after the other, took longer than the time-out for the same batch.
        """
        while not self._arrived:
            assert any(member.in_hand for member in self._crew.members), "somebody makes the batch that is waited for"
            begun, members = self._clock.begin(), self._crew.members
            starting = not any(member.built for member in members)
            no_room = len(self._tasks) >= self._most_tasks and any(not member.in_hand for member in members)
            with nvtx_range("wait"):
                self._take(self._crew.pump(self._crew.patience_s(self._timeout)))
            self._waited += self._clock.add_wait(begun, starting=starting, no_room=no_room)
            late = self._crew.stalled(self._timeout)
            if late is None or self._arrived:
                continue
            if self._crew.is_hopeless(late):
                raise FeedTimeoutError(
                    f"DataLoader timed out after {self._timeout:g} seconds: two workers hung on {_said(late.oldest)};"
                    " look at the dataset and its file system, or allow a longer timeout"
                )
            self._take(self._crew.dismiss(late, self._timeout))
        return self._arrived.popleft()

    def _take(self, events: list[Answer[_Call, None] | Death[_Call, None]]) -> None:
        for event in events:
            if isinstance(event, Death):
                self._replace(event)
            elif isinstance(event.call, _Fetch):
                if event.call.epoch == self._epoch:
                    self._states[event.member.number].answered = event.call.number + 1
                self._answered(event.call, event.value)
            elif not event.succeeded:
                assert isinstance(event.value, Exception)
                raise event.value
            elif event.call.epoch == self._epoch and not self._states[event.member.number].openings:
                assert isinstance(event.value, bytes | None)
                self._states[event.member.number].start = event.value

    def _answered(self, fetch: _Fetch, answer: Any) -> None:
        if fetch.epoch != self._epoch:  # of an epoch that was left early
            self._ring.release(fetch.slot)
            return
        fetch.answer = answer
        self._arrived.append(fetch)

    def _replace(self, death: Death[_Call, None]) -> None:
        """Let a new worker go on where one died."""
        calls = deque(death.calls)
        self._clock.counts["restarts"] += 1
        if calls and calls[0].attempts >= MAX_ATTEMPTS:
            poison = calls.popleft()
            if not isinstance(poison, _Fetch):
                raise _died(poison, death)
            self._answered(poison, _died(poison, death))
            if self._iterable:  # which can't pass over it: its worker has come to an end
                for call in calls:
                    if isinstance(call, _Fetch):
                        self._ring.release(call.slot)
                calls.clear()
        member = self._crew.replace(death.member)
        worker = self._states[member.number]
        self._workers[member.number] = _process(member)
        if calls and isinstance(calls[0], _Fetch):
            for opening in worker.openings:
                self._crew.tell(member, *opening)
            is_present = calls[0].epoch == self._epoch
            self._crew.tell(member, "recover", worker.answered if is_present else calls[0].number)
        for call in calls:
            call.send(self._crew, member)

    def _deliver(self, fetch: _Fetch) -> Any:
        """Return a batch: on the device, where there is one, and of views of its slot otherwise."""
        answer = fetch.answer
        if not isinstance(answer, Parcel):
            self._ring.release(fetch.slot)
            if isinstance(answer, Caught):
                answer.reraise()
            assert isinstance(answer, Exception)
            raise answer
        self._clock.counts["batches"] += 1
        self._clock.counts["events"] += answer.examples
        self._clock.add_transform(answer.spent_ns * 1e-9, fetch.worker)
        if self._transfer is not None:
            return self._there(fetch, answer, self._transfer)
        with nvtx_range("collate"):
            batch, memory = self._unpacked(fetch, answer)
        if not self._pin_memory:
            return batch
        if memory is not None and torch.cuda.is_available():
            self._locks = self._locks or CudaEngine(torch.device("cuda"))
            self._ring.pin(fetch.slot, answer.bytes, self._locks, True)
        return pin_memory(batch, self._pin_memory_device)  # type: ignore[no-untyped-call]

    def _unpacked(self, fetch: _Fetch, parcel: Parcel) -> tuple[Any, _Memory | None]:
        """Return a batch, and the slot that it has views of, unless the consumer holds too many batches already."""
        ring = self._ring
        if not parcel.bytes:
            ring.release(fetch.slot)
            return unpack(parcel, _NOTHING), None
        shared = ring.leased < MAX_LEASES
        memory = ring.lease(fetch.slot, parcel.bytes)
        if shared:
            return unpack(parcel, memory), memory
        self._clock.counts["copies"] += 1
        return unpack(parcel, memory.copy()), None

    def _there(self, fetch: _Fetch, parcel: Parcel, transfer: Transfer) -> Any:
        """Return a batch on the device, and begin to copy the next one, if that is there already."""
        sent, fetch.sent = fetch.sent or self._send(fetch, parcel, transfer), None
        if isinstance(sent, Exception):
            raise sent
        self._clock.counts["bytes_sent"] += sent.bytes
        batch = transfer.receive(sent)
        try:
            ahead = self._look()
        except Exception as error:
            self._failure = error
            return batch
        if ahead is not None and isinstance(ahead.answer, Parcel) and ahead.sent is None:
            try:
                ahead.sent = self._send(ahead, ahead.answer, transfer)
            except Exception as error:
                ahead.sent = error
        return batch

    def _send(self, fetch: _Fetch, parcel: Parcel, transfer: Transfer) -> Sent:
        with nvtx_range("collate"):
            batch, memory = self._unpacked(fetch, parcel)
        return transfer.send(
            batch, memory, None if memory is None else partial(self._ring.pin, fetch.slot, parcel.bytes)
        )

    def _look(self) -> _Fetch | None:
        """Return what comes next, if it is there already, and leave it where it is."""
        head = self._tasks.get(self._rcvd_idx)
        if head is not None and head.answer is None and any(member.in_hand for member in self._crew.members):
            self._take(self._crew.pump(0.0))
        if not self._in_order and self._arrived:
            return self._arrived[0]
        return head

    def _shutdown_workers(self) -> None:
        """End the workers and give shared memory back; batches that are held stay valid."""
        self._finalizer()


_NOTHING = np.empty(0, np.uint8)


def _no_notes() -> None:
    """Make what the iterator notes of a worker within its crew."""


def _context(loader: Any) -> Any:
    return torch.multiprocessing if loader.multiprocessing_context is None else loader.multiprocessing_context


def _start(context: BaseContext, job: DatasetJob, ring: int, state_slots: list[int], number: int) -> DatasetProcess:
    try:
        return DatasetProcess(context, replace(job, worker_id=number), ring, state_slots[number])
    except (TypeError, AttributeError, PicklingError):
        warnings.warn(
            "Got pickle error when attempting to start a worker Process. This might be because the worker Process"
            " arguments are not picklable. Python 3.14+ changed the multiprocessing start method in non-Mac POSIX"
            " platforms to 'forkserver', which requires the worker Process arguments to be picklable. You can also try"
            " multiprocessing.set_start_method('fork').",
            stacklevel=2,
        )
        raise


def _process(member: _Member) -> Any:
    assert isinstance(member.worker, DatasetProcess)
    return member.worker.process


def _said(call: _Call) -> str:
    if isinstance(call, _Resume):
        return "the start of an epoch"
    if call.index is None:
        return f"batch {call.place}"
    said = repr(call.index)
    return f"index {said if len(said) <= _LONGEST_INDEX else said[:_LONGEST_INDEX] + '...'}"


def _died(call: _Call, death: Death[_Call, None]) -> ReaderError:
    pid, code = death.member.worker.pid, death.code
    if code is not None and code < 0:
        what = f"DataLoader worker (pid {pid}) is killed by signal: {signal.strsignal(-code)}."
    else:
        what = f"DataLoader worker (pid {pid}) exited unexpectedly with exit code {code}."
    return ReaderError(
        f"{what} {call.attempts} workers died of {_said(call)}: look for a crash or lack of memory in the dataset;"
        " num_workers=0 shows it in this process"
    )


def _close(crew: _Crew, ring: Ring, transfer: Transfer | None) -> None:
    crew.close(_JOIN_TIMEOUT_S)
    if transfer is not None:
        transfer.finish()
    ring.close()
