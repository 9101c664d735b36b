"""Sparse convolutions under spconv's names, with its arguments and layout of weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn

from hepfeed.errors import SpecError
from hepfeed.kernel_map import check_convolution
from hepfeed.sparse.functional import convolve
from hepfeed.sparse.indice_keys import find_inverse, find_link
from hepfeed.sparse.modules.base import SparseModule, sparse_input
from hepfeed.sparse.tensor import SparseTensor

__all__ = [
    "Convolution",
    "SparseConv1d",
    "SparseConv2d",
    "SparseConv3d",
    "SparseConv4d",
    "SparseConvTranspose1d",
    "SparseConvTranspose2d",
    "SparseConvTranspose3d",
    "SparseConvTranspose4d",
    "SparseInverseConv1d",
    "SparseInverseConv2d",
    "SparseInverseConv3d",
    "SparseInverseConv4d",
    "SubMConv1d",
    "SubMConv2d",
    "SubMConv3d",
    "SubMConv4d",
]

PerAxis = int | Sequence[int]


class Convolution(SparseModule):
    """What all sparse convolutions have: a weight and perhaps a bias.

    They are drawn as torch draws those of its convolutions: uniformly within ``1 / sqrt(fan_in)``, where ``fan_in`` is
    taps times ``in_channels / groups``.

    Attributes:
        dims: Number of spatial axes.
        transposed: Whether taps lead from inputs to outputs, as in torch's ``ConvTranspose``.
        weight: ``(out_channels, *kernel_size, in_channels / groups)``.
        bias: ``(out_channels,)`` or None.
    """

    dims: ClassVar[int]
    transposed: ClassVar[bool] = False

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: tuple[int, ...], groups: int, bias: bool
    ) -> None:
        super().__init__()
        for name, number in (("in_channels", in_channels), ("out_channels", out_channels), ("groups", groups)):
            if not isinstance(number, int) or isinstance(number, bool) or number < 1:
                raise SpecError(f"{name} must be an integer of 1 or more, not {number!r}")
        if in_channels % groups or out_channels % groups:
            raise SpecError(
                f"in_channels and out_channels must be multiples of groups {groups}, not {in_channels} and"
                f" {out_channels}"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = kernel_size
        self.groups = groups
        self.weight = nn.Parameter(torch.empty(out_channels, *kernel_size, in_channels // groups))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weight and the bias anew."""
        bound = 1 / math.sqrt(self.weight[0].numel())
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def _input(self, x: SparseTensor) -> SparseTensor:
        x = sparse_input(x, self)
        if len(x.spatial_shape) != self.dims:
            raise SpecError(f"{type(self).__name__} takes images of {self.dims} axes, not of {x.spatial_shape}")
        if x.channels != self.in_channels:
            raise SpecError(f"{type(self).__name__} takes {self.in_channels} channels, not {x.channels}")
        return x


