"""The torch side of a reader: what torch's own loader sets up in a worker, and collation straight into the slot.

Nothing here is asked for before torch was imported, but for :func:`default_collate` and :func:`default_convert`
where there is no way without.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from hepfeed.room import Room

if TYPE_CHECKING:
    import torch

__all__ = ["TorchWorker", "default_collate", "default_convert", "is_data_pipe", "seed_data_pipe"]


class TorchWorker:
    """Sets torch up in a reader: one thread, the seed, ``get_worker_info()``, and how tensors are stacked.

    Torch's ``default_collate`` in a worker stacks tensors in files in /dev/shm.  Here it stacks them in the slot while
    there is a room, and in the memory of the process otherwise.

    Args:
        worker_id: Of the reader.
        num_workers: Of the loader.
        seed: Of the reader.
        dataset: That it has.

    Attributes:
        room: Where batches are stacked, or None.
    """

    def __init__(self, worker_id: int, num_workers: int, seed: int, dataset: Any) -> None:
        self.room: Room | None = None
        self._info = {"id": worker_id, "num_workers": num_workers, "seed": seed, "dataset": dataset}
        self._undo: list[Callable[[], None]] = []

    def open(self) -> None:
        """Set torch up."""
        import torch
        from torch.utils.data._utils import collate, worker

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        self._undo.append(lambda: torch.set_num_threads(threads))
        torch.manual_seed(self._info["seed"])
        worker._worker_info = worker.WorkerInfo(**self._info)
        self._undo.append(lambda: setattr(worker, "_worker_info", None))
        original = collate.collate_tensor_fn

        def stack(batch: Any, *, collate_fn_map: Any = None) -> Any:
            return self._stack(batch, original)

        collate.collate_tensor_fn = stack
        self._undo.append(lambda: setattr(collate, "collate_tensor_fn", original))
        entries = collate.default_collate_fn_map
        if entries.get(torch.Tensor) is original:  # and not one of the user's
            entries[torch.Tensor] = stack
            self._undo.append(functools.partial(entries.__setitem__, torch.Tensor, original))

    def close(self) -> None:
        """Leave torch as it was, but for its random numbers."""
        while self._undo:
            self._undo.pop()()

    def _stack(self, batch: Any, original: Callable[[Any], Any]) -> Any:
        import torch

        first = batch[0]
        if first.is_nested or first.layout is not torch.strided:
            return original(batch)  # which says why not
        if first.is_quantized:
            return torch.stack(batch, 0)
        shape = (len(batch), *first.shape)
        return torch.stack(batch, 0, out=self._in_slot(first, shape))

    def _in_slot(self, first: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        import torch

        is_dense = type(first) is torch.Tensor and first.device.type == "cpu" and first.numel()
        if self.room is None or not is_dense:
            return first.new_empty(shape)
        array = self.room.array((shape[0] * first.numel() * first.dtype.itemsize,), np.uint8)
        return torch.from_numpy(array).view(first.dtype).view(shape)


def default_collate(batch: Any) -> Any:
    """Collate as torch."""
    from torch.utils.data import default_collate

    return default_collate(batch)


def default_convert(value: Any) -> Any:
    """Convert as torch."""
    from torch.utils.data import default_convert

    return default_convert(value)  # type: ignore[no-untyped-call]


def is_data_pipe(dataset: Any) -> bool:
    """Whether a dataset is an iterable data pipe, which takes its seed from the loader."""
    if "torch.utils.data.datapipes" not in sys.modules:
        return False
    from torch.utils.data import IterDataPipe

    return isinstance(dataset, IterDataPipe)


def seed_data_pipe(dataset: Any, seed: int) -> Any:
    """Return a data pipe whose shuffles are seeded with what all readers share."""
    import torch
    from torch.utils.data.graph_settings import apply_random_seed

    generator = torch.Generator()
    generator.manual_seed(seed)
    return apply_random_seed(dataset, generator)
