"""The data sets of one open file, and what schemas read of them: names, lengths, and columns block by block."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from hepfeed.columns import Column, parse_key
from hepfeed.errors import SpecError
from hepfeed.hdf5 import need_codecs

__all__ = ["Names", "Node", "Runs", "Tree", "named", "split"]

Names: TypeAlias = dict[str, tuple[str, tuple[str, ...], int | None]]
"""Column of a table -> data set, field (none or one) and place within the row (None: all of it), for tables whose
columns have names that are not those of HDF5."""

_BLOCK_BYTES = 32 << 20
_Made = TypeVar("_Made")


@dataclass(frozen=True)
class Node:
    """A data set, with what is asked of it again and again.

    Attributes:
        handle: For reading.
        shape: Of the data set.
        dtype: Of its items.
    """

    handle: h5py.Dataset
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def item(self) -> np.dtype[Any]:
        """Type of the numbers or fields: of the arrays where rows are arrays of variable length."""
        base = h5py.check_vlen_dtype(self.dtype)
        return base if isinstance(base, np.dtype) else self.dtype

    @property
    def variable(self) -> bool:
        """Whether rows are arrays of variable length."""
        return self.item is not self.dtype

    @property
    def size(self) -> int:
        """Number of items."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Runs:
    """Runs of equal values of a column.

    Attributes:
        values: ``(runs, k)`` value of each, ``k`` numbers.
        count: ``(runs,) int64`` rows of each.
    """

    values: NDArray[Any]
    count: NDArray[np.int64]


