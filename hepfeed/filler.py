"""The filler: decides which events of which file make each batch.

The order of events is a pure function of (specification, seed, epoch): never of the number of readers, of timing or of
a crash.  Events are drawn from *lanes*, one for each rate; a lane's order is laid out over canonical partitions, so
that ranks share the work by partition and a chunk is decoded on one rank only.

Consecutive batches form a *window*, whose events readers decode together, each chunk once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
import xxhash
from numpy.typing import NDArray

from hepfeed.errors import SpecError, nearest
from hepfeed.index import EventIndex
from hepfeed.order import generator
from hepfeed.quotas import Composition, Exhausted, Quotas

__all__ = ["BatchSpec", "Filler", "Order", "Window", "windows_of"]

Order = Literal["auto", "full", "window", "mixed", "sequential"]
Ints = NDArray[np.int64]

WINDOW_EVENTS = 2048
_BLOCKS_PER_WINDOW = 4  # of each lane: fewer would leave neighbours together, more cost memory


@dataclass(frozen=True)
class BatchSpec:
    """Which events make a batch, in the order of its rows.

    Attributes:
        epoch: Epoch.
        index: Place of the batch in its epoch.
        file: ``(size,) int64`` place of each event's file in the list of files.
        row: ``(size,) int64`` row in that file.
        label: ``(size,) int64`` class index.
    """

    epoch: int
    index: int
    file: Ints
    row: Ints
    label: Ints

    def __len__(self) -> int:
        return len(self.row)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object: per class and file the rows, and their places in the batch."""
        classes: dict[str, list[dict[str, Any]]] = {}
        for label in np.unique(self.label).tolist():
            for file in np.unique(self.file[self.label == label]).tolist():
                here = np.flatnonzero((self.label == label) & (self.file == file))
                reads = {"file": file, "rows": self.row[here].tolist(), "places": here.tolist()}
                classes.setdefault(str(label), []).append(reads)
        return {"epoch": self.epoch, "index": self.index, "size": len(self), "classes": classes}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> BatchSpec:
        """Rebuild what :meth:`to_json` wrote.

        Raises:
            SpecError: The object is not a batch specification.
        """
        try:
            size = int(content["size"])
            file, row, label = (np.full(size, -1, np.int64) for _ in range(3))
            for name, reads in content["classes"].items():
                for read in reads:
                    places = np.asarray(read["places"], np.int64)
                    file[places], row[places], label[places] = read["file"], read["rows"], int(name)
            epoch, index = int(content["epoch"]), int(content["index"])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise SpecError(f"not a batch specification: {type(error).__name__} {error}") from error
        if (row < 0).any():
            raise SpecError(f"batch specification {index} leaves {int((row < 0).sum())} of {size} places empty")
        return cls(epoch, index, file, row, label)

    @staticmethod
    def dump(path: str, specs: Iterable[BatchSpec]) -> None:
        """Write batch specifications to a file, one JSON object a line."""
        with open(path, "w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(spec.to_json()) + "\n" for spec in specs)

    @staticmethod
    def load(path: str) -> list[BatchSpec]:
        """Read what :meth:`dump` wrote."""
        with open(path, encoding="utf-8") as stream:
            return [BatchSpec.from_json(json.loads(line)) for line in stream if line.strip()]


@dataclass(frozen=True)
class Window:
    """Batches whose events are read together, and their events sorted by file and row.

    Attributes:
        batches: The batches.
        batch: ``(n,) int64`` place in ``batches`` of each event.
        place: ``(n,) int64`` row in that batch.
        file: ``(n,) int64`` file of each event.
        row: ``(n,) int64`` row in that file.
        unit: ``(n,) int64`` block of events that share chunks, counted over the whole index; -1 where every event
            stands alone.
        kept: Unit -> rows of it that the next windows need; who decodes the unit keeps them.
    """

    batches: tuple[BatchSpec, ...]
    batch: Ints
    place: Ints
    file: Ints
    row: Ints
    unit: Ints
    kept: dict[int, Ints] = field(default_factory=dict)


class _Lane:
    """The endless order of one group of events: a new permutation for each time around."""

    def __init__(self, filler: Filler, number: int, start: int, stop: int, epoch: int) -> None:
        self._filler = filler
        self._purpose = (epoch, number)
        self._start, self._stop = start, stop
        self._cycle = -1
        self._order: Ints = np.empty(0, np.int64)
        self._ends: Ints = np.empty(0, np.int64)
        self._at = 0
        self._turn(0)
        self.size = self._size

    def _turn(self, cycle: int) -> None:
        """Lay out one time around: ``_order`` are events (full) or units, ``_ends`` where each unit ends."""
        filler = self._filler
        shuffled = filler.order in ("full", "window")
        random = generator(filler.seed, "lane", *self._purpose, cycle)
        self._cycle, self._at = cycle, 0
        if filler.order == "full":
            order = self._start + random.permutation(self._stop - self._start)
            self._order = order[filler.partition :: filler.partitions]
            self._size = len(self._order)
            return
        first, last = np.searchsorted(filler.unit_start, [self._start, self._stop])
        units = np.arange(first, last, dtype=np.int64)
        units = (random.permutation(units) if shuffled else units)[filler.partition :: filler.partitions]
        self._order = units
        self._ends = np.cumsum(filler.unit_start[units + 1] - filler.unit_start[units])
        self._size = int(self._ends[-1]) if len(units) else 0

    def take(self, count: int) -> tuple[Ints, Ints, dict[int, Ints]]:
        """Return the next events, the unit of each, and what remains of a unit that was cut."""
        events, units, rest = [], [], {}
        while count > 0:
            if self._at == self._size:
                self._turn(self._cycle + 1)
            n = min(count, self._size - self._at)
            taken = self._slice(self._at, self._at + n)
            events.append(taken[0])
            units.append(taken[1])
            self._at += n
            count -= n
            rest = taken[2]
        if not events:
            return np.empty(0, np.int64), np.empty(0, np.int64), {}
        return np.concatenate(events), np.concatenate(units), rest

    def skip(self, count: int) -> None:
        """Pass over the next events."""
        while count > 0:
            if self._at == self._size:
                self._turn(self._cycle + 1)
            n = min(count, self._size - self._at)
            self._at += n
            count -= n

    def _slice(self, low: int, high: int) -> tuple[Ints, Ints, dict[int, Ints]]:
        if self._filler.order == "full":
            events = self._order[low:high]
            return events, np.full(len(events), -1, np.int64), {}
        i, j = (int(np.searchsorted(self._ends, at, side="right")) for at in (low, high - 1))
        units = self._order[i : j + 1]
        starts = self._filler.unit_start[units]
        sizes = self._filler.unit_start[units + 1] - starts
        before = np.cumsum(sizes) - sizes
        everything = np.repeat(starts - before, sizes) + np.arange(int(sizes.sum()))
        unit_of = np.repeat(units, sizes)
        base = int(self._ends[i] - sizes[0])
        cut = slice(low - base, high - base)
        rest = everything[high - base :]
        return everything[cut], unit_of[cut], {int(units[-1]): rest} if len(rest) else {}


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
        drop_last: Leave out an incomplete last batch.
        composition: ``"exact"`` quotas of the rates in each batch, or ``"random"`` ones.
        exhausted: When a lane has no events left: ``"drain"`` goes on without it, so that every event comes exactly
            once; ``"wrap"`` starts it again in a new order until every lane was delivered once; ``"stop"`` ends
            the epoch.
        skip: Events passed over at the beginning of each epoch.
        max_events: Most events of an epoch.
        window_events: Events of a window, at least; by default 2,048 or four blocks of every lane, whichever is more,
            within ``window_bytes``.
        window_bytes: Most bytes of a window.
        partition: Which of ``partitions`` this filler serves.
        partitions: Canonical partitions of the order.

    Raises:
        SpecError: An option is out of its range.
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
    ) -> None:
        _one_of("order", order, get_args(Order))
        _one_of("composition", composition, get_args(Composition))
        _one_of("exhausted", exhausted, get_args(Exhausted))
        _at_least("batch_size", batch_size, 1)
        _at_least("skip", skip, 0)
        if max_events is not None:
            _at_least("max_events", max_events, 1)
        if window_events is not None:
            _at_least("window_events", window_events, 1)
        if not 0 <= partition < partitions:
            raise SpecError(f"partition must be in 0..{partitions - 1}, not {partition}")
        self.index = index
        self.batch_size = batch_size
        self.seed = int(seed)
        self.drop_last = drop_last
        self.skip = skip
        self.max_events = max_events
        self.partition, self.partitions = partition, partitions
        self._composition: Composition = composition
        self._exhausted: Exhausted = exhausted
        if order == "sequential" and exhausted != "drain":
            raise SpecError(f"exhausted={exhausted!r} needs lanes that are mixed by rates: use order='mixed'")
        shared = max(source.block for source in index.sources) > 1
        self.order: Order = ("window" if shared else "full") if order == "auto" else order
        if self.order == "sequential":
            self._ranges: list[tuple[float, int, int]] = [(1.0, 0, len(index))]
        else:
            self._ranges = [(group.rate or float(len(group)), group.start, group.stop) for group in index.groups]
        self.window_batches = self._window_batches(window_events, window_bytes) if shared else 1
        self._lengths: dict[int, int] = {}

    def _window_batches(self, window_events: int | None, window_bytes: int) -> int:
        if self.order == "full":
            return 1
        if window_events is None:
            blocks = max(source.block for source in self.index.sources) * len(self._ranges) * _BLOCKS_PER_WINDOW
            affordable = window_bytes // max(1, self.index.event_bytes)
            window_events = min(max(WINDOW_EVENTS, blocks if self.order == "window" else 0), affordable)
        return max(1, -(-window_events // self.batch_size))

    @cached_property
    def unit_start(self) -> Ints:
        """``(n_units + 1,)`` first event of each unit: a run of events of one file that share chunks."""
        index = self.index
        starts = []
        for file, source in enumerate(index.sources):
            low, high = int(index.file_start[file]), int(index.file_start[file + 1])
            blocks = index.rows[low:high] // source.block
            starts.append(low + np.flatnonzero(np.diff(blocks, prepend=-1)))
        return np.concatenate([*starts, [len(index)]]).astype(np.int64)

    def fingerprint(self) -> str:
        """Return 32 hexadecimal digits that change with anything that changes the order of events."""
        index = self.index
        shape = (self.order, self.batch_size, self.window_batches, self.partitions)
        draws = (self.seed, self._composition, self._exhausted, self.drop_last, self.skip, self.max_events)
        digest = xxhash.xxh3_128(repr((shape, draws, self._ranges, [s.block for s in index.sources])).encode())
        digest.update(index.rows.tobytes())
        digest.update(index.file_start.tobytes())
        return digest.hexdigest()

    # ---- lengths ---------------------------------------------------------------------------------------------------

    def _start(self, epoch: int) -> tuple[list[_Lane], Quotas]:
        lanes = [_Lane(self, i, start, stop, epoch) for i, (_, start, stop) in enumerate(self._ranges)]
        quotas = Quotas(
            [rate for rate, _, _ in self._ranges],
            [lane.size for lane in lanes],
            composition=self._composition,
            exhausted=self._exhausted,
            seed=self.seed,
            epoch=epoch,
        )
        if self.skip:
            for lane, count in zip(lanes, quotas.next(self.skip)):
                lane.skip(count)
        return lanes, quotas

    def events(self, epoch: int = 0) -> int:
        """Return the number of events that an epoch delivers."""
        varies = self.partitions > 1 or (self._composition == "random" and self._exhausted != "drain")
        key = epoch if varies else 0
        if key not in self._lengths:
            self._lengths = {key: self._count(epoch)}
        return self._lengths[key]

    def _count(self, epoch: int) -> int:
        limit = self.max_events
        if self._exhausted == "drain" and self.partitions == 1:
            total = max(0, len(self.index) - self.skip)
        else:
            lanes, quotas = self._start(epoch)
            seen = [0] * len(lanes)
            total = 0
            while limit is None or total < limit:
                if self._exhausted == "wrap" and all(n >= lane.size for n, lane in zip(seen, lanes)):
                    break
                counts = quotas.next(self.batch_size)
                if not any(counts):
                    break
                seen = [n + count for n, count in zip(seen, counts)]
                total += sum(counts)
        total = total if limit is None else min(total, limit)
        return total - total % self.batch_size if self.drop_last else total

    def batches_in(self, epoch: int = 0) -> int:
        """Return the number of batches of an epoch."""
        return -(-self.events(epoch) // self.batch_size)

    # ---- the order -------------------------------------------------------------------------------------------------

    def windows(self, epoch: int, first_batch: int = 0) -> Iterator[Window]:
        """Yield the windows of an epoch.

        Args:
            epoch: Epoch.
            first_batch: Batch to begin with; the batches from there on are those of an undisturbed epoch.
        """
        total = self.events(epoch)
        n_batches = -(-total // self.batch_size)
        lanes, quotas = self._start(epoch)
        first_window = first_batch // self.window_batches * self.window_batches
        for _ in range(first_window):
            for lane, count in zip(lanes, quotas.next(self.batch_size)):
                lane.skip(count)
        for begin in range(first_window, n_batches, self.window_batches):
            end = min(begin + self.window_batches, n_batches)
            sizes = [min(self.batch_size, total - b * self.batch_size) for b in range(begin, end)]
            counts = np.array([quotas.next(size) for size in sizes], np.int64)
            yield self._window(epoch, begin, counts, lanes, max(0, first_batch - begin))

    def batches(self, epoch: int, first_batch: int = 0) -> Iterator[BatchSpec]:
        """Yield the batch specifications of an epoch."""
        for window in self.windows(epoch, first_batch):
            yield from window.batches

    def _window(self, epoch: int, begin: int, counts: Ints, lanes: list[_Lane], omit: int) -> Window:
        """Take the events of a window from the lanes and deal them to its batches.

        Args:
            epoch: Epoch.
            begin: First batch of the window.
            counts: ``(batches, lanes)`` events.
            lanes: Where the events come from.
            omit: Batches at the beginning of the window that are not wanted.
        """
        n_batches = len(counts)
        events, units, batch, turn = [], [], [], []
        kept: dict[int, Ints] = {}
        for number, lane in enumerate(lanes):
            some, unit, rest = lane.take(int(counts[:, number].sum()))
            if self.order == "window":
                shuffle = generator(self.seed, "window", epoch, begin, number).permutation(len(some))
                some, unit = some[shuffle], unit[shuffle]
            events.append(some)
            units.append(unit)
            batch.append(np.repeat(np.arange(n_batches), counts[:, number]))
            turn += [(np.arange(n) + 0.5) / n for n in counts[:, number] if n]
            kept.update({u: self.index.rows[positions] for u, positions in rest.items()})
        event, unit_of, batch_of = np.concatenate(events), np.concatenate(units), np.concatenate(batch)
        order = np.lexsort((np.concatenate(turn), batch_of))  # by batch, the lanes evenly mixed
        event, unit_of, batch_of = event[order], unit_of[order], batch_of[order]
        bounds = np.searchsorted(batch_of, np.arange(n_batches + 1))
        if self.order in ("full", "window"):
            for i, (low, high) in enumerate(pairwise(bounds)):
                shuffle = generator(self.seed, "batch", epoch, begin + i).permutation(high - low)
                event[low:high], unit_of[low:high] = event[low:high][shuffle], unit_of[low:high][shuffle]
        file, row = self.index.file_of(event), self.index.rows[event]
        label = self.index.file_class[file]
        place = np.arange(len(event)) - bounds[batch_of]
        batches = tuple(
            BatchSpec(epoch, begin + i, file[low:high], row[low:high], label[low:high])
            for i, (low, high) in enumerate(pairwise(bounds))
            if i >= omit
        )
        wanted = np.flatnonzero(batch_of >= omit)
        by_file = wanted[np.lexsort((row[wanted], file[wanted]))]
        return Window(
            batches,
            batch_of[by_file] - omit,
            place[by_file],
            file[by_file],
            row[by_file],
            unit_of[by_file],
            kept,
        )


def windows_of(specs: Iterable[BatchSpec], filler: Filler, batch_size: int) -> Iterator[Window]:
    """Make a window of each given batch specification.

    Raises:
        SpecError: A batch is larger than ``batch_size``, or names a file or row that is not there.
    """
    sources = filler.index.sources
    for spec in specs:
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
        order = np.lexsort((spec.row, spec.file))
        zeros, alone = np.zeros(len(spec), np.int64), np.full(len(spec), -1, np.int64)
        yield Window((spec,), zeros, order, spec.file[order], spec.row[order], alone)


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise SpecError(f"{name}={value!r} is unknown: {nearest(str(value), allowed)}")


def _at_least(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise SpecError(f"{name} must be an integer of at least {least}, not {value!r}")
