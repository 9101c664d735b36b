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
from hepfeed.errors import FilterError, HepfeedError, KeyMissingError, SpecError, nearest
from hepfeed.filters import Filter
from hepfeed.hdf5 import FileInfo
from hepfeed.progress import Progress
from hepfeed.store import IndexStore
from hepfeed.worker import call_everywhere

__all__ = ["read_column", "select"]

_BLOCK_BYTES = 64 << 20  # columns are read so many bytes at a time: a filter may look at images


def _column(file: h5py.File, path: str, key: str) -> h5py.Dataset:
    node = file.get(key)
    if not isinstance(node, h5py.Dataset) or node.ndim == 0:
        raise KeyMissingError(
            f"the filter needs key {key!r}, which {path!r} does not have: {nearest(key, hdf5.keys_of(file))}",
            file=path,
            key=key,
        )
    hdf5.need_codecs(path, key, node)
    return node


def read_column(path: str, key: str, events: int) -> NDArray[Any]:
    """Read one value an event, ``(events,)``; axes of length 1 are dropped.

    Raises:
        SpecError: The data set has more than one value an event, or another number of events.
    """
    with hdf5.open_file(path) as file:
        node = _column(file, path, key)
        if int(np.prod(node.shape)) != events or node.shape[0] != events:
            raise SpecError(
                f"key {key!r} of {path!r} has shape {node.shape}; one value for each of {events} events was expected",
                file=path,
                key=key,
            )
        return np.asarray(node[...]).reshape(events)


def apply(path: str, keys: Mapping[str, str], pickled: bytes, events: int, skip_nan: bool) -> tuple[bytes, int]:
    """Evaluate a filter on one file.

    Args:
        path: HDF5 file.
        keys: Name in the filter -> path of the data set.
        pickled: The filter, by cloudpickle.
        events: Events in the file.
        skip_nan: Leave out events with NaN in a key, instead of raising.

    Returns:
        The mask ``(events,)`` as packed bits, and how many events were left out for NaN.

    Raises:
        FilterError: NaN in a key, or a key of another length or shape.
        KeyMissingError: The file lacks a key.
    """
    condition: Filter = pickle.loads(pickled)
    mask = np.empty(events, bool)
    skipped = 0
    with hdf5.open_file(path) as file:
        nodes = {name: _column(file, path, key) for name, key in keys.items()}
        for name, node in nodes.items():
            if node.shape[0] != events:
                raise FilterError(
                    f"filter key {name!r} has {node.shape[0]} rows, but {path!r} holds {events} events",
                    file=path,
                    key=name,
                )
        event_bytes = sum(node.dtype.itemsize * int(np.prod(node.shape[1:])) for node in nodes.values())
        block = max(1, _BLOCK_BYTES // max(1, event_bytes))
        for first in range(0, events, block):
            last = min(first + block, events)
            columns = {name: np.asarray(node[first:last]) for name, node in nodes.items()}
            usable = ~condition.nan_rows(columns) if skip_nan else np.ones(last - first, bool)
            skipped += int((~usable).sum())
            mask[first:last] = False
            if usable.any():
                kept = columns if usable.all() else {name: column[usable] for name, column in columns.items()}
                mask[first:last][usable] = condition.evaluate(kept, file=path, first_row=first)
    return np.packbits(mask).tobytes(), skipped


def select(
    condition: Filter,
    files: Sequence[tuple[FileInfo, Mapping[str, str], int]],
    *,
    store: IndexStore,
    workers: int,
    on_error: str,
    progress: Progress | None,
) -> tuple[list[NDArray[np.int64] | None], list[HepfeedError]]:
    """Return the rows of each file that a filter keeps.

    Args:
        condition: The filter.
        files: ``(file, name in the filter -> data set, events)``.
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
    names: list[str] = [f"{fingerprint}-{sorted(keys.items())}" for _, keys, _ in files]
    for place, (file, _, events) in enumerate(files):
        kept = store.selection(file, names[place])
        if kept is None:
            todo.append(place)
        else:
            found[place] = _rows(kept, events)
    pickled = cloudpickle.dumps(condition)
    calls = [(files[i][0].path, dict(files[i][1]), pickled, files[i][2], on_error == "skip") for i in todo]
    fresh: dict[str, list[tuple[FileInfo, bytes]]] = {}
    workers = workers if len(todo) >= 8 else 1
    with contextlib.closing(call_everywhere("hepfeed.selection:apply", calls, workers)) as replies:
        for done, (number, succeeded, value) in enumerate(replies, 1):
            place = todo[number]
            file, _, events = files[place]
            if succeeded:
                packed, skipped = value
                found[place] = _rows(packed, events)
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
