"""The reader: reads the events of a window, each chunk once, and writes them to their places in the ring.

A reader imports no torch.  It runs in a process of its own (:mod:`hepfeed.worker`), in a thread of the consumer's
process (:mod:`hepfeed.thread_worker`) or in the consumer itself, with the same bits.  All that it is told to do may be
done again by another reader, so a dead one costs only its present task.
"""

from __future__ import annotations

import gc
import math
import pickle
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hepfeed import _core
from hepfeed.allocator import keep_freed_memory
from hepfeed.caches import Caches, NoSteps
from hepfeed.draws import Draws
from hepfeed.errors import HepfeedError, ProcessError
from hepfeed.form import StreamForm, aligned, empty_batch
from hepfeed.hdf5 import SourceTable
from hepfeed.parts.part import Part
from hepfeed.parts.reader import Fetched
from hepfeed.parts.strips import Strip, Strips
from hepfeed.parts.table import CacheTable
from hepfeed.parts.writer import PartsWritten
from hepfeed.revocable_view import RevocableView
from hepfeed.source_reader import SourceReader, row_addresses
from hepfeed.tasks import MISSING, Finish, Finished, Flush, Read, ReadDone, Recall, Recalled, RecallMany
from hepfeed.tensors import Batch, Structured, concatenate, take

if TYPE_CHECKING:  # what the steps need is imported where a pipeline comes
    from hepfeed.pipeline import Pipeline

__all__ = ["Reader", "process_error"]

Ints = NDArray[np.int64]
Run = Callable[[Batch, Draws, bool], Batch]
"""Applies steps to a batch, given its random numbers and whether to put the global ones back."""
_NO_STEPS = NoSteps()


@dataclass
class _Kept:
    """Events of a cut unit that were decoded with the rest of it."""

    rows: Ints
    arrays: dict[str, NDArray[np.uint8]]
    failed: dict[int, HepfeedError]


