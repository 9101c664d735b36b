"""How results of ``hepfeed bench gpu --sweep`` are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hepfeed.bench.drawing import add_head, row_axes
from hepfeed.bench.measure import Measure
from hepfeed.bench.record import Record
from hepfeed.bench.sheet import Mark, Sheet, three_digits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figures", "measures", "sheets"]


def sheets(record: Record) -> list[Sheet]:
    """Return the settings, the fastest first, with the one to choose marked."""
    columns = ["readers", "batch", "prefetch", "cache", "events/s", "of replay", "data wait", ""]
    rows: list[list[str]] = []
    marks: dict[tuple[int, int], Mark] = {}
    for number, row in enumerate(record.rows):
        setting = row["setting"]
        speed, part, wait = (float(np.median(row[name])) for name in ("events_per_s", "of_replay", "wait"))
        numbers = [str(setting[name]) for name in ("num_workers", "batch_size", "prefetch_factor")]
        figures = [three_digits(speed), f"{100 * part:.1f} %", f"{100 * wait:.2f} %"]
        rows.append([*numbers, _cache(setting), *figures, "best" if row["best"] else ""])
        if row["best"]:
            marks.update({(number, column): "best" for column in range(len(columns))})
    caption = (
        "Medians of the rounds. Best: of those within 3 % of the fastest, the one with the fewest readers, then the"
    )
    caption += " least memory."
    return [Sheet(record.title, columns, rows, frozenset({"cache", ""}), caption, marks)]


def figures(record: Record) -> list[Figure]:
    """Draw the speed of each setting, and what part of the replay's it is."""
    from matplotlib.ticker import StrMethodFormatter

    figure, (speed, part) = row_axes([_name(row["setting"]) for row in record.rows], panels=2)
    for axes, key, factor in ((speed, "events_per_s", 1.0), (part, "of_replay", 100.0)):
        for place, row in enumerate(record.rows):
            values = factor * np.array(row[key])
            axes.hlines(place, values.min(), values.max(), color="C0", linewidth=1.5)
            axes.plot(
                np.median(values), place, "o" if row["best"] else "x", color="C0", markersize=8 if row["best"] else 6
            )
        axes.set_xlim(0, 1.05 * max(factor * max(row[key]) for row in record.rows))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        axes.grid(axis="x", alpha=0.3)
    speed.set_xlabel("events/s")
    part.set_xlabel("speed / % of the replay")
    add_head(figure, f"{record.title} (o: the best; lines: slowest to fastest round)")
    return [figure]


def measures(record: Record) -> list[Measure]:
    """Return the speed of each setting."""
    return [
        Measure(_name(row["setting"]), "hepfeed", "speed", "events/s", "higher", tuple(row["events_per_s"]))
        for row in record.rows
    ]


def _cache(setting: dict[str, Any]) -> str:
    return "none" if setting["cache"] is None else str(setting["cache"])


def _name(setting: dict[str, Any]) -> str:
    readers = setting["num_workers"]
    return (
        f"{readers} reader{'' if readers == 1 else 's'}, batch {setting['batch_size']},"
        f" prefetch {setting['prefetch_factor']}, cache {_cache(setting)}"
    )
