"""Other types of numbers, and what is put together of several keys."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from hepfeed.device import native
from hepfeed.device.transforms.arrays import as_array, has_numbers, is_float, movable, torch_type
from hepfeed.device.transforms.context import Context
from hepfeed.device.transforms.faults import Refusal
from hepfeed.spec_options import RESERVED_NAMES
from hepfeed.tensors import Jagged, Padded, Sparse, Structured
from hepfeed.transforms.cast import Cast, Rounding
from hepfeed.transforms.lookup import find, names_of
from hepfeed.transforms.one_hot import OneHot
from hepfeed.transforms.stack import Stack
from hepfeed.transforms.step import Batch

__all__ = ["cast_keys", "cast_numbers", "cast_value", "one_hot", "stack"]


def cast_keys(step: Cast, batch: Batch, context: Context) -> Batch:
    """Change the types of keys."""
    made = dict(batch)
    for key in names_of(step.keys):
        made[key] = cast_value(find(batch, key), torch_type(step.dtype), context, step.rounding)
    return made


def cast_value(value: Any, dtype: torch.dtype, context: Context, rounding: Rounding = "exact") -> Any:
    """Return a dense, jagged, padded or sparse tensor with another type; see :func:`cast_numbers`."""
    if isinstance(value, Jagged | Padded):
        return replace(value, values=cast_numbers(value.values, dtype, context, rounding))
    if isinstance(value, Sparse):
        return replace(value, features=cast_numbers(value.features, dtype, context, rounding))
    return cast_numbers(value, dtype, context, rounding)


def cast_numbers(tensor: Any, dtype: torch.dtype, context: Context, rounding: Rounding = "exact") -> torch.Tensor:
    """Return numbers as another type; one that the type can't hold is a fault.

    Raises:
        Refusal: They are no numbers.
    """
    if not isinstance(tensor, torch.Tensor) or not has_numbers(tensor):
        raise Refusal
    if tensor.dtype == dtype and (rounding == "exact" or not is_float(tensor)):
        return tensor
    items = tensor.contiguous()
    out = torch.empty_like(items, dtype=dtype)
    native.kernels().cast(
        as_array(items), as_array(out), items.numel(), rounding, context.faults.address(), context.stream
    )
    return out


def stack(step: Stack, batch: Batch, context: Context) -> Batch:
    """Put keys side by side on a new last axis."""
    names = names_of(step.keys)
    found = [find(batch, name) for name in names]
    for value in found:
        _check_alike(found[0], value, context)
    parts = [movable(_values(cast_value(value, torch_type(step.dtype), context))) for value in found]
    stacked = torch.stack(parts, dim=-1).view(torch_type(step.dtype))
    made = {key: value for key, value in batch.items() if step.keep or key not in names or key in RESERVED_NAMES}
    made[step.into] = replace(found[0], values=stacked) if isinstance(found[0], Jagged | Padded) else stacked
    return made


def one_hot(step: OneHot, batch: Batch, context: Context) -> Batch:
    """Make one-hot vectors of class indices."""
    value = find(batch, step.key)
    given = _values(value)
    if not isinstance(given, torch.Tensor) or not has_numbers(given) or is_float(given) or given.dtype == torch.bool:
        raise Refusal
    padding = None
    if isinstance(value, Padded):
        padding = ~value.mask.reshape(*value.mask.shape, *[1] * (given.ndim - 2))
        given = torch.where(padding, movable(given).new_zeros(()), movable(given)).view(given.dtype)
    index = cast_numbers(given, torch.int64, context)
    context.faults.add((index < 0) | (index >= step.classes))
    hit = index[..., None] == torch.arange(step.classes, device=index.device)
    if padding is not None:
        hit &= ~padding[..., None]
    vectors = cast_numbers(hit, torch_type(step.dtype), context)
    made: Any = vectors
    if isinstance(value, Jagged):
        made = Jagged(vectors, value.offsets)
    elif isinstance(value, Padded):
        made = Padded(vectors, value.mask)
    return {**batch, step.into: made}


def _values(value: Any) -> Any:
    return value.values if isinstance(value, Jagged | Padded) else value


def _check_alike(one: Any, other: Any, context: Context) -> None:
    if type(one) is not type(other) or (isinstance(one, Structured) and not isinstance(one, Jagged | Padded)):
        raise Refusal
    if _values(one).shape != _values(other).shape:
        raise Refusal
    for name in ("offsets", "mask"):
        first, second = getattr(one, name, None), getattr(other, name, None)
        if first is None or second is None or first is second:
            continue
        if first.shape != second.shape:
            raise Refusal
        context.faults.add(first != second)
