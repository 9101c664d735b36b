"""Events of a small liquid-argon time-projection chamber: one particle of the beam each.

Particles enter the volume of :mod:`hepfeed.synthetic.argon` at z = 0.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hepfeed.errors import SpecError
from hepfeed.synthetic.argon import (
    SHOWERS,
    STEP_MM,
    TRACKS,
    check_energy,
    check_image_shape,
    image_profiles,
    shower_clouds,
    track_clouds,
)
from hepfeed.synthetic.event import Array, Block, float32

CLASSES = (*TRACKS, *SHOWERS)
_BEAM_SPOT_MM = 40.0
_BEAM_DIVERGENCE = 0.05


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
        check_energy(self.energy)
        check_image_shape(self.shape)

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

        Points are ``coords (M, 3) float32`` mm, ``charge (M,) float32`` MeV and ``semantic (M,) uint8``, an index
        into :data:`hepfeed.synthetic.SEMANTIC`.  Both forms come with ``Energy (N,)`` MeV, ``Track_length (N,)`` mm
        inside of the volume (0 for showers) and ``pdg (N,)``.
        """
        energy = rng.uniform(*self.energy, events)
        origin = np.column_stack([rng.uniform(-_BEAM_SPOT_MM, _BEAM_SPOT_MM, (events, 2)), np.zeros(events)])
        direction = np.column_stack([rng.normal(0, _BEAM_DIVERGENCE, (events, 2)), np.ones(events)])
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        length: Array = np.zeros(events)
        if self.name in TRACKS:
            particle = TRACKS[self.name]
            pdg = particle.pdg
            cloud = track_clouds(rng, particle, energy, origin, direction)
            length = STEP_MM * np.bincount(cloud.event, minlength=events)
        else:
            pdg = SHOWERS[self.name]
            cloud = shower_clouds(rng, self.name, energy, origin, direction)
        return {
            **cloud.drift(rng).write(events, self.shape, ragged=ragged),
            "Energy": float32(energy),
            "Track_length": float32(length),
            "pdg": np.full(events, pdg, np.int32),
        }

    def profiles(self, block: Block) -> tuple[Array, Array]:
        """Mean MeV a wire, and mean MeV a time bin, on plane 0."""
        return image_profiles(np.asarray(block["images"]))