class Reader:
    """Reads events and runs the user's functions.

    Args:
        ring: Descriptor of the ring, or None for a reader that reads to arrays only.
        alone: Whether it has the process for itself: then it changes what the whole process shares (the collector,
            malloc, the handler of bus errors, global random numbers), which is not for a thread to do.
        number: Which reader of its pool it is.
        sharers: Readers of this process, which have its descriptors in common: each keeps fewer files open.
    """

    def __init__(self, ring: int | None = None, alone: bool = False, number: int = 0, sharers: int = 1) -> None:
        if alone:
            keep_freed_memory()
            gc.freeze()  # what was imported stays: the collector need not look at it again
        self._ring = None if ring is None else RevocableView(ring)
        self._alone = alone
        self._number = number
        self._sources = SourceReader(sharers)
        self._streams: dict[int, StreamForm] = {}
        self._initialized: dict[bytes, Exception | None] = {}  # worker_init_fn that was called -> what it raised
        self._pipelines: dict[int, Pipeline | ProcessError | None] = {}
        self._kept: dict[tuple[int, int], _Kept] = {}
        self._caches = Caches(self._slot, alone, sharers)

    # ---- what the reader knows -------------------------------------------------------------------------------------

    def add_files(self, catalog: str, tables: dict[int, SourceTable]) -> None:
        """Make files of a catalog known."""
        self._sources.add_files(catalog, tables)

    def add_stream(self, stream: int, form: StreamForm) -> None:
        """Make a stream known; functions that can't be loaded here are an error of its first batch."""
        self._streams[stream] = form
        if form.worker_init and form.worker_init not in self._initialized:
            self._initialized[form.worker_init] = self._initialize(form.worker_init)
        try:
            self._pipelines[stream] = pickle.loads(form.pipeline) if form.pipeline else None
        except Exception as error:
            self._pipelines[stream] = ProcessError(
                f"a reader can't load process_fn or transform ({type(error).__name__}: {error}):"
                " define them in an importable module or in the main script"
            )

    def _initialize(self, pickled: bytes) -> Exception | None:
        """Call the user's function with the number of this reader; returns what it raised, in torch's words."""
        try:
            pickle.loads(pickled)(self._number)
        except Exception as error:
            import traceback

            text = "".join(traceback.format_exception(error)).rstrip()
            where = f"in DataLoader worker process {self._number}"
            return _worded(error, f"Caught {type(error).__name__} {where}.\nOriginal {text}\n")
        return None

    def _form(self, stream: int) -> StreamForm:
        """Return what was told of a stream, or raise what its ``worker_init_fn`` raised."""
        form = self._streams[stream]
        error = self._initialized.get(form.worker_init)
        if error is not None:
            raise error
        return form

    def drop_stream(self, stream: int) -> None:
        """Forget a stream and what was kept for it."""
        self._streams.pop(stream, None)
        self._pipelines.pop(stream, None)
        self._kept = {key: kept for key, kept in self._kept.items() if key[0] != stream}

    def add_cache(self, table: CacheTable, parts: Mapping[int, tuple[Part, int]]) -> None:
        """Make a cache known, and parts of it: number -> part and the number of its first block."""
        self._caches.add(table, parts)

    def add_memory(self, key: str, path: str) -> None:
        """Make the shared memory of a cache known."""
        self._caches.add_memory(key, path)

    def grant(self, key: str, slot: int) -> None:
        """Allow the next part of a cache to be written to a slot of its memory."""
        self._caches.grant(key, slot)

    def _slot(self, slot: int, size: int) -> NDArray[np.uint8]:
        assert self._ring is not None, "a reader without a ring has no slots"
        return self._ring.bytes(slot, size)

    def abandon(self) -> None:
        """Let all that this reader still does be lost; called from another thread, for one that can't be ended.

        Raises:
            OSError: Its mappings of shared memory can't be taken from it.
        """
        self._caches.abandon()
        if self._ring is not None:
            self._ring.revoke()

    def close(self) -> None:
        """Write what was collected for caches, and close all files."""
        self._caches.close()
        self._sources.close()
        if self._ring is not None:
            self._ring.forget()

    # ---- reading ---------------------------------------------------------------------------------------------------

    def read(self, task: Read) -> ReadDone:
        """Read events into the slots of their batches, and finish the batch if that was asked for and all went well."""
        done = self._read(task)
        if task.finish is not None and not done.failures:
            done.finished = self.finish(task.finish)
        return done

    def _read(self, task: Read) -> ReadDone:
        assert self._ring is not None
        form = self._form(task.stream)
        done = ReadDone(np.zeros(6, np.int64), [])
        at = self._destinations(form, task)
        if task.at:  # events of different lengths are not kept: they are decoded again where a unit was cut
            self._read_all(form, task, at, done)
            return done
        remembered = np.zeros(len(task.row), bool)
        for unit in np.unique(task.unit).tolist() if self._kept else ():
            if (task.stream, unit) in self._kept:
                kept_rows = self._kept[task.stream, unit].rows
                here = np.flatnonzero((task.unit == unit) & np.isin(task.row, kept_rows))
                remembered[here] = True
                self._recall(task, unit, here, at, done)
        if remembered.all():
            return done
        todo = np.flatnonzero(~remembered)
        fresh = [u for u in task.kept if (task.stream, u) not in self._kept and (task.unit[todo] == u).any()]
        kept = {unit: self._keep(form, task.kept[unit]) for unit in fresh}
        file = np.concatenate(
            [task.file[todo], *(np.full(len(k.rows), task.file[task.unit == u][0]) for u, k in kept.items())]
        )
        row = np.concatenate([task.row[todo], *(k.rows for k in kept.values())])
        addresses = {
            key.name: np.concatenate([at[key.name][todo], *(row_addresses(k.arrays[key.name]) for k in kept.values())])
            for key in form.keys
        }
        order = np.argsort(file, kind="stable")
        costs, failed = self._sources.read_events(
            form.catalog, file[order], row[order], {name: a[order] for name, a in addresses.items()}
        )
        done.costs += costs
        for request, error in failed.items():
            i = int(order[request])
            if i < len(todo):
                done.failures.append((int(task.slot[todo[i]]), int(task.place[todo[i]]), error))
                continue
            for unit, k in kept.items():
                if task.file[task.unit == unit][0] == file[i] and row[i] in k.rows:
                    k.failed[int(row[i])] = error
        self._kept.update(((task.stream, unit), k) for unit, k in kept.items())
        return done

    def _destinations(self, form: StreamForm, task: Read) -> dict[str, NDArray[np.uint64]]:
        """Addresses of each event's items, for each key."""
        assert self._ring is not None
        slots, one, which = np.unique(task.slot, return_index=True, return_inverse=True)
        bases, starts = [], []
        for slot, event in zip(slots.tolist(), one.tolist()):
            offsets, size = form.offsets({rows: int(totals[event]) for rows, totals in task.totals.items()})
            bases.append(self._ring.address(slot, size))
            starts.append(offsets)
        base = np.array(bases, np.uint64)[which]
        places = {}
        for key in form.keys:
            if key.rows:
                start = np.array([offsets[key.name] for offsets in starts], np.int64)[which]
                step = task.at[key.rows]
            else:
                start, step = np.full(len(which), key.offset), task.place
            places[key.name] = base + (start + step * key.row_bytes).astype(np.uint64)
        return places

    def _read_all(self, form: StreamForm, task: Read, at: Mapping[str, NDArray[np.uint64]], done: ReadDone) -> None:
        order = np.argsort(task.file, kind="stable")
        addresses = {name: address[order] for name, address in at.items()}
        costs, failed = self._sources.read_events(form.catalog, task.file[order], task.row[order], addresses)
        done.costs += costs
        for request, error in failed.items():
            i = int(order[request])
            done.failures.append((int(task.slot[i]), int(task.place[i]), error))

    def _keep(self, form: StreamForm, rows: Ints) -> _Kept:
        arrays = {key.name: np.empty((len(rows), key.row_bytes), np.uint8) for key in form.keys}
        return _Kept(rows, arrays, {})

    def _recall(self, task: Read, unit: int, here: Ints, at: Mapping[str, NDArray[np.uint64]], done: ReadDone) -> None:
        """Copy events that were decoded with an earlier window."""
        begun = time.perf_counter_ns()
        kept = self._kept[task.stream, unit]
        where = np.searchsorted(kept.rows, task.row[here])
        for name, array in kept.arrays.items():
            _core.copy_rows(row_addresses(array)[where], at[name][here], array.shape[1])
        for i in here[np.isin(task.row[here], list(kept.failed))].tolist() if kept.failed else ():
            done.failures.append((int(task.slot[i]), int(task.place[i]), kept.failed[int(task.row[i])]))
        if unit not in task.kept:
            del self._kept[task.stream, unit]
        done.costs[2] += time.perf_counter_ns() - begun

    # ---- the pipeline ----------------------------------------------------------------------------------------------

    def finish(self, task: Finish) -> Finished:
        """Run the pipeline on a batch that was read, and leave its tensors in the slot."""
        assert self._ring is not None
        begun = time.perf_counter_ns()
        form = self._form(task.stream)
        events = len(task.row)
        _, size = form.offsets({rows: int(count.sum()) for rows, count in task.counts.items()})
        slot = self._ring.bytes(task.slot, size)
        batch = form.arrays(slot, events, task.counts)
        batch.update(_identity(task))
        whole = np.ones(events, bool)
        whole[task.dropped] = False
        here = np.flatnonzero(whole)
        if not whole.all():
            batch = {name: take(values, here) for name, values in batch.items()}
        event = np.stack([task.file[here], task.row[here]], 1)
        pipeline = self._pipeline(task.stream)
        run: Run = pipeline if task.fresh is None else self._and_cache(form, task.stream, event, task.fresh[here])

        def again() -> Batch:
            return self._from_source(form, task, here)[0]

        result, failed = self._process(form, task, batch, event, run, again)
        finished = self._place(task.slot, slot, result, size)
        finished.failures = [(int(here[i]), error) for i, error in failed]
        if isinstance(result.get("event"), np.ndarray):
            finished.removed = max(0, len(here) - len(failed) - len(result["event"]))
        finished.written = self._caches.report(form)
        finished.total_ns = time.perf_counter_ns() - begun
        return finished

    def _pipeline(self, stream: int) -> Pipeline | NoSteps:
        pipeline = self._pipelines[stream]
        if isinstance(pipeline, ProcessError):
            raise pipeline
        return _NO_STEPS if pipeline is None else pipeline

    def _process(
        self,
        form: StreamForm,
        task: Finish | Recall,
        batch: Batch,
        event: Ints,
        run: Run,
        again: Callable[[], Batch],
        part: bool = False,
    ) -> tuple[Batch, list[tuple[int, HepfeedError]]]:
        """Run steps; where they raise, on each event alone to find which.

        Args:
            form: Of the stream.
            task: The batch.
            batch: Its arrays.
            event: ``(n, 2)`` file and row of its events.
            run: Applies the steps.
            again: Returns the arrays once more: a function may have changed its batch in place.
            part: Whether these are some events of a batch, all of which may be left out.
        """
        draws = Draws(form.seed, task.epoch, task.index, event)
        try:
            return run(batch, draws, not self._alone), []
        except Exception as error:
            first = error
        batch = again()
        good: list[Batch] = []
        bad: list[tuple[int, HepfeedError]] = []
        for i, (file, row) in enumerate(event.tolist()):
            alone = np.array([i])
            one = {name: take(values, alone) for name, values in batch.items()}
            try:
                good.append(run(one, draws.take(alone), not self._alone))
            except Exception as error:
                failure = process_error(error, self._sources.path(form.catalog, file), row)
                if not form.skip_errors:
                    raise failure from error
                bad.append((i, failure))
        if bad and not good and part:
            return {}, bad
        if not bad or not good:  # it raises for the batch as a whole
            file, row = event[0].tolist() if len(event) else (int(task.file[0]), None)
            raise process_error(first, self._sources.path(form.catalog, file), row) from first
        return {name: concatenate([part[name] for part in good]) for name in good[0]}, bad

    def _from_source(
        self, form: StreamForm, task: Finish | Recall, here: Ints
    ) -> tuple[Batch, dict[int, HepfeedError]]:
        """Read some events of a batch to arrays of their own; returns also the errors of those that can't be read."""
        file, row = task.file[here], task.row[here]
        counts = self._sources.counts(form.catalog, file, row, form.keys)
        arrays, addresses = empty_batch(form.keys, len(here), counts)
        order = np.lexsort((row, file))
        _, failed = self._sources.read_events(
            form.catalog, file[order], row[order], {name: a[order] for name, a in addresses.items()}
        )
        return {**arrays, **_identity(task, here)}, {int(order[i]): error for i, error in failed.items()}

    # ---- the cache -------------------------------------------------------------------------------------------------

    def flush(self, task: Flush) -> PartsWritten:
        """Write what was collected for the cache."""
        return self._caches.flush(self._streams[task.stream])

    def recall(self, task: Recall) -> Finished:
        """Read a batch from the cache, and run the steps behind it."""
        begun = time.perf_counter_ns()
        form = self._form(task.stream)
        slot = self._slot(task.slot, task.size)
        arena = _Arena(slot)
        fetched = self._caches.fetch(form, task, arena.allocate)
        if fetched.damaged:
            return Finished([], {}, {}, {}, 0, 0, [], damaged=fetched.damaged, again=True)
        batch, failed = self._completed(form, task, fetched)
        finished = self._after_cache(form, task, batch, failed, slot, arena.used)
        finished.costs = fetched.costs
        finished.written = self._caches.report(form)
        finished.total_ns = time.perf_counter_ns() - begun - int(fetched.costs.sum() - fetched.costs[3])
        return finished

    def recall_many(self, task: RecallMany) -> Recalled:
        """Read several batches from the cache, and run the steps behind it on each."""
        begun = time.perf_counter_ns()
        form = self._form(task.stream)
        slot = self._slot(task.slot, task.size)
        arena = _Arena(slot)
        whole = task.whole
        fetched = self._caches.fetch(form, whole, arena.allocate, task.bounds)
        if fetched.bad.any():
            return Recalled([], fetched.damaged, fetched.costs)
        event = arena.allocate("<i8", (len(task.row), 2))
        np.stack([task.file, task.row], 1, out=event)
        fetched.strips["event"] = {"": (event, task.bounds)}
        if task.weight is not None:
            weight = arena.allocate("<f4", (len(task.row),))
            weight[:] = task.weight
            fetched.strips["weight"] = {"": (weight, task.bounds)}
        strips = {
            name: {part: arena.strip(*placed) for part, placed in parts.items()}
            for name, parts in fetched.strips.items()
        }
        together = Strips(self._caches.forms(form), task.bounds, strips, arena.used)
        pipeline = self._pipeline(task.stream)
        if pipeline.cached == len(pipeline):
            return Recalled(together, [], fetched.costs)
        finished: list[Finished] = []
        used = arena.used
        spent = int(fetched.costs.sum() - fetched.costs[3])
        for number, one in enumerate(task.batches()):
            finished.append(self._after_cache(form, one, together.batch(number, slot), [], slot, used))
            used = finished[-1].bytes
            finished[-1].total_ns = time.perf_counter_ns() - begun - spent
            begun, spent = time.perf_counter_ns(), 0
        return Recalled(finished, [], fetched.costs)

    def _after_cache(
        self,
        form: StreamForm,
        task: Recall,
        batch: Batch,
        failed: list[tuple[int, HepfeedError]],
        slot: NDArray[np.uint8],
        used: int,
    ) -> Finished:
        """Run the steps behind the cache point on a batch, and leave its tensors in the slot."""
        pipeline = self._pipeline(task.stream)
        left = len(batch["event"])
        if pipeline.cached < len(pipeline) and left:
            event: Ints = batch["event"]

            def again() -> Batch:
                once_more = self._caches.fetch(form, task, _new_array)
                return self._completed(form, replace(task, fill=False), once_more)[0]

            batch, more = self._process(form, task, batch, event, pipeline.after_cache, again)
            failed += [(int(_places(task, event[i : i + 1])[0]), error) for i, error in more]
            left = len(batch.get("event", event))
        finished = self._place(task.slot, slot, batch, used)
        finished.failures = failed
        finished.removed = max(0, len(task.row) - len(failed) - left)
        return finished

    def _completed(
        self, form: StreamForm, task: Recall, fetched: Fetched
    ) -> tuple[Batch, list[tuple[int, HepfeedError]]]:
        """Return a batch as it is at the cache point; what the cache lacks is made of its source."""
        if not fetched.bad.any():
            return {**fetched.batch, **_identity(task, ..., label=False)}, []
        good = np.flatnonzero(~fetched.bad)
        batch = {**fetched.batch, **_identity(task, good, label=False)}
        failed: list[tuple[int, HepfeedError]] = []
        absent = np.flatnonzero(task.part == MISSING)
        if len(absent):
            made, failed = self._made(form, task, absent)
            if made:
                joined = {name: concatenate([values, made[name]]) for name, values in batch.items() if name in made}
                batch = joined if len(good) else made
        order = np.argsort(_places(task, batch["event"]), kind="stable")
        return {name: take(values, order) for name, values in batch.items()}, failed

    def _made(self, form: StreamForm, task: Recall, here: Ints) -> tuple[Batch, list[tuple[int, HepfeedError]]]:
        """Read some events of a batch from their sources, and run the steps before the cache point."""
        source, lost = self._from_source(form, task, here)
        failed = [(int(here[i]), lost[i]) for i in sorted(lost)]
        if failed and not form.skip_errors:
            raise failed[0][1]
        kept = np.setdiff1d(np.arange(len(here)), list(lost))
        if not len(kept):
            return {}, failed
        if lost:
            source = {name: take(values, kept) for name, values in source.items()}
        here = here[kept]
        event = source["event"]
        run = self._before_cache(form, task.stream, event, np.full(len(here), task.fill))
        made, wrong = self._process(
            form, task, source, event, run, lambda: self._from_source(form, task, here)[0], part=True
        )
        return made, failed + [(int(here[i]), error) for i, error in wrong]

    def _before_cache(self, form: StreamForm, stream: int, event: Ints, fresh: NDArray[np.bool_]) -> Run:
        """Return the steps before the cache point, which write what comes out.

        Args:
            form: Of the stream.
            stream: Its number.
            event: ``(n, 2)`` file and row of the events.
            fresh: ``(n,)`` which of them are to be written.
        """
        pipeline = self._pipeline(stream)
        fresh = fresh.copy()
        written = False

        def run(batch: Batch, draws: Draws, restore: bool) -> Batch:
            # Called for all events; where a step raises, for each of them alone.
            nonlocal written
            whole = len(draws.event) == len(event)
            same = (event == draws.event).all(1) if not whole else np.ones(len(event), bool)
            which = fresh if whole else np.array([fresh[same].any()])  # an event may come twice
            wanted = not written and bool(which.any())
            result = self._caches.process(form, pipeline, batch, draws, restore, which if wanted else None)
            written = written or whole
            if not whole:
                fresh[same] = False
            return result

        return run

    def _and_cache(self, form: StreamForm, stream: int, event: Ints, fresh: NDArray[np.bool_]) -> Run:
        """Return all steps, with the cache between them."""
        pipeline, before = self._pipeline(stream), self._before_cache(form, stream, event, fresh)

        def run(batch: Batch, draws: Draws, restore: bool) -> Batch:
            return pipeline.after_cache(before(batch, draws, restore), draws, restore)

        return run

    # ---- the slot --------------------------------------------------------------------------------------------------

    def _place(self, slot_number: int, slot: NDArray[np.uint8], result: Batch, used: int) -> Finished:
        """Put arrays into the slot, behind what was read; those that still lie there are left where they are."""
        assert self._ring is not None
        start = slot.ctypes.data
        finished = Finished(list(result), {}, {}, {}, used, 0, [])
        moving: list[tuple[NDArray[Any], int]] = []
        places: dict[tuple[int, int], int] = {}  # arrays that occur twice, as sites do in kernel maps, lie there once
        for name, value in result.items():
            if isinstance(value, Structured):
                finished.structures[name] = value.without_arrays()
                parts = value.arrays()
            else:
                array = value if isinstance(value, np.ndarray) else _as_array(value)
                if array is None or array.dtype.kind not in "biufc" or array.dtype.itemsize > 16:
                    finished.inline[name] = value
                    continue
                parts = {"": array}
            for part, given in parts.items():
                array = given.astype(given.dtype.newbyteorder("="), copy=False)
                at = array.ctypes.data - start
                if array.flags.c_contiguous and 0 <= at <= len(slot) - array.nbytes and array.nbytes:
                    finished.tensors[name, part] = (array.dtype.str, array.shape, at)
                    continue
                same = (array.ctypes.data, array.nbytes) if array.flags.c_contiguous and array.nbytes else None
                if same in places:
                    finished.tensors[name, part] = (array.dtype.str, array.shape, places[same])
                    continue
                used = aligned(used)
                finished.tensors[name, part] = (array.dtype.str, array.shape, used)
                moving.append((array, used))
                if same is not None:
                    places[same] = used
                used += array.nbytes
        if moving:
            target = self._ring.bytes(slot_number, used)
            for array, at in moving:
                if array.flags.c_contiguous:
                    there = np.array([target.ctypes.data + at], np.uint64)
                    _core.copy_rows(np.array([array.ctypes.data], np.uint64), there, array.nbytes)
                else:
                    target[at : at + array.nbytes].view(array.dtype).reshape(array.shape)[...] = array
        finished.bytes = used
        return finished


