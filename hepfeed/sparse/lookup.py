"""Operators that look up cells and rows.  None has a gradient; lengths that depend on numbers are unbacked sizes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from hepfeed.errors import ProcessError
from hepfeed.sites import find_sites as _find
from hepfeed.sparse.arrays import array

__all__ = ["cells_of_points", "find_sites", "rows_of_mask"]

_FARTHEST = 2.0**30  # cell: beyond any grid, and with a neighbour that int32 holds


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
    coords = points.detach().double().numpy()
    finite = np.isfinite(coords).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise ProcessError(f"coordinates of points must be finite, and point {row} is at {coords[row].tolist()}")
    cells = np.empty((coords.shape[0], 1 + coords.shape[1]), np.int32)
    cells[:, 0] = np.clip(events.numpy(), -1, 2**31 - 1)
    cells[:, 1:] = np.clip(np.floor(coords), -_FARTHEST, _FARTHEST)
    return torch.from_numpy(cells)


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


@find_sites.register_fake
def _(
    indices: torch.Tensor, order: torch.Tensor, queries: torch.Tensor, shape: Sequence[int], batch: int
) -> torch.Tensor:
    return queries.new_empty((queries.shape[0],))


@torch.library.custom_op("hepfeed::rows_of_mask", mutates_args=(), device_types="cpu")
def rows_of_mask(mask: torch.Tensor) -> torch.Tensor:
    """Return ``(K,) int32``: the rows for which ``mask (N,) bool`` is True."""
    return torch.from_numpy(np.flatnonzero(mask.numpy()).astype(np.int32))


@rows_of_mask.register_fake
def _(mask: torch.Tensor) -> torch.Tensor:
    return mask.new_empty((torch.library.get_ctx().new_dynamic_size(),), dtype=torch.int32)
