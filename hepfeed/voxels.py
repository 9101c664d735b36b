"""Voxels of points and of images: arrays in, arrays out, by native kernels.

Sites are sorted by (event, coordinates) and unique, coordinates in C order of the grid.  The plain NumPy form of each
function is in :mod:`hepfeed.reference.voxels`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hepfeed import _voxels
from hepfeed.errors import ProcessError, SpecError
from hepfeed.grid import (
    Box,
    ErrorAt,
    Outside,
    Points,
    axes_of,
    cells_of_points,
    check_shape,
    error_in_batch,
    event_of,
    numbers,
)
from hepfeed.tensors import Sparse

__all__ = [
    "Reduction",
    "Voxels",
    "check_threshold",
    "densify",
    "histogram",
    "move_sites",
    "resite",
    "sparsify",
    "spatial",
    "voxelise",
]

_EXACT_IN_FLOAT32 = 2.0**24  # integers below
Reduction = Literal["sum", "mean", "max"]
"""What becomes of the numbers of several points in one voxel."""


@dataclass(frozen=True)
class Voxels:
    """The occupied voxels of a batch, and the points in each.

    Attributes:
        shape: Of the grid.
        order: ``(M,) uint32``: the rows of points in some voxel, by (event, voxel, row).
        starts: ``(V + 1,) int64``: voxel v has the points ``order[starts[v]:starts[v + 1]]``, one or more.
        cell: ``(V,) int64``: number of the voxel in C order of the grid.
        offsets: ``(B + 1,) int64``: voxels of each event.
        points: ``T``, those outside included.
    """

    shape: tuple[int, ...]
    order: NDArray[np.uint32]
    starts: NDArray[np.int64]
    cell: NDArray[np.int64]
    offsets: NDArray[np.int64]
    points: int

    @classmethod
    def of_points(
        cls,
        points: Points,
        offsets: NDArray[np.int64],
        box: Box,
        outside: Outside = "drop",
        error_at: ErrorAt = error_in_batch,
    ) -> Voxels:
        """Find the voxels of points.

        Args:
            points: ``T`` points.
            offsets: ``(B + 1,) int64``: points of each event.
            box: The grid.
            outside: What becomes of points that are not in it.  Infinite coordinates are outside too.
            error_at: Makes the error of an event.

        Raises:
            SpecError: The points do not fit the grid or the offsets.
            ProcessError: A coordinate is NaN, or with ``outside="raise"`` a point is outside.
        """
        axes = axes_of(points, len(box.shape))
        bins = list(zip(box.low, box.size, box.shape))
        return cls.of_cells(cells_of_points(axes, bins, offsets, outside, error_at), offsets, box.shape)

    @classmethod
    def of_cells(cls, cell: NDArray[np.int64], offsets: NDArray[np.int64], shape: Sequence[int]) -> Voxels:
        """Find the voxels of points whose cells ``(T,)`` are known, below 0 outside."""
        starts = np.ascontiguousarray(offsets, np.int64)
        return cls(tuple(shape), *_voxels.group_rows(cell, starts, math.prod(shape)), len(cell))

    def __len__(self) -> int:
        return len(self.cell)

    @property
    def batch_size(self) -> int:
        """Number of events."""
        return len(self.offsets) - 1

    def indices(self) -> NDArray[np.int32]:
        """Return ``(V, 1 + D) int32``: place of the event in the batch, then coordinates."""
        return _voxels.sites_of_cells(self.cell, self.offsets, self.shape)

    def counts(self) -> NDArray[np.int64]:
        """Return ``(V,) int64``: points in each voxel."""
        return np.diff(self.starts)

    def features(self, columns: Sequence[NDArray[Any]], reduce: Reduction | Sequence[Reduction]) -> NDArray[np.float32]:
        """Return ``(V, C) float32``: what several columns of the points come to in each voxel.

        Args:
            columns: Each ``(T,)`` or ``(T, c)``; stacked along the last axis.
            reduce: For all columns, or one for each.  Sums and means are taken in float64, in the order of points, and
                rounded once.
        """
        parts = [_columns(column, self.points) for column in columns]
        hows: Sequence[Reduction] = [reduce] * len(parts) if isinstance(reduce, str) else reduce
        if len(hows) != len(parts):
            raise SpecError(f"one reduction, or one for each of {len(parts)} columns, was expected, not {reduce!r}")
        made = np.empty((len(self), sum(part.shape[1] for part in parts)), np.float32)
        column = 0
        for part, how in zip(parts, hows):
            _voxels.reduce_groups(part, self.order, self.starts, how, made, column)
            column += part.shape[1]
        return made

    def merged(self, features: NDArray[Any], reduce: Reduction, error_at: ErrorAt = error_in_batch) -> NDArray[Any]:
        """Return ``(V, C)`` like :meth:`features`, of the type that ``features (T, C)`` have; sums of bools are "any".

        Raises:
            ProcessError: A sum of integers does not fit their type.
        """
        given = np.asarray(features)
        native = _columns(given, self.points)
        how: Reduction = "max" if given.dtype == np.bool_ else reduce
        made = np.empty((len(self), native.shape[1]), native.dtype)
        bad = _voxels.reduce_groups(native, self.order, self.starts, how, made)
        if bad >= 0:
            raise error_at(
                f"the sum of several {native.dtype} features of one voxel does not fit their type: cast them to a wider"
                " one first",
                event_of(bad, self.offsets),
            )
        return made.view(np.bool_) if given.dtype == np.bool_ else made

    def labels(self, labels: NDArray[Any], weights: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return ``(V,)``: one label of each voxel, of the labels' type.

        Args:
            labels: ``(T,)`` integers.
            weights: ``(T,)``: the label is that of the point with the largest weight, of several the first one (NaN is
                below every number).  None: the label that most points have, of several the least.
        """
        given = np.asarray(labels)
        if given.dtype.kind not in "iub" or given.dtype == np.uint64 or given.shape != (self.points,):
            raise SpecError(
                f"labels must be ({self.points},) integers that int64 holds, not {given.shape} {given.dtype}"
            )
        weight = None if weights is None else np.ascontiguousarray(weights, np.float64)
        found = _voxels.labels(np.ascontiguousarray(given, np.int64), weight, self.order, self.starts)
        return found.astype(given.dtype.newbyteorder("="))

    def rows(self) -> NDArray[np.int64]:
        """Return ``(T,) int64``: which voxel of its event each point is in, -1 outside."""
        return _voxels.group_of_rows(self.order, self.starts, self.offsets, self.points)


