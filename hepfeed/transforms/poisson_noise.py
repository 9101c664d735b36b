"""The step that replaces numbers by Poisson counts of their mean."""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic import field_validator

from hepfeed.draws import Draws
from hepfeed.errors import SpecError
from hepfeed.noise import MAX_POISSON_MEAN, poisson_noise
from hepfeed.transforms.items import Items
from hepfeed.transforms.lookup import names_of
from hepfeed.transforms.step import Batch, Keys, Step

__all__ = ["PoissonNoise"]


class PoissonNoise(Step):
    """Replaces x by ``k / scale`` with k from the Poisson distribution of mean ``x scale``; 0 stays 0.

    The mean of the result is x and its width ``sqrt(x / scale)``.  Results are float64 for float64 and float32 for all
    other types.

    Attributes:
        keys: Dense, jagged, padded or sparse arrays of integers or floats; each key has other random numbers.
        scale: Counts per unit of the numbers, above 0, such as photoelectrons per MeV.

    Raises:
        ProcessError: A key holds no numbers, or one whose mean is negative, NaN or above 2^40.
    """

    random: ClassVar[bool] = True

    keys: Keys
    scale: float = 1.0

    @field_validator("keys")
    @classmethod
    def _check_keys(cls, keys: Keys) -> Keys:
        names_of(keys)
        return keys

    @field_validator("scale")
    @classmethod
    def _check_scale(cls, scale: float) -> float:
        if not 0 < scale < math.inf:
            raise SpecError(f"scale must be a number above 0, not {scale!r}")
        return scale

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with counts."""
        made = dict(batch)
        for number, key in enumerate(names_of(self.keys)):
            items = Items.of(batch, key)
            counts, refused = poisson_noise(items.rows, items.item_offsets, draws.part(number), self.scale)
            if refused >= 0:
                message = (
                    f"the mean of a Poisson number, x times {self.scale!r}, must be from 0 to {MAX_POISSON_MEAN:.4g}"
                )
                raise items.fault(batch, refused, f"{message}, and x is {{value!r}}: clip or scale it first")
            made[key] = items.put(counts)
        return made
