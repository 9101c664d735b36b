"""The processed events as a rival to a cache keeps them: rows of `.npy` files, mapped into memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from lcd_sets import CLASSES, files_of
from numpy.typing import NDArray

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


@dataclass(frozen=True)
class Cells:
    """The same events as the numbers and values of the cells that are not 0.

    Attributes:
        cells: Key -> ``(cells,) int32`` flat numbers within the image.
        values: Key -> ``(cells,) float32``.
        offsets: Key -> ``(events + 1,) int64``.
        shapes: Key -> shape of an image.
        label: As in :class:`Rows`.
    """

    cells: Arrays
    values: Arrays
    offsets: Arrays
    shapes: dict[str, tuple[int, ...]]
    label: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.label)

    def dense(self, rows: NDArray[np.int64]) -> Arrays:
        """Return the images of some events: clear, then scatter all values at once."""
        found = {}
        for key, shape in self.shapes.items():
            volume = int(np.prod(shape))
            start, stop = self.offsets[key][rows], self.offsets[key][rows + 1]
            counts = stop - start
            first = np.cumsum(counts) - counts
            at = np.repeat(start - first, counts) + np.arange(counts.sum())
            images = np.zeros(len(rows) * volume, np.float32)
            images[np.repeat(np.arange(len(rows)) * volume, counts) + self.cells[key][at]] = self.values[key][at]
            found[key] = images.reshape(len(rows), *shape)
        return found


def make_cells(rows: Rows) -> Cells:
    """Write the cells of all events to ``.npy`` files."""
    for key, array in rows.arrays.items():
        flat = array.reshape(len(array), -1)
        event, cell = np.nonzero(flat)
        np.save(rows.folder / f"{key}-cells.npy", cell.astype(np.int32))
        np.save(rows.folder / f"{key}-values.npy", flat[event, cell])
        counts = np.bincount(event, minlength=len(array))
        np.save(rows.folder / f"{key}-offsets.npy", np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
    opened = {
        part: {key: np.load(rows.folder / f"{key}-{part}.npy", mmap_mode="r") for key in KEYS}
        for part in ("cells", "values", "offsets")
    }
    shapes = {key: array.shape[1:] for key, array in rows.arrays.items()}
    return Cells(opened["cells"], opened["values"], opened["offsets"], shapes, rows.label)
