"""The bottleneck of a feed by name, and what to do about it: a table of rules on its figures.

The consumer's time has three parts: waiting for batches, handing them over, and its own work.  Where it waits, the
readers are the limit, and what they spend their time in; unless they have nothing to do themselves, because they are
only starting, died, or have no slot left to fill.  A remedy is named only where it can help: no more readers where all
processors are busy, no cache where there is one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

__all__ = ["READER_STAGES", "diagnose"]

READER_STAGES = ("read", "inflate", "scatter", "transform")
_WAITING = 0.05  # a consumer that waits for less of its time is not starving
_RESTART_S = 1.0  # what a reader that died costs: its start, and its work done again
_SLOW_FILES = 500e6  # bytes/s of a busy reader: below that it waits for a disk or a network, and not for a processor
_CACHES = ("on", "filling", "unwritten")  # states of a cache that there is to be
_IDLE = 0.5  # readers that are busy for less of their time could be fewer
_SILENT = 0.25  # part of the consumer's wait; a busiest reader that tells of less work hangs, or has not told yet


def diagnose(stats: Mapping[str, Any]) -> tuple[str, str]:
    """Return the bottleneck of a feed and a sentence that says what to do.

    Args:
        stats: As :class:`hepfeed.stats.FeedStats`, but for ``bottleneck`` and ``advice``.

    Returns:
        Name, one of ``"read"``, ``"inflate"``, ``"scatter"``, ``"transform"``, ``"transfer"``, ``"consumer"``,
        ``"start"``, ``"restarts"``, ``"ring"``, ``"stall"`` and ``"none"``; and the sentence.
    """
    case = _Case(stats)
    rule = next(rule for rule in _RULES if rule.applies(case))
    name = case.stage if rule.name == "stage" else rule.name
    remedies = [text for remedy in (rule.remedies or _REMEDIES[name]) if (text := remedy(case))]
    advice = ", or ".join([", ".join(remedies[:-1]), remedies[-1]] if len(remedies) > 2 else remedies)
    said = rule.says(case)
    return name, f"{said}; {advice}" if advice else said


class _Case:
    """The figures that rules look at."""

    def __init__(self, stats: Mapping[str, Any]) -> None:
        self.stats = stats
        self.setting: Mapping[str, Any] = stats["setting"]
        self.readers: int = stats["readers"]
        self.seconds: float = stats["seconds"]
        self.wait: float = stats["wait"]
        self.waits: float = stats["wait_fraction"]
        self.transfer = stats["transfer"] / self.seconds if self.seconds else 0.0
        self.own = max(0.0, 1.0 - self.waits - self.transfer)  # the consumer's own work
        if not self.readers:
            self.own = max(0.0, self.own - stats["busy"])

    @cached_property
    def stage(self) -> str:
        """What the readers spend most of their time in."""
        return max(READER_STAGES, key=lambda stage: float(self.stats[stage]))

    @cached_property
    def busy_readers(self) -> list[list[float]]:
        """Part of their time that readers spend in each stage; of those that are at least half as busy as any."""
        time = max(self.seconds, 1e-9)
        parts = [[spent / time for spent in row] for row in self.stats["by_reader"]]
        return [row for row in parts if sum(row) >= self.busiest / 2 and sum(row) > 0]

    @cached_property
    def busiest(self) -> float:
        """Part of its time that the busiest reader tells of."""
        return max(map(sum, self.stats["by_reader"]), default=0.0) / max(self.seconds, 1e-9)

    @cached_property
    def share(self) -> float:
        """Part of their time that busy readers spend in the stage."""
        place = READER_STAGES.index(self.stage)
        return min(1.0, sum(row[place] for row in self.busy_readers) / max(1, len(self.busy_readers)))

    @cached_property
    def rate(self) -> float:
        """Bytes that a reader reads in a second of reading."""
        return float(self.stats["bytes_read"] / self.stats["read"]) if self.stats["read"] else 0.0

    @property
    def slow_files(self) -> bool:
        """Whether reading is waiting for a disk or a network."""
        return 0 < self.rate < _SLOW_FILES

    @cached_property
    def more_readers(self) -> int:
        """Readers that processors are left for and that the consumer could use; no fewer than there are."""
        parts = dict(self.stats["busy_by_stage"])
        if self.slow_files:
            parts["read"] = 0.0
        in_use = self.readers * sum(parts.values()) + 1.0 - self.waits
        room = math.floor(float(self.setting["processors"]) - in_use + 0.25)
        wanted = math.ceil(self.readers * float(self.stats["busy"]) / max(0.02, 1.0 - self.waits))
        return max(self.readers, min(self.readers + max(0, room), max(self.readers + 1, wanted)))


def _percent(part: float) -> str:
    return f"{100 * part:.0f} %"


# ---- what is said


def _say_nothing(case: _Case) -> str:
    return "no batch was asked for"


def _say_stall(case: _Case) -> str:
    if case.stats["batches"] or case.stats["busy"]:
        return (
            f"stalled: the loop waited for {case.wait:.1f} s, and in no reader more than {_percent(case.busiest)} of"
            " the time went to work that is done"
        )
    return f"stalled: nothing came from {case.readers} readers for {case.wait:.1f} s"


def _say_consumer(case: _Case) -> str:
    if not case.readers:
        fed = case.stats["busy"] + case.transfer + case.waits
        return f"consumer-bound: the loop itself takes {_percent(case.own)} of the time, and the feed {_percent(fed)}"
    return (
        f"consumer-bound: the loop waits {100 * case.waits:.1f} % of its time for batches, and {case.readers} readers"
        f" are {_percent(case.stats['busy'])} busy"
    )


def _say_transfer(case: _Case) -> str:
    return f"transfer-bound: this process is {_percent(case.transfer)} busy handing batches over"


def _say_start(case: _Case) -> str:
    return f"start-bound: {_percent(case.stats['starting'] / case.wait)} of the wait was for readers and their memory"


def _say_restarts(case: _Case) -> str:
    count = case.stats["restarts"]
    return f"readers die: {count} {'was' if count == 1 else 'were'} replaced, and what they did was done again"


def _say_ring(case: _Case) -> str:
    return (
        f"ring-bound: in {_percent(case.stats['no_room'] / case.wait)} of the wait all slots ahead were taken, and"
        " readers had nothing to do"
    )


def _say_stage(case: _Case) -> str:
    speed = f" at {case.rate / 1e6:,.0f} MB/s each" if case.stage == "read" and case.rate else ""
    if not case.readers:
        part = _percent(case.stats["busy_by_stage"][case.stage])
        return f"{case.stage}-bound: this process, which reads itself, is {part} busy in {case.stage}{speed}"
    busy = len(case.busy_readers)
    return f"{case.stage}-bound: {busy} of {case.readers} readers {_percent(case.share)} busy in {case.stage}{speed}"


# ---- what can be done


def _cache(case: _Case) -> str | None:
    if case.setting["cache"] == "filling":
        return "let this epoch write the cache, from which the next ones come"
    if case.setting["cache"] == "unwritten":
        return "let the cache be written: another process does, or the log says why not"
    if case.setting["cache"] == "on" and case.stats["cache_misses"]:
        missed = case.stats["cache_misses"] / (case.stats["cache_hits"] + case.stats["cache_misses"])
        return (
            f"look at later epochs alone (stats().since(earlier)): {_percent(missed)} of the events were not in the"
            " cache yet"
        )
    return "build a cache (cache='auto')" if case.setting["cache"] == "off" else None


def _faster_cache(case: _Case) -> str | None:
    return "keep the cache in memory (cache='ram') or on a faster disk" if case.setting["cache"] == "on" else None


def _readers(case: _Case) -> str | None:
    if not case.readers:
        return "read in the background (num_workers=2)" if case.setting["processors"] > 1 else None
    return f"add readers (num_workers={case.more_readers})" if case.more_readers > case.readers else None


def _processors(case: _Case) -> str | None:
    if case.more_readers > case.readers or not case.readers:
        return None
    return f"use more processors: the {case.setting['processors']:g} that this process may use are busy"


def _disk(case: _Case) -> str | None:
    return "copy the files to a faster disk" if case.setting["cache"] != "on" else None


def _compression(case: _Case) -> str | None:
    return "store the files with less compression" if case.setting["cache"] not in _CACHES else None


def _chunks(case: _Case) -> str | None:
    return "store the files with larger chunks" if case.setting["cache"] == "off" else None


def _steps(case: _Case) -> str:
    if case.setting["feed"] == "dataset":
        return "make the dataset's methods and collate_fn faster"
    if case.setting["cache"] in _CACHES:
        return "move steps that are the same in every epoch before 'cache', or make the others faster"
    return "make the steps (transform, process_fn) faster"


def _delivery(case: _Case) -> str:
    if case.setting["delivery_fn"]:
        return "do in the readers what delivery_fn does (process_fn=, outputs=)"
    return "make fewer, larger batches (batch_size=)"


def _let_go(case: _Case) -> str | None:
    copies, batches = case.stats["copies"], case.stats["batches"]
    if 2 * copies < batches or not copies:
        return None
    return f"let go of earlier batches: {copies:,} of {batches:,} were copied because the loop keeps them"


def _fewer(case: _Case) -> str:
    least = max(1, math.ceil(case.readers * case.stats["busy"] * 1.25))
    if case.readers and least < case.readers and case.stats["busy"] < _IDLE:
        return f"the feed keeps up, and would with num_workers={least}"
    if not case.readers and case.setting["processors"] > 1 and case.stats["busy"] > _WAITING:
        return "the feed can work beside it (num_workers=1)"
    return "the feed keeps up"


def _persistent(case: _Case) -> str:
    if case.readers and not case.setting["persistent"]:
        return "keep the readers from epoch to epoch (persistent_workers=True)"
    return "it happens once, and matters less the longer the training"


def _find_deaths(case: _Case) -> str:
    return "look for lack of memory, or for a crash in a function of yours; num_workers=0 shows it in this process"


def _find_stall(case: _Case) -> str:
    return "look at the file system and at functions of yours; timeout= replaces readers that hang"


def _ahead(case: _Case) -> str:
    return f"let readers work further ahead (prefetch_factor={2 * case.setting['prefetch_factor']})"


@dataclass(frozen=True)
class _Rule:
    """A bottleneck: when it is one, what is said of it, and what can be done; the first rule that applies is taken."""

    name: str
    applies: Callable[[_Case], bool]
    says: Callable[[_Case], str]
    remedies: tuple[Callable[[_Case], str | None], ...] = ()


_REMEDIES: dict[str, tuple[Callable[[_Case], str | None], ...]] = {
    "read": (_cache, _faster_cache, _disk, _readers),
    "inflate": (_cache, _readers, _compression, _processors),
    "scatter": (_readers, _chunks, _processors),
    "transform": (_readers, _steps, _processors),
}


def _stalls(case: _Case) -> bool:
    """Whether the consumer waits, and readers report next to nothing: they do only once they are done."""
    slow_batch = case.stats["batches"] and case.stats["no_room"] > case.wait / 2
    return case.waits > _IDLE and case.busiest < _SILENT * case.waits and not slow_batch


def _starts(case: _Case) -> bool:
    return float(case.stats["starting"]) > max(
        case.wait / 2, 0.0 if case.readers else case.stats["busy"] * case.seconds
    )


def _starving(case: _Case) -> bool:
    return case.waits > _WAITING if case.readers else case.stats["busy"] > max(_WAITING, case.transfer)


_RULES = (
    _Rule("none", lambda case: not case.seconds, _say_nothing, (lambda case: None,)),
    _Rule(
        "transfer",
        lambda case: case.transfer > max(_WAITING, case.own, case.waits, 0.0 if case.readers else case.stats["busy"]),
        _say_transfer,
        (_let_go, _delivery),
    ),
    _Rule("consumer", lambda case: not _starving(case), _say_consumer, (_fewer,)),
    _Rule("restarts", lambda case: case.stats["restarts"] * _RESTART_S > case.wait / 2, _say_restarts, (_find_deaths,)),
    _Rule("start", _starts, _say_start, (_persistent,)),
    _Rule("stall", _stalls, _say_stall, (_find_stall,)),
    _Rule("ring", lambda case: case.stats["no_room"] > case.wait / 2, _say_ring, (_ahead,)),
    _Rule("stage", lambda case: True, _say_stage),
)
