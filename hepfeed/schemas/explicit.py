"""Layouts that a specification states, instead of leaving them to be found out."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from hepfeed.columns import Column, Extents, parse_key
from hepfeed.errors import HepfeedError, KeyMissingError, SpecError, nearest
from hepfeed.schemas.offsets import Counts, Offsets
from hepfeed.schemas.region_reference import References
from hepfeed.schemas.table import ById, EventRows, Table
from hepfeed.schemas.tree import Tree

__all__ = ["Explicit", "read_explicit"]

_FORMS = (
    "{offsets: KEY}, {count: KEY}, {start: KEY, count: KEY}, {start: KEY, stop: KEY}, {id: KEY} or {references: KEY}"
)


def _read_key(value: Any) -> str:
    if not isinstance(value, str):
        raise SpecError(f"a column of a layout must be a key such as 'hits/_indices.index', not {value!r}")
    parse_key(value)
    return value.strip().strip("/")


def _read_id(value: Any) -> tuple[str, ...]:
    keys = value if isinstance(value, (list, tuple)) else [value]
    if not keys:
        raise SpecError("the id of a layout must be a key or a list of them, and the list is empty")
    return tuple(_read_key(key) for key in keys)


_Key = Annotated[str, BeforeValidator(_read_key)]
_Ids = Annotated[tuple[str, ...], BeforeValidator(_read_id)]


class RowRule(BaseModel):
    """Which rows make an event: exactly one of the forms of the package's docstring.

    Attributes:
        start: First row of each event.
        count: Rows of each event; without ``start`` the events lie one after another.
        stop: Row behind the last of each event.
        offsets: ``(events + 1,)``: the first row of each event and the end of the last.
        id: Number of the event of each row; several columns where it takes several to name an event.
        references: HDF5 region reference of each event.
        single: With ``id``: each event has one row, so that the keys are dense.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    start: _Key | None = None
    count: _Key | None = None
    stop: _Key | None = None
    offsets: _Key | None = None
    id: _Ids | None = None
    references: _Key | None = None
    single: bool = False

    @model_validator(mode="after")
    def _check(self) -> RowRule:
        given = frozenset(self.model_dump(exclude_none=True, exclude={"single"}))
        forms = ({"offsets"}, {"count"}, {"start", "count"}, {"start", "stop"}, {"id"}, {"references"})
        if given not in map(frozenset, forms):
            raise SpecError(
                f"rows of a layout are given by {_FORMS}, not by {' and '.join(sorted(given)) or 'nothing'}"
            )
        if self.single and self.id is None:
            raise SpecError(
                "single: true goes with {id: KEY} alone: other forms say themselves how many rows there are"
            )
        return self

    def index(self, tree: Tree) -> tuple[str, ...]:
        """Return the data sets that say which rows are whose, and are not such rows themselves."""
        keys = (self.start, self.count, self.stop, self.offsets)
        return tuple(dict.fromkeys(_column(tree, key).dataset for key in keys if key is not None))

    def table(self, tree: Tree, pattern: str, members: tuple[str, ...]) -> Table:
        """Return the table of the data sets that a pattern has matched."""
        how, aside = f"layout of {pattern!r}", self.index(tree)
        if self.offsets is not None:
            return Offsets("explicit", pattern, members, how=how, aside=aside, offsets=_column(tree, self.offsets))
        if self.id is not None:
            columns = [_column(tree, key) for key in self.id]
            return ById(
                "explicit",
                pattern,
                members,
                how=how,
                space="id",
                single=self.single,
                lists=False,
                id_names=self.id,
                id=_together(tree, columns),
            )
        if self.references is not None:
            return References("explicit", pattern, members, how=how, references=_column(tree, self.references))
        if self.start is None:
            return Counts(
                "explicit", pattern, members, how=how, aside=aside, counts=_column(tree, cast(str, self.count))
            )
        start, other = _column(tree, self.start), _column(tree, cast(str, self.count or self.stop))
        return _Started(
            "explicit", pattern, members, how=how, aside=aside, start=start, other=other, stops=self.stop is not None
        )


