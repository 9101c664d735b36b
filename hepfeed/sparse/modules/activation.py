"""Activations of the features of sparse tensors.

Sites that are not active stay 0, also where the function is not 0 at 0, e.g. the sigmoid.
"""

from __future__ import annotations

from torch import nn

from hepfeed.sparse.modules.base import FeatureModule

__all__ = [
    "SparseDropout",
    "SparseELU",
    "SparseGELU",
    "SparseIdentity",
    "SparseLeakyReLU",
    "SparsePReLU",
    "SparseReLU",
    "SparseSiLU",
    "SparseSigmoid",
    "SparseTanh",
]


class SparseIdentity(FeatureModule, nn.Identity):
    """Returns its input; arguments as of ``torch.nn.Identity``."""


class SparseReLU(FeatureModule, nn.ReLU):
    """``max(x, 0)``; arguments as of ``torch.nn.ReLU``."""


class SparseLeakyReLU(FeatureModule, nn.LeakyReLU):
    """A ReLU with a slope below 0; arguments as of ``torch.nn.LeakyReLU``."""


class SparsePReLU(FeatureModule, nn.PReLU):
    """A ReLU with a learned slope below 0; arguments as of ``torch.nn.PReLU``."""


class SparseELU(FeatureModule, nn.ELU):
    """``exp(x) - 1`` below 0; arguments as of ``torch.nn.ELU``."""


class SparseGELU(FeatureModule, nn.GELU):
    """Arguments as of ``torch.nn.GELU``."""


class SparseSiLU(FeatureModule, nn.SiLU):
    """``x * sigmoid(x)``; arguments as of ``torch.nn.SiLU``."""


class SparseSigmoid(FeatureModule, nn.Sigmoid):
    """As ``torch.nn.Sigmoid``."""


class SparseTanh(FeatureModule, nn.Tanh):
    """As ``torch.nn.Tanh``."""


class SparseDropout(FeatureModule, nn.Dropout):
    """Drops single features of sites in training; arguments as of ``torch.nn.Dropout``."""