def _columns(values: Any, rows: int) -> NDArray[Any]:
    array = numbers(values, "features")
    if array.ndim not in (1, 2) or len(array) != rows:
        raise SpecError(f"features of shape ({rows},) or ({rows}, C) were expected, not {array.shape}")
    return array[:, None] if array.ndim == 1 else array


def voxelise(
    points: Points,
    offsets: NDArray[np.int64],
    features: Sequence[NDArray[Any]],
    box: Box,
    reduce: Reduction | Sequence[Reduction] = "sum",
    outside: Outside = "drop",
) -> Sparse:
    """Return the voxels of points, with the sum, mean or maximum of their features.

    Args:
        points: ``T`` points.
        offsets: ``(B + 1,) int64``: points of each event.
        features: Each ``(T,)`` or ``(T, c)``; with none, voxels have the number of their points.
        box: The grid.
        reduce: For all features, or one for each.
        outside: What becomes of points that are not in the grid.

    Returns:
        ``B`` sparse images with features ``(V, C) float32``.

    Raises:
        SpecError: Arrays do not fit each other.
        ProcessError: A coordinate is NaN, or with ``outside="raise"`` a point is outside.
    """
    voxels = Voxels.of_points(points, offsets, box, outside)
    made = voxels.features(features, reduce) if features else voxels.counts().astype(np.float32)[:, None]
    return Sparse(made, voxels.indices(), box.shape, voxels.batch_size)


def histogram(
    points: Points,
    offsets: NDArray[np.int64],
    edges: Sequence[NDArray[np.float64]],
    weights: NDArray[Any] | None = None,
    last_closed: bool = False,
    outside: Outside = "drop",
    error_at: ErrorAt = error_in_batch,
) -> NDArray[np.float32]:
    """Return a histogram of the points of each event.

    Bin b of an axis holds ``edges[b] <= x < edges[b + 1]``.

    Args:
        points: ``T`` points.
        offsets: ``(B + 1,) int64``: points of each event.
        edges: Of each axis; see :func:`edges_of`.
        weights: ``(T,)``; None: points are counted.
        last_closed: Whether the last edge belongs to the last bin, as in ``numpy.histogramdd``.
        outside: What becomes of points that are not in the histogram.  Infinite coordinates are outside too.
        error_at: Makes the error of an event.

    Returns:
        ``(B, *bins) float32``: sums, taken in float64 in the order of points and rounded once.

    Raises:
        SpecError: Arrays do not fit each other.
        ProcessError: A coordinate is NaN, or with ``outside="raise"`` a point is outside.
    """
    axes = axes_of(points, len(edges))
    starts = np.ascontiguousarray(offsets, np.int64)
    cell = cells_of_points(axes, [(each, last_closed) for each in edges], starts, outside, error_at)
    given = None if weights is None else numbers(weights, "weights")
    if given is not None and given.shape != cell.shape:
        raise SpecError(f"weights of shape {cell.shape} were expected, not {given.shape}")
    return _voxels.histogram(cell, given, starts, [len(each) - 1 for each in edges])


