"""How results of ``benchmarks/scale.py`` are shown: growth with the numbers of events and of files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hepfeed.bench.drawing import log_axis
from hepfeed.bench.measure import Measure
from hepfeed.bench.record import Record
from hepfeed.bench.sheet import Sheet, three_digits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figures", "measures", "sheets"]

MOST_BYTES_AN_EVENT = 24
MOST_START_S = 2.0
MOST_SLOWER = 0.1
_SET, _NUMBERS = "set", ("events", "files")
_COLUMNS = (
    *("cold open, s", "cold first, s", "warm open, s", "warm first, s"),
    *("parent, MB", "a reader, MB", "first epoch, events/s", "later, events/s", "lowest - highest", "bottleneck"),
)


def sheets(record: Record) -> list[Sheet]:
    """Return the table of all sets, and that of what must stay within limits."""
    cells = []
    for row in record.rows:
        times = (three_digits(row[key]) for key in ("cold_open_s", "cold_first_s", "warm_open_s", "warm_first_s"))
        memory = (three_digits(row[key] / 1e6) for key in ("most_bytes", "reader_bytes"))
        spread = f"{min(row['rates']):,.0f} - {max(row['rates']):,.0f}"
        rates = [f"{row['first_rate']:,.0f}", f"{_rate(row):,.0f}", spread]
        cells.append([f"{row['events']:,}", f"{row['files']:,}", *times, *memory, *rates, row["bottleneck"]])
    table = Sheet(record.title, [*_NUMBERS, *_COLUMNS], cells, frozenset({"bottleneck"}))
    return [table, Sheet("What must stay", ["what", "found", "limit", "kept"], _limits(record), frozenset({"what"}))]


def measures(record: Record) -> list[Measure]:
    """Return times, memory and rates of every set."""
    found = []
    for row in record.rows:
        name = f"{row['events']:,} events, {row['files']:,} files"
        found += [
            Measure(name, "hepfeed", "start with an index", "s", "lower", (_start_s(row),)),
            Measure(
                name, "hepfeed", "start without an index", "s", "lower", (row["cold_open_s"] + row["cold_first_s"],)
            ),
            Measure(name, "hepfeed", "memory of the parent", "MB", "lower", (row["most_bytes"] / 1e6,)),
            Measure(name, "hepfeed", "memory of a reader", "MB", "lower", (row["reader_bytes"] / 1e6,)),
            Measure(name, "hepfeed", "events/s", "", "higher", tuple(row["rates"])),
        ]
    return found


def figures(record: Record) -> list[Figure]:
    """Draw start-up, memory and events/s against the number of events, and against the number of files."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 9), layout="constrained")
    grid = figure.subplots(3, 2, sharey="row", squeeze=False)
    for column, (name, rows) in enumerate(zip(_NUMBERS, (_by_events(record), _by_files(record)))):
        other = "files" if name == "events" else "events"
        at = [row[name] for row in rows]
        start, memory, rate = grid[:, column]
        start.plot(at, [_cold_s(row) for row in rows], "s--", label="without an index")
        start.plot(at, [_start_s(row) for row in rows], "o-", label="with the index")
        start.axhline(MOST_START_S, color="gray", linestyle=":", label="limit, with the index")
        memory.plot(at, [row["most_bytes"] / 1e6 for row in rows], "o-", label="parent")
        memory.plot(at, [row["reader_bytes"] / 1e6 for row in rows], "s--", label="a reader")
        if name == "events":
            base = rows[0]["most_bytes"] - MOST_BYTES_AN_EVENT * rows[0]["events"]
            limit = [(max(0, base) + MOST_BYTES_AN_EVENT * count) / 1e6 for count in at]
            memory.plot(at, limit, ":", color="gray", label=f"limit, {MOST_BYTES_AN_EVENT} bytes an event")
        middle = np.array([_rate(row) for row in rows])
        edges = [middle - [min(row["rates"]) for row in rows], [max(row["rates"]) for row in rows] - middle]
        rate.errorbar(at, middle / 1e3, yerr=np.array(edges) / 1e3, fmt="o-", capsize=3, label="hepfeed")
        rate.set_ylim(bottom=0)
        start.set_title(f"{rows[0][other]:,} {other}")
        rate.set_xlabel(f"{name} of the set")
        for axes in (start, memory, rate):
            axes.set_xscale("log")
            axes.set_xticks(at, [f"{count:,}" for count in at])
            axes.set_xticks([], minor=True)
            axes.grid(alpha=0.3)
        for axes in (start, memory):
            log_axis(axes.yaxis)
    for axes, label in zip(grid[:, 0], ("start to first batch, s", "private memory, MB", "1,000 events/s")):
        axes.set_ylabel(label)
        axes.legend()
    figure.suptitle(record.title)
    return [figure]


