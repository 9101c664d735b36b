"""A walk through whatever a batch is made of, to put other tensors in the place of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from hepfeed.tensors import Structured

__all__ = ["map_tensors"]

_INERT = (str, bytes, bytearray, int, float, complex, type(None), np.generic)  # bool is an int


def map_tensors(
    value: Any, of_tensor: Callable[[Tensor], Any], of_other: Callable[[Any], Any] = lambda other: other
) -> Any:
    """Return ``value`` with the results of functions in the place of what it holds.

    It goes into :class:`~hepfeed.tensors.Structured` arrays, mappings, named tuples, tuples, lists and other sequences,
    as torch's ``pin_memory`` does, and keeps their types where they can be made again.

    Args:
        value: Anything.
        of_tensor: Of each tensor.
        of_other: Of each object that is no container, number or text, and of every object with a method ``to``.
    """

    def mapped(each: Any) -> Any:
        return map_tensors(each, of_tensor, of_other)

    if isinstance(value, Tensor):
        return of_tensor(value)
    if isinstance(value, Structured):
        return value.map(mapped)
    if isinstance(value, _INERT):
        return value
    if callable(getattr(value, "to", None)):
        return of_other(value)
    if isinstance(value, Mapping):
        return _mapping(value, {key: mapped(each) for key, each in value.items()})
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(mapped, value))
    if isinstance(value, Sequence):
        return _sequence(value, [mapped(each) for each in value])
    return of_other(value)


def _mapping(value: Mapping[Any, Any], parts: dict[Any, Any]) -> Any:
    try:
        if isinstance(value, MutableMapping):  # which may have attributes, such as the function of a defaultdict
            made = copy.copy(value)
            made.update(parts)
            return made
        return type(value)(parts)  # type: ignore[call-arg]
    except TypeError:  # its class can't be made of a dict
        return parts


def _sequence(value: Sequence[Any], parts: list[Any]) -> Any:
    try:
        if isinstance(value, MutableSequence):
            made = copy.copy(value)
            for place, part in enumerate(parts):
                made[place] = part
            return made
        return type(value)(parts)  # type: ignore[call-arg]
    except TypeError:
        return parts
