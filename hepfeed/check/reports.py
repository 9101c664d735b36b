"""What is found in a specification."""

from __future__ import annotations

from dataclasses import dataclass

from hepfeed.fault import Fault

__all__ = ["ClassReport", "KeyReport", "KeyStorage", "ReadCost", "SpecReport"]


@dataclass(frozen=True)
class ClassReport:
    """The events of one label.

    Attributes:
        label: As in the specification.
        index: Class index.
        files: Files that can be read.
        events: Events in them.
        kept: Events after the filter.
    """

    label: str | int
    index: int
    files: int
    events: int
    kept: int


@dataclass(frozen=True)
class KeyStorage:
    """One way in which a key is stored.

    Attributes:
        files: Files that store it so.
        storage: ``"contiguous"``, ``"chunked"``, or ``"library"``: read through h5py, slower.
        reason: Why it is read through h5py; empty otherwise.
        chunk: Chunk shape, events first; empty without chunks.
        codec: HDF5 filters in words.
    """

    files: int
    storage: str
    reason: str
    chunk: tuple[int, ...]
    codec: str


@dataclass(frozen=True)
class KeyReport:
    """One key of the batches.

    Attributes:
        name: In the batch.
        shape: Of an event.
        dtype: As delivered.
        storages: How the files store it, the most frequent first.
        bytes: Of all events in memory, as stored types.
        stored_bytes: Of all events in the files.
        ratio: ``bytes / stored_bytes``; None where nothing is stored.
        occupancy: Part of the items that is not 0, of the measured events; None without a measurement.
        not_finite: Part of the items that is NaN or infinite; None without a measurement.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    storages: tuple[KeyStorage, ...]
    bytes: int
    stored_bytes: int
    ratio: float | None
    occupancy: float | None
    not_finite: float | None


@dataclass(frozen=True)
class ReadCost:
    """What reading costs, measured in this process with the readers' own code, in the order of training.

    Files that were read shortly before come from memory: the first epoch from disk may read slower.

    Attributes:
        events: Events that were measured.
        order: ``"window"`` or ``"full"``, see :class:`hepfeed.Filler`.
        block: Most events that share chunks.
        read_s: Seconds an event of getting bytes from the files.
        inflate_s: Seconds an event of decompression.
        scatter_s: Seconds an event of copying to the batches.
        events_per_s: Of one core.
        cores: Processors that this process may use.
        events_per_s_all: Expected of as many readers as there are processors.
        epoch_events: Events of an epoch.
        epoch_read_bytes: Expected from the files in an epoch.
        epoch_batch_bytes: Delivered in an epoch.
    """

    events: int
    order: str
    block: int
    read_s: float
    inflate_s: float
    scatter_s: float
    events_per_s: float
    cores: int
    events_per_s_all: float
    epoch_events: int
    epoch_read_bytes: int
    epoch_batch_bytes: int


@dataclass(frozen=True)
class SpecReport:
    """What a specification holds.

    Attributes:
        classes: By class index.
        keys: In the order of the specification; empty where no file can be read.
        faults: One for each file that fails, and for what does not go together.
        cost: What reading costs; None without a measurement.
        advice: What to change, the most important first.
    """

    classes: tuple[ClassReport, ...]
    keys: tuple[KeyReport, ...]
    faults: tuple[Fault, ...]
    cost: ReadCost | None
    advice: tuple[str, ...]
