"""Sets of many events in many files: 28 float32 features, a target and a number an event, in compressed chunks.

The form is that of the HIGGS set (11 million events of 28 features; Baldi, Sadowski and Whiteson, Nature Communications
5 (2014) 4308).  The values are normal random numbers in steps of 1/64, so that they compress about as well as features
that are kept with reduced precision; what they mean is of no matter here.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np

FEATURES = 28
KEYS = ["features", "target", "number"]
CLASSES = ("signal", "background")
EVENT_BYTES = 4 * FEATURES + 4 + 8
_CHUNK = 256
_FILES_A_TASK = 16
Task = tuple[str, int, int]
"""Path, events, and the number of the first one."""


def spec_of(folder: Path) -> list[list[Any]]:
    """Return the sample specification of a set."""
    return [[str(folder / name / "*.h5"), KEYS, name, 1.0] for name in CLASSES]


def make_set(folder: Path, events: int, files: int, progress: Callable[[str, int, int], None]) -> None:
    """Write a set; its events are numbered from 0, and files differ by one event at most.

    Args:
        folder: Where to; made if missing.
        events: In all files together.
        files: Half of each class.
        progress: Called with (what, done, total).
    """
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    first = [number * events // files for number in range(files + 1)]
    tasks = [
        (str(folder / CLASSES[number % 2] / f"{number:05d}.h5"), first[number + 1] - first[number], first[number])
        for number in range(files)
    ]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=context) as pool:
        for done, _ in enumerate(pool.map(_write, tasks, chunksize=_FILES_A_TASK), 1):
            progress(f"writing {events:,} events in {files:,} files", done, files)


def _write(task: Task) -> None:
    path, events, first = task
    random = np.random.default_rng(first)
    features = np.round(random.standard_normal((events, FEATURES), np.float32) * 64) / 64
    values = {
        "features": features,
        "target": (features[:, 0] > 0).astype(np.float32),
        "number": np.arange(first, first + events),
    }
    with h5py.File(path, "w") as file:
        for name, rows in values.items():
            chunk = (min(events, _CHUNK), *rows.shape[1:])
            file.create_dataset(name, data=rows, chunks=chunk, compression="gzip", compression_opts=1, shuffle=True)
