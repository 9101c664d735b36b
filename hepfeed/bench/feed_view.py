"""How results of ``hepfeed bench feed`` are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hepfeed.bench.drawing import add_head, log_axis, row_axes
from hepfeed.bench.measure import Measure
from hepfeed.bench.record import Record
from hepfeed.bench.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["figures", "measures", "sheets"]

_FLOOR = "floor"
_MARKERS = "os^Dv<>ph*XPd"
_LEFT = frozenset({"input", "side", "version", "settings", "advised by"})
_STOPPED = "*: epochs were stopped, the rate is of what was delivered until then"


def sheets(record: Record) -> list[Sheet]:
    """Return four tables: rates, what they cost, how well was shuffled, and the settings."""
    timed = [row for row in record.rows if row["rates"]]
    return [_rates(record, timed), _costs(timed), _mixing(timed), _settings(timed)]


def _rates(record: Record, rows: list[dict[str, Any]]) -> Sheet:
    cells = []
    for row in rows:
        rates = row["rates"]
        mark = "*" if row["stopped"] else ""
        spread = f"{np.median(rates):,.0f}{mark} ({min(rates):,.0f} - {max(rates):,.0f})"
        floor = "" if row["side"] == _FLOOR else f"{100 * np.median(row['of_floor']):.3g} %"
        cells.append([row["input_title"], row["title"], spread, _ratio(row), floor])
    columns = ["input", "side", "events/s (lowest - highest)", "hepfeed is faster by", "of the floor"]
    return Sheet(record.title, columns, _grouped(cells), _LEFT, _STOPPED if any(row["stopped"] for row in rows) else "")


def _ratio(row: dict[str, Any]) -> str:
    """Median and range of the ratios of the rounds; of hepfeed's own variants, how much faster the first one is."""
    ratios = row["ratios"]
    if not ratios or row["side"] == _FLOOR:
        return ""
    return f"{np.median(ratios):.2f} x ({min(ratios):.2f} - {max(ratios):.2f})"


def _costs(rows: list[dict[str, Any]]) -> Sheet:
    cells = []
    for row in rows:
        if row["side"] == _FLOOR:
            continue
        prepared = row["prepare_s"] is not None
        cells.append(
            [
                row["input_title"],
                row["title"],
                f"{np.median(row['cpu_s']):,.3g}",
                f"{row['peak_bytes'] / 1e6:,.0f}",
                f"{row['first_batch_s']:.2f}",
                f"{row['prepare_s']:.1f}" if prepared else "",
                f"{row['prepare_bytes'] / 1e6:,.1f}" if prepared else "",
            ]
        )
    columns = [
        "input",
        "side",
        "CPU s for 10^6 events",
        "memory, MB",
        "first batch, s",
        "preparation, s",
        "written, MB",
    ]
    caption = "memory: peak of the process tree, shared pages once; all of a side's processes, torch included"
    return Sheet("What it costs", columns, _grouped(cells), _LEFT, caption)


def _mixing(rows: list[dict[str, Any]]) -> Sheet:
    cells = []
    for row in rows:
        found = row["mixing"]
        if found is None:
            continue
        classes = "" if found["classes_least"] is None else f"{found['classes_least']} - {found['classes_most']}"
        cells.append(
            [
                row["input_title"],
                row["title"],
                f"{row['verified']:,}{'' if row['complete'] else ' (stopped)'}",
                _three(found["class_spread"]),
                classes,
                _three(found["distance"]),
                _percent(found["one_block"]),
                _percent(found["one_block_random"]),
            ]
        )
    columns = ["input", "side", "events verified", "class spread", "events a class", "distance of neighbours"]
    columns += ["pairs from one block", "of a random order"]
    caption = (
        "class spread: of the events of a class in a batch, over that of a random order (0: the same number in each); "
        "distance: of stored neighbours, in delivery (1: random, 0: the stored order)"
    )
    return Sheet("How well it shuffles", columns, _grouped(cells), _LEFT, caption)


def _settings(rows: list[dict[str, Any]]) -> Sheet:
    known = {row["title"]: row for row in rows if row["side"] != _FLOOR}
    cells = [
        [title, row["version"], ", ".join(f"{key}={value}" for key, value in row["settings"].items()), row["advice"]]
        for title, row in known.items()
    ]
    return Sheet("Settings", ["side", "version", "settings", "advised by"], cells, _LEFT)


