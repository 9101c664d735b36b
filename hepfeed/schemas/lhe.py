"""LHE in HDF5: events with ``start`` and ``nparticles`` beside the particles of all of them.

Two forms exist.  In the later one ``events`` and ``particles`` are arrays of float64 whose columns are named in the
attribute ``properties``; in the first one every column is a data set in the group ``event`` or ``particle``
(Hoeche, Prestel and Schulz, Phys. Rev. D 100 (2019) 014024).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from hepfeed.columns import Column, Extents
from hepfeed.schemas.table import Dense, EventRows, Table
from hepfeed.schemas.tree import Names, Tree, split

__all__ = ["find"]


@dataclass(frozen=True, kw_only=True)
class _Particles(Table):
    """The particles of all events.

    Attributes:
        start: First row of each event.
        count: Number of its rows.
    """

    start: Column
    count: Column

    def events(self, tree: Tree) -> EventRows:
        """Read start and count."""
        return EventRows.counted(Extents(tree.integers(self.start), tree.integers(self.count)))

    def names(self, tree: Tree) -> Names:
        """Return the columns that ``properties`` names."""
        return _properties(tree, self.members)


@dataclass(frozen=True, kw_only=True)
class _Events(Dense):
    """The quantities of events."""

    def names(self, tree: Tree) -> Names:
        """Return the columns that ``properties`` names."""
        return _properties(tree, self.members)


def find(tree: Tree) -> Iterator[Table]:
    """Yield the particles and the events."""
    for path, node in tree:
        group, name = split(path)
        particles = f"{group}/particles".lstrip("/")
        places = _properties(tree, (path,))
        if {"start", "nparticles"} <= set(places) and particles in tree and particles != path and node.ndim == 2:
            start, count = (Column(path, (), str(places[column][2])) for column in ("start", "nparticles"))
            how = f"{path} has start and nparticles"
            yield _Particles("lhe", particles, (particles,), "particles", how, start=start, count=count)
            yield _Events("lhe", path, (path,), "events", how)
        elif name == "nparticles" and f"{group}/start" in tree and split(group)[1] == "event":
            below = tree.below(f"{split(group)[0]}/particle".lstrip("/"))
            if below:
                how = f"{group} has start and nparticles"
                start, count = Column(f"{group}/start"), Column(path)
                yield _Particles("lhe", split(below[0])[0], below, "particles", how, start=start, count=count)


def _properties(tree: Tree, paths: tuple[str, ...]) -> Names:
    return tree.once(f"properties {paths}", lambda: _read_properties(tree, paths))


def _read_properties(tree: Tree, paths: tuple[str, ...]) -> Names:
    node = tree[paths[0]]
    if len(paths) > 1 or node.ndim != 2 or "properties" not in node.handle.attrs:
        return {}
    names = [_text(name) for name in np.ravel(node.handle.attrs["properties"])]
    return {name: (paths[0], (), place) for place, name in enumerate(names)} if len(names) == node.shape[1] else {}


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
