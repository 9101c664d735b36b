"""Small HDF5 files of events in every layout, and what h5py reads from them.

Every file has the key ``id (N, 3) int32`` of (class, file, row), which tells where a delivered event comes from, beside
``image (N, 5, 4)``, whose layout is chosen, and ``energy (N,)`` float64.
"""

import os
from dataclasses import dataclass, field

import h5py
import hdf5plugin
import numpy as np

from hepfeed.columns import Column
from hepfeed.hdf5 import FileInfo, describe_columns, open_file

SHAPE = (5, 4)
KEYS = ["image", "energy", "id"]


@dataclass(frozen=True)
class Layout:
    """How ``image`` is stored.

    Attributes:
        dtype: As stored.
        dataset: Options of ``create_dataset``; chunks of None take part in "auto".
        file: Options of ``h5py.File``.
        virtual: A virtual data set over a file beside it.
        unwritten: Rows that are never written, and read as the fill value.
    """

    dtype: str = "<f4"
    dataset: dict = field(default_factory=dict)
    file: dict = field(default_factory=dict)
    virtual: bool = False
    unwritten: slice | None = None


LAYOUTS = {
    "contiguous": Layout(),
    "auto_chunks": Layout(dataset={"chunks": True}),
    "one_event_chunks": Layout(dataset={"chunks": (1, *SHAPE), "compression": "gzip"}),
    "hundred_event_chunks": Layout(dataset={"chunks": (100, *SHAPE), "compression": "gzip"}),
    "all_filters": Layout(dataset={"chunks": (16, *SHAPE), "compression": "gzip", "shuffle": True, "fletcher32": True}),
    "big_endian": Layout(dtype=">f4", dataset={"chunks": (8, *SHAPE), "shuffle": True, "compression": 1}),
    "half": Layout(dtype="<f2", dataset={"chunks": (8, *SHAPE), "compression": 1}),
    "edge_chunks": Layout(dataset={"chunks": (6, 3, 3), "compression": 1, "shuffle": True}),
    "lzf": Layout(dataset={"chunks": (8, *SHAPE), "compression": "lzf"}),
    "blosc": Layout(dataset={"chunks": (8, *SHAPE), **hdf5plugin.Blosc()}),
    "virtual": Layout(virtual=True),
    "user_block": Layout(dataset={"chunks": (8, *SHAPE), "compression": 1}, file={"userblock_size": 512}),
    "unallocated": Layout(dataset={"chunks": (8, *SHAPE), "fillvalue": -7.5}, unwritten=slice(5, 30)),
    "latest_format": Layout(dataset={"chunks": (9, *SHAPE), "compression": 1}, file={"libver": "latest"}),
}


def images(number, file, events, shape=SHAPE, dtype="<f4"):
    """Return ``(events, *shape)`` values of one file: half of them 0, the others pseudo-random."""
    random = np.random.default_rng((number, file))
    values = random.normal(0.0, 100.0, (events, *shape))
    return np.where(random.random(values.shape) < 0.5, 0.0, values).astype(dtype)


def identities(number, file, events):
    """Return ``(events, 3) int32``: class, file and row."""
    rows = np.arange(events)
    return np.stack([np.full(events, number), np.full(events, file), rows], 1).astype(np.int32)


def write_file(path, events, *, number=0, file=0, layout="contiguous", shape=SHAPE, extra=None):
    """Write one file of events, with further data sets ``extra`` of name -> array."""
    how = LAYOUTS[layout] if isinstance(layout, str) else layout
    values = images(number, file, events, shape, how.dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", **how.file) as opened:
        if how.virtual:
            _write_virtual(opened, path, values)
        else:
            node = opened.create_dataset("image", values.shape, how.dtype, **_fitting(how.dataset, values.shape))
            hole = how.unwritten or slice(0, 0)
            node[: hole.start] = values[: hole.start]
            node[hole.stop :] = values[hole.stop :]
        opened["energy"] = np.arange(events) + 1000.0 * file
        opened["id"] = identities(number, file, events)
        for name, array in (extra or {}).items():
            opened[name] = array
    return path


def _fitting(options, shape):
    """Chunks no larger than the data."""
    chunks = options.get("chunks")
    if not isinstance(chunks, tuple):
        return options
    return {**options, "chunks": tuple(min(c, n) for c, n in zip(chunks, shape, strict=True))}


def _write_virtual(opened, path, values):
    part = path.with_suffix(".part")
    with h5py.File(part, "w") as source:
        source["image"] = values
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    layout[...] = h5py.VirtualSource(str(part), "image", values.shape)
    opened.create_virtual_dataset("image", layout)


def write_classes(folder, classes, *, layout="contiguous", keys=KEYS, rates=None, **options):
    """Write files of several classes and return the specification's list.

    Args:
        folder: Where; a directory a class.
        classes: Label -> events of each of its files.
        layout: Name of a layout.
        keys: Keys of the specification.
        rates: Label -> rate, or None for none.
        options: Of :func:`write_file`.
    """
    for number, (label, counts) in enumerate(classes.items()):
        for file, events in enumerate(counts):
            path = folder / label / f"{label}_{file}.h5"
            write_file(path, events, number=number, file=file, layout=layout, **options)
    return [[str(folder / label / "*.h5"), list(keys), label, *([rates[label]] if rates else [])] for label in classes]


def stored(dataset, events, key):
    """Return what h5py reads for (file, row) pairs, in their order: ``(n, ...)``."""
    pairs = np.asarray(events).reshape(-1, 2)
    parts = {}
    for file in np.unique(pairs[:, 0]).tolist():
        with h5py.File(dataset.files[file], "r") as opened:
            parts[file] = opened[key][()]
    return np.stack([parts[file][row] for file, row in pairs.tolist()])


def same_bits(delivered, expected):
    """Whether a tensor or array has the dtype, shape and bytes of an array, whatever the byte order stored."""
    expected = expected.astype(expected.dtype.newbyteorder("="))
    delivered = np.asarray(delivered)
    return (
        delivered.dtype == expected.dtype
        and delivered.shape == expected.shape
        and np.ascontiguousarray(delivered).tobytes() == expected.tobytes()
    )


def events_of(batches):
    """Return the (file, row) of all events of batches, in their order."""
    return [tuple(event) for batch in batches for event in batch["event"].tolist()]


def all_events(dataset):
    """Return the set of (file, row) of a dataset."""
    index = dataset.index
    return {(file, int(row)) for file in range(len(index.files)) for row in _rows(index, file)}


def _rows(index, file):
    return index.rows[index.file_start[file] : index.file_start[file + 1]]


def bits(batches):
    """Return the bytes of all tensors of batches, to compare two epochs."""
    return [{name: (value.dtype, value.shape, value.numpy().tobytes()) for name, value in b.items()} for b in batches]


def describe(path, keys):
    """Return what a file says of data sets whose rows are events, with their chunk tables."""
    columns = {key: Column(key) for key in keys}
    with open_file(str(path)) as file:
        datasets, tables = describe_columns(file, str(path), columns)
    status = os.stat(path)
    return FileInfo(str(path), status.st_size, status.st_mtime_ns, datasets, tables=tables)
