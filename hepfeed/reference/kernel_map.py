"""Kernel maps in plain NumPy, by a binary search for each tap: the twin of :mod:`hepfeed.kernel_map`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["build_kernel_map"]


def build_kernel_map(
    indices: NDArray[np.int32],
    spatial_shape: Sequence[int],
    batch_size: int,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    submanifold: bool,
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]:
    """Return ``(pairs (2, P), starts (K + 1,), output indices)`` of ``i = o * stride - padding + k * dilation``."""
    shape, steps = np.array(spatial_shape), np.array(stride)
    shift, spread = np.array(padding), np.array(dilation)
    event, coords = indices[:, 0].astype(np.int64), indices[:, 1:].astype(np.int64)
    taps = np.array(list(itertools.product(*map(range, kernel_size))), np.int64)
    out_shape = shape if submanifold else (shape + 2 * shift - spread * (np.array(kernel_size) - 1) - 1) // steps + 1
    reached = []
    for tap in taps:
        scaled = coords + shift - tap * spread
        valid = ((scaled % steps == 0) & (scaled >= 0) & (scaled // steps < out_shape)).all(axis=1)
        rows = np.flatnonzero(valid)
        cell = np.ravel_multi_index((event[rows], *(scaled[rows] // steps).T), (max(batch_size, 1), *out_shape))
        reached.append((rows, cell))
    if submanifold:
        outputs = np.ravel_multi_index((event, *coords.T), (max(batch_size, 1), *shape))
    else:
        outputs = np.unique(np.concatenate([cell for _, cell in reached]))
    pairs = []
    for rows, cell in reached:
        found = np.searchsorted(outputs, cell)
        hit = found < len(outputs)
        hit[hit] = outputs[found[hit]] == cell[hit]
        pairs.append(np.stack([rows[hit], found[hit]]))
    starts = np.cumsum([0, *(pair.shape[1] for pair in pairs)], dtype=np.int64)
    sites = np.stack(np.unravel_index(outputs, (max(batch_size, 1), *out_shape)), axis=1)
    return np.concatenate(pairs, axis=1).astype(np.int32), starts, sites.astype(np.int32)
