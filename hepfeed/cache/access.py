"""Events of a cache one by one, in the process that asks for them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hepfeed.cache.feed import CacheFeed
from hepfeed.parts.reader import PartReader
from hepfeed.ring import RingView
from hepfeed.tensors import Batch

__all__ = ["CacheAccess"]

Ints = NDArray[np.int64]


class CacheAccess:
    """Reads events of a loader's cache, without readers.

    Args:
        feed: The cache.
    """

    def __init__(self, feed: CacheFeed) -> None:
        self._feed = feed
        self._verified: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self._views: dict[str, RingView] = {}
        self._reader = PartReader(self._flags, False, self._views)
        self._known: set[int] = set()

    def _flags(self, slot: int, size: int) -> NDArray[np.uint8]:
        if len(self._verified) < size:
            self._verified = np.concatenate([self._verified, np.zeros(size - len(self._verified), np.uint8)])
        return self._verified

    def read(self, place: Ints) -> Batch | None:
        """Return events as they are behind the cache point; None where the cache does not have them all.

        Args:
            place: ``(n,)`` place of each event in the index.
        """
        feed = self._feed
        part, at, runs, _ = feed.locate(place)
        if (part < 0).any():
            feed.refresh()
            part, at, runs, _ = feed.locate(place)
        if not len(place) or (part < 0).any():
            return None
        new = [number for number in np.unique(part).tolist() if number not in self._known]
        if new:
            memory = feed.store.memory
            if memory is not None:
                self._views.setdefault(feed.store.token, memory.view)
            self._known.update(new)
            self._reader.add_cache(feed.table(0))
            self._reader.add_parts(feed.store.token, feed.parts(new))
        fetched = self._reader.fetch(feed.store.token, part, at, runs, lambda dtype, shape: np.empty(shape, dtype))
        if fetched.damaged:
            feed.take(None, fetched.damaged)
        return None if fetched.bad.any() else fetched.batch
