"""What the kernels on images compute, in plain NumPy: the definitions that the tests compare with.

Functions have the arguments of their twins in :mod:`hepfeed.images`, :mod:`hepfeed.programs` and :mod:`hepfeed.noise`,
without the checks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfeed.draws import Draws
from hepfeed.images import Reduction, gaussian_taps, real_type, reduced_type
from hepfeed.programs import Operation

__all__ = [
    "block_reduce",
    "drop_items",
    "drop_slices",
    "elastic_field",
    "extents",
    "flip",
    "gaussian_noise",
    "normal",
    "poisson_noise",
    "raw",
    "rotate90",
    "run_program",
    "uniform",
    "warp",
    "window",
]


# ---- geometry


def window(values: NDArray[Any], origin: NDArray[np.int64], shape: Sequence[int], fill: float = 0) -> NDArray[Any]:
    """``out[e, x] = values[e, x + origin[e]]`` where that is within the image, else ``fill``."""
    out = np.full((len(values), *shape), fill, values.dtype)
    for e, start in enumerate(origin):
        stop = np.minimum(start + np.array(shape, np.int64), values.shape[1:])
        first = np.maximum(start, 0)
        if (first < stop).all():
            source = tuple(slice(a, b) for a, b in zip(first, stop))
            target = tuple(slice(a, b) for a, b in zip(first - start, stop - start))
            out[e][target] = values[e][source]
    return out


def flip(values: NDArray[Any], flags: NDArray[np.bool_]) -> NDArray[Any]:
    """``out[e, x] = values[e, y]`` with ``y = length - 1 - x`` along the axes where flags are set, else ``y = x``."""
    out = np.empty_like(values)
    for e, axes in enumerate(flags):
        out[e] = np.flip(values[e], tuple(np.flatnonzero(axes)))
    return out


def rotate90(values: NDArray[Any], quarters: NDArray[np.int64], axes: tuple[int, int]) -> NDArray[Any]:
    """``out[e] = numpy.rot90(values[e], quarters[e], axes)``; for one quarter ``out[i, j] = values[j, n - 1 - i]``."""
    out = np.empty_like(values)
    for e, quarter in enumerate(quarters):
        out[e] = np.rot90(values[e], int(quarter), axes)
    return out


def extents(values: NDArray[Any]) -> NDArray[np.int64]:
    """First and last + 1 along each axis of what is not 0; 0, 0 for none."""
    box = np.zeros((len(values), values.ndim - 1, 2), np.int64)
    for e, image in enumerate(values):
        for axis, places in enumerate(np.nonzero(image)):
            if places.size:
                box[e, axis] = places.min(), places.max() + 1
    return box


def block_reduce(
    values: NDArray[Any], factor: Sequence[int], reduce: Reduction = "sum", partial: bool = False
) -> NDArray[Any]:
    """Sum, mean or maximum over ``factor * x <= q < min(factor * (x + 1), length)``, in float64 or int64."""
    lengths = values.shape[1:]
    out = np.empty((len(values), *(-(-n // f) for n, f in zip(lengths, factor))), reduced_type(values.dtype, reduce))
    wide = values.astype(np.int64 if out.dtype.kind == "i" and reduce == "sum" else np.float64)
    functions: dict[str, Any] = {"sum": np.sum, "mean": np.mean, "max": np.max}
    for e, image in enumerate(values if reduce == "max" else wide):
        for place in np.ndindex(*out.shape[1:]):
            out[(e, *place)] = functions[reduce](image[tuple(slice(f * x, f * (x + 1)) for f, x in zip(factor, place))])
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
    """``out[e, x] = values[e, y]`` with ``y = c + matrix[e] (x - c)`` or ``y = x + field[e, :, x]``.

    Order 0: the item at ``floor(y + 1/2)``.  Order 1: the sum over the corners q around y of the products of
    ``1 - |y - q|`` times item q.  Items beyond the image are ``fill``, and so is all beyond these and at NaN.
    """
    image = values if order == 0 else values.astype(real_type(values.dtype))
    moved = np.moveaxis(image, [1 + axis for axis in axes], list(range(1, 1 + len(axes))))
    out = np.empty_like(moved)
    lengths = moved.shape[1 : 1 + len(axes)]
    places = np.indices(lengths).astype(np.float64)
    for e, one in enumerate(moved):
        y = _sources(places, lengths, None if matrix is None else matrix[e], None if field is None else field[e])
        if order == 0:
            out[e] = _items_at(one, np.floor(y + 0.5), fill)
            continue
        near = np.all([(at > -1) & (at < length) for at, length in zip(y, lengths)], axis=0)
        y = np.where(near, y, 0.0)
        low = np.floor(y)
        total = np.zeros(one.shape)
        for upper in itertools.product((0, 1), repeat=len(axes)):
            weight = np.ones(lengths)
            for a, up in enumerate(upper):
                weight = weight * ((y - low)[a] if up else 1.0 - (y - low)[a])
            corner = low + np.array(upper, np.float64).reshape(-1, *[1] * len(axes))
            wide = weight.reshape(*lengths, *[1] * (one.ndim - len(axes)))
            total += np.where(wide == 0, 0.0, wide * _items_at(one, corner, fill).astype(np.float64))
        out[e] = np.where(near.reshape(wide.shape), total, fill)
    return np.ascontiguousarray(np.moveaxis(out, list(range(1, 1 + len(axes))), [1 + axis for axis in axes]))


def _sources(
    places: NDArray[np.float64],
    lengths: tuple[int, ...],
    matrix: NDArray[np.float64] | None,
    field: NDArray[np.float32] | None,
) -> NDArray[np.float64]:
    if matrix is None:
        return places + np.asarray(field, np.float64)
    centre = [0.5 * (length - 1) for length in lengths]
    y = np.empty_like(places)
    for a in range(len(lengths)):
        turned = np.zeros(lengths)
        for b in range(len(lengths)):
            turned = turned + matrix[a, b] * (places[b] - centre[b])
        y[a] = centre[a] + turned
    return y


def _items_at(image: NDArray[Any], places: NDArray[np.float64], fill: float) -> NDArray[Any]:
    lengths = image.shape[: len(places)]
    inside = np.ones(places.shape[1:], bool)
    for place, length in zip(places, lengths):
        inside &= (place >= 0) & (place < length)
    safe = tuple(np.where(inside, place, 0).astype(np.int64) for place in places)
    found: NDArray[Any] = image[safe]
    found[~inside] = fill
    return found


def elastic_field(draws: Draws, lengths: Sequence[int], alpha: float, sigma: float) -> NDArray[np.float32]:
    """``field[e, d] = alpha (g * u[e, d])``: uniform numbers in [-1, 1), smoothed with a Gaussian along each axis.

    Simard, Steinkraus and Platt, ICDAR 2003; beyond the image u is 0.
    """
    taps = gaussian_taps(sigma)
    radius = len(taps) // 2
    noise = 2.0 * uniform(draws, len(lengths) * math.prod(lengths)) - 1.0
    smooth: NDArray[np.float64] = noise.reshape(len(draws), len(lengths), *lengths)
    for axis in range(2, smooth.ndim):
        widths = [(radius, radius) if a == axis else (0, 0) for a in range(smooth.ndim)]
        wide = np.pad(smooth, widths)
        shifted = [np.take(wide, range(k, k + smooth.shape[axis]), axis) for k in range(len(taps))]
        smooth = np.sum([tap * part for tap, part in zip(taps, shifted)], axis=0, dtype=np.float64)
    return np.asarray(alpha * smooth, np.float32)


# ---- functions of one number


def run_program(
    values: NDArray[Any], operations: Sequence[Operation], axis: int | None = None
) -> tuple[NDArray[Any], int]:
    """The formulas of :class:`hepfeed.programs.Operation`, one after another, in float64."""
    dtype = real_type(values.dtype)
    x = values.astype(np.float64)
    refused = np.zeros(values.shape, bool)

    def shaped(parameter: Any) -> Any:
        if axis is None or not isinstance(parameter, tuple):
            return parameter
        return np.array(parameter).reshape([-1 if a == axis % x.ndim else 1 for a in range(x.ndim)])

    with np.errstate(all="ignore"):
        for op in operations:
            p, q, r = shaped(op.p), shaped(op.q), shaped(op.r)
            if op.name == "linear":
                x = (x - p) * q + r
            elif op.name == "clip":
                x = np.minimum(np.maximum(x, p), q)
            elif op.name == "log":
                refused |= x + p <= 0
                x = (np.log1p(x + (p - 1)) if np.all(p == 1) else np.log(x + p)) * q
            elif op.name == "log_tanh":
                refused |= p * x <= -1
                x = np.tanh(np.log1p(p * x))
            elif dtype == np.float32:
                x = x.astype(np.float32).astype(np.float64)
        out = x.astype(dtype)
    return out, int(np.argmax(refused)) if refused.any() else -1


# ---- random numbers


def raw(draws: Draws, count: int) -> NDArray[np.uint64]:
    """``numpy.random.Philox(key=[seed, step], counter=[0, row, file, epoch])`` of each event."""
    key, counters = draws.counters()
    made = np.empty((len(draws), count), np.uint64)
    for e, counter in enumerate(counters):
        made[e] = np.random.Philox(key=key, counter=counter).random_raw(count)
    return made


def uniform(draws: Draws, count: int) -> NDArray[np.float64]:
    """The upper 53 bits of each word times 2^-53."""
    return np.asarray((raw(draws, count) >> np.uint64(11)) * 2.0**-53, np.float64)


def normal(draws: Draws, count: int) -> NDArray[np.float64]:
    """``sqrt(-2 log(1 - u))`` times ``cos(2 pi v)`` and ``sin(2 pi v)`` for uniform numbers u, v, one after another."""
    u = uniform(draws, count + count % 2)
    radius, angle = np.sqrt(-2.0 * np.log1p(-u[:, 0::2])), 2.0 * np.pi * u[:, 1::2]
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return pairs.reshape(len(u), -1)[:, :count]


def gaussian_noise(
    values: NDArray[Any],
    offsets: NDArray[np.int64],
    draws: Draws,
    sigma: float,
    relative: bool = False,
    only_active: bool = False,
) -> NDArray[Any]:
    """``x + sigma n``, or ``x + sigma |x| n``; with ``only_active``, 0 stays."""
    x = values.astype(np.float64).ravel()
    made = np.empty_like(x)
    for e, (start, stop) in enumerate(itertools.pairwise(offsets)):
        part = x[start:stop]
        number = normal(draws.take(np.array([e])), int(stop - start))[0]
        noisy = part + (np.abs(part) * sigma if relative else sigma) * number
        made[start:stop] = np.where(part == 0, 0.0, noisy) if only_active else noisy
    return made.astype(real_type(values.dtype)).reshape(values.shape)


def poisson_noise(
    values: NDArray[Any], offsets: NDArray[np.int64], draws: Draws, scale: float = 1.0
) -> tuple[NDArray[Any], int]:
    """``k / scale`` with k from the Poisson distribution of mean ``m = x scale``, and the first item refused, or -1.

    Item i draws from blocks ``1 + i + 2^40 t``, t = 0, 1, ... of its event's stream.  Below m = 10, k is the least with
    ``u < sum of e^-m m^j / j! over j <= k``; above it is from Hoermann's PTRS (1993).
    """
    key, counters = draws.counters()
    means = values.astype(np.float64).ravel() * scale
    made = np.empty_like(means)
    for e, (start, stop) in enumerate(itertools.pairwise(offsets)):
        for i, mean in enumerate(means[start:stop]):
            if not 0 <= mean <= 2.0**40:
                return made.astype(real_type(values.dtype)).reshape(values.shape), int(start) + i
            units = _units(key, counters[e], i)
            count = 0.0 if mean == 0 else (_poisson_small if mean < 10 else _poisson_large)(float(mean), units)
            made[start + i] = count / scale
    return made.astype(real_type(values.dtype)).reshape(values.shape), -1


def _units(key: NDArray[np.uint64], counter: NDArray[np.uint64], item: int) -> Callable[[], float]:
    def words() -> Any:
        for attempt in itertools.count():
            start = counter.copy()
            start[0] += np.uint64(item + (attempt << 40))
            yield from np.random.Philox(key=key, counter=start).random_raw(4)

    stream = words()
    return lambda: (int(next(stream)) >> 11) * 2.0**-53


def _poisson_small(mean: float, unit: Callable[[], float]) -> float:
    u, k, term = unit(), 0.0, math.exp(-mean)
    total = term
    while u >= total and term > 0:
        k += 1
        term *= mean / k
        total += term
    return k


def _poisson_large(mean: float, unit: Callable[[], float]) -> float:
    b = 0.931 + 2.53 * math.sqrt(mean)
    a = -0.059 + 0.02483 * b
    inverse_alpha, bound = 1.1239 + 1.1328 / (b - 3.4), 0.9277 - 3.6224 / (b - 2)
    while True:
        u, v = unit() - 0.5, 1 - unit()
        us = 0.5 - abs(u)
        if us == 0:
            continue
        k = math.floor((2 * a / us + b) * u + mean + 0.43)
        if us >= 0.07 and v <= bound:
            return float(k)
        if k < 0 or (us < 0.013 and v > us):
            continue
        if math.log(v * inverse_alpha / (a / us**2 + b)) <= k * math.log(mean) - mean - math.lgamma(k + 1):
            return float(k)


# ---- drop-out


def drop_items(values: NDArray[Any], offsets: NDArray[np.int64], draws: Draws, probability: float) -> NDArray[Any]:
    """0 where the item's uniform number is below the probability, else the item."""
    out = values.ravel().copy()
    for e, (start, stop) in enumerate(itertools.pairwise(offsets)):
        out[start:stop][uniform(draws.take(np.array([e])), int(stop - start))[0] < probability] = 0
    return out.reshape(values.shape)


def drop_slices(values: NDArray[Any], keep: NDArray[np.bool_], axis: int) -> NDArray[Any]:
    """0 in the slices along an axis that are not kept."""
    shape = [len(values), *(n if a == axis else 1 for a, n in enumerate(values.shape[1:]))]
    return np.where(keep.reshape(shape), values, np.zeros((), values.dtype))
