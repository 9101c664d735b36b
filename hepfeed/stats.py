"""Where the time went: seconds of each stage, queues, and the bottleneck by name."""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from hepfeed.bottleneck import READER_STAGES, diagnose
from hepfeed.errors import SpecError
from hepfeed.processors import usable_processors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Group

__all__ = ["STAGES", "TICK_S", "FeedStats", "Listener", "StageClock"]

STAGES = (*READER_STAGES, "wait", "transfer")
TICK_S = 0.5
"""A clock that runs tells its listeners so often, where requests or waits for batches let it."""

_QUEUES = ("planned", "in_hand", "ready", "slots", "slots_free")
_WAITS = ("starting", "no_room")
_COUNTS = (
    *("events", "batches", "skipped", "removed", "restarts", "copies", "cache_hits", "cache_misses"),
    *("bytes_read", "bytes_inflated", "chunks", "bytes_sent"),
)
_SUMS = (*STAGES, *_WAITS, *_COUNTS, "seconds")


class FeedStats(dict[str, Any]):
    """What :meth:`hepfeed.DataLoader.stats` returns; a dict that prints as a table, of what JSON can hold.

    Keys:
        read, inflate, scatter, transform: Seconds of all readers together; ``transform`` is the pipeline.
        wait: Seconds that the consumer waited for a batch; without readers, for the memory of the slots only.
        transfer: Seconds of the consumer's process for dispatch, views, ``outputs`` and ``delivery_fn``, and to begin
            the copies to a device; the copies themselves run beside.
        starting: Seconds of ``wait`` until the first reader was there, and slots had their memory.
        no_room: Seconds of ``wait`` in which a reader had nothing to do because all slots ahead were taken.
        readers: Number of readers (0: in the consumer's process).
        seconds: From the first request of an epoch to the last batch, over all epochs.
        events, batches: Delivered.
        skipped: Events left out by ``on_error="skip"``.
        removed: Events that steps of the pipeline took out, such as those that are not finite.
        restarts: Readers that died and were replaced.
        copies: Batches that were copied because the consumer kept earlier ones.
        cache_hits, cache_misses: Events that came from the cache, and that it did not have; both 0 without a cache.
        bytes_read, bytes_inflated, chunks: From the files or the cache, and after decoding.
        bytes_sent: Copied to a device.
        by_reader: Seconds of each reader in ``read``, ``inflate``, ``scatter`` and ``transform``.
        queues: Batches now: ``planned`` but with no reader, ``in_hand`` of readers, ``ready`` for the consumer; and
            ``slots`` of shared memory, of which ``slots_free`` hold nothing.  All 0 where no epoch runs.
        events_per_s: ``events / seconds``.
        mb_read_per_s, mb_inflated_per_s: In 10^6 bytes, over ``seconds``.
        wait_fraction: ``wait / seconds``.
        busy: Part of their time that the readers were busy.
        busy_by_stage: The same for each of their stages.
        waiting: Seconds of all readers together without work.
        setting: What matters for the advice: ``feed`` (``"events"``, or ``"dataset"`` of any other kind), ``cache``
            (``"on"``, ``"filling"``, ``"unwritten"`` where it is incomplete and this loader does not write it,
            ``"off"``, ``"needless"`` where it would save no work, ``"none"`` where there can be none),
            ``prefetch_factor``, ``persistent``, ``delivery_fn``, and ``processors`` that may be used.
        bottleneck: A stage's name, ``"consumer"``, ``"start"``, ``"restarts"``, ``"ring"``, ``"stall"`` or ``"none"``.
        advice: What it is and what to do about it, in a sentence; see :mod:`hepfeed.bottleneck`.

    Over any other dataset than an :class:`~hepfeed.EventDataset`, or with a ``collate_fn``, ``transform`` is all that
    is done for a batch: the dataset's own methods, ``collate_fn``, and in a reader the way into shared memory.
    ``read``, ``inflate``, ``scatter``, ``skipped``, ``removed``, ``bytes_read``, ``bytes_inflated`` and ``chunks`` are
    0 there, because only the dataset could know them; ``events`` are the examples that were taken from it.
    """

    @classmethod
    def of(cls, sums: Mapping[str, float], by_reader: Sequence[Sequence[float]], state: Mapping[str, Any]) -> FeedStats:
        """Return all figures.

        Args:
            sums: Those that only grow: stages, counts and seconds.
            by_reader: Seconds of each reader in each of its stages.
            state: ``readers``, ``queues`` and ``setting``.
        """
        seconds = sums["seconds"]
        busy = sum(sums[stage] for stage in READER_STAGES)
        # What readers do for the next epoch, while none runs, may be more than the time that was counted.
        available = max(seconds * max(1, state["readers"]), busy)
        by_stage = {stage: sums[stage] / available if available else 0.0 for stage in READER_STAGES}
        stats = cls(
            **sums,
            **state,
            by_reader=[list(row) for row in by_reader],
            waiting=available - busy if state["readers"] else 0.0,
            busy=busy / available if available else 0.0,
            busy_by_stage=by_stage,
            wait_fraction=min(1.0, sums["wait"] / seconds) if seconds else 0.0,
            events_per_s=sums["events"] / seconds if seconds else 0.0,
            mb_read_per_s=sums["bytes_read"] / seconds / 1e6 if seconds else 0.0,
            mb_inflated_per_s=sums["bytes_inflated"] / seconds / 1e6 if seconds else 0.0,
        )
        stats["bottleneck"], stats["advice"] = diagnose(stats)
        return stats

    def since(self, earlier: Mapping[str, Any]) -> FeedStats:
        """Return the figures of the time between an earlier report of the same loader and this one.

        Raises:
            SpecError: It is not an earlier one: something in it is larger.
        """
        sums = {name: self[name] - earlier[name] for name in _SUMS}
        wrong = [name for name, value in sums.items() if value < 0]
        if wrong:
            raise SpecError(f"since() needs an earlier report of the same loader: {', '.join(wrong)} was larger there")
        before = dict(enumerate(earlier["by_reader"]))
        nothing = [0.0] * len(READER_STAGES)
        rows = [
            [max(0.0, now - then) for now, then in zip(row, before.get(number, nothing))]
            for number, row in enumerate(self["by_reader"])
        ]
        return FeedStats.of(sums, rows, {name: self[name] for name in ("readers", "queues", "setting")})

    def __rich__(self) -> Group:
        from hepfeed.stats_table import stats_table

        return stats_table(self)

    def __str__(self) -> str:
        stages = ", ".join(f"{stage} {self[stage]:.3f} s" for stage in STAGES)
        return f"{self['events_per_s']:.0f} events/s ({stages}); bottleneck: {self['advice']}"


