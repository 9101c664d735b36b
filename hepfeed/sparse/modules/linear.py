"""The linear layer on sites."""

from __future__ import annotations

from typing import Any

from torch import nn

from hepfeed.sparse.functional import convolve
from hepfeed.sparse.modules.base import SparseModule, sparse_input

__all__ = ["SparseLinear"]


class SparseLinear(SparseModule, nn.Linear):
    """The same linear layer on each site: a convolution with one tap.

    Arguments and ``state_dict`` are those of ``torch.nn.Linear``.  Unlike that, outputs and gradients are the same bits
    for any number of threads.
    """

    def forward(self, x: Any) -> Any:
        """Return a sparse tensor ``(N, out_features)`` on the same sites.

        Raises:
            SpecError: The input is no sparse tensor, or has other channels.
        """
        x = sparse_input(x, self)
        ones = (1,) * len(x.spatial_shape)
        link = x.sites.link(ones, ones, (0,) * len(ones), ones, submanifold=True)
        return x.replace_feature(convolve(x.features, self.weight.unsqueeze(1), self.bias, link))
