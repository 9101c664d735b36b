"""Training loops through hepfeed, through torch's ``DataLoader``, and on batches that are in memory already."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from hepfeed.bench.gpu_loop import Limits, Loop, Loops
from hepfeed.bench.gpu_place import Place
from hepfeed.bench.gpu_sides import FirstEpoch, Hepfeed, Replay, Side, Source, Torch
from hepfeed.bench.h5py_events import H5pyEvents
from hepfeed.bench.nvml import open_meter
from hepfeed.dataset import EventDataset
from hepfeed.errors import HepfeedError
from hepfeed.progress import Progress
from hepfeed.tensors import Batch

__all__ = ["Result", "Row", "bench_gpu", "headline"]

_VERIFIED = 2
"""Batches of each side that are compared with h5py before anything is timed."""
_MISSED = 0.01
"""A part of the events that may come from the files in later epochs: the first one leaves its last batch out."""
_DRAWN = 1000
"""Steps of a timeline that are kept for drawing."""


@dataclass
class Row:
    """What one side reached.

    Attributes:
        side: Its name.
        events_per_s: By round.
        of_replay: Events a second over those of the replay in the same round.
        busy: Part of the time that the device was busy, by round.
        utilisation: By NVML, by round; empty where it does not say.
        energy_j: Joules for as many events as an epoch has, by round; empty where NVML does not say.
        wait: Data wait as a part of the step: ``mean`` (of the time of all steps of a round, the median of the rounds:
            what ``busy`` leaves), ``median`` and ``p95`` (of the single steps of all rounds).
        steps: Measured, by round.
        timeline: Of the last round; see :meth:`hepfeed.bench.timeline.Timeline.to_json`.
        stats: hepfeed's own report of the last round.
        absent: Why it did not take part.
    """

    side: str
    events_per_s: list[float] = field(default_factory=list)
    of_replay: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    utilisation: list[float] = field(default_factory=list)
    energy_j: list[float] = field(default_factory=list)
    wait: dict[str, float] = field(default_factory=dict)
    steps: list[int] = field(default_factory=list)
    timeline: dict[str, Any] = field(default_factory=dict)
    stats: dict[str, Any] | None = None
    absent: str = ""


@dataclass(frozen=True)
class Result:
    """What :func:`bench_gpu` found.

    Attributes:
        rows: A row for each side.
        model: Name of the network; empty where there is none.
        epoch_events: Events of an epoch.
        replayed: Batches that the replay goes through.
        notes: Sentences for people.
    """

    rows: list[Row]
    model: str
    epoch_events: int
    replayed: int
    notes: list[str]


def bench_gpu(
    source: Source,
    place: Place,
    limits: Limits,
    *,
    model: str | None = None,
    progress: Progress | None = None,
) -> Result:
    """Measure how much of the speed without loading each side reaches.

    The sides are hepfeed in its first epoch, hepfeed in later ones, torch's ``DataLoader`` and the replay; they train
    the same network from the same first weights, and take turns in rounds.  All but the first epoch, whose order suits
    the files, get the same batches in the same order.  The first batches of each are compared with h5py before
    anything is timed.

    Args:
        source: What is fed.
        place: The device.
        limits: How long.
        model: As of :class:`Loops`.
        progress: Called with (what is done, finished, total).

    Raises:
        SpecError: The events are too few, or the network does not take them.
        ProcessError: hepfeed delivers other batches than h5py reads.
    """
    loops = Loops(place, limits, source.num_workers, model, source.spec.n_classes, source.seed)
    meter, no_meter = open_meter(place.device) if place.device is not None else (None, "")
    notes = [place.waiting]
    if no_meter:
        notes.append(f"{no_meter}; utilisation is the busy time of the device, and energy is not known")
    with ExitStack() as stack:
        if meter is not None:
            stack.callback(meter.close)
        ours = Hepfeed(source, progress)
        stack.callback(ours.close)
        expected = _Expected(ours.dataset, source.seed)
        stack.callback(expected.close)
        loops.prepare(expected.of(ours)[0])
        replay = Replay(ours, source)
        sides = [FirstEpoch(source, ours.caches), ours, Torch(source, ours.dataset, ours.filler()), replay]
        rows = {side.name: Row(side.name) for side in sides}
        done: dict[str, list[Loop]] = {side.name: [] for side in sides}
        for turn in range(limits.rounds * len(sides)):
            number, side = turn // len(sides), sides[turn % len(sides)]
            if rows[side.name].absent:
                continue
            wanted = expected.of(side) if number == 0 else []
            if progress is not None:
                progress(f"round {number + 1}: {side.name}", turn % len(sides), len(sides))
            try:
                done[side.name].append(loops.run(side, wanted, meter))
            except Exception as error:
                if isinstance(error, HepfeedError) or not isinstance(side, Torch):
                    raise
                rows[side.name].absent = f"{type(error).__name__}: {error}"
        epoch_events = ours.filler().batches_in(Side.epoch) * source.batch_size
        notes += _notes(source, place, limits, ours, replay, expected.chunk_bytes, done)
    best = [loop.timeline.events_per_s for loop in done[replay.name]]
    for name, loops_of in done.items():
        if not rows[name].absent:
            _fill(rows[name], loops_of, best, epoch_events)
    return Result(list(rows.values()), loops.model or "", epoch_events, len(replay), notes)


class _Expected:
    """The first batches of epochs as h5py reads them; read once."""

    def __init__(self, dataset: EventDataset, seed: int) -> None:
        self._events = H5pyEvents(dataset, seed)
        self._known: dict[int, list[Batch]] = {}

    @property
    def chunk_bytes(self) -> int:
        """Of HDF5's cache for each data set, as torch's workers have it."""
        return self._events.chunk_bytes

    def of(self, side: Side) -> list[Batch]:
        if isinstance(side, Replay):
            return []
        if side.epoch not in self._known:
            specs = islice(side.filler().batches(side.epoch), _VERIFIED)
            self._known[side.epoch] = [self._events.batch(spec) for spec in specs]
        return self._known[side.epoch]

    def close(self) -> None:
        self._events.close()


def _fill(row: Row, loops: list[Loop], best: list[float], epoch_events: int) -> None:
    """Sum up the loops of a side."""
    lines = [loop.timeline for loop in loops]
    row.events_per_s = [line.events_per_s for line in lines]
    row.of_replay = [speed / most for speed, most in zip(row.events_per_s, best)]
    row.busy = [line.busy for line in lines]
    row.steps = [len(line) for line in lines]
    row.utilisation = [used for loop in loops if (used := loop.usage.utilisation) is not None]
    spent = [(loop.usage.energy_j, sum(loop.timeline.events)) for loop in loops]
    row.energy_j = [joules * epoch_events / events for joules, events in spent if joules is not None and events]
    fractions = np.concatenate([line.fractions for line in lines])
    row.wait = {
        "mean": 1 - float(np.median(row.busy)),
        "median": float(np.median(fractions)),
        "p95": float(np.percentile(fractions, 95)),
    }
    row.timeline = lines[-1].part(0, _DRAWN).to_json()
    row.stats = None if loops[-1].stats is None else dict(loops[-1].stats)


def _notes(
    source: Source,
    place: Place,
    limits: Limits,
    ours: Hepfeed,
    replay: Replay,
    chunk_bytes: int,
    done: dict[str, list[Loop]],
) -> list[str]:
    """What was done, in words."""
    all_batches = ours.filler().batches_in(Side.epoch)
    notes = [
        f"the first {_VERIFIED} batches of each side are bit for bit what h5py reads; no batch is incomplete",
        f"replay: {len(replay):,} of the {all_batches:,} batches of an epoch, again and again, in the device's memory",
        f"torch DataLoader: a map-style dataset over h5py, event by event, {source.num_workers} persistent workers, the"
        f" same batches; chunk caches of {chunk_bytes / 2**20:.3g} MiB a data set; hepfeed's steps run on the collated"
        " batch",
    ]
    if source.sends:
        notes.append("hepfeed's loader sends batches to the device ahead of their steps; torch's are sent by the loop")
    if not ours.caches:
        notes.append("hepfeed keeps no cache here: all its epochs read the files")
    stats = [loop.stats for loop in done[ours.name] if loop.stats is not None]
    hits, missed = (sum(each[name] for each in stats) for name in ("cache_hits", "cache_misses"))
    asked = hits + missed
    if ours.caches and missed > _MISSED * asked:
        notes.append(f"hepfeed: {missed:,} of {asked:,} events were not in the cache, and came from the files")
    shortest = min((len(loop.timeline) for loop in done[FirstEpoch.name]), default=0)
    if limits.steps is not None and shortest < limits.steps:
        notes.append(f"{FirstEpoch.name}: {shortest} measured steps, for it is one epoch")
    troubles = {loop.usage.trouble for loops in done.values() for loop in loops if loop.usage.trouble}
    return [*notes, *(f"NVML: {trouble}" for trouble in sorted(troubles))]


def headline(rows: list[Row]) -> str:
    """Return the result in a sentence."""
    parts = {row.side: float(np.median(row.of_replay)) for row in rows if row.of_replay}
    theirs = f"; torch's DataLoader {_percent(parts[Torch.name])}" if Torch.name in parts else ""
    return f"hepfeed reaches {_percent(parts[Hepfeed.name])} of the replay speed{theirs}"


def _percent(part: float) -> str:
    return f"{100 * part:.3g} %"
