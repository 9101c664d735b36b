"""The step that drops pixels, wires or slices of images at random."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, field_validator

from hepfeed.draws import Draws
from hepfeed.errors import ProcessError
from hepfeed.images import drop_slices
from hepfeed.noise import drop_items
from hepfeed.tensors import Sparse
from hepfeed.transforms.geometry import (
    GeometryStep,
    check_probability,
    grid_shape,
    lengths_along,
    read_axes,
    same_lengths,
    sites,
)
from hepfeed.transforms.step import Batch

__all__ = ["DropOut"]

_ITEM_BYTES = (1, 2, 4, 8)


def _read_per(value: Any) -> str | tuple[int, ...]:
    return "pixel" if value == "pixel" else read_axes(value)


class DropOut(GeometryStep):
    """Drops parts of images, as dead channels of a detector do: dense items become 0, sparse sites go.

    What has the same place along the axes ``per`` is dropped together: with ``per=0``, every slice along axis 0, such
    as a wire, is there or not; with ``per=(0, 1)`` of images ``(x, y, channel)``, every pixel with all its channels.
    What is left is not scaled.

    Attributes:
        keys: Dense or sparse images of any type.  Several drop the same parts and have the same lengths along ``per``.
        probability: Of each part to be dropped, from 0 to 1.
        per: Axes; or ``"pixel"``: every item of dense images and every site of sparse ones for itself, for which
            several keys must have the same shape or the same sites.

    Raises:
        ProcessError: A key holds no images, lacks an axis, or keys do not fit each other.
    """

    random: ClassVar[bool] = True

    probability: float
    per: Annotated[Literal["pixel"] | tuple[int, ...], BeforeValidator(_read_per)] = "pixel"

    @field_validator("probability")
    @classmethod
    def _check_probability(cls, probability: float) -> float:
        return check_probability(probability)

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch without what is dropped."""
        made = dict(batch)
        first: tuple[str, tuple[int, ...]] | None = None
        for key, value, axes in self.images(batch, None if self.per == "pixel" else sorted(self.per)):
            lengths = lengths_along(key, value, axes)
            first = first or (key, lengths)
            same_lengths(first, key, lengths, axes)
            if self.per != "pixel":
                made[key] = self._without_parts(key, value, axes, lengths, draws)
            elif isinstance(value, Sparse):
                self._check_same_sites(first[0], batch[first[0]], key, value)
                made[key] = _without_sites(value, draws.uniform_jagged(value.offsets()) >= self.probability)
            else:
                made[key] = self._without_items(key, value, draws)
        return made

    def _check_same_sites(self, first: str, one: Any, key: str, other: Sparse) -> None:
        if not isinstance(one, Sparse) or not np.array_equal(one.indices, other.indices):
            raise ProcessError(
                f"keys {first!r} and {key!r} must have the same sites to drop the same: give them steps of their own",
                key=key,
            )

    def _without_items(self, key: str, value: NDArray[Any], draws: Draws) -> NDArray[Any]:
        if value.dtype.itemsize not in _ITEM_BYTES:
            raise ProcessError(f"key {key!r} must have items of 1, 2, 4 or 8 bytes, and is {value.dtype}", key=key)
        offsets = np.arange(len(value) + 1, dtype=np.int64) * math.prod(value.shape[1:])
        return drop_items(value, offsets, draws, self.probability)

    def _without_parts(
        self, key: str, value: Any, axes: tuple[int, ...], lengths: tuple[int, ...], draws: Draws
    ) -> Any:
        keep = draws.uniform(math.prod(lengths)) >= self.probability
        if isinstance(value, Sparse):
            coords, event = sites(value)
            part = np.ravel_multi_index(tuple(coords[:, axis] for axis in axes), lengths) if len(coords) else event
            return _without_sites(value, keep[event, part])
        # Parts along axes a .. z are slices of one axis that stands for all axes from a to z.
        shape, low, high = grid_shape(key, value), axes[0], axes[-1]
        along = [n if low + i in axes else 1 for i, n in enumerate(shape[low : high + 1])]
        whole, parts = shape[low : high + 1], math.prod(shape[low : high + 1])
        wide = np.broadcast_to(keep.reshape(len(keep), *along), (len(value), *whole)).reshape(len(value), parts)
        merged = np.reshape(value, (len(value), *shape[:low], parts, *shape[high + 1 :]))
        return drop_slices(merged, wide, low).reshape(value.shape)


def _without_sites(value: Sparse, keep: NDArray[np.bool_]) -> Sparse:
    return Sparse(
        np.asarray(value.features)[keep], np.asarray(value.indices)[keep], value.spatial_shape, value.batch_size
    )
