"""What steps share that read images at other places than they are at."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from hepfeed.errors import ProcessError, SpecError
from hepfeed.images import MAX_WARP_AXES, warp
from hepfeed.tensors import Sparse
from hepfeed.transforms.geometry import GeometryStep, lengths_along, sites
from hepfeed.transforms.lookup import names_of
from hepfeed.transforms.step import Keys
from hepfeed.voxels import resite

__all__ = ["WarpStep"]


class WarpStep(GeometryStep):
    """A step that resamples images.

    Attributes:
        keys: Dense images, or sparse ones where they are resampled by nearest neighbour; several alike.
        order: 0 takes the nearest item, which keeps the type; 1 interpolates linearly, which gives float32, or float64
            for float64.
        fill: What is beyond the image.
        nearest: Those of ``keys`` that are always resampled by nearest neighbour, such as images of labels.
    """

    order: Literal[0, 1] = 1
    fill: float = 0.0
    nearest: Keys = ()

    @model_validator(mode="after")
    def _check_nearest(self) -> WarpStep:
        for key in self._nearest():
            if key not in names_of(self.keys):
                raise SpecError(f"nearest has {key!r}, which is none of keys {names_of(self.keys)!r}: add it there")
        return self

    def _nearest(self) -> tuple[str, ...]:
        return (self.nearest,) if isinstance(self.nearest, str) else self.nearest

    def _order_of(self, key: str) -> int:
        return 0 if key in self._nearest() else self.order

    def _check_axes(self, key: str, axes: tuple[int, ...]) -> None:
        if len(axes) > MAX_WARP_AXES:
            raise ProcessError(
                f"key {key!r} has {len(axes)} axes, and at most {MAX_WARP_AXES} can be resampled: name them as axes",
                key=key,
            )

    def _by_matrix(self, key: str, value: Any, axes: tuple[int, ...], matrix: NDArray[np.float64]) -> Any:
        """Return ``out[x] = value[c + matrix (x - c)]``; see :func:`hepfeed.images.warp`.

        Sites of sparse images go to the site nearest to ``c + matrix^-1 (x - c)``; where several meet, their features
        are added up, or the largest taken for a key among ``nearest``.
        """
        self._check_axes(key, axes)
        if not isinstance(value, Sparse):
            return warp(value, axes, self._order_of(key), self.fill, matrix=matrix)
        if self._order_of(key) != 0 or self.fill != 0:
            raise ProcessError(
                f"key {key!r} is sparse, which can be resampled with order 0 and fill 0 only: give those, or densify it"
                " first",
                key=key,
            )
        coords, event = sites(value)
        chosen = list(axes)
        centre = 0.5 * (np.array(lengths_along(key, value, axes)) - 1)
        inverse = np.linalg.inv(matrix)[event]
        there = centre + np.einsum("nab,nb->na", inverse, coords[:, chosen] - centre)
        coords[:, chosen] = np.floor(there + 0.5).astype(np.int64)
        return resite(value, coords, None, value.spatial_shape, "max" if key in self._nearest() else "sum")
