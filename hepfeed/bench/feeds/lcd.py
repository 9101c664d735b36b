"""LCD-like calorimeter events of four classes, stored in several ways."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hepfeed.synthetic import make_lcd

__all__ = [
    "CLASSES",
    "KEYS",
    "OFFSET",
    "STORAGE",
    "THRESHOLD",
    "TITLES",
    "files_of",
    "make_filled_set",
    "make_set",
    "make_suppressed_set",
]

CLASSES = ("EleEscan", "ChPiEscan", "GammaEscan", "Pi0Escan")
KEYS = ["ECAL", "HCAL", "energy"]
THRESHOLD = np.float32(0.078)
"""GeV in a cell; 2 % of the cells have more, and 3.6 % have anything."""
OFFSET = np.float32(0.25)
"""Added to every cell where an image without a single 0 is wanted."""
STORAGE: dict[str, dict[str, Any]] = {
    "auto": {"chunks": "auto", "compression": "gzip", "level": 4},
    "100": {"chunks": 100, "compression": "gzip", "level": 4},
    "1": {"chunks": 1, "compression": "gzip", "level": 4},
    "contiguous": {"chunks": "contiguous"},
}
"""Name -> options of :func:`hepfeed.synthetic.write_files`."""
TITLES = {
    "auto": "gzip-4, automatic chunks",
    "100": "gzip-4, 100 events a chunk",
    "1": "gzip-4, 1 event a chunk",
    "contiguous": "uncompressed, contiguous",
}


def make_set(directory: Path, storage: str, files: int, events: int) -> list[list[Any]]:
    """Write a set if it is not there; returns the sample specification.

    Args:
        directory: Of all sets.
        storage: Of :data:`STORAGE`.
        files: Of each class.
        events: Of each file.
    """
    home = directory / f"{storage}-{files}x{events}"
    done = home / "complete"
    if not done.exists():
        make_lcd(home, classes=CLASSES, files=files, events=events, seed=7, **STORAGE[storage])
        done.touch()
    return _listed(home)


def make_suppressed_set(directory: Path, storage: str, files: int, events: int) -> list[list[Any]]:
    """Write a set again without the cells below :data:`THRESHOLD`, as a read-out with zero suppression has them."""

    def suppress(image: NDArray[Any]) -> None:
        image[image < THRESHOLD] = 0

    return _changed(directory, storage, files, events, "suppressed", suppress)


def make_filled_set(directory: Path, storage: str, files: int, events: int) -> list[list[Any]]:
    """Write a set again with :data:`OFFSET` added to all cells, so that only dense rows can hold them."""

    def fill(image: NDArray[Any]) -> None:
        image += OFFSET

    return _changed(directory, storage, files, events, "filled", fill)


def _changed(
    directory: Path, storage: str, files: int, events: int, name: str, change: Callable[[NDArray[Any]], None]
) -> list[list[Any]]:
    spec = make_set(directory, storage, files, events)
    home = directory / f"{storage}-{files}x{events}-{name}"
    done = home / "complete"
    if not done.exists():
        for path in files_of(spec):
            copy = home / Path(path).parent.name / Path(path).name
            copy.parent.mkdir(parents=True, exist_ok=True)
            with h5py.File(path) as source, h5py.File(copy, "w") as target:
                for key in KEYS:
                    stored = source[key]
                    values = stored[...]
                    if values.ndim > 1:
                        change(values)
                    form = {"chunks": stored.chunks, "compression": stored.compression}
                    target.create_dataset(key, data=values, compression_opts=stored.compression_opts, **form)
        done.touch()
    return _listed(home)


def _listed(home: Path) -> list[list[Any]]:
    return [[str(home / name / f"{name}_*.h5"), KEYS, name, 1.0] for name in CLASSES]


def files_of(spec: list[list[Any]]) -> list[str]:
    """Return all files of a specification, class by class."""
    found = []
    for pattern, *_ in spec:
        folder = Path(pattern).parent
        found += sorted(str(path) for path in folder.glob(os.path.basename(pattern)))
    return found
