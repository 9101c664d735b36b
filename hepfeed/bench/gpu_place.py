"""Where the training loops of a benchmark run: the device, made anew for each loop, and what its figures mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import nn

from hepfeed.bench.clock import processor
from hepfeed.bench.gpu_devices import CpuDevice, CudaDevice, Trainer, TrainingDevice
from hepfeed.bench.simulated import SimulatedDevice
from hepfeed.bench.simulated_bus import SimulatedBus
from hepfeed.transfer import as_device

__all__ = ["Place"]

_WAITS = {
    "cuda": "the device's time, by CUDA events on its stream, between the end of a step and the begin of the next",
    "cpu": "the time of the loop outside of the model; readers and model share the processors",
    "simulated": "the time, computed, between the end of a step and the begin of the next",
}


@dataclass(frozen=True)
class Place:
    """A device for training loops.

    Attributes:
        kind: ``"simulated"`` needs no GPU and no model.
        step_s: Of a simulated step.
        bus_bytes_s: Of the simulated bus.
        ahead: Steps that the loop may be ahead of the device; it has no meaning on the CPU.

    Raises:
        SpecError: There is no CUDA device, or a number is out of range.
    """

    kind: Literal["cuda", "cpu", "simulated"]
    step_s: float = 10e-3
    bus_bytes_s: float = 12e9
    ahead: int = 1

    def __post_init__(self) -> None:
        if self.kind == "simulated":
            SimulatedDevice(self.step_s, self.bus, self.ahead)  # refuses what is out of range
        else:
            as_device(self.kind)

    @property
    def device(self) -> torch.device | None:
        """Where batches are needed; None for the memory of this machine."""
        return torch.device("cuda") if self.kind == "cuda" else None

    @cached_property
    def bus(self) -> SimulatedBus | None:
        """The way to a simulated device, the same for all loops; None to others."""
        return SimulatedBus(self.bus_bytes_s) if self.kind == "simulated" else None

    @property
    def name(self) -> str:
        """For people."""
        if self.kind == "cuda":
            return torch.cuda.get_device_name()
        if self.kind == "cpu":
            return f"{processor()}, {torch.get_num_threads()} threads"
        return f"simulated device, {1e3 * self.step_s:g} ms a step, bus of {self.bus_bytes_s / 1e9:g} GB/s"

    @property
    def waiting(self) -> str:
        """How the data wait is measured."""
        return f"data wait: {_WAITS[self.kind]}"

    def open(self, make_model: Callable[[], nn.Module]) -> TrainingDevice:
        """Return a device that has done nothing.

        Args:
            make_model: Makes the model, with the same weights each time; it is called where there is one.
        """
        if self.kind == "simulated":
            return SimulatedDevice(self.step_s, self.bus, self.ahead)
        if self.kind == "cpu":
            return CpuDevice(Trainer(make_model()))
        device = torch.device("cuda")
        return CudaDevice(Trainer(make_model().to(device)), device, self.ahead)
