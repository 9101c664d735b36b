"""Types of the native extension."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Costs = tuple[int, int, int, int, int, int]
"""Nanoseconds of reading, inflating, scattering; bytes read, bytes inflated; chunks."""

Failure = tuple[int, int, int, int]
"""Place in the request; 1 input/output, 2 broken stream, 3 checksum; byte in the file; errno."""

def isa() -> str: ...
def set_isa(name: str) -> None: ...
def register_inflater(library: str, path: str) -> bool: ...
def inflaters() -> list[str]: ...

class Dataset:
    def __init__(
        self,
        *,
        shape: Sequence[int],
        type: str,
        item: int,
        out_type: str,
        out_item: int,
        swap: bool,
        offset: int,
        chunk: Sequence[int],
        filters: Sequence[int],
        fill: bytes,
        chunk_offset: NDArray[np.int64],
        chunk_size: NDArray[np.int64],
        chunk_mask: NDArray[np.uint32],
    ) -> None: ...
    @property
    def inflater(self) -> int: ...
    @property
    def out_row_bytes(self) -> int: ...

class ChunkReader:
    def __init__(self) -> None: ...
    def read(
        self,
        parts: list[tuple[Dataset, int, int, int]],
        rows: NDArray[np.int64],
        destination: NDArray[np.uint64],
        lengths: NDArray[np.int64] | None = None,
    ) -> tuple[Costs, list[Failure]]: ...

def copy_rows(source: NDArray[np.uint64], destination: NDArray[np.uint64], row_bytes: int) -> None: ...
def copy_runs(source: NDArray[np.uint64], destination: NDArray[np.uint64], bytes: NDArray[np.int64]) -> None: ...
def unshuffle(data: bytes, item: int) -> bytes: ...
def convert(data: bytes, from_type: str, to_type: str, from_item: int, to_item: int) -> bytes: ...
def fletcher32(data: bytes) -> int: ...
def inflate(library: str, data: bytes, out_bytes: int) -> bytes | None: ...
