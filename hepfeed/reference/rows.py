"""Sums, maxima and normalisation of rows in plain NumPy, list by list: what the kernels of ``hepfeed._rows`` compute.

List o has the rows ``columns[starts[o]:starts[o + 1]]``.  Features are ``(N, C)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "batch_norm",
    "batch_norm_grad",
    "list_rows",
    "row_dot",
    "row_max",
    "row_pick",
    "row_put",
    "row_sum",
]

Ints = NDArray[Any]
Floats = NDArray[np.float64]


def list_rows(target: Ints, source: Ints, targets: int) -> tuple[Ints, Ints, Ints]:
    """Return ``(starts, columns, places)``: the sources of each target in the order of the pairs, and which pairs."""
    places = np.argsort(target, kind="stable")
    starts = np.searchsorted(target[places], np.arange(targets + 1))
    return starts.astype(np.int64), source[places].astype(np.int32), places.astype(np.int32)


def row_sum(features: Floats, starts: Ints, columns: Ints, coefficients: Floats | None = None) -> Floats:
    """Return ``(M, C)``: ``sum over entries p of list o of coefficients[p] * features[columns[p]]``."""
    out = np.zeros((len(starts) - 1, features.shape[1]))
    for o in range(len(out)):
        for p in range(starts[o], starts[o + 1]):
            out[o] += features[columns[p]] * (1.0 if coefficients is None else coefficients[p])
    return out


def row_dot(left: Floats, right: Floats, starts: Ints, columns: Ints) -> Floats:
    """Return ``(P,)``: ``left[o] . right[columns[p]]`` for the entries p of each list o."""
    out = np.zeros(len(columns))
    for o in range(len(left)):
        for p in range(starts[o], starts[o + 1]):
            out[p] = left[o] @ right[columns[p]]
    return out


def row_max(features: Floats, starts: Ints, columns: Ints) -> tuple[Floats, Ints]:
    """Return ``(M, C)`` maxima and the rows that they are of.

    Of equal numbers the first counts.  NaN is above all numbers, and of several the last counts.  Empty lists have 0
    and row -1.
    """
    out = np.zeros((len(starts) - 1, features.shape[1]))
    argmax = np.full(out.shape, -1, np.int32)
    for o in range(len(out)):
        for column in columns[starts[o] : starts[o + 1]]:
            x = features[column]
            taken = (argmax[o] < 0) | (x > out[o]) | np.isnan(x)
            out[o] = np.where(taken, x, out[o])
            argmax[o] = np.where(taken, column, argmax[o])
    return out, argmax


def row_pick(features: Floats, argmax: Ints) -> Floats:
    """Return ``(M, C)``: ``features[argmax[o, c], c]``, 0 where that is -1."""
    out = np.zeros(argmax.shape)
    for o, c in zip(*np.nonzero(argmax >= 0)):
        out[o, c] = features[argmax[o, c], c]
    return out


def row_put(features: Floats, argmax: Ints, rows: int) -> Floats:
    """Return ``(rows, C)``: ``sum of features[o, c] over o with argmax[o, c] == i``."""
    out = np.zeros((rows, features.shape[1]))
    for o, c in zip(*np.nonzero(argmax >= 0)):
        out[argmax[o, c], c] += features[o, c]
    return out


def batch_norm(x: Floats, weight: Floats, bias: Floats, eps: float, relu: bool) -> tuple[Floats, Floats, Floats]:
    """Return the normalised rows, and mean and biased variance of each channel (arXiv:1502.03167)."""
    mean, variance = x.mean(axis=0), x.var(axis=0)
    out = (x - mean) / np.sqrt(variance + eps) * weight + bias
    return np.maximum(out, 0.0) if relu else out, mean, variance


def batch_norm_grad(
    grad: Floats, x: Floats, weight: Floats, bias: Floats, eps: float, relu: bool
) -> tuple[Floats, Floats, Floats]:
    """Return the gradients of rows, weight and bias of :func:`batch_norm`."""
    deviation = 1.0 / np.sqrt(x.var(axis=0) + eps)
    normal = (x - x.mean(axis=0)) * deviation
    passed = np.where(normal * weight + bias > 0.0, grad, 0.0) if relu else grad
    centred = passed - passed.mean(axis=0) - normal * (passed * normal).mean(axis=0)
    return centred * deviation * weight, (passed * normal).sum(axis=0), passed.sum(axis=0)
