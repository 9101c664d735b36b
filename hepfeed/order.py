"""Random numbers and permutations that are pure functions of what they are for."""

from __future__ import annotations

from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

__all__ = ["Permutations", "generator", "neighbour_distance", "same_block_fraction"]


def generator(seed: int, *purpose: int | str) -> np.random.Generator:
    """Return a generator for one purpose, e.g. ``generator(seed, "units", epoch, lane, cycle)``.

    The stream depends on the arguments alone (Philox 4x64, Salmon et al., SC 2011, keyed by their hash), so it is the
    same in every process and after every restart.
    """
    return np.random.Generator(np.random.Philox(key=_key(seed, *purpose)))


def _key(seed: int, *purpose: int | str) -> int:
    return xxhash.xxh3_128_intdigest(repr((int(seed), *purpose)).encode())


class Permutations:
    """Many small permutations, each as ``generator(seed, *purpose).permutation(n)``, without a generator for each.

    Args:
        seed: Of all of them.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._philox = np.random.Philox(key=0)
        self._fresh: Any = self._philox.state
        self._generator = np.random.Generator(self._philox)

    def __call__(self, n: int, *purpose: int | str) -> NDArray[np.int64]:
        """Return a permutation of ``0 .. n - 1`` for one purpose."""
        key = _key(self._seed, *purpose)
        self._fresh["state"]["key"][:] = key & (2**64 - 1), key >> 64
        self._philox.state = self._fresh
        return self._generator.permutation(n)


def neighbour_distance(position: NDArray[np.int64]) -> float:
    """Quality of a shuffle: how far apart events that were stored side by side are delivered.

    Args:
        position: ``(n,)`` place in the stored order of each delivered event; a permutation of ``0 .. n - 1``.

    Returns:
        Median distance in the delivered order of events i and i + 1 of the stored order, as a part of what a full
        random permutation gives (``n (1 - sqrt(1/2))``, the median of the triangular distribution): 1 is perfect,
        0 is unshuffled.
    """
    n = len(position)
    delivered = np.empty(n, np.int64)
    delivered[position] = np.arange(n)
    distance = np.abs(np.diff(delivered))
    return float(np.median(distance) / (n * (1 - np.sqrt(0.5))))


def same_block_fraction(block: NDArray[np.int64], batch: NDArray[np.int64]) -> float:
    """Quality of a shuffle: the fraction of pairs within a batch that come from the same stored block of events.

    Args:
        block: ``(n,)`` block (chunk) that each delivered event was stored in.
        batch: ``(n,)`` batch that it came in.

    Returns:
        Pairs of the same batch and block over pairs of the same batch.
    """
    order = np.lexsort((block, batch))
    _, batch_counts = np.unique(batch, return_counts=True)
    pairs = np.stack([batch[order], block[order]], 1)
    _, both = np.unique(pairs, axis=0, return_counts=True)
    together = float((both * (both - 1)).sum())
    return together / float((batch_counts * (batch_counts - 1)).sum())
