"""The step that puts images into larger ones at some place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from pydantic import model_validator

from hepfeed.draws import Draws
from hepfeed.errors import ProcessError, SpecError
from hepfeed.transforms.geometry import Axes, Lengths, lengths_along, same_lengths
from hepfeed.transforms.moving import Move, MovingStep
from hepfeed.transforms.step import Batch

__all__ = ["Embed"]


class Embed(MovingStep):
    """Puts images into larger ones, at a place that is given or random.

    Attributes:
        keys: Dense or sparse images of any type; several of the same lengths come to the same place.
        shape: Lengths of the larger image, one for each axis.
        at: Where the image begins, one number for each axis; ``"random"``: anywhere that it fits, all places equally
            likely.
        value: What is around the image; 0 for sparse images.
        axes: Which axes are made longer; None: all.

    Raises:
        ProcessError: A key holds no images, lacks an axis, does not fit into ``shape`` at that place, or keys differ in
            length and the place is random.
        SpecError: A key's type can't hold ``value``.
    """

    shape: Lengths
    at: Literal["random"] | tuple[int, ...]
    value: float = 0.0
    axes: Axes | None = None

    @property
    def random(self) -> bool:  # type: ignore[override]
        """Whether it draws random numbers."""
        return self.at == "random"

    @model_validator(mode="after")
    def _check(self) -> Embed:
        if self.axes is not None and len(self.axes) != len(self.shape):
            raise SpecError(f"shape must have one length for each of axes {self.axes}, not {self.shape}")
        if not isinstance(self.at, str) and (len(self.at) != len(self.shape) or min(self.at) < 0):
            raise SpecError(f"at must have one number from 0 for each length of shape {self.shape}, not {self.at}")
        return self

    def moves(self, batch: Batch, draws: Draws) -> Iterator[tuple[str, Any, Move]]:
        """Yield the moves."""
        first: tuple[str, tuple[int, ...]] | None = None
        for key, image, axes in self.images(batch, self.axes):
            lengths = lengths_along(key, image, axes)
            start = (0,) * len(lengths) if isinstance(self.at, str) else self.at
            fits = len(axes) == len(self.shape) and all(a + n <= w for a, n, w in zip(start, lengths, self.shape))
            if not fits:
                raise ProcessError(
                    f"key {key!r} must fit into {self.shape} at {self.at} along axes {axes}, and has lengths {lengths}:"
                    " give a larger shape, or crop it first",
                    key=key,
                )
            if isinstance(self.at, str):
                first = first or (key, lengths)
                same_lengths(first, key, lengths, axes)
                room = np.array(self.shape, np.int64) - np.array(lengths, np.int64)
                place = draws.integers(len(axes), 0, room + 1)
            else:
                place = np.tile(np.array(self.at, np.int64), (len(draws), 1))
            yield key, image, Move.to_window(key, image, -place, axes, self.shape, self.value)
