"""Types of the native kernels on voxels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

def isa() -> str: ...
def set_isa(name: str) -> None: ...
def cells_of_sites(coords: Ints, shape: Sequence[int], keep: NDArray[np.bool_] | None = None) -> Ints: ...
def group_rows(cell: Ints, offsets: Ints, cells: int) -> tuple[NDArray[np.uint32], Ints, Ints, Ints]: ...
def group_of_rows(order: NDArray[np.uint32], starts: Ints, group_offsets: Ints, rows: int) -> Ints: ...
def reduce_groups(
    features: NDArray[Any],
    order: NDArray[np.uint32],
    starts: Ints,
    reduction: str,
    out: NDArray[Any],
    column: int = 0,
) -> int: ...
def sites_of_cells(cell: Ints, offsets: Ints, shape: Sequence[int]) -> NDArray[np.int32]: ...
def cells_of_points(axes: list[tuple[Any, ...]], clip: bool) -> tuple[Ints, int]: ...
def labels(label: Ints, weight: NDArray[np.float64] | None, order: NDArray[np.uint32], starts: Ints) -> Ints: ...
def histogram(cell: Ints, weight: NDArray[Any] | None, offsets: Ints, shape: Sequence[int]) -> NDArray[np.float32]: ...
def sparsify(
    dense: NDArray[Any], threshold: float, absolute: bool, channel_axis: int | None, wide: bool
) -> tuple[NDArray[np.int32], NDArray[Any]]: ...
def densify(
    indices: NDArray[np.int32], features: NDArray[Any], dense: NDArray[Any], channel_axis: int | None
) -> int: ...
def edges(
    points: NDArray[np.float64], offsets: Ints, most: int, radius_squared: float, loop: bool
) -> tuple[Ints, Ints]: ...
def first_unsorted(indices: NDArray[np.int32], shape: Sequence[int], events: int) -> int: ...
def kernel_map(
    indices: NDArray[np.int32],
    events: int,
    shape: Sequence[int],
    out_shape: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    submanifold: bool,
) -> tuple[NDArray[np.int32], Ints, NDArray[np.int32]]: ...
def move_sites(
    indices: NDArray[np.int32],
    features: NDArray[Any],
    *,
    reversed: NDArray[np.bool_] | None = None,
    origin: NDArray[np.int64] | None = None,
    events: int,
    lengths: Sequence[int],
    shape: Sequence[int],
) -> tuple[NDArray[np.int32], NDArray[Any]]: ...
