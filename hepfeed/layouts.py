"""What an HDF5 file holds: its data sets, which of them count events, and whether they can be fed."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from hepfeed import hdf5
from hepfeed.errors import HepfeedError, SourceError, SpecError
from hepfeed.fault import Fault
from hepfeed.hdf5 import DatasetInfo
from hepfeed.patterns import HDF5_SUFFIXES, hdf5_files
from hepfeed.progress import Progress
from hepfeed.schemas import Contents, Layout, recognise

__all__ = ["DatasetReport", "DirectoryReport", "FileReport", "Layout", "check_directory", "check_file"]


@dataclass(frozen=True)
class DatasetReport:
    """One data set of a file.

    Attributes:
        path: Within the file.
        shape: Of the data set.
        dtype: Of the items, in words.
        chunk: Chunk shape; empty without chunks.
        codec: HDF5 filters in words.
        stored_bytes: In the file.
        problem: Why it can't be a key; empty where it can, if its rows are events.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    chunk: tuple[int, ...]
    codec: str
    stored_bytes: int
    problem: str


@dataclass(frozen=True)
class FileReport:
    """What one HDF5 file holds.

    Attributes:
        path: The file.
        size: Bytes.
        datasets: All but index groups of PyTables.
        groups: Rows -> data sets of numbers with so many rows, which may count the same events.
        layouts: Known layouts of events of different lengths, the one with most rows first.
        events: Number of events that can be fed, 0 for none.
        keys: Those that can be fed together, dense and jagged.
        jagged: Those of them whose events differ in length.
        fed: Data sets that they are parts of.
        verdict: Whether the file can be fed, else why not: one sentence.
    """

    path: str
    size: int
    datasets: tuple[DatasetReport, ...]
    groups: dict[int, tuple[str, ...]]
    layouts: tuple[Layout, ...]
    events: int
    keys: tuple[str, ...]
    jagged: tuple[str, ...]
    fed: tuple[str, ...]
    verdict: str


@dataclass(frozen=True)
class DirectoryReport:
    """What the HDF5 files below a directory hold.

    Attributes:
        path: The directory.
        files: Files that can be opened.
        faults: One for each that can't.
    """

    path: str
    files: tuple[FileReport, ...]
    faults: tuple[Fault, ...]


def check_file(path: str | os.PathLike[str]) -> FileReport:
    """Look at all data sets of one HDF5 file.

    Raises:
        FileFormatError: It is not HDF5, or truncated; the message says what it is.
        SourceError: It is gone, or not permitted.
    """
    name = os.fspath(path)
    with hdf5.open_file(name) as file:
        contents = recognise(file, name)
        datasets = tuple(_dataset(name, key, file[key]) for key in hdf5.keys_of(file))
    groups: dict[int, list[str]] = defaultdict(list)
    for dataset in datasets:
        if not dataset.problem:
            groups[dataset.shape[0]].append(dataset.path)
    return FileReport(
        path=name,
        size=os.path.getsize(name),
        datasets=datasets,
        groups={rows: tuple(members) for rows, members in groups.items()},
        layouts=contents.layouts,
        events=contents.events,
        keys=tuple(contents.keys),
        jagged=tuple(key for key, offer in contents.keys.items() if offer.jagged),
        fed=tuple(dict.fromkeys(offer.dataset for offer in contents.keys.values())),
        verdict=_verdict(contents, datasets),
    )


def check_directory(directory: str | os.PathLike[str], *, progress: Progress | None = None) -> DirectoryReport:
    """Look at all HDF5 files below a directory.

    Args:
        directory: Where to start; links are followed.
        progress: Called with (what is done, finished, total).

    Raises:
        SpecError: There is no such directory, or no HDF5 file in it.
    """
    name = os.fspath(directory)
    if not os.path.isdir(name):
        raise SpecError(f"{name!r} is no directory: name a directory, an HDF5 file or a specification")
    paths = hdf5_files(name)
    if not paths:
        raise SpecError(f"there is no file *{', *'.join(HDF5_SUFFIXES)} in {name!r}: name another directory")
    files, faults = [], []
    for done, path in enumerate(paths, 1):
        try:
            files.append(check_file(path))
        except SourceError as error:
            faults.append(Fault.of(error))
        if progress:
            progress("opening files", done, len(paths))
    return DirectoryReport(name, tuple(files), tuple(faults))


def _dataset(path: str, key: str, node: h5py.Dataset) -> DatasetReport:
    plist = node.id.get_create_plist()
    info = DatasetInfo(
        key=key,
        shape=tuple(int(n) for n in node.shape or ()),
        dtype=node.dtype.str,
        storage="library",
        chunk=tuple(int(n) for n in node.chunks or ()),
        filters=tuple(plist.get_filter(i)[0] for i in range(plist.get_nfilters())),
        stored_bytes=int(node.id.get_storage_size()),
    )
    problem = _problem(path, key, node)
    return DatasetReport(key, info.shape, _type(node.dtype), info.chunk, info.codec, info.stored_bytes, problem)


def _problem(path: str, key: str, node: h5py.Dataset) -> str:
    """Say why a data set can't be a key."""
    if not node.shape:
        return "no event axis"
    if node.shape[0] == 0:
        return "no rows"
    if not _has_numbers(node.dtype):
        return "not numbers"
    try:
        hdf5.need_codecs(path, key, node)
    except HepfeedError as error:
        return error.message
    return ""


def _has_numbers(dtype: np.dtype[Any]) -> bool:
    """Whether a type is a number, or has a field or items that are."""
    base = h5py.check_vlen_dtype(dtype)
    if isinstance(base, np.dtype):
        return _has_numbers(base)
    if dtype.names:
        return any(_has_numbers(dtype[name]) for name in dtype.names)
    return dtype.base.kind in "biufc"


def _type(dtype: np.dtype[Any]) -> str:
    """Name a type in words."""
    if dtype.names:
        return f"table of {len(dtype.names)} field{'s' if len(dtype.names) > 1 else ''}"
    if (base := h5py.check_vlen_dtype(dtype)) is not None:
        return f"variable length {base}"
    if h5py.check_string_dtype(dtype):
        return "text"
    if h5py.check_ref_dtype(dtype):
        return "reference"
    return str(dtype)


def _verdict(contents: Contents, datasets: tuple[DatasetReport, ...]) -> str:
    if not contents.keys:
        if contents.faults:
            return f"can't be fed: {contents.faults[0]}"
        held = _listed([f"{d.path} ({d.problem if d.dtype in d.problem else d.dtype})" for d in datasets], 4)
        return f"can't be fed: no data set has numbers with one row an event; there are {held}"
    keys = list(contents.keys)
    named = f"{'the key' if len(keys) == 1 else 'the keys'} {_listed(keys, 8)}"
    seen = [layout.sentence for layout in contents.layouts]
    more = f" and {len(seen) - 2} more such" if len(seen) > 2 else ""
    found = f"; {'; '.join(seen[:2])}{more}" if seen else ""
    return f"can be fed: {contents.events:,} events with {named}{found}"


def _listed(names: list[str], most: int) -> str:
    return (", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")) or "none"
