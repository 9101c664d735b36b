"""Blocks of events that share chunks of an HDF5 file: what a library reads that has no format of its own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import h5py

from hepfeed.bench.feeds.events import EventSet
from hepfeed.bench.feeds.stored import Form, Record

__all__ = ["WINDOW_EVENTS", "Block", "BlockReader", "blocks_of"]

WINDOW_EVENTS = 2048
"""That are mixed with one another: as many as in hepfeed's window by default."""
_LEAST = 128
"""Events of a block, where one chunk has fewer."""
_OPEN_FILES = 64

Block = tuple[int, int, int]
"""File, first row, and the row behind the last one."""


def blocks_of(events: EventSet) -> list[Block]:
    """Return all blocks, file after file: whole chunks, and several where chunks are small."""
    found = []
    for number, source in enumerate(events.sources):
        step = source.block * max(1, _LEAST // source.block)
        found += [(number, first, min(first + step, source.events)) for first in range(0, source.events, step)]
    return found


@dataclass(frozen=True)
class BlockReader:
    """Reads blocks with h5py.  It pickles without the files that it has opened; for one thread.

    Attributes:
        events: The set.
    """

    events: EventSet

    def __getstate__(self) -> dict[str, Any]:
        return {"events": self.events}

    @cached_property
    def form(self) -> Form:
        """What its records look like."""
        return Form.of(self.events, cells=False)

    @cached_property
    def _files(self) -> dict[int, h5py.File]:
        return {}

    def read(self, block: Block) -> list[Record]:
        """Read each chunk of a block once, and return its events."""
        number, first, stop = block
        if number not in self._files:
            if len(self._files) == _OPEN_FILES:
                self._files.pop(next(iter(self._files))).close()
            self._files[number] = h5py.File(self.events.sources[number].path, "r")
        rows = self.events.sources[number].read(self._files[number], first, stop)
        return list(self.form.records(self.events, number, first, rows))

    def close(self) -> None:
        """Close the files that are open here."""
        while self._files:
            self._files.popitem()[1].close()
