"""Events of the CLIC calorimeters (LCD): electrons, photons, neutral and charged pions.

Where the cells are and what their energies mean is said in :mod:`hepfeed.synthetic.calorimeter`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from hepfeed.errors import SpecError
from hepfeed.synthetic import shower
from hepfeed.synthetic.calorimeter import (
    ECAL_CELL_MM,
    ECAL_LAYER,
    ECAL_SHAPE,
    HCAL_LAYER,
    INTERACTION,
    LAYERS,
    RADIATION,
    Axes,
    DepthUnit,
    Window,
)
from hepfeed.synthetic.event import Array, Block, Ragged, float32
from hepfeed.synthetic.features import calorimeter_features

Schema = Literal["v1", "nested"]
Radii = Callable[[Array, Array], Array]

SPOTS_PER_GEV = 10.3 / 0.17
"""Spots of an electromagnetic shower: ``10.3 / c E^0.959`` (hep-ex/0001020, A.2.4), ``c = 0.17`` here."""
HCAL_SPOTS_PER_GEV = 10.3 / 0.45
"""The same for the electromagnetic part of hadronic showers, with the ``c`` of steel-scintillator."""
HADRONIC_SPOT_GEV = 0.2
"""Energy of a spot of the hadronic part: a resolution of 45 % / sqrt(E), typical of steel-scintillator."""
HADRONIC_RESPONSE = 0.8
"""Part of the hadronic energy that is seen; the rest breaks nuclei or leaves with neutrinos."""
EM_FRACTION_CONCENTRATION = 5.0
"""The electromagnetic fraction is a Beta variable with this ``a + b``: a spread of 0.20."""
TRACKER_X0 = 0.1
"""Material before the ECAL, in radiation lengths: photons that convert there have ``conversion`` 1."""
FLIGHT_MM = 1500.0
"""Distance from the vertex to the face of the ECAL, over which the photons of a neutral pion part."""
NEUTRAL_PION_GEV = 0.1349768

HIGHEST_GEV = 5000.0

_DIVERGENCE = 0.02


@dataclass(frozen=True)
class _Kind:
    label: str
    pdg: int
    mass_gev: float


KINDS = {
    "EleEscan": _Kind("electron", 11, 0.000510999),
    "ChPiEscan": _Kind("pion", 211, 0.1395704),
    "GammaEscan": _Kind("photon", 22, 0.0),
    "Pi0Escan": _Kind("pi0", 111, NEUTRAL_PION_GEV),
}
"""The classes, by the name of their directory: label, PDG number, mass."""


@dataclass(frozen=True)
class LcdGenerator:
    """Calorimeter events of one class, uniform in energy.

    Args:
        name: ``EleEscan``, ``ChPiEscan``, ``GammaEscan`` or ``Pi0Escan``.
        energy: Lowest and highest energy in GeV, of 2 to 5000.
        schema: ``"v1"``: ``ECAL``, ``HCAL``, ``target``, ``energy`` and features at the root.  ``"nested"``:
            ``ECAL/ECAL``, ``HCAL/HCAL`` and the scalars in ``Event``.
        block: Events made at a time; an event of 250 GeV is some 12,000 spots.

    Raises:
        SpecError: A class or a schema that there isn't, or energies out of order or range.
    """

    name: str
    energy: tuple[float, float] = (10.0, 500.0)
    schema: Schema = "v1"
    block: int = 32

    axes = ("layer (25 ECAL, 60 HCAL)", "ECAL cell along x")

    def __post_init__(self) -> None:
        if self.name not in KINDS:
            raise SpecError(f"expected an LCD class, one of {', '.join(KINDS)}; got {self.name!r}")
        if self.schema not in ("v1", "nested"):
            raise SpecError(f"expected the schema 'v1' or 'nested', got {self.schema!r}")
        low, high = self.energy
        if not 2 <= low <= high <= HIGHEST_GEV:
            raise SpecError(
                f"expected energies in GeV with 2 <= lowest <= highest <= {HIGHEST_GEV:g}, got {low:g} and {high:g}"
            )

    @property
    def label(self) -> str:
        """Label of the class."""
        return KINDS[self.name].label

    def keys(self, *, ragged: bool) -> list[str]:
        """List the images and, in schema ``v1``, the target."""
        images = ["ECAL", "HCAL"] if self.schema == "v1" else ["ECAL/ECAL", "HCAL/HCAL"]
        if ragged:
            images = [f"{image}/{column}" for image in images for column in ("C", "V")]
        return [*images, "target"] if self.schema == "v1" else [*images, "Event/energy"]

    def parameters(self) -> dict[str, Any]:
        """Describe the generator as JSON values."""
        return asdict(self)

    def generate(self, rng: np.random.Generator, events: int, *, ragged: bool) -> Block:
        """Make events: images ``(N, 25, 25, 25)`` and ``(N, 5, 5, 60)`` float32, or the cells that aren't 0.

        Cells are ``C (M, 3) int16`` indices (x, y, layer) and ``V (M,) float32`` GeV, with offsets.  Both
        come with ``energy``, ``pdgID``, ``conversion`` and the features of :func:`calorimeter_features`;
        schema ``v1`` also with ``target (N, 1, 5) float32``: PDG number, energy, and momentum px, py, pz in
        GeV.
        """
        energy = rng.uniform(*self.energy, events)
        axes, direction = self._aim(rng, events)
        window = Window(events)
        conversion = np.zeros(events, np.int32)
        match self.name:
            case "EleEscan":
                _add_em(rng, window, axes, energy, np.zeros(events))
            case "GammaEscan":
                conversion = _add_photon(rng, window, axes, energy)
            case "Pi0Escan":
                conversion = _add_neutral_pion(rng, window, axes, energy)
            case _:
                _add_charged_pion(rng, window, axes, energy)
        window.cut()
        return self._pack(window, energy, direction, conversion, ragged)

    def profiles(self, block: Block) -> tuple[Array, Array]:
        """Mean GeV a layer, and mean GeV a column of ECAL cells."""
        names = ("ECAL", "HCAL") if self.schema == "v1" else ("ECAL/ECAL", "HCAL/HCAL")
        ecal, hcal = (np.asarray(block[name]) for name in names)
        along = np.concatenate([image.sum(axis=(1, 2)).mean(axis=0) for image in (ecal, hcal)])
        return along, ecal.sum(axis=(2, 3)).mean(axis=0)

    def _aim(self, rng: np.random.Generator, events: int) -> tuple[Axes, Array]:
        """Cross the face inside the middle cell, within 0.02 rad of the normal; also return unit vectors."""
        x, y = rng.uniform(-ECAL_CELL_MM / 2, ECAL_CELL_MM / 2, (2, events)).astype(np.float32)
        slopes = rng.uniform(-_DIVERGENCE, _DIVERGENCE, (2, events)).astype(np.float32)
        direction = np.stack([*slopes, np.ones(events)], axis=1)
        return Axes(x, y, *slopes), direction / np.linalg.norm(direction, axis=1, keepdims=True)

    def _pack(self, window: Window, energy: Array, direction: Array, conversion: Array, ragged: bool) -> Block:
        kind = KINDS[self.name]
        pdg = np.full(len(energy), kind.pdg)
        ecal = _sparse(window.ecal) if ragged else window.ecal
        hcal = _sparse(window.hcal) if ragged else window.hcal
        scalars = {
            "energy": energy.astype(np.float32),
            "pdgID": pdg.astype(np.int32),
            "conversion": conversion,
            **calorimeter_features(window.ecal, window.hcal),
        }
        if self.schema == "nested":
            return {
                "ECAL/ECAL": ecal,
                "HCAL/HCAL": hcal,
                **{f"Event/{name}": value for name, value in scalars.items()},
            }
        momentum = np.sqrt(energy**2 - kind.mass_gev**2)[:, None] * direction
        target = np.column_stack([pdg, energy, momentum]).astype(np.float32)[:, None, :]
        return {"ECAL": ecal, "HCAL": hcal, "target": target, **scalars}


def _sparse(image: Array) -> Ragged:
    """Cells that aren't 0: ``C (M, 3) int16`` and ``V (M,) float32``, in order of the event."""
    where = np.nonzero(image)
    counts = np.bincount(where[0], minlength=len(image))
    return Ragged.from_counts(counts, C=np.stack(where[1:], axis=1).astype(np.int16), V=image[where])


