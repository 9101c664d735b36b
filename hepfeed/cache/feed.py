"""The cache of a loader: what of its events comes from there, and what is written to it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from hepfeed.cache.memory import PartMemory
from hepfeed.cache.places import Places
from hepfeed.cache.store import CacheStore
from hepfeed.errors import ProcessError
from hepfeed.index import EventIndex
from hepfeed.parts.part import Part
from hepfeed.parts.reader import slot_bytes
from hepfeed.parts.table import CacheTable
from hepfeed.parts.writer import PartsWritten
from hepfeed.ring import available_memory
from hepfeed.tasks import MISSING

__all__ = ["CacheFeed"]

Ints = NDArray[np.int64]
_MOST_TOGETHER = 16
_TOGETHER_BYTES = 36 << 20
_FEW = 0.01  # of the events may be missing in an epoch from the cache: they are read one by one from their sources


class CacheFeed:
    """What one loader reads from a cache and writes to it.

    Args:
        store: The cache.
        index: The loader's events.
        required: Whether events that can't be cached are an error.
        memory: Bytes of shared memory that parts may take.

    Attributes:
        store: The cache.
    """

    def __init__(self, store: CacheStore, index: EventIndex, required: bool, memory: int = 0) -> None:
        self.store = store
        self._required = required
        if memory and store.memory is None:
            store.memory = PartMemory(memory)
        self._index = index
        self._places = Places(index)
        self._claimed: NDArray[np.bool_] = np.zeros(len(index), bool)
        self._mapped = False
        self._sizes: dict[str, int] | None = None  # of what a batch takes in a slot
        self._event_bytes: float | None = None  # of one of its events
        self.refresh()

    def __len__(self) -> int:
        return len(self._index)

    def refresh(self) -> None:
        """Take in what the cache has now; events that were given to readers and did not arrive are missing again."""
        self.store.refresh()
        self._update()
        self._claimed = self._places.row != MISSING
        self._lacks = not self._claimed.all()
        self._event_bytes = None
        self._mapped = self.store.bytes < available_memory() // 2

    def _update(self) -> None:
        self._places.update(self.store.contents, self.store.damaged)

    @property
    def missing(self) -> int:
        """Number of the loader's events that the cache does not have."""
        return self._places.missing

    @property
    def fills(self) -> bool:
        """Whether events are written, because the cache lacks some of them."""
        return self._lacks and self.store.writing

    def ready(self, batch_size: int) -> bool:
        """Whether an epoch comes from the cache: it has all events, or all but a few."""
        return bool(self.store.contents.parts) and self.missing <= max(
            _FEW * len(self), min(batch_size, len(self) // 2)
        )

    # ---- writing ---------------------------------------------------------------------------------------------------

    def claim(self, place: Ints) -> NDArray[np.bool_] | None:
        """Return which events of a batch are to be written, each once in an epoch; None where nothing is written.

        Args:
            place: ``(n,)`` place of each event in the index.
        """
        if not self.fills:
            return None
        fresh: NDArray[np.bool_] = np.zeros(len(place), bool)
        fresh[np.unique(place, return_index=True)[1]] = True  # an event may come twice in a batch
        fresh &= ~self._claimed[place]
        self._claimed[place] = True
        return fresh

    def acquire(self) -> bool:
        """Take the right to write; False where another process has it.

        Raises:
            SourceError: The directory can't be written.
            ResourceError: The disk is full.
        """
        taken = self.store.acquire()
        self.refresh()
        return taken

    def commit(self) -> None:
        """Write the manifest, and give the right to write back once nothing is missing.

        Raises:
            OSError: It can't be written.
        """
        self.store.commit()
        self.refresh()
        if self.store.complete:
            self.store.release()

    def close(self) -> None:
        """Give the right to write back, with a manifest of what there is."""
        self.store.release()

    def take(self, written: PartsWritten | None, damaged: list[tuple[int, int]]) -> None:
        """Take in what a reader wrote, and what it found damaged."""
        if written is not None and (written.parts or written.error):
            self.store.take(written)
            self._update()
            if self._required and isinstance(self.store.error, ProcessError):
                raise self.store.error
        if damaged:
            self.store.mark(damaged)
            self._places.update(self.store.contents, damaged)  # another loader may have found them before
            self._claimed &= self._places.row != MISSING
            self.store.repair()
            self._lacks = True

    # ---- reading ---------------------------------------------------------------------------------------------------

    def locate(self, place: Ints) -> tuple[Ints, Ints, dict[str, tuple[Ints, Ints]], int]:
        """Return where events are, as in :class:`hepfeed.tasks.Recall`: part, at, runs and size.

        Args:
            place: ``(n,)`` place of each event in the index.
        """
        contents = self.store.contents
        part, at, runs = contents.locate(self._places.row[place])
        if self._sizes is None:
            self._sizes = slot_bytes(self.store.manifest.forms)
        size = self._sizes[""] * len(place) + self._sizes["aligned"]
        for path, (_, count) in runs.items():
            size += self._sizes[path] * int(count.sum())
        return part, at, runs, size

    def together(self, batch_size: int) -> int:
        """Return how many batches a reader does at a time: several where they are small, to ask less often."""
        if any(form.kind == "graph" for form in self.store.manifest.forms):
            return 1
        if self._event_bytes is None:
            contents = self.store.contents
            sizes = slot_bytes(self.store.manifest.forms)
            rows = sum(sizes[path] * total for path, total in contents.totals().items())
            self._event_bytes = sizes[""] + rows / max(1, int(contents.start[-1]))
        return int(max(1, min(_MOST_TOGETHER, _TOGETHER_BYTES // max(1, self._event_bytes * batch_size))))

    def parts(self, numbers: Iterable[int]) -> dict[int, tuple[Part, int]]:
        """Return parts and the number of their first block."""
        contents = self.store.contents
        return {number: (contents.parts[number], int(contents.first_block[number])) for number in numbers}

    def table(self, verified: int) -> CacheTable:
        """Return what a reader must know, given the slot for what was verified."""
        store = self.store
        return CacheTable(store.token, store.directory, store.manifest.forms, verified, self.blocks, self._mapped)

    @property
    def blocks(self) -> int:
        """Number of blocks of all parts."""
        return max(1, int(self.store.contents.first_block[-1]))

    @property
    def identity(self) -> tuple[str, str]:
        """Token of the cache, and the directory that readers may write to; it is empty where they may not.

        Without memory to write to they write only once this process has the right to, be it in the midst of an epoch.
        """
        may = self.store.locked or self.store.memory is None
        return self.store.token, self.store.directory if may else ""
