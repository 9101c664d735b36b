"""A table of text: for the terminal and for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rich.console import Group
from rich.table import Table
from rich.text import Text

__all__ = ["Mark", "Sheet", "three_digits"]

Mark = Literal["best", "better", "worse", "differs"]
"""Of a cell: it is the best of its row; it is better, or worse, than what the row compares it with; the row is
not the same everywhere."""
_STYLES: dict[Mark, str] = {"best": "bold", "better": "green", "worse": "red", "differs": "bold"}


@dataclass(frozen=True)
class Sheet:
    """A table whose cells are said in words.

    Attributes:
        title: Above it.
        columns: Headings.
        rows: Cells, as many as there are columns; what is not known or does not apply is empty.
        left: Headings of columns that are aligned left: names; the others are numbers.
        caption: Below it.
        marks: Cells that stand out, by the numbers of their row and column.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: frozenset[str] = frozenset()
    caption: str = ""
    marks: Mapping[tuple[int, int], Mark] = field(default_factory=dict)

    def __rich__(self) -> Group:
        table = Table(title=Text(self.title), title_justify="left")
        for column in self.columns:
            table.add_column(Text(column), justify="left" if column in self.left else "right")
        for number, row in enumerate(self.rows):
            marks = [self.marks.get((number, column)) for column in range(len(row))]
            styles = ["" if mark is None else _STYLES[mark] for mark in marks]
            table.add_row(*map(Text, row, styles))
        # A caption of the table itself would be as narrow as that.
        return Group(table, *([Text(self.caption, "dim italic")] if self.caption else []))


def three_digits(value: float) -> str:
    """Return a number with three digits, or with all before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
