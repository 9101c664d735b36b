"""The step that reverses axes of images at random."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import field_validator

from hepfeed.draws import Draws
from hepfeed.images import flip
from hepfeed.tensors import Sparse
from hepfeed.transforms.geometry import Axes, GeometryStep, check_probability, grid_shape
from hepfeed.transforms.step import Batch
from hepfeed.voxels import move_sites

__all__ = ["Flip"]


class Flip(GeometryStep):
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

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with reversed images."""
        made = dict(batch)
        chosen = draws.uniform(len(self.axes)) < self.probability
        for key, value, axes in self._images(batch, self.axes):
            if not chosen.any():
                continue
            shape = grid_shape(key, value)
            flags = np.zeros((len(chosen), len(shape)), bool)
            flags[:, list(axes)] = chosen
            if isinstance(value, Sparse):
                made[key] = move_sites(value, flags, None, shape)
            else:
                made[key] = flip(value, flags)
        return made
