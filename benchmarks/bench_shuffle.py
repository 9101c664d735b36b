"""How well each order of the filler shuffles: mixing within a batch, and the distance between stored neighbours.

No event is read.  How well the rivals shuffle is measured beside their rates: ``hepfeed bench feed``.

    python benchmarks/bench_shuffle.py
    python benchmarks/bench_shuffle.py --json shuffle.json
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

import hepfeed as hf
from hepfeed.bench.feeds.checking import Findings
from hepfeed.bench.feeds.events import EventSet
from hepfeed.bench.feeds.lcd import make_set
from hepfeed.bench.feeds.mixing import Mixing
from hepfeed.bench.record import Record
from hepfeed.bench.table_view import sheets
from hepfeed.cli.bench_output import wide_console

BATCH = 128
ORDERS: dict[str, dict[str, Any]] = {
    "full": {"order": "full"},
    "window of 16,000 events": {"order": "window", "window_events": 16000, "window_bytes": 2 << 30},
    "window of 4,096 events": {"order": "window", "window_events": 4096, "window_bytes": 2 << 30},
    "window of 2,048 events (default)": {"order": "window"},
    "window of 512 events": {"order": "window", "window_events": 512},
    "mixed": {"order": "mixed"},
    "sequential": {"order": "sequential"},
}


def row(name: str, batches: Iterable[hf.BatchSpec], events: EventSet) -> dict[str, Any]:
    """Measure one order."""
    parts = [np.stack([batch.file, batch.row], axis=1).astype(np.int64) for batch in batches]
    came = np.concatenate(parts)
    number = np.sort(events.file_start[came[:, 0]] + came[:, 1])
    assert np.array_equal(number, np.arange(len(events))), "not every event once"
    found = Mixing.of(events, Findings(len(came), True, [], came, np.array([*map(len, parts)])), BATCH)
    return {
        "order": name,
        "distance of neighbours": found.distance,
        "pairs from one block": found.one_block,
        "of a random order": found.one_block_random,
        "spread of classes": found.class_spread,
        "least of a class": found.classes_least,
        "most": found.classes_most,
    }


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="keep the set here; default: a temporary folder")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        spec = hf.SampleSpec(make_set(options.data or Path(scratch), "auto", 4, 1000))
        events = EventSet.of("lcd-auto", "LCD", spec)
        index = hf.EventIndex(spec)
        rows = []
        for name, arguments in ORDERS.items():
            filler = hf.Filler(index, batch_size=BATCH, **arguments)
            rows.append(row(name, filler.batches(0), events))
    title = f"Quality of the shuffle: 4 classes x 4 files x 1,000 events in blocks of {events.sources[0].block}"
    record = Record.now("table", title, {"batch_size": BATCH}, rows, [])
    for sheet in sheets(record):
        wide_console().print(sheet)
    if options.json is not None:
        record.save(options.json)


if __name__ == "__main__":
    main()
