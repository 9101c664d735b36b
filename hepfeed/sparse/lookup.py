"""Operators that look up cells and rows.  None has a gradient; lengths that depend on numbers are unbacked sizes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from hepfeed.device import lookup as device
from hepfeed.sites import cells_of_points as _cells
from hepfeed.sites import find_sites as _find
from hepfeed.sparse.arrays import array

__all__ = ["cells_of_points", "find_sites", "rows_of_mask"]


@torch.library.custom_op("hepfeed::cells_of_points", mutates_args=(), device_types="cpu")
def cells_of_points(points: torch.Tensor, events: torch.Tensor) -> torch.Tensor:
    """Return the cell of each point, which may be outside of any grid.

    Args:
        points: ``(T, D)`` float32 or float64 coordinates in units of cells.
        events: ``(T,)`` int32 or int64.

    Returns:
        ``(T, 1 + D) int32``: the event, and coordinates rounded down; those beyond 2^30 are 2^30.

    Raises:
        ProcessError: A coordinate is not finite.
    """
    return torch.from_numpy(_cells(points.detach().double().numpy(), events.numpy()))


cells_of_points.register_kernel("cuda")(device.cells_of_points)


@cells_of_points.register_fake
def _(points: torch.Tensor, events: torch.Tensor) -> torch.Tensor:
    return points.new_empty((points.shape[0], 1 + points.shape[1]), dtype=torch.int32)


@torch.library.custom_op("hepfeed::find_sites", mutates_args=(), device_types="cpu")
def find_sites(
    indices: torch.Tensor, order: torch.Tensor, queries: torch.Tensor, shape: Sequence[int], batch: int
) -> torch.Tensor:
    """Look sites up; see :func:`hepfeed.sites.find_sites`.

    Args:
        indices: ``(N, 1 + D) int32``: event and coordinates.
        order: Of the indices.
        queries: ``(Q, 1 + D) int32``: what to look for; may be outside of the images.
        shape: Of the images, ``D`` numbers.
        batch: Events.

    Returns:
        ``(Q,) int32``: the row of ``indices`` that is each query, or -1.
    """
    found = _find(array(indices), array(order), array(queries), shape, batch, threads=torch.get_num_threads())
    return torch.from_numpy(found)


find_sites.register_kernel("cuda")(device.find_sites)


@find_sites.register_fake
def _(
    indices: torch.Tensor, order: torch.Tensor, queries: torch.Tensor, shape: Sequence[int], batch: int
) -> torch.Tensor:
    return queries.new_empty((queries.shape[0],))


@torch.library.custom_op("hepfeed::rows_of_mask", mutates_args=(), device_types="cpu")
def rows_of_mask(mask: torch.Tensor) -> torch.Tensor:
    """Return ``(K,) int32``: the rows for which ``mask (N,) bool`` is True."""
    return torch.from_numpy(np.flatnonzero(mask.numpy()).astype(np.int32))


rows_of_mask.register_kernel("cuda")(device.rows_of_mask)


@rows_of_mask.register_fake
def _(mask: torch.Tensor) -> torch.Tensor:
    return mask.new_empty((torch.library.get_ctx().new_dynamic_size(),), dtype=torch.int32)
