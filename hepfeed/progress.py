"""Progress of long work: what is called, and bars that show it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Progress", "progress_bars"]

Progress = Callable[[str, int, int], None]
"""Called with (what is done, finished, total)."""

_DELAY_S = 0.3  # what is over sooner needs no bar


@contextmanager
def progress_bars(show: bool | None = None) -> Iterator[Progress]:
    """Show a bar for each thing that is done, on the standard error output, and take it away at the end.

    Args:
        show: None: if that is a terminal.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    shown = console.is_terminal if show is None else show
    bars = Bars(*columns, console=console, transient=True, disable=not shown)
    tasks: dict[str, TaskID] = {}
    begun = time.monotonic()

    def progress(what: str, done: int, total: int) -> None:
        if time.monotonic() - begun > _DELAY_S:
            bars.start()
        if what not in tasks:
            tasks[what] = bars.add_task(what, total=total)
        bars.update(tasks[what], completed=done, total=total)

    try:
        yield progress
    finally:
        bars.stop()
