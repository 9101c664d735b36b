"""Sums over a part of the events that merge into statistics of all: in readers, for :mod:`hepfeed.statistics`.

Zeros are counted only, and all else is done on the other finite values, the *active* ones: an image that is 1 %
occupied costs a comparison for most of its pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfeed.errors import KeyMissingError, SpecError, nearest
from hepfeed.ordered import BINS, bin_of, counted_type, fine_bin_of
from hepfeed.spec_options import RESERVED_NAMES
from hepfeed.tensors import Graph, Jagged, Padded, Sparse
from hepfeed.transforms.step import Batch

__all__ = ["Measure", "Moments", "channels"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def channels(value: Any, axis: int | None, key: str) -> NDArray[Any]:
    """Return the numbers of a batch's key as ``(channels, n)``.

    Args:
        value: Dense ``(B, ...)``, jagged, padded (what the mask leaves out does not count) or sparse (features).
        axis: Of one event, as it is dense: 0 is the first axis after the batch axis, -1 the last one; None takes
            everything as one channel.  Rows of points, and the axes of a sparse image but the last, are no channels.
        key: For messages.

    Raises:
        SpecError: There is no such axis, or the key has no numbers.
    """
    if isinstance(value, Graph):
        raise SpecError(f"key {key!r} is a graph, which has no statistics", key=key)
    if isinstance(value, Jagged):
        array, axes = np.asarray(value.values), value.values.ndim
        first = 1
    elif isinstance(value, Padded):
        array, axes = np.asarray(value.values)[np.asarray(value.mask)], value.values.ndim - 1
        first = 1
    elif isinstance(value, Sparse):
        array, axes = np.asarray(value.features), len(value.spatial_shape) + 1
        first = axes - 1
    else:
        array = np.asarray(value)
        axes, first = array.ndim - 1, 0
    if array.dtype.kind not in "biuf":
        raise SpecError(f"key {key!r} has type {array.dtype}, which has no statistics", key=key)
    if axis is None:
        return array.reshape(1, -1)
    place = axis + axes if axis < 0 else axis
    if not first <= place < axes:
        raise SpecError(
            f"channel_axis={axis} is no axis of an event of key {key!r} that can be channels: there are"
            f" {first} .. {axes - 1}; give channel_axis={{{key!r}: ...}}, without the keys that have none"
            if first < axes
            else f"channel_axis={axis}: key {key!r} has no axis of channels; give a mapping without it",
            key=key,
        )
    moved = np.moveaxis(array, array.ndim - axes + place, 0)
    return np.ascontiguousarray(moved.reshape(len(moved), -1))


@dataclass(frozen=True)
class Measure:
    """Replaces a batch by sums over it; called in the readers.

    A second pass, which has ``refine``, counts fine bins of some bins.

    Attributes:
        keys: What to measure; None: all of the batch but ``"label"``, ``"event"`` and ``"weight"``.
        axes: Key -> channel axis.
        gather: Most active values of a batch that are passed on as they are, by key; more are counted in bins.
        refine: Key -> bins to refine, as sorted ``channel * BINS + bin``; None in the first pass.
    """

    keys: tuple[str, ...] | None
    axes: Mapping[str, int] | int | None
    gather: int
    refine: Mapping[str, Ints] | None = None

    def __call__(self, batch: Batch) -> Batch:
        """Return arrays by ``"kind:key"``; parts of a batch may be joined on their first axis."""
        sums: Batch = {}
        names = [name for name in batch if name not in RESERVED_NAMES] if self.keys is None else self.keys
        for key in names if self.refine is None else self.refine:
            if key not in batch:
                raise KeyMissingError(f"the batch has no key {key!r} to measure: {nearest(key, batch)}", key=key)
            axis = self.axes.get(key) if isinstance(self.axes, Mapping) else self.axes
            rows = channels(batch[key], axis, key)
            rows = rows.astype(rows.dtype.newbyteorder("="), copy=False)
            if self.refine is None:
                sums |= {f"{kind}:{key}": array for kind, array in self._first(rows).items()}
            else:
                codes, counts = _refined(rows, self.refine[key])
                sums |= {f"codes:{key}": codes, f"counts:{key}": counts}
        return sums | {"events": np.array([len(batch["event"])])}

    def _first(self, rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
        counted = counted_type(rows.dtype)
        active = [_active(row, counted) for row in rows]
        found = {
            "moments": np.stack([Moments.of(values).packed() for values in active])[None],
            "zeros": np.array([[np.count_nonzero(row == 0) for row in rows]], np.int64),
            "nonfinite": np.array([[_nonfinite(row) for row in rows]], np.int64),
        }
        total = sum(map(len, active))
        gathered = total <= self.gather
        found["values"] = np.concatenate([*active, np.empty(0, counted)]) if gathered else np.empty(0, counted)
        parts = [] if gathered else [_counted(bin_of(values)) for values in active]
        empty = np.empty(0, np.int64)
        found["codes"] = np.concatenate([empty, *(c * BINS + bins for c, (bins, _) in enumerate(parts))])
        found["counts"] = np.concatenate([empty, *(counts for _, counts in parts)])
        return found


def _active(row: NDArray[Any], counted: np.dtype[Any]) -> NDArray[Any]:
    """Return the finite values that are not 0."""
    values = row[row != 0]
    if values.dtype.kind == "f":
        finite = np.isfinite(values)
        values = values if finite.all() else values[finite]
    return np.asarray(values, counted)


def _nonfinite(row: NDArray[Any]) -> int:
    return int(np.count_nonzero(~np.isfinite(row))) if row.dtype.kind == "f" else 0


def _counted(bins: Ints) -> tuple[Ints, Ints]:
    """Return distinct bins in ascending order, and how often each comes."""
    if len(bins) < BINS // 8:  # sorting a few is faster than looking at all bins
        found, counts = np.unique(bins, return_counts=True)
    else:
        counts = np.bincount(bins, minlength=BINS)
        found = np.flatnonzero(counts)
        counts = counts[found]
    return found.astype(np.int64), counts.astype(np.int64)


def _refined(rows: NDArray[Any], refine: Ints) -> tuple[Ints, Ints]:
    """Count the fine bins of the bins ``refine``, as ``place in refine * BINS + fine bin``."""
    counted = counted_type(rows.dtype)
    found = []
    for channel, row in enumerate(rows):
        values = _active(row, counted)
        bins = channel * BINS + bin_of(values)
        place = np.minimum(np.searchsorted(refine, bins), len(refine) - 1)
        chosen = refine[place] == bins
        found.append(place[chosen] * BINS + fine_bin_of(values[chosen]))
    codes, counts = np.unique(np.concatenate([np.empty(0, np.int64), *found]), return_counts=True)
    return codes, counts.astype(np.int64)


@dataclass(frozen=True)
class Moments:
    """Count, mean, spread and extremes of numbers, ``(...)`` each; exact merging by Chan, Golub and LeVeque (1979).

    Attributes:
        count: How many.
        mean: Their mean; 0 where there are none.
        spread: Sum of squared differences from the mean.
        minimum: Infinity where there are none.
        maximum: Minus infinity where there are none.
    """

    count: Floats
    mean: Floats
    spread: Floats
    minimum: Floats
    maximum: Floats

    @classmethod
    def of(cls, values: NDArray[Any]) -> Moments:
        """Return the moments of ``(n,)`` finite numbers, in float64."""
        wide = values.astype(np.float64)
        n = len(wide)
        low, high = (wide.min(), wide.max()) if n else (np.inf, -np.inf)
        with np.errstate(over="ignore", invalid="ignore"):  # as far as float64 goes; what is beyond becomes None
            mean = wide.mean() if n else 0.0
            spread = np.square(wide - mean).sum()
        return cls(*(np.float64(x) for x in (n, mean, spread, low, high)))  # type: ignore[arg-type]

    @classmethod
    def of_zeros(cls, count: Ints) -> Moments:
        """Return the moments of ``count`` zeros."""
        n = count.astype(np.float64)
        low = np.where(n > 0, 0.0, np.inf)
        return cls(n, np.zeros_like(n), np.zeros_like(n), low, -low)

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        share = np.divide(other.count, count, out=np.zeros_like(count), where=count > 0)
        difference = other.mean - self.mean
        return Moments(
            count,
            self.mean + difference * share,
            self.spread + other.spread + np.square(difference) * self.count * share,
            np.minimum(self.minimum, other.minimum),
            np.maximum(self.maximum, other.maximum),
        )

    def packed(self) -> Floats:
        """Return ``(..., 5)``."""
        return np.stack([self.count, self.mean, self.spread, self.minimum, self.maximum], axis=-1)

    @classmethod
    def unpacked(cls, array: Floats) -> Moments:
        """Undo :meth:`packed`."""
        return cls(*np.moveaxis(array, -1, 0))

    @property
    def std(self) -> Floats:
        """Standard deviation (of the whole population, as ``numpy.std``); NaN where there are no numbers."""
        with np.errstate(invalid="ignore"):
            return np.sqrt(self.spread / self.count)
