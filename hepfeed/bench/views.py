"""How records are shown: as tables and as plots, by their kind."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Protocol, cast

from hepfeed.bench.measure import Measure
from hepfeed.bench.record import Record
from hepfeed.bench.sheet import Sheet
from hepfeed.errors import SpecError, nearest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["KINDS", "View", "view_of"]

KINDS = ("cluster", "feed", "gpu", "kernels", "scale", "sweep", "table")


class View(Protocol):
    """What a module ``hepfeed.bench.<kind>_view`` has."""

    def sheets(self, record: Record) -> list[Sheet]:
        """Return the tables of a record of this kind."""

    def figures(self, record: Record) -> list[Figure]:
        """Draw a record of this kind with matplotlib's present style, without pyplot; none where there is nothing."""

    def measures(self, record: Record) -> list[Measure]:
        """Return what can be compared with another record of this kind; no two of the same name."""


def view_of(record: Record) -> View:
    """Return what shows a record.

    Raises:
        SpecError: The kind is unknown.
    """
    if record.kind not in KINDS:
        raise SpecError(f"there is no benchmark {record.kind!r}: {nearest(record.kind, KINDS)}")
    return cast(View, importlib.import_module(f"hepfeed.bench.{record.kind}_view"))
