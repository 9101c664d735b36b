"""Numbers as integers in the same order, to count them in bins of equal relative width and to find percentiles.

The bits of IEEE floats, read as integers, are ordered within each sign: inverting all bits of negative numbers and the
sign bit of the others orders them all.  The leading 16 bits are a *bin*, and the next 16 bits of wider types a *fine
bin* in it.  A bin of float32 has a relative width of 2^-7, one of float64 2^-4; a fine bin of float32 is one number,
one of float64 has a relative width of 2^-20.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BINS", "bin_of", "counted_type", "fine_bin_of", "is_exact", "lowest", "number_of"]

Ints = NDArray[np.int64]

BINS = 1 << 16
"""Bins of a type, and fine bins of a bin."""


def counted_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type that numbers are counted in: their own where it is a float or has 16 bits at most, or float64."""
    if dtype.kind == "f" and dtype.itemsize <= 8:
        return dtype
    if dtype.kind in "biu" and dtype.itemsize <= 2:
        return np.dtype(np.int16 if dtype.kind == "i" else np.uint16)
    return np.dtype(np.float64)


def is_exact(dtype: np.dtype[Any], fine: bool) -> bool:
    """Whether a bin (a fine one) of a counted type holds one number only."""
    return dtype.itemsize <= (4 if fine else 2)


def _codes(values: NDArray[Any]) -> NDArray[Any]:
    """Return ``(n,)`` unsigned integers of the same size and order as the numbers; -0.0 is 0.0."""
    size = values.dtype.itemsize
    sign = np.array(1 << (8 * size - 1), f"u{size}")
    if values.dtype.kind == "u":
        return values
    if values.dtype.kind == "i":
        return np.asarray(values.view(f"u{size}") ^ sign)
    bits = (values + values.dtype.type(0)).view(f"u{size}")
    return np.asarray(np.where(bits & sign, ~bits, bits | sign))


def _numbers(codes: NDArray[np.uint64], dtype: np.dtype[Any]) -> NDArray[np.float64]:
    size = dtype.itemsize
    code = codes.astype(f"u{size}")
    sign = np.array(1 << (8 * size - 1), f"u{size}")
    if dtype.kind == "i":
        code = (code ^ sign).view(dtype)
    elif dtype.kind == "f":
        code = np.where(code & sign, code ^ sign, ~code).astype(f"u{size}").view(dtype)
    return code.astype(np.float64)


def bin_of(values: NDArray[Any]) -> Ints:
    """Return ``(n,)`` bins of finite numbers of a counted type."""
    shifted = _codes(values) >> np.array(8 * values.dtype.itemsize - 16, f"u{values.dtype.itemsize}")
    return np.asarray(shifted, np.int64)


def fine_bin_of(values: NDArray[Any]) -> Ints:
    """Return ``(n,)`` fine bins, within their bins, of finite numbers of a counted type of 32 or 64 bits."""
    shifted = _codes(values) >> np.array(8 * values.dtype.itemsize - 32, f"u{values.dtype.itemsize}")
    return np.asarray(shifted, np.int64) % BINS


def lowest(bins: Ints, dtype: np.dtype[Any]) -> NDArray[np.float64]:
    """Return the lowest number of bins, ``(n,)``; what lies beyond the finite numbers is clipped to them."""
    with np.errstate(invalid="ignore"):
        numbers = _numbers(np.asarray(bins).astype(np.uint64) << np.uint64(8 * dtype.itemsize - 16), dtype)
    if dtype.kind == "f":
        limit = float(np.finfo(dtype).max)
        numbers = np.where(np.isnan(numbers), np.where(np.asarray(bins) < BINS // 2, -limit, limit), numbers)
        numbers = np.clip(numbers, -limit, limit)
    return numbers


def number_of(bins: Ints, fine: Ints | None, dtype: np.dtype[Any]) -> NDArray[np.float64]:
    """Return the number that stands for each bin, or fine bin: the only one, or the one nearest to 0.

    That is the one with the fewest digits, so whole numbers below 2^21 are exact.
    """
    code, left = np.asarray(bins).astype(np.uint64), 8 * dtype.itemsize - 16
    if fine is not None and left:
        code, left = code << np.uint64(16) | fine.astype(np.uint64), left - 16
    rest = np.where(np.asarray(bins) < BINS // 2, np.uint64((1 << left) - 1), np.uint64(0))
    return _numbers(code << np.uint64(left) | rest, dtype)
