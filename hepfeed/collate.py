"""From a finished slot to the batch that a training loop gets."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hepfeed.errors import KeyMissingError, ProcessError, SpecError, nearest
from hepfeed.form import StreamForm
from hepfeed.stream import Delivery
from hepfeed.tensors import Batch, Structured, take

__all__ = ["Collator", "Outputs"]

Outputs = Any
"""A name, or tuples, lists and dicts of names: of the batch's keys, or ``label``, ``onehot``, ``event``, ``weight``."""


class Collator:
    """Makes batches of torch tensors.

    Args:
        files: Paths, for messages.
        n_classes: Length of ``"onehot"``.
        outputs: Structure of the batch; None for the dict itself.
        delivery_fn: Called with the dict in the consumer's process; its result is the batch.
        steps_follow: Whether steps come after: they need the dict, and :meth:`arrange` comes behind them.

    Raises:
        SpecError: ``outputs`` is not a structure of names, or is given together with ``delivery_fn``.
    """

    def __init__(
        self,
        files: list[str],
        n_classes: int,
        outputs: Outputs | None = None,
        delivery_fn: Callable[[dict[str, Any]], Any] | None = None,
        steps_follow: bool = False,
    ) -> None:
        if outputs is not None and delivery_fn is not None:
            raise SpecError("give outputs or delivery_fn, not both: delivery_fn can arrange the batch itself")
        if outputs is not None:
            _check_names(outputs)
        self._files = files
        self._n_classes = n_classes
        self._outputs = outputs
        self._delivery_fn = delivery_fn
        self._steps_follow = steps_follow

    def __call__(self, delivery: Delivery, form: StreamForm) -> Any:
        """Return the batch; its tensors are views of the slot unless that must be given back at once.

        Args:
            delivery: The slot and what lies there.
            form: Of the stream that it comes from.
        """
        batch = self._batch(delivery, form, torch.from_numpy if delivery.shared else _copied)
        if self._delivery_fn is None:
            return batch if self._steps_follow else self.arrange(batch)
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

    @property
    def lends(self) -> bool:
        """Whether the user's code gets batches before they are delivered."""
        return self._delivery_fn is not None

    def arrange(self, batch: Batch) -> Any:
        """Return the structure that ``outputs`` asks for."""
        return batch if self._outputs is None else self._arrange(self._outputs, batch)

    def _batch(self, delivery: Delivery, form: StreamForm, convert: Callable[[NDArray[Any]], torch.Tensor]) -> Batch:
        spec, kept = delivery.spec, delivery.kept
        if delivery.finished is not None:
            return delivery.finished.batch(delivery.memory, convert)
        named = form.arrays(delivery.memory, delivery.events, delivery.counts)
        if kept is not None:
            named = {name: take(values, kept) for name, values in named.items()}
        batch = {name: v.map(convert) if isinstance(v, Structured) else convert(v) for name, v in named.items()}
        batch["label"] = torch.from_numpy(spec.label.copy())
        batch["event"] = torch.from_numpy(np.stack([spec.file, spec.row], 1))
        if delivery.weight is not None:
            batch["weight"] = torch.from_numpy(delivery.weight.copy())
        return batch

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


def _copied(array: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(array.copy())


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
