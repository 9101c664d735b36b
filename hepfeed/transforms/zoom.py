"""The step that scales images at random."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from pydantic import model_validator

from hepfeed.draws import Draws
from hepfeed.errors import SpecError
from hepfeed.transforms.geometry import Axes
from hepfeed.transforms.step import Batch
from hepfeed.transforms.warping import WarpStep

__all__ = ["Zoom"]


class Zoom(WarpStep):
    """Scales images about their centre by a factor uniform in ``[low, high)``, the same along all axes.

    ``out[x] = in[c + (x - c) / factor]``: above 1 images grow, and what leaves the frame is lost.  Dense images keep
    the size of their items and so change their sum; sparse ones keep their sum as far as sites stay in the frame.

    Attributes:
        keys: Dense images, or sparse ones with order 0; several are scaled alike.
        low: Least factor, above 0.
        high: Largest factor.
        axes: Which axes are scaled, three at most; None: all.
        order: See :class:`~hepfeed.transforms.warping.WarpStep`.
        fill: What is beyond the image.
        nearest: Those of ``keys`` that are images of labels.

    Raises:
        ProcessError: A key holds no images, lacks an axis, has more than three, or is sparse and order is 1.
    """

    random: ClassVar[bool] = True

    low: float
    high: float
    axes: Axes | None = None

    @model_validator(mode="after")
    def _check_range(self) -> Zoom:
        if not 0 < self.low <= self.high < math.inf:
            raise SpecError(f"low and high must be a range of factors above 0, not {self.low!r} and {self.high!r}")
        return self

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with scaled images."""
        made = dict(batch)
        factor = draws.uniform(1, self.low, self.high)
        for key, value, axes in self.images(batch, self.axes):
            matrix = np.eye(len(axes)) / factor[:, :, None]
            made[key] = self._by_matrix(key, value, axes, matrix)
        return made
