"""Kernel maps on a device.

Every map is found in two passes: its pairs are counted for each tap and 32 sites, the sums of the counts are their
places, and they are found again and written there.  See ``csrc/kernels/kernel_map.cuh`` for how they are found.

Faults of the sites and of their order are found by the kernels and read together with the number of pairs.
:func:`hepfeed.kernel_map.build_kernel_map` then does the work on the host, and names what is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray

from hepfeed.device import native
from hepfeed.device.checks import check_same_device
from hepfeed.device.site_arrays import aligned, are_rows, are_sites, on_host
from hepfeed.device.site_keys import check_sites, distinct_sites, no_faults, number_sites
from hepfeed.device.sorting import sort_pairs
from hepfeed.kernel_map import MapGeometry, build_kernel_map, check_map

__all__ = ["kernel_map"]

Arrays = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]

_WARP = 32  # sites whose pairs of one tap are counted together
_MOST_REACHED = 2**31 - 1  # pairs that are sorted with their numbers as int32


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
) -> Arrays:
    """Find which sites a convolution connects; see :func:`hepfeed.sparse.maps.kernel_map`.

    The host waits once, for the number of pairs, and where the map is not submanifold once more, for that of the
    outputs.
    """
    check_same_device(indices=indices, order=order)
    geometry = check_map(shape, batch, kernel_size, stride, padding, dilation, submanifold, transposed)
    made = None
    if are_sites(indices, len(geometry.shape)) and are_rows(order, indices):
        rows, places = aligned(indices), order.contiguous()
        if not len(rows):
            made = _empty_map(rows, geometry)
        elif submanifold:
            made = _submanifold_map(rows, places, geometry)
        else:
            made = _reaching_map(rows, places, geometry, transposed)
    if made is not None:
        return made
    first, second, third, fourth, fifth, sixth = on_host(
        _build, indices, order, geometry, submanifold=submanifold, transposed=transposed
    )
    return first, second, third, fourth, fifth, sixth


def _empty_map(indices: torch.Tensor, geometry: MapGeometry) -> Arrays:
    offsets = indices.new_zeros((math.prod(geometry.kernel_size) + 1,), dtype=torch.int64)
    in_maps, out_maps, back_in, back_out = (indices.new_empty((0,)) for _ in range(4))
    return in_maps, out_maps, offsets, back_in, back_out, torch.empty_like(indices)


def _submanifold_map(indices: torch.Tensor, order: torch.Tensor, of: MapGeometry) -> Arrays | None:
    """The map of sites onto themselves; None where they have a fault."""
    sites, (*leading, in_line) = len(indices), of.kernel_size
    lines, warps, is_sorted = math.prod(leading), -(-sites // _WARP), not len(order)
    # A site that a tap takes out of its image has the key of no site, as the widths leave room for it.
    grid = (of.events, of.shape, [n + p for n, p in zip(of.shape, of.padding)])
    taps = (of.kernel_size, of.stride, of.padding, of.dilation, False)
    faults = no_faults(indices)
    keys = number_sites(indices, order, grid, faults)
    outputs = None if is_sorted else number_sites(indices, None, grid, None)
    # Of sorted sites only the taps before the centre are searched.
    searched = lines * in_line // 2 if is_sorted else lines * in_line
    starts = indices.new_empty((lines // 2 + 1 if is_sorted else lines, sites))
    counts = keys.new_empty((1 + searched * warps,))
    with native.on_device(indices):
        kernels, stream = native.kernels(), native.stream(indices)
        common = (native.address(keys), native.address(outputs), sites)
        kernels.count_neighbours(*common, grid, taps, native.address(starts), native.address(counts), stream)
        totals = torch.cumsum(counts, 0)
        total, fault = torch.stack((totals[-1], faults[0])).tolist()
        if fault:
            return None
        pairs = 2 * total + sites if is_sorted else total
        in_maps, out_maps = indices.new_empty((pairs,)), indices.new_empty((pairs,))
        back = 0 if is_sorted else pairs
        back_in, back_out = indices.new_empty((back,)), indices.new_empty((back,))
        kernels.write_neighbours(
            *common,
            native.address(order),
            grid,
            taps,
            native.address(starts),
            native.address(totals),
            [native.address(each) for each in (in_maps, out_maps, back_in, back_out)],
            pairs,
            stream,
        )
    offsets = totals[::warps].clone()
    if is_sorted:  # taps behind the centre have as many pairs as those before it
        offsets = torch.cat((offsets, pairs - offsets.flip(0)))
    return in_maps, out_maps, offsets, back_in, back_out, indices.new_empty((0, indices.shape[1]))


def _reaching_map(indices: torch.Tensor, order: torch.Tensor, of: MapGeometry, transposed: bool) -> Arrays | None:
    """The map of sites onto all places that they reach; None where they have a fault, or too many pairs."""
    sites, warps = len(indices), -(-len(indices) // _WARP)
    all_taps = math.prod(of.kernel_size)
    grid = (of.events, of.out_shape, of.out_shape)
    taps = (of.kernel_size, of.stride, of.padding, of.dilation, transposed)
    faults = no_faults(indices)
    check_sites(indices, order, (of.events, of.shape, of.shape), faults)
    counts = indices.new_empty((1 + all_taps * warps,), dtype=torch.int64)
    with native.on_device(indices):
        kernels, stream = native.kernels(), native.stream(indices)
        common = ((native.address(indices), native.address(order), sites), grid, taps)
        kernels.count_reached(*common, native.address(counts), stream)
        totals = torch.cumsum(counts, 0)
        pairs, fault = torch.stack((totals[-1], faults[0])).tolist()
        if fault or pairs >= _MOST_REACHED:
            return None
        in_maps, keys = indices.new_empty((pairs,)), totals.new_empty((pairs,))
        kernels.write_reached(*common, native.address(totals), native.address(in_maps), native.address(keys), stream)
    offsets = totals[::warps].clone()
    outputs, out_maps = distinct_sites(keys, grid)
    if len(order):
        back_in, back_out = _sorted_by_input(in_maps, out_maps, offsets, sites)
    else:
        back_in, back_out = indices.new_empty((0,)), indices.new_empty((0,))
    return in_maps, out_maps, offsets, back_in, back_out, outputs


def _sorted_by_input(
    in_maps: torch.Tensor, out_maps: torch.Tensor, offsets: torch.Tensor, sites: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The pairs of each tap swapped, and sorted by their inputs."""
    taps, pairs = len(offsets) - 1, len(in_maps)
    keys, back_out = torch.empty_like(in_maps, dtype=torch.int64), torch.empty_like(in_maps)
    of = (native.address(offsets), taps, sites, pairs)
    with native.on_device(in_maps):
        kernels, stream = native.kernels(), native.stream(in_maps)
        kernels.key_pairs(native.address(in_maps), *of, native.address(keys), stream)
        keys, back_in = sort_pairs(keys, out_maps, taps * sites)
        kernels.unkey_pairs(native.address(keys), *of, native.address(back_out), stream)
    return back_in, back_out


def _build(
    indices: NDArray[Any], order: NDArray[Any], of: MapGeometry, submanifold: bool, transposed: bool
) -> tuple[NDArray[Any], ...]:
    """The map by the host, as the operator returns it."""
    options = (of.kernel_size, of.stride, of.padding, of.dilation, submanifold)
    threads = torch.get_num_threads()
    made = build_kernel_map(indices, of.shape, of.events, *options, transposed=transposed, order=order, threads=threads)
    outputs = made.indices[:0] if submanifold else made.indices
    return made.in_maps, made.out_maps, made.offsets, made.back_in, made.back_out, outputs
