"""Noise and drop-out on items of events; each item's random numbers depend on its event and its place there alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfeed import _images
from hepfeed.draws import Draws
from hepfeed.images import native, real_type

__all__ = ["MAX_POISSON_MEAN", "drop_items", "gaussian_noise", "poisson_noise"]

MAX_POISSON_MEAN = 2.0**40


def gaussian_noise(
    values: NDArray[Any],
    offsets: NDArray[np.int64],
    draws: Draws,
    sigma: float,
    relative: bool = False,
    only_active: bool = False,
) -> NDArray[Any]:
    """Return ``x + sigma n``, or ``x + sigma |x| n`` where relative, with n = ``draws.normal`` of the item's place.

    Args:
        values: Numbers, events one after another.
        offsets: ``(B + 1,) int64``: items of event e are ``offsets[e] .. offsets[e + 1] - 1`` in C order.
        draws: Of the B events.
        sigma: Width, in the items' unit; where relative, without unit.
        relative: Whether the width goes with the size of the item.
        only_active: Whether items that are 0 stay 0.

    Returns:
        float64 for float64, else float32.

    Raises:
        ProcessError: Items are not numbers.
    """
    items = native(values)
    out = np.empty(items.shape, real_type(items.dtype))
    _images.gaussian_noise(items, out, *draws.counters(), offsets, sigma, relative, only_active)
    return out


def poisson_noise(
    values: NDArray[Any], offsets: NDArray[np.int64], draws: Draws, scale: float = 1.0
) -> tuple[NDArray[Any], int]:
    """Return ``k / scale`` with k from the Poisson distribution of mean ``x scale``; see ``csrc/cpu/noise.h``.

    Args:
        values: Numbers, events one after another.
        offsets: See :func:`gaussian_noise`.
        draws: Of the B events.
        scale: Counts per unit of the items.

    Returns:
        The results, float64 for float64, else float32; and the flat place of the first item whose mean is negative, NaN
        or above :data:`MAX_POISSON_MEAN`, or -1.

    Raises:
        ProcessError: Items are not numbers.
    """
    items = native(values)
    out = np.empty(items.shape, real_type(items.dtype))
    return out, _images.poisson_noise(items, out, *draws.counters(), offsets, scale)


def drop_items(values: NDArray[Any], offsets: NDArray[np.int64], draws: Draws, probability: float) -> NDArray[Any]:
    """Return the items, with 0 where ``draws.uniform`` of the item's place is below the probability.

    Args:
        values: Items of 1, 2, 4 or 8 bytes, events one after another.
        offsets: See :func:`gaussian_noise`.
        draws: Of the B events.
        probability: From 0 to 1.
    """
    items = native(values)
    out = np.empty_like(items)
    _images.drop_items(items, out, *draws.counters(), offsets, probability)
    return out
