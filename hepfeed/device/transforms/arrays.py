"""Tensors of any type of number, as the kernels take them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hepfeed.device import native

__all__ = [
    "as_array",
    "has_numbers",
    "is_float",
    "movable",
    "numpy_type",
    "real_type",
    "take_rows",
    "torch_type",
    "upload",
]

_NUMBERS = (
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint8,
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.float16,
    torch.float32,
    torch.float64,
    torch.bool,
)
"""As ``Number`` in ``csrc/kernels/batch.h``."""
_CODES = {dtype: code for code, dtype in enumerate(_NUMBERS)}
_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


def has_numbers(tensor: torch.Tensor) -> bool:
    """Whether a tensor has integers, floats or bools that NumPy has too, so no bfloat16."""
    return tensor.dtype in _CODES


def is_float(tensor: torch.Tensor) -> bool:
    """Whether a tensor has floats."""
    return tensor.dtype.is_floating_point


def as_array(tensor: torch.Tensor | None) -> tuple[int, int]:
    """Return address and type of a contiguous tensor; those of no items for None."""
    return (0, 0) if tensor is None else (native.address(tensor), _CODES[tensor.dtype])


def real_type(dtype: torch.dtype) -> torch.dtype:
    """Return the type of computed items: float64 for float64, float32 for all others."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def torch_type(name: str) -> torch.dtype:
    """Return torch's type of the name of a NumPy number."""
    dtype: torch.dtype = getattr(torch, np.dtype(name).name)
    return dtype


def numpy_type(dtype: torch.dtype) -> np.dtype[Any]:
    """Return NumPy's type of one of torch's."""
    return np.dtype(str(dtype).removeprefix("torch."))


def movable(tensor: torch.Tensor) -> torch.Tensor:
    """Return the same bytes as a type that all of torch's functions move: they have few for unsigned integers."""
    return tensor.view(_SIGNED[tensor.dtype]) if tensor.dtype in _SIGNED else tensor


def take_rows(tensor: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return some rows of a tensor of any type."""
    return movable(tensor).index_select(0, rows).view(tensor.dtype)


def upload(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """Return a small array as a tensor on a device, without waiting for what is queued there."""
    tensor = torch.from_numpy(np.array(array, order="C"))
    if device.type == "cuda":  # a copy from pageable memory waits for the stream
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
