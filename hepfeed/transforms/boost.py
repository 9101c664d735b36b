"""The step that boosts particles."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from hepfeed.draws import Draws
from hepfeed.errors import ProcessError, SpecError
from hepfeed.kinematics import Floats, boosted, four_vectors, transverse
from hepfeed.transforms.lookup import at_event
from hepfeed.transforms.particles import check_columns, check_particles
from hepfeed.transforms.rows import Rows
from hepfeed.transforms.step import Batch, Keys, Step

__all__ = ["Boost"]

_AXES = {"x": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0), "z": (0.0, 0.0, 1.0)}


class Boost(Step):
    """Boosts all particles of an event alike, along an axis or to the rest frame of their sum.

    The boost is active: ``beta`` is the velocity that a particle at rest gets (:func:`hepfeed.kinematics.boosted`,
    after the review "Kinematics" of the Particle Data Group).  Masses and all other invariants stay as they are.
    Computed in float64.

    Attributes:
        particles: ``Jagged (T, F)``, ``Padded (B, L, F)`` or dense ``(B, L, F)``, or the keys of components, as in
            ``("E", "px", "py", "pz")``.  Of dense arrays the rows of E (or pt) above 0 are particles; the others,
            padding, stay as they are.
        form: ``"e_px_py_pz"``: energy and momentum; ``"pt_eta_phi_m"``: transverse momentum, pseudorapidity, azimuth
            (radians; wrapped to [-pi, pi)) and mass.
        columns: Where these four are among the F numbers or keys.
        beta: Velocity in units of c, between -1 and 1: a number, or limits of a uniform random one.
        axis: Direction of the boost: ``"x"``, ``"y"``, ``"z"`` (the beam), or ``"any"``: random, uniform on the sphere.
        to_rest: Instead of ``beta``: to the frame in which the momenta of the event add up to 0.

    Raises:
        ProcessError: A key holds no particles, there is no such column, the sum of an event has no rest frame, or a
            particle is left with no transverse momentum and so with no pseudorapidity.
    """

    particles: Keys
    form: Literal["e_px_py_pz", "pt_eta_phi_m"] = "e_px_py_pz"
    columns: tuple[int, int, int, int] = (0, 1, 2, 3)
    beta: float | tuple[float, float] | None = None
    axis: Literal["x", "y", "z", "any"] = "z"
    to_rest: bool = False

    @model_validator(mode="after")
    def _check(self) -> Boost:
        check_particles(self.particles, self.columns, self.form.replace("_", ", "))
        if self.to_rest == (self.beta is not None):
            raise SpecError("give either beta or to_rest=True")
        if self.to_rest and self.axis != "z":
            raise SpecError(f"axis {self.axis!r} has no meaning with to_rest=True: leave it out")
        if self.beta is not None:
            low, high = self._limits()
            if not -1 < low <= high < 1:
                raise SpecError(f"beta must be between -1 and 1, or limits (low, high) there, not {self.beta!r}")
        return self

    @property
    def random(self) -> bool:  # type: ignore[override]
        """Whether velocity or direction are random."""
        return isinstance(self.beta, tuple) or self.axis == "any"

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with particles that are boosted."""
        rows = Rows.of(batch, self.particles, self._there)
        check_columns(rows, self.columns)
        given = rows.values.astype(np.float64)
        one, two, three, four = (given[:, column] for column in self.columns)
        if self.form == "pt_eta_phi_m":
            vectors = four_vectors(one, two, three, four)
        else:
            vectors = np.stack([one, two, three, four], axis=-1)
        beta = self._to_rest(batch, rows, vectors) if self.to_rest else self._velocity(draws)
        moved = boosted(vectors, rows.spread(beta))
        if self.form == "pt_eta_phi_m":
            pt, eta, phi = transverse(moved)
            still = (moved[:, 1:] == 0).all(axis=1)
            eta[still], phi[still] = two[still], three[still]
            self._check_transverse(batch, rows, eta)
            new = [pt, eta, phi]  # the mass stays, to the last bit
        else:
            new = list(moved.T)
        for column, values in zip(self.columns, new):
            given[:, column] = values
        made = dict(batch)
        rows.put(made, given)
        return made

    def _there(self, array: NDArray[np.float64]) -> NDArray[np.bool_]:
        if self.columns[0] >= array.shape[-1]:
            return np.ones(array.shape[:-1], bool)  # check_columns says what is wrong
        return np.asarray(array[..., self.columns[0]] > 0)

    def _limits(self) -> tuple[float, float]:
        beta = 0.0 if self.beta is None else self.beta
        return beta if isinstance(beta, tuple) else (beta, beta)

    def _velocity(self, draws: Draws) -> Floats:
        """Return ``(B, 3)``."""
        u = draws.uniform(3) if self.random else np.zeros((len(draws), 3))
        low, high = self._limits()
        size = low + (high - low) * u[:, :1]
        if self.axis != "any":
            return np.asarray(size * np.asarray(_AXES[self.axis]))
        z, angle = 1 - 2 * u[:, 1], 2 * np.pi * u[:, 2]
        radius = np.sqrt(1 - z * z)
        return np.asarray(size * np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=-1))

    @staticmethod
    def _to_rest(batch: Batch, rows: Rows, vectors: Floats) -> Floats:
        """Return ``(B, 3)``: the velocity of the sum, reversed; 0 for events without particles."""
        total = np.stack([rows.sums(vectors[:, i]) for i in range(4)], axis=-1)
        filled = np.diff(rows.offsets) > 0
        wrong = np.flatnonzero(filled & ~(total[:, 0] > np.sqrt(np.sum(total[:, 1:] ** 2, axis=1))))
        if wrong.size:
            i = int(wrong[0])
            raise at_event(
                ProcessError,
                f"the particles of key {rows.name!r} must have a rest frame, and their energy {total[i, 0]} is not"
                f" above their momentum {total[i, 1:].tolist()}",
                batch,
                rows.name,
                i,
            )
        return -total[:, 1:] / np.where(filled, total[:, 0], 1)[:, None]

    @staticmethod
    def _check_transverse(batch: Batch, rows: Rows, eta: Floats) -> None:
        wrong = np.flatnonzero(~np.isfinite(eta))
        if wrong.size:
            raise at_event(
                ProcessError,
                f"a particle of key {rows.name!r} has no finite pseudorapidity after the boost: use e_px_py_pz",
                batch,
                rows.name,
                int(rows.event[wrong[0]]),
            )
