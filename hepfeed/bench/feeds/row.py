"""What was found about a side over an input."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["FLOOR", "Row"]

FLOOR = "floor"
"""Name of the side that no feed can beat."""


@dataclass
class Row:
    """A side over an input.

    Attributes:
        input: Name.
        input_title: For tables.
        side: Name.
        title: For tables.
        versus: Name of the side that it is compared with.
        version: Of its distribution.
        settings: Its options.
        advice: Address of the page that advises them.
        missing: Why it did not take part; None where it did.
        fault: What was wrong with what it delivered, or what it died of; it has no rate then.
        verified: Events that were compared with h5py's.
        complete: All of an epoch were.
        rates: Events/s of each round.
        ratios: Of each round, the rate of ``versus`` over its own.
        of_floor: Of each round, its rate over that of the floor.
        cpu_s: Of each round, processor seconds of its process tree for 10^6 events.
        peak_bytes: Most memory of its process tree in any round, shared pages counted once.
        first_batch_s: From opening to the first batch, in a fresh process.
        prepare_s: Seconds of writing a format of its own; None without one.
        prepare_bytes: Of that format.
        stopped: It was so slow that epochs were stopped: the rates are of what it had delivered.
        held: Part of the events that it keeps inflated from epoch to epoch, because the set is small.
        mixing: Fields of :class:`~hepfeed.bench.feeds.mixing.Mixing`; None without a verified epoch.
    """

    input: str
    input_title: str
    side: str
    title: str
    versus: str
    version: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    advice: str = ""
    missing: str | None = None
    fault: str | None = None
    verified: int = 0
    complete: bool = False
    rates: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    of_floor: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    first_batch_s: float | None = None
    prepare_s: float | None = None
    prepare_bytes: int | None = None
    stopped: bool = False
    held: float = 0.0
    mixing: dict[str, Any] | None = None
