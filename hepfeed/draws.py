"""Random numbers of events: each a pure function of (seed, epoch, event, step), whoever draws them and when."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hepfeed.order import generator

__all__ = ["Draws"]


@dataclass(frozen=True)
class Draws:
    """Random numbers for the events of one batch.

    They come from the counter-based generator Philox 4x64 with 10 rounds (Salmon et al., SC 2011): for event
    (file, row) the key is ``(seed, step)`` and block b = 1, 2, ... of four numbers has the counter
    ``(b, row, file, epoch)``, which is ``numpy.random.Philox(key=[seed, step], counter=[0, row, file, epoch])``.

    Attributes:
        seed: Of the loader.
        epoch: Epoch.
        batch: Place of the batch in its epoch.
        event: ``(B, 2) int64``: file and row.
        step: Which step of the pipeline draws.
    """

    seed: int
    epoch: int
    batch: int
    event: NDArray[np.int64]
    step: int = 0

    def __len__(self) -> int:
        return len(self.event)

    def at(self, step: int) -> Draws:
        """Return the numbers of another step."""
        return replace(self, step=step)

    def take(self, events: NDArray[np.int64]) -> Draws:
        """Return the numbers of some of the events."""
        return replace(self, event=self.event[events])

    def counters(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Return the generator's key ``(2,)`` and first counter of each event ``(B, 4)``, for native kernels."""
        key = np.array([self.seed % 2**64, self.step], np.uint64)
        counter = np.zeros((len(self), 4), np.uint64)
        counter[:, 1] = self.event[:, 1]
        counter[:, 2] = self.event[:, 0]
        counter[:, 3] = self.epoch
        return key, counter

    def raw(self, count: int) -> NDArray[np.uint64]:
        """Return ``(B, count) uint64``."""
        key, counter = self.counters()
        made = np.empty((len(self), count), np.uint64)
        for i, start in enumerate(counter):
            made[i] = np.random.Philox(key=key, counter=start).random_raw(count)
        return made

    def uniform(self, count: int, low: float = 0.0, high: float = 1.0) -> NDArray[np.float64]:
        """Return ``(B, count)`` in [low, high)."""
        made: NDArray[np.float64] = low + (high - low) * ((self.raw(count) >> np.uint64(11)) * 2.0**-53)
        return made

    def normal(self, count: int) -> NDArray[np.float64]:
        """Return ``(B, count)`` of mean 0 and variance 1, by the Box-Muller transformation (1958)."""
        u = self.uniform(2 * count)
        made: NDArray[np.float64] = np.sqrt(-2.0 * np.log1p(-u[:, :count])) * np.cos(2.0 * np.pi * u[:, count:])
        return made

    def integers(self, count: int, low: NDArray[np.int64] | int, high: NDArray[np.int64] | int) -> NDArray[np.int64]:
        """Return ``(B, count)`` in low .. high - 1; bounds may be ``(B, 1)`` or ``(B, count)``."""
        span = np.asarray(high) - np.asarray(low)
        made: NDArray[np.int64] = np.asarray(low) + np.floor(self.uniform(count) * span).astype(np.int64)
        return made

    def of_batch(self) -> np.random.Generator:
        """Return a generator for what concerns the batch as a whole, such as the partners of a mix-up."""
        return generator(self.seed, "batch draws", self.epoch, self.batch, self.step)
