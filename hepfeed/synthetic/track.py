"""Tracks of charged particles: energy loss along the way, and the way itself.

Mean loss is the Bethe formula with Sternheimer's density effect, for electrons the Berger-Seltzer formula,
and the deflections are Highland's, all as in the Particle Data Group's review "Passage of particles through
matter".  The loss fluctuates by J. E. Moyal's approximation to Landau's distribution (Phil. Mag. 46 (1955)
263).  Energies are in MeV, lengths in mm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hepfeed.synthetic.event import Array

ELECTRON_MASS_MEV = 0.51099895
_K = 0.307075
"""Constant of the Bethe formula, MeV cm^2 / mol."""
_HIGHLAND_MEV = 13.6
_MOYAL_MEAN = np.log(2) + np.euler_gamma


@dataclass(frozen=True)
class TrackMedium:
    """What a track needs to know of a medium.

    Attributes:
        density: In g/cm^3.
        z_over_a: In mol/g.
        excitation_ev: Mean excitation energy.
        x0: Radiation length in g/cm^2.
        sternheimer: ``(a, k, x0, x1, C)`` of the density effect, or None for a gas where it is negligible.
    """

    density: float
    z_over_a: float
    excitation_ev: float
    x0: float
    sternheimer: tuple[float, float, float, float, float] | None = None

    @property
    def x0_mm(self) -> float:
        """Radiation length in mm."""
        return 10 * self.x0 / self.density


@dataclass(frozen=True)
class Particle:
    """A particle of unit charge: PDG number and mass."""

    pdg: int
    mass_mev: float


ELECTRON = Particle(11, ELECTRON_MASS_MEV)
MUON = Particle(13, 105.6583755)
PION = Particle(211, 139.57039)
PROTON = Particle(2212, 938.27208816)


def stopping_power(particle: Particle, medium: TrackMedium, kinetic: Array) -> Array:
    """Mean energy loss in MeV/mm at ``kinetic`` MeV."""
    gamma = 1 + kinetic / particle.mass_mev
    beta2 = 1 - 1 / gamma**2
    beta_gamma2 = gamma**2 - 1
    excitation = medium.excitation_ev * 1e-6
    delta = _density_effect(medium, beta_gamma2)
    if particle is ELECTRON:
        logarithm = np.log(ELECTRON_MASS_MEV**2 * beta_gamma2 * (gamma - 1) / (2 * excitation**2))
        bracket = (
            logarithm + (1 - beta2) - (2 * gamma - 1) / gamma**2 * np.log(2) + ((gamma - 1) / gamma) ** 2 / 8 - delta
        ) / 2
    else:
        ratio = ELECTRON_MASS_MEV / particle.mass_mev
        largest = 2 * ELECTRON_MASS_MEV * beta_gamma2 / (1 + 2 * gamma * ratio + ratio**2)
        logarithm = np.log(2 * ELECTRON_MASS_MEV * beta_gamma2 * largest / excitation**2)
        bracket = logarithm / 2 - beta2 - delta / 2
    loss: Array = _K * medium.z_over_a / beta2 * bracket * medium.density / 10
    return loss


def _density_effect(medium: TrackMedium, beta_gamma2: Array) -> Array:
    if medium.sternheimer is None:
        return np.zeros_like(beta_gamma2)
    a, k, x0, x1, c = medium.sternheimer
    x = np.log10(beta_gamma2) / 2
    delta = 2 * np.log(10) * x - c + a * np.maximum(x1 - x, 0) ** k
    return np.where(x < x0, 0, delta)


class RangeTable:
    """Range against kinetic energy in the continuous-slowing-down approximation, both ways.

    The residual range fixes the energy everywhere on a track, so that all steps of all tracks are found at
    once and the Bragg peak comes out at the end by itself.

    Args:
        particle: Which particle.
        medium: Which medium.
        highest_mev: Largest kinetic energy that will be asked for.
    """

    def __init__(self, particle: Particle, medium: TrackMedium, highest_mev: float) -> None:
        # Below beta gamma = 0.05 (electrons: 1 keV) the formulas fail; the loss is held at its value there.
        lowest = 0.001 if particle is ELECTRON else particle.mass_mev * (np.sqrt(1 + 0.05**2) - 1)
        self._kinetic = np.geomspace(lowest, max(highest_mev, 2 * lowest), 2000)
        loss = np.maximum(stopping_power(particle, medium, self._kinetic), 1e-9)
        steps = np.diff(self._kinetic) * (1 / loss[1:] + 1 / loss[:-1]) / 2
        self._range = lowest / loss[0] + np.concatenate([[0], np.cumsum(steps)])
        self._kinetic = np.concatenate([[0], self._kinetic])
        self._range = np.concatenate([[0], self._range])

    def range_mm(self, kinetic: Array) -> Array:
        """Path until the particle stops."""
        ranges: Array = np.interp(kinetic, self._kinetic, self._range)
        return ranges

    def kinetic_mev(self, residual_mm: Array) -> Array:
        """Energy of a particle that stops after ``residual_mm``; 0 once it has stopped."""
        energies: Array = np.interp(residual_mm, self._range, self._kinetic)
        return energies


@dataclass(frozen=True)
class Tracks:
    """Steps of ``N`` tracks, ``S`` each; those after the end of a track have no energy.

    Attributes:
        points: ``(N, S, 3) float64``, middle of each step, mm.
        deposits: ``(N, S) float64``, MeV, 0 after the end; the sum over a track is the energy that it lost.
        residual: ``(N, S) float64``, mm: residual range at the middle of each step, by the :class:`RangeTable`.
        stops: ``(N,) bool``: whether a track ends because its particle stops.
    """

    points: Array
    deposits: Array
    residual: Array
    stops: Array


def make_tracks(
    rng: np.random.Generator,
    particle: Particle,
    medium: TrackMedium,
    kinetic: Array,
    origin: Array,
    direction: Array,
    *,
    step_mm: float,
    length_mm: Array | float = np.inf,
) -> Tracks:
    """Follow particles until they stop.

    Args:
        rng: Source of random numbers.
        particle: Which particle.
        medium: Which medium.
        kinetic: ``(N,)`` kinetic energies.
        origin: ``(N, 3)`` first points.
        direction: ``(N, 3)`` unit vectors.
        step_mm: Length of a step.
        length_mm: ``(N,)`` or scalar; tracks end here even if the particle has not stopped.
    """
    table = RangeTable(particle, medium, float(kinetic.max()))
    ranges = table.range_mm(kinetic)
    count = max(1, int(np.ceil(np.minimum(ranges, length_mm).max() / step_mm)))
    travelled = np.minimum(step_mm * np.arange(count + 1), np.reshape(length_mm, (-1, 1)))
    energy = table.kinetic_mev(np.maximum(ranges[:, None] - travelled, 0))
    middle = np.maximum((energy[:, 1:] + energy[:, :-1]) / 2, 1e-3)
    gamma = 1 + middle / particle.mass_mev
    beta2 = 1 - 1 / gamma**2
    mean = -np.diff(energy, axis=1)
    # Landau's scale; Moyal's variable is -ln z^2 of a normal z, and its mean is subtracted to keep Bethe's.
    xi = _K / 2 * medium.z_over_a * medium.density * step_mm / 10 / beta2
    moyal = -np.log(np.maximum(rng.standard_normal(mean.shape) ** 2, 1e-12))
    deposits = np.maximum(mean + np.minimum(xi, mean / 4) * (moyal - _MOYAL_MEAN), mean / 4)
    deposits *= (energy[:, :1] - energy[:, -1:]) / deposits.sum(axis=1, keepdims=True)
    # beta c p of Highland's formula.
    momentum_beta = middle * (middle + 2 * particle.mass_mev) / (middle + particle.mass_mev)
    angles = np.minimum(_HIGHLAND_MEV / momentum_beta * np.sqrt(step_mm / medium.x0_mm), np.pi / 2)
    residual = np.maximum(ranges[:, None] - (travelled[:, 1:] + travelled[:, :-1]) / 2, 0)
    points = _walk(rng, origin, direction, angles, step_mm)
    return Tracks(points, deposits, residual, ranges <= length_mm)


def _walk(rng: np.random.Generator, origin: Array, direction: Array, angles: Array, step_mm: float) -> Array:
    """Middles of steps whose direction is deflected by ``angles (N, S)`` (rms in each plane) after each."""
    points = np.empty((*angles.shape, 3))
    position, heading = origin.astype(np.float64), direction.astype(np.float64)
    for step in range(angles.shape[1]):
        points[:, step] = position + step_mm / 2 * heading
        position = position + step_mm * heading
        kick = rng.standard_normal(heading.shape) * angles[:, step, None]
        kick -= np.sum(kick * heading, axis=1, keepdims=True) * heading
        size = np.linalg.norm(kick, axis=1, keepdims=True)
        heading = np.cos(size) * heading + np.sinc(size / np.pi) * kick
        heading /= np.linalg.norm(heading, axis=1, keepdims=True)
    return points


def isotropic(rng: np.random.Generator, count: int) -> Array:
    """Draw ``(count, 3)`` unit vectors in all directions."""
    vectors = rng.standard_normal((count, 3))
    unit: Array = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def perpendicular(rng: np.random.Generator, axis: Array) -> Array:
    """Draw a unit vector at right angles to each of ``axis (N, 3)``."""
    vectors = np.cross(axis, isotropic(rng, len(axis)))
    unit: Array = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
