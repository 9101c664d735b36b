"""From a finished slot to the batch that a training loop gets."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hepfeed.errors import KeyMissingError, ProcessError, SpecError, nearest
from hepfeed.pool import Delivery
from hepfeed.reader import KeyPlace

__all__ = ["Collator", "Outputs"]

Outputs = Any
"""A name, or tuples, lists and dicts of names: keys of the batch, ``"label"``, ``"onehot"``, ``"event"``."""


class Collator:
    """Makes batches of torch tensors.

    Args:
        keys: Keys as read.
        files: Paths, for messages.
        n_classes: Length of ``"onehot"``.
        outputs: Structure of the batch; None for the dict itself.
        delivery_fn: Called with the dict in the consumer's process; its result is the batch.

    Raises:
        SpecError: ``outputs`` is not a structure of names, or is given together with ``delivery_fn``.
    """

    def __init__(
        self,
        keys: tuple[KeyPlace, ...],
        files: list[str],
        n_classes: int,
        outputs: Outputs | None = None,
        delivery_fn: Callable[[dict[str, Any]], Any] | None = None,
    ) -> None:
        if outputs is not None and delivery_fn is not None:
            raise SpecError("give outputs or delivery_fn, not both: delivery_fn can arrange the batch itself")
        if outputs is not None:
            _check_names(outputs)
        self._keys = keys
        self._files = files
        self._n_classes = n_classes
        self._outputs = outputs
        self._delivery_fn = delivery_fn

    def __call__(self, delivery: Delivery) -> Any:
        """Return the batch; its tensors are views of the slot unless that must be given back at once."""
        arrays = self._arrays(delivery)
        if not delivery.shared:
            arrays = {n: v.copy() if isinstance(v, np.ndarray) else v for n, v in arrays.items()}
        batch = {n: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for n, v in arrays.items()}
        if self._outputs is not None:
            return self._arrange(self._outputs, batch)
        if self._delivery_fn is None:
            return batch
        try:
            return self._delivery_fn(batch)
        except Exception as error:
            file, row = int(delivery.spec.file[0]), int(delivery.spec.row[0])
            path = self._files[file]
            text = "".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip()
            raise ProcessError(
                f"delivery_fn raised {type(error).__name__}: {error} on batch {delivery.spec.index}, whose first event"
                f" is event {row} of {path!r}\n\n{text}",
                file=path,
                event=row,
            ) from error

    def _arrays(self, delivery: Delivery) -> dict[str, Any]:
        finished, spec, kept = delivery.finished, delivery.spec, delivery.kept
        if finished is not None:
            memory = delivery.memory
            named: dict[str, Any] = {
                name: _view(memory, dtype, shape, at) for name, (dtype, shape, at) in finished.tensors.items()
            }
            return {**named, **finished.inline}
        rows = len(spec) if kept is None else int(kept.max(initial=-1)) + 1
        named = {key.name: key.view(delivery.memory, rows) for key in self._keys}
        if kept is not None:
            named = {name: values[kept] for name, values in named.items()}
        return {**named, "label": spec.label.copy(), "event": np.stack([spec.file, spec.row], 1)}

    def _arrange(self, outputs: Outputs, batch: dict[str, Any]) -> Any:
        if isinstance(outputs, Mapping):
            return {name: self._arrange(part, batch) for name, part in outputs.items()}
        if isinstance(outputs, tuple | list):
            return type(outputs)(self._arrange(part, batch) for part in outputs)
        if outputs in batch:
            return batch[outputs]
        if outputs == "onehot" and "label" in batch:
            return torch.nn.functional.one_hot(batch["label"], self._n_classes).to(torch.float32)
        raise KeyMissingError(
            f"outputs names {outputs!r}, which the batch does not have: {nearest(outputs, [*batch, 'onehot'])}"
        )


def _view(memory: NDArray[np.uint8], dtype: str, shape: tuple[int, ...], at: int) -> NDArray[Any]:
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    return memory[at : at + size].view(dtype).reshape(shape)


def _check_names(outputs: Outputs) -> None:
    if isinstance(outputs, str):
        return
    parts = list(outputs.values()) if isinstance(outputs, Mapping) else outputs
    if not isinstance(parts, tuple | list) or not parts:
        raise SpecError(
            f"outputs must be names in tuples, lists or dicts, e.g. (['ECAL', 'HCAL'], 'onehot'), not {parts!r}"
        )
    for part in parts:
        _check_names(part)
