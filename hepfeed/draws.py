"""Random numbers of events: each a pure function of (seed, epoch, event, step), whoever draws them and when."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hepfeed import _images
from hepfeed.errors import SpecError
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

    def part(self, number: int) -> Draws:
        """Return the numbers of part 0, 1, ... of the step, such as its keys; part 0 has those of the step itself."""
        return replace(self, step=(self.step & 0xFFFFFFFF) | number << 32)

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
        return self.raw_jagged(self._offsets(count)).reshape(len(self), count)

    def uniform(self, count: int, low: float = 0.0, high: float = 1.0) -> NDArray[np.float64]:
        """Return ``(B, count)`` in [low, high): ``low + (high - low) u`` with u = the upper 53 bits times 2^-53."""
        return self.uniform_jagged(self._offsets(count), low, high).reshape(len(self), count)

    def normal(self, count: int) -> NDArray[np.float64]:
        """Return ``(B, count)`` of mean 0 and variance 1, by the Box-Muller transformation (1958).

        Uniform numbers 2j and 2j + 1, u and v, give numbers 2j and 2j + 1: ``sqrt(-2 log(1 - u))`` times
        ``cos(2 pi v)`` and ``sin(2 pi v)``.  So the first numbers do not depend on how many are drawn.
        """
        return self.normal_jagged(self._offsets(count)).reshape(len(self), count)

    def integers(self, count: int, low: NDArray[np.int64] | int, high: NDArray[np.int64] | int) -> NDArray[np.int64]:
        """Return ``(B, count)`` in low .. high - 1; bounds may be ``(B, 1)`` or ``(B, count)``.

        Raises:
            SpecError: A range is empty, or has 2^53 numbers or more.
        """
        span = np.asarray(high) - np.asarray(low)
        if span.size and not (span.min() > 0 and span.max() < 2**53):
            raise SpecError(f"integers are drawn from 1 to 2^53 - 1 numbers, not from {span.min()} to {span.max()}")
        made: NDArray[np.int64] = np.asarray(low) + np.floor(self.uniform(count) * span).astype(np.int64)
        return made

    def raw_jagged(self, offsets: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Return ``(total,) uint64``: the first ``offsets[e + 1] - offsets[e]`` numbers of every event e.

        Args:
            offsets: ``(B + 1,) int64``, from 0 to the total.
        """
        made = np.empty(int(offsets[-1]), np.uint64)
        _images.raw(*self.counters(), offsets, made)
        return made

    def uniform_jagged(self, offsets: NDArray[np.int64], low: float = 0.0, high: float = 1.0) -> NDArray[np.float64]:
        """Return ``(total,)``: numbers of :meth:`uniform`, as many for each event as :meth:`raw_jagged` gives."""
        made = np.empty(int(offsets[-1]))
        _images.uniform(*self.counters(), offsets, low, high, made)
        return made

    def normal_jagged(self, offsets: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return ``(total,)``: numbers of :meth:`normal`, as many for each event as :meth:`raw_jagged` gives."""
        made = np.empty(int(offsets[-1]))
        _images.normal(*self.counters(), offsets, made)
        return made

    def _offsets(self, count: int) -> NDArray[np.int64]:
        return np.arange(len(self) + 1, dtype=np.int64) * count

    def of_batch(self) -> np.random.Generator:
        """Return a generator for what concerns the batch as a whole, such as the partners of a mix-up."""
        return generator(self.seed, "batch draws", self.epoch, self.batch, self.step)
