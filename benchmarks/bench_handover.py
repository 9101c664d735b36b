"""Handing an 8 MB batch from a reader to the consumer, against torch's DataLoader.

Isolated: the batch lies in the reader's private memory; what is timed is everything until the consumer has the tensor.
 hepfeed copies it into a slot of the ring, torch into shared memory of its own.  One worker each; the
consumer reads one number of each page, so that a mapping that was not touched yet is paid for.

    python benchmarks/bench_handover.py
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import hepfeed as hf

BYTES = 8 << 20
BATCHES = 200
TARGET = 5.0


def ready_batch(_: dict[str, Any]) -> dict[str, Any]:
    """Give 8 MB that lie in the reader's private memory."""
    return {"x": MEMORY}


MEMORY = np.arange(BYTES // 4, dtype=np.float32)


class ReadyBatches(torch.utils.data.Dataset[torch.Tensor]):
    """The same for torch; each batch is a tensor of its own, for torch moves a tensor to shared memory only once."""

    def __len__(self) -> int:
        return BATCHES

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(MEMORY)


def milliseconds(batches: Iterable[torch.Tensor], skip: int = 20) -> float:
    """Median time between two batches."""
    times = []
    for batch in batches:
        assert int(batch.view(-1).view(torch.int32)[:: 4096 // 4].ne(0).sum()) >= BYTES // 4096 - 1
        assert float(batch.view(-1)[-1]) == BYTES // 4 - 1
        times.append(time.perf_counter())
    return float(np.median(np.diff(times[skip:]))) * 1e3


def main() -> None:
    """Run it."""
    results: dict[str, list[float]] = {"hepfeed": [], "torch": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.h5"
        with h5py.File(path, "w") as file:
            file["x"] = np.zeros(BATCHES, np.float32)
        dataset = hf.EventDataset([[str(path), ["x"], 0, 1.0]])
        with hf.DataLoader(dataset, 1, num_workers=1, process_fn=ready_batch, persistent_workers=True) as ours:
            theirs = torch.utils.data.DataLoader(ReadyBatches(), batch_size=None, num_workers=1)
            for _ in range(5):
                results["hepfeed"].append(milliseconds(batch["x"] for batch in ours))
                results["torch"].append(milliseconds(theirs))
    ratio = np.median(np.array(results["torch"]) / np.array(results["hepfeed"]))
    table = Table(title="8 MB batch from reader to consumer, median ms a batch of 5 rounds")
    for column in ("feed", "ms", "torch / hepfeed", "should be"):
        table.add_column(column, justify="right")
    table.add_row("hepfeed", f"{np.median(results['hepfeed']):.2f}", f"{ratio:.1f} x", f"{TARGET:g} x")
    table.add_row("torch", f"{np.median(results['torch']):.2f}", "", "")
    Console().print(table)


if __name__ == "__main__":
    main()