def _rate(row: dict[str, Any]) -> float:
    return float(np.median(row["rates"]))


def _start_s(row: dict[str, Any]) -> float:
    return float(row["warm_open_s"] + row["warm_first_s"])


def _cold_s(row: dict[str, Any]) -> float:
    return float(row["cold_open_s"] + row["cold_first_s"])


def _by_events(record: Record) -> list[dict[str, Any]]:
    """Sets of the fewest files, by their events."""
    fewest = min(row["files"] for row in record.rows)
    return sorted((row for row in record.rows if row["files"] == fewest), key=lambda row: row["events"])


def _by_files(record: Record) -> list[dict[str, Any]]:
    """Sets of the most events, by their files."""
    most = max(row["events"] for row in record.rows)
    return sorted((row for row in record.rows if row["events"] == most), key=lambda row: row["files"])


def _slope(rows: list[dict[str, Any]], of: str, by: str) -> float | None:
    """Growth from the first row to the last one; None where there is only one."""
    span = rows[-1][by] - rows[0][by]
    return float(rows[-1][of] - rows[0][of]) / span if span else None


def _limits(record: Record) -> list[list[str]]:
    events, files = _by_events(record), _by_files(record)
    found = []
    an_event = _slope(events, "most_bytes", "events")
    if an_event is not None:
        kept = "yes" if an_event < MOST_BYTES_AN_EVENT else "no"
        limit = f"< {MOST_BYTES_AN_EVENT} bytes"
        found.append(["memory of the parent, for each event more", f"{an_event:.1f} bytes", limit, kept])
    largest = events[-1]["most_bytes"] / events[-1]["events"]
    kept = "yes" if largest < MOST_BYTES_AN_EVENT else "no"
    what = f"memory of the parent an event, all of it, {events[-1]['events']:,} events in {events[-1]['files']:,} files"
    found.append([what, f"{largest:.1f} bytes", f"< {MOST_BYTES_AN_EVENT} bytes", kept])
    for what, key in (("the parent", "most_bytes"), ("a reader", "reader_bytes")):
        a_file = _slope(files, key, "files")
        if a_file is not None:
            found.append([f"memory of {what}, for each file more", f"{a_file / 1e3:.1f} kB", "", ""])
    slowest = max(record.rows, key=_start_s)
    what = f"start to first batch with the index, {slowest['events']:,} events in {slowest['files']:,} files"
    kept = "yes" if _start_s(slowest) < MOST_START_S else "no"
    found.append([what, f"{_start_s(slowest):.2f} s", f"< {MOST_START_S:g} s", kept])
    for name, rows in zip(_NUMBERS, (events, files)):
        if len(rows) > 1:
            rates = [_rate(row) for row in rows]
            slower = 1 - min(rates) / max(rates)
            kept = "yes" if slower <= MOST_SLOWER else "no"
            what = f"events/s, slowest against fastest number of {name}"
            found.append([what, f"- {100 * slower:.0f} %", f"- {100 * MOST_SLOWER:.0f} %", kept])
    return found
