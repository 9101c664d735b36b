"""Records side by side: the same rows of several, and their ratios to the first."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hepfeed.bench.drawing import add_head, pages, ratio_axis, row_axes
from hepfeed.bench.measure import Measure
from hepfeed.bench.record import Record
from hepfeed.bench.sheet import Mark, Sheet, three_digits
from hepfeed.bench.views import view_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Comparison", "Line", "comparisons"]

_MARKERS = "osD^vP"


@dataclass(frozen=True)
class Line:
    """What was measured in several records.

    Attributes:
        measures: One for each record; None where it has none.  At least two are there.
    """

    measures: tuple[Measure | None, ...]

    @property
    def any(self) -> Measure:
        """One of them, for what they have in common."""
        return next(measure for measure in self.measures if measure is not None)

    def gain(self, number: int) -> float | None:
        """Return how many times as good a record is as the first one; None where that can't be said."""
        first, this = self.measures[0], self.measures[number]
        return None if first is None or this is None else this.gain(first)

    def mark(self, number: int) -> Mark | None:
        """Return whether a record is better or worse than the first one in every round; None where neither is."""
        first, this, gain = self.measures[0], self.measures[number], self.gain(number)
        if first is None or this is None or gain is None or this.better == "unknown" or not this.clearly_differs(first):
            return None
        return "better" if gain > 1 else "worse"


@dataclass(frozen=True)
class Comparison:
    """Records of one kind that have rows in common.

    Attributes:
        kind: Of the records.
        names: Of the records; the first is what the others are compared with.
        lines: What two of them have at least.
        alone: How many measures one record only has.
        equal: Quantities that are the same in all rows, and are left out of the lines.
    """

    kind: str
    names: tuple[str, ...]
    lines: tuple[Line, ...]
    alone: int
    equal: tuple[str, ...]

    def sheets(self) -> list[Sheet]:
        """Return a table of the mean ratios, and one of all values for each quantity."""
        return [self._means(), *(self._values(lines) for lines in self._by_quantity())]

    def figures(self) -> list[Figure]:
        """Draw the ratios to the first record: a figure for each quantity, or several where rows are many."""
        return [self._figure(page) for lines in self._by_quantity() for page in self._pages(lines)]

    def _by_quantity(self) -> Iterator[list[Line]]:
        for quantity, unit in dict.fromkeys((line.any.quantity, line.any.unit) for line in self.lines):
            yield [line for line in self.lines if (line.any.quantity, line.any.unit) == (quantity, unit)]

    def _means(self) -> Sheet:
        rows = []
        for lines in self._by_quantity():
            for side in dict.fromkeys(line.any.side for line in lines):
                for number, name in enumerate(self.names[1:], 1):
                    gains = [line.gain(number) for line in lines if line.any.side == side]
                    known = [gain for gain in gains if gain is not None]
                    if known:
                        figures = (statistics.geometric_mean(known), min(known), max(known))
                        head = [_quantity(lines[0].any), side, name, f"{len(known):,}"]
                        rows.append([*head, *map(three_digits, figures)])
        columns = ["what", "side", "file", "rows", "ratio", "lowest", "highest"]
        caption = (
            "Ratio: the geometric mean over the rows. Where it is known which values are better, ratios above 1 are "
            f"better than {self.names[0]}."
        )
        title = f"Ratios to {self.names[0]}"
        return _without_empty(Sheet(title, columns, rows, frozenset({"what", "side", "file"}), caption))

    def _values(self, lines: Sequence[Line]) -> Sheet:
        others = range(1, len(self.names))
        rows = []
        marks: dict[tuple[int, int], Mark] = {}
        for place, line in enumerate(lines):
            cells = [line.any.row, line.any.side]
            cells += ["" if m is None else three_digits(m.middle) for m in line.measures]
            for number in others:
                gain, mark = line.gain(number), line.mark(number)
                if mark is not None:
                    marks[place, len(cells)] = mark
                cells.append("" if gain is None else f"{three_digits(gain)} x")
            rows.append(cells)
        ratios = [f"ratio, {self.names[number]}" for number in others] if len(self.names) > 2 else ["ratio"]
        columns = ["row", "side", *self.names, *ratios]
        caption = (
            "Medians of the rounds." if any(len(m.values) > 1 for line in lines for m in line.measures if m) else ""
        )
        if marks:
            caption += f" Marked: every round is better, or worse, than every round of {self.names[0]}."
        sheet = Sheet(_quantity(lines[0].any), columns, rows, frozenset({"row", "side"}), caption.strip(), marks)
        return _without_empty(sheet)

    def _pages(self, lines: Sequence[Line]) -> Iterator[list[Line]]:
        """Yield the lines of as many rows as a figure can have, without those that have no ratio."""
        drawn = [line for line in lines if any(line.gain(n) is not None for n in range(1, len(self.names)))]
        for names in pages(list(dict.fromkeys(line.any.row for line in drawn))):
            yield [line for line in drawn if line.any.row in names]

    def _figure(self, lines: Sequence[Line]) -> Figure:
        sides = list(dict.fromkeys(line.any.side for line in lines))
        rows = list(dict.fromkeys(line.any.row for line in lines))
        figure, panels = row_axes(rows, len(sides))
        others = range(1, len(self.names))
        gains = [gain for line in lines for number in others if (gain := line.gain(number)) is not None]
        for axes, side in zip(panels, sides, strict=True):
            for number in others:
                found = [(line.gain(number), rows.index(line.any.row)) for line in lines if line.any.side == side]
                points = [(gain, place) for gain, place in found if gain is not None]
                style: dict[str, Any] = {"marker": _MARKERS[(number - 1) % len(_MARKERS)], "color": f"C{number - 1}"}
                axes.plot(*zip(*points), linestyle="", label=self.names[number], **style)
            ratio_axis(axes, gains)
            axes.set_title(side, fontsize="medium")
        sample = lines[0].any
        means = "" if sample.better == "unknown" else ", above 1: better"
        figure.supxlabel(f"ratio to {self.names[0]}{means}", fontsize="medium")
        add_head(figure, _quantity(sample))
        return figure


