"""Voxels in plain NumPy: the twins of :mod:`hepfeed.voxels`, one event after another where that is plainer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hepfeed.tensors import Sparse

__all__ = [
    "cells_of_points",
    "densify",
    "group_rows",
    "histogram",
    "labels_of_largest",
    "labels_of_majority",
    "reduce_groups",
    "move_sites",
    "resite",
    "sparsify",
    "voxelise",
]


def cells_of_points(
    points: NDArray[Any],
    shape: Sequence[int],
    low: Sequence[float],
    size: Sequence[float],
    outside: Literal["drop", "clip"] = "drop",
) -> NDArray[np.int64]:
    """Return ``(T,)``: the number, in C order, of the cell ``floor((x - low) / size)`` of each point.

    Args:
        points: ``(T, D)`` without NaN.
        shape: Cells along each axis.
        low: Lower edges.
        size: Edges of one cell.
        outside: Points that are not in the grid have the number -1, or with ``"clip"`` that of the nearest cell.
    """
    bins = np.floor((points.astype(np.float64) - np.asarray(low)) / np.asarray(size))
    last = np.asarray(shape) - 1
    inside = ((bins >= 0) & (bins <= last)).all(axis=1)
    clipped = np.clip(bins, 0, last).astype(np.int64)
    cells = np.ravel_multi_index(tuple(clipped.T), tuple(shape))
    return np.where(inside | (outside == "clip"), cells, -1)


def group_rows(
    cell: NDArray[np.int64], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return ``(order, starts, cell of each group, groups of each event)``.

    ``order`` has the rows with a cell of 0 or more by (event, cell, row); group g is
    ``order[starts[g]:starts[g + 1]]``, the rows of one event and one cell.
    """
    event = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    kept = np.flatnonzero(cell >= 0)
    order = kept[np.lexsort((cell[kept], event[kept]))]
    where = np.stack([event[order], cell[order]])
    new = np.flatnonzero(np.append(True, (np.diff(where) != 0).any(axis=0))[: len(order)])
    starts = np.append(new, len(order)).astype(np.int64)
    counts = np.bincount(event[order[new]], minlength=len(offsets) - 1)
    return order, starts, cell[order[new]], np.append(0, np.cumsum(counts)).astype(np.int64)


def reduce_groups(
    features: NDArray[Any],
    order: NDArray[np.int64],
    starts: NDArray[np.int64],
    reduce: Literal["sum", "mean", "max"],
) -> NDArray[Any]:
    """Return ``(G, C)``: ``sum, mean or max of features[i] over i in order[starts[g]:starts[g + 1]]``.

    Floating point is added in the order of i in float64 and stays so; integers are added in 64 bits.
    """
    values = features[order]
    groups = len(starts) - 1
    if reduce == "max":
        return np.maximum.reduceat(values, starts[:-1], axis=0) if groups else values[:0]
    wide = np.int64 if values.dtype.kind == "i" else np.uint64 if values.dtype.kind == "u" else np.float64
    sums = np.zeros((groups, values.shape[1]), wide)
    np.add.at(sums, np.repeat(np.arange(groups), np.diff(starts)), values.astype(wide))
    return sums / np.diff(starts)[:, None] if reduce == "mean" else sums


def labels_of_largest(
    labels: NDArray[Any], weights: NDArray[Any], order: NDArray[np.int64], starts: NDArray[np.int64]
) -> NDArray[Any]:
    """Return ``(G,)``: the label of the first row of each group with its largest weight; NaN is below all."""
    known = np.where(np.isnan(weights), -np.inf, weights)
    best = [
        rows[np.lexsort((np.arange(len(rows)), np.isnan(weights[rows]), -known[rows]))[0]]
        for rows in np.split(order, starts[1:-1])[: len(starts) - 1]
    ]
    return labels[np.array(best, np.int64)]


