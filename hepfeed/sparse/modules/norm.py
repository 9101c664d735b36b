"""Normalisation of the features of sparse tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from hepfeed.device.floats import sum_dtype
from hepfeed.errors import SpecError
from hepfeed.sparse.arrays import check_device, check_dtypes, kind_of
from hepfeed.sparse.batch_norm import EagerBatchNorm, batch_norm
from hepfeed.sparse.modules.base import SparseModule, sparse_input
from hepfeed.sparse.pooling import event_lists
from hepfeed.sparse.rows import row_sum
from hepfeed.sparse.tensor import SparseTensor

__all__ = ["SparseBatchNorm", "SparseGroupNorm", "SparseInstanceNorm"]


class SparseBatchNorm(SparseModule, nn.BatchNorm1d):
    """Batch normalisation over all active sites of a batch, with ReLU in the same pass where that is asked for.

    It has the arguments, the ``state_dict`` and the formula of :class:`torch.nn.BatchNorm1d`, and takes features
    ``(N, C)`` too.  Unlike there, results are the same bits for any number of threads, and in training

    - a batch without a site is returned as it is, and leaves the running statistics as they are;
    - a batch of one site, which has no variance, is normalised by the running statistics, which stay as they are.
      Without them it is an error.

    Features of 16 bits are normalised in float32 and rounded once; the parameters may be float32 then.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        relu: bool = False,
    ) -> None:
        """Make the parameters.

        Args:
            num_features: Channels.
            eps: Added to the variance.
            momentum: Weight of a batch in the running statistics; None: they are the mean over all batches.
            affine: Whether there are a weight and a bias.
            track_running_stats: Whether running statistics are kept, which evaluation uses then.
            device: Of the parameters.
            dtype: Of the parameters.
            relu: Whether numbers below 0 become 0, as a ``ReLU`` behind this module would make them: one pass over the
                features less each way.
        """
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        self.relu = relu

    def extra_repr(self) -> str:
        """Say the arguments."""
        arguments: str = super().extra_repr()  # type: ignore[no-untyped-call]
        return arguments + (", relu=True" if self.relu else "")

    def forward(self, x: Any) -> Any:
        """Return a sparse tensor on the same sites, or features where those were given.

        Raises:
            SpecError: The number of channels is another, or there is one site in training without running statistics.
        """
        features = x.features if isinstance(x, SparseTensor) else x
        fits = isinstance(features, torch.Tensor) and features.ndim == 2 and features.shape[1] == self.num_features
        if not fits:
            raise SpecError(f"SparseBatchNorm takes features (N, {self.num_features}), not {kind_of(features)}")
        check_device(features=features, **({} if self.weight is None else {"weight": self.weight}))
        of_batch = self.training or self.running_mean is None
        running = self.running_mean, self.running_var
        trains = torch.is_grad_enabled() and not torch.compiler.is_compiling()
        operator: Callable[..., Any] = EagerBatchNorm.apply if trains else batch_norm
        out, mean, _, variance = operator(features, self.weight, self.bias, *running, of_batch, self.eps, self.relu)
        if self.training and self.track_running_stats:
            self._track(mean, variance)
        return x.replace_feature(out) if isinstance(x, SparseTensor) else out

    def _track(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            kind = self.running_mean.dtype
            share = 1 / self.num_batches_tracked.to(kind) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.to(kind), share)
            self.running_var.lerp_(variance.to(kind), share)


class SparseInstanceNorm(SparseModule, nn.InstanceNorm1d):
    """Normalises each channel of each event by its mean and variance over the sites of the event.

    Its ``state_dict`` is that of :class:`torch.nn.InstanceNorm1d`.  An event of one site becomes 0 (the bias); events
    without a site are left alone.
    """

    def __init__(
        self, num_features: int, eps: float = 1e-5, affine: bool = False, device: Any = None, dtype: Any = None
    ) -> None:
        """Make the parameters.

        Args:
            num_features: Channels.
            eps: Added to the variance.
            affine: Whether there are a weight and a bias.
            device: Of the parameters.
            dtype: Of the parameters.
        """
        nn.InstanceNorm1d.__init__(self, num_features, eps, affine=affine, device=device, dtype=dtype)

    def extra_repr(self) -> str:
        """Say the arguments."""
        return f"{self.num_features}, eps={self.eps}, affine={self.affine}"

    def forward(self, x: Any) -> Any:
        """Return a sparse tensor on the same sites.

        Raises:
            SpecError: It has another number of channels.
        """
        return _by_event(self, x, self.num_features, self.num_features)


class SparseGroupNorm(SparseModule, nn.GroupNorm):
    """Normalises each group of channels of each event by mean and variance over the group and the event's sites.

    The arguments and the ``state_dict`` are those of :class:`torch.nn.GroupNorm` (Wu and He, arXiv:1803.08494).  Events
    without a site are left alone.
    """

    def forward(self, x: Any) -> Any:
        """Return a sparse tensor on the same sites.

        Raises:
            SpecError: It has another number of channels.
        """
        return _by_event(self, x, self.num_channels, self.num_groups)


def _by_event(module: Any, given: SparseTensor, channels: int, groups: int) -> SparseTensor:
    """Normalise groups of channels of each event."""
    tensor = sparse_input(given, module)
    if tensor.channels != channels:
        raise SpecError(f"{type(module).__name__} takes {channels} channels, not {tensor.channels}")
    check_device(features=tensor.features)
    check_dtypes(features=tensor.features)
    lists = event_lists(tensor.sites)
    x = tensor.features.to(sum_dtype(tensor.dtype))
    numbers = lists.counts().clamp(min=1).unsqueeze(1).to(x.dtype) * (channels // groups)

    def mean(rows: torch.Tensor) -> torch.Tensor:
        """Of each group and event, for each of its channels: ``(B, C)``."""
        sums = row_sum(rows, lists).reshape(tensor.batch_size, groups, channels // groups).sum(2)
        means: torch.Tensor = sums / numbers
        return means.repeat_interleave(channels // groups, 1)

    centred = x - row_sum(mean(x), lists.swapped)
    scale = torch.rsqrt(mean(centred.square()) + module.eps)
    if module.weight is not None:
        scale = scale * module.weight
    out = centred * row_sum(scale.to(x.dtype), lists.swapped)
    if module.bias is not None:
        out = out + module.bias
    return tensor.replace_feature(out.to(tensor.dtype))
