"""pandas' HDFStore: frames in the fixed format (blocks of columns of one type) and in the table format.

The events of rows are told by a column such as ``event``, or by the first level of the index such as ``entry``; where
there is none, or none repeats, each row is an event.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from hepfeed.columns import Column
from hepfeed.schemas.event_ids import EVENT_COLUMNS, EVENT_IDS, roles
from hepfeed.schemas.table import ById, Dense, Table
from hepfeed.schemas.tree import Names, Tree, split

__all__ = ["find"]


@dataclass(frozen=True, kw_only=True)
class _Rows(ById):
    """A frame with several rows an event."""

    frame: str

    @property
    def named_as(self) -> tuple[str, ...]:
        """The group of the frame."""
        return (self.frame, *self.members)

    def names(self, tree: Tree) -> Names:
        """Return the columns of the frame."""
        return _names(tree, self.frame)


@dataclass(frozen=True, kw_only=True)
class _Events(Dense):
    """A frame with one row an event."""

    frame: str

    @property
    def named_as(self) -> tuple[str, ...]:
        """The group of the frame."""
        return (self.frame, *self.members)

    def names(self, tree: Tree) -> Names:
        """Return the columns of the frame."""
        return _names(tree, self.frame)


def find(tree: Tree) -> Iterator[Table]:
    """Yield the frames of both formats."""
    frames: dict[str, tuple[tuple[str, ...], str]] = {}
    for path in tree.paths:
        frame, name = split(path)
        if name == "block0_items" and f"{frame}/block0_values" in tree:
            blocks = tuple(f"{frame}/{block}_values" for block in _blocks(tree, frame))
            frames[frame] = blocks, "fixed format, columns lie in blocks by type"
        elif name == "table" and "index" in tree.fields(path) and _values(tree, path):
            frames[frame] = (path,), "table format, columns lie in fields by type"
    found = {frame: next(_ids(tree, frame), None) for frame in frames}
    ids = {frame: column for frame, column in found.items() if column is not None}
    known = roles(tree, {frame: column for frame, (_, column) in ids.items()})
    for frame, (members, how) in frames.items():
        noun = f"rows of {frame}"
        if frame not in known:
            yield _Events("pandas", frame, members, noun, how, aside=_others(tree, frame, members), frame=frame)
            continue
        name, column = ids[frame]
        yield _Rows(
            "pandas",
            frame,
            members,
            noun,
            f"{how}; {name} has the event's number",
            space=EVENT_IDS,
            single=known[frame].single,
            lists=known[frame].lists,
            id_names=(name,),
            id=column,
            aside=_others(tree, frame, members),
            frame=frame,
        )


def _others(tree: Tree, frame: str, members: tuple[str, ...]) -> tuple[str, ...]:
    """Return the data sets of a frame that name its rows and columns, and its pickles."""
    return tuple(path for path in tree.below(frame) if split(path)[0] == frame and path not in members)


def _ids(tree: Tree, frame: str) -> Iterator[tuple[str, Column]]:
    """Yield the columns that may number events."""
    names = _names(tree, frame)
    for name in EVENT_COLUMNS:
        if name in names:
            dataset, field, place = names[name]
            yield name, Column(dataset, field, "" if place is None else str(place))
    labels, level = f"{frame}/axis1_label0", f"{frame}/axis1_level0"
    if labels in tree and level in tree and _text(tree[level].handle.attrs.get("name")) in EVENT_COLUMNS:
        yield _text(tree[level].handle.attrs.get("name")), Column(labels)


def _names(tree: Tree, frame: str) -> Names:
    return tree.once(f"names {frame}", lambda: _read_names(tree, frame))


def _read_names(tree: Tree, frame: str) -> Names:
    table = f"{frame}/table"
    if table in tree:
        return _table_names(tree, table)
    names: Names = {}
    for block in _blocks(tree, frame):
        items, values = tree[f"{frame}/{block}_items"], tree[f"{frame}/{block}_values"]
        if values.ndim == 2 and items.ndim == 1 and items.shape[0] == values.shape[1] and values.dtype.kind in "biufc":
            names.update({_text(name): (f"{frame}/{block}_values", (), n) for n, name in enumerate(items.handle[...])})
    return names


def _blocks(tree: Tree, frame: str) -> list[str]:
    """Return the names of the blocks that are arrays; those of objects are pickles, and are left out."""
    blocks = (split(path)[1].removesuffix("_items") for path in tree.below(frame) if path.endswith("_items"))
    return [
        block for block in blocks if f"{frame}/{block}_values" in tree and not tree[f"{frame}/{block}_values"].variable
    ]


def _values(tree: Tree, path: str) -> list[str]:
    return [field for field in tree.fields(path) if field.startswith("values_block_")]


def _table_names(tree: Tree, path: str) -> Names:
    node = tree[path]
    names: Names = {}
    for field in tree.fields(path):
        if field in _values(tree, path):
            width = int(np.prod(node.dtype[field].shape, dtype=np.int64))
            kind = node.handle.attrs.get(f"{field}_kind")
            found = _strings(kind) if isinstance(kind, bytes) else []
            if len(found) == width:
                names.update({name: (path, (field,), place) for place, name in enumerate(found)})
        elif field != "index" and field not in names:
            names[field] = path, (field,), None
    return names


def _strings(pickled: bytes) -> list[str]:
    """Read the names in a pickled list without unpickling, which could run anything."""
    kinds = ("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "STRING", "BINSTRING", "SHORT_BINSTRING")
    numbers = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1")
    try:
        found = [(code.name, argument) for code, argument, _ in pickletools.genops(pickled)]
    except ValueError:
        return []
    return [str(argument) for name, argument in found if name in kinds or name in numbers]


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
