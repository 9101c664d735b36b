"""A shipment: the tensors of one batch, which go to the device in one copy or two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hepfeed.copy_engine import CopyEngine
from hepfeed.form import aligned

__all__ = ["Shipment", "is_plain"]

_LARGE = 64 << 10
"""Bytes that are not copied on the host first.  A copy of its own costs the host several microseconds, in which memory
moves about so many bytes; what lies between two tensors goes along if it is less."""
_ALIGN = 64  # as in slots, for kernels that read 16 bytes at a time


@dataclass
class _Load:
    """A stretch of memory that is copied at once.

    Attributes:
        start: Address in the slot; of what is staged, 0.
        stop: Behind its last byte.
        tensors: What lies in it, with their first bytes.
    """

    start: int
    stop: int
    tensors: list[tuple[Tensor, int]]


@dataclass
class _Good:
    """A tensor to be sent.

    Attributes:
        tensor: As it is; kept, so that its id is its own.
        packed: The same numbers without gaps.
        order: Axes of ``tensor`` in the order that they have in ``packed``; None: as they are.
    """

    tensor: Tensor
    packed: Tensor
    order: list[int] | None


class Shipment:
    """Host tensors that go to a device together, and their twins there.

    Large tensors in a slot that is page-locked are copied from there: neighbours in one copy, of which they are views
    on the device.  Small ones are gathered in page-locked memory and share another copy, so that who keeps a label
    does not keep the images.  Both together move the bytes of the batch once over the bus, which is the least.  Large
    tensors elsewhere are gathered as the small ones are, apart from them.

    Args:
        engine: Makes the copies.
        memory: ``(bytes,) uint8`` of the slot that the batch lies in; None: in none.
        lock: Page-locks it; returns whether that succeeded.

    Attributes:
        bytes: That were copied.
        sources: Host memory that must stay as it is until the copies are done.
        buffers: Memory on the device that the twins are views of.
    """

    def __init__(
        self, engine: CopyEngine, memory: NDArray[np.uint8] | None = None, lock: Callable[[], bool] | None = None
    ) -> None:
        self.bytes = 0
        self.sources: list[Tensor] = []
        self.buffers: list[Tensor] = []
        self._engine = engine
        self._memory = memory
        self._start = memory.ctypes.data if memory is not None else 0
        self._lock = lock
        self._goods: dict[int, _Good] = {}  # by id of the tensor
        self._twins: dict[int, Tensor] = {}  # by id of the packed tensor

    def add(self, tensor: Tensor) -> Tensor:
        """Take note of a tensor that :func:`is_plain`, and return it; the same tensor may come again."""
        if id(tensor) in self._goods:
            return tensor
        good = _Good(tensor, tensor, None)
        if not tensor.is_contiguous():
            # Axes from the widest stride to the narrowest: a transposed tensor goes as it lies.
            good.order = sorted(range(tensor.dim()), key=tensor.stride().__getitem__, reverse=True)
            good.packed = tensor.permute(good.order).contiguous()
        self._goods[id(tensor)] = good
        return tensor

    def send(self) -> None:
        """Begin the copies, on the engine's side stream."""
        packed = [good.packed for good in self._goods.values()]
        for empty in (each for each in packed if not each.nbytes):
            self._twins[id(empty)] = self._engine.empty(0).view(empty.dtype).view(empty.shape)
        small = [each for each in packed if 0 < each.nbytes < _LARGE]
        large = [each for each in packed if each.nbytes >= _LARGE]
        inside = [each for each in large if self._is_inside(each)]
        if inside and self._lock is not None and self._lock():
            chosen = {id(each) for each in inside}
            large = [each for each in large if id(each) not in chosen]
            for load in _neighbours(inside):
                self._ship(load, self._slot_bytes(load))
        for gathered in (small, large):
            load = _gathered(gathered)
            if load.tensors:
                self._ship(load, self._stage(load))

    def twin(self, tensor: Tensor) -> Tensor:
        """Return what a tensor is on the device; its contents are there once the copies are done."""
        good = self._goods[id(tensor)]
        there = self._twins[id(good.packed)]
        if good.order is None:
            return there
        return there.permute(sorted(range(len(good.order)), key=good.order.__getitem__))

    def _is_inside(self, tensor: Tensor) -> bool:
        end = self._start + self._memory.nbytes if self._memory is not None else 0
        return self._start <= tensor.data_ptr() and tensor.data_ptr() + tensor.nbytes <= end

    def _slot_bytes(self, load: _Load) -> Tensor:
        assert self._memory is not None
        return torch.from_numpy(self._memory[load.start - self._start : load.stop - self._start])

    def _stage(self, load: _Load) -> Tensor:
        stage = self._engine.host(load.stop)
        for tensor, at in load.tensors:
            stage[at : at + tensor.nbytes].copy_(tensor.reshape(-1).view(torch.uint8))
        return stage

    def _ship(self, load: _Load, source: Tensor) -> None:
        target = self._engine.empty(len(source))
        self._engine.copy(target, source)
        self.bytes += len(source)
        self.sources.append(source)
        self.buffers.append(target)
        for tensor, at in load.tensors:
            there = target[at - load.start : at - load.start + tensor.nbytes]
            self._twins[id(tensor)] = there.view(tensor.dtype).view(tensor.shape)


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is nothing but numbers in the host's memory, which may be copied as bytes."""
    return (
        type(tensor) is Tensor
        and tensor.device.type == "cpu"
        and tensor.layout is torch.strided
        and not (tensor.requires_grad or tensor.is_nested or tensor.is_quantized or tensor.is_conj() or tensor.is_neg())
    )


def _neighbours(tensors: list[Tensor]) -> list[_Load]:
    """Put tensors together that lie so close that one copy is cheaper than two."""
    loads: list[_Load] = []
    for tensor in sorted(tensors, key=lambda each: each.data_ptr()):
        start, stop = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
        last = loads[-1] if loads else None
        if last is not None and start - last.stop < _LARGE and (start - last.start) % _ALIGN == 0:
            last.stop = max(last.stop, stop)
            last.tensors.append((tensor, start))
        else:
            loads.append(_Load(start, stop, [(tensor, start)]))
    return loads


def _gathered(tensors: list[Tensor]) -> _Load:
    """Lay tensors out one after another."""
    load = _Load(0, 0, [])
    for tensor in tensors:
        load.tensors.append((tensor, load.stop))
        load.stop = aligned(load.stop + tensor.nbytes)
    return load
