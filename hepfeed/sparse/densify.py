"""Operators between features on sites and dense images, each the gradient of the other.

Both copy: values are not summed, since no two rows are on one site, so results do not depend on the number of threads.
On a CUDA device sites are not checked again, and one outside of the images is left out: see
:mod:`hepfeed.device.densify`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from hepfeed.device import densify as device

__all__ = ["active_sites", "densify", "take_sites"]


@torch.library.custom_op("hepfeed::densify", mutates_args=(), device_types="cpu")
def densify(
    features: torch.Tensor, indices: torch.Tensor, shape: Sequence[int], batch: int, channels_first: bool
) -> torch.Tensor:
    """Return dense images, 0 where there is no site.

    Args:
        features: ``(N, C)``.
        indices: ``(N, 1 + D) int32``: event and coordinates, no two equal.
        shape: Of the images, ``D`` numbers.
        batch: Events.
        channels_first: Where the axis of channels goes.

    Returns:
        ``(batch, C, *shape)``, or ``(batch, *shape, C)``.

    Raises:
        ValueError: There are more or fewer features than sites, or a coordinate is below 0.
        IndexError: A site is beyond the images.
    """
    if features.shape[0] != indices.shape[0]:
        raise ValueError(f"features must have one row for each of {indices.shape[0]} sites, not {features.shape[0]}")
    dense = features.new_zeros(_dense_shape(features, shape, batch, channels_first))
    _channels_last(dense, channels_first)[_places(indices)] = features
    return dense


@densify.register_fake
def _(
    features: torch.Tensor, indices: torch.Tensor, shape: Sequence[int], batch: int, channels_first: bool
) -> torch.Tensor:
    return features.new_empty(_dense_shape(features, shape, batch, channels_first))


@torch.library.custom_op("hepfeed::take_sites", mutates_args=(), device_types="cpu")
def take_sites(dense: torch.Tensor, indices: torch.Tensor, channels_first: bool) -> torch.Tensor:
    """Return the features ``(N, C)`` of dense images at sites; arguments and errors as of :func:`densify`."""
    return _channels_last(dense, channels_first)[_places(indices)]


@take_sites.register_fake
def _(dense: torch.Tensor, indices: torch.Tensor, channels_first: bool) -> torch.Tensor:
    return dense.new_empty((indices.shape[0], dense.shape[1 if channels_first else -1]))


@torch.library.custom_op("hepfeed::active_sites", mutates_args=(), device_types="cpu")
def active_sites(dense: torch.Tensor, channels_first: bool) -> torch.Tensor:
    """Return the sites ``(N, 1 + D) int32``, sorted, where some channel of dense images is not 0."""
    return (dense != 0).any(1 if channels_first else -1).nonzero().int().contiguous()


@active_sites.register_fake
def _(dense: torch.Tensor, channels_first: bool) -> torch.Tensor:
    sites = torch.library.get_ctx().new_dynamic_size()
    return dense.new_empty((sites, dense.ndim - 1), dtype=torch.int32)


def _keep_sites(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    _, indices, _, _, ctx.channels_first = inputs
    ctx.save_for_backward(indices)


def _densify_backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    (indices,) = ctx.saved_tensors
    return take_sites(grad, indices, ctx.channels_first), None, None, None, None


densify.register_kernel("cuda", device.densify)
take_sites.register_kernel("cuda", device.take_sites)
active_sites.register_kernel("cuda", device.active_sites)
densify.register_autograd(_densify_backward, setup_context=_keep_sites)


def _keep_images(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    dense, indices, ctx.channels_first = inputs
    ctx.save_for_backward(indices)
    ctx.batch = dense.shape[0]
    ctx.shape = tuple(dense.shape[2:] if ctx.channels_first else dense.shape[1:-1])


def _take_sites_backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    (indices,) = ctx.saved_tensors
    return densify(grad, indices, ctx.shape, ctx.batch, ctx.channels_first), None, None


take_sites.register_autograd(_take_sites_backward, setup_context=_keep_images)


def _dense_shape(features: torch.Tensor, shape: Sequence[int], batch: int, channels_first: bool) -> tuple[int, ...]:
    channels = features.shape[1]
    return (batch, channels, *shape) if channels_first else (batch, *shape, channels)


def _channels_last(dense: torch.Tensor, channels_first: bool) -> torch.Tensor:
    return dense.movedim(1, -1) if channels_first else dense


def _places(indices: torch.Tensor) -> tuple[torch.Tensor, ...]:
    if indices.numel() and (least := int(indices.min())) < 0:  # which torch counts from the end
        raise ValueError(f"indices must be 0 or more, and there is {least}")
    return tuple(indices.long().unbind(1))
