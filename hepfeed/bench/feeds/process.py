"""A side in a process of its own: what it is told to do there, and the caller's end of it."""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import cloudpickle
import psutil

from hepfeed.bench.feeds.checking import Checker, Expected, Findings
from hepfeed.bench.feeds.events import EventSet
from hepfeed.bench.feeds.meter import tree_cpu_s
from hepfeed.bench.feeds.side import Feed, Side
from hepfeed.errors import FeedTimeoutError, ReaderError
from hepfeed.tensors import Batch
from hepfeed.worker import Worker

__all__ = ["First", "Setup", "SideProcess", "SideServer", "Turn"]

_CLOSE_S = 10.0
_IDLE_S, _IDLE_PART, _IDLE_WAIT_S = 0.1, 0.2, 5.0
_TAIL = 2000


@dataclass(frozen=True)
class Setup:
    """What a side feeds, and how.

    Attributes:
        side: The library.
        events: What is to be delivered.
        folder: Of its own format.
        workers: Processes or threads beside the consumer.
        batch_size: Events of a batch.
        seed: Of the shuffle.
    """

    side: Side
    events: EventSet
    folder: Path
    workers: int
    batch_size: int
    seed: int


@dataclass(frozen=True)
class First:
    """The first epoch, which is verified and not timed.

    Attributes:
        first_batch_s: From opening to the first batch, in a fresh process that has imported torch.
        findings: What came.
    """

    first_batch_s: float
    findings: Findings


@dataclass(frozen=True)
class Turn:
    """Some epochs that were timed.

    Attributes:
        events: Delivered.
        seconds: That it took.
        complete: No epoch was stopped before its end.
    """

    events: int
    seconds: float
    complete: bool


def serve_side(setup: bytes, log: str) -> SideServer:
    """Begin in the side's own process, where all that is printed goes to a file.

    Args:
        setup: A pickled :class:`Setup`.
        log: The file.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    return SideServer(cloudpickle.loads(setup))


class SideServer:
    """What a side is told to do.

    Args:
        setup: The side, and what it feeds.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._feed: Feed | None = None
        self._epochs = 0

    def prepare(self) -> float:
        """Let the side write its own format; returns the seconds."""
        begun = time.perf_counter()
        self._setup.side.prepare(self._setup.events, self._setup.folder)
        return time.perf_counter() - begun

    def first(self, expected: Expected, most_s: float) -> First:
        """Open the feed, and compare its first epoch, or what comes of it in a time."""
        import torch  # noqa: F401  every training loop has it: its time and its memory are in no comparison

        setup = self._setup
        begun = time.perf_counter()
        self._feed = setup.side.open(setup.events, setup.folder, setup.workers, setup.batch_size, setup.seed)
        checker = Checker(setup.events, expected, setup.batch_size)
        first_batch_s = None
        complete = True
        with self._epoch() as batches:
            for batch in batches:
                if first_batch_s is None:
                    first_batch_s = time.perf_counter() - begun
                checker.add(batch)
                if time.perf_counter() - begun > first_batch_s + most_s:
                    complete = next(batches, None) is None
                    break
        return First(first_batch_s or 0.0, checker.findings(complete))

    def turn(self, least_s: float, most_s: float) -> Turn:
        """Count the events of whole epochs for ``least_s`` or longer; one that takes ``most_s`` is stopped."""
        events = 0
        begun = time.perf_counter()
        while True:
            stop = time.perf_counter() + most_s
            with self._epoch() as batches:
                for batch in batches:
                    events += len(batch["label"])
                    if (now := time.perf_counter()) > stop:
                        return Turn(events, now - begun, next(batches, None) is None)
            if (spent := time.perf_counter() - begun) >= least_s or not events:
                return Turn(events, spent, True)

    @contextlib.contextmanager
    def _epoch(self) -> Iterator[Iterator[Batch]]:
        assert self._feed is not None, "first() opens it"
        number, self._epochs = self._epochs, self._epochs + 1
        batches = self._feed.epoch(number)
        try:
            yield batches
        finally:
            if hasattr(batches, "close"):
                batches.close()

    def close(self) -> None:
        """Close the feed."""
        feed, self._feed = self._feed, None
        if feed is not None:
            feed.close()


class SideProcess:
    """The caller's end of a side in a fresh interpreter, started by exec; a context manager.

    Args:
        setup: What it feeds; it may be of the main module.
        log: File for what the library prints.
        patience_s: An answer that takes longer ends it.
    """

    def __init__(self, setup: Setup, log: Path, patience_s: float) -> None:
        self._name, self._log, self._patience_s = setup.side.name, log, patience_s
        self._worker = Worker(f"{__name__}:serve_side", (cloudpickle.dumps(setup), str(log)))

    @property
    def pid(self) -> int:
        """Process number."""
        return self._worker.pid

    def prepare(self) -> float:
        """Write the side's own format; returns the seconds."""
        seconds: float = self._ask("prepare")
        return seconds

    def first(self, expected: Expected, most_s: float) -> First:
        """Open the feed, and verify its first epoch."""
        first: First = self._ask("first", expected, most_s)
        return first

    def turn(self, least_s: float, most_s: float) -> Turn:
        """Count the events of some epochs."""
        turn: Turn = self._ask("turn", least_s, most_s)
        return turn

    def settle(self) -> None:
        """Wait until the side does nothing any more: what it reads ahead must not run in another's turn."""
        deadline = time.monotonic() + _IDLE_WAIT_S
        while time.monotonic() < deadline:
            before = tree_cpu_s(self.pid)
            time.sleep(_IDLE_S)
            if tree_cpu_s(self.pid) - before < _IDLE_PART * _IDLE_S:
                return

    def _ask(self, method: str, *arguments: Any) -> Any:
        self._worker.call(0, method, *arguments)
        deadline = time.monotonic() + self._patience_s
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise FeedTimeoutError(
                    f"{self._name} has not answered within {self._patience_s:.0f} s{self._printed()}"
                )
            writing = [self._worker] if self._worker.has_unsent else []
            ready, writable, _ = select.select([self._worker], writing, [], left)
            if writable:
                self._worker.flush()
            if ready:
                replies = self._worker.receive()
                if replies is None:
                    raise ReaderError(f"the process of {self._name} died{self._printed()}")
                for _, succeeded, value in replies:
                    if succeeded:
                        return value
                    raise value

    def _printed(self) -> str:
        text = self._log.read_text(errors="replace")[-_TAIL:].strip() if self._log.exists() else ""
        return f"; it printed last: {text}" if text else ""

    def close(self) -> None:
        """End the process, and what it has started."""
        tree = []
        with contextlib.suppress(psutil.NoSuchProcess):
            tree = psutil.Process(self.pid).children(recursive=True)
        self._worker.close(_CLOSE_S)
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(tree, _CLOSE_S)

    def __enter__(self) -> SideProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
