"""How fast the disk gives files that are not in the page cache."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Sequence

__all__ = ["disk_rate"]

_BLOCK_BYTES = 4 << 20


def disk_rate(files: Sequence[str], seconds: float) -> float | None:
    """Return bytes/s of reading files past the page cache, which stays as it is, one large block after another.

    Args:
        files: Read in this order, from the beginning.
        seconds: Most time for it.

    Returns:
        None where the system or the file system can't read past the page cache (``O_DIRECT``), or the files are empty.
    """
    if not hasattr(os, "O_DIRECT"):
        return None
    taken, begun = 0, time.perf_counter()
    with mmap.mmap(-1, _BLOCK_BYTES) as block:  # O_DIRECT needs memory that begins with a page
        for path in files:
            try:
                taken += _read(path, block, begun + seconds)
            except OSError:
                return None
            if time.perf_counter() > begun + seconds:
                break
    return taken / (time.perf_counter() - begun) if taken else None


def _read(path: str, block: mmap.mmap, deadline: float) -> int:
    """Read a file until its end or the deadline; returns the bytes."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    taken = 0
    try:
        while time.perf_counter() < deadline or not taken:
            size = os.readv(descriptor, [block])
            taken += size
            if size < len(block):  # the end: reads past it need not be aligned any more, and fail
                break
    finally:
        os.close(descriptor)
    return taken
