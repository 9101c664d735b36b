"""What a prediction finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hepfeed.prediction import Demand, EventCost

__all__ = ["Advice", "Choice", "Kind"]

Kind = Literal["today", "readers", "shuffle", "form", "filling", "cache", "sparse"]


@dataclass(frozen=True)
class Choice:
    """One way to feed the events.

    Attributes:
        kind: What is different from today; ``"filling"`` is the epoch that fills a cache.
        what: In words.
        readers: Reader processes.
        events_per_s: Predicted.
        gain: Over today.
        limit: What it is limited by, as :class:`hepfeed.prediction.Rate` has it.
        needs: What it takes, in a few words; empty where it takes nothing.
        command: What to run or to write; empty where nothing is to be done.
        cost: Of an event.
        bytes: That all events take so, in files or in the cache; None where that does not change.
        pays_from: First epoch after which a cache has saved time; None where it never does, or there is none.
        demand: How it stands to a device; None where none was asked for.
    """

    kind: Kind
    what: str
    readers: int
    events_per_s: float
    gain: float
    limit: str
    needs: str
    command: str
    cost: EventCost
    bytes: int | None = None
    pays_from: int | None = None
    demand: Demand | None = None


@dataclass(frozen=True)
class Advice:
    """What to expect of a specification on this machine, and what would be faster.

    Attributes:
        batch_size: Events of a batch.
        readers: Of today's feed.
        cores: That this process may use.
        contention: As :class:`hepfeed.prediction.Host` has it.
        disk_bytes_per_s: Measured past the page cache; None: the prediction is for files in the page cache.
        events: Of an epoch.
        event_bytes: Of an event in a batch, before any step.
        order: Of the first epoch, see :class:`hepfeed.Filler`.
        block: Most events that share chunks.
        choices: Today's feed first.
        sentences: What to expect, and what to do, the most useful first.
        notes: What is not predicted, and why.
    """

    batch_size: int
    readers: int
    cores: int
    contention: float
    disk_bytes_per_s: float | None
    events: int
    event_bytes: int
    order: str
    block: int
    choices: tuple[Choice, ...]
    sentences: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def today(self) -> Choice:
        """The feed as it is."""
        return self.choices[0]
