"""Grids of voxels and of bins, and which cell of them a point is in."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hepfeed import _voxels
from hepfeed.errors import HepfeedError, ProcessError, SpecError

__all__ = [
    "Box",
    "ErrorAt",
    "Outside",
    "Points",
    "axes_of",
    "cells_of_points",
    "check_shape",
    "edges_of",
    "event_of",
    "error_in_batch",
    "numbers",
]

Outside = Literal["drop", "clip", "raise"]
"""What becomes of a point outside of the grid: it is left out, moved to the nearest voxel, or an error."""

Points = NDArray[Any] | Sequence[NDArray[Any]]
"""Coordinates ``(T, D)``, or ``D`` arrays ``(T,)``."""

ErrorAt = Callable[[str, int], HepfeedError]
"""Makes an error of what is wrong and the place of the event in the batch."""

_MOST_CELLS = 2**62


def error_in_batch(message: str, event: int) -> HepfeedError:
    """Return an error that names an event by its place in the batch: all that is known without files."""
    return ProcessError(f"{message}, in event {event} of the batch")


@dataclass(frozen=True)
class Box:
    """A grid of equal voxels.

    Voxel ``b`` of an axis holds ``low + b * size <= x < low + (b + 1) * size``: a point on an edge belongs to the upper
    voxel, and one on the last edge is outside.  What decides is ``floor((x - low) / size)`` in float64.

    Attributes:
        shape: Voxels along each axis.
        low: Lower edge of the first voxel.
        size: Edge of a voxel.
    """

    shape: tuple[int, ...]
    low: tuple[float, ...]
    size: tuple[float, ...]

    @classmethod
    def of(
        cls,
        shape: Sequence[int],
        low: Sequence[float] | float | None = None,
        high: Sequence[float] | float | None = None,
        size: Sequence[float] | float | None = None,
    ) -> Box:
        """Return the grid that has ``low`` and ``high`` or ``low`` and ``size``, a number or one for each axis.

        With none of the three, coordinates are voxel numbers already.

        Raises:
            SpecError: The options do not say one grid, or one without voxels.
        """
        extents = check_shape(shape)
        given = [name for name, value in (("low", low), ("high", high), ("size", size)) if value is not None]
        if not given:
            return cls(extents, (0.0,) * len(extents), (1.0,) * len(extents))
        if given not in (["low", "high"], ["low", "size"]):
            raise SpecError(
                "a grid needs low and high, or low and size, or none of them where coordinates are voxel numbers"
                f" already; given are {' and '.join(given)}"
            )
        first = _per_axis("low", low, len(extents))
        if size is not None:
            edges = _per_axis("size", size, len(extents))
        else:
            last = _per_axis("high", high, len(extents))
            edges = tuple((e - b) / n for b, e, n in zip(first, last, extents))
        if not all(0 < edge < math.inf for edge in edges):
            raise SpecError(f"voxels must be larger than 0, and low {low}, high {high}, size {size} make them {edges}")
        return cls(extents, first, edges)


def check_shape(shape: Sequence[int], option: str = "shape") -> tuple[int, ...]:
    """Return the shape of a grid.

    Raises:
        SpecError: It has no axis, an axis without voxels, or too many voxels to be numbered.
    """
    extents = tuple(int(extent) for extent in shape)
    if not extents or not all(0 < extent < 2**31 for extent in extents) or math.prod(extents) >= _MOST_CELLS:
        raise SpecError(
            f"{option} must have one axis or more of 1 to 2^31 - 1 cells each, less than 2^62 in all, not {shape}"
        )
    return extents


def _per_axis(option: str, value: Sequence[float] | float | None, dims: int) -> tuple[float, ...]:
    made = (float(value),) * dims if isinstance(value, int | float) else tuple(float(x) for x in value or ())
    if len(made) != dims or not all(math.isfinite(x) for x in made):
        raise SpecError(f"{option} must be a finite number, or one for each of {dims} axes, not {value!r}")
    return made


def edges_of(
    bins: Sequence[int | Sequence[float]], ranges: Sequence[tuple[float, float]] | None
) -> list[NDArray[np.float64]]:
    """Return the edges of each axis of a histogram, as ``numpy.histogramdd`` has them.

    Args:
        bins: For each axis a number of equal bins, or their edges.
        ranges: For each axis the first and the last edge; None where all edges are given.

    Raises:
        SpecError: A range is missing or there for given edges, or edges do not rise.
    """
    if ranges is not None and len(ranges) != len(bins):
        raise SpecError(f"ranges must be given for each of {len(bins)} axes, not {ranges!r}")
    made = []
    for axis, each in enumerate(bins):
        if isinstance(each, int | np.integer):
            if ranges is None:
                raise SpecError(f"ranges must be given where bins are numbers, as {each} of axis {axis} is")
            low, high = (float(edge) for edge in ranges[axis])
            if each < 1:
                raise SpecError(f"there must be one bin or more, not {each} along axis {axis}")
            edges = np.linspace(low, high, int(each) + 1)
        else:
            edges = np.asarray(each, np.float64)
        if edges.ndim != 1 or len(edges) < 2 or not np.isfinite(edges).all() or (np.diff(edges) <= 0).any():
            raise SpecError(f"the edges of axis {axis} must be two or more finite, rising numbers, not {edges}")
        made.append(np.ascontiguousarray(edges))
    check_shape([len(edges) - 1 for edges in made], "bins")
    return made


def numbers(values: Any, what: str) -> NDArray[Any]:
    """Return an array in C order and the machine's byte order; bools as 0 and 1."""
    array = np.asarray(values)
    if array.dtype == np.bool_:
        array = array.view(np.uint8)
    if array.dtype.kind not in "iuf" or array.dtype.itemsize > 8:
        raise SpecError(f"{what} must be integers or floating point of up to 64 bits, not {array.dtype}")
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))


