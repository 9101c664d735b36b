"""Pools over sparse tensors under spconv's names, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch

from hepfeed.errors import SpecError
from hepfeed.kernel_map import check_convolution
from hepfeed.sparse.indice_keys import find_inverse, find_link
from hepfeed.sparse.modules.base import SparseModule, sparse_input
from hepfeed.sparse.pooling import Reduction, global_pool, pool, unpool
from hepfeed.sparse.tensor import SparseTensor

__all__ = [
    "SparseAvgPool",
    "SparseAvgPool1d",
    "SparseAvgPool2d",
    "SparseAvgPool3d",
    "SparseAvgPool4d",
    "SparseGlobalAvgPool",
    "SparseGlobalMaxPool",
    "SparseGlobalSumPool",
    "SparseMaxPool",
    "SparseMaxPool1d",
    "SparseMaxPool2d",
    "SparseMaxPool3d",
    "SparseMaxPool4d",
    "SparseSumPool",
    "SparseSumPool1d",
    "SparseSumPool2d",
    "SparseSumPool3d",
    "SparseSumPool4d",
    "SparseUnpool",
]

PerAxis = int | Sequence[int]


class _Pool(SparseModule):
    """A pool with outputs wherever an active site is in the window, sorted by (event, coordinates).

    Output o has the window ``o * stride - padding + k * dilation``, of which only active sites count.
    """

    dims: int
    reduce: ClassVar[Reduction]

    def __init__(
        self,
        kernel_size: PerAxis,
        stride: PerAxis | None = None,
        padding: PerAxis = 0,
        dilation: PerAxis = 1,
        indice_key: str | None = None,
        subm: bool = False,
    ) -> None:
        """Choose the windows.

        Args:
            kernel_size: Of the window, along all axes or each.
            stride: Between windows; None: ``kernel_size``, or 1 where ``subm``.
            padding: Of the images.
            dilation: Of the window.
            indice_key: Name of the kernel map, for layers behind this one that use it again or undo it.
            subm: Whether outputs lie where inputs do; the window is odd and centred then, and the stride 1.

        Raises:
            SpecError: The arguments do not fit each other.
        """
        super().__init__()
        step = (1 if subm else kernel_size) if stride is None else stride
        options = check_convolution(self.dims, kernel_size, step, padding, dilation, subm)
        self.kernel_size, self.stride, self.padding, self.dilation = options
        self.indice_key = indice_key
        self.subm = subm

    def extra_repr(self) -> str:
        """Say the arguments, those with their default left out."""
        parts = [f"kernel_size={self.kernel_size}, stride={self.stride}"]
        if any(self.padding) and not self.subm:
            parts.append(f"padding={self.padding}")
        if any(step != 1 for step in self.dilation):
            parts.append(f"dilation={self.dilation}")
        if self.indice_key is not None:
            parts.append(f"indice_key={self.indice_key!r}")
        if self.subm:
            parts.append("subm=True")
        return ", ".join(parts)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Pool a tensor with features ``(N, C)``; the result has ``(M, C)``.

        Raises:
            SpecError: The window does not fit the images, or the ``indice_key`` is taken.
        """
        x = sparse_input(x, self)
        if len(x.spatial_shape) != self.dims:
            raise SpecError(f"{type(self).__name__} takes images of {self.dims} axes, not of {x.spatial_shape}")
        options = self.kernel_size, self.stride, self.padding, self.dilation
        link, indice_dict = find_link(x, *options, submanifold=self.subm, indice_key=self.indice_key)
        return SparseTensor._on(pool(x.features, link, self.reduce), link.target, indice_dict)


class _MaxPool(_Pool):
    """The largest number of each channel over the active sites of a window.

    It may be below 0, where spconv's pool gives 0 on the CPU.
    """

    reduce = "max"


class _AvgPool(_Pool):
    """The mean over the active sites of a window, as in spconv: sites that are not active do not count."""

    reduce = "mean"


class _SumPool(_Pool):
    """The sum over the active sites of a window: a dense average pool is this over the number of taps."""

    reduce = "sum"


class _AnyAxes(_Pool):
    """A pool that is told the number of axes, as spconv's of these names are."""

    def __init__(
        self,
        ndim: int,
        kernel_size: PerAxis,
        stride: PerAxis | None = None,
        padding: PerAxis = 0,
        dilation: PerAxis = 1,
        indice_key: str | None = None,
        subm: bool = False,
    ) -> None:
        """Choose the windows.

        Args:
            ndim: Axes of the images, 1 to 4.
            kernel_size: As of the pools with a number in their name, like the ones that follow.
            stride: See there.
            padding: See there.
            dilation: See there.
            indice_key: See there.
            subm: See there.

        Raises:
            SpecError: The arguments do not fit each other.
        """
        if ndim not in (1, 2, 3, 4):
            raise SpecError(f"ndim must be 1, 2, 3 or 4, the number of axes of the images, not {ndim!r}")
        self.dims = ndim
        super().__init__(kernel_size, stride, padding, dilation, indice_key, subm)


