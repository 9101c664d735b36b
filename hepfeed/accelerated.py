"""What Hugging Face accelerate needs of a loop over a loader: where it ends, and batches on its device."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

__all__ = ["Accelerated", "accelerates"]


def accelerates() -> bool:
    """Return whether this process has an ``Accelerator``; imports nothing."""
    state = sys.modules.get("accelerate.state")
    return state is not None and bool(state.is_initialized())


class Accelerated(Iterator[Any]):
    """An iterator whose loop an ``Accelerator`` follows.

    accelerate steps the optimizer with the last batch of a loop, however many gradients have been accumulated, and
    ``gather_for_metrics`` leaves out there the events that were repeated to fill up.  Both ask accelerate's
    ``GradientState`` for the innermost loop, which enters itself with its first batch and leaves when it ends, is
    closed or dies.  Batches come on accelerate's device.  None is read ahead, so that a state taken within the loop is
    that of the batch that was delivered.

    Args:
        iterator: Makes the batches.
        batches: How many it makes; None: without end.
        remainder: Events of the last step that are not repeated, those of all ranks together, in the order of the
            ranks; 0: all of them.  -1: no such number says which, so that ``gather_for_metrics`` leaves out none.
    """

    def __init__(self, iterator: Iterator[Any], batches: int | None, remainder: int) -> None:
        self._iterator = iterator
        self._left = batches
        self._loop = _Loop(remainder)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_iterator" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self._iterator, name)

    def __len__(self) -> int:
        return len(self._iterator)  # type: ignore[arg-type]

    def __next__(self) -> Any:
        self._loop.enter()
        try:
            batch = next(self._iterator)
        except BaseException:  # StopIteration too
            self._loop.leave()
            raise
        if self._left is not None:
            self._left -= 1
            self._loop.end_of_dataloader = self._left == 0
        return _placed(batch)

    def close(self) -> None:
        """Close the iterator; accelerate goes back to the loop around this one."""
        self._loop.leave()
        self._iterator.close()  # type: ignore[attr-defined]

    def __del__(self) -> None:
        if "_loop" in self.__dict__:
            self._loop.leave()


class _Loop:
    """What ``GradientState`` looks at; it knows loops by weak references, so the iterator keeps this one.

    Attributes:
        end_of_dataloader: The batch just delivered is the last one.
        remainder: As in :class:`Accelerated`.
    """

    def __init__(self, remainder: int) -> None:
        self.end_of_dataloader = False
        self.remainder = remainder
        self._entered = False

    def enter(self) -> None:
        """Become the innermost loop."""
        if not self._entered:
            _gradient_state()._add_dataloader(self)
            self._entered = True

    def leave(self) -> None:
        """Be a loop no more."""
        if self._entered:
            self._entered = False
            _gradient_state()._remove_dataloader(self)


def _gradient_state() -> Any:
    return sys.modules["accelerate.state"].GradientState()


def _placed(batch: Any) -> Any:
    """Return a batch on accelerate's device."""
    device = sys.modules["accelerate.state"].PartialState().device
    if device.type == "cpu":
        return batch
    return sys.modules["accelerate.utils"].send_to_device(batch, device, non_blocking=True)
