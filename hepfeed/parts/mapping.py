"""Files in memory: mapped for reading, without a descriptor each."""

from __future__ import annotations

import ctypes
import mmap

from hepfeed.libc import library, map_memory

__all__ = ["map_file", "on_network", "unmap"]

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


def map_file(descriptor: int, size: int) -> int:
    """Map a file for reading; returns its address, which is good until :func:`unmap`.

    Raises:
        OSError: It can't be mapped.
    """
    return map_memory(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor)


def unmap(address: int, size: int) -> None:
    """Give a mapping back."""
    library().munmap(address, size)


def on_network(descriptor: int) -> bool:
    """Whether a file lies on a network file system, or on one that this can't tell."""
    if ctypes.sizeof(ctypes.c_long) != 8:
        return True
    buffer = (ctypes.c_long * 32)()  # struct statfs begins with f_type, a long
    if library().fstatfs(descriptor, buffer) != 0:
        return True
    return (buffer[0] & 0xFFFFFFFF) in _NETWORK
