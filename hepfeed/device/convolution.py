"""The sparse convolution and the gradient of its input, on the device of their tensors.

Products of matrices whose left one is gathered on demand along a plan (:mod:`hepfeed.device.plan`), by kernels
(``csrc/kernels/convolution.cuh``, ``convolve_rows.cuh``); or by :mod:`hepfeed.device.products`.  Sums are float32 for
numbers of 16 bits and rounded once.  Each row of the output is made by one block of threads, in an order that depends
on the plan and the variant alone.  Without TF32, all kernels add the terms of float32 and float64 one after another
by taps and channels, so that their bits do not depend on the variant either.

A number of the weight that is not finite may reach rows that have no pair of its tap.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NoReturn

import numpy as np
import torch
from torch.nn.functional import pad

from hepfeed import _convolution
from hepfeed.device import native, products, tuning
from hepfeed.device.arithmetic import arithmetic_of
from hepfeed.device.checks import check_dtypes, check_same_device
from hepfeed.device.plan import Plan, pairs_of, plan_of
from hepfeed.errors import SpecError

__all__ = ["convolve", "sparse_conv", "sparse_conv_input_grad", "variants"]

_MM = "mm"
_MM_CHANNELS = 512
"""From here on, on both sides, rows are multiplied so often that copying them first costs little."""
_ROWS = "rows"
_ROWS_DEPTH = 8
"""Channels of the input, of a group, that the kernel of few channels takes at most."""
_ROWS_WIDTH = 64
"""Channels of the output up to which the rule takes it; where there are more, tensor cores make up for zeros."""
_PIECE_BYTES = 16
"""Of one copy: groups of channels begin at multiples of it for tiles."""
_TILES = {
    "float32": ((64, 32), (64, 64), (128, 64)),
    "tf32": ((64, 32), (64, 64), (128, 64), (128, 128)),
    "float64": ((64, 32),),
    "bfloat16": ((64, 32), (64, 64), (128, 64), (128, 128)),
    "float16": ((64, 32), (64, 64), (128, 64), (128, 128)),
}
"""Positions and channels of the tiles that there are."""
_BLOCKS = 256
"""From this number on all processors of a large card have blocks to do."""
_READ = 32
"""Multiplications in the time of reading a number from the second-level cache: of the order of what all cards have."""


def sparse_conv(
    features: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    in_maps: torch.Tensor,
    out_maps: torch.Tensor,
    offsets: torch.Tensor,
    back_in: torch.Tensor,
    back_out: torch.Tensor,
    out_rows: int,
    groups: int,
    inverse: bool,
) -> torch.Tensor:
    """Convolve features; see :func:`hepfeed.sparse.convolution.sparse_conv`.

    The host waits for the device once a map, when its plan is made.

    Args:
        features: ``(N, C_in)`` float32, float64, bfloat16 or float16; of one device with the other tensors.
        weight: ``(C_out, taps, C_in / groups)`` of the same dtype.
        bias: ``(C_out,)`` of the same dtype, or None.
        in_maps: ``(P,) int32``.
        out_maps: ``(P,) int32``.
        offsets: ``(taps + 1,) int64``.
        back_in: ``(P,)`` or ``(0,) int32``.
        back_out: ``(P,)`` or ``(0,) int32``.
        out_rows: ``M``, rows of the result.
        groups: Into which channels are divided.
        inverse: Whether the swapped pairs are meant.

    Returns:
        ``(M, C_out)``; rows without a pair hold the bias.

    Raises:
        SpecError: The dtypes are not one that kernels have, devices differ, or ``groups`` is below 1.
        ValueError: Shapes do not fit each other, or the pairs are not those of a map of these rows.
    """
    check_dtypes(features=features, weight=weight, bias=bias)
    ins, outs = pairs_of(in_maps, out_maps, back_in, back_out, inverse)
    check_same_device(features=features, weight=weight, bias=bias, in_maps=ins, out_maps=outs, offsets=offsets)
    _check_groups(groups)
    fits = _fits(features, weight, offsets, groups) and features.shape[1] == weight.shape[2] * groups
    if not fits or (bias is not None and bias.shape != weight.shape[:1]):
        given = (features, weight, bias), (ins, outs, offsets), (out_rows, weight.shape[0]), groups
        _refuse(_convolution.forward, *given)
    with native.on_device(features):
        plan = plan_of(outs, ins, offsets, out_rows, features.shape[0])

        def run(variant: str) -> torch.Tensor:
            if variant == _MM:
                return products.forward(features, weight, bias, ins, outs, offsets, out_rows, groups)
            return convolve(plan, features, weight, bias, groups, variant)

        return run(_choose("sparse_conv", plan, features, weight, len(ins), groups, run))


def sparse_conv_input_grad(
    grad: torch.Tensor,
    weight: torch.Tensor,
    in_maps: torch.Tensor,
    out_maps: torch.Tensor,
    offsets: torch.Tensor,
    back_in: torch.Tensor,
    back_out: torch.Tensor,
    in_rows: int,
    groups: int,
    inverse: bool,
) -> torch.Tensor:
    """Return the gradient ``(N, C_in)``; see :func:`hepfeed.sparse.convolution.sparse_conv_input_grad`.

    It is the convolution of ``grad`` along the swapped pairs, with the weight as ``(C_in, taps, C_out / groups)``, of
    which a copy is made.

    Args:
        grad: ``(M, C_out)``: of the output.
        weight: As of :func:`sparse_conv`, like the others that are not named here.
        in_maps: See above.
        out_maps: See above.
        offsets: See above.
        back_in: See above.
        back_out: See above.
        in_rows: ``N``, rows of the features.
        groups: See above.
        inverse: See above.

    Raises:
        SpecError: The dtypes are not one that kernels have, devices differ, or ``groups`` is below 1.
        ValueError: Shapes do not fit each other, or the pairs are not those of a map of these rows.
    """
    check_dtypes(grad=grad, weight=weight)
    ins, outs = pairs_of(in_maps, out_maps, back_in, back_out, not inverse)
    check_same_device(grad=grad, weight=weight, in_maps=ins, out_maps=outs, offsets=offsets)
    _check_groups(groups)
    if not _fits(grad, weight, offsets, groups) or grad.shape[1] != weight.shape[0]:
        shape = in_rows, weight.shape[-1] * groups
        _refuse(_convolution.input_grad, (grad, weight), (ins, outs, offsets), shape, groups)
    with native.on_device(grad):
        plan = plan_of(outs, ins, offsets, in_rows, grad.shape[0])
        turned = _turned(weight, groups)

        def run(variant: str) -> torch.Tensor:
            if variant == _MM:
                return products.input_grad(grad, weight, outs, ins, offsets, in_rows, groups)
            return convolve(plan, grad, turned, None, groups, variant)

        return run(_choose("sparse_conv_input_grad", plan, grad, turned, len(ins), groups, run))


def convolve(
    plan: Plan,
    features: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    groups: int,
    variant: str,
) -> torch.Tensor:
    """Convolve along a plan by the kernels.

    The device of the tensors is the current one.  Tiles take features, weights and groups of channels that begin at
    multiples of 16 bytes: others are copied first, with zeros between.

    Args:
        plan: Of ``(M, N)`` rows.
        features: ``(N, C_in)``.
        weight: ``(C_out, taps, C_in / groups)``.
        bias: ``(C_out,)``, or None.
        groups: Of channels.
        variant: One of :func:`variants`, but ``"mm"``.

    Returns:
        ``(M, C_out)``.

    Raises:
        ValueError: The kernels have no such variant for these tensors.
    """
    arithmetic = arithmetic_of(features.dtype)
    if variant == _ROWS:
        arithmetic = "float32" if arithmetic == "tf32" else arithmetic
        features, weight = features.contiguous(), weight.contiguous()
    else:
        features, weight = _in_pieces(features, groups), _in_pieces(weight, 1)
    bias = None if bias is None else bias.contiguous()
    out = features.new_empty((plan.out_rows, weight.shape[0]))
    native.kernels().convolve(
        arithmetic,
        variant,
        native.address(features),
        native.address(weight),
        native.address(bias),
        native.address(plan.table),
        native.address(plan.rows),
        native.address(plan.tile_taps),
        native.address(out),
        plan.out_rows,
        plan.taps,
        plan.tile_taps.shape[1],
        weight.shape[2],
        weight.shape[0] // groups,
        groups,
        native.stream(features),
    )
    return out


@functools.lru_cache
def variants(arithmetic: str, depth: int, width: int, blocks: int) -> tuple[str, ...]:
    """Return the ways to compute a convolution, that of the fixed rule first.

    For few channels of input the rule is the kernel that makes whole rows; else it takes the tile that is the cheapest
    for a position and a tap: what is multiplied, padding included, and what is read, the features once for each block
    of channels and the weight once for each block of positions; where that leaves processors without a block, the cost
    of a block counts.  Tiles that cost more than twice as much are no ways.

    Args:
        arithmetic: As of :func:`hepfeed.device.arithmetic.arithmetic_of`.
        depth: Channels of the input, of a group.
        width: Channels of the output, of a group.
        blocks: Of 64 positions and a group, rounded up to a power of 2.
    """
    costs = {}
    for rows, columns in _TILES[arithmetic]:
        across = -(-width // columns)
        cost = across * columns / _READ + across + across * columns / rows
        count = max(blocks * 64 / rows, 1) * across
        costs[f"{rows}x{columns}"] = cost * max(1.0, _BLOCKS / count)
    ways = sorted((name for name in costs if costs[name] <= 2 * min(costs.values())), key=lambda name: costs[name])
    if depth <= _ROWS_DEPTH:
        item_bytes = {"float64": 8, "float32": 4, "tf32": 4}.get(arithmetic, 2)
        is_rule = depth * item_bytes % _PIECE_BYTES != 0 and width <= _ROWS_WIDTH  # tiles would need a copy with zeros
        ways.insert(0 if is_rule else len(ways), _ROWS)
    ways.insert(0 if min(depth, width) >= _MM_CHANNELS else len(ways), _MM)
    return tuple(ways)


def _choose(
    operator: str,
    plan: Plan,
    features: torch.Tensor,
    weight: torch.Tensor,
    pairs: int,
    groups: int,
    run: Callable[[str], torch.Tensor],
) -> str:
    arithmetic = arithmetic_of(features.dtype)
    blocks = max(-(-plan.out_rows // 64) * groups, 1)
    ways = variants(arithmetic, weight.shape[2], weight.shape[0] // groups, 1 << (blocks - 1).bit_length())
    sizes = (features.shape[1], weight.shape[0]), plan.taps, groups, plan.out_rows, pairs
    return tuning.choose(tuning.Case.of(operator, arithmetic, *sizes, features.device), ways, run)


def _in_pieces(tensor: torch.Tensor, groups: int) -> torch.Tensor:
    """Return the same numbers such that groups of the last axis begin at multiples of 16 bytes."""
    items = _PIECE_BYTES // tensor.element_size()
    channels = tensor.shape[-1] // groups
    if channels % items:
        return pad(tensor.reshape(*tensor.shape[:-1], groups, channels), (0, -channels % items)).flatten(-2)
    tensor = tensor.contiguous()
    return tensor if tensor.data_ptr() % _PIECE_BYTES == 0 else tensor.clone()


def _turned(weight: torch.Tensor, groups: int) -> torch.Tensor:
    """Return ``(C_in, taps, C_out / groups)`` of ``(C_out, taps, C_in / groups)``."""
    out_channels, taps, depth = weight.shape
    of_groups = weight.reshape(groups, out_channels // groups, taps, depth)
    return of_groups.permute(0, 3, 2, 1).reshape(groups * depth, taps, out_channels // groups)


def _check_groups(groups: int) -> None:
    if groups < 1:
        raise SpecError(f"groups must be 1 or more, not {groups}")


def _fits(features: torch.Tensor, weight: torch.Tensor, offsets: torch.Tensor, groups: int) -> bool:
    """Whether all is there but the right number of channels of the features."""
    return (
        features.ndim == 2
        and weight.ndim == 3
        and offsets.ndim == 1
        and weight.shape[1] == offsets.shape[0] - 1
        and weight.shape[0] >= 1
        and weight.shape[0] % groups == 0
        and weight.shape[2] >= 1
    )


def _refuse(
    kernel: Callable[..., None],
    arrays: tuple[torch.Tensor | None, ...],
    pairs: tuple[torch.Tensor, ...],
    shape: tuple[int, int],
    groups: int,
) -> NoReturn:
    """Say what is wrong with shapes, in the words of a kernel of the CPU."""
    zeros = [None if array is None else np.zeros(tuple(array.shape), np.float32) for array in arrays]
    lists = [each.cpu().contiguous().numpy() for each in pairs]
    kernel(*zeros, *lists, np.zeros(shape, np.float32), groups, 1)
    raise RuntimeError("the shapes of a convolution do not fit the kernels of the device, but those of the processor")
