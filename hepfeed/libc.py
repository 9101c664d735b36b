"""What the C library does with memory and the module :mod:`mmap` does not offer."""

from __future__ import annotations

import ctypes
import mmap
import os
from functools import cache
from typing import Any

__all__ = ["library", "make_private", "map_memory"]

_FAILED = ctypes.c_void_p(-1).value
_MAP_FIXED = 0x10  # of Linux and the BSDs


@cache
def library() -> Any:
    """Return the C library of this process, with the types of ``mmap`` and ``munmap``."""
    found = ctypes.CDLL(None, use_errno=True)
    found.mmap.restype = ctypes.c_void_p
    found.mmap.argtypes = (
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_long,
    )
    found.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    return found


def map_memory(address: int | None, size: int, access: int, how: int, descriptor: int) -> int:
    """Map memory as mmap(2) does; returns its address, which is good until it is unmapped.

    Raises:
        OSError: It can't be mapped.
    """
    mapped = library().mmap(address, size, access, how, descriptor, 0)
    if mapped == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(mapped)


def make_private(address: int, size: int) -> None:
    """Put memory of this process alone, filled with zeros, in the place of mapped pages, in one step.

    Args:
        address: Of the first page.
        size: Bytes, whole pages.

    Raises:
        OSError: The system can't replace them.
    """
    access, how = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED
    map_memory(address, size, access, how, -1)
