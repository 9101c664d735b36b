"""Sparse convolution over the pairs of a kernel map in plain NumPy, in float64: the twins of its kernels.

Weights are ``(C_out, K, C_in / groups)``.  The pairs of tap k are ``[offsets[k]:offsets[k + 1]]`` of ``in_maps`` and
``out_maps``, which name rows.  Channels of one group see those of the same group alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["column_sum", "forward", "input_grad", "weight_grad"]

Rows = NDArray[np.integer[Any]]
Wide = NDArray[np.float64]


def forward(
    features: NDArray[Any],
    weight: NDArray[Any],
    bias: NDArray[Any] | None,
    in_maps: Rows,
    out_maps: Rows,
    offsets: Rows,
    out_rows: int,
    groups: int = 1,
) -> Wide:
    """Return ``(out_rows, C_out)``: ``bias`` plus the sum over taps k and pairs (i, o) of ``features[i] W[k]``.

    Args:
        features: ``(N, C_in)``.
        weight: ``(C_out, K, C_in / groups)``.
        bias: ``(C_out,)`` or None.
        in_maps: ``(P,)`` rows of the features.
        out_maps: ``(P,)`` rows of the output.
        offsets: ``(K + 1,)``.
        out_rows: Rows of the output; one without a pair is the bias.
        groups: Of channels.
    """
    x, w = _grouped(features, groups), _grouped_weight(weight, groups)
    out = np.zeros((out_rows, groups, w.shape[1]))
    for tap in range(weight.shape[1]):
        here = slice(offsets[tap], offsets[tap + 1])
        np.add.at(out, out_maps[here], np.einsum("pgi,goi->pgo", x[in_maps[here]], w[:, :, tap]))
    return out.reshape(out_rows, weight.shape[0]) + (0.0 if bias is None else bias.astype(np.float64))


def input_grad(
    grad: NDArray[Any],
    weight: NDArray[Any],
    in_maps: Rows,
    out_maps: Rows,
    offsets: Rows,
    in_rows: int,
    groups: int = 1,
) -> Wide:
    """Return ``(in_rows, C_in)``: the sum over taps k and pairs (i, o) of ``grad[o] W[k]^T``.

    Args:
        grad: ``(M, C_out)``.
        weight: ``(C_out, K, C_in / groups)``.
        in_maps: ``(P,)`` rows of the result.
        out_maps: ``(P,)`` rows of ``grad``.
        offsets: ``(K + 1,)``.
        in_rows: Rows of the result.
        groups: Of channels.
    """
    g, w = _grouped(grad, groups), _grouped_weight(weight, groups)
    out = np.zeros((in_rows, groups, w.shape[3]))
    for tap in range(weight.shape[1]):
        here = slice(offsets[tap], offsets[tap + 1])
        np.add.at(out, in_maps[here], np.einsum("pgo,goi->pgi", g[out_maps[here]], w[:, :, tap]))
    return out.reshape(in_rows, groups * weight.shape[2])


def weight_grad(
    features: NDArray[Any],
    grad: NDArray[Any],
    in_maps: Rows,
    out_maps: Rows,
    offsets: Rows,
    groups: int = 1,
) -> Wide:
    """Return ``(C_out, K, C_in / groups)``: for tap k the sum over pairs (i, o) of ``grad[o]^T features[i]``.

    Args:
        features: ``(N, C_in)``.
        grad: ``(M, C_out)``.
        in_maps: ``(P,)`` rows of the features.
        out_maps: ``(P,)`` rows of ``grad``.
        offsets: ``(K + 1,)``.
        groups: Of channels.
    """
    x, g = _grouped(features, groups), _grouped(grad, groups)
    taps = len(offsets) - 1
    out = np.zeros((groups, g.shape[2], taps, x.shape[2]))
    for tap in range(taps):
        here = slice(offsets[tap], offsets[tap + 1])
        out[:, :, tap] = np.einsum("pgo,pgi->goi", g[out_maps[here]], x[in_maps[here]])
    return out.reshape(grad.shape[1], taps, x.shape[2])


def column_sum(values: NDArray[Any]) -> Wide:
    """Return ``(C,)``: the sums over the rows of ``values`` ``(N, C)``."""
    sums: Wide = values.astype(np.float64).sum(axis=0)
    return sums


def _grouped(values: NDArray[Any], groups: int) -> Wide:
    """Return ``(N, groups, channels of one)``."""
    return values.astype(np.float64).reshape(len(values), groups, values.shape[1] // groups)


def _grouped_weight(weight: NDArray[Any], groups: int) -> Wide:
    """Return ``(groups, C_out / groups, K, C_in / groups)``."""
    return weight.astype(np.float64).reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
