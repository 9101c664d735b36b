"""What NVIDIA's management library says of a device while it works: utilisation and energy."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["Meter", "Usage", "open_meter"]

_PERIOD_S = 0.1
"""NVML's utilisation is of the last sixth of a second to one second, by the product."""


@dataclass(frozen=True)
class Usage:
    """Of a span of time.

    Attributes:
        utilisation: Mean part of the time in which some kernel ran; None where NVML does not say.
        energy_j: Joules; None where NVML does not say.
        trouble: What NVML did not say, and why; empty where it said all.
    """

    utilisation: float | None
    energy_j: float | None
    trouble: str = ""


class Meter:
    """Asks NVML about one device, in a thread between :meth:`start` and :meth:`stop`.

    Args:
        library: The module ``pynvml``, initialised; :meth:`close` shuts it down.
        handle: Of the device.
    """

    def __init__(self, library: Any, handle: Any) -> None:
        self._library = library
        self._handle = handle
        self._samples: list[float] = []
        self._troubles: dict[str, str] = {}
        self._energy_mj: int | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin a span of time."""
        self._samples, self._troubles = [], {}
        self._energy_mj = self._energy()
        self._ended.clear()
        self._thread = threading.Thread(target=self._watch, name="hepfeed-nvml", daemon=True)
        self._thread.start()

    def stop(self) -> Usage:
        """End it."""
        assert self._thread is not None, "start() comes first"
        self._ended.set()
        self._thread.join()
        self._thread = None
        last = self._energy()
        energy = None if last is None or self._energy_mj is None else (last - self._energy_mj) / 1e3
        utilisation = sum(self._samples) / len(self._samples) if self._samples else None
        if utilisation is None and "utilisation" not in self._troubles:
            self._troubles["utilisation"] = f"the run is shorter than {_PERIOD_S} s"
        trouble = "; ".join(f"no {what}: {reason}" for what, reason in self._troubles.items())
        return Usage(utilisation, energy, trouble)

    def close(self) -> None:
        """Shut the library down."""
        self._library.nvmlShutdown()

    def _watch(self) -> None:
        while not self._ended.wait(_PERIOD_S):
            try:
                self._samples.append(self._library.nvmlDeviceGetUtilizationRates(self._handle).gpu / 100)
            except self._library.NVMLError as error:
                self._troubles["utilisation"] = str(error)
                return

    def _energy(self) -> int | None:
        """Millijoules since the driver was loaded; Volta and later."""
        try:
            return int(self._library.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        except self._library.NVMLError as error:
            self._troubles["energy"] = str(error)
            return None


def open_meter(device: torch.device) -> tuple[Meter | None, str]:
    """Return what measures a device; or None, and why there is none.

    The device is found by its UUID, because CUDA and NVML may number devices differently.
    """
    if device.type != "cuda":
        return None, f"NVML measures CUDA devices, not {device.type}"
    try:
        import pynvml
    except ImportError:
        return None, "NVML needs the package nvidia-ml-py: pip install 'hepfeed[gpu]'"
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return None, f"NVML can't be used: {error}"
    try:
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        name = uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
        return Meter(pynvml, pynvml.nvmlDeviceGetHandleByUUID(name)), ""
    except (pynvml.NVMLError, AttributeError) as error:
        pynvml.nvmlShutdown()
        return None, f"NVML does not find {device}: {error}"
