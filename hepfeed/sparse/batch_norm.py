"""Operators of batch normalisation (Ioffe and Szegedy, arXiv:1502.03167) of rows, with ReLU in the same pass.

``out = (x - mean) * inverse * weight + bias`` for each channel, or the ReLU of that.  Statistics and gradients are
summed in fixed blocks of rows, so they are the same bits for any number of threads, and each time on a CUDA device.
Features are ``(N, C)`` float32, float64 or bfloat16, on a CUDA device float16 too; all else is float32 for 16 bits.
"""

from __future__ import annotations

from typing import Any

import torch

from hepfeed import _rows
from hepfeed.device import batch_norm as device
from hepfeed.device.floats import sum_dtype
from hepfeed.errors import SpecError
from hepfeed.sparse.arrays import array, check_dtypes

__all__ = ["EagerBatchNorm", "batch_norm", "batch_norm_grad"]


@torch.library.custom_op("hepfeed::batch_norm", mutates_args=(), device_types="cpu")
def batch_norm(
    features: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    training: bool,
    eps: float,
    relu: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Normalise channels by the statistics of the batch, or by given ones.

    Args:
        features: ``(N, C)``.
        weight: ``(C,)``, or None for 1.
        bias: ``(C,)``, or None for 0.
        running_mean: ``(C,)``: what is used unless ``training``, and where there are fewer than two rows.
        running_var: ``(C,)``: the same for the variance.
        training: Whether statistics are those of the batch.
        eps: Added to the variance.
        relu: Whether ReLU follows.

    Returns:
        ``(N, C)`` features; and of each channel the mean, ``1 / sqrt(variance + eps)`` and the unbiased variance, as
        used.  Only the features are differentiated.

    Raises:
        SpecError: Without running statistics there is one row, or it is not training; or the dtype is none that kernels
            have.
        ValueError: Numbers of channels do not fit.
    """
    check_dtypes(features=features)
    rows, channels = features.shape
    kind, threads = sum_dtype(features.dtype), torch.get_num_threads()
    mean = torch.empty(channels, dtype=kind)
    if training and rows > 1:
        squares = torch.empty_like(mean)
        _rows.column_moments(array(features), array(mean), array(squares), threads)
        inverse, variance = torch.rsqrt(squares / rows + eps), squares / (rows - 1)
    elif running_mean is not None and running_var is not None:
        mean.copy_(running_mean)
        variance = running_var.to(kind, copy=True)
        inverse = torch.rsqrt(variance + eps)
    elif rows == 0:
        mean.zero_()
        variance, inverse = torch.ones_like(mean), torch.ones_like(mean)
    else:
        raise SpecError(
            f"batch norm without running statistics needs two sites or more in training, not {rows} with"
            f" training={training}"
        )
    out = torch.empty_like(features, memory_format=torch.contiguous_format)
    how = array(mean), array(_scale(inverse, weight)), array(_shift(inverse, bias)), relu
    _rows.normalise(array(features), *how, array(out), threads)
    return out, mean, inverse, variance


@batch_norm.register_fake
def _(features: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    kind = sum_dtype(features.dtype)
    first, second, third = (features.new_empty((features.shape[1],), dtype=kind) for _ in range(3))
    return torch.empty_like(features, memory_format=torch.contiguous_format), first, second, third


@torch.library.custom_op("hepfeed::batch_norm_grad", mutates_args=(), device_types="cpu")
def batch_norm_grad(
    grad: torch.Tensor,
    features: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    mean: torch.Tensor,
    inverse: torch.Tensor,
    training: bool,
    eps: float,
    relu: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the gradients of features, weight and bias of :func:`batch_norm`.

    Args:
        grad: ``(N, C)``: of its first output.
        features: As there, like the others that are not named here.
        weight: See there.
        bias: See there.
        mean: ``(C,)``: what it returned.
        inverse: ``(C,)``: what it returned.
        training: See there.
        eps: See there.
        relu: See there.
    """
    check_dtypes(grad=grad, features=features)
    rows, threads = features.shape[0], torch.get_num_threads()
    sums, products = torch.empty_like(mean), torch.empty_like(mean)
    scale = _scale(inverse, weight)
    how = array(mean), array(scale), array(_shift(inverse, bias)), relu
    _rows.gradient_sums(array(grad), array(features), *how, array(sums), array(products), threads)
    weight_grad = products * inverse
    if _of_batch(training, rows):
        offset, slope = scale * sums / rows, scale * inverse * weight_grad / rows
    else:
        offset, slope = torch.zeros_like(mean), torch.zeros_like(mean)
    out = torch.empty_like(features, memory_format=torch.contiguous_format)
    _rows.normalise_back(array(grad), array(features), *how, array(offset), array(slope), array(out), threads)
    return out, weight_grad, sums


@batch_norm_grad.register_fake
def _(
    grad: torch.Tensor, features: torch.Tensor, weight: Any, bias: Any, mean: torch.Tensor, *rest: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    out = torch.empty_like(features, memory_format=torch.contiguous_format)
    return out, torch.empty_like(mean), torch.empty_like(mean)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    features, weight, bias, _, _, ctx.training, ctx.eps, ctx.relu = inputs
    _, mean, inverse, variance = output
    ctx.save_for_backward(features, weight, bias, mean, inverse)
    ctx.mark_non_differentiable(mean, inverse, variance)


def _backward(ctx: Any, grad: torch.Tensor, *_: Any) -> tuple[Any, ...]:
    features, weight, bias, mean, inverse = ctx.saved_tensors
    of_features, of_weight, of_bias = batch_norm_grad(
        grad, features, weight, bias, mean, inverse, ctx.training, ctx.eps, ctx.relu
    )
    wants = ctx.needs_input_grad
    return (
        of_features if wants[0] else None,
        of_weight.to(weight.dtype) if wants[1] else None,
        of_bias.to(bias.dtype) if wants[2] else None,
        *[None] * 5,
    )


def _grad_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    *tensors, ctx.training, ctx.eps, ctx.relu = inputs
    ctx.save_for_backward(*tensors)


def _grad_backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
    grad, features, weight, bias, mean, inverse = ctx.saved_tensors
    of_batch = _of_batch(ctx.training, features.shape[0])

    def gradients(
        grad: torch.Tensor, features: torch.Tensor, factor: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the operator computes, in operations of torch."""
        kind = sum_dtype(features.dtype)
        g, x = grad.to(kind), features.to(kind)
        centre, scale = mean, inverse
        if of_batch:
            centre = x.mean(0)
            scale = torch.rsqrt((x - centre).square().mean(0) + ctx.eps)
        normal = (x - centre) * scale
        if ctx.relu:
            g = torch.where(normal * factor + (0 if bias is None else bias) > 0, g, 0)
        of_weight, of_bias = (g * normal).sum(0), g.sum(0)
        if of_batch:
            g = g - (of_bias + normal * of_weight) / len(x)
        return (g * (scale * factor)).to(features.dtype), of_weight, of_bias

    factor = torch.ones_like(mean) if weight is None else weight
    pulled = torch.func.vjp(gradients, grad, features, factor)[1]
    of_grad, of_features, of_factor = pulled(grads)
    return of_grad, of_features, None if weight is None else of_factor, *[None] * 6


batch_norm.register_kernel("cuda", device.batch_norm)
batch_norm_grad.register_kernel("cuda", device.batch_norm_grad)
batch_norm.register_autograd(_backward, setup_context=_setup)
batch_norm_grad.register_autograd(_grad_backward, setup_context=_grad_setup)


class EagerBatchNorm(torch.autograd.Function):
    """:func:`batch_norm` with its gradient, for training without a compiler.

    What torch puts around an operator with a gradient looks up the defaults of all its arguments at each call.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Normalise; arguments as of :func:`batch_norm`."""
        made: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor] = batch_norm(*inputs)
        _setup(ctx, inputs, made)
        return made

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
        """Return the gradients of features, weight and bias."""
        return _backward(ctx, *grads)


def _of_batch(training: bool, rows: int) -> bool:
    """Whether statistics are those of the batch, and so depend on the features."""
    return training and rows > 1


def _scale(inverse: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    return inverse if weight is None else inverse * weight.detach().to(inverse.dtype)


def _shift(like: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return torch.zeros_like(like) if bias is None else bias.detach().to(like.dtype)
