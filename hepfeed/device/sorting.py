"""Keys in order."""

from __future__ import annotations

import torch

from hepfeed.device import native

__all__ = ["sort_pairs"]


def sort_pairs(keys: torch.Tensor, values: torch.Tensor, numbers: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sort pairs by their keys; those of one key keep their order.

    Only the bits that the keys can have are looked at: a pass over all pairs for every eight of them or so.

    Args:
        keys: ``(P,) int64``, whose bits are unsigned numbers from 0 to ``numbers - 1``.
        values: ``(P,) int32``.
        numbers: 1 to 2^64.

    Returns:
        Keys and values, sorted.
    """
    sorted_keys, sorted_values = torch.empty_like(keys), torch.empty_like(values)
    count, end_bit = len(keys), max((numbers - 1).bit_length(), 1)
    with native.on_device(keys):
        kernels = native.kernels()
        work = torch.empty(kernels.sort_pairs_bytes(count, end_bit), dtype=torch.uint8, device=keys.device)
        kernels.sort_pairs(
            native.address(work),
            len(work),
            native.address(keys),
            native.address(sorted_keys),
            native.address(values),
            native.address(sorted_values),
            count,
            end_bit,
            native.stream(keys),
        )
    return sorted_keys, sorted_values