def _grouped(cells: list[list[str]]) -> list[list[str]]:
    """Say each input once."""
    shown, last = [], ""
    for title, *others in cells:
        shown.append(["" if title == last else title, *others])
        last = title
    return shown


def _three(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def figures(record: Record) -> list[Figure]:
    """Draw the rates of each input, and processor time against rate of all."""
    from matplotlib.figure import Figure

    timed = [row for row in record.rows if row["rates"]]
    colours = _colours(timed)
    drawn = []
    for title in dict.fromkeys(row["input_title"] for row in timed):
        rows = [row for row in timed if row["input_title"] == title]
        figure, (axes,) = row_axes([row["title"] for row in rows])
        _points(axes, rows, colours)
        figure.supxlabel("events/s (points: median; lines: lowest to highest round)", fontsize="medium")
        add_head(figure, title)
        drawn.append(figure)
    costs = [row for row in timed if row["side"] != _FLOOR]
    if costs:
        sides = len({row["side"] for row in costs})
        figure = Figure(figsize=(11, max(5.0, 1.0 + 0.25 * sides)), layout="constrained")
        axes = figure.subplots()
        axes.set_title("Processor time against rate: one point for each input")
        _scatter(axes, costs, colours)
        figure.legend(loc="outside right upper", frameon=False)
        drawn.append(figure)
    return drawn


def measures(record: Record) -> list[Measure]:
    """Return rate, processor time and memory of each side with each input."""
    found = []
    for row in record.rows:
        if not row["rates"]:
            continue
        name, side = row["input_title"], row["title"]
        found.append(Measure(name, side, "rate", "events/s", "higher", tuple(row["rates"])))
        if row["side"] != _FLOOR:
            found.append(Measure(name, side, "processor time of 10^6 events", "s", "lower", tuple(row["cpu_s"])))
            found.append(Measure(name, side, "memory", "MB", "lower", (row["peak_bytes"] / 1e6,)))
    return found


def _colours(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Hepfeed first, so that it has the first colour of the style; the floor is gray."""
    sides = [side for side in dict.fromkeys(row["side"] for row in rows) if side != _FLOOR]
    return {_FLOOR: "gray", **{side: f"C{number % 10}" for number, side in enumerate(sides)}}


def _points(axes: Axes, rows: list[dict[str, Any]], colours: dict[str, str]) -> None:
    for place, row in enumerate(rows):
        rates = row["rates"]
        middle, colour = float(np.median(rates)), colours[row["side"]]
        if row["side"] == _FLOOR:
            axes.axvline(middle, color=colour, linestyle=":")
        axes.hlines(place, min(rates), max(rates), color=colour, linewidth=2)
        axes.plot(middle, place, "D" if row["side"] == _FLOOR else "o", color=colour, markersize=8)
        text = axes.annotate(f"{middle:,.0f}", (max(rates), place), (8, 0), textcoords="offset points", va="center")
        text.set_bbox({"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1})  # over the line of the floor
    every = [rate for row in rows for rate in row["rates"]]
    log_axis(axes.xaxis, min(every) / 1.5, max(every) * 3)
    axes.grid(axis="x", alpha=0.3)


def _scatter(axes: Axes, rows: list[dict[str, Any]], colours: dict[str, str]) -> None:
    rates = [float(np.median(row["rates"])) for row in rows]
    seconds = [float(np.median(row["cpu_s"])) for row in rows]
    for number, side in enumerate(dict.fromkeys(row["side"] for row in rows)):
        own = [place for place, row in enumerate(rows) if row["side"] == side]
        points = [rates[place] for place in own], [seconds[place] for place in own]
        marker = _MARKERS[number % len(_MARKERS)]
        axes.plot(*points, marker, color=colours[side], label=rows[own[0]]["title"], markersize=8, linestyle="none")
    log_axis(axes.xaxis, min(rates) / 1.3, max(rates) * 1.3)
    log_axis(axes.yaxis, min(seconds) / 1.3, max(seconds) * 1.3)
    axes.grid(alpha=0.3)
    axes.set_xlabel("events/s")
    axes.set_ylabel("processor time of a million events / s")
