"""Jets of two classes in the layouts in which experiments store them, and hits with KM3NeT's.

The numbers have the sizes, the counts and about the compressibility of real ones; they are drawn from simple
distributions, and there is no physics in them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hepfeed.order import generator

__all__ = ["CLASSES", "CONSTITUENTS", "PARTICLE_KEYS", "make_columns", "make_hits", "make_ragged", "make_tables"]

CLASSES = ("qcd", "top")
CONSTITUENTS = 64
"""Particles of a jet, at most, in the layout of columns; missing ones are 0."""
TRACKS = 40
"""Tracks of a jet, at most, in the layout of tables."""
PARTICLE_KEYS = ("part_px", "part_py", "part_pz", "part_energy", "part_d0val", "part_dzval")
JET_KEYS = ("jet_pt", "jet_eta")
_HITS = {"time": "f8", "tot": "u4", "dom_id": "i4", "channel_id": "u4"}
_GZIP = {"compression": "gzip", "compression_opts": 4, "shuffle": True}
_Spec = list[list[Any]]
_Write = Callable[[h5py.File, np.random.Generator, int, int, int], None]


def make_tables(directory: Path, files: int, events: int) -> _Spec:
    """Write ATLAS flavour-tagging tables: a compound ``jets`` and a compound ``tracks (events, 40)`` with ``valid``."""
    keys = {
        "jets": "jets[pt, eta, mass]",
        "tracks": "tracks[d0, z0SinTheta, phiUncertainty, qOverP]",
        "number": "jets[eventNumber]",
    }
    return _make(directory, "jets-table", CLASSES, files, events, keys, _write_tables)


def make_columns(directory: Path, files: int, events: int) -> _Spec:
    """Write the columns that weaver reads: ``part_px (events, 64)`` and so on, and one of 0 and 1 for each class."""
    keys = [*PARTICLE_KEYS, *JET_KEYS, "number"]
    return _make(directory, "jets-columns", CLASSES, files, events, keys, _write_columns)


def make_ragged(directory: Path, files: int, events: int) -> _Spec:
    """Write particles of all jets one after another, and where each jet begins."""
    keys = [f"particles/{name}" for name in PARTICLE_KEYS]
    return _make(directory, "jets-ragged", CLASSES, files, events, keys, _write_ragged)


def make_hits(directory: Path, files: int, events: int) -> _Spec:
    """Write KM3NeT's columns of hits, 5,000 an event on the average, and a table of where each event begins."""
    keys = [f"hits/{name}" for name in _HITS]
    return _make(directory, "hits-ragged", ("muon",), files, events, keys, _write_hits)


def _make(
    directory: Path, name: str, classes: tuple[str, ...], files: int, events: int, keys: Any, write: _Write
) -> _Spec:
    home = directory / f"{name}-{files}x{events}"
    done = home / "complete"
    if not done.exists():
        for label, kind in enumerate(classes):
            (home / kind).mkdir(parents=True, exist_ok=True)
            for number in range(files):
                random = generator(7, name, label, number)
                with h5py.File(home / kind / f"{kind}_{number:03d}.h5", "w") as file:
                    write(file, random, events, label, (label * files + number) * events)
        done.touch()
    return [[str(home / kind / f"{kind}_*.h5"), keys, kind, 1.0] for kind in classes]


def _counts(random: np.random.Generator, events: int, label: int) -> NDArray[np.int64]:
    """Particles of each jet: those of top quarks have more."""
    return np.clip(random.poisson((32, 45)[label], events), 1, CONSTITUENTS)


def _write_tables(file: h5py.File, random: np.random.Generator, events: int, label: int, first: int) -> None:
    jets = np.zeros(events, [("pt", "f4"), ("eta", "f4"), ("mass", "f4"), ("eventNumber", "i8"), ("flavour", "i4")])
    jets["pt"], jets["eta"] = random.exponential(50.0, events) + 20, random.normal(0.0, 1.2, events)
    jets["mass"], jets["flavour"] = random.gamma(2.0, 5.0, events), label
    jets["eventNumber"] = first + np.arange(events)
    floats = ("d0", "z0SinTheta", "phiUncertainty", "qOverP")
    tracks = np.zeros((events, TRACKS), [*((name, "f4") for name in floats), ("valid", "?")])
    tracks["valid"] = np.arange(TRACKS) < np.clip(random.poisson((8, 14)[label], events), 0, TRACKS)[:, None]
    for name in floats:
        tracks[name] = random.normal(0.0, 0.3, tracks.shape) * tracks["valid"]
    file.create_dataset("jets", data=jets, chunks=(min(100, events),), **_GZIP)
    file.create_dataset("tracks", data=tracks, chunks=(min(100, events), TRACKS), **_GZIP)


def _write_columns(file: h5py.File, random: np.random.Generator, events: int, label: int, first: int) -> None:
    there = np.arange(CONSTITUENTS) < _counts(random, events, label)[:, None]
    for name in PARTICLE_KEYS:
        values = (random.normal(0.0, 10.0, there.shape) * there).astype(np.float32)
        file.create_dataset(name, data=values, chunks=(min(100, events), CONSTITUENTS), **_GZIP)
    for name in JET_KEYS:
        file.create_dataset(name, data=random.exponential(100.0, events).astype(np.float32))
    for number, kind in enumerate(CLASSES):
        file.create_dataset(f"label_{kind}", data=np.full(events, number == label, np.int32))
    file.create_dataset("number", data=first + np.arange(events))


def _write_ragged(file: h5py.File, random: np.random.Generator, events: int, label: int, first: int) -> None:
    counts = _counts(random, events, label)
    for name in PARTICLE_KEYS:
        values = random.normal(0.0, 10.0, int(counts.sum())).astype(np.float32)
        file.create_dataset(f"particles/{name}", data=values, chunks=(min(4096, len(values)),), **_GZIP)
    file["particles/offsets"] = np.concatenate([[0], np.cumsum(counts)])


def _write_hits(file: h5py.File, random: np.random.Generator, events: int, label: int, first: int) -> None:
    counts = random.lognormal(8.3, 0.65, events).astype(np.int64)
    for name, code in _HITS.items():
        values = random.exponential(300.0, int(counts.sum())).astype(code)
        chunk = (min(len(values), (1 << 16) // np.dtype(code).itemsize),)
        file.create_dataset(
            f"hits/{name}", data=values, chunks=chunk, fletcher32=True, compression="gzip", shuffle=True
        )
    where = np.zeros(events, [("index", "i8"), ("n_items", "i8")])
    where["index"], where["n_items"] = np.cumsum(counts) - counts, counts
    file["hits/_indices"] = where
