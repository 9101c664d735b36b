"""What arrays of sites must be for the device kernels, and what happens to those that are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["aligned", "are_rows", "are_sites", "on_host"]

_MOST_ROWS = 2**31 - 1


def are_sites(indices: torch.Tensor, dims: int) -> bool:
    """Whether indices are as the kernels take them, for images of ``dims`` axes."""
    shaped = indices.ndim == 2 and indices.shape[1] == 1 + dims and len(indices) < _MOST_ROWS
    return shaped and indices.dtype == torch.int32


def are_rows(order: torch.Tensor, indices: torch.Tensor) -> bool:
    """Whether an order is as the kernels take it, and as long as it must be for the indices."""
    return order.dtype == torch.int32 and order.shape in ((0,), (len(indices),))


def aligned(tensor: torch.Tensor) -> torch.Tensor:
    """Return the same numbers in C order at a multiple of 16 bytes, not copied where they lie so."""
    plain = tensor.detach().contiguous()
    return plain if plain.data_ptr() % 16 == 0 else plain.clone()


def on_host(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a function of arrays with tensors; return its arrays as tensors on the device of the first one."""

    def array(given: Any) -> Any:
        return given.detach().cpu().numpy() if isinstance(given, torch.Tensor) else given

    made = function(*map(array, arguments), **options)
    device = next(given for given in arguments if isinstance(given, torch.Tensor)).device
    if isinstance(made, tuple):
        return tuple(torch.tensor(each, device=device) for each in made)
    return torch.tensor(made, device=device)
