"""The sets that the feed is measured on: the same LCD-like events stored in four ways."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hepfeed.synthetic import make_lcd

CLASSES = ("EleEscan", "ChPiEscan", "GammaEscan", "Pi0Escan")
KEYS = ["ECAL", "HCAL", "energy"]
THRESHOLD = np.float32(0.078)
"""GeV in a cell; 2 % of the cells have more, and 3.6 % have anything."""
STORAGE: dict[str, dict[str, Any]] = {
    "auto": {"chunks": "auto", "compression": "gzip", "level": 4},
    "100": {"chunks": 100, "compression": "gzip", "level": 4},
    "1": {"chunks": 1, "compression": "gzip", "level": 4},
    "contiguous": {"chunks": "contiguous"},
}
TITLES = {
    "auto": "gzip-4, automatic chunks",
    "100": "gzip-4, 100 events a chunk",
    "1": "gzip-4, 1 event a chunk",
    "contiguous": "uncompressed, contiguous",
}


def make_set(directory: Path, storage: str, files: int, events: int) -> list[list[Any]]:
    """Write a set if it is not there; returns the sample specification."""
    home = directory / f"{storage}-{files}x{events}"
    done = home / "complete"
    if not done.exists():
        make_lcd(home, classes=CLASSES, files=files, events=events, seed=7, **STORAGE[storage])
        done.touch()
    return [[str(home / name / f"{name}_*.h5"), KEYS, name, 1.0] for name in CLASSES]


def make_suppressed_set(directory: Path, storage: str, files: int, events: int) -> list[list[Any]]:
    """Write a set again without the cells below :data:`THRESHOLD`, as a read-out with zero suppression has them."""
    spec = make_set(directory, storage, files, events)
    home = directory / f"{storage}-{files}x{events}-suppressed"
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
                        values[values < THRESHOLD] = 0
                    form = {"chunks": stored.chunks, "compression": stored.compression}
                    target.create_dataset(key, data=values, compression_opts=stored.compression_opts, **form)
        done.touch()
    return [[str(home / name / f"{name}_*.h5"), KEYS, name, 1.0] for name in CLASSES]


def files_of(spec: list[list[Any]]) -> list[str]:
    """All files of a specification, class by class."""
    found = []
    for pattern, *_ in spec:
        folder = Path(pattern).parent
        found += sorted(str(path) for path in folder.glob(os.path.basename(pattern)))
    return found


def energy_sums(files: list[str]) -> NDArray[np.float64]:
    """``(files, events)`` sums over ECAL and HCAL of each event, read by h5py: what every feed must deliver."""
    sums = []
    for path in files:
        with h5py.File(path) as file:
            parts = [file[key][...].reshape(len(file[key]), -1).sum(1, dtype=np.float64) for key in ("ECAL", "HCAL")]
            sums.append(parts[0] + parts[1])
    return np.stack(sums)
