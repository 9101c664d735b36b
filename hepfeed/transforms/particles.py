"""Constituents of jets in pt, eta and phi, whichever way a batch holds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfeed.errors import ProcessError, SpecError
from hepfeed.kinematics import Floats, wrapped
from hepfeed.transforms.lookup import at_event, names_of
from hepfeed.transforms.rows import Rows
from hepfeed.transforms.step import Batch, Keys

__all__ = ["Particles", "check_columns", "check_particles"]


@dataclass(frozen=True)
class Particles:
    """Constituents of the jets of a batch, one jet an event.

    Attributes:
        rows: Where they come from and go to.
        columns: Which columns of the rows are pt, eta and phi.
        pt: ``(T,)``.
        eta: ``(T,)``.
        phi: ``(T,)``, radians.
    """

    rows: Rows
    columns: tuple[int, ...]
    pt: Floats
    eta: Floats
    phi: Floats

    @classmethod
    def of(cls, batch: Batch, keys: Keys, columns: tuple[int, ...]) -> Particles:
        """Gather constituents; of dense arrays those of pt above 0.

        Raises:
            KeyMissingError: The batch has no such key.
            ProcessError: A key holds no particles, there is no such column, or a pt is negative or not finite.
        """
        rows = Rows.of(batch, keys, lambda array: _above_zero(array, columns[0]))
        check_columns(rows, columns)
        pt, eta, phi = (rows.values[:, column].astype(np.float64) for column in columns[:3])
        wrong = np.flatnonzero(~((pt >= 0) & np.isfinite(pt) & np.isfinite(eta) & np.isfinite(phi)))
        if wrong.size:
            i = wrong[0]
            raise at_event(
                ProcessError,
                f"particles of key {rows.name!r} must have pt >= 0 and finite eta and phi, and one has"
                f" ({pt[i]}, {eta[i]}, {phi[i]}): leave it out, or see whether columns={columns} are right",
                batch,
                rows.name,
                int(rows.event[i]),
            )
        return cls(rows, columns, pt, eta, phi)

    def axis(self) -> tuple[Floats, Floats]:
        """Return eta and phi ``(B,)`` of the sum of the momenta of each jet; 0 where it has no transverse momentum."""
        px = self.rows.sums(self.pt * np.cos(self.phi))
        py = self.rows.sums(self.pt * np.sin(self.phi))
        pz = self.rows.sums(self.pt * np.sinh(self.eta))
        pt = np.hypot(px, py)
        return np.where(pt > 0, np.arcsinh(pz / np.where(pt > 0, pt, 1)), 0), np.arctan2(py, px)

    def centroid(self) -> tuple[Floats, Floats]:
        """Return the means ``(B,)`` of eta and phi with weights pt, phi as differences from that of the jet axis."""
        total = self.rows.sums(self.pt)
        total = np.where(total > 0, total, 1)
        _, phi = self.axis()
        eta = self.rows.sums(self.pt * self.eta) / total
        return eta, wrapped(phi + self.rows.sums(self.pt * wrapped(self.phi - self.rows.spread(phi))) / total)

    def hardest(self) -> tuple[Floats, Floats]:
        """Return eta and phi ``(B,)`` of the first particle of the largest pt; 0 for jets without any."""
        order = np.lexsort((-self.pt, self.rows.event))
        firsts = self.rows.offsets[:-1]
        filled = np.flatnonzero(np.diff(self.rows.offsets))
        eta, phi = np.zeros(self.rows.events), np.zeros(self.rows.events)
        leading = order[firsts[filled]]
        eta[filled], phi[filled] = self.eta[leading], self.phi[leading]
        return eta, phi

    def about(self, centre: tuple[Floats, Floats] | None) -> tuple[Floats, Floats]:
        """Return eta and phi ``(T,)`` as differences from a centre ``(B,)`` of each jet, phi in [-pi, pi)."""
        if centre is None:
            return self.eta, wrapped(self.phi)
        return self.eta - self.rows.spread(centre[0]), wrapped(self.phi - self.rows.spread(centre[1]))

    def put(self, batch: Batch, eta: Floats, phi: Floats, centre: tuple[Floats, Floats] | None = None) -> Batch:
        """Return a new dict in which the particles have other eta and phi, given as differences from a centre."""
        if centre is not None:
            eta = eta + self.rows.spread(centre[0])
            phi = phi + self.rows.spread(centre[1])
        values = self.rows.values.astype(np.float64)
        values[:, self.columns[1]] = eta
        values[:, self.columns[2]] = wrapped(phi)
        made = dict(batch)
        self.rows.put(made, values)
        return made


def check_particles(keys: Keys, columns: tuple[int, ...], what: str) -> None:
    """Check the options that say where particles are.

    Raises:
        SpecError: Columns are the same or negative, or there are fewer keys of components than columns.
    """
    names = names_of(keys, "particles")
    if len(set(columns)) < len(columns) or min(columns) < 0:
        raise SpecError(f"columns must be different numbers, 0 or more, of {what}, not {columns!r}")
    if not isinstance(keys, str) and max(columns) >= len(names):
        raise SpecError(f"columns {columns!r} of {what} are not among the {len(names)} keys {names!r}")


def check_columns(rows: Rows, columns: tuple[int, ...]) -> None:
    """Check that rows have columns.

    Raises:
        ProcessError: They have fewer.
    """
    if max(columns) >= rows.width:
        raise ProcessError(
            f"columns {columns} are not within the {rows.width} numbers that key {rows.name!r} has for each particle",
            key=rows.name,
        )


def _above_zero(array: NDArray[Any], column: int) -> NDArray[np.bool_]:
    """Which rows have a positive first number: neither zeros, -999 nor NaN, which pad."""
    if column >= array.shape[-1]:
        return np.ones(array.shape[:-1], bool)  # check_columns says what is wrong
    return np.asarray(array[..., column] > 0)
