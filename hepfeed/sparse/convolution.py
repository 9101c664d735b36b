"""Operators of the sparse convolution and of its gradients.

``out[o] = bias + sum over taps k and pairs (i, o) of k of W[k] in[i]``.  It is linear in the features, the weight and
the bias, and its gradients are such sums again, so every operator's gradient is made of these operators: they can be
differentiated any number of times.  All of them give the same bits for any number of threads.

The pairs are those of a :class:`hepfeed.tensors.KernelMap`.  With ``inverse`` the roles of inputs and outputs change
places: the pairs are the swapped ones, and tap k stays tap k.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hepfeed import _convolution
from hepfeed.device import column_sum as device_column_sum
from hepfeed.device import convolution as device
from hepfeed.device import weight_gradient
from hepfeed.errors import SpecError
from hepfeed.sparse.arrays import array, check_dtypes

__all__ = ["EagerConv", "column_sum", "sparse_conv", "sparse_conv_input_grad", "sparse_conv_weight_grad"]


@torch.library.custom_op("hepfeed::sparse_conv", mutates_args=(), device_types="cpu")
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
    """Convolve features.

    Args:
        features: ``(N, C_in)`` float32, float64, bfloat16, or on a CUDA device float16 (16 bits are summed in float32).
        weight: ``(C_out, taps, C_in / groups)`` of the same dtype.
        bias: ``(C_out,)`` of the same dtype, or None.
        in_maps: ``(P,) int32``; see :class:`hepfeed.tensors.KernelMap` for this and the next four.
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
        SpecError: The dtypes are not one of those that kernels have, or ``groups`` is below 1.
        ValueError: Shapes do not fit each other, or the pairs are not those of a map of these rows.
    """
    _check(groups, features=features, weight=weight, bias=bias)
    out = features.new_empty((out_rows, weight.shape[0]))
    pairs = _pairs(in_maps, out_maps, back_in, back_out, inverse)
    _convolution.forward(
        array(features),
        array(weight),
        None if bias is None else array(bias),
        *pairs,
        array(offsets),
        array(out),
        groups,
        torch.get_num_threads(),
    )
    return out


sparse_conv.register_kernel("cuda")(device.sparse_conv)


@sparse_conv.register_fake
def _(features: torch.Tensor, weight: torch.Tensor, bias: Any, *rest: Any) -> torch.Tensor:
    out_rows = rest[5]
    return features.new_empty((out_rows, weight.shape[0]))


@torch.library.custom_op("hepfeed::sparse_conv_input_grad", mutates_args=(), device_types="cpu")
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
    """Return the gradient ``(N, C_in)`` of the features of a convolution.

    Args:
        grad: ``(M, C_out)``: of its output.
        weight: As of :func:`sparse_conv`, like the others that are not named here.
        in_maps: See above.
        out_maps: See above.
        offsets: See above.
        back_in: See above.
        back_out: See above.
        in_rows: ``N``, rows of the features.
        groups: See above.
        inverse: See above.
    """
    _check(groups, grad=grad, weight=weight)
    out = grad.new_empty((in_rows, weight.shape[2] * groups))
    pairs = _pairs(in_maps, out_maps, back_in, back_out, not inverse)
    _convolution.input_grad(
        array(grad), array(weight), *pairs, array(offsets), array(out), groups, torch.get_num_threads()
    )
    return out


sparse_conv_input_grad.register_kernel("cuda")(device.sparse_conv_input_grad)


@sparse_conv_input_grad.register_fake
def _(grad: torch.Tensor, weight: torch.Tensor, *rest: Any) -> torch.Tensor:
    in_rows, groups = rest[5], rest[6]
    return grad.new_empty((in_rows, weight.shape[2] * groups))


@torch.library.custom_op("hepfeed::sparse_conv_weight_grad", mutates_args=(), device_types="cpu")
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
    """Return the gradient ``(C_out, taps, C_in / groups)`` of the weight of a convolution.

    Args:
        features: ``(N, C_in)``: its input.
        grad: ``(M, C_out)``: of its output.
        in_maps: As of :func:`sparse_conv`, like the ones that follow.
        out_maps: See above.
        offsets: See above.
        back_in: See above.
        back_out: See above.
        groups: See above.
        inverse: See above.
    """
    _check(groups, features=features, grad=grad)
    out = features.new_empty((grad.shape[1], offsets.shape[0] - 1, features.shape[1] // groups))
    pairs = _pairs(in_maps, out_maps, back_in, back_out, inverse)
    _convolution.weight_grad(
        array(features), array(grad), *pairs, array(offsets), array(out), groups, torch.get_num_threads()
    )
    return out


sparse_conv_weight_grad.register_kernel("cuda")(weight_gradient.sparse_conv_weight_grad)


@sparse_conv_weight_grad.register_fake
def _(
    features: torch.Tensor, grad: torch.Tensor, in_maps: torch.Tensor, out_maps: torch.Tensor, *rest: Any
) -> torch.Tensor:
    offsets, groups = rest[0], rest[3]
    return features.new_empty((grad.shape[1], offsets.shape[0] - 1, features.shape[1] // groups))


@torch.library.custom_op("hepfeed::column_sum", mutates_args=(), device_types="cpu")
def column_sum(values: torch.Tensor) -> torch.Tensor:
    """Return the sums ``(C,)`` of the rows of ``values (N, C)``, the gradient of a bias.

    They are added in fixed blocks, so that the bits do not depend on the number of threads.
    """
    check_dtypes(values=values)
    out = values.new_empty((values.shape[1],))
    _convolution.column_sum(array(values), array(out), torch.get_num_threads())
    return out


column_sum.register_kernel("cuda")(device_column_sum.column_sum)


@column_sum.register_fake
def _(values: torch.Tensor) -> torch.Tensor:
    return values.new_empty((values.shape[1],))


# In the formulas below `lists` are the five tensors of the pairs; and x, w, g, the features, the weight and the
# gradient of the output, are kept only where a gradient will ask for them.


def _conv_setup(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    features, weight, _, *lists, _, ctx.groups, ctx.inverse = inputs
    wants = ctx.needs_input_grad
    ctx.in_rows = features.shape[0]
    ctx.save_for_backward(features if wants[1] else None, weight if wants[0] else None, *lists)


def _conv_backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    x, w, *lists = ctx.saved_tensors
    wants = ctx.needs_input_grad
    groups, inverse = ctx.groups, ctx.inverse
    return (
        sparse_conv_input_grad(grad, w, *lists, ctx.in_rows, groups, inverse) if wants[0] else None,
        sparse_conv_weight_grad(x, grad, *lists, groups, inverse) if wants[1] else None,
        column_sum(grad) if wants[2] else None,
        *[None] * 8,
    )


def _input_grad_setup(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    grad, weight, *lists, _, ctx.groups, ctx.inverse = inputs
    wants = ctx.needs_input_grad
    ctx.out_rows = grad.shape[0]
    ctx.save_for_backward(grad if wants[1] else None, weight if wants[0] else None, *lists)


def _input_grad_backward(ctx: Any, x: torch.Tensor) -> tuple[Any, ...]:
    g, w, *lists = ctx.saved_tensors
    wants = ctx.needs_input_grad
    groups, inverse = ctx.groups, ctx.inverse
    return (
        sparse_conv(x, w, None, *lists, ctx.out_rows, groups, inverse) if wants[0] else None,
        sparse_conv_weight_grad(x, g, *lists, groups, inverse) if wants[1] else None,
        *[None] * 8,
    )


def _weight_grad_setup(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    features, grad, *lists, ctx.groups, ctx.inverse = inputs
    wants = ctx.needs_input_grad
    ctx.in_rows, ctx.out_rows = features.shape[0], grad.shape[0]
    ctx.save_for_backward(features if wants[1] else None, grad if wants[0] else None, *lists)


def _weight_grad_backward(ctx: Any, w: torch.Tensor) -> tuple[Any, ...]:
    x, g, *lists = ctx.saved_tensors
    wants = ctx.needs_input_grad
    groups, inverse = ctx.groups, ctx.inverse
    return (
        sparse_conv_input_grad(g, w, *lists, ctx.in_rows, groups, inverse) if wants[0] else None,
        sparse_conv(x, w, None, *lists, ctx.out_rows, groups, inverse) if wants[1] else None,
        *[None] * 7,
    )


def _column_sum_setup(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    ctx.rows = inputs[0].shape[0]


def _column_sum_backward(ctx: Any, bias: torch.Tensor) -> torch.Tensor:
    return bias.expand(ctx.rows, -1)


sparse_conv.register_autograd(_conv_backward, setup_context=_conv_setup)
sparse_conv_input_grad.register_autograd(_input_grad_backward, setup_context=_input_grad_setup)
sparse_conv_weight_grad.register_autograd(_weight_grad_backward, setup_context=_weight_grad_setup)
column_sum.register_autograd(_column_sum_backward, setup_context=_column_sum_setup)


class EagerConv(torch.autograd.Function):
    """:func:`sparse_conv` with its gradient, for training without a compiler.

    What torch puts around an operator with a gradient looks up the defaults of all its arguments at each call, which
    for eleven of them takes 50 us, a third of the call.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> torch.Tensor:
        """Convolve; arguments as of :func:`sparse_conv`."""
        made: torch.Tensor = sparse_conv(*inputs)
        _conv_setup(ctx, inputs, made)
        return made

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
        """Return the gradients of features, weight and bias."""
        return _conv_backward(ctx, *grads)


def _check(groups: int, **tensors: torch.Tensor | None) -> None:
    check_dtypes(**tensors)
    if groups < 1:
        raise SpecError(f"groups must be 1 or more, not {groups}")


def _pairs(
    in_maps: torch.Tensor, out_maps: torch.Tensor, back_in: torch.Tensor, back_out: torch.Tensor, swapped: bool
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    if not swapped:
        return array(in_maps), array(out_maps)
    if len(back_in) or len(back_out):
        return array(back_in), array(back_out)
    return array(out_maps), array(in_maps)  # input and output rows rise together, so these are sorted as well
