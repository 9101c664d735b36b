"""The step that puts images into the middle of larger ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from pydantic import model_validator

from hepfeed.draws import Draws
from hepfeed.errors import ProcessError, SpecError
from hepfeed.transforms.geometry import Axes, Lengths, lengths_along
from hepfeed.transforms.moving import Move, MovingStep
from hepfeed.transforms.step import Batch

__all__ = ["Pad"]


class Pad(MovingStep):
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

    def moves(self, batch: Batch, draws: Draws) -> Iterator[tuple[str, Any, Move]]:
        """Yield the moves."""
        for key, image, axes in self.images(batch, self.axes):
            lengths = lengths_along(key, image, axes)
            if len(axes) != len(self.shape) or any(n > wide for n, wide in zip(lengths, self.shape)):
                raise ProcessError(
                    f"key {key!r} must fit into {self.shape} along axes {axes}, and has lengths {lengths}: give a"
                    " larger shape, or crop it first",
                    key=key,
                )
            before = (np.array(self.shape, np.int64) - np.array(lengths, np.int64)) // 2
            origin = np.tile(-before, (len(draws), 1))
            yield key, image, Move.to_window(key, image, origin, axes, self.shape, self.value)
