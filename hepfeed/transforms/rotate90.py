"""The step that turns images by multiples of 90 degrees at random."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator

from hepfeed.draws import Draws
from hepfeed.errors import ProcessError, SpecError
from hepfeed.images import rotate90
from hepfeed.tensors import Sparse
from hepfeed.transforms.geometry import Axes, GeometryStep, grid_shape, lengths_along, sites
from hepfeed.transforms.step import Batch
from hepfeed.voxels import resite

__all__ = ["Rotate90"]


class Rotate90(GeometryStep):
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

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with turned images."""
        made = dict(batch)
        quarters = draws.integers(1, 0, 4)[:, 0]
        plane = (self.axes[0], self.axes[1])
        for key, value, axes in self._images(batch, plane):
            lengths = lengths_along(key, value, axes)
            if lengths[0] != lengths[1]:
                raise ProcessError(
                    f"key {key!r} must have equal lengths along axes {plane} to be turned by 90 degrees, and has"
                    f" {lengths}: crop or pad it first",
                    key=key,
                )
            made[key] = (
                _turned(key, value, quarters, plane) if isinstance(value, Sparse) else rotate90(value, quarters, plane)
            )
        return made


def _turned(key: str, value: Sparse, quarters: NDArray[np.int64], plane: tuple[int, int]) -> Any:
    shape = grid_shape(key, value)
    coords, event = sites(value)
    first, second = plane
    last = shape[first] - 1
    a, b = coords[:, first].copy(), coords[:, second].copy()
    # For one quarter out[i, j] = in[j, n - 1 - i]: what was at (a, b) goes to (n - 1 - b, a).
    turn = quarters[event]
    coords[:, first] = np.choose(turn, [a, last - b, last - a, b])
    coords[:, second] = np.choose(turn, [b, a, last - b, last - a])
    return resite(value, coords, None, shape)
