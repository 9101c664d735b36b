"""A fresh process that opens a set of events, or feeds it, and prints what that took, as JSON.

python benchmarks/scale_probe.py start|feed FOLDER READERS BATCH SECONDS
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from scale_sets import spec_of

import hepfeed as hf

_LOOKS_AN_EPOCH = 40


def start(folder: Path, readers: int, batch_size: int) -> dict[str, Any]:
    """Seconds until the set is open, and from then on until the first batch."""
    begun = time.perf_counter()
    dataset = hf.EventDataset(spec_of(folder))
    opened = time.perf_counter()
    with hf.DataLoader(dataset, batch_size, shuffle=True, num_workers=readers, persistent_workers=True) as loader:
        batch = next(iter(loader))
        first = time.perf_counter()
    assert len(batch["number"]) == min(batch_size, len(dataset))
    return {"open_s": opened - begun, "first_s": first - opened}


def feed(folder: Path, readers: int, batch_size: int, seconds: float) -> dict[str, Any]:
    """Memory, and events/s of each epoch; every epoch is checked to bring each event once.

    The first epoch introduces readers to the files; its rate stands alone.
    """
    me = psutil.Process()
    before = _private(me)
    dataset = hf.EventDataset(spec_of(folder))
    n = len(dataset)
    opened = _private(me)
    most, reader = opened, 0
    rates: list[float] = []
    spent = 0.0
    with hf.DataLoader(
        dataset, batch_size, shuffle=True, num_workers=readers, persistent_workers=True, seed=0
    ) as loader:
        looks = max(1, len(loader) // _LOOKS_AN_EPOCH)
        for epoch in range(1_000_000):
            begun, looking = time.perf_counter(), 0.0
            count, total, squares = 0, 0, 0
            for place, batch in enumerate(loader):
                number = batch["number"]
                count += len(number)
                total += int(number.sum())
                squares += int((number * number % _MODULUS).sum())
                if place % looks == 0 and epoch < 2:
                    now = time.perf_counter()
                    most = max(most, _private(me))
                    looking += time.perf_counter() - now
            took = time.perf_counter() - begun - looking
            assert (count, total, squares) == _expected(n), f"epoch {epoch} is not every event once"
            rates.append(n / took)
            if not epoch:
                introduced = loader.stats()
            spent += took if epoch else 0.0
            if spent > seconds and len(rates) > 3:
                break
        reader = max((_private(child) for child in me.children()), default=0)
        stats = loader.stats().since(introduced)
    return {
        "opened_bytes": opened - before,
        "most_bytes": most - before,
        "reader_bytes": reader,
        "first_rate": rates[0],
        "rates": rates[1:],
        "bottleneck": stats["bottleneck"],
    }


_MODULUS = 1_000_003  # of squared numbers, so that their sum fits


def _expected(events: int) -> tuple[int, int, int]:
    """Number of events, and sums of their numbers and of what is left of their squares."""
    number = torch.arange(events)
    return events, events * (events - 1) // 2, int((number * number % _MODULUS).sum())


def _private(process: psutil.Process) -> int:
    """Bytes that only this process has; slots of the ring are shared, and not among them."""
    return int(process.memory_full_info().uss)


def main() -> None:
    """Run it."""
    what, folder, readers, batch_size, seconds = sys.argv[1:]
    _ = hf.DataLoader, hf.EventDataset, _expected(1000)  # imported before anything is measured
    options = Path(folder), int(readers), int(batch_size)
    print(json.dumps(start(*options) if what == "start" else feed(*options, float(seconds))))


if __name__ == "__main__":
    main()
