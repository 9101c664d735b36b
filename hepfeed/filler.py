"""The filler: decides which events of which file make each batch.

The order of events is a pure function of (specification, seed, epoch): never of the number of readers, of timing or of
a crash.  Events are drawn from *lanes*, one for each rate; a lane's order is laid out over canonical partitions, so
that ranks share the work by partition and a chunk is decoded on one rank only, but for the end of an epoch.

Consecutive batches form a *window*, whose events readers decode together, each chunk once.  Events are dealt to batches
in *rounds* of fixed size, a few of them at a time; a round is a batch, unless batches are packed by their points.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, pairwise
from typing import Literal, get_args

import numpy as np
import xxhash
from numpy.typing import NDArray

from hepfeed.batch_spec import BatchSpec, Window, window_of
from hepfeed.errors import SpecError, nearest
from hepfeed.index import EventIndex
from hepfeed.lane import Arranged, Lane, LaneLayout, lay_out, unit_starts
from hepfeed.order import Permutations, generator
from hepfeed.packing import Oversize, Packing
from hepfeed.partition import share_of
from hepfeed.quotas import Composition, Exhausted, Quotas

__all__ = ["BatchSpec", "Filler", "Order", "Window", "windows_of"]

Order = Literal["auto", "full", "window", "mixed", "sequential"]
Ints = NDArray[np.int64]

WINDOW_EVENTS = 2048
_BLOCKS_PER_WINDOW = 4  # of each lane: fewer would leave neighbours together, more cost memory
_PACKED_ROUNDS = 64  # padding of log-normal lengths (sigma 1) to the longest of a matched batch: 28 %; 16 rounds: 85 %
_PLANNED_ROUNDS = 16  # of batches that are read for themselves: NumPy is called once for all of them
_PLANNED_EVENTS = 2048  # of these, lest a consumer that waits for a large batch waits for the plan of sixteen
_PLANS = 4  # epochs whose plan is kept
_logger = logging.getLogger("hepfeed")


@dataclass(frozen=True)
class _Deal:
    """Events of a few rounds, cut into batches.

    Attributes:
        event: ``(n,)`` place in the index, batch by batch.
        unit: ``(n,)`` unit of each.
        bounds: ``(batches + 1,)`` where each batch begins.
        kept: As in :class:`Window`.
        oversize: How many events had more than ``max_points``.
    """

    event: Ints
    unit: Ints
    bounds: Ints
    kept: dict[int, Ints]
    oversize: int


@dataclass(frozen=True)
class _Plan:
    """How an epoch falls into batches.

    Attributes:
        first: ``(deals + 1,)`` first batch of each deal.
        events: Events that are delivered.
        oversize: As in :class:`_Deal`.
    """

    first: Ints
    events: int
    oversize: int


class Filler:
    """Makes the batch specifications of every epoch.

    Args:
        index: The events.
        batch_size: Events of a batch.
        order: ``"full"``: each epoch a random permutation.  ``"window"``: blocks of events that share chunks come in
            random order, and events are shuffled within windows of several blocks of every lane: each chunk is decoded
            once.  ``"mixed"``: lanes mixed by their rates, files in their order.  ``"sequential"``: the order of the
            index; rates are not used.  ``"auto"``: ``"window"`` where events share chunks, else ``"full"``.
        seed: Another seed, another order.
        drop_last: Leave out an incomplete last batch: with ``max_points`` one that neither limit would have ended.
        composition: ``"exact"`` quotas of the rates in each batch, or ``"random"`` ones.
        exhausted: When a lane has no events left: ``"drain"`` goes on without it, so that every event comes exactly
            once; ``"wrap"`` starts it again in a new order until every lane was delivered once; ``"stop"`` ends
            the epoch.
        skip: Events passed over at the beginning of each epoch, in all partitions together.
        max_events: Most events of an epoch, in all partitions together.
        window_events: Events of a window, at least; by default 2,048 or four blocks of every lane, whichever is more
            (with ``length_matched`` or ``max_points`` at least 64 batches), within ``window_bytes``.
        window_bytes: Most bytes of a window.
        partition: Which of ``partitions`` this filler serves.
        partitions: Canonical partitions of the order.  Every event is in one of them, and all events of a unit in the
            same, so that no chunk is decoded for two; see :func:`hepfeed.lane.lay_out`.
        length_matched: Batches of events of similar length (number of points): those of a window are sorted by length
            and cut into batches, which come in random order (``"sequential"``: in the order of their first events).
            Equal lengths, and the events of a batch, keep the window's order.  Larger windows match better: lengths
            that are log-normal with sigma 1 take 28 % of padding in windows of 64 batches, 85 % in windows of 16.
        max_points: Most points of a batch.  ``batch_size`` is the most events then, and the number of batches of an
            epoch depends on its order.  The batches of a window are about equally full, so that none is left nearly
            empty.
        oversize: What becomes of an event with more than ``max_points``: a batch of its own (``"alone"``), a SpecError
            (``"raise"``), or it is left out (``"skip"``).  :meth:`oversize_events` counts them, and they are logged.
        lengths: Gives the number of points of events from their places in the index, ``(n,) int64`` both; needed for
            ``length_matched`` and ``max_points``.

    With ``length_matched`` the shares of the rates hold for a window and not for each batch, because classes differ in
    their lengths; with ``max_points`` alone they hold for a batch about as well as its random cut allows.  Where events
    do not share chunks, or in the order ``"full"``, such a window takes no memory: each batch is read for itself, and
    ``window_bytes`` does not limit it.

    Raises:
        SpecError: An option is out of its range, or lengths are needed and not there.

    Attributes:
        window_batches: Batches that are read together; about as many with ``max_points``, see
            :meth:`window_batches_in`.
    """

    def __init__(
        self,
        index: EventIndex,
        *,
        batch_size: int,
        order: Order = "auto",
        seed: int = 0,
        drop_last: bool = False,
        composition: Composition = "exact",
        exhausted: Exhausted = "drain",
        skip: int = 0,
        max_events: int | None = None,
        window_events: int | None = None,
        window_bytes: int = 256 << 20,
        partition: int = 0,
        partitions: int = 1,
        length_matched: bool = False,
        max_points: int | None = None,
        oversize: Oversize = "alone",
        lengths: Callable[[Ints], Ints] | None = None,
    ) -> None:
        _one_of("order", order, get_args(Order))
        _one_of("composition", composition, get_args(Composition))
        _one_of("exhausted", exhausted, get_args(Exhausted))
        _one_of("oversize", oversize, get_args(Oversize))
        _at_least("batch_size", batch_size, 1)
        _at_least("skip", skip, 0)
        if max_events is not None:
            _at_least("max_events", max_events, 1)
        if window_events is not None:
            _at_least("window_events", window_events, 1)
        if max_points is not None:
            _at_least("max_points", max_points, 1)
        elif oversize != "alone":
            raise SpecError(f"oversize={oversize!r} needs max_points, which says how many points are too many")
        if not 0 <= partition < partitions:
            raise SpecError(f"partition must be in 0..{partitions - 1}, not {partition}")
        self.index = index
        self.batch_size = batch_size
        self.seed = int(seed)
        self._permutation = Permutations(self.seed)
        self.drop_last = drop_last
        self.skip = skip
        self.max_events = max_events
        self.partition, self.partitions = partition, partitions
        self._composition: Composition = composition
        self._exhausted: Exhausted = exhausted
        if order == "sequential" and exhausted != "drain":
            raise SpecError(f"exhausted={exhausted!r} needs lanes that are mixed by rates: use order='mixed'")
        shared = max(source.block for source in index.sources) > 1
        self.order: Arranged = ("window" if shared else "full") if order == "auto" else order
        if self.order == "sequential":
            self._ranges: list[tuple[float, int, int]] = [(1.0, 0, len(index))]
        else:
            self._ranges = [(group.rate or float(len(group)), group.start, group.stop) for group in index.groups]
        self._packing: Packing | None = None
        if length_matched or max_points is not None:
            length = self._read_lengths(lengths)
            self._packing = Packing(length, batch_size, length_matched, max_points, oversize)
            if oversize == "raise" and self._packing.oversized.any():
                raise self._oversize_error(self._packing)
        self._budget = max_points is not None
        self._round = self._packing.typical_size() if self._packing else batch_size
        self._together = shared and self.order != "full"  # else nothing is gained by reading several batches at once
        self._deal_rounds = self._rounds(window_events, window_bytes)
        self.window_batches = self._deal_rounds if self._together else 1
        self._totals: dict[int, int] = {}
        self._skip = share_of(skip, partition, partitions)
        self._limit = None if max_events is None else share_of(max_events, partition, partitions)
        self._plans: dict[int, _Plan] = {}

    @property
    def packs(self) -> bool:
        """Whether ``max_points`` limits the batches, so that their sizes vary."""
        return self._budget

    def _read_lengths(self, lengths: Callable[[Ints], Ints] | None) -> Ints:
        n = len(self.index)
        if lengths is None:
            raise SpecError("length_matched and max_points need events of different lengths: name a jagged key")
        length = np.asarray(lengths(np.arange(n, dtype=np.int64)))
        if length.shape != (n,) or length.dtype.kind not in "iu" or length.min() < 0:
            raise SpecError(
                f"lengths must be {n} numbers of points, none below 0, not {length.dtype} of shape {length.shape}"
            )
        return length.astype(np.int64, copy=False)

    def _oversize_error(self, packing: Packing) -> SpecError:
        worst = int(packing.length.argmax())
        (file,) = self.index.file_of(np.array([worst])).tolist()
        path, row = self.index.sources[file].path, int(self.index.rows[worst])
        return SpecError(
            f"max_points={packing.max_points}, but {packing.oversized.sum()} events have more points, the most"
            f" event {row} of {path!r} with {packing.length[worst]}: choose a larger max_points, or oversize='alone' or"
            " 'skip'",
            file=path,
            event=row,
        )

    def _rounds(self, window_events: int | None, window_bytes: int) -> int:
        """Return how many rounds are dealt at a time."""
        if not self._together and self._packing is None:
            return 1 if self.order == "window" else max(1, min(_PLANNED_ROUNDS, _PLANNED_EVENTS // self._round))
        if window_events is None:
            blocks = max(source.block for source in self.index.sources) * len(self._ranges) * _BLOCKS_PER_WINDOW
            window_events = max(WINDOW_EVENTS, blocks if self.order == "window" else 0)
            if self._packing is not None:
                window_events = max(window_events, _PACKED_ROUNDS * self._round)
            if self._together:
                window_events = min(window_events, window_bytes // max(1, self.index.event_bytes))
        return max(1, -(-window_events // self._round))

    @cached_property
    def _layouts(self) -> list[LaneLayout]:
        ranges = [(start, stop) for _, start, stop in self._ranges]
        unit_start = np.empty(0, np.int64) if self.order == "full" else unit_starts(self.index)
        return lay_out(ranges, self.order, self.seed, unit_start, self.partition, self.partitions)

    def fingerprint(self) -> str:
        """Return 32 hexadecimal digits that change with anything that changes the order of events."""
        index = self.index
        shape = (self.order, self.batch_size, self.window_batches, self.partitions)
        draws = (self.seed, self._composition, self._exhausted, self.drop_last, self.skip, self.max_events)
        digest = xxhash.xxh3_128(repr((shape, draws, self._ranges, [s.block for s in index.sources])).encode())
        digest.update(index.rows.tobytes())
        digest.update(index.file_start.tobytes())
        if self._packing is not None:
            packing = (self._packing.matched, self._packing.max_points, self._packing.oversize, self._deal_rounds)
            digest.update(repr(packing).encode())
            digest.update(self._packing.length.tobytes())
        return digest.hexdigest()

    # ---- lengths ---------------------------------------------------------------------------------------------------

    def _start(self, epoch: int) -> tuple[list[Lane], Quotas]:
        lanes = [Lane(layout, epoch) for layout in self._layouts]
        quotas, skipped = self._quotas(epoch)
        for lane, count in zip(lanes, skipped):
            lane.skip(count)
        return lanes, quotas

    def _quotas(self, epoch: int) -> tuple[Quotas, list[int]]:
        """Return the quotas of an epoch, and how many events of each lane are passed over."""
        quotas = Quotas(
            [rate for rate, _, _ in self._ranges],
            [layout.size for layout in self._layouts],
            composition=self._composition,
            exhausted=self._exhausted,
            seed=self.seed,
            epoch=epoch,
        )
        return quotas, quotas.next(self._skip)

    def events(self, epoch: int = 0) -> int:
        """Return the number of events that an epoch delivers."""
        return self._plan(epoch).events if self._budget else self._total(epoch)

    def batches_in(self, epoch: int = 0) -> int:
        """Return the number of batches of an epoch; with ``max_points`` by planning it: about 2 s for 1e6 events."""
        return int(self._plan(epoch).first[-1])

    def window_batches_in(self, epoch: int = 0) -> int:
        """Return the most batches that are read together in an epoch."""
        if not (self._together and self._budget):
            return self.window_batches
        return int(np.diff(self._plan(epoch).first).max(initial=1))

    def oversize_events(self, epoch: int = 0) -> int:
        """Return how many events of an epoch have more than ``max_points``, and are alone or left out."""
        return self._plan(epoch).oversize

    def _plan(self, epoch: int) -> _Plan:
        """Lay out the batches of an epoch, without reading; the last epochs' plans are remembered."""
        if epoch in self._plans:
            return self._plans[epoch]
        if self._packing is not None and self._packing.max_points is not None:
            first, events, oversize = [0], 0, 0
            for deal in self._deals(epoch, 0):
                first.append(first[-1] + len(deal.bounds) - 1)
                events += len(deal.event)
                oversize += deal.oversize
            plan = _Plan(np.array(first, np.int64), events, oversize)
            if oversize and not self._plans:
                what = "are left out" if self._packing.oversize == "skip" else "are batches of their own"
                limit = self._packing.max_points
                _logger.warning("%d events of epoch %d have more than %d points and %s", oversize, epoch, limit, what)
        else:
            events = self._total(epoch)
            n_batches = -(-events // self.batch_size)
            plan = _Plan(np.append(np.arange(0, n_batches, self._deal_rounds), n_batches).astype(np.int64), events, 0)
        while len(self._plans) >= _PLANS:
            del self._plans[next(iter(self._plans))]
        self._plans[epoch] = plan
        return plan

    def _total(self, epoch: int) -> int:
        """Return the number of events that an epoch takes from the lanes."""
        varies = self._composition == "random" and self._exhausted != "drain"
        key = epoch if varies else 0
        if key not in self._totals:
            self._totals = {key: self._count(epoch)}
        return self._totals[key]

    def _count(self, epoch: int) -> int:
        limit = self._limit
        sizes = [layout.size for layout in self._layouts]
        if self._exhausted == "drain":
            total = max(0, sum(sizes) - self._skip)
        else:
            quotas, _ = self._quotas(epoch)
            seen = [0] * len(sizes)
            total = 0
            while limit is None or total < limit:
                if self._exhausted == "wrap" and all(n >= size for n, size in zip(seen, sizes)):
                    break
                counts = quotas.next(self._round)
                if not any(counts):
                    break
                seen = [n + count for n, count in zip(seen, counts)]
                total += sum(counts)
        total = total if limit is None else min(total, limit)
        return total - total % self.batch_size if self.drop_last and not self._budget else total

    # ---- the order -------------------------------------------------------------------------------------------------

    def windows(self, epoch: int, first_batch: int = 0) -> Iterator[Window]:
        """Yield the windows of an epoch.

        Args:
            epoch: Epoch.
            first_batch: Batch to begin with; the batches from there on are those of an undisturbed epoch.
        """
        for begin, deal in self._deals_from(epoch, first_batch):
            yield from self._windows(epoch, begin, deal, max(0, first_batch - begin))

    def batches(self, epoch: int, first_batch: int = 0) -> Iterator[BatchSpec]:
        """Yield the batch specifications of an epoch, from ``first_batch`` on."""
        for begin, deal in self._deals_from(epoch, first_batch):
            yield from self._specs(epoch, begin, deal)[max(0, first_batch - begin) :]

    def _deals_from(self, epoch: int, first_batch: int) -> Iterator[tuple[int, _Deal]]:
        """Yield deals and the first batch of each, from the one that has ``first_batch`` on."""
        first = self._plan(epoch).first
        if first_batch < first[-1]:
            number = int(np.searchsorted(first, first_batch, side="right")) - 1
            yield from zip(first[number:].tolist(), self._deals(epoch, number))

    def _deals(self, epoch: int, number: int) -> Iterator[_Deal]:
        """Yield the deals of an epoch from deal ``number`` on."""
        total = self._total(epoch)
        n_rounds = -(-total // self._round)
        lanes, quotas = self._start(epoch)
        for _ in range(number * self._deal_rounds):
            for lane, count in zip(lanes, quotas.next(self._round)):
                lane.skip(count)
        for begin in range(number * self._deal_rounds, n_rounds, self._deal_rounds):
            end = min(begin + self._deal_rounds, n_rounds)
            sizes = [min(self._round, total - r * self._round) for r in range(begin, end)]
            counts = np.array([quotas.next(size) for size in sizes], np.int64)
            deal = self._deal(epoch, begin, counts, lanes)
            yield deal if self._packing is None else self._packed(self._packing, epoch, begin, deal, end == n_rounds)

    def _deal(self, epoch: int, begin: int, counts: Ints, lanes: list[Lane]) -> _Deal:
        """Take events from the lanes and deal them to rounds.

        Args:
            epoch: Epoch.
            begin: First round.
            counts: ``(rounds, lanes)`` events.
            lanes: Where the events come from.
        """
        n_rounds = len(counts)
        events, units, rounds = [], [], []
        kept: dict[int, Ints] = {}
        for number, lane in enumerate(lanes):
            some, unit, rest = lane.take(int(counts[:, number].sum()))
            if self.order == "window":
                shuffle = generator(self.seed, "window", epoch, begin, number).permutation(len(some))
                some, unit = some[shuffle], unit[shuffle]
            events.append(some)
            units.append(unit)
            rounds.append(np.repeat(np.arange(n_rounds), counts[:, number]))
            for u, positions in rest.items():
                if self._packing is not None:
                    positions = positions[~self._packing.skipped(positions)]
                if len(positions):
                    kept[u] = self.index.rows[positions]
        event, unit_of, round_of = np.concatenate(events), np.concatenate(units), np.concatenate(rounds)
        order = np.argsort(round_of.astype(np.int32), kind="stable")  # by round, then by lane
        bounds = np.cumsum([0, *counts.sum(1).tolist()])
        shuffled = self.order in ("full", "window")
        mixed: dict[tuple[int, ...], Ints] = {}  # most rounds have the same counts
        for i, (low, high) in enumerate(pairwise(bounds.tolist())):
            count = tuple(counts[i].tolist())
            turn = mixed.get(count)
            if turn is None:
                turn = mixed[count] = _evenly_mixed(count)
            if shuffled:
                turn = turn[self._permutation(high - low, "batch", epoch, begin + i)]
            order[low:high] = order[low:high][turn]
        return _Deal(event[order], unit_of[order], bounds, kept, 0)

    def _packed(self, packing: Packing, epoch: int, begin: int, deal: _Deal, last: bool) -> _Deal:
        """Cut the events of all rounds anew, by their lengths."""
        random = generator(self.seed, "packing", epoch, begin) if self.order != "sequential" else None
        taken, bounds = packing.pack(deal.event, random, self.drop_last and last)
        oversize = int(packing.oversized[deal.event].sum())
        return _Deal(deal.event[taken], deal.unit[taken], bounds, deal.kept, oversize)

    def _windows(self, epoch: int, begin: int, deal: _Deal, omit: int) -> Iterator[Window]:
        """Yield the windows of a deal: one of all its batches, or one of each where nothing is gained by that.

        Args:
            epoch: Epoch.
            begin: First batch of the deal.
            deal: The events.
            omit: Batches at its beginning that are not wanted.
        """
        event, unit, bounds = deal.event, deal.unit, deal.bounds
        n_batches = len(bounds) - 1
        specs = self._specs(epoch, begin, deal)
        batch_of = np.repeat(np.arange(n_batches), np.diff(bounds))
        place = np.arange(len(event)) - bounds[batch_of]
        file, row = self.index.file_of(event), self.index.rows[event]
        if self._together:
            wanted = np.flatnonzero(batch_of >= omit)
            by_file = wanted[np.lexsort((row[wanted], file[wanted]))]
            batch, place = batch_of[by_file] - omit, place[by_file]
            yield Window(tuple(specs[omit:]), batch, place, file[by_file], row[by_file], unit[by_file], deal.kept)
            return
        by_file = np.lexsort((row, file, batch_of))
        place, file, row, unit = place[by_file], file[by_file], row[by_file], unit[by_file]
        zero = np.zeros(int(np.diff(bounds).max(initial=0)), np.int64)
        for i in range(omit, n_batches):
            some = slice(int(bounds[i]), int(bounds[i + 1]))
            yield Window((specs[i],), zero[: len(specs[i])], place[some], file[some], row[some], unit[some])

    def _specs(self, epoch: int, begin: int, deal: _Deal) -> list[BatchSpec]:
        """Return the batches of a deal."""
        event = deal.event
        file, row = self.index.file_of(event), self.index.rows[event]
        label = self.index.file_class[file]
        return [
            BatchSpec(epoch, begin + i, file[low:high], row[low:high], label[low:high], event[low:high])
            for i, (low, high) in enumerate(pairwise(deal.bounds.tolist()))
        ]


def _evenly_mixed(counts: tuple[int, ...]) -> Ints:
    """Return the order in which events of several lanes, one lane after another, are evenly mixed."""
    return np.argsort(np.concatenate([(np.arange(n) + 0.5) / max(1, n) for n in counts]), kind="stable")


def windows_of(specs: Iterable[BatchSpec], index: EventIndex, batch_size: int, together: int = 1) -> Iterator[Window]:
    """Make windows of given batch specifications.

    Args:
        specs: The batches.
        index: The events.
        batch_size: Most events of a batch.
        together: Batches of a window.

    Raises:
        SpecError: A batch is larger than ``batch_size``, or names a file or row that is not there.
    """
    remaining = iter(specs)
    while some := list(islice(remaining, together)):
        for spec in some:
            _check_spec(spec, index, batch_size)
        yield window_of(some)


def _check_spec(spec: BatchSpec, index: EventIndex, batch_size: int) -> None:
    sources = index.sources
    if len(spec) > batch_size:
        raise SpecError(f"batch {spec.index} has {len(spec)} events, but batch_size is {batch_size}")
    if len(spec) and not 0 <= spec.file.min() <= spec.file.max() < len(sources):
        raise SpecError(f"batch {spec.index} names file {spec.file.max()}, but there are {len(sources)} files")
    for file in np.unique(spec.file).tolist():
        last = int(spec.row[spec.file == file].max())
        if last >= sources[file].events:
            path = sources[file].path
            raise SpecError(
                f"batch {spec.index} names event {last} of {path!r}, which has {sources[file].events}",
                file=path,
            )


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise SpecError(f"{name}={value!r} is unknown: {nearest(str(value), allowed)}")


def _at_least(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise SpecError(f"{name} must be an integer of at least {least}, not {value!r}")
