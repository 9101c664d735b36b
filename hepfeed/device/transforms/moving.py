"""Windows, flips and turns by 90 degrees, of dense and sparse images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hepfeed.device import native
from hepfeed.device.sorting import sort_pairs
from hepfeed.device.transforms.arrays import has_numbers, numpy_type, take_rows, upload
from hepfeed.device.transforms.context import Context
from hepfeed.device.transforms.faults import Refusal
from hepfeed.errors import SpecError
from hepfeed.images import fill_item
from hepfeed.tensors import Sparse
from hepfeed.transforms.moving import Move, MovingStep
from hepfeed.transforms.step import Batch

__all__ = ["move_images"]

_MAX_AXES = 8
_MAX_UNITS = 2**31
_UNITS = (16, 8, 4, 2, 1)
_NO_PLANE = -1


def move_images(step: MovingStep, batch: Batch, context: Context) -> Batch:
    """Move images; where to is worked out on the host, a few numbers an event, by the step itself."""
    made = dict(batch)
    for key, value, move in step.moves(batch, context.draws):
        made[key] = _moved_sites(value, move, context) if isinstance(value, Sparse) else _moved(value, move, context)
    return made


def _moved(value: torch.Tensor, move: Move, context: Context) -> torch.Tensor:
    if not has_numbers(value):
        raise Refusal
    images = value.contiguous()
    out = torch.empty((len(images), *move.shape), dtype=images.dtype, device=images.device)
    fill = fill_item(move.fill, numpy_type(images.dtype)).tobytes()
    if not out.numel():
        return out
    shape, stays = images.shape[1:], _stays(images.shape[1:], move)
    kept = max((axis + 1 for axis in range(len(shape)) if not stays[axis]), default=0)
    # Trailing axes that stay are moved in one piece, of as large units as lie well.
    piece = images.element_size() * math.prod(shape[kept:])
    unit = next(
        size for size in _UNITS if not any(n % size for n in (piece, native.address(images), native.address(out)))
    )
    tail = (piece // unit,)
    if kept + 1 > _MAX_AXES or math.prod(move.shape[:kept]) * tail[0] >= _MAX_UNITS:
        raise SpecError(
            f"images are moved on a device along the first {_MAX_AXES - 1} axes, and have less than 2^31 items an"
            f" event, not {tuple(shape)}"
        )
    parameters = _parameters(move, kept, context.device, 1)
    native.kernels().move_images(
        native.address(images),
        native.address(out),
        unit,
        (*shape[:kept], *tail),
        (*move.shape[:kept], *tail),
        len(images),
        *parameters.addresses(),
        fill * (unit // images.element_size()),
        context.stream,
    )
    return out


def _stays(shape: tuple[int, ...], move: Move) -> list[bool]:
    """Which axes no event moves along."""
    stays = [a == b for a, b in zip(shape, move.shape)]
    for moved in (move.origin, move.reverse):
        if moved is not None:
            stays = [stay and not column.any() for stay, column in zip(stays, moved.T)]
    if move.quarters is not None:
        stays = [stay and axis not in move.plane for axis, stay in enumerate(stays)]
    return stays


class _Parameters:
    """A move as kernels take it; it must live until they are launched, since it has the tensors."""

    def __init__(
        self,
        origin: torch.Tensor | None,
        reverse: torch.Tensor | None,
        quarters: torch.Tensor | None,
        plane: tuple[int, int],
    ) -> None:
        self._tensors = origin, reverse, quarters
        self._plane = plane if quarters is not None else (_NO_PLANE, _NO_PLANE)

    def addresses(self) -> tuple[int, ...]:
        return (*map(native.address, self._tensors), *self._plane)


def _parameters(move: Move, axes: int, device: torch.device, more: int = 0) -> _Parameters:
    """Upload the move along the first axes; ``more`` axes behind them stay."""

    def along(array: NDArray[Any] | None, dtype: type) -> torch.Tensor | None:
        if array is None:
            return None
        return upload(np.pad(array[:, :axes], ((0, 0), (0, more))).astype(dtype), device)

    quarters = None if move.quarters is None else upload((move.quarters % 4).astype(np.uint8), device)
    return _Parameters(along(move.origin, np.int64), along(move.reverse, np.uint8), quarters, move.plane)


def _moved_sites(value: Sparse, move: Move, context: Context) -> Sparse:
    axes, count = len(move.shape), len(value.indices)
    cells = math.prod(move.shape)
    beyond = value.batch_size * cells
    if axes > _MAX_AXES or beyond >= 2**63 or count >= 2**31:
        raise SpecError(
            f"sparse images on a device have up to {_MAX_AXES} axes and 2^31 sites, and less than 2^63 cells in all,"
            f" not {count} sites in {value.batch_size} times {move.shape}"
        )
    indices = value.indices.contiguous()
    moved = torch.empty_like(indices)
    keys = torch.empty(count, dtype=torch.int64, device=indices.device)
    rows = torch.empty(count, dtype=torch.int32, device=indices.device)
    parameters = _parameters(move, axes, context.device)
    native.kernels().move_sites(
        native.address(indices),
        count,
        tuple(value.spatial_shape),
        move.shape,
        value.batch_size,
        *parameters.addresses(),
        native.address(moved),
        native.address(keys),
        native.address(rows),
        context.faults.address(),
        context.stream,
    )
    if move.origin is None:
        keys, rows = sort_pairs(keys, rows, beyond + 1)
        # Nothing leaves, unless it was outside before; what was is behind the others now.
        context.faults.add(keys[-1:] == beyond)
        return Sparse(take_rows(value.features, rows), take_rows(moved, rows), move.shape, value.batch_size)
    ends = move.origin + np.array(move.shape)
    if (move.origin <= 0).all() and (ends >= np.array(value.spatial_shape)).all():
        context.faults.add(keys == beyond)
        return Sparse(value.features, moved, move.shape, value.batch_size)
    kept = (keys < beyond).nonzero()[:, 0]
    return Sparse(take_rows(value.features, kept), take_rows(moved, kept), move.shape, value.batch_size)
