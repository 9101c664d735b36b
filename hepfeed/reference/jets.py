"""What the steps for jets compute, for one jet and number by number: the plain form that tests compare with.

A jet is a list of constituents (pt, eta, phi), a particle (E, px, py, pz).  Angles are in radians.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["boost", "centroid", "invariant_mass", "jet_axis", "principal_angle", "wrap"]

Constituent = tuple[float, float, float]
FourVector = tuple[float, float, float, float]


def wrap(phi: float) -> float:
    """Return phi + 2 pi n in [-pi, pi), by the quadrant of its sine and cosine."""
    turned = math.atan2(math.sin(phi), math.cos(phi))
    return -math.pi if turned >= math.pi else turned


def jet_axis(jet: Sequence[Constituent]) -> tuple[float, float]:
    """Return eta and phi of P = sum p, with p = pt (cos phi, sin phi, sinh eta)."""
    px = math.fsum(pt * math.cos(phi) for pt, _, phi in jet)
    py = math.fsum(pt * math.sin(phi) for pt, _, phi in jet)
    pz = math.fsum(pt * math.sinh(eta) for pt, eta, _ in jet)
    return math.asinh(pz / math.hypot(px, py)), math.atan2(py, px)


def centroid(jet: Sequence[Constituent]) -> tuple[float, float]:
    """Return sum pt eta / sum pt and phi_J + sum pt wrap(phi - phi_J) / sum pt, phi_J that of the jet axis."""
    total = math.fsum(pt for pt, _, _ in jet)
    _, axis = jet_axis(jet)
    eta = math.fsum(pt * eta for pt, eta, _ in jet) / total
    return eta, wrap(axis + math.fsum(pt * wrap(phi - axis) for pt, _, phi in jet) / total)


def principal_angle(jet: Sequence[Constituent]) -> float:
    """Return the angle a in (-pi/2, pi/2] of the principal axis, tan 2a = 2 M_ep / (M_ee - M_pp).

    Found as the direction along which sum pt (eta cos a + phi sin a)^2 is largest: where its derivative is 0 and its
    second derivative is negative.
    """
    ee = math.fsum(pt * eta * eta for pt, eta, _ in jet)
    pp = math.fsum(pt * phi * phi for pt, _, phi in jet)
    ep = math.fsum(pt * eta * phi for pt, eta, phi in jet)
    stationary = [0.5 * math.atan2(2 * ep, ee - pp), 0.5 * math.atan2(-2 * ep, pp - ee)]
    return max(stationary, key=lambda a: ee * math.cos(a) ** 2 + pp * math.sin(a) ** 2 + ep * math.sin(2 * a))


def boost(particle: FourVector, beta: tuple[float, float, float]) -> FourVector:
    """Return the particle after an active boost by beta = b n.

    The components along n transform as E' = g (E + b p_n) and p_n' = g (p_n + b E), g = 1 / sqrt(1 - b^2); those across
    it stay.
    """
    size = math.sqrt(math.fsum(b * b for b in beta))
    if size == 0:
        return particle
    unit = [b / size for b in beta]
    gamma = 1 / math.sqrt(1 - size * size)
    energy, momentum = particle[0], particle[1:]
    along = math.fsum(p * n for p, n in zip(momentum, unit))
    new = gamma * (along + size * energy)
    x, y, z = (p + (new - along) * n for p, n in zip(momentum, unit))
    return gamma * (energy + size * along), x, y, z


def invariant_mass(particles: Sequence[FourVector]) -> float:
    """Return sqrt((sum E)^2 - |sum p|^2), 0 where rounding makes it imaginary."""
    energy, *momentum = (math.fsum(column) for column in zip(*particles))
    return math.sqrt(max(energy * energy - math.fsum(p * p for p in momentum), 0.0))
