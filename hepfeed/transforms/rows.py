"""Rows of points or particles, whichever way a batch holds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hepfeed.draws import Draws
from hepfeed.errors import ProcessError, SpecError
from hepfeed.tensors import Jagged, Padded, Structured
from hepfeed.transforms.cast import cast_value
from hepfeed.transforms.lookup import describe, find, float_type, names_of
from hepfeed.transforms.step import Batch, Keys

__all__ = ["About", "Coords", "Rows", "centres", "check_coords", "groups_of", "per_row", "row_sets"]

Coords = str | tuple[str | tuple[str, ...], ...]
"""A key of vectors; several such keys, which get the same geometry; or keys of components, as in ``("x", "y", "z")``.

Components may also stand among several: ``(("x", "y", "z"), "vertex")``.
"""

About = Literal["origin", "mean"] | tuple[float, ...]
"""What points are turned or scaled about: the origin, the mean of the event's points, or given coordinates."""


@dataclass(frozen=True)
class Rows:
    """Vectors of the events of a batch, gathered from one key of vectors or from several keys of components.

    Attributes:
        keys: Where they come from and go to; a str for vectors, a tuple for components.
        values: ``(T, D)``, a copy; events one after another.
        offsets: ``(B + 1,) int64``.
        present: ``(B, ...) bool``: which rows of dense or padded arrays they are; None where the arrays are jagged.
    """

    keys: Keys
    values: NDArray[Any]
    offsets: NDArray[np.int64]
    present: NDArray[np.bool_] | None

    @classmethod
    def of(cls, batch: Batch, keys: Keys, there: Callable[[NDArray[Any]], NDArray[np.bool_]] | None = None) -> Rows:
        """Gather vectors.

        Args:
            batch: Has vectors as ``Jagged (T, D)``, ``Padded (B, L, D)`` or dense ``(B, ..., D)``, and components as
                the same without the last axis.
            keys: A str for vectors, a tuple for components.
            there: Says of dense ``(B, ..., D)`` which of its ``(B, ...)`` rows count; None: all do.

        Raises:
            KeyMissingError: The batch has no such key.
            ProcessError: A key holds no such numbers, or the components are not of the same points.
        """
        names = names_of(keys)
        found = [find(batch, name) for name in names]
        parts = [_array(name, value, isinstance(keys, str)) for name, value in zip(names, found)]
        first = found[0]
        for name, value in zip(names[1:], found[1:]):
            if not _same_points(first, value):
                raise ProcessError(
                    f"keys {names[0]!r} and {name!r} must hold components of the same points, and are"
                    f" {describe(first)} and {describe(value)}",
                    key=name,
                )
        if isinstance(keys, str):
            vectors = parts[0]
        else:
            whole = all(np.can_cast(part.dtype, np.int64) for part in parts)
            types = [part.dtype if whole else float_type(part.dtype) for part in parts]
            vectors = np.stack([part.astype(np.result_type(*types), copy=False) for part in parts], axis=-1)
        if isinstance(first, Jagged):
            return cls(keys, vectors.copy(), np.asarray(first.offsets), None)
        if isinstance(first, Padded):
            present = np.asarray(first.mask)
        else:
            present = np.ones(vectors.shape[:-1], bool) if there is None else there(vectors)
        counts = present.sum(axis=tuple(range(1, present.ndim)))
        return cls(keys, vectors[present], np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), present)

    @property
    def events(self) -> int:
        """Number of events."""
        return len(self.offsets) - 1

    @property
    def width(self) -> int:
        """Number of coordinates."""
        return int(self.values.shape[1])

    @property
    def integers(self) -> bool:
        """Whether all coordinates are integers that int64 holds."""
        return bool(np.can_cast(self.values.dtype, np.int64))

    @property
    def name(self) -> str:
        """The first key."""
        return names_of(self.keys)[0]

    @cached_property
    def event(self) -> NDArray[np.int64]:
        """``(T,)``: place in the batch of the event of each row."""
        return np.repeat(np.arange(self.events), np.diff(self.offsets))

    def spread(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return ``(T, ...)``: for each row what ``values (B, ...)`` has for its event."""
        return np.repeat(values, np.diff(self.offsets), axis=0)

    def sums(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Return ``(B,)``: sums of ``values (T,)`` over each event, added in the order of rows in float64."""
        return np.bincount(self.event, values, self.events).astype(np.float64, copy=False)

    def means(self) -> NDArray[np.float64]:
        """Return ``(B, D)``: the mean vector of each event; 0 where there are no rows."""
        sums = np.stack([self.sums(self.values[:, axis]) for axis in range(self.width)], axis=-1)
        return sums / np.maximum(np.diff(self.offsets), 1)[:, None]

    def put(self, batch: Batch, values: NDArray[Any], whole: bool = False) -> None:
        """Write vectors back to their keys in a new dict, whose arrays are replaced and not changed.

        Args:
            batch: The new dict.
            values: ``(T, D)``.
            whole: The values are integers and keep the integer types of their keys.  Otherwise keys become float32, or
                float64 where they are that or have integers of 32 bits or more.

        Raises:
            ProcessError: An integer does not fit the type of its key.
        """
        for axis, key in enumerate(names_of(self.keys)):
            old = batch[key]
            array = np.asarray(old.values if isinstance(old, Jagged | Padded) else old)
            made = values if isinstance(self.keys, str) else values[:, axis]
            made = made.astype(np.int64 if whole else float_type(array.dtype), copy=False)
            if self.present is not None:
                filled = array.astype(made.dtype)
                filled[self.present] = made
                made = filled
            new = replace(old, values=made) if isinstance(old, Jagged | Padded) else made
            batch[key] = cast_value(new, array.dtype, batch, key) if whole else new


def groups_of(batch: Batch, coords: Coords) -> list[Keys]:
    """Return the keys of each set of vectors: a str for vectors, a tuple for components.

    Raises:
        KeyMissingError: The batch has no such key.
    """
    if isinstance(coords, str):
        return [coords]
    if all(isinstance(each, str) and _one_number(find(batch, each)) for each in coords):
        return [tuple(str(each) for each in coords)]
    return list(coords)


def row_sets(batch: Batch, coords: Coords) -> list[Rows]:
    """Gather coordinates that get the same geometry.

    Raises:
        KeyMissingError: The batch has no such key.
        ProcessError: A key holds no coordinates, or they differ in number.
    """
    sets = [Rows.of(batch, group) for group in groups_of(batch, coords)]
    for rows in sets[1:]:
        if rows.width != sets[0].width:
            raise ProcessError(
                f"keys {sets[0].name!r} and {rows.name!r} must have the same number of coordinates, and have"
                f" {sets[0].width} and {rows.width}",
                key=rows.name,
            )
    return sets


def check_coords(coords: Coords, option: str = "coords") -> Coords:
    """Return the option.

    Raises:
        SpecError: It names no key, or one twice.
    """
    groups = (coords,) if isinstance(coords, str) else coords
    flat = [name for group in groups for name in ((group,) if isinstance(group, str) else group)]
    if () in groups:
        raise SpecError(f"{option} has an empty group among {coords!r}")
    names_of(tuple(flat), option)
    return coords


def centres(rows: Rows, about: About) -> NDArray[np.float64]:
    """Return the points ``(B, D)`` that events are turned or scaled about.

    Args:
        rows: The points.
        about: ``"origin"``, ``"mean"`` (of the event's points), or D coordinates.

    Raises:
        ProcessError: The coordinates are not D.
    """
    if about == "origin":
        return np.zeros((rows.events, rows.width))
    if about == "mean":
        return rows.means()
    if len(about) != rows.width:
        raise ProcessError(
            f"about has {len(about)} coordinates, and points of key {rows.name!r} have {rows.width}", key=rows.name
        )
    return np.broadcast_to(np.asarray(about, np.float64), (rows.events, rows.width))


def per_row(
    offsets: NDArray[np.int64], width: int, draw: Callable[[Draws, int], NDArray[np.float64]], draws: Draws
) -> NDArray[np.float64]:
    """Return random numbers ``(T, width)`` of rows, each event's from its own draws.

    Args:
        offsets: ``(B + 1,)``: where the rows of each event begin.
        width: Numbers of each row.
        draw: Draws ``(events, count)``, e.g. ``Draws.normal``.
        draws: Of the batch.
    """
    made = np.empty((int(offsets[-1]), width))
    lengths = np.diff(offsets)
    # Events of one length share a call: the numbers of an event may depend on how many of them are drawn.
    for length in np.unique(lengths[lengths > 0]):
        events = np.flatnonzero(lengths == length)
        numbers = draw(draws.take(events), int(length) * width).reshape(len(events), length, width)
        for e, part in zip(events, numbers):
            made[offsets[e] : offsets[e + 1]] = part
    return made


def _array(name: str, value: Any, vectors: bool) -> NDArray[Any]:
    kinds_fit = isinstance(value, Jagged | Padded) or not isinstance(value, Structured)
    array = np.asarray(value.values if isinstance(value, Jagged | Padded) else value) if kinds_fit else np.zeros(0)
    depth = (2 if isinstance(value, Padded) else 1) + vectors
    deep = array.ndim == depth if isinstance(value, Structured) else array.ndim >= depth
    if not (kinds_fit and deep and array.dtype.kind in "iuf"):
        form = "vectors (D,)" if vectors else "one number"
        raise ProcessError(f"key {name!r} must hold {form} for each point, and is {describe(value)}", key=name)
    return array


def _one_number(value: Any) -> bool:
    """Whether a key holds one number a point."""
    if isinstance(value, Jagged | Padded):
        return bool(value.values.ndim == (1 if isinstance(value, Jagged) else 2))
    return not isinstance(value, Structured) and bool(value.ndim == 1)


def _same_points(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, Jagged):
        return bool(np.array_equal(one.offsets, other.offsets))
    if isinstance(one, Padded):
        return bool(np.array_equal(one.mask, other.mask))
    return bool(one.shape == other.shape)
