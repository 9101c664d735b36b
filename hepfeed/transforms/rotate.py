"""The step that turns images by any angle at random."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from pydantic import field_validator

from hepfeed.draws import Draws
from hepfeed.errors import SpecError
from hepfeed.transforms.geometry import Axes
from hepfeed.transforms.step import Batch
from hepfeed.transforms.warping import WarpStep

__all__ = ["Rotate"]


class Rotate(WarpStep):
    """Turns images in a plane about their centre by an angle uniform in a range; what leaves the image is lost.

    ``out[x] = in[c + R (x - c)]`` with ``R = ((cos a, sin a), (-sin a, cos a))``; 90 degrees are one quarter of
    :class:`~hepfeed.transforms.Rotate90`.  Angles count in items: axes of different granularity are not told apart.

    Attributes:
        keys: Dense images, or sparse ones with order 0; several are turned alike.
        degrees: Range of the angle, ``(low, high)``; a number d stands for ``(-d, d)``.
        axes: The plane; positive angles turn the first axis towards the second.
        order: See :class:`~hepfeed.transforms.warping.WarpStep`.
        fill: What is beyond the image.
        nearest: Those of ``keys`` that are images of labels.

    Raises:
        ProcessError: A key holds no images, lacks an axis, or is sparse and order is 1.
    """

    random: ClassVar[bool] = True

    degrees: float | tuple[float, float]
    axes: Axes = (0, 1)

    @field_validator("degrees")
    @classmethod
    def _check_degrees(cls, degrees: float | tuple[float, float]) -> float | tuple[float, float]:
        low, high = degrees if isinstance(degrees, tuple) else (-degrees, degrees)
        if not -math.inf < low <= high < math.inf:
            raise SpecError(f"degrees must be a number from 0 or a range (low, high), not {degrees!r}")
        return degrees

    @field_validator("axes")
    @classmethod
    def _check_plane(cls, axes: tuple[int, ...]) -> tuple[int, ...]:
        if len(axes) != 2:
            raise SpecError(f"axes must be the two of a plane, not {axes!r}")
        return axes

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with turned images."""
        made = dict(batch)
        low, high = self.degrees if isinstance(self.degrees, tuple) else (-self.degrees, self.degrees)
        angle = np.radians(draws.uniform(1, low, high)[:, 0])
        cosine, sine = np.cos(angle), np.sin(angle)
        matrix = np.stack([cosine, sine, -sine, cosine], axis=-1).reshape(-1, 2, 2)
        for key, value, axes in self.images(batch, self.axes):
            made[key] = self._by_matrix(key, value, axes, matrix)
        return made
