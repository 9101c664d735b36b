"""Files in memory: mapped for reading, without a descriptor each."""

from __future__ import annotations

import ctypes
import mmap
import os
from functools import cache
from typing import Any

__all__ = ["map_file", "on_network", "unmap"]

_FAILED = ctypes.c_void_p(-1).value
# f_type of statfs(2) of file systems whose pages may vanish under a mapping, or that have no pages of their own.
_NETWORK = {
    0x6969: "nfs",
    0xFF534D42: "cifs",
    0xFE534D42: "smb2",
    0x517B: "smb",
    0x65735546: "fuse",
    0x0BD00BD0: "lustre",
    0x00C36400: "ceph",
    0x01021997: "9p",
    0x47504653: "gpfs",
    0x19830326: "beegfs",
    0x5346414F: "afs",
    0x6B414653: "kafs",
    0xA501FCF5: "vxfs",
    0x20030528: "orangefs",
}


@cache
def _library() -> Any:
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = (
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_long,
    )
    library.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    return library


def map_file(descriptor: int, size: int) -> int:
    """Map a file for reading; returns its address, which is good until :func:`unmap`.

    Raises:
        OSError: It can't be mapped.
    """
    address = _library().mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
    if address == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(address)


def unmap(address: int, size: int) -> None:
    """Give a mapping back."""
    _library().munmap(address, size)


def on_network(descriptor: int) -> bool:
    """Whether a file lies on a network file system, or on one that this can't tell."""
    if ctypes.sizeof(ctypes.c_long) != 8:
        return True
    buffer = (ctypes.c_long * 32)()  # struct statfs begins with f_type, a long
    if _library().fstatfs(descriptor, buffer) != 0:
        return True
    return (buffer[0] & 0xFFFFFFFF) in _NETWORK
