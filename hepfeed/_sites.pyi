"""Types of the native kernels on sets of sites."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]

def isa() -> str: ...
def set_isa(name: str) -> None: ...
def sort_sites(indices: Ints, shape: Sequence[int], events: int, threads: int = 1) -> tuple[Ints, int, int]: ...
def unique_sites(indices: Ints, shape: Sequence[int], events: int, threads: int = 1) -> tuple[Ints, Ints, int]: ...
def find_sites(
    indices: Ints, order: Ints, queries: Ints, shape: Sequence[int], events: int, threads: int = 1
) -> Ints: ...
def kernel_map(
    indices: Ints,
    order: Ints,
    events: int,
    shape: Sequence[int],
    out_shape: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    submanifold: bool,
    transposed: bool,
    threads: int = 1,
) -> tuple[Ints, Ints, NDArray[np.int64], Ints, Ints, Ints]: ...