class Tree:
    """The data sets of a file.

    Args:
        file: Open file.
        path: Its path, for errors.

    Attributes:
        paths: Of all data sets, without index groups of PyTables.
        claimed: Of those that a layout was found for.
    """

    def __init__(self, file: h5py.File, path: str) -> None:
        self.file = file
        self.path = path
        self.claimed: set[str] = set()
        self._nodes: dict[str, Node | None] = _nodes(file)
        self.paths = tuple(self._nodes)
        self._known: dict[str, Any] = {}

    def get(self, path: str) -> Node | None:
        """Return a data set, also behind a link; None where there is none."""
        if path not in self._nodes:
            found = self.file.get(path)
            self._nodes[path] = _node(found) if isinstance(found, h5py.Dataset) else None
        return self._nodes[path]

    def __getitem__(self, path: str) -> Node:
        node = self.get(path)
        if node is None:
            raise self.error(f"{path!r} is no data set of {self.path!r}", path)
        return node

    def __contains__(self, path: str) -> bool:
        return self.get(path) is not None

    def __iter__(self) -> Iterator[tuple[str, Node]]:
        """Go through all data sets that lie in the file itself."""
        for path in self.paths:
            node = self.get(path)
            if node is not None:
                yield path, node

    def rows(self, path: str) -> int:
        """Return the length of the first axis, 0 for a single value."""
        shape = self[path].shape
        return shape[0] if shape else 0

    def fields(self, path: str) -> tuple[str, ...]:
        """Return the fields of a compound data set; none for others."""
        node = self.get(path)
        return (node.dtype.names or ()) if node is not None else ()

    def below(self, group: str) -> tuple[str, ...]:
        """Return the data sets in a group and in those below it."""
        return tuple(path for path in self.paths if path.startswith(f"{group}/")) if group else self.paths

    def beside(self, path: str) -> tuple[str, ...]:
        """Return the other data sets of the same group."""
        group = split(path)[0]
        return tuple(other for other in self.paths if other != path and split(other)[0] == group)

    def once(self, name: str, make: Callable[[], _Made]) -> _Made:
        """Return what ``make`` returned for this name the first time."""
        if name not in self._known:
            self._known[name] = make()
        found: _Made = self._known[name]
        return found

    def error(self, message: str, key: str | None = None, event: int | None = None) -> SpecError:
        """Return an error that names the file."""
        return SpecError(message, file=self.path, key=key, event=event)

    def locate(self, key: str) -> Column | None:
        """Return what a key stands for, apart from the names that layouts give; None where the file lacks it.

        The path of a data set comes first, the longest that fits, then a field behind a dot.

        Raises:
            SpecError: The key is not well formed, or a part of a single value.
        """
        return self.once(f"locate {key}", lambda: self._locate(key))

    def _locate(self, key: str) -> Column | None:
        path, fields, items = parse_key(key)
        if path in self:
            found = Column(path, fields, items)
        else:
            dots = [place for place, letter in enumerate(path) if letter == "."]
            heads = [place for place in reversed(dots) if not fields and path[:place] in self]
            if not heads:
                return None
            found = Column(path[: heads[0]], (path[heads[0] + 1 :],), items)
        if not self[found.dataset].shape:
            raise self.error(
                f"key {key!r} of {self.path!r} is a single value without an event axis: "
                "name a data set of shape (events, ...)",
                key,
            )
        names = self[found.dataset].item.names or ()
        return found if set(found.fields) <= set(names) else None

    def _source(self, column: Column) -> Any:
        """Return what is sliced to read the rows that a column needs."""
        handle = self[column.dataset].handle
        need_codecs(self.path, column.dataset, handle)
        return handle.fields(list(column.fields)) if column.fields else handle

    def blocks(self, column: Column) -> Iterator[NDArray[Any]]:
        """Read a column from the first to the last row, some 32 MB of rows at a time."""
        node = self[column.dataset]
        source = self._source(column)
        row_bytes = max(1, node.dtype.itemsize * math.prod(node.shape[1:]))
        step = max(1, _BLOCK_BYTES // row_bytes)
        chunks = node.handle.chunks
        if chunks:
            step = max(step // chunks[0], 1) * chunks[0]
        for start in range(0, node.shape[0], step):
            yield column.apply(source[start : start + step])

    def read(self, column: Column, rows: int | None = None) -> NDArray[Any]:
        """Read a column whole, or its first ``rows``: for tables with a row an event, not for hits."""
        if rows is not None:
            return column.apply(self._source(column)[:rows])
        parts = list(self.blocks(column))
        if not parts:
            dtype, shape = column.form(self[column.dataset].dtype, self[column.dataset].shape[1:])
            return np.empty((0, *shape), dtype)
        return np.concatenate(parts)

    def integers(self, column: Column) -> NDArray[np.int64]:
        """Read a column of whole numbers, which may be stored as floats.

        Returns:
            ``(rows, ...) int64``.

        Raises:
            SpecError: It has other numbers.
        """
        values = self.read(column)
        return self.whole(values, column)

    def whole(self, values: NDArray[Any], column: Column) -> NDArray[np.int64]:
        """Convert whole numbers to int64.

        Raises:
            SpecError: There are others, or they don't fit.
        """
        if values.dtype.kind not in "iuf":
            raise self.error(f"{named(column)} must have whole numbers, not {values.dtype}", column.dataset)
        whole = values.astype(np.int64, copy=False) if values.dtype.kind in "iu" else _rounded(values)
        if whole is None or (values.dtype.kind == "u" and bool((whole < 0).any())):
            raise self.error(f"{named(column)} must have whole numbers below 2^53, and has others", column.dataset)
        return whole

    def runs(self, column: Column) -> Runs:
        """Find the runs of equal values of a column ``(rows,)`` or ``(rows, k)``, block by block.

        Raises:
            SpecError: A value is no whole number.
        """
        return self.once(f"runs {column}", lambda: self._runs(column))

    def _runs(self, column: Column) -> Runs:
        values: list[NDArray[np.int64]] = []
        starts: list[NDArray[np.int64]] = []
        rows, last = 0, None
        for block in self.blocks(column):
            ids = self.whole(block, column).reshape(len(block), -1)
            new = np.ones(len(ids), bool)
            new[1:] = (ids[1:] != ids[:-1]).any(1)
            new[0] = last is None or bool((ids[0] != last).any())
            begin = np.flatnonzero(new)
            values.append(ids[begin])
            starts.append(begin + rows)
            rows, last = rows + len(ids), ids[-1]
        if not values:
            return Runs(np.empty((0, 1), np.int64), np.empty(0, np.int64))
        return Runs(np.concatenate(values), np.diff(np.concatenate([*starts, [rows]])))


def _nodes(file: h5py.File) -> dict[str, Node | None]:
    """Open all data sets of a file, without index groups of PyTables."""
    paths: list[bytes] = []
    h5py.h5o.visit(file.id, paths.append)  # several times faster than visititems
    found: dict[str, Node | None] = {}
    for path in paths:
        if b"/_i_" in b"/" + path:
            continue
        opened = h5py.h5o.open(file.id, path)
        if isinstance(opened, h5py.h5d.DatasetID):
            node = _node(h5py.Dataset(opened))
            if node is not None:
                found[path.decode("utf-8", "surrogateescape")] = node
    return found


def _node(handle: h5py.Dataset) -> Node | None:
    """Return a data set that holds something HDF5 and NumPy both know; None for others."""
    shape = handle.shape
    try:
        dtype = handle.dtype
    except TypeError:  # a type that NumPy has no name for
        return None
    return Node(handle, tuple(int(n) for n in shape), dtype) if shape is not None else None


def split(path: str) -> tuple[str, str]:
    """Split a path into its group and its name."""
    group, _, name = path.rpartition("/")
    return group, name


def named(column: Column) -> str:
    """Phrase a column as a key of it would be written."""
    part = f".{column.fields[0]}" if len(column.fields) == 1 else ""
    if len(column.fields) > 1:
        part = f"[{', '.join(column.fields)}]"
    return repr(f"{column.dataset}{part}{f'[{column.items}]' if column.items else ''}")


def _rounded(values: NDArray[Any]) -> NDArray[np.int64] | None:
    """Convert floats that are whole numbers; None where some are not."""
    if not np.isfinite(values).all() or (np.abs(values) > 2**53).any():
        return None
    whole = values.astype(np.int64)
    return whole if bool((whole == values).all()) else None
