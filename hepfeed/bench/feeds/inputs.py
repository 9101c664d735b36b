"""The inputs of ``hepfeed bench feed``: sets of events that it makes, and those of a user's specification."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hepfeed.bench.feeds import jets, lcd
from hepfeed.bench.feeds.events import EventSet
from hepfeed.errors import SpecError, nearest
from hepfeed.spec import SampleSpec, as_spec
from hepfeed.tensors import Jagged

__all__ = ["INPUTS", "Input", "given", "input_of"]

_HITS_AN_EVENT = 16
"""An event of hits is that many times larger than one of the others, and so there are as many times fewer."""
_SPARSE = 0.1
"""Events of which a smaller part is not 0 are worth to be stored without what is 0."""
_LOOKED_AT = 20
"""Events of each file that tell."""


@dataclass(frozen=True)
class Input:
    """A set of events to be made.

    Attributes:
        name: As in ``--inputs``.
        title: For tables.
        classes: Number of classes.
        write: Writes (folder, files of a class, events of a file), and returns the specification.
        prepared: As of :class:`EventSet`.
        sparse: As of :class:`EventSet`.
        part: There are that many times fewer events.
    """

    name: str
    title: str
    classes: int
    write: Callable[[Path, int, int], list[list[Any]]]
    prepared: bool = False
    sparse: bool = False
    part: int = 1

    def make(self, folder: Path, events: int, files: int) -> EventSet:
        """Write the set, where it is not there yet.

        Args:
            folder: Of all sets.
            events: About so many of all classes together.
            files: Of each class.
        """
        each = max(1, events // (self.classes * files * self.part))
        spec = SampleSpec(self.write(folder, files, each))
        return EventSet.of(self.name, self.title, spec, prepared=self.prepared, sparse=self.sparse)


def _stored(storage: str) -> Input:
    def write(folder: Path, files: int, events: int) -> list[list[Any]]:
        return lcd.make_set(folder, storage, files, events)

    return Input(f"lcd-{storage}", f"LCD, {lcd.TITLES[storage]}", len(lcd.CLASSES), write)


def _suppressed(folder: Path, files: int, events: int) -> list[list[Any]]:
    return lcd.make_suppressed_set(folder, "100", files, events)


def _filled(folder: Path, files: int, events: int) -> list[list[Any]]:
    return lcd.make_filled_set(folder, "contiguous", files, events)


_ALL = (
    *(_stored(storage) for storage in lcd.STORAGE),
    Input("cached-cells", "LCD, zero-suppressed, from each side's own format", 4, _suppressed, True, True),
    Input("cached-dense", "LCD, no cell is 0, from each side's own format", 4, _filled, True),
    Input("jets-table", "jets, compound tables of ATLAS", 2, jets.make_tables),
    Input("jets-columns", "jets, padded columns as weaver reads them", 2, jets.make_columns),
    Input("jets-ragged", "jets, particles with offsets", 2, jets.make_ragged),
    Input("hits-ragged", "hits, KM3NeT's layout", 1, jets.make_hits, part=_HITS_AN_EVENT),
)
INPUTS: dict[str, Input] = {each.name: each for each in _ALL}
"""By name, in the order of the tables."""


def input_of(name: str) -> Input:
    """Return an input.

    Raises:
        SpecError: There is none of that name.
    """
    if name not in INPUTS:
        raise SpecError(f"there is no input {name!r}: {nearest(name, INPUTS, len(INPUTS))}")
    return INPUTS[name]


def given(path: str | os.PathLike[str], prepared: bool = False) -> EventSet:
    """Return the events of a user's specification, as its files store them.

    Args:
        path: Of the specification.
        prepared: Each side writes them in its own format first.

    Raises:
        SpecError: Specification and files do not fit.
        SourceError: A file can't be read.
    """
    events = EventSet.of(Path(path).stem, str(path), as_spec(path))
    if not prepared:
        return events
    name, title = f"{events.name}-cached", f"{events.title}, from each side's own format"
    return replace(events, name=name, title=title, prepared=True, sparse=_occupancy(events) < _SPARSE)


def _occupancy(events: EventSet) -> float:
    """Part of the items that is not 0, of the first events of each file."""
    active = total = 0
    for source in events.sources:
        with h5py.File(source.path) as file:
            for value in source.read(file, 0, min(_LOOKED_AT, source.events)).values():
                items = value.values if isinstance(value, Jagged) else value
                active, total = active + int(np.count_nonzero(items)), total + items.size
    return active / max(total, 1)
