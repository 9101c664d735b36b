"""How results of ``hepfeed bench kernels`` are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hepfeed.bench.clock import milliseconds
from hepfeed.bench.record import Record
from hepfeed.bench.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figures", "sheets"]


def sheets(record: Record) -> list[Sheet]:
    """Return one table: hepfeed's time beside its bound, and the ratio of each rival."""
    sides = dict.fromkeys(side for row in record.rows for side in row["seconds"])
    rivals = [side for side in sides if side != "hepfeed"]
    rows = []
    for row in record.rows:
        ours = row["seconds"]["hepfeed"]
        middle = float(np.median(ours))
        cells = [row["what"], milliseconds(row["bound"]), milliseconds(middle), f"{100 * row['bound'] / middle:.0f} %"]
        rows.append([*cells, *(_against(row, rival) for rival in rivals)])
    return [Sheet(record.title, ["what", "bound", "hepfeed", "of bound", *rivals], rows, frozenset({"what"}))]


def figures(record: Record) -> list[Figure]:
    """Draw, for each row, the part of the bound that each side reaches."""
    from matplotlib.figure import Figure

    sides = list(dict.fromkeys(side for row in record.rows for side in row["seconds"]))
    figure = Figure(figsize=(9, 1.5 + 0.35 * len(record.rows)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(record.rows))
    for side in sides:
        there = [n for n, row in enumerate(record.rows) if side in row["seconds"]]
        part = [record.rows[n]["bound"] / float(np.median(record.rows[n]["seconds"][side])) for n in there]
        axes.plot(part, places[there], "o" if side == "hepfeed" else "x", label=side)
    axes.axvline(1, color="gray", linestyle=":")
    axes.set_xscale("log")
    axes.set_yticks(places, [row["what"] for row in record.rows])
    axes.invert_yaxis()
    axes.set_xlabel("part of the device's peak")
    axes.set_title(record.title)
    axes.legend()
    return [figure]


def _against(row: dict[str, Any], rival: str) -> str:
    if rival not in row["seconds"]:
        return ""
    theirs = np.array(row["seconds"][rival])
    ratio = float(np.median(theirs / np.array(row["seconds"]["hepfeed"])))
    return f"{milliseconds(float(np.median(theirs)))} ({ratio:.2f} x)"
