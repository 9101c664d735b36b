"""How the device kernels multiply numbers of a dtype."""

from __future__ import annotations

import torch

__all__ = ["arithmetic_of"]

_NAMES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}


def arithmetic_of(dtype: torch.dtype) -> str:
    """Return ``"float32"``, ``"float64"``, ``"bfloat16"``, ``"float16"``, or ``"tf32"``.

    The last one is for float32 where torch's matrix products may round to TF32 too:
    ``torch.backends.cuda.matmul.allow_tf32``, or ``fp32_precision`` in its place.
    """
    return "tf32" if dtype == torch.float32 and _allows_tf32() else _NAMES[dtype]


def _allows_tf32() -> bool:
    matmul = torch.backends.cuda.matmul
    # Where a torch has both words, the older one must not be asked for once the newer one was set.
    precision = getattr(matmul, "fp32_precision", None)
    return bool(matmul.allow_tf32) if precision is None else bool(precision == "tf32")
