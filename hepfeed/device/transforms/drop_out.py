"""Drop-out of items, sites and parts of images."""

from __future__ import annotations

import math
from typing import Any

import torch

from hepfeed.device import native
from hepfeed.device.transforms.arrays import has_numbers, movable, take_rows
from hepfeed.device.transforms.context import Context
from hepfeed.device.transforms.faults import Refusal
from hepfeed.device.transforms.items import site_offsets
from hepfeed.tensors import Sparse
from hepfeed.transforms.drop_out import DropOut
from hepfeed.transforms.geometry import lengths_along, same_lengths
from hepfeed.transforms.step import Batch

__all__ = ["drop_out"]


def drop_out(step: DropOut, batch: Batch, context: Context) -> Batch:
    """Drop what the CPU drops; sparse images cost a wait for the number of sites that are left."""
    made = dict(batch)
    first: tuple[str, tuple[int, ...]] | None = None
    for key, value, axes in step.images(batch, None if step.per == "pixel" else sorted(step.per)):
        lengths = lengths_along(key, value, axes)
        first = first or (key, lengths)
        same_lengths(first, key, lengths, axes)
        if step.per != "pixel":
            made[key] = _without_parts(value, axes, lengths, step.probability, context)
        elif isinstance(value, Sparse):
            _check_same_sites(batch[first[0]], value, context)
            kept = context.uniform(site_offsets(value), len(value.indices)) >= step.probability
            made[key] = _without_sites(value, kept)
        else:
            made[key] = _without_items(value, step.probability, context)
    return made


def _check_same_sites(one: Any, other: Sparse, context: Context) -> None:
    if not isinstance(one, Sparse) or one.indices.shape != other.indices.shape:
        raise Refusal
    if one.indices is not other.indices:
        context.faults.add(one.indices != other.indices)


def _without_items(value: Any, probability: float, context: Context) -> torch.Tensor:
    if not has_numbers(value):
        raise Refusal
    items = value.contiguous()
    out = torch.empty_like(items)
    offsets = context.each(math.prod(items.shape[1:]))
    native.kernels().drop_items(
        native.address(items),
        native.address(out),
        items.element_size(),
        (native.address(offsets), len(items), 1),
        items.numel(),
        context.key(),
        probability,
        context.stream,
    )
    return out


def _without_parts(
    value: Any, axes: tuple[int, ...], lengths: tuple[int, ...], probability: float, context: Context
) -> Any:
    parts = math.prod(lengths)
    events = len(context.event)
    keep = context.uniform(context.each(parts), events * parts) >= probability
    if isinstance(value, Sparse):
        return _without_sites(value, keep.index_select(0, _parts_of(value, axes, lengths, context)))
    along = [n if axis in axes else 1 for axis, n in enumerate(value.shape[1:])]
    items = movable(value)
    return torch.where(keep.reshape(events, *along), items, items.new_zeros(())).view(value.dtype)


def _parts_of(value: Sparse, axes: tuple[int, ...], lengths: tuple[int, ...], context: Context) -> torch.Tensor:
    """Return the number of the part of each site, those of all events being numbered through."""
    part = value.indices[:, 0].long()
    outside = (part < 0) | (part >= value.batch_size)
    for axis, length in zip(axes, lengths):
        place = value.indices[:, 1 + axis].long()
        outside |= (place < 0) | (place >= length)
        part = part * length + place
    context.faults.add(outside)
    return torch.where(outside, 0, part)


def _without_sites(value: Sparse, keep: torch.Tensor) -> Sparse:
    kept = keep.nonzero()[:, 0]
    return Sparse(
        take_rows(value.features, kept), value.indices.index_select(0, kept), value.spatial_shape, value.batch_size
    )
