"""Keys of sites: numbers of 64 bits that count the places of a batch of images in C order.

A radix sort of keys reads and writes 24 bytes of a site for each digit of eight bits or so, and sorts only the digits
that the places of the batch need.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from hepfeed.device import native
from hepfeed.device.sorting import sort_pairs

__all__ = ["Grid", "check_sites", "distinct_sites", "no_faults", "number_sites", "sort_keys"]

Grid = tuple[int, Sequence[int], Sequence[int]]
"""Events, shape and, for each axis, how many cells the keys leave room for."""


def number_sites(
    indices: torch.Tensor, order: torch.Tensor | None, grid: Grid, faults: torch.Tensor | None
) -> torch.Tensor:
    """Return ``(N,) int64``: the keys of sites in their order, or as the rows lie without an order; -1 outside.

    Args:
        indices: ``(N, 1 + D) int32`` in C order at a multiple of 16 bytes.
        order: ``(N,) int32``, or of length 0, or None.
        grid: Of the keys.
        faults: From :func:`no_faults`: bit 0 is set where a site is outside of the grid or the order names no row, bit
            1 where a key is not above the one before; or None.
    """
    keys = indices.new_empty((len(indices),), dtype=torch.int64)
    _number(indices, order, grid, keys, faults)
    return keys


def check_sites(indices: torch.Tensor, order: torch.Tensor, grid: Grid, faults: torch.Tensor) -> None:
    """Look for the faults of sites alone; arguments as of :func:`number_sites`."""
    _number(indices, order, grid, None, faults)


def no_faults(like: torch.Tensor) -> torch.Tensor:
    """Return the number that kernels put the faults into which they find: ``(1,) int64`` on the device of ``like``."""
    return like.new_zeros((1,), dtype=torch.int64)


def sort_keys(keys: torch.Tensor, grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
    """Sort keys.

    Args:
        keys: ``(P,) int64`` of places in the grid; less than 2^31.
        grid: Of the keys.

    Returns:
        The keys; and ``(P,) int32``: which each of them was, equal ones in their order.
    """
    rows = torch.arange(len(keys), dtype=torch.int32, device=keys.device)
    return sort_pairs(keys, rows, max(grid[0], 1) * math.prod(grid[2]))


def distinct_sites(keys: torch.Tensor, grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the distinct ones among keys in any order; arguments as of :func:`sort_keys`.

    The host waits once, for their number.

    Returns:
        ``(M, 1 + D) int32``: the places, sorted; and ``(P,) int32``: which of them each key is.
    """
    count, columns = len(keys), 1 + len(grid[1])
    row_of = keys.new_empty((count,), dtype=torch.int32)
    if not count:
        return row_of.new_empty((0, columns)), row_of
    keys, order = sort_keys(keys, grid)
    is_first = torch.empty_like(row_of)
    with native.on_device(keys):
        kernels, stream = native.kernels(), native.stream(keys)
        kernels.mark_distinct(native.address(keys), count, native.address(is_first), stream)
        firsts = torch.cumsum(is_first, 0, dtype=torch.int32)
        sites = row_of.new_empty((int(firsts[-1]), columns))
        kernels.write_distinct(
            native.address(keys),
            native.address(firsts),
            native.address(order),
            count,
            grid,
            native.address(row_of),
            native.address(sites),
            stream,
        )
    return sites, row_of


def _number(
    indices: torch.Tensor,
    order: torch.Tensor | None,
    grid: Grid,
    keys: torch.Tensor | None,
    faults: torch.Tensor | None,
) -> None:
    with native.on_device(indices):
        native.kernels().number_sites(
            (native.address(indices), native.address(order), len(indices)),
            grid,
            native.address(keys),
            native.address(faults),
            native.stream(indices),
        )
