"""How results of ``hepfeed bench kernels`` are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hepfeed.bench.clock import milliseconds
from hepfeed.bench.drawing import add_head, pages, row_axes
from hepfeed.bench.measure import Measure
from hepfeed.bench.record import Record
from hepfeed.bench.sheet import Mark, Sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figures", "measures", "sheets"]

_MARKERS = "oxD^vs+P"


def sheets(record: Record) -> list[Sheet]:
    """Return a table for each group of rows: hepfeed's time beside its bound, and the ratio of each rival."""
    return [_sheet(f"{name}; {record.title}" if name else record.title, rows) for name, rows in _groups(record).items()]


def figures(record: Record) -> list[Figure]:
    """Draw, for each row, the part of the bound that each side reaches; one figure for each group, or several."""
    sides = list(dict.fromkeys(["hepfeed", *(side for row in record.rows for side in row["seconds"])]))
    title = record.title.removesuffix(", ms")
    found = []
    for name, rows in _groups(record).items():
        for page in pages([row["what"] for row in rows]):
            some = [row for row in rows if row["what"] in page]
            found.append(_figure(f"{name}; {title}" if name else title, some, sides))
    return found


def measures(record: Record) -> list[Measure]:
    """Return the times of every side."""
    return [
        Measure(row["what"], side, "time", "ms", "lower", tuple(1e3 * second for second in seconds))
        for row in record.rows
        for side, seconds in row["seconds"].items()
    ]


def _groups(record: Record) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in record.rows:
        groups.setdefault(row.get("group", ""), []).append(row)
    return groups


def _sheet(title: str, some: Sequence[dict[str, Any]]) -> Sheet:
    sides = dict.fromkeys(side for row in some for side in row["seconds"])
    rivals = [side for side in sides if side != "hepfeed"]
    columns = ["what", "bound", "hepfeed", "of bound", *rivals]
    rows = []
    marks: dict[tuple[int, int], Mark] = {}
    for number, row in enumerate(some):
        middles = {side: float(np.median(seconds)) for side, seconds in row["seconds"].items()}
        middle = middles["hepfeed"]
        reached = 100 * row["bound"] / middle
        share = f"{reached:.0f} %" if reached >= 10 else f"{reached:.2g} %"
        cells = [row["what"], milliseconds(row["bound"]), milliseconds(middle), share]
        rows.append([*cells, *(_against(row, rival) for rival in rivals)])
        if len(middles) > 1:
            marks[number, columns.index(min(middles, key=middles.__getitem__))] = "best"
    return Sheet(title, columns, rows, frozenset({"what"}), marks=marks)


def _figure(title: str, rows: Sequence[dict[str, Any]], sides: Sequence[str]) -> Figure:
    """Draw some rows; ``sides`` are all of the record, so that each has its mark in all figures."""
    figure, (axes,) = row_axes([row["what"] for row in rows])
    for number, side in enumerate(sides):
        there = [place for place, row in enumerate(rows) if side in row["seconds"]]
        if not there:
            continue
        reached = [rows[place]["bound"] / np.array(rows[place]["seconds"][side]) for place in there]
        style: dict[str, Any] = {"color": f"C{number}", "zorder": 3 if side == "hepfeed" else 2}
        axes.hlines(there, [part.min() for part in reached], [part.max() for part in reached], linewidth=1.5, **style)
        style |= {"marker": _MARKERS[number % len(_MARKERS)], "markersize": 8 if side == "hepfeed" else 6}
        axes.plot([np.median(part) for part in reached], there, linestyle="", label=side, **style)
    axes.axvline(1, color="gray", linestyle=":")
    axes.set_xscale("log")
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlim(right=max(2.0, axes.get_xlim()[1]))
    figure.supxlabel("part of the device's peak (points: median; lines: slowest to fastest round)", fontsize="medium")
    add_head(figure, title)
    return figure


def _against(row: dict[str, Any], rival: str) -> str:
    if rival not in row["seconds"]:
        return ""
    theirs = np.array(row["seconds"][rival])
    ratio = float(np.median(theirs / np.array(row["seconds"]["hepfeed"])))
    return f"{milliseconds(float(np.median(theirs)))} ({ratio:.2f} x)"
