"""The native module of the device kernels, and how tensors are handed to it."""

from __future__ import annotations

import contextlib
import functools
import importlib
from typing import Any

import torch

from hepfeed.errors import SpecError

__all__ = ["address", "available", "kernels", "on_device", "stream", "why_not"]

_OLDEST = (8, 0)
"""Compute capability with the asynchronous copies and tensor cores that the kernels use."""


@functools.cache
def _module() -> tuple[Any, str]:
    """The module, or None and why there is none that can be used."""
    try:
        module = importlib.import_module("hepfeed._cuda")
    except ImportError as error:
        if getattr(error, "name", None) == "hepfeed._cuda":
            return None, "hepfeed was built without CUDA: install it where nvcc is, with HEPFEED_CUDA=1"
        return None, f"hepfeed's CUDA kernels can't be loaded: {error}"
    count, trouble = module.devices()
    if not count:
        return None, f"there is no CUDA device that can be used: {trouble}; nvidia-smi shows the driver and its devices"
    if not torch.cuda.is_available():
        return None, "this torch has no CUDA: install one of its builds for CUDA"
    newest = max(torch.cuda.get_device_capability(device) for device in range(torch.cuda.device_count()))
    if newest < _OLDEST:
        needed, given = (".".join(map(str, capability)) for capability in (_OLDEST, newest))
        return None, f"hepfeed's kernels need a card of compute capability {needed} or later, and this one has {given}"
    return module, ""


def available() -> bool:
    """Whether there are kernels and a device."""
    return _module()[0] is not None


def why_not() -> str:
    """Return why kernels can't be used and what to do; empty where they can."""
    return _module()[1]


def kernels() -> Any:
    """Return the native module; see ``hepfeed/_cuda.pyi``.

    Raises:
        SpecError: hepfeed was built without CUDA, or there is no driver or device.
    """
    module, trouble = _module()
    if module is None:
        raise SpecError(trouble)
    return module


def address(tensor: torch.Tensor | None) -> int:
    """Return where the numbers of a tensor lie; 0 for None and for a tensor without any.

    The caller keeps the tensor alive until the work is queued, and torch keeps its memory until that is done.

    Raises:
        SpecError: It is not contiguous.
    """
    if tensor is None:
        return 0
    if not tensor.is_contiguous():
        raise SpecError(f"a contiguous tensor was expected, not {tuple(tensor.shape)} of strides {tensor.stride()}")
    return tensor.data_ptr()


def stream(tensor: torch.Tensor) -> int:
    """Return torch's current stream on the device of a tensor; 0, the default one, for tensors of the host."""
    if tensor.device.type != "cuda":
        return 0
    handle: int = torch.cuda.current_stream(tensor.device).cuda_stream
    return handle


def on_device(tensor: torch.Tensor) -> contextlib.AbstractContextManager[Any]:
    """Make the device of a tensor the current one, for launches and for what is allocated meanwhile."""
    if tensor.device.type != "cuda":
        return contextlib.nullcontext()
    return torch.cuda.device(tensor.device)
