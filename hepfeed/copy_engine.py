"""What the feed asks of a device that batches are copied to."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor

from hepfeed.ring import PageLocks

__all__ = ["CopyEngine"]


class CopyEngine(PageLocks, Protocol):
    """A device's side stream, on which batches are copied while the consumer computes.

    Its events are any objects with ``query()``, whether all is done that was asked of a stream before the event was
    made, and ``synchronize()``, which waits for that.

    Attributes:
        device: Where copies go.
    """

    device: torch.device

    def aside(self) -> AbstractContextManager[Any]:
        """Let everything on the device within the context run, and its memory come, on the side stream."""
        ...

    def empty(self, size: int) -> Tensor:
        """Return ``(size,) uint8`` on the device; called :meth:`aside`."""
        ...

    def copy(self, target: Tensor, source: Tensor) -> None:
        """Begin to copy ``(n,) uint8`` of the host to the device, :meth:`aside`.

        The source stays as it is until the event of a later :meth:`mark` is done.  Views of the target are taken
        afterwards.
        """
        ...

    def mark(self) -> Any:
        """Return an event of the side stream."""
        ...

    def mark_consumer(self) -> Any:
        """Return an event of the consumer's current stream."""
        ...

    def hand_over(self, event: Any, tensors: Iterable[Tensor]) -> None:
        """Let the consumer's current stream wait for an event, and memory live until that stream has used it."""
        ...

    def place(self, thing: Any) -> Any:
        """Return anything that has a ``to`` on the device, at once, by the consumer's stream."""
        ...

    def host(self, size: int) -> Tensor:
        """Return ``(size,) uint8`` of the host, page-locked where that can be."""
        ...
