"""Tensors as the native kernels take them."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray

from hepfeed.device import checks, native
from hepfeed.errors import SpecError

__all__ = ["array", "check_cuda", "check_device", "check_dtypes", "check_features", "kind_of"]

_DTYPES = (torch.float32, torch.float64, torch.bfloat16)


def array(tensor: torch.Tensor) -> NDArray[Any]:
    """Return the numbers of a tensor in C order, not copied where they lie so; bfloat16 as ``uint16``."""
    plain = tensor.detach().contiguous()
    numbers = (plain.view(torch.uint16) if plain.dtype == torch.bfloat16 else plain).numpy()
    return numbers if numbers.flags.aligned else numbers.copy()  # those of torch.frombuffer may lie anywhere


def check_device(**tensors: torch.Tensor) -> None:
    """Check that tensors, by their names, are where there are kernels, all on one device.

    Raises:
        SpecError: One is neither on the CPU nor on a CUDA device that can be used, or they are on different devices.
    """
    first = next(iter(tensors))
    device = tensors[first].device
    for name, tensor in tensors.items():
        if tensor.device.type == "cuda":
            check_cuda(name, tensor.device)
        elif tensor.device.type != "cpu":
            raise SpecError(
                f"{name} must be on the CPU, not on {tensor.device}: hepfeed has kernels for CPUs and CUDA devices only"
            )
        if tensor.device != device:
            raise SpecError(f"{name} must be on {device}, as {first} is, not on {tensor.device}: move it with .to()")


def check_cuda(name: str, device: torch.device) -> None:
    """Check that a CUDA device can be used.

    Args:
        name: Of what is on it, or is to go there.
        device: Which.

    Raises:
        SpecError: It can't; the message says why, and what to do.
    """
    if not torch.compiler.is_compiling() and not native.available():  # in a compiled graph the operators say so
        raise SpecError(f"{name} must be on the CPU, not on {device}: {native.why_not()}")


def check_dtypes(**tensors: torch.Tensor | None) -> None:
    """Check that tensors, by their names, are of one dtype that the kernels have: float16 on CUDA devices only.

    Raises:
        SpecError: They are not.
    """
    given = next(tensor for tensor in tensors.values() if tensor is not None)
    if given.device.type == "cuda":
        checks.check_dtypes(**tensors)
    else:
        hint = "; on the CPU use bfloat16" if given.dtype == torch.float16 else ""
        checks.check_one_dtype(_DTYPES, hint, **tensors)


def check_features(name: str, features: torch.Tensor, rows: int) -> None:
    """Check that features have one row for each site.

    Args:
        name: Of the argument.
        features: What should be ``(rows, C)``.
        rows: Number of sites.

    Raises:
        SpecError: They do not.
    """
    if not isinstance(features, torch.Tensor) or features.ndim != 2:
        raise SpecError(f"{name} must be a tensor (N, C), not {kind_of(features)}")
    if torch.compiler.is_compiling():  # lengths that the compiler does not know can't be asked for here
        torch._check(features.shape[0] == rows)  # type: ignore[no-untyped-call]
    elif features.shape[0] != rows:
        raise SpecError(f"{name} must have one row for each of {rows} sites, not {features.shape[0]}")


def kind_of(given: Any) -> str:
    """Return shape and dtype of a tensor, or the type of something else, for a message."""
    return f"{tuple(given.shape)} {given.dtype}" if isinstance(given, torch.Tensor) else type(given).__name__
