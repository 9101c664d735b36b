"""The ring: slots of shared memory that batches are written into by readers and handed out of by the consumer.

Invariant: a slot is either free, or filled by readers on behalf of one batch, or leased to the consumer.  It comes
back when the last view of the lease dies, and only then is it filled again; so a batch that the consumer holds never
changes, and its memory stays valid even after the ring was closed.

All slots lie in one sparse file in memory (``memfd_create``), each at a fixed stride, so that a slot grows in place and
one descriptor serves every process.  Pages are allocated when a slot is first used (``posix_fallocate``: too little
memory is an error then, not a SIGBUS later) and reused from then on: a first touch is far dearer than a reuse.
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
import tempfile
import time
import weakref
from collections import deque
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hepfeed.errors import ResourceError

__all__ = ["PageLocks", "Ring", "RingView"]

_STRIDE = 1 << 36  # address space of a slot in the file; costs nothing until it is used
_PAGE = mmap.PAGESIZE
_LARGE = 64 << 20  # smaller slots are not worth the look at what there is
_CGROUP = "/sys/fs/cgroup"
_logger = logging.getLogger("hepfeed")

Bytes = NDArray[np.uint8]


class PageLocks(Protocol):
    """What page-locks memory, so that a device copies from it by itself."""

    def lock(self, address: int, size: int) -> bool:
        """Lock the pages of ``size`` bytes; returns whether that succeeded."""
        ...

    def unlock(self, address: int) -> None:
        """Give up the lock that begins at an address, once nothing copies from there any more."""
        ...

    def settle(self) -> None:
        """Wait until all copies are done, whoever began them."""
        ...


def available_memory() -> int:
    """Return bytes of memory that can still be had, within the limit of a control group (a container, a batch job)."""
    import psutil

    available = int(psutil.virtual_memory().available)
    try:
        with open(f"{_CGROUP}/memory.max") as limit, open(f"{_CGROUP}/memory.current") as used:
            available = min(available, int(limit.read()) - int(used.read()))
    except (OSError, ValueError):  # no such limit
        pass
    return available


class RingView:
    """A process's mappings of the slots; used by readers, and by the ring itself.

    Args:
        descriptor: Of the shared file; stays the caller's.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._maps: dict[int, mmap.mmap] = {}

    def ensure(self, slot: int, size: int) -> int:
        """Make a slot hold at least ``size`` bytes, growing it in place; returns what it holds.

        Raises:
            ResourceError: There is not so much memory.
        """
        mapped = self._maps.get(slot)
        if mapped is not None and len(mapped) >= size:
            return len(mapped)
        # Batches of events of different lengths differ in size: a slot that grows does so by an eighth or more.
        step = _PAGE if mapped is None else max(_PAGE, 1 << size.bit_length() - 4)
        size = max(_PAGE, -(-size // step) * step)
        try:
            if size > _LARGE and size > min(
                _STRIDE, available_memory()
            ):  # the system would kill a process rather than say no
                raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
            os.posix_fallocate(self._descriptor, slot * _STRIDE, size)
            mapped = mmap.mmap(
                self._descriptor,
                size,
                flags=mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0),
                offset=slot * _STRIDE,
            )
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.ENOMEM, errno.EFBIG, errno.EDQUOT):
                raise
            raise ResourceError(
                f"no shared memory for a slot of {size} bytes ({len(self._maps)} are in use):"
                " use a smaller batch_size, window_bytes or prefetch_factor"
            ) from error
        self._maps[slot] = mapped
        return size

    def bytes(self, slot: int, size: int) -> Bytes:
        """Return the first ``size`` bytes of a slot, as an array of its own that keeps the mapping alive."""
        self.ensure(slot, size)
        return np.frombuffer(self._maps[slot], np.uint8, size)

    def address(self, slot: int, size: int) -> int:
        """Return where a slot of at least ``size`` bytes lies in this process."""
        return int(self.bytes(slot, size).ctypes.data)

    def forget(self, slot: int | None = None) -> None:
        """Drop the mapping of a slot, or all; memory that arrays still refer to stays valid."""
        if slot is None:
            self._maps.clear()
        else:
            self._maps.pop(slot, None)


