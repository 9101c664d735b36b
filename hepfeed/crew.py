"""A crew: the workers of one consumer, the calls that each has in hand, and what becomes of them.

Everything is driven by the consumer; there is no thread.  Each worker answers its calls in order, so one that died or
stalls was at the oldest call that it has in hand.
"""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from hepfeed.channel import Reply, WorkerLike
from hepfeed.errors import FeedTimeoutError

__all__ = ["MAX_ATTEMPTS", "Answer", "Call", "Crew", "Death", "Member"]

MAX_ATTEMPTS = 3  # deaths at the same call, after which it is given up
_MAX_STARTS = 20  # workers in a row that may be killed before they have begun with their calls
_CHECK_S = 1.0  # a dead worker whose socket others inherited is found in that time
_LAST_CHANCE_S = 0.9  # for a call at which a worker stalled already
_NO_REPLY = 0


class Call(Protocol):
    """What a worker was asked to do.

    Attributes:
        attempts: Workers that died of it.
        stalls: Workers that took too long for it.
    """

    attempts: int
    stalls: int


C = TypeVar("C", bound=Call)
N = TypeVar("N")


class Member(Generic[C, N]):
    """A worker, and the calls that it has in hand.

    Args:
        number: Its place in the crew.
        worker: It.
        notes: What its consumer knows of it.
    """

    def __init__(self, number: int, worker: WorkerLike, notes: N) -> None:
        self.number = number
        self.worker = worker
        self.notes = notes
        self.in_hand: dict[int, C] = {}
        self.since = 0.0  # when it took up its oldest call
        self.built = False  # whether it can have begun with that

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self.worker.fileno()

    @property
    def oldest(self) -> C:
        """The call that it works on."""
        return next(iter(self.in_hand.values()))


@dataclass
class Answer(Generic[C, N]):
    """A reply to a call."""

    member: Member[C, N]
    call: C
    succeeded: bool
    value: object


@dataclass
class Death(Generic[C, N]):
    """A worker is gone; the calls that it had in hand, the oldest first, are for others to do.

    Attributes:
        code: Exit code; negative: a signal.
    """

    member: Member[C, N]
    calls: list[C]
    code: int | None

    @property
    def how(self) -> str:
        """What happened, for a message."""
        if self.code is not None and self.code < 0:
            return f"was killed by signal {-self.code}"
        return f"ended with code {self.code}"


