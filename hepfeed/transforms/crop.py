"""The step that cuts a window out of images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from hepfeed.draws import Draws
from hepfeed.errors import ProcessError, SpecError
from hepfeed.images import check_numbers, extents
from hepfeed.tensors import Sparse
from hepfeed.transforms.geometry import Axes, Lengths, lengths_along, same_lengths, sites
from hepfeed.transforms.lookup import at_event
from hepfeed.transforms.moving import Move, MovingStep
from hepfeed.transforms.step import Batch

__all__ = ["Crop"]


class Crop(MovingStep):
    """Cuts a window out of images.

    Along an axis where the image is as long as the window or longer, the window stays within the image.  Along an axis
    where it is shorter, the image comes into the middle of the window, between zeros, as with
    :class:`~hepfeed.transforms.Pad`.

    Attributes:
        keys: Dense or sparse images; the window of the first is that of the others, which must be as long.
        shape: Lengths of the window, one for each axis.
        at: Where it is: ``"centre"``, in the middle of the image, at ``(length - shape) // 2``; ``"maximum"``, with the
            largest item of the first key at its place ``shape // 2`` (the first such item in C order; the centre where
            no item is above 0); ``"box"``, about the middle of the box around what is not 0 (the centre where all is
            0); or where it begins.
        shift: Random numbers from ``-shift`` to ``shift`` are added to where the window begins, along each axis.
        axes: Which axes are cut; None: all.

    Raises:
        ProcessError: A key holds no images, lacks an axis, keys differ in length, or a window given by its place does
            not lie within the image.
    """

    shape: Lengths
    at: Literal["centre", "maximum", "box"] | tuple[int, ...] = "centre"
    shift: int = 0
    axes: Axes | None = None

    @property
    def random(self) -> bool:  # type: ignore[override]
        """Whether it draws random numbers."""
        return self.shift > 0

    @model_validator(mode="after")
    def _check(self) -> Crop:
        if self.axes is not None and len(self.axes) != len(self.shape):
            raise SpecError(f"shape must have one length for each of axes {self.axes}, not {self.shape}")
        if not isinstance(self.at, str) and (len(self.at) != len(self.shape) or min(self.at) < 0):
            raise SpecError(f"at must have one number from 0 for each length of shape {self.shape}, not {self.at}")
        if not 0 <= self.shift < 2**31:
            raise SpecError(f"shift must be a whole number from 0, not {self.shift}")
        return self

    def moves(self, batch: Batch, draws: Draws) -> Iterator[tuple[str, Any, Move]]:
        """Yield the moves."""
        first: tuple[str, tuple[int, ...]] | None = None
        for key, value, axes in self.images(batch, self.axes):
            if len(axes) != len(self.shape):
                raise ProcessError(
                    f"shape {self.shape} has {len(self.shape)} lengths, and key {key!r} has {len(axes)} axes: give as"
                    " many, or name the axes",
                    key=key,
                )
            lengths = lengths_along(key, value, axes)
            if first is None:
                first = key, lengths
                origin = self._origin(batch, key, value, axes, lengths, draws)
            same_lengths(first, key, lengths, axes)
            yield key, value, Move.to_window(key, value, origin, axes, self.shape)

    def _origin(
        self, batch: Batch, key: str, value: Any, axes: tuple[int, ...], lengths: tuple[int, ...], draws: Draws
    ) -> NDArray[np.int64]:
        """Return where the window of each event begins, ``(B, len(axes))``."""
        window, length = np.array(self.shape, np.int64), np.array(lengths, np.int64)
        middle = (length - window) // 2
        if isinstance(self.at, tuple):
            origin = np.tile(np.array(self.at, np.int64), (len(draws), 1))
            beyond = (length >= window) & (origin[:1] + window > length)
            if beyond.any() and len(draws):
                message = f"a window of {self.shape} at {self.at} is not within images of {lengths} of key {key!r}"
                raise at_event(ProcessError, message, batch, key, 0)
        elif self.at == "maximum":
            place, found = _largest(key, value)
            origin = np.where(found[:, None], place[:, list(axes)] - window // 2, middle)
        elif self.at == "box":
            box = _box(key, value)[:, list(axes)]
            origin = np.where(box.any(axis=2), (box[:, :, 0] + box[:, :, 1] - window) // 2, middle)
        else:
            origin = np.tile(middle, (len(draws), 1))
        if self.shift:
            origin = origin + draws.integers(len(axes), -self.shift, self.shift + 1)
        # Where the image is shorter than the window, it is in the middle of it.
        return np.where(length >= window, np.clip(origin, 0, np.maximum(length - window, 0)), -((window - length) // 2))


def _largest(key: str, value: Any) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the place ``(B, D)`` of the first largest item of each event, and whether it is above 0."""
    if isinstance(value, Sparse):
        coords, event = sites(value)
        place = np.zeros((value.batch_size, coords.shape[1]), np.int64)
        found = np.zeros(value.batch_size, bool)
        features = np.asarray(value.features)
        if features.size:
            check_numbers(features.dtype)
            largest = features.max(axis=1)
            # Sites are in C order: of those as large as the largest of their event, the first.
            order = np.lexsort((np.arange(len(event)), -largest.astype(np.float64), event))
            present, at = np.unique(event[order], return_index=True)
            place[present] = coords[order[at]]
            found[present] = largest[order[at]] > 0
        return place, found
    shape = value.shape[1:]
    flat = np.asarray(value).reshape(len(value), math.prod(shape))
    if not flat.size:
        return np.zeros((len(value), len(shape)), np.int64), np.zeros(len(value), bool)
    check_numbers(value.dtype)
    at = flat.argmax(axis=1)
    return np.stack(np.unravel_index(at, shape), axis=-1).astype(np.int64), flat[np.arange(len(flat)), at] > 0


def _box(key: str, value: Any) -> NDArray[np.int64]:
    """Return the least box around what is not 0, ``(B, D, 2)``: first and last + 1; 0, 0 where there is nothing."""
    if not isinstance(value, Sparse):
        return extents(value)
    coords, event = sites(value)
    active = (np.asarray(value.features) != 0).any(axis=1)
    low = np.full((value.batch_size, coords.shape[1]), np.iinfo(np.int64).max)
    high = np.zeros_like(low)
    np.minimum.at(low, event[active], coords[active])
    np.maximum.at(high, event[active], coords[active] + 1)
    return np.stack([np.where(high > 0, low, 0), high], axis=-1)
