"""Sides that take turns, and the table of what they needed."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from hepfeed.bench.clock import Clock, milliseconds
from hepfeed.bench.record import Record
from hepfeed.cli.bench_output import PlotStyle, deliver

CLOCK = Clock(torch.device("cpu"))
WIDTH = 160
"""Columns of the table in a file or a pipe."""

Run = Callable[[], Any]
Times = dict[str, list[float]]
"""Seconds of each round, by side."""


@dataclass(frozen=True)
class Side:
    """Something to time.

    Attributes:
        run: A call of it.
        threads: Of torch, which are hepfeed's, too.
        calls: How many calls do the work that the other sides do in one.
    """

    run: Run
    threads: int = 1
    calls: float = 1.0

    def turn(self) -> float:
        """Return the seconds of the work."""
        torch.set_num_threads(self.threads)
        return CLOCK.rounds(self.run, 1)[0] * self.calls


def best(run: Run, rounds: int = 5) -> float:
    """Return the least time of a call, in seconds."""
    return min(CLOCK.rounds(run, rounds))


def write_table(title: str, rows: list[dict[str, Any]], settings: dict[str, Any], json: Path | None) -> None:
    """Print rows, and write them where that is asked for."""
    deliver(Record.now("table", title, settings, rows, []), json, None, PlotStyle.default)


def race(sides: dict[str, Side], rounds: int) -> Times:
    """Time each side once in each round."""
    times: Times = {name: [] for name in sides}
    gc.collect()
    for _ in range(rounds):
        for name, side in sides.items():
            times[name].append(side.turn())
    return times


@dataclass
class Report:
    """The table of results, and the numbers behind it.

    Attributes:
        rounds: In which sides take turns.
        best: Whether the best round counts, and not the median: for a machine that has other work.
        console: Where progress and the table are printed.
        figures: What is written as JSON, row by row.
    """

    rounds: int
    best: bool = False
    console: Console = field(default_factory=lambda: Console(width=None if sys.stdout.isatty() else WIDTH))
    figures: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        kind = "best" if self.best else "medians (lowest - highest)"
        self.table = Table(title=f"{kind} of {self.rounds} alternating rounds")
        for column in ("what", "threads", "hepfeed, ms", "rival", "rival, ms", "ratio", "should be", "reached"):
            self.table.add_column(column, justify="left" if column in ("what", "rival") else "right")

    def add(
        self, what: str, threads: int, ours: list[float], rival: str, theirs: list[float], aim: float | None = None
    ) -> None:
        """Add a row.

        Args:
            what: Its name.
            threads: Of hepfeed.
            ours: Seconds by round.
            rival: Its name.
            theirs: Seconds by round.
            aim: The least ratio, of the rival's time to hepfeed's, that the project asks of itself.
        """
        ratio = min(theirs) / min(ours) if self.best else float(np.median(np.array(theirs) / np.array(ours)))
        middle = min if self.best else np.median
        wanted, reached = ("", "") if aim is None else (f"{aim:g} x", "yes" if ratio >= aim else "no")
        self.table.add_row(
            what, str(threads), self._said(ours), rival, self._said(theirs), f"{ratio:.2f} x", wanted, reached
        )
        self.figures.append(
            {
                "what": what,
                "threads": threads,
                "hepfeed, ms": 1e3 * float(middle(ours)),
                "lowest": 1e3 * min(ours),
                "highest": 1e3 * max(ours),
                "rival": rival,
                "rival, ms": 1e3 * float(middle(theirs)),
                "rival's lowest": 1e3 * min(theirs),
                "rival's highest": 1e3 * max(theirs),
                "ratio": ratio,
                "should be": aim,
                "reached": reached,
            }
        )

    def save(self, path: Path, settings: dict[str, Any], notes: list[str]) -> None:
        """Write the rows as JSON, in the form of all benchmarks."""
        Record.now("table", str(self.table.title), settings, self.figures, notes).save(path)

    def _said(self, seconds: list[float]) -> str:
        low, middle, high = (milliseconds(f(seconds)) for f in (min, np.median, max))
        return low if self.best else f"{middle} ({low} - {high})"
