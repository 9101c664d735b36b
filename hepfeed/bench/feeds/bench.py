"""Sides over an input: each in a process of its own, verified, then timed in turns."""

from __future__ import annotations

import contextlib
import importlib.metadata
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from hepfeed.bench.feeds.checking import Expected
from hepfeed.bench.feeds.events import EventSet
from hepfeed.bench.feeds.floor import Floor
from hepfeed.bench.feeds.meter import Meter
from hepfeed.bench.feeds.mixing import Mixing, compare
from hepfeed.bench.feeds.process import Setup, SideProcess
from hepfeed.bench.feeds.row import FLOOR, Row
from hepfeed.bench.feeds.side import Side
from hepfeed.progress import Progress

__all__ = ["Options", "bench_feed", "held_notes", "mixing_notes", "relate"]

_PATIENCE_S = 120.0
_PREPARE_S = 3600.0
_HELD = 0.1
"""A part of the events that matters."""


@dataclass(frozen=True)
class Options:
    """How sides are measured.

    Attributes:
        workers: Processes or threads beside the consumer.
        batch_size: Events of a batch.
        rounds: In which all sides take turns.
        least_s: A turn has whole epochs for that long, or longer.
        most_s: An epoch is stopped after that, also the one that is verified.
        seed: Of the shuffles.
    """

    workers: int = 2
    batch_size: int = 128
    rounds: int = 3
    least_s: float = 1.0
    most_s: float = 8.0
    seed: int = 0


def bench_feed(
    events: EventSet,
    sides: Sequence[Side],
    options: Options,
    folder: Path,
    progress: Progress,
    keep: Callable[[list[Row]], None] = lambda rows: None,
) -> list[Row]:
    """Measure the sides that can take part, and the floor beside; the others are listed with the reason.

    Args:
        events: The input.
        sides: Who is asked; hepfeed should be among them, for the ratios.
        options: How.
        folder: For their formats, which are deleted in the end, and for what they print.
        progress: Called as sides are verified, and as turns are over.
        keep: Called with the rows so far when each round is over.

    Returns:
        A row for each side that such an input is for, and one for the floor.
    """
    expected = Expected.of(events)
    asked = [side for side in sides if side.fits(events)]
    rows = [_row(side, events) for side in asked]
    floor = Row(events.name, events.title, FLOOR, "floor", FLOOR, complete=True)
    running: dict[str, tuple[Row, SideProcess]] = {}
    with contextlib.ExitStack() as stack:
        for number, (side, row) in enumerate(zip(asked, rows)):
            progress(f"{events.name}: verifying", number, len(asked))
            row.missing = side.missing() or side.takes(events)
            if row.missing is None:
                row.held = side.held(events)
                place = folder / side.name
                shutil.rmtree(place, ignore_errors=True)
                place.mkdir(parents=True)
                stack.callback(shutil.rmtree, place, ignore_errors=True)
                setup = Setup(side, events, place, options.workers, options.batch_size, options.seed)
                if (process := _verified(row, setup, expected, options, stack)) is not None:
                    running[side.name] = row, process
        progress(f"{events.name}: verifying", len(asked), len(asked))
        least = stack.enter_context(Floor.of(events, options.workers))
        for number in range(options.rounds):
            progress(f"{events.name}: rounds", number, options.rounds)
            floor.rates.append(len(events) / _floor_seconds(least, options.least_s))
            for row, process in list(running.values()):
                if not _turn(row, process, options):
                    process.close()
                    del running[row.side]
            relate([*rows, floor], floor)
            keep([*rows, floor])
        progress(f"{events.name}: rounds", options.rounds, options.rounds)
    return [*rows, floor]


def _floor_seconds(floor: Floor, least_s: float) -> float:
    """Seconds of an epoch of the floor, of as many as a turn of the sides has at least."""
    spent = [floor.turn()]
    while sum(spent) < least_s:
        spent.append(floor.turn())
    return sum(spent) / len(spent)


def _row(side: Side, events: EventSet) -> Row:
    try:
        version = importlib.metadata.version(side.package or side.name.partition("-")[0])
    except importlib.metadata.PackageNotFoundError:
        version = ""
    settings, advice = dict(side.settings), side.advice
    return Row(events.name, events.title, side.name, side.title, side.versus, version, settings, advice)


def _verified(
    row: Row, setup: Setup, expected: Expected, options: Options, stack: contextlib.ExitStack
) -> SideProcess | None:
    """Prepare, open and verify a side; its process if nothing is wrong, which ends with the stack."""
    log = setup.folder.with_suffix(".log")
    try:
        if setup.events.prepared:
            with SideProcess(setup, log, _PREPARE_S) as process:
                row.prepare_s = process.prepare()
            row.prepare_bytes = sum(path.stat().st_size for path in setup.folder.rglob("*") if path.is_file())
        process = stack.enter_context(SideProcess(setup, log, _PATIENCE_S + 4 * options.most_s))
        first = process.first(expected, options.most_s)
    except Exception as error:
        row.fault = _said(error)
        return None
    found = first.findings
    row.first_batch_s, row.verified, row.complete = first.first_batch_s, found.delivered, found.complete
    if found.faults or not found.delivered:
        row.fault = "; ".join(found.faults) or "no event came"
        process.close()
        return None
    row.mixing = asdict(Mixing.of(setup.events, found, setup.batch_size))
    process.settle()
    return process


def _turn(row: Row, process: SideProcess, options: Options) -> bool:
    """Time a side once; returns whether it is alive."""
    try:
        with Meter(process.pid) as meter:
            turn = process.turn(options.least_s, options.most_s)
        process.settle()
        if not turn.events:
            raise RuntimeError("no event came in a later epoch")
    except Exception as error:
        row.fault = _said(error)
        row.rates.clear()
        row.cpu_s.clear()
        return False
    row.rates.append(turn.events / turn.seconds)
    row.cpu_s.append(1e6 * meter.cpu_s / turn.events)
    row.peak_bytes = max(row.peak_bytes, meter.peak_bytes)
    row.stopped |= not turn.complete
    return True


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def relate(rows: Sequence[Row], floor: Row) -> None:
    """Form the ratios of rows of one input, round by round: against the side to compare with, and against the floor."""
    rates = {row.side: np.array(row.rates) for row in rows}
    for row in rows:
        row.of_floor, row.ratios = [], []  # of a side that has died since, none
        if row.rates:
            row.of_floor = (rates[row.side] / rates[floor.side]).tolist()
            base = rates.get(row.versus)
            if base is not None and len(base) and row.versus != row.side:
                row.ratios = (base / rates[row.side]).tolist()


def held_notes(rows: Sequence[Row]) -> Iterator[str]:
    """Say which sides do less in the epochs that are timed than they would over a larger set."""
    for row in rows:
        if row.rates and row.held >= _HELD:
            yield (
                f"{row.input}: {row.side} keeps {100 * row.held:.0f} % of the events inflated in HDF5's chunk caches,"
                " for the set is small: its rate is flattered"
            )


def mixing_notes(rows: Sequence[Row]) -> Iterator[str]:
    """Say where one side shuffles less than the one that it is compared with, or the other way."""
    by_name = {(row.input, row.side): row for row in rows}
    for row in rows:
        base = by_name.get((row.input, row.versus))
        if base is None or base is row or row.mixing is None or base.mixing is None:
            continue
        for sentence in compare(row.side, Mixing(**row.mixing), base.side, Mixing(**base.mixing)):
            yield f"{row.input}: {sentence}"
