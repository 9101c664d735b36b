"""What tensors must be for the device kernels."""

from __future__ import annotations

import torch

from hepfeed.errors import SpecError

__all__ = ["check_dtypes", "check_one_dtype", "check_same_device"]

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def check_dtypes(**tensors: torch.Tensor | None) -> None:
    """Check that tensors, by their names, are of one dtype that the kernels have: float32, 64, 16 or bfloat16.

    Raises:
        SpecError: They are not.
    """
    check_one_dtype(_DTYPES, "", **tensors)


def check_one_dtype(known: tuple[torch.dtype, ...], hint: str, /, **tensors: torch.Tensor | None) -> None:
    """Check that tensors, by their names, are of one of some dtypes, all of the same.

    Args:
        known: Those that some kernels have.
        hint: Ends the message about another one.
        tensors: One or more; None is passed over.

    Raises:
        SpecError: They are not.
    """
    dtypes = {name: tensor.dtype for name, tensor in tensors.items() if tensor is not None}
    (first, dtype), *others = dtypes.items()
    if dtype not in known:
        *names, last = (str(each).removeprefix("torch.") for each in known)
        raise SpecError(f"{first} must be {', '.join(names)} or {last}, not {dtype}{hint}")
    for name, other in others:
        if other != dtype:
            raise SpecError(f"{name} must be {dtype}, as {first} is, not {other}")


def check_same_device(**tensors: torch.Tensor | None) -> None:
    """Check that tensors, by their names, are on one device.

    Raises:
        SpecError: They are not.
    """
    devices = {name: tensor.device for name, tensor in tensors.items() if tensor is not None}
    (first, device), *others = devices.items()
    for name, other in others:
        if other != device:
            raise SpecError(f"{name} must be on {device}, as {first} is, not on {other}")
