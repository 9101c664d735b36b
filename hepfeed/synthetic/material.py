"""Materials and what they amount to when stacked in a sampling calorimeter.

Constants are those of the Particle Data Group, "Atomic and nuclear properties of materials".  The effective
properties of a stack, its sampling frequency and the e/mip ratio follow G. Grindhammer and S. Peters,
hep-ex/0001020.
"""

from __future__ import annotations

from dataclasses import dataclass

SCALE_ENERGY_MEV = 21.2
"""Multiple-scattering energy ``m_e c^2 sqrt(4 pi / alpha)`` that defines the Molière radius."""


@dataclass(frozen=True)
class Material:
    """A homogeneous material.

    Attributes:
        z: Atomic number; for a compound, averaged by mass.
        density: In g/cm^3.
        x0: Radiation length in g/cm^2.
        critical_mev: Critical energy of electrons (Rossi's definition).
        interaction: Nuclear interaction length in g/cm^2.
        minimum_dedx: Energy loss of a minimum-ionising particle in MeV cm^2/g.
    """

    z: float
    density: float
    x0: float
    critical_mev: float
    interaction: float
    minimum_dedx: float


TUNGSTEN = Material(z=74, density=19.3, x0=6.76, critical_mev=7.97, interaction=191.9, minimum_dedx=1.145)
SILICON = Material(z=14, density=2.329, x0=21.82, critical_mev=40.19, interaction=108.4, minimum_dedx=1.664)
IRON = Material(z=26, density=7.874, x0=13.84, critical_mev=21.68, interaction=132.1, minimum_dedx=1.451)
POLYSTYRENE = Material(z=5.6, density=1.06, x0=43.79, critical_mev=93.1, interaction=77.1, minimum_dedx=1.936)
LIQUID_ARGON = Material(z=18, density=1.396, x0=19.55, critical_mev=32.84, interaction=119.7, minimum_dedx=1.508)


@dataclass(frozen=True)
class ShowerMedium:
    """What the parametrisation of electromagnetic showers needs to know of a medium.

    Attributes:
        z: Effective atomic number.
        x0_mm: Effective radiation length.
        moliere_mm: Effective Molière radius.
        critical_gev: Effective critical energy.
        inverse_sampling_frequency: Thickness of a layer in radiation lengths; 0 for a homogeneous medium.
        e_mip: Ratio of the responses to electrons and to minimum-ionising particles; 1 if homogeneous.
    """

    z: float
    x0_mm: float
    moliere_mm: float
    critical_gev: float
    inverse_sampling_frequency: float = 0.0
    e_mip: float = 1.0

    @classmethod
    def homogeneous(cls, material: Material) -> ShowerMedium:
        """Take one material throughout."""
        x0_mm = 10 * material.x0 / material.density
        moliere_mm = x0_mm * SCALE_ENERGY_MEV / material.critical_mev
        return cls(material.z, x0_mm, moliere_mm, material.critical_mev / 1000)


@dataclass(frozen=True)
class Layer:
    """One layer of a sampling calorimeter: absorber, sensor and empty space, in mm.

    Attributes:
        absorber: Passive material.
        sensor: Active material.
        absorber_mm: Thickness of the absorber.
        sensor_mm: Thickness of the sensor.
        pitch_mm: Distance from layer to layer; what the two leave of it weighs nothing.
    """

    absorber: Material
    sensor: Material
    absorber_mm: float
    sensor_mm: float
    pitch_mm: float

    @property
    def _masses(self) -> list[tuple[Material, float]]:
        """The materials and their g/cm^2."""
        return [
            (self.absorber, self.absorber.density * self.absorber_mm / 10),
            (self.sensor, self.sensor.density * self.sensor_mm / 10),
        ]

    @property
    def radiation_lengths(self) -> float:
        """Thickness in radiation lengths."""
        return sum(mass / material.x0 for material, mass in self._masses)

    @property
    def interaction_lengths(self) -> float:
        """Thickness in nuclear interaction lengths."""
        return sum(mass / material.interaction for material, mass in self._masses)

    @property
    def mip_gev(self) -> float:
        """Energy that a minimum-ionising particle leaves in the layer, absorber included."""
        return sum(mass * material.minimum_dedx for material, mass in self._masses) / 1000

    @property
    def medium(self) -> ShowerMedium:
        """Effective medium of a stack of such layers (hep-ex/0001020)."""
        total = sum(mass for _, mass in self._masses)
        scattering = sum(mass * material.critical_mev / material.x0 for material, mass in self._masses)
        moliere = SCALE_ENERGY_MEV * total / scattering
        return ShowerMedium(
            z=sum(mass * material.z for material, mass in self._masses) / total,
            x0_mm=self.pitch_mm / self.radiation_lengths,
            moliere_mm=moliere * self.pitch_mm / total,
            critical_gev=scattering / self.radiation_lengths / 1000,
            inverse_sampling_frequency=self.radiation_lengths,
            e_mip=1 / (1 + 0.007 * (self.absorber.z - self.sensor.z)),
        )
