"""Cells and rows on a device."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hepfeed import sites as host
from hepfeed.device import native
from hepfeed.device.checks import check_same_device
from hepfeed.device.site_arrays import aligned, are_rows, are_sites, on_host
from hepfeed.device.site_keys import no_faults, number_sites
from hepfeed.sites import FARTHEST, check_grid

__all__ = ["cells_of_points", "find_sites", "rows_of_mask"]


def cells_of_points(points: torch.Tensor, events: torch.Tensor) -> torch.Tensor:
    """Return the cell of each point; see :func:`hepfeed.sparse.lookup.cells_of_points`.

    The host waits once, for whether all coordinates are finite: they are data, so that no one has looked at them.
    """
    check_same_device(points=points, events=events)
    if points.ndim != 2 or events.shape != points.shape[:1]:
        cells: torch.Tensor = on_host(host.cells_of_points, points.double(), events)
        return cells
    coords = (points if points.dtype == torch.float32 else points.double()).detach().contiguous()
    numbers = (events if events.dtype == torch.int32 else events.long()).contiguous()
    rows, dims = coords.shape
    cells, faults = coords.new_empty((rows, 1 + dims), dtype=torch.int32), no_faults(coords)
    kernels = native.kernels()
    functions = {
        (torch.float32, torch.int32): kernels.cells_of_points_float32_int32,
        (torch.float32, torch.int64): kernels.cells_of_points_float32_int64,
        (torch.float64, torch.int32): kernels.cells_of_points_float64_int32,
        (torch.float64, torch.int64): kernels.cells_of_points_float64_int64,
    }
    with native.on_device(coords):
        functions[coords.dtype, numbers.dtype](
            native.address(coords),
            native.address(numbers),
            rows,
            dims,
            FARTHEST,
            native.address(cells),
            native.address(faults),
            native.stream(coords),
        )
    return on_host(host.cells_of_points, points.double(), events) if int(faults) else cells


def find_sites(
    indices: torch.Tensor, order: torch.Tensor, queries: torch.Tensor, shape: Sequence[int], batch: int
) -> torch.Tensor:
    """Look sites up; see :func:`hepfeed.sparse.lookup.find_sites`.

    The host does not wait.  For that the order is trusted to be the one of the indices: with another, sites are missed.
    """
    check_same_device(indices=indices, order=order, queries=queries)
    extents, events = check_grid(shape, batch)
    dims = len(extents)
    if not (are_sites(indices, dims) and are_sites(queries, dims) and are_rows(order, indices)):
        rows: torch.Tensor = on_host(host.find_sites, indices, order, queries, extents, events)
        return rows
    grid, sites, wanted, order = (events, extents, extents), aligned(indices), aligned(queries), order.contiguous()
    keys, found = number_sites(sites, order, grid, None), queries.new_empty((len(queries),))
    with native.on_device(sites):
        native.kernels().find_sites(
            native.address(keys),
            (native.address(sites), native.address(order), len(sites)),
            native.address(wanted),
            len(wanted),
            grid,
            native.address(found),
            native.stream(sites),
        )
    return found


def rows_of_mask(mask: torch.Tensor) -> torch.Tensor:
    """Return the rows for which a mask is True; see :func:`hepfeed.sparse.lookup.rows_of_mask`.

    The host waits once, for their number.
    """
    return mask.flatten().nonzero().flatten().to(torch.int32)