class Observed(Protocol):
    """An epoch that runs."""

    def queues(self) -> dict[str, int]:
        """Return ``planned``, ``in_hand``, ``ready``, ``slots`` and ``slots_free``, as :class:`FeedStats` has them."""
        ...

    @property
    def reader_pids(self) -> list[int]:
        """Process numbers of its readers."""
        ...


class StageClock:
    """Adds up what :class:`FeedStats` reports; one for each loader.

    Args:
        clock: Tells the time, in seconds.
        readers: Number of readers.
        setting: As in :class:`FeedStats`, what differs from the default.
        listeners: Called with this clock about every :data:`TICK_S` while an epoch runs, from :meth:`begin`, so in the
            thread of the consumer.

    Attributes:
        name: Of the loader, for who looks at several.
        stages: Seconds, by stage.
        waits: Seconds of the wait that have a cause of their own, by key of :class:`FeedStats`.
        counts: By name.
        by_reader: As in :class:`FeedStats`.
        seconds: While epochs ran.
        readers: Number of readers.
        setting: As in :class:`FeedStats`.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        *,
        readers: int = 0,
        setting: Mapping[str, Any] | None = None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self._clock = clock
        self.name = "loader"
        self.stages = dict.fromkeys(STAGES, 0.0)
        self.waits = dict.fromkeys(_WAITS, 0.0)
        self.counts = dict.fromkeys(_COUNTS, 0)
        self.by_reader: list[list[float]] = []
        self.seconds = 0.0
        self.readers = readers
        self.setting: dict[str, Any] = {
            "feed": "events",
            "cache": "none",
            "prefetch_factor": 0,
            "persistent": False,
            "delivery_fn": False,
            "processors": usable_processors(),
            **(setting or {}),
        }
        self._last: float | None = None
        self._listeners = tuple(listeners)
        self._due = math.inf
        self._observed: weakref.ref[Observed] | None = None

    # ---- time ------------------------------------------------------------------------------------------------------

    def start(self, observed: Observed | None = None) -> None:
        """Mark the start of an epoch; what passed since a loop was left does not count.

        Args:
            observed: It; the clock does not keep it alive.
        """
        self._last = self._clock()
        self._observed = None if observed is None else weakref.ref(observed)
        if self._listeners and self._due == math.inf:
            self._due = self._last + TICK_S

    def begin(self) -> float:
        """Mark a request, or a moment within it or within a wait; returns the time."""
        now = self._clock()
        if self._last is not None:
            self.seconds += now - self._last
        self._last = now
        if now >= self._due:
            self._due = now + TICK_S
            for listener in self._listeners:
                listener(self)
        return now

    def end(self) -> None:
        """Mark the end of an epoch."""
        self.begin()
        self._last = None

    def since(self, begun: float) -> float:
        """Return seconds since ``begun``."""
        return self._clock() - begun

    # ---- what was done ---------------------------------------------------------------------------------------------

    def add_read(self, costs: NDArray[np.int64], reader: int = 0) -> None:
        """Add what a reader reported, as :data:`hepfeed._core.Costs`.

        Args:
            costs: ``(6,)``: nanoseconds to read, inflate and scatter; bytes that were read and inflated, and chunks.
            reader: Its number.
        """
        row, stages, counts = self._row(reader), self.stages, self.counts
        read_ns, inflate_ns, scatter_ns, read, inflated, chunks = costs.tolist()
        for place, spent in enumerate((read_ns, inflate_ns, scatter_ns)):
            stages[READER_STAGES[place]] += spent * 1e-9
            row[place] += spent * 1e-9
        counts["bytes_read"] += read
        counts["bytes_inflated"] += inflated
        counts["chunks"] += chunks

    def add_transform(self, seconds: float, reader: int = 0) -> None:
        """Add what a reader spent in the pipeline."""
        self.stages["transform"] += seconds
        self._row(reader)[3] += seconds

    def _row(self, reader: int) -> list[float]:
        while len(self.by_reader) <= reader:
            self.by_reader.append([0.0] * len(READER_STAGES))
        return self.by_reader[reader]

    def add_wait(self, begun: float, *, starting: bool, no_room: bool) -> float:
        """Add what passed since ``begun`` to the consumer's wait; returns it.

        Args:
            begun: When the wait began.
            starting: Whether there was no reader yet.
            no_room: Whether a reader had nothing to do for lack of slots.
        """
        seconds = self.begin() - begun
        self.stages["wait"] += seconds
        if starting:
            self.waits["starting"] += seconds
        elif no_room:
            self.waits["no_room"] += seconds
        return seconds

    def add_start(self, seconds: float) -> None:
        """Add what the memory of slots took: a wait before the feed runs."""
        self.stages["wait"] += seconds
        self.waits["starting"] += seconds

    # ---- what is reported ------------------------------------------------------------------------------------------

    @property
    def reader_pids(self) -> list[int]:
        """Process numbers of the readers of an epoch that runs."""
        observed = self._observed() if self._observed is not None else None
        return [] if observed is None else observed.reader_pids

    def report(self) -> FeedStats:
        """Return the figures so far."""
        observed = self._observed() if self._observed is not None else None
        queues = dict.fromkeys(_QUEUES, 0) if observed is None else observed.queues()
        sums = {**self.stages, **self.waits, **self.counts, "seconds": self.seconds}
        state = {"readers": self.readers, "queues": queues, "setting": dict(self.setting)}
        return FeedStats.of(sums, self.by_reader, state)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": None, "_due": math.inf, "_observed": None}


Listener = Callable[[StageClock], None]
"""Is told that a clock runs."""
