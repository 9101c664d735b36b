"""What takes part in the race of feeds: a library, tuned as its documentation advises, that opens feeds of events."""

from __future__ import annotations

import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from hepfeed.bench.feeds.events import EventSet
from hepfeed.tensors import Batch

__all__ = ["Feed", "Side"]


class Feed(ABC):
    """Events on their way: epochs of batches."""

    @abstractmethod
    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, in another order each.

        A batch has NumPy arrays or torch tensors on the CPU: each key of the set, ``(B, *shape)`` or, where events
        differ in their number of rows, :class:`~hepfeed.tensors.Jagged` or padded with 0 behind the last row;
        ``"label" (B,)`` the class number as integers; and ``"event" (B, 2)`` the file's place in ``EventSet.files`` and
        the row in it, as integers.  The iterator may be closed before its end.

        Args:
            number: From 0; each epoch has the next one.
        """

    @abstractmethod
    def close(self) -> None:
        """End what runs, and close what is open."""


class Side(ABC):
    """A library over the same events as the others.

    It is pickled, and opened in a process of its own.

    Attributes:
        name: As in ``--sides``.
        title: For tables.
        package: Distribution that must be installed, as ``pip install`` names it; None where hepfeed needs it anyway.
        settings: Options that its documentation advises, by their names there.
        advice: Address of the page that advises them.
        versus: Name of the side that its rate is compared with.
        own_format: It reads what :meth:`prepare` wrote, in a format of its own: it takes part in the inputs that are
            prepared, and the others in those whose files are read.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    package: ClassVar[str | None] = None
    settings: ClassVar[dict[str, Any]] = {}
    advice: ClassVar[str] = ""
    versus: ClassVar[str] = "hepfeed"
    own_format: ClassVar[bool] = False

    def missing(self) -> str | None:
        """Return why it can't take part here, and what would help; None where it can."""
        if self.package is None:
            return None
        try:
            importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return f"it is not installed: pip install {self.package}"
        return None

    def fits(self, events: EventSet) -> bool:
        """Return whether such an input is for it at all; where it is not, nothing is said about it."""
        return self.own_format == events.prepared

    def takes(self, events: EventSet) -> str | None:
        """Return why it can't feed such events; None where it can."""
        if self.own_format and not events.prepared:
            return "it has a format of its own, and this input is read from its files"
        if events.prepared and not self.own_format:
            return "it reads files, and this input is of formats that are written once"
        return None

    def held(self, events: EventSet) -> float:
        """Return the part of the events that it has inflated in the first epoch and keeps for the later ones."""
        return 0.0

    def prepare(self, events: EventSet, folder: Path) -> None:  # noqa: B027  most sides need nothing
        """Write its own format, where it has one, into an empty folder; in a process of its own."""

    @abstractmethod
    def open(self, events: EventSet, folder: Path, workers: int, batch_size: int, seed: int) -> Feed:
        """Return a feed that shuffles.

        Args:
            events: What to deliver.
            folder: What :meth:`prepare` wrote.
            workers: Processes or threads beside the consumer.
            batch_size: Events of a batch; the last one may have less.
            seed: Of the shuffle, where the library takes one.
        """
