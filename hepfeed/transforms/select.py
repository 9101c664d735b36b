"""The step that keeps some keys."""

from __future__ import annotations

from pydantic import field_validator

from hepfeed.draws import Draws
from hepfeed.spec_options import RESERVED_NAMES
from hepfeed.transforms.lookup import find, names_of
from hepfeed.transforms.step import Batch, Keys, Step

__all__ = ["Select"]


class Select(Step):
    """Keeps some keys, and ``"label"``, ``"event"`` and ``"weight"``; the others leave the batch.

    Attributes:
        keys: What stays, in this order.

    Raises:
        KeyMissingError: The batch has no such key.
    """

    keys: Keys

    @field_validator("keys")
    @classmethod
    def _check_keys(cls, keys: Keys) -> Keys:
        names_of(keys)
        return keys

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with some of its keys."""
        made = {key: find(batch, key) for key in names_of(self.keys)}
        return made | {key: batch[key] for key in RESERVED_NAMES if key in batch}