class Ring:
    """The consumer's side: makes slots, leases them, and takes them back.

    Attributes:
        descriptor: Of the shared file, for readers.
        leased: Slots that are with the consumer.
        made_s: Seconds that it took to get memory for slots, so far.
    """

    def __init__(self) -> None:
        self.descriptor = _shared_file()
        self.leased = 0
        self.made_s = 0.0
        self.view = RingView(self.descriptor)
        self._free: list[int] = []
        self._count = 0
        self._returned: deque[int] = deque()  # appended by finalizers, at any time and in any thread
        self._pinned: dict[int, tuple[int, int, PageLocks]] = {}  # address, bytes, and who locked them
        self._unlockable = False
        self._exposed: PageLocks | None = None
        self._owner = os.getpid()

    def __len__(self) -> int:
        return self._count

    @property
    def free(self) -> int:
        """Slots that hold nothing."""
        return len(self._free) + len(self._returned)

    def acquire(self, size: int) -> int:
        """Take a free slot of at least ``size`` bytes, or make one."""
        self.reclaim()
        if not self._free:
            self._free.append(self._count)
            self._count += 1
        self._ensure(self._free[-1], size)
        return self._free.pop()

    def release(self, slot: int) -> None:
        """Give back a slot that was not leased."""
        self._free.append(slot)

    def lease(self, slot: int, size: int) -> Bytes:
        """Hand out a filled slot: ``(size,) uint8``; it comes back when the last view of this array dies."""
        self._ensure(slot, size)
        base = self.view.bytes(slot, size)
        self.leased += 1
        weakref.finalize(base, _give_back, self._returned, slot, os.getpid()).atexit = False
        return base

    def reclaim(self) -> None:
        """Take back the slots whose leases ended."""
        ended = len(self._returned)
        if ended and self._pinned and self._exposed is not None:
            self._exposed.settle()  # a copy to the device may still read a slot whose tensor is gone
        for _ in range(ended):
            self._free.append(self._returned.popleft())
            self.leased -= 1

    def pin(self, slot: int, size: int, locks: PageLocks, exposed: bool) -> bool:
        """Page-lock a slot of at least ``size`` bytes, so that copies to a device need no staging.

        It stays locked until it grows or the ring is closed.  Where a lock fails, no other slot is tried: locked memory
        has run out.

        Args:
            slot: That is leased.
            size: Bytes.
            locks: Locks it.
            exposed: Whether copies from locked slots may outlive their leases.  From then on they are waited for before
                a slot is used again.  Who holds the lease until his copies are done does not need that.

        Returns:
            Whether it is locked.
        """
        if exposed:
            self._exposed = locks
        if slot in self._pinned:
            return True
        if self._unlockable:
            return False
        address, held = self.view.address(slot, size), self.view.ensure(slot, size)
        if not locks.lock(address, held):
            self._unlockable = True
            return False
        self._pinned[slot] = (address, held, locks)
        return True

    def _ensure(self, slot: int, size: int) -> None:
        """Make a slot hold ``size`` bytes; pages that are unmapped as it grows must not be locked."""
        if slot in self._pinned and self._pinned[slot][1] < size:
            self._unpin(slot)
        begun = time.perf_counter()
        self.view.ensure(slot, size)
        self.made_s += time.perf_counter() - begun

    def _unpin(self, slot: int) -> None:
        address, _, locks = self._pinned.pop(slot)
        locks.unlock(address)

    def close(self) -> None:
        """Close the file; leased memory stays valid until its last view dies."""
        if self.descriptor < 0:
            return
        if self._owner == os.getpid():
            for slot in list(self._pinned):
                self._unpin(slot)
        self.view.forget()
        os.close(self.descriptor)
        self.descriptor = -1


def _give_back(returned: deque[int], slot: int, owner: int) -> None:
    if os.getpid() == owner:  # a forked child's copy of a batch does not free the parent's slot
        returned.append(slot)


def _shared_file() -> int:
    """Open an unnamed file in memory: memfd, else /dev/shm, else the temporary directory."""
    if hasattr(os, "memfd_create"):
        try:
            descriptor = os.memfd_create("hepfeed-ring", os.MFD_CLOEXEC)
            return _sized(descriptor)
        except OSError as error:
            _logger.info("memfd_create failed (%s): the ring is a file", error)
    reasons: list[Any] = []
    for directory in ("/dev/shm", tempfile.gettempdir()):
        try:
            descriptor, path = tempfile.mkstemp(prefix="hepfeed-", dir=directory)
            os.unlink(path)
            return _sized(descriptor)
        except OSError as error:
            reasons.append(f"{directory}: {error.strerror}")
    raise ResourceError(f"no place for shared memory ({'; '.join(reasons)}): set TMPDIR to a writable directory")


def _sized(descriptor: int) -> int:
    """Set the file's length, which costs no memory: as many slots as the file system can address."""
    for slots in (1 << 16, 1 << 12, 1 << 7):
        try:
            os.ftruncate(descriptor, slots * _STRIDE)
            return descriptor
        except OSError:
            continue
    os.close(descriptor)
    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
