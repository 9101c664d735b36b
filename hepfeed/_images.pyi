"""Types of the native kernels on images.

Arrays must be in C order and of the type that is said; what is wrong raises a ValueError.  ``Any`` stands for every
type that the kernel takes.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

def isa() -> str: ...
def set_isa(name: str) -> None: ...
def window(values: NDArray[Any], out: NDArray[Any], origin: NDArray[np.int64], fill: NDArray[Any]) -> None: ...
def flip(values: NDArray[Any], out: NDArray[Any], flags: NDArray[np.uint8]) -> None: ...
def rotate90(values: NDArray[Any], out: NDArray[Any], first: int, second: int, quarters: NDArray[np.uint8]) -> None: ...
def extents(values: NDArray[Any], mask: int, out: NDArray[np.int64]) -> None: ...
def warp(
    values: NDArray[Any],
    out: NDArray[Any],
    axes: tuple[int, ...],
    carried: NDArray[np.int64],
    run: int,
    matrix: NDArray[np.float64] | None,
    field: NDArray[np.float32] | None,
    linear: bool,
    fill: NDArray[Any],
) -> None: ...
def smooth(
    values: NDArray[np.float64],
    out: NDArray[np.float32],
    taps: NDArray[np.float64],
    scale: float,
    scratch: NDArray[np.float64],
) -> None: ...
def reduce_blocks(values: NDArray[Any], out: NDArray[Any], reduce: str, factor: NDArray[np.int64]) -> bool: ...
def pointwise(
    values: NDArray[Any], out: NDArray[Any], ops: NDArray[np.int64], params: NDArray[np.float64], run: int
) -> int: ...
def raw(
    key: NDArray[np.uint64], counters: NDArray[np.uint64], offsets: NDArray[np.int64], out: NDArray[np.uint64]
) -> None: ...
def uniform(
    key: NDArray[np.uint64],
    counters: NDArray[np.uint64],
    offsets: NDArray[np.int64],
    low: float,
    high: float,
    out: NDArray[np.float64],
) -> None: ...
def normal(
    key: NDArray[np.uint64], counters: NDArray[np.uint64], offsets: NDArray[np.int64], out: NDArray[np.float64]
) -> None: ...
def gaussian_noise(
    values: NDArray[Any],
    out: NDArray[Any],
    key: NDArray[np.uint64],
    counters: NDArray[np.uint64],
    offsets: NDArray[np.int64],
    sigma: float,
    relative: bool,
    only_active: bool,
) -> None: ...
def poisson_noise(
    values: NDArray[Any],
    out: NDArray[Any],
    key: NDArray[np.uint64],
    counters: NDArray[np.uint64],
    offsets: NDArray[np.int64],
    scale: float,
) -> int: ...
def drop_items(
    values: NDArray[Any],
    out: NDArray[Any],
    key: NDArray[np.uint64],
    counters: NDArray[np.uint64],
    offsets: NDArray[np.int64],
    probability: float,
) -> None: ...
def drop_slices(values: NDArray[Any], out: NDArray[Any], axis: int, keep: NDArray[np.uint8]) -> None: ...
