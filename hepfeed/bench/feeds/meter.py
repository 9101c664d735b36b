"""Processor seconds and memory of a process and of all that it has started."""

from __future__ import annotations

import threading
from contextlib import suppress
from types import TracebackType

import psutil

__all__ = ["Meter", "tree_cpu_s", "tree_pss"]

_GONE = (psutil.NoSuchProcess, psutil.AccessDenied)
_PERIOD_S = 0.2


def _tree(pid: int) -> list[psutil.Process]:
    with suppress(*_GONE):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def tree_cpu_s(pid: int) -> float:
    """Return the user and system time of a process tree, and of what has ended in it and was waited for."""
    total = 0.0
    for process in _tree(pid):
        with suppress(*_GONE):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def tree_pss(pid: int) -> int:
    """Return the bytes of memory of a process tree, with each shared page counted once (proportional set size)."""
    total = 0
    for process in _tree(pid):
        with suppress(*_GONE):
            total += process.memory_full_info().pss
    return total


class Meter:
    """Watches a process tree for a while, as a context manager.

    Attributes:
        cpu_s: Processor seconds that it took meanwhile.
        peak_bytes: Most memory at one time, sampled 5 times a second.
    """

    def __init__(self, pid: int) -> None:
        self.cpu_s = 0.0
        self.peak_bytes = 0
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="hepfeed-meter", daemon=True)

    def __enter__(self) -> Meter:
        self.cpu_s = -tree_cpu_s(self._pid)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cpu_s += tree_cpu_s(self._pid)
        self._over.set()
        self._thread.join()
        self._sample()

    def _watch(self) -> None:
        while not self._over.wait(_PERIOD_S):
            self._sample()

    def _sample(self) -> None:
        self.peak_bytes = max(self.peak_bytes, tree_pss(self._pid))
