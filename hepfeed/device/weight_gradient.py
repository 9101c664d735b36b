"""The gradient of the weight of a sparse convolution, on the device of its tensors.

Products of the rows of pairs, summed over the pairs of a tap, by kernels (``csrc/kernels/weight_gradient.cuh``) whose
blocks each have a tile of channels and some of the pairs; or by :mod:`hepfeed.device.products`.  Sums are float32 for
numbers of 16 bits and rounded once, and added in an order that depends on sizes and on the variant alone.
"""

from __future__ import annotations

import functools

import torch

from hepfeed.device import native, products, tuning
from hepfeed.device.arithmetic import arithmetic_of
from hepfeed.device.checks import check_dtypes, check_same_device
from hepfeed.device.floats import sum_dtype
from hepfeed.device.pairs import check_pairs, refuse, work_items
from hepfeed.device.plan import pairs_of
from hepfeed.errors import SpecError

__all__ = ["sparse_conv_weight_grad"]

Tile = tuple[int, int]

_MOST_ROWS = 2**31 - 1
_MM = "mm"
_MM_CHANNELS = 512
"""From here on, on both sides, rows are multiplied so often that copying them first costs little."""
_BLOCKS = 1024
"""About as many blocks as are made of the pairs: several for each processor of a large card, so that all end together;
and few enough for their sums, which they write and others read, to be small beside the rows."""
_LEAST_PAIRS = 256
"""Of a block, so that it has more to do than to begin."""
_READ = 32
"""Multiplications in the time of reading a number from the second-level cache: of the order of what all cards have."""


def sparse_conv_weight_grad(
    features: torch.Tensor,
    grad: torch.Tensor,
    in_maps: torch.Tensor,
    out_maps: torch.Tensor,
    offsets: torch.Tensor,
    back_in: torch.Tensor,
    back_out: torch.Tensor,
    groups: int,
    inverse: bool,
) -> torch.Tensor:
    """Return ``(C_out, taps, C_in / groups)``; see :func:`hepfeed.sparse.convolution.sparse_conv_weight_grad`.

    The host waits for the device once a map, to check the pairs; not where a convolution of the same pairs came before.

    Args:
        features: ``(N, C_in)`` float32, float64, bfloat16 or float16.
        grad: ``(M, C_out)``.
        in_maps: ``(P,) int32``, as the two that follow of one device with the rest.
        out_maps: ``(P,) int32``.
        offsets: ``(taps + 1,) int64``.
        back_in: ``(P,)`` or ``(0,) int32``.
        back_out: ``(P,)`` or ``(0,) int32``.
        groups: Of channels.
        inverse: Whether the swapped pairs are meant.

    Raises:
        SpecError: The dtypes are not one that kernels have, devices differ, or ``groups`` is below 1.
        ValueError: Shapes do not fit each other, or the pairs are not those of a map of these rows.
    """
    check_dtypes(features=features, grad=grad)
    if groups < 1:
        raise SpecError(f"groups must be 1 or more, not {groups}")
    if features.ndim != 2 or grad.ndim != 2:
        raise SpecError(f"features and grad must be (rows, channels), not {features.ndim} and {grad.ndim} axes")
    in_maps, out_maps = pairs_of(in_maps, out_maps, back_in, back_out, inverse)
    check_same_device(features=features, grad=grad, in_maps=in_maps, out_maps=out_maps, offsets=offsets)
    (rows, channels), (out_rows, out_channels) = features.shape, grad.shape
    per_group, out_per_group = channels // groups, out_channels // groups
    sound = (
        in_maps.shape == out_maps.shape
        and in_maps.ndim == offsets.ndim == 1
        and len(offsets) > 0
        and (in_maps.dtype, out_maps.dtype, offsets.dtype) == (torch.int32, torch.int32, torch.int64)
        and per_group * groups == channels > 0
        and out_per_group * groups == out_channels > 0
    )
    if max(rows, out_rows) > _MOST_ROWS:
        raise ValueError("there are 2^31 rows or more")
    if not sound:
        refuse(features.shape, grad.shape, in_maps, out_maps, offsets, groups)
    features, grad = features.contiguous(), grad.contiguous()
    in_maps, out_maps, offsets = in_maps.contiguous(), out_maps.contiguous(), offsets.contiguous()
    with native.on_device(features):
        check_pairs(in_maps, out_maps, offsets, rows, out_rows)
        arithmetic = arithmetic_of(features.dtype)
        sizes = (channels, out_channels), len(offsets) - 1, groups, out_rows, len(in_maps)
        case = tuning.Case.of("sparse_conv_weight_grad", arithmetic, *sizes, features.device)

        def run(variant: str) -> torch.Tensor:
            if variant == _MM:
                return products.weight_grad(features, grad, in_maps, out_maps, offsets, groups)
            return _by_kernels(arithmetic, variant, features, grad, in_maps, out_maps, offsets, groups)

        return run(tuning.choose(case, _variants(arithmetic, per_group, out_per_group), run))


