"""Functions of one number: all steps of them are one kernel that runs their program."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch

from hepfeed.device import native
from hepfeed.device.transforms.arrays import as_array, real_type
from hepfeed.device.transforms.context import Context
from hepfeed.device.transforms.faults import Refusal
from hepfeed.device.transforms.items import DeviceItems
from hepfeed.programs import Operation
from hepfeed.transforms.lookup import names_of
from hepfeed.transforms.pointwise import Pointwise
from hepfeed.transforms.step import Batch

__all__ = ["map_numbers"]

_NUMBERS = {"linear": 0, "clip": 1, "log": 2, "log_tanh": 3, "round": 4}
_REFUSING = ("log", "log_tanh")


def map_numbers(step: Pointwise, batch: Batch, context: Context) -> Batch:
    """Map every number of the step's keys; the same bits as on the CPU."""
    made = dict(batch)
    for key in names_of(step.keys):
        items = DeviceItems.of(batch, key)
        axis = step.channel_axis(key)
        rows = _run(items, step.operations(key), None if axis is None else items.axis(axis), context)
        made[key] = items.put(rows)
    return made


def _run(items: DeviceItems, operations: Sequence[Operation], axis: int | None, context: Context) -> torch.Tensor:
    rows = items.rows
    out = torch.empty_like(rows, dtype=real_type(rows.dtype))
    chosen = tuple(op for op in operations if op.name != "round" or out.dtype == torch.float32)
    channels = {op.channels for op in chosen} - {None}
    if channels and (axis is None or channels != {rows.shape[axis]}):
        raise Refusal
    entries = max(rows.shape[axis], 1) if channels and axis is not None else 1
    run = max(math.prod(rows.shape[axis + 1 :]), 1) if axis is not None else 1
    refuses = any(op.name in _REFUSING for op in chosen)
    ops, params = _table(chosen, entries, rows.device)
    native.kernels().pointwise(
        as_array(rows),
        as_array(out),
        rows.numel(),
        native.address(ops),
        len(chosen),
        native.address(params),
        entries,
        run,
        *items.present(),
        context.faults.address() if refuses else 0,
        context.stream,
    )
    return out


@functools.lru_cache(maxsize=64)
def _table(operations: tuple[Operation, ...], channels: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers of the operations, and their parameters ``(length, 3, channels)``; they are there once this returns."""
    params = [
        [list(value) if isinstance(value, tuple) else [value] * channels for value in (op.p, op.q, op.r)]
        for op in operations
    ]
    return (
        torch.tensor([_NUMBERS[op.name] for op in operations], dtype=torch.int32, device=device),
        torch.tensor(params, dtype=torch.float64, device=device),
    )
