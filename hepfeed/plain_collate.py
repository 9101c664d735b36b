"""Collation without torch: what ``default_collate`` and ``default_convert`` do, for what needs no torch to decide.

The rules are torch's own (``torch.utils.data._utils.collate``).  Anything beyond arrays and numbers of dtypes that
both know, text, mappings and sequences of them is left to torch, and so is every error: :class:`NeedsTorch`.
"""

from __future__ import annotations

import array as array_module
import copy
import math
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfeed.parcel import AsTensor

__all__ = ["NeedsTorch", "plain_collate", "plain_convert"]

Allocate = Callable[[tuple[int, ...], np.dtype[Any]], NDArray[Any]]
"""Returns an array of a shape and dtype to stack into."""

_DTYPES = frozenset(
    np.dtype(name)
    for name in (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64", "complex64", "complex128"),
    )
)


class NeedsTorch(Exception):
    """Torch must collate this batch, or say what is wrong with it."""


def plain_collate(batch: Sequence[Any], allocate: Allocate) -> Any:
    """Collate a batch as torch's ``default_collate``.

    Args:
        batch: Examples, at least one.
        allocate: Makes the arrays that examples are stacked into.

    Returns:
        The same containers, with :class:`AsTensor` in the place of tensors.

    Raises:
        NeedsTorch: There is something in it that only torch can collate, or nothing can.
    """
    first = batch[0]
    kind = type(first)
    if isinstance(first, np.ndarray):
        return _stacked(batch, allocate)
    if isinstance(first, np.bool_ | np.number):
        _need(np.dtype(kind) in _DTYPES and all(type(each) is kind for each in batch))
        return AsTensor(np.array(batch))
    if isinstance(first, float):
        _need(all(type(each) is float for each in batch))
        return AsTensor(np.array(batch, np.float64))
    if isinstance(first, int):
        return AsTensor(_integers(batch, kind))
    if isinstance(first, str | bytes):
        return batch
    if isinstance(first, Mapping):
        return _mapping(first, lambda key: plain_collate([each[key] for each in batch], allocate))
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return kind(*(plain_collate(values, allocate) for values in zip(*batch)))
    if isinstance(first, Sequence):
        _need(not isinstance(first, array_module.array))
        size = len(first)
        _need(all(len(each) == size for each in batch))
        columns = list(zip(*batch))
        return _sequence(first, lambda i: plain_collate(columns[i], allocate), len(columns))
    raise NeedsTorch


def plain_convert(value: Any) -> Any:
    """Convert the arrays in an example as torch's ``default_convert``.

    Raises:
        NeedsTorch: As :func:`plain_collate`.
    """
    kind = type(value)
    if kind is np.ndarray and any(letter in value.dtype.str for letter in "SaUO"):
        return value
    if kind is np.ndarray or isinstance(value, np.bool_ | np.number):
        made = np.asarray(value)
        _need(_is_plain(made))
        return AsTensor(made)
    if kind.__module__ == "numpy" and kind.__name__ not in ("str_", "string_"):
        raise NeedsTorch
    if isinstance(value, Mapping):
        return _mapping(value, lambda key: plain_convert(value[key]))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return kind(*map(plain_convert, value))
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        _need(not isinstance(value, array_module.array))
        return _sequence(value, lambda i: plain_convert(value[i]), len(value))
    return value


def _need(is_plain: bool) -> None:
    if not is_plain:
        raise NeedsTorch


def _is_plain(array: NDArray[Any]) -> bool:
    """Whether torch can look at an array as it is."""
    return array.dtype in _DTYPES and all(stride >= 0 and stride % array.itemsize == 0 for stride in array.strides)


def _stacked(batch: Sequence[Any], allocate: Allocate) -> AsTensor:
    first = batch[0]
    shape, dtype = first.shape, first.dtype
    for each in batch:
        is_array = type(each) is np.ndarray or type(each) is np.memmap
        _need(is_array and each.shape == shape and each.dtype == dtype and _is_plain(each))
    if not math.prod(shape):
        return AsTensor(np.empty((len(batch), *shape), dtype))
    out = allocate((len(batch), *shape), dtype)
    np.stack(batch, out=out)
    return AsTensor(out)


def _integers(batch: Sequence[Any], kind: type) -> NDArray[Any]:
    _need(kind in (bool, int) and all(type(each) is kind for each in batch))
    try:
        return np.array(batch, bool if kind is bool else np.int64)
    except OverflowError:
        raise NeedsTorch from None


def _mapping(given: Mapping[Any, Any], made: Callable[[Any], Any]) -> Any:
    """Make a mapping of the same class; a dict where that class can't be made so."""
    try:
        if isinstance(given, MutableMapping):
            clone = copy.copy(given)  # which may have more than its items
            clone.update({key: made(key) for key in given})
            return clone
        return type(given)({key: made(key) for key in given})  # type: ignore[call-arg]
    except TypeError:
        return {key: made(key) for key in given}


def _sequence(given: Sequence[Any], made: Callable[[int], Any], size: int) -> Any:
    """Make a sequence of the same class; a list of a tuple, and where that class can't be made so."""
    if isinstance(given, tuple):
        return [made(i) for i in range(size)]
    try:
        if isinstance(given, MutableSequence):
            clone = copy.copy(given)
            for i in range(size):
                clone[i] = made(i)
            return clone
        return type(given)([made(i) for i in range(size)])  # type: ignore[call-arg]
    except TypeError:
        return [made(i) for i in range(size)]
