"""larcv3: groups ``Data/<product>_<name>_group`` with tables of extents.

The voxels of sparse tensors have two levels: ``extents{first, n}`` (one row an event) counts rows of
``voxel_extents{first, n, id}`` (one row a projection), which count rows of ``voxels{id, value}``.  A voxel's ``id`` is
its flat number in C order on the grid that ``number_of_voxels`` of ``image_meta`` gives, whose rows are those of
``voxel_extents``.  Keys are ``<group>/coords`` ``(n, D) int32``, ``<group>/value`` and ``<group>/id``, with several
projections ``<group>/<projection>/coords`` and so on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hepfeed.columns import Column, Extents
from hepfeed.schemas.table import EventRows, Table, Unreadable
from hepfeed.schemas.tree import Tree, split

__all__ = ["find"]


@dataclass(frozen=True, kw_only=True)
class _Voxels(Table):
    """The voxels of one projection.

    Attributes:
        group: That has the tables.
        projection: Its number.
        several: Whether the group has others.
    """

    group: str
    projection: int
    several: bool

    def events(self, tree: Tree) -> EventRows:
        """Follow both levels.

        Raises:
            SpecError: An event has the projection twice, or ``extents`` goes beyond ``voxel_extents``.
        """
        outer, entry = _entries(tree, self.group, self.projection)
        first, count = (_field(tree, f"{self.group}/voxel_extents", name) for name in ("first", "n"))
        start, rows = np.zeros((2, len(outer)), np.int64)
        has = entry >= 0
        start[has], rows[has] = first[entry[has]], count[entry[has]]
        return EventRows.counted(Extents(start, rows))

    def column(self, tree: Tree, key: str) -> Column | None:
        """Return ``coords``, ``value`` or ``id``."""
        voxels = f"{self.group}/voxels"
        parts = {"coords": (voxels, "id"), "value": (voxels, "value"), "id": (voxels, "id")}
        key = key.strip("/")
        for prefix in (f"{self.group}/{self.projection}/", *([f"{self.group}/"] if not self.several else [])):
            name = key.removeprefix(prefix)
            if key.startswith(prefix) and name in parts:
                grid = self._grid(tree) if name == "coords" else ()
                return Column(voxels, (parts[name][1],), unravel=grid)
        if self.several and split(key)[0] == self.group and split(key)[1] in parts:
            example = f"{self.group}/{self.projection}/{split(key)[1]}"
            raise tree.error(f"{self.group!r} has several projections: name one, as in {example!r}", key)
        return super().column(tree, key) if not self.several else None

    def offered(self, tree: Tree) -> Iterator[str]:
        """Yield coordinates and values."""
        prefix = f"{self.group}/{self.projection}" if self.several else self.group
        return iter((f"{prefix}/coords", f"{prefix}/value"))

    def _grid(self, tree: Tree) -> tuple[int, ...]:
        """Return the grid that all events have in common.

        Raises:
            SpecError: Events differ, or there are none.
        """
        _, entry = _entries(tree, self.group, self.projection)
        events = np.flatnonzero(entry >= 0)
        meta = f"{self.group}/image_meta"
        if meta not in tree or "number_of_voxels" not in tree.fields(meta) or not events.size:
            raise tree.error(
                f"{meta!r} must give number_of_voxels for projection {self.projection}: ask for 'id'", meta
            )
        grids = tree.integers(Column(meta, ("number_of_voxels",)))[entry[events]]
        other = np.flatnonzero((grids != grids[0]).any(1))
        if other.size:
            raise tree.error(
                f"event {events[other[0]]} of {self.group!r} has a grid of {tuple(grids[other[0]].tolist())} voxels, "
                f"and event {events[0]} one of {tuple(grids[0].tolist())}: one file must have one grid",
                meta,
                int(events[other[0]]),
            )
        return tuple(grids[0].tolist())


@dataclass(frozen=True, kw_only=True)
class _Objects(Table):
    """A product with one level, such as particles.

    Attributes:
        group: That has the tables.
    """

    group: str

    def events(self, tree: Tree) -> EventRows:
        """Read the extents."""
        first, count = (_field(tree, f"{self.group}/extents", name) for name in ("first", "n"))
        return EventRows.counted(Extents(first, count))


def find(tree: Tree) -> Iterator[Table]:
    """Yield the voxels of each projection, objects, and the products of other kinds as what can't be fed."""
    for path in tree.paths:
        group, name = split(path)
        if name != "extents" or {"first", "n"} - set(map(str.lower, tree.fields(path))):
            continue
        others = {split(other)[1]: other for other in tree.beside(path)}
        product = split(group)[1]
        if {"voxel_extents", "voxels"} <= set(others):
            how = f"{group} has extents and voxel_extents"
            numbers = np.unique(_field(tree, others["voxel_extents"], "id")).tolist() or [0]
            for number in numbers:
                yield _Voxels(
                    "larcv",
                    f"{group}/{number}",
                    (others["voxels"],),
                    "voxels",
                    how,
                    aside=tuple(tree.below(group)),
                    group=group,
                    projection=number,
                    several=len(numbers) > 1,
                )
        elif len(others) == 1:
            how = f"{path} has first and n"
            yield _Objects("larcv", path, tuple(others.values()), product, how, aside=(path,), group=group)
        elif any(other.endswith("_extents") for other in others):
            reason = (
                f"{group} is a larcv3 product of several levels ({', '.join(sorted(others))}), and of these only "
                "sparse tensors are read: write it as a sparse tensor"
            )
            yield Unreadable("larcv", path, tuple(tree.below(group)), product, reason, reason=reason)


def _field(tree: Tree, path: str, name: str) -> NDArray[np.int64]:
    """Read a field in whatever case it is written."""
    exact = next((field for field in tree.fields(path) if field.lower() == name), name)
    return tree.integers(Column(path, (exact,)))


def _entries(tree: Tree, group: str, projection: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return, for each event, its number of projections and its row of ``voxel_extents`` for one, or -1."""
    first, n = (_field(tree, f"{group}/extents", name) for name in ("first", "n"))
    ids = _field(tree, f"{group}/voxel_extents", "id")
    if n.size and (
        int(n.min()) < 0 or int(first[n > 0].min(initial=0)) < 0 or int((first + n)[n > 0].max(initial=0)) > len(ids)
    ):
        raise tree.error(f"{group}/extents goes beyond the {len(ids)} rows of voxel_extents: the file is broken", group)
    event = np.repeat(np.arange(len(n), dtype=np.int64), n)
    row = np.arange(int(n.sum()), dtype=np.int64) - np.repeat(np.cumsum(n) - n, n) + np.repeat(first, n)
    mine = ids[row] == projection
    entry = np.full(len(n), -1, np.int64)
    twice = np.flatnonzero(np.bincount(event[mine], minlength=len(n)) > 1)
    if twice.size:
        raise tree.error(f"event {twice[0]} of {group!r} has projection {projection} twice", group, int(twice[0]))
    entry[event[mine]] = row[mine]
    return n, entry
