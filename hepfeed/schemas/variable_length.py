"""HDF5 data sets whose rows are arrays of variable length: one event a row.

With shape ``(events, k)`` the k arrays of an event have the same length, and are delivered as its columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from hepfeed.columns import Column, Extents
from hepfeed.schemas.table import EventRows, Table
from hepfeed.schemas.tree import Tree, split

__all__ = ["find"]


@dataclass(frozen=True, kw_only=True)
class _Rows(Table):
    """One data set of variable length.  HDF5 keeps the lengths with the data, so that all is read once."""

    tells_events: ClassVar[bool] = False

    def column(self, tree: Tree, key: str) -> Column | None:
        """Return the column, marked as variable."""
        found = super().column(tree, key)
        return replace(found, variable=True) if found is not None else None

    def events(self, tree: Tree) -> EventRows:
        """Read the lengths.

        Raises:
            SpecError: The arrays of an event differ in length.
        """
        parts = [np.empty(0, np.int64)]
        for block in tree.blocks(Column(self.name)):
            lengths = np.fromiter(map(len, block.reshape(-1)), np.int64, block.size).reshape(len(block), -1)
            uneven = np.flatnonzero((lengths != lengths[:, :1]).any(1))
            if uneven.size:
                event = sum(map(len, parts)) + int(uneven[0])
                raise tree.error(
                    f"the arrays of event {event} of {self.name!r} must have one length to be its columns, and have "
                    f"{', '.join(map(str, lengths[uneven[0]]))}: store each in a data set of its own",
                    self.name,
                    event,
                )
            parts.append(lengths[:, 0])
        return EventRows.counted(Extents.of_counts(np.concatenate(parts)))


def find(tree: Tree) -> Iterator[Table]:
    """Yield each data set of variable length, but text."""
    for path, node in tree:
        if node.variable and node.ndim in (1, 2) and (node.item.names or node.item.kind in "biufc"):
            how = f"{path} has rows of variable length"
            yield _Rows("variable_length", path, (path,), split(path)[1], how)
