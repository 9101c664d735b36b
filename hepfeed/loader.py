"""The loader: torch's ``DataLoader``, with a fast path for events."""

from __future__ import annotations

import inspect
import logging
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar, get_args

import cloudpickle
import torch
import torch.utils.data
from torch.utils.data.distributed import DistributedSampler

from hepfeed.accelerated import Accelerated, accelerates
from hepfeed.collate import Collator, Outputs
from hepfeed.dataset import EventDataset
from hepfeed.errors import HepfeedError, SpecError, nearest
from hepfeed.feed_iterator import PREFETCH_FACTOR, Ahead, FeedIterator, Position
from hepfeed.filler import BatchSpec, Filler, Order, windows_of
from hepfeed.form import StreamForm
from hepfeed.index import EventIndex
from hepfeed.late_steps import LateSteps
from hepfeed.live import withdraw
from hepfeed.loader_clock import clock_of
from hepfeed.loader_state import checked, taken
from hepfeed.packing import Oversize
from hepfeed.parts.writer import PART_BYTES
from hepfeed.pipeline import Function, Pipeline, Transform
from hepfeed.pool import ReaderPool, WorkerMethod
from hepfeed.quotas import Composition, Exhausted
from hepfeed.ranks import RankFiller, Ranks, Uneven
from hepfeed.sampling import SamplerPass, generators_of, samplers_of
from hepfeed.stats import FeedStats
from hepfeed.stream import NO_PIPELINE
from hepfeed.transfer import Transfer, as_device
from hepfeed.watch import WatchedLoop
from hepfeed.world import all_agree, present_world

__all__ = ["DataLoader"]

T_co = TypeVar("T_co", covariant=True)
Shuffle = bool | Literal["full", "window", "mixed"]
_WITH_SAMPLER = {
    "delivery_fn",
    "device",
    "device_transform",
    "infinite",
    "outputs",
    "pool",
    "prebuild",
    "process_fn",
    "seed",
    "watch",
    "worker_method",
}
"""Options of the fast path that mean something where a sampler chooses the events."""
_BY_SAMPLER = {"rank", "world_size", "uneven"}
"""Options that a DistributedSampler gives."""
_ANY_DATASET = {"device", "watch"}
"""Options that have a meaning over every dataset."""
_OF_DATASET = ("__getitem__", "__getitems__", "__len__")
_logger = logging.getLogger("hepfeed")


