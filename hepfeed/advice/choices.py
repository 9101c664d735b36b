"""The choices that a prediction compares, each with what it delivers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from rich.filesize import decimal

from hepfeed.advice.alternatives import CacheCost
from hepfeed.advice.report import Choice, Kind
from hepfeed.check.forms import Form, repack_command
from hepfeed.hdf5 import DatasetInfo
from hepfeed.prediction import EventCost, Host, amplification, demand, pays_from, predict

__all__ = ["Choices"]


@dataclass
class Choices:
    """Collects choices; the first one is today's.

    Attributes:
        host: What the feed runs on.
        readers: Of today's feed.
        batch_size: Events of a batch.
        events: Of an epoch.
        step_s: Seconds that a device computes on a batch, where one is given.
        found: What was added.
    """

    host: Host
    readers: int
    batch_size: int
    events: int
    step_s: float | None
    found: list[Choice] = field(default_factory=list)

    def today(self, cost: EventCost) -> None:
        """Add the feed as it is, and with other numbers of readers up to one a core."""
        self._add("today", f"today: {_readers(self.readers)}", cost)
        for readers in _counts(self.host.cores):
            if readers != self.readers:
                command = f"num_workers={readers}"
                self._add("readers", _readers(readers), cost, command, command, readers=readers)

    def shuffled(self, cost: EventCost, block: int) -> None:
        """Add ``shuffle="full"``, where events share chunks."""
        if block > 1:
            again = cost.decoded(amplification(self.batch_size / max(1, self.events), block))
            self._add("shuffle", "shuffle='full'", again, "shuffle='full'", "shuffle='full'")

    def form(self, form: Form, cost: EventCost, size: int, infos: list[DatasetInfo]) -> None:
        """Add files that are written anew."""
        command = repack_command(form, infos)
        self._add("form", f"files: {form.name}", cost, f"files written anew: {decimal(size)}", command, size=size)

    def cache(self, cost: CacheCost, memory: int, command: str) -> None:
        """Add a cache that is filled in the first epoch, given the memory that is free."""
        size = round(cost.bytes * self.events)
        took = _duration(self._filling_s(cost))
        self._add("filling", "cache: the first epoch", cost.filling, took, end_s=cost.end_s)
        self._cached("cache", "cache: later epochs", cost, memory, command, size)

    def sparse(self, keys: list[str], cost: CacheCost, memory: int, command: str) -> None:
        """Add a cache whose images come as their cells."""
        size = round(cost.bytes * self.events)
        self._cached("sparse", f"cache of sparse {' and '.join(keys)}: later epochs", cost, memory, command, size)

    def _cached(self, kind: Kind, what: str, cost: CacheCost, memory: int, command: str, size: int) -> None:
        fits = size < memory
        later = replace(cost.later, bytes_read=0.0) if fits else cost.later
        rest, without = (self._epoch_s(each) for each in (later, self.found[0].cost))
        pays = pays_from(self._filling_s(cost), rest, without)
        when = "never pays" if pays is None else f"pays from epoch {pays} on"
        where = "in the free memory" if fits else "more than the free memory"
        self._add(kind, what, later, f"{decimal(size)}, {where}; {when}", command, size=size, pays=pays)

    def _epoch_s(self, cost: EventCost) -> float:
        return self.events / predict(cost, self.readers, self.host).events_per_s

    def _filling_s(self, cost: CacheCost) -> float:
        return self._epoch_s(cost.filling) + cost.end_s

    def _add(
        self,
        kind: Kind,
        what: str,
        cost: EventCost,
        needs: str = "",
        command: str = "",
        *,
        readers: int | None = None,
        size: int | None = None,
        pays: int | None = None,
        end_s: float = 0.0,
    ) -> None:
        readers = self.readers if readers is None else readers
        rate = predict(cost, readers, self.host)
        if end_s:
            rate = replace(rate, events_per_s=self.events / (self.events / rate.events_per_s + end_s))
        gain = rate.events_per_s / self.found[0].events_per_s if self.found else 1.0
        wanted = None if self.step_s is None else demand(rate, cost, self.batch_size, self.step_s)
        self.found.append(
            Choice(kind, what, readers, rate.events_per_s, gain, rate.limit, needs, command, cost, size, pays, wanted)
        )


def _counts(cores: int) -> list[int]:
    """Return the numbers of readers to compare: each up to 4, then in doubles, and as many as there are cores."""
    return sorted({*range(1, min(cores, 4) + 1), *(n for n in (8, 16, 32, 64, 128) if n < cores), cores})


def _readers(count: int) -> str:
    return f"{count} reader{'' if count == 1 else 's'}" if count else "no readers"


def _duration(seconds: float) -> str:
    """Say how long an epoch takes."""
    if seconds < 120:
        return f"takes {seconds:.3g} s"
    return f"takes {seconds / 60:.0f} min" if seconds < 7200 else f"takes {seconds / 3600:.1f} h"
