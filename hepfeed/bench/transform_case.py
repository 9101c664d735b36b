"""A transform to be timed: hepfeed's, its plain twin, and the forms that rivals give it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hepfeed.bench.inputs import Place
from hepfeed.device.steps import DeviceSteps
from hepfeed.device.transforms.registry import why_not_on_device
from hepfeed.draws import Draws
from hepfeed.pipeline import Pipeline
from hepfeed.tensors import Batch, Structured
from hepfeed.transforms.step import Step

__all__ = ["Run", "TransformCase", "arrays_of", "wrong"]

Run = Callable[[], Any]
Trouble = Callable[[Any], str | None]


@dataclass(frozen=True)
class TransformCase:
    """One row to be.

    What a step draws at random, rivals are given for nothing where they move images, so that results can be compared;
    noise they draw by their own generators.

    Attributes:
        what: Its name.
        batch: NumPy arrays and structured arrays.
        draws: Random numbers of its events.
        key: Of the batch, which the steps make or change.
        twin: Returns the same by :mod:`hepfeed.reference`, from the same arrays and random numbers.
        reads: Bytes that can't be left unread.
        steps: Of hepfeed.
        kernel: Instead of steps, a call of hepfeed that is none.
        rivals: Of each name, what returns the same.
        tolerance: Largest error over the largest number; 0: all bits are the same.
        differs: Says how the result of a rival with random numbers of its own is wrong, or None.
    """

    what: str
    batch: Batch
    draws: Draws
    key: str
    twin: Run
    reads: int
    steps: tuple[Step, ...] = ()
    kernel: Run | None = None
    rivals: Mapping[str, Run] = field(default_factory=dict)
    tolerance: float = 0.0
    differs: Trouble | None = None

    def on_host(self) -> Run:
        """Return what hepfeed does in a reader."""
        if self.kernel is not None:
            return self.kernel
        pipeline = Pipeline(self.steps)
        return lambda: pipeline(self.batch, self.draws, restore=False)[self.key]

    def not_on_device(self) -> str:
        """Return why hepfeed can't do it on a device; empty where it can."""
        if self.kernel is not None:
            return "it is done in the readers"
        return next(filter(None, map(why_not_on_device, self.steps)), "")

    def on_device(self, place: Place) -> Run:
        """Return what hepfeed does on a device, the wait for a refused number included."""
        steps = DeviceSteps(self.steps)
        batch = {
            key: value.map(place) if isinstance(value, Structured) else place(value)
            for key, value in self.batch.items()
        }
        return lambda: steps(batch, self.draws)[self.key]


def arrays_of(result: Any) -> list[NDArray[Any]]:
    """Return all arrays of a result, on the host."""
    parts = list(result.arrays().values()) if isinstance(result, Structured) else [result]
    return [part.cpu().numpy() if isinstance(part, torch.Tensor) else np.asarray(part) for part in parts]


def wrong(result: Any, expected: list[NDArray[Any]], tolerance: float) -> str | None:
    """Return how a result differs from what was expected, or None: in forms, types, or numbers.

    Integers must be the same always; floats within ``tolerance`` of the largest number.
    """
    found = arrays_of(result)
    forms = [[(part.shape, str(part.dtype)) for part in parts] for parts in (found, expected)]
    if forms[0] != forms[1]:
        return f"arrays {forms[0]} instead of {forms[1]}"
    for got, wanted in zip(found, expected):
        exact = not tolerance or wanted.dtype.kind != "f"
        if exact and not np.array_equal(got, wanted):
            return f"{np.count_nonzero(got != wanted):,} of {wanted.size:,} numbers differ"
        if not exact and wanted.size:
            largest = float(np.abs(wanted).max()) or 1.0
            error = float(np.abs(got.astype(np.float64) - wanted).max()) / largest
            if not error <= tolerance:
                return f"wrong by {error:.2g} of the largest number, more than {tolerance:g}"
    return None
