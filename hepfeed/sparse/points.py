"""Between points and voxels: points into voxels, voxels to points, and interpolation.

Voxel v covers coordinates from v up to v + 1 in units of voxels, and its features sit at its centre, v + 1/2.  Results
are the same bits for any number of threads, and can be differentiated any number of times.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Literal

import torch

from hepfeed.device.floats import sum_dtype
from hepfeed.errors import SpecError
from hepfeed.sparse import lookup, maps
from hepfeed.sparse.arrays import check_device
from hepfeed.sparse.pooling import Reduction, reduce_rows
from hepfeed.sparse.rows import RowLists, row_sum
from hepfeed.sparse.sites import Sites
from hepfeed.sparse.tensor import SparseTensor

__all__ = ["interpolate", "point_to_voxel", "voxel_to_point"]


def point_to_voxel(
    features: torch.Tensor,
    points: torch.Tensor,
    events: torch.Tensor,
    spatial_shape: Sequence[int],
    batch_size: int,
    *,
    size: float | Sequence[float] = 1.0,
    low: float | Sequence[float] = 0.0,
    reduce: Reduction = "mean",
    outside: Literal["raise", "drop"] = "raise",
) -> tuple[SparseTensor, torch.Tensor]:
    """Reduce the features of points to those of the voxels that they lie in.

    Args:
        features: ``(T, C)`` float32, float64 or bfloat16; float16 on a CUDA device.  Gradients go back to them.
        points: ``(T, D)`` floating point coordinates; they have no gradient here.
        events: ``(T,)`` integers: place of the event of each point in the batch, in any order.
        spatial_shape: Voxels along each axis, ``D`` numbers.
        batch_size: Events; those without a point count.
        size: Edges of a voxel, one for all axes or one for each, in the unit of the points.
        low: Lower edges of the grid, likewise.
        reduce: What several points in one voxel come to, of each channel.
        outside: What becomes of points that are not in the grid: an error, or they are left out.

    Returns:
        A tensor with sorted sites, the voxels ``floor((x - low) / size)`` with a point; and ``(T,) int32``: the row of
        each point's voxel, -1 for those that were left out.

    Raises:
        SpecError: The arguments do not fit each other.
        ProcessError: A coordinate is not finite, or a point is outside.
    """
    axes = len(spatial_shape)
    sizes, lows = _per_axis("size", size, axes), _per_axis("low", low, axes)
    if min(sizes) <= 0:
        raise SpecError(f"size must be above 0, not {size}")
    if outside not in ("raise", "drop"):
        raise SpecError(f"outside must be 'raise' or 'drop', not {outside!r}")
    _check_points(points, events, axes)
    if features.ndim != 2 or features.shape[0] != points.shape[0]:
        raise SpecError(f"features must be ({points.shape[0]}, C), a row for each point, not {tuple(features.shape)}")
    check_device(points=points, features=features)
    device = points.device
    scaled = (points.detach().double() - torch.tensor(lows, device=device)) / torch.tensor(sizes, device=device)
    cells = lookup.cells_of_points(scaled, events)
    rows = torch.arange(points.shape[0], dtype=torch.int32, device=device)
    if outside == "drop":
        ends = torch.tensor([batch_size, *spatial_shape], device=device)
        rows = lookup.rows_of_mask(((cells >= 0) & (cells < ends)).all(1))
        cells = cells.index_select(0, rows)
    indices, row_of = maps.unique_sites(cells, spatial_shape, batch_size)
    sites = Sites(indices, tuple(spatial_shape), batch_size, indices.new_empty((0,)))
    lists = RowLists.of_pairs(row_of, rows, indices.shape[0], points.shape[0])
    nowhere = torch.full((points.shape[0],), -1, dtype=torch.int32, device=device)
    voxel = nowhere.index_copy(0, rows.long(), row_of)
    return SparseTensor._on(reduce_rows(features, lists, reduce), sites, {}), voxel


def voxel_to_point(x: SparseTensor, voxel: torch.Tensor) -> torch.Tensor:
    """Copy the features of voxels to the points in them.

    Args:
        x: A tensor.
        voxel: ``(T,) int32``: the row of each point's voxel, as :func:`point_to_voxel` returns it; -1 for none.

    Returns:
        ``(T, C)``; 0 for points without a voxel.

    Raises:
        SpecError: ``voxel`` is not of that shape or dtype.
        ValueError: There is no such row.
    """
    if voxel.ndim != 1 or voxel.dtype != torch.int32:
        raise SpecError(f"voxel must be (T,) int32, not {tuple(voxel.shape)} {voxel.dtype}")
    check_device(features=x.features, voxel=voxel)
    points = lookup.rows_of_mask(voxel != -1)
    lists = RowLists.of_pairs(points, voxel.index_select(0, points), voxel.shape[0], x.num_sites)
    return row_sum(x.features, lists)


def interpolate(
    x: SparseTensor,
    points: torch.Tensor,
    events: torch.Tensor,
    *,
    mode: Literal["linear", "nearest"] = "linear",
    renormalise: bool = False,
) -> torch.Tensor:
    """Return features at points between the voxels.

    Args:
        x: A tensor; gradients go back to its features.
        points: ``(T, D)`` floating point coordinates in units of voxels; may be outside of the images.  Gradients of
            ``"linear"`` go back to them.
        events: ``(T,)`` integers: place of the event of each point in the batch.
        mode: ``"linear"``: between the centres of the 2^D nearest voxels, linear in each coordinate; ``"nearest"``: the
            voxel that the point lies in.
        renormalise: Of ``"linear"``: whether weights are divided by the sum of those of the active voxels, so that
            voxels which are not active do not count, instead of counting as 0.

    Returns:
        ``(T, C)``; 0 where none of these voxels is active.

    Raises:
        SpecError: The arguments do not fit each other.
        ProcessError: A coordinate is not finite.
    """
    if mode not in ("linear", "nearest"):
        raise SpecError(f"mode must be 'linear' or 'nearest', not {mode!r}")
    _check_points(points, events, len(x.spatial_shape))
    check_device(points=points, features=x.features)
    if mode == "nearest":
        return voxel_to_point(x, _find(x, lookup.cells_of_points(points.detach(), events)))
    shifted = points - 0.5
    lowest = lookup.cells_of_points(shifted.detach(), events)
    share = shifted - lowest[:, 1:]
    # All corners at once, (2^D, 1, 1 + D) against the points.
    steps = [[(0, *corner)] for corner in itertools.product((0, 1), repeat=points.shape[1])]
    corners = torch.tensor(steps, dtype=torch.int32, device=points.device)
    rows = _find(x, (lowest + corners).flatten(0, 1))
    weights = functools.reduce(torch.mul, torch.where(corners[..., 1:] == 1, share, 1 - share).unbind(2)).flatten()
    pairs = lookup.rows_of_mask(rows >= 0)
    own = torch.arange(points.shape[0], dtype=torch.int32, device=points.device)
    targets = own.repeat(len(steps)).index_select(0, pairs)
    lists = RowLists.of_pairs(targets, rows.index_select(0, pairs), points.shape[0], x.num_sites, coefficients=True)
    coefficients = weights.to(sum_dtype(x.dtype)).index_select(0, pairs)
    out = row_sum(x.features, lists, coefficients)
    if not renormalise:
        return out
    total = row_sum(coefficients.new_ones((x.num_sites, 1)), lists, coefficients)
    return (out / torch.where(total > 0, total, 1)).to(x.dtype)


def _find(x: SparseTensor, cells: torch.Tensor) -> torch.Tensor:
    rows: torch.Tensor = lookup.find_sites(x.indices, x.sites.order, cells, x.spatial_shape, x.batch_size)
    return rows


def _per_axis(name: str, given: float | Sequence[float], axes: int) -> list[float]:
    numbers = [float(given)] * axes if isinstance(given, int | float) else [float(number) for number in given]
    if len(numbers) != axes or not all(map(math.isfinite, numbers)):
        raise SpecError(f"{name} must be a finite number, or one for each of {axes} axes, not {given}")
    return numbers


def _check_points(points: torch.Tensor, events: torch.Tensor, axes: int) -> None:
    if points.ndim != 2 or points.shape[1] != axes or not points.is_floating_point():
        raise SpecError(
            f"points must be (T, {axes}) floating point coordinates, not {tuple(points.shape)} {points.dtype}"
        )
    if events.shape != points.shape[:1] or events.dtype not in (torch.int32, torch.int64):
        raise SpecError(f"events must be ({len(points)},) int32 or int64, not {tuple(events.shape)} {events.dtype}")
    check_device(points=points, events=events)
