"""Columns that number events: their usual names, and a look at whether they repeat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hepfeed.columns import Column
from hepfeed.schemas.tree import Tree, split

__all__ = ["EVENT_COLUMNS", "EVENT_IDS", "Role", "repeats", "roles"]

# Not "eventNumber": in ATLAS tables of jets it says where a jet comes from, and the jets are the examples.
EVENT_COLUMNS = ("event", "event_id", "evt_number", "event_number", "evt", "eventID", "evid", "Event", "entry")
EVENT_IDS = "event numbers"
"""The space of tables that are matched by such columns."""

_HEAD_ROWS = 1 << 16


@dataclass(frozen=True)
class Role:
    """What a table with event numbers is.

    Attributes:
        single: It has one row an event.
        lists: It is the table of events, which has them all.
    """

    single: bool = False
    lists: bool = False


def roles(tree: Tree, ids: Mapping[str, Column]) -> dict[str, Role]:
    """Tell tables with several rows an event from the table of events and those with as many rows as it.

    Args:
        tree: The file.
        ids: Name of a table -> its column of event numbers.

    Returns:
        The role of each, by name; empty where no number repeats: then rows are events.
    """
    several = {name for name, column in ids.items() if repeats(tree, column)}
    rows = {name: tree.rows(column.dataset) for name, column in ids.items() if name not in several}
    events = max(rows, key=lambda name: ("event" in split(name)[1].lower(), rows[name]), default=None)
    found = {name: Role(name in rows and rows[name] == rows[events or name], name == events) for name in ids}
    return found if several else {}


def repeats(tree: Tree, column: Column) -> bool:
    """Whether two of the first rows that follow one another have the same whole number."""
    values = tree.read(column, _HEAD_ROWS)
    if values.dtype.kind not in "iuf" or values.ndim != 1 or len(values) < 2:
        return False
    whole = values.dtype.kind in "iu" or bool(np.isfinite(values).all() and (values == np.round(values)).all())
    return whole and bool((values[1:] == values[:-1]).any())
