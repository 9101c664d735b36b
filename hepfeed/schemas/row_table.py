"""Tables with several rows an event, and a column with the event's number, which may have gaps.

Compound tables are recognised by the name of the column, arrays ``(rows, columns)`` by their contents: column 0
rises in whole numbers that repeat, and another array beside has the same numbers, one row each, or has as many rows as
there are numbers while none has as many as the array.  Rows of the same numbers that never repeat are the table of
events.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfeed.columns import Column
from hepfeed.errors import SpecError
from hepfeed.schemas.event_ids import EVENT_COLUMNS, EVENT_IDS, Role, repeats, roles
from hepfeed.schemas.table import ById, Table, first_repeat
from hepfeed.schemas.tree import Tree, split

__all__ = ["find"]

_MOST_COLUMNS = 64
_FEW_ROWS = 16  # enough to tell most arrays of features
_HEAD_ROWS = 1 << 16


def find(tree: Tree) -> Iterator[Table]:
    """Yield compound tables, then arrays."""
    yield from _compound(tree)
    yield from _arrays(tree)


def _compound(tree: Tree) -> Iterator[Table]:
    ids: dict[str, Column] = {}
    for path, node in tree:
        name = next((name for name in EVENT_COLUMNS if name in tree.fields(path)), None)
        if (
            name is not None
            and path not in tree.claimed
            and node.ndim == 1
            and node.dtype[name].kind in "iuf"
            and node.dtype[name].shape == ()
        ):
            ids[path] = Column(path, (name,))
    # Beside images of as many rows, the rows are examples themselves, whatever number they carry.
    images = {tree.rows(path) for path, node in tree if node.ndim > 2 or (node.ndim == 2 and node.dtype.names)}
    ids = {path: column for path, column in ids.items() if tree.rows(path) not in images or not repeats(tree, column)}
    for path, role in roles(tree, ids).items():
        yield _by_id(path, ids[path], role)


def _by_id(path: str, column: Column, role: Role) -> Table:
    name = split(path)[1]
    noun = "hits" if "hit" in name.lower() else f"rows of {name}"
    what = f"column {column.fields[0]!r}" if column.fields else f"column {column.items}"
    return ById(
        "row_table",
        path,
        (path,),
        "events" if role.lists else noun,
        f"{what} of {path} has the event's number",
        space=EVENT_IDS,
        single=role.single,
        lists=role.lists,
        id_names=column.fields or ("event",),
        id=column,
    )


def _arrays(tree: Tree) -> Iterator[Table]:
    columns = {
        path: Column(path, (), "0")
        for path, node in tree
        if path not in tree.claimed
        and node.ndim == 2
        and node.dtype.kind in "iuf"
        and 2 <= node.shape[1] <= _MOST_COLUMNS
        and node.shape[0] > 1
    }
    rising = [path for path, column in columns.items() if _rises(tree.read(column, _FEW_ROWS))]
    heads = {path: tree.read(columns[path], _HEAD_ROWS) for path in rising}
    rows = [path for path, head in heads.items() if _rises(head) and (np.diff(head) == 0).any()]
    unique = [path for path, head in heads.items() if _rises(head) and (np.diff(head) > 0).all()]
    for path in rows:
        try:
            ids = tree.runs(columns[path]).values
        except SpecError:  # further down it is no column of whole numbers
            continue
        if first_repeat(ids) is not None or not 1 < len(ids) < tree.rows(path):
            continue
        events = next((other for other in unique if _has(tree, columns[other], ids)), None)
        if events is not None:
            yield _by_id(path, columns[path], Role())
            yield _by_id(events, columns[events], Role(single=True, lists=True))
        elif _alone_beside(tree, path, len(ids)):
            yield _by_id(path, columns[path], Role())


def _alone_beside(tree: Tree, path: str, events: int) -> bool:
    """Whether numbers with a row an event lie beside an array, and none with as many rows as it, as examples have."""
    others = [node for other, node in tree if other != path and node.shape and node.dtype.kind in "biufV"]
    rows = {node.shape[0] for node in others}
    return events in rows and tree.rows(path) not in rows


def _rises(head: NDArray[Any]) -> bool:
    finite = bool(np.isfinite(head).all())
    return finite and bool((head == np.round(head)).all() and (head[1:] >= head[:-1]).all())


def _has(tree: Tree, column: Column, ids: NDArray[np.int64]) -> bool:
    """Whether a column has all of these numbers, each once."""
    try:
        runs = tree.runs(column)
    except SpecError:
        return False
    return bool((runs.count == 1).all() and np.isin(ids, runs.values).all() and first_repeat(runs.values) is None)
