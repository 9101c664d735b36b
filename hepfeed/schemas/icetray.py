"""IceTray (hdfwriter): tables ``X`` with index tables ``__I3Index__/X`` of start and stop rows.

The rows of the index tables of different objects do not align: each has the frames that the object is in.  The events
are the rows of the index table of the first key that is asked for; other tables are matched by run and event.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hepfeed.columns import Column, Extents
from hepfeed.schemas.table import EventRows, Table
from hepfeed.schemas.tree import Tree, split

__all__ = ["find"]

_ID_FIELDS = ("Run", "Event", "SubEvent", "SubEventStream")
_OF_SEVERAL_ROWS = "vector_index"  # a column of tables with several rows a frame


@dataclass(frozen=True, kw_only=True)
class _Indexed(Table):
    """A table with an index of start and stop rows; rows of a frame that lacks the object are padding."""

    def events(self, tree: Tree) -> EventRows:
        """Read the index."""
        start, stop = (tree.integers(Column(self.name, (field,))) for field in ("start", "stop"))
        count = stop - start
        if "exists" in tree.fields(self.name):
            count = np.where(tree.integers(Column(self.name, ("exists",))) != 0, count, 0)
        ids = np.stack([tree.integers(Column(self.name, (name,))) for name in self.id_names], 1)
        return EventRows(ids, Extents(start, count))


def find(tree: Tree) -> Iterator[Table]:
    """Yield the tables that have an index table."""
    for path in tree.paths:
        group, name = split(path)
        table = f"{split(group)[0]}/{name}".lstrip("/")
        fields = tree.fields(path)
        if split(group)[1] != "__I3Index__" or table not in tree:
            continue
        if {"start", "stop", "Run", "Event"} <= set(fields):
            yield _Indexed(
                "icetray",
                path,
                (table,),
                f"rows of {name}",
                f"{path} has start and stop",
                space="icetray",
                single=_OF_SEVERAL_ROWS not in tree.fields(table),
                picks=True,
                aside=(path,),
                id_names=tuple(field for field in _ID_FIELDS if field in fields),
            )
