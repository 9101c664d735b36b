"""Sums over the rows of a matrix, on the device of the matrix."""

from __future__ import annotations

import torch

from hepfeed.device import native
from hepfeed.device.checks import check_dtypes
from hepfeed.device.floats import dtype_name, sum_dtype
from hepfeed.errors import SpecError

__all__ = ["column_sum"]

_BLOCKS = 512
"""Most blocks along the rows: enough for the largest cards, and few sums to add after them."""
_LEAST_ROWS = 256
"""Of a block, as many as it has threads."""


def column_sum(values: torch.Tensor) -> torch.Tensor:
    """Return ``(C,)``: the sums of the rows; see :func:`hepfeed.sparse.convolution.column_sum`.

    They are added in fixed blocks, in float32 (float64 for float64), and rounded once: the same bits each time.

    Args:
        values: ``(N, C)`` float32, float64, bfloat16 or float16.

    Raises:
        SpecError: The dtype or the shape is another one.
    """
    check_dtypes(values=values)
    if values.ndim != 2:
        raise SpecError(f"values must be (N, C), not {tuple(values.shape)}")
    values = values.contiguous()
    rows, columns = values.shape
    block_rows = max(_LEAST_ROWS, -(-rows // _BLOCKS))
    made = values.new_empty((columns,))
    with native.on_device(values):
        sums = values.new_empty((-(-rows // block_rows), columns), dtype=sum_dtype(values.dtype))
        native.kernels().column_sum(
            dtype_name(values.dtype),
            native.address(values),
            rows,
            columns,
            block_rows,
            native.address(sums),
            native.address(made),
            native.stream(values),
        )
    return made