def _add_em(rng: np.random.Generator, window: Window, axes: Axes, energy: Array, start: Array) -> None:
    """Add electromagnetic showers of ``energy (N,)`` that start at ``start (N,)`` radiation lengths."""
    medium = ECAL_LAYER.medium
    spots = np.maximum(np.rint(SPOTS_PER_GEV * energy**0.959), 1).astype(np.int64)
    event = np.repeat(np.arange(len(energy)), spots)
    shape = shower.em_shape(rng, energy, medium)
    depth = shower.em_depths(rng, shape, event)
    radius = shower.em_radii(rng, shape, event, depth, medium)
    layer = RADIATION.layer(depth + float32(start)[event])
    moliere = _choose(layer, medium.moliere_mm, HCAL_LAYER.medium.moliere_mm)
    window.add_spots(rng, axes, event, layer, radius * moliere, float32(energy / spots))


def _add_photon(rng: np.random.Generator, window: Window, axes: Axes, energy: Array) -> Array:
    """Add showers from where the photon converts; return ``(N,) int32``, 1 where that is in the tracker."""
    start = shower.conversion_depths(rng, len(energy)) - TRACKER_X0
    _add_em(rng, window, axes, energy, np.maximum(start, 0))
    return (start < 0).astype(np.int32)


def _add_neutral_pion(rng: np.random.Generator, window: Window, axes: Axes, energy: Array) -> Array:
    """Add the two photons of a decay that is isotropic at rest, ``FLIGHT_MM`` before the face.

    With ``c`` the cosine at rest, the energies are ``E (1 +- beta c) / 2``, and the momentum across the line
    of flight is ``m sqrt(1 - c^2) / 2`` for both.
    """
    beta = np.sqrt(1 - (NEUTRAL_PION_GEV / energy) ** 2)
    cosine = rng.uniform(-1, 1, len(energy))
    azimuth = rng.uniform(0, 2 * np.pi, len(energy))
    transverse = NEUTRAL_PION_GEV / 2 * np.sqrt(1 - cosine**2)
    conversion = np.zeros(len(energy), np.int32)
    for sign in (1, -1):
        photon = energy / 2 * (1 + sign * beta * cosine)
        along = energy / 2 * (beta + sign * cosine)
        # A soft photon may even fly backwards: its angle is held at 1 rad, far outside of the window.
        slope = sign * np.where(along > transverse, transverse / np.maximum(along, transverse), 1.0)
        slope_x, slope_y = float32(slope * np.cos(azimuth)), float32(slope * np.sin(azimuth))
        own = Axes(
            axes.x + slope_x * FLIGHT_MM,
            axes.y + slope_y * FLIGHT_MM,
            axes.slope_x + slope_x,
            axes.slope_y + slope_y,
        )
        conversion |= _add_photon(rng, window, own, photon)
    return conversion


