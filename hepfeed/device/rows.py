"""Operators on lists of rows; see :mod:`hepfeed.sparse.rows`, which they are the CUDA functions of.

Lists are checked where they are made, by :func:`row_lists`: it waits once for four bytes, which also tell whether pairs
must be sorted at all.  The others wait for nothing.  They take lists as :func:`row_lists` returns them; of lists that
are broken, entries which are no rows are left out, so that nothing is read or written out of bounds.

Sums are float32, and float64 for float64.  Which thread adds what depends on the sizes alone: results are the same bits
each time.
"""

from __future__ import annotations

import torch

from hepfeed import _rows
from hepfeed.device import native
from hepfeed.device.checks import check_dtypes, check_same_device
from hepfeed.device.floats import dtype_name, sum_dtype
from hepfeed.device.sorting import sort_pairs
from hepfeed.errors import SpecError

__all__ = ["row_dot", "row_lists", "row_max", "row_pick", "row_put", "row_sum"]

_OUTSIDE, _TARGETS_FALL, _SOURCES_FALL = 1 | 2, 4, 8
"""What ``look_at_pairs`` finds."""

_Lists = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def row_lists(
    targets: torch.Tensor, sources: torch.Tensor, target_rows: int, source_rows: int, places: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sort pairs by their target and by their source.

    Pairs that are in order already, as those of a pool over whole events are, are not sorted.  Otherwise a radix sort
    reads and writes 12 bytes a pair for each 8 bits of the number of rows.

    Raises:
        ValueError: A row is not one of those.
    """
    check_same_device(targets=targets, sources=sources)
    if not _fit(targets, sources, target_rows, source_rows, places):
        _refuse(targets, sources, target_rows, source_rows, places)
    targets, sources = targets.contiguous(), sources.contiguous()
    found = targets.new_zeros(())
    with native.on_device(targets):
        native.kernels().look_at_pairs(
            native.address(targets),
            native.address(sources),
            len(targets),
            target_rows,
            source_rows,
            native.address(found),
            native.stream(targets),
        )
        facts = int(found)
        if facts & _OUTSIDE:
            _refuse(targets, sources, target_rows, source_rows, places)
        forth = _sorted(targets, sources, target_rows, places, bool(facts & _TARGETS_FALL))
        back = _sorted(sources, targets, source_rows, places, bool(facts & _SOURCES_FALL))
    return *forth, *back


def row_sum(
    features: torch.Tensor,
    coefficients: torch.Tensor | None,
    starts: torch.Tensor,
    columns: torch.Tensor,
    places: torch.Tensor,
    back_starts: torch.Tensor,
    back_columns: torch.Tensor,
    back_places: torch.Tensor,
) -> torch.Tensor:
    """Add the rows in each list."""
    check_dtypes(features=features)
    check_same_device(features=features, coefficients=coefficients, starts=starts, columns=columns, places=places)
    _check_lists(starts, columns)
    if coefficients is not None:
        _check_places(coefficients, places, columns)
        if coefficients.dtype != sum_dtype(features.dtype):
            raise SpecError(
                f"coefficients must be {sum_dtype(features.dtype)} for features of {features.dtype}, not"
                f" {coefficients.dtype}"
            )
        coefficients = coefficients.contiguous()
    features, lists = features.contiguous(), starts.shape[0] - 1
    rows, channels = features.shape
    out = features.new_empty((lists, channels))
    with native.on_device(features):
        work = _work(features, native.kernels().row_sum_bytes(dtype_name(features.dtype), channels, len(columns)))
        native.kernels().row_sum(
            dtype_name(features.dtype),
            native.address(features),
            rows,
            channels,
            native.address(starts),
            native.address(columns),
            lists,
            len(columns),
            native.address(coefficients),
            native.address(places),
            native.address(out),
            native.address(work),
            native.stream(features),
        )
    return out


def row_dot(
    left: torch.Tensor,
    right: torch.Tensor,
    starts: torch.Tensor,
    columns: torch.Tensor,
    places: torch.Tensor,
    back_starts: torch.Tensor,
    back_columns: torch.Tensor,
    back_places: torch.Tensor,
) -> torch.Tensor:
    """Multiply each row with those in its list."""
    check_dtypes(left=left, right=right)
    check_same_device(left=left, right=right, starts=starts, columns=columns, places=places)
    _check_lists(starts, columns)
    _check_places(columns, places, columns)
    _check_shape("left", left, starts.shape[0] - 1, right.shape[1])
    left, right = left.contiguous(), right.contiguous()
    rows, channels = right.shape
    out = left.new_empty((columns.shape[0],), dtype=sum_dtype(left.dtype))
    with native.on_device(left):
        native.kernels().row_dot(
            dtype_name(left.dtype),
            native.address(left),
            native.address(right),
            rows,
            channels,
            native.address(starts),
            native.address(columns),
            starts.shape[0] - 1,
            len(columns),
            native.address(places),
            native.address(out),
            native.stream(left),
        )
    return out


def row_max(
    features: torch.Tensor,
    starts: torch.Tensor,
    columns: torch.Tensor,
    back_starts: torch.Tensor,
    back_columns: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the largest number of each channel in each list, and its row."""
    check_dtypes(features=features)
    check_same_device(features=features, starts=starts, columns=columns)
    _check_lists(starts, columns)
    features, lists = features.contiguous(), starts.shape[0] - 1
    rows, channels = features.shape
    out = features.new_empty((lists, channels))
    argmax = torch.empty_like(out, dtype=torch.int32)
    with native.on_device(features):
        work = _work(features, native.kernels().row_max_bytes(dtype_name(features.dtype), channels, len(columns)))
        native.kernels().row_max(
            dtype_name(features.dtype),
            native.address(features),
            rows,
            channels,
            native.address(starts),
            native.address(columns),
            lists,
            len(columns),
            native.address(out),
            native.address(argmax),
            native.address(work),
            native.stream(features),
        )
    return out, argmax


def row_pick(
    features: torch.Tensor, argmax: torch.Tensor, back_starts: torch.Tensor, back_columns: torch.Tensor
) -> torch.Tensor:
    """Read what ``argmax`` names."""
    check_dtypes(features=features)
    check_same_device(features=features, argmax=argmax)
    _check_argmax(argmax, len(argmax), features.shape[1])
    features, argmax = features.contiguous(), argmax.contiguous()
    rows, channels = features.shape
    out = features.new_empty(argmax.shape)
    with native.on_device(features):
        native.kernels().row_pick(
            dtype_name(features.dtype),
            native.address(features),
            rows,
            channels,
            native.address(argmax),
            argmax.shape[0],
            native.address(out),
            native.stream(features),
        )
    return out


def row_put(
    features: torch.Tensor, argmax: torch.Tensor, back_starts: torch.Tensor, back_columns: torch.Tensor
) -> torch.Tensor:
    """Add each number to what ``argmax`` names."""
    check_dtypes(features=features)
    check_same_device(features=features, argmax=argmax, back_starts=back_starts, back_columns=back_columns)
    _check_lists(back_starts, back_columns)
    _check_argmax(argmax, *features.shape)
    features, argmax, lists = features.contiguous(), argmax.contiguous(), back_starts.shape[0] - 1
    rows, channels = features.shape
    out = features.new_empty((lists, channels))
    with native.on_device(features):
        work = _work(features, native.kernels().row_sum_bytes(dtype_name(features.dtype), channels, len(back_columns)))
        native.kernels().row_put(
            dtype_name(features.dtype),
            native.address(features),
            native.address(argmax),
            rows,
            channels,
            native.address(back_starts),
            native.address(back_columns),
            lists,
            len(back_columns),
            native.address(out),
            native.address(work),
            native.stream(features),
        )
    return out


def _sorted(keys: torch.Tensor, others: torch.Tensor, rows: int, places: bool, falls: bool) -> _Lists:
    """Return the starts, columns and places of the lists of the others of each key."""
    own = torch.arange(len(keys) if places else 0, dtype=torch.int32, device=keys.device)
    if not falls:
        return _starts(keys, rows), others.clone(), own  # an operator returns no input
    ordered, moved = sort_pairs(keys.long(), own if places else others, rows)
    return _starts(ordered, rows), others.index_select(0, moved) if places else moved, moved if places else own


def _starts(ordered: torch.Tensor, rows: int) -> torch.Tensor:
    """Return ``(rows + 1,)``: how many of the keys, in order, are below each row."""
    starts = ordered.new_empty((rows + 1,), dtype=torch.int64)
    native.kernels().find_starts(
        native.address(ordered),
        ordered.dtype == torch.int64,
        len(ordered),
        rows,
        native.address(starts),
        native.stream(ordered),
    )
    return starts


def _fit(targets: torch.Tensor, sources: torch.Tensor, target_rows: int, source_rows: int, places: bool) -> bool:
    """Whether pairs have the shapes and the numbers of rows that the kernels take."""
    most = 2**31 - 2
    pairs = targets.ndim == 1 and targets.shape == sources.shape and targets.dtype == sources.dtype == torch.int32
    return pairs and 0 <= min(target_rows, source_rows) <= max(target_rows, source_rows, places * len(targets)) <= most


def _refuse(targets: torch.Tensor, sources: torch.Tensor, target_rows: int, source_rows: int, places: bool) -> None:
    """Raise the error of the kernels of the CPU."""
    _rows.list_rows(targets.cpu().numpy(), sources.cpu().numpy(), target_rows, source_rows, places)
    _rows.list_rows(sources.cpu().numpy(), targets.cpu().numpy(), source_rows, target_rows, places)
    raise AssertionError("pairs that the CPU takes were refused")


def _check_lists(starts: torch.Tensor, columns: torch.Tensor) -> None:
    fits = starts.ndim == columns.ndim == 1 and len(starts) and starts.dtype == torch.int64
    if not fits or columns.dtype != torch.int32:
        raise ValueError("lists are starts (count + 1) int64 and columns (entries) int32")


def _check_places(numbers: torch.Tensor, places: torch.Tensor, columns: torch.Tensor) -> None:
    if numbers.shape != columns.shape:
        raise ValueError("coefficients must have an item for each entry")
    if places.shape != columns.shape or places.dtype != torch.int32:
        raise ValueError("places must have an item for each entry")


def _check_shape(name: str, matrix: torch.Tensor, rows: int, channels: int) -> None:
    if matrix.shape != (rows, channels):
        raise ValueError(f"{name} must be ({rows}, {channels}), not {tuple(matrix.shape)}")


def _check_argmax(argmax: torch.Tensor, rows: int, channels: int) -> None:
    _check_shape("argmax", argmax, rows, channels)
    if argmax.dtype != torch.int32:
        raise ValueError(f"argmax must be int32, not {argmax.dtype}")


def _work(features: torch.Tensor, count: int) -> torch.Tensor:
    return features.new_empty((count,), dtype=torch.uint8)
