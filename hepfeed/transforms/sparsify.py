"""The step that makes sparse images of dense ones."""

from __future__ import annotations

import numpy as np
from pydantic import field_validator, model_validator

from hepfeed.draws import Draws
from hepfeed.errors import ProcessError
from hepfeed.tensors import Structured
from hepfeed.transforms.lookup import describe, find, names_of
from hepfeed.transforms.points import check_into, naming, put, without
from hepfeed.transforms.step import Batch, Keys, Step
from hepfeed.voxels import check_threshold, sparsify

__all__ = ["Sparsify"]


class Sparsify(Step):
    """Keeps the sites of dense images that are above a threshold.

    With a threshold of 0 and images of no negative numbers, :class:`~hepfeed.transforms.Densify` gives them back.

    Attributes:
        keys: Dense images ``(B, *shape)`` of integers or floating point.
        threshold: Sites are where ``x > threshold``; it is rounded to the type of floating-point images.  A NaN makes a
            site too, so that it does not go unnoticed.
        absolute: Sites are where ``|x| > threshold``.
        channel_axis: Axis of the channels among those of one event: a site is where any channel is above.  None: images
            have one channel and no axis for it.
        into: Keys of the sparse images, one for each of ``keys``; None: they take the place of the dense ones.

    The features are ``(N, C)``, float64 where the images are, else float32.

    Raises:
        ProcessError: A key is not dense.
        SpecError: A key has no such channel axis, or no axis else.
    """

    keys: Keys
    threshold: float = 0.0
    absolute: bool = False
    channel_axis: int | None = None
    into: Keys | None = None

    @field_validator("keys")
    @classmethod
    def _check_keys(cls, keys: Keys) -> Keys:
        names_of(keys)
        return keys

    @model_validator(mode="after")
    def _check(self) -> Sparsify:
        check_threshold(self.threshold, self.absolute)
        check_into(self.keys, self.into)
        return self

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with sparse images."""
        made = without(batch, self.keys) if self.into is None else dict(batch)
        for key, into in zip(names_of(self.keys), check_into(self.keys, self.into)):
            dense = find(batch, key)
            if isinstance(dense, Structured) or np.asarray(dense).dtype.kind not in "biuf":
                raise ProcessError(f"key {key!r} must be dense images of numbers, and is {describe(dense)}", key=key)
            with naming(key):
                put(made, into, sparsify(dense, self.threshold, self.absolute, self.channel_axis))
        return made
