"""What is made of tensors once and kept for as long as they live."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch.utils.weak import TensorWeakRef, WeakTensorKeyDictionary

__all__ = ["Keeper"]

T = TypeVar("T")


@dataclass
class _Kept(Generic[T]):
    """One thing that was made.

    Attributes:
        tensors: Of which it was made, the first one excepted, under which it lies.
        versions: How often each tensor, the first one too, had been changed then.
        numbers: Of which it was made too.
        made: The thing.
        event: After which it is complete; None on the host.
        streams: Handles of the streams that waited for that.
    """

    tensors: list[TensorWeakRef]
    versions: list[int]
    numbers: tuple[int, ...]
    made: T
    event: torch.cuda.Event | None
    streams: set[int]

    def is_current(self, first: torch.Tensor) -> bool:
        """Whether all tensors are there and have not changed; else nobody can ask for it again."""
        tensors = [first, *(reference() for reference in self.tensors)]
        return all(
            tensor is not None and _version(tensor) == version for tensor, version in zip(tensors, self.versions)
        )


class Keeper(Generic[T]):
    """Makes something of tensors at the first request, and returns the same for as long as they live and stay the same.

    A thing is found by the tensors themselves, never by their addresses, which others may have after them; and by the
    count of changes in place that torch keeps (it keeps none of tensors of ``torch.inference_mode``: those must not
    change).  It is dropped when the first tensor dies.  Threads may ask at once.

    A thing is made on the current stream of the device.  Where another one asks later, it waits for the event of its
    making, and the memory is not given to others before that stream is done.  While a CUDA graph is captured there is
    nothing to wait for, since capturing begins with all work done; and nothing can be made, since the work would not be
    done before the graph is replayed.  The graph replays what was made for it: the tensors must outlive it and stay as
    they are.

    Args:
        make: Of the tensors and the numbers makes the thing, which must hold none of the tensors.
        parts: Returns the tensors of a thing.
    """

    def __init__(self, make: Callable[..., T], parts: Callable[[T], Iterable[torch.Tensor]]) -> None:
        self._make = make
        self._parts = parts
        self._kept: MutableMapping[torch.Tensor, list[_Kept[T]]] = WeakTensorKeyDictionary()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return the number of things that are kept."""
        with self._lock:
            return sum(len(entries) for entries in self._kept.values())

    def has(self, tensors: tuple[torch.Tensor, ...], *numbers: int) -> bool:
        """Return whether :meth:`of` would find something that was made before."""
        with self._lock:
            return self._find(tensors, numbers) is not None

    def of(self, tensors: tuple[torch.Tensor, ...], *numbers: int) -> T:
        """Return what was made of ``tensors``, one or more, and ``numbers``; or make it.

        Raises:
            RuntimeError: It must be made while a CUDA graph is captured.
            Exception: What ``make`` raises; nothing is kept then.
        """
        with self._lock:
            found = self._find(tensors, numbers)
        if found is not None:
            self._wait(found, tensors[0].device)
            return found.made
        is_cuda = tensors[0].device.type == "cuda"
        if is_cuda and torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                "a CUDA graph is captured of a convolution along a kernel map that has not been used before: run the"
                " same once with the same sites, forward and backward, before the capture"
            )
        versions = [_version(tensor) for tensor in tensors]  # before it is made, in case another thread changes one
        made = self._make(*tensors, *numbers)
        event, streams = None, set()
        if is_cuda:
            stream = torch.cuda.current_stream(tensors[0].device)
            event = stream.record_event()
            streams.add(stream.cuda_stream)
        others = [TensorWeakRef(tensor) for tensor in tensors[1:]]
        entry = _Kept(others, versions, numbers, made, event, streams)
        with self._lock:
            self._entries(tensors[0]).append(entry)
        return made

    def _entries(self, tensor: torch.Tensor) -> list[_Kept[T]]:
        if tensor not in self._kept:
            self._kept[tensor] = []
        return self._kept[tensor]

    def _find(self, tensors: tuple[torch.Tensor, ...], numbers: tuple[int, ...]) -> _Kept[T] | None:
        entries = self._kept.get(tensors[0], [])
        entries[:] = [entry for entry in entries if entry.is_current(tensors[0])]
        for entry in entries:
            same = all(reference() is tensor for reference, tensor in zip(entry.tensors, tensors[1:]))
            if same and entry.numbers == numbers:
                return entry
        return None

    def _wait(self, entry: _Kept[T], device: torch.device) -> None:
        if entry.event is None:
            return
        stream = torch.cuda.current_stream(device)
        with self._lock:
            known = stream.cuda_stream in entry.streams
        if known or torch.cuda.is_current_stream_capturing():
            return
        stream.wait_event(entry.event)
        for part in self._parts(entry.made):
            part.record_stream(stream)
        with self._lock:  # only now: another thread on the same stream must not run ahead
            entry.streams.add(stream.cuda_stream)


def _version(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version
