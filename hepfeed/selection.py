"""Filters applied to files: in parallel, over only the keys that they need, and kept with the index."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import cloudpickle
import h5py
import numpy as np
from numpy.typing import NDArray

from hepfeed import hdf5
from hepfeed.columns import Column
from hepfeed.errors import FilterError, HepfeedError, KeyMissingError, SpecError, nearest
from hepfeed.filters import Filter
from hepfeed.hdf5 import FileInfo
from hepfeed.progress import Progress
from hepfeed.store import IndexStore
from hepfeed.worker import call_everywhere

__all__ = ["read_column", "select"]

_BLOCK_BYTES = 64 << 20  # columns are read so many bytes at a time: a filter may look at images


def _node(file: h5py.File, info: FileInfo, key: str) -> tuple[h5py.Dataset, Column]:
    column = info.columns.get(key)
    if column is None:
        raise KeyMissingError(
            f"the filter needs key {key!r}, which {info.path!r} does not have: {nearest(key, hdf5.keys_of(file))}",
            file=info.path,
            key=key,
        )
    if column.jagged:
        raise SpecError(
            f"key {key!r} of {info.path!r} has several rows an event: filters, splits and weights need one value for"
            " each event",
            file=info.path,
            key=key,
        )
    node = file[column.dataset]
    hdf5.need_codecs(info.path, key, node)
    return node, column


def _values(info: FileInfo, key: str, node: h5py.Dataset, column: Column, first: int, last: int) -> NDArray[Any]:
    """Read a key of the events ``first .. last - 1``."""
    view = node.fields(list(column.fields)) if column.fields else node
    if not column.rows:
        return column.apply(np.asarray(view[first:last]))
    rows = info.extents[column.rows].start[first:last]
    if not len(rows):
        return column.apply(np.asarray(view[0:0]))
    low, high = int(rows.min()), int(rows.max()) + 1
    return column.apply(np.asarray(view[low:high])[rows - low])


def read_column(info: FileInfo, key: str, single: bool = True) -> NDArray[Any]:
    """Read one value an event, ``(events,)``, where axes of length 1 are dropped; or all of its values.

    Args:
        info: The file.
        key: As it is named there.
        single: False: return ``(events, ...)`` as stored, for an expression that takes items of it.

    Raises:
        KeyMissingError: The file lacks the key.
        SpecError: It has more than one value an event, or another number of events.
    """
    with hdf5.open_file(info.path) as file:
        node, column = _node(file, info, key)
        values = _values(info, key, node, column, 0, len(info.extents[column.rows]) if column.rows else len(node))
    if not single and len(values) == info.events:
        return values
    if values.size != info.events or len(values) != info.events:
        raise SpecError(
            f"key {key!r} of {info.path!r} has shape {values.shape}; one value for each of {info.events} events was"
            " expected",
            file=info.path,
            key=key,
        )
    return values.reshape(info.events)


def apply(info: FileInfo, keys: Mapping[str, str], pickled: bytes, skip_nan: bool) -> tuple[bytes, int]:
    """Evaluate a filter on one file.

    Args:
        info: The file, with the columns of all keys.
        keys: Name in the filter -> key in the file.
        pickled: The filter, by cloudpickle.
        skip_nan: Leave out events with NaN in a key, instead of raising.

    Returns:
        The mask ``(events,)`` as packed bits, and how many events were left out for NaN.

    Raises:
        FilterError: NaN in a key, or a key of another length or shape.
        KeyMissingError: The file lacks a key.
        SpecError: A key has several rows an event.
    """
    condition: Filter = pickle.loads(pickled)
    events, path = info.events, info.path
    mask = np.empty(events, bool)
    skipped = 0
    with hdf5.open_file(path) as file:
        nodes = {name: _node(file, info, key) for name, key in keys.items()}
        for name, (node, column) in nodes.items():
            rows = len(info.extents[column.rows]) if column.rows else len(node)
            if rows != events:
                raise FilterError(
                    f"filter key {name!r} has {rows} rows, but {path!r} holds {events} events", file=path, key=name
                )
        event_bytes = sum(node.dtype.itemsize * int(np.prod(node.shape[1:])) for node, _ in nodes.values())
        block = max(1, _BLOCK_BYTES // max(1, event_bytes))
        for first in range(0, events, block):
            last = min(first + block, events)
            columns = {name: _values(info, keys[name], *node, first, last) for name, node in nodes.items()}
            usable = ~condition.nan_rows(columns) if skip_nan else np.ones(last - first, bool)
            skipped += int((~usable).sum())
            mask[first:last] = False
            if usable.any():
                kept = columns if usable.all() else {name: column[usable] for name, column in columns.items()}
                mask[first:last][usable] = condition.evaluate(kept, file=path, first_row=first)
    return np.packbits(mask).tobytes(), skipped


def select(
    condition: Filter,
    files: Sequence[tuple[FileInfo, Mapping[str, str]]],
    *,
    store: IndexStore,
    workers: int,
    on_error: str,
    progress: Progress | None,
) -> tuple[list[NDArray[np.int64] | None], list[HepfeedError]]:
    """Return the rows of each file that a filter keeps.

    Args:
        condition: The filter.
        files: ``(file, name in the filter -> key)``.
        store: Where selections are kept.
        workers: Processes.
        on_error: ``"raise"``, or ``"skip"`` events with NaN and files without a key.
        progress: Called as files are done.

    Returns:
        Sorted rows of each file, or None for a file that was skipped; and the errors that were skipped.
    """
    fingerprint = f"{condition.fingerprint()}-{on_error}"
    found: list[NDArray[np.int64] | None] = [None] * len(files)
    errors: list[HepfeedError] = []
    todo: list[int] = []
    names: list[str] = [
        f"{fingerprint}-{[(name, file.columns.get(key)) for name, key in sorted(keys.items())]}" for file, keys in files
    ]
    for place, (file, _) in enumerate(files):
        kept = store.selection(file, names[place])
        if kept is None:
            todo.append(place)
        else:
            found[place] = _rows(kept, file.events)
    pickled = cloudpickle.dumps(condition)
    calls = [(files[i][0], dict(files[i][1]), pickled, on_error == "skip") for i in todo]
    fresh: dict[str, list[tuple[FileInfo, bytes]]] = {}
    workers = workers if len(todo) >= 8 else 1
    with contextlib.closing(call_everywhere("hepfeed.selection:apply", calls, workers)) as replies:
        for done, (number, succeeded, value) in enumerate(replies, 1):
            place = todo[number]
            file, _ = files[place]
            if succeeded:
                packed, skipped = value
                found[place] = _rows(packed, file.events)
                if skipped:
                    errors.append(
                        FilterError(f"{skipped} events of {file.path!r} have NaN in a filter key", file=file.path)
                    )
                else:
                    fresh.setdefault(names[place], []).append((file, packed))
            elif on_error == "skip" and isinstance(value, HepfeedError):
                errors.append(value)
            else:
                raise value
            if progress:
                progress("filtering", done, len(todo))
    for name, selections in fresh.items():
        store.put_selections(name, selections)
    return found, errors


def _rows(packed: bytes, events: int) -> NDArray[np.int64]:
    return np.flatnonzero(np.unpackbits(np.frombuffer(packed, np.uint8), count=events)).astype(np.int64)
