"""Matching the events of one table with those of another by their numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["places", "union"]


def places(wanted: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find events by their numbers.

    Args:
        wanted: ``(m, k)`` numbers of events, each once.
        ids: ``(n, k)`` numbers of the events of a table, each once.

    Returns:
        ``(m,) int64``: the row of ``ids`` that equals each row of ``wanted``, -1 without one.
    """
    if wanted.shape == ids.shape and bool((wanted == ids).all()):
        return np.arange(len(wanted), dtype=np.int64)
    _, group = np.unique(np.concatenate([ids, wanted]), axis=0, return_inverse=True)
    group = group.reshape(-1)
    row_of = np.full(int(group.max(initial=-1)) + 1, -1, np.int64)
    row_of[group[: len(ids)]] = np.arange(len(ids))
    return row_of[group[len(ids) :]]


def union(several: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return all events of several tables: in rising order where each table has that, else as they first appear."""
    ids = np.concatenate(several)
    if len(several) == 1:
        return ids
    unique, first = np.unique(ids, axis=0, return_index=True)
    rising = all(len(part) == 0 or bool((np.unique(part, axis=0) == part).all()) for part in several)
    return unique if rising else ids[np.sort(first)]
