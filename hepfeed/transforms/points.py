"""Ragged points of a batch as arrays, for the steps that put them into grids and graphs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfeed.errors import HepfeedError, ProcessError, SpecError
from hepfeed.grid import ErrorAt, Points
from hepfeed.tensors import Jagged, Padded
from hepfeed.transforms.lookup import at_event, check_made, describe, find, names_of
from hepfeed.transforms.step import Batch, Keys

__all__ = ["check_into", "columns_of", "error_at", "naming", "points_of", "put", "without"]


def check_into(keys: Keys, into: Keys | None) -> tuple[str, ...]:
    """Return the keys that a step makes of others: ``into``, or ``keys`` themselves where it is None.

    Raises:
        SpecError: There is not one for each, or one is the loader's own.
    """
    names = names_of(keys)
    made = names if into is None else names_of(into, "into")
    if len(made) != len(names):
        raise SpecError(f"into must name one key for each of {names!r}, not {into!r}")
    return tuple(check_made(name, "into" if into is not None else "keys") for name in made)


def error_at(batch: Batch, key: str) -> ErrorAt:
    """Return what makes errors about events of a batch."""

    def error(message: str, event: int) -> HepfeedError:
        return at_event(ProcessError, f"key {key!r}: {message}", batch, key, event)

    return error


@contextmanager
def naming(key: str) -> Iterator[None]:
    """Name the key in an error about options that do not fit it."""
    try:
        yield
    except SpecError as error:
        error.key = error.key or key
        raise


def points_of(batch: Batch, keys: Keys) -> tuple[Points, NDArray[np.int64]]:
    """Return coordinates and the offsets of events.

    Args:
        batch: Has ``Jagged (T, D)`` or ``Padded (B, L, D)`` for one key, the same without the last axis for each of
            several.
        keys: One, or one for each axis.

    Raises:
        KeyMissingError: The batch has no such key.
        ProcessError: A key has no points, or the keys have different points.
    """
    names = names_of(keys, "points")
    first, offsets = _flat(names[0], find(batch, names[0]))
    axes = [first, *(_same(batch, name, names[0], offsets) for name in names[1:])]
    for name, axis in zip(names, axes):
        if axis.ndim != (2 if isinstance(keys, str) else 1) or axis.dtype.kind not in "iuf":
            form = "vectors (D,)" if isinstance(keys, str) else "one number"
            raise ProcessError(
                f"key {name!r} must hold {form} for each point, and is {describe(batch[name])}", key=name
            )
    return (first if isinstance(keys, str) else axes), offsets


def columns_of(batch: Batch, keys: Keys, points: str, offsets: NDArray[np.int64]) -> list[NDArray[Any]]:
    """Return what keys have for points, each ``(T,)`` or ``(T, c)``.

    Args:
        batch: The batch.
        keys: Jagged or padded arrays of numbers.
        points: Key of the points.
        offsets: Of the points.

    Raises:
        KeyMissingError: The batch has no such key.
        ProcessError: A key has other points, or not numbers.
    """
    found = []
    for name in (keys,) if isinstance(keys, str) else keys:
        values = _same(batch, name, points, offsets)
        if values.ndim not in (1, 2) or 0 in values.shape[1:] or values.dtype.kind not in "biuf":
            raise ProcessError(
                f"key {name!r} must hold one or several numbers for each point, and is {describe(batch[name])}",
                key=name,
            )
        found.append(values)
    return found


def put(made: Batch, name: str, value: Any) -> None:
    """Add a key to a batch.

    Raises:
        ProcessError: The batch has the key already.
    """
    if name in made:
        raise ProcessError(
            f"the batch has a key {name!r} already: give another name, or drop that key before", key=name
        )
    made[name] = value


def without(batch: Batch, keys: Keys) -> Batch:
    """Return a batch without some keys.

    Raises:
        SpecError: One of them is the loader's own.
    """
    names = {
        check_made(name, "a key that the step takes away") for name in ((keys,) if isinstance(keys, str) else keys)
    }
    return {name: value for name, value in batch.items() if name not in names}


def _same(batch: Batch, name: str, points: str, offsets: NDArray[np.int64]) -> NDArray[Any]:
    values, own = _flat(name, find(batch, name))
    wrong = np.flatnonzero(np.diff(own) != np.diff(offsets)) if len(own) == len(offsets) else np.arange(1)
    if wrong.size:
        i = int(wrong[0])
        raise at_event(
            ProcessError,
            f"keys {points!r} and {name!r} must have the same points, and have {np.diff(offsets)[i]} and"
            f" {np.diff(own)[i]}",
            batch,
            name,
            i,
        )
    return values


def _flat(name: str, value: Any) -> tuple[NDArray[Any], NDArray[np.int64]]:
    if isinstance(value, Jagged):
        return np.asarray(value.values), np.asarray(value.offsets)
    if isinstance(value, Padded):
        return value.values[value.mask], np.concatenate([[0], np.cumsum(value.mask.sum(axis=1))]).astype(np.int64)
    raise ProcessError(f"key {name!r} must be jagged or padded points, and is {describe(value)}", key=name)
