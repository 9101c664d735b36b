"""Events of a high-pressure xenon chamber (NEXT): one electron or two of the same total energy.

Two electrons from a common vertex are what neutrinoless double beta decay of xenon-136 looks like: a long
track with a dense blob, where an electron stops, at each end.  One electron is the background: a blob at one
end only.  Axes are (x, y, z) in mm about the barycentre of the event.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hepfeed.errors import SpecError
from hepfeed.synthetic.event import Array, Block, Ragged, float32
from hepfeed.synthetic.image import accumulate
from hepfeed.synthetic.track import (
    ELECTRON,
    ELECTRON_MASS_MEV,
    TrackMedium,
    isotropic,
    make_tracks,
    perpendicular,
)

Q_VALUE_MEV = 2.458
"""Energy released by the double beta decay of xenon-136."""
MAP_SHAPE = (20, 20, 60)
VOXEL_MM = (10.0, 10.0, 5.0)
STEP_MM = 2.0
DENSITY_PER_BAR = 0.0875 / 15
"""Density of xenon gas at room temperature, g/cm^3 for each bar (15 bar are 0.0875)."""

CLASSES = {"TwoElectron": "two_electron", "OneElectron": "one_electron"}


@dataclass(frozen=True)
class NextGenerator:
    """Electron tracks that deposit 2.458 MeV.

    Args:
        name: ``TwoElectron`` or ``OneElectron``.
        pressure: Of the xenon, in bar, at least 5; tracks are about 25 cm long at 15 bar.
        diffusion_mm: Spread of the charge in each direction.
        block: Events made at a time.

    Raises:
        SpecError: A class that there isn't, or a pressure or diffusion out of range.
    """

    name: str
    pressure: float = 15.0
    diffusion_mm: float = 2.0
    block: int = 128

    axes = ("z voxel", "x voxel")

    def __post_init__(self) -> None:
        if self.name not in CLASSES:
            raise SpecError(f"expected a NEXT class, one of {', '.join(CLASSES)}; got {self.name!r}")
        if not 5 <= self.pressure <= 50:
            raise SpecError(f"expected a pressure of 5 to 50 bar, got {self.pressure:g}")
        if not 0 <= self.diffusion_mm <= 50:
            raise SpecError(f"expected a diffusion of 0 to 50 mm, got {self.diffusion_mm:g}")

    @property
    def label(self) -> str:
        """Label of the class."""
        return CLASSES[self.name]

    def keys(self, *, ragged: bool) -> list[str]:
        """List the maps or the hits."""
        return ["Hits/C", "Hits/V"] if ragged else ["maps"]

    def parameters(self) -> dict[str, Any]:
        """Describe the generator as JSON values."""
        return asdict(self)

    def generate(self, rng: np.random.Generator, events: int, *, ragged: bool) -> Block:
        """Make events: maps ``(N, 20, 20, 60) float32`` MeV, or hits with offsets.

        Hits are ``C (M, 3) float32`` mm and ``V (M,) float32`` MeV.  Both forms come with
        ``energy (N,)`` MeV, that of the hits inside of the map, and ``ends (N, 2, 3)`` mm:
        where the two electrons stop, or where the one starts and stops.
        """
        two = self.name == "TwoElectron"
        medium = TrackMedium(DENSITY_PER_BAR * self.pressure, 0.41129, 482.0, 8.48)
        first = isotropic(rng, events)
        if two:
            energies, cosine = share_energy(rng, events)
            aside = perpendicular(rng, first)
            second = cosine[:, None] * first + np.sqrt(1 - cosine**2)[:, None] * aside
            kinetic = np.concatenate([energies, Q_VALUE_MEV - energies])
            direction = np.concatenate([first, second])
        else:
            kinetic, direction = np.full(events, Q_VALUE_MEV), first
        vertex = np.zeros((len(kinetic), 3))
        tracks = make_tracks(rng, ELECTRON, medium, kinetic, vertex, direction, step_mm=STEP_MM)
        points, deposits = tracks.points, tracks.deposits
        last = np.count_nonzero(deposits, axis=1) - 1
        stops = points[np.arange(len(kinetic)), last]
        if two:
            ends = np.stack([stops[:events], stops[events:]], axis=1)
            points, deposits = (np.concatenate([a[:events], a[events:]], axis=1) for a in (points, deposits))
        else:
            ends = np.stack([vertex, stops], axis=1)
        centre = np.einsum("ns,nsi->ni", deposits, points) / deposits.sum(axis=1, keepdims=True)
        points = points + rng.normal(0, self.diffusion_mm, points.shape) - centre[:, None]
        voxels = np.floor(points.astype(np.float32) / float32(VOXEL_MM)) + np.array(MAP_SHAPE) // 2
        event, hit = np.nonzero((deposits > 0) & np.all((voxels >= 0) & (voxels < MAP_SHAPE), axis=2))
        charge = float32(deposits[event, hit])
        scalars = {
            "energy": float32(np.bincount(event, weights=charge, minlength=events)),
            "ends": float32(ends - centre[:, None]),
        }
        if ragged:
            counts = np.bincount(event, minlength=events)
            hits = Ragged.from_counts(counts, C=float32(points[event, hit]), V=charge)
            return {"Hits": hits, **scalars}
        x, y, z = voxels[event, hit].astype(np.int64).T
        index = np.ravel_multi_index((event, x, y, z), (events, *MAP_SHAPE))
        return {"maps": accumulate(index, charge, (events, *MAP_SHAPE), np.float32), **scalars}

    def profiles(self, block: Block) -> tuple[Array, Array]:
        """Mean MeV along z and along x."""
        maps = np.asarray(block["maps"])
        return maps.sum(axis=(1, 2)).mean(axis=0), maps.sum(axis=(2, 3)).mean(axis=0)


def share_energy(rng: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Draw energies of the first electron and cosines of the angle to the other, each ``(count,)``.

    Neutrinoless double beta decay in the Primakoff-Rosen approximation (Rep. Prog. Phys. 22 (1959) 121): the
    density is ``(T + m)^2 (Q - T + m)^2 (1 - b1 b2 cos)`` with ``b`` the velocities.
    """
    grid = np.linspace(0, Q_VALUE_MEV, 1001)
    density = (grid + ELECTRON_MASS_MEV) ** 2 * (Q_VALUE_MEV - grid + ELECTRON_MASS_MEV) ** 2
    cumulative = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
    energies = np.interp(rng.random(count), cumulative / cumulative[-1], grid)
    gammas = 1 + np.stack([energies, Q_VALUE_MEV - energies]) / ELECTRON_MASS_MEV
    k = np.maximum(np.prod(np.sqrt(1 - 1 / gammas**2), axis=0), 1e-9)
    # Solve (c + 1) / 2 - k (c^2 - 1) / 4 = u for c.
    cosine = (1 - np.sqrt((1 + k) ** 2 - 4 * k * rng.random(count))) / k
    return energies, np.clip(cosine, -1, 1)
