"""A view of a ring that can be taken from its user, who may be in the middle of writing to it."""

from __future__ import annotations

import mmap
import os
import threading
import weakref

import numpy as np

from hepfeed.libc import make_private
from hepfeed.ring import RingView

__all__ = ["RevocableView"]


class RevocableView(RingView):
    """The mappings of a reader, which :meth:`revoke` turns into memory that nobody sees.

    A thread can't be killed.  One that was given up, and wakes from a stalled read when its slot has long been filled
    for another batch, must not write to that slot.

    Args:
        descriptor: Of the shared file; the view keeps a copy until :meth:`forget`, which stays good when the ring is
            closed.
    """

    def __init__(self, descriptor: int) -> None:
        own = os.dup(descriptor)
        super().__init__(own)
        self._close = weakref.finalize(self, os.close, own)
        # The same thread may come twice: a loader that the garbage collector ends here gives up its readers.
        self._lock = threading.RLock()
        self._revoked = False

    def ensure(self, slot: int, size: int) -> int:
        """Make a slot hold at least ``size`` bytes, see :meth:`hepfeed.ring.RingView.ensure`."""
        with self._lock:
            held = super().ensure(slot, size)
            if self._revoked:
                _detach(self._maps[slot])
            return held

    def forget(self, slot: int | None = None) -> None:
        """Drop the mapping of a slot, or all of them for good, see :meth:`hepfeed.ring.RingView.forget`."""
        with self._lock:
            super().forget(slot)
            if slot is None:
                self._descriptor = -1
                self._close()

    def revoke(self) -> None:
        """Let everything that is written through this view from now on be lost; may be called from any thread.

        Addresses stay valid, and what they hold is undefined.

        Raises:
            OSError: The system can't replace the mappings.
        """
        with self._lock:
            self._revoked = True
            for mapped in self._maps.values():
                _detach(mapped)


def _detach(mapped: mmap.mmap) -> None:
    make_private(np.frombuffer(mapped, np.uint8).ctypes.data, len(mapped))
