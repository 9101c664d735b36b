"""Jagged batches of KM3NeT hits against the usual dataset: one slice of every column an event, and a collate function.

Isolated: reading, mixing and handing over; the consumer only counts.  The set has KM3NeT's layout (PyTables: columns
of all hits with shuffle, gzip and fletcher32, and a table of where each event begins); with HEPFEED_DATA set, the real
file of simulated muon bundles is measured too.  Every event is compared with h5py's before anything is timed.

    python benchmarks/bench_jagged.py
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import torch.utils.data
from rich.console import Console
from rich.table import Table

import hepfeed as hf

KEYS = ["hits/time", "hits/tot", "hits/dom_id", "hits/channel_id"]
DTYPES = {"time": "f8", "tot": "u4", "dom_id": "i4", "channel_id": "u4"}
BATCH = 16
TARGET = 10.0


def write(path: Path, events: int, seed: int) -> Path:
    """Write a file of hits; events have 5,000 on the average (log-normal), as the muon bundles do."""
    random = np.random.default_rng(seed)
    count = random.lognormal(8.3, 0.65, events).astype(np.int64)
    with h5py.File(path, "w") as file:
        for name, code in DTYPES.items():
            values = random.exponential(300.0, int(count.sum())).astype(code)
            chunk = (1 << 16) // np.dtype(code).itemsize
            file.create_dataset(
                f"hits/{name}", data=values, chunks=(chunk,), compression="gzip", shuffle=True, fletcher32=True
            )
        where = np.zeros(events, [("index", "i8"), ("n_items", "i8")])
        where["index"], where["n_items"] = np.cumsum(count) - count, count
        file["hits/_indices"] = where
    return path


class PerEvent(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """One slice of each column an event; files stay open."""

    def __init__(self, files: list[str]) -> None:
        self.files = files
        self.where = []
        for path in files:
            with h5py.File(path) as file:
                self.where.append(file["hits/_indices"][:])
        self.of = [(f, r) for f, where in enumerate(self.where) for r in range(len(where))]
        self._open: dict[int, h5py.File] = {}

    def __len__(self) -> int:
        return len(self.of)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        number, row = self.of[index]
        if number not in self._open:
            self._open[number] = h5py.File(self.files[number], "r", rdcc_nbytes=16 << 20)
        start, count = self.where[number][row]
        file = self._open[number]
        event = {key: torch.from_numpy(file[key][start : start + count]) for key in KEYS}
        return {**event, "event": torch.tensor([number, row])}


def collate(events: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Join events: values one after another, and offsets."""
    lengths = torch.tensor([0, *(len(event[KEYS[0]]) for event in events)])
    batch = {key: torch.cat([event[key] for event in events]) for key in KEYS}
    return {**batch, "offsets": lengths.cumsum(0), "event": torch.stack([event["event"] for event in events])}


def verify(batches: Iterable[dict[str, Any]], dataset: PerEvent) -> None:
    """Compare every event of an epoch with h5py's."""
    seen = set()
    for batch in batches:
        for place, (number, row) in enumerate(batch["event"].tolist()):
            seen.add((number, row))
            start, count = dataset.where[number][row]
            with h5py.File(dataset.files[number]) as file:
                for key in KEYS:
                    np.testing.assert_array_equal(batch[key][place].numpy(), file[key][start : start + count])
    assert len(seen) == len(dataset), "events are missing"


def rate(batches: Iterable[Any], seconds: float) -> float:
    """Events/s of whole epochs, until ``seconds`` are over."""
    events, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        for batch in batches:
            events += len(batch["event"])
            if time.perf_counter() - begun > 4 * seconds:
                break
    return events / (time.perf_counter() - begun)


def measure(files: list[str], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Measure both sides."""
    usual = PerEvent(files)
    theirs = torch.utils.data.DataLoader(
        usual, BATCH, shuffle=True, num_workers=2, collate_fn=collate, persistent_workers=True
    )
    here = torch.utils.data.DataLoader(usual, BATCH, shuffle=True, collate_fn=collate)
    dataset = hf.EventDataset([[files, KEYS, "muon"]])
    runs: dict[str, list[float]] = {}
    with (
        hf.DataLoader(dataset, BATCH, shuffle=True, num_workers=2, persistent_workers=True, seed=0) as two,
        hf.DataLoader(dataset, BATCH, shuffle=True, seed=0) as none,
    ):
        verify(two, usual)
        verify(none, usual)
        sides: dict[str, Callable[[], float]] = {
            "hepfeed": lambda: rate(two, seconds),
            "hepfeed, 0 workers": lambda: rate(none, seconds),
            "per event, collated": lambda: rate(theirs, seconds),
            "per event, collated, 0 workers": lambda: rate(here, seconds),
        }
        for _ in range(rounds):
            for name, side in sides.items():
                runs.setdefault(name, []).append(side())
    return runs


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--events", type=int, default=300, help="of each of two files")
    options = parser.parse_args()
    table = Table(title=f"Events/s, jagged batches of {BATCH}, four columns; median (lowest - highest)")
    for column in ("input", "feed", "events/s", "hepfeed is faster by", "should be"):
        table.add_column(column, justify="left" if column in ("input", "feed") else "right")
    with tempfile.TemporaryDirectory() as scratch:
        files = [str(write(Path(scratch) / f"hits_{i}.h5", options.events, i)) for i in range(2)]
        sets = {f"KM3NeT layout, {2 * options.events} events": files}
        real = Path(os.environ.get("HEPFEED_DATA", "")) / "km3net" / "mupage_ARCA.h5"
        if real.is_file():
            sets["KM3NeT muon bundles, 150 events"] = [str(real)]
        for title, members in sets.items():
            runs = measure(members, options.rounds, options.seconds)
            for name, rates in runs.items():
                base = "hepfeed, 0 workers" if name.endswith("0 workers") else "hepfeed"
                factor = np.median(np.array(runs[base]) / np.array(rates))
                other = not name.startswith("hepfeed")
                spread = f"{np.median(rates):,.0f} ({min(rates):,.0f} - {max(rates):,.0f})"
                aim = f"{TARGET:g} x" if name == "per event, collated" else ""
                table.add_row(title, name, spread, f"{factor:.1f} x" if other else "", aim)
            table.add_section()
    Console().print(table)


if __name__ == "__main__":
    main()
