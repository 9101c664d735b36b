"""Points that are mirrored, shifted, scaled, turned and jittered."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from hepfeed.device.transforms.arrays import has_numbers, is_float, movable, upload
from hepfeed.device.transforms.casting import cast_numbers
from hepfeed.device.transforms.context import Context
from hepfeed.device.transforms.faults import Refusal
from hepfeed.device.transforms.items import DeviceItems
from hepfeed.tensors import Jagged, Padded
from hepfeed.transforms.flip_points import FlipPoints
from hepfeed.transforms.jitter import Jitter
from hepfeed.transforms.lookup import names_of
from hepfeed.transforms.rotate_points import RotatePoints
from hepfeed.transforms.rows import Coords, groups_of
from hepfeed.transforms.scale_points import ScalePoints
from hepfeed.transforms.shift_points import ShiftPoints
from hepfeed.transforms.step import Batch, Keys

__all__ = ["flip_points", "jitter", "rotate_points", "scale_points", "shift_points"]

_SMALL = (torch.int8, torch.int16, torch.uint8, torch.uint16, torch.float16, torch.float32)
"""Types that float32 holds exactly."""


@dataclass(frozen=True)
class _Rows:
    """Vectors of a batch, from one key of vectors or several of components; as :class:`hepfeed.transforms.rows.Rows`.

    Attributes:
        keys: Where they come from: a str for vectors, a tuple for components.
        items: Of each key.
        values: ``(T, D)``: float64, or int64 where all are integers.
        offsets: ``(B + 1,) int64``.
        event: ``(T,) int64``: place in the batch of the event of each row.
    """

    keys: Keys
    items: list[DeviceItems]
    values: torch.Tensor
    offsets: torch.Tensor
    event: torch.Tensor

    @classmethod
    def of(cls, batch: Batch, keys: Keys, context: Context) -> _Rows:
        """Gather vectors.

        Raises:
            Refusal: A key holds no such numbers.
        """
        items = [DeviceItems.of(batch, name) for name in names_of(keys)]
        first = items[0]
        for each in items:
            _check_form(first, each, isinstance(keys, str), context)
        whole = all(not is_float(each.rows) and each.rows.dtype != torch.uint64 for each in items)
        parts = [cast_numbers(each.rows, torch.int64 if whole else torch.float64, context) for each in items]
        if isinstance(keys, str):
            values = parts[0].reshape(-1, first.rows.shape[-1])
        else:
            values = torch.stack([part.reshape(-1) for part in parts], dim=-1)
        structured = isinstance(first.value, Jagged | Padded)
        rows = 1 if structured else math.prod(first.rows.shape[1 : first.rows.ndim - isinstance(keys, str)])
        offsets = first.offsets * rows
        places = torch.arange(len(values), device=values.device)
        event = torch.searchsorted(offsets, places, right=True) - 1
        # Rows of padding belong to no event, and are not written back.
        return cls(keys, items, values, offsets, event.clamp(max=len(offsets) - 2))

    @property
    def width(self) -> int:
        """Number of coordinates."""
        return self.values.shape[1]

    @property
    def name(self) -> str:
        """The first key."""
        return names_of(self.keys)[0]

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """Return ``(T, ...)``: for each row what ``values (B, ...)`` has for its event."""
        return values.index_select(0, self.event)

    def real(self) -> torch.Tensor:
        """Return the vectors as float64."""
        return self.values.double()

    def put(self, batch: Batch, values: torch.Tensor, context: Context, whole: bool = False) -> None:
        """Write vectors back to their keys; types as of :meth:`hepfeed.transforms.rows.Rows.put`."""
        for axis, items in enumerate(self.items):
            given = items.rows.dtype
            column = (values if isinstance(self.keys, str) else values[:, axis]).reshape(items.rows.shape)
            if whole:
                made = cast_numbers(column, given, context)
            else:
                made = column.to(torch.float32 if given in _SMALL else torch.float64)
            new = items.put(made)
            if isinstance(new, Padded):  # what pads stays what it was
                old = cast_numbers(items.value.values, made.dtype, context)
                there = new.mask.reshape(*new.mask.shape, *[1] * (old.ndim - 2))
                kept = torch.where(there, movable(new.values), movable(old)).view(made.dtype)
                new = replace(new, values=kept)
            batch[items.key] = new


def _check_form(first: DeviceItems, each: DeviceItems, vectors: bool, context: Context) -> None:
    structured = isinstance(each.value, Jagged | Padded)
    depth = 1 + vectors
    deep = each.rows.ndim == depth if structured else each.rows.ndim >= depth
    plain = structured or isinstance(each.value, torch.Tensor)
    if not (plain and deep and has_numbers(each.rows)) or each.rows.dtype == torch.bool:
        raise Refusal
    if type(first.value) is not type(each.value) or first.rows.shape != each.rows.shape:
        raise Refusal
    if first is not each and structured:
        context.faults.add(first.offsets != each.offsets)
        if isinstance(first.value, Padded):
            context.faults.add(first.value.mask != each.value.mask)


def _sets(batch: Batch, coords: Coords, context: Context) -> list[_Rows]:
    sets = [_Rows.of(batch, group, context) for group in groups_of(batch, coords)]
    if any(rows.width != sets[0].width for rows in sets):
        raise Refusal
    return sets


def flip_points(step: FlipPoints, batch: Batch, context: Context) -> Batch:
    """Mirror points."""
    axes = (step.axes,) if isinstance(step.axes, int) else step.axes
    flipped = upload(context.draws.uniform(len(axes)) < step.probability, context.device)
    about = np.broadcast_to(np.asarray(step.about, np.float64), len(axes))
    made = dict(batch)
    for rows in _sets(batch, step.coords, context):
        _flip(made, rows, axes, flipped, 2 * about, context)
    for rows in _sets(batch, step.directions, context) if step.directions else ():
        _flip(made, rows, axes, flipped, 0 * about, context)
    return made


def _flip(
    made: Batch, rows: _Rows, axes: tuple[int, ...], flipped: torch.Tensor, mirrors: Any, context: Context
) -> None:
    if max(axes) >= rows.width:
        raise Refusal
    whole = not is_float(rows.values) and bool((mirrors == np.rint(mirrors)).all())
    columns = list((rows.values if whole else rows.real()).unbind(1))
    flags = rows.spread(flipped)
    for i, axis in enumerate(axes):
        mirror = int(mirrors[i]) if whole else float(mirrors[i])
        columns[axis] = torch.where(flags[:, i], mirror - columns[axis], columns[axis])
    rows.put(made, torch.stack(columns, dim=1), context, whole)


def shift_points(step: ShiftPoints, batch: Batch, context: Context) -> Batch:
    """Move the points of each event together."""
    sets = _sets(batch, step.coords, context)
    if isinstance(step.shift, tuple) and len(step.shift) != sets[0].width:
        raise Refusal
    limit = np.broadcast_to(np.asarray(step.shift, np.float64), sets[0].width)
    u = context.draws.uniform(sets[0].width)
    steps = np.floor(limit)
    whole = upload(np.floor(u * (2 * steps + 1) - steps).astype(np.int64), context.device)
    real = upload(limit * (2 * u - 1), context.device)
    made = dict(batch)
    for rows in sets:
        if is_float(rows.values):
            rows.put(made, rows.values + rows.spread(real), context)
        else:
            rows.put(made, rows.values + rows.spread(whole), context, whole=True)
    return made


def scale_points(step: ScalePoints, batch: Batch, context: Context) -> Batch:
    """Scale the points of each event about a centre that is given."""
    sets = _sets(batch, step.coords, context)
    factors = upload(context.draws.uniform(sets[0].width if step.per_axis else 1, step.low, step.high), context.device)
    middle = _middle(step.about, sets[0].width, context)
    made = dict(batch)
    for rows in sets:
        if middle is None:
            rows.put(made, rows.spread(factors) * rows.real(), context)
        else:
            rows.put(made, rows.spread(factors) * (rows.real() - middle) + middle, context)
    return made


def rotate_points(step: RotatePoints, batch: Batch, context: Context) -> Batch:
    """Turn the points of each event about a centre that is given."""
    sets = _sets(batch, step.coords, context)
    others = _sets(batch, step.directions, context) if step.directions else []
    first = sets[0]
    matrices = step.matrices(first.name, first.width, context.draws)
    there = upload(matrices, context.device)
    middle = _middle(step.about, first.width, context)
    made = dict(batch)
    for rows in sets:
        if middle is None:
            rows.put(made, _turned(rows, rows.real(), matrices, there), context)
        else:
            rows.put(made, _turned(rows, rows.real() - middle, matrices, there) + middle, context)
    for rows in others:
        if rows.width != first.width:
            raise Refusal
        rows.put(made, _turned(rows, rows.real(), matrices, there), context)
    return made


def _turned(rows: _Rows, vectors: torch.Tensor, matrices: Any, there: torch.Tensor) -> torch.Tensor:
    """Return the products, added in the order of the CPU and without those that are 0 in every event."""
    turned = []
    for i in range(rows.width):
        total = torch.zeros_like(vectors[:, 0])
        for j in range(rows.width):
            entries = matrices[:, i, j]
            if (entries == 1).all():
                total = total + vectors[:, j]
            elif entries.any():
                total = total + rows.spread(there[:, i, j]) * vectors[:, j]
        turned.append(total)
    return torch.stack(turned, dim=1)


def jitter(step: Jitter, batch: Batch, context: Context) -> Batch:
    """Move every point by normal random numbers."""
    sets = _sets(batch, step.coords, context)
    first = sets[0]
    if isinstance(step.sigma, tuple) and len(step.sigma) != first.width:
        raise Refusal
    count = first.values.numel()
    numbers = context.normal(first.offsets * first.width, count).reshape(first.values.shape)
    sigma = upload(np.broadcast_to(np.asarray(step.sigma, np.float64), first.width), context.device)
    moves = numbers * sigma
    made = dict(batch)
    for rows in sets:
        if rows.offsets.shape != first.offsets.shape or len(rows.values) != len(first.values):
            raise Refusal
        if rows is not first:
            context.faults.add(rows.offsets != first.offsets)
        rows.put(made, rows.real() + moves, context)
    return made


def _middle(about: Any, width: int, context: Context) -> torch.Tensor | None:
    """Return the centre of all events, ``(D,)``; None for the origin."""
    if about == "origin":
        return None
    if len(about) != width:
        raise Refusal
    return upload(np.asarray(about, np.float64), context.device)
