"""Records of any kind whose rows are plain: a column for each key."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from hepfeed.bench.measure import Measure
from hepfeed.bench.record import Record
from hepfeed.bench.sheet import Sheet, three_digits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figures", "measures", "sheets"]


def sheets(record: Record) -> list[Sheet]:
    """Return one table of all rows; what a row does not have is empty."""
    columns = list(dict.fromkeys(key for row in record.rows for key in row))
    words = frozenset(c for c in columns if any(isinstance(row.get(c), str) for row in record.rows))
    rows = [[_said(row.get(column)) for column in columns] for row in record.rows]
    return [Sheet(record.title, columns, rows, words)]


def figures(record: Record) -> list[Figure]:
    """Draw nothing: what such rows mean is not known here."""
    return []


def measures(record: Record) -> list[Measure]:
    """Return every number that is not needed to tell the rows apart; which are better is not known here.

    Rows are told apart by their words; where those do not suffice, by their first numbers too; rows that are equal even
    then, by counting them.
    """
    columns = list(dict.fromkeys(key for row in record.rows for key in row))
    told = _telling(record, columns)
    numbers = [column for column in columns if column not in told]
    found, seen = [], Counter[str]()
    for row in record.rows:
        name = ", ".join(_cell(column, row[column]) for column in told if row.get(column) is not None)
        seen[name] += 1
        name += f" ({seen[name]})" if seen[name] > 1 else ""
        for column in numbers:
            if _is_number(row.get(column)) and math.isfinite(row[column]):
                found.append(Measure(name, "", column, "", "unknown", (float(row[column]),)))
    return found


def _telling(record: Record, columns: list[str]) -> list[str]:
    """Return the columns that tell rows apart, in the order of the table."""
    numbers = [c for c in columns if all(row.get(c) is None or _is_number(row[c]) for row in record.rows)]
    words = {c for c in columns if c not in numbers}
    for count in range(len(numbers)):
        told = [c for c in columns if c in words or c in numbers[:count]]
        if len({tuple(_said(row.get(c)) for c in told) for row in record.rows}) == len(record.rows):
            return told
    return [c for c in columns if c in words]


def _cell(column: str, value: Any) -> str:
    return value if isinstance(value, str) else f"{column} {_said(value)}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _said(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return three_digits(value)
    return str(value)
