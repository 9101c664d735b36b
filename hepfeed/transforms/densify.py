"""The step that makes dense images of sparse ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import field_validator, model_validator

from hepfeed.draws import Draws
from hepfeed.errors import ProcessError
from hepfeed.tensors import Sparse
from hepfeed.transforms.cast import cast_value, check_dtype
from hepfeed.transforms.lookup import describe, find, names_of
from hepfeed.transforms.points import check_into, naming, put, without
from hepfeed.transforms.step import Batch, Keys, Step
from hepfeed.voxels import densify

__all__ = ["Densify"]


class Densify(Step):
    """Makes dense images, which are 0 where sparse ones have no site.

    Attributes:
        keys: Sparse images.
        dtype: Type of the dense images, e.g. ``"float16"``; None: that of the features.
        channel_axis: Where the axis of channels goes among those of one event.  None: images have one channel, and no
            axis for it.
        into: Keys of the dense images ``(B, *shape)``, one for each of ``keys``; None: they take the place of the
            sparse ones.

    Raises:
        ProcessError: A key is not sparse, or the type can't hold a feature.
        SpecError: A key has several channels and there is no axis for them.
    """

    keys: Keys
    dtype: str | None = None
    channel_axis: int | None = None
    into: Keys | None = None

    @field_validator("keys")
    @classmethod
    def _check_keys(cls, keys: Keys) -> Keys:
        names_of(keys)
        return keys

    @field_validator("dtype", mode="before")
    @classmethod
    def _check_dtype(cls, dtype: Any) -> str | None:
        return None if dtype is None else check_dtype(dtype)

    @model_validator(mode="after")
    def _check(self) -> Densify:
        check_into(self.keys, self.into)
        return self

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with dense images."""
        made = without(batch, self.keys) if self.into is None else dict(batch)
        for key, into in zip(names_of(self.keys), check_into(self.keys, self.into)):
            sparse = find(batch, key)
            if not isinstance(sparse, Sparse):
                raise ProcessError(f"key {key!r} must be sparse images, and is {describe(sparse)}", key=key)
            if self.dtype is not None:
                sparse = cast_value(sparse, np.dtype(self.dtype), batch, key)
            with naming(key):
                put(made, into, densify(sparse, self.channel_axis))
        return made
