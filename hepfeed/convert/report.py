"""What came of a conversion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import overload

from hepfeed.fault import Fault

__all__ = ["Converted", "Skipped"]


@dataclass(frozen=True)
class Skipped:
    """Events of a source that were left out because they are damaged.

    Attributes:
        fault: What is wrong, and where.
        first: Number of the first of them in the source; None where that can't be told.
        events: How many; None where the source can't even be opened.
    """

    fault: Fault
    first: int | None
    events: int | None


@dataclass(frozen=True)
class Converted(Sequence[str]):
    """The files of a conversion, as a sequence of paths, and what it met.

    Attributes:
        files: Paths, in the order of the events.
        events: In all of them.
        kept: How many of them an earlier run had finished.
        skipped: Damaged events that are not in them; those that an earlier run skipped, too.
        left_out: Parts of the sources that can't be converted -> why.
    """

    files: tuple[str, ...]
    events: int
    kept: int = 0
    skipped: tuple[Skipped, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def skipped_events(self) -> int:
        """Number of events known to be skipped; sources that can't be opened have an unknown number."""
        return sum(each.events or 0 for each in self.skipped)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[str, ...]: ...
    def __getitem__(self, place: int | slice) -> str | tuple[str, ...]:
        return self.files[place]

    def __len__(self) -> int:
        return len(self.files)
