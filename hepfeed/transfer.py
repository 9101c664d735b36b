"""The way of batches to a device: copied on a side stream, and handed to the consumer's when its turn comes."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hepfeed.copy_engine import CopyEngine
from hepfeed.cuda_engine import CudaEngine
from hepfeed.errors import SpecError
from hepfeed.ranges import nvtx_range
from hepfeed.ring import PageLocks
from hepfeed.shipment import Shipment, is_plain
from hepfeed.walk import map_tensors

__all__ = ["Sent", "Transfer", "as_device"]

_MOST_GOING = 2  # batches whose copies may be under way before the host waits for the first of them
_logger = logging.getLogger("hepfeed")

Pin = Callable[[PageLocks, bool], bool]
Late = Callable[[Any], tuple[Any, Callable[[], None]]]


def as_device(given: str | int | torch.device | None) -> torch.device | None:
    """Return the device that batches are to arrive on.

    Raises:
        SpecError: It is neither the CPU nor a CUDA device that is there.
    """
    if given is None:
        return None
    try:
        device = torch.device(given)
    except (RuntimeError, TypeError) as error:
        raise SpecError(f"device={given!r} is none: give 'cuda', 'cuda:1', 'cpu' or None") from error
    if device.type == "cuda":
        CudaEngine.check(device)
    elif device.type != "cpu":
        raise SpecError(f"device={given!r}, but batches are moved to CUDA devices only: give 'cuda', 'cpu' or None")
    return device


@dataclass(eq=False)
class Sent:
    """A batch on its way.

    Attributes:
        batch: Of tensors on the device, but for what only its own ``to`` can move.
        event: Is done once they are there.
        buffers: The memory that they lie in.
        has_others: Whether there is something to be moved by its own ``to``.
        bytes: That are copied.
        check: Raises what the last steps refuse; it may wait for the side stream.
    """

    batch: Any
    event: Any
    buffers: list[Tensor]
    has_others: bool
    bytes: int
    check: Callable[[], None] | None = None


@dataclass(eq=False)
class _Source:
    """What a batch is copied from, and the events after which nothing reads it any more."""

    events: list[Any]
    memory: list[Any] = field(default_factory=list)


class Transfer:
    """Sends the batches of one loader to a device.

    The memory that a batch is copied from, and so its slot, is held until the events of its copies are done.  They are
    looked at with each batch, and waited for only where the device is two batches behind, or at the end.

    Args:
        device: A CUDA device; one without a number is the current one when the first batch is sent.
        make_engine: Makes what copies, for ``device``; None: a :class:`hepfeed.cuda_engine.CudaEngine`.
    """

    def __init__(self, device: torch.device, make_engine: Callable[[torch.device], CopyEngine] | None = None) -> None:
        self._device = device
        self._make_engine = make_engine
        self._engine: CopyEngine | None = None
        self._going: deque[_Source] = deque()
        self._owner = os.getpid()

    @property
    def engine(self) -> CopyEngine:
        """The side stream; made with the first batch."""
        if self._engine is None or self._owner != os.getpid():  # a forked process has no part in the parent's streams
            make = self._make_engine or CudaEngine
            self._engine, self._going, self._owner = make(self._device), deque(), os.getpid()
        return self._engine

    def send(
        self,
        batch: Any,
        memory: NDArray[np.uint8] | None = None,
        pin: Pin | None = None,
        late: Late | None = None,
        was_lent: bool = False,
    ) -> Sent:
        """Begin to copy a batch.

        Args:
            batch: Anything with tensors in it; they must not be written to any more.
            memory: ``(bytes,) uint8`` of the slot that it lies in.
            pin: Page-locks the slot, as :meth:`hepfeed.ring.Ring.pin`.
            late: Queues the last steps on the side stream; takes what arrives, and returns the batch and its check.
            was_lent: Whether the user's code has had it, and may have begun copies of its own.
        """
        engine = self.engine
        self._collect()
        shipment = Shipment(engine, memory, None if pin is None else lambda: pin(engine, False))
        others = _load(batch, shipment)
        if others and pin is not None:  # the consumer gets views of the slot, and may copy from them by itself
            pin(engine, True)
        # Before the side stream is the current one, which would be marked instead.
        source = _Source([engine.mark_consumer()] if was_lent else [], [batch, memory])
        with nvtx_range("transfer"), engine.aside(), torch.no_grad():
            self._going.append(source)
            try:
                shipment.send()
            finally:
                source.memory += shipment.sources
                source.events.append(engine.mark())
            there = map_tensors(batch, lambda tensor: shipment.twin(tensor) if is_plain(tensor) else tensor)
            if late is None:
                return Sent(there, source.events[-1], shipment.buffers, others, shipment.bytes)
            made, check = late(there)
            return Sent(made, engine.mark(), _memory_of(made, engine.device), others, shipment.bytes, check)

    def receive(self, sent: Sent) -> Any:
        """Return a batch, which the consumer's current stream may use; work that it is given waits for the copies.

        Raises:
            HepfeedError: The last steps refuse it.
        """
        if sent.check is not None:
            with nvtx_range("check"), self.engine.aside():
                sent.check()
        self.engine.hand_over(sent.event, sent.buffers)
        if not sent.has_others:
            return sent.batch
        return map_tensors(sent.batch, self._placed, self._placed)

    def _placed(self, thing: Any) -> Any:
        return self.engine.place(thing) if callable(getattr(thing, "to", None)) else thing

    def _collect(self) -> None:
        """Let go of what has been copied; wait for the first where there are too many."""
        while self._going:
            events = self._going[0].events
            if len(self._going) >= _MOST_GOING:
                for event in events:
                    event.synchronize()
            elif not all(event.query() for event in events):
                break
            self._going.popleft()

    def finish(self) -> None:
        """Wait for all copies, and let go of what they were made from."""
        going, self._going = self._going, deque()
        if self._owner != os.getpid():
            return
        try:
            for source in going:
                for event in source.events:
                    event.synchronize()
        except RuntimeError as error:  # a device that failed copies nothing any more
            _logger.warning("copies to %s failed: %s", self._device, str(error))  # a traceback holds batches

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_engine": None, "_going": deque()}


def _load(batch: Any, shipment: Shipment) -> bool:
    """Add the tensors of a batch to a shipment; returns whether there is something else that may have to be moved."""
    others = []

    def add(tensor: Tensor) -> Tensor:
        if is_plain(tensor):
            return shipment.add(tensor)
        others.append(tensor)
        return tensor

    def note(other: Any) -> Any:
        others.append(other)
        return other

    map_tensors(batch, add, note)
    return bool(others)


def _memory_of(batch: Any, device: torch.device) -> list[Tensor]:
    """Return tensors of a batch that cover its memory on a device, each stretch of it once."""
    found: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        if tensor.layout is torch.strided and tensor.device == device:
            found.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    map_tensors(batch, note)
    return list(found.values())
