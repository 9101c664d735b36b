"""The step that turns the points of each event by a random angle."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator, model_validator

from hepfeed.draws import Draws
from hepfeed.errors import ProcessError, SpecError
from hepfeed.transforms.rows import About, Coords, Rows, centres, check_coords, row_sets
from hepfeed.transforms.step import Batch, Step

__all__ = ["RotatePoints"]

_PLANES = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}


class RotatePoints(Step):
    """Turns the points of each event about a centre: x' = R (x - c) + c; directions: d' = R d.

    Positive angles turn axis a of the plane (a, b) towards b; about "z" x towards y.  Computed in float64; integers
    become floats.

    Attributes:
        coords: ``Jagged (T, D)``, ``Padded (B, L, D)`` or dense ``(B, ..., D)``, or D keys of components.  Several keys
            turn alike, about the centre of the first.  Every row of a dense array is a point, so that a dense
            ``(B, D)``, such as a vertex, turns with the points of its event.
        directions: The same for directions, which turn without the centre; ``()`` for none.
        axis: In three dimensions: ``"x"``, ``"y"``, ``"z"``, or ``"any"``: a random axis, all equally likely.
        plane: Instead: the two coordinates that turn, in any number of dimensions.  In two dimensions neither is
            needed.
        degrees: Limits of the angle, uniform between them; one number d stands for (-d, d).  None: all rotations are
            equally likely, which for ``axis="any"`` is the uniform distribution on SO(3) by a random unit quaternion
            (Shoemake, Graphics Gems III, 1992); an axis and an angle that are uniform would not be that.
        about: ``"origin"``, ``"mean"`` of the event's points, or D coordinates.

    Raises:
        ProcessError: The coordinates don't fit axis, plane or centre.
    """

    random: ClassVar[bool] = True

    coords: Coords
    directions: Coords = ()
    axis: Literal["x", "y", "z", "any"] | None = None
    plane: tuple[int, int] | None = None
    degrees: float | tuple[float, float] | None = None
    about: About = "origin"

    @field_validator("coords")
    @classmethod
    def _check_coords(cls, coords: Coords) -> Coords:
        return check_coords(coords)

    @field_validator("directions")
    @classmethod
    def _check_directions(cls, directions: Coords) -> Coords:
        return check_coords(directions, "directions") if directions else ()

    @field_validator("degrees")
    @classmethod
    def _check_degrees(cls, degrees: float | tuple[float, float] | None) -> float | tuple[float, float] | None:
        if degrees is not None:
            low, high = _limits(degrees)
            if not (np.isfinite([low, high]).all() and low <= high):
                raise SpecError(f"degrees must be an angle of 0 or more, or limits (low, high), not {degrees!r}")
        return degrees

    @model_validator(mode="after")
    def _check_plane(self) -> RotatePoints:
        if self.plane is not None and self.axis is not None:
            raise SpecError(f"give axis or plane, not both {self.axis!r} and {self.plane!r}")
        if self.plane is not None and (min(self.plane) < 0 or self.plane[0] == self.plane[1]):
            raise SpecError(f"plane must be two different axes, 0 or more, not {self.plane!r}")
        return self

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with points that turned."""
        sets = row_sets(batch, self.coords)
        others = row_sets(batch, self.directions) if self.directions else []
        matrices = self.matrices(sets[0].name, sets[0].width, draws)
        centre = centres(sets[0], self.about)
        made = dict(batch)
        for rows in sets:
            if self.about == "origin":
                rows.put(made, _turned(rows, rows.values, matrices))
            else:
                middle = rows.spread(centre)
                rows.put(made, _turned(rows, rows.values - middle, matrices) + middle)
        for rows in others:
            if rows.width != sets[0].width:
                raise ProcessError(
                    f"directions of key {rows.name!r} have {rows.width} coordinates, and points of key"
                    f" {sets[0].name!r} have {sets[0].width}",
                    key=rows.name,
                )
            rows.put(made, _turned(rows, rows.values, matrices))
        return made

    def matrices(self, name: str, width: int, draws: Draws) -> NDArray[np.float64]:
        """Return rotations ``(B, D, D)`` of points of a key with ``D`` coordinates.

        Raises:
            ProcessError: The coordinates don't fit axis or plane.
        """
        if self.axis is not None and width != 3:
            raise ProcessError(
                f"rotation about axis {self.axis!r} needs points of 3 coordinates, and those of key {name!r} have"
                f" {width}: give plane=(a, b)",
                key=name,
            )
        if self.axis == "any":
            if self.degrees is None:
                return _uniform_rotations(draws.uniform(3))
            u = draws.uniform(3)
            return _rotations_about(_directions(u[:, 0], u[:, 1]), self._angles(u[:, 2]))
        plane = self.plane if self.axis is None else _PLANES[self.axis]
        if plane is None:
            if width != 2:
                raise ProcessError(
                    f"points of key {name!r} have {width} coordinates: give axis='x', 'y', 'z' or 'any', or"
                    " plane=(a, b)",
                    key=name,
                )
            plane = (0, 1)
        if max(plane) >= width:
            raise ProcessError(f"plane {plane} is not within the {width} coordinates of key {name!r}", key=name)
        angles = self._angles(draws.uniform(1)[:, 0])
        matrices = np.zeros((len(draws), width, width))
        matrices[:] = np.eye(width)
        a, b = plane
        matrices[:, a, a] = matrices[:, b, b] = np.cos(angles)
        matrices[:, b, a] = np.sin(angles)
        matrices[:, a, b] = -np.sin(angles)
        return matrices

    def _angles(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        low, high = _limits(180.0 if self.degrees is None else self.degrees)
        return np.deg2rad(low + (high - low) * u)


def _limits(degrees: float | tuple[float, float]) -> tuple[float, float]:
    return degrees if isinstance(degrees, tuple) else (-degrees, degrees)


def _turned(rows: Rows, vectors: NDArray[Any], matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    columns = np.ascontiguousarray(vectors.T, np.float64)
    turned = np.zeros_like(columns)
    for i, total in enumerate(turned):
        for j, column in enumerate(columns):
            entries = matrices[:, i, j]
            # About one axis most entries are 0 or 1 in every event, and cost nothing here.
            if (entries == 1).all():
                total += column
            elif entries.any():
                total += rows.spread(entries) * column
    return turned.T


def _directions(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return unit vectors ``(B, 3)``, uniform on the sphere for uniform u and v."""
    z = 1 - 2 * u
    radius = np.sqrt(1 - z * z)
    return np.stack([radius * np.cos(2 * np.pi * v), radius * np.sin(2 * np.pi * v), z], axis=-1)


def _rotations_about(axes: NDArray[np.float64], angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the quaternion (cos a/2, n sin a/2) of each axis n and angle a as a matrix."""
    half = angles[:, None] / 2
    return _of_quaternions(np.concatenate([np.cos(half), axes * np.sin(half)], axis=1))


def _uniform_rotations(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return rotations that are uniform on SO(3) for uniform ``u (B, 3)`` (Shoemake 1992)."""
    one, two = 2 * np.pi * u[:, 1], 2 * np.pi * u[:, 2]
    small, large = np.sqrt(1 - u[:, 0]), np.sqrt(u[:, 0])
    return _of_quaternions(
        np.stack([large * np.cos(two), small * np.sin(one), small * np.cos(one), large * np.sin(two)], axis=-1)
    )


def _of_quaternions(q: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrices ``(B, 3, 3)`` of unit quaternions ``(B, 4)``, their real part first."""
    w, x, y, z = q.T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
