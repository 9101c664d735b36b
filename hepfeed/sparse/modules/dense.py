"""The step from sparse to dense."""

from __future__ import annotations

import torch

from hepfeed.sparse.modules.base import SparseModule, sparse_input
from hepfeed.sparse.tensor import SparseTensor

__all__ = ["ToDense"]


class ToDense(SparseModule):
    """Makes dense images of sparse ones; modules behind it in a :class:`SparseSequential` are torch's own."""

    def __init__(self, channels_first: bool = True) -> None:
        """Choose where the axis of channels goes."""
        super().__init__()
        self.channels_first = channels_first

    def extra_repr(self) -> str:
        """Say where the axis of channels goes."""
        return f"channels_first={self.channels_first}"

    def forward(self, x: SparseTensor) -> torch.Tensor:
        """Return ``(B, C, *spatial_shape)``, or ``(B, *spatial_shape, C)``."""
        return sparse_input(x, self).dense(self.channels_first)
