"""The step that makes one-hot vectors of class indices."""

from __future__ import annotations

import numpy as np
from pydantic import Field, field_validator

from hepfeed.draws import Draws
from hepfeed.errors import ProcessError
from hepfeed.tensors import Jagged, Padded
from hepfeed.transforms.cast import check_dtype
from hepfeed.transforms.lookup import at_event, check_made, describe, find, owners
from hepfeed.transforms.step import Batch, Step

__all__ = ["OneHot"]


class OneHot(Step):
    """Makes a vector of each class index: 1 at the index, 0 elsewhere, on a new last axis.

    ``"label" (B,)`` becomes ``(B, classes)``, a segmentation mask ``(B, H, W)`` becomes ``(B, H, W, classes)``, and
    jagged or padded indices keep their form.  What pads a padded array becomes 0 everywhere.

    Attributes:
        key: Class indices, of an integer type.
        classes: Length of the vectors.
        into: Name of the vectors in the batch.
        dtype: NumPy type of the vectors.

    Raises:
        SpecError: An option is wrong.
        KeyMissingError: The batch has no such key.
        ProcessError: The key is not of integers, or an index is not in 0 .. classes - 1.
    """

    key: str = "label"
    classes: int = Field(ge=1)
    into: str = "onehot"
    dtype: str = "float32"

    @field_validator("into")
    @classmethod
    def _check_into(cls, into: str) -> str:
        return check_made(into, "into")

    @field_validator("dtype", mode="before")
    @classmethod
    def _check_dtype(cls, dtype: object) -> str:
        return check_dtype(dtype)

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with the vectors."""
        value = find(batch, self.key)
        index = value.values if isinstance(value, Jagged | Padded) else value
        if not isinstance(index, np.ndarray) or index.dtype.kind not in "iu":
            raise ProcessError(
                f"key {self.key!r} must hold class indices (integers) to become one-hot vectors, and is"
                f" {describe(value)}",
                key=self.key,
            )
        wrong = (index < 0) | (index >= self.classes)
        if isinstance(value, Padded):
            wrong &= value.mask.reshape(value.mask.shape + (1,) * (index.ndim - 2))
        if wrong.any():
            place = np.argwhere(wrong)[0]
            raise at_event(
                ProcessError,
                f"key {self.key!r} has class {index[tuple(place)]}, and one-hot vectors of {self.classes} classes hold"
                f" 0 .. {self.classes - 1}",
                batch,
                self.key,
                int(owners(value, place[:1])[0]),
            )
        vectors = (index[..., None] == np.arange(self.classes)).astype(self.dtype)
        if isinstance(value, Padded):
            vectors[~value.mask] = 0
        if isinstance(value, Jagged):
            return {**batch, self.into: Jagged(vectors, value.offsets)}
        return {**batch, self.into: Padded(vectors, value.mask) if isinstance(value, Padded) else vectors}
