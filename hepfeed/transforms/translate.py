"""The step that shifts images at random."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from pydantic import BeforeValidator, model_validator

from hepfeed.draws import Draws
from hepfeed.errors import ProcessError, SpecError
from hepfeed.transforms.geometry import Axes, GeometryStep, lengths_along, move_window, read_whole
from hepfeed.transforms.step import Batch

__all__ = ["Translate"]


class Translate(GeometryStep):
    """Shifts images by whole items: ``x -> x + s``, each s_i from ``-pixels_i`` to ``pixels_i``, all equally likely.

    What leaves the image is lost, and ``fill`` comes in at the other side.

    Attributes:
        keys: Dense or sparse images of any type; several are shifted alike.
        pixels: Largest shift, of all axes or one for each.
        axes: Which axes are shifted; None: all.
        fill: A number of the images' type; 0 for sparse images.

    Raises:
        ProcessError: A key holds no images, lacks an axis, or has another number of axes than ``pixels``.
        SpecError: A key's type can't hold ``fill``.
    """

    random: ClassVar[bool] = True

    pixels: Annotated[tuple[int, ...], BeforeValidator(read_whole)]
    axes: Axes | None = None
    fill: float = 0.0

    @model_validator(mode="after")
    def _check(self) -> Translate:
        if not self.pixels or min(self.pixels) < 0 or max(self.pixels) >= 2**31:
            raise SpecError(f"pixels must be whole numbers from 0, not {self.pixels!r}")
        if self.axes is not None and len(self.pixels) not in (1, len(self.axes)):
            raise SpecError(f"pixels must be one number or one for each of axes {self.axes}, not {self.pixels!r}")
        return self

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with shifted images."""
        made = dict(batch)
        for key, value, axes in self._images(batch, self.axes):
            if len(self.pixels) not in (1, len(axes)):
                raise ProcessError(
                    f"pixels has {len(self.pixels)} numbers, and key {key!r} has {len(axes)} axes: give as many, or"
                    " name the axes",
                    key=key,
                )
            limit = np.broadcast_to(np.array(self.pixels, np.int64), len(axes))
            shift = draws.integers(len(axes), -limit, limit + 1)
            made[key] = move_window(key, value, -shift, axes, lengths_along(key, value, axes), self.fill)
        return made
