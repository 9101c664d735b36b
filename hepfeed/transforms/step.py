"""What every step of a pipeline is."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from hepfeed.draws import Draws

__all__ = ["Batch", "Keys", "Step"]

Batch = dict[str, Any]
"""Name -> array ``(B, ...)`` or :class:`hepfeed.tensors.Structured` of B events; and ``"label"``, ``"event"``."""

Keys = str | tuple[str, ...]
"""A key or several; several get the same geometry, as an image and its segmentation mask must."""


class Step(BaseModel):
    """One step of a pipeline: options that are validated once, and a function on batches.

    A step has no state: its result depends on its options, the batch and the draws alone.  It returns a new dict, and
    may change arrays of the batch in place only if it owns them.

    Attributes:
        random: Whether it draws random numbers.  Such steps are left out where ``augment=False``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    random: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch after this step."""
