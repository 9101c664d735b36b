"""The sparse convolution and its gradients by torch's own products: gather, multiply, scatter, tap by tap.

The simple way, against which the kernels are chosen.  Rows are copied, so that it moves ``3 * (C_in + C_out)`` numbers
a pair where the kernels move a third of that, but multiplies by ``torch.mm``, which pays where channels are many.
Sums are float32 for numbers of 16 bits, and rounded once.  Within a tap no row of a sum occurs twice, so results are
the same bits each time.

The rows of pairs are used as they are: whoever calls has checked them.  The numbers of pairs are needed on the host,
which waits for them once a map.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch

from hepfeed.device.floats import sum_dtype
from hepfeed.device.keeper import Keeper

__all__ = ["forward", "input_grad", "weight_grad"]


def forward(
    features: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    in_maps: torch.Tensor,
    out_maps: torch.Tensor,
    offsets: torch.Tensor,
    out_rows: int,
    groups: int,
) -> torch.Tensor:
    """Return ``(out_rows, C_out)``: ``bias`` plus the sum over taps k and pairs (i, o) of ``W[k] features[i]``.

    Args:
        features: ``(N, C_in)``.
        weight: ``(C_out, taps, C_in / groups)``.
        bias: ``(C_out,)``, or None.
        in_maps: ``(P,) int32`` rows of the features.
        out_maps: ``(P,) int32`` rows of the output, none twice in a tap.
        offsets: ``(taps + 1,) int64``.
        out_rows: ``M``.
        groups: Of channels.
    """
    sums = features.new_zeros((out_rows, weight.shape[0]), dtype=sum_dtype(features.dtype))
    if bias is not None:
        sums += bias
    for tap, pairs in _taps(offsets):
        matrix = _of_groups(weight[:, tap], groups).transpose(1, 2)
        made = _product(_rows_of(features, in_maps[pairs], groups), matrix)
        sums.index_add_(0, out_maps[pairs], _joined(made))
    return sums.to(features.dtype)


def input_grad(
    grad: torch.Tensor,
    weight: torch.Tensor,
    in_maps: torch.Tensor,
    out_maps: torch.Tensor,
    offsets: torch.Tensor,
    in_rows: int,
    groups: int,
) -> torch.Tensor:
    """Return ``(in_rows, C_in)``: the sum over taps k and pairs (i, o) of ``W[k]^T grad[o]``.

    Args:
        grad: ``(M, C_out)``.
        weight: ``(C_out, taps, C_in / groups)``.
        in_maps: ``(P,) int32`` rows of the result, none twice in a tap.
        out_maps: ``(P,) int32`` rows of ``grad``.
        offsets: ``(taps + 1,) int64``.
        in_rows: ``N``.
        groups: Of channels.
    """
    sums = grad.new_zeros((in_rows, weight.shape[2] * groups), dtype=sum_dtype(grad.dtype))
    for tap, pairs in _taps(offsets):
        made = _product(_rows_of(grad, out_maps[pairs], groups), _of_groups(weight[:, tap], groups))
        sums.index_add_(0, in_maps[pairs], _joined(made))
    return sums.to(grad.dtype)


def weight_grad(
    features: torch.Tensor,
    grad: torch.Tensor,
    in_maps: torch.Tensor,
    out_maps: torch.Tensor,
    offsets: torch.Tensor,
    groups: int,
) -> torch.Tensor:
    """Return ``(C_out, taps, C_in / groups)``: for tap k the sum over pairs (i, o) of ``grad[o]^T features[i]``.

    Args:
        features: ``(N, C_in)``.
        grad: ``(M, C_out)``.
        in_maps: ``(P,) int32`` rows of the features.
        out_maps: ``(P,) int32`` rows of ``grad``.
        offsets: ``(taps + 1,) int64``.
        groups: Of channels.
    """
    made = features.new_zeros((grad.shape[1], offsets.shape[0] - 1, features.shape[1] // groups))
    for tap, pairs in _taps(offsets):
        left = _rows_of(grad, out_maps[pairs], groups).transpose(1, 2)
        made[:, tap] = _product(left, _rows_of(features, in_maps[pairs], groups)).flatten(0, 1)
    return made


_host_offsets: Keeper[list[int]] = Keeper(lambda offsets: offsets.tolist(), lambda _: ())


def _taps(offsets: torch.Tensor) -> Iterator[tuple[int, slice]]:
    """Yield each tap that has pairs, and which."""
    on_host = _host_offsets.of((offsets,))
    for tap, (first, last) in enumerate(itertools.pairwise(on_host)):
        if first < last:
            yield tap, slice(first, last)


def _rows_of(values: torch.Tensor, rows: torch.Tensor, groups: int) -> torch.Tensor:
    """``(groups, rows, channels of one)``."""
    return values.index_select(0, rows).view(len(rows), groups, -1).transpose(0, 1)


def _of_groups(matrix: torch.Tensor, groups: int) -> torch.Tensor:
    """``(groups, C_out / groups, C_in / groups)``."""
    return matrix.view(groups, -1, matrix.shape[1])


def _joined(made: torch.Tensor) -> torch.Tensor:
    """``(rows, channels of all groups)``."""
    return made.transpose(0, 1).flatten(1)


def _product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The product of each group, which is not rounded to 16 bits."""
    if left.dtype in (torch.float32, torch.float64):
        return _multiply(left, right)
    if left.device.type == "cuda" and _HAS_OUT_DTYPE:
        return _multiply(left, right, torch.float32)
    # Exact, also where torch multiplies in TF32, which has all the digits that numbers of 16 bits have.
    return _multiply(left.float(), right.float())


def _multiply(left: torch.Tensor, right: torch.Tensor, *out_dtype: torch.dtype) -> torch.Tensor:
    if len(left) == 1:  # cheaper to start
        return torch.mm(left[0], right[0], *out_dtype)[None]
    return torch.bmm(left, right, *out_dtype)


_HAS_OUT_DTYPE = hasattr(torch.ops.aten.mm, "dtype")
"""Whether products of 16-bit numbers can be had in float32 (torch 2.8)."""