class _Linking(Convolution):
    """A convolution that finds its own kernel map."""

    submanifold: ClassVar[bool] = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: PerAxis,
        stride: PerAxis = 1,
        padding: PerAxis = 0,
        dilation: PerAxis = 1,
        groups: int = 1,
        bias: bool = True,
        indice_key: str | None = None,
    ) -> None:
        """Draw the weights.

        Args:
            in_channels: Of the input.
            out_channels: Of the output.
            kernel_size: Taps, along all axes or each.
            stride: See the class.
            padding: See the class.
            dilation: Of the taps.
            groups: Into which channels are divided.
            bias: Whether a bias is added.
            indice_key: Name of the kernel map: layers behind this one, of the same parameters and on the same sites, or
                inverse ones, use it again.

        Raises:
            SpecError: The arguments do not fit each other.
        """
        options = check_convolution(
            self.dims, kernel_size, stride, padding, dilation, self.submanifold, self.transposed
        )
        kernel, self.stride, self.padding, self.dilation = options
        super().__init__(in_channels, out_channels, kernel, groups, bias)
        self.indice_key = indice_key
        # A kernel of one tap that moves nothing changes no sites: rows keep their order, as in spconv.
        self._keeps_sites = self.submanifold or (
            math.prod(kernel) == math.prod(self.stride) == 1 and not any(self.padding)
        )

    def extra_repr(self) -> str:
        """Say the arguments, those with their default left out."""
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        if any(self.padding) and not self.submanifold:
            parts.append(f"padding={self.padding}")
        if any(step != 1 for step in self.dilation):
            parts.append(f"dilation={self.dilation}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        if self.indice_key is not None:
            parts.append(f"indice_key={self.indice_key!r}")
        return ", ".join(parts)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Convolve a tensor with features ``(N, in_channels)``.

        Raises:
            SpecError: The input does not fit the layer, the kernel not the images, or the ``indice_key`` is taken.
        """
        x = self._input(x)
        link, indice_dict = find_link(
            x,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            submanifold=self._keeps_sites,
            transposed=self.transposed and not self._keeps_sites,
            indice_key=self.indice_key,
        )
        features = convolve(x.features, self.weight, self.bias, link, self.groups)
        return SparseTensor._on(features, link.target, indice_dict)


class _SubMConv(_Linking):
    """A submanifold convolution (Graham and van der Maaten, arXiv:1706.01307): outputs lie where inputs do.

    The kernel is odd and centred, the stride 1; ``padding`` may be left at 0 or given as ``dilation * (kernel_size //
    2)``, which means the same.
    """

    submanifold = True


class _SparseConv(_Linking):
    """A convolution with outputs wherever an input is in reach.

    Output o takes input ``o * stride - padding + k * dilation``, as torch's ``Conv`` does.  Output sites are sorted.
    """


class _SparseConvTranspose(_Linking):
    """A transposed convolution with outputs wherever an input reaches (= generative).

    Input i goes to output ``i * stride - padding + k * dilation``, as in torch's ``ConvTranspose``; taps are not
    flipped.  Output sites are sorted.
    """

    transposed = True


class _SparseInverseConv(Convolution):
    """Goes back to the sites that a strided (or transposed) layer came from, along its kernel map.

    It is that layer's adjoint with weights of its own: tap k connects what tap k connected there.
    """

    transposed = True

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: PerAxis, indice_key: str, bias: bool = True
    ) -> None:
        """Draw the weights.

        Args:
            in_channels: Of the input.
            out_channels: Of the output.
            kernel_size: Taps, along all axes or each: those of the layer that is undone.
            indice_key: Of that layer, which must come before this one in the same pass.
            bias: Whether a bias is added.

        Raises:
            SpecError: An argument is no such number or key.
        """
        kernel, *_ = check_convolution(self.dims, kernel_size, 1, 0, 1, False)
        if not isinstance(indice_key, str):
            raise SpecError(f"indice_key must be that of the layer that is undone, not {indice_key!r}")
        super().__init__(in_channels, out_channels, kernel, 1, bias)
        self.indice_key = indice_key

    def extra_repr(self) -> str:
        """Say the arguments."""
        bias = "" if self.bias is not None else ", bias=False"
        channels = f"{self.in_channels}, {self.out_channels}"
        return f"{channels}, kernel_size={self.kernel_size}, indice_key={self.indice_key!r}{bias}"

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Convolve a tensor with features ``(M, in_channels)``; the result has the rows of the undone layer's input.

        Raises:
            SpecError: The input does not fit the layer, or the ``indice_key`` is not of a layer that led to its sites.
        """
        x = self._input(x)
        link = find_inverse(x, self.indice_key, self.kernel_size)
        features = convolve(x.features, self.weight, self.bias, link, inverse=True)
        return SparseTensor._on(features, link.source, x.indice_dict)


class SubMConv1d(_SubMConv):
    """A submanifold convolution over images of 1 axis: outputs lie where inputs do; the kernel is odd, the stride 1."""

    dims = 1


class SubMConv2d(_SubMConv):
    """A submanifold convolution over images of 2 axes: outputs lie where inputs do; the kernel is odd, the stride 1."""

    dims = 2


class SubMConv3d(_SubMConv):
    """A submanifold convolution over images of 3 axes: outputs lie where inputs do; the kernel is odd, the stride 1."""

    dims = 3


class SubMConv4d(_SubMConv):
    """A submanifold convolution over images of 4 axes: outputs lie where inputs do; the kernel is odd, the stride 1."""

    dims = 4


class SparseConv1d(_SparseConv):
    """A convolution over images of 1 axis: outputs wherever an input is in reach."""

    dims = 1


class SparseConv2d(_SparseConv):
    """A convolution over images of 2 axes: outputs wherever an input is in reach."""

    dims = 2


class SparseConv3d(_SparseConv):
    """A convolution over images of 3 axes: outputs wherever an input is in reach."""

    dims = 3


class SparseConv4d(_SparseConv):
    """A convolution over images of 4 axes: outputs wherever an input is in reach."""

    dims = 4


class SparseConvTranspose1d(_SparseConvTranspose):
    """A transposed convolution over images of 1 axis: outputs wherever an input reaches."""

    dims = 1


class SparseConvTranspose2d(_SparseConvTranspose):
    """A transposed convolution over images of 2 axes: outputs wherever an input reaches."""

    dims = 2


class SparseConvTranspose3d(_SparseConvTranspose):
    """A transposed convolution over images of 3 axes: outputs wherever an input reaches."""

    dims = 3


class SparseConvTranspose4d(_SparseConvTranspose):
    """A transposed convolution over images of 4 axes: outputs wherever an input reaches."""

    dims = 4


class SparseInverseConv1d(_SparseInverseConv):
    """Goes back to the sites, in images of 1 axis, that the layer of ``indice_key`` came from."""

    dims = 1


class SparseInverseConv2d(_SparseInverseConv):
    """Goes back to the sites, in images of 2 axes, that the layer of ``indice_key`` came from."""

    dims = 2


class SparseInverseConv3d(_SparseInverseConv):
    """Goes back to the sites, in images of 3 axes, that the layer of ``indice_key`` came from."""

    dims = 3


class SparseInverseConv4d(_SparseInverseConv):
    """Goes back to the sites, in images of 4 axes, that the layer of ``indice_key`` came from."""

    dims = 4
