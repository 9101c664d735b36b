"""NuGraph (pynuml, ph5concat): groups of columns with ``event_id.seq_cnt``.

Its rows are (entry of ``event_table``, number of rows), in the order of the rows; events without rows are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from hepfeed.columns import Column, Extents
from hepfeed.schemas.table import Dense, EventRows, Table
from hepfeed.schemas.tree import Tree, split

__all__ = ["find"]

_INDEX = "event_id.seq_cnt"
_EVENTS = "event_table"


@dataclass(frozen=True, kw_only=True)
class _Sequence(Table):
    """A group of columns with one row a hit, particle or deposit."""

    covers: ClassVar[bool] = True

    def events(self, tree: Tree) -> EventRows:
        """Read the counts."""
        index = tree.integers(Column(self.name))
        return EventRows(index[:, :1], Extents.of_counts(index[:, 1]))


def find(tree: Tree) -> Iterator[Table]:
    """Yield the groups with ``event_id.seq_cnt``, and the table of events beside them."""
    index = [path for path, node in tree if split(path)[1] == _INDEX and node.ndim == 2 and node.shape[1] == 2]
    for path in index:
        group = split(path)[0]
        members = _columns(tree, group)
        if members and split(group)[1] != _EVENTS:
            noun, aside = f"rows of {split(group)[1]}", _numbering(tree, group)
            yield _Sequence("pynuml", path, members, noun, path, lists=False, aside=aside)
    if index:
        events = f"{split(split(index[0])[0])[0]}/{_EVENTS}".lstrip("/")
        members = _columns(tree, events)
        if members:
            how = f"{events} has a row an event"
            yield Dense("pynuml", events, members, "events", how, aside=_numbering(tree, events))


def _columns(tree: Tree, group: str) -> tuple[str, ...]:
    """Return the columns of a group, without those that number its rows."""
    return tuple(path for path in tree.below(group) if not split(path)[1].startswith("event_id.seq"))


def _numbering(tree: Tree, group: str) -> tuple[str, ...]:
    return tuple(path for path in tree.below(group) if split(path)[1].startswith("event_id.seq"))
