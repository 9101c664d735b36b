"""The right to write to a cache, held for a while."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator

from hepfeed.cache.store import LOCK
from hepfeed.errors import HepfeedError, ResourceError, SourceError

__all__ = ["not_writable", "writer_lock"]


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
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        os.makedirs(directory, exist_ok=True)
        descriptor = os.open(os.path.join(directory, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise not_writable(directory, error) from error
    try:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                if on_wait is None:
                    raise SourceError(
                        f"another process writes to the cache in {directory!r}: wait until it has ended", file=directory
                    ) from error
                on_wait()
                fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)


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
