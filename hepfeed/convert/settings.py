"""Options that all formats share."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

from hepfeed.errors import SpecError
from hepfeed.progress import Progress

__all__ = ["ConvertOptions", "OnError", "Settings"]

OnError = Literal["raise", "skip"]


class ConvertOptions(TypedDict, total=False):
    """Options of every ``convert_*`` function; see :class:`Settings`."""

    events_per_file: int
    workers: int | None
    level: int
    on_error: OnError
    overwrite: bool
    progress: Progress | None


@dataclass(frozen=True)
class Settings:
    """Options that all formats share.

    Args:
        events_per_file: Most events in one file.
        workers: Processes; None for one a usable core.
        level: Deflate level, 1 (fast) to 9 (small); 0 stores without compression.
        on_error: ``"raise"``, or ``"skip"`` what is damaged, count it and report it.
        overwrite: Write files again that an earlier run finished.  Otherwise those of the same sources and
            options are kept, and those of others are an error.
        progress: Called with (what is done, finished, total).

    Raises:
        SpecError: An option is out of its range.
    """

    events_per_file: int = 10_000
    workers: int | None = None
    level: int = 4
    on_error: OnError = "raise"
    overwrite: bool = False
    progress: Progress | None = None

    def __post_init__(self) -> None:
        if self.events_per_file < 1:
            raise SpecError(f"events_per_file must be at least 1; got {self.events_per_file}")
        if self.workers is not None and self.workers < 1:
            raise SpecError(f"workers must be at least 1, or None for one a core; got {self.workers}")
        if not 0 <= self.level <= 9:
            raise SpecError(f"level must be 0 (no compression) to 9 (smallest); got {self.level}")
        if self.on_error not in get_args(OnError):
            raise SpecError(f"on_error must be one of {', '.join(map(repr, get_args(OnError)))}; got {self.on_error!r}")

    @property
    def processes(self) -> int:
        """Number of processes."""
        return self.workers or len(os.sched_getaffinity(0))

    def tell(self, what: str, done: int, total: int) -> None:
        """Report progress."""
        if self.progress is not None:
            self.progress(what, done, total)
