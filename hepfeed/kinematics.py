"""Momenta of particles: transverse coordinates, four-vectors and boosts.

Conventions of the Particle Data Group (review "Kinematics" in R.L. Workman et al., PTEP 2022, 083C01), with c = 1: the
beam is the z axis, pt = sqrt(px^2 + py^2), eta = asinh(pz / pt), phi = atan2(py, px).  Energy, momentum and mass have
one unit, any.  Everything is computed in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Floats", "boosted", "four_vectors", "transverse", "wrapped"]

Floats = NDArray[np.float64]


def wrapped(phi: NDArray[Any]) -> Floats:
    """Return angles as the equal ones in [-pi, pi)."""
    turned = np.asarray(phi, np.float64)
    made = turned - 2 * np.pi * np.floor((turned + np.pi) / (2 * np.pi))
    # The difference is rounded, and may be pi itself for angles just below an odd multiple of it.
    return np.where(made >= np.pi, -np.pi, made)


def four_vectors(pt: NDArray[Any], eta: NDArray[Any], phi: NDArray[Any], mass: NDArray[Any]) -> Floats:
    """Return ``(T, 4)``: E = sqrt(m^2 + pt^2 cosh^2 eta), px = pt cos phi, py = pt sin phi, pz = pt sinh eta.

    Args:
        pt: ``(T,)``.
        eta: ``(T,)``.
        phi: ``(T,)``.
        mass: ``(T,)``.
    """
    pt, eta, phi, mass = (np.asarray(each, np.float64) for each in (pt, eta, phi, mass))
    return np.stack([np.hypot(mass, pt * np.cosh(eta)), pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)], axis=-1)


def transverse(vectors: Floats) -> tuple[Floats, Floats, Floats]:
    """Return pt, eta and phi of four-vectors ``(T, 4)``; along the beam eta is infinite, without momentum NaN."""
    pt = np.hypot(vectors[:, 1], vectors[:, 2])
    with np.errstate(divide="ignore", invalid="ignore"):
        eta = np.arcsinh(vectors[:, 3] / pt)
    return pt, eta, wrapped(np.arctan2(vectors[:, 2], vectors[:, 1]))


def boosted(vectors: Floats, beta: Floats) -> Floats:
    """Return four-vectors after an active boost: a particle at rest gets the velocity beta.

    With gamma = 1 / sqrt(1 - beta^2), E' = gamma (E + beta.p) and
    p' = p + beta (gamma E + gamma^2 / (gamma + 1) beta.p): the particle as seen from a frame that moves with -beta.

    Args:
        vectors: ``(T, 4)``: E, px, py, pz.
        beta: ``(T, 3)`` velocities, each shorter than 1.
    """
    energy, momentum = vectors[:, 0], vectors[:, 1:]
    gamma = 1 / np.sqrt(1 - np.sum(beta * beta, axis=1))
    along = np.sum(beta * momentum, axis=1)
    factor = gamma * energy + gamma * gamma / (gamma + 1) * along
    return np.column_stack([gamma * (energy + along), momentum + beta * factor[:, None]])
