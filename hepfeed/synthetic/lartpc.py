"""Events of a small liquid-argon time-projection chamber: tracks and showers on two wire planes.

The volume is that of LArIAT: x is the drift direction, -237.5 to 237.5 mm, y is up, -200 to 200 mm, and z is
the beam, 0 to 900 mm.  Particles enter at z = 0.  The wires of the planes are at +60 and -60 degrees from the
vertical, so plane p measures ``w = z cos 60 + s y sin 60`` with s = +1, -1, and time measures x.  Charge is
the deposited energy in MeV.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hepfeed.errors import SpecError
from hepfeed.synthetic import shower
from hepfeed.synthetic.event import Array, Block, Ragged, float32
from hepfeed.synthetic.image import accumulate
from hepfeed.synthetic.material import LIQUID_ARGON, ShowerMedium
from hepfeed.synthetic.track import (
    MUON,
    PION,
    PROTON,
    Particle,
    TrackMedium,
    make_tracks,
    perpendicular,
)

LOWEST_CORNER_MM = np.array([-237.5, -200.0, 0.0])
HIGHEST_CORNER_MM = np.array([237.5, 200.0, 900.0])
WIRE_ANGLE = math.radians(60)

LAR = TrackMedium(LIQUID_ARGON.density, 0.45059, 188.0, LIQUID_ARGON.x0, sternheimer=(0.19559, 3.0, 0.2, 3.0, 5.2146))
STEP_MM = 1.0
DIFFUSION_MM = 0.7
"""Spread of a cluster of charge, in each direction, after a typical drift."""
SHOWER_SPOT_MEV = 0.5
HADRON_INTERACTION_MM = 10 * LIQUID_ARGON.interaction / LIQUID_ARGON.density
"""Pions and protons disappear in a nuclear interaction after this distance on average."""

_BEAM_SPOT_MM = 40.0
_BEAM_DIVERGENCE = 0.05
_TRACKS = {"Muon": MUON, "Pion": PION, "Proton": PROTON}
_SHOWERS = {"Electron": 11, "Photon": 22}
CLASSES = (*_TRACKS, *_SHOWERS)


@dataclass(frozen=True)
class _Cloud:
    """Charge of ``N`` events: ``(M,)`` event in ascending order, ``(M, 3)`` mm, ``(M,)`` MeV."""

    event: Array
    coords: Array
    charge: Array


@dataclass(frozen=True)
class LartpcGenerator:
    """One particle an event, uniform in kinetic energy.

    Args:
        name: ``Muon``, ``Pion``, ``Proton``, ``Electron`` or ``Photon``.
        energy: Lowest and highest kinetic energy in MeV, at least 20.
        shape: Wires and time bins of an image; they divide 960 mm across the wires and 600 mm of drift, so
            that fewer mean coarser.
        block: Events made at a time.

    Raises:
        SpecError: A class that there isn't, or energies or a shape out of range.
    """

    name: str
    energy: tuple[float, float] = (100.0, 800.0)
    shape: tuple[int, int] = (240, 4096)
    block: int = 16

    axes = ("wire of plane 0", "time bin")

    def __post_init__(self) -> None:
        if self.name not in CLASSES:
            raise SpecError(f"expected a LArTPC class, one of {', '.join(CLASSES)}; got {self.name!r}")
        low, high = self.energy
        if not 20 <= low <= high <= 10_000:
            raise SpecError(f"expected energies in MeV with 20 <= lowest <= highest <= 10000, got {low:g} and {high:g}")
        if len(self.shape) != 2 or min(self.shape) < 1:
            raise SpecError(f"expected a shape (wires, time bins) of at least 1 each, got {self.shape}")

    @property
    def label(self) -> str:
        """Label of the class."""
        return self.name.lower()

    def keys(self, *, ragged: bool) -> list[str]:
        """List the images or the points."""
        return ["coords", "charge"] if ragged else ["images"]

    def parameters(self) -> dict[str, Any]:
        """Describe the generator as JSON values."""
        return asdict(self)

    def generate(self, rng: np.random.Generator, events: int, *, ragged: bool) -> Block:
        """Make events: images ``(N, 2, H, W) float16``, or points with offsets.

        Points are ``coords (M, 3) float32`` mm and ``charge (M,) float32`` MeV.  Both forms come with
        ``Energy (N,)`` MeV, ``Track_length (N,)`` mm inside of the volume (0 for showers) and ``pdg (N,)``.
        """
        energy = rng.uniform(*self.energy, events)
        origin = np.column_stack([rng.uniform(-_BEAM_SPOT_MM, _BEAM_SPOT_MM, (events, 2)), np.zeros(events)])
        direction = np.column_stack([rng.normal(0, _BEAM_DIVERGENCE, (events, 2)), np.ones(events)])
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        length: Array = np.zeros(events)
        if self.name in _TRACKS:
            particle = _TRACKS[self.name]
            pdg = particle.pdg
            cloud = _track(rng, particle, energy, origin, direction)
            length = STEP_MM * np.bincount(cloud.event, minlength=events)
        else:
            pdg = _SHOWERS[self.name]
            cloud = self._shower(rng, energy, origin, direction)
        # Points are float32 from here on, so that images and points agree to the last bin.
        coords = float32(cloud.coords + rng.normal(0, DIFFUSION_MM, cloud.coords.shape))
        inside = np.all((coords >= LOWEST_CORNER_MM) & (coords < HIGHEST_CORNER_MM), axis=1)
        event, coords, charge = cloud.event[inside], coords[inside], float32(cloud.charge[inside])
        scalars = {
            "Energy": float32(energy),
            "Track_length": float32(length),
            "pdg": np.full(events, pdg, np.int32),
        }
        if ragged:
            counts = np.bincount(event, minlength=events)
            return {"/": Ragged.from_counts(counts, coords=coords, charge=charge), **scalars}
        return {"images": self.project(event, coords, charge, events), **scalars}

    def project(self, event: Array, coords: Array, charge: Array, events: int) -> Array:
        """Draw points on the two wire planes.

        Args:
            event: ``(M,)`` event of each point.
            coords: ``(M, 3)`` x, y, z in mm, inside of the volume.
            charge: ``(M,)``.
            events: Number of events N.

        Returns:
            ``(N, 2, H, W) float16``, summed in float64.
        """
        wires, bins = self.shape
        x, y, z = coords.astype(np.float64).T
        time = np.floor((x + 300) / 600 * bins).astype(np.int64)
        index = []
        for plane, sign in enumerate((1, -1)):
            across = z * math.cos(WIRE_ANGLE) + sign * y * math.sin(WIRE_ANGLE)
            wire = np.floor((across + 255) / 960 * wires).astype(np.int64)
            index.append(((event * 2 + plane) * wires + wire) * bins + time)
        return accumulate(np.concatenate(index), np.tile(charge, 2), (events, 2, wires, bins), np.float16)

    def profiles(self, block: Block) -> tuple[Array, Array]:
        """Mean MeV a wire, and mean MeV a time bin, on plane 0."""
        images = np.asarray(block["images"])[:, 0].astype(np.float32)
        return images.sum(axis=2).mean(axis=0), images.sum(axis=1).mean(axis=0)

    def _shower(self, rng: np.random.Generator, energy: Array, origin: Array, direction: Array) -> _Cloud:
        medium = ShowerMedium.homogeneous(LIQUID_ARGON)
        gev = energy / 1000
        spots = np.maximum(np.rint(energy / SHOWER_SPOT_MEV), 1).astype(np.int64)
        event = np.repeat(np.arange(len(energy)), spots)
        shape = shower.em_shape(rng, gev, medium)
        depth = shower.em_depths(rng, shape, event)
        radius = shower.em_radii(rng, shape, event, depth, medium) * medium.moliere_mm
        if self.name == "Photon":
            depth = depth + shower.conversion_depths(rng, len(energy))[event]
        axis = direction[event]
        coords = origin[event] + depth[:, None] * medium.x0_mm * axis
        coords += radius[:, None] * perpendicular(rng, axis)
        weights = rng.standard_exponential(len(event))
        scale = energy / np.bincount(event, weights=weights, minlength=len(energy))
        return _Cloud(event, coords, weights * scale[event])


def _track(rng: np.random.Generator, particle: Particle, energy: Array, origin: Array, direction: Array) -> _Cloud:
    # A track of twice the diagonal of the volume has left it.
    longest = 2 * float(np.linalg.norm(HIGHEST_CORNER_MM - LOWEST_CORNER_MM))
    length = np.full(len(energy), longest)
    if particle is not MUON:
        length = np.minimum(length, rng.exponential(HADRON_INTERACTION_MM, len(energy)))
    tracks = make_tracks(rng, particle, LAR, energy, origin, direction, step_mm=STEP_MM, length_mm=length)
    inside = np.all((tracks.points >= LOWEST_CORNER_MM) & (tracks.points < HIGHEST_CORNER_MM), axis=2)
    # Follow a track up to its first exit.
    inside = np.logical_and.accumulate(inside, axis=1) & (tracks.deposits > 0)
    event, step = np.nonzero(inside)
    return _Cloud(event, tracks.points[event, step], tracks.deposits[event, step])
