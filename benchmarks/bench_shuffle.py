"""How well each order shuffles: mixing within a batch, and the distance between stored neighbours.

python benchmarks/bench_shuffle.py
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch.utils.data
from lcd_sets import CLASSES, KEYS, files_of, make_set
from rich.console import Console
from rich.table import Table
from rivals import BlockBuffer

import hepfeed as hf
from hepfeed.order import neighbour_distance, same_block_fraction

BATCH = 128


def row(name: str, batches: Iterable[tuple[Any, Any, Any]], per_file: int, block: int, files: int) -> list[str]:
    """Measure one order from the (file, row, label) of its batches."""
    file, place, label, number = [], [], [], []
    for i, (f, r, c) in enumerate(batches):
        file.append(f)
        place.append(r)
        label.append(np.bincount(c, minlength=len(CLASSES)))
        number.append(np.full(len(f), i))
    where = np.concatenate(file) * per_file + np.concatenate(place)
    assert np.array_equal(np.sort(where), np.arange(files * per_file)), "not every event once"
    whole = np.array([counts for counts in label if counts.sum() == BATCH])
    blocks = np.concatenate(file) * 1000 + np.concatenate(place) // block
    return [
        name,
        f"{neighbour_distance(where):.3f}",
        f"{same_block_fraction(blocks, np.concatenate(number)):.4f}",
        f"{whole.min()} - {whole.max()}",
    ]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="keep the set here; default: a temporary folder")
    options = parser.parse_args()
    table = Table(title="Quality of the shuffle: 4 classes x 4 files x 1,000 events in blocks of 125")
    for column in (
        "order",
        "distance of neighbours\n(1: random)",
        "pairs of a batch\nfrom one block",
        "events a class",
    ):
        table.add_column(column, justify="left" if column == "order" else "right")
    with tempfile.TemporaryDirectory() as scratch:
        spec = make_set(options.data or Path(scratch), "auto", 4, 1000)
        index = hf.EventIndex(hf.SampleSpec(spec))
        files, block = len(index.sources), index.sources[0].block
        per_file = index.sources[0].events
        orders: list[tuple[str, dict[str, Any]]] = [
            ("full", {"order": "full"}),
            ("window of 16,000 events", {"order": "window", "window_events": 16000, "window_bytes": 2 << 30}),
            ("window of 4,096 events", {"order": "window", "window_events": 4096, "window_bytes": 2 << 30}),
            ("window of 2,048 events (default)", {"order": "window"}),
            ("window of 512 events", {"order": "window", "window_events": 512}),
            ("mixed", {"order": "mixed"}),
            ("sequential", {"order": "sequential"}),
        ]
        for name, arguments in orders:
            filler = hf.Filler(index, batch_size=BATCH, **arguments)
            table.add_row(*row(name, ((b.file, b.row, b.label) for b in filler.batches(0)), per_file, block, files))
        paths = files_of(spec)
        rival = BlockBuffer(paths, per_file, KEYS[2:], len(CLASSES), block, 2048, BATCH)
        batches = torch.utils.data.DataLoader(rival, batch_size=None)
        named = ((*b["event"].numpy().T, b["label"].numpy()) for b in batches)
        table.add_row(*row("block buffer of 2,048 events", named, per_file, block, files))
    Console().print(table)


if __name__ == "__main__":
    main()
