"""The step that moves every point a little."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import field_validator

from hepfeed.draws import Draws
from hepfeed.errors import ProcessError, SpecError
from hepfeed.transforms.rows import Coords, check_coords, per_row, row_sets
from hepfeed.transforms.step import Batch, Step

__all__ = ["Jitter"]


class Jitter(Step):
    """Moves every point by normal random numbers: x' = x + sigma g, g of mean 0 and variance 1.

    Several keys of coordinates must have the same points, which move alike.  Integers become floats.

    Attributes:
        coords: ``Jagged (T, D)``, ``Padded (B, L, D)`` or dense ``(B, ..., D)``, or D keys of components.  Every row of
            a dense array is a point: make padded ones jagged first, by ``Compact``.
        sigma: Standard deviation, in the unit of the coordinates, of all axes or one for each.

    Raises:
        ProcessError: The number of axes differs from that of ``sigma``, or several keys have different points.
    """

    random: ClassVar[bool] = True

    coords: Coords
    sigma: float | tuple[float, ...]

    @field_validator("coords")
    @classmethod
    def _check_coords(cls, coords: Coords) -> Coords:
        return check_coords(coords)

    @field_validator("sigma")
    @classmethod
    def _check_sigma(cls, sigma: float | tuple[float, ...]) -> float | tuple[float, ...]:
        every = np.atleast_1d(sigma)
        if not every.size or not (np.isfinite(every) & (every >= 0)).all():
            raise SpecError(f"sigma must be 0 or more, for all axes or one for each, not {sigma!r}")
        return sigma

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with points that moved."""
        sets = row_sets(batch, self.coords)
        first = sets[0]
        if isinstance(self.sigma, tuple) and len(self.sigma) != first.width:
            raise ProcessError(
                f"sigma has {len(self.sigma)} numbers, and points of key {first.name!r} have {first.width} coordinates",
                key=first.name,
            )
        moves = per_row(first.offsets, first.width, Draws.normal, draws) * np.asarray(self.sigma)
        made = dict(batch)
        for rows in sets:
            if not np.array_equal(rows.offsets, first.offsets):
                raise ProcessError(
                    f"keys {first.name!r} and {rows.name!r} have different points, which can't move alike: give each a"
                    " jitter of its own",
                    key=rows.name,
                )
            rows.put(made, rows.values + moves)
        return made
