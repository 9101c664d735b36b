"""Images as cells and values in plain NumPy: the twins of the kernels of the cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["count_cells", "densify", "pack", "ravel", "unravel"]


def _set_items(images: NDArray[Any], events: int) -> NDArray[np.bool_]:
    """Return ``(events, volume)``: whether an item has a bit that is set; -0.0 and NaN have one."""
    shape = (events, images.size // events if events else 0, images.itemsize)
    items: NDArray[np.uint8] = np.ascontiguousarray(images).view(np.uint8).reshape(shape)
    return np.asarray(items.any(axis=2), np.bool_)


def count_cells(images: NDArray[Any], events: int) -> NDArray[np.int64]:
    """Return ``(events,) int64``: how many items of each event have a bit that is set.

    Args:
        images: One event after another, of any type of number.
        events: How many events they are.
    """
    counts: NDArray[np.int64] = _set_items(images, events).sum(axis=1, dtype=np.int64)
    return counts


def pack(images: NDArray[Any], events: int, cell_bytes: int) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]:
    """Return the items that have a bit set, as (counts, cells, values), by event and cell.

    ``counts`` are those of :func:`count_cells`; ``cells`` the numbers of the items within their event, in C order,
    unsigned of ``cell_bytes`` bytes; ``values`` the items.

    Args:
        images: One event after another, of any type of number.
        events: How many events they are.
        cell_bytes: 2, 4 or 8.
    """
    is_set = _set_items(images, events)
    cells = np.nonzero(is_set)[1].astype(f"u{cell_bytes}")
    return count_cells(images, events), cells, images.reshape(is_set.shape)[is_set]


def ravel(indices: NDArray[np.int32], shape: Sequence[int], cell_bytes: int) -> NDArray[Any]:
    """Return ``(N,)``: ``cell = ((x_1 * shape[1] + x_2) * shape[2] + x_3) ...``, unsigned of ``cell_bytes`` bytes.

    Args:
        indices: ``(N, 1 + D)``: event, which is ignored, and coordinates.
        shape: Cells along each axis.
        cell_bytes: 2, 4 or 8.

    Raises:
        ValueError: A site lies outside of the shape.
    """
    cells: NDArray[Any] = np.ravel_multi_index(tuple(indices[:, 1:].T.astype(np.int64)), tuple(shape))
    return cells.astype(f"u{cell_bytes}")


def densify(cells: NDArray[Any], values: NDArray[Any], counts: NDArray[np.int64], volume: int) -> NDArray[Any]:
    """Return ``(events, volume)``: ``image[cells[i]] = values[i]`` for i in order, and 0 elsewhere.

    Args:
        cells: ``(N,)``, one event after another.
        values: ``(N,)``.
        counts: ``(events,)``: how many of them are of each event.
        volume: Items of one image.

    Raises:
        IndexError: A cell lies outside of the image.
    """
    images = np.zeros((len(counts), volume), values.dtype)
    for image, run in zip(images, _runs(counts)):
        for cell, value in zip(cells[run].tolist(), values[run]):  # one by one: the last of several wins
            image[cell] = value
    return images


def unravel(
    cells: NDArray[Any], counts: NDArray[np.int64], shape: Sequence[int], first_event: int = 0
) -> NDArray[np.int32]:
    """Return ``(N, 1 + D) int32``: event and coordinates of each cell; :func:`ravel` undone.

    Args:
        cells: ``(N,)``, one event after another.
        counts: ``(events,)``: how many of them are of each event.
        shape: Cells along each axis.
        first_event: The number of the first event.

    Raises:
        ValueError: A cell lies outside of the shape.
    """
    event = first_event + np.repeat(np.arange(len(counts)), counts)
    return np.stack([event, *np.unravel_index(cells.astype(np.int64), tuple(shape))], axis=1).astype(np.int32)


def _runs(counts: NDArray[np.int64]) -> list[slice]:
    ends = np.cumsum(counts)
    return [slice(int(end - count), int(end)) for end, count in zip(ends, counts)]
