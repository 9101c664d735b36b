"""What steps on images share: their keys, their axes, and images that are dense or sparse."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, field_validator

from hepfeed.errors import ProcessError, SpecError
from hepfeed.tensors import Sparse, Structured
from hepfeed.transforms.lookup import describe, find, names_of
from hepfeed.transforms.step import Batch, Keys, Step

__all__ = [
    "Axes",
    "GeometryStep",
    "Lengths",
    "check_probability",
    "grid_shape",
    "lengths_along",
    "read_axes",
    "read_whole",
    "same_lengths",
    "sites",
]


def read_whole(value: Any) -> tuple[int, ...]:
    """Return whole numbers as a tuple; an int stands for one.

    Raises:
        SpecError: One is no whole number.
    """
    items = value if isinstance(value, (list, tuple)) else (value,)
    for item in items:
        if isinstance(item, bool) or not isinstance(item, (int, np.integer)):
            raise SpecError(f"axes and lengths must be whole numbers, and {item!r} is none")
    return tuple(int(item) for item in items)


def read_axes(value: Any) -> tuple[int, ...]:
    """Return axes as a tuple; an int stands for one.

    Raises:
        SpecError: There is none, one is below 0, or one comes twice.
    """
    axes = read_whole(value)
    if not axes or min(axes) < 0 or len(set(axes)) != len(axes):
        raise SpecError(f"axes must be different numbers from 0, one or more, not {value!r}")
    return axes


def _read_lengths(value: Any) -> tuple[int, ...]:
    lengths = read_whole(value)
    if not lengths or min(lengths) < 1:
        raise SpecError(f"lengths must be whole numbers from 1, one or more, not {value!r}")
    return lengths


Axes = Annotated[tuple[int, ...], BeforeValidator(read_axes)]
"""Axes of one event, 0 being the first after the events; of sparse images, spatial axes.  An int stands for one."""

Lengths = Annotated[tuple[int, ...], BeforeValidator(_read_lengths)]
"""Numbers from 1, one for each axis.  An int stands for one."""


def check_probability(probability: float) -> float:
    """Return the option.

    Raises:
        SpecError: It is not from 0 to 1.
    """
    if not 0 <= probability <= 1:
        raise SpecError(f"probability must be from 0 to 1, not {probability!r}")
    return probability


class GeometryStep(Step):
    """A step that moves the items of images.

    Attributes:
        keys: Dense ``(B, *shape)`` or sparse images; several get the same geometry.
    """

    keys: Keys

    @field_validator("keys")
    @classmethod
    def _check_keys(cls, keys: Keys) -> Keys:
        names_of(keys)
        return keys

    def images(self, batch: Batch, axes: Sequence[int] | None = None) -> Iterator[tuple[str, Any, tuple[int, ...]]]:
        """Yield key, value and axes of each image: the given ones, or all that it has.

        Raises:
            KeyMissingError: The batch has no such key.
            ProcessError: A key holds no images, or lacks an axis.
        """
        for key in names_of(self.keys):
            value = find(batch, key)
            shape = grid_shape(key, value)
            chosen = tuple(range(len(shape))) if axes is None else tuple(axes)
            if not chosen or max(chosen) >= len(shape):
                raise ProcessError(
                    f"key {key!r} must have axes {chosen or 'of images'}, counted from 0, and its events have shape"
                    f" {shape}",
                    key=key,
                )
            yield key, value, chosen


def grid_shape(key: str, value: Any) -> tuple[int, ...]:
    """Return the shape of one event of a dense or sparse image.

    Raises:
        ProcessError: It is neither.
    """
    if isinstance(value, Sparse):
        return tuple(value.spatial_shape)
    if isinstance(value, Structured) or not hasattr(value, "dtype"):
        raise ProcessError(f"key {key!r} must be a dense or sparse image, and is {describe(value)}", key=key)
    return tuple(value.shape[1:])


def lengths_along(key: str, value: Any, axes: Sequence[int]) -> tuple[int, ...]:
    """Return the lengths of some axes of an image."""
    shape = grid_shape(key, value)
    return tuple(shape[axis] for axis in axes)


def same_lengths(first: tuple[str, tuple[int, ...]], key: str, lengths: tuple[int, ...], axes: Sequence[int]) -> None:
    """Check that an image has the lengths of the first one.

    Raises:
        ProcessError: It has others.
    """
    if lengths != first[1]:
        raise ProcessError(
            f"keys {first[0]!r} and {key!r} must have the same lengths along axes {tuple(axes)} to be treated alike,"
            f" and have {first[1]} and {lengths}: give them steps of their own",
            key=key,
        )


def sites(value: Sparse) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the coordinates ``(N, D) int64``, a copy, and the events ``(N,) int64`` of the sites of sparse images."""
    indices = np.asarray(value.indices).astype(np.int64)
    return np.ascontiguousarray(indices[:, 1:]), indices[:, 0]
