"""Points in the cells of a grid: voxels and histograms."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hepfeed.device import native
from hepfeed.device.sorting import sort_pairs
from hepfeed.device.transforms.arrays import as_array, is_float
from hepfeed.device.transforms.casting import cast_numbers
from hepfeed.device.transforms.context import Context
from hepfeed.device.transforms.faults import Refusal
from hepfeed.device.transforms.items import DeviceItems
from hepfeed.errors import SpecError
from hepfeed.grid import Box, edges_of
from hepfeed.tensors import Jagged, Padded, Sparse
from hepfeed.transforms.histogram import Histogram
from hepfeed.transforms.lookup import names_of
from hepfeed.transforms.points import put, without
from hepfeed.transforms.step import Batch, Keys
from hepfeed.transforms.voxelise import Voxelise

__all__ = ["histogram", "voxelise"]

_MAX_AXES = 8
_NOTHING = 0


@dataclass(frozen=True)
class _Points:
    """Coordinates of a batch: of each axis its numbers and how many lie between two of them."""

    items: DeviceItems
    axes: list[tuple[torch.Tensor, int, int]]

    @classmethod
    def of(cls, batch: Batch, keys: Keys, dims: int, context: Context) -> _Points:
        """Gather coordinates; the same points are asked for as on the CPU.

        Raises:
            Refusal: The keys hold no points of so many coordinates.
        """
        first, *others = [_rows(batch, name) for name in names_of(keys)]
        if isinstance(keys, str):
            if first.rows.ndim != 2 or first.rows.shape[1] != dims or first.rows.dtype == torch.bool:
                raise Refusal
            return cls(first, [(first.rows, axis, dims) for axis in range(dims)])
        for each in (first, *others):
            if each.rows.ndim != 1 or each.rows.dtype == torch.bool:
                raise Refusal
            _check_same(first, each, context)
        return cls(first, [(each.rows, 0, 1) for each in (first, *others)])

    @property
    def count(self) -> int:
        """Points that there may be."""
        return len(self.items.rows)

    def columns(self, batch: Batch, keys: Keys, context: Context) -> list[torch.Tensor]:
        """Return what keys have for the points, each ``(T,)`` or ``(T, c)``."""
        found = []
        for name in (keys,) if isinstance(keys, str) else keys:
            column = _rows(batch, name)
            _check_same(self.items, column, context)
            if column.rows.ndim not in (1, 2) or 0 in column.rows.shape[1:]:
                raise Refusal
            found.append(column.rows)
        return found


@dataclass(frozen=True)
class _Groups:
    """Points by the cell that they are in.

    Attributes:
        keys: ``(T,) int64``, rising: number of the cell in C order of (event, cell); ``beyond`` outside.
        order: ``(T,) int32``: which point.
        beyond: Cells of all events.
        stream: Where kernels are queued.
    """

    keys: torch.Tensor
    order: torch.Tensor
    beyond: int
    stream: int

    def heads(self) -> torch.Tensor:
        """Return ``(T,) bool``: where a cell begins."""
        head = torch.ones_like(self.keys, dtype=torch.bool)
        head[1:] = self.keys[1:] != self.keys[:-1]
        return head & (self.keys < self.beyond)

    def reduce(
        self,
        column: torch.Tensor | None,
        how: str,
        out: torch.Tensor,
        place: int = 0,
        starts: torch.Tensor | None = None,
    ) -> None:
        """Write what a column comes to in each cell; None counts points.

        Args:
            column: ``(T,)`` or ``(T, c)``.
            how: Reduction.
            out: ``(V, C) float32``, or all cells of all events.
            place: First column of ``out``.
            starts: ``(V,) int64``: where cells begin; None: each goes to its place among all.
        """
        columns = 1 if column is None or column.ndim == 1 else column.shape[1]
        native.kernels().reduce_groups(
            self.tuple(starts),
            as_array(column),
            columns,
            how,
            native.address(out) + out.element_size() * place if out.numel() else _NOTHING,
            1 if starts is None else out.shape[1],
            self.stream,
        )

    def tuple(self, starts: torch.Tensor | None) -> tuple[int, int, int, int, int, int]:
        """Return the groups as kernels take them."""
        rows = len(self.keys)
        return (
            native.address(self.keys),
            native.address(self.order),
            native.address(starts),
            rows if starts is None else len(starts),
            rows,
            self.beyond,
        )


_AxisOption = tuple[float, float, int, torch.Tensor | None, bool]
"""Low, size, bins, edges, and whether the last one is closed."""


def _groups(points: _Points, options: Sequence[_AxisOption], outside: str, context: Context) -> _Groups:
    events = len(context.event)
    beyond = events * math.prod(option[2] for option in options)
    if len(options) > _MAX_AXES or beyond >= 2**63 or points.count >= 2**31:
        raise SpecError(
            f"grids on a device have up to {_MAX_AXES} axes, less than 2^63 cells and 2^31 points in all, not"
            f" {len(options)} axes, {beyond} cells and {points.count} points"
        )
    keys = torch.empty(points.count, dtype=torch.int64, device=context.device)
    rows = torch.empty(points.count, dtype=torch.int32, device=context.device)
    axes = []
    for (numbers, first, stride), (low, size, bins, edges, closed) in zip(points.axes, options):
        address, code = as_array(numbers)
        address += first * numbers.element_size()
        axes.append((address, code, stride, low, size, bins, native.address(edges), closed))
    offsets = points.items.offsets
    native.kernels().cells_of_points(
        axes,
        (native.address(offsets), events, 1),
        points.count,
        outside,
        native.address(keys),
        native.address(rows),
        context.faults.address(),
        context.stream,
    )
    return _Groups(*sort_pairs(keys, rows, beyond + 1), beyond, context.stream)


def voxelise(step: Voxelise, batch: Batch, context: Context) -> Batch:
    """Merge points in voxels, summed in their order; waits for the number of voxels."""
    box = Box.of(step.shape, step.low, step.high, step.size)
    points = _Points.of(batch, step.points, len(box.shape), context)
    columns = points.columns(batch, step.features, context)
    options = [(low, size, bins, None, False) for low, size, bins in zip(box.low, box.size, box.shape)]
    groups = _groups(points, options, step.outside, context)
    head = groups.heads()
    starts = head.nonzero()[:, 0]
    keys = groups.keys.index_select(0, starts)
    features = _features(groups, starts, columns, step)
    cells, events = math.prod(box.shape), len(context.event)
    taken = (*names_of(step.points), *((step.features,) if isinstance(step.features, str) else step.features))
    made = dict(batch) if step.keep else without(batch, (*taken, *([step.labels] if step.labels else [])))
    put(made, step.into, Sparse(features, _indices(keys, box.shape), box.shape, events))
    firsts = torch.arange(events + 1, device=keys.device) * cells
    offsets = torch.searchsorted(keys, firsts)
    if step.labels is not None:
        (labels,) = points.columns(batch, step.labels, context)
        found = _labels(groups, starts, labels, columns[0] if step.label_by == "largest" else None, context)
        put(made, step.labels_into or step.labels, Jagged(found, offsets))
    if step.rows_into is not None:
        number = head.cumsum(0) - 1 - offsets[torch.clamp(groups.keys // cells, max=events - 1)]
        rows = torch.empty_like(groups.keys)
        rows.index_copy_(0, groups.order.long(), torch.where(groups.keys < groups.beyond, number, -1))
        if points.items.order is not None:  # without the rows of the padding
            rows = rows[: int(points.items.offsets[-1])]
        put(made, step.rows_into, Jagged(rows, points.items.offsets))
    return made


def _features(groups: _Groups, starts: torch.Tensor, columns: list[torch.Tensor], step: Voxelise) -> torch.Tensor:
    parts: list[torch.Tensor | None] = [*columns] or [None]
    hows = [step.reduce] * len(parts) if isinstance(step.reduce, str) else step.reduce or ["sum"]
    widths = [1 if part is None or part.ndim == 1 else part.shape[1] for part in parts]
    made = torch.empty((len(starts), sum(widths)), dtype=torch.float32, device=starts.device)
    for part, how, place in zip(parts, hows, np.cumsum([0, *widths])):
        groups.reduce(part, how if part is not None else "sum", made, int(place), starts)
    return made


def _indices(keys: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Return ``(V, 1 + D) int32``: event and coordinates."""
    columns, left = [], keys
    for length in reversed(shape):
        quotient = left // length
        columns.append(left - quotient * length)
        left = quotient
    return torch.stack([left, *reversed(columns)], dim=1).int()


