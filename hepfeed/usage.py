"""Processors and memory that a process which feeds events and its readers take."""

from __future__ import annotations

import time

import psutil
from rich.text import Text

from hepfeed.live_files import Snapshot

__all__ = ["Usage"]


class Usage:
    """Looks at a process and its readers, again and again.

    Args:
        pid: Of the process.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._processes: dict[int, psutil.Process] = {}

    def look(self, snapshot: Snapshot) -> Text:
        """Return what they took since the last look, of processors, and hold now, of memory; in two lines.

        Memory is resident: what several processes share counts for each of them.
        """
        own = self._measure([self._pid])
        readers = self._measure(snapshot.readers)
        heard = max(0.0, time.time() - snapshot.written)
        up = max(0.0, time.time() - snapshot.created)
        lines = Text(no_wrap=True, overflow="ellipsis")
        lines.append(f"process {snapshot.pid}", "bold")
        lines.append(f", up {_duration(up)}, heard {heard:.1f} s ago: {snapshot.command}\n")
        lines.append(_said(own))
        if snapshot.readers:
            count = len(snapshot.readers)
            lines.append(f"; {count} reader{'s' * (count > 1)}: {_said(readers)}")
        return lines

    def _measure(self, pids: list[int]) -> tuple[float | None, int]:
        """Return processors in use, or None at the first look, and bytes of resident memory."""
        used, memory, known = 0.0, 0, False
        for pid in pids:
            try:
                fresh = pid not in self._processes
                process = self._processes.setdefault(pid, psutil.Process(pid)) if fresh else self._processes[pid]
                used += process.cpu_percent() / 100
                memory += process.memory_info().rss
                known |= not fresh
            except psutil.Error:  # it ended, or it is another user's by now
                self._processes.pop(pid, None)
        return used if known else None, memory


def _said(usage: tuple[float | None, int]) -> str:
    used, memory = usage
    return ("" if used is None else f"{used:.2f} processors, ") + f"{memory / 1e6:,.0f} MB"


def _duration(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
