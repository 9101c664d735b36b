"""What a file offers: its layouts, and the keys that can be fed together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import h5py

from hepfeed.columns import Column, FileEvents
from hepfeed.errors import HepfeedError
from hepfeed.schemas.resolver import Resolver
from hepfeed.schemas.table import Table, Unreadable, offered_of
from hepfeed.schemas.tree import Tree

__all__ = ["Contents", "Layout", "Offer", "recognise"]


@dataclass(frozen=True)
class Layout:
    """A known way to store events of different lengths, found in a file.

    Attributes:
        name: Of the layout.
        events: Number of events; None where they can't be told apart.
        rows: Rows of all events together.
        noun: What a row is, e.g. ``"hits"``.
        sentence: What was found, and where.
        members: Data sets whose rows are no events.
    """

    name: str
    events: int | None
    rows: int
    noun: str
    sentence: str
    members: tuple[str, ...]


@dataclass(frozen=True)
class Offer:
    """A key that can be fed.

    Attributes:
        dataset: Where it lies.
        shape: Of an event, or of a row where events differ in length.
        dtype: NumPy type.
        jagged: Whether events differ in length.
    """

    dataset: str
    shape: tuple[int, ...]
    dtype: str
    jagged: bool


@dataclass(frozen=True)
class Contents:
    """What a file offers.

    Attributes:
        layouts: Known layouts of events of different lengths, the one with most rows first.
        events: Number of events that can be fed, 0 for none.
        keys: Those that can be fed together.
        layout: Names of the layouts that these need, separated by commas; empty where each row is an event.
        faults: Why other tables can't be fed, one sentence each.
    """

    layouts: tuple[Layout, ...]
    events: int
    keys: dict[str, Offer]
    layout: str
    faults: tuple[str, ...]


@dataclass(frozen=True)
class _Unit:
    """Keys of one table, or of dense data sets of one length."""

    keys: tuple[str, ...]
    items: int
    layout: bool
    evidence: tuple[int, int, int]


def recognise(file: h5py.File, path: str, layout: Mapping[str, Any] | str | None = None) -> Contents:
    """Find out how events are stored in a file, and which keys can be fed.

    Several tables may number different events; the one with most numbers comes first, and others join as far as their
    events are the same.

    Args:
        file: Open file.
        path: Its path, for errors.
        layout: As in a specification; None: to be found out.

    Raises:
        SpecError: The layout that was given does not fit the file.
    """
    tree = Tree(file, path)
    resolver = Resolver(tree, layout)
    layouts: list[Layout] = []
    faults: list[str] = []
    for table in resolver.tables:
        found, fault = _layout(resolver, table)
        layouts += [found] if found is not None else []
        faults += [fault] if fault else []
    units = list(_units(resolver))
    if any(unit.layout for unit in units):  # images say more than tables of hits, and these more than lists of numbers
        units.sort(key=lambda unit: (unit.layout or unit.evidence[1] > 2, unit.items), reverse=True)
    else:
        units.sort(key=lambda unit: unit.evidence, reverse=True)
    kept: list[str] = []
    events: FileEvents | None = None
    for unit in units:
        try:
            found_events = resolver.resolve([*kept, *unit.keys])
        except HepfeedError:
            continue
        if events is None or found_events.events == events.events:
            kept, events = [*kept, *unit.keys], found_events
    layouts.sort(key=lambda layout: -layout.rows)
    if events is None or not events.events:
        return Contents(tuple(layouts), 0, {}, "", tuple(faults))
    order = {path: place for place, path in enumerate(tree.paths)}
    keys = {key: _offer(tree, events.columns[key]) for key in kept}
    if "icetray" not in events.layout.split(", "):  # there the first key chooses the events
        keys = dict(sorted(keys.items(), key=lambda item: order.get(item[1].dataset, 0)))
    return Contents(tuple(layouts), events.events, keys, events.layout, tuple(faults))


def _layout(resolver: Resolver, table: Table) -> tuple[Layout | None, str]:
    """Describe a table whose rows are no events; or say why they can't be told apart."""
    rows = max(map(resolver.tree.rows, table.members))
    if isinstance(table, Unreadable):
        return Layout(table.layout, None, rows, table.noun, table.reason, table.members), table.reason
    if table.single:
        return None, ""
    try:
        extents = resolver.events_of(table).extents
    except HepfeedError as error:
        return Layout(table.layout, None, rows, table.noun, error.message, table.members), error.message
    rows = int(extents.count.sum())
    sentence = f"ragged {table.noun}: {len(extents):,} events, {rows:,} {table.noun} ({table.layout}: {table.how})"
    return Layout(table.layout, len(extents), rows, table.noun, sentence, table.members), ""


def _units(resolver: Resolver) -> Iterator[_Unit]:
    tree = resolver.tree
    for table in resolver.tables:
        keys = tuple(table.offered(tree))
        if keys:
            yield _Unit(keys, sum(_items(tree, path) for path in table.members), not table.single, (0, 0, 0))
    dense: dict[int, list[str]] = defaultdict(list)
    for path in resolver.free:
        if tree[path].shape and not any(part.startswith("_") for part in path.split("/")):
            dense[tree.rows(path)].append(path)
    for rows, paths in dense.items():
        keys = tuple(key for path in paths for key in offered_of(tree, path))
        held = [path for path in paths if any(offered_of(tree, path))]
        if keys and rows:
            axes = max(tree[path].ndim for path in held)
            yield _Unit(keys, sum(_items(tree, path) for path in held), False, (len(held), axes, -rows))


def _items(tree: Tree, path: str) -> int:
    node = tree[path]
    return node.size * len(node.item.names or "1")


def _offer(tree: Tree, column: Column) -> Offer:
    node = tree[column.dataset]
    dtype, shape = column.form(node.item, node.shape[1:])
    return Offer(column.dataset, tuple(shape), str(dtype), column.jagged)
