"""Floating point dtypes as the native kernels on rows are told them."""

from __future__ import annotations

import torch

__all__ = ["dtype_name", "sum_dtype"]


def dtype_name(dtype: torch.dtype) -> str:
    """Return torch's name of a dtype, such as ``"float32"``."""
    return str(dtype).removeprefix("torch.")


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which numbers of a dtype are added: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32
