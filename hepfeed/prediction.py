"""How many events a second a feed delivers, from what an event costs: the model behind ``hepfeed check --advice``.

An event takes ``R`` seconds of a reader's processor time (read, inflate, scatter, transform, and the rest that a reader
does for it) and ``C`` of the consumer's (dispatch, and making the batch).  Of ``n`` readers on ``c`` cores::

    events/s = min(n / R',  1 / C',  c / (R' + C'),  D / b)        R' = R d, C' = C d, d = 1 + k (min(n, c) - 1)

``k`` is the contention: by how much an event gets dearer with each further busy core, because cores share caches,
memory and perhaps execution units.  ``D`` is what the disk delivers a second and ``b`` what it must for an event; where
files come from the page cache it is left out.  Without readers (``n = 0``) the consumer reads itself:
``1 / (R + C)``.

The model leaves out the start of an epoch, and assumes that readers never wait for one another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

__all__ = ["Demand", "EventCost", "Host", "Rate", "amplification", "demand", "pays_from", "predict", "tail"]


@dataclass(frozen=True)
class EventCost:
    """What an event costs, on one core of an otherwise idle machine.

    Attributes:
        read: Seconds of a reader that get bytes from the files.
        inflate: Seconds of a reader that decompress.
        scatter: Seconds of a reader that copy to the batches.
        transform: Seconds of a reader in the steps; from the cache all that follows its reading.
        other: Further seconds of a reader: receiving tasks, and answering.
        consumer: Seconds of the consumer's process.
        bytes_read: From the files.
    """

    read: float
    inflate: float
    scatter: float
    transform: float
    other: float
    consumer: float
    bytes_read: float

    @property
    def reader(self) -> float:
        """Seconds of a reader, all together."""
        return self.read + self.inflate + self.scatter + self.transform + self.other

    def times(self, factor: float) -> EventCost:
        """Return what ``factor`` such events cost."""
        return EventCost(**{each.name: getattr(self, each.name) * factor for each in fields(self)})

    def decoded(self, factor: float) -> EventCost:
        """Return the cost where ``factor`` events are read and inflated for each that is delivered."""
        return replace(
            self, read=self.read * factor, inflate=self.inflate * factor, bytes_read=self.bytes_read * factor
        )


@dataclass(frozen=True)
class Host:
    """What a feed runs on.

    Attributes:
        cores: That readers and consumer may use.
        contention: ``k`` of the model.
        disk_bytes_per_s: ``D`` of the model; None: files come from the page cache.
    """

    cores: int
    contention: float = 0.0
    disk_bytes_per_s: float | None = None


@dataclass(frozen=True)
class Rate:
    """What a feed delivers.

    Attributes:
        events_per_s: Events a second.
        limit: What it is limited by: ``"read"``, ``"inflate"``, ``"scatter"``, ``"transform"`` or ``"other"``, the
            dearest stage of readers that are all busy; ``"consumer"``, ``"cores"`` or ``"disk"``.
    """

    events_per_s: float
    limit: str


@dataclass(frozen=True)
class Demand:
    """How a feed stands to a device that takes a batch every so often.

    Attributes:
        step_s: Seconds that the device computes on a batch.
        events_per_s: That it asks for.
        wait_s: Seconds that it waits for each batch, where the loop gets the next batch while the device computes.
        wait_fraction: Of the whole time.
        serial_s: Seconds of the training process for a batch.  A loop that waits for the end of each step before it
            asks for the next batch adds them to every step.
    """

    step_s: float
    events_per_s: float
    wait_s: float
    wait_fraction: float
    serial_s: float


def predict(cost: EventCost, readers: int, host: Host) -> Rate:
    """Return what a feed of ``readers`` readers delivers; the formula is the module's."""
    dear = 1 + host.contention * (max(1, min(readers, host.cores)) - 1)
    reader, consumer = max(cost.reader * dear, 1e-12), max(cost.consumer * dear, 1e-12)
    if readers:
        limits = {
            _dearest(cost): readers / reader,
            "consumer": 1 / consumer,
            "cores": host.cores / (reader + consumer),
        }
    else:
        alone = "consumer" if cost.consumer > cost.reader else _dearest(cost)
        limits = {alone: 1 / (reader + consumer)}
    if host.disk_bytes_per_s is not None and cost.bytes_read:
        limits["disk"] = host.disk_bytes_per_s / cost.bytes_read
    limit = min(limits, key=limits.__getitem__)
    return Rate(limits[limit], limit)


def _dearest(cost: EventCost) -> str:
    stages = ("read", "inflate", "scatter", "transform", "other")
    return max(stages, key=lambda stage: float(getattr(cost, stage)))


def amplification(part: float, block: int) -> float:
    """Return how many events are decoded for each that is delivered.

    Events share chunks in blocks of ``block``, and a block is decoded if any of its events is wanted.  Where each is
    wanted with probability ``part``, independent of others, the events of ``1 - (1 - part)^block`` of all blocks are
    decoded for ``part`` of all events.

    Args:
        part: Of the events that are wanted at a time: those that a filter keeps; or with ``shuffle="full"``, which
            decodes for each batch anew, ``batch_size / events``.
        block: Events that share chunks.
    """
    if not 0 < part < 1:
        return 1.0
    return -math.expm1(block * math.log1p(-part)) / part


def tail(events: int, chunk: int) -> float:
    """Return how many events a file's chunks have room for, for each of its events: the last chunk may not be full."""
    return -(-events // chunk) * chunk / events if events else 1.0


def pays_from(first_s: float, later_s: float, without_s: float) -> int | None:
    """Return the first epoch, counted from 1, after which a cache has saved time; None if it never does.

    Args:
        first_s: Seconds of the epoch that fills the cache.
        later_s: Seconds of an epoch from the cache.
        without_s: Seconds of an epoch without a cache.
    """
    if first_s < without_s:
        return 1
    if later_s >= without_s:
        return None
    return math.floor((first_s - later_s) / (without_s - later_s)) + 1


def demand(rate: Rate, cost: EventCost, batch_size: int, step_s: float) -> Demand:
    """Return how long a device waits that computes ``step_s`` on each batch.

    A batch comes every ``batch_size / events_per_s``, and a step ends no sooner than ``step_s`` after it has begun.
    Frameworks launch a step and go on, so that the training process gets the next batch meanwhile.
    """
    period = max(step_s, batch_size / rate.events_per_s)
    wait = period - step_s
    return Demand(step_s, batch_size / step_s, wait, wait / period, batch_size * cost.consumer)
