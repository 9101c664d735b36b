"""The right to write to a cache, held for a while."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator

from hepfeed.errors import HepfeedError, ResourceError, SourceError

__all__ = ["LOCK", "not_writable", "open_lock", "try_lock", "writer_lock"]

LOCK = "writer.lock"


@contextlib.contextmanager
def writer_lock(directory: str, *, shared: bool = False, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the right to write to the cache in a directory, which is made where it is missing.

    A file system without locks grants it to everybody: then two writers may both write an event, and the first counts.

    Args:
        directory: Of the cache.
        shared: Others may hold it so too, as the shards of one build do; none of them while it is held alone.
        on_wait: Called once if another process has it, before waiting for that; None does not wait.

    Raises:
        SourceError: The directory can't be made or written to; or another process writes, and there is no ``on_wait``.
        ResourceError: The disk is full.
    """
    descriptor = open_lock(directory)
    try:
        if not try_lock(descriptor, shared):
            if on_wait is None:
                raise SourceError(
                    f"another process writes to the cache in {directory!r}: wait until it has ended", file=directory
                )
            on_wait()
            fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def open_lock(directory: str) -> int:
    """Open the lock of a cache, in a directory that is made where it is missing; returns a descriptor.

    Raises:
        SourceError: The directory can't be made or written to.
        ResourceError: The disk is full.
    """
    try:
        os.makedirs(directory, exist_ok=True)
        return os.open(os.path.join(directory, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise not_writable(directory, error) from error


def try_lock(descriptor: int, shared: bool = False) -> bool:
    """Take a lock; False where another process has it."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)  # others: a file system without locks
    return True


def not_writable(directory: str, error: OSError) -> HepfeedError:
    """Return the error for a directory of a cache that can't be written."""
    why = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceError(
            f"no room for the cache in {directory!r} ({why}): make room or name another directory; what it has is kept",
            file=directory,
        )
    return SourceError(
        f"the cache in {directory!r} can't be written ({why}): name a directory that you may write to", file=directory
    )
