"""Shared memory for the parts of a cache that are kept there."""

from __future__ import annotations

import os
import weakref

import numpy as np
from numpy.typing import NDArray

from hepfeed.parts.part import Part
from hepfeed.parts.writer import PART_BYTES
from hepfeed.ring import Ring, RingView

__all__ = ["PartMemory"]


class PartMemory:
    """Slots of shared memory, given to readers one by one until the budget is used up.

    It lives as long as this process; readers find it by its path.

    Args:
        budget: Bytes.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._ring = Ring()
        self._granted: set[int] = set()
        self._used = 0
        weakref.finalize(self, self._ring.close)

    @property
    def path(self) -> str:
        """Where other processes of this user open it."""
        return f"/proc/{os.getpid()}/fd/{self._ring.descriptor}"

    @property
    def view(self) -> RingView:
        """This process's mappings."""
        return self._ring.view

    def grant(self) -> int | None:
        """Return a slot that a reader may fill with a part; None where the budget does not allow for one more."""
        if self._used + (len(self._granted) + 1) * PART_BYTES * 5 // 4 > self._budget:
            return None
        slot = self._ring.acquire(1)
        self._granted.add(slot)
        return slot

    def take(self, part: Part) -> None:
        """Take note of a part that a reader has written."""
        self._granted.discard(part.slot)
        self._used += part.bytes

    def give_back(self, slot: int) -> None:
        """Take back a slot that was not used, because its reader died."""
        if slot in self._granted:
            self._granted.discard(slot)
            self._ring.release(slot)

    def read(self, part: Part, path: str) -> NDArray[np.int64]:
        """Return a data set of a part."""
        stored = part.stored[path]
        data = self._ring.view.bytes(part.slot, part.bytes)[stored.offset : stored.offset + stored.bytes]
        return data.view(stored.dtype).reshape(stored.shape).copy()
