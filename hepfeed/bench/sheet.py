"""A table of text: for the terminal and for a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

__all__ = ["Sheet"]


@dataclass(frozen=True)
class Sheet:
    """A table whose cells are said in words.

    Attributes:
        title: Above it.
        columns: Headings.
        rows: Cells, as many as there are columns; what is not known or does not apply is empty.
        left: Headings of columns that are aligned left: names; the others are numbers.
        caption: Below it.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: frozenset[str] = frozenset()
    caption: str = ""

    def __rich__(self) -> Table:
        table = Table(
            title=Text(self.title), caption=Text(self.caption) if self.caption else None, title_justify="left"
        )
        for column in self.columns:
            table.add_column(Text(column), justify="left" if column in self.left else "right")
        for row in self.rows:
            table.add_row(*map(Text, row))
        return table
