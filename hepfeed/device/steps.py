"""The steps of a pipeline on a device: what readers would do to a batch, done after the copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from hepfeed.device import native
from hepfeed.device.transforms.arrays import upload
from hepfeed.device.transforms.context import Context
from hepfeed.device.transforms.faults import Faults, Refusal
from hepfeed.device.transforms.registry import FUNCTIONS, why_not_on_device
from hepfeed.draws import Draws
from hepfeed.errors import HepfeedError, ProcessError, SpecError
from hepfeed.pipeline import CACHE, Pipeline, numbered
from hepfeed.ranges import nvtx_range
from hepfeed.tensors import Batch, Structured
from hepfeed.transforms.step import Step

__all__ = ["DeviceSteps", "Started"]


class DeviceSteps:
    """Steps that run on the device of a batch, with the options and the results of the same steps on the CPU.

    Random numbers are those of :class:`~hepfeed.draws.Draws`, made where they are used: integers, uniform and normal
    numbers have the same bits as on the CPU.  So have results, but for ``PoissonNoise``, where a count may differ if
    exp or log is rounded otherwise just at a bound.

    From points and images to the input of a network there are ``Voxelise`` and ``Histogram``; ``Densify`` and
    ``Sparsify``; ``Normalise``, ``MinMax``, ``Log``, ``LogTanh`` and ``Clip``, neighbours of which are one pass over
    memory; ``Cast``; ``Flip``, ``Rotate90``, ``Translate``, ``Crop`` (not at the maximum or box of an image), ``Pad``
    and ``Embed``; ``GaussianNoise``, ``PoissonNoise`` and ``DropOut``; ``FlipPoints``, ``ShiftPoints``,
    ``RotatePoints`` and ``ScalePoints`` (not about the mean) and ``Jitter``; ``Stack``, ``OneHot``, ``Select``,
    ``Rename`` and ``Drop``.

    All is queued on torch's current stream.  The host waits only for numbers of rows that it must know: of sites after
    ``Sparsify`` and ``Voxelise``, after a ``DropOut`` of sparse images, and after a window that sites may fall out of;
    and once at the end, see :meth:`start`, if a step may refuse a number.

    Args:
        transforms: Steps, their names, or mappings as a specification has them.
        first: Place of the first of them among all steps of the batch, which its random numbers go by: as many steps as
            ran before.  A step that moves from the readers to the device keeps its random numbers.

    Raises:
        SpecError: Something is no step, an option is wrong, or a step can't run on a device.
    """

    def __init__(self, transforms: Sequence[Step | Mapping[str, Any] | str], first: int = 0) -> None:
        if CACHE in [each for each in transforms if isinstance(each, str)]:
            raise SpecError("'cache' is a place among the steps of the readers, and none among those of a device")
        steps = Pipeline(transforms).steps
        for step in steps:
            trouble = why_not_on_device(step)
            if trouble:
                name = type(step).__name__ if isinstance(step, Step) else getattr(step, "__qualname__", repr(step))
                raise SpecError(f"{name}: {trouble}")
        self.steps: tuple[Step, ...] = tuple(step for step in steps if isinstance(step, Step))
        self.first = first
        self._program = [(place, step) for place, step in numbered(steps, first) if isinstance(step, Step)]

    def __len__(self) -> int:
        return len(self.steps)

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch after all steps, once it is known that none of them refused a number.

        Args:
            batch: Tensors and structured tensors on one device, with ``"event" (B, 2) int64`` or without it.
            draws: Random numbers of the batch, with its events on the host; of any step.

        Raises:
            HepfeedError: What the steps on the CPU raise, in the same words.
        """
        started = self.start(batch, draws)
        started.check()
        return started.batch

    def start(self, batch: Batch, draws: Draws) -> Started:
        """Queue all steps, and return the batch with a check that waits for them; arguments and errors as of a call.

        A caller that has something else to do meanwhile runs the check later, from any stream.
        """
        device = _device_of(batch)
        event = batch.get("event")
        faults = Faults(device)
        made = batch
        with nvtx_range("steps"), native.on_device(torch.empty(0, device=device)):
            ids = event.contiguous() if isinstance(event, torch.Tensor) else upload(draws.event, device)
            try:
                for place, step in self._program:
                    with nvtx_range(type(step).__name__):
                        made = FUNCTIONS[type(step)](step, made, Context(draws.at(place), ids, faults))
            except (HepfeedError, Refusal) as trouble:
                self._refuse(batch, draws, trouble)
            faults.close()
        return Started(made, faults, lambda: self._refuse(batch, draws, None))

    def _refuse(self, batch: Batch, draws: Draws, trouble: HepfeedError | Refusal | None) -> None:
        """Raise what the steps on the CPU raise; errors are worded there alone."""
        host = {key: _on_host(value) for key, value in batch.items()}
        host.setdefault("event", draws.event)
        for place, step in self._program:
            host = step(host, replace(draws, step=place))
        if isinstance(trouble, HepfeedError):
            raise trouble
        names = ", ".join(type(step).__name__ for step in self.steps)
        raise ProcessError(
            f"the steps {names} refused a batch on the device that they take on the CPU: sites outside of their images,"
            " or types that only torch has, can't be treated there; run them in the dataset's transform to compare"
        )


class Started:
    """A batch whose steps are queued.

    Args:
        batch: After the steps.
        faults: Of the steps.
        refuse: Raises the error of what they refused.

    Attributes:
        batch: To be used on the stream that the steps run on, or on one that waits for it.
    """

    def __init__(self, batch: Batch, faults: Faults, refuse: Any) -> None:
        self.batch = batch
        self._faults = faults
        self._refuse = refuse

    def check(self) -> None:
        """Raise the error of a step that refused a number; waits for the steps if one of them can.

        Raises:
            HepfeedError: What the step on the CPU raises, in the same words.
        """
        if self._faults.any():
            self._refuse()


def _device_of(batch: Batch) -> torch.device:
    devices: dict[torch.device, str] = {}
    for key, value in batch.items():
        for tensor in value.arrays().values() if isinstance(value, Structured) else (value,):
            if isinstance(tensor, torch.Tensor):
                devices.setdefault(tensor.device, key)
    if len(devices) != 1:
        raise SpecError(f"a batch of tensors on one device was expected, not on {list(map(str, devices)) or 'none'}")
    return next(iter(devices))


def _on_host(value: Any) -> Any:
    if isinstance(value, Structured):
        return value.map(_on_host)
    return value.cpu().numpy() if isinstance(value, torch.Tensor) else value
