"""The step that turns jets in the eta-phi plane."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import model_validator

from hepfeed.draws import Draws
from hepfeed.kinematics import Floats
from hepfeed.transforms.particles import Particles, check_particles
from hepfeed.transforms.step import Batch, Keys, Step

__all__ = ["JetRotate"]


class JetRotate(Step):
    """Turns each jet in the eta-phi plane, so that its principal axis points to one direction, or by a random angle.

    The principal axis has the angle a = atan2(2 M_ep, M_ee - M_pp) / 2 from the eta axis, with the second moments
    M_xy = sum pt x y / sum pt about the centre (Macaluso and Shih, JHEP 10 (2018) 121).  It has no sign: see
    ``JetFlip``.  Jets without one (a single constituent at the centre, or equal moments) stay as they are.  Turning in
    this plane changes the invariant mass; pt stays.

    Attributes:
        particles: ``Jagged (T, F)``, ``Padded (B, L, F)`` or dense ``(B, L, F)``, or the keys of components, as in
            ``("pt", "eta", "phi")``.  Of dense arrays the rows of pt above 0 are constituents.
        columns: Where pt, eta and phi are among the F numbers or keys.
        mode: ``"principal"``, or ``"random"``: an angle uniform in [-180, 180) degrees.
        to: Direction that the principal axis gets.
        about: ``"centroid"``: each jet turns about its means of eta and phi with weights pt; ``"origin"``: about
            (0, 0), for jets that ``JetCentre`` has put there by another centre.

    Raises:
        ProcessError: A key holds no particles, a pt is negative or not finite, or there is no such column.
    """

    particles: Keys
    columns: tuple[int, int, int] = (0, 1, 2)
    mode: Literal["principal", "random"] = "principal"
    to: Literal["eta", "phi"] = "phi"
    about: Literal["centroid", "origin"] = "centroid"

    @model_validator(mode="after")
    def _check(self) -> JetRotate:
        check_particles(self.particles, self.columns, "pt, eta and phi")
        return self

    @property
    def random(self) -> bool:  # type: ignore[override]
        """Whether the angle is random."""
        return self.mode == "random"

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with jets that turned."""
        jets = Particles.of(batch, self.particles, self.columns)
        centre = jets.centroid() if self.about == "centroid" else None
        eta, phi = jets.about(centre)
        if self.random:
            angle = draws.uniform(1, -np.pi, np.pi)[:, 0]
        else:
            angle = self._to_axis(jets, eta, phi)
        cos, sin = jets.rows.spread(np.cos(angle)), jets.rows.spread(np.sin(angle))
        return jets.put(batch, cos * eta - sin * phi, sin * eta + cos * phi, centre)

    def _to_axis(self, jets: Particles, eta: Floats, phi: Floats) -> Floats:
        sums = jets.rows.sums
        difference, mixed = sums(jets.pt * (eta * eta - phi * phi)), 2 * sums(jets.pt * eta * phi)
        # Moments that rounding alone makes differ give no axis.
        size = sums(jets.pt * (eta * eta + phi * phi))
        clear = np.hypot(difference, mixed) > 1e-12 * size
        target = np.pi / 2 if self.to == "phi" else 0.0
        return np.where(clear, target - np.arctan2(mixed, difference) / 2, 0.0)
