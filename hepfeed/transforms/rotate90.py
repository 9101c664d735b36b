"""The step that turns images by multiples of 90 degrees at random."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from pydantic import field_validator

from hepfeed.draws import Draws
from hepfeed.errors import ProcessError, SpecError
from hepfeed.transforms.geometry import Axes, grid_shape, lengths_along
from hepfeed.transforms.moving import Move, MovingStep
from hepfeed.transforms.step import Batch

__all__ = ["Rotate90"]


class Rotate90(MovingStep):
    """Turns images in a plane by 0, 90, 180 or 270 degrees, all equally likely, as ``numpy.rot90`` does.

    Attributes:
        keys: Dense or sparse images of any type; several are turned alike.
        axes: The plane, two axes of equal length; 90 degrees turn the first towards the second.

    Raises:
        ProcessError: A key holds no images, lacks an axis, or the plane is not square.
    """

    random: ClassVar[bool] = True

    axes: Axes = (0, 1)

    @field_validator("axes")
    @classmethod
    def _check_axes(cls, axes: tuple[int, ...]) -> tuple[int, ...]:
        if len(axes) != 2:
            raise SpecError(f"axes must be the two of a plane, not {axes!r}")
        return axes

    def moves(self, batch: Batch, draws: Draws) -> Iterator[tuple[str, Any, Move]]:
        """Yield the moves."""
        quarters = draws.integers(1, 0, 4)[:, 0]
        plane = (self.axes[0], self.axes[1])
        for key, value, axes in self.images(batch, plane):
            lengths = lengths_along(key, value, axes)
            if lengths[0] != lengths[1]:
                raise ProcessError(
                    f"key {key!r} must have equal lengths along axes {plane} to be turned by 90 degrees, and has"
                    f" {lengths}: crop or pad it first",
                    key=key,
                )
            yield key, value, Move(grid_shape(key, value), quarters=quarters, plane=plane)
