"""Devices that training loops run on, and how their data wait is measured."""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hepfeed.bench.timeline import Timeline
from hepfeed.walk import map_tensors

__all__ = ["CpuDevice", "CudaDevice", "TrainingDevice", "Trainer"]

_LEARNING_RATE = 1e-3


class TrainingDevice(Protocol):
    """Where the steps of a training loop run; :class:`hepfeed.bench.simulated.SimulatedDevice` is one."""

    def step(self, batch: Any, resident: bool = False) -> None:
        """Learn from a batch, which lies on the device already or not."""

    def take(self) -> Timeline:
        """Wait for the last step, and return all steps since the last call; the wait of the first one is 0."""


class Trainer:
    """Forward, loss, backward and optimiser.

    The loss is the cross entropy of ``batch["label"]``, class numbers or probabilities.

    Args:
        model: Takes a batch, gives logits ``(B, classes)``.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE)

    def step(self, batch: Any) -> Tensor:
        """Return the loss, whose value need not be known yet on an asynchronous device."""
        loss: Tensor = nn.functional.cross_entropy(self._model(batch), batch["label"])
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return loss.detach()


class CpuDevice:
    """The processor, which readers need as well.

    It computes while the loop does, so the *data wait* of a step is the time of the loop outside of the model: from the
    end of the optimiser's step until the next batch enters the model.

    Args:
        trainer: Does the steps.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._ended: float | None = None
        self._timeline = Timeline()

    def step(self, batch: Any, resident: bool = False) -> None:
        """Learn from a batch in memory."""
        begun = time.perf_counter()
        self._trainer.step(batch)
        ended = time.perf_counter()
        self._timeline.add(0.0 if self._ended is None else begun - self._ended, ended - begun, len(batch["label"]))
        self._ended = ended

    def take(self) -> Timeline:
        """Return all steps since the last call."""
        done, self._timeline, self._ended = self._timeline, Timeline(), None
        return done


class CudaDevice:
    """A CUDA device, on its current stream.

    Events of CUDA stand on the stream before and after each step.  The *data wait* of a step is the device's time
    between the event after the step before it and the event before it: the stream has nothing to do then, or moves the
    batch, or waits for the copy on the loader's own stream.  Gaps between the kernels of a step, because the host
    launches them too slowly, count as busy; the utilisation that NVML reports leaves them out.

    Args:
        trainer: Does the steps; its model is on the device.
        device: The device.
        ahead: As of :class:`hepfeed.bench.simulated.SimulatedDevice`.
    """

    def __init__(self, trainer: Trainer, device: torch.device, ahead: int = 1) -> None:
        self._trainer = trainer
        self._device = device
        self._ahead = ahead
        self._marks: list[tuple[Any, Any, int]] = []  # events before and after the step, and how many it had
        self._under_way: deque[Any] = deque()

    def step(self, batch: Any, resident: bool = False) -> None:
        """Queue a step; return when no more than ``ahead`` steps are under way."""
        with torch.cuda.device(self._device):
            there = batch if resident else map_tensors(batch, self._moved, self._placed)
            before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            before.record()
            self._trainer.step(there)
            after.record()
        self._marks.append((before, after, len(batch["label"])))
        self._under_way.append(after)
        while len(self._under_way) > self._ahead:
            self._under_way.popleft().synchronize()

    def _moved(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device, non_blocking=True)

    def _placed(self, other: Any) -> Any:
        return other.to(self._device) if callable(getattr(other, "to", None)) else other

    def take(self) -> Timeline:
        """Wait for the last step, and return all since the last call."""
        marks, self._marks = self._marks, []
        self._under_way.clear()
        done = Timeline()
        if marks:
            marks[-1][1].synchronize()
        last = None
        for before, after, events in marks:
            wait = 0.0 if last is None else last.elapsed_time(before) / 1e3
            done.add(wait, before.elapsed_time(after) / 1e3, events)
            last = after
        return done
