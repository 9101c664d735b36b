"""Training loops on the batches of one side, and what the device says of them."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass

from torch import nn

from hepfeed.bench.gpu_models import fitting, make_model
from hepfeed.bench.gpu_place import Place
from hepfeed.bench.gpu_sides import Side
from hepfeed.bench.nvml import Meter, Usage
from hepfeed.bench.timeline import Timeline
from hepfeed.stats import FeedStats
from hepfeed.tensors import Batch

__all__ = ["Limits", "Loop", "Loops"]


@dataclass(frozen=True)
class Limits:
    """How long each loop runs.

    Attributes:
        steps: Measured steps; None for no limit but ``seconds``.
        seconds: After which a loop ends, once each worker has given equally many batches; None for no limit but
            ``steps``.  Its first steps end after as many, too.
        warm_up: Steps before those that are measured; a quarter of an epoch where there is only one.
        rounds: In which the sides take turns.
    """

    steps: int | None = None
    seconds: float | None = 10.0
    warm_up: int = 50
    rounds: int = 3


@dataclass(frozen=True)
class Loop:
    """One loop: what the device did, and what was said of it."""

    timeline: Timeline
    usage: Usage
    stats: FeedStats | None


class Loops:
    """Runs training loops on one device, each with a network of its own that has the same first weights.

    Args:
        place: The device.
        limits: How long.
        workers: Of the sides.
        model: Name or import path of the network; None for the one that suits the batches.
        classes: Its logits.
        seed: Of its first weights.
    """

    def __init__(
        self, place: Place, limits: Limits, workers: int, model: str | None, classes: int, seed: int = 0
    ) -> None:
        self._place = place
        self._limits = limits
        self._workers = workers
        self.model = model
        self._classes = classes
        self._seed = seed

    def prepare(self, batch: Batch) -> None:
        """Choose the network, and find out whether it takes such batches.

        Raises:
            SpecError: One of hepfeed's own does not; a network of the user's raises what it raises.
        """
        if self._place.kind == "simulated":
            self.model = ""
            self._make: Callable[[], nn.Module] = nn.Identity
            return
        name = self.model = self.model or fitting(batch)
        make_model(name, batch, self._classes, self._seed)(batch)
        self._make = lambda: make_model(name, batch, self._classes, self._seed)

    def run(self, side: Side, expected: Iterable[Batch] = (), meter: Meter | None = None) -> Loop:
        """Train on the batches of a side.

        Args:
            side: Where they come from.
            expected: What its first batches must be; they are compared before the clock starts.
            meter: Measures the device meanwhile.

        Raises:
            ProcessError: The side delivers something else.
        """
        limits, length = self._limits, side.length()
        warm_up = limits.warm_up if length is None else min(limits.warm_up, length // 4)
        wanted = list(expected)
        device = self._place.open(self._make)
        gc.collect()
        before: FeedStats | None = None
        first = None  # measured step
        with closing(side.batches()) as batches:
            begun = time.perf_counter()
            for number, batch in enumerate(batches):
                if number < len(wanted):
                    side.verify(batch, number, wanted[number])
                    begun = time.perf_counter()
                late = limits.seconds is not None and time.perf_counter() - begun > limits.seconds
                if first is None and number > 0 and (number >= warm_up or late) and number >= len(wanted):
                    first, begun, late, before = number, time.perf_counter(), False, side.stats()
                    if meter is not None:
                        meter.start()
                if first is not None:
                    done = number - first
                    if (limits.steps is not None and done >= limits.steps) or (
                        late and done > 0 and done % max(1, self._workers) == 0
                    ):
                        break
                device.step(batch, side.resident)
            timeline = device.take()
            usage = Usage(None, None) if meter is None or first is None else meter.stop()
            after = side.stats()
        stats = after.since(before) if after is not None and before is not None else None
        return Loop(timeline.part(first or 0), usage, stats)
