"""What a side must deliver: each event of an epoch once, with its label, and with the values that h5py reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfeed.bench.feeds.events import EventSet
from hepfeed.tensors import Batch, Jagged

__all__ = ["Checker", "Expected", "Findings", "checksums"]

_TOLERANCE = 1e-9
"""Of a sum in float64 over the sum of the sizes of what is summed: other orders of summation differ by 1e-13."""
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class Expected:
    """Checksums of all events, as h5py reads them.

    Attributes:
        sums: Key -> ``(events,) float64``, file after file.
        sizes: Key -> ``(events,) float64`` the same of absolute values, which tells how exact a sum is.
    """

    sums: dict[str, NDArray[np.float64]]
    sizes: dict[str, NDArray[np.float64]]

    @classmethod
    def of(cls, events: EventSet) -> Expected:
        """Read all events with h5py."""
        sums: dict[str, list[NDArray[np.float64]]] = {key: [] for key in events.keys}
        sizes: dict[str, list[NDArray[np.float64]]] = {key: [] for key in events.keys}
        for _, _, rows in events.blocks():
            for key, value in rows.items():
                one, size = checksums(value)
                sums[key].append(one)
                sizes[key].append(size)
        return cls(
            {key: np.concatenate(parts) for key, parts in sums.items()},
            {key: np.concatenate(parts) for key, parts in sizes.items()},
        )


def checksums(value: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return two numbers for each event: its checksum, and the same of its absolute values.

    Item i of an event, counted in C order, has the weight ``1 + frac(i * 0.618...)``, so that items that changed places
    are found; rows of zeros behind the last one of an event of a variable length change nothing.

    Args:
        value: ``(B, ...)``, or a :class:`~hepfeed.tensors.Jagged` of B events; NumPy or torch.
    """
    if not isinstance(value, Jagged):
        flat = np.asarray(value)
        flat = flat.reshape(len(flat), -1).astype(np.float64)
        weights = _weights(np.arange(flat.shape[1]))
        return flat @ weights, np.abs(flat) @ weights
    rows, offsets = np.asarray(value.values), np.asarray(value.offsets)
    rows = rows.reshape(len(rows), -1).astype(np.float64)
    counts = np.diff(offsets)
    event = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(rows)) - np.repeat(offsets[:-1], counts)
    weights = _weights(place[:, None] * rows.shape[1] + np.arange(rows.shape[1]))
    sums, sizes = (rows * weights).sum(1), (np.abs(rows) * weights).sum(1)
    return (
        np.bincount(event, sums, len(counts)).astype(np.float64),
        np.bincount(event, sizes, len(counts)).astype(np.float64),
    )


def _weights(place: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(1 + np.modf(place * _GOLDEN)[0])


@dataclass
class Findings:
    """What an epoch brought.

    Attributes:
        delivered: Events.
        complete: The epoch ran to its end, and was not stopped.
        faults: What is wrong, in words; empty where nothing is.
        events: ``(delivered, 2)`` file and row of each, in their order.
        batches: Events of each batch.
    """

    delivered: int
    complete: bool
    faults: list[str]
    events: NDArray[np.int64]
    batches: NDArray[np.int64]


@dataclass
class Checker:
    """Compares the batches of one epoch with what h5py reads.

    Attributes:
        events: What is to come.
        expected: Its checksums.
        batch_size: Events of a batch, at most.
    """

    events: EventSet
    expected: Expected
    batch_size: int
    _faults: dict[str, None] = field(default_factory=dict, init=False)
    _came: list[NDArray[np.int64]] = field(default_factory=list, init=False)

    def add(self, batch: Batch) -> None:
        """Compare a batch."""
        where = np.asarray(batch["event"]).astype(np.int64)
        if where.ndim != 2 or where.shape[1] != 2:
            self._faults[f'"event" has shape {where.shape}, not (B, 2)'] = None
            return
        self._came.append(where)
        if len(where) > self.batch_size:
            self._faults[f"a batch has {len(where)} events, more than {self.batch_size}"] = None
        file, row = where.T
        counts = np.array(self.events.file_events)
        known = (file >= 0) & (file < len(counts)) & (row >= 0)
        known &= row < counts[np.where(known, file, 0)]
        if not known.all():
            self._faults["there are events that no file has"] = None
            return
        label = np.asarray(batch["label"])
        if label.shape != file.shape or (label != self.events.file_labels[file]).any():
            self._faults["labels are wrong"] = None
        number = self.events.file_start[file] + row
        for key in self.events.keys:
            self._compare(key, batch.get(key), number)

    def _compare(self, key: str, value: Any, number: NDArray[np.int64]) -> None:
        if value is None:
            self._faults[f"{key} is not delivered"] = None
            return
        shape = self.events.shapes[key][1]
        whole = tuple((value.values if isinstance(value, Jagged) else value).shape)
        got = whole[2:] if key in self.events.jagged and not isinstance(value, Jagged) else whole[1:]
        if got != shape:
            self._faults[f"{key} has shape {got} an event, not {shape}"] = None
            return
        sums, _ = checksums(value)
        if sums.shape != number.shape:
            self._faults[f"{key} has {len(sums)} events in a batch of {len(number)}"] = None
            return
        wanted, size = self.expected.sums[key][number], self.expected.sizes[key][number]
        right = (np.abs(sums - wanted) <= _TOLERANCE * size) | (np.isnan(sums) & np.isnan(wanted)) | (sums == wanted)
        if not right.all():
            self._faults[f"values of {key} are wrong"] = None

    def findings(self, complete: bool) -> Findings:
        """Return what came; of a complete epoch, whether all came."""
        came = np.concatenate(self._came) if self._came else np.empty((0, 2), np.int64)
        faults = list(self._faults)
        if "there are events that no file has" not in self._faults:
            times = np.bincount(self.events.file_start[came[:, 0]] + came[:, 1], minlength=len(self.events))
            if (times > 1).any():
                faults.append(f"{np.count_nonzero(times > 1):,} events came more than once")
            if complete and (times == 0).any():
                faults.append(f"{np.count_nonzero(times == 0):,} of {len(self.events):,} events are missing")
        return Findings(len(came), complete, faults, came, np.array([len(part) for part in self._came], np.int64))
