"""What a reader knows of a cache."""

from __future__ import annotations

from dataclasses import dataclass

from hepfeed.parts.form import ArrayForm

__all__ = ["CacheTable"]


@dataclass(frozen=True)
class CacheTable:
    """A cache as a reader needs it; its parts are told one by one.

    Attributes:
        key: Token of the store, which begins with the key of the cache.
        directory: Where its files lie.
        forms: The arrays of a batch, in its order.
        verified: Slot of shared memory with a byte for each block of all parts: 0 not yet looked at, 1 right, 2
            damaged.
        blocks: Bytes of it.
        mapped: Whether files are mapped into memory: of a cache that fits there, on a local file system.
    """

    key: str
    directory: str
    forms: tuple[ArrayForm, ...]
    verified: int
    blocks: int
    mapped: bool