def labels_of_majority(labels: NDArray[Any], order: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[Any]:
    """Return ``(G,)``: the label that most rows of each group have, of several the least."""
    most = []
    for rows in np.split(order, starts[1:-1])[: len(starts) - 1]:
        values, counts = np.unique(labels[rows], return_counts=True)
        most.append(values[np.argmax(counts)])
    return np.array(most, labels.dtype)


def _sites(cell: NDArray[np.int64], offsets: NDArray[np.int64], shape: Sequence[int]) -> NDArray[np.int32]:
    event = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    return np.stack([event, *np.unravel_index(cell, tuple(shape))], axis=1).astype(np.int32)


def voxelise(
    points: NDArray[Any],
    offsets: NDArray[np.int64],
    features: NDArray[Any],
    shape: Sequence[int],
    low: Sequence[float],
    size: Sequence[float],
    reduce: Literal["sum", "mean", "max"] = "sum",
    outside: Literal["drop", "clip"] = "drop",
) -> Sparse:
    """Return voxel ``floor((x - low) / size)`` of points ``(T, D)`` with features ``(T, C)`` reduced."""
    cell = cells_of_points(points, shape, low, size, outside)
    order, starts, groups, group_offsets = group_rows(cell, offsets)
    made = reduce_groups(features, order, starts, reduce).astype(np.float32)
    return Sparse(made, _sites(groups, group_offsets, shape), tuple(shape), len(offsets) - 1)


def move_sites(
    sparse: Sparse,
    reverse: NDArray[np.bool_] | None,
    origin: NDArray[np.int64] | None,
    spatial_shape: Sequence[int],
) -> Sparse:
    """Return sites at ``x' = (length - 1 - x if reversed else x) - origin``, those within the shape."""
    event, coords = sparse.indices[:, 0], sparse.indices[:, 1:].astype(np.int64)
    if reverse is not None:
        coords = np.where(reverse[event], np.array(sparse.spatial_shape) - 1 - coords, coords)
    if origin is not None:
        coords = coords - origin[event]
    inside = ((coords >= 0) & (coords < np.array(spatial_shape))).all(axis=1)
    indices = np.concatenate([event[inside, None], coords[inside]], axis=1).astype(np.int32)
    order = np.lexsort(indices.T[::-1])
    return Sparse(sparse.features[inside][order], indices[order], tuple(spatial_shape), sparse.batch_size)


def resite(
    sparse: Sparse,
    coords: NDArray[np.int64],
    keep: NDArray[np.bool_] | None,
    spatial_shape: Sequence[int],
    reduce: Literal["sum", "mean", "max"] = "sum",
) -> Sparse:
    """Return sites moved to ``coords (N, D)``, where they are kept and inside, those that meet reduced."""
    shape = np.asarray(spatial_shape)
    inside = np.all((coords >= 0) & (coords < shape), axis=1)
    if keep is not None:
        inside &= keep
    cell = np.ravel_multi_index(tuple(np.where(inside[:, None], coords, 0).T), tuple(spatial_shape))
    order, starts, groups, offsets = group_rows(np.where(inside, cell, -1), sparse.offsets())
    made = reduce_groups(sparse.features, order, starts, reduce).astype(sparse.features.dtype)
    return Sparse(made, _sites(groups, offsets, spatial_shape), tuple(spatial_shape), sparse.batch_size)


def histogram(
    points: NDArray[Any],
    offsets: NDArray[np.int64],
    edges: Sequence[NDArray[np.float64]],
    weights: NDArray[Any] | None = None,
    last_closed: bool = False,
) -> NDArray[np.float32]:
    """Return ``(B, *bins)``: ``numpy.histogramdd`` of each event, with or without points on the last edges."""
    made = []
    for first, last in itertools.pairwise(offsets):
        event = points[first:last].astype(np.float64)
        weight = None if weights is None else weights[first:last].astype(np.float64)
        if not last_closed:
            inside = (event < np.array([edge[-1] for edge in edges])).all(axis=1)
            event, weight = event[inside], None if weight is None else weight[inside]
        made.append(np.histogramdd(event, list(edges), weights=weight)[0])
    return np.array(made, np.float32).reshape(-1, *(len(edge) - 1 for edge in edges))


def sparsify(
    dense: NDArray[Any], threshold: float = 0.0, absolute: bool = False, channel_axis: int | None = None
) -> Sparse:
    """Return the sites where ``x > threshold`` (``|x|`` where ``absolute``) or x is NaN, in any channel."""
    images = dense[..., None] if channel_axis is None else np.moveaxis(dense, 1 + channel_axis, -1)
    size = np.abs(images) if absolute else images
    active = (~(size <= threshold)).any(axis=-1)
    features = images[active].astype(np.float64 if dense.dtype == np.float64 else np.float32)
    return Sparse(features, np.argwhere(active).astype(np.int32), active.shape[1:], len(dense))


def densify(sparse: Sparse, channel_axis: int | None = None) -> NDArray[Any]:
    """Return ``(B, *shape)`` with ``dense[site] = feature`` and 0 elsewhere; channels at their axis."""
    channels = sparse.features.shape[1]
    dense = np.zeros((sparse.batch_size, *sparse.spatial_shape, channels), sparse.features.dtype)
    dense[tuple(sparse.indices.T)] = sparse.features
    return dense[..., 0] if channel_axis is None else np.ascontiguousarray(np.moveaxis(dense, -1, 1 + channel_axis))
