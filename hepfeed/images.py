"""Dense images of events: arrays in, arrays out, by native kernels, each of which takes a whole batch.

Arrays are ``(B, *shape)``; axes count those of one event, 0 being the first after the events.  Items that are only
moved keep their type.  The plain NumPy form of each function is in :mod:`hepfeed.reference.images`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hepfeed import _images
from hepfeed.draws import Draws
from hepfeed.errors import ProcessError, SpecError

__all__ = [
    "MAX_WARP_AXES",
    "Reduction",
    "block_reduce",
    "check_numbers",
    "drop_slices",
    "elastic_field",
    "extents",
    "fill_item",
    "flip",
    "gaussian_taps",
    "native",
    "real_type",
    "reduced_type",
    "rotate90",
    "warp",
    "window",
]

Reduction = Literal["sum", "mean", "max"]
"""What becomes of a block of items."""

MAX_WARP_AXES = 3
_MAX_ORIGIN = 2**62


def native(values: NDArray[Any]) -> NDArray[Any]:
    """Return an array in C order and in the machine's byte order; a copy only where it is not so yet."""
    return np.ascontiguousarray(values, values.dtype.newbyteorder("="))


def check_numbers(dtype: np.dtype[Any]) -> None:
    """Check that items can be computed with.

    Raises:
        ProcessError: Items are not integers, floats or bools of at most 64 bits.
    """
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise ProcessError(f"items must be integers or floats of at most 64 bits to compute with, not {dtype}")


def real_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type of computed items: float64 for float64, float32 for all others.

    Raises:
        ProcessError: See :func:`check_numbers`.
    """
    check_numbers(dtype)
    return np.dtype(np.float64 if dtype.kind == "f" and dtype.itemsize == 8 else np.float32)


def reduced_type(dtype: np.dtype[Any], reduce: Reduction) -> np.dtype[Any]:
    """Return the type of reduced blocks: int64 for sums of integers, their own for maxima, else :func:`real_type`.

    Raises:
        ProcessError: See :func:`check_numbers`.
    """
    real = real_type(dtype)
    if dtype.kind == "f" or reduce == "mean":
        return real
    return np.dtype(np.int64) if reduce == "sum" else dtype.newbyteorder("=")


def fill_item(fill: float, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return ``fill`` as an array ``()`` of a type.

    Raises:
        SpecError: The type can't hold it; floats may round it, integers may not.
    """
    with np.errstate(all="ignore"):
        item = np.asarray(fill).astype(dtype)
    same = item.item() == fill or (math.isnan(fill) and dtype.kind in "fc")
    if not (same or (dtype.kind in "fc" and np.isfinite(item))):
        raise SpecError(f"images of {dtype} can't be filled with {fill!r}: choose a number of that type")
    return item


def window(values: NDArray[Any], origin: NDArray[np.int64], shape: Sequence[int], fill: float = 0) -> NDArray[Any]:
    """Return ``out[e, x] = values[e, x + origin[e]]`` where that is within the image, and ``fill`` elsewhere.

    Args:
        values: ``(B, *old)`` of any type.
        origin: ``(B, D) int64``: where the window begins, also below 0 or beyond the end.
        shape: Of the window, ``D`` numbers.
        fill: A number of the items' type.

    Returns:
        ``(B, *shape)``.

    Raises:
        SpecError: The items' type can't hold ``fill``.
    """
    image = native(values)
    out = np.empty((len(image), *shape), image.dtype)
    starts = np.ascontiguousarray(np.clip(origin, -_MAX_ORIGIN, _MAX_ORIGIN), np.int64)
    _images.window(image, out, starts, fill_item(fill, image.dtype))
    return out


def flip(values: NDArray[Any], flags: NDArray[np.bool_]) -> NDArray[Any]:
    """Return images with those axes reversed where ``flags`` is True.

    Args:
        values: ``(B, *shape)`` of any type, ``D`` axes.
        flags: ``(B, D) bool``.
    """
    image = native(values)
    out = np.empty_like(image)
    _images.flip(image, out, np.ascontiguousarray(flags, np.bool_).view(np.uint8))
    return out


def rotate90(values: NDArray[Any], quarters: NDArray[np.int64], axes: tuple[int, int]) -> NDArray[Any]:
    """Turn each event by a number of quarters, as ``numpy.rot90(event, quarters[e], axes)``.

    Args:
        values: ``(B, *shape)`` of any type.
        quarters: ``(B,)``, any integers.
        axes: Two axes of equal length; one quarter turns the first towards the second.

    Raises:
        ProcessError: The axes differ in length.
    """
    image = native(values)
    first, second = axes
    if image.shape[1 + first] != image.shape[1 + second]:
        raise ProcessError(
            f"axes {axes} must be of equal length to turn by 90 degrees, and the images are {image.shape[1:]}: pad or"
            " crop them first"
        )
    turns = quarters if first < second else -quarters
    out = np.empty_like(image)
    _images.rotate90(image, out, min(axes), max(axes), np.ascontiguousarray(turns % 4, np.uint8))
    return out


def extents(values: NDArray[Any]) -> NDArray[np.int64]:
    """Return the least box around what is not 0, ``(B, D, 2)``: first and last + 1 along each axis; 0, 0 for none.

    Args:
        values: ``(B, *shape)`` of numbers of at most 64 bits; NaN is not 0.

    Raises:
        ProcessError: Items are no such numbers.
    """
    image = native(values)
    check_numbers(image.dtype)
    sign = image.dtype.kind == "f"  # the sign of -0.0 is a bit that does not count
    out = np.empty((len(image), image.ndim - 1, 2), np.int64)
    _images.extents(image, 2 ** (8 * image.itemsize - sign) - 1, out)
    return out


