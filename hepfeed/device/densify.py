"""Between features on sites and dense images; see :mod:`hepfeed.sparse.densify`, which these are the CUDA functions of.

Sites were checked when they became those of a tensor, so nothing waits for the device here: a site outside of the
images is left out, and what is taken there is 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hepfeed.device import native
from hepfeed.device.checks import check_same_device

__all__ = ["active_sites", "densify", "take_sites"]


def densify(
    features: torch.Tensor, indices: torch.Tensor, shape: Sequence[int], batch: int, channels_first: bool
) -> torch.Tensor:
    """Return dense images, 0 where there is no site: cleared, and one row of features written for each site.

    Raises:
        ValueError: There are more or fewer features than sites, or sites of other axes.
    """
    check_same_device(features=features, indices=indices)
    _check_sites(indices, len(shape))
    if features.shape[0] != indices.shape[0]:
        raise ValueError(f"features must have one row for each of {indices.shape[0]} sites, not {features.shape[0]}")
    features, indices = features.contiguous(), indices.contiguous()
    channels = features.shape[1]
    dense = features.new_zeros((batch, channels, *shape) if channels_first else (batch, *shape, channels))
    with native.on_device(features):
        native.kernels().densify(
            native.address(features),
            native.address(indices),
            len(indices),
            list(shape),
            batch,
            channels,
            features.element_size(),
            channels_first,
            native.address(dense),
            native.stream(features),
        )
    return dense


def take_sites(dense: torch.Tensor, indices: torch.Tensor, channels_first: bool) -> torch.Tensor:
    """Return the features ``(N, C)`` of dense images at sites.

    Raises:
        ValueError: The sites have other axes.
    """
    check_same_device(dense=dense, indices=indices)
    shape = dense.shape[2:] if channels_first else dense.shape[1:-1]
    _check_sites(indices, len(shape))
    dense, indices = dense.contiguous(), indices.contiguous()
    channels = dense.shape[1 if channels_first else -1]
    features = dense.new_empty((indices.shape[0], channels))
    with native.on_device(dense):
        native.kernels().take_sites(
            native.address(dense),
            native.address(indices),
            len(indices),
            list(shape),
            dense.shape[0],
            channels,
            dense.element_size(),
            channels_first,
            native.address(features),
            native.stream(dense),
        )
    return features


def active_sites(dense: torch.Tensor, channels_first: bool) -> torch.Tensor:
    """Return the sites ``(N, 1 + D) int32``, sorted, where some channel is not 0; waits for their number."""
    return (dense != 0).any(1 if channels_first else -1).nonzero().int().contiguous()


def _check_sites(indices: torch.Tensor, axes: int) -> None:
    if indices.ndim != 2 or indices.shape[1] != 1 + axes or indices.dtype != torch.int32:
        raise ValueError(f"indices must be (N, {1 + axes}) int32, not {tuple(indices.shape)} {indices.dtype}")
