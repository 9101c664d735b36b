"""Events as a time projection chamber sees them: sites along curves whose direction diffuses."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

STEPS = 400
"""Steps of a curve."""
STEP = 0.7
"""Length of a step, in cells."""
BEND = 0.045
"""Change of the direction a step, in radians and on each axis; the changes add up."""


def walk(random: np.random.Generator, side: int) -> NDArray[np.int64]:
    """Return the cells of one curve, ``(n, 3)``, in the order in which it visits them, some of them twice."""
    start = random.uniform(0.1 * side, 0.9 * side, 3)
    direction = random.normal(size=3)
    bend = np.cumsum(random.normal(scale=BEND, size=(STEPS, 3)), axis=0)
    directions = direction / np.linalg.norm(direction) + bend
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    cells = np.floor(start + np.cumsum(STEP * directions, axis=0)).astype(np.int64)
    return cells[((cells >= 0) & (cells < side)).all(axis=1)]


def event(random: np.random.Generator, sites: int, side: int) -> NDArray[np.int64]:
    """Return the first ``sites`` different cells of as many curves as it takes, ``(sites, 3)``, sorted."""
    curves: list[NDArray[np.int64]] = []
    keys = np.zeros(0, np.int64)
    while len(keys) < sites:
        curves += [walk(random, side) for _ in range(1 + (sites - len(keys)) // STEPS)]
        flat = np.ravel_multi_index(tuple(np.concatenate(curves).T), (side,) * 3)
        keys, first = np.unique(flat, return_index=True)
    keep = np.sort(keys[np.argsort(first)[:sites]])
    return np.stack(np.unravel_index(keep, (side,) * 3), axis=1)


def tracks(sites: int, side: int, events: int = 16, seed: int = 0) -> NDArray[np.int32]:
    """Return sites of ``events`` events in ``side``^3 cells.

    Args:
        sites: Of all events together; a multiple of ``events``.
        side: Cells along an axis.
        events: Number of events.
        seed: Of the curves.

    Returns:
        ``(sites, 4) int32``: event and coordinates, sorted and unique.
    """
    random = np.random.default_rng(seed)
    rows = [event(random, sites // events, side) for _ in range(events)]
    number = np.repeat(np.arange(events), sites // events)
    return np.concatenate([number[:, None], np.concatenate(rows)], axis=1).astype(np.int32)


def noise(occupancy: float, side: int, events: int, seed: int = 0) -> NDArray[np.int32]:
    """Return a random part of the cells of ``events`` images of ``side``^3, as :func:`tracks` does."""
    random = np.random.default_rng(seed)
    return np.argwhere(random.random((events, side, side, side)) < occupancy).astype(np.int32, order="C")
