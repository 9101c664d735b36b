"""Images as they are, or only their occupied sites."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from hepfeed.convert.block import Block, Column, Field, Rows, densify, sparsify
from hepfeed.errors import KeyMissingError, SpecError, nearest

__all__ = ["Form", "Shaper"]

Form = Literal["dense", "sparse"]


@dataclass(frozen=True)
class Shaper:
    """Brings all images of the events into one form.

    Args:
        form: ``"dense"``: sparse keys become images.  ``"sparse"``: images become sites; an image is a dense key
            of numbers with at least two axes longer than 1.
        threshold: A site stays where ``|value| > threshold``; only with ``"sparse"``.
        images: Keys that are images, in place of that rule; only with ``"sparse"``.

    Raises:
        SpecError: An option is out of its range, or has no meaning with this form.
    """

    form: Form
    threshold: float = 0.0
    images: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.form not in get_args(Form):
            raise SpecError(f"form must be one of {', '.join(map(repr, get_args(Form)))}; got {self.form!r}")
        if not (math.isfinite(self.threshold) and self.threshold >= 0):
            raise SpecError(f"threshold must be a number of at least 0; got {self.threshold}")
        if self.form == "dense" and (self.threshold or self.images is not None):
            raise SpecError("threshold and images say how images become sparse: give them with form='sparse'")

    def fields(self, fields: dict[str, Field]) -> dict[str, Field]:
        """Return the keys as they will be.

        Raises:
            KeyMissingError: One of ``images`` is no key.
            SpecError: One of ``images`` has no image axes.
        """
        for name in self.images or ():
            if name not in fields:
                raise KeyMissingError(f"there is no key {name!r} to make sparse: {nearest(name, fields)}", key=name)
            column = fields[name].columns.get("", Column(np.dtype(np.uint8)))
            if not (fields[name].spatial_shape or column.shape) or column.dtype.names:
                raise SpecError(f"key {name!r} is {fields[name]}, which is no image: leave it out of images", key=name)
        made = {}
        for name, field in fields.items():
            if self._becomes_sparse(name, field):
                column = field.columns[""]
                made[name] = Field.sparse(column.dtype, column.shape, **field.attributes)
            elif self._becomes_dense(field):
                made[name] = Field.dense(field.columns["value"].dtype, field.spatial_shape, **field.attributes)
            else:
                made[name] = field
        return made

    def block(self, block: Block, fields: dict[str, Field]) -> Block:
        """Return the values of a block in the new form; ``fields`` are the keys as they were."""
        made: Block = {}
        for name, values in block.items():
            if isinstance(values, Rows):
                field = fields[name]
                made[name] = densify(values, field.spatial_shape) if self._becomes_dense(field) else values
            else:
                made[name] = sparsify(values, self.threshold) if self._becomes_sparse(name, fields[name]) else values
        return made

    def added_bytes(self, fields: dict[str, Field]) -> int:
        """Bytes of the images that one event of sites becomes."""
        return sum(
            math.prod(field.spatial_shape) * field.columns["value"].dtype.itemsize
            for field in fields.values()
            if self._becomes_dense(field)
        )

    def _becomes_dense(self, field: Field) -> bool:
        return self.form == "dense" and field.kind == "sparse"

    def _becomes_sparse(self, name: str, field: Field) -> bool:
        if self.form == "dense" or field.kind != "dense":
            return False
        if self.images is not None:
            return name in self.images
        column = field.columns[""]
        return np.issubdtype(column.dtype, np.number) and sum(n > 1 for n in column.shape) >= 2
