"""Arrays of several batches, one batch after another in one slot."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfeed.parts.form import ArrayForm, structured
from hepfeed.tensors import Batch

__all__ = ["Piece", "Strip", "Strips"]


@dataclass(frozen=True)
class Strip:
    """One array of all batches.

    Attributes:
        dtype: NumPy code.
        shape: Of a row.
        at: First byte in the slot.
        edges: ``(batches + 1,)`` first row of each batch.
    """

    dtype: str
    shape: tuple[int, ...]
    at: int
    edges: tuple[int, ...]

    def piece(self, number: int, memory: NDArray[np.uint8]) -> NDArray[Any]:
        """Return the rows of one batch, a view of the slot's bytes."""
        low, high = self.edges[number], self.edges[number + 1]
        item = math.prod(self.shape)
        if low == high or not item:  # no data lie at the end of the slot, so that an empty array could not begin there
            return np.empty((high - low, *self.shape), self.dtype)
        at = self.at + low * item * np.dtype(self.dtype).itemsize
        return np.ndarray((high - low, *self.shape), self.dtype, memory, at)


@dataclass(frozen=True)
class Strips:
    """All arrays of all batches.

    Attributes:
        forms: What they make up.
        bounds: ``(batches + 1,)`` first event of each batch.
        strips: By name and part, as of :func:`hepfeed.parts.form.structured`; ``"event"`` and ``"weight"`` too.
        bytes: Of the slot.
    """

    forms: tuple[ArrayForm, ...]
    bounds: tuple[int, ...]
    strips: dict[str, dict[str, Strip]]
    bytes: int

    def batch(
        self, number: int, memory: NDArray[np.uint8], convert: Callable[[NDArray[Any]], Any] = lambda array: array
    ) -> Batch:
        """Return a batch in the bytes of its slot, each array as ``convert`` makes it."""
        events = self.bounds[number + 1] - self.bounds[number]
        found: Batch = {}
        for form in self.forms:
            parts = self.strips[form.name]
            arrays = {part: convert(strip.piece(number, memory)) for part, strip in parts.items()}
            found[form.name] = structured(form, arrays, events)
        for name in ("event", "weight"):
            if name in self.strips:
                found[name] = convert(self.strips[name][""].piece(number, memory))
        return found


@dataclass(frozen=True)
class Piece:
    """One batch of several."""

    strips: Strips
    number: int

    @property
    def bytes(self) -> int:
        """Bytes of the slot that all of them share."""
        return self.strips.bytes

    def batch(self, memory: NDArray[np.uint8], convert: Callable[[NDArray[Any]], Any]) -> Batch:
        """Return the batch in the bytes of its slot, each array as ``convert`` makes it."""
        return self.strips.batch(self.number, memory, convert)
