"""Sets of sites: rows of (event, coordinates), their order, and how sets of them meet."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfeed import _sites
from hepfeed.errors import ProcessError, SpecError

__all__ = [
    "FARTHEST",
    "cells_of_points",
    "check_grid",
    "check_indices",
    "find_sites",
    "merge_sites",
    "sort_sites",
    "unique_sites",
]

FARTHEST = 2**30
"""Coordinates of points' cells are held within this: beyond any grid, and with a neighbour that int32 holds."""

Ints = NDArray[np.int32]

_MOST_AXES, _MOST_ROWS, _MOST_PLACES = 16, 2**31 - 1, 2**62


def check_grid(spatial_shape: Sequence[int], batch_size: int) -> tuple[tuple[int, ...], int]:
    """Return the shape and the number of grids of a batch.

    Raises:
        SpecError: The shape has no axis or more than 16, a size is no size, or the places of the batch are more than
            the 2^62 that can be numbered.
    """
    try:
        shape, events = tuple(operator.index(extent) for extent in spatial_shape), operator.index(batch_size)
    except TypeError:
        raise SpecError(
            f"spatial_shape must be integers and batch_size an integer, not {spatial_shape!r} and {batch_size!r}"
        ) from None
    if not 1 <= len(shape) <= _MOST_AXES or not all(1 <= extent <= _MOST_ROWS for extent in shape):
        raise SpecError(f"spatial_shape must have 1 to {_MOST_AXES} axes of 1 to 2^31 - 1 cells each, not {shape}")
    if not 0 <= events <= _MOST_ROWS:
        raise SpecError(f"batch_size must be 0 to 2^31 - 1, not {events}")
    check_places(shape, events)
    return shape, events


def check_places(widths: Sequence[int], events: int) -> None:
    """Check that the places of a batch of grids can be numbered.

    Raises:
        SpecError: They are more than 2^62.
    """
    if max(events, 1) * math.prod(widths) > _MOST_PLACES:
        raise SpecError(f"a batch has up to 2^62 places, and {events} grids of {tuple(widths)} have more")


def check_indices(indices: Ints, dims: int, argument: str = "indices") -> Ints:
    """Return indices of sites as the kernels take them.

    Raises:
        SpecError: They are not ``(N, 1 + dims)`` integers of 32 bits, or too many.
    """
    given = np.asarray(indices)
    if given.ndim != 2 or given.shape[1] != 1 + dims or given.dtype.kind not in "iu":
        raise SpecError(
            f"{argument} (N, {1 + dims}) of integers were expected for a shape of {dims} axes, not {given.shape} of"
            f" {given.dtype}"
        )
    if len(given) >= _MOST_ROWS:
        raise SpecError(f"{argument} must have less than 2^31 - 1 rows, and have {len(given)}")
    made = np.require(given, np.int32, ("C", "A"))
    if given.dtype != np.int32 and not np.array_equal(made, given):
        raise SpecError(f"{argument} must fit int32, and are {given.min()} to {given.max()}")
    return made


def sort_sites(indices: Ints, spatial_shape: Sequence[int], batch_size: int, threads: int = 1) -> Ints:
    """Find the order of sites by (event, coordinates).

    Args:
        indices: ``(N, 1 + D) int32``: event and coordinates, in any order.
        spatial_shape: Of the grids, ``D`` numbers.
        batch_size: Events.
        threads: How many may work on it; the result is the same for any number.

    Returns:
        ``(N,) int32``: rows in the order of their sites; of length 0 where they lie in that order already.

    Raises:
        SpecError: The arguments do not fit each other, or the batch has more than 2^62 places.
        ProcessError: A site is outside of the grids, or there twice.
    """
    shape, events = check_grid(spatial_shape, batch_size)
    sites = check_indices(indices, len(shape))
    order, first, second = _sites.sort_sites(sites, shape, events, threads)
    if second >= 0:
        raise ProcessError(
            f"sites must be unique, and rows {first} and {second} are both {sites[first].tolist()} (event, coordinates)"
        )
    if first >= 0:
        raise _outside(sites, first, shape, events)
    return order


