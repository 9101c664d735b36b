"""Known ways to store events of different lengths, recognised by the names and types of their data sets."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import h5py
import numpy as np
from numpy.typing import NDArray

__all__ = ["Layout", "Nodes", "recognise"]

Nodes: TypeAlias = dict[str, h5py.Dataset]
"""Path within a file -> data set."""

_MOST_IDS = 1 << 20  # rows of a table whose event numbers are looked at
_MOST_RAGGED = 1 << 10  # rows of variable length whose items are counted
_EVENT_COLUMNS = ("event", "event_id", "evt", "event_number", "eventID", "evid", "Event", "group_id")


@dataclass(frozen=True)
class Layout:
    """A known way to store events of different lengths.

    Attributes:
        name: Who writes it so.
        events: Number of events; None where the file does not say.
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


def recognise(nodes: Nodes) -> tuple[Layout, ...]:
    """Find all layouts, the one with most rows first; a data set belongs to the first that claims it."""
    found: list[Layout] = []
    claimed: set[str] = set()
    for recogniser in _RECOGNISERS:
        for layout in recogniser(nodes):
            if claimed.isdisjoint(layout.members):
                found.append(layout)
                claimed.update(layout.members)
    return tuple(sorted(found, key=lambda layout: -layout.rows))


def _ragged(name: str, how: str, events: int, rows: int, noun: str, members: Iterable[str]) -> Layout:
    sentence = f"ragged {noun}: {events:,} events, {rows:,} {noun} ({name}: {how})"
    return Layout(name, events, rows, noun, sentence, tuple(members))


def _fields(node: h5py.Dataset) -> tuple[str, ...]:
    return node.dtype.names or ()


def _below(nodes: Nodes, group: str) -> list[str]:
    return [path for path in nodes if path.startswith(f"{group}/")]


def _sides(path: str) -> tuple[str, str]:
    """Split a path into its group and its name."""
    group, _, name = path.rpartition("/")
    return group, name


def _rows(node: h5py.Dataset) -> int:
    return int(node.shape[0]) if node.shape else 0


def _km3net(nodes: Nodes) -> Iterator[Layout]:
    for path, node in nodes.items():
        group, name = _sides(path)
        if name == "_indices" and {"index", "n_items"} <= set(_fields(node)):
            members = _below(nodes, group)
            rows = max((_rows(nodes[m]) for m in members if m != path), default=0)
            yield _ragged("KM3NeT", f"{path} has index and n_items", _rows(node), rows, _sides(group)[1], members)


def _icetray(nodes: Nodes) -> Iterator[Layout]:
    for path, node in nodes.items():
        group, name = _sides(path)
        table = f"{_sides(group)[0]}/{name}".lstrip("/")
        if _sides(group)[1] == "__I3Index__" and {"start", "stop"} <= set(_fields(node)) and table in nodes:
            how = f"{path} has start and stop"
            yield _ragged("IceTray", how, _rows(node), _rows(nodes[table]), f"rows of {name}", (path, table))


def _lhe(nodes: Nodes) -> Iterator[Layout]:
    for path, node in nodes.items():
        group, _ = _sides(path)
        particles = f"{group}/particles".lstrip("/")
        columns = {_text(column) for column in np.ravel(node.attrs.get("properties", ()))} | set(_fields(node))
        if {"start", "nparticles"} <= columns and particles in nodes and particles != path:
            how = f"{path} has start and nparticles"
            yield _ragged("LHE", how, _rows(node), _rows(nodes[particles]), "particles", (particles,))


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _larcv(nodes: Nodes) -> Iterator[Layout]:
    for path, node in nodes.items():
        group, name = _sides(path)
        voxels = f"{group}/voxels"
        if name == "extents" and f"{group}/voxel_extents" in nodes and voxels in nodes:
            how = f"{group} has extents and voxel_extents"
            yield _ragged("larcv3", how, _rows(node), _rows(nodes[voxels]), "voxels", _below(nodes, group))


def _region_references(nodes: Nodes) -> Iterator[Layout]:
    """Tables of LArPix, whose events point to their hits with HDF5 region references."""
    for path, node in nodes.items():
        columns = [n for n in _fields(node) if h5py.check_ref_dtype(node.dtype[n]) is h5py.RegionReference]
        if not columns or "event" not in _sides(path)[1].lower():
            continue
        group, _ = _sides(path)
        targets = {c: f"{group}/{c.removesuffix('_ref')}s".lstrip("/") for c in columns}
        pointed = [target for target in targets.values() if target in nodes]
        if not pointed:
            continue
        longest = max(pointed, key=lambda target: _rows(nodes[target]))
        column = next(c for c, target in targets.items() if target == longest)
        how = f"{path} has region references {column}"
        yield _ragged("LArPix", how, _rows(node), _rows(nodes[longest]), _sides(longest)[1], (path, *pointed))


def _packets(nodes: Nodes) -> Iterator[Layout]:
    for path, node in nodes.items():
        if {"packet_type", "timestamp", "dataword"} <= set(_fields(node)):
            rows = _rows(node)
            sentence = (
                f"{rows:,} LArPix packets in the order of readout ({path}) without event boundaries: "
                "build events of them first, e.g. by gaps in time"
            )
            yield Layout("LArPix packets", None, rows, "packets", sentence, (path,))


