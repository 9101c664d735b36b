"""The loader: torch's ``DataLoader``, with a fast path for events."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import cloudpickle
import torch
import torch.utils.data

from hepfeed.collate import Collator, Outputs
from hepfeed.dataset import EventDataset
from hepfeed.errors import HepfeedError, SpecError
from hepfeed.filler import BatchSpec, Filler, Order, Window, windows_of
from hepfeed.form import StreamForm
from hepfeed.index import EventIndex
from hepfeed.packing import Oversize
from hepfeed.parts.writer import PART_BYTES
from hepfeed.pipeline import Function, Pipeline
from hepfeed.pool import ReaderPool
from hepfeed.quotas import Composition, Exhausted
from hepfeed.stats import FeedStats, StageClock
from hepfeed.stream import NO_PIPELINE, Stream

__all__ = ["DataLoader"]

Shuffle = bool | Literal["full", "window", "mixed"]
_PREFETCH_FACTOR = 2
_LOGGED_SKIPS = 20
_logger = logging.getLogger("hepfeed")


class DataLoader(torch.utils.data.DataLoader[Any]):
    """Batches of events; every argument of torch's ``DataLoader``, with the same meaning.

    Over an :class:`~hepfeed.EventDataset` batches come from hepfeed's readers.  They are dicts with the keys of the
    specification, tensors ``(B, ...)`` or, where events differ in their number of rows,
    :class:`~hepfeed.tensors.Jagged`; with what the steps make of them; and with ``"label" (B,) int64``,
    ``"event" (B, 2) int64`` (file, row), and ``"weight" (B,) float32`` where the specification has weights.  Over any
    other dataset, or with a sampler, batch sampler, ``collate_fn``, ``worker_init_fn`` or ``batch_size=None``, torch's
    own machinery runs.

    A batch lies in shared memory until the last tensor or view of it dies; a batch that is kept never changes.  The
    loader needs ``max(2 x batches of a window, (prefetch_factor + 1) x num_workers) + 3`` batches of shared memory.
    From the cache up to 16 small batches share a slot, and it takes up to 2 slots a reader and 3 more.

    Args:
        dataset: The events.
        batch_size: Events of a batch.
        shuffle: True: the order that suits the files (see ``Filler``, order ``"auto"``); epochs after the first that
            come from the cache are full permutations.  ``"full"``, ``"window"``: that order.  ``"mixed"``: classes
            mixed by their rates, files in their order.  False: the order of the dataset; rates are not used.
        sampler: As in torch.
        batch_sampler: As in torch.
        num_workers: Reader processes; 0 reads in this one.  They start by exec, whatever ``multiprocessing_context``
            is.
        collate_fn: As in torch.
        pin_memory: Page-lock the slots, where there is a CUDA device.
        drop_last: Leave out an incomplete last batch.
        timeout: Seconds to wait for a batch; 0 waits for ever.
        worker_init_fn: As in torch.
        multiprocessing_context: As in torch; the readers of the fast path do not need one.
        generator: Gives the seed where ``seed`` is None.
        prefetch_factor: Batches ahead for each reader, beside the one that it fills; default 2.
        persistent_workers: Keep readers and shared memory from epoch to epoch.
        pin_memory_device: As in torch.
        in_order: As in torch; the fast path is always in order.
        seed: Order of events and random numbers of functions; None draws one from ``generator`` or torch's own.
        process_fn: Called in the readers on each batch, after the dataset's ``transform``: a dict of arrays in, a dict
            of arrays out, of any number, shapes and dtypes.
        delivery_fn: Called in this process on each batch; its result is what the loop gets.
        outputs: Structure of the batch, e.g. ``(["ECAL", "HCAL"], "onehot")``.
        prebuild: Kernel maps that the readers build for all sparse images of a batch, e.g.
            ``[{"kernel_size": 3, "submanifold": True}]``; see :class:`hepfeed.transforms.KernelMaps`.
        composition: ``"exact"`` or ``"random"`` quotas of the classes.
        exhausted: ``"drain"``, ``"wrap"`` or ``"stop"``: what happens once a class runs out.
        skip: Events passed over at the beginning of each epoch.
        max_events: Most events of an epoch.
        infinite: Go on with the next epoch for ever.
        window_events: Events of a window, at least.
        window_bytes: Most bytes of a window.
        length_matched: Batches of events with similar numbers of points; see :class:`hepfeed.Filler`.
        max_points: Most points of a batch, which then has ``batch_size`` events at most.
        oversize: What to do with events of more points: ``"alone"``, ``"raise"`` or ``"skip"``.
        pool: Readers to share with other loaders.

    Raises:
        SpecError: An option of the fast path is wrong, or is given where torch's machinery runs.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: Shuffle | None = None,
        sampler: Any = None,
        batch_sampler: Any = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: Any = None,
        generator: torch.Generator | None = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
        seed: int | None = None,
        process_fn: Function | None = None,
        delivery_fn: Callable[[dict[str, Any]], Any] | None = None,
        outputs: Outputs | None = None,
        prebuild: Sequence[Mapping[str, Any]] = (),
        composition: Composition = "exact",
        exhausted: Exhausted = "drain",
        skip: int = 0,
        max_events: int | None = None,
        infinite: bool = False,
        window_events: int | None = None,
        window_bytes: int = 256 << 20,
        length_matched: bool = False,
        max_points: int | None = None,
        oversize: Oversize = "alone",
        pool: ReaderPool | None = None,
    ) -> None:
        if isinstance(shuffle, str) and shuffle not in ("full", "window", "mixed"):
            raise SpecError(f"shuffle={shuffle!r} is none of True, False, 'full', 'window', 'mixed'")
        super().__init__(
            dataset,
            batch_size,
            bool(shuffle) if shuffle is not None else None,
            sampler,
            batch_sampler,
            num_workers,
            collate_fn,
            pin_memory,
            drop_last,
            timeout,
            worker_init_fn,
            multiprocessing_context,
            generator,
            prefetch_factor=prefetch_factor,
            persistent_workers=persistent_workers,
            pin_memory_device=pin_memory_device,
            in_order=in_order,
        )
        self.shuffle: Shuffle = shuffle if shuffle is not None else False
        self.seed = seed
        self.process_fn = process_fn
        self.delivery_fn = delivery_fn
        self.outputs = outputs
        self.prebuild = prebuild
        self.composition: Composition = composition
        self.exhausted: Exhausted = exhausted
        self.skip = skip
        self.max_events = max_events
        self.infinite = infinite
        self.window_events = window_events
        self.window_bytes = window_bytes
        self.length_matched = length_matched
        self.max_points = max_points
        self.oversize: Oversize = oversize
        self.pool = pool
        special = {"sampler": sampler, "batch_sampler": batch_sampler, "collate_fn": collate_fn}
        special["worker_init_fn"] = worker_init_fn
        reasons = [name for name, value in special.items() if value is not None]
        if batch_size is None and batch_sampler is None:
            reasons.append("batch_size=None")
        if not isinstance(dataset, EventDataset):
            reasons.insert(0, f"a {type(dataset).__name__}")
        self._fast = not reasons
        if not self._fast:
            self._refuse_fast_options(reasons)
            return
        self._epoch = 0
        self._first_batch = 0
        self._position = _Position(0, 0)
        self._resumed: Filler | None = None  # of the epoch that a state was taken in
        self._active: weakref.ref[_FeedIterator] | None = None
        self._ahead: tuple[int, ReaderPool, Stream, Filler] | None = None  # the beginning of the next epoch
        self._own_pool: ReaderPool | None = None
        self._clock = StageClock()
        self._clock.readers = num_workers
        assert batch_size is not None
        places, dense_bytes = dataset.index.place_keys(batch_size)
        pipeline = dataset.pipeline + Pipeline(process_fn) + _prebuilding(prebuild)
        pickled = cloudpickle.dumps(pipeline) if len(pipeline) else NO_PIPELINE
        skip_errors = dataset.on_error == "skip"
        self._cache = dataset.feed_of_cache(pipeline)
        self._form = StreamForm(places, dense_bytes, dataset.catalog, pickled, 0, skip_errors)
        if self._cache is not None:
            self._form = replace(self._form, part_bytes=PART_BYTES)
        self._collator = Collator(self._form, dataset.files, dataset.spec.n_classes, outputs, delivery_fn)
        self._fillers: dict[bool, Filler] = {}  # of epochs from the cache, and from the sources
        self._seed = seed
        filler = self._make_filler(seed or 0, False)  # finds mistakes in the options now
        if seed is not None:
            self._fillers[False] = filler

    def _refuse_fast_options(self, reasons: list[str]) -> None:
        given = {
            "shuffle": isinstance(self.shuffle, str),
            "seed": self.seed is not None,
            "process_fn": self.process_fn is not None,
            "delivery_fn": self.delivery_fn is not None,
            "outputs": self.outputs is not None,
            "prebuild": bool(self.prebuild),
            "composition": self.composition != "exact",
            "exhausted": self.exhausted != "drain",
            "skip": self.skip != 0,
            "max_events": self.max_events is not None,
            "infinite": self.infinite,
            "window_events": self.window_events is not None,
            "length_matched": self.length_matched,
            "max_points": self.max_points is not None,
            "pool": self.pool is not None,
        }
        wrong = [name for name, is_given in given.items() if is_given]
        if wrong:
            raise SpecError(
                f"{', '.join(wrong)} can't be used with {' and '.join(reasons)}: torch's own machinery runs then"
            )

    def _make_filler(self, seed: int, cached: bool) -> Filler:
        order: Order = ("full" if cached else "auto") if self.shuffle is True else self.shuffle or "sequential"
        assert self.batch_size is not None
        index: EventIndex = self.dataset.index  # type: ignore[attr-defined]
        return Filler(
            index,
            batch_size=self.batch_size,
            order=order,
            seed=seed,
            drop_last=self.drop_last,
            composition=self.composition,
            exhausted=self.exhausted,
            skip=self.skip,
            max_events=self.max_events,
            window_events=self.window_events,
            window_bytes=self.window_bytes,
            length_matched=self.length_matched,
            max_points=self.max_points,
            oversize=self.oversize,
            lengths=index.lengths if index.jagged else None,
        )

    @property
    def filler(self) -> Filler:
        """What decides which events make each batch of the next epoch, or of the present one."""
        return self._position.filler or self._filler_of(self._position.epoch)

    def _filler_of(self, epoch: int) -> Filler:
        """Return what orders an epoch.

        From the second epoch on the cache allows for a full shuffle.  The first one has the order of the sources even
        if the cache is there already, so that two runs with the same seed are the same, whichever of them wrote it.
        """
        return self._filler(epoch > 0 and self._from_cache())

    def _filler(self, cached: bool) -> Filler:
        """Return what orders epochs that need the cache, or epochs from the sources."""
        if self._seed is None:
            self._seed = int(torch.empty((), dtype=torch.int64).random_(generator=self.generator).item())
        if cached not in self._fillers:
            self._fillers[cached] = self._make_filler(self._seed, cached)
        return self._fillers[cached]

    def _from_cache(self) -> bool:
        """Whether an epoch that begins now comes from the cache."""
        assert self.batch_size is not None
        return self._cache is not None and self._cache.ready(self.batch_size)

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration starts, counted from 0."""
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration starts."""
        self._epoch, self._first_batch, self._resumed = int(epoch), 0, None
        self._position = _Position(self._epoch, 0)
        if self._ahead is not None and self._ahead[0] != self._epoch:
            self._drop_ahead()

    def __len__(self) -> int:
        if not self._fast:
            return super().__len__()
        if self.infinite:
            raise TypeError("an infinite loader has no length")
        return self.filler.batches_in(self._epoch)

    def __iter__(self) -> Any:
        if not self._fast:
            return super().__iter__()
        self._position = _Position(self._epoch, self._first_batch, self._resumed)
        self._resumed = None
        iterator = _FeedIterator(self, self._position)
        self._epoch, self._first_batch = self._epoch + 1, 0
        self._active = weakref.ref(iterator)
        return iterator

    def replay(self, specs: Iterable[BatchSpec]) -> Iterator[Any]:
        """Yield the batches of given specifications, e.g. those of ``BatchSpec.load``; epochs are not counted.

        Raises:
            SpecError: A batch is larger than ``batch_size``.
        """
        self._need_fast("replay")
        assert self.batch_size is not None
        iterator = _FeedIterator(self, _Position(0, 0), windows_of(specs, self.filler, self.batch_size))
        try:
            yield from iterator
        finally:
            iterator.close()

    def stats(self) -> FeedStats:
        """Return where the time of all epochs so far went, and the bottleneck by name."""
        self._need_fast("stats")
        return self._clock.report()

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last delivered batch; a few hundred bytes, whatever the number of events."""
        self._need_fast("state_dict")
        return {
            "version": 1,
            "seed": self.filler.seed,
            "epoch": self._position.epoch,
            "batch": self._position.batch,
            "order": self.filler.fingerprint(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration go on where ``state`` was taken: the rest of that epoch is the same bit for bit.

        Raises:
            SpecError: The state is of another specification, seed or batch size.
        """
        self._need_fast("load_state_dict")
        missing = {"version", "seed", "epoch", "batch", "order"} - set(state)
        if missing or state["version"] != 1:
            raise SpecError(f"not the state of a hepfeed loader: {sorted(missing) or state['version']} is wrong")
        fillers = {cached: self._make_filler(state["seed"], cached) for cached in (False, True)}
        same = [filler for filler in fillers.values() if filler.fingerprint() == state["order"]]
        if not same:
            raise SpecError(
                "the state is of another order of events: specification, files, split, batch_size and shuffle must be"
                " the same as when it was taken"
            )
        self._seed, self._fillers, self._resumed = int(state["seed"]), fillers, same[0]
        self._epoch, self._first_batch = int(state["epoch"]), int(state["batch"])
        self._position = _Position(self._epoch, self._first_batch, same[0])
        self._active = None
        self._drop_ahead()

    def _together(self) -> int:
        assert self._cache is not None
        assert self.batch_size is not None
        together: int = self._cache.together(self.batch_size)
        return together

    def _open_cache(self) -> None:
        """Look at what the cache has now, and take the right to write what it lacks."""
        cache = self._cache
        if cache is None:
            return
        cache.refresh()
        if cache.missing and not cache.store.locked and cache.store.error is None:
            self._try_cache(cache.acquire)

    def _commit_cache(self) -> None:
        cache = self._cache
        if cache is not None:
            self._try_cache(cache.commit)

    def _try_cache(self, act: Callable[[], object]) -> None:
        """Do something for the cache; where it fails, events go on to come from their sources."""
        try:
            act()
        except (HepfeedError, OSError) as error:
            _logger.warning("%s", error)

    def _drop_ahead(self) -> None:
        if self._ahead is not None:
            self._ahead[2].close()
            self._ahead = None

    def close(self) -> None:
        """End the readers and give shared memory back; batches that are kept stay valid."""
        if not self._fast:
            return
        self._drop_ahead()
        iterator = self._active() if self._active else None
        if iterator is not None:
            iterator.close()
        if self._own_pool is not None:
            self._own_pool.close()
            self._own_pool = None
        if self._cache is not None:
            self._cache.close()

    def __enter__(self) -> DataLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _need_fast(self, what: str) -> None:
        if not self._fast:
            raise SpecError(f"{what}() needs an EventDataset without sampler, collate_fn and worker_init_fn")

    def _take_pool(self) -> tuple[ReaderPool, bool]:
        """Return the readers for an epoch, and whether they end with it."""
        if self.pool is not None:
            return self.pool, False
        if self.num_workers and not self.persistent_workers:
            return ReaderPool(self.num_workers), True
        if self._own_pool is None or self._own_pool.closed:
            self._own_pool = ReaderPool(self.num_workers)
        return self._own_pool, False

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_active": None, "_ahead": None, "_own_pool": None, "pool": None}


