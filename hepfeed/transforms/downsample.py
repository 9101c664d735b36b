"""The step that makes images coarser."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import model_validator

from hepfeed.draws import Draws
from hepfeed.errors import HepfeedError, ProcessError, SpecError
from hepfeed.images import Reduction, block_reduce, reduced_type
from hepfeed.tensors import Sparse
from hepfeed.transforms.geometry import Axes, GeometryStep, Lengths, lengths_along, sites
from hepfeed.transforms.step import Batch
from hepfeed.voxels import resite

__all__ = ["Downsample"]


class Downsample(GeometryStep):
    """Replaces blocks of items by their sum, mean or maximum: ``out[x]`` is that of items ``factor x`` and following.

    Sums of floats and means are taken in float64.  Sums and means are float64 for float64 and float32 for other floats
    (also float16); sums of integers are int64 and an error where they do not fit; means of integers are float32; maxima
    of integers keep their type.  Sparse images give what their dense form would, at sites where any site was before.

    Attributes:
        keys: Dense or sparse images.
        factor: Lengths of a block: one number for all axes, or one for each.
        reduce: What becomes of a block.
        partial: Accept blocks at the end of an axis that are not whole; a mean is that of the items there are.
        axes: Which axes are made coarser; None: all.

    Raises:
        ProcessError: A key holds no images of numbers, lacks an axis, is not whole blocks, or a sum does not fit int64.
    """

    factor: Lengths
    reduce: Reduction = "sum"
    partial: bool = False
    axes: Axes | None = None

    @model_validator(mode="after")
    def _check(self) -> Downsample:
        if self.axes is not None and len(self.factor) not in (1, len(self.axes)):
            raise SpecError(f"factor must be one number or one for each of axes {self.axes}, not {self.factor}")
        return self

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with coarser images."""
        made = dict(batch)
        for key, value, axes in self.images(batch, self.axes):
            if len(self.factor) not in (1, len(axes)):
                raise ProcessError(
                    f"factor {self.factor} has {len(self.factor)} numbers, and key {key!r} has {len(axes)} axes: give"
                    " as many, or name the axes",
                    key=key,
                )
            every = range(len(value.spatial_shape) if isinstance(value, Sparse) else value.ndim - 1)
            given = dict(zip(axes, self.factor * len(axes) if len(self.factor) == 1 else self.factor))
            factor = tuple(given.get(axis, 1) for axis in every)
            try:
                if isinstance(value, Sparse):
                    made[key] = self._coarser(key, value, factor)
                else:
                    made[key] = block_reduce(value, factor, self.reduce, self.partial)
            except HepfeedError as error:
                error.key = error.key or key
                raise
        return made

    def _coarser(self, key: str, value: Sparse, factor: tuple[int, ...]) -> Sparse:
        lengths = np.array(lengths_along(key, value, range(len(factor))), np.int64)
        block = np.array(factor, np.int64)
        if not self.partial and (lengths % block).any():
            raise ProcessError(
                f"images of {value.spatial_shape} are not whole blocks of {factor}: pad or crop them first, or give"
                " partial=True"
            )
        coords, _ = sites(value)
        features = np.asarray(value.features)
        dtype = reduced_type(features.dtype, self.reduce)
        # Sums of integers are exact; the mean of a block is its sum over the items that it has, sites or not.
        wide: np.dtype[Any] = np.dtype(np.float64) if self.reduce == "mean" else dtype
        moved = replace(value, features=features.astype(wide), kernel_maps=())
        shape = [int(-(-length // f)) for length, f in zip(lengths, block)]
        made = resite(moved, coords // block, None, shape, "max" if self.reduce == "max" else "sum")
        place = made.indices[:, 1:].astype(np.int64)
        items = np.minimum(block, lengths - place * block).prod(axis=1)[:, None]
        result = np.asarray(made.features)
        if self.reduce == "mean":
            result = result / items
        elif self.reduce == "max":
            counted = replace(moved, features=np.ones((len(coords), 1), np.int64))
            there = resite(counted, coords // block, None, shape, "sum").features
            if math.prod(factor) > 1:  # what is no site is 0
                result = np.where((there < items) & (result < 0), np.zeros((), result.dtype), result)
        return replace(made, features=result.astype(dtype, copy=False))
