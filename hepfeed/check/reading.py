"""What reading costs and what is read, measured in this process with the readers' own code."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfeed.check.reports import ReadCost
from hepfeed.fault import Fault
from hepfeed.filler import Filler, Window
from hepfeed.form import StreamForm, place_keys
from hepfeed.index import EventIndex
from hepfeed.pool import ReaderPool
from hepfeed.progress import Progress
from hepfeed.stats import StageClock
from hepfeed.stream import NO_PIPELINE, Delivery, Stream
from hepfeed.tensors import Jagged, take

__all__ = ["Contents", "batch_size_of", "measure_reading"]

_MEASURED_EVENTS = 2048
_MEASURING_S = 5.0
_AGAIN_S = 1.0
"""What took less is measured again: the first time it costs more to open files and to choose how to inflate."""
_BATCH_EVENTS, _BATCH_BYTES = 128, 64 << 20


@dataclass
class Contents:
    """Counts of the items of a key in the events that were read.

    Attributes:
        items: All of them.
        occupied: That are not 0.
        not_finite: That are NaN or infinite.
    """

    items: int = 0
    occupied: int = 0
    not_finite: int = 0

    def add(self, values: NDArray[Any]) -> None:
        """Count the items of an array."""
        self.items += values.size
        self.occupied += int(np.count_nonzero(values))
        if values.dtype.kind in "fc":
            self.not_finite += values.size - int(np.count_nonzero(np.isfinite(values)))

    def part(self, count: int) -> float | None:
        """Return a count as a part of all items; None where there are none."""
        return count / self.items if self.items else None


def batch_size_of(found: EventIndex) -> int:
    """Return the events of a batch that is measured: as many as trainings take, within some memory."""
    return max(1, min(_BATCH_EVENTS, _BATCH_BYTES // max(1, found.event_bytes), len(found)))


def measure_reading(
    filler: Filler, contents: dict[str, Contents], events: int | None, progress: Progress | None
) -> tuple[ReadCost, list[Fault]]:
    """Read windows of the first epoch as a reader does, and look at what they contain.

    Args:
        filler: Orders the events.
        contents: Of each key; what is read is counted there.
        events: Read at least so many; None: 2,048, or as many as 5 s are enough for.
        progress: Called with (what is done, finished, total).

    Returns:
        The cost, and the fault of each event that could not be read.
    """
    wanted = min(events or _MEASURED_EVENTS, len(filler.index))
    faults: list[Fault] = []
    seen = 0
    with contextlib.closing(ReaderPool(0)) as pool:
        clock = StageClock()
        windows = _first_windows(filler, wanted, None if events else time.monotonic() + _MEASURING_S)
        for delivery, arrays in _deliveries(pool, filler, windows, clock, lambda error: faults.append(Fault.of(error))):
            for name, values in arrays.items():
                some = values if delivery.kept is None else take(values, delivery.kept)
                contents[name].add(some.values if isinstance(some, Jagged) else some)
            seen += len(delivery.spec)
            if progress:
                progress("reading events", min(seen, wanted), wanted)
        if sum(clock.stages.values()) < _AGAIN_S:
            clock = StageClock()
            for _ in _deliveries(pool, filler, _first_windows(filler, seen, None), clock, lambda error: None):
                pass
    return _cost(filler, clock, seen), faults


def _deliveries(
    pool: ReaderPool, filler: Filler, windows: Iterator[Window], clock: StageClock, on_skip: Callable[[Exception], None]
) -> Iterator[tuple[Delivery, dict[str, Any]]]:
    """Yield the batches of windows, each with its arrays by key."""
    found = filler.index
    keys = [(key.name, key.dtype, key.shape, key.rows) for key in found.keys]
    form = StreamForm(*place_keys(keys, filler.batch_size), "check", NO_PIPELINE, seed=0, skip_errors=True)
    room = filler.window_batches
    stream = Stream(pool, windows, form, found, in_flight=room, on_error="skip", clock=clock, on_skip=on_skip)
    try:
        while (delivery := stream.next(0)) is not None:
            yield delivery, form.arrays(delivery.memory, delivery.events, delivery.counts)
    finally:
        stream.close()


def _first_windows(filler: Filler, events: int, deadline: float | None) -> Iterator[Window]:
    """Yield windows up to so many events or to the deadline; the last one keeps nothing for the next."""
    seen = 0
    for window in filler.windows(0):
        seen += len(window.row)
        last = seen >= events or (deadline is not None and time.monotonic() > deadline)
        yield replace(window, kept={}) if last else window
        if last:
            return


def _cost(filler: Filler, clock: StageClock, seen: int) -> ReadCost:
    events = max(1, seen)
    read, inflate, scatter = (clock.stages[stage] / events for stage in ("read", "inflate", "scatter"))
    speed = 1 / max(read + inflate + scatter, 1e-9)
    cores = len(os.sched_getaffinity(0))
    epoch = filler.events(0)
    return ReadCost(
        events=seen,
        order=filler.order,
        block=max(source.block for source in filler.index.sources),
        read_s=read,
        inflate_s=inflate,
        scatter_s=scatter,
        events_per_s=speed,
        cores=cores,
        events_per_s_all=speed * cores,
        epoch_events=epoch,
        epoch_read_bytes=round(clock.counts["bytes_read"] / events * epoch),
        epoch_batch_bytes=filler.index.event_bytes * epoch,
    )
