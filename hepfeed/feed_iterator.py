"""The iterator of the fast path: one epoch after another, batch by batch, through streams of a pool of readers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch

from hepfeed.batch_spec import BatchSpec, Window
from hepfeed.cache.feed import CacheFeed
from hepfeed.collate import Collator
from hepfeed.cuda_engine import CudaEngine
from hepfeed.errors import SpecError
from hepfeed.filler import Filler
from hepfeed.form import StreamForm
from hepfeed.late_steps import LateSteps
from hepfeed.pool import ReaderPool
from hepfeed.ranges import nvtx_range
from hepfeed.ranks import RankFiller, Ranks
from hepfeed.sampling import SampledWork, SamplerPass
from hepfeed.stats import StageClock
from hepfeed.stream import Delivery, Stream
from hepfeed.transfer import Sent, Transfer

__all__ = ["FeedIterator", "Feeder", "Position"]

PREFETCH_FACTOR = 2
_LOGGED_SKIPS = 20
_logger = logging.getLogger("hepfeed")

Work = Iterator[Window] | Iterator[BatchSpec] | Iterator[Window | BatchSpec]


@dataclass
class Position:
    """The batch that comes next; the loader keeps it when a loop is left.

    Attributes:
        epoch: Epoch.
        batch: Number of global batches that were delivered: by all ranks together, where the loader divides the
            events among them.
        full: Whether the order is that of an epoch from the cache; None until the epoch begins.
        ranks: Who shares the epoch, once it has begun.
        filler: What orders it, once it has begun; None where a sampler does.
        sampler: The pass over the sampler, once it has begun.
        resumed: State of the sampler to begin with.
    """

    epoch: int
    batch: int
    full: bool | None = None
    ranks: Ranks = field(default_factory=Ranks)
    filler: Filler | RankFiller | None = None
    sampler: SamplerPass | None = None
    resumed: dict[str, Any] | None = None


@dataclass
class Ahead:
    """The beginning of the next epoch, which readers are at already."""

    epoch: int
    pool: ReaderPool
    stream: Stream
    filler: Filler | RankFiller
    ranks: Ranks
    full: bool


class Feeder(Protocol):
    """What an iterator needs of its loader."""

    dataset: Any
    num_workers: int
    prefetch_factor: int | None
    timeout: float
    pin_memory: bool
    infinite: bool
    _ahead: Ahead | None
    _cache: CacheFeed | None
    _clock: StageClock
    _collator: Collator
    _late: LateSteps | None
    _transfer: Transfer | None

    @property
    def _samples(self) -> bool: ...
    @property
    def _slot_events(self) -> int: ...
    def _fit(self, events: int) -> None: ...
    def _form_now(self) -> StreamForm: ...
    def _worker_init(self) -> bytes: ...
    def _take_pool(self) -> tuple[ReaderPool, bool]: ...
    def _open_cache(self) -> None: ...
    def _commit_cache(self) -> None: ...
    def _from_cache(self) -> bool: ...
    def _together(self) -> int: ...
    def _ranks_now(self) -> Ranks: ...
    def _check_world(self, ranks: Ranks) -> None: ...
    def _agree(self, epoch: int, ranks: Ranks) -> None: ...
    def _is_full(self, epoch: int, ranks: Ranks) -> bool: ...
    def _foresees(self, epoch: int, ranks: Ranks) -> bool: ...
    def _filler(self, full: bool, ranks: Ranks) -> Filler | RankFiller: ...
    def _begin_pass(self, state: dict[str, Any] | None, delivered: int) -> SamplerPass: ...
    def _enter(self, epoch: int) -> None: ...
    def __len__(self) -> int: ...


class FeedIterator:
    """One epoch (or endless ones), batch by batch.

    Args:
        loader: Whose epoch it is.
        position: Where to begin; kept up to date.
        windows: What to read instead of the loader's epoch.

    Attributes:
        position: The batch that comes next.
        ended: Whether there is none.
    """

    def __init__(self, loader: Feeder, position: Position, windows: Iterator[Window] | None = None) -> None:
        self.position = position
        self.ended = False
        self._loader = loader
        self._clock = loader._clock
        self._pool, self._owns_pool = loader._take_pool()
        self._replays = windows is not None
        self._sampled: SampledWork | None = None
        self._locks: CudaEngine | None = None
        if loader.pin_memory and loader._transfer is None and torch.cuda.is_available():
            self._locks = CudaEngine(torch.device("cuda"))
        self._sent: Sent | Exception | None = None  # the batch that comes next, where it was there early
        self._failure: Exception | None = None  # of the readers, found while looking for it
        try:
            self._stream = self._begin() if windows is None else self._replay(windows)
        except BaseException:
            self.ended = True
            if self._owns_pool:
                self._pool.close()
            raise
        self._clock.readers = self._pool.num_readers
        self._clock.start(self)

    def queues(self) -> dict[str, int]:
        """Return what is where, as :class:`hepfeed.stats.FeedStats` has it."""
        return self._stream.queues()

    @property
    def reader_pids(self) -> list[int]:
        """Process numbers of the readers."""
        return self._pool.pids

    @property
    def _workers(self) -> list[Any]:
        """The readers as processes, as torch's iterators have them."""
        return list(self._pool.processes)

    @property
    def left(self) -> int | None:
        """Batches of the epoch that are still to come; None where nobody knows."""
        position = self.position
        if self._loader.infinite or position.filler is None:
            return None
        return position.filler.batches_in(position.epoch) - position.batch // position.ranks.world_size

    @property
    def remainder(self) -> int:
        """See :class:`hepfeed.accelerated.Accelerated`; events that fail or are taken out are counted as delivered."""
        position = self.position
        return position.filler.remainder(position.epoch) if isinstance(position.filler, RankFiller) else 0

    def _replay(self, windows: Iterator[Window]) -> Stream:
        cached = self._loader._from_cache()
        specs = (spec for window in windows for spec in window.batches)
        return self._open(specs if cached else windows, self._ahead_of_consumer(0, cached), cached)

    def _begin(self) -> Stream:
        """Start the epoch, or go on with it where its beginning was read during the last one."""
        loader, position = self._loader, self.position
        ahead, loader._ahead = loader._ahead, None
        if not loader._samples:
            position.ranks = loader._ranks_now()
        if ahead is not None:
            same = (position.epoch, self._pool, position.ranks) == (ahead.epoch, ahead.pool, ahead.ranks)
            same = same and ahead.stream.form.worker_init == loader._worker_init()
            if same and not position.batch and position.full in (None, ahead.full) and not ahead.pool.closed:
                position.filler, position.full = ahead.filler, ahead.full
                ahead.stream.widen(self._ahead_of_consumer(position.epoch, loader._from_cache()))
                return ahead.stream
            ahead.stream.close()
        loader._open_cache()
        cached = loader._from_cache()
        if loader._samples:
            return self._begin_sampled(cached)
        if position.full is None:
            loader._agree(position.epoch, position.ranks)
            position.full = loader._is_full(position.epoch, position.ranks)
        position.filler = loader._filler(position.full, position.ranks)
        first, rest = divmod(position.batch, position.ranks.world_size)
        if rest:
            raise SpecError(
                f"the epoch was left after {position.batch} batches of all ranks, which {position.ranks.world_size}"
                " ranks can't share equally: use a number of ranks that divides them"
            )
        work = self._work(position.filler, position.epoch, first, cached)
        return self._open(work, self._ahead_of_consumer(position.epoch, cached), cached)

    def _begin_sampled(self, cached: bool) -> Stream:
        """Start a pass over the sampler."""
        loader, position = self._loader, self.position
        position.sampler = loader._begin_pass(position.resumed, position.batch)
        position.resumed = None
        index = loader.dataset.index
        # Half of what is asked ahead, so that readers fill a window while the consumer takes the one before.
        window = max(1, self._asked_ahead() // 2)
        self._sampled = SampledWork(
            position.sampler, index, epoch=position.epoch, first=position.batch, together=window, cached=cached
        )
        return self._open_sampled(self._sampled)

    def _open_sampled(self, work: SampledWork) -> Stream:
        """Open a stream whose slots take the batch that comes next."""
        loader = self._loader
        work.look()
        loader._fit(work.needed)
        work.size = loader._slot_events
        cached = loader._from_cache()
        return self._open(work, self._asked_ahead(), cached)

    def _asked_ahead(self) -> int:
        """Most batches that the sampler was asked for before the consumer has them, as in torch's loader."""
        loader = self._loader
        return max(1, (loader.prefetch_factor or 0) * loader.num_workers)

    def _work(self, filler: Filler | RankFiller, epoch: int, first: int, cached: bool) -> Work:
        """Return what readers do in an epoch: batches from the cache, or windows from the sources."""
        return filler.batches(epoch, first) if cached else filler.windows(epoch, first)

    def _ahead_of_consumer(self, epoch: int, cached: bool) -> int:
        """Most batches that are on their way."""
        loader = self._loader
        # Each reader fills one batch and has others ready, so that one slow batch holds up nobody.
        ahead = (1 + (loader.prefetch_factor or PREFETCH_FACTOR)) * max(1, loader.num_workers)
        if cached:
            return max(ahead, 2 * loader._together() * max(1, loader.num_workers))
        filler = self.position.filler
        return max(2 * filler.window_batches_in(epoch) if filler is not None else 2, ahead)

    def _look_ahead(self) -> None:
        """Let readers begin the next epoch once all of this one is under way, in the room that its batches leave.

        So both epochs together take no more memory than one of them otherwise.
        """
        loader, epoch, ranks = self._loader, self.position.epoch + 1, self.position.ranks
        if self._replays or self._owns_pool or not self._pool.num_readers:
            return
        if self._sampled is not None or not loader._foresees(epoch, ranks) or not self._stream.planned:
            return
        if self._stream.fills_cache:  # whether the next epoch comes from the cache is known once this one is over
            return
        cached = loader._from_cache()
        most = self._ahead_of_consumer(epoch, cached)
        room = most - len(self._stream.batches)
        if loader._ahead is not None:
            loader._ahead.stream.widen(room)
            return
        if room < (1 if cached else most // 2):  # for a batch, or a window
            return
        full = loader._is_full(epoch, ranks)
        filler = loader._filler(full, ranks)
        stream = self._open(self._work(filler, epoch, 0, cached), 0, cached)
        stream.widen(room)
        loader._ahead = Ahead(epoch, self._pool, stream, filler, ranks, full)

    def _open(self, work: Work, in_flight: int, cached: bool) -> Stream:
        loader = self._loader
        if loader._cache is not None:
            self._clock.setting["cache"] = "on" if cached else "filling" if loader._cache.fills else "unwritten"
        return Stream(
            self._pool,
            work,
            loader._form_now(),
            loader.dataset.index,
            in_flight=in_flight,
            on_error=loader.dataset.on_error,
            clock=self._clock,
            on_skip=partial(_log_skip, self._clock),  # not a method: the iterator must die with its last name
            cache=loader._cache,
            together=loader._together() if cached else 1,
        )

    def __iter__(self) -> FeedIterator:
        return self

    def __len__(self) -> int:
        return len(self._loader)

    def __next__(self) -> Any:
        while not self.ended:
            try:
                delivery = self._next_delivery()
            except BaseException:
                self.close()
                raise
            if delivery is None:
                self._finish_cache()
                if self._loader.infinite and not self._replays:
                    self._next_epoch()
                    continue
                self._pass_on(self.position.epoch + 1)
                self._clock.end()
                self.close()
                break
            self._count()
            self._look_ahead()
            if not len(delivery.spec):  # all its events were skipped
                continue
            self._clock.counts["events"] += len(delivery.spec)
            self._clock.counts["batches"] += 1
            begun = self._clock.begin()
            transfer = self._loader._transfer
            batch = self._here(delivery) if transfer is None else self._there(delivery, transfer)
            self._clock.stages["transfer"] += self._clock.since(begun)
            return batch
        raise StopIteration

    def _here(self, delivery: Delivery) -> Any:
        """Return a batch on the host."""
        loader, form = self._loader, self._stream.form
        if self._locks is not None:
            delivery.pin(self._locks, True)
        with nvtx_range("collate"):
            batch = loader._collator(delivery, form)
        if loader._late is None:
            return batch
        with nvtx_range("steps"):
            return loader._late.run(batch, loader._late.draws(batch, delivery.spec, form.seed))

    def _there(self, delivery: Delivery, transfer: Transfer) -> Any:
        """Return a batch on the device, and begin to copy the next one, if that is there already."""
        sent, self._sent = self._sent, None
        if sent is None:
            sent = self._send(delivery, transfer)
        if isinstance(sent, Exception):
            raise sent
        self._clock.counts["bytes_sent"] += sent.bytes
        batch = transfer.receive(sent)
        try:
            ahead = self._stream.look()
        except Exception as error:
            self._failure = error
            return batch
        if ahead is not None and len(ahead.spec):
            try:
                self._sent = self._send(ahead, transfer)
            except Exception as error:
                self._sent = error
        return batch

    def _send(self, delivery: Delivery, transfer: Transfer) -> Sent:
        loader, form = self._loader, self._stream.form
        with nvtx_range("collate"):
            batch, late = loader._collator(delivery, form), None
        if loader._late is not None:
            late = partial(loader._late.start, draws=loader._late.draws(batch, delivery.spec, form.seed))
        return transfer.send(batch, delivery.memory, delivery.pin, late, loader._collator.lends)

    def _next_delivery(self) -> Delivery | None:
        """Return the next batch, or None at the end of the epoch."""
        loader, work = self._loader, self._sampled
        if self._failure is not None:
            raise self._failure
        if self.position.filler is not None:
            loader._check_world(self.position.ranks)
        if work is None:
            return self._stream.next(loader.timeout)
        work.allowed = self.position.batch + self._asked_ahead()
        delivery = self._stream.next(loader.timeout)
        while delivery is None and work.needed:
            self._stream.close()
            self._stream = self._open_sampled(work)
            delivery = self._stream.next(loader.timeout)
        if delivery is None:
            work.check()
        elif loader.num_workers:
            work.allowed += 1
            self._pool.dispatch()
        return delivery

    def _count(self) -> None:
        """Take note of a batch that the consumer gets."""
        self.position.batch += self.position.ranks.world_size
        if self.position.sampler is not None:
            self.position.sampler.count_delivered()

    def _pass_on(self, epoch: int) -> None:
        """Let the position be the beginning of an epoch."""
        position = self.position
        position.epoch, position.batch = epoch, 0
        position.full = position.filler = position.sampler = None

    def _finish_cache(self) -> None:
        """Let what was collected for the cache be written, at the end of an epoch."""
        if self._stream.fills_cache:
            self._stream.flush()
            self._loader._commit_cache()

    def _next_epoch(self) -> None:
        self._stream.close()
        try:
            if not self.position.batch:
                raise SpecError(
                    f"epoch {self.position.epoch} has no batches, so that infinite=True would look for one for ever"
                )
            self._pass_on(self.position.epoch + 1)
            self._loader._enter(self.position.epoch)
            self._stream = self._begin()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Drop what is on its way; ends the readers where they are this iterator's own."""
        self.ended = True
        self._sent = self._failure = None
        self._stream.close()
        if self._loader._transfer is not None:
            self._loader._transfer.finish()
        if self._owns_pool:
            self._pool.close()

    def __del__(self) -> None:
        if hasattr(self, "_stream"):
            self.close()


def _log_skip(clock: StageClock, error: Exception) -> None:
    """Log an event that was left out; where there are many, :meth:`hepfeed.DataLoader.stats` counts them."""
    skipped = clock.counts["skipped"]
    if skipped <= _LOGGED_SKIPS:
        more = "; further ones are only counted, see stats()" if skipped == _LOGGED_SKIPS else ""
        _logger.warning("an event was left out: %s%s", str(error), more)  # as text: a traceback holds batches