def _prebuilding(prebuild: Sequence[Mapping[str, Any]]) -> Pipeline:
    return Pipeline([{"kernel_maps": {"maps": [dict(each) for each in prebuild]}}] if prebuild else None)


@dataclass
class _Position:
    """The batch that comes next; the loader keeps it when a loop is left.

    Attributes:
        filler: Of the epoch, once it has begun.
    """

    epoch: int
    batch: int
    filler: Filler | None = None


class _FeedIterator:
    """One epoch (or endless ones), batch by batch."""

    def __init__(self, loader: DataLoader, position: _Position, windows: Iterator[Window] | None = None) -> None:
        self.position = position
        self.ended = False
        self._loader = loader
        self._clock = loader._clock
        self._pool, self._owns_pool = loader._take_pool()
        self._replays = windows is not None
        if windows is not None:
            cached = loader._from_cache()
            specs = (spec for window in windows for spec in window.batches)
            self._stream = self._open(specs if cached else windows, self._ahead_of_consumer(0, cached), cached)
        else:
            self._stream = self._begin()
        self._clock.begin()

    def _begin(self) -> Stream:
        """Start the epoch, or go on with it where its beginning was read during the last one."""
        loader, position = self._loader, self.position
        ahead, loader._ahead = loader._ahead, None
        if ahead is not None:
            epoch, pool, stream, filler = ahead
            if (epoch, pool, position.batch) == (position.epoch, self._pool, 0) and not pool.closed:
                position.filler = filler
                stream.widen(self._ahead_of_consumer(position.epoch, loader._from_cache()))
                return stream
            stream.close()
        loader._open_cache()
        cached = loader._from_cache()
        position.filler = position.filler or loader._filler_of(position.epoch)
        work = self._work(position.filler, position.epoch, position.batch, cached)
        return self._open(work, self._ahead_of_consumer(position.epoch, cached), cached)

    def _work(self, filler: Filler, epoch: int, first: int, cached: bool) -> Iterator[Window] | Iterator[BatchSpec]:
        """Return what readers do in an epoch: batches from the cache, or windows from the sources."""
        return filler.batches(epoch, first) if cached else filler.windows(epoch, first)

    def _ahead_of_consumer(self, epoch: int, cached: bool) -> int:
        """Most batches that are on their way."""
        loader = self._loader
        # Each reader fills one batch and has others ready, so that one slow batch holds up nobody.
        ahead = (1 + (loader.prefetch_factor or _PREFETCH_FACTOR)) * max(1, loader.num_workers)
        if cached:
            return max(ahead, 2 * loader._together() * max(1, loader.num_workers))
        filler = self.position.filler
        return max(2 * filler.window_batches_in(epoch) if filler is not None else 2, ahead)

    def _look_ahead(self) -> None:
        """Let readers that have nothing left to do in this epoch begin the next one: a window of it or some batches."""
        loader, epoch = self._loader, self.position.epoch + 1
        if self._replays or self._owns_pool or not self._pool.num_readers or loader._ahead is not None:
            return
        if not self._stream.planned:
            return
        if self._stream.fills_cache:  # whether the next epoch comes from the cache is known once this one is over
            return
        cached = loader._from_cache()
        room = self._ahead_of_consumer(epoch, cached) // 2
        if len(self._stream.batches) + room > self._ahead_of_consumer(self.position.epoch, cached):
            return  # both together take no more memory than one of them otherwise
        filler = loader._filler_of(epoch)
        stream = self._open(self._work(filler, epoch, 0, cached), room, cached)
        loader._ahead = epoch, self._pool, stream, filler

    def _open(self, work: Iterator[Window] | Iterator[BatchSpec], in_flight: int, cached: bool) -> Stream:
        loader = self._loader
        dataset: EventDataset = loader.dataset  # type: ignore[assignment]
        identity = loader._cache.identity if loader._cache is not None else None
        return Stream(
            self._pool,
            work,
            replace(loader._form, seed=loader._filler(False).seed, cache=identity),
            dataset.index,
            in_flight=in_flight,
            on_error=dataset.on_error,
            clock=self._clock,
            on_skip=partial(_log_skip, self._clock),  # not a method: the iterator must die with its last name
            cache=loader._cache,
            together=loader._together() if cached else 1,
        )

    def __iter__(self) -> _FeedIterator:
        return self

    def __len__(self) -> int:
        return len(self._loader)

    def __next__(self) -> Any:
        while not self.ended:
            try:
                delivery = self._stream.next(self._loader.timeout)
            except BaseException:
                self.close()
                raise
            if delivery is None:
                self._finish_cache()
                self.position.epoch, self.position.batch, self.position.filler = self.position.epoch + 1, 0, None
                if not self._loader.infinite:
                    self._clock.end()
                    self.close()
                    break
                self._next_epoch()
                continue
            self.position.batch += 1
            self._look_ahead()
            if not len(delivery.spec):  # all its events were skipped
                continue
            if self._loader.pin_memory and torch.cuda.is_available():
                delivery.pin()
            self._clock.counts["events"] += len(delivery.spec)
            self._clock.counts["batches"] += 1
            begun = self._clock.begin()
            batch = self._loader._collator(delivery)
            self._clock.stages["transfer"] += self._clock.since(begun)
            return batch
        raise StopIteration

    def _finish_cache(self) -> None:
        """Let what was collected for the cache be written, at the end of an epoch."""
        if self._stream.fills_cache:
            self._stream.flush()
            self._loader._commit_cache()

    def _next_epoch(self) -> None:
        self._stream.close()
        self._loader._epoch = self.position.epoch + 1
        self._stream = self._begin()

    def close(self) -> None:
        """Drop what is on its way; ends the readers where they are this iterator's own."""
        self.ended = True
        self._stream.close()
        if self._owns_pool:
            self._pool.close()

    def __del__(self) -> None:
        if hasattr(self, "_stream"):
            self.close()


def _log_skip(clock: StageClock, error: Exception) -> None:
    """Log an event that was left out; where there are many, :meth:`DataLoader.stats` counts them."""
    skipped = clock.counts["skipped"]
    if skipped <= _LOGGED_SKIPS:
        more = "; further ones are only counted, see stats()" if skipped == _LOGGED_SKIPS else ""
        _logger.warning("an event was left out: %s%s", str(error), more)  # as text: a traceback holds batches