def unique_sites(indices: Ints, spatial_shape: Sequence[int], batch_size: int, threads: int = 1) -> tuple[Ints, Ints]:
    """Merge equal sites.

    Args:
        indices: ``(N, 1 + D) int32``: event and coordinates, in any order.
        spatial_shape: Of the grids, ``D`` numbers.
        batch_size: Events.
        threads: How many may work on it; the result is the same for any number.

    Returns:
        ``(M, 1 + D) int32``: the distinct sites, sorted by (event, coordinates), which are ``indices`` itself where
        those are sorted and distinct; and ``(N,) int32``: which of them each row is.

    Raises:
        SpecError: The arguments do not fit each other, or the batch has more than 2^62 places.
        ProcessError: A site is outside of the grids.
    """
    shape, events = check_grid(spatial_shape, batch_size)
    sites = check_indices(indices, len(shape))
    distinct, row_of, outside = _sites.unique_sites(sites, shape, events, threads)
    if outside >= 0:
        raise _outside(sites, outside, shape, events)
    return distinct, row_of


def merge_sites(
    parts: Sequence[Ints], spatial_shape: Sequence[int], batch_size: int, threads: int = 1
) -> tuple[Ints, list[Ints]]:
    """Unite sets of sites.

    Args:
        parts: Indices of each set, ``(N_j, 1 + D) int32``, in any order.
        spatial_shape: Of the grids, ``D`` numbers.
        batch_size: Events.
        threads: How many may work on it; the result is the same for any number.

    Returns:
        ``(M, 1 + D) int32``: the sites of all sets, sorted by (event, coordinates); and for each set ``(N_j,) int32``:
        which of them each row is.

    Raises:
        SpecError: The arguments do not fit each other, or the batch has more than 2^62 places.
        ProcessError: A site is outside of the grids; the row counts from the first set on.
    """
    shape, _ = check_grid(spatial_shape, batch_size)
    none = np.empty((0, 1 + len(shape)), np.int32)
    sets = [check_indices(part, len(shape), f"parts[{number}]") for number, part in enumerate(parts)]
    union, row_of = unique_sites(np.concatenate([none, *sets]), shape, batch_size, threads)
    return union, np.split(row_of, np.cumsum([len(each) for each in sets])[:-1]) if sets else []


def find_sites(
    indices: Ints,
    order: Ints,
    queries: Ints,
    spatial_shape: Sequence[int],
    batch_size: int,
    threads: int = 1,
) -> Ints:
    """Look sites up.

    Args:
        indices: ``(N, 1 + D) int32``: event and coordinates.
        order: Of the indices, as from :func:`sort_sites`.
        queries: ``(Q, 1 + D) int32``: what to look for, in any order; may be outside of the grids.  Queries near the
            query before are found faster.
        spatial_shape: Of the grids, ``D`` numbers.
        batch_size: Events.
        threads: How many may work on it; the result is the same for any number.

    Returns:
        ``(Q,) int32``: the row of ``indices`` that is each query, or -1.

    Raises:
        SpecError: The arguments do not fit each other, the order is not that of the indices, or the batch has more than
            2^62 places.
    """
    shape, events = check_grid(spatial_shape, batch_size)
    sites, wanted = check_indices(indices, len(shape)), check_indices(queries, len(shape), "queries")
    return _sites.find_sites(sites, check_order(order, len(sites)), wanted, shape, events, threads)


def cells_of_points(points: NDArray[Any], events: NDArray[Any]) -> Ints:
    """Return the cell of each point, which may be outside of any grid.

    Args:
        points: ``(T, D)`` coordinates in units of cells.
        events: ``(T,)`` integers.

    Returns:
        ``(T, 1 + D) int32``: the event, and coordinates rounded down; those beyond 2^30 are 2^30.

    Raises:
        ProcessError: A coordinate is not finite.
    """
    coords = np.asarray(points, np.float64)
    finite = np.isfinite(coords).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise ProcessError(f"coordinates of points must be finite, and point {row} is at {coords[row].tolist()}")
    cells = np.empty((coords.shape[0], 1 + coords.shape[1]), np.int32)
    cells[:, 0] = np.clip(events, -1, 2**31 - 1)
    cells[:, 1:] = np.clip(np.floor(coords), -FARTHEST, FARTHEST)
    return cells


def check_order(order: Ints, rows: int) -> Ints:
    """Return an order of rows as the kernels take it.

    Raises:
        SpecError: It has neither no row nor all of them.
    """
    given = np.asarray(order)
    if given.dtype != np.int32 or given.shape not in ((0,), (rows,)):
        raise SpecError(f"order must be (0,) or ({rows},) int32, as from sort_sites, not {given.shape} {given.dtype}")
    return np.require(given, requirements=("C", "A"))


def _outside(sites: Ints, row: int, shape: tuple[int, ...], events: int) -> ProcessError:
    return ProcessError(
        f"site {sites[row].tolist()} (event, coordinates) in row {row} is outside of {events} images of {shape}"
    )
