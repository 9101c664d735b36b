"""Start-up and memory: 2,000 files, and what the feed adds to a process.

python benchmarks/bench_start.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from hepfeed.bench.feeds.lcd import make_set

FILES = 2000
MIB = 1 << 20


def make_files(folder: Path) -> None:
    """Write many small files of two classes."""
    random = np.random.default_rng(0)
    for name in ("electron", "pion"):
        (folder / name).mkdir()
        for number in range(FILES // 2):
            with h5py.File(folder / name / f"{number}.h5", "w") as file:
                image = random.random((20, 8, 8), np.float32)
                file.create_dataset("image", data=image, chunks=(5, 8, 8), compression="gzip")
                file["energy"] = random.random(20)


def start(folder: Path) -> tuple[float, float, float]:
    """Seconds to open, to the first batch from then on, and of the bare imports, in a fresh process."""
    program = f"""
import time; begun = time.perf_counter()
import torch, hepfeed as hf
hf.DataLoader; imported = time.perf_counter()
keys = ["image", "energy"]
dataset = hf.EventDataset([["{folder}/electron", keys, "e", 1.0], ["{folder}/pion", keys, "p", 1.0]])
opened = time.perf_counter()
assert len(dataset) == {FILES * 20}
with hf.DataLoader(dataset, 128, shuffle=True, num_workers=2, persistent_workers=True) as loader:
    next(iter(loader))
    first = time.perf_counter()
print(opened - imported, first - opened, imported - begun)
"""
    out = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    opened, first, imported = (float(word) for word in out.stdout.split())
    return opened, first, imported


def memory(spec: list[list[object]]) -> tuple[float, float, float]:
    """MiB: parent above ``import torch`` without the slots, slots, largest reader without the slots."""
    program = f"""
import os, psutil, torch, gc
me = psutil.Process()
private = lambda process: process.memory_full_info().uss / {MIB}
torch.empty(1); base = private(me)
import hepfeed as hf
loader = hf.DataLoader(hf.EventDataset({spec!r}), 128, shuffle=True, num_workers=2, persistent_workers=True, seed=0)
shared = most = reader = 0.0
for epoch in range(2):
    for number, batch in enumerate(loader):
        if number % 20 == 0:
            most = max(most, private(me))
            reader = max(reader, *(private(child) for child in me.children()))
slots = len(loader._own_pool.ring) * loader._form.dense_bytes / {MIB}
print(most - base, slots, reader)
loader.close()
"""
    out = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    parent, slots, reader = (float(word) for word in out.stdout.split())
    return parent, slots, reader


def main() -> None:
    """Run it."""
    table = Table(title="Start-up and memory")
    for column in ("what", "measured", "should be"):
        table.add_column(column, justify="left" if column == "what" else "right")
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["HEPFEED_INDEX"] = f"{scratch}/index.sqlite"
        folder = Path(scratch) / "many"
        folder.mkdir()
        begun = time.perf_counter()
        make_files(folder)
        made = time.perf_counter() - begun
        opened, first, _ = start(folder)
        table.add_row(f"open {FILES} files for the first time (writing them took {made:.1f} s)", f"{opened:.2f} s", "")
        times = np.array([start(folder) for _ in range(3)])
        opened, first, imported = np.median(times, 0)
        table.add_row(f"open {FILES} files with the index", f"{opened:.2f} s", "< 1 s")
        table.add_row("first batch, from the start of the data set", f"{opened + first:.2f} s", "< 2 s")
        table.add_row("import torch and hepfeed", f"{imported:.2f} s", "")
        spec = make_set(Path(scratch), "auto", 4, 500)
        parent, slots, reader = memory(spec)
        table.add_row("parent above import torch, private memory", f"{parent:.0f} MiB", "< 150 MiB")
        table.add_row("slots of the ring, shared", f"{slots:.0f} MiB", "")
        table.add_row("a reader, private memory", f"{reader:.0f} MiB", "< 120 MiB + its window")
    table.caption = f"{psutil.cpu_count()} processors"
    Console().print(table)


if __name__ == "__main__":
    main()
