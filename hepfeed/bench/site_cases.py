"""Transforms between dense images and their sites, with their twins and rivals."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hepfeed import _cache
from hepfeed.bench.inputs import Place
from hepfeed.bench.transform_case import TransformCase
from hepfeed.draws import Draws
from hepfeed.reference import cells as cells_reference
from hepfeed.reference import voxels as reference
from hepfeed.tensors import Sparse
from hepfeed.transforms.densify import Densify
from hepfeed.transforms.flip import Flip
from hepfeed.transforms.sparsify import Sparsify

__all__ = ["site_cases"]

KEY = "ECAL"
CELL_BYTES = 2

Images = NDArray[np.float32]


def site_cases(images: Images, draws: Draws, place: Place) -> Iterator[TransformCase]:
    """Yield the cases.

    Args:
        images: ``(B, *shape)``.
        draws: Of their events.
        place: Makes the tensors that torch computes with.
    """
    sparse = reference.sparsify(images)
    size = f"{len(images)} images of {images.shape[1]}^3, {100 * len(sparse.indices) / images.size:.2g} %"
    yield _scattered(images, size, draws, place)
    yield _densified(sparse, images.shape, size, draws, place)
    yield _sparsified(images, size, draws, place)
    yield _flipped(sparse, size, draws, place)


def _scattered(images: Images, size: str, draws: Draws, place: Place) -> TransformCase:
    """Of the cache: cells to the slot of a batch."""
    count, volume = len(images), math.prod(images.shape[1:])
    counts, cells, values = cells_reference.pack(images, count, CELL_BYTES)
    starts = np.cumsum(counts) - counts
    slot = np.empty((count, volume), np.float32)
    of_cells, of_values = _addresses(cells, starts), _addresses(values, starts)
    targets = _addresses(slot, np.arange(count) * volume)
    flat = np.repeat(np.arange(count) * volume, counts) + cells
    flat_there, values_there, slot_there = place(flat), place(values), place(slot).clone()

    def kernel() -> Images:
        faults = _cache.densify(of_cells, of_values, counts, targets, volume, CELL_BYTES, slot.itemsize, False)
        assert not faults.any(), "cells are within their images"
        return slot

    def by_numpy() -> Images:
        slot.fill(0)
        slot.reshape(-1)[flat] = values
        return slot

    def by_torch() -> torch.Tensor:
        slot_there.zero_().view(-1)[flat_there] = values_there
        return slot_there

    return TransformCase(
        f"scatter of cached cells, {size}",
        {},
        draws,
        KEY,
        lambda: cells_reference.densify(cells, values, counts, volume),
        cells.nbytes + values.nbytes,
        kernel=kernel,
        rivals={"NumPy": by_numpy, "torch": by_torch},
    )


def _addresses(array: NDArray[Any], items: NDArray[np.int64]) -> NDArray[np.uint64]:
    return (array.ctypes.data + items * array.itemsize).astype(np.uint64)


def _densified(sparse: Sparse, shape: tuple[int, ...], size: str, draws: Draws, place: Place) -> TransformCase:
    there = sparse.map(place)
    strides = place(np.array([math.prod(shape[axis + 1 :]) for axis in range(len(shape))], np.int64))

    def by_numpy() -> Images:
        made = np.zeros(shape, np.float32)
        made.reshape(-1)[np.ravel_multi_index(tuple(sparse.indices.T), shape)] = sparse.features[:, 0]
        return made

    def by_torch() -> torch.Tensor:
        made = torch.zeros(shape, device=strides.device)
        made.view(-1)[(there.indices * strides).sum(1)] = there.features[:, 0]
        return made

    return TransformCase(
        f"densify, {size}",
        {KEY: sparse},
        draws,
        KEY,
        lambda: reference.densify(sparse),
        sparse.features.nbytes + sparse.indices.nbytes,
        (Densify(keys=KEY),),
        rivals={"NumPy": by_numpy, "torch": by_torch},
    )


def _sparsified(images: Images, size: str, draws: Draws, place: Place) -> TransformCase:
    there, shape, count = place(images), images.shape[1:], len(images)

    def by_numpy() -> Sparse:
        flat = np.flatnonzero(images > 0)
        indices = np.stack(np.unravel_index(flat, images.shape), axis=1).astype(np.int32)
        return Sparse(images.reshape(-1)[flat][:, None], indices, shape, count)

    def by_torch() -> Sparse:
        active = there > 0
        return Sparse(there[active][:, None], active.nonzero().int(), shape, count)

    return TransformCase(
        f"sparsify, {size}",
        {KEY: images},
        draws,
        KEY,
        lambda: reference.sparsify(images),
        images.nbytes,
        (Sparsify(keys=KEY),),
        rivals={"NumPy": by_numpy, "torch": by_torch},
    )


def _flipped(sparse: Sparse, size: str, draws: Draws, place: Place) -> TransformCase:
    """Sites move, and are sorted again."""
    chosen = draws.uniform(2) < 0.5
    flags = np.concatenate([chosen, np.zeros((len(chosen), 1), np.bool_)], axis=1)
    shape = (sparse.batch_size, *sparse.spatial_shape)
    last = np.array(sparse.spatial_shape, np.int32) - 1
    there, flags_there, last_there = sparse.map(place), place(flags), place(last)
    strides = place(np.array([math.prod(shape[axis + 1 :]) for axis in range(len(shape))], np.int64))

    def by_numpy() -> Sparse:
        event, coords = sparse.indices[:, 0], sparse.indices[:, 1:]
        coords = np.where(flags[event], last - coords, coords)
        order = np.argsort(np.ravel_multi_index((event, *coords.T), shape))
        indices = np.concatenate([event[:, None], coords], axis=1)[order]
        return _sites(sparse, sparse.features[order], indices)

    def by_torch() -> Sparse:
        event, coords = there.indices[:, :1], there.indices[:, 1:]
        moved = torch.where(flags_there[event[:, 0].long()], last_there - coords, coords)
        indices = torch.cat([event, moved], dim=1)
        order = (indices * strides).sum(1).argsort()
        return _sites(sparse, there.features[order], indices[order])

    return TransformCase(
        f"flip of two axes of sites, {size}",
        {KEY: sparse},
        draws,
        KEY,
        lambda: reference.move_sites(sparse, flags, None, sparse.spatial_shape),
        sparse.features.nbytes + sparse.indices.nbytes,
        (Flip(keys=KEY, axes=(0, 1)),),
        rivals={"NumPy": by_numpy, "torch": by_torch},
    )


def _sites(like: Sparse, features: Any, indices: Any) -> Sparse:
    return Sparse(features, indices, like.spatial_shape, like.batch_size)
