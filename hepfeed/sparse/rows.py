"""Operators on lists of rows: sums, products and maxima, of which pools and all that moves rows are made.

List o of :class:`RowLists` has rows of the input.  ``row_sum`` is linear in features and coefficients, and its
gradients are ``row_sum`` with input and output swapped, and ``row_dot``; the gradient of ``row_max`` is ``row_put``,
whose own is ``row_pick``.  So all can be differentiated any number of times.  They give the same bits for any number
of threads, and each time on a CUDA device.

Features are ``(N, C)`` float32, float64 or bfloat16, on a CUDA device float16 too; sums and coefficients of 16 bits are
float32.  The plain NumPy forms are in :mod:`hepfeed.reference.rows`.

On a CUDA device lists are checked where they are made, and not again: see :mod:`hepfeed.device.rows`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from hepfeed import _rows
from hepfeed.device import rows as device
from hepfeed.device.floats import sum_dtype
from hepfeed.errors import SpecError
from hepfeed.sparse.arrays import array, check_dtypes

__all__ = ["RowLists", "row_dot", "row_max", "row_mean", "row_pick", "row_put", "row_sum"]


@dataclass(frozen=True)
class RowLists:
    """Which rows of an input belong to each row of an output, and the other way round.

    Attributes:
        starts: ``(M + 1,) int64``: list o has entries ``starts[o]`` to ``starts[o + 1] - 1``.
        columns: ``(P,) int32``: the row of the input of each entry.
        places: ``(P,) int32``: which pair each entry was, and so its coefficient; or ``(0,)`` where none are used.
        back_starts: ``(N + 1,) int64``: the same for the rows of the input.
        back_columns: ``(P,) int32``: rows of the output.
        back_places: ``(P,)`` or ``(0,) int32``.
    """

    starts: torch.Tensor
    columns: torch.Tensor
    places: torch.Tensor
    back_starts: torch.Tensor
    back_columns: torch.Tensor
    back_places: torch.Tensor

    @classmethod
    def of_pairs(
        cls,
        targets: torch.Tensor,
        sources: torch.Tensor,
        target_rows: int,
        source_rows: int,
        coefficients: bool = False,
    ) -> RowLists:
        """Sort pairs by their target and by their source; within a list they keep their order.

        Args:
            targets: ``(P,) int32``: rows of the output.
            sources: ``(P,) int32``: rows of the input.
            target_rows: Rows of the output.
            source_rows: Rows of the input.
            coefficients: Whether sums will have a coefficient for each pair.

        Raises:
            ValueError: A row is not one of those.
        """
        return cls(*_row_lists(targets, sources, target_rows, source_rows, coefficients))

    @property
    def swapped(self) -> RowLists:
        """The lists with input and output swapped."""
        return RowLists(self.back_starts, self.back_columns, self.back_places, self.starts, self.columns, self.places)

    def counts(self) -> torch.Tensor:
        """Return ``(M,) int64``: the length of each list."""
        return self.starts[1:] - self.starts[:-1]

    def tensors(self) -> tuple[torch.Tensor, ...]:
        """Return the attributes in their order."""
        return self.starts, self.columns, self.places, self.back_starts, self.back_columns, self.back_places


def row_sum(features: torch.Tensor, lists: RowLists, coefficients: torch.Tensor | None = None) -> torch.Tensor:
    """Return ``(M, C)``: the sum of the rows in each list, 0 for an empty one.

    Args:
        features: ``(N, C)``.
        lists: Of rows of the features.
        coefficients: ``(P,)``, one for each pair of which the lists were made, float64 for float64 features and else
            float32; the lists were made for coefficients then.

    Raises:
        SpecError: The dtypes do not fit.
        ValueError: The lists are not of these features.
    """
    out: torch.Tensor = _row_sum(features, coefficients, *lists.tensors())
    return out


def row_mean(features: torch.Tensor, lists: RowLists) -> torch.Tensor:
    """Return ``(M, C)``: the mean of the rows in each list, 0 for an empty one; see :func:`row_sum`."""
    counts = lists.counts().clamp(min=1).unsqueeze(1).to(sum_dtype(features.dtype))
    terms = features
    if features.dtype == torch.float16:  # whose sums end at 65504
        check_dtypes(features=features)
        terms = features.float()
    return (row_sum(terms, lists) / counts).to(features.dtype)


def row_dot(left: torch.Tensor, right: torch.Tensor, lists: RowLists) -> torch.Tensor:
    """Return ``(P,)``: for each pair of which the lists were made, the product of its rows.

    Args:
        left: ``(M, C)``.
        right: ``(N, C)``.
        lists: Made for coefficients.

    Raises:
        SpecError: The dtypes do not fit.
        ValueError: The lists are not of these rows.
    """
    out: torch.Tensor = _row_dot(left, right, *lists.tensors())
    return out


def row_max(features: torch.Tensor, lists: RowLists) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the largest number of each channel in each list, and its row.

    Args:
        features: ``(N, C)``; NaN is above all numbers, as in torch's pools.
        lists: Of rows of the features, no row twice in a list.

    Returns:
        ``(M, C)`` maxima, and ``(M, C) int32`` rows, the first of those that have the maximum.  An empty list has 0 and
        row -1.

    Raises:
        SpecError: The dtype is none that kernels have.
        ValueError: The lists are not of these features.
    """
    largest, argmax = _row_max(features, lists.starts, lists.columns, lists.back_starts, lists.back_columns)
    return largest, argmax