class SparseMaxPool(_AnyAxes, _MaxPool):
    """The largest number of each channel over the active sites of a window, in images of ``ndim`` axes."""


class SparseAvgPool(_AnyAxes, _AvgPool):
    """The mean over the active sites of a window, in images of ``ndim`` axes."""


class SparseSumPool(_AnyAxes, _SumPool):
    """The sum over the active sites of a window, in images of ``ndim`` axes."""


class _GlobalPool(SparseModule):
    """Reduces all sites of each event to ``(B, C)``."""

    reduce: ClassVar[Reduction]

    def forward(self, x: SparseTensor) -> torch.Tensor:
        """Return ``(B, C)``; 0 for an event without a site."""
        x = sparse_input(x, self)
        return global_pool(x.features, x.sites, self.reduce)


class SparseGlobalMaxPool(_GlobalPool):
    """The largest number of each channel over the sites of each event, ``(B, C)``; 0 for an event without a site."""

    reduce = "max"


class SparseGlobalAvgPool(_GlobalPool):
    """The mean over the sites of each event, ``(B, C)``; 0 for an event without a site."""

    reduce = "mean"


class SparseGlobalSumPool(_GlobalPool):
    """The sum over the sites of each event, ``(B, C)``; 0 for an event without a site."""

    reduce = "sum"


class SparseUnpool(SparseModule):
    """Goes back to the sites that a pool or a strided convolution came from: its outputs are copied to their windows.

    Where windows overlap, a site gets the mean or the sum of those that it is in.
    """

    def __init__(self, indice_key: str, reduce: Literal["mean", "sum"] = "mean") -> None:
        """Choose what is undone.

        Args:
            indice_key: Of the layer that is undone, which must come before this one in the same pass.
            reduce: What a site gets that was in several windows.

        Raises:
            SpecError: An argument is no such key or reduction.
        """
        super().__init__()
        if not isinstance(indice_key, str):
            raise SpecError(f"indice_key must be that of the layer that is undone, not {indice_key!r}")
        if reduce not in ("mean", "sum"):
            raise SpecError(f"reduce must be 'mean' or 'sum', not {reduce!r}")
        self.indice_key = indice_key
        self.reduce = reduce

    def extra_repr(self) -> str:
        """Say the arguments."""
        return f"indice_key={self.indice_key!r}, reduce={self.reduce!r}"

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Return a tensor with the rows of the undone layer's input; a site in no window gets 0.

        Raises:
            SpecError: The ``indice_key`` is not of a layer that led to the sites of ``x``.
        """
        x = sparse_input(x, self)
        link = find_inverse(x, self.indice_key)
        return SparseTensor._on(unpool(x.features, link, self.reduce), link.source, x.indice_dict)


class SparseMaxPool1d(_MaxPool):
    """The largest number of each channel over the active sites of a window, in images of 1 axis."""

    dims = 1


class SparseMaxPool2d(_MaxPool):
    """The largest number of each channel over the active sites of a window, in images of 2 axes."""

    dims = 2


class SparseMaxPool3d(_MaxPool):
    """The largest number of each channel over the active sites of a window, in images of 3 axes."""

    dims = 3


class SparseMaxPool4d(_MaxPool):
    """The largest number of each channel over the active sites of a window, in images of 4 axes."""

    dims = 4


class SparseAvgPool1d(_AvgPool):
    """The mean over the active sites of a window, in images of 1 axis."""

    dims = 1


class SparseAvgPool2d(_AvgPool):
    """The mean over the active sites of a window, in images of 2 axes."""

    dims = 2


class SparseAvgPool3d(_AvgPool):
    """The mean over the active sites of a window, in images of 3 axes."""

    dims = 3


class SparseAvgPool4d(_AvgPool):
    """The mean over the active sites of a window, in images of 4 axes."""

    dims = 4


class SparseSumPool1d(_SumPool):
    """The sum over the active sites of a window, in images of 1 axis."""

    dims = 1


class SparseSumPool2d(_SumPool):
    """The sum over the active sites of a window, in images of 2 axes."""

    dims = 2


class SparseSumPool3d(_SumPool):
    """The sum over the active sites of a window, in images of 3 axes."""

    dims = 3


class SparseSumPool4d(_SumPool):
    """The sum over the active sites of a window, in images of 4 axes."""

    dims = 4
