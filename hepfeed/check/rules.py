"""What would make reading cheaper, by rules on how keys are stored."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from rich.filesize import decimal

from hepfeed.check.forms import GOOD, chunk_of, repack_command
from hepfeed.check.reports import KeyReport
from hepfeed.filler import Filler
from hepfeed.index import EventIndex, Source

__all__ = ["changes"]

_SMALL_CHUNK_BYTES = 32 << 10
_SMALL_PIECE_BYTES = 256 << 10
_LARGE_CHUNK_BYTES = 16 << 20
_SMALL_DATA_BYTES = 4 << 20  # less than this of a key is read in no time, however it is stored
_SPARSE = 0.05


def changes(found: EventIndex, filler: Filler, keys: tuple[KeyReport, ...]) -> Iterator[str]:
    """Yield what would make reading cheaper, by rules on the keys that matter for the cost."""
    total = sum(key.bytes for key in keys)
    for key in keys:
        if key.not_finite:
            yield (
                f"{key.name}: {key.not_finite:.2%} of its values are NaN or infinite, and so would the loss "
                "be: filter such events, or replace the values in process_fn"
            )
        if key.bytes * 16 < total or key.bytes < _SMALL_DATA_BYTES:
            continue
        yield from _advise_on(found.sources[0], key)
    block = max(source.block for source in found.sources)
    if filler.order == "window":
        yield (
            f"up to {block:,} events share a chunk: shuffle=True mixes whole windows and decodes each chunk "
            f"once; shuffle='full' would decode a chunk up to {block:,} times"
        )
    if block * found.event_bytes > _LARGE_CHUNK_BYTES:
        yield (
            f"events that share chunks take {decimal(block * found.event_bytes)}: a window mixes few such "
            "blocks of each class, so that the shuffle is coarse: rewrite with chunks of about 1 MB"
        )


def _advise_on(source: Source, key: KeyReport) -> Iterator[str]:
    info = source.dataset(key.name)
    command = repack_command(GOOD, [info])
    for storage in key.storages:
        if storage.storage == "library":
            remedy = f"rewrite it: {command}"
            if storage.reason == "compact":
                continue
            yield f"{key.name}: read through h5py because of {storage.reason}, one reader at a time; {remedy}"
    if len(key.storages) > 1:
        forms = "; ".join(f"{s.files} files {_times(s.chunk) or s.storage} {s.codec}" for s in key.storages)
        yield f"{key.name}: the files store it in different ways ({forms}): rewrite them alike: {command}"
    chunk = key.storages[0].chunk
    if chunk:
        item = np.dtype(info.dtype).itemsize
        size = math.prod(chunk) * item
        pieces = math.prod(-(-n // c) for n, c in zip(key.shape, chunk[1:], strict=True))
        if size < _SMALL_CHUNK_BYTES or (pieces > 1 and size < _SMALL_PIECE_BYTES):
            cut = f" cut an event into {pieces:,} pieces" if pieces > 1 else " are small"
            yield (
                f"{key.name}: chunks of {_times(chunk)} ({decimal(size)}){cut}: rewrite with "
                f"{chunk_of(GOOD, info)[0]} events a chunk: {command}"
            )
    sparse = key.occupancy is not None and key.occupancy < _SPARSE
    if sparse and any("none" in (s.codec, s.codec.replace("shuffle", "none")) for s in key.storages):
        yield (
            f"{key.name}: stored without compression, but {1 - (key.occupancy or 0):.1%} of it is 0: "
            f"compress it: {command}"
        )
    if key.dtype == "float64":
        yield f"{key.name}: float64 takes twice the memory of float32: dtypes={{{key.name!r}: 'float32'}}"


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)