@functools.lru_cache
def _tiles(arithmetic: str) -> dict[str, int]:
    """The numbers of the kernels' tiles by their names, ``"ROWSxCOLUMNS"``."""
    shapes: dict[int, Tile] = native.kernels().weight_gradient_tiles(arithmetic)
    return {f"{rows}x{columns}": tile for tile, (rows, columns) in shapes.items()}


@functools.lru_cache
def _variants(arithmetic: str, in_channels: int, out_channels: int) -> tuple[str, ...]:
    """The ways to compute it, that of the fixed rule first.

    The rule takes the tile that is the cheapest for one pair: what is multiplied, padding included, and the numbers
    that are read, once for each tile.  Tiles that cost more than twice as much are no ways.

    Args:
        arithmetic: As of :func:`hepfeed.device.arithmetic.arithmetic_of`.
        in_channels: Of a group.
        out_channels: Of a group.
    """
    costs = {}
    for name in _tiles(arithmetic):
        height, width = _shape(name)
        left, right = _sides(height, width, in_channels, out_channels)
        down, across = -(-left // height), -(-right // width)
        costs[name] = down * height * across * width / _READ + left * across + right * down
    ways = sorted((name for name in costs if costs[name] <= 2 * min(costs.values())), key=lambda name: costs[name])
    ways.insert(0 if min(in_channels, out_channels) >= _MM_CHANNELS else len(ways), _MM)
    return tuple(ways)


def _shape(name: str) -> Tile:
    height, width = map(int, name.split("x"))
    return height, width


def _turned(height: int, width: int, in_channels: int, out_channels: int) -> bool:
    """Whether the left side of the products is the input: the longer side of a tile is for more channels."""
    return height > width and in_channels > out_channels


def _sides(height: int, width: int, in_channels: int, out_channels: int) -> Tile:
    turned = _turned(height, width, in_channels, out_channels)
    return (in_channels, out_channels) if turned else (out_channels, in_channels)


def _by_kernels(
    arithmetic: str,
    tile: str,
    features: torch.Tensor,
    grad: torch.Tensor,
    in_maps: torch.Tensor,
    out_maps: torch.Tensor,
    offsets: torch.Tensor,
    groups: int,
) -> torch.Tensor:
    height, width = _shape(tile)
    per_group, out_per_group = features.shape[1] // groups, grad.shape[1] // groups
    taps, pairs = len(offsets) - 1, len(in_maps)
    turned = _turned(height, width, per_group, out_per_group)
    sides = [(grad, out_maps, out_per_group), (features, in_maps, per_group)]
    if turned:
        sides.reverse()
    tiles = groups * -(-sides[0][2] // height) * -(-sides[1][2] // width)
    chunk = max(_LEAST_PAIRS, -(-pairs * tiles // _BLOCKS))
    items = work_items(offsets, pairs, chunk)
    sums = features.new_empty((len(items.work), tiles, height, width), dtype=sum_dtype(features.dtype))
    made = features.new_empty((grad.shape[1], taps, per_group))
    native.kernels().weight_gradient(
        arithmetic,
        _tiles(arithmetic)[tile],
        *(part for side in sides for part in (native.address(side[0]), native.address(side[1]), len(side[0]), side[2])),
        turned,
        groups,
        taps,
        native.address(items.first_item),
        native.address(items.work),
        len(items.work),
        native.address(sums),
        native.address(made),
        native.stream(features),
    )
    return made
