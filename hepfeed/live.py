"""What the feeds of this process are doing, published for ``hepfeed top``.

A loader's clock calls :func:`publish` while an epoch runs, in the thread that asks for batches; no thread is started.
Nothing of it can make a training fail: what goes wrong is logged at debug level, and nothing is published.
"""

from __future__ import annotations

import logging
import os
import shlex
import socket
import threading
import time
import weakref
from collections.abc import Callable
from multiprocessing.util import Finalize
from pathlib import Path

import psutil

from hepfeed.live_files import Snapshot, read_snapshots, remove_snapshot, unused_name, write_snapshot
from hepfeed.stats import TICK_S, StageClock

__all__ = ["publish", "withdraw"]

_LONGEST_COMMAND = 300
_logger = logging.getLogger("hepfeed")


def publish(clock: StageClock) -> None:
    """Publish what a loader has done, and the other loaders of this process; at most every :data:`TICK_S`.

    ``HEPFEED_TOP=0`` in the environment switches it off.
    """
    if os.environ.get("HEPFEED_TOP") != "0":
        _quietly(lambda: _here().publish(clock))


def withdraw(clock: StageClock) -> None:
    """Take back what was published of a loader."""
    publisher = _publisher
    if publisher is not None and publisher.pid == os.getpid():
        _quietly(lambda: publisher.withdraw(clock))


class _Publisher:
    """Writes the file of this process.

    Attributes:
        pid: Of the process; a forked one needs a publisher of its own.
    """

    def __init__(self) -> None:
        process = psutil.Process()
        self.pid = process.pid
        self._created = process.create_time()
        self._command = shlex.join(process.cmdline())[:_LONGEST_COMMAND]
        self._host = socket.gethostname()
        self._names: weakref.WeakKeyDictionary[StageClock, str] = weakref.WeakKeyDictionary()
        self._written = -TICK_S
        self._path: Path | None = None
        # Finalizers come in at any time, and loaders of several threads at the same time: the later one gives way.
        self._lock = threading.Lock()
        read_snapshots()  # removes the files of processes that were killed, even if nobody ever looks
        # Unlike atexit it also runs at the end of multiprocessing's processes.
        Finalize(None, self._remove, exitpriority=0)

    def publish(self, clock: StageClock) -> None:
        """Write what all loaders have done, if the last time is long enough ago."""
        if clock not in self._names:
            self._names[clock] = unused_name(clock.name, set(self._names.values()))
            weakref.finalize(clock, _quietly, self._refresh).atexit = False
        if time.monotonic() - self._written >= TICK_S:
            self._refresh()

    def withdraw(self, clock: StageClock) -> None:
        """Write what all loaders but one have done."""
        if self._names.pop(clock, None) is not None:
            self._refresh()

    def _refresh(self) -> None:
        if self.pid != os.getpid() or not self._lock.acquire(blocking=False):
            return
        try:
            self._written = time.monotonic()
            clocks = list(self._names.items())
            if not clocks:
                self._remove()
                return
            snapshot = Snapshot(
                pid=self.pid,
                created=self._created,
                command=self._command,
                written=time.time(),
                readers=sorted({pid for clock, _ in clocks for pid in clock.reader_pids} - {self.pid}),
                loaders={name: clock.report() for clock, name in clocks},
                host=self._host,
            )
            path = write_snapshot(snapshot)
            if self._path not in (None, path):
                self._remove()
            self._path = path
        finally:
            self._lock.release()

    def _remove(self) -> None:
        if self._path is not None:
            remove_snapshot(self._path)
            self._path = None


_publisher: _Publisher | None = None


def _here() -> _Publisher:
    """Return the publisher of this process; a forked one begins anew."""
    global _publisher
    if _publisher is None or _publisher.pid != os.getpid():
        _publisher = _Publisher()
    return _publisher


def _quietly(act: Callable[[], None]) -> None:
    try:
        act()
    except Exception as error:  # whatever it is: a training is worth more than its display
        _logger.debug("what the feed does can't be published: %s", error)
