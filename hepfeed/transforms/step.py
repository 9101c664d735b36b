"""What every step of a pipeline is."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from hepfeed.draws import Draws
from hepfeed.spec_options import first_fault
from hepfeed.tensors import Batch

__all__ = ["Batch", "Keys", "Step"]

Keys = str | tuple[str, ...]
"""A key or several; several get the same geometry, as an image and its segmentation mask must."""


class Step(BaseModel):
    """One step of a pipeline: options that are validated once, and a function on batches.

    A step has no state: its result depends on its options, the batch and the draws alone.  It returns a new dict, and
    may change arrays of the batch in place only if it owns them.

    Attributes:
        random: Whether it draws random numbers.  Such steps are left out where ``augment=False``.
        batchwise: Whether its result depends on which events make a batch, so that it can't be cached.

    Raises:
        SpecError: An option is wrong, missing or unknown.
    """

    # JSON has no NaN; written as null it would be taken for an option that is not given.
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")
    random: ClassVar[bool] = False
    batchwise: ClassVar[bool] = False

    def __init__(self, **options: Any) -> None:
        try:
            super().__init__(**options)
        except ValidationError as report:
            fault = first_fault(type(self), report)
        else:
            return
        raise fault  # not in the handler, see hepfeed.spec_options.validate

    @abstractmethod
    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch after this step."""
