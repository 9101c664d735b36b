"""Events as a map-style dataset of torch tensors."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import torch.utils.data
from numpy.typing import NDArray

from hepfeed.errors import HepfeedError, ProcessError, SpecError
from hepfeed.index import EventIndex, OnError
from hepfeed.progress import Progress, progress_bars
from hepfeed.reader import Batch, Reader, apply_functions, row_addresses
from hepfeed.spec import SampleSpec
from hepfeed.splits import Splits
from hepfeed.store import IndexStore

__all__ = ["EventDataset", "Function"]

Function = Callable[[Batch], Batch]
"""Takes and returns a dict of arrays ``(B, ...)``: the keys, ``"label" (B,) int64`` and ``"event" (B, 2) int64``."""


class EventDataset(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """All events of a specification, or one part of them; opened lazily in each process.

    ``len(dataset)``, ``dataset[i]`` and ``dataset.__getitems__`` serve any framework; :class:`hepfeed.DataLoader` does
    not use them but reads whole windows of events at once.

    Args:
        spec: The specification, its list form, or the path of its YAML or JSON file.
        split: Name of one of ``splits``.
        splits: Fractions by name, e.g. ``{"train": .8, "val": .1, "test": .1}``.
        split_by: ``"event"``, ``"block"``, ``"file"`` or ``"key:NAME"``; see :class:`hepfeed.splits.Splits`.
        split_seed: Another seed, another division.
        transform: Functions applied in the readers to each batch, in their order; ``dataset[i]`` applies them to a
            batch of one event.  Their global NumPy and Python random numbers depend on seed, epoch and batch alone.
        on_error: ``"raise"``, or ``"skip"`` files and events at fault: they are logged and counted.
        index: Path of the index file; by default the user's own.
        index_workers: Processes that open files and apply filters; by default one a processor.
        progress: Called with (what is done, finished, total) while files are opened; True, or None on a terminal,
            shows a bar where that takes a while.

    Attributes:
        spec: The specification.
        index: What its files hold.
        classes: Label -> class index.

    Raises:
        SpecError: Specification and files do not fit.
        SourceError: A file can't be read.
    """

    def __init__(
        self,
        spec: SampleSpec | Sequence[Any] | str | os.PathLike[str],
        split: str | None = None,
        *,
        splits: Mapping[str, float] | None = None,
        split_by: str = "event",
        split_seed: int = 0,
        transform: Sequence[Function] | Function | None = None,
        on_error: OnError = "raise",
        index: str | os.PathLike[str] | None = None,
        index_workers: int | None = None,
        progress: Progress | bool | None = None,
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise SpecError(f"on_error must be 'raise' or 'skip', not {on_error!r}")
        if splits is not None and split is None:
            raise SpecError(f"name the part of splits to use: split= one of {list(splits)}")
        if splits is None and split is not None:
            raise SpecError(f"split={split!r} needs the fractions: splits={{'train': 0.8, 'val': 0.1, 'test': 0.1}}")
        self.spec = as_spec(spec)
        self.split = split
        self.transform: tuple[Function, ...] = _as_functions("transform", transform)
        self.on_error: OnError = on_error
        bars = progress_bars(progress) if progress is None or isinstance(progress, bool) else nullcontext(progress)
        with bars as report:
            self.index = EventIndex(
                self.spec,
                splits=None if splits is None else Splits(splits, split_by, split_seed),
                split=split,
                store=IndexStore(index if index is not None else ""),
                workers=index_workers,
                on_error=on_error,
                progress=report,
            )
        self.classes = self.spec.classes
        self._reader: tuple[int, Reader] | None = None
        self._known: set[int] = set()

    @property
    def files(self) -> list[str]:
        """Paths; ``batch["event"][:, 0]`` counts in this list and ``batch["event"][:, 1]`` is the row in the file."""
        return self.index.files

    @property
    def skipped(self) -> list[HepfeedError]:
        """Faults of files and filter keys that ``on_error="skip"`` passed over."""
        return self.index.skipped

    @property
    def catalog(self) -> str:
        """What the numbers of files mean to a reader."""
        return f"{self.spec.fingerprint()}:{len(self.index.sources)}"

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        part = f", split={self.split!r}" if self.split else ""
        keys = ", ".join(f"{key.name} {key.shape} {key.dtype}" for key in self.index.keys)
        return f"EventDataset({len(self)} events in {len(self.files)} files{part}: {keys})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None, "_known": set()}

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, torch.Tensor]]:
        """Return several events, each as ``dataset[i]``; chunks that they share are decoded once."""
        events = np.array([int(i) for i in indices], np.int64)
        events = np.where(events < 0, events + len(self), events)
        if ((events < 0) | (events >= len(self))).any():
            raise IndexError(f"index {indices} is out of range for {len(self)} events")
        file, row = self.index.file_of(events), self.index.rows[events]
        batch = self._read(file, row)
        if not self.transform:
            return [{name: torch.as_tensor(values[i]) for name, values in batch.items()} for i in range(len(events))]
        done = []
        for i, event in enumerate(events.tolist()):
            one = {name: values[i : i + 1] for name, values in batch.items()}
            try:
                result = apply_functions(list(self.transform), one, ("item", event))
            except Exception as error:
                path = self.files[int(file[i])]
                raise ProcessError(
                    f"transform raised {type(error).__name__}: {error} on event {int(row[i])} of {path!r}",
                    file=path,
                    event=int(row[i]),
                ) from error
            done.append({name: torch.as_tensor(np.asarray(values)[0]) for name, values in result.items()})
        return done

    def _read(self, file: NDArray[np.int64], row: NDArray[np.int64]) -> Batch:
        """Read events into arrays of their own."""
        if self._reader is None or self._reader[0] != os.getpid():
            self._reader, self._known = (os.getpid(), Reader()), set()
        reader = self._reader[1]
        fresh = [number for number in np.unique(file).tolist() if number not in self._known]
        if fresh:
            reader.add_files(self.catalog, {number: self.index.source_table(number) for number in fresh})
            self._known.update(fresh)
        arrays: Batch = {key.name: np.empty((len(row), *key.shape), key.dtype) for key in self.index.keys}
        order = np.lexsort((row, file))
        addresses = {name: row_addresses(array)[order] for name, array in arrays.items()}
        _, failed = reader.read_events(self.catalog, file[order], row[order], addresses)
        if failed:
            raise failed[min(failed)]
        return {**arrays, "label": self.index.file_class[file], "event": np.stack([file, row], 1)}


def as_spec(spec: SampleSpec | Sequence[Any] | str | os.PathLike[str]) -> SampleSpec:
    """Return a specification from any of its forms."""
    if isinstance(spec, SampleSpec):
        return spec
    if isinstance(spec, str | os.PathLike):
        return SampleSpec.load(os.fspath(spec))
    return SampleSpec(spec)


def _as_functions(name: str, functions: Sequence[Function] | Function | None) -> tuple[Function, ...]:
    if functions is None:
        return ()
    several = (functions,) if callable(functions) else tuple(functions)
    for function in several:
        if not callable(function):
            raise SpecError(f"{name} must be functions on a batch, not {function!r}")
    return several
