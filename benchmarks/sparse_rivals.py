"""Other sparse convolutions on the CPU: spconv, and what one writes with torch alone."""

from __future__ import annotations

import itertools
import logging
from typing import Any

import torch

logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)  # spconv asks torch in a way that it deplores
try:
    import spconv.pytorch as spconv
    from spconv import __version__ as SPCONV_VERSION
    from spconv.core import ConvAlgo
    from spconv.pytorch import functional as spconv_functional
    from spconv.pytorch import ops as spconv_ops
except ImportError:
    spconv = None
    SPCONV_VERSION = ""

MODULE: Any = spconv.SparseModule if spconv else torch.nn.Module
"""What a module derives from that spconv's containers give a sparse tensor."""

Tensors = tuple[torch.Tensor, ...]
Pairs = list[tuple[torch.Tensor, torch.Tensor] | None]
"""For each tap rows of the input and of the output, or None where both are all rows, in their order."""


def repair_spconv_backward() -> None:
    """Let spconv's gradients be computed on the CPU.

    The code for the CPU is there (gather, ``torch.mm``, scatter), but asks for the stream of a CUDA device before it
    finds out that it needs none.  Nothing reads the number.
    """
    if not torch.cuda.is_available():
        spconv_ops.get_current_stream = lambda: 0


class SpconvPairs:
    """spconv's kernel map of a convolution.

    Attributes:
        indices: ``(M, 4) int32``: its output sites, in an order of its own where it is not submanifold.
        arguments: What its functions take behind features and weight.
        function: The one of this convolution.
    """

    def __init__(self, indices: torch.Tensor, side: int, events: int, kernel: int, stride: int) -> None:
        """Build it.

        Args:
            indices: ``(N, 4) int32``: event and coordinates.
            side: Cells of each axis.
            events: Number of events.
            kernel: Taps of each axis.
            stride: 1 for a submanifold convolution; others have no padding.
        """
        submanifold = stride == 1
        padding = kernel // 2 if submanifold else 0
        options = [[value] * 3 for value in (side, kernel, stride, padding, 1, 0)]
        self.indices, pairs, counts = spconv_ops.get_indice_pairs(
            indices, events, options[0], ConvAlgo.Native, *options[1:], subm=submanifold
        )
        self.arguments = (pairs, counts, len(self.indices), ConvAlgo.Native)
        self.function = spconv_functional.indice_subm_conv if submanifold else spconv_functional.indice_conv

    def convolve(self, features: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Return ``(M, C_out)``; ``weight`` is ``(C_out, *kernel, C_in)``."""
        out: torch.Tensor = self.function(features, weight, *self.arguments)
        return out

    def sorted_rows(self, side: int) -> torch.Tensor:
        """Return the numbers of its output rows in the order of events and coordinates."""
        places = torch.tensor([side**3, side**2, side, 1])
        return (self.indices.long() * places).sum(1).argsort()


def pairs_of(kernel_map: Any, in_rows: int, out_rows: int) -> Pairs:
    """Return the pairs of a :class:`hepfeed.tensors.KernelMap` as torch indexes rows."""
    ends = [int(end) for end in kernel_map.offsets]
    found: Pairs = []
    for first, last in itertools.pairwise(ends):
        rows = [torch.as_tensor(part[first:last]).long() for part in (kernel_map.in_maps, kernel_map.out_maps)]
        whole = last - first == in_rows == out_rows and all(torch.equal(r, torch.arange(in_rows)) for r in rows)
        found.append(None if whole else (rows[0], rows[1]))
    return found


class GatherMmScatter(torch.autograd.Function):
    """A sparse convolution of torch's own functions: for each tap a gather, a ``mm`` and a scatter.

    ``forward(features (N, C_in), weight (C_out, taps, C_in), pairs, rows of the output)``.
    """

    @staticmethod
    def forward(ctx: Any, features: torch.Tensor, weight: torch.Tensor, pairs: Pairs, out_rows: int) -> torch.Tensor:
        ctx.save_for_backward(features, weight)
        ctx.pairs = pairs
        out = features.new_zeros(out_rows, len(weight))
        for tap, rows in enumerate(pairs):
            if rows is None:
                out.addmm_(features, weight[:, tap].t())
            elif len(rows[0]):
                out.index_add_(0, rows[1], torch.mm(features.index_select(0, rows[0]), weight[:, tap].t()))
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:  # type: ignore[override]
        features, weight = ctx.saved_tensors
        in_grad, weight_grad = torch.zeros_like(features), torch.zeros_like(weight)
        for tap, rows in enumerate(ctx.pairs):
            if rows is None:
                in_grad.addmm_(grad, weight[:, tap])
                weight_grad[:, tap] = torch.mm(grad.t(), features)
            elif len(rows[0]):
                part = grad.index_select(0, rows[1])
                in_grad.index_add_(0, rows[0], torch.mm(part, weight[:, tap]))
                weight_grad[:, tap] = torch.mm(part.t(), features.index_select(0, rows[0]))
        return in_grad, weight_grad, None, None


def gather_mm_scatter(features: torch.Tensor, weight: torch.Tensor, pairs: Pairs, out_rows: int) -> torch.Tensor:
    """Return ``(out_rows, C_out)``; ``weight`` is ``(C_out, *kernel, C_in)``."""
    out: torch.Tensor = GatherMmScatter.apply(features, weight.flatten(1, -2), pairs, out_rows)
    return out


def error(got: Tensors, expected: Tensors) -> float:
    """Return the largest difference over the largest number expected, of the worst of some tensors; or NaN."""
    errors = [
        (one.detach().double().reshape(other.shape) - other).abs().max() / other.abs().max()
        for one, other in zip(got, expected, strict=True)
    ]
    return float(torch.stack(errors).max())