def _labels(
    groups: _Groups, starts: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None, context: Context
) -> torch.Tensor:
    if labels.ndim != 1 or is_float(labels) or labels.dtype == torch.uint64:
        raise Refusal
    wide = cast_numbers(labels, torch.int64, context)
    found = torch.empty(len(starts), dtype=torch.int64, device=starts.device)
    if weights is not None:
        stride = 1 if weights.ndim == 1 else weights.shape[1]
        native.kernels().labels_of_largest(
            groups.tuple(starts), native.address(wide), as_array(weights), stride, native.address(found), groups.stream
        )
    else:
        by_label = _by_label(groups, wide, context)
        native.kernels().labels_of_majority(
            by_label.tuple(starts), native.address(wide), native.address(found), groups.stream
        )
    return cast_numbers(found, labels.dtype, context)


def _by_label(groups: _Groups, labels: torch.Tensor, context: Context) -> _Groups:
    """Return the same groups, with the points of each in the order of their labels."""
    label = labels.index_select(0, groups.order)
    unsigned = label ^ torch.iinfo(torch.int64).min  # which rises as the label does, taken as bits
    place = torch.arange(len(label), dtype=torch.int32, device=label.device)
    _, place = sort_pairs(unsigned, place, 2**64)
    keys, order = groups.keys.index_select(0, place), groups.order.index_select(0, place)
    return _Groups(*sort_pairs(keys, order, groups.beyond + 1), groups.beyond, groups.stream)