def sparsify(
    dense: ArrayLike, threshold: float = 0.0, absolute: bool = False, channel_axis: int | None = None
) -> Sparse:
    """Return the sites of dense images that are above a threshold.

    Args:
        dense: ``(B, *shape)`` integers or floating point, of which one axis may be that of channels.
        threshold: Sites are ``x > threshold``; it is rounded to the type of floating-point images, as NumPy does.  NaN
            is not dropped silently: it makes a site too.
        absolute: Sites are ``|x| > threshold``.
        channel_axis: Axis of the channels, counted from 0 behind the batch (or from -1 at the end): a site is where any
            channel is above.  None: there is one channel and no axis for it.

    Returns:
        ``B`` sparse images with features ``(N, C)``: float64 where ``dense`` is, else float32.

    Raises:
        SpecError: The images have no spatial axis, or the threshold is NaN or below 0 where ``absolute``.
        ProcessError: An integer of more than 24 bits, which float32 would round.
    """
    images = numbers(dense, "images")
    check_threshold(threshold, absolute)
    axis, shape = spatial(images.shape, channel_axis)
    indices, features = _voxels.sparsify(images, float(threshold), absolute, axis, images.dtype == np.float64)
    if images.dtype.kind in "iu" and images.dtype.itemsize >= 4 and features.size:
        largest = float(np.abs(features).max())
        if largest >= _EXACT_IN_FLOAT32:
            raise ProcessError(
                f"images of {images.dtype} hold {largest:.0f}, which float32 features would round: cast them to float64"
                " first"
            )
    return Sparse(features, indices, shape, len(images))


def check_threshold(threshold: float, absolute: bool) -> None:
    """Raise SpecError for a threshold that is NaN, or below 0 where absolute values are meant."""
    if math.isnan(threshold) or (absolute and threshold < 0):
        raise SpecError(f"threshold must be a number{' of 0 or more' if absolute else ''}, not {threshold}")


def spatial(shape: Sequence[int], channel_axis: int | None) -> tuple[int | None, tuple[int, ...]]:
    """Return the channel axis, counted from 0 behind the batch, and the spatial shape of dense images.

    Raises:
        SpecError: There is no such axis, or none else.
    """
    event = list(shape[1:])
    axis = None
    if channel_axis is not None:
        if not -len(event) <= channel_axis < len(event):
            raise SpecError(f"channel axis {channel_axis} is not among the axes of events of shape {tuple(event)}")
        axis = channel_axis % len(event)
        if event.pop(axis) < 1:
            raise SpecError(f"images need one channel or more, and their shape is {tuple(shape)}")
    return axis, check_shape(event, "images")


