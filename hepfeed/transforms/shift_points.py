"""The step that moves the points of each event together."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator

from hepfeed.draws import Draws
from hepfeed.errors import ProcessError, SpecError
from hepfeed.transforms.rows import Coords, check_coords, row_sets
from hepfeed.transforms.step import Batch, Step

__all__ = ["ShiftPoints"]


class ShiftPoints(Step):
    """Moves all points of an event by one random vector: x' = x + s, each s_i uniform in [-shift_i, shift_i).

    Integers stay integers: then s_i is one of the whole numbers from -shift_i to shift_i, all equally likely.

    Attributes:
        coords: ``Jagged (T, D)``, ``Padded (B, L, D)`` or dense ``(B, ..., D)``, or D keys of components.  Several keys
            move alike.  Every row of a dense array is a point.
        shift: Largest shift, in the unit of the coordinates, of all axes or one for each; 0 for axes that stay.

    Raises:
        ProcessError: The number of axes differs from that of ``shift``, or an integer leaves the range of its type.
    """

    random: ClassVar[bool] = True

    coords: Coords
    shift: float | tuple[float, ...]

    @field_validator("coords")
    @classmethod
    def _check_coords(cls, coords: Coords) -> Coords:
        return check_coords(coords)

    @field_validator("shift")
    @classmethod
    def _check_shift(cls, shift: float | tuple[float, ...]) -> float | tuple[float, ...]:
        every = np.atleast_1d(shift)
        if not every.size or not (np.isfinite(every) & (every >= 0)).all():
            raise SpecError(f"shift must be 0 or more, for all axes or one for each, not {shift!r}")
        return shift

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with points that moved."""
        sets = row_sets(batch, self.coords)
        first = sets[0]
        if isinstance(self.shift, tuple) and len(self.shift) != first.width:
            raise ProcessError(
                f"shift has {len(self.shift)} numbers, and points of key {first.name!r} have {first.width} coordinates",
                key=first.name,
            )
        limit = np.broadcast_to(np.asarray(self.shift, np.float64), first.width)
        u = draws.uniform(first.width)
        steps: NDArray[np.float64] = np.floor(limit)
        made = dict(batch)
        for rows in sets:
            if rows.integers:
                whole = np.floor(u * (2 * steps + 1) - steps).astype(np.int64)
                rows.put(made, rows.values.astype(np.int64) + rows.spread(whole), whole=True)
            else:
                rows.put(made, rows.values + rows.spread(limit * (2 * u - 1)))
        return made
