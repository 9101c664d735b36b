"""Events in memory-mapped arrays, one file an array of all events: what gathers read, and formats are written from."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfeed.bench.feeds.events import EventSet
from hepfeed.bench.feeds.stored import EVENT, Field, Form, Record, delivered, empty, label_and_event, offsets_of
from hepfeed.tensors import Batch, Jagged

__all__ = ["Maps", "random_order", "staged", "write_maps"]


@dataclass(frozen=True)
class Maps:
    """All events of a set, file after file, row after row.  It pickles without its arrays.

    Attributes:
        form: Of the events.
        folder: Of the files.
    """

    form: Form
    folder: Path

    def __getstate__(self) -> dict[str, Any]:
        return {"form": self.form, "folder": self.folder}

    def __len__(self) -> int:
        return len(self._arrays[EVENT])

    @cached_property
    def _arrays(self) -> dict[str, NDArray[Any]]:
        """Field -> ``(events, *shape)``, or ``(rows of all events, *shape)``."""
        return {name: _mapped(self.folder / f"{name}.bin", field) for name, field in self.form.fields.items()}

    @cached_property
    def _offsets(self) -> dict[str, NDArray[np.int64]]:
        """Field -> ``(events + 1,)`` where the rows of each event begin."""
        return {
            name: offsets_of(np.fromfile(self.folder / f"{name}.counts", np.int64))
            for name, field in self.form.fields.items()
            if field.variable
        }

    def record(self, number: int) -> Record:
        """Return one event; its arrays are views of the files."""
        found = {}
        for name, array in self._arrays.items():
            if name in self._offsets:
                start, stop = self._offsets[name][number : number + 2]
                found[name] = array[start:stop]
            else:
                found[name] = array[number]
        return found

    def take(self, numbers: NDArray[np.int64]) -> Batch:
        """Gather events, with one call of NumPy a key; into what, :func:`~hepfeed.bench.feeds.stored.empty` says."""
        batch = label_and_event(self._arrays[EVENT][numbers])
        for number, (key, (_, shape)) in enumerate(self.form.shapes.items()):
            name = f"k{number}"
            array = self._arrays[name]
            if key in self.form.jagged:
                found = Jagged(array, self._offsets[name]).take(numbers)
                batch[key] = found.map(delivered)
                continue
            whole = empty((len(numbers), *shape), array.dtype)
            target = np.asarray(whole)
            if key in self.form.sparse:
                values = Jagged(array, self._offsets[name]).take(numbers)
                cells = Jagged(self._arrays[f"c{number}"], self._offsets[f"c{number}"]).take(numbers).values
                volume = int(np.prod(shape))
                images = target.reshape(-1)
                images[:] = 0
                images[np.repeat(np.arange(len(numbers)) * volume, values.lengths()) + cells] = values.values
            else:
                np.take(array, numbers, 0, out=target.reshape(len(numbers), *array.shape[1:]), mode="clip")
            batch[key] = whole
        return batch


def write_maps(events: EventSet, form: Form, folder: Path) -> Maps:
    """Read a set with h5py, and write its arrays."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        files = {name: stack.enter_context(open(folder / f"{name}.bin", "wb")) for name in form.fields}
        varying = [name for name, field in form.fields.items() if field.variable]
        counts = {name: stack.enter_context(open(folder / f"{name}.counts", "wb")) for name in varying}
        for file, first, rows in events.blocks():
            for record in form.records(events, file, first, rows):
                for name, array in record.items():
                    files[name].write(np.ascontiguousarray(array).tobytes())
                for name in varying:
                    counts[name].write(np.int64(len(record[name])).tobytes())
    return Maps(form, folder)


@contextmanager
def staged(events: EventSet, form: Form, folder: Path) -> Iterator[Maps]:
    """Events at random access, from which another format is written into ``folder``; deleted in the end."""
    place = folder.with_name(f"{folder.name}-staged")
    try:
        yield write_maps(events, form, place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def random_order(events: int) -> list[int]:
    """Return the numbers of all events in an order that is random and always the same: that of stored events."""
    return [int(number) for number in np.random.default_rng(0).permutation(events)]


def _mapped(path: Path, field: Field) -> NDArray[Any]:
    if not path.stat().st_size:  # a file without contents can't be mapped
        return np.empty((0, *field.shape), field.dtype)
    row = int(np.prod(field.shape)) * field.dtype.itemsize
    return np.memmap(path, field.dtype, "r", shape=(path.stat().st_size // row, *field.shape))