class EventRule(BaseModel):
    """The table of events.

    Attributes:
        id: Number of each event, once each; its data set has one row an event.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: _Ids


class Explicit(BaseModel):
    """A layout in full: what is not named in ``rows`` has a row an event.

    Attributes:
        rows: Data set, group or pattern -> which of its rows make an event; the first that fits counts.
        events: Numbers all events, for matching ``id`` columns; default: all that occur, in their order.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: dict[str, RowRule]
    events: EventRule | None = None

    @model_validator(mode="after")
    def _check(self) -> Explicit:
        if not self.rows:
            raise SpecError("rows of a layout must name a data set or a group: for a row an event say layout: dense")
        if self.events is not None and not any(rule.id for rule in self.rows.values()):
            raise SpecError("events of a layout is for rows that are matched by {id: KEY}, and there are none")
        return self

    def tables(self, tree: Tree) -> Iterator[Table]:
        """Yield the tables that it names in a file.

        Raises:
            SpecError: A pattern fits no data set.
            KeyMissingError: The file lacks a column that is named.
        """
        claimed: set[str] = set()
        if self.events is not None:
            columns = [_column(tree, key) for key in self.events.id]
            path = columns[0].dataset
            claimed.add(path)
            yield ById(
                "explicit",
                path,
                (path,),
                "events",
                f"layout of {path!r}",
                space="id",
                single=True,
                id_names=self.events.id,
                id=_together(tree, columns),
            )
        for pattern, rule in self.rows.items():
            aside = rule.index(tree)
            members = tuple(path for path in tree.paths if _fits(path, pattern) and path not in {*claimed, *aside})
            if not members and pattern.strip("/") in tree:
                members = (pattern.strip("/"),)
            if not members:
                raise tree.error(
                    f"the layout names {pattern!r}, and no data set of {tree.path!r} fits: "
                    f"{nearest(pattern, tree.paths)}"
                )
            claimed.update(members)
            yield rule.table(tree, pattern, members)


@dataclass(frozen=True, kw_only=True)
class _Started(Table):
    """Rows from a start, and either so many or up to a stop.

    Attributes:
        start: First row of each event.
        other: Number of rows, or the row behind the last.
        stops: Whether ``other`` is the latter.
    """

    start: Column
    other: Column
    stops: bool

    def events(self, tree: Tree) -> EventRows:
        """Read both columns."""
        start, other = tree.integers(self.start), tree.integers(self.other)
        if start.shape != other.shape or start.ndim != 1:
            raise tree.error(
                f"the layout's columns {self.start.dataset!r} and {self.other.dataset!r} must both have shape "
                f"(events,), and have {start.shape} and {other.shape}",
                self.start.dataset,
            )
        return EventRows.counted(Extents(start, other - start if self.stops else other))


def read_explicit(layout: Mapping[str, Any]) -> Explicit:
    """Read a layout that is a mapping.

    Raises:
        SpecError: It is not of the grammar; the first fault is told.
    """
    try:
        return Explicit.model_validate(dict(layout))
    except ValidationError as report:
        # A misspelt option is often also a missing one: the misspelling is what to tell.
        fault = min(report.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    cause = fault.get("ctx", {}).get("error")
    if isinstance(cause, HepfeedError):
        raise cause
    place = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "missing":
        raise SpecError(f"the layout lacks {place!r}: it is a name, or {{rows: {{DATA SET: {_FORMS}}}}}")
    if fault["type"] == "extra_forbidden":
        names = ("rows", "events") if len(fault["loc"]) == 1 else tuple(RowRule.model_fields)
        raise SpecError(f"there is no option {place!r} of a layout; {nearest(str(fault['loc'][-1]), names)}")
    raise SpecError(f"option {place!r} of the layout: {fault['msg']}, not {fault['input']!r}")


def _fits(path: str, pattern: str) -> bool:
    pattern = pattern.strip("/")
    return path == pattern or path.startswith(f"{pattern}/") or fnmatch.fnmatchcase(path, pattern)


def _column(tree: Tree, key: str) -> Column:
    found = tree.locate(key)
    if found is None:
        raise KeyMissingError(
            f"the layout names {key!r}, which {tree.path!r} lacks: {nearest(key, tree.paths)}", file=tree.path, key=key
        )
    return found


def _together(tree: Tree, columns: list[Column]) -> Column:
    """Return the column that has several of one table."""
    first = columns[0]
    if len(columns) == 1:
        return first
    if any(other.dataset != first.dataset or len(other.fields) != 1 or other.items for other in columns):
        raise tree.error("several id columns of a layout must be fields of one compound data set", first.dataset)
    return Column(first.dataset, tuple(column.fields[0] for column in columns))
