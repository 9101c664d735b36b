"""Sparse convolution: tensors that are active on few sites, and the modules to train with them.

Names and meaning are spconv's; weights are laid out as there, ``[C_out, *kernel, C_in / groups]``.  Outputs and
gradients of convolutions are the same bits for any number of threads (``torch.set_num_threads``).

On a CUDA device, where ``tensor.cuda()`` and ``net.cuda()`` bring them, the same layers take CUDA kernels, and float16
too.

Example::

    import hepfeed.sparse as hsp

    net = hsp.SparseSequential(hsp.SubMConv3d(1, 16, 3), nn.ReLU(), hsp.SparseConv3d(16, 32, 2, 2), hsp.ToDense())
    x = hsp.SparseTensor(features, indices, spatial_shape=(64, 64, 64), batch_size=16)
    net(x).sum().backward()
"""

from __future__ import annotations

from hepfeed.sparse import convert
from hepfeed.sparse.joining import add, concatenate, prune, union
from hepfeed.sparse.models import ResBlock, SparseResNet, SparseUNet
from hepfeed.sparse.modules.activation import (
    SparseDropout,
    SparseELU,
    SparseGELU,
    SparseIdentity,
    SparseLeakyReLU,
    SparsePReLU,
    SparseReLU,
    SparseSigmoid,
    SparseSiLU,
    SparseTanh,
)
from hepfeed.sparse.modules.base import FeatureModule, SparseModule
from hepfeed.sparse.modules.convolution import (
    SparseConv1d,
    SparseConv2d,
    SparseConv3d,
    SparseConv4d,
    SparseConvTranspose1d,
    SparseConvTranspose2d,
    SparseConvTranspose3d,
    SparseConvTranspose4d,
    SparseInverseConv1d,
    SparseInverseConv2d,
    SparseInverseConv3d,
    SparseInverseConv4d,
    SubMConv1d,
    SubMConv2d,
    SubMConv3d,
    SubMConv4d,
)
from hepfeed.sparse.modules.dense import ToDense
from hepfeed.sparse.modules.linear import SparseLinear
from hepfeed.sparse.modules.norm import SparseBatchNorm, SparseGroupNorm, SparseInstanceNorm
from hepfeed.sparse.modules.pooling import (
    SparseAvgPool,
    SparseAvgPool1d,
    SparseAvgPool2d,
    SparseAvgPool3d,
    SparseAvgPool4d,
    SparseGlobalAvgPool,
    SparseGlobalMaxPool,
    SparseGlobalSumPool,
    SparseMaxPool,
    SparseMaxPool1d,
    SparseMaxPool2d,
    SparseMaxPool3d,
    SparseMaxPool4d,
    SparseSumPool,
    SparseSumPool1d,
    SparseSumPool2d,
    SparseSumPool3d,
    SparseSumPool4d,
    SparseUnpool,
)
from hepfeed.sparse.modules.sequential import SparseSequential
from hepfeed.sparse.points import interpolate, point_to_voxel, voxel_to_point
from hepfeed.sparse.sites import Link, Sites
from hepfeed.sparse.tensor import SparseTensor

__all__ = [
    "FeatureModule",
    "Link",
    "ResBlock",
    "Sites",
    "SparseAvgPool",
    "SparseAvgPool1d",
    "SparseAvgPool2d",
    "SparseAvgPool3d",
    "SparseAvgPool4d",
    "SparseBatchNorm",
    "SparseConv1d",
    "SparseConv2d",
    "SparseConv3d",
    "SparseConv4d",
    "SparseConvTranspose1d",
    "SparseConvTranspose2d",
    "SparseConvTranspose3d",
    "SparseConvTranspose4d",
    "SparseDropout",
    "SparseELU",
    "SparseGELU",
    "SparseGlobalAvgPool",
    "SparseGlobalMaxPool",
    "SparseGlobalSumPool",
    "SparseGroupNorm",
    "SparseIdentity",
    "SparseInstanceNorm",
    "SparseInverseConv1d",
    "SparseInverseConv2d",
    "SparseInverseConv3d",
    "SparseInverseConv4d",
    "SparseLeakyReLU",
    "SparseLinear",
    "SparseMaxPool",
    "SparseMaxPool1d",
    "SparseMaxPool2d",
    "SparseMaxPool3d",
    "SparseMaxPool4d",
    "SparseModule",
    "SparsePReLU",
    "SparseReLU",
    "SparseResNet",
    "SparseSequential",
    "SparseSiLU",
    "SparseSigmoid",
    "SparseSumPool",
    "SparseSumPool1d",
    "SparseSumPool2d",
    "SparseSumPool3d",
    "SparseSumPool4d",
    "SparseTanh",
    "SparseTensor",
    "SparseUNet",
    "SparseUnpool",
    "SubMConv1d",
    "SubMConv2d",
    "SubMConv3d",
    "SubMConv4d",
    "ToDense",
    "add",
    "concatenate",
    "convert",
    "interpolate",
    "point_to_voxel",
    "prune",
    "union",
    "voxel_to_point",
]