def densify(sparse: Sparse, channel_axis: int | None = None, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return sparse images as dense ones, which are 0 where there is no site: the inverse of :func:`sparsify`.

    Args:
        sparse: ``B`` images with features ``(N, C)``.
        channel_axis: Where the axis of channels goes, counted from 0 behind the batch (or from -1 at the end).  None:
            there is one channel, and no axis for it.
        out: An array to write to, in C order, of the shape and type of the result.

    Returns:
        ``(B, *spatial_shape)`` with the axis of channels, of the features' type.

    Raises:
        SpecError: There are several channels and no axis for them, no such axis, or ``out`` does not fit.
        ProcessError: A site is outside of the images.
    """
    features = np.asarray(sparse.features)
    native = numbers(features, "features")
    shape = [sparse.batch_size, *check_shape(sparse.spatial_shape, "spatial_shape")]
    axis = None
    if channel_axis is not None:
        if not -len(shape) <= channel_axis < len(shape):
            raise SpecError(f"channel axis {channel_axis} is not among those of events of {len(shape)} axes")
        axis = channel_axis % len(shape)
        shape.insert(1 + axis, native.shape[1])
    elif native.shape[1] != 1:
        raise SpecError(f"sparse images with {native.shape[1]} channels need a channel axis: give channel_axis")
    dtype = np.dtype(np.bool_) if features.dtype == np.bool_ else native.dtype
    dense = np.empty(shape, dtype) if out is None else out
    if dense.shape != tuple(shape) or dense.dtype != dtype or not dense.flags.c_contiguous:
        raise SpecError(
            f"out must be {tuple(shape)} {dtype} in C order, not {dense.shape} {dense.dtype}"
            f"{'' if dense.flags.c_contiguous else ' with gaps'}"
        )
    if not native.shape[1]:
        return dense
    sites = np.ascontiguousarray(sparse.indices, np.int32)
    bad = _voxels.densify(sites, native, dense.view(np.uint8) if dtype == np.bool_ else dense, axis)
    if bad >= 0:
        raise ProcessError(
            f"site {sites[bad].tolist()} (event, coordinates) is outside of {sparse.batch_size} images of shape"
            f" {tuple(sparse.spatial_shape)}"
        )
    return dense


def move_sites(
    sparse: Sparse,
    reverse: NDArray[np.bool_] | None,
    origin: NDArray[np.int64] | None,
    spatial_shape: Sequence[int],
) -> Sparse:
    """Reverse axes of sparse images and cut out a window: ``x' = (length - 1 - x if reversed else x) - origin``.

    No two sites meet, and the order is found without sorting, which makes this much faster than :func:`resite`.

    Args:
        sparse: ``N`` sites; its kernel maps are left out, since they do not hold any more.
        reverse: ``(B, D) bool``: which axes of which event are reversed, or None for none.
        origin: ``(B, D) int64``: where the window of each event begins, in its reversed image; None: at 0.
        spatial_shape: Of the window, ``D`` numbers; sites outside go.

    Raises:
        SpecError: Arrays do not fit each other.
    """
    shape = check_shape(spatial_shape, "spatial_shape")
    features, indices = np.asarray(sparse.features), np.asarray(sparse.indices)
    wanted = (sparse.batch_size, len(shape))
    for name, array in (("reverse", reverse), ("origin", origin)):
        if array is not None and array.shape != wanted:
            raise SpecError(f"{name} must be of shape {wanted}, not {array.shape}")
    if indices.dtype != np.int32 or indices.shape != (len(features), 1 + len(shape)) or features.ndim != 2:
        raise SpecError(
            f"features (N, C) and indices (N, {1 + len(shape)}) int32 were expected, not {features.shape} and"
            f" {indices.shape} {indices.dtype}"
        )
    moved, kept = _voxels.move_sites(
        np.ascontiguousarray(indices),
        np.ascontiguousarray(features),
        reversed=None if reverse is None else np.ascontiguousarray(reverse, np.bool_),
        origin=None if origin is None else np.ascontiguousarray(origin, np.int64),
        events=sparse.batch_size,
        lengths=sparse.spatial_shape,
        shape=shape,
    )
    return Sparse(kept, moved, shape, sparse.batch_size)


def resite(
    sparse: Sparse,
    coords: NDArray[np.int64],
    keep: NDArray[np.bool_] | None,
    spatial_shape: Sequence[int],
    reduce: Reduction = "sum",
) -> Sparse:
    """Move the sites of sparse images: what every change of geometry ends with.

    Sites outside of the new shape go, the others are sorted by (event, coordinates), and sites that meet are merged.

    Args:
        sparse: ``N`` sites; its kernel maps are left out, since they do not hold any more.
        coords: ``(N, D) int64``: where each site goes, in its event; may be outside, below 0 too.
        keep: ``(N,) bool``: which sites stay, or None for all.
        spatial_shape: Of the result, ``D`` numbers.
        reduce: How sites that meet are merged: the sum, the mean or the largest of each feature.  Sums and means of
            floating point are taken in float64, of integers (sums only) in 64 bits, and rounded to the features' type;
            bools are merged to whether any is true.

    Returns:
        Sparse images with the features' type.

    Raises:
        SpecError: Arrays do not fit each other, or the mean of integers is asked for.
        ProcessError: A sum of integers does not fit their type.
    """
    shape = check_shape(spatial_shape, "spatial_shape")
    features, places = np.asarray(sparse.features), np.ascontiguousarray(coords, np.int64)
    if features.ndim != 2 or places.shape != (len(features), len(shape)):
        raise SpecError(
            f"features (N, C) and coordinates (N, {len(shape)}) were expected, not {features.shape} and {places.shape}"
        )
    if reduce == "mean" and features.dtype.kind in "iu":
        raise SpecError(f"the mean needs features of floating point, not {features.dtype}: cast them first")
    kept = None if keep is None else np.ascontiguousarray(keep, np.bool_)
    voxels = Voxels.of_cells(_voxels.cells_of_sites(places, shape, kept), sparse.offsets(), shape)
    return Sparse(voxels.merged(features, reduce), voxels.indices(), shape, sparse.batch_size)