def _add_charged_pion(rng: np.random.Generator, window: Window, axes: Axes, energy: Array) -> None:
    """Add a minimum-ionising track up to the first nuclear interaction, then a shower of two parts."""
    start = INTERACTION.layer(rng.exponential(1, len(energy)))
    # Moyal's variable -ln z^2 about its mean of 1.27: Landau-like fluctuation of the loss in a layer.
    moyal = -np.log(np.maximum(rng.standard_normal((len(energy), LAYERS)) ** 2, 1e-9))
    mip = np.where(np.arange(LAYERS) < ECAL_SHAPE[2], ECAL_LAYER.mip_gev, HCAL_LAYER.mip_gev)
    track = mip * np.maximum(1 + 0.15 * (moyal - 1.27), 0.3) * (np.arange(LAYERS) < start[:, None])
    # A slow pion would stop before its interaction; it keeps a tenth of its energy for the shower.
    track *= np.minimum(1, 0.9 * energy / np.maximum(track.sum(axis=1), 1e-9))[:, None]
    window.add_track(axes, float32(track))

    rest = energy - track.sum(axis=1)
    mean, total = shower.BOCK_EM_FRACTION, EM_FRACTION_CONCENTRATION
    em = rest * rng.beta(mean * total, (1 - mean) * total, len(energy))
    alpha = shower.bock_shape(rest)

    def add_part(visible: Array, spots_per_gev: float, unit: DepthUnit, rate: Array, radii: Radii) -> None:
        spots = np.rint(visible * spots_per_gev).astype(np.int64)
        event = np.repeat(np.arange(len(energy)), spots)
        depth = rng.standard_gamma(alpha[event], dtype=np.float32) / rate[event]
        layer = unit.layer(float32(unit.depth(start))[event] + depth)
        radius = radii(layer, layer - float32(start)[event]) * shower.lorentz_radii(rng, len(event))
        window.add_spots(rng, axes, event, layer, radius, float32(visible / np.maximum(spots, 1)))

    add_part(em, HCAL_SPOTS_PER_GEV, RADIATION, np.full_like(alpha, shower.BOCK_EM_DEPTH), _em_median)
    hadronic = HADRONIC_RESPONSE * (rest - em)
    add_part(hadronic, 1 / HADRONIC_SPOT_GEV, INTERACTION, shower.bock_hadronic_depth(rest), _hadronic_median)


def _em_median(layer: Array, since_start: Array) -> Array:
    """Median radius in mm of the electromagnetic part: a third of a Molière radius at the start."""
    start = _choose(layer, ECAL_LAYER.medium.moliere_mm / 3, HCAL_LAYER.medium.moliere_mm / 3)
    return start * _growth(layer, since_start)


def _hadronic_median(layer: Array, since_start: Array) -> Array:
    """Median radius in mm of the hadronic part: a twentieth of an interaction length at the start."""
    ecal, hcal = (one.pitch_mm / one.interaction_lengths for one in (ECAL_LAYER, HCAL_LAYER))
    return _choose(layer, ecal / 20, hcal / 20) * _growth(layer, since_start)


def _growth(layer: Array, since_start: Array) -> Array:
    """Growth of the median radius: by its start in 16 ECAL or 5 HCAL layers, 0.55 interaction lengths.

    That spots lie as ``2 r R^2 / (r^2 + R^2)^2``, with ``R`` linear in depth, is from NIM A290 (1990) 469;
    its constants belong to another detector, and these are chosen for this one.
    """
    return 1 + np.maximum(since_start, 0) * _choose(layer, 1 / 16, 1 / 5)


def _choose(layer: Array, ecal: float, hcal: float) -> Array:
    """One of two numbers for each spot, by the calorimeter that it is in, as float32."""
    return np.where(layer < ECAL_SHAPE[2], np.float32(ecal), np.float32(hcal))
