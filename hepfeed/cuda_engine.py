"""What the feed asks of CUDA: a stream for copies, events, memory on both sides, and page locks."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from hepfeed.errors import SpecError

__all__ = ["CudaEngine"]

_PORTABLE = 1  # cudaHostRegisterPortable: the lock counts for all devices
_logger = logging.getLogger("hepfeed")


class CudaEngine:
    """The side stream of one device, on which batches are copied while the consumer computes.

    It is all that the feed knows of CUDA, so that a twin which makes its copies late can stand in its place.

    Args:
        device: A CUDA device; without a number, the one that is current now.

    Attributes:
        device: With its number.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
        self._side = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        self._warned: set[str] = set()

    @staticmethod
    def check(device: torch.device) -> None:
        """Find out whether a device is there, without starting CUDA in this process.

        Raises:
            SpecError: It is not.
        """
        if not torch.cuda.is_available():
            raise SpecError(
                f"device={str(device)!r}, but torch {torch.__version__} finds no CUDA device: use device='cpu', or a"
                " machine with one, its driver, and a torch that was built for CUDA"
            )
        count = torch.cuda.device_count()
        if device.index is not None and device.index >= count:
            raise SpecError(f"device={str(device)!r}, but there are {count} CUDA devices: give cuda:0 to {count - 1}")

    # ---- the side stream -------------------------------------------------------------------------------------------

    def aside(self) -> AbstractContextManager[Any]:
        """Let everything on the device within the context run, and its memory come, on the side stream."""
        return torch.cuda.stream(self._side)

    def empty(self, size: int) -> Tensor:
        """Return ``(size,) uint8`` on the device; call it :meth:`aside`."""
        return torch.empty(size, dtype=torch.uint8, device=self.device)

    def copy(self, target: Tensor, source: Tensor) -> None:
        """Begin to copy ``(n,) uint8`` of the host to the device, :meth:`aside`.

        The source must stay as it is until the event of a later :meth:`mark` is done.
        """
        target.copy_(source, non_blocking=True)

    def mark(self) -> torch.cuda.Event:
        """Return an event that is done once the side stream is where it is now."""
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record(self._side)
        return event

    # ---- the consumer ----------------------------------------------------------------------------------------------

    def mark_consumer(self) -> torch.cuda.Event:
        """Return an event that is done once the consumer's current stream is where it is now."""
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.device))
        return event

    def hand_over(self, event: torch.cuda.Event, tensors: Iterable[Tensor]) -> None:
        """Let the consumer's current stream wait for an event, and memory live until that stream has used it."""
        stream = torch.cuda.current_stream(self.device)
        stream.wait_event(event)
        for tensor in tensors:
            tensor.record_stream(stream)

    def place(self, thing: Any) -> Any:
        """Return anything that has a ``to`` on the device, at once, by the consumer's stream."""
        return thing.to(self.device)

    # ---- memory of the host ----------------------------------------------------------------------------------------

    def host(self, size: int) -> Tensor:
        """Return ``(size,) uint8`` of page-locked memory, or of ordinary memory where there is no more of it."""
        try:
            return torch.empty(size, dtype=torch.uint8, pin_memory=True)
        except RuntimeError as error:
            self._warn("CUDA has no page-locked memory (%s): batches are copied from ordinary memory", str(error))
            return torch.empty(size, dtype=torch.uint8)

    def lock(self, address: int, size: int) -> bool:
        """Page-lock memory; returns whether that succeeded."""
        with torch.cuda.device(self.device):
            status = int(torch.cuda.cudart().cudaHostRegister(address, size, _PORTABLE))  # type: ignore[no-untyped-call]
            if status:
                self._forget_error()
        if status:
            self._warn(
                "CUDA can't page-lock %d bytes of shared memory (error %d): batches are copied once more on their way;"
                " raise the limit of locked memory (ulimit -l), or use smaller batches",
                size,
                status,
            )
        return not status

    def unlock(self, address: int) -> None:
        """Give up a page lock, once nothing copies from there any more."""
        self.settle()
        with torch.cuda.device(self.device):
            if int(torch.cuda.cudart().cudaHostUnregister(address)):  # type: ignore[no-untyped-call]
                self._forget_error()

    def settle(self) -> None:
        """Wait until the device has done all that was asked of it, on any stream."""
        with contextlib.suppress(RuntimeError):  # a device that failed copies nothing; who uses it next is told why
            torch.cuda.synchronize(self.device)

    def _forget_error(self) -> None:
        """Let the error of a call that was handled not be blamed on the next kernel, whose launch looks for one."""
        with contextlib.suppress(RuntimeError):
            torch.ones(1, device=self.device)

    def _warn(self, message: str, *details: object) -> None:
        if message not in self._warned:
            self._warned.add(message)
            _logger.warning(message, *details)
