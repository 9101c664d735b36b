"""Names of what the feed does, in the timelines of NVIDIA's tools (NVTX ranges, as Nsight Systems shows them)."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

__all__ = ["nvtx_range"]

_NOTHING: AbstractContextManager[None] = nullcontext()


def nvtx_range(name: str) -> AbstractContextManager[None]:
    """Return a context whose time is marked as ``hepfeed: <name>`` on the timeline of the thread.

    There are ranges in processes that use CUDA through torch; elsewhere the context does nothing, which costs less
    than a microsecond, and neither imports torch nor initialises CUDA.  To see them::

        nsys profile --trace=cuda,nvtx python train.py

    Args:
        name: What is done: ``"wait"`` for a batch, ``"dispatch"`` of work to readers, ``"collate"``, ``"transfer"`` to
            the device, ``"steps"`` there, each by its name as well, and the ``"check"`` of what they refused.
    """
    nvtx = _nvtx()
    return _NOTHING if nvtx is None else _Range(nvtx, f"hepfeed: {name}")


class _Range(AbstractContextManager[None]):
    """A range that ends however its context is left."""

    def __init__(self, nvtx: Any, name: str) -> None:
        self._nvtx = nvtx
        self._name = name

    def __enter__(self) -> None:
        self._nvtx.range_push(self._name)

    def __exit__(self, *error: object) -> None:
        self._nvtx.range_pop()


def _nvtx() -> Any:
    """Return ``torch.cuda.nvtx`` in a process that uses CUDA, else None."""
    torch = sys.modules.get("torch")
    # Asking whether CUDA is available would initialise it, and processes could not be forked any more.
    return torch.cuda.nvtx if torch is not None and torch.cuda.is_initialized() else None
