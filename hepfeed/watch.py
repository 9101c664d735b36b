"""``watch=True``: the view of the feeds of this process in its own terminal, while loops run.

It is drawn on the standard error output where that is a terminal, about once in a second, in the thread that asks for
batches: a training that waits for nothing is disturbed by nothing else.  What the program prints meanwhile appears
above it.  Between loops there is no view, and the terminal is as it was.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
import weakref
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.live import Live

from hepfeed.live_files import unused_name
from hepfeed.live_view import FeedView
from hepfeed.stats import StageClock

__all__ = ["WatchedLoop", "draw"]

_EVERY_S = 1.0
_logger = logging.getLogger("hepfeed")


class WatchedLoop:
    """An iterator whose loader is watched from its first batch until it ends, raises, or is left.

    Args:
        iterator: It; all else than the next batch is asked of it.
        clock: Of the loader, which must have :func:`draw` for a listener.
    """

    def __init__(self, iterator: Iterator[Any], clock: StageClock) -> None:
        self._iterator = iterator
        self._leave = weakref.finalize(self, _leave, _enter(clock), clock)

    def __iter__(self) -> WatchedLoop:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._iterator)
        except BaseException:
            self._leave()
            raise

    def __len__(self) -> int:
        return len(self._iterator)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_iterator"], name)


def draw(clock: StageClock) -> None:
    """Draw the view anew, if one of the loops that are watched is that of a clock."""
    screen = _screen
    if screen is not None and screen.pid == os.getpid():
        screen.draw(clock)


class _Screen:
    """The one view of a process, of all loops that are watched.

    Attributes:
        pid: Of the process; a forked one does not draw.
    """

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._console = Console(stderr=True)
        self._clocks: list[StageClock] = []  # one may be there twice, for two loops over a loader
        self._names: weakref.WeakKeyDictionary[StageClock, str] = weakref.WeakKeyDictionary()
        self._view = FeedView()
        self._live: Live | None = None
        self._drawn = 0.0

    def enter(self, clock: StageClock) -> None:
        """Show a loader from now on."""
        self._clocks.append(clock)
        if clock not in self._names:
            self._names[clock] = unused_name(clock.name, set(self._names.values()))

    def leave(self, clock: StageClock) -> None:
        """Show it no more; without loaders there is no view."""
        with contextlib.suppress(ValueError):
            self._clocks.remove(clock)
        if not self._clocks and self._live is not None:
            live, self._live = self._live, None
            with contextlib.suppress(Exception):  # the terminal may be gone
                live.stop()

    def draw(self, clock: StageClock) -> None:
        """Show what the loaders did, about once in a second."""
        now = time.monotonic()
        if clock not in self._clocks or not self._console.is_terminal:
            return
        if self._live is not None and now - self._drawn < _EVERY_S:
            return
        self._drawn = now
        try:
            picture = self._view.look({self._names[each]: each.report() for each in self._clocks})
            if self._live is None:
                self._live = Live(
                    console=self._console,
                    auto_refresh=False,
                    transient=True,
                    redirect_stdout=sys.stdout.isatty(),  # else it goes to a file, and not through this terminal
                )
                self._live.start()
                self._console.show_cursor()  # so that even a process that is killed leaves it
            self._live.update(picture, refresh=True)
        except Exception as error:  # a training is worth more than its display
            _logger.debug("the feed can't be watched: %s", error)
            self._clocks.clear()
            self.leave(clock)


_screen: _Screen | None = None


def _enter(clock: StageClock) -> _Screen:
    global _screen
    if _screen is None or _screen.pid != os.getpid():
        _screen = _Screen()
    _screen.enter(clock)
    return _screen


def _leave(screen: _Screen, clock: StageClock) -> None:
    if screen.pid == os.getpid():
        screen.leave(clock)
