"""The step that leaves keys out."""

from __future__ import annotations

from pydantic import field_validator

from hepfeed.draws import Draws
from hepfeed.transforms.lookup import check_made, find, names_of
from hepfeed.transforms.step import Batch, Keys, Step

__all__ = ["Drop"]


class Drop(Step):
    """Leaves keys out of the batch.

    Attributes:
        keys: What goes; not ``"label"``, ``"event"`` or ``"weight"``.

    Raises:
        KeyMissingError: The batch has no such key.
    """

    keys: Keys

    @field_validator("keys")
    @classmethod
    def _check_keys(cls, keys: Keys) -> Keys:
        for name in names_of(keys):
            check_made(name, "keys")
        return keys

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch without some of its keys."""
        made = dict(batch)
        for key in names_of(self.keys):
            find(batch, key)
            del made[key]
        return made
