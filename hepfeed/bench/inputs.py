"""What transforms are measured on: calorimeter images and hits of tracks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hepfeed.bench.tracks import walk
from hepfeed.draws import Draws
from hepfeed.synthetic.lcd import LcdGenerator
from hepfeed.tensors import Jagged

__all__ = ["CELL_MM", "IMAGES", "SIDE", "TRACKS", "Hits", "Place", "draws_of", "hits", "images"]

IMAGES = 128
"""Calorimeter images of a batch."""
TRACKS = 16
"""Events of hits of a batch."""
SIDE = 256
"""Cells of an axis of the chamber that tracks are in."""
CELL_MM = 3.0
_CURVES = (5, 30)
"""Fewest and most curves of an event, of some 300 hits each."""

Place = Callable[[NDArray[Any]], torch.Tensor]
"""Makes a tensor of an array, where the sides compute."""


@dataclass(frozen=True)
class Hits:
    """Hits of events, one event after another.

    Attributes:
        points: ``(T, 3) float32``, mm from the corner of the chamber.
        charge: ``(T,) float32``.
    """

    points: Jagged
    charge: Jagged


def images(events: int, seed: int = 0) -> NDArray[np.float32]:
    """Return ECAL images ``(events, 25, 25, 25)`` in GeV: electrons and charged pions of 10 to 500 GeV in turn."""
    random = np.random.default_rng(seed)
    made = np.empty((events, 25, 25, 25), np.float32)
    for kind, name in enumerate(("EleEscan", "ChPiEscan")):
        half = made[kind::2]
        half[:] = np.asarray(LcdGenerator(name).generate(random, len(half), ragged=False)["ECAL"])
    return made


def hits(events: int, seed: int = 0) -> Hits:
    """Return the hits of curves in a time projection chamber; about two lie in one cell."""
    random = np.random.default_rng(seed)
    cells = [
        np.concatenate([walk(random, SIDE) for _ in range(curves)])
        for curves in random.integers(*_CURVES, events, endpoint=True).tolist()
    ]
    offsets = np.cumsum([0, *map(len, cells)], dtype=np.int64)
    place = np.concatenate(cells) + random.random((int(offsets[-1]), 3))
    # Rounding to float32 must not carry a hit over the far edge.
    points = np.minimum(CELL_MM * place, np.nextafter(np.float32(CELL_MM * SIDE), np.float32(0))).astype(np.float32)
    charge = random.exponential(size=len(points)).astype(np.float32)
    return Hits(Jagged(points, offsets), Jagged(charge, offsets))


def draws_of(events: int) -> Draws:
    """Return the random numbers of a batch."""
    number = np.arange(events, dtype=np.int64)
    return Draws(seed=1, epoch=0, batch=0, event=np.stack([number // 50, number % 50], axis=1))
