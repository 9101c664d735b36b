"""The step that adds Gaussian noise."""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic import field_validator

from hepfeed.draws import Draws
from hepfeed.errors import SpecError
from hepfeed.noise import gaussian_noise
from hepfeed.transforms.items import Items
from hepfeed.transforms.lookup import names_of
from hepfeed.transforms.step import Batch, Keys, Step

__all__ = ["GaussianNoise"]


class GaussianNoise(Step):
    """Adds normal random numbers n of mean 0 and width 1 times ``sigma``: ``x + sigma n``, or ``x + sigma |x| n``.

    Every number has an n of its own.  Results are float64 for float64 and float32 for all other types.

    Attributes:
        keys: Dense, jagged, padded or sparse arrays of integers or floats; each key has other random numbers.  Padding
            stays 0, and of sparse arrays the sites alone get noise.
        sigma: Width, in the unit of the numbers; where relative, a part of them.
        relative: Whether the width goes with the size of the number.
        only_active: Whether numbers that are 0 stay 0.

    Raises:
        ProcessError: A key holds no numbers.
    """

    random: ClassVar[bool] = True

    keys: Keys
    sigma: float
    relative: bool = False
    only_active: bool = False

    @field_validator("keys")
    @classmethod
    def _check_keys(cls, keys: Keys) -> Keys:
        names_of(keys)
        return keys

    @field_validator("sigma")
    @classmethod
    def _check_sigma(cls, sigma: float) -> float:
        if not 0 <= sigma < math.inf:
            raise SpecError(f"sigma must be a number from 0, not {sigma!r}")
        return sigma

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with noise."""
        made = dict(batch)
        for number, key in enumerate(names_of(self.keys)):
            items = Items.of(batch, key)
            noisy = gaussian_noise(
                items.rows, items.item_offsets, draws.part(number), self.sigma, self.relative, self.only_active
            )
            made[key] = items.put(noisy)
        return made
