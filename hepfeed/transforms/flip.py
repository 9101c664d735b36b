"""The step that reverses axes of images at random."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from pydantic import field_validator

from hepfeed.draws import Draws
from hepfeed.transforms.geometry import Axes, check_probability, grid_shape
from hepfeed.transforms.moving import Move, MovingStep
from hepfeed.transforms.step import Batch

__all__ = ["Flip"]


class Flip(MovingStep):
    """Reverses each of some axes of an image with a probability, each axis for itself: ``x -> length - 1 - x``.

    Attributes:
        keys: Dense or sparse images of any type; several are reversed alike.
        axes: Which axes may be reversed.
        probability: Of each axis.

    Raises:
        ProcessError: A key holds no images, or lacks an axis.
    """

    random: ClassVar[bool] = True

    axes: Axes
    probability: float = 0.5

    @field_validator("probability")
    @classmethod
    def _check_probability(cls, probability: float) -> float:
        return check_probability(probability)

    def moves(self, batch: Batch, draws: Draws) -> Iterator[tuple[str, Any, Move]]:
        """Yield the moves."""
        chosen = draws.uniform(len(self.axes)) < self.probability
        for key, value, axes in self.images(batch, self.axes):
            if not chosen.any():
                continue
            shape = grid_shape(key, value)
            flags = np.zeros((len(chosen), len(shape)), bool)
            flags[:, list(axes)] = chosen
            yield key, value, Move(shape, reverse=flags)
