"""Batch normalisation of rows; see :mod:`hepfeed.sparse.batch_norm`, which these are the CUDA functions of.

Nothing waits for the device.  Statistics and gradients take two kernels, writing takes one: three launches each way.
"""

from __future__ import annotations

import torch

from hepfeed.device import native
from hepfeed.device.checks import check_dtypes, check_same_device
from hepfeed.device.floats import dtype_name, sum_dtype
from hepfeed.errors import SpecError

__all__ = ["batch_norm", "batch_norm_grad"]


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
    """Normalise channels by the statistics of the batch, or by given ones."""
    check_dtypes(features=features)
    given = {"weight": weight, "bias": bias, "running_mean": running_mean, "running_var": running_var}
    check_same_device(features=features, **given)
    features = features.contiguous()
    rows, channels = features.shape
    weight, bias, running_mean, running_var = (_of_channels(features, *item) for item in given.items())
    out = torch.empty_like(features)
    kind = sum_dtype(features.dtype)
    mean, inverse, variance = (features.new_empty((channels,), dtype=kind) for _ in range(3))
    kernels, stream, name = native.kernels(), native.stream(features), dtype_name(features.dtype)
    made = (native.address(mean), native.address(inverse), native.address(variance))
    with native.on_device(features):
        if training and rows > 1:
            work = _work(features)
            kernels.batch_statistics(
                name, native.address(features), rows, channels, eps, *made, native.address(work), stream
            )
        elif running_mean is not None and running_var is not None:
            running = (native.address(running_mean), native.address(running_var))
            kernels.given_statistics(name, *running, channels, eps, *made, stream)
        elif rows == 0:
            mean.zero_()
            inverse.fill_(1)
            variance.fill_(1)
        else:
            raise SpecError(
                f"batch norm without running statistics needs two sites or more in training, not {rows} with"
                f" training={training}"
            )
        kernels.batch_norm(
            name,
            native.address(features),
            rows,
            channels,
            native.address(mean),
            native.address(inverse),
            native.address(weight),
            native.address(bias),
            relu,
            native.address(out),
            stream,
        )
    return out, mean, inverse, variance


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
    """Return the gradients of features, weight and bias of :func:`batch_norm`."""
    check_dtypes(grad=grad, features=features)
    given = {"weight": weight, "bias": bias, "mean": mean, "inverse": inverse}
    check_same_device(grad=grad, features=features, **given)
    if grad.shape != features.shape:
        raise ValueError(f"grad must be {tuple(features.shape)}, not {tuple(grad.shape)}")
    grad, features = grad.contiguous(), features.contiguous()
    rows, channels = features.shape
    factors, shifts, means, scales = (_of_channels(features, *item) for item in given.items())
    out = torch.empty_like(features)
    kind = sum_dtype(features.dtype)
    of_weight, of_bias, slopes = (
        out.new_empty(shape, dtype=kind) for shape in ((channels,), (channels,), (2, channels))
    )
    with native.on_device(features):
        work = _work(features)
        native.kernels().batch_norm_grad(
            dtype_name(features.dtype),
            native.address(grad),
            native.address(features),
            rows,
            channels,
            native.address(means),
            native.address(scales),
            native.address(factors),
            native.address(shifts),
            relu,
            training and rows > 1,
            native.address(out),
            native.address(of_weight),
            native.address(of_bias),
            native.address(slopes),
            native.address(work),
            native.stream(features),
        )
    return out, of_weight, of_bias


def _of_channels(features: torch.Tensor, name: str, given: torch.Tensor | None) -> torch.Tensor | None:
    """Return one number for each channel, in the dtype in which the kernels compute."""
    if given is None:
        return None
    if given.shape != features.shape[1:]:
        raise ValueError(
            f"{name} must have a number for each of {features.shape[1]} channels, not {tuple(given.shape)}"
        )
    return given.detach().to(sum_dtype(features.dtype)).contiguous()


def _work(features: torch.Tensor) -> torch.Tensor:
    count = native.kernels().batch_norm_bytes(dtype_name(features.dtype), *features.shape)
    return features.new_empty((count,), dtype=torch.uint8)
