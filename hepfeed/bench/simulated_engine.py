"""The copies of a simulated device: they take their time on a simulated bus, and move nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hepfeed.bench.simulated_bus import SimulatedBus

__all__ = ["SimulatedEngine"]


@dataclass(frozen=True)
class _Mark:
    """An event: the moment at which a stream is done with what it was asked for before."""

    bus: SimulatedBus
    at: float

    def query(self) -> bool:
        """Return whether that is over."""
        return self.bus.now() >= self.at

    def synchronize(self) -> None:
        """Wait for it."""
        self.bus.wait_until(self.at)


class SimulatedEngine:
    """See :class:`hepfeed.copy_engine.CopyEngine`.

    A copy takes its bytes over the rate of the bus.  "On the device" is where the batch lies in the memory of the host,
    so that nothing is moved: a copy engine would take no time of the processors either.  A slot is held as long as the
    consumer holds its batch; behind a real device it comes back once it is copied.

    Args:
        bus: The way to the device.
    """

    def __init__(self, bus: SimulatedBus) -> None:
        self.device = torch.device("cpu")
        self._bus = bus

    def aside(self) -> AbstractContextManager[Any]:
        """Do nothing: there is no stream to be the current one."""
        return contextlib.nullcontext()

    def empty(self, size: int) -> Tensor:
        """Return ``(size,) uint8``."""
        return torch.empty(size, dtype=torch.uint8)

    def copy(self, target: Tensor, source: Tensor) -> None:
        """Let the target be the source, and the bus be busy."""
        target.set_(source)  # type: ignore[call-overload]
        self._bus.move(source.nbytes)

    def mark(self) -> _Mark:
        """Return an event that is done once all copies are that were begun."""
        return _Mark(self._bus, self._bus.free_at)

    def mark_consumer(self) -> _Mark:
        """Return an event that is done: the steps copy nothing."""
        return _Mark(self._bus, 0.0)

    def hand_over(self, event: _Mark, tensors: Iterable[Tensor]) -> None:
        """Let the next step wait for an event."""
        self._bus.awaited = event.at

    def place(self, thing: Any) -> Any:
        """Return it as it is."""
        return thing

    def host(self, size: int) -> Tensor:
        """Return ``(size,) uint8`` of ordinary memory."""
        return torch.empty(size, dtype=torch.uint8)

    def lock(self, address: int, size: int) -> bool:
        """Lock nothing, which succeeds."""
        return True

    def unlock(self, address: int) -> None:
        """Nothing is locked."""

    def settle(self) -> None:
        """Wait for all copies."""
        self._bus.wait_until(self._bus.free_at)
