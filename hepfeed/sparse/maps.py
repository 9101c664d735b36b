"""Operators that look at sites: their order, and the kernel maps of convolutions over them.

They wrap :mod:`hepfeed.sites` and :mod:`hepfeed.kernel_map` for torch, so that compiled graphs may hold them; tensors
on CUDA devices stay there, and :mod:`hepfeed.device` gives the same numbers.  Outputs whose length depends on the sites
have unbacked sizes in graphs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from hepfeed.device import kernel_map as device_map
from hepfeed.device import sites as device_sites
from hepfeed.kernel_map import build_kernel_map
from hepfeed.sites import sort_sites as _sort
from hepfeed.sites import unique_sites as _unique
from hepfeed.sparse.arrays import array

__all__ = ["kernel_map", "sort_sites", "unique_sites"]


@torch.library.custom_op("hepfeed::sort_sites", mutates_args=(), device_types="cpu")
def sort_sites(indices: torch.Tensor, shape: Sequence[int], batch: int) -> torch.Tensor:
    """Find the order of sites, and check them.

    Args:
        indices: ``(N, 1 + D) int32``: event and coordinates.
        shape: Of the images, ``D`` numbers.
        batch: Events.

    Returns:
        ``(N,) int32``: row numbers by (event, coordinates); of length 0 where the rows are sorted already.

    Raises:
        ProcessError: A site is outside of the images, or two are equal.
        SpecError: The indices do not fit the shape.
    """
    return torch.from_numpy(_sort(array(indices), shape, batch, threads=torch.get_num_threads()))


sort_sites.register_kernel("cuda")(device_sites.sort_sites)


@sort_sites.register_fake
def _(indices: torch.Tensor, shape: Sequence[int], batch: int) -> torch.Tensor:
    return indices.new_empty((_unknown(),), dtype=torch.int32)


@torch.library.custom_op("hepfeed::unique_sites", mutates_args=(), device_types="cpu")
def unique_sites(indices: torch.Tensor, shape: Sequence[int], batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Merge equal sites; arguments as of :func:`sort_sites`.

    Returns:
        ``(M, 1 + D) int32``: the distinct sites, sorted; and ``(N,) int32``: which of them each row is.

    Raises:
        ProcessError: A site is outside of the images.
        SpecError: The indices do not fit the shape.
    """
    given = array(indices)
    distinct, row_of = _unique(given, shape, batch, threads=torch.get_num_threads())
    if np.may_share_memory(distinct, given):
        distinct = given.copy()  # an operator returns no input
    return torch.from_numpy(distinct), torch.from_numpy(row_of)


unique_sites.register_kernel("cuda")(device_sites.unique_sites)


@unique_sites.register_fake
def _(indices: torch.Tensor, shape: Sequence[int], batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    return indices.new_empty((_unknown(), indices.shape[1])), indices.new_empty((indices.shape[0],))


@torch.library.custom_op("hepfeed::kernel_map", mutates_args=(), device_types="cpu")
def kernel_map(
    indices: torch.Tensor,
    order: torch.Tensor,
    batch: int,
    shape: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    submanifold: bool,
    transposed: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Find which sites a convolution connects; see :func:`hepfeed.kernel_map.build_kernel_map`.

    Args:
        indices: ``(N, 1 + D) int32``: the input sites.
        order: What :func:`sort_sites` returned for them.
        batch: Events.
        shape: Of the input images, ``D`` numbers, like the ones that follow.
        kernel_size: Taps.
        stride: Of the output grid (of the input grid where ``transposed``).
        padding: Of the input grid (of the output grid where ``transposed``).
        dilation: Of the taps.
        submanifold: Whether outputs lie where inputs do.
        transposed: Whether sites follow ``o = i * stride - padding + k * dilation``.

    Returns:
        ``in_maps``, ``out_maps``, ``offsets``, ``back_in`` and ``back_out`` of :class:`hepfeed.tensors.KernelMap`, and
        its outputs ``(M, 1 + D) int32``, which are empty where it is submanifold: an operator returns no input.
    """
    made = build_kernel_map(
        array(indices),
        shape,
        batch,
        kernel_size,
        stride,
        padding,
        dilation,
        submanifold,
        transposed=transposed,
        order=array(order),
        threads=torch.get_num_threads(),
    )
    outputs = np.empty((0, indices.shape[1]), np.int32) if submanifold else made.indices
    arrays = (made.in_maps, made.out_maps, made.offsets, made.back_in, made.back_out, outputs)
    first, second, third, fourth, fifth, sixth = map(torch.from_numpy, arrays)
    return first, second, third, fourth, fifth, sixth


kernel_map.register_kernel("cuda")(device_map.kernel_map)


@kernel_map.register_fake
def _(
    indices: torch.Tensor,
    order: torch.Tensor,
    batch: int,
    shape: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    submanifold: bool,
    transposed: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    pairs, back = _unknown(), _unknown()
    outputs = 0 if submanifold else _unknown()
    taps = 1
    for size in kernel_size:
        taps *= size
    return (
        indices.new_empty((pairs,)),
        indices.new_empty((pairs,)),
        indices.new_empty((taps + 1,), dtype=torch.int64),
        indices.new_empty((back,)),
        indices.new_empty((back,)),
        indices.new_empty((outputs, indices.shape[1])),
    )


def _unknown() -> Any:
    return torch.library.get_ctx().new_dynamic_size()
