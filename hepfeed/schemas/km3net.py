"""KM3NeT (km3pipe): flat columns with ``_indices``, and tables with the event of each row in ``group_id``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hepfeed.columns import Column, Extents
from hepfeed.schemas.table import BY_ROW, ById, EventRows, Table
from hepfeed.schemas.tree import Tree, split

__all__ = ["find"]

_EVENT_TABLES = ("event_info", "group_info")


@dataclass(frozen=True, kw_only=True)
class _Indexed(Table):
    """A group whose ``_indices`` has first row and number of rows of each event."""

    def events(self, tree: Tree) -> EventRows:
        """Read the index."""
        start, count = (tree.integers(Column(self.name, (field,))) for field in ("index", "n_items"))
        return EventRows.counted(Extents(start, count))


def find(tree: Tree) -> Iterator[Table]:
    """Yield groups with ``_indices``, tables with ``group_id``, and the tables with one row an event."""
    inside: set[str] = set()
    indices = [path for path in tree.paths if _is_index(tree, path)]
    for path in indices:
        group = split(path)[0]
        members = _columns(tree, path, group)
        inside.update(members)
        if members:
            noun, how = split(group)[1] or "rows", f"{path} has index and n_items"
            yield _Indexed("km3net", path, members, noun, how, aside=(path,))
    tables = [path for path in tree.paths if "group_id" in tree.fields(path) and path not in inside]
    if not indices and not any(split(path)[1] in _EVENT_TABLES for path in tables):
        return
    for path in tables:
        single = split(path)[1] in _EVENT_TABLES
        yield ById(
            "km3net",
            path,
            (path,),
            f"rows of {split(path)[1]}",
            f"column group_id of {path} has the event's number",
            space=BY_ROW,
            single=single,
            lists=single,
            id_names=("group_id",),
            id=Column(path, ("group_id",)),
        )


def _columns(tree: Tree, index: str, group: str) -> tuple[str, ...]:
    """Return the data sets of a group that have as many rows as its index says, or all where none has."""
    below = tuple(path for path in tree.below(group) if path != index)
    start, count = (tree.integers(Column(index, (field,))) for field in ("index", "n_items"))
    rows = int((start + count)[count > 0].max(initial=0))
    return tuple(path for path in below if tree.rows(path) == rows) or below


def _is_index(tree: Tree, path: str) -> bool:
    return split(path)[1] == "_indices" and {"index", "n_items"} <= set(tree.fields(path))
