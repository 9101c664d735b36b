"""Events of a liquid-argon chamber in which several particles come from one point: images with all kinds of traces.

They are made for what is asked of every voxel, such as its semantic class.  The recipe is that of the
"particle bombs" of PILArNet (C. Adams, K. Terao and T. Wongjirad, arXiv:2006.01993): a vertex anywhere in the
volume, a random number of particles of each kind, isotropic directions and uniform kinetic energies.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hepfeed.errors import SpecError
from hepfeed.synthetic.argon import (
    HIGHEST_CORNER_MM,
    LOWEST_CORNER_MM,
    SHOWERS,
    TRACKS,
    Cloud,
    check_energy,
    check_image_shape,
    image_profiles,
    shower_clouds,
    track_clouds,
)
from hepfeed.synthetic.event import Array, Block, float32
from hepfeed.synthetic.track import isotropic

_EDGE_MM = 50.0
_KINDS = (*TRACKS, *SHOWERS)


@dataclass(frozen=True)
class VertexGenerator:
    """Tracks and showers from a common vertex, at least 50 mm inside of the volume of :mod:`hepfeed.synthetic.argon`.

    Args:
        energy: Lowest and highest kinetic energy of each particle in MeV, at least 20.
        tracks: Smallest and largest number of muons, pions and protons together.
        showers: Smallest and largest number of electrons and photons together.
        shape: Wires and time bins of an image, as of :class:`~hepfeed.synthetic.LartpcGenerator`.
        block: Events made at a time.

    Raises:
        SpecError: Energies, numbers or a shape out of range.
    """

    energy: tuple[float, float] = (50.0, 300.0)
    tracks: tuple[int, int] = (1, 3)
    showers: tuple[int, int] = (1, 2)
    shape: tuple[int, int] = (240, 4096)
    block: int = 16

    name = "Vertex"
    label = "vertex"
    axes = ("wire of plane 0", "time bin")

    def __post_init__(self) -> None:
        check_energy(self.energy)
        check_image_shape(self.shape)
        for what, (low, high) in (("tracks", self.tracks), ("showers", self.showers)):
            if not 0 <= low <= high <= 20:
                raise SpecError(f"expected numbers of {what} with 0 <= lowest <= highest <= 20, got {low} and {high}")
        if self.tracks[1] + self.showers[1] == 0:
            raise SpecError("expected events with a particle or more, got no tracks and no showers")

    def keys(self, *, ragged: bool) -> list[str]:
        """List the images, or the points with their classes."""
        return ["coords", "charge", "semantic"] if ragged else ["images"]

    def parameters(self) -> dict[str, Any]:
        """Describe the generator as JSON values."""
        return asdict(self)

    def generate(self, rng: np.random.Generator, events: int, *, ragged: bool) -> Block:
        """Make events: images or points as of :meth:`hepfeed.synthetic.LartpcGenerator.generate`.

        Both forms come with ``Energy (N,)`` MeV, the sum of the kinetic energies, ``vertex (N, 3)`` mm, and the
        numbers of particles ``tracks (N,)`` and ``showers (N,)`` int32.
        """
        edge = np.array([_EDGE_MM] * 3)
        vertex = rng.uniform(LOWEST_CORNER_MM + edge, HIGHEST_CORNER_MM - edge, (events, 3))
        counts = {
            "tracks": rng.integers(self.tracks[0], self.tracks[1] + 1, events),
            "showers": rng.integers(self.showers[0], self.showers[1] + 1, events),
        }
        event = np.concatenate([np.repeat(np.arange(events), counts[name]) for name in ("tracks", "showers")])
        n_tracks, particles = int(counts["tracks"].sum()), len(event)
        kind = rng.integers(0, len(TRACKS), particles)
        kind[n_tracks:] = len(TRACKS) + rng.integers(0, len(SHOWERS), particles - n_tracks)
        energy = rng.uniform(*self.energy, particles)
        direction = isotropic(rng, particles)
        clouds = [Cloud.empty()]
        for number, name in enumerate(_KINDS):
            mine = np.flatnonzero(kind == number)
            if not mine.size:
                continue
            start = (energy[mine], vertex[event[mine]], direction[mine])
            made = track_clouds(rng, TRACKS[name], *start) if name in TRACKS else shower_clouds(rng, name, *start)
            clouds.append(made.of_events(event[mine]))
        return {
            **Cloud.join(clouds).drift(rng).write(events, self.shape, ragged=ragged),
            "Energy": float32(np.bincount(event, weights=energy, minlength=events)),
            "vertex": float32(vertex),
            **{name: count.astype(np.int32) for name, count in counts.items()},
        }

    def profiles(self, block: Block) -> tuple[Array, Array]:
        """Mean MeV a wire, and mean MeV a time bin, on plane 0."""
        return image_profiles(np.asarray(block["images"]))
