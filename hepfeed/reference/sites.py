"""Sets of sites in plain NumPy: the twin of :mod:`hepfeed.sites`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["find_sites", "sort_sites", "unique_sites"]

Rows = NDArray[np.int32]


def sort_sites(indices: Rows) -> Rows:
    """Return ``(N,)``: rows by (event, coordinates), and by row where those are equal."""
    return np.lexsort(indices.T[::-1]).astype(np.int32)


def unique_sites(indices: Rows) -> tuple[Rows, Rows]:
    """Return the distinct sites, sorted, and which of them each row is."""
    distinct, row_of = np.unique(indices, axis=0, return_inverse=True)
    return distinct, row_of.reshape(-1).astype(np.int32)


def find_sites(indices: Rows, queries: Rows) -> Rows:
    """Return ``(Q,)``: the row of ``indices`` that is each query, or -1."""
    rows = {tuple(site): row for row, site in enumerate(indices.tolist())}
    return np.array([rows.get(tuple(query), -1) for query in queries.tolist()], np.int32)
