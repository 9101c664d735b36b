"""The sparse convolution as functions of tensors."""

from __future__ import annotations

from collections.abc import Callable

import torch

from hepfeed.errors import SpecError
from hepfeed.sparse import convolution
from hepfeed.sparse.arrays import check_device, check_features
from hepfeed.sparse.sites import Link

__all__ = ["convolve"]


def convolve(
    features: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    link: Link,
    groups: int = 1,
    inverse: bool = False,
) -> torch.Tensor:
    """Convolve features along a link.

    Under ``torch.autocast`` for the device features, weight and bias are cast, float64 excepted, as by torch's
    convolutions.

    Args:
        features: ``(N, C_in)`` on the source of the link; on its target where ``inverse``.
        weight: ``(C_out, *kernel_size, C_in / groups)``.
        bias: ``(C_out,)``, or None.
        link: What is connected, e.g. of :meth:`hepfeed.sparse.sites.Sites.link`.
        groups: Into which channels are divided.
        inverse: Whether the link is walked backwards: outputs lie on its source.

    Returns:
        ``(M, C_out)``.

    Raises:
        SpecError: Dtypes, devices, rows or numbers of channels do not fit.
        ValueError: The weight or the bias has another shape, or the link has pairs of other sites.
    """
    pairs = link.kernel_map
    check_device(features=features, weight=weight, **({} if bias is None else {"bias": bias}), in_maps=pairs.in_maps)
    source, target = (link.target, link.source) if inverse else (link.source, link.target)
    check_features("features", features, source.num_sites)
    if weight.ndim < 3:
        raise SpecError(f"weight must be (C_out, *kernel_size, C_in / groups), not {tuple(weight.shape)}")
    if features.shape[1] != weight.shape[-1] * groups:
        raise SpecError(f"features must have {weight.shape[-1] * groups} channels, not {features.shape[1]}")
    kind = features.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        features, weight = _cast(features, dtype), _cast(weight, dtype)
        bias = None if bias is None else _cast(bias, dtype)
    trains = torch.is_grad_enabled() and not torch.compiler.is_compiling()
    operator: Callable[..., torch.Tensor] = convolution.EagerConv.apply if trains else convolution.sparse_conv
    made = operator(
        features,
        weight.flatten(1, -2),
        bias,
        pairs.in_maps,
        pairs.out_maps,
        pairs.offsets,
        pairs.back_in,
        pairs.back_out,
        target.num_sites,
        groups,
        inverse,
    )
    return made


def _cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.to(dtype)
