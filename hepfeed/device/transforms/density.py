"""Dense images of sparse ones, and back."""

from __future__ import annotations

import math

import numpy as np
import torch

from hepfeed.device import native
from hepfeed.device.transforms.arrays import as_array, has_numbers, is_float, movable, numpy_type, torch_type
from hepfeed.device.transforms.casting import cast_numbers
from hepfeed.device.transforms.context import Context
from hepfeed.device.transforms.faults import Refusal
from hepfeed.errors import SpecError
from hepfeed.grid import check_shape
from hepfeed.tensors import Sparse, Structured
from hepfeed.transforms.densify import Densify
from hepfeed.transforms.lookup import find, names_of
from hepfeed.transforms.points import check_into, put, without
from hepfeed.transforms.sparsify import Sparsify
from hepfeed.transforms.step import Batch
from hepfeed.voxels import spatial

__all__ = ["densify", "sparsify"]

_MAX_AXES = 8
_EXACT_IN_FLOAT32 = 2.0**24


def densify(step: Densify, batch: Batch, context: Context) -> Batch:
    """Make dense images: a memset and a scatter, without a wait."""
    made = without(batch, step.keys) if step.into is None else dict(batch)
    for key, into in zip(names_of(step.keys), check_into(step.keys, step.into)):
        sparse = find(batch, key)
        if not isinstance(sparse, Sparse):
            raise Refusal
        features = sparse.features
        if step.dtype is not None:
            features = cast_numbers(features, torch_type(step.dtype), context)
        put(made, into, _dense(sparse, features, step.channel_axis, context))
    return made


def _dense(sparse: Sparse, features: torch.Tensor, channel_axis: int | None, context: Context) -> torch.Tensor:
    grid = check_shape(sparse.spatial_shape, "spatial_shape")
    channels, axes = features.shape[1], len(grid)
    if not has_numbers(features) or (channel_axis is None and channels != 1):
        raise Refusal
    if axes > _MAX_AXES:
        raise SpecError(f"images that are made dense on a device have up to {_MAX_AXES} axes, not {axes}")
    shape, inner = [sparse.batch_size, *grid], 1
    if channel_axis is not None:
        if not -axes - 1 <= channel_axis <= axes:
            raise Refusal
        axis = channel_axis % (axes + 1)
        shape.insert(1 + axis, channels)
        inner = math.prod(grid[axis:])
    dense = torch.zeros(shape, dtype=movable(features).dtype, device=features.device).view(features.dtype)
    indices, given = sparse.indices.contiguous(), features.contiguous()
    native.kernels().put_sites(
        native.address(indices),
        native.address(given),
        given.element_size(),
        len(indices),
        grid,
        sparse.batch_size,
        channels,
        inner,
        native.address(dense),
        context.faults.address(),
        context.stream,
    )
    return dense


def sparsify(step: Sparsify, batch: Batch, context: Context) -> Batch:
    """Keep the sites above the threshold; waits for their number."""
    made = without(batch, step.keys) if step.into is None else dict(batch)
    for key, into in zip(names_of(step.keys), check_into(step.keys, step.into)):
        dense = find(batch, key)
        if isinstance(dense, Structured) or not isinstance(dense, torch.Tensor) or not has_numbers(dense):
            raise Refusal
        put(made, into, _sparse(dense.contiguous(), step, context))
    return made


def _sparse(dense: torch.Tensor, step: Sparsify, context: Context) -> Sparse:
    axis, shape = spatial(dense.shape, step.channel_axis)
    channels, inner = (1, 1) if axis is None else (dense.shape[1 + axis], math.prod(dense.shape[2 + axis :]))
    threshold = step.threshold
    if is_float(dense):
        with np.errstate(over="ignore"):
            threshold = float(numpy_type(dense.dtype).type(threshold))
    marks = torch.empty((len(dense), *shape), dtype=torch.bool, device=dense.device)
    native.kernels().mark_active(
        as_array(dense),
        dense.numel() // max(channels * inner, 1),
        channels,
        inner,
        threshold,
        step.absolute,
        native.address(marks),
        context.stream,
    )
    sites = marks.nonzero()
    images = movable(dense)[..., None] if axis is None else movable(dense).movedim(1 + axis, -1)
    found = images[tuple(sites.unbind(1))].view(dense.dtype)
    kind = torch.float64 if dense.dtype == torch.float64 else torch.float32
    features = cast_numbers(found, kind, context)
    if not is_float(dense) and dense.element_size() >= 4:  # which float32 may round
        context.faults.add(features.abs() >= _EXACT_IN_FLOAT32)
    return Sparse(features, sites.int(), shape, len(dense))
