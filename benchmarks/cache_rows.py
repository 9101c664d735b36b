"""The processed events as a rival to a cache keeps them: rows of `.npy` files, mapped into memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hepfeed.bench.feeds.lcd import CLASSES, files_of

KEYS = ["ECAL", "HCAL"]
OFFSET = np.float32(0.25)
"""Added to every cell where an image without a single 0 is wanted; :func:`fill_cells` does the same in a reader."""

Arrays = dict[str, NDArray[Any]]


def fill_cells(batch: Arrays) -> Arrays:
    """Add a constant to all cells, so that only dense rows can hold them."""
    return {**batch, **{key: batch[key] + OFFSET for key in KEYS}}


@dataclass(frozen=True)
class Rows:
    """All events of a set, file after file, row after row.

    Attributes:
        arrays: Key -> ``(events, *shape) float32``; mapped from ``folder``.
        label: ``(events,) int64``, numbered as hepfeed numbers classes.
        file_events: Events of each file.
        folder: Of the files.
    """

    arrays: Arrays
    label: NDArray[np.int64]
    file_events: int
    folder: Path

    def __len__(self) -> int:
        return len(self.label)

    @property
    def event_bytes(self) -> int:
        """Dense bytes of an event."""
        return sum(array.nbytes for array in self.arrays.values()) // len(self)

    @property
    def occupancy(self) -> dict[str, float]:
        """Part of the cells that are not 0, by key and of all."""
        active = {key: int(np.count_nonzero(array)) for key, array in self.arrays.items()}
        found = {key: active[key] / array.size for key, array in self.arrays.items()}
        return {**found, "all": sum(active.values()) / sum(array.size for array in self.arrays.values())}

    def gather(self, rows: NDArray[np.int64], out: Arrays) -> None:
        """Copy events, one after the other, into a batch that is there."""
        places = [(out[key], self.arrays[key]) for key in KEYS]
        for place, row in enumerate(rows.tolist()):
            for target, source in places:
                target[place] = source[row]

    def empty(self, events: int) -> Arrays:
        """Return a batch without contents."""
        return {key: np.empty((events, *array.shape[1:]), array.dtype) for key, array in self.arrays.items()}


def make_rows(folder: Path, spec: list[list[Any]], filled: bool) -> Rows:
    """Read a set with h5py, and write its events to ``.npy`` files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = files_of(spec)
    with h5py.File(paths[0]) as first:
        events = len(first[KEYS[0]])
        shapes = {key: first[key].shape[1:] for key in KEYS}
    total = events * len(paths)
    for key in KEYS:
        out = np.lib.format.open_memmap(folder / f"{key}.npy", "w+", np.float32, (total, *shapes[key]))
        for number, path in enumerate(paths):
            with h5py.File(path) as file:
                values = file[key][...]
            out[number * events : (number + 1) * events] = values + OFFSET if filled else values
        out.flush()
        del out
    label = np.argsort(np.argsort(CLASSES))[np.arange(total) // (events * (len(paths) // len(CLASSES)))]
    np.save(folder / "label.npy", label)
    arrays = {key: np.load(folder / f"{key}.npy", mmap_mode="r") for key in KEYS}
    return Rows(arrays, label.astype(np.int64), events, folder)
