"""The dataset reader: runs any user's dataset, and leaves its batches in the ring.

It does in a process of hepfeed's what a worker of torch's loader does, with the same seeds and errors, and imports no
torch where the dataset needs none.  It answers in the order in which it is asked, and keeps its random states where a
successor finds them: after a death the epoch goes on with the same numbers.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from hepfeed import h5_handles, torch_worker
from hepfeed.errors import HepfeedError
from hepfeed.fetchers import Fetcher, IterableFetcher, MapFetcher, count_examples
from hepfeed.late_torch import LateTorch
from hepfeed.parcel import Parcel, pack
from hepfeed.plain_collate import NeedsTorch, plain_collate, plain_convert
from hepfeed.random_states import STATE_BYTES, RandomStates, numpy_seed
from hepfeed.ring import RingView
from hepfeed.room import Room
from hepfeed.torch_worker import TorchWorker

__all__ = ["STATE_BYTES", "Caught", "DatasetJob", "DatasetReader", "Ended", "pickled_state"]

_THREAD_NAME = "pt_data_worker"  # as torch's, so that tools find it


@dataclass
class DatasetJob:
    """What a reader has to do.

    Making one prepares this process for readers that it forks, and pickling one for those that it starts afresh:
    see :func:`hepfeed.h5_handles.prepare`.

    Attributes:
        dataset: The user's.
        iterable: Whether it is an iterable dataset, not a map-style one.
        auto_collation: Whether batches are made, and an index is a list.
        collate_fn: Of the user, or None for torch's default in that mode.
        drop_last: Whether a last batch that is not full is left out; of iterable datasets.
        worker_init_fn: Of the user, called once with the number of the reader.
        base_seed: Of the loader; reader i has ``base_seed + i``.
        worker_id: Number of the reader.
        num_workers: Of the loader.
        shared_seed: Of the present epoch, for data pipes.
        persistent: Whether another epoch may come; if not, the dataset's iterator is dropped when it has ended.
    """

    dataset: Any
    iterable: bool
    auto_collation: bool
    collate_fn: Callable[[Any], Any] | None
    drop_last: bool
    worker_init_fn: Callable[[int], object] | None
    base_seed: int
    worker_id: int
    num_workers: int
    shared_seed: int | None = None
    persistent: bool = False
    _process: int = field(default_factory=os.getpid, init=False, repr=False)

    def __post_init__(self) -> None:
        h5_handles.prepare()

    @property
    def was_inherited(self) -> bool:
        """Whether this is a forked copy."""
        return self._process != os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        h5_handles.prepare((self.dataset, self.collate_fn, self.worker_init_fn))
        return vars(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._process = os.getpid()


class _KeyErrorText(str):
    """Text that a KeyError does not put in quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


@dataclass
class Caught:
    """An exception of the user's code.

    Attributes:
        type: Its class, or the nearest base that pickles.
        text: What torch's loader would say: where it was caught, and the traceback.
        fields: Attributes of an error of hepfeed's: file, key, event.
    """

    type: type[BaseException]
    text: str
    fields: dict[str, Any]

    @classmethod
    def of(cls, error: BaseException, worker_id: int) -> Caught:
        """Describe an exception that is being handled."""
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        text = f"Caught {type(error).__name__} in DataLoader worker process {worker_id}.\nOriginal {trace}"
        kind = next(kind for kind in type(error).__mro__ if _pickles(kind))
        names = ("file", "key", "event", "file_number") if isinstance(error, HepfeedError) else ()
        return cls(kind, text, {name: getattr(error, name) for name in names})

    def reraise(self) -> NoReturn:
        """Raise it again, with its type, or a RuntimeError where that can't be made of a text alone."""
        make: Any = self.type
        if getattr(make, "message", None):  # an exception that takes it by name
            raise make(message=self.text)
        try:
            error = make(_KeyErrorText(self.text) if issubclass(make, KeyError) else self.text)
        except Exception:
            raise RuntimeError(self.text) from None
        for name, value in self.fields.items():
            setattr(error, name, value)
        raise error


@dataclass
class Ended:
    """The iterable dataset is exhausted.

    Attributes:
        state: Pickled state of a stateful dataset, or None.
    """

    state: bytes | None = None