class DataLoader(torch.utils.data.DataLoader[T_co]):
    """Batches of events; every argument of torch's ``DataLoader``, with the same meaning.

    Over an :class:`~hepfeed.EventDataset` batches come from hepfeed's readers.  They are dicts with the keys of the
    specification, tensors ``(B, ...)`` or, where events differ in their number of rows,
    :class:`~hepfeed.tensors.Jagged`; with what the steps make of them; and with ``"label" (B,) int64``,
    ``"event" (B, 2) int64`` (file, row), and ``"weight" (B,) float32`` where the specification has weights.  Over any
    other dataset, or with a ``collate_fn`` of the user's or ``batch_size=None``, the dataset's own ``__getitem__`` or
    ``__iter__`` runs, in this process or in worker processes as torch has them.

    A batch lies in shared memory until the last tensor or view of it dies; a batch that is kept never changes.  The
    loader needs ``max(2 x batches of a window, (prefetch_factor + 1) x num_workers) + 3`` batches of shared memory.
    From the cache up to 16 small batches share a slot, and it takes up to 2 slots a reader and 3 more.

    With ``device="cuda"`` batches arrive on the device.  Their slots are page-locked once, and copied on a stream of
    the loader's own: while the loop computes on a batch, the next one is copied, if the readers have it already.  The
    current stream waits for a batch, and the host never does, unless the device is two batches behind.  The device
    holds the present batch and the next.  All tensors of a batch go, wherever they are in it; those of 64 kB and more
    that lie side by side in a slot become views of one piece of memory, and so do all smaller ones together.

    The processes of a training share the events: with ``torch.distributed``, or with ``rank`` and ``world_size``, each
    gets batches of its own, as many as every other one and in each step of the same size, and no chunk is decoded on
    two of them but in the last steps, where what is left is divided anew.  ``batch_size`` is that of a process.

    Args:
        dataset: The events.
        batch_size: Events of a batch.
        shuffle: True: the order that suits the files (see ``Filler``, order ``"auto"``); epochs after the first that
            come from the cache are full permutations.  ``"full"``, ``"window"``: that order.  ``"mixed"``: classes
            mixed by their rates, files in their order.  False: the order of the dataset; rates are not used.
        sampler: Places of the events in the dataset, in the order of their delivery; below 0 they count from the end.
            A ``DistributedSampler`` of this dataset is not asked for places: the loader shuffles and divides the events
            itself, by its rank, number of replicas, ``shuffle``, ``epoch``, ``drop_last`` (which is
            ``uneven="drop"``), and by its seed where the loader has none.
        batch_sampler: The places of the events of each batch.  It is asked ``prefetch_factor x num_workers`` batches
            ahead, as in torch; chunks that the batches of one half of them share are decoded once.
        num_workers: Reader processes; 0 reads in this one.  They start by exec, whatever ``multiprocessing_context``
            is.  On Linux their scheduling policy is ``SCHED_BATCH``, if this process has the usual one: a reader that
            gets a task does not take the core from this process for it.
        collate_fn: As in torch; torch's ``default_collate`` counts as none.
        pin_memory: Page-lock the slots, where there is a CUDA device; there is no need to with ``device``.
        drop_last: Leave out an incomplete last batch.
        timeout: Seconds to wait for a batch; 0 waits for ever.
        worker_init_fn: Called once in each reader with its number, as in torch.
        multiprocessing_context: As in torch; the readers of the fast path do not need one.
        generator: Gives the seed where ``seed`` is None; it must be in the same state on all ranks.
        prefetch_factor: Batches ahead for each reader, beside the one that it fills; default 2.
        persistent_workers: Keep readers and shared memory from epoch to epoch.
        pin_memory_device: As in torch.
        in_order: As in torch; the fast path is always in order.
        seed: Order of events and random numbers of functions; None draws one from ``generator`` or torch's own, and is
            0 where several ranks or partitions, which must have the same, have no ``generator``.
        process_fn: Called in the readers on each batch, after the dataset's ``transform``: a dict of arrays in, a dict
            of arrays out, of any number, shapes and dtypes.
        delivery_fn: Called in this process on each batch, on the host; its result is what the loop gets, or what
            ``device_transform`` gets, which needs a dict.
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
        rank: Number of this process among those that share the events; None asks ``torch.distributed`` when an epoch
            begins, and is 0 where there is no process group.
        world_size: Number of those processes; given with ``rank``.
        partitions: Canonical partitions of the order, which ``world_size`` divides: every number of processes that
            does gives the same global batches.  By default as many as there are processes, or those of the state that
            was loaded.
        uneven: What is done where the events of an epoch are not a multiple of the partitions: ``"pad"`` repeats the
            first of them at the end, ``"drop"`` leaves the last of them out, in both cases fewer events than there are
            partitions.  With ``max_points``, whose batches have no fixed size: a partition with fewer batches than
            another repeats its own from the first one on, or the epoch ends with the partition that has the fewest.
        worker_method: ``"process"``, or ``"thread"``: readers are threads of this process.
        pool: Readers to share with other loaders.
        device: Where batches arrive, over any dataset: ``"cuda"``, which is the current device when the first batch is
            sent, ``"cuda:1"`` or a ``torch.device``.  ``"cpu"`` and None move nothing.
        device_transform: Steps that run on the device, once a batch is there, as a sequence of what the dataset's
            ``transform`` takes, but for functions; :class:`hepfeed.device.steps.DeviceSteps` lists which there are.
            So sparse images can cross the bus as they are, and be made dense behind it.  With ``device="cpu"`` the same
            steps run in this process.  They come after all steps of the readers and after ``delivery_fn``, and before
            ``outputs``; random ones draw what they draw in a reader as a step of the same number, and are left out
            where the dataset has ``augment=False``.
        watch: Show what the feed does on the standard error output, if that is a terminal, while a loop over the loader
            runs; over any dataset.  ``hepfeed top`` shows the same from another terminal.

    Raises:
        SpecError: An option of the fast path is wrong, or is given where it means nothing, or the device is not there.
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
        rank: int | None = None,
        world_size: int | None = None,
        partitions: int | None = None,
        uneven: Uneven = "pad",
        worker_method: WorkerMethod = "process",
        pool: ReaderPool | None = None,
        device: str | torch.device | None = None,
        device_transform: Sequence[Transform] | Transform | None = None,
        watch: bool = False,
    ) -> None:
        if isinstance(shuffle, str) and shuffle not in ("full", "window", "mixed"):
            raise SpecError(f"shuffle={shuffle!r} is none of True, False, 'full', 'window', 'mixed'")
        super().__init__(
            dataset,
            batch_size,
            bool(shuffle) if isinstance(shuffle, str) else shuffle,
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
        self._shuffle: Shuffle = shuffle if shuffle is not None else False
        self.seed = seed
        self.process_fn = process_fn
        self.delivery_fn = delivery_fn
        self.outputs = outputs
        self.prebuild = tuple(prebuild)
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
        self.rank = rank
        self.world_size = world_size
        self.partitions = partitions
        self.uneven: Uneven = uneven
        self.worker_method: WorkerMethod = worker_method
        self.pool = pool
        self.device = as_device(device)
        self.device_transform = device_transform
        self.watch = watch
        self._transfer = None if self.device is None or self.device.type == "cpu" else Transfer(self.device)
        self._late: LateSteps | None = None
        self._live: weakref.ref[Any] | None = None  # iterator of the general path
        self._resume_state: dict[str, Any] | None = None  # that the next one begins with
        self._prepared = False
        self._fast = False
        self._epoch = 0
        reasons = self._reasons_for_torch()
        self._clock = clock_of(self, "dataset" if reasons else "events")
        if reasons:
            names = set(_DEFAULTS) - _ANY_DATASET
            self._refuse(names, f"{' and '.join(reasons)}: only the feed of an EventDataset has such options")
            return
        self._fast = True
        self._replicas: DistributedSampler[Any] | None = None
        if batch_sampler is None and type(sampler) is DistributedSampler and sampler.dataset is dataset:
            self._replicas = sampler
            self._refuse(_BY_SAMPLER, "a DistributedSampler, which says so itself")
        self._samples = self._replicas is None and (sampler is not None or batch_sampler is not None)
        if self._samples:
            refused = set(_DEFAULTS) - _WITH_SAMPLER
            self._refuse(refused, f"a {'batch_' * (batch_sampler is not None)}sampler, which chooses the events itself")
        self._check_ranks()
        self._position = Position(0, 0)
        self._next_position: Position | None = None  # of a state that was loaded
        self._active: weakref.ref[FeedIterator] | None = None
        self._ahead: Ahead | None = None  # the beginning of the next epoch
        self._own_pool: ReaderPool | None = None
        self._set_up(dataset)

    def _set_up(self, dataset: EventDataset) -> None:
        pipeline = dataset.pipeline + Pipeline(self.process_fn) + _prebuilding(self.prebuild)
        self._check_method(pipeline)
        pickled = cloudpickle.dumps(pipeline) if len(pipeline) else NO_PIPELINE
        skip_errors = dataset.on_error == "skip"
        self._cache = dataset.feed_of_cache(pipeline)
        self._clock.setting["cache"] = dataset.cache_state(self._cache)
        self._form = StreamForm((), 0, dataset.catalog, pickled, 0, skip_errors)
        if self._cache is not None:
            self._form = replace(self._form, part_bytes=PART_BYTES)
        self._initializer: tuple[Any, bytes] = (None, b"")  # worker_init_fn, pickled
        self._worker_init()  # finds out now whether it can be
        self._slot_events = 0
        size = self.batch_size if self.batch_size is not None else getattr(self.batch_sampler, "batch_size", None)
        self._fit(size if isinstance(size, int) else 1)
        late = self.device_transform is not None
        self._collator = Collator(dataset.files, dataset.spec.n_classes, self.outputs, self.delivery_fn, late)
        if self.device_transform is not None:
            if self.device is None:
                raise SpecError("device_transform needs to know where to run: give device='cuda', or 'cpu'")
            self._late = LateSteps(
                self.device_transform, self.device, len(pipeline), dataset.augment, self._collator.arrange
            )
        self._agreed = False  # whether all ranks have the cache
        self._seed = self.seed
        self._state_partitions: int | None = None
        self._fillers: dict[tuple[bool, Ranks], Filler | RankFiller] = {}
        if not self._samples:
            self._make_filler(0, False, 0, 1)  # finds mistakes in the options now

    def _reasons_for_torch(self) -> list[str]:
        """Return why the general path must run, in words."""
        reasons = []
        if not isinstance(self.dataset, EventDataset):
            reasons.append(f"a {type(self.dataset).__name__}")
        elif not _is_plain(self.dataset):
            reasons.append(f"a {type(self.dataset).__name__} with a __getitem__ of its own")
        if self._auto_collation and self.collate_fn is not torch.utils.data.default_collate:
            reasons.append("collate_fn")
        if not self._auto_collation:
            reasons.append("batch_size=None")
        return reasons

    def _refuse(self, names: set[str], reason: str) -> None:
        """Raise where options of those names are given."""
        given = [name for name, default in _DEFAULTS.items() if name in names and getattr(self, name) != default]
        if isinstance(self._shuffle, str) and "composition" in names:
            given.insert(0, "shuffle")
        if given:
            raise SpecError(f"{', '.join(given)} can't be used with {reason}")

    def _check_method(self, pipeline: Pipeline) -> None:
        methods = get_args(WorkerMethod)
        if self.worker_method not in methods:
            raise SpecError(
                f"worker_method={self.worker_method!r} is unknown: {nearest(str(self.worker_method), methods)}"
            )
        if self.pool is not None and self.pool.method != self.worker_method:
            raise SpecError(
                f"worker_method={self.worker_method!r}, but the readers of the pool are {self.pool.method}s"
            )
        if self.worker_method == "thread" and self.num_workers:
            pipeline.need_native()

    def _check_ranks(self) -> None:
        if self.uneven not in ("pad", "drop"):
            raise SpecError(f"uneven={self.uneven!r} is unknown: {nearest(str(self.uneven), ['pad', 'drop'])}")
        if (self.rank is None) != (self.world_size is None):
            raise SpecError(f"rank={self.rank} and world_size={self.world_size}: give both, or none of them")
        if self.rank is not None and self.world_size is not None:
            partitions = self.world_size if self.partitions is None else self.partitions
            Ranks(self.rank, self.world_size, partitions)
        elif self.partitions is not None:
            Ranks(0, 1, self.partitions)

    # ---- what torch's loader has -----------------------------------------------------------------------------------

    @property
    def shuffle(self) -> Shuffle:
        """Order of the events, as it was given."""
        return self._shuffle

    @property
    def _is_accelerate_prepared(self) -> bool:
        """Whether Hugging Face accelerate is to leave the loader as it is: then it divides the events itself."""
        return self._prepared or (self._fast and not self._samples)

    @_is_accelerate_prepared.setter
    def _is_accelerate_prepared(self, prepared: bool) -> None:
        self._prepared = prepared

    def _get_iterator(self) -> Any:
        # Only here: they are of no use to the fast path.
        from hepfeed.dataset_iterator import DatasetIterator
        from hepfeed.resumable import LocalIterator

        iterator = (DatasetIterator if self.num_workers else LocalIterator)(self, self._clock)
        self._live = weakref.ref(iterator)
        return iterator

    def __len__(self) -> int:
        if not self._fast:
            return super().__len__()
        if self.infinite:
            raise TypeError("an infinite loader has no length")
        if self._samples:
            return super().__len__()
        ranks = self._ranks_now()
        return self._filler(self._is_full(self.epoch, ranks), ranks).batches_in(self.epoch)

    def __iter__(self) -> Any:
        iterator = self._begin_epoch() if self._fast else super().__iter__()
        return WatchedLoop(iterator, self._clock) if self.watch else iterator

    def _begin_epoch(self) -> Any:
        self._follow_sampler()
        if self.seed is None:  # one draw for each iterator, as torch's, so that samplers draw what they draw there
            self._seed_now(1 if self._samples else self._ranks_now().partitions)
            torch.empty((), dtype=torch.int64).random_(generator=self.generator)
        self._position, self._next_position = self._next_position or Position(self._epoch, 0), None
        iterator = FeedIterator(self, self._position)
        if self._replicas is None:
            self._epoch += 1
        self._active = weakref.ref(iterator)
        if accelerates() and not self._samples:
            return Accelerated(iterator, iterator.left, iterator.remainder)
        return iterator

    # ---- epochs ----------------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration starts, counted from 0."""
        self._follow_sampler()
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration starts; samplers that have a ``set_epoch`` are told, too."""
        self._enter(int(epoch))
        if not self._fast:
            return
        if self._next_position is not None and self._next_position.epoch == self._epoch:
            return
        self._next_position = None
        self._position = Position(self._epoch, 0)
        if self._ahead is not None and self._ahead.epoch != self._epoch:
            self._drop_ahead()

    def _enter(self, epoch: int) -> None:
        """Take note of an epoch, and tell samplers of it."""
        self._epoch = epoch
        for sampler in samplers_of(self.sampler, self.batch_sampler):
            if callable(getattr(sampler, "set_epoch", None)):
                sampler.set_epoch(epoch)

    def _follow_sampler(self) -> None:
        """Take over the epoch of a DistributedSampler, where it was set."""
        if self._fast and self._replicas is not None and self._replicas.epoch != self._epoch:
            self.set_epoch(self._replicas.epoch)

    @property
    def filler(self) -> Filler | RankFiller:
        """What decides which events make each batch of the next epoch, or of the present one.

        Where there are several partitions it knows the batches of this rank, with the methods of the same names.
        """
        self._need_fast("filler")
        if self._samples:
            raise SpecError("filler is not there with a sampler, which chooses the events itself")
        position = self._position
        if position.filler is not None:
            return position.filler
        ranks = self._ranks_now()
        return self._filler(self._is_full(position.epoch, ranks) if position.full is None else position.full, ranks)

    def _filler(self, full: bool, ranks: Ranks) -> Filler | RankFiller:
        """Return what orders epochs for the cache, or epochs from the sources."""
        seed = self._seed_now(ranks.partitions)
        if (full, ranks) not in self._fillers:
            self._fillers = {key: filler for key, filler in self._fillers.items() if key[1] == ranks}
            self._fillers[full, ranks] = self._ranked(seed, full, ranks)
        return self._fillers[full, ranks]

    def _ranked(self, seed: int, full: bool, ranks: Ranks) -> Filler | RankFiller:
        if ranks.partitions == 1:
            return self._make_filler(seed, full, 0, 1)
        dropping = self._replicas is not None and self._replicas.drop_last
        return RankFiller(
            lambda partition: self._make_filler(seed, full, partition, ranks.partitions),
            ranks,
            "drop" if dropping else self.uneven,
            self.drop_last,
        )

    def _make_filler(self, seed: int, full: bool, partition: int, partitions: int) -> Filler:
        shuffle = self._order()
        order: Order = ("full" if full else "auto") if shuffle is True else shuffle or "sequential"
        assert self.batch_size is not None
        index: EventIndex = self.dataset.index  # type: ignore[attr-defined]
        return Filler(
            index,
            batch_size=self.batch_size,
            order=order,
            seed=seed,
            # The last step of several partitions is theirs together: RankFiller leaves it out.
            drop_last=self.drop_last and (partitions == 1 or self.max_points is not None),
            composition=self.composition,
            exhausted=self.exhausted,
            skip=self.skip,
            max_events=self.max_events,
            window_events=self.window_events,
            window_bytes=self.window_bytes,
            partition=partition,
            partitions=partitions,
            length_matched=self.length_matched,
            max_points=self.max_points,
            oversize=self.oversize,
            lengths=index.lengths if index.jagged else None,
        )

    def _order(self) -> Shuffle:
        return self._shuffle if self._replicas is None else bool(self._replicas.shuffle)

    def _seed_now(self, partitions: int = 1) -> int:
        """Return the seed, and choose one where there is none."""
        if self._seed is None and self._replicas is not None:
            return int(self._replicas.seed)
        if self._seed is None and partitions > 1 and self.generator is None:
            return 0
        if self._seed is None:
            self._seed = self._next_draw()
        return self._seed

    def _next_draw(self) -> int:
        """Return what the generator gives next, and leave it as it is: asking for a length must draw nothing."""
        generator = torch.default_generator if self.generator is None else self.generator
        state = generator.get_state()
        drawn = int(torch.empty((), dtype=torch.int64).random_(generator=generator).item())
        generator.set_state(state)
        return drawn

    def _is_full(self, epoch: int, ranks: Ranks) -> bool:
        """Whether an epoch has the order for the cache, which allows for a full shuffle.

        The first epoch has the order of the sources even if the cache is there already, so that two runs with the same
        seed are the same, whichever of them wrote it.  Several ranks must decide alike: see :meth:`_agree`.
        """
        if epoch == 0 or self._cache is None or self._order() is not True:
            return False
        return self._from_cache() if ranks.world_size == 1 else self._agreed

    def _agree(self, epoch: int, ranks: Ranks) -> None:
        """Let all ranks find out whether each of them has the cache; they meet here at the start of an epoch."""
        if not self._foresees(epoch, ranks) and present_world() == (ranks.rank, ranks.world_size):
            self._agreed = all_agree(self._from_cache())

    def _foresees(self, epoch: int, ranks: Ranks) -> bool:
        """Whether it is known now what order a coming epoch has."""
        alone = ranks.world_size == 1 or self._cache is None or self._order() is not True
        return epoch == 0 or alone or self._agreed

    # ---- ranks -----------------------------------------------------------------------------------------------------

    def _ranks_now(self) -> Ranks:
        """Return who shares the events in an epoch that begins now."""
        rank, world_size = self._world()
        return Ranks(rank, world_size, self.partitions or self._state_partitions or world_size)

    def _world(self) -> tuple[int, int]:
        """Return this process's rank and the number of those that share the events."""
        if self._replicas is not None:
            return self._replicas.rank, self._replicas.num_replicas
        if self.rank is not None and self.world_size is not None:
            return self.rank, self.world_size
        return present_world()

    def _check_world(self, ranks: Ranks) -> None:
        """Raise where the world is not any more what it was when the epoch began."""
        if self._replicas is None and self.rank is None and present_world() != (ranks.rank, ranks.world_size):
            rank, world_size = present_world()
            raise SpecError(
                f"the epoch began as rank {ranks.rank} of {ranks.world_size}, but this is now rank {rank} of"
                f" {world_size}: take a state_dict() before the world changes, and go on from it with a new iterator"
            )

    # ---- samplers --------------------------------------------------------------------------------------------------

    def _begin_pass(self, state: dict[str, Any] | None, delivered: int) -> SamplerPass:
        """Begin an epoch of the sampler, or go on with it."""
        batch_sampler: Any = self.batch_sampler
        return SamplerPass(batch_sampler, self._generators(), state, delivered)

    def _samplers(self) -> list[Any]:
        """Samplers that choose the events, and those in them."""
        return samplers_of(self.batch_sampler) if self._samples else []

    def _generators(self) -> list[torch.Generator]:
        return generators_of(self, *self._samplers())

    # ---- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last delivered batch; a few hundred bytes, whatever the number of events.

        It is the same on all ranks, which must have come equally far, and holds for any number of readers and any
        number of ranks that divides ``"partitions"`` and ``"batch"``, the batches that all ranks together delivered.
        With a sampler it is of this rank, takes about 20 kB, and holds the sampler's own state where it keeps one (see
        :class:`~hepfeed.sampling.SamplerPass`).  Over other datasets it is that of the iterator.
        """
        if not self._fast:
            return self._general_state()
        return taken(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration go on where ``state`` was taken: the rest of that epoch is the same bit for bit.

        A :meth:`set_epoch` with the epoch of the state, as frameworks call it at the start of each, changes nothing.

        Raises:
            SpecError: The state is of another specification, batch size or order, or the number of ranks does not
                divide its partitions and batches.
        """
        if not self._fast:
            self._resume_state = dict(state)
            return
        position, seed, partitions = checked(self, state)
        self._seed, self._state_partitions, self._fillers = seed, partitions, {}
        self._enter_state(position.epoch, state.get("sampler_epochs", []))
        self._position = self._next_position = position
        self._active = None
        self._drop_ahead()

    def _enter_state(self, epoch: int, sampler_epochs: Sequence[int | None]) -> None:
        """Begin with the epoch of a state; a sampler gets the epoch back that it had."""
        self._epoch = epoch
        if self._replicas is not None:
            self._replicas.set_epoch(epoch)
        for sampler, its_epoch in zip(self._samplers(), sampler_epochs):
            if its_epoch is not None and callable(getattr(sampler, "set_epoch", None)):
                sampler.set_epoch(its_epoch)

    def _general_state(self) -> dict[str, Any]:
        live = self._live() if self._live is not None else None
        if live is None:
            return self._resume_state or {}
        if not hasattr(live, "state_dict"):
            raise SpecError(
                f"state_dict() over a {type(self.dataset).__name__} needs reader processes: use num_workers of at least"
                " 1, or an EventDataset"
            )
        state: dict[str, Any] = live.state_dict()
        return state

    # ---- the readers -----------------------------------------------------------------------------------------------

    def replay(self, specs: Iterable[BatchSpec]) -> Iterator[Any]:
        """Yield the batches of given specifications, e.g. those of ``BatchSpec.load``; epochs are not counted.

        Raises:
            SpecError: A batch is larger than ``batch_size``, or the loader has a batch sampler and no ``batch_size``.
        """
        self._need_fast("replay")
        if self.batch_size is None:
            raise SpecError("replay() needs a batch_size, which a loader with a batch_sampler does not have")
        index: EventIndex = self.dataset.index  # type: ignore[attr-defined]
        together = max(1, (self.prefetch_factor or PREFETCH_FACTOR) * self.num_workers // 2)
        iterator = FeedIterator(self, Position(0, 0), windows_of(specs, index, self.batch_size, together))
        try:
            yield from iterator
        finally:
            iterator.close()

    def stats(self) -> FeedStats:
        """Return where the time of all epochs so far went, and the bottleneck by name; over any dataset."""
        return self._clock.report()

    def _fit(self, events: int) -> None:
        """Let slots take batches of so many events."""
        if events <= self._slot_events:
            return
        # A quarter more than the largest so far, so that batches which grow slowly do not change the slots each time.
        self._slot_events = max(events, self._slot_events + self._slot_events // 4)
        places, dense_bytes = self.dataset.index.place_keys(self._slot_events)  # type: ignore[attr-defined]
        self._form = replace(self._form, keys=places, dense_bytes=dense_bytes)

    def _form_now(self) -> StreamForm:
        """Return what the batches of a stream that begins now have in common."""
        identity = self._cache.identity if self._cache is not None else None
        partitions = 1 if self._samples else self._ranks_now().partitions
        return replace(self._form, seed=self._seed_now(partitions), cache=identity, worker_init=self._worker_init())

    def _worker_init(self) -> bytes:
        """Return ``worker_init_fn`` pickled, as it is now: frameworks assign theirs once the loader is there."""
        function = self.worker_init_fn if self.num_workers else None
        if function is not self._initializer[0]:  # once for each, for readers call what differs in its bytes
            self._initializer = function, cloudpickle.dumps(function) if function is not None else b""
        return self._initializer[1]

    def _from_cache(self) -> bool:
        """Whether an epoch that begins now comes from the cache."""
        return self._cache is not None and self._cache.ready(self._slot_events)

    def _together(self) -> int:
        """Return how many batches from the cache a reader does at a time."""
        assert self._cache is not None
        return self._cache.together(self._slot_events)

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
            self._ahead.stream.close()
            self._ahead = None

    def close(self) -> None:
        """End the readers and give shared memory back; batches that are kept stay valid."""
        withdraw(self._clock)
        if not self._fast:
            live, self._iterator = self._live() if self._live is not None else None, None
            if live is not None and hasattr(live, "_shutdown_workers"):
                live._shutdown_workers()
            if self._transfer is not None:
                self._transfer.finish()
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

    def __enter__(self) -> DataLoader[T_co]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _need_fast(self, what: str) -> None:
        if not self._fast:
            raise SpecError(f"{what}() needs an EventDataset, without collate_fn and with a batch_size")

    def _take_pool(self) -> tuple[ReaderPool, bool]:
        """Return the readers for an epoch, and whether they end with it."""
        if self.pool is not None:
            return self.pool, False
        if self.num_workers and not self.persistent_workers:
            return ReaderPool(self.num_workers, self.worker_method), True
        if self._own_pool is None or self._own_pool.closed:
            self._own_pool = ReaderPool(self.num_workers, self.worker_method)
        return self._own_pool, False

    def __getstate__(self) -> dict[str, Any]:
        gone = dict.fromkeys(("_active", "_ahead", "_own_pool", "_live", "pool"))
        if self._fast:
            position = self._position
            gone["_position"] = replace(position, sampler=None) if position.sampler is not None else position
        return {**self.__dict__, **gone}


_DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(DataLoader.__init__).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
    and name not in inspect.signature(torch.utils.data.DataLoader.__init__).parameters
}
"""Options that torch's loader does not have."""


def _prebuilding(prebuild: Sequence[Mapping[str, Any]]) -> Pipeline:
    return Pipeline([{"kernel_maps": {"maps": [dict(each) for each in prebuild]}}] if prebuild else None)


def _is_plain(dataset: EventDataset) -> bool:
    """Whether a dataset gives its events as the feed does: a class of the user's may have methods of its own."""
    return all(getattr(type(dataset), name) is getattr(EventDataset, name) for name in _OF_DATASET)
