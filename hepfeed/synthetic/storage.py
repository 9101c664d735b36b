"""How data sets are laid out in a file."""

from __future__ import annotations

import itertools
import math
import uuid
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

import h5py
import numpy as np

from hepfeed.errors import CodecMissingError, SpecError
from hepfeed.synthetic.event import Block, Ragged

Chunks = Literal["auto", "contiguous"] | int
Compression = Literal["gzip", "lzf", "zstd", "blosc"]


class ChunkCache(NamedTuple):
    """The cache that each data set of a file has for its chunks, by arguments of ``h5py.File``."""

    rdcc_nbytes: int
    rdcc_nslots: int


_HDF5_CACHE = ChunkCache(1 << 20, 521)
"""What HDF5 takes by itself."""


@dataclass(frozen=True)
class Storage:
    """Chunks and filters of the data sets of a file; see :func:`hepfeed.synthetic.write_files`.

    Raises:
        SpecError: A value out of range, or filters for contiguous data.
    """

    chunks: Chunks
    compression: Compression | None
    level: int
    shuffle: bool
    fletcher32: bool

    def __post_init__(self) -> None:
        if isinstance(self.chunks, str):
            if self.chunks not in ("auto", "contiguous"):
                raise SpecError(f"expected chunks 'auto', 'contiguous' or events a chunk, got {self.chunks!r}")
        elif self.chunks < 1:
            raise SpecError(f"expected at least 1 event a chunk, got {self.chunks}")
        if self.compression not in (None, "gzip", "lzf", "zstd", "blosc"):
            raise SpecError(f"expected compression None, 'gzip', 'lzf', 'zstd' or 'blosc', got {self.compression!r}")
        if not 0 <= self.level <= 9:
            raise SpecError(f"expected a compression level of 0 to 9, got {self.level}")
        filtered = self.compression is not None or self.shuffle or self.fletcher32
        if self.chunks == "contiguous" and filtered:
            raise SpecError(
                "expected no compression, shuffle or fletcher32 for contiguous data, which HDF5 can't "
                "filter; choose chunks 'auto' or a number of events"
            )

    def arguments(self, shape: tuple[int, ...], dtype: Any, rows_per_event: float = 1) -> dict[str, Any]:
        """Arguments of h5py's ``create_dataset``.

        Raises:
            CodecMissingError: hdf5plugin is needed and not there.
        """
        chunk = self._chunk(shape, dtype, rows_per_event)
        if chunk is None:
            return {}
        return {"chunks": chunk, "shuffle": self.shuffle, "fletcher32": self.fletcher32, **self._codec()}

    def chunk_cache(self, block: Block, events: int) -> ChunkCache:
        """Choose a cache which no chunk leaves before it is full, so that each is compressed once.

        It has room for all chunks that share their events, and a slot for each: for 1,000 images (25, 25, 25)
        float32 in automatic chunks, these are 196 of 56 kB.

        Args:
            block: Some events of the file, to which they are written a block after the other.
            events: Events in the file.
        """
        size, slots = _HDF5_CACHE
        for value in block.values():
            if isinstance(value, Ragged):  # written at one go
                continue
            chunk = self._chunk((events, *value.shape[1:]), value.dtype)
            if chunk is None:
                continue
            counts = [-(-cells // side) for cells, side in zip(value.shape[1:], chunk[1:], strict=True)]
            size = max(size, math.prod(counts) * math.prod(chunk) * value.itemsize)
            # HDF5 takes the place of a chunk, each coordinate in bits of its own, modulo the slots.
            slots = max(slots, math.prod(1 << (count - 1).bit_length() for count in counts))
        return ChunkCache(size, _prime(slots))

    def _chunk(self, shape: tuple[int, ...], dtype: Any, rows_per_event: float = 1) -> tuple[int, ...] | None:
        if self.chunks == "contiguous" or 0 in shape:  # HDF5 has no chunk of 0 rows
            return None
        if self.chunks == "auto":
            return automatic_chunk(shape, np.dtype(dtype))
        return (min(shape[0], max(1, round(self.chunks * rows_per_event))), *shape[1:])

    def _codec(self) -> dict[str, Any]:
        if self.compression == "gzip":
            return {"compression": "gzip", "compression_opts": self.level}
        if self.compression in (None, "lzf"):
            return {"compression": self.compression}
        try:
            import hdf5plugin
        except ImportError as error:
            raise CodecMissingError(
                f"expected the package hdf5plugin for compression {self.compression!r}; "
                "run pip install 'hepfeed[plugins]'"
            ) from error
        if self.compression == "zstd":
            return dict(hdf5plugin.Zstd(clevel=self.level))
        return dict(hdf5plugin.Blosc(clevel=self.level))


@cache
def automatic_chunk(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, ...]:
    """Shape of the chunks that h5py gives a data set whose user doesn't choose it.

    They cut all axes: (125, 4, 4, 7) of (1000, 25, 25, 25) float32.
    """
    # A file in memory that is never written; HDF5 wants names of open files to differ.
    with h5py.File(uuid.uuid4().hex, "w", driver="core", backing_store=False) as file:
        chunk: tuple[int, ...] = file.create_dataset("x", shape=shape, dtype=dtype, chunks=True).chunks
    return chunk


def _prime(least: int) -> int:
    return next(n for n in itertools.count(least) if all(n % d for d in range(2, math.isqrt(n) + 1)))
