"""How a build is cut into tasks: a pure function of the events, so that shards and resumed builds cut alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hepfeed.index import EventIndex

__all__ = ["batch_edges", "block_numbers", "event_sizes", "task_edges"]

Ints = NDArray[np.int64]
_TASKS = 32  # of a set that is neither small nor large
_LEAST_BYTES, _MOST_BYTES = 16 << 20, 512 << 20  # of a task, delivered; each ends with a wait for the disk
_BATCH_BYTES = 8 << 20
_MOST_BATCH_BYTES = 64 << 20  # a block up to that size is read at once, so that its chunks are decoded once


def task_edges(index: EventIndex) -> Ints:
    """Return where tasks begin and end, ``(tasks + 1,)`` places in the index.

    Task i has the events ``edges[i]:edges[i + 1]``: whole blocks of events that share chunks, of about 1/32 of the
    delivered bytes, but 16 MiB at least and 512 MiB at most.
    """
    file = index.file_of(np.arange(len(index)))
    sizes = event_sizes(index, file, index.rows)
    target = int(np.clip(int(sizes.sum()) // _TASKS, _LEAST_BYTES, _MOST_BYTES))
    return _cut(sizes, block_numbers(index, file, index.rows), target)


def batch_edges(sizes: Ints, block: Ints) -> Ints:
    """Return where the batches of a task begin and end, ``(batches + 1,)``.

    A batch has about 8 MiB and whole blocks; a block of more than 64 MiB is cut, and its chunks are decoded again.

    Args:
        sizes: ``(n,)`` delivered bytes of events.
        block: ``(n,)`` number of the block of each.
    """
    starts = np.flatnonzero(np.diff(block, prepend=block[:1] - 1))
    number = np.cumsum(np.diff(block, prepend=block[:1]) != 0)
    within = np.cumsum(sizes) - sizes
    within -= within[starts][number] if len(starts) else 0
    return _cut(sizes, number * (1 << 40) + within // _MOST_BATCH_BYTES, _BATCH_BYTES)


def event_sizes(index: EventIndex, file: Ints, row: Ints) -> Ints:
    """Return the delivered bytes of events, ``(n,)``."""
    dense = sum(key.row_bytes for key in index.keys if not key.rows)
    sizes = np.full(len(row), max(1, dense), np.int64)
    counts = index.counts(file, row)
    for key in index.keys:
        if key.rows:
            sizes += counts[key.rows] * key.row_bytes
    return sizes


def block_numbers(index: EventIndex, file: Ints, row: Ints) -> Ints:
    """Return the number of the block that each event shares chunks with, ``(n,)``; unlike numbers are unlike blocks."""
    block = np.array([source.block for source in index.sources], np.int64)
    blocks = np.array([-(-source.events // source.block) for source in index.sources], np.int64)
    first: Ints = np.cumsum(blocks) - blocks
    return np.asarray(first[file] + row // block[file], np.int64)


def _cut(sizes: Ints, block: Ints, target: int) -> Ints:
    """Cut events into runs of about ``target`` bytes, between blocks only."""
    ends = np.cumsum(sizes)
    may = np.flatnonzero(np.diff(block)) + 1
    wanted = np.arange(target, int(ends[-1]) if len(ends) else 0, target)
    place = np.searchsorted(ends[may - 1], wanted)
    return np.unique(np.concatenate([[0], may[place[place < len(may)]], [len(sizes)]])).astype(np.int64)
