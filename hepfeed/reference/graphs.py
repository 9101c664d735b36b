"""Graphs in plain NumPy, by the distances of all pairs: the twin of :mod:`hepfeed.graphs`."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from hepfeed.tensors import Graph

__all__ = ["build_graph"]


def build_graph(
    points: NDArray[np.number],
    offsets: NDArray[np.int64],
    k: int | None = None,
    radius: float | None = None,
    max_neighbours: int | None = None,
    loop: bool = False,
) -> Graph:
    """Return edges to each point from those that come first by (squared distance, row), within the radius if given.

    The squared distance is ``sum_d (a_d - b_d)^2``, added in the order of d; that of a point to itself is below all
    others with ``loop``, and infinite without.
    """
    most = k if k is not None else max_neighbours
    sources, targets, counts = [], [], [0]
    for first, last in itertools.pairwise(offsets):
        event = points[first:last].astype(np.float64)
        squared = np.zeros((len(event), len(event)))
        for x in event.T:
            squared += (x[:, None] - x[None, :]) ** 2
        allowed = np.ones(squared.shape, bool) if radius is None else squared <= float(radius) * float(radius)
        np.fill_diagonal(squared, -1.0)
        np.fill_diagonal(allowed, loop)
        squared[~allowed] = np.inf
        nearest = np.argsort(squared, axis=1, kind="stable")[:, :most]
        chosen = np.zeros(squared.shape, bool)
        np.put_along_axis(chosen, nearest, True, axis=1)
        target, source = np.nonzero(chosen & allowed)
        sources.append(source + first)
        targets.append(target + first)
        counts.append(len(source))
    edges = np.array([np.concatenate([*sources, []]), np.concatenate([*targets, []])], np.int64)
    return Graph(edges, offsets.astype(np.int64), np.cumsum(counts, dtype=np.int64))
