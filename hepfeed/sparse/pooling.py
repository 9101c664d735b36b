"""Pools over windows and over events, and the way back, as functions of features.

Results are the same bits for any number of threads, and each time on a CUDA device.  They can be differentiated any
number of times.
"""

from __future__ import annotations

from typing import Literal

import torch

from hepfeed.errors import SpecError
from hepfeed.sparse.arrays import check_device
from hepfeed.sparse.rows import RowLists, row_max, row_mean, row_sum
from hepfeed.sparse.sites import Link, Sites

__all__ = ["Reduction", "event_lists", "global_pool", "pool", "reduce_rows", "unpool"]

Reduction = Literal["sum", "mean", "max"]
"""What becomes of the rows of a list."""


def pool(features: torch.Tensor, link: Link, reduce: Reduction) -> torch.Tensor:
    """Reduce the active sites in the window of each output.

    Sites that are not active do not count: a mean is over the active sites of the window, and a maximum may be below 0.

    Args:
        features: ``(N, C)`` on the source of the link.
        link: From input to output sites; the window of an output is what it is linked to.
        reduce: How.  The gradient of a maximum goes to the first, in the order of taps, of the sites that have it.

    Returns:
        ``(M, C)`` on its target.
    """
    return reduce_rows(features, _lists(features, link), reduce)


def unpool(features: torch.Tensor, link: Link, reduce: Literal["sum", "mean"]) -> torch.Tensor:
    """Bring features back to the sites that a pool, or a convolution, came from.

    Args:
        features: ``(M, C)`` on the target of the link.
        link: What the pool went along.
        reduce: What a site gets that was in several windows: their sum, which is the adjoint of the sum pool, or their
            mean.  Where windows do not overlap, both copy.  A site in no window gets 0.

    Returns:
        ``(N, C)`` on its source.
    """
    lists = _lists(features, link).swapped
    return row_sum(features, lists) if reduce == "sum" else row_mean(features, lists)


def global_pool(features: torch.Tensor, sites: Sites, reduce: Reduction) -> torch.Tensor:
    """Reduce all sites of each event.

    Args:
        features: ``(N, C)`` on the sites.
        sites: Of the batch.
        reduce: How.

    Returns:
        ``(B, C)``; 0 for an event without a site.
    """
    check_device(features=features, indices=sites.indices)
    return reduce_rows(features, event_lists(sites), reduce)


def event_lists(sites: Sites) -> RowLists:
    """Return the sites of each event."""
    rows = sites.num_sites
    own = torch.arange(rows, dtype=torch.int32, device=sites.device)
    return RowLists.of_pairs(sites.indices[:, 0], own, sites.batch_size, rows)


def reduce_rows(features: torch.Tensor, lists: RowLists, reduce: Reduction) -> torch.Tensor:
    """Reduce the rows in each list; 0 for an empty one.

    Raises:
        SpecError: There is no such reduction.
    """
    if reduce == "sum":
        return row_sum(features, lists)
    if reduce == "mean":
        return row_mean(features, lists)
    if reduce == "max":
        return row_max(features, lists)[0]
    raise SpecError(f"reduce must be 'sum', 'mean' or 'max', not {reduce!r}")


def _lists(features: torch.Tensor, link: Link) -> RowLists:
    check_device(features=features, in_maps=link.kernel_map.in_maps)
    pairs, outputs, inputs = link.kernel_map, link.target.num_sites, link.source.num_sites
    return RowLists.of_pairs(pairs.out_maps, pairs.in_maps, outputs, inputs)
