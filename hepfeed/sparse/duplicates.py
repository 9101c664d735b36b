"""Rows on one site, made one."""

from __future__ import annotations

from typing import Literal

import torch

from hepfeed.sparse import maps
from hepfeed.sparse.rows import RowLists, row_max, row_mean, row_sum

__all__ = ["Duplicates", "merge_duplicates"]

Duplicates = Literal["error", "sum", "mean", "max"]
"""What becomes of rows on one site."""


def merge_duplicates(
    features: torch.Tensor,
    indices: torch.Tensor,
    shape: tuple[int, ...],
    events: int,
    how: Literal["sum", "mean", "max"],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Merge rows on one site, in their order; gradients go back to the rows.

    Args:
        features: ``(N, C)`` float32, float64 or bfloat16; float16 on a CUDA device.
        indices: ``(N, 1 + D) int32``.
        shape: Of the images, ``D`` numbers.
        events: In the batch.
        how: The sum, the mean or the largest number of each channel.

    Returns:
        ``(M, C)`` features and ``(M, 1 + D) int32`` indices, sorted by (event, coordinates).

    Raises:
        ProcessError: A site is outside of the images.
        SpecError: The features are of another dtype.
    """
    distinct, row_of = maps.unique_sites(indices, shape, events)
    rows = indices.shape[0]
    own = torch.arange(rows, dtype=torch.int32, device=indices.device)
    lists = RowLists.of_pairs(row_of, own, distinct.shape[0], rows)
    if how == "max":
        return row_max(features, lists)[0], distinct
    return (row_sum if how == "sum" else row_mean)(features, lists), distinct
