"""Room: the memory of one ring slot while one batch is put into it."""

from __future__ import annotations

import ctypes
import mmap
import weakref
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hepfeed.libc import make_private
from hepfeed.ring import RingView

__all__ = ["Room"]

_ALIGN = 64  # a cache line, and enough for any vector instruction


class Room:
    """Places in a slot, given out from its beginning; the slot grows in place where it is too small.

    Arrays that were made before a growth stay valid: they keep the older mapping of the same memory.

    Args:
        ring: This process's view of the ring.
        slot: The slot; nobody else writes to it meanwhile.

    Attributes:
        used: Bytes that were given out.
    """

    def __init__(self, ring: RingView, slot: int) -> None:
        self.used = 0
        self._ring = ring
        self._slot = slot
        self._memory = np.empty(0, np.uint8)
        self._base = 0
        self._extents: list[tuple[int, NDArray[np.uint8]]] = []
        self._given: list[weakref.ref[NDArray[Any]]] = []

    def allocate(self, size: int) -> int:
        """Return the first byte of a place of ``size`` bytes, a multiple of 64.

        Raises:
            ResourceError: There is not so much memory.
        """
        place = -(-self.used // _ALIGN) * _ALIGN
        if place + size > len(self._memory):
            held = self._ring.ensure(self._slot, place + size)
            self._memory = self._ring.bytes(self._slot, held)
            self._base = self._memory.__array_interface__["data"][0]
            self._extents.append((self._base, self._memory))
        self.used = place + size
        return place

    def address(self, place: int) -> int:
        """Return where a byte of the slot lies in this process."""
        return self._base + place

    def find(self, address: int, size: int) -> int | None:
        """Return which byte of the slot lies at ``address``, or None if the ``size`` bytes there are not all in it."""
        for base, memory in self._extents:
            if base <= address and address + size <= base + len(memory):
                return address - base
        return None

    def array(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an array in the slot, its contents undefined."""
        kind = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        place = self.allocate(size)
        made: NDArray[Any] = np.ndarray(shape, kind, self._memory, place)
        self._given.append(weakref.ref(made))
        return made

    def leave(self) -> None:
        """Leave the slot to the consumer.

        Arrays of :meth:`array` that the user's code still holds become memory of this process alone, with the bytes
        that they have now: neither the consumer nor a later batch changes them.
        """
        held = [array for each in self._given if (array := each()) is not None and array.nbytes]
        for array in held:
            _keep_private(array.ctypes.data, array.nbytes)
        if held:
            self._ring.forget(self._slot)
        self._given.clear()
        self._extents.clear()
        self._memory = np.empty(0, np.uint8)


def _keep_private(address: int, size: int) -> None:
    """Put memory of this process alone in the place of mapped pages, with the same bytes."""
    start = address // mmap.PAGESIZE * mmap.PAGESIZE
    length = -(-(address + size - start) // mmap.PAGESIZE) * mmap.PAGESIZE
    kept = ctypes.string_at(start, length)
    make_private(start, length)
    ctypes.memmove(start, kept, length)
