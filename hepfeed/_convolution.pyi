"""Types of the native kernels of the sparse convolution."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int32]
Offsets = NDArray[np.int64]

def isa() -> str: ...
def set_isa(name: str) -> None: ...
def forward(
    features: NDArray[Any],
    weight: NDArray[Any],
    bias: NDArray[Any] | None,
    in_maps: Rows,
    out_maps: Rows,
    offsets: Offsets,
    out: NDArray[Any],
    groups: int,
    threads: int,
) -> None: ...
def input_grad(
    grad: NDArray[Any],
    weight: NDArray[Any],
    back_in: Rows,
    back_out: Rows,
    offsets: Offsets,
    out: NDArray[Any],
    groups: int,
    threads: int,
) -> None: ...
def weight_grad(
    features: NDArray[Any],
    grad: NDArray[Any],
    in_maps: Rows,
    out_maps: Rows,
    offsets: Offsets,
    out: NDArray[Any],
    groups: int,
    threads: int,
) -> None: ...
def column_sum(values: NDArray[Any], out: NDArray[Any], threads: int) -> None: ...