def block_reduce(
    values: NDArray[Any], factor: Sequence[int], reduce: Reduction = "sum", partial: bool = False
) -> NDArray[Any]:
    """Return ``out[e, x]``: the sum, mean or maximum of the items from ``factor * x`` to ``factor * (x + 1) - 1``.

    Sums of floats and means are taken in float64 and rounded once, sums of integers in int64.

    Args:
        values: ``(B, *shape)`` of numbers.
        factor: Lengths of a block, one for each axis.
        reduce: What becomes of a block; a maximum is NaN where an item is.
        partial: Accept blocks at the end of an axis that are not whole; a mean is that of the items there are.

    Returns:
        Of :func:`reduced_type`.

    Raises:
        ProcessError: Blocks are not whole, items are not numbers, or a sum does not fit int64.
    """
    image = native(values)
    dtype = reduced_type(image.dtype, reduce)
    lengths = image.shape[1:]
    if not partial and any(length % f for length, f in zip(lengths, factor)):
        raise ProcessError(
            f"images of {lengths} are not whole blocks of {tuple(factor)}: pad or crop them first, or give partial=True"
        )
    out = np.empty((len(image), *(-(-length // f) for length, f in zip(lengths, factor))), dtype)
    if not _images.reduce_blocks(image, out, reduce, np.array(factor, np.int64)):
        raise ProcessError(f"a sum over blocks of {tuple(factor)} of {image.dtype} does not fit int64: cast them first")
    return out


def warp(
    values: NDArray[Any],
    axes: Sequence[int],
    order: int,
    fill: float = 0,
    *,
    matrix: NDArray[np.float64] | None = None,
    field: NDArray[np.float32] | None = None,
) -> NDArray[Any]:
    """Return ``out[e, x] = values[e, y]``, read between the items where y is, with y from a matrix or a field.

    With a matrix ``y = c + matrix[e] (x - c)`` about the centre ``c = (length - 1) / 2``; with a field
    ``y = x + field[e, :, x]``.  Order 0 takes the nearest item, ``floor(y + 1/2)``; order 1 weighs the 2^D items around
    y by the products of ``1 - |y - q|``.  Items beyond the image count as ``fill``.  Other axes are carried along.

    Args:
        values: ``(B, *shape)``; for order 0 of any type with items of 1, 2, 4, 8 or 16 bytes.
        axes: ``D`` axes, one to three.
        order: 0 or 1.
        fill: See above.
        matrix: ``(B, D, D) float64``.
        field: ``(B, D, *lengths of the axes) float32``.

    Returns:
        Of the items' own type for order 0, of :func:`real_type` for order 1.

    Raises:
        ProcessError: Items are not numbers, for order 1.
        SpecError: The items' type can't hold ``fill``.
    """
    image = native(values)
    if order == 1:
        image = image.astype(real_type(image.dtype), copy=False)
    lengths = image.shape[1:]
    steps = [math.prod(lengths[axis + 1 :]) for axis in range(len(lengths))]
    last = max(axes)
    # Everything behind the last axis lies together; the places of what lies in front and between are listed.
    carried = np.zeros(1, np.int64)
    for axis in (axis for axis in range(last) if axis not in axes):
        carried = (carried[:, None] + np.arange(lengths[axis], dtype=np.int64) * steps[axis]).ravel()
    out = np.empty_like(image)
    _images.warp(
        image,
        out,
        tuple(axes),
        np.ascontiguousarray(carried),
        steps[last],
        None if matrix is None else np.ascontiguousarray(matrix, np.float64),
        None if field is None else np.ascontiguousarray(field, np.float32),
        order == 1,
        fill_item(fill, image.dtype),
    )
    return out


def gaussian_taps(sigma: float) -> NDArray[np.float64]:
    """Return a Gaussian of width ``sigma`` (items), cut at 4 sigma, of sum 1: ``(2 ceil(4 sigma) + 1,)``."""
    radius = math.ceil(4 * sigma)
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return np.asarray(taps / taps.sum())


def elastic_field(draws: Draws, lengths: Sequence[int], alpha: float, sigma: float) -> NDArray[np.float32]:
    """Return random displacements of neighbouring items that are alike (Simard, Steinkraus and Platt, ICDAR 2003).

    ``field[e, d] = alpha (g * u[e, d])``: uniform numbers u in [-1, 1), of which item ``d places + x`` of the event's
    draws belongs to axis d at place x, smoothed with a Gaussian g along each axis; beyond the image u is 0.

    Args:
        draws: Of B events.
        lengths: Of the ``D`` axes, one to three.
        alpha: Factor of the smoothed numbers, in items.
        sigma: Width of the Gaussian, in items.

    Returns:
        ``(B, D, *lengths) float32``, in items.
    """
    shape = (len(draws) * len(lengths), *lengths)
    noise = draws.uniform(len(lengths) * math.prod(lengths), -1.0, 1.0).reshape(shape)
    taps = gaussian_taps(sigma)
    scratch = np.empty(2 * math.prod(lengths) * (shape[0] > 0) + lengths[-1] + len(taps) - 1)
    field = np.empty(shape, np.float32)
    _images.smooth(noise, field, taps, alpha, scratch)
    return field.reshape(len(draws), len(lengths), *lengths)


def drop_slices(values: NDArray[Any], keep: NDArray[np.bool_], axis: int) -> NDArray[Any]:
    """Return images with 0 in the slices along an axis that are not kept.

    Args:
        values: ``(B, *shape)`` of any type.
        keep: ``(B, shape[axis]) bool``.
        axis: Of one event.
    """
    image = native(values)
    out = np.empty_like(image)
    _images.drop_slices(image, out, axis, np.ascontiguousarray(keep, np.bool_).view(np.uint8))
    return out
