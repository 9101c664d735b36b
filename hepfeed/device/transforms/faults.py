"""What the kernels refuse: found on the device, looked at once and late, so that no step waits for another."""

from __future__ import annotations

import torch

from hepfeed.device import native

__all__ = ["Faults", "Refusal"]


class Refusal(Exception):
    """A key has a form that a step refuses; the error for the user is that of the step on the CPU."""


class Faults:
    """A flag on the device that kernels set for what they refuse.

    Args:
        device: Where it is.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._flag: torch.Tensor | None = None
        self._host: torch.Tensor | None = None
        self._there: torch.cuda.Event | None = None

    def address(self) -> int:
        """Return where kernels set the flag, an int32."""
        if self._flag is None:
            self._flag = torch.zeros(1, dtype=torch.int32, device=self._device)
        return native.address(self._flag)

    def add(self, found: torch.Tensor) -> None:
        """Set the flag where any of ``found``, bools, is true; does not wait."""
        self.address()
        assert self._flag is not None
        self._flag |= found.any()

    def close(self) -> None:
        """Begin to bring the flag to the host; all that may set it is queued on the current stream."""
        if self._flag is None:
            return
        self._host = self._flag
        if self._device.type == "cuda":
            self._host = torch.empty(1, dtype=torch.int32, pin_memory=True)
            self._host.copy_(self._flag, non_blocking=True)
            self._there = torch.cuda.current_stream(self._device).record_event()

    def any(self) -> bool:
        """Whether the flag was set when it was closed; waits until it is there."""
        if self._host is None:
            return False
        if self._there is not None:
            self._there.synchronize()
        return bool(self._host)
