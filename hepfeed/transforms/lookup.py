"""What steps ask of a batch: its keys, what they hold, and which event is at fault."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hepfeed.errors import HepfeedError, KeyMissingError, ProcessError, SpecError, nearest
from hepfeed.spec_options import RESERVED_NAMES
from hepfeed.tensors import Graph, Jagged, Padded, Sparse, Structured
from hepfeed.transforms.step import Batch, Keys

__all__ = [
    "at_event",
    "check_made",
    "describe",
    "find",
    "float_type",
    "jagged",
    "measured",
    "names_of",
    "owners",
    "same_offsets",
]

_Error = TypeVar("_Error", bound=HepfeedError)


def names_of(keys: Keys, option: str = "keys") -> tuple[str, ...]:
    """Return keys as a tuple.

    Raises:
        SpecError: There are none, one is empty, or one is given twice.
    """
    names = (keys,) if isinstance(keys, str) else tuple(keys)
    if not names or not all(names):
        raise SpecError(f"{option} must name one key or more, not {keys!r}")
    for name in names:
        if names.count(name) > 1:
            raise SpecError(f"{option} has {name!r} twice: keep one")
    return names


def check_made(name: str, option: str) -> str:
    """Return the name of a key that a step makes or takes away.

    Raises:
        SpecError: It is empty, or one of those that the loader makes: ``"label"``, ``"event"``, ``"weight"``.
    """
    if not name:
        raise SpecError(f"{option} must be the name of a key, not {name!r}")
    if name in RESERVED_NAMES:
        raise SpecError(f"{option} can't be {name!r}, which the loader gives to every batch: choose another key")
    return name


def find(batch: Batch, key: str) -> Any:
    """Return what a batch has for a key.

    Raises:
        KeyMissingError: It has no such key.
    """
    if key not in batch:
        raise KeyMissingError(f"the batch has no key {key!r} at this step: {nearest(key, batch)}", key=key)
    return batch[key]


def jagged(batch: Batch, key: str) -> Jagged:
    """Return a jagged array of a batch.

    Raises:
        KeyMissingError: The batch has no such key.
        ProcessError: It is no jagged array.
    """
    value = find(batch, key)
    if not isinstance(value, Jagged):
        raise ProcessError(f"key {key!r} must be jagged here, and is {describe(value)}", key=key)
    return value


def same_offsets(batch: Batch, keys: Iterable[str]) -> list[Jagged]:
    """Return jagged arrays whose events have the same numbers of rows.

    Raises:
        KeyMissingError: The batch has no such key.
        ProcessError: One is not jagged, or has other numbers of rows than the first.
    """
    names = tuple(keys)
    found = [jagged(batch, name) for name in names]
    for name, value in zip(names[1:], found[1:]):
        wrong = np.flatnonzero(value.lengths() != found[0].lengths())
        if wrong.size:
            i = int(wrong[0])
            raise at_event(
                ProcessError,
                f"keys {names[0]!r} and {name!r} must have the same rows here, and have"
                f" {found[0].lengths()[i]} and {value.lengths()[i]}",
                batch,
                name,
                i,
            )
    return found


def describe(value: Any) -> str:
    """Say what a value of a batch is, for an error message."""
    if isinstance(value, Jagged | Padded):
        return f"{type(value).__name__} with values {value.values.shape} {value.values.dtype}"
    if isinstance(value, Sparse):
        return f"Sparse with features {value.features.shape} {value.features.dtype} on a grid {value.spatial_shape}"
    if isinstance(value, Structured):
        return type(value).__name__
    if hasattr(value, "dtype"):
        return f"dense {value.shape} {value.dtype}"
    return f"a {type(value).__name__}"


def measured(value: Any) -> NDArray[Any]:
    """Return the array of measured numbers: values, features, or the dense array itself; of a graph, its edges."""
    if isinstance(value, Jagged | Padded):
        return np.asarray(value.values)
    if isinstance(value, Sparse):
        return np.asarray(value.features)
    if isinstance(value, Graph):
        return np.asarray(value.edge_index)
    return np.asarray(value)


def owners(value: Any, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return which event of the batch each of some rows of :func:`measured` belongs to."""
    if isinstance(value, Jagged):
        return np.asarray(np.searchsorted(value.offsets, rows, "right") - 1)
    if isinstance(value, Sparse):
        return np.asarray(value.indices[rows, 0], np.int64)
    return rows


def at_event(kind: type[_Error], message: str, batch: Batch, key: str, i: int) -> _Error:
    """Return an error about one event.

    Args:
        kind: Class of the error.
        message: What is wrong, without the event.
        batch: Its ``"event"`` tells file and row.
        key: Key at fault.
        i: Place of the event in the batch.
    """
    file, row = (int(number) for number in batch["event"][i])
    return kind(f"{message}, in event {row} of file number {file}", key=key, event=row, file_number=file)


def float_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type of results: float32, or float64 where float32 can't hold numbers of that type exactly."""
    return np.result_type(dtype, np.float32)
