"""Flat values with offsets ``(events + 1,)`` or counts ``(events,)`` in the same group.

Recognised by name and by contents: ``offsets``, ``X_offsets``, ``row_splits``, ``indptr`` begin with 0, never fall, and
end with the number of rows; ``counts``, ``lengths``, ``n_X``, ``X_counts`` sum to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hepfeed.columns import Column, Extents
from hepfeed.schemas.table import EventRows, Table, Unreadable
from hepfeed.schemas.tree import Tree, split

__all__ = ["Counts", "Offsets", "find"]

_OFFSETS = re.compile(r"(?P<of>.*?)_?(offsets?|row_splits|indptr)", re.IGNORECASE)
_FLAT_NAMES = ("values", "data", "coords", "coordinates", "indices", "features", "c", "v")
_COUNTS = re.compile(r"(?P<of>.*?)_?(counts?|lengths?|multiplicity|n_items|n_rows)|n_?(?P<of2>[a-z]\w*)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Offsets(Table):
    """Rows from ``offsets[e]`` to ``offsets[e + 1]``.

    Attributes:
        offsets: The column, ``(events + 1,)``.
    """

    covers: ClassVar[bool] = True
    offsets: Column

    def events(self, tree: Tree) -> EventRows:
        """Read the offsets.

        Raises:
            SpecError: They fall, or there are none.
        """
        offsets = tree.integers(self.offsets)
        if offsets.ndim != 1 or not len(offsets):
            raise tree.error(
                f"offsets must have shape (events + 1,), and {self.offsets.dataset!r} has {offsets.shape}",
                self.offsets.dataset,
            )
        return EventRows.counted(Extents(offsets[:-1], np.diff(offsets)))


@dataclass(frozen=True, kw_only=True)
class Counts(Table):
    """``counts[e]`` rows, after those of the event before.

    Attributes:
        counts: The column, ``(events,)``.
    """

    covers: ClassVar[bool] = True
    counts: Column

    def events(self, tree: Tree) -> EventRows:
        """Read the counts."""
        return EventRows.counted(Extents.of_counts(tree.integers(self.counts)))


def find(tree: Tree) -> Iterator[Table]:
    """Yield the data sets beside offsets or counts that have as many rows as these say.

    A data set goes with the offsets or counts whose name is nearest to its own.  One that has as many rows as there are
    events, so that both readings are possible, needs a name that tells.
    """
    indices = list(_indices(tree))
    known = {index.path for index in indices}
    owners: dict[str, list[_Index]] = {}
    for index in indices:
        for path in tree.beside(index.path):
            if tree.rows(path) == index.rows and path not in known | tree.claimed and _may_be_of(path, index):
                owners.setdefault(path, []).append(index)
    members: dict[str, list[str]] = {}
    unclear: dict[str, list[str]] = {}
    for path, fitting in owners.items():
        nearest = _nearest(path, fitting)
        if nearest is not None and (nearest.rows != nearest.events or _is_of(path, nearest)):
            members.setdefault(nearest.path, []).append(path)
        elif nearest is None or not nearest.ones:
            unclear.setdefault(fitting[0].path, []).append(path)
    for index in indices:
        noun = split(split(index.path)[0])[1] or index.of or "rows"
        if index.path in members:
            yield index.table(tuple(members[index.path]), noun)
        if index.path in unclear:
            paths = tuple(unclear[index.path])
            reason = (
                f"{paths[0]!r} has {index.rows:,} rows, which may be events or rows by {index.path!r}: "
                f"say it with layout: dense, or layout: {{rows: {{{paths[0]}: {{{index.option}: {index.path}}}}}}}"
            )
            yield Unreadable("offsets", f"{index.path} ?", paths, noun, reason, reason=reason)


@dataclass(frozen=True)
class _Index:
    """Offsets or counts that some data set beside fits.

    Attributes:
        path: Of the data set.
        of: Beginning of its name, which may tell whose rows it counts.
        option: How a layout would name it: ``"offsets"`` or ``"count"``.
        events: How many.
        rows: Of all events.
        ones: Whether each event has one row, so that all readings are the same.
    """

    path: str
    of: str
    option: str
    events: int
    rows: int
    ones: bool

    def table(self, members: tuple[str, ...], noun: str) -> Table:
        """Return the table of its rows."""
        column, aside = Column(self.path), (self.path,)
        if self.option == "offsets":
            how = f"{self.path} begins each event"
            return Offsets("offsets", self.path, members, noun, how, aside=aside, offsets=column)
        how = f"{self.path} counts the rows of each event"
        return Counts("offsets", self.path, members, noun, how, aside=aside, counts=column)


def _indices(tree: Tree) -> Iterator[_Index]:
    for path, node in tree:
        if node.ndim != 1 or node.dtype.kind not in "iu" or not node.shape[0] or path in tree.claimed:
            continue
        name = split(path)[1]
        lengths = {tree.rows(other) for other in tree.beside(path)} - {0}
        found, counted = _OFFSETS.fullmatch(name), _COUNTS.fullmatch(name)
        if found and node.shape[0] > 1 and int(node.handle[-1]) in lengths:
            offsets = tree.integers(Column(path))
            counts = np.diff(offsets)
            if offsets[0] == 0 and counts.min() >= 0:
                yield _Index(path, found["of"], "offsets", len(counts), int(offsets[-1]), bool((counts == 1).all()))
        elif counted and not found and lengths:
            counts = tree.integers(Column(path))
            rows, of = int(counts.sum()), counted["of"] or counted["of2"] or ""
            if rows in lengths and counts.min() >= 0:
                yield _Index(path, of, "count", len(counts), rows, bool((counts == 1).all()))


def _begins(path: str, index: _Index) -> bool:
    """Whether the name of a data set begins as that of an index: ``n_jets`` counts ``jet_pt``."""
    return split(path)[1].lower().startswith(index.of.lower().removesuffix("s"))


def _may_be_of(path: str, index: _Index) -> bool:
    """Whether an index may count a data set: one named for others does not count what has a row an event."""
    return index.rows != index.events or _begins(path, index)


def _is_of(path: str, index: _Index) -> bool:
    """Whether names say that a data set has rows of events, and not a row an event; a count may be a quantity."""
    return split(path)[1].lower() in _FLAT_NAMES or (bool(index.of) and index.option == "offsets")


def _nearest(path: str, fitting: list[_Index]) -> _Index | None:
    """Choose among indices that fit: the one with the longest beginning of the data set's name, or the only one."""
    close = [index for index in fitting if _begins(path, index)]
    best = [index for index in close if len(index.of) == max(len(index.of) for index in close)]
    if close:
        return best[0] if len(best) == 1 else None
    return fitting[0] if len(fitting) == 1 else None
