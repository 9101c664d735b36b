"""How results of ``benchmarks/cluster.py`` are shown: what each place of the events costs, by the number of nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hepfeed.bench.drawing import log_axis
from hepfeed.bench.measure import Measure
from hepfeed.bench.record import Record
from hepfeed.bench.sheet import Mark, Sheet, three_digits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figures", "measures", "sheets"]

_MARKERS = "os^D"
_COLUMNS = (
    *("nodes", "events from", "prepare, s", "first epoch, s", "last epoch, s", "device waits", "file system busy"),
    *("all epochs, s", "pays after"),
)


def sheets(record: Record) -> list[Sheet]:
    """Return the table of places by number of nodes, with the best of each marked, and that of the start."""
    cells, marks = [], dict[tuple[int, int], Mark]()
    for number, row in enumerate(record.rows):
        head = [f"{row['nodes']:,}", row["place"]]
        if row["impossible"]:
            cells.append([*head, row["impossible"], *[""] * (len(_COLUMNS) - len(head) - 1)])
            continue
        times = (three_digits(value) for value in (row["prepare_s"], row["first"]["seconds"], row["last"]["seconds"]))
        parts = (f"{100 * row['last'][key]:.0f} %" for key in ("wait", "shared_load"))
        cells.append([*head, *times, *parts, three_digits(row["total_s"]), _epochs(row)])
        if row["total_s"] == _least(record, row["nodes"]):
            marks[number, _COLUMNS.index("all epochs, s")] = "best"
    table = Sheet(record.title, _COLUMNS, cells, frozenset({"events from"}), marks=marks)
    starts = {row["nodes"]: row for row in record.rows}
    keys = ("start_s", "start_with_index_s")
    lines = [[f"{nodes:,}", *(three_digits(row[key]) for key in keys)] for nodes, row in starts.items()]
    files = record.settings["work"]["sources"]["files"]
    title = f"Start: until every node knows {files:,} files, s: simulated"
    return [table, Sheet(title, ["nodes", "without an index", "with one"], lines)]


def measures(record: Record) -> list[Measure]:
    """Return the times of every place that can be; they are simulated."""
    found = []
    for row in record.rows:
        if not row["impossible"]:
            name = f"{row['nodes']:,} nodes, {row['place']}"
            found.append(Measure(name, "", "all epochs", "s", "lower", (row["total_s"],)))
            found.append(Measure(name, "", "last epoch", "s", "lower", (row["last"]["seconds"],)))
    return found


def figures(record: Record) -> list[Figure]:
    """Draw the last epoch, the waiting, the whole run and the start against the number of nodes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 8), layout="constrained")
    (epoch, wait), (total, start) = figure.subplots(2, 2)
    drawn: tuple[tuple[Any, str, Callable[[dict[str, Any]], float]], ...] = (
        (epoch, "last epoch, s", lambda row: row["last"]["seconds"]),
        (wait, "device waits in the last epoch, %", lambda row: 100 * row["last"]["wait"]),
        (total, f"all {record.settings['epochs']} epochs with preparation, s", lambda row: row["total_s"]),
    )
    for number, place in enumerate(dict.fromkeys(row["place"] for row in record.rows)):
        some = [row for row in record.rows if row["place"] == place and not row["impossible"]]
        for axes, _, value in drawn:
            nodes = [row["nodes"] for row in some]
            axes.plot(nodes, [value(row) for row in some], f"{_MARKERS[number % 4]}-", color=f"C{number}", label=place)
    starts = {row["nodes"]: row for row in record.rows}
    start.plot(list(starts), [row["start_s"] for row in starts.values()], "s--", color="C1", label="without an index")
    start.plot(list(starts), [row["start_with_index_s"] for row in starts.values()], "o-", color="C0", label="with one")
    for axes, name in (*((axes, name) for axes, name, _ in drawn), (start, "start, s")):
        log_axis(axes.xaxis)
        axes.set_xlabel("nodes")
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
        if axes is not wait:
            log_axis(axes.yaxis)
    wait.set_ylim(-3, 103)
    epoch.legend(title="events from")
    start.legend()
    figure.suptitle(record.title)
    return [figure]


def _epochs(row: dict[str, Any]) -> str:
    if row["place"] == "sources":
        return ""
    return "never" if row["pays_after"] is None else f"{row['pays_after']} epochs"


def _least(record: Record, nodes: int) -> float:
    return float(min(row["total_s"] for row in record.rows if row["nodes"] == nodes and not row["impossible"]))
