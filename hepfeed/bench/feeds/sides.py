"""All sides that are known."""

from __future__ import annotations

import importlib

from hepfeed.bench.feeds.side import Side
from hepfeed.errors import SpecError, nearest

__all__ = ["all_sides", "sides_of"]

_MODULES = (
    "hepfeed_sides",
    "torch_sides",
    "gather",
    "ftag",
    "weaver",
    "maps_sides",
    "spdl_sides",
    "grain_sides",
    "litdata_sides",
    "mosaic_sides",
    "webdataset_sides",
)
"""Of this package; each has ``SIDES``.  The libraries themselves are imported where they are opened."""


def all_sides() -> dict[str, Side]:
    """Return the sides by name, in the order of the tables; hepfeed is the first."""
    package = __name__.rpartition(".")[0]
    modules = (importlib.import_module(f"{package}.{name}") for name in _MODULES)
    return {side.name: side for module in modules for side in module.SIDES}


def sides_of(names: list[str]) -> list[Side]:
    """Return sides by their names, hepfeed's first.

    Raises:
        SpecError: There is none of that name.
    """
    known = all_sides()
    for name in names:
        if name not in known:
            raise SpecError(f"there is no side {name!r}: {nearest(name, known, len(known))}")
    return [side for name, side in known.items() if name in names]