def comparisons(records: Mapping[str, Record]) -> list[Comparison]:
    """Find records that measured the same.

    Args:
        records: By name; the first of those that have rows in common is what the others are compared with.
    """
    groups: list[dict[str, dict[tuple[str, str, str, str], Measure]]] = []
    for name, record in records.items():
        found = {measure.name: measure for measure in view_of(record).measures(record)}
        for group in groups:
            same_kind = records[next(iter(group))].kind == record.kind
            if same_kind and any(found.keys() & other.keys() for other in group.values()):
                group[name] = found
                break
        else:
            groups.append({name: found})
    return [_comparison(records[next(iter(group))].kind, group) for group in groups if len(group) > 1]


def _comparison(kind: str, group: dict[str, dict[tuple[str, str, str, str], Measure]]) -> Comparison:
    keys = dict.fromkeys(key for found in group.values() for key in found)
    lines = [Line(tuple(found.get(key) for found in group.values())) for key in keys]
    common = [line for line in lines if sum(measure is not None for measure in line.measures) > 1]
    different = {line.any.quantity for line in common if len({m.values for m in line.measures if m is not None}) > 1}
    equal = tuple(dict.fromkeys(line.any.quantity for line in common if line.any.quantity not in different))
    kept = tuple(line for line in common if line.any.quantity in different)
    return Comparison(kind, tuple(group), kept, len(lines) - len(common), equal)


def _quantity(measure: Measure) -> str:
    unit = f", {measure.unit}" if measure.unit else ""
    return f"{measure.quantity}{unit}" + ("" if measure.better == "unknown" else f" ({measure.better} is better)")


def _without_empty(sheet: Sheet) -> Sheet:
    """Leave out the column of sides where there are none."""
    place = list(sheet.columns).index("side")
    if any(row[place] for row in sheet.rows):
        return sheet
    rows = [[cell for number, cell in enumerate(row) if number != place] for row in sheet.rows]
    columns = [column for column in sheet.columns if column != "side"]
    marks = {(row, column - (column > place)): mark for (row, column), mark in sheet.marks.items()}
    return replace(sheet, columns=columns, rows=rows, left=sheet.left - {"side"}, marks=marks)
