"""Events on their way from one format to the other: what a key is, and its values in a run of events."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Block", "Column", "Field", "Kind", "Rows", "bounded_steps", "coordinate_type", "densify", "sparsify"]

Kind: TypeAlias = Literal["dense", "ragged", "sparse"]
Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True)
class Column:
    """Numbers of one kind.

    Attributes:
        dtype: In the byte order of the machine.
        shape: Of one event of a dense key, of one row of the others.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", self.dtype.newbyteorder("="))

    def __str__(self) -> str:
        return f"{self.dtype} {self.shape}"


@dataclass(frozen=True)
class Field:
    """A key of the converted events.

    Attributes:
        kind: ``"dense"``: one shape for all events; ``"ragged"``: rows; ``"sparse"``: the sites of an image.
        columns: Of a dense key the one column ``""``; of a ragged key one or several; of a sparse key
            ``coords (D,)`` and ``value ()``.
        spatial_shape: Of the image of a sparse key.
        attributes: Written beside the data; they don't make keys differ.
        guessed: The source has no row, so its type and shape say nothing.
    """

    kind: Kind
    columns: dict[str, Column]
    spatial_shape: tuple[int, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict, compare=False)
    guessed: bool = field(default=False, compare=False)

    @classmethod
    def dense(cls, dtype: Any, shape: tuple[int, ...] = (), **attributes: Any) -> Field:
        """Return a key whose events all have one shape."""
        return cls("dense", {"": Column(np.dtype(dtype), tuple(map(int, shape)))}, attributes=attributes)

    @classmethod
    def ragged(cls, columns: dict[str, Column], **attributes: Any) -> Field:
        """Return a key whose events have any number of rows."""
        return cls("ragged", columns, attributes=attributes)

    @classmethod
    def sparse(cls, dtype: Any, spatial_shape: tuple[int, ...], **attributes: Any) -> Field:
        """Return a key of images of which the occupied sites are kept."""
        shape = tuple(map(int, spatial_shape))
        coords = Column(coordinate_type(shape), (len(shape),))
        return cls("sparse", {"coords": coords, "value": Column(np.dtype(dtype))}, shape, attributes)

    def agrees(self, other: Field) -> bool:
        """Whether events of both can stand in one file."""
        unknown = self.guessed or other.guessed
        return self == other or (unknown and self.kind == other.kind and self.columns.keys() == other.columns.keys())

    @property
    def event_bytes(self) -> int:
        """Bytes of one event of a dense key; 0 for others, whose events differ."""
        return sum(math.prod(c.shape) * c.dtype.itemsize for c in self.columns.values()) if self.kind == "dense" else 0

    def __str__(self) -> str:
        inside = ", ".join(f"{name} {column}".strip() for name, column in self.columns.items())
        return f"{self.kind} {inside}" + (f" in {self.spatial_shape}" if self.kind == "sparse" else "")


@dataclass(frozen=True)
class Rows:
    """Rows of a run of events, one event after another.

    Attributes:
        columns: Name -> ``(T, *shape)``.
        counts: ``(events,) int64`` rows of each event; their sum is T.
    """

    columns: dict[str, Array]
    counts: NDArray[np.int64]


Block: TypeAlias = "dict[str, Array | Rows]"
"""Key -> values of a run of events: ``(events, *shape)`` of a dense key, rows of the others."""


def coordinate_type(spatial_shape: tuple[int, ...]) -> np.dtype[Any]:
    """Return int16 where every coordinate fits, else int32."""
    return np.dtype(np.int16 if max(spatial_shape, default=0) <= 2**15 else np.int32)


def sparsify(images: Array, threshold: float = 0.0) -> Rows:
    """Keep the sites of images above a threshold.

    A site stays where ``|value| > threshold``, and where the value is not a number.  With threshold 0 nothing
    but zeros is lost.

    Args:
        images: ``(events, *spatial_shape)``.
        threshold: At least 0.

    Returns:
        ``coords (T, D)`` int16 or int32, sorted within each event, and ``value (T,)`` of the type of the images.
    """
    if threshold == 0:
        kept = images != 0
    else:
        bound = np.float64(threshold)  # a Python float would be rounded to the type of the images
        kept = (images > bound) | (images < -bound) | (images != images)
    sites = np.nonzero(kept)  # in C order, which is lexicographic
    coords = np.stack(sites[1:], axis=1).astype(coordinate_type(images.shape[1:]))
    counts = np.bincount(sites[0], minlength=len(images)).astype(np.int64)
    return Rows({"coords": coords, "value": images[sites]}, counts)


def densify(rows: Rows, spatial_shape: tuple[int, ...]) -> Array:
    """Return the images ``(events, *spatial_shape)`` of sites, each of which occurs once."""
    value = rows.columns["value"]
    images = np.zeros((len(rows.counts), *spatial_shape), value.dtype)
    events = np.repeat(np.arange(len(rows.counts)), rows.counts)
    images[(events, *rows.columns["coords"].T)] = value
    return images


def bounded_steps(event_bytes: NDArray[np.int64], start: int, most_bytes: int) -> Iterator[tuple[int, int]]:
    """Cut a run of events into steps of at most so many bytes, and of one event at least.

    Args:
        event_bytes: ``(events,)`` bytes of each event.
        start: Number of the first of them.
        most_bytes: Of a step.

    Yields:
        First event and end of each step.
    """
    ends = np.cumsum(event_bytes)
    first, before = 0, 0
    while first < len(ends):
        stop = max(first + 1, int(np.searchsorted(ends, before + most_bytes, "right")))
        yield start + first, start + stop
        first, before = stop, int(ends[stop - 1])
