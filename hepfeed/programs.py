"""Programs of functions of one number, which a native kernel runs on all items in one pass over memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hepfeed import _images
from hepfeed.errors import ProcessError
from hepfeed.images import native, real_type

__all__ = ["Operation", "run_program"]

_NUMBERS = {"linear": 0, "clip": 1, "log": 2, "log_tanh": 3, "round": 4}
_LONG_RUN = 64  # items of one channel that lie together, from which on the parameters are looked up run by run
_TABLE = 1024  # entries of a table of parameters, at least

Parameter = float | tuple[float, ...]
"""A number, or one for each channel."""


@dataclass(frozen=True)
class Operation:
    """One operation with up to three parameters; arithmetic is in float64.

    - ``linear``: ``(x - p) q + r``
    - ``clip``: ``min(max(x, p), q)``; NaN stays
    - ``log``: ``log(x + p) q``, of the exact sum; refused where ``x + p <= 0``
    - ``log_tanh``: ``tanh(log(1 + p x))``, which is ``t (t + 2) / (t (t + 2) + 2)`` with ``t = p x``; refused where
      ``1 + t <= 0``
    - ``round``: ``float32(x)``, as if it had been stored; nothing where the output is float64

    Attributes:
        name: Of the operation.
        p: First parameter.
        q: Second.
        r: Third.
    """

    name: Literal["linear", "clip", "log", "log_tanh", "round"]
    p: Parameter = 0.0
    q: Parameter = 1.0
    r: Parameter = 0.0

    @property
    def channels(self) -> int | None:
        """Number of channels; None where all parameters are for every channel."""
        lengths = [len(value) for value in (self.p, self.q, self.r) if isinstance(value, tuple)]
        return max(lengths) if lengths else None


@dataclass(frozen=True)
class _Table:
    """Parameters as the kernel takes them: item i uses entry ``(i // run) % entries``."""

    params: NDArray[np.float64] = field(repr=False)
    run: int


def run_program(
    values: NDArray[Any], operations: Sequence[Operation], axis: int | None = None
) -> tuple[NDArray[Any], int]:
    """Run operations, one after another, on every item.

    Args:
        values: Numbers, of any shape.
        operations: What to do; those with parameters for each channel need ``axis``.
        axis: Axis of ``values`` that holds the channels.

    Returns:
        The results, float64 for float64 and float32 for all other types, rounded once; and the flat place of the first
        item that an operation refuses, or -1.  The results are of no use where one is refused.

    Raises:
        ProcessError: Items are not numbers, or the channels differ in number from the parameters.
    """
    items = native(values)
    dtype = real_type(items.dtype)
    chosen = [op for op in operations if op.name != "round" or dtype == np.float32]
    out = np.empty(items.shape, dtype)
    ops = np.array([_NUMBERS[op.name] for op in chosen], np.int64)
    table = _table(chosen, items.shape, axis)
    return out, _images.pointwise(items, out, ops, table.params, table.run)


def _table(operations: Sequence[Operation], shape: tuple[int, ...], axis: int | None) -> _Table:
    channels = 1
    if any(op.channels for op in operations):
        if axis is None:
            raise ProcessError("parameters are given for each channel: give the axis of the channels as well")
        channels = shape[axis]
        wrong = next((op.channels for op in operations if op.channels not in (None, channels)), None)
        if wrong is not None:
            raise ProcessError(f"there are parameters for {wrong} channels, and axis {axis} of {shape} has {channels}")
    params = np.empty((len(operations), 3, channels))
    for i, op in enumerate(operations):
        for k, value in enumerate((op.p, op.q, op.r)):
            params[i, k] = value
    if channels <= 1 or axis is None:
        return _Table(params if channels else np.zeros((len(operations), 3, 1)), 1)
    run = math.prod(shape[axis % len(shape) + 1 :])
    if run >= _LONG_RUN:
        return _Table(params, run)
    # Channels that change from item to item: a table of all items of one period, or of several periods.
    period = channels * max(run, 1)
    repeats = (1, 1, max(1, _TABLE // period))
    return _Table(np.ascontiguousarray(np.tile(np.repeat(params, max(run, 1), axis=2), repeats)), 1)