def _identity(task: Finish | Recall, here: Any = ..., label: bool = True) -> Batch:
    """What a batch has beside its keys; of some of its events."""
    made: Batch = {"label": task.label[here].copy()} if label else {}
    made["event"] = np.stack([task.file[here], task.row[here]], 1)
    if task.weight is not None:
        made["weight"] = task.weight[here].copy()
    return made


def _places(task: Recall, event: Ints) -> Ints:
    """Places in a batch of events ``(n, 2)`` that are in it."""
    base = int(task.row.max(initial=0)) + 1
    number, order = task.file * base + task.row, np.lexsort((task.row, task.file))
    return order[np.searchsorted(number, event[:, 0] * base + event[:, 1], sorter=order)]


def _new_array(dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    return np.empty(shape, dtype)


class _Arena:
    """Memory of a slot, taken from its beginning."""

    def __init__(self, slot: NDArray[np.uint8]) -> None:
        self._slot = slot
        self._begin = slot.ctypes.data
        self.used = 0

    def strip(self, array: NDArray[Any], edges: tuple[int, ...]) -> Strip:
        """Describe an array that lies here."""
        at = array.ctypes.data - self._begin
        assert 0 <= at <= len(self._slot) - array.nbytes or not array.nbytes, "the slot has room for all arrays"
        return Strip(array.dtype.str, array.shape[1:], at, edges)

    def allocate(self, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """Return an array in the slot; one of its own where there is no room left."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if self.used + size > len(self._slot):
            return np.empty(shape, dtype)
        made = self._slot[self.used : self.used + size].view(dtype).reshape(shape)
        self.used = aligned(self.used + size)
        return made


def _as_array(value: object) -> NDArray[Any] | None:
    if not hasattr(value, "__array__") and not isinstance(value, int | float | list | tuple):
        return None
    try:
        array: NDArray[Any] = np.asarray(value)
    except ValueError:  # ragged
        return None
    return array


def _worded(error: Exception, text: str) -> Exception:
    """Return an exception of the same type with another text; a RuntimeError where the type takes none."""
    try:
        again = type(error)(text)
        pickle.loads(pickle.dumps(again))
    except Exception:
        return RuntimeError(text)
    return again


def process_error(error: Exception, path: str, event: int | None) -> HepfeedError:
    """Say on which event the pipeline failed."""
    if isinstance(error, HepfeedError):  # of a step: it says what is wrong itself
        found = type(error)(error.message, file=path, key=error.key, event=event)
        found.__cause__ = error
        return found
    import traceback

    text = "".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip()
    which = "" if event is None else f" on event {event} of {path!r}"
    return ProcessError(
        f"process_fn or transform raised {type(error).__name__}: {error}{which}\n\n{text}", file=path, event=event
    )