def axes_of(points: Points, dims: int) -> list[NDArray[Any]]:
    """Return the coordinates along each axis, ``(T,)``, views where they can be.

    Raises:
        SpecError: There are not ``dims`` of them, of one length.
    """
    if isinstance(points, np.ndarray):
        if points.ndim != 2 or points.shape[1] != dims:
            raise SpecError(f"points of shape (T, {dims}) were expected for a grid of {dims} axes, not {points.shape}")
        native = numbers(points, "coordinates")
        return [native[:, d] for d in range(dims)]
    axes = [numbers(axis, "coordinates") for axis in points]
    if len(axes) != dims or any(axis.shape != axes[0].shape or axis.ndim != 1 for axis in axes):
        raise SpecError(f"{dims} coordinates (T,) were expected, not {[axis.shape for axis in axes]}")
    return axes


def event_of(row: int, offsets: NDArray[np.int64]) -> int:
    """Return the place in the batch of the event that a row belongs to."""
    return int(np.searchsorted(offsets, row, "right")) - 1


def cells_of_points(
    axes: list[NDArray[Any]],
    bins: Sequence[tuple[Any, ...]],
    offsets: NDArray[np.int64],
    outside: Outside,
    error_at: ErrorAt,
) -> NDArray[np.int64]:
    """Return the cell of each point, -1 where it is left out.

    Args:
        axes: See :func:`axes_of`.
        bins: For each axis ``(low, size, count)``, or ``(edges, last_closed)``.
        offsets: ``(B + 1,) int64``: points of each event.
        outside: What becomes of points that are not in the grid.
        error_at: Makes the error of an event.

    Raises:
        SpecError: Offsets and points differ in number.
        ProcessError: A coordinate is NaN, or with ``outside="raise"`` a point is outside.
    """
    if len(axes[0]) != offsets[-1]:
        raise SpecError(f"offsets up to {len(axes[0])}, the number of points, were expected, not up to {offsets[-1]}")
    cell, bad = _voxels.cells_of_points([(axis, *how) for axis, how in zip(axes, bins)], outside == "clip")
    if bad >= 0:
        where = [float(axis[bad]) for axis in axes]
        raise error_at(f"point {where} has a NaN and so no voxel: drop or repair it first", event_of(bad, offsets))
    if outside == "raise" and (cell < 0).any():
        bad = int(np.argmax(cell < 0))
        where = [float(axis[bad]) for axis in axes]
        raise error_at(
            f"point {where} is outside of the grid: widen it, or give outside='drop' or 'clip'", event_of(bad, offsets)
        )
    return cell
