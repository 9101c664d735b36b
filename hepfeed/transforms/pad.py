"""The step that puts images into the middle of larger ones."""

from __future__ import annotations

import numpy as np
from pydantic import model_validator

from hepfeed.draws import Draws
from hepfeed.errors import ProcessError, SpecError
from hepfeed.transforms.geometry import Axes, GeometryStep, Lengths, lengths_along, move_window
from hepfeed.transforms.step import Batch

__all__ = ["Pad"]


class Pad(GeometryStep):
    """Puts images into the middle of larger ones, at ``(shape - length) // 2``: undone by a ``Crop`` at the centre.

    Attributes:
        keys: Dense or sparse images of any type.
        shape: Lengths of the larger image, one for each axis.
        value: What is around the image; 0 for sparse images.
        axes: Which axes are made longer; None: all.

    Raises:
        ProcessError: A key holds no images, lacks an axis, or is longer than ``shape``.
        SpecError: A key's type can't hold ``value``.
    """

    shape: Lengths
    value: float = 0.0
    axes: Axes | None = None

    @model_validator(mode="after")
    def _check(self) -> Pad:
        if self.axes is not None and len(self.axes) != len(self.shape):
            raise SpecError(f"shape must have one length for each of axes {self.axes}, not {self.shape}")
        return self

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with larger images."""
        made = dict(batch)
        for key, image, axes in self._images(batch, self.axes):
            lengths = lengths_along(key, image, axes)
            if len(axes) != len(self.shape) or any(n > wide for n, wide in zip(lengths, self.shape)):
                raise ProcessError(
                    f"key {key!r} must fit into {self.shape} along axes {axes}, and has lengths {lengths}: give a"
                    " larger shape, or crop it first",
                    key=key,
                )
            before = (np.array(self.shape, np.int64) - np.array(lengths, np.int64)) // 2
            made[key] = move_window(key, image, np.tile(-before, (len(draws), 1)), axes, self.shape, self.value)
        return made
