"""The form of batches in slots: where each key lies, and the arrays that are made of its bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfeed.tensors import Batch, Jagged

__all__ = ["Counts", "KeyPlace", "StreamForm", "aligned", "empty_batch", "offsets_of", "place_keys"]

Ints = NDArray[np.int64]
Counts = Mapping[str, Ints]
"""Rows of each event, for each set of jagged keys that have them in common."""
_ALIGN = 64


@dataclass(frozen=True)
class KeyPlace:
    """Where a key of a batch lies in a slot: ``(batch size, *shape)`` items from byte ``offset``.

    Attributes:
        name: In the batch.
        dtype: NumPy code.
        shape: Of one event; of jagged keys, of one row.
        offset: Byte in the slot; of jagged keys it depends on the batch, see :meth:`StreamForm.offsets`.
        rows: Empty for dense keys; jagged keys of the same name here have their rows in common.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    rows: str = ""

    @property
    def row_bytes(self) -> int:
        """Bytes of one event; of jagged keys, of one row."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    def view(self, slot: NDArray[np.uint8], rows: int, offset: int | None = None) -> NDArray[Any]:
        """Return the key's array in the bytes of a slot."""
        at = self.offset if offset is None else offset
        data = slot[at : at + rows * self.row_bytes]
        return data.view(self.dtype).reshape((rows, *self.shape))


@dataclass(frozen=True)
class StreamForm:
    """What all batches of one loader have in common.

    Attributes:
        keys: Keys as read.
        dense_bytes: Bytes of a slot that the dense ones take; the jagged ones follow.
        catalog: Which set of files the file numbers refer to.
        pipeline: Pickled :class:`~hepfeed.pipeline.Pipeline`; empty where there are no steps.
        seed: For random numbers.
        skip_errors: Leave out events for which a step raises.
        cache: Token and directory of the cache, where there is one; the token begins with its key and a colon.
        part_bytes: Of the parts that are written to it.
        worker_init: Pickled function that each reader calls once with its number; empty where there is none.
    """

    keys: tuple[KeyPlace, ...]
    dense_bytes: int
    catalog: str
    pipeline: bytes
    seed: int
    skip_errors: bool
    cache: tuple[str, str] | None = None
    part_bytes: int = 0
    worker_init: bytes = b""

    def offsets(self, totals: Mapping[str, int]) -> tuple[dict[str, int], int]:
        """Return where each jagged key of a batch begins in its slot, and the bytes of the slot.

        Args:
            totals: Rows of all events of the batch together, by :attr:`KeyPlace.rows`.
        """
        at, used = {}, self.dense_bytes
        for key in self.keys:
            if key.rows:
                at[key.name] = used
                used = aligned(used + totals[key.rows] * key.row_bytes)
        return at, max(used, 1)

    def arrays(self, slot: NDArray[np.uint8], events: int, counts: Counts) -> Batch:
        """Return the keys of a batch in the bytes of its slot.

        Args:
            slot: The bytes.
            events: Of the batch.
            counts: Rows of each of them, ``(events,)`` for each set of jagged keys.
        """
        offsets = {rows: offsets_of(count) for rows, count in counts.items()}
        at, _ = self.offsets({rows: int(each[-1]) for rows, each in offsets.items()})
        batch: Batch = {}
        for key in self.keys:
            if key.rows:
                offset = offsets[key.rows]
                batch[key.name] = Jagged(key.view(slot, int(offset[-1]), at[key.name]), offset)
            else:
                batch[key.name] = key.view(slot, events)
        return batch


def aligned(offset: int) -> int:
    """Round a place in a slot up to a cache line."""
    return -(-offset // _ALIGN) * _ALIGN


def offsets_of(counts: Ints) -> Ints:
    """Return where events begin that lie one after another, ``(n + 1,)``."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def place_keys(
    keys: Sequence[tuple[str, np.dtype[Any], tuple[int, ...], str]], batch_size: int
) -> tuple[tuple[KeyPlace, ...], int]:
    """Lay out the keys of a batch in a slot, each on a cache line; returns them and the bytes of the dense ones.

    Args:
        keys: Name, dtype, shape and rows, as in :class:`KeyPlace`.
        batch_size: Most events of a batch.
    """
    offset = 0
    places = []
    for name, dtype, shape, rows in keys:
        place = KeyPlace(name, dtype.str, shape, -1 if rows else offset, rows)
        places.append(place)
        if not rows:
            offset = aligned(offset + batch_size * place.row_bytes)
    return tuple(places), offset


def empty_batch(keys: Sequence[KeyPlace], events: int, counts: Counts) -> tuple[Batch, dict[str, NDArray[np.uint64]]]:
    """Make arrays for the keys of events; returns them, and the addresses of each event's items."""
    batch: Batch = {}
    addresses: dict[str, NDArray[np.uint64]] = {}
    for key in keys:
        if key.rows:
            offsets = offsets_of(counts[key.rows])
            values = np.empty((int(offsets[-1]), *key.shape), key.dtype)
            batch[key.name] = Jagged(values, offsets)
            step = offsets[:-1] * key.row_bytes
        else:
            values = np.empty((events, *key.shape), key.dtype)
            batch[key.name] = values
            step = np.arange(events) * key.row_bytes
        addresses[key.name] = np.uint64(values.ctypes.data) + step.astype(np.uint64)
    return batch, addresses
