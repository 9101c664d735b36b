"""Data sets whose rows belong together, and which of these rows make each event."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hepfeed.columns import Column, Extents, parse_key
from hepfeed.schemas.tree import Names, Tree, named

__all__ = [
    "BY_ROW",
    "ById",
    "Dense",
    "EventRows",
    "Finder",
    "Table",
    "Unreadable",
    "first_repeat",
    "numbers",
    "offered_of",
    "said",
]

BY_ROW = ""
"""The space of tables that count events from 0: event e is entry e."""

_MOST_NAMES = 64  # columns of a table that are offered one by one


@dataclass(frozen=True)
class EventRows:
    """The events that a table knows.

    Attributes:
        ids: ``(n, k) int64`` what names each: its number, or several such as run and event.
        extents: Rows of each, n.
    """

    ids: NDArray[np.int64]
    extents: Extents

    @classmethod
    def counted(cls, extents: Extents) -> EventRows:
        """Number the events from 0."""
        return cls(np.arange(len(extents), dtype=np.int64)[:, None], extents)


@dataclass(frozen=True)
class Table(ABC):
    """Data sets with a common row axis.

    Attributes:
        layout: Name of the layout.
        name: Of its extents.
        members: Paths of the data sets.
        noun: What a row is, e.g. ``"hits"``.
        how: What it was recognised by.
        space: What its event numbers count; tables of one space are matched by them.  :data:`BY_ROW`: entries.
        single: Each event has one row, so that its keys are dense.
        lists: It has an entry for every event, also for those without rows.
        picks: Events that it has and the first table lacks are left out; else they are an error.
        id_names: What the numbers of an event are, for errors.
        aside: Data sets that say which rows are whose; they are not offered as keys.
    """

    tells_events: ClassVar[bool] = True
    """Whether its number of events tells that data sets of other lengths do not have a row an event."""
    covers: ClassVar[bool] = False
    """Whether every row belongs to an event, so that another number of rows is a fault."""

    layout: str
    name: str
    members: tuple[str, ...]
    noun: str = "rows"
    how: str = ""
    space: str = BY_ROW
    single: bool = False
    lists: bool = True
    picks: bool = False
    id_names: tuple[str, ...] = ("event",)
    aside: tuple[str, ...] = ()

    @property
    def identity(self) -> tuple[str, str]:
        """Tells it from all others of its file."""
        return self.layout, self.name

    @abstractmethod
    def events(self, tree: Tree) -> EventRows:
        """Read which rows make each event.

        Raises:
            SpecError: The file does not tell.
        """

    def length(self, tree: Tree) -> int:
        """Return the number of events."""
        return len(self.events(tree).ids)

    def names(self, tree: Tree) -> Names:
        """Return the columns that have names beside those of HDF5."""
        return {}

    @property
    def named_as(self) -> tuple[str, ...]:
        """What stands before the dot or the bracket in a key of such a column."""
        return self.members

    def column(self, tree: Tree, key: str) -> Column | None:
        """Return what a key stands for here; None where it is no key of this table.

        Raises:
            SpecError: It is one, and can't be read.
        """
        found = self._named_column(tree, key)
        if found is None:
            found = tree.locate(key)
        return found if found is not None and found.dataset in self.members else None

    def _named_column(self, tree: Tree, key: str) -> Column | None:
        path, fields, items = parse_key(key)
        base = path
        if not fields:
            base = next((base for base in self.named_as if path.startswith(f"{base}.")), "")
            fields = (path[len(base) + 1 :],)
        if items or base not in self.named_as:
            return None
        names = self.names(tree)
        if not all(name in names for name in fields):
            return None
        datasets, held, places = zip(*(names[name] for name in fields))
        if len(set(datasets)) == 1 and all(place is None for place in places):
            return Column(datasets[0], tuple(field for one in held for field in one))
        if len(set(zip(datasets, held))) > 1:
            raise tree.error(
                f"the columns of {key!r} lie in blocks of different types: ask for each as a key of its own", key
            )
        return Column(datasets[0], held[0], str(places[0]) if path != base else listed(list(places)))

    def offered(self, tree: Tree) -> Iterator[str]:
        """Yield the keys that can be asked for, as far as they have numbers."""
        names = self.names(tree)
        if names and len(names) <= _MOST_NAMES:
            base = self.named_as[0]
            yield from (f"{base}.{name}" for name, (path, f, _) in names.items() if numbers(tree, Column(path, f)))
            return
        if names:
            blocks = dict.fromkeys((path, field) for path, field, _ in names.values())
            yield from (".".join((path, *f)) for path, f in blocks if numbers(tree, Column(path, f)))
            return
        for path in self.members:
            yield from offered_of(tree, path)


@dataclass(frozen=True)
class Dense(Table):
    """Data sets with one row an event; ``Dense("", path, (path,))`` is what no layout claims."""

    single: bool = True
    tells_events: ClassVar[bool] = False

    def events(self, tree: Tree) -> EventRows:
        """Count the rows."""
        rows = tree.rows(self.members[0])
        return EventRows.counted(Extents(np.arange(rows, dtype=np.int64), np.ones(rows, np.int64)))


@dataclass(frozen=True, kw_only=True)
class ById(Table):
    """A table with a column that numbers the event of each row.

    Attributes:
        id: That column.
    """

    covers: ClassVar[bool] = True
    id: Column

    def events(self, tree: Tree) -> EventRows:
        """Find the runs of equal numbers.

        Raises:
            SpecError: An event's rows do not lie together.
        """
        runs = tree.runs(self.id)
        extents = Extents.of_counts(runs.count)
        again = first_repeat(runs.values)
        if again is not None:
            remedy = f"sort the rows by {named(self.id)}, or if each row is an example for itself, set layout: dense"
            raise tree.error(
                f"{said(self.id_names, runs.values[again])} comes back in row {extents.start[again]} of "
                f"{self.name!r}, after rows of other events: {remedy}",
                self.members[0],
            )
        return EventRows(runs.values, extents)


@dataclass(frozen=True, kw_only=True)
class Unreadable(Table):
    """Data sets that a schema knows and that can't be fed.

    Attributes:
        reason: What is missing and what to do, a sentence.
    """

    reason: str
    tells_events: ClassVar[bool] = False

    def events(self, tree: Tree) -> EventRows:
        """Raise.

        Raises:
            SpecError: Always.
        """
        raise tree.error(self.reason, self.members[0])

    def offered(self, tree: Tree) -> Iterator[str]:
        """Offer nothing."""
        return iter(())


Finder: TypeAlias = Callable[[Tree], Iterator[Table]]
"""Yields the tables of one layout that a file has."""


def said(names: tuple[str, ...], id: NDArray[np.int64]) -> str:
    """Phrase the number of an event, e.g. ``"Run 7, Event 2"``."""
    return ", ".join(f"{name} {number}" for name, number in zip(names, id.tolist()))


def first_repeat(ids: NDArray[np.int64]) -> int | None:
    """Return the place of the first of ``(n, k)`` ids that was there before; None without repeats."""
    if len(ids) < 2 or (ids.shape[1] == 1 and bool((np.diff(ids[:, 0]) > 0).all())):
        return None
    _, first = np.unique(ids, axis=0, return_index=True)
    if len(first) == len(ids):
        return None
    new = np.zeros(len(ids), bool)
    new[first] = True
    return int(np.flatnonzero(~new)[0])


def listed(numbers: list[int]) -> str:
    """Write places of a row as items of a column: a range where they follow one another."""
    first, last = numbers[0], numbers[-1]
    if numbers == list(range(first, last + 1)):
        return f"{first}:{last + 1}"
    return ";".join(map(str, numbers))


def numbers(tree: Tree, column: Column) -> bool:
    """Whether a column consists of numbers."""
    node = tree[column.dataset]
    dtype = node.item
    for field in column.fields:
        dtype = dtype[field]
    if dtype.subdtype is not None:
        dtype = dtype.subdtype[0]
    return dtype.kind in "biufc" and not dtype.names and bool(node.shape)


def offered_of(tree: Tree, path: str) -> Iterator[str]:
    """Yield the keys of one data set: itself, or its fields."""
    node = tree[path]
    if node.item.names:
        yield from (f"{path}.{name}" for name in node.item.names if numbers(tree, Column(path, (name,))))
    elif numbers(tree, Column(path)):
        yield path
