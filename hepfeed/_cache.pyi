"""Types of the native kernels of the cache."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Addresses = NDArray[np.uint64]
Ints = NDArray[np.int64]

Faults = NDArray[np.uint8]
"""0 fine; 1 the memory behind a source could not be read; 2 a cell lies outside of the image or shape."""

def isa() -> str: ...
def set_isa(name: str) -> None: ...
def count_cells(images: NDArray[Any], events: int) -> Ints: ...
def pack(images: NDArray[Any], events: int, cell_bytes: int) -> tuple[Ints, NDArray[Any], NDArray[Any]]: ...
def ravel(indices: NDArray[np.int32], shape: Sequence[int], cell_bytes: int) -> NDArray[Any]: ...
def densify(
    cells: Addresses,
    values: Addresses,
    counts: Ints,
    images: Addresses,
    volume: int,
    cell_bytes: int,
    item_bytes: int,
    guarded: bool,
) -> Faults: ...
def unravel(
    cells: Addresses,
    counts: Ints,
    shape: Sequence[int],
    cell_bytes: int,
    indices: int,
    first_event: int,
    guarded: bool,
) -> Faults: ...
def copy_runs(source: Addresses, destination: Addresses, bytes: Ints, guarded: bool) -> Faults: ...
def locate(base: Addresses, offset: Ints, part: Ints, row: Ints, row_bytes: int) -> Addresses: ...
def gather(
    base: Addresses,
    offset: Ints,
    part: Ints,
    row: Ints,
    counts: Ints | None,
    row_bytes: int,
    destination: int,
    guarded: bool,
) -> Faults: ...
def read_runs(
    descriptor: NDArray[np.int32], offset: Ints, bytes: Ints, destination: Addresses
) -> NDArray[np.int32]: ...
def guard_bus_errors() -> None: ...
