"""Events as a map-style dataset of torch tensors."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import numpy as np
import torch
import torch.utils.data
from numpy.typing import NDArray

from hepfeed.cache.access import CacheAccess
from hepfeed.cache.feed import CacheFeed
from hepfeed.cache.option import CacheOption, open_cache
from hepfeed.draws import Draws
from hepfeed.errors import HepfeedError, ProcessError, SpecError
from hepfeed.form import KeyPlace, empty_batch
from hepfeed.index import EventIndex, OnError
from hepfeed.pipeline import Pipeline, Transform
from hepfeed.progress import Progress, progress_bars
from hepfeed.source_reader import SourceReader
from hepfeed.spec import SampleSpec, as_spec
from hepfeed.splits import Splits
from hepfeed.store import IndexStore
from hepfeed.tensors import Batch, Jagged, Padded, Sparse, Structured, take

__all__ = ["EventDataset"]


class EventDataset(torch.utils.data.Dataset[dict[str, Any]]):
    """All events of a specification, or one part of them; opened lazily in each process and thread.

    ``len(dataset)``, ``dataset[i]`` and ``dataset.__getitems__`` serve any framework; :class:`hepfeed.DataLoader` does
    not use them but reads whole windows of events at once.  Threads may read at the same time, and a process may be
    forked meanwhile: each has files and buffers of its own.

    Args:
        spec: The specification, its list form, or the path of its YAML or JSON file.
        split: Name of one of ``splits``.
        splits: Fractions by name, e.g. ``{"train": .8, "val": .1, "test": .1}``.
        split_by: ``"event"``, ``"block"``, ``"file"`` or ``"key:NAME"``; see :class:`hepfeed.splits.Splits`.
        split_seed: Another seed, another division.
        transform: Steps (:mod:`hepfeed.transforms`) and functions applied in the readers to each batch, after those of
            the specification, in their order; ``dataset[i]`` applies them to a batch of one event.  A function takes
            and returns a dict of arrays ``(B, ...)``: the keys, ``"label" (B,) int64`` and ``"event" (B, 2) int64``;
            its global NumPy and Python random numbers depend on seed, epoch and batch alone.
        augment: False leaves out the steps that draw random numbers, as for validation.
        on_nonfinite: What to do with events that have NaN or infinite values in a key, before any step: ``"raise"``,
            ``"zero"`` such values, or ``"drop"`` such events, which are counted; None does not look.
        on_error: ``"raise"``, or ``"skip"`` files and events at fault: they are logged and counted.
        cache: What comes out of the steps before the cache point is kept, and later epochs read it.  A path: directory
            of caches, or a cache.  ``"auto"``: in ``$HEPFEED_CACHE`` or the user's cache directory, where that saves
            work.  ``"ram"``: in shared memory, and on disk what does not fit.  None: no cache.
        cache_size: Most bytes of the cache, e.g. ``20e9``; of ``"ram"``: in memory, by default half of what there is.
        index: Path of the index file; by default the user's own.
        index_workers: Processes that open files and apply filters; by default one a processor.
        progress: Called with (what is done, finished, total) while files are opened; True, or None on a terminal,
            shows a bar where that takes a while.

    Attributes:
        spec: The specification.
        index: What its files hold.
        classes: Label -> class index.
        pipeline: All steps and functions.
        augment: Whether steps that draw random numbers are among them.

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
        transform: Sequence[Transform] | Transform | None = None,
        augment: bool = True,
        on_nonfinite: Literal["raise", "zero", "drop"] | None = None,
        on_error: OnError = "raise",
        cache: CacheOption = None,
        cache_size: float | None = None,
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
        pipeline = self.spec.with_steps(transform, on_nonfinite)
        self.augment = augment
        self.pipeline = pipeline if augment else pipeline.without_augmentation()
        self.on_error: OnError = on_error
        self._cache = (cache, cache_size)
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
        self._readers = _Readers()

    def feed_of_cache(self, pipeline: Pipeline) -> CacheFeed | None:
        """Return the cache of these events after the steps before the cache point of a pipeline, if there is to be one.

        Raises:
            SpecError: An option of the cache is wrong.
            SourceError: Its directory can't be written.
        """
        return open_cache(*self._cache, self.index, pipeline)

    def cache_state(self, feed: CacheFeed | None) -> str:
        """Return ``"off"``; or ``"needless"``, where ``cache="auto"`` found that a cache would save no work."""
        return "needless" if feed is None and self._cache[0] == "auto" else "off"

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
        return self.index.catalog

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        part = f", split={self.split!r}" if self.split else ""
        forms = ((key, "jagged " if key.rows else "") for key in self.index.keys)
        keys = ", ".join(f"{key.name} {jagged}{key.shape} {key.dtype}" for key, jagged in forms)
        return f"EventDataset({len(self)} events in {len(self.files)} files{part}: {keys})"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_readers"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._readers = _Readers()

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Return several events, each as ``dataset[i]``; chunks that they share are decoded once."""
        events = np.array([int(i) for i in indices], np.int64)
        events = np.where(events < 0, events + len(self), events)
        if ((events < 0) | (events >= len(self))).any():
            raise IndexError(f"index {indices} is out of range for {len(self)} events")
        file, row = self.index.file_of(events), self.index.rows[events]
        cached = self._from_cache(events)
        batch = self._read(file, row) if cached is None else {**cached, "event": np.stack([file, row], 1)}
        if self.index.weights is not None:
            batch["weight"] = self.index.weights[events]
        ones = [{name: take(values, np.array([i])) for name, values in batch.items()} for i in range(len(events))]
        steps = self.pipeline if cached is None else self.pipeline.after_cache
        if len(self.pipeline):
            ones = [self._processed(event, one, steps) for event, one in zip(events.tolist(), ones)]
        return [{name: _single(value) for name, value in one.items()} for one in ones]

    def _from_cache(self, events: NDArray[np.int64]) -> Batch | None:
        """Return what the cache has of events, where it has them all."""
        if self._cache[0] is None:
            return None
        own = self._readers.own()
        if own.access is None:
            feed = self.feed_of_cache(self.pipeline)
            own.access = (None if feed is None else CacheAccess(feed),)
        (access,) = own.access
        return None if access is None else access.read(events)

    def _processed(self, event: int, one: Batch, steps: Callable[[Batch, Draws], Batch]) -> Batch:
        identity = one["event"]
        try:
            result = steps(one, Draws(0, 0, event, identity))
        except HepfeedError as error:
            error.file = error.file or self.files[int(identity[0, 0])]
            raise
        except Exception as error:
            ((file, row),) = identity.tolist()
            raise ProcessError(
                f"transform raised {type(error).__name__}: {error} on event {row} of {self.files[file]!r}",
                file=self.files[file],
                event=row,
            ) from error
        left: Any = result.get("event", identity)
        if not len(left):
            ((file, row),) = identity.tolist()
            raise ProcessError(
                f"the transforms take event {row} of {self.files[file]!r} out: read events through a DataLoader, which"
                " goes on with the next",
                file=self.files[file],
                event=row,
            )
        return result

    @property
    def places(self) -> tuple[KeyPlace, ...]:
        """The keys as they are read."""
        return self.index.place_keys(1)[0]

    def _read(self, file: NDArray[np.int64], row: NDArray[np.int64]) -> Batch:
        """Read events into arrays of their own."""
        own = self._readers.own()
        if own.source is None:
            own.source = SourceReader()
        fresh = [number for number in np.unique(file).tolist() if number not in own.known]
        if fresh:
            own.source.add_files(self.catalog, {number: self.index.source_table(number) for number in fresh})
            own.known.update(fresh)
        arrays, addresses = empty_batch(self.places, len(row), self.index.counts(file, row))
        order = np.lexsort((row, file))
        addresses = {name: address[order] for name, address in addresses.items()}
        _, failed = own.source.read_events(self.catalog, file[order], row[order], addresses)
        if failed:
            raise failed[min(failed)]
        return {**arrays, "label": self.index.file_class[file], "event": np.stack([file, row], 1)}


class _Readers(threading.local):
    """What one thread of one process reads events with.

    Attributes:
        source: Reads the files.
        known: Numbers of the files that ``source`` knows.
        access: Reads the cache; a tuple of None where there is none, and None where nobody has looked yet.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self.source: SourceReader | None = None
        self.known: set[int] = set()
        self.access: tuple[CacheAccess | None] | None = None

    def own(self) -> _Readers:
        """Return this, empty where it was made before a fork: the parent's buffers may be half written."""
        if self._pid != os.getpid():
            _Readers.__init__(self)
        return self


def _single(value: Any) -> Any:
    """Return the one event of an array as torch has it: jagged rows, sparse sites without the event's number."""
    if isinstance(value, Jagged):
        return torch.as_tensor(np.ascontiguousarray(value.values))
    if isinstance(value, Padded):
        return Padded(torch.as_tensor(value.values[0]), torch.as_tensor(value.mask[0]))
    if isinstance(value, Sparse | Structured):
        return value.map(torch.as_tensor)
    return torch.as_tensor(np.asarray(value)[0])
