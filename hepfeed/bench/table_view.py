"""Records of any kind whose rows are plain: a column for each key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hepfeed.bench.record import Record
from hepfeed.bench.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figures", "sheets"]


def sheets(record: Record) -> list[Sheet]:
    """Return one table of all rows; what a row does not have is empty."""
    columns = list(dict.fromkeys(key for row in record.rows for key in row))
    words = frozenset(c for c in columns if any(isinstance(row.get(c), str) for row in record.rows))
    rows = [[_said(row.get(column)) for column in columns] for row in record.rows]
    return [Sheet(record.title, columns, rows, words)]


def figures(record: Record) -> list[Figure]:
    """Draw nothing: what such rows mean is not known here."""
    return []


def _said(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)
