"""The step that gives keys other names."""

from __future__ import annotations

from pydantic import field_validator

from hepfeed.draws import Draws
from hepfeed.errors import ProcessError, SpecError
from hepfeed.transforms.lookup import check_made, find
from hepfeed.transforms.step import Batch, Step

__all__ = ["Rename"]


class Rename(Step):
    """Gives keys other names, all at once, so that two can change places.

    Attributes:
        names: Old name -> new name; not of ``"label"``, ``"event"`` or ``"weight"``.

    Raises:
        KeyMissingError: The batch has no such key.
        ProcessError: The batch has a key of the new name already.
    """

    names: dict[str, str]

    @field_validator("names")
    @classmethod
    def _check_names(cls, names: dict[str, str]) -> dict[str, str]:
        if not names:
            raise SpecError("names must give a key or more another name, e.g. {'jets.pt': 'pt'}, and is empty")
        for old, new in names.items():
            check_made(old, "names")
            check_made(new, "names")
            if list(names.values()).count(new) > 1:
                raise SpecError(f"names has {new!r} twice: give each key a name of its own")
        return names

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with other names."""
        for old, new in self.names.items():
            find(batch, old)
            if new in batch and new not in self.names:
                raise ProcessError(
                    f"key {old!r} can't be renamed to {new!r}, which the batch has already: drop or rename that one",
                    key=new,
                )
        return {self.names.get(key, key): value for key, value in batch.items()}
