"""From keys to columns and extents: which events a file has, and which rows of each data set are theirs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfeed.columns import Column, Extents, FileEvents
from hepfeed.schemas import (
    icetray,
    km3net,
    larcv,
    lhe,
    offsets,
    packets,
    pandas,
    pynuml,
    region_reference,
    row_table,
    variable_length,
)
from hepfeed.schemas.explicit import read_explicit
from hepfeed.schemas.match import places, union
from hepfeed.schemas.table import BY_ROW, Dense, EventRows, Finder, Table, Unreadable, first_repeat, said
from hepfeed.schemas.tree import Tree

__all__ = ["FINDERS", "Resolver"]

FINDERS: dict[str, Finder] = {
    "km3net": km3net.find,
    "icetray": icetray.find,
    "lhe": lhe.find,
    "larcv": larcv.find,
    "region_reference": region_reference.find,
    "packets": packets.find,
    "pynuml": pynuml.find,
    "pandas": pandas.find,
    "offsets": offsets.find,
    "variable_length": variable_length.find,
    "row_table": row_table.find,
}
"""Name of a layout -> what finds its tables, the surest first: a data set belongs to the first that claims it."""


@dataclass(frozen=True)
class _Frame:
    """The events of a file.

    Attributes:
        table: That lists them; None where several tables together do.
        ids: ``(events, k)`` their numbers.
    """

    table: Table | None
    ids: NDArray[np.int64]


class Resolver:
    """The layout of one open file.

    Args:
        tree: Its data sets.
        layout: As a specification says it; None: to be found out.

    Attributes:
        tables: What was recognised or said.
    """

    def __init__(self, tree: Tree, layout: Mapping[str, Any] | str | None = None) -> None:
        self.tree = tree
        self.explicit = isinstance(layout, Mapping)
        self.tables = tuple(self._find(layout))
        self._events: dict[tuple[str, str], EventRows] = {}

    def _find(self, layout: Mapping[str, Any] | str | None) -> Iterator[Table]:
        if isinstance(layout, Mapping):
            yield from read_explicit(layout).tables(self.tree)
            return
        claimed = self.tree.claimed
        for name, finder in FINDERS.items():
            if layout not in (None, name):
                continue
            found = [table for table in finder(self.tree) if claimed.isdisjoint(table.members)]
            claimed.update(*((*table.members, *table.aside) for table in found))
            yield from found
            if layout is not None and not found:
                raise self.tree.error(
                    f"{self.tree.path!r} is not of the layout {layout!r}: leave the option layout out to have it "
                    "recognised"
                )

    @property
    def free(self) -> tuple[str, ...]:
        """The data sets that belong to no table."""
        claimed = {path for table in self.tables for path in (*table.members, *table.aside)}
        return tuple(path for path in self.tree.paths if path not in claimed)

    def resolve(self, keys: Sequence[str]) -> FileEvents:
        """Return how keys are read; see :func:`hepfeed.schemas.resolve`."""
        found = {key: place for key in keys if (place := self._place(key)) is not None}
        asked = list({table.identity: table for _, table in found.values()}.values())
        if not asked:
            return FileEvents(0, {})
        frame = self._frame(asked)
        rows = {table.identity: self._rows_of(table, frame) for table in asked}
        if frame.table is not None and frame.table.single and frame.table.picks:
            kept = rows[frame.table.identity].count != 0
            rows = {key: Extents(extents.start[kept], extents.count[kept]) for key, extents in rows.items()}
            frame = _Frame(frame.table, frame.ids[kept])
        columns: dict[str, Column] = {}
        extents: dict[str, Extents] = {}
        for key, (column, table) in found.items():
            columns[key] = self._column(key, column, table, frame, rows[table.identity])
            if columns[key].rows:
                extents[table.name] = rows[table.identity]
        layouts = dict.fromkeys(table.layout for table in asked if table.layout)
        return FileEvents(len(frame.ids), columns, extents, ", ".join(layouts))

    def events_of(self, table: Table) -> EventRows:
        """Return the events of a table, read once."""
        if table.identity not in self._events:
            self._events[table.identity] = table.events(self.tree)
        return self._events[table.identity]

    # ---- keys

    def _place(self, key: str) -> tuple[Column, Table] | None:
        for table in self.tables:
            column = table.column(self.tree, key)
            if column is not None:
                return column, table
        column = self.tree.locate(key)
        if column is None:
            return None
        return column, Dense("", column.dataset, (column.dataset,))

    def _column(self, key: str, column: Column, table: Table, frame: _Frame, extents: Extents) -> Column:
        """Return a column with the name of its extents, or without where row e is event e."""
        if table.single:
            self._need_one_row(key, table, frame, extents)
            whole = self.tree.rows(column.dataset) == len(extents)
            if whole and bool((extents.start == np.arange(len(extents))).all()):
                return column
        self._need_within(column, table, extents)
        return replace(column, rows=table.name, single=table.single)

    def _need_one_row(self, key: str, table: Table, frame: _Frame, extents: Extents) -> None:
        wrong = np.flatnonzero(extents.count != 1)
        if not wrong.size:
            return
        event = int(wrong[0])
        names = frame.table.id_names if frame.table is not None else table.id_names
        has = f"{extents.count[event]} rows" if extents.count[event] else "no row"
        remedy = (
            "name a key of it first, so that only events that it has are fed" if table.picks else "leave the key out"
        )
        raise self.tree.error(
            f"{said(names, frame.ids[event])} has {has} in {table.name!r}, and key {key!r} needs one: {remedy}",
            key,
            event,
        )

    def _need_within(self, column: Column, table: Table, extents: Extents) -> None:
        rows = int(extents.count.sum()) if column.variable else self.tree.rows(column.dataset)
        total = int(self.events_of(table).extents.count.sum())
        if table.covers and total != rows:
            raise self.tree.error(
                f"the events of {table.name!r} have {total:,} rows together, but {column.dataset!r} has {rows:,}: "
                "the file is broken, or its layout is another",
                column.dataset,
            )
        filled = extents.count != 0
        wrong = np.flatnonzero(
            (extents.count < 0) | (filled & ((extents.start < 0) | (extents.start + extents.count > rows)))
        )
        if wrong.size:
            event = int(wrong[0])
            first, last = extents.start[event], extents.start[event] + extents.count[event]
            raise self.tree.error(
                f"{table.name!r} gives event {event} the rows {first} to {last} of {column.dataset!r}, which has "
                f"{rows}: the file is broken, or its layout is another",
                column.dataset,
                event,
            )

    # ---- events

    def _frame(self, asked: list[Table]) -> _Frame:
        """Choose which events there are.

        Raises:
            SpecError: The tables number their events in different ways.
        """
        shaped = [table for table in asked if not _is_free(table)]
        free = [table for table in asked if _is_free(table)]
        if not shaped:
            return self._frame_of_rows(free)
        spaces = list(dict.fromkeys(table.space for table in shaped))
        by_id = [space for space in spaces if space != BY_ROW]
        if len(by_id) > 1 or (by_id and len(spaces) > 1 and not self.explicit):
            one, other = (next(table for table in shaped if table.space == space) for space in spaces[:2])
            raise self.tree.error(
                f"the events of {one.name!r} and {other.name!r} can't be matched, because {one.how} and {other.how}: "
                "say with layout: {rows: ..., events: ...} which columns number them",
                other.name,
            )
        space = by_id[0] if by_id else BY_ROW
        same = [table for table in shaped if table.space == space]
        listing = [table for table in same if table.lists]
        listing += [table for table in self.tables if table.space == space and _lists_all(table)]
        if listing:
            return _Frame(listing[0], self.events_of(listing[0]).ids)
        ids = [self.events_of(table).ids for table in same]
        if free and space == BY_ROW:
            self._no_list(free[0], same[0])
        return _Frame(None, union(ids))

    def _frame_of_rows(self, free: list[Table]) -> _Frame:
        """Take the rows of dense data sets for events, if nothing says that they are none."""
        rows = self.tree.rows(free[0].name)
        for table in free[1:]:
            if self.tree.rows(table.name) != rows:
                lengths = ", ".join(f"{one.name!r} has {self.tree.rows(one.name):,}" for one in free)
                raise self.tree.error(
                    f"the keys of {self.tree.path!r} differ in their number of events: {lengths}; name keys with one "
                    "row for each event",
                    table.name,
                )
        counts = {
            table.length(self.tree): table
            for table in self.tables
            if table.tells_events and not table.single and table.space == BY_ROW and _lists_all(table)
        }
        if len(counts) == 1 and rows not in counts:
            ((events, table),) = counts.items()
            raise self.tree.error(
                f"{free[0].name!r} has {rows:,} rows, but there are {events:,} events ({table.how}), and which rows "
                "belong to each is not known: say it with layout: {rows: ...}, or layout: dense where rows are events",
                free[0].name,
            )
        return _Frame(free[0], self.events_of(free[0]).ids)

    def _rows_of(self, table: Table, frame: _Frame) -> Extents:
        """Return the rows of a table for each event.

        Raises:
            SpecError: Its events can't be matched with these.
        """
        own = self.events_of(table)
        if _is_free(table) and not self.explicit and (frame.table is None or frame.table.space != BY_ROW):
            self._no_list(table, frame.table)
        by_entry = _is_free(table) or (self.explicit and table.space == BY_ROW)
        if len(own.ids) != len(frame.ids) and (by_entry or (table.space == BY_ROW and table.lists)):
            self._no_match(table, len(own.ids), frame)
        if by_entry:
            return own.extents
        if own.ids.shape != frame.ids.shape or not bool((own.ids == frame.ids).all()):
            self._need_once(table, own.ids)
            if frame.table is not None:
                self._need_once(frame.table, frame.ids)
        place = places(frame.ids, own.ids)
        if not table.picks:
            self._need_all(table, own.ids, frame)
        has = place >= 0
        start, count = np.zeros((2, len(place)), np.int64)
        start[has], count[has] = own.extents.start[place[has]], own.extents.count[place[has]]
        return Extents(start, count)

    def _need_once(self, table: Table, ids: NDArray[np.int64]) -> None:
        again = first_repeat(ids)
        if again is not None:
            times = int((ids == ids[again]).all(1).sum())
            raise self.tree.error(
                f"{said(table.id_names, ids[again])} has {times} entries in {table.name!r}, so that tables can't be "
                "matched by it: ask for the keys of one table alone",
                table.name,
            )

    def _need_all(self, table: Table, ids: NDArray[np.int64], frame: _Frame) -> None:
        """Refuse to leave out events of a table that the table of events lacks."""
        missing = np.flatnonzero(places(ids, frame.ids) < 0)
        if missing.size and frame.table is not None:
            raise self.tree.error(
                f"{said(table.id_names, ids[missing[0]])} of {table.name!r} is not among the {len(frame.ids):,} events "
                f"of {frame.table.name!r}: name with layout: {{rows: ..., events: ...}} the table that has all events",
                table.name,
            )

    def _no_match(self, table: Table, events: int, frame: _Frame) -> None:
        other = repr(frame.table.name) if frame.table is not None else "the other keys"
        raise self.tree.error(
            f"{table.name!r} has {events:,} rows or entries, but {other} have {len(frame.ids):,} events: name keys of "
            "the same events, or say with layout: {rows: ...} which rows belong to each",
            table.name,
        )

    def _no_list(self, table: Table, other: Table | None) -> None:
        how = f", as {other.how}" if other is not None else ""
        raise self.tree.error(
            f"the rows of {table.name!r} can't be matched with events that have numbers{how}: name the column with the "
            "event's number in layout: {rows: {...: {id: ...}}, events: {id: ...}}",
            table.name,
        )


def _is_free(table: Table) -> bool:
    """Whether a table is a data set that no layout claims."""
    return isinstance(table, Dense) and not table.layout


def _lists_all(table: Table) -> bool:
    """Whether a table says which events the file has, whatever keys are asked for."""
    return table.lists and not table.picks and not isinstance(table, Unreadable)