def _offsets(nodes: Nodes) -> Iterator[Layout]:
    for path, node in nodes.items():
        group, name = _sides(path)
        if name != "offsets" or node.dtype.kind not in "iu" or node.ndim != 1 or _rows(node) < 2:
            continue
        rows = int(node[-1])
        members = [p for p in nodes if p != path and _sides(p)[0] == group and _rows(nodes[p]) == rows]
        if members:
            noun = _sides(group)[1] or "rows"
            how = f"{path} begins each event"
            yield _ragged("offsets", how, _rows(node) - 1, rows, noun, (path, *members))


def _sequence_counts(nodes: Nodes) -> Iterator[Layout]:
    for path, node in nodes.items():
        group, name = _sides(path)
        if name == "event_id.seq_cnt" and node.ndim == 2 and node.shape[1] == 2:
            rows = int(node[:, 1].sum())
            yield _ragged("pynuml", f"{path}", _rows(node), rows, f"rows of {_sides(group)[1]}", _below(nodes, group))


def _variable_length(nodes: Nodes) -> Iterator[Layout]:
    for path, node in nodes.items():
        if node.ndim != 1 or h5py.check_vlen_dtype(node.dtype) is None or h5py.check_string_dtype(node.dtype):
            continue
        some = node[:_MOST_RAGGED]
        rows = round(sum(map(len, some)) / max(1, len(some)) * _rows(node))
        noun = _sides(path)[1]
        name = "HDF5 variable length"
        about = "about " if _rows(node) > len(some) else ""
        sentence = f"ragged {noun}: {_rows(node):,} events, {about}{rows:,} items ({name}: {path})"
        yield Layout(name, _rows(node), rows, noun, sentence, (path,))


def _pandas_fixed(nodes: Nodes) -> Iterator[Layout]:
    for path, node in nodes.items():
        group, name = _sides(path)
        if name != "axis0" or f"{group}/axis1" not in nodes or f"{group}/block0_values" not in nodes:
            continue
        columns, rows = _rows(node), _rows(nodes[f"{group}/axis1"])
        ids = _pandas_column(nodes, group)
        how = "pandas, fixed layout: the columns lie in blocks by type"
        head = f"{rows:,} rows of {columns} columns in {group} ({how})"
        if ids is None or len(np.unique(ids)) == len(ids):
            yield Layout("pandas", rows, rows, "rows", head, (path, f"{group}/axis1"))
            continue
        events = len(np.unique(ids))
        sentence = f"ragged rows: {events:,} events, {head}"
        yield Layout("pandas", events, rows, "rows", sentence, tuple(_below(nodes, group)))


def _pandas_column(nodes: Nodes, group: str) -> NDArray[Any] | None:
    """Return the column that numbers events."""
    for items in _below(nodes, group):
        if not items.endswith("_items") or items.replace("_items", "_values") not in nodes:
            continue
        names = [_text(name) for name in nodes[items][...]]
        for place, name in enumerate(names):
            if name in _EVENT_COLUMNS:
                return np.asarray(nodes[items.replace("_items", "_values")][:, place])
    return None


def _pandas_table(nodes: Nodes) -> Iterator[Layout]:
    for path, node in nodes.items():
        if {"index", "values_block_0"} <= set(_fields(node)):
            width = math.prod(node.dtype["values_block_0"].shape)
            sentence = f"{_rows(node):,} rows with a block of {width:,} columns ({path}: pandas, table layout)"
            yield Layout("pandas", _rows(node), _rows(node), "rows", sentence, (path,))


def _row_tables(nodes: Nodes) -> Iterator[Layout]:
    """Tables with several rows an event, and a column with the event's number."""
    for path, node in nodes.items():
        column = next((name for name in _EVENT_COLUMNS if name in _fields(node)), None)
        if column is None or node.ndim != 1 or node.dtype[column].kind not in "iuf":
            continue
        ids = node.fields(column)[:_MOST_IDS]
        events = len(np.unique(ids))
        if events < len(ids):
            about = f", counted in the first {len(ids):,} rows" if len(ids) < _rows(node) else ""
            how = f"column {column!r} of {path} has the event's number{about}"
            yield _ragged("row table", how, events, _rows(node), "rows", (path,))


def _row_arrays(nodes: Nodes) -> Iterator[Layout]:
    """Arrays ``(rows, columns)`` with the event's number in column 0, beside data with one row an event."""
    counts = Counter(_rows(node) for node in nodes.values())
    for path, node in nodes.items():
        if node.ndim != 2 or node.dtype.kind not in "iuf" or not 2 <= node.shape[1] <= 64 or _rows(node) < 2:
            continue
        if not any(1 < count < _rows(node) for count in counts):
            continue
        ids = np.asarray(node[:_MOST_IDS, 0])
        events = int(np.count_nonzero(np.diff(ids))) + 1
        numbers = np.isfinite(ids).all() and (ids == np.round(ids)).all() and (np.diff(ids) >= 0).all()
        if numbers and len(ids) == _rows(node) and 1 < events < len(ids) and counts[events]:
            noun = "hits" if "hit" in path.lower() else "rows"
            how = f"column 0 of {path} has the event's number"
            yield _ragged("row table", how, events, _rows(node), noun, (path,))


_Recogniser: TypeAlias = Callable[[Nodes], Iterator[Layout]]
_RECOGNISERS: tuple[_Recogniser, ...] = (
    _km3net,
    _icetray,
    _lhe,
    _larcv,
    _region_references,
    _packets,
    _offsets,
    _sequence_counts,
    _variable_length,
    _pandas_fixed,
    _pandas_table,
    _row_tables,
    _row_arrays,
)
