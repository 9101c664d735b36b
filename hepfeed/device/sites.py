"""Sets of sites on a device: their order, and the distinct ones among them.

Faults are found by the kernels and read together with what the host waits for anyway.  The functions of
:mod:`hepfeed.sites`, for arrays of the host, then name what is wrong; they also take what the kernels do not, such as
indices of 64 bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hepfeed import sites as host
from hepfeed.device import native
from hepfeed.device.site_arrays import aligned, are_sites, on_host
from hepfeed.device.site_keys import distinct_sites, no_faults, number_sites, sort_keys
from hepfeed.sites import check_grid

__all__ = ["sort_sites", "unique_sites"]

_OUTSIDE, _REPEATED = 1, 4  # bits of faults


def sort_sites(indices: torch.Tensor, shape: Sequence[int], batch: int) -> torch.Tensor:
    """Find the order of sites, and check them; see :func:`hepfeed.sparse.maps.sort_sites`.

    The host waits once where the sites are sorted, else twice.
    """
    extents, events = check_grid(shape, batch)
    if are_sites(indices, len(extents)):
        grid, faults = (events, extents, extents), no_faults(indices)
        keys = number_sites(aligned(indices), None, grid, faults)
        found = int(faults)
        if not found:
            return indices.new_empty((0,))
        if not found & _OUTSIDE:
            keys, order = sort_keys(keys, grid)
            with native.on_device(keys):
                native.kernels().find_repeats(
                    native.address(keys), len(keys), native.address(faults), native.stream(keys)
                )
            if not int(faults) & _REPEATED:
                return order
    sorted_rows: torch.Tensor = on_host(host.sort_sites, indices, extents, events)
    return sorted_rows


def unique_sites(indices: torch.Tensor, shape: Sequence[int], batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Merge equal sites; see :func:`hepfeed.sparse.maps.unique_sites`.

    The host waits once where the sites are sorted and distinct, else twice.
    """
    extents, events = check_grid(shape, batch)
    if are_sites(indices, len(extents)):
        grid, faults = (events, extents, extents), no_faults(indices)
        keys = number_sites(aligned(indices), None, grid, faults)
        found = int(faults)
        if not found:
            rows = torch.arange(len(indices), dtype=torch.int32, device=indices.device)
            return indices.clone(memory_format=torch.contiguous_format), rows
        if not found & _OUTSIDE:
            return distinct_sites(keys, grid)
    distinct, row_of = on_host(host.unique_sites, indices, extents, events)
    return distinct, row_of
