"""The step that moves jets to the origin of the eta-phi plane."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from hepfeed.draws import Draws
from hepfeed.transforms.particles import Particles, check_particles
from hepfeed.transforms.step import Batch, Keys, Step

__all__ = ["JetCentre"]


class JetCentre(Step):
    """Subtracts a centre of each jet from eta and phi of its constituents; phi is wrapped to [-pi, pi).

    Differences of eta and phi of massless particles don't change under boosts along the beam, so that this leaves the
    invariant masses of pairs of them as they are.  The first step of the preprocessing of jet images (Kasieczka, Plehn,
    Russell and Schell, JHEP 05 (2017) 006; Macaluso and Shih, JHEP 10 (2018) 121).

    Attributes:
        particles: ``Jagged (T, F)``, ``Padded (B, L, F)`` or dense ``(B, L, F)``, or the keys of components, as in
            ``("pt", "eta", "phi")``.  Of dense arrays the rows of pt above 0 are constituents; the others, padding,
            stay as they are.
        columns: Where pt, eta and phi are among the F numbers or keys.
        about: ``"centroid"``: the means of eta and phi with weights pt; ``"axis"``: the direction of the summed
            momenta; ``"hardest"``: the constituent of the largest pt.

    Raises:
        ProcessError: A key holds no particles, a pt is negative or not finite, or there is no such column.
    """

    particles: Keys
    columns: tuple[int, int, int] = (0, 1, 2)
    about: Literal["centroid", "axis", "hardest"] = "centroid"

    @model_validator(mode="after")
    def _check(self) -> JetCentre:
        check_particles(self.particles, self.columns, "pt, eta and phi")
        return self

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with jets at the origin."""
        jets = Particles.of(batch, self.particles, self.columns)
        centre = {"centroid": jets.centroid, "axis": jets.axis, "hardest": jets.hardest}[self.about]()
        return jets.put(batch, *jets.about(centre))
