"""The small network of the demonstration."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["CaloNet"]

_ECAL_LAYERS, _HCAL_LAYERS = 25, 60
_CORE = slice(9, 16)  # of the 25 x 25 cells across the shower: where the two photons of a pi0 part
_MEV = 1e3


class CaloNet(nn.Module):
    """Classifies calorimeter events; some 9,000 weights.

    It sees the ECAL through a strided 3D convolution, the energy in each layer of ECAL and HCAL, the transverse
    profile around the axis, and the logarithm of both energies.  Energies span five decades: all enter as
    ``log(1 + E / MeV)``.

    Args:
        n_classes: Outputs.
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        channels, hidden = 16, 32
        core = _CORE.stop - _CORE.start
        self.ecal = nn.Sequential(
            nn.Conv3d(1, 8, kernel_size=5, stride=5),
            nn.ReLU(),
            nn.Conv3d(8, channels, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.AdaptiveMaxPool3d(1),
            nn.Flatten(),
        )
        features = channels + _ECAL_LAYERS + _HCAL_LAYERS + core**2 + 2
        self.head = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, n_classes))

    def forward(self, ecal: Tensor, hcal: Tensor) -> Tensor:
        """Return logits ``(B, n_classes)``.

        Args:
            ecal: ``(B, 25, 25, 25) float32`` GeV: x, y, layer.
            hcal: ``(B, 5, 5, 60) float32`` GeV: x, y, layer.
        """
        total = ecal.sum((1, 2, 3))
        core = ecal.sum(3)[:, _CORE, _CORE].flatten(1) / total.clamp(min=1e-3)[:, None]
        features = [
            self.ecal(_log(ecal)[:, None]),
            _log(ecal.sum((1, 2))),
            _log(hcal.sum((1, 2))),
            _log(core),
            _log(torch.stack([total, hcal.sum((1, 2, 3))], 1)),
        ]
        logits: Tensor = self.head(torch.cat(features, 1))
        return logits


def _log(energy_gev: Tensor) -> Tensor:
    """``log(1 + E / MeV)``, brought near 1; noise below 0 counts as 0."""
    return torch.log1p(energy_gev.clamp(min=0) * _MEV) / 5
