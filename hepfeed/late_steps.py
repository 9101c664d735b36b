"""The steps that come last: on the device that a batch was copied to, or here where there is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from hepfeed.batch_spec import BatchSpec
from hepfeed.draws import Draws
from hepfeed.errors import ProcessError, SpecError
from hepfeed.pipeline import Pipeline, Transform
from hepfeed.tensors import Batch, Structured
from hepfeed.transforms.step import Step

__all__ = ["LateSteps"]


class LateSteps:
    """Steps on a batch that has left the readers.

    On a CUDA device they run there.  On the CPU the same steps run in the consumer's process with the same draws, so
    that a program that was written for a device runs without one; steps that no device can run are refused on both.

    Args:
        transforms: Steps, or their names or mappings as in a specification.
        device: Where the batches are.
        first: How many steps come before, in the readers: the draws go by the number of a step.
        augment: False leaves out the steps that draw random numbers.
        arrange: Makes what the loop gets of the dict that the steps leave.

    Raises:
        SpecError: Something is no step, or no step of a device.
    """

    def __init__(
        self,
        transforms: Sequence[Transform] | Transform,
        device: torch.device,
        first: int,
        augment: bool,
        arrange: Callable[[Batch], Any],
    ) -> None:
        from hepfeed.device.steps import DeviceSteps  # only where they are asked for

        pipeline = Pipeline(transforms, first)
        if pipeline.marks_cache:
            raise SpecError("'cache' stands in device_transform: what runs on a device comes after the cache anyway")
        functions = [step for step in pipeline.steps if not isinstance(step, Step)]
        if functions:
            raise SpecError(
                f"device_transform has {functions[0]!r}, but runs hepfeed's steps only: give functions as process_fn or"
                " delivery_fn, or call them in the loop"
            )
        if not augment:
            pipeline = pipeline.without_augmentation()
        # Also where they are not to run, for what it refuses.
        on_device = DeviceSteps([step for step in pipeline.steps if isinstance(step, Step)], first=first)
        self._start = on_device.start if device.type == "cuda" else None
        self._pipeline = pipeline
        self._arrange = arrange

    def draws(self, batch: Any, spec: BatchSpec, seed: int) -> Draws:
        """Return the random numbers of a batch, while it is on the host.

        Raises:
            ProcessError: The batch is no dict.
        """
        if not isinstance(batch, dict):
            raise ProcessError(
                f"device_transform needs a dict of the batch's keys, but delivery_fn returned a {type(batch).__name__}"
            )
        # Steps in the readers may have left events out.
        event = batch["event"].numpy().copy() if "event" in batch else np.stack([spec.file, spec.row], 1)
        return Draws(seed, spec.epoch, spec.index, event)

    def start(self, batch: Batch, draws: Draws) -> tuple[Any, Callable[[], None]]:
        """Queue the steps on the device's current stream.

        Args:
            batch: Of tensors on the device.
            draws: From :meth:`draws`.

        Returns:
            What the loop gets, and what raises the error of a step that refused a number, once that is known.
        """
        assert self._start is not None, "there is a device"
        started = self._start(batch, draws)
        return self._arrange(started.batch), started.check

    def run(self, batch: Batch, draws: Draws) -> Any:
        """Run the steps here, and return what the loop gets."""
        made = self._pipeline(_mapped(batch, torch.Tensor.numpy), draws)
        return self._arrange(_mapped(made, _tensor))


def _mapped(batch: Batch, function: Callable[[Any], Any]) -> Batch:
    def of(value: Any) -> Any:
        if isinstance(value, Structured):
            return value.map(function)
        return function(value) if isinstance(value, torch.Tensor | np.ndarray) else value

    return {name: of(value) for name, value in batch.items()}


def _tensor(array: Any) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))  # of a scalar it makes a vector
