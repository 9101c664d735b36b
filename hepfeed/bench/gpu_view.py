"""How results of ``hepfeed bench gpu`` are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hepfeed.bench.drawing import add_head, row_axes
from hepfeed.bench.measure import Measure
from hepfeed.bench.record import Record
from hepfeed.bench.sheet import Sheet, three_digits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figures", "measures", "sheets"]

Row = dict[str, Any]

_STAGES = ("read", "inflate", "scatter", "transform")
_PANEL_IN = 1.6


def sheets(record: Record) -> list[Sheet]:
    """Return a table of the sides, and one of what hepfeed's readers did."""
    columns = [
        "side",
        "events/s",
        "of replay",
        "utilisation",
        "data wait",
        "median step",
        "95 % of steps",
        "J an epoch",
        "steps",
    ]
    sides = Sheet(
        record.title,
        columns,
        [_cells(row) for row in record.rows],
        frozenset({"side"}),
        caption="Medians of the rounds (lowest - highest). Data wait: part of the time of all steps; of the median"
        " step, and what 95 % of the steps stay below.",
    )
    return [sides, *(_stall_report(row) for row in record.rows if row["side"] == "hepfeed" and row["stats"])]


def figures(record: Record) -> list[Figure]:
    """Draw what each side reaches, and how long each of its steps waits for data."""
    rows = [row for row in record.rows if row["events_per_s"]]
    return [_reached(record, rows), _waits(record, rows)] if rows else []


def measures(record: Record) -> list[Measure]:
    """Return speed, part of the replay's speed and energy of each side."""
    found = []
    for row in record.rows:
        if not row["events_per_s"]:
            continue
        side = row["side"]
        found.append(Measure("training", side, "speed", "events/s", "higher", tuple(row["events_per_s"])))
        found.append(Measure("training", side, "part of the replay", "", "higher", tuple(row["of_replay"])))
        if row["energy_j"]:
            found.append(Measure("training", side, "energy of an epoch", "J", "lower", tuple(row["energy_j"])))
    return found


def _cells(row: Row) -> list[str]:
    if row["absent"]:
        return [row["side"], "absent", *[""] * 7]
    used, wait = row["utilisation"] or row["busy"], row["wait"]
    return [
        row["side"],
        _spread(row["events_per_s"]),
        _spread(row["of_replay"], " %", 100),
        f"{100 * float(np.median(used)):.1f} %" + ("" if row["utilisation"] else " busy"),
        *(f"{100 * wait[name]:.2f} %" for name in ("mean", "median", "p95")),
        three_digits(float(np.median(row["energy_j"]))) if row["energy_j"] else "",
        f"{sum(row['steps']):,}",
    ]


def _spread(values: Sequence[float], unit: str = "", factor: float = 1.0) -> str:
    low, middle, high = (three_digits(factor * float(f(values))) for f in (np.min, np.median, np.max))
    return f"{middle}{unit}" if len(values) == 1 else f"{middle}{unit} ({low} - {high})"


def _stall_report(row: Row) -> Sheet:
    stats = row["stats"]
    parts = stats["busy_by_stage"]
    rows = [[stage, f"{stats[stage]:.3f}", f"{100 * parts[stage]:.1f} %"] for stage in _STAGES]
    rows.append(["without work", f"{stats['waiting']:.3f}", f"{100 * (1 - stats['busy']):.1f} %"])
    columns = ["readers' time", "seconds", "part"]
    caption = (
        f"{stats['advice']}\nThe loop waited {100 * stats['wait_fraction']:.1f} % of its time for batches. The data"
        " wait of the device has in it also the copies to it, and what else the loop does between two steps."
    )
    return Sheet("hepfeed's own report", columns, rows, frozenset(columns[:1]), caption)


def _reached(record: Record, rows: list[Row]) -> Figure:
    """Bars of the part of the replay's speed, and of the utilisation."""
    figure, (speed, use) = row_axes([row["side"] for row in rows], panels=2)
    for axes, values in ((speed, [r["of_replay"] for r in rows]), (use, [r["utilisation"] or r["busy"] for r in rows])):
        for place, some in enumerate(values):
            middle = 100 * float(np.median(some))
            axes.barh(place, middle, height=0.6, color=_colour(rows[place]))
            axes.hlines(place, 100 * min(some), 100 * max(some), color="black", linewidth=1.5)
            axes.annotate(
                f"{middle:.3g}", (max(middle, 100 * max(some)), place), (4, 0), va="center", textcoords="offset points"
            )
        axes.set_xlim(0, 118)
        axes.set_xticks(range(0, 101, 25))
        axes.grid(axis="x", alpha=0.3)
    speed.set_xlabel("speed / %\nof the replay")
    by_nvml = any(row["utilisation"] for row in rows)
    use.set_xlabel("utilisation / %\n" + ("by NVML" if by_nvml else "time that the device is busy"))
    add_head(figure, record.title)
    return figure


def _waits(record: Record, rows: list[Row]) -> Figure:
    """The data wait of each step, side by side with the time that the device is busy."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    figure = Figure(figsize=(9, 1.4 + _PANEL_IN * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), 1, squeeze=False, sharey=True)[:, 0]
    lines = [row["timeline"] for row in rows]
    busy = float(np.median(np.concatenate([line["busy_ms"] for line in lines])))
    top = max(max((*line["wait_ms"], busy)) for line in lines)
    for row, line, axes in zip(rows, lines, panels):
        steps = np.arange(len(line["wait_ms"]))
        axes.axhline(busy, color="gray", linestyle=":", label="computing, median")
        axes.vlines(steps, 0, line["wait_ms"], color=_colour(row), linewidth=1.5)
        axes.plot(steps, line["wait_ms"], ".", color=_colour(row), markersize=3)
        axes.set_yscale("symlog", linthresh=10.0 ** np.floor(np.log10(max(busy / 10, 1e-3))))
        axes.set_ylim(0, 1.5 * top)
        axes.set_xlim(-0.5, max(len(steps) - 0.5, 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        axes.set_title(row["side"], loc="left", fontsize="medium")
        axes.grid(axis="y", alpha=0.3)
    panels[-1].set_xlabel("step of the last round")
    figure.supylabel("data wait / ms", fontsize="medium")
    add_head(figure, record.title)
    return figure


def _colour(row: Row) -> str:
    """Return the colour of a side, the same in all figures."""
    return {"hepfeed": "C0", "hepfeed, first epoch": "C9", "torch DataLoader": "C1"}.get(row["side"], "C7")
