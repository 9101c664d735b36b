"""Tables whose events point to their rows with HDF5 region references, as LArPix event files do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from hepfeed.columns import Column, Extents
from hepfeed.schemas.table import EventRows, Table
from hepfeed.schemas.tree import Tree, named, split

__all__ = ["References", "find"]


@dataclass(frozen=True, kw_only=True)
class References(Table):
    """Rows that a column of references points to.

    Attributes:
        references: The column.
    """

    references: Column

    def length(self, tree: Tree) -> int:
        """Return the number of references."""
        return tree.rows(self.references.dataset)

    def events(self, tree: Tree) -> EventRows:
        """Read the regions.

        Raises:
            SpecError: A region is not one run of rows, or lies in another data set.
        """
        references = tree.read(self.references)
        start, count = np.zeros((2, len(references)), np.int64)
        file = tree.file.id
        for event, reference in enumerate(references):
            if not isinstance(reference, h5py.RegionReference) or not reference:
                continue
            target = _path(tree, reference)
            region = h5py.h5r.get_region(reference, file)
            rows = region.get_select_npoints()
            if not rows:
                continue
            first, last = (int(bound[0]) for bound in region.get_select_bounds())
            width = int(np.prod(region.shape[1:], dtype=np.int64))
            if target not in self.members or rows != (last - first + 1) * width:
                what = (
                    f"points to {target!r}"
                    if target not in self.members
                    else f"has {rows} of the rows {first} to {last}"
                )
                raise tree.error(
                    f"the region references of {named(self.references)} must each name rows of "
                    f"{self.members[0]!r} that follow one another, and that of event {event} {what}: "
                    "sort the rows by event",
                    self.members[0],
                    event,
                )
            start[event], count[event] = first, last - first + 1
        return EventRows.counted(Extents(start, count))


def find(tree: Tree) -> Iterator[Table]:
    """Yield the data sets that the table of events points to; other tables point to them too, as tracks to hits."""
    for path, node in tree:
        columns = [name for name in tree.fields(path) if _is_region(node.dtype[name])]
        if not columns or node.ndim != 1 or "event" not in split(path)[1].lower():
            continue
        for name in columns:
            target = _target(tree, Column(path, (name,)))
            if target in tree and target != path:
                how = f"{path} has region references {name}"
                yield References(
                    "region_reference",
                    f"{path}.{name}",
                    (target,),
                    split(target)[1],
                    how,
                    references=Column(path, (name,)),
                )


def _is_region(dtype: np.dtype[Any]) -> bool:
    return bool(h5py.check_ref_dtype(dtype) is h5py.RegionReference)


def _target(tree: Tree, column: Column) -> str:
    """Return what the first reference that is not null points to; without any, what the name says."""
    for block in tree.blocks(column):
        for reference in block:
            if isinstance(reference, h5py.RegionReference) and reference:
                return _path(tree, reference)
    group = split(column.dataset)[0]
    return f"{group}/{column.fields[0].removesuffix('_ref')}s".lstrip("/")


def _path(tree: Tree, reference: h5py.RegionReference) -> str:
    name = h5py.h5i.get_name(h5py.h5r.dereference(reference, tree.file.id))
    return name.decode().strip("/") if name else ""
