"""The step that mirrors jets in the eta-phi plane."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import model_validator

from hepfeed.draws import Draws
from hepfeed.errors import SpecError
from hepfeed.kinematics import Floats
from hepfeed.transforms.particles import Particles, check_particles
from hepfeed.transforms.step import Batch, Keys, Step

__all__ = ["JetFlip"]


class JetFlip(Step):
    """Mirrors each jet in eta and phi, so that the harder half lies on the positive side, or at random.

    The harder half has the larger sum of pt; at equal sums the jet stays as it is.  The last step of the preprocessing
    of jet images, after ``JetCentre`` and ``JetRotate`` (Kasieczka, Plehn, Russell and Schell, JHEP 05 (2017) 006;
    Macaluso and Shih, JHEP 10 (2018) 121).  Invariant masses don't change.

    Attributes:
        particles: ``Jagged (T, F)``, ``Padded (B, L, F)`` or dense ``(B, L, F)``, or the keys of components, as in
            ``("pt", "eta", "phi")``.  Of dense arrays the rows of pt above 0 are constituents.
        columns: Where pt, eta and phi are among the F numbers or keys.
        axes: ``"eta"``, ``"phi"`` or both, each for itself.
        mode: ``"harder"`` or ``"random"``.
        probability: That an axis is mirrored, for ``"random"``.
        about: ``"centroid"``: mirrors stand at the jet's means of eta and phi with weights pt; ``"origin"``: at 0.

    Raises:
        ProcessError: A key holds no particles, a pt is negative or not finite, or there is no such column.
    """

    particles: Keys
    columns: tuple[int, int, int] = (0, 1, 2)
    axes: tuple[Literal["eta", "phi"], ...] = ("eta", "phi")
    mode: Literal["harder", "random"] = "harder"
    probability: float | None = None
    about: Literal["centroid", "origin"] = "centroid"

    @model_validator(mode="after")
    def _check(self) -> JetFlip:
        check_particles(self.particles, self.columns, "pt, eta and phi")
        if not self.axes or len(set(self.axes)) < len(self.axes):
            raise SpecError(f"axes must be 'eta', 'phi' or both, not {self.axes!r}")
        if self.probability is not None and (self.mode != "random" or not 0 <= self.probability <= 1):
            raise SpecError(f"probability must be from 0 to 1, for mode='random' only, not {self.probability}")
        return self

    @property
    def random(self) -> bool:  # type: ignore[override]
        """Whether jets are mirrored at random."""
        return self.mode == "random"

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with jets that are mirrored."""
        jets = Particles.of(batch, self.particles, self.columns)
        centre = jets.centroid() if self.about == "centroid" else None
        eta, phi = jets.about(centre)
        u = draws.uniform(len(self.axes)) if self.random else None
        sides: dict[str, Floats] = {"eta": eta, "phi": phi}
        for i, axis in enumerate(self.axes):
            if u is None:
                flipped = jets.rows.sums(jets.pt * np.sign(sides[axis])) < 0
            else:
                flipped = u[:, i] < (0.5 if self.probability is None else self.probability)
            sides[axis] = np.where(jets.rows.spread(flipped), -sides[axis], sides[axis])
        return jets.put(batch, sides["eta"], sides["phi"], centre)
