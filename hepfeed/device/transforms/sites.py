"""Rows that are numbered by the cell that they are in: sorted, taken, and found again."""

from __future__ import annotations

import torch

from hepfeed.device import native
from hepfeed.device.transforms.arrays import movable
from hepfeed.device.transforms.context import Context

__all__ = ["sorted_rows", "take_rows"]


def sorted_rows(
    keys: torch.Tensor, rows: torch.Tensor, largest: int, context: Context
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sort keys with their rows, which keep their order where keys are equal.

    Args:
        keys: ``(N,) int64`` from 0 on, or any bits where ``largest`` is 2^64 - 1.
        rows: ``(N,) int32``.
        largest: Of the keys; its bits are what is sorted by.
        context: Of the step.
    """
    count, bits = len(keys), max(largest.bit_length(), 1)
    work = torch.empty(native.kernels().sort_pairs_bytes(count, bits), dtype=torch.uint8, device=keys.device)
    made = torch.empty_like(keys), torch.empty_like(rows)
    native.kernels().sort_pairs(
        native.address(work),
        len(work),
        native.address(keys),
        native.address(made[0]),
        native.address(rows),
        native.address(made[1]),
        count,
        bits,
        context.stream,
    )
    return made


def take_rows(tensor: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return some rows of a tensor of any type."""
    return movable(tensor).index_select(0, rows).view(tensor.dtype)
