"""Graphs of points: edges from the nearest neighbours of each, by a native k-d tree."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hepfeed import _voxels
from hepfeed.errors import SpecError
from hepfeed.grid import ErrorAt, error_in_batch, event_of
from hepfeed.tensors import Graph

__all__ = ["build_graph", "check_neighbours"]


def check_neighbours(k: int | None, radius: float | None, max_neighbours: int | None) -> None:
    """Raise SpecError for options of :func:`build_graph` that do not say which neighbours are meant."""
    if (k is None) == (radius is None):
        raise SpecError(f"a graph needs k or radius, one of them, not k={k!r} and radius={radius!r}")
    if radius is not None and not 0 <= radius < math.inf:
        raise SpecError(f"radius must be a finite number of 0 or more, not {radius!r}")
    if k is not None and max_neighbours is not None:
        raise SpecError("max_neighbours limits a radius; with k there are no more than k: leave it out")
    for name, value in (("k", k), ("max_neighbours", max_neighbours)):
        if value is not None and value < 1:
            raise SpecError(f"{name} must be 1 or more, not {value!r}")


def build_graph(
    points: NDArray[np.number],
    offsets: NDArray[np.int64],
    k: int | None = None,
    radius: float | None = None,
    max_neighbours: int | None = None,
    loop: bool = False,
    error_at: ErrorAt = error_in_batch,
) -> Graph:
    """Connect each point with its nearest neighbours in the same event.

    The squared distance is the sum over axes of squared differences, in float64 and in the order of the axes.  Of
    points at the same distance the one of the lower row is nearer, so that the graph is unique; a point at exactly the
    radius is a neighbour.

    Args:
        points: ``(T, D)`` coordinates, of any ``D``.
        offsets: ``(B + 1,) int64``: points of each event.
        k: Edges to each point, or to fewer where the event has not so many other points.
        radius: Instead of ``k``: edges from all points within it.
        max_neighbours: With a radius: from the nearest of them only.
        loop: Whether each point has an edge to itself, which counts as one of ``k`` or of ``max_neighbours``.
        error_at: Makes the error of an event.

    Returns:
        Edges ``(source, target)`` from a neighbour to the point, sorted by (target, source).

    Raises:
        SpecError: Options or arrays do not fit each other.
        ProcessError: A coordinate is not finite.
    """
    check_neighbours(k, radius, max_neighbours)
    given, starts = np.asarray(points), np.ascontiguousarray(offsets, np.int64)
    if given.ndim != 2 or given.shape[1] < 1 or given.dtype.kind not in "iuf":
        raise SpecError(f"points (T, D) of numbers were expected, not {given.shape} {given.dtype}")
    if len(given) != starts[-1]:
        raise SpecError(f"offsets up to {len(given)}, the number of points, were expected, not up to {starts[-1]}")
    coords = np.ascontiguousarray(given, np.float64)
    finite = np.isfinite(coords).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise error_at(
            f"point {coords[row].tolist()} is not finite and has no neighbours: drop or repair it first",
            event_of(row, starts),
        )
    most = k if k is not None else max_neighbours
    squared = math.inf if radius is None else float(radius) * float(radius)
    edge_index, edge_offsets = _voxels.edges(coords, starts, -1 if most is None else most, squared, loop)
    return Graph(edge_index, starts, edge_offsets)