class DatasetReader:
    """Runs a dataset in the process that it has for itself.

    Errors of ``worker_init_fn``, of making the dataset's iterator and of its files are the answers of the fetches
    that follow.

    Args:
        job: What to do.
        ring: This process's view of the ring.
        state_slot: Slot for the random states, of :data:`STATE_BYTES`; the same for a successor.
    """

    def __init__(self, job: DatasetJob, ring: RingView, state_slot: int) -> None:
        self._job = job
        self._ring = ring
        self._dataset = job.dataset
        self._fetcher: Fetcher | None = None
        self._failed: Caught | None = None
        self._ended: Ended | None = None
        self._begun = False  # whether an epoch began in this process
        self._start_saved = False  # of the present epoch
        self._examples = 0  # of the present fetch
        self._recovered: tuple[int, bytes | None] | None = None
        self._start: tuple[bytes | None, int] = (None, 0)
        owner = (job.base_seed + (job.worker_id << 32)) % (1 << 64)
        self._states = RandomStates(ring.bytes(state_slot, STATE_BYTES), owner)
        _name_thread()
        self._seed(job.base_seed)
        self._seed_data_pipe(job.shared_seed)
        self._torch = TorchWorker(job.worker_id, job.num_workers, job.base_seed + job.worker_id, self._dataset)
        self._late = LateTorch(self._torch_is_there)
        self._told = self._states.get()  # the random states that the consumer knows of
        try:
            if job.was_inherited:
                h5_handles.reopen((job.dataset, job.collate_fn, job.worker_init_fn))
            if job.worker_init_fn is not None:
                job.worker_init_fn(job.worker_id)
        except Exception as error:
            self._failed = Caught.of(error, job.worker_id)

    def close(self) -> None:
        """Drop the dataset, and leave torch and the ring as they were."""
        self._late.close()
        self._torch.close()
        self._fetcher = self._dataset = None
        self._ring.forget()

    # ---- calls -----------------------------------------------------------------------------------------------------

    def fetch(self, number: int, index: Any, slot: int) -> Parcel | Caught | Ended:
        """Make a batch.

        Args:
            number: Of the fetch in this epoch, from 0, of this worker and its predecessors.
            index: What the sampler gave; of iterable datasets only its length counts.
            slot: To leave arrays and tensors in; grown as needed.

        Raises:
            SystemExit: A KeyboardInterrupt came, which is for the consumer to report.
        """
        try:
            answer = self._fetch(number, index, slot)
        except KeyboardInterrupt:
            raise SystemExit(0) from None
        now = self._states.save(number)
        if isinstance(answer, Parcel) and now != self._told:
            answer.random = self._told = now
        return answer

    def resume(self, shared_seed: int | None) -> bytes:
        """Begin another epoch with the next fetch; random states go on from where they are.

        As a call to a successor that has fetched nothing: its predecessor died between two epochs, or before it
        answered this.

        Returns:
            The random states at the start of the epoch, for :meth:`set_random`.
        """
        if not self._begun:
            self._begun = self._states.restore_latest()
        self._save_start()
        self._told = self._states.get()
        self._recovered, self._start = None, (None, 0)
        self._fetcher = self._failed = self._ended = None
        self._seed_data_pipe(shared_seed)
        return self._told

    def set_random(self, states: bytes | None, base_seed: int) -> None:
        """Let the epoch begin with random states, before its first fetch.

        Args:
            states: Of :meth:`resume` or of a parcel; None: those of a new reader.
            base_seed: That a new reader would have.
        """
        if states is None:
            self._seed(base_seed)
        else:
            self._states.set(states)
        self._told = self._states.get()

    def recover(self, answered: int, state: bytes | None = None) -> None:
        """Go on with a predecessor's epoch; the first call to a successor, or after :meth:`restore` if there was one.

        A map-style dataset goes on with the random state after the last fetch that was answered.  An iterable one is
        gone through again from the start of the epoch, unless there is a state.

        Args:
            answered: Fetches that were answered in this epoch.
            state: Of the parcel of the last of them, or None.
        """
        self._recovered = answered, state

    def restore(self, state: bytes | None, skip: int) -> None:
        """Let the epoch begin at a state of the dataset, or else pass over some fetches of an iterable dataset.

        Args:
            state: Of a :class:`Parcel`, or None.
            skip: Fetches that are passed over where there is no state; they are made and dropped.  A map-style dataset
                has nothing to pass over: its indices say where it is.
        """
        self._start = state, skip

    # ---- one fetch -------------------------------------------------------------------------------------------------

    def _fetch(self, number: int, index: Any, slot: int) -> Parcel | Caught | Ended:
        if self._failed is not None:
            return self._failed
        if self._ended is not None:
            return self._ended
        room = Room(self._ring, slot)
        answer: Parcel | Caught | Ended
        try:
            if self._fetcher is None:
                if number and not self._begun and self._recovered is None:  # its predecessor died with nothing to do
                    self._recovered = number, None
                self._fetcher = self._begin(index)
            answer = self._packed(self._fetcher, index, room)
        except Exception as error:
            if isinstance(error, StopIteration) and self._job.iterable:
                answer = self._end()
            else:
                answer = Caught.of(error, self._job.worker_id)
                if self._fetcher is None:
                    self._failed = answer
        finally:
            self._torch.room = None
        room.leave()  # the batch and its frames are gone: what is still held, the user's code holds
        return answer

    def _packed(self, fetcher: Fetcher, index: Any, room: Room) -> Parcel:
        begun = time.perf_counter_ns()
        parcel = pack(self._batch(fetcher, index, room), room)
        parcel.state = self._state()
        parcel.examples = self._examples
        parcel.spent_ns = time.perf_counter_ns() - begun
        return parcel

    def _batch(self, fetcher: Fetcher, index: Any, room: Room | None) -> Any:
        examples = fetcher.fetch(index)
        self._examples = count_examples(index, examples, self._job.iterable) if self._job.auto_collation else 1
        self._torch.room = room
        try:
            return self._collate(examples, room)
        finally:
            self._torch.room = None

    def _collate(self, examples: Any, room: Room | None) -> Any:
        job = self._job
        if job.collate_fn is not None:
            return job.collate_fn(examples)
        if "torch" not in sys.modules:
            with contextlib.suppress(NeedsTorch):
                if not job.auto_collation:
                    return plain_convert(examples)
                return plain_collate(examples, np.empty if room is None else room.array)
        return (torch_worker.default_collate if job.auto_collation else torch_worker.default_convert)(examples)

    def _end(self) -> Ended:
        try:
            self._ended = Ended(None if self._fetcher is None else self._state())
        except Exception as error:
            self._ended = Ended()
            raise error
        if not self._job.persistent:
            self._fetcher = None
        return self._ended

    # ---- the beginning of an epoch ---------------------------------------------------------------------------------

    def _begin(self, index: Any) -> Fetcher:
        """Make the fetcher, and bring it to where it has to go on."""
        answered, later = self._recovered or (0, None)
        state, skip = self._start
        if self._recovered is not None and (answered or self._states.has_start):
            self._states.restore_start()
            self._begun, self._told = True, b""
        elif not self._start_saved:
            self._save_start()
        state, passed = (later, 0) if later is not None else (state, answered + (skip if state is None else 0))
        fetcher = self._made(state)
        if isinstance(fetcher, IterableFetcher) and passed:
            self._pass_over(fetcher, index, passed)
        if answered and (later is not None or not self._job.iterable):
            self._states.restore(answered - 1)
        return fetcher

    def _save_start(self) -> None:
        self._states.begin(first=not self._begun)
        self._begun = self._start_saved = True

    def _made(self, state: bytes | None) -> Fetcher:
        job = self._job
        of_dataset, of_iterator = (None, None) if state is None else pickle.loads(state)
        if of_dataset is not None:
            self._dataset.load_state_dict(of_dataset)
        if not job.iterable:
            return MapFetcher(self._dataset, job.auto_collation)
        fetcher = IterableFetcher(self._dataset, job.auto_collation, job.drop_last)
        if of_iterator is not None:
            iterator: Any = fetcher.iterator
            iterator.load_state_dict(of_iterator)
        return fetcher

    def _pass_over(self, fetcher: Fetcher, index: Any, count: int) -> None:
        """Make batches and drop them; their errors were told already."""
        for _ in range(count):
            try:
                self._batch(fetcher, index, None)
            except StopIteration:
                raise
            except Exception:
                continue

    def _seed(self, base_seed: int) -> None:
        random.seed(base_seed + self._job.worker_id)
        np.random.seed(numpy_seed(base_seed, self._job.worker_id))  # noqa: NPY002 (user code draws from it)
        torch: Any = sys.modules.get("torch")
        if torch is not None:
            torch.manual_seed(base_seed + self._job.worker_id)

    def _seed_data_pipe(self, shared_seed: int | None) -> None:
        if shared_seed is not None and torch_worker.is_data_pipe(self._dataset):
            self._dataset = torch_worker.seed_data_pipe(self._dataset, shared_seed)

    def _torch_is_there(self) -> None:
        self._torch.open()
        self._states.restore_torch()

    def _state(self) -> bytes | None:
        iterator = self._fetcher.iterator if isinstance(self._fetcher, IterableFetcher) else None
        return pickled_state(self._dataset, iterator)


def pickled_state(dataset: Any, iterator: Any) -> bytes | None:
    """Pickle the state of a stateful dataset and of its iterator, as :meth:`DatasetReader.restore` takes it.

    Args:
        dataset: With ``state_dict()`` and ``load_state_dict()``, or without.
        iterator: Of an iterable dataset, or None.

    Returns:
        None if neither has a state.
    """
    holders: Iterable[Any] = (None if iterator is dataset else dataset, iterator)
    states = [each.state_dict() if _is_stateful(each) else None for each in holders]
    return None if states[0] is None and states[1] is None else pickle.dumps(tuple(states), protocol=5)


def _is_stateful(value: object) -> bool:
    return all(callable(getattr(value, name, None)) for name in ("state_dict", "load_state_dict"))


def _pickles(kind: type) -> bool:
    try:
        return pickle.loads(pickle.dumps(kind)) is kind
    except Exception:  # a class in a function
        return False


def _name_thread() -> None:
    with contextlib.suppress(OSError), open("/proc/thread-self/comm", "w") as name:  # Linux only
        name.write(_THREAD_NAME)