def row_pick(features: torch.Tensor, argmax: torch.Tensor, lists: RowLists) -> torch.Tensor:
    """Return ``(M, C)``: ``features[argmax[o, c], c]``, 0 where that is -1.

    Args:
        features: ``(N, C)``.
        argmax: ``(M, C) int32``, as from :func:`row_max` with the same lists.
        lists: See there.
    """
    out: torch.Tensor = _row_pick(features, argmax, lists.back_starts, lists.back_columns)
    return out


def row_put(features: torch.Tensor, argmax: torch.Tensor, lists: RowLists) -> torch.Tensor:
    """Return ``(N, C)``: the sum of ``features[o, c]`` over o with ``argmax[o, c] == i``, 0 where there is none.

    Args:
        features: ``(M, C)``.
        argmax: ``(M, C) int32``, as from :func:`row_max` with the same lists.
        lists: See there.
    """
    out: torch.Tensor = _row_put(features, argmax, lists.back_starts, lists.back_columns)
    return out


# What follows are the operators themselves, with their types in full as torch.library wants them.


@torch.library.custom_op("hepfeed::row_lists", mutates_args=(), device_types="cpu")
def _row_lists(
    targets: torch.Tensor, sources: torch.Tensor, target_rows: int, source_rows: int, places: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    by_target, by_source = array(targets), array(sources)
    forth = _rows.list_rows(by_target, by_source, target_rows, source_rows, places)
    back = _rows.list_rows(by_source, by_target, source_rows, target_rows, places)
    starts, columns, at, back_starts, back_columns, back_at = map(torch.from_numpy, (*forth, *back))
    return starts, columns, at, back_starts, back_columns, back_at


@_row_lists.register_fake
def _(
    targets: torch.Tensor, sources: torch.Tensor, target_rows: int, source_rows: int, places: bool
) -> tuple[torch.Tensor, ...]:
    pairs = targets.shape[0]
    used = pairs if places else 0

    def rows(count: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
        return targets.new_empty((count,), dtype=dtype)

    starts, back_starts = rows(target_rows + 1, torch.int64), rows(source_rows + 1, torch.int64)
    return starts, rows(pairs), rows(used), back_starts, rows(pairs), rows(used)


@torch.library.custom_op("hepfeed::row_sum", mutates_args=(), device_types="cpu")
def _row_sum(
    features: torch.Tensor,
    coefficients: torch.Tensor | None,
    starts: torch.Tensor,
    columns: torch.Tensor,
    places: torch.Tensor,
    back_starts: torch.Tensor,
    back_columns: torch.Tensor,
    back_places: torch.Tensor,
) -> torch.Tensor:
    check_dtypes(features=features)
    factors = None
    if coefficients is not None:
        _check_wide("coefficients", coefficients, features)
        factors = array(coefficients)
    out = features.new_empty((starts.shape[0] - 1, features.shape[1]))
    lists = array(starts), array(columns), array(places)
    _rows.row_sum(array(features), factors, *lists, array(out), torch.get_num_threads())
    return out


@_row_sum.register_fake
def _(features: torch.Tensor, coefficients: torch.Tensor | None, starts: torch.Tensor, *rest: Any) -> torch.Tensor:
    return features.new_empty((starts.shape[0] - 1, features.shape[1]))


@torch.library.custom_op("hepfeed::row_dot", mutates_args=(), device_types="cpu")
def _row_dot(
    left: torch.Tensor,
    right: torch.Tensor,
    starts: torch.Tensor,
    columns: torch.Tensor,
    places: torch.Tensor,
    back_starts: torch.Tensor,
    back_columns: torch.Tensor,
    back_places: torch.Tensor,
) -> torch.Tensor:
    check_dtypes(left=left, right=right)
    out = left.new_empty((columns.shape[0],), dtype=sum_dtype(left.dtype))
    lists = array(starts), array(columns), array(places)
    _rows.row_dot(array(left), array(right), *lists, array(out), torch.get_num_threads())
    return out


@_row_dot.register_fake
def _(left: torch.Tensor, right: torch.Tensor, starts: torch.Tensor, columns: torch.Tensor, *rest: Any) -> torch.Tensor:
    return left.new_empty((columns.shape[0],), dtype=sum_dtype(left.dtype))


@torch.library.custom_op("hepfeed::row_max", mutates_args=(), device_types="cpu")
def _row_max(
    features: torch.Tensor,
    starts: torch.Tensor,
    columns: torch.Tensor,
    back_starts: torch.Tensor,
    back_columns: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    check_dtypes(features=features)
    out = features.new_empty((starts.shape[0] - 1, features.shape[1]))
    argmax = torch.empty_like(out, dtype=torch.int32)
    _rows.row_max(array(features), array(starts), array(columns), array(out), array(argmax), torch.get_num_threads())
    return out, argmax


@_row_max.register_fake
def _(features: torch.Tensor, starts: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, torch.Tensor]:
    out = features.new_empty((starts.shape[0] - 1, features.shape[1]))
    return out, torch.empty_like(out, dtype=torch.int32)


@torch.library.custom_op("hepfeed::row_pick", mutates_args=(), device_types="cpu")
def _row_pick(
    features: torch.Tensor, argmax: torch.Tensor, back_starts: torch.Tensor, back_columns: torch.Tensor
) -> torch.Tensor:
    check_dtypes(features=features)
    out = features.new_empty(argmax.shape)
    _rows.row_pick(array(features), array(argmax), array(out), torch.get_num_threads())
    return out


@_row_pick.register_fake
def _(features: torch.Tensor, argmax: torch.Tensor, *rest: Any) -> torch.Tensor:
    return features.new_empty(argmax.shape)


@torch.library.custom_op("hepfeed::row_put", mutates_args=(), device_types="cpu")
def _row_put(
    features: torch.Tensor, argmax: torch.Tensor, back_starts: torch.Tensor, back_columns: torch.Tensor
) -> torch.Tensor:
    check_dtypes(features=features)
    out = features.new_empty((back_starts.shape[0] - 1, features.shape[1]))
    lists = array(back_starts), array(back_columns)
    _rows.row_put(array(features), array(argmax), *lists, array(out), torch.get_num_threads())
    return out


@_row_put.register_fake
def _(features: torch.Tensor, argmax: torch.Tensor, back_starts: torch.Tensor, *rest: Any) -> torch.Tensor:
    return features.new_empty((back_starts.shape[0] - 1, features.shape[1]))


def _sum_setup(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    features, coefficients, *lists = inputs
    wants = ctx.needs_input_grad
    ctx.save_for_backward(features if wants[1] else None, coefficients if wants[0] else None, *lists)


def _sum_backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    features, coefficients, *tensors = ctx.saved_tensors
    wants, lists = ctx.needs_input_grad, RowLists(*tensors)
    return (
        row_sum(grad, lists.swapped, coefficients) if wants[0] else None,
        row_dot(grad, features, lists) if wants[1] else None,
        *[None] * 6,
    )


def _dot_setup(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    left, right, *lists = inputs
    wants = ctx.needs_input_grad
    ctx.save_for_backward(left if wants[1] else None, right if wants[0] else None, *lists)


def _dot_backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    left, right, *tensors = ctx.saved_tensors
    wants, lists = ctx.needs_input_grad, RowLists(*tensors)
    return (
        row_sum(right, lists, grad) if wants[0] else None,
        row_sum(left, lists.swapped, grad) if wants[1] else None,
        *[None] * 6,
    )


def _max_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    ctx.save_for_backward(output[1], *inputs[3:])
    ctx.mark_non_differentiable(output[1])


def _max_backward(ctx: Any, grad: torch.Tensor, _: Any) -> tuple[Any, ...]:
    return _row_put(grad, *ctx.saved_tensors), *[None] * 4


def _choice_setup(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    ctx.save_for_backward(*inputs[1:])


def _pick_backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    return _row_put(grad, *ctx.saved_tensors), None, None, None


def _put_backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    return _row_pick(grad, *ctx.saved_tensors), None, None, None


_row_lists.register_kernel("cuda", device.row_lists)
_row_sum.register_kernel("cuda", device.row_sum)
_row_dot.register_kernel("cuda", device.row_dot)
_row_max.register_kernel("cuda", device.row_max)
_row_pick.register_kernel("cuda", device.row_pick)
_row_put.register_kernel("cuda", device.row_put)

_row_sum.register_autograd(_sum_backward, setup_context=_sum_setup)
_row_dot.register_autograd(_dot_backward, setup_context=_dot_setup)
_row_max.register_autograd(_max_backward, setup_context=_max_setup)
_row_pick.register_autograd(_pick_backward, setup_context=_choice_setup)
_row_put.register_autograd(_put_backward, setup_context=_choice_setup)


def _check_wide(name: str, given: torch.Tensor, features: torch.Tensor) -> None:
    expected = sum_dtype(features.dtype)
    if given.dtype != expected:
        raise SpecError(f"{name} must be {expected} for features of {features.dtype}, not {given.dtype}")
