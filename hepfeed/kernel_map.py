"""Kernel maps: which sites a sparse convolution connects (= rulebook = indice pairs)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hepfeed import _sites
from hepfeed.errors import SpecError
from hepfeed.sites import check_grid, check_indices, check_order, check_places, sort_sites
from hepfeed.tensors import KernelMap

__all__ = ["MapGeometry", "build_kernel_map", "check_convolution", "check_map", "output_shape", "per_axis"]

_MOST_CELLS, _MOST_AXIS_TAPS, _MOST_TAPS = 2**31 - 1, 2**10, 2**16


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
    *,
    transposed: bool = False,
    order: NDArray[np.int32] | None = None,
    threads: int = 1,
) -> KernelMap:
    """Find the pairs of input and output sites of a sparse convolution.

    Output site o and tap k (0 .. kernel size - 1, on every axis) take input site
    ``i = o * stride - padding + k * dilation``; where it is transposed, ``o = i * stride - padding + k * dilation``.
    There is an output wherever one input or more is active, or, where it is submanifold (Graham and van der Maaten,
    arXiv:1706.01307), exactly where the inputs are.  The inverse of a convolution has its map with the pairs swapped:
    :meth:`hepfeed.tensors.KernelMap.swapped_pairs`.

    Args:
        indices: ``(N, 1 + D) int32``: event and coordinates, each site once, in any order.
        spatial_shape: Of the input, ``D`` numbers.
        batch_size: Events.
        kernel_size: Taps, of each axis or of all; odd where it is submanifold.
        stride: Of the output grid; of the input grid where it is transposed.
        padding: Of the input grid; cut off the output grid where it is transposed.  A submanifold convolution is
            centred: its padding is ``dilation * (kernel_size // 2)``, whether it is given as that or left at 0.
        dilation: Of the taps.
        submanifold: Whether outputs lie where inputs do; the stride is 1 then.
        transposed: Whether the map is that of a transposed convolution; not of a submanifold one.
        order: Of the sites, as from :func:`hepfeed.sites.sort_sites`; None: it is found here.
        threads: How many may work on it; the result is the same for any number.

    Returns:
        The map.  Rows of a submanifold map are those of ``indices``, which it shares; outputs of others are sorted by
        (event, coordinates).

    Raises:
        SpecError: The options do not fit each other, the shape or the indices, or the batch has too many places to be
            numbered.
        ProcessError: A site is outside of the shape, or there twice.
        ValueError: The order is not that of the indices.
    """
    of = check_map(spatial_shape, batch_size, kernel_size, stride, padding, dilation, submanifold, transposed)
    sites = check_indices(indices, len(of.shape))
    rows = sort_sites(sites, of.shape, of.events, threads) if order is None else check_order(order, len(sites))
    in_maps, out_maps, offsets, back_in, back_out, outputs = _sites.kernel_map(
        sites,
        rows,
        of.events,
        of.shape,
        of.out_shape,
        of.kernel_size,
        of.stride,
        of.padding,
        of.dilation,
        submanifold,
        transposed,
        threads,
    )
    return KernelMap(
        in_maps=in_maps,
        out_maps=out_maps,
        offsets=offsets,
        back_in=back_in,
        back_out=back_out,
        indices=outputs,
        kernel_size=of.kernel_size,
        stride=of.stride,
        padding=of.padding,
        dilation=of.dilation,
        submanifold=submanifold,
        transposed=transposed,
        spatial_shape=of.out_shape,
    )


@dataclass(frozen=True)
class MapGeometry:
    """What a kernel map is built for, beside the sites; a number for each axis.

    Attributes:
        events: Number of images.
        shape: Of the inputs.
        out_shape: Of the outputs.
        kernel_size: Taps.
        stride: As of :func:`build_kernel_map`, and so are padding and dilation.
        padding: That of a submanifold convolution is the one that centres it.
        dilation: Of the taps.
    """

    events: int
    shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]


def check_map(
    spatial_shape: Sequence[int],
    batch_size: int,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int],
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    submanifold: bool,
    transposed: bool,
) -> MapGeometry:
    """Check what a kernel map is asked for; arguments as of :func:`build_kernel_map`.

    Raises:
        SpecError: The options do not fit each other or the shape, or the batch has too many places to be numbered.
    """
    shape, events = check_grid(spatial_shape, batch_size)
    kernel, strides, paddings, dilations = check_convolution(
        len(shape), kernel_size, stride, padding, dilation, submanifold, transposed
    )
    out_shape = output_shape(shape, kernel, strides, paddings, dilations, transposed)
    if submanifold:
        check_places([n + p for n, p in zip(shape, paddings)], events)
    else:
        check_places([2 ** (max(n, m) - 1).bit_length() for n, m in zip(shape, out_shape)], events)
    return MapGeometry(events, shape, out_shape, kernel, strides, paddings, dilations)


def output_shape(
    spatial_shape: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool = False,
) -> tuple[int, ...]:
    """Return the shape of the outputs; arguments have a number for each axis, see :func:`build_kernel_map`.

    As of a dense convolution it is ``(n + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1`` on each axis;
    where it is transposed, ``(n - 1) * stride - 2 * padding + dilation * (kernel_size - 1) + 1``.

    Raises:
        SpecError: It has no cell, or more than 2^31 - 1 on an axis.
    """
    axes = list(zip(spatial_shape, kernel_size, stride, padding, dilation))
    if transposed:
        made = tuple((n - 1) * s - 2 * p + d * (k - 1) + 1 for n, k, s, p, d in axes)
    else:
        made = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes)
    if min(made) < 1:
        kind = "transposed kernel" if transposed else "kernel"
        raise SpecError(
            f"a {kind} of {tuple(kernel_size)} with stride {tuple(stride)}, dilation {tuple(dilation)} and padding"
            f" {tuple(padding)} does not fit the shape {tuple(spatial_shape)}: the output would have the shape {made}"
        )
    if max(made) > _MOST_CELLS:
        raise SpecError(
            f"outputs have up to 2^31 - 1 cells an axis, and the output of {spatial_shape} would have {made}"
        )
    return made


def check_convolution(
    dims: int,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int],
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    submanifold: bool,
    transposed: bool = False,
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return kernel size, stride, padding and dilation of each axis; see :func:`build_kernel_map`.

    Raises:
        SpecError: They do not fit each other or the number of axes.
    """
    kernel, strides = per_axis("kernel_size", kernel_size, dims, 1), per_axis("stride", stride, dims, 1)
    paddings, dilations = per_axis("padding", padding, dims, 0), per_axis("dilation", dilation, dims, 1)
    if max(kernel) > _MOST_AXIS_TAPS or math.prod(kernel) > _MOST_TAPS:
        raise SpecError(f"kernels have up to {_MOST_AXIS_TAPS} taps an axis and {_MOST_TAPS} in all, not {kernel}")
    if max(*strides, *paddings, *dilations) > _MOST_CELLS:
        raise SpecError(
            f"strides, paddings and dilations go up to 2^31 - 1, and are {strides}, {paddings} and {dilations}"
        )
    if submanifold and transposed:
        raise SpecError("a convolution can't be both submanifold and transposed")
    if not submanifold:
        return kernel, strides, paddings, dilations
    if any(size % 2 == 0 for size in kernel) or any(step != 1 for step in strides):
        raise SpecError(
            f"a submanifold convolution has odd kernels and stride 1, not kernel {kernel}, stride {strides}"
        )
    centred = tuple(step * (size // 2) for step, size in zip(dilations, kernel))
    if max(centred) > _MOST_CELLS:
        raise SpecError(f"paddings go up to 2^31 - 1, and that of kernel {kernel}, dilation {dilations} is {centred}")
    if any(paddings) and paddings != centred:
        raise SpecError(
            f"a submanifold convolution of kernel {kernel} has padding {centred}, not {paddings}: leave it out"
        )
    return kernel, strides, centred, dilations
