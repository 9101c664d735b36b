"""Showers as clouds of energy spots: where along the shower, and how far from its axis.

Electromagnetic showers follow G. Grindhammer and S. Peters, "The parameterized simulation of electromagnetic
showers in homogeneous and sampling calorimeters", hep-ex/0001020, and G. Grindhammer, M. Rudowicz and S.
Peters, NIM A290 (1990) 469; hadronic ones R. K. Bock, T. Hansl-Kozanecka and T. P. Shah, NIM 186 (1981) 533.
Energies are in GeV, depths in radiation or interaction lengths, radii in mm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hepfeed.synthetic.event import Array, float32
from hepfeed.synthetic.material import ShowerMedium

BOCK_EM_FRACTION = 0.4634
"""Mean electromagnetic part of a hadronic shower (fit of Bock et al.)."""
BOCK_EM_DEPTH = 0.2198
"""Inverse length of the electromagnetic part, per radiation length (fit of Bock et al.)."""

_SMALLEST_ALPHA = 1.1


@dataclass(frozen=True)
class EmShape:
    """Longitudinal shape of each of ``N`` electromagnetic showers, ``dE/dt ~ t^(alpha - 1) exp(-beta t)``.

    Attributes:
        alpha: ``(N,) float32``.
        beta: ``(N,) float32``, per radiation length.
        tau_per_x0: ``(N,) float32``; depth times this is the shower-age variable of the radial profile.
        log_energy: ``(N,) float32``, ``ln(E / GeV)``.
    """

    alpha: Array
    beta: Array
    tau_per_x0: Array
    log_energy: Array


def em_shape(rng: np.random.Generator, energy: Array, medium: ShowerMedium) -> EmShape:
    """Draw the longitudinal shapes of showers of ``energy (N,)`` GeV (hep-ex/0001020, A.1.2 and A.2.2).

    ``ln T`` (``T``: depth of the maximum) and ``ln alpha`` are correlated normal variables whose means and
    widths depend on ``ln(E / E_c)``.  The widths diverge where the fit was never made, so the logarithm is
    held at 3.2 (sampling) or 2.2 (homogeneous) below: for tungsten that is 0.2 GeV, for liquid argon 0.3.
    """
    sampling = medium.inverse_sampling_frequency
    log_y = np.maximum(np.log(energy / medium.critical_gev), 3.2 if sampling else 2.2)
    mean_t = log_y - 0.812
    mean_alpha = 0.81 + (0.458 + 2.26 / medium.z) * log_y
    if sampling:
        mean_t = mean_t - 0.55 * sampling - 0.69 * (1 - medium.e_mip)
        mean_alpha = mean_alpha - 0.476 * sampling
        sigma_t, sigma_alpha = 1 / (-2.5 + 1.25 * log_y), 1 / (-0.82 + 0.79 * log_y)
        correlation = 0.784 - 0.023 * log_y
    else:
        sigma_t, sigma_alpha = 1 / (-1.4 + 1.26 * log_y), 1 / (-0.58 + 0.86 * log_y)
        correlation = 0.705 - 0.023 * log_y
    common, opposite = np.sqrt((1 + correlation) / 2), np.sqrt((1 - correlation) / 2)
    first, second = rng.standard_normal((2, len(energy)))
    maximum = mean_t * np.exp(sigma_t * (common * first + opposite * second))
    alpha = mean_alpha * np.exp(sigma_alpha * (common * first - opposite * second))
    alpha = np.maximum(alpha, _SMALLEST_ALPHA)
    beta = (alpha - 1) / maximum
    tau_per_x0 = beta / alpha * mean_alpha / (mean_alpha - 1)
    return EmShape(*(float32(value) for value in (alpha, beta, tau_per_x0, np.log(energy))))


def em_depths(rng: np.random.Generator, shape: EmShape, shower: Array) -> Array:
    """Draw the depth of each spot from the start of its shower.

    Args:
        rng: Source of random numbers.
        shape: Shapes of ``N`` showers.
        shower: ``(M,)`` indices of the shower that each spot belongs to.

    Returns:
        ``(M,) float32`` radiation lengths.
    """
    return rng.standard_gamma(shape.alpha[shower], dtype=np.float32) / shape.beta[shower]


def em_radii(rng: np.random.Generator, shape: EmShape, shower: Array, depth: Array, medium: ShowerMedium) -> Array:
    """Draw the distance of each spot from the shower axis (hep-ex/0001020, A.1.3 and A.2.3).

    The density is ``p 2 r Rc^2 / (r^2 + Rc^2)^2 + (1 - p) 2 r Rt^2 / (r^2 + Rt^2)^2``, a core and a tail
    whose radii and weight change with the age of the shower at ``depth (M,)``.

    Returns:
        ``(M,) float32`` Molière radii.
    """
    z, thickness, unseen = medium.z, medium.inverse_sampling_frequency, 1 - medium.e_mip
    # Beyond five times the depth of the maximum the fit, exponential in tau, has nothing left to describe.
    tau = np.minimum(depth * shape.tau_per_x0[shower], 5)
    log_energy = shape.log_energy[shower]
    core = 0.0251 + 0.00319 * log_energy + (0.1162 - 0.000381 * z) * tau
    tail = np.exp(-2.59 * (tau - 0.645))
    tail += np.exp((0.3585 + 0.0421 * log_energy) * (tau - 0.645))
    tail *= 0.659 - 0.00309 * z
    width = 1.313 - 0.0686 * log_energy
    age = (0.401 + 0.00187 * z - tau) / width
    weight = (2.632 - 0.00094 * z) * np.exp(age - np.exp(age))
    if thickness:
        late = np.exp(-tau)
        core += 0.0397 * thickness * late - 0.0203 * unseen
        tail -= 0.495 * thickness * late + 0.14 * unseen
        weight += unseen * (0.348 - 0.642 * thickness * np.exp(-((tau - 1) ** 2)))
    in_core = rng.random(len(tau), dtype=np.float32) < weight
    scale = np.where(in_core, np.maximum(core, 0.01), np.maximum(tail, 0.05))
    radii: Array = scale * lorentz_radii(rng, len(tau))
    return radii


def lorentz_radii(rng: np.random.Generator, count: int) -> Array:
    """Draw ``(count,) float32`` from ``2 r / (r^2 + 1)^2``, whose median is 1."""
    u = rng.random(count, dtype=np.float32)
    radii: Array = np.sqrt(u / (1 - u))
    return radii


def conversion_depths(rng: np.random.Generator, count: int) -> Array:
    """Draw the depth at which photons convert: exponential with a mean of 9/7 radiation lengths (Rossi)."""
    return rng.exponential(9 / 7, count)


def bock_shape(energy: Array) -> Array:
    """Exponent ``alpha`` of both parts of hadronic showers of ``energy`` GeV (fit of Bock et al.)."""
    return float32(np.maximum(0.6165 + 0.3183 * np.log(energy), _SMALLEST_ALPHA))


def bock_hadronic_depth(energy: Array) -> Array:
    """Inverse length of the hadronic part, per interaction length (fit of Bock et al.)."""
    return float32(0.9099 - 0.0237 * np.log(energy))
