"""Kernel maps: which sites a sparse convolution connects (= rulebook = indice pairs)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfeed import _voxels
from hepfeed.errors import ProcessError, SpecError
from hepfeed.tensors import KernelMap

__all__ = ["build_kernel_map", "check_convolution", "per_axis"]

_MOST_CELLS, _MOST_TAPS = 2**20, 2**10


def per_axis(option: str, value: int | Sequence[int], dims: int, least: int) -> tuple[int, ...]:
    """Return one integer for each axis.

    Args:
        option: Its name.
        value: An integer for all axes, or one for each.
        dims: Number of axes.
        least: The least allowed.

    Raises:
        SpecError: It is something else.
    """
    numbers = tuple(value) if isinstance(value, Sequence) else (value,) * dims
    whole = all(isinstance(n, int | np.integer) and not isinstance(n, bool) and least <= n for n in numbers)
    if len(numbers) != dims or not whole:
        raise SpecError(
            f"{option} must be an integer of {least} or more, or one for each of {dims} axes, not {value!r}"
        )
    return tuple(int(number) for number in numbers)


def build_kernel_map(
    indices: NDArray[np.int32],
    spatial_shape: Sequence[int],
    batch_size: int,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    submanifold: bool = False,
) -> KernelMap:
    """Find the pairs of input and output sites of a sparse convolution.

    Output site o and tap k (0 .. kernel size - 1, on every axis) take input site
    ``i = o * stride - padding + k * dilation``.  There is an output wherever one input or more is active, or, where it
    is submanifold (Graham and van der Maaten, arXiv:1706.01307), exactly where the inputs are.

    Args:
        indices: ``(N, 1 + D) int32``: event and coordinates, sorted and unique.
        spatial_shape: Of the input, ``D`` numbers of up to 2^20.
        batch_size: Events.
        kernel_size: Taps, of each axis or of all; odd where it is submanifold.
        stride: Of the output grid.
        padding: Of the input grid.  A submanifold convolution is centred: its padding is
            ``dilation * (kernel_size // 2)``, whether it is given as that or left at 0.
        dilation: Of the taps.
        submanifold: Whether outputs lie where inputs do; the stride is 1 then.

    Returns:
        The map; its outputs are sorted by (event, coordinates).  A submanifold map shares ``indices``.

    Raises:
        SpecError: The options do not fit each other or the shape.
        ProcessError: A site is outside of the shape, or the sites are not sorted or not unique.
    """
    shape = per_axis("spatial_shape", tuple(spatial_shape), len(spatial_shape), 1)
    if not shape or max(shape) > _MOST_CELLS:
        raise SpecError(f"spatial_shape must have one axis or more of up to {_MOST_CELLS} cells, not {shape}")
    kernel, strides, paddings, dilations = check_convolution(
        len(shape), kernel_size, stride, padding, dilation, submanifold
    )
    # Where it is submanifold this is the shape itself.
    out_shape = tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1 for n, p, d, k, s in zip(shape, paddings, dilations, kernel, strides)
    )
    if min(out_shape) < 1:
        raise SpecError(
            f"a kernel of {kernel} with dilation {dilations} and padding {paddings} does not fit the shape {shape}"
        )
    sites = np.ascontiguousarray(indices, np.int32)
    _check_sites(sites, shape, batch_size)
    options: dict[str, Any] = {"kernel": kernel, "stride": strides, "padding": paddings, "dilation": dilations}
    pairs, starts, outputs = _voxels.kernel_map(sites, batch_size, shape, out_shape, **options, submanifold=submanifold)
    return KernelMap(pairs, starts, outputs, kernel, strides, paddings, dilations, submanifold, out_shape)


def check_convolution(
    dims: int,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int],
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    submanifold: bool,
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return kernel size, stride, padding and dilation of each axis; see :func:`build_kernel_map`.

    Raises:
        SpecError: They do not fit each other or the number of axes.
    """
    kernel, strides = per_axis("kernel_size", kernel_size, dims, 1), per_axis("stride", stride, dims, 1)
    paddings, dilations = per_axis("padding", padding, dims, 0), per_axis("dilation", dilation, dims, 1)
    if max(kernel) > _MOST_TAPS or max(paddings) > _MOST_CELLS:
        raise SpecError(
            f"kernels have up to {_MOST_TAPS} taps an axis and paddings up to {_MOST_CELLS}, not {kernel}, {paddings}"
        )
    if not submanifold:
        return kernel, strides, paddings, dilations
    if any(size % 2 == 0 for size in kernel) or any(step != 1 for step in strides):
        raise SpecError(
            f"a submanifold convolution has odd kernels and stride 1, not kernel {kernel}, stride {strides}"
        )
    centred = tuple(step * (size // 2) for step, size in zip(dilations, kernel))
    if any(paddings) and paddings != centred:
        raise SpecError(
            f"a submanifold convolution of kernel {kernel} has padding {centred}, not {paddings}: leave it out"
        )
    return kernel, strides, centred, dilations


def _check_sites(sites: NDArray[np.int32], shape: tuple[int, ...], batch_size: int) -> None:
    if sites.ndim != 2 or sites.shape[1] != 1 + len(shape):
        raise SpecError(
            f"indices (N, {1 + len(shape)}) were expected for a shape of {len(shape)} axes, not {sites.shape}"
        )
    bad = _voxels.first_unsorted(sites, shape, batch_size)
    if bad >= 0:
        site = sites[bad].tolist()
        if site[0] in range(batch_size) and all(0 <= x < n for x, n in zip(site[1:], shape)):
            raise ProcessError(
                f"sites must be sorted by (event, coordinates) and unique, and row {bad}, {site}, comes after"
                f" {sites[bad - 1].tolist()}"
            )
        raise ProcessError(
            f"site {site} (event, coordinates) in row {bad} is outside of {batch_size} images of {shape}"
        )
