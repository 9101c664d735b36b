"""What steps share that move whole images: windows, flips and turns by 90 degrees, of dense and sparse images."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfeed.draws import Draws
from hepfeed.errors import ProcessError
from hepfeed.images import flip, rotate90, window
from hepfeed.tensors import Sparse
from hepfeed.transforms.geometry import GeometryStep, grid_shape, sites
from hepfeed.transforms.step import Batch
from hepfeed.voxels import move_sites, resite

__all__ = ["Move", "MovingStep"]


@dataclass(frozen=True)
class Move:
    """How the images of a batch move, each event by itself; one of ``origin``, ``reverse`` and ``quarters`` is given.

    Attributes:
        shape: Of the result, ``D`` numbers.
        origin: ``(B, D) int64``: a window that begins there; may be outside.  Item x of the result is ``x + origin``.
        reverse: ``(B, D) bool``: which axes are reversed.
        quarters: ``(B,) int64``: turns by 90 degrees in ``plane``, as of ``numpy.rot90``.
        plane: Two axes of equal length.
        fill: What is beyond the image.
    """

    shape: tuple[int, ...]
    origin: NDArray[np.int64] | None = None
    reverse: NDArray[np.bool_] | None = None
    quarters: NDArray[np.int64] | None = None
    plane: tuple[int, int] = (0, 1)
    fill: float = 0

    @classmethod
    def to_window(
        cls,
        key: str,
        value: Any,
        origin: NDArray[np.int64],
        axes: Sequence[int],
        lengths: Sequence[int],
        fill: float = 0,
    ) -> Move:
        """Return the move to the part of each image that has the given lengths along some axes.

        Args:
            key: Of the image.
            value: Dense or sparse.
            origin: ``(B, len(axes)) int64``: where it begins; may be outside.
            axes: Which axes are concerned; the others stay whole.
            lengths: Of the part along them.
            fill: What is beyond the image.

        Raises:
            ProcessError: The image is sparse, and ``fill`` is not 0.
        """
        if isinstance(value, Sparse) and fill != 0:
            raise ProcessError(f"key {key!r} is sparse and can be filled with 0 only, not {fill!r}", key=key)
        shape = list(grid_shape(key, value))
        starts = np.zeros((len(origin), len(shape)), np.int64)
        starts[:, list(axes)] = origin
        for axis, length in zip(axes, lengths):
            shape[axis] = length
        return cls(tuple(shape), origin=starts, fill=fill)

    def __call__(self, value: Any) -> Any:
        """Return the images after the move.

        Raises:
            SpecError: Items can't hold ``fill``.
        """
        if isinstance(value, Sparse):
            if self.quarters is not None:
                return _turned(value, self.quarters, self.plane)
            return move_sites(value, self.reverse, self.origin, self.shape)
        if self.quarters is not None:
            return rotate90(value, self.quarters, self.plane)
        if self.reverse is not None:
            return flip(value, self.reverse)
        assert self.origin is not None
        if not math.prod(self.shape):
            return np.empty((len(value), *self.shape), value.dtype)
        return window(value, self.origin, self.shape, self.fill)


class MovingStep(GeometryStep):
    """A step that moves whole images."""

    @abstractmethod
    def moves(self, batch: Batch, draws: Draws) -> Iterator[tuple[str, Any, Move]]:
        """Yield key, value and move of each image that moves; of the values, only their form is looked at.

        Raises:
            KeyMissingError: The batch has no such key.
            ProcessError: A key does not fit the options.
        """

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with images that moved."""
        made = dict(batch)
        for key, value, move in self.moves(batch, draws):
            made[key] = move(value)
        return made


def _turned(value: Sparse, quarters: NDArray[np.int64], plane: tuple[int, int]) -> Sparse:
    coords, event = sites(value)
    first, second = plane
    last = value.spatial_shape[first] - 1
    a, b = coords[:, first].copy(), coords[:, second].copy()
    # For one quarter out[i, j] = in[j, n - 1 - i]: what was at (a, b) goes to (n - 1 - b, a).
    turn = quarters[event]
    coords[:, first] = np.choose(turn, [a, last - b, last - a, b])
    coords[:, second] = np.choose(turn, [b, a, last - b, last - a])
    return resite(value, coords, None, value.spatial_shape)
