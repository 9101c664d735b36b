"""The CLIC calorimeters (LCD): geometry, and a window of cells to fill with energy.

A window is 25 x 25 cells of 5.1 mm and 25 silicon-tungsten layers (ECAL), behind it 5 x 5 cells of 30 mm and
60 steel-scintillator layers (HCAL).  Axes are (x, y, depth) in mm; x = y = 0 is the centre of the window,
depth 0 the face of the ECAL.  Cell energies are GeV, calibrated to the whole energy lost in a layer, absorber
included.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hepfeed.synthetic.event import Array
from hepfeed.synthetic.material import IRON, POLYSTYRENE, SILICON, TUNGSTEN, Layer

ECAL_SHAPE = (25, 25, 25)
HCAL_SHAPE = (5, 5, 60)
ECAL_CELL_MM = 5.1
HCAL_CELL_MM = 30.0

ECAL_LAYER = Layer(TUNGSTEN, SILICON, absorber_mm=3.17, sensor_mm=0.5, pitch_mm=5.1)
"""Tungsten of 3.17 mm is the mean of 17 layers of 2.4 mm and 8 of 4.8 mm; 23 radiation lengths in all."""
HCAL_LAYER = Layer(IRON, POLYSTYRENE, absorber_mm=19.0, sensor_mm=3.0, pitch_mm=26.5)
"""7.1 interaction lengths in all."""

LAYERS = ECAL_SHAPE[2] + HCAL_SHAPE[2]

THRESHOLD_MIP = 4.0
"""A cell below this many minimum-ionising particles is not read out: 1-5 % of the ECAL is left.

The HCAL keeps about 1 % for electromagnetic showers and up to 20 % for pions, since its window is 5 cells
wide.
"""


@dataclass(frozen=True)
class DepthUnit:
    """A unit of depth, by the thickness in it of a layer of the ECAL and of the HCAL."""

    ecal: float
    hcal: float

    def layer(self, depth: Array) -> Array:
        """Real layer number, from 0 at the face of the ECAL and 25 at that of the HCAL, at ``depth``."""
        face = ECAL_SHAPE[2] * self.ecal
        return np.where(depth < face, depth / self.ecal, ECAL_SHAPE[2] + (depth - face) / self.hcal)

    def depth(self, layer: Array) -> Array:
        """Depth of a real layer number."""
        front = np.minimum(layer, ECAL_SHAPE[2])
        return front * self.ecal + (layer - front) * self.hcal


MILLIMETRE = DepthUnit(ECAL_LAYER.pitch_mm, HCAL_LAYER.pitch_mm)
RADIATION = DepthUnit(ECAL_LAYER.radiation_lengths, HCAL_LAYER.radiation_lengths)
INTERACTION = DepthUnit(ECAL_LAYER.interaction_lengths, HCAL_LAYER.interaction_lengths)


@dataclass(frozen=True)
class Axes:
    """Lines of flight of ``N`` particles: where they cross the face, and how far aside per mm of depth."""

    x: Array
    y: Array
    slope_x: Array
    slope_y: Array


class Window:
    """Energies of the cells of ``N`` events, filled one cloud of spots at a time."""

    def __init__(self, events: int) -> None:
        self.ecal = np.zeros((events, *ECAL_SHAPE), np.float32)
        self.hcal = np.zeros((events, *HCAL_SHAPE), np.float32)

    def add_spots(
        self,
        rng: np.random.Generator,
        axes: Axes,
        event: Array,
        layer: Array,
        radius: Array,
        spot_gev: Array,
    ) -> None:
        """Add spots at random angles about the axes.

        Args:
            rng: Source of random numbers.
            axes: Of the ``N`` events.
            event: ``(M,)`` event of each spot.
            layer: ``(M,)`` real layer numbers.
            radius: ``(M,)`` distances from the axis, mm.
            spot_gev: ``(N,)`` mean energy of the spots of each event.

        The energies of spots are exponentially distributed, so that a cell with
        ``n`` spots has a Gamma(n) energy and a shower of ``n`` spots a resolution of ``1 / sqrt(n)``.
        """
        angle = rng.random(len(event), dtype=np.float32) * (2 * math.pi)
        depth = MILLIMETRE.depth(layer)
        x = axes.x[event] + axes.slope_x[event] * depth + radius * np.cos(angle)
        y = axes.y[event] + axes.slope_y[event] * depth + radius * np.sin(angle)
        behind = layer >= ECAL_SHAPE[2]
        for cells, cell_mm, first, chosen in (
            (self.ecal, ECAL_CELL_MM, 0, ~behind),
            (self.hcal, HCAL_CELL_MM, ECAL_SHAPE[2], behind),
        ):
            rows = np.flatnonzero(chosen)
            index, inside = _cells(cells, cell_mm, event[rows], x[rows], y[rows], layer[rows] - first)
            index = index[inside]
            counts = np.bincount(index, minlength=cells.size)
            hit = np.flatnonzero(counts)
            energies = rng.standard_gamma(counts[hit].astype(np.float32), dtype=np.float32)
            cells.reshape(-1)[hit] += energies * spot_gev[hit // (cells.size // len(cells))]

    def add_track(self, axes: Axes, deposits: Array) -> None:
        """Add ``deposits (N, 85)`` GeV along the axes, one a layer; what is outside of the window is lost."""
        event, layer = np.nonzero(deposits)
        energy = deposits[event, layer]
        depth = MILLIMETRE.depth(layer + 0.5)
        x = axes.x[event] + axes.slope_x[event] * depth
        y = axes.y[event] + axes.slope_y[event] * depth
        for cells, cell_mm, first, chosen in (
            (self.ecal, ECAL_CELL_MM, 0, layer < ECAL_SHAPE[2]),
            (self.hcal, HCAL_CELL_MM, ECAL_SHAPE[2], layer >= ECAL_SHAPE[2]),
        ):
            index, inside = _cells(cells, cell_mm, event[chosen], x[chosen], y[chosen], layer[chosen] - first)
            cells.reshape(-1)[index[inside]] += energy[chosen][inside]

    def cut(self) -> None:
        """Silence the cells below threshold."""
        self.ecal[self.ecal < THRESHOLD_MIP * ECAL_LAYER.mip_gev] = 0
        self.hcal[self.hcal < THRESHOLD_MIP * HCAL_LAYER.mip_gev] = 0


def _cells(cells: Array, cell_mm: float, event: Array, x: Array, y: Array, layer: Array) -> tuple[Array, Array]:
    """Flat indices of the cells at (x, y, layer), and which are inside of the window: only those count."""
    _, width, height, layers = cells.shape
    column = np.floor(x / cell_mm + width / 2).astype(np.int32)
    row = np.floor(y / cell_mm + height / 2).astype(np.int32)
    slab = layer.astype(np.int32)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (slab >= 0) & (slab < layers)
    return ((event.astype(np.int32) * width + column) * height + row) * layers + slab, inside