class Crew(Generic[C, N]):
    """Workers and their calls.

    Args:
        start: Starts the worker of a number.
        notes: Makes what the consumer notes of a worker.
        count: How many.

    Attributes:
        members: The workers, by their numbers.
    """

    def __init__(self, start: Callable[[int], WorkerLike], notes: Callable[[], N], count: int) -> None:
        self._start = start
        self._notes = notes
        self._calls = 0
        self._unbuilt = 0  # workers in a row that died before they were built
        self.members: list[Member[C, N]] = []
        try:
            for number in range(count):
                self.members.append(Member(number, start(number), notes()))
        except BaseException:
            self.close(0.0)
            raise

    def give(self, member: Member[C, N], call: C, method: str, *args: object) -> None:
        """Ask a worker for ``target.method(*args)``; the answer will name ``call``."""
        self._calls += 1
        if not member.in_hand:
            member.since = time.monotonic()
        member.in_hand[self._calls] = call
        member.worker.call(self._calls, method, *args)

    def tell(self, member: Member[C, N], method: str, *args: object) -> None:
        """Have a worker do something without an answer."""
        member.worker.call(_NO_REPLY, method, *args)

    def pump(self, wait_s: float) -> list[Answer[C, N] | Death[C, N]]:
        """Send what is unsent and take in what has arrived; waits at most ``wait_s`` for it, and at most 1 s.

        Raises:
            Exception: A worker could not start.
        """
        busy = {member.fileno(): member for member in self.members if member.in_hand}
        if not busy:
            return []
        poll = select.poll()
        for descriptor, member in busy.items():
            poll.register(descriptor, select.POLLIN | (select.POLLOUT if member.worker.has_unsent else 0))
        events: list[Answer[C, N] | Death[C, N]] = []
        found = poll.poll(1000 * min(wait_s, _CHECK_S))
        for descriptor, event in found:
            member = busy[descriptor]
            if event & select.POLLOUT:
                member.worker.flush()
            if event & ~select.POLLOUT:
                events += self._take(member)
        if not found and wait_s:
            events += [self._death(member) for member in busy.values() if member.worker.exit_code is not None]
        return events

    def _take(self, member: Member[C, N]) -> list[Answer[C, N] | Death[C, N]]:
        replies = member.worker.receive()
        if replies is None:
            member.worker.close()
            return [self._death(member)]
        return [*self._answers(member, replies)]

    def _answers(self, member: Member[C, N], replies: list[Reply]) -> list[Answer[C, N]]:
        answers = []
        if not member.built and (replies or member.worker.built):
            member.built, member.since, self._unbuilt = True, time.monotonic(), 0
        for number, succeeded, value in replies:
            call = member.in_hand.pop(number, None)
            if call is not None:
                member.since = time.monotonic()
                answers.append(Answer(member, call, succeeded, value))
            elif not succeeded:  # it could not start
                raise value
        return answers

    def _death(self, member: Member[C, N], blame: bool = True) -> Death[C, N]:
        calls, member.in_hand = list(member.in_hand.values()), {}
        code = member.worker.exit_code
        self._unbuilt += not member.built
        innocent = not member.built and (code is None or code < 0) and self._unbuilt <= _MAX_STARTS
        if calls:
            calls[0].attempts += blame and not innocent
        return Death(member, calls, code)

    # ---- workers that do not get on --------------------------------------------------------------------------------

    def patience_s(self, timeout_s: float) -> float:
        """Return how long to wait until a worker stalls, which is to take longer than ``timeout_s`` (0: never)."""
        left = [self._due(member, timeout_s) - time.monotonic() for member in self.members if member.in_hand]
        return max(0.0, min([_CHECK_S, *left])) if timeout_s else _CHECK_S

    def stalled(self, timeout_s: float) -> Member[C, N] | None:
        """Return a worker that takes longer for one call than ``timeout_s``, or much longer than its predecessor."""
        if not timeout_s:
            return None
        now = time.monotonic()
        late = (member for member in self.members if member.in_hand and now >= self._due(member, timeout_s))
        return next(late, None)

    def _due(self, member: Member[C, N], timeout_s: float) -> float:
        return member.since + (min(_LAST_CHANCE_S, timeout_s) if member.oldest.stalls else timeout_s)

    def is_hopeless(self, member: Member[C, N]) -> bool:
        """Whether a worker that stalls is not the first one that did at its oldest call."""
        return bool(member.oldest.stalls) or member.oldest.attempts + 1 >= MAX_ATTEMPTS

    def dismiss(self, member: Member[C, N], timeout_s: float) -> list[Answer[C, N] | Death[C, N]]:
        """Kill a worker that stalls; its last answers count.

        Where a worker was stopped by a signal, its oldest call gets its whole time again, as if the worker had died.
        Otherwise it has one more chance, a short one.

        Raises:
            FeedTimeoutError: It can't be killed: it hangs in the kernel, and may write to its slots once it wakes.
        """
        answers: list[Answer[C, N] | Death[C, N]] = [*self._answers(member, member.worker.receive() or [])]
        if not member.in_hand:
            return answers
        stopped = _is_stopped(member.worker.pid)
        if not member.worker.kill():
            raise FeedTimeoutError(
                f"DataLoader timed out after {timeout_s:g} seconds: a reader hangs in the operating system and can't be"
                " killed; look at the file system that it reads from"
            )
        member.oldest.stalls += not stopped
        return [*answers, self._death(member, blame=stopped)]

    def replace(self, dead: Member[C, N]) -> Member[C, N]:
        """Start a worker in the place of one that died."""
        self.members[dead.number] = Member(dead.number, self._start(dead.number), self._notes())
        return self.members[dead.number]

    def close(self, timeout_s: float) -> None:
        """End all workers: each stops after its present call, or is killed after ``timeout_s``."""
        for member in self.members:
            member.worker.hang_up()
        deadline = time.monotonic() + timeout_s
        for member in self.members:
            member.worker.close(deadline - time.monotonic())
        self.members.clear()


def _is_stopped(pid: int) -> bool:
    with contextlib.suppress(OSError, IndexError), open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] in ("T", "t")
    return False
