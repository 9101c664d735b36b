"""The step that makes dense images of points."""

from __future__ import annotations

from pydantic import field_validator, model_validator

from hepfeed.draws import Draws
from hepfeed.errors import SpecError
from hepfeed.grid import Outside, edges_of
from hepfeed.transforms.lookup import check_made, names_of
from hepfeed.transforms.points import columns_of, error_at, naming, points_of, put, without
from hepfeed.transforms.step import Batch, Keys, Step
from hepfeed.voxels import histogram

__all__ = ["Histogram"]


class Histogram(Step):
    """Sums the points of each event in the bins of a dense image.

    Bin b of an axis holds ``edges[b] <= x < edges[b + 1]``, with the edges of ``numpy.histogramdd``.

    Attributes:
        points: ``Jagged (T, D)`` or ``Padded (B, L, D)`` coordinates, or ``D`` keys of one coordinate each.
        bins: For each axis a number of equal bins, or their edges.
        ranges: For each axis the first and the last edge; left out where all edges are given.
        weights: Key of a number for each point; None: points are counted.
        into: Key of the images ``(B, *bins) float32``; sums are taken in float64, in the order of points.
        last_closed: Whether the last edge belongs to the last bin.  With it, images equal ``numpy.histogramdd``.
        outside: Points outside are left out (``"drop"``), moved to the nearest bin (``"clip"``), or an error
            (``"raise"``).
        keep: Whether the keys of points and weights stay in the batch.

    Raises:
        ProcessError: A coordinate is NaN, a point is outside where that is an error, or keys have different points.
    """

    points: Keys
    bins: tuple[int | tuple[float, ...], ...]
    ranges: tuple[tuple[float, float], ...] | None = None
    weights: str | None = None
    into: str
    last_closed: bool = False
    outside: Outside = "drop"
    keep: bool = False

    @field_validator("points")
    @classmethod
    def _check_points(cls, points: Keys) -> Keys:
        names_of(points, "points")
        return points

    @field_validator("into")
    @classmethod
    def _check_into(cls, name: str) -> str:
        return check_made(name, "into")

    @model_validator(mode="after")
    def _check(self) -> Histogram:
        if not isinstance(self.points, str) and len(self.points) != len(self.bins):
            raise SpecError(f"points must be one key, or one for each of {len(self.bins)} axes, not {self.points!r}")
        if self.ranges is not None and not any(isinstance(each, int) for each in self.bins):
            raise SpecError("ranges must be left out where bins are given as edges")
        edges_of(self.bins, self.ranges)
        return self

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with dense images."""
        points, offsets = points_of(batch, self.points)
        key = names_of(self.points)[0]
        weights = columns_of(batch, self.weights, key, offsets)[0] if self.weights is not None else None
        edges = edges_of(self.bins, self.ranges)
        with naming(key):
            images = histogram(points, offsets, edges, weights, self.last_closed, self.outside, error_at(batch, key))
        taken = (*names_of(self.points), *([self.weights] if self.weights is not None else []))
        made = dict(batch) if self.keep else without(batch, taken)
        put(made, self.into, images)
        return made
