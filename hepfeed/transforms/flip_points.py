"""The step that mirrors the points of each event at random."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationInfo, field_validator

from hepfeed.draws import Draws
from hepfeed.errors import ProcessError, SpecError
from hepfeed.transforms.rows import Coords, Rows, check_coords, row_sets
from hepfeed.transforms.step import Batch, Step

__all__ = ["FlipPoints"]


class FlipPoints(Step):
    """Mirrors the points of each event: x' = 2 about - x along some axes; directions: d' = -d.

    Integers stay integers where ``2 about`` is one, so that wire and cell numbers 0 .. n - 1 are mirrored by
    ``about=(n - 1) / 2``; otherwise they become floats.

    Attributes:
        coords: ``Jagged (T, D)``, ``Padded (B, L, D)`` or dense ``(B, ..., D)``, or D keys of components.  Several keys
            are mirrored alike.  Every row of a dense array is a point.
        axes: Coordinates, 0 to D - 1, each mirrored for itself.
        probability: That an axis of an event is mirrored.
        about: Where the mirrors stand: of all axes, or of each of ``axes``.
        directions: Directions, which are mirrored without ``about``; ``()`` for none.

    Raises:
        ProcessError: There is no such axis.
    """

    random: ClassVar[bool] = True

    coords: Coords
    axes: int | tuple[int, ...]
    probability: float = 0.5
    about: float | tuple[float, ...] = 0.0
    directions: Coords = ()

    @field_validator("coords")
    @classmethod
    def _check_coords(cls, coords: Coords) -> Coords:
        return check_coords(coords)

    @field_validator("directions")
    @classmethod
    def _check_directions(cls, directions: Coords) -> Coords:
        return check_coords(directions, "directions") if directions else ()

    @field_validator("axes")
    @classmethod
    def _check_axes(cls, axes: int | tuple[int, ...]) -> int | tuple[int, ...]:
        every = (axes,) if isinstance(axes, int) else axes
        if not every or min(every) < 0 or len(set(every)) < len(every):
            raise SpecError(f"axes must be different numbers, 0 or more, not {axes!r}")
        return axes

    @field_validator("probability")
    @classmethod
    def _check_probability(cls, probability: float) -> float:
        if not 0 <= probability <= 1:
            raise SpecError(f"probability must be from 0 to 1, not {probability}")
        return probability

    @field_validator("about")
    @classmethod
    def _check_about(cls, about: float | tuple[float, ...], info: ValidationInfo) -> float | tuple[float, ...]:
        axes = info.data.get("axes", ())
        count = 1 if isinstance(axes, int) else len(axes)
        if not np.isfinite(about).all() or (isinstance(about, tuple) and len(about) != count):
            raise SpecError(f"about must be finite, one number or one for each of axes {axes!r}, not {about!r}")
        return about

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with points that are mirrored."""
        axes = (self.axes,) if isinstance(self.axes, int) else self.axes
        flipped = draws.uniform(len(axes)) < self.probability
        about = np.broadcast_to(np.asarray(self.about, np.float64), len(axes))
        made = dict(batch)
        for rows in row_sets(batch, self.coords):
            self._flip(made, rows, axes, flipped, about)
        for rows in row_sets(batch, self.directions) if self.directions else ():
            self._flip(made, rows, axes, flipped, np.zeros(len(axes)))
        return made

    def _flip(
        self,
        made: Batch,
        rows: Rows,
        axes: tuple[int, ...],
        flipped: NDArray[np.bool_],
        about: NDArray[np.float64],
    ) -> None:
        if max(axes) >= rows.width:
            raise ProcessError(
                f"axes {axes} are not within the {rows.width} coordinates of key {rows.name!r}", key=rows.name
            )
        whole = rows.integers and bool((2 * about == np.rint(2 * about)).all())
        values = rows.values.astype(np.int64 if whole else np.float64)
        for i, axis in enumerate(axes):
            mirror = int(2 * about[i]) if whole else 2 * about[i]
            values[:, axis] = np.where(rows.spread(flipped[:, i]), mirror - values[:, axis], values[:, axis])
        rows.put(made, values, whole)
