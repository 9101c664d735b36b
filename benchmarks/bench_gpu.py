"""The data wait of a device from the cache: simulated steps of 5, 10 and 20 ms, and torch's DataLoader beside it.

Isolated: the training loop of a simulated device, which takes a batch every 5, 10 or 20 ms.  Batches of LCD-like events
are of sizes of which the floor delivers 8, 4, 2, 1.2 and 0.9 times as many as the device asks for; an epoch has four
batches at least.  The floor clears each byte of the batches once on all cores and does nothing else: it is what images
cost that are kept as their active cells; or it is the simulated bus, where that is slower.  It is measured again before
each row.

hepfeed sends batches ahead, as it does with ``device="cuda"``: the next one is copied while the device computes.
Torch's loader has no such thing; its batches are copied when the loop has them.  Beside both is the wait of a loop over
batches that lie in memory already, which are sent as torch's are: that is what the bus and the interruptions of this
machine cost without any feed.

The first batches of both sides are compared with h5py; the cache is full and in memory; the steps of two epochs, and
50 at least, go before those that are measured.  The wait should be below 1 % of the step wherever the floor is 1.2
times the demand or more.

    python benchmarks/bench_gpu.py            # about 8 minutes
    python benchmarks/bench_gpu.py --quick    # a smaller set, one round, about 2 minutes
"""

from __future__ import annotations

import argparse
import os
import tempfile
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import hepfeed as hf
from hepfeed.bench.feeds.floor import Copying, Floor
from hepfeed.bench.feeds.lcd import STORAGE, make_set
from hepfeed.bench.gpu_loop import Limits, Loops
from hepfeed.bench.gpu_place import Place
from hepfeed.bench.gpu_sides import Hepfeed, Replay, Source, Torch
from hepfeed.bench.h5py_events import H5pyEvents
from hepfeed.bench.record import Record
from hepfeed.bench.table_view import sheets
from hepfeed.progress import progress_bars

STEPS_MS = (5.0, 10.0, 20.0)
MARGINS = (8.0, 4.0, 2.0, 1.2, 0.9)
AIM = 0.01
NEEDED = 1.2
LEAST_WARM_UP = 50
FLOOR_TURNS = 5


class AtHand(Replay):
    """Batches that lie in the memory of the host, and are sent when the loop has them."""

    name = "at hand"
    resident = False


def floor_rate(floor: Floor, events: int) -> float:
    """Events a second of a floor whose turn is as many events."""
    return events / float(np.median([floor.turn() for _ in range(FLOOR_TURNS)]))


def expected(side: Hepfeed, seed: int) -> list[dict[str, Any]]:
    """The first two batches as h5py reads them."""
    with closing(H5pyEvents(side.dataset, seed)) as events:
        return [events.batch(spec) for spec in islice(side.filler().batches(side.epoch), 2)]


def case(source: Source, step_ms: float, options: argparse.Namespace) -> dict[str, Any]:
    """One row: both sides at one length of the step and one size of batches, but for the floor."""
    place = Place("simulated", step_ms / 1e3, options.bus_gb_s * 1e9)
    with closing(Hepfeed(replace(source, bus=place.bus))) as ours:
        steps = ours.filler().batches_in(ours.epoch)
        limits = Limits(None, options.seconds, max(LEAST_WARM_UP, 2 * steps), 1)
        loops = Loops(place, limits, source.num_workers, None, 1)
        loops.prepare({})
        wanted = expected(ours, source.seed)
        waits = []
        for number in range(options.rounds):
            line = loops.run(ours, wanted if number == 0 else []).timeline
            waits.append(1 - line.busy)
        row = {
            "batch": source.batch_size,
            "steps an epoch": steps,
            "hepfeed, wait %": 100 * float(np.median(waits)),
            "lowest": 100 * min(waits),
            "highest": 100 * max(waits),
            "one step, 95 %": 100 * float(np.percentile(line.fractions, 95)),
            "copies": ours.stats()["copies"],
        }
        line = loops.run(AtHand(ours, source)).timeline
        row["at hand, wait %"] = 100 * (1 - line.busy)
        torch_limits = replace(limits, seconds=options.torch_seconds, warm_up=2 * source.num_workers)
        theirs = Loops(place, torch_limits, source.num_workers, None, 1)
        theirs.prepare({})
        line = theirs.run(Torch(source, ours.dataset, ours.filler()), wanted).timeline
        row["torch, wait %"] = 100 * (1 - line.busy)
    return row


def sizes(most: float, events: int) -> list[int]:
    """Sizes of batches, where the floor delivers ``most`` events in a step."""
    return list(dict.fromkeys(max(1, min(int(most / margin), events // 4)) for margin in MARGINS))


def rows(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Measure all rows."""
    cores = len(os.sched_getaffinity(0))
    spec = hf.SampleSpec(make_set(folder, options.storage, options.files, options.events))
    source = Source(spec, num_workers=options.workers or cores, cache=folder / "cache", batch_size=128)
    with closing(Hepfeed(source)) as filled:  # writes the cache
        index = filled.dataset.index
        events, event_bytes = len(index), index.event_bytes
    found = []
    target = f"{Copying.__module__}:{Copying.__qualname__}"
    with Floor(target, [(events * event_bytes // cores, True)] * cores) as floor, progress_bars() as progress:
        over_bus = options.bus_gb_s * 1e9 / event_bytes
        first = min(floor_rate(floor, events), over_bus)
        for step_ms in STEPS_MS:
            for size in sizes(first * step_ms / 1e3, events):
                rate = min(floor_rate(floor, events), over_bus)
                demand = size / (step_ms / 1e3)
                row = case(replace(source, batch_size=size), step_ms, options)
                must = rate >= NEEDED * demand
                ends = {"should be": f"< {100 * AIM:g} %" if must else ""}
                ends["reached"] = ("yes" if row["hepfeed, wait %"] < 100 * AIM else "no") if must else ""
                begins = {"step, ms": step_ms, "demand, events/s": demand, "floor, events/s": rate}
                found.append({**begins, "floor / demand": rate / demand, **row, **ends})
                progress(f"steps of {step_ms:g} ms", len(found), len(STEPS_MS) * len(MARGINS))
    return found


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each loop of hepfeed")
    parser.add_argument("--torch-seconds", type=float, default=1.0, help="of each loop of torch's DataLoader")
    parser.add_argument("--workers", type=int, help="of both sides; default: one a core")
    parser.add_argument("--files", type=int, default=16, help="of each of the four classes")
    parser.add_argument("--events", type=int, default=1000, help="of each file")
    parser.add_argument("--storage", choices=STORAGE, default="1", help="of the files, which only torch reads")
    parser.add_argument("--bus-gb-s", type=float, default=12.0)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path, help="write all figures")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds, options.torch_seconds, options.events = 1, 1.0, 0.5, 250
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HEPFEED_INDEX"] = f"{folder}/index.sqlite"
        found = rows(options, Path(folder))
    title = f"data wait as a part of the step, from the cache; medians of {options.rounds} rounds"
    settings = {name: value for name, value in vars(options).items() if name != "json"}
    notes = ["torch DataLoader: a map-style dataset over h5py with as many workers and the same batches"]
    record = Record.now("table", title, settings, found, notes)
    console = Console(width=None if Console().is_terminal else 220)
    for sheet in sheets(record):
        console.print(sheet)
    if options.json is not None:
        record.save(options.json)


if __name__ == "__main__":
    main()
