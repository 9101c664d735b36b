"""The events of one file: which data sets and rows the keys of a specification stand for in it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import h5py

from hepfeed import hdf5
from hepfeed.errors import KeyMissingError, nearest
from hepfeed.hdf5 import FileInfo

__all__ = ["Layout", "describe_events", "missing_key"]

Layout = Mapping[str, Any] | str | None
"""How events are stored; None: find out."""


def describe_events(path: str, keys: Sequence[str], also: Sequence[str] = (), layout: Layout = None) -> FileInfo:
    """Find out how keys are stored in a file.

    Args:
        path: HDF5 file.
        keys: Keys to be fed; those that the file lacks are in ``absent``.
        also: Keys for filters, splits and weights, which may be of any type.
        layout: See :mod:`hepfeed.schemas`.

    Raises:
        SpecError: Events can't be told apart, or a key does not consist of numbers.
        CodecMissingError: A filter plug-in is missing.
        SourceError: The file can't be read.
    """
    from hepfeed import schemas  # not needed, and slow to import, where the index knows all files

    status = hdf5.stat(path)
    wanted = list(dict.fromkeys([*keys, *also]))
    with hdf5.open_file(path) as file:
        found = schemas.resolve(file, path, wanted, layout)
        fed = {key: found.columns[key] for key in keys if key in found.columns}
        datasets, tables = hdf5.describe_columns(file, path, fed)
    return FileInfo(
        os.path.abspath(path),
        status.st_size,
        status.st_mtime_ns,
        datasets,
        frozenset(key for key in wanted if key not in found.columns),
        tables,
        found.events,
        found.columns,
        found.extents,
        found.layout,
    )


def missing_key(path: str, candidates: Sequence[str]) -> KeyMissingError:
    """Return the error of a file that has none of some keys; it says whether one is a group, and what there is."""
    from hepfeed import schemas

    with hdf5.open_file(path) as file:
        existing = [*schemas.recognise(file, path).keys] or hdf5.keys_of(file)
        is_group = [key for key in candidates if isinstance(file.get(key), h5py.Group)]
    tried = " or ".join(repr(key) for key in candidates)
    what = "is a group" if is_group else "does not exist"
    return KeyMissingError(
        f"key {tried} {what} in {path!r}: {nearest(candidates[0], existing)}", file=path, key=candidates[0]
    )
