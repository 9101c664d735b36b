"""Charge that particles leave in a small liquid-argon chamber, and what kind of trace each deposit belongs to.

The volume is that of LArIAT: x is the drift direction, -237.5 to 237.5 mm, y is up, -200 to 200 mm, and z is
the beam, 0 to 900 mm.  The wires of the planes are at +60 and -60 degrees from the vertical, so plane p
measures ``w = z cos 60 + s y sin 60`` with s = +1, -1, and time measures x.  Charge is the deposited energy
in MeV.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hepfeed.errors import SpecError
from hepfeed.synthetic import shower
from hepfeed.synthetic.event import Array, Block, Ragged, float32
from hepfeed.synthetic.image import accumulate
from hepfeed.synthetic.material import LIQUID_ARGON, ShowerMedium
from hepfeed.synthetic.track import MUON, PION, PROTON, Particle, TrackMedium, make_tracks, perpendicular

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
BRAGG_MM = 30.0
"""Residual range of the Bragg end.  There a muon, by the range table, loses 2.1 times what it does as a
minimum-ionising particle, a pion 2.4 times and a proton 5.2 times, and more on the way to its end."""

SEMANTIC = ("track", "shower", "bragg")
"""What the numbers of the key ``semantic`` mean: a track, an electromagnetic shower, and the last 30 mm of a track
that stops in the volume."""
TRACK, SHOWER, BRAGG = range(3)

TRACKS = {"Muon": MUON, "Pion": PION, "Proton": PROTON}
SHOWERS = {"Electron": 11, "Photon": 22}


@dataclass(frozen=True)
class Cloud:
    """Charge of ``N`` particles or events.

    Attributes:
        event: ``(M,)``: which of them, in ascending order.
        coords: ``(M, 3)`` mm.
        charge: ``(M,)`` MeV.
        semantic: ``(M,) uint8``, see :data:`SEMANTIC`.
    """

    event: Array
    coords: Array
    charge: Array
    semantic: Array

    @classmethod
    def empty(cls) -> Cloud:
        """Return no charge."""
        return cls(np.empty(0, np.int64), np.empty((0, 3)), np.empty(0), np.empty(0, np.uint8))

    @classmethod
    def join(cls, clouds: Sequence[Cloud]) -> Cloud:
        """Put one or more clouds of the same events together; in an event, the first cloud comes first."""
        event = np.concatenate([cloud.event for cloud in clouds])
        order = np.argsort(event, kind="stable")
        columns = [
            np.concatenate([getattr(cloud, name) for cloud in clouds])[order]
            for name in ("coords", "charge", "semantic")
        ]
        return cls(event[order], *columns)

    def of_events(self, event: Array) -> Cloud:
        """Take particle i for a part of event ``event[i]``, which must ascend."""
        return replace(self, event=event[self.event])

    def drift(self, rng: np.random.Generator) -> Cloud:
        """Spread the charge by diffusion and keep what is inside of the volume, as float32 from here on."""
        coords = float32(self.coords + rng.normal(0, DIFFUSION_MM, self.coords.shape))
        inside = contained(coords)
        return Cloud(self.event[inside], coords[inside], float32(self.charge[inside]), self.semantic[inside])

    def write(self, events: int, shape: tuple[int, int], *, ragged: bool) -> Block:
        """Return the charge of ``events`` events: points with offsets, or images ``(wires, time bins) = shape``."""
        if ragged:
            counts = np.bincount(self.event, minlength=events)
            columns = {"coords": self.coords, "charge": self.charge, "semantic": self.semantic}
            return {"/": Ragged.from_counts(counts, **columns)}
        return {"images": self._project(events, shape)}

    def _project(self, events: int, shape: tuple[int, int]) -> Array:
        wires, bins = shape
        x, y, z = self.coords.astype(np.float64).T
        time = np.floor((x + 300) / 600 * bins).astype(np.int64)
        index = []
        for plane, sign in enumerate((1, -1)):
            across = z * math.cos(WIRE_ANGLE) + sign * y * math.sin(WIRE_ANGLE)
            wire = np.floor((across + 255) / 960 * wires).astype(np.int64)
            index.append(((self.event * 2 + plane) * wires + wire) * bins + time)
        return accumulate(np.concatenate(index), np.tile(self.charge, 2), (events, 2, wires, bins), np.float16)


def contained(coords: Array) -> Array:
    """Return which of ``coords (..., 3)`` mm lie in the volume."""
    inside: Array = np.all((coords >= LOWEST_CORNER_MM) & (coords < HIGHEST_CORNER_MM), axis=-1)
    return inside


def track_clouds(rng: np.random.Generator, particle: Particle, energy: Array, origin: Array, direction: Array) -> Cloud:
    """Follow particles up to where they stop, interact or leave the volume first.

    Args:
        rng: Source of random numbers.
        particle: A muon, pion or proton.
        energy: ``(N,)`` kinetic energies in MeV.
        origin: ``(N, 3)`` first points in mm.
        direction: ``(N, 3)`` unit vectors.

    Returns:
        A deposit for each step, not yet spread by diffusion.
    """
    # A track of twice the diagonal of the volume has left it.
    longest = 2 * float(np.linalg.norm(HIGHEST_CORNER_MM - LOWEST_CORNER_MM))
    length = np.full(len(energy), longest)
    if particle is not MUON:
        length = np.minimum(length, rng.exponential(HADRON_INTERACTION_MM, len(energy)))
    tracks = make_tracks(rng, particle, LAR, energy, origin, direction, step_mm=STEP_MM, length_mm=length)
    there = tracks.deposits > 0
    inside = np.logical_and.accumulate(contained(tracks.points), axis=1) & there
    stops = tracks.stops & np.all(inside == there, axis=1)
    bragg = stops[:, None] & (tracks.residual < BRAGG_MM)
    event, step = np.nonzero(inside)
    semantic = np.where(bragg[event, step], BRAGG, TRACK).astype(np.uint8)
    return Cloud(event, tracks.points[event, step], tracks.deposits[event, step], semantic)


def shower_clouds(rng: np.random.Generator, name: str, energy: Array, origin: Array, direction: Array) -> Cloud:
    """Make the showers of electrons or photons (``name``); other arguments as of :func:`track_clouds`."""
    medium = ShowerMedium.homogeneous(LIQUID_ARGON)
    gev = energy / 1000
    spots = np.maximum(np.rint(energy / SHOWER_SPOT_MEV), 1).astype(np.int64)
    event = np.repeat(np.arange(len(energy)), spots)
    shape = shower.em_shape(rng, gev, medium)
    depth = shower.em_depths(rng, shape, event)
    radius = shower.em_radii(rng, shape, event, depth, medium) * medium.moliere_mm
    if name == "Photon":
        depth = depth + shower.conversion_depths(rng, len(energy))[event]
    axis = direction[event]
    coords = origin[event] + depth[:, None] * medium.x0_mm * axis
    coords += radius[:, None] * perpendicular(rng, axis)
    weights = rng.standard_exponential(len(event))
    scale = energy / np.bincount(event, weights=weights, minlength=len(energy))
    return Cloud(event, coords, weights * scale[event], np.full(len(event), SHOWER, np.uint8))


def check_energy(energy: tuple[float, float]) -> None:
    """Raise SpecError for a range of kinetic energies that is not within 20 MeV to 10 GeV."""
    low, high = energy
    if not 20 <= low <= high <= 10_000:
        raise SpecError(f"expected energies in MeV with 20 <= lowest <= highest <= 10000, got {low:g} and {high:g}")


def check_image_shape(shape: tuple[int, ...]) -> None:
    """Raise SpecError for a shape of images that is not (wires, time bins)."""
    if len(shape) != 2 or min(shape) < 1:
        raise SpecError(f"expected a shape (wires, time bins) of at least 1 each, got {shape}")


def image_profiles(images: Array) -> tuple[Array, Array]:
    """Return mean MeV a wire, and mean MeV a time bin, on plane 0 of ``(N, 2, wires, bins)``."""
    plane = images[:, 0].astype(np.float32)
    return plane.sum(axis=2).mean(axis=0), plane.sum(axis=1).mean(axis=0)