def histogram(step: Histogram, batch: Batch, context: Context) -> Batch:
    """Sum points in bins, in their order; without a wait."""
    edges = edges_of(step.bins, step.ranges)
    points = _Points.of(batch, step.points, len(edges), context)
    weights = None if step.weights is None else points.columns(batch, step.weights, context)[0]
    if weights is not None and weights.ndim != 1:
        raise Refusal
    options = [
        (0.0, 1.0, len(each) - 1, _uploaded(tuple(each.tolist()), context.device), step.last_closed) for each in edges
    ]
    groups = _groups(points, options, step.outside, context)
    bins = [len(each) - 1 for each in edges]
    images = torch.zeros((len(context.event), *bins), dtype=torch.float32, device=context.device)
    groups.reduce(weights, "sum", images)
    taken = (*names_of(step.points), *([step.weights] if step.weights is not None else []))
    made = dict(batch) if step.keep else without(batch, taken)
    put(made, step.into, images)
    return made


@functools.lru_cache(maxsize=64)
def _uploaded(numbers: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """Numbers that are there once this returns."""
    return torch.tensor(numbers, dtype=torch.float64, device=device)


def _rows(batch: Batch, name: str) -> DeviceItems:
    items = DeviceItems.of(batch, name)
    if not isinstance(items.value, Jagged | Padded):
        raise Refusal
    return items


def _check_same(one: DeviceItems, other: DeviceItems, context: Context) -> None:
    if one.offsets.shape != other.offsets.shape:
        raise Refusal
    if one.offsets is not other.offsets:
        context.faults.add(one.offsets != other.offsets)
