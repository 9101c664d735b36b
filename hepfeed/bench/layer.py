"""A layer of a network on real sites: what is computed, exactly, and what it takes at least."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from numpy.typing import NDArray

from hepfeed.bench.cards import Work
from hepfeed.kernel_map import build_kernel_map
from hepfeed.reference import kernel_map as reference
from hepfeed.tensors import KernelMap

__all__ = ["STRIDED", "SUBMANIFOLD", "Layer", "convolve_by_taps", "ground_truth", "with_gradients"]

SUBMANIFOLD: dict[str, Any] = {"kernel_size": 3, "submanifold": True}
STRIDED: dict[str, Any] = {"kernel_size": 2, "stride": 2}


@dataclass(frozen=True)
class Layer:
    """A convolution without a bias, with what goes through it and back.

    Attributes:
        indices: ``(N, 4) int32``: active sites, on the host.
        side: Cells of an axis.
        events: Number of events.
        options: Of the kernel map: :data:`SUBMANIFOLD` or :data:`STRIDED`.
        kernel_map: Its pairs, NumPy arrays.
        features: ``(N, C_in)``, on the device.
        weight: ``(C_out, taps, C_in)``.
        grad: ``(M, C_out)``: gradient of the output.
    """

    indices: torch.Tensor
    side: int
    events: int
    options: dict[str, Any]
    kernel_map: KernelMap
    features: torch.Tensor
    weight: torch.Tensor
    grad: torch.Tensor

    @classmethod
    def make(
        cls,
        indices: torch.Tensor,
        side: int,
        events: int,
        options: dict[str, Any],
        channels: tuple[int, int],
        dtype: torch.dtype,
        device: torch.device,
    ) -> Layer:
        """Draw normal numbers for all of it; the same on every device."""
        made = build_kernel_map(indices.numpy(), (side,) * 3, events, **options)
        random = torch.Generator().manual_seed(0)
        taps = math.prod(made.kernel_size)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=random).to(dtype).to(device)

        features, grad = normal(len(indices), channels[0]), normal(len(made.indices), channels[1])
        weight = normal(channels[1], taps, channels[0]) / math.sqrt(taps * channels[0])
        return cls(indices, side, events, options, made, features.requires_grad_(), weight.requires_grad_(), grad)

    @property
    def channels(self) -> tuple[int, int]:
        """Of input and output."""
        return self.weight.shape[2], self.weight.shape[0]

    def pairs(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return for each tap int64 rows of the input and of the output, where the features are."""
        device, ends = self.features.device, self.kernel_map.offsets.tolist()
        rows, targets = (
            torch.from_numpy(part).long().to(device) for part in (self.kernel_map.in_maps, self.kernel_map.out_maps)
        )
        return [(rows[first:last], targets[first:last]) for first, last in itertools.pairwise(ends)]

    def twin_map(self) -> tuple[NDArray[Any], ...]:
        """Build the kernel map by its plain twin: ``in_maps, out_maps, offsets, back_in, back_out, indices``."""
        made = self.kernel_map
        return reference.build_kernel_map(
            self.indices.numpy(),
            (self.side,) * 3,
            made.spatial_shape,
            self.events,
            made.kernel_size,
            made.stride,
            made.padding,
            made.dilation,
            made.submanifold,
            made.transposed,
        )

    @property
    def map_work(self) -> Work:
        """Of building the kernel map: sites are read, pairs and output sites are written."""
        outputs = 0 if self.kernel_map.submanifold else self.kernel_map.indices.nbytes
        pairs = self.kernel_map.in_maps.nbytes + self.kernel_map.out_maps.nbytes
        return Work(self.indices.nbytes + pairs + outputs)

    def work(self, products: int) -> Work:
        """Return what 1 (forward) or 3 products (with the gradients of input and weight) take.

        Each reads two of features, weight and gradient, writes the third, and reads the pairs.
        """
        tensors = sum(tensor.nbytes for tensor in (self.features, self.weight, self.grad))
        pairs = self.kernel_map.in_maps.nbytes + self.kernel_map.out_maps.nbytes
        return Work(
            products * (tensors + pairs), products * 2.0 * len(self.kernel_map.in_maps) * math.prod(self.channels)
        )


def convolve_by_taps(
    features: torch.Tensor, weight: torch.Tensor, pairs: Sequence[tuple[torch.Tensor, torch.Tensor]], out_rows: int
) -> torch.Tensor:
    """Convolve with torch's own functions: a gather, a product and a scatter for each tap.

    Args:
        features: ``(N, C_in)``.
        weight: ``(C_out, taps, C_in)``.
        pairs: For each tap int64 rows of the input and of the output.
        out_rows: Rows of the result.
    """
    out = features.new_zeros(out_rows, weight.shape[0])
    for tap, (rows, targets) in enumerate(pairs):
        out = out.index_add(0, targets, features.index_select(0, rows) @ weight[:, tap].t())
    return out


def with_gradients(forward: Callable[[], torch.Tensor], layer: Layer) -> tuple[torch.Tensor, ...]:
    """Return the output of a function of a layer's features and weight, and the gradients of both."""
    out = forward()
    return (out, *torch.autograd.grad(out, [layer.features, layer.weight], layer.grad))


def ground_truth(layer: Layer) -> tuple[torch.Tensor, ...]:
    """Return output and gradients in float64, on the host, by torch's own functions."""
    exact = replace(
        layer,
        features=layer.features.detach().cpu().double().requires_grad_(),
        weight=layer.weight.detach().cpu().double().requires_grad_(),
        grad=layer.grad.detach().cpu().double(),
    )
    pairs, rows = exact.pairs(), len(exact.grad)
    return with_gradients(lambda: convolve_by_taps(exact.features, exact.weight, pairs, rows), exact)
