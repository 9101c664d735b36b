"""Iterators of any dataset whose epoch can be taken up again: what torch's iterators lack."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, cast

import torch
from torch.utils.data.dataloader import _BaseDataLoaderIter, _DatasetKind, _SingleProcessDataLoaderIter

from hepfeed.dataset_reader import pickled_state
from hepfeed.errors import SpecError
from hepfeed.fetchers import count_examples
from hepfeed.sampler_states import take_states
from hepfeed.sampling import SamplerPass, generators_of, samplers_of
from hepfeed.stats import StageClock
from hepfeed.transfer import Transfer

__all__ = ["LocalIterator", "ResumableIterator"]

_VERSION = 1


class ResumableIterator(_BaseDataLoaderIter):
    """Torch's iterator, whose pass over the sampler can be gone on with.

    Args:
        loader: A :class:`hepfeed.DataLoader`.  Its attributes say what to do; the state that it was given is taken from
            it.
    """

    def __init__(self, loader: Any) -> None:
        self._iterable = loader._dataset_kind == _DatasetKind.Iterable
        self._resumed = self._take_state(loader)
        self._generators = generators_of(loader, *samplers_of(loader._index_sampler))
        self._before = take_states(self._generators)
        drawn_from = loader.generator or torch.default_generator
        before = drawn_from.get_state()
        super().__init__(loader)
        if self._resumed is not None:
            drawn_from.set_state(before)  # the seeds of this epoch were drawn already
            self._base_seed, self._shared_seed = self._resumed["base_seed"], self._resumed["shared_seed"]

    def _take_state(self, loader: Any) -> dict[str, Any] | None:
        state, loader._resume_state = loader._resume_state, None
        if not state:
            return None
        kind = "iterable" if self._iterable else "map-style"
        missing = {"version", "kind", "batches", "base_seed", "shared_seed", "sampler", "workers"} - set(state)
        if missing or state["version"] != _VERSION or state["kind"] != kind:
            raise SpecError(
                f"not the state of a loader of a {kind} dataset: {sorted(missing) or (state['version'], state['kind'])}"
                " is wrong"
            )
        workers, here = len(state["workers"]), loader.num_workers
        if self._iterable and workers != here:
            raise SpecError(
                f"the state was taken with num_workers={workers}, not {here}: only that many workers can go on with an"
                " iterable dataset, which says itself what each of them delivers"
            )
        return cast("dict[str, Any]", state)

    def _begin_pass(self, state: dict[str, Any] | None) -> None:
        """Begin a pass over the sampler with the iterator that torch has made, or go on with one."""
        self._pass: SamplerPass | None = None
        if self._iterable:
            pass
        elif state is None:
            self._pass = SamplerPass(self._index_sampler, self._generators, begun=(self._sampler_iter, self._before))
        else:
            self._pass = SamplerPass(self._index_sampler, self._generators, state["sampler"], state["batches"])
        if self._pass is not None:
            self._sampler_iter = self._pass
        if state is not None:
            self._num_yielded = state["batches"]

    def _count_delivered(self) -> None:
        if self._pass is not None:
            self._pass.count_delivered()

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last batch that the consumer has seen."""
        return {
            "version": _VERSION,
            "kind": "iterable" if self._iterable else "map-style",
            "batches": self._num_yielded,
            "base_seed": self._base_seed,
            "shared_seed": self._shared_seed,
            "sampler": None if self._pass is None else self._pass.state(),
        }


class LocalIterator(_SingleProcessDataLoaderIter, ResumableIterator):
    """Torch's iterator that reads in the consumer's process.

    Random numbers that the dataset draws are those of the process, which its owner saves and restores.  An iterable
    dataset without ``state_dict()`` is gone through again to where it was left.

    Args:
        loader: As of :class:`ResumableIterator`.
        clock: Where times and counts go.
    """

    def __init__(self, loader: Any, clock: StageClock) -> None:
        super().__init__(loader)
        state = self._resumed
        self._clock = clock
        self._transfer: Transfer | None = loader._transfer
        self._collated = _Collated(self._dataset_fetcher.collate_fn, self._iterable)
        self._dataset_fetcher.collate_fn = self._collated
        self._begin_pass(state)
        clock.start()
        if state is None or not self._iterable:
            return
        fetcher: Any = self._dataset_fetcher
        dataset: Any = self._dataset
        if state["dataset"] is not None:
            of_dataset, of_iterator = pickle.loads(state["dataset"])
            if of_dataset is not None:
                dataset.load_state_dict(of_dataset)
                fetcher.dataset_iter = iter(dataset)
            if of_iterator is not None:
                fetcher.dataset_iter.load_state_dict(of_iterator)
        else:
            for _ in range(state["batches"]):
                fetcher.fetch(next(self._sampler_iter))

    def _next_data(self) -> Any:
        begun = self._clock.begin()
        try:
            batch = super()._next_data()  # type: ignore[no-untyped-call]
        except StopIteration:
            self._clock.end()
            if self._transfer is not None:
                self._transfer.finish()
            raise
        self._clock.add_transform(self._clock.since(begun))
        self._clock.counts["batches"] += 1
        self._clock.counts["events"] += self._collated.examples if self._auto_collation else 1
        self._count_delivered()
        return batch if self._transfer is None else self._there(batch, self._transfer)

    def _there(self, batch: Any, transfer: Transfer) -> Any:
        """Return a batch on the device."""
        begun = self._clock.since(0.0)
        sent = transfer.send(batch, was_lent=True)
        self._clock.counts["bytes_sent"] += sent.bytes
        batch = transfer.receive(sent)
        self._clock.stages["transfer"] += self._clock.since(begun)
        return batch

    def _next_index(self) -> Any:
        index = super()._next_index()  # type: ignore[no-untyped-call]
        self._collated.index = index
        return index

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last batch that the consumer has seen."""
        iterator = self._dataset_fetcher.dataset_iter if self._iterable else None
        return {**super().state_dict(), "workers": [], "dataset": pickled_state(self._dataset, iterator)}


class _Collated:
    """A collate function that counts what it was given; no method of the iterator, which must die with its last name.

    Attributes:
        index: What was asked for.
        examples: How many were taken in the last fetch.
    """

    def __init__(self, collate_fn: Callable[[Any], Any], iterable: bool) -> None:
        self._collate_fn = collate_fn
        self._iterable = iterable
        self.index: Any = None
        self.examples = 0

    def __call__(self, examples: Any) -> Any:
        self.examples = count_examples(self.index, examples, self._iterable)
        return self._collate_fn(examples)
