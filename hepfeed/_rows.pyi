"""Types of the native kernels on the rows of matrices."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int32]
Starts = NDArray[np.int64]
Matrix = NDArray[Any]
"""float32, float64, or uint16 for the bits of bfloat16; other floating arguments are float32 then."""
Floats = NDArray[Any]

def isa() -> str: ...
def set_isa(name: str) -> None: ...
def list_rows(
    target: Rows, source: Rows, targets: int, sources: int, with_places: bool
) -> tuple[Starts, Rows, Rows]: ...
def row_sum(
    features: Matrix,
    coefficients: Floats | None,
    starts: Starts,
    columns: Rows,
    places: Rows,
    out: Matrix,
    threads: int = 1,
) -> None: ...
def row_dot(
    left: Matrix, right: Matrix, starts: Starts, columns: Rows, places: Rows, out: Floats, threads: int = 1
) -> None: ...
def row_max(features: Matrix, starts: Starts, columns: Rows, out: Matrix, argmax: Rows, threads: int = 1) -> None: ...
def row_pick(features: Matrix, argmax: Rows, out: Matrix, threads: int = 1) -> None: ...
def row_put(features: Matrix, argmax: Rows, starts: Starts, columns: Rows, out: Matrix, threads: int = 1) -> None: ...
def column_moments(x: Matrix, mean: Floats, squares: Floats, threads: int = 1) -> None: ...
def normalise(
    x: Matrix, mean: Floats, scale: Floats, shift: Floats, relu: bool, out: Matrix, threads: int = 1
) -> None: ...
def gradient_sums(
    grad: Matrix,
    x: Matrix,
    mean: Floats,
    scale: Floats,
    shift: Floats,
    relu: bool,
    sums: Floats,
    products: Floats,
    threads: int = 1,
) -> None: ...
def normalise_back(
    grad: Matrix,
    x: Matrix,
    mean: Floats,
    scale: Floats,
    shift: Floats,
    relu: bool,
    offset: Floats,
    slope: Floats,
    out: Matrix,
    threads: int = 1,
) -> None: ...
