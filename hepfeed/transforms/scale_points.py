"""The step that scales the points of each event at random."""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic import field_validator, model_validator

from hepfeed.draws import Draws
from hepfeed.errors import SpecError
from hepfeed.transforms.rows import About, Coords, centres, check_coords, row_sets
from hepfeed.transforms.step import Batch, Step

__all__ = ["ScalePoints"]


class ScalePoints(Step):
    """Scales the points of each event about a centre: x' = f (x - c) + c, f uniform in [low, high).

    Computed in float64; integers become floats.

    Attributes:
        coords: ``Jagged (T, D)``, ``Padded (B, L, D)`` or dense ``(B, ..., D)``, or D keys of components.  Several keys
            are scaled alike, about the centre of the first.  Every row of a dense array is a point.
        low: Smallest factor, above 0.
        high: Largest factor.
        about: ``"origin"``, ``"mean"`` of the event's points, or D coordinates.
        per_axis: Each axis has a factor of its own.

    Raises:
        ProcessError: The centre has another number of coordinates than the points.
    """

    random: ClassVar[bool] = True

    coords: Coords
    low: float
    high: float
    about: About = "origin"
    per_axis: bool = False

    @field_validator("coords")
    @classmethod
    def _check_coords(cls, coords: Coords) -> Coords:
        return check_coords(coords)

    @model_validator(mode="after")
    def _check_limits(self) -> ScalePoints:
        if not 0 < self.low <= self.high < math.inf:
            raise SpecError(f"factors must be finite with 0 < low <= high, not {self.low} and {self.high}")
        return self

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with points that are scaled."""
        sets = row_sets(batch, self.coords)
        factors = draws.uniform(sets[0].width if self.per_axis else 1, self.low, self.high)
        centre = centres(sets[0], self.about)
        made = dict(batch)
        for rows in sets:
            if self.about == "origin":
                rows.put(made, rows.spread(factors) * rows.values)
            else:
                middle = rows.spread(centre)
                rows.put(made, rows.spread(factors) * (rows.values - middle) + middle)
        return made
