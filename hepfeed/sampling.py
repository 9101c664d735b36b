"""Batches that a sampler chooses: as they are asked for, checked, and read together as far as it may be asked ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from operator import index as as_integer
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hepfeed.batch_spec import BatchSpec, Window, window_of
from hepfeed.errors import SpecError
from hepfeed.index import EventIndex
from hepfeed.lane import unit_starts
from hepfeed.sampler_states import borrowed, take_states

__all__ = ["SampledWork", "SamplerPass", "generators_of", "samplers_of"]

Ints = NDArray[np.int64]


def samplers_of(*given: Any) -> list[Any]:
    """Return samplers, and those that they take their indices from, each once."""
    found: list[Any] = []
    for sampler in given:
        for each in (sampler, getattr(sampler, "batch_sampler", None), getattr(sampler, "sampler", None)):
            if each is not None and not any(each is other for other in found):
                found.append(each)
    return found


def generators_of(*holders: Any) -> list[torch.Generator]:
    """Return the generators of samplers and of a loader, each once."""
    found: list[torch.Generator] = []
    for holder in holders:
        generator = getattr(holder, "generator", None)
        if isinstance(generator, torch.Generator) and not any(generator is other for other in found):
            found.append(generator)
    return found


class SamplerPass:
    """One pass over a sampler, whose state can be taken after any batch.

    What keeps its own state, by torchdata's convention of ``state_dict()`` and ``load_state_dict()`` (the iterator, the
    batch sampler, or the sampler in it), is asked for it after each batch.  Any other sampler is repeated: the states
    of the random numbers before the pass, and before its first batch, are kept, and the batches that were delivered are
    passed over.

    Args:
        sampler: Gives the indices of a batch at a time.
        generators: That it may draw from.
        state: Returned by :meth:`state`, to go on from there; None begins a new pass.
        delivered: Batches that were delivered when the state was taken.
        begun: Iterator of a new pass, if it was made already, and the states of the random numbers before.
    """

    def __init__(
        self,
        sampler: Iterable[Any],
        generators: Sequence[torch.Generator],
        state: dict[str, Any] | None = None,
        delivered: int = 0,
        begun: tuple[Iterator[Any], dict[str, Any]] | None = None,
    ) -> None:
        self._generators = generators
        self._snapshots: deque[Any] = deque()
        self._seen = None if state is None else state["own"]
        self._first: dict[str, Any] | None = None if state is None else state["first"]
        self._keeper: Any = None
        if state is not None:
            self._start = state["start"]
        else:
            self._start = take_states(generators) if begun is None else begun[1]
        self._asked = state is not None
        if state is not None and self._seen is None:
            self._iterator = self._repeated(sampler, delivered)
            return
        self._keeper = next((each for each in samplers_of(sampler) if _keeps_state(each)), None)
        if self._keeper is not None and self._seen is not None:
            self._keeper.load_state_dict(self._seen)
        self._iterator = iter(sampler) if begun is None else begun[0]
        if _keeps_state(self._iterator):
            self._keeper = self._iterator
            if self._seen is not None:
                self._keeper.load_state_dict(self._seen)
        if self._keeper is not None and self._seen is None:
            self._seen = self._keeper.state_dict()

    def _repeated(self, sampler: Iterable[Any], delivered: int) -> Iterator[Any]:
        """Return an iterator that stands behind the batches that were delivered, drawn with the same numbers."""
        with borrowed(self._start, self._generators):
            iterator = iter(sampler)
            if self._first is None:
                return self._passed(iterator, delivered)
        with borrowed(self._first, self._generators):
            return self._passed(iterator, delivered)

    def _passed(self, iterator: Iterator[Any], delivered: int) -> Iterator[Any]:
        for number in range(delivered):
            if next(iterator, _END) is _END:
                raise SpecError(
                    f"the sampler ended after {number} batches, but {delivered} were delivered when the state was"
                    " taken: it is not the same sampler"
                )
        return chain([*islice(iterator, 1)], iterator)  # many samplers draw their numbers with the first batch

    def __iter__(self) -> SamplerPass:
        return self

    def __next__(self) -> Any:
        if not self._asked:
            self._asked = True
            now = take_states(self._generators)
            self._first = None if now == self._start else now
        batch = next(self._iterator)
        if self._keeper is not None:
            self._snapshots.append(self._keeper.state_dict())
        return batch

    def count_delivered(self) -> None:
        """Take note that the consumer has seen another batch."""
        if self._snapshots:
            self._seen = self._snapshots.popleft()

    def state(self) -> dict[str, Any]:
        """Return what a pass needs to go on after the batches that were delivered."""
        return {"start": self._start, "first": self._first, "own": self._seen}


_END = object()


def _keeps_state(thing: Any) -> bool:
    return callable(getattr(thing, "state_dict", None)) and callable(getattr(thing, "load_state_dict", None))


class SampledWork(Iterator[Window | BatchSpec]):
    """What readers do for the batches of a sampler: windows of several batches, or single ones from the cache.

    It ends for now, and goes on when it is asked again, where the sampler is as far ahead of the consumer as it may be
    (see :attr:`allowed`), and before a batch that does not fit the slots (see :attr:`needed`).

    Args:
        batches: Indices of one batch after another.
        index: The events.
        epoch: Epoch.
        first: Number of the batch that comes next.
        together: Batches that are read together.
        cached: Whether batches come from the cache, where nothing is gained by reading them together.

    Attributes:
        allowed: Number of the batch at which the sampler is not asked any further.
        size: Most events of a batch that fits the slots.
    """

    def __init__(
        self,
        batches: Iterator[Iterable[Any]],
        index: EventIndex,
        *,
        epoch: int,
        first: int,
        together: int,
        cached: bool,
    ) -> None:
        self.allowed = first + 1
        self.size = 0
        self._batches = batches
        self._index = index
        self._epoch = epoch
        self._drawn = first
        self._together = together
        self._cached = cached
        self._held: BatchSpec | None = None
        self._error: Exception | None = None
        self._ended = False
        self._units = not cached and max(source.block for source in index.sources) > 1
        self._unit_start: Ints = unit_starts(index) if self._units else np.empty(0, np.int64)

    @property
    def needed(self) -> int:
        """Events of the batch that comes next, where it does not fit the slots; else 0."""
        return len(self._held) if self._held is not None and len(self._held) > self.size else 0

    def check(self) -> None:
        """Raise what the sampler raised, once the batches before it are delivered."""
        if self._error is not None:
            raise self._error

    def look(self) -> None:
        """Ask for the batch that comes next, so that :attr:`needed` tells its size."""
        if self._held is None and not self._ended:
            try:
                self._held = self._spec(next(self._batches))
                self._drawn += 1
            except StopIteration:
                self._ended = True
            except Exception as error:
                self._error, self._ended = error, True

    def __iter__(self) -> SampledWork:
        return self

    def __next__(self) -> Window | BatchSpec:
        count = 1 if self._cached else self._together
        ahead = self._drawn - (self._held is not None)
        if self.allowed - ahead < count:
            raise StopIteration
        specs: list[BatchSpec] = []
        while len(specs) < count:
            self.look()
            if self._held is None or self.needed:
                break
            specs.append(self._held)
            self._held = None
        if not specs:
            raise StopIteration
        if self._cached:
            return specs[0]
        events = [spec.event for spec in specs if spec.event is not None]
        unit = np.searchsorted(self._unit_start, np.concatenate(events), side="right") - 1 if self._units else None
        return window_of(specs, unit)

    def _spec(self, indices: Iterable[Any]) -> BatchSpec:
        try:
            place = np.array([as_integer(i) for i in indices], np.int64)
        except TypeError as error:
            raise SpecError(
                f"batch {self._drawn} of the sampler must be a list of integers, places of events in the dataset, not"
                f" {indices!r:.100}: {error}"
            ) from error
        n = len(self._index)
        wrong = place[(place < -n) | (place >= n)]
        if len(wrong):
            raise SpecError(
                f"batch {self._drawn} of the sampler has index {wrong[0]}, but the dataset has {n} events: give"
                f" {-n}..{n - 1}"
            )
        if not len(place):
            raise SpecError(f"batch {self._drawn} of the sampler is empty: each needs an index at least")
        place = np.where(place < 0, place + n, place)
        file = self._index.file_of(place)
        label = self._index.file_class[file]
        return BatchSpec(self._epoch, self._drawn, file, self._index.rows[place], label, place)
