"""The best setting of the feed for a device: all combinations of some values, each measured in turn."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from hepfeed.bench.gpu_loop import Limits, Loops
from hepfeed.bench.gpu_place import Place
from hepfeed.bench.gpu_sides import Hepfeed, Replay, Source
from hepfeed.cache.option import CacheOption
from hepfeed.progress import Progress
from hepfeed.spec import SampleSpec

__all__ = ["Grid", "Setting", "SweepRow", "best_of", "sweep", "tuned"]

_SAME = 0.03
"""Speeds that differ by less are equally good: loops of a few seconds are no more exact than that."""


@dataclass(frozen=True)
class Setting:
    """How events are fed.

    Attributes:
        num_workers: Readers.
        batch_size: Events of a batch.
        prefetch_factor: Batches ahead for each reader.
        cache: ``"auto"``, ``"ram"``, a directory, or None.
    """

    num_workers: int
    batch_size: int
    prefetch_factor: int
    cache: CacheOption

    @property
    def cost(self) -> tuple[int, int, bool]:
        """What is preferred where speeds are the same has less of it: readers, memory, and a cache."""
        return self.num_workers, self.prefetch_factor * self.batch_size, self.cache is not None


@dataclass(frozen=True)
class Grid:
    """Values of each option; all combinations are measured.  Attributes as of :class:`Setting`."""

    num_workers: Sequence[int]
    batch_size: Sequence[int]
    prefetch_factor: Sequence[int]
    cache: Sequence[CacheOption]

    def settings(self) -> list[Setting]:
        """Return the combinations, each once."""
        values = itertools.product(self.num_workers, self.batch_size, self.prefetch_factor, self.cache)
        return list(dict.fromkeys(itertools.starmap(Setting, values)))


@dataclass
class SweepRow:
    """What a setting reached.

    Attributes:
        setting: The setting.
        events_per_s: By round.
        of_replay: Events a second over those of the replay of batches of this size, by round.
        wait: Data wait as a part of the time of all steps, by round.
        best: Whether it is the one to choose.
    """

    setting: dict[str, Any]
    events_per_s: list[float] = field(default_factory=list)
    of_replay: list[float] = field(default_factory=list)
    wait: list[float] = field(default_factory=list)
    best: bool = False

    @property
    def speed(self) -> float:
        """Median events a second."""
        return float(np.median(self.events_per_s))


def sweep(
    source: Source,
    place: Place,
    limits: Limits,
    grid: Grid,
    *,
    model: str | None = None,
    progress: Progress | None = None,
) -> list[SweepRow]:
    """Train through hepfeed with each setting, in the epochs after the first.

    Settings take turns in rounds, and the replay of each size of batches with them.

    Args:
        source: What is fed; its own setting does not count.
        place: The device.
        limits: How long each loop runs.
        grid: The settings.
        model: As of :class:`hepfeed.bench.gpu_loop.Loops`.
        progress: Called with (what is done, finished, total).

    Returns:
        The rows by falling events a second: with batches of the same size that is the order of ``of_replay`` as well.

    Raises:
        SpecError: The events are too few, or the network does not take them.
    """
    settings = grid.settings()
    rows = {setting: SweepRow(asdict(setting)) for setting in settings}
    sizes = {setting.batch_size: [s for s in settings if s.batch_size == setting.batch_size] for setting in settings}
    total = limits.rounds * len(settings)
    done = 0
    for some in sizes.values():
        loops = Loops(place, limits, max(s.num_workers for s in some), model, source.spec.n_classes, source.seed)
        replay: Replay | None = None
        for _ in range(limits.rounds):
            most: float | None = None
            for setting in some:
                chosen = replace(source, **vars(setting))
                with closing(Hepfeed(chosen, progress)) as side:
                    if replay is None:
                        replay = Replay(side, chosen)
                        loops.prepare(next(replay.batches()))
                    speed = loops.run(side).timeline
                most = loops.run(replay).timeline.events_per_s if most is None else most
                row = rows[setting]
                row.events_per_s.append(speed.events_per_s)
                row.of_replay.append(speed.events_per_s / most)
                row.wait.append(1 - speed.busy)
                done += 1
                if progress is not None:
                    progress("settings", done, total)
    found = sorted(rows.values(), key=lambda row: -row.speed)
    best_of(found).best = True
    return found


def best_of(rows: Sequence[SweepRow]) -> SweepRow:
    """Return the row to choose: of those within 3 % of the fastest, the one that costs least."""
    most = max(row.speed for row in rows)
    return min((row for row in rows if row.speed >= (1 - _SAME) * most), key=lambda row: Setting(**row.setting).cost)


def tuned(spec: SampleSpec, row: SweepRow) -> SampleSpec:
    """Return a specification whose section ``loader`` has the setting; other options of it stay."""
    return spec.with_loader({**spec.loader.given, **row.setting})
