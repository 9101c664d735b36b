"""What a step on a device gets beside the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from hepfeed.device import native
from hepfeed.device.transforms.faults import Faults
from hepfeed.draws import Draws
from hepfeed.transforms.step import Batch

__all__ = ["Context", "DeviceStep"]


@dataclass(frozen=True)
class Context:
    """Random numbers, and a place for what is refused.

    Attributes:
        draws: Of the step; with the events of the batch, on the host.
        event: ``(B, 2) int64``: the same events, on the device.
        faults: Of the batch.
    """

    draws: Draws
    event: torch.Tensor
    faults: Faults

    @property
    def device(self) -> torch.device:
        """Where the batch is."""
        return self.event.device

    @property
    def stream(self) -> int:
        """Torch's current stream there."""
        return native.stream(self.event)

    def key(self) -> tuple[int, int, int, int]:
        """Return whose random numbers they are, for kernels: seed, step, epoch and address of the events."""
        return self.draws.seed % 2**64, self.draws.step, self.draws.epoch, native.address(self.event)

    def part(self, number: int) -> Context:
        """Return the same with the random numbers of part 0, 1, ... of the step, as :meth:`Draws.part`."""
        return replace(self, draws=self.draws.part(number))

    def uniform(self, offsets: torch.Tensor, total: int) -> torch.Tensor:
        """Return what :meth:`Draws.uniform_jagged` does, ``(total,) float64``, with the same bits.

        Args:
            offsets: ``(B + 1,) int64``, from 0 to ``total`` at most; numbers beyond are not defined.
            total: How many there may be, which the host knows.
        """
        return self._drawn("uniform", offsets, total, torch.float64)

    def normal(self, offsets: torch.Tensor, total: int) -> torch.Tensor:
        """Return what :meth:`Draws.normal_jagged` does; arguments as of :meth:`uniform`."""
        return self._drawn("normal", offsets, total, torch.float64)

    def raw(self, offsets: torch.Tensor, total: int) -> torch.Tensor:
        """Return what :meth:`Draws.raw_jagged` does, the bits of it as int64; arguments as of :meth:`uniform`."""
        return self._drawn("raw", offsets, total, torch.int64)

    def each(self, count: int) -> torch.Tensor:
        """Return the offsets of events that have ``count`` items each, ``(B + 1,) int64``."""
        return torch.arange(len(self.event) + 1, device=self.device) * count

    def _drawn(self, drawn: str, offsets: torch.Tensor, total: int, dtype: torch.dtype) -> torch.Tensor:
        made = torch.empty(total, dtype=dtype, device=self.device)
        events = (native.address(offsets), len(offsets) - 1, 1)
        native.kernels().draw(events, total, self.key(), drawn, 0.0, 1.0, native.address(made), self.stream)
        return made


DeviceStep = Callable[[Any, Batch, Context], Batch]
"""Takes a step, a batch of tensors and the context, and returns a new batch."""
