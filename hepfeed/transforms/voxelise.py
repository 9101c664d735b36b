"""The step that makes sparse images of points."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import field_validator, model_validator

from hepfeed.draws import Draws
from hepfeed.errors import SpecError
from hepfeed.grid import Box, Outside
from hepfeed.tensors import Jagged, Sparse
from hepfeed.transforms.lookup import check_made, names_of
from hepfeed.transforms.points import columns_of, error_at, naming, points_of, put, without
from hepfeed.transforms.step import Batch, Keys, Step
from hepfeed.voxels import Reduction, Voxels

__all__ = ["Voxelise"]


class Voxelise(Step):
    """Puts points into the voxels of a grid, and merges the features of points that meet in one.

    Voxel b of an axis holds ``low + b * size <= x < low + (b + 1) * size``, decided by ``floor((x - low) / size)`` in
    float64: a point on an edge belongs to the upper voxel, and one on the last edge is outside.

    Attributes:
        points: ``Jagged (T, D)`` or ``Padded (B, L, D)`` coordinates, or ``D`` keys of one coordinate each.
        features: Keys of one or several numbers for each point, stacked; with none, ``()``, voxels have the number of
            their points.
        shape: Voxels along each axis.
        low: Lower edge of the grid, for all axes or one for each.
        high: Upper edge of the grid.
        size: Edge of a voxel, instead of ``high``.  Without ``low``, ``high`` and ``size`` coordinates are voxel
            numbers already, as larcv has them.
        reduce: What becomes of the features of points in one voxel, for all keys or one for each: their sum, mean or
            maximum; sums in float64, in the order of points.
        into: Key of the sparse images; their features are ``(N, C) float32``.
        outside: Points outside of the grid are left out (``"drop"``), moved to the nearest voxel (``"clip"``), or an
            error (``"raise"``).
        labels: Key of an integer for each point, such as the particle that made it: voxels get one of them.
        labels_into: Key of the voxels' labels, ``Jagged (N,)`` in the order of the voxels; without it, they take the
            place of ``labels``.
        label_by: The label is that of the point with the largest first feature (``"largest"``, of several the first
            point), or the one that most points have (``"majority"``, of several the least).
        rows_into: Key for ``Jagged (T,) int64``: which voxel of its event each point is in, or -1; None: none.
        keep: Whether the keys of points, features and labels stay in the batch.

    Raises:
        ProcessError: A coordinate is NaN, a point is outside where that is an error, or keys have different points.
    """

    points: Keys
    features: Keys = ()
    shape: tuple[int, ...]
    low: float | tuple[float, ...] | None = None
    high: float | tuple[float, ...] | None = None
    size: float | tuple[float, ...] | None = None
    reduce: Reduction | tuple[Reduction, ...] = "sum"
    into: str
    outside: Outside = "drop"
    labels: str | None = None
    labels_into: str | None = None
    label_by: Literal["largest", "majority"] = "largest"
    rows_into: str | None = None
    keep: bool = False

    @field_validator("points")
    @classmethod
    def _check_points(cls, points: Keys) -> Keys:
        names_of(points, "points")
        return points

    @field_validator("into", "labels_into", "rows_into")
    @classmethod
    def _check_into(cls, name: str | None) -> str | None:
        return None if name is None else check_made(name, "into, labels_into and rows_into")

    @model_validator(mode="after")
    def _check(self) -> Voxelise:
        dims = len(self._box().shape)
        if not isinstance(self.points, str) and len(self.points) != dims:
            raise SpecError(f"points must be one key, or one for each of {dims} axes, not {self.points!r}")
        names = names_of(self.features, "features") if self.features != () else ()
        if not isinstance(self.reduce, str) and len(self.reduce) != len(names):
            raise SpecError(f"reduce must be given once, or for each of features {names!r}, not as {self.reduce!r}")
        if self.labels is None and self.labels_into is not None:
            raise SpecError("labels_into needs labels: give the key of the points' labels")
        if self.labels is not None and self.label_by == "largest" and not names:
            raise SpecError(
                "label_by 'largest' needs features, the first of which is compared: give label_by='majority'"
            )
        if self.labels is not None and self.labels_into is None and self.keep:
            raise SpecError("labels_into must be given where keep lets the points' labels stay")
        made = [name for name in (self.into, self.labels_into or self.labels, self.rows_into) if name is not None]
        if len(set(made)) != len(made):
            raise SpecError(f"into, labels and rows need different keys, not {made}")
        return self

    def _box(self) -> Box:
        return Box.of(self.shape, self.low, self.high, self.size)

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with sparse images."""
        box = self._box()
        points, offsets = points_of(batch, self.points)
        key = names_of(self.points)[0]
        columns = columns_of(batch, self.features, key, offsets)
        labels = columns_of(batch, self.labels, key, offsets)[0] if self.labels is not None else None
        with naming(key):
            voxels = Voxels.of_points(points, offsets, box, self.outside, error_at(batch, key))
        features = voxels.features(columns, self.reduce) if columns else voxels.counts().astype(np.float32)[:, None]
        taken = (*names_of(self.points), *((self.features,) if isinstance(self.features, str) else self.features))
        made = dict(batch) if self.keep else without(batch, (*taken, *([self.labels] if self.labels else [])))
        put(made, self.into, Sparse(features, voxels.indices(), box.shape, voxels.batch_size))
        if labels is not None and self.labels is not None:
            first = columns[0] if self.label_by == "largest" else None
            weights = first if first is None or first.ndim == 1 else first[:, 0]
            with naming(self.labels):
                found = voxels.labels(labels, weights)
            put(made, self.labels_into or self.labels, Jagged(found, voxels.offsets))
        if self.rows_into is not None:
            put(made, self.rows_into, Jagged(voxels.rows(), offsets))
        return made
