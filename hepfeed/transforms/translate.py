"""The step that shifts images at random."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import BeforeValidator, model_validator

from hepfeed.draws import Draws
from hepfeed.errors import ProcessError, SpecError
from hepfeed.transforms.geometry import Axes, lengths_along, read_whole
from hepfeed.transforms.moving import Move, MovingStep
from hepfeed.transforms.step import Batch

__all__ = ["Translate"]


class Translate(MovingStep):
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

    def moves(self, batch: Batch, draws: Draws) -> Iterator[tuple[str, Any, Move]]:
        """Yield the moves."""
        for key, value, axes in self.images(batch, self.axes):
            if len(self.pixels) not in (1, len(axes)):
                raise ProcessError(
                    f"pixels has {len(self.pixels)} numbers, and key {key!r} has {len(axes)} axes: give as many, or"
                    " name the axes",
                    key=key,
                )
            limit = np.broadcast_to(np.array(self.pixels, np.int64), len(axes))
            shift = draws.integers(len(axes), -limit, limit + 1)
            lengths = lengths_along(key, value, axes)
            yield key, value, Move.to_window(key, value, -shift, axes, lengths, self.fill)
