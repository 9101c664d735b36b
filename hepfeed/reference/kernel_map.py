"""Kernel maps in plain NumPy, by a binary search for each tap: the twin of :mod:`hepfeed.kernel_map`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["build_kernel_map"]

Rows = NDArray[np.int32]


def build_kernel_map(
    indices: Rows,
    spatial_shape: Sequence[int],
    out_shape: Sequence[int],
    batch_size: int,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    submanifold: bool,
    transposed: bool,
) -> tuple[Rows, Rows, NDArray[np.int64], Rows, Rows, Rows]:
    """Return ``(in_maps, out_maps, offsets, back_in, back_out, output indices)``.

    ``i = o * stride - padding + k * dilation``, or ``o = i * stride - padding + k * dilation`` where it is transposed;
    arguments have a number for each axis.  The swapped pairs are listed always.
    """
    steps, shift, spread = np.array(stride), np.array(padding), np.array(dilation)
    event, coords = indices[:, 0].astype(np.int64), indices[:, 1:].astype(np.int64)
    grids = (max(batch_size, 1), *out_shape)
    reached = []
    for tap in itertools.product(*map(range, kernel_size)):
        if transposed:
            place = coords * steps - shift + np.array(tap) * spread
            whole = np.ones_like(place, np.bool_)
        else:
            scaled = coords + shift - np.array(tap) * spread
            place, whole = scaled // steps, scaled % steps == 0
        rows = np.flatnonzero((whole & (place >= 0) & (place < np.array(out_shape))).all(axis=1))
        reached.append((rows, np.ravel_multi_index((event[rows], *place[rows].T), grids)))
    if submanifold:
        outputs = np.ravel_multi_index((event, *coords.T), grids)
    else:
        outputs = np.unique(np.concatenate([cell for _, cell in reached]))
    by_cell = np.argsort(outputs)
    forth, back = [], []
    for rows, cell in reached:
        at = np.searchsorted(outputs, cell, sorter=by_cell)
        hit = at < len(outputs)
        hit[hit] = outputs[by_cell[at[hit]]] == cell[hit]
        pairs = np.stack([rows[hit], by_cell[at[hit]]])
        forth.append(pairs[:, np.argsort(pairs[1])])
        back.append(pairs[::-1, np.argsort(pairs[0])])
    offsets = np.cumsum([0, *(pairs.shape[1] for pairs in forth)], dtype=np.int64)
    sites = np.stack(np.unravel_index(outputs, grids), axis=1).astype(np.int32)
    in_maps, out_maps = np.concatenate(forth, axis=1).astype(np.int32)
    back_in, back_out = np.concatenate(back, axis=1).astype(np.int32)
    return in_maps, out_maps, offsets, back_in, back_out, sites
