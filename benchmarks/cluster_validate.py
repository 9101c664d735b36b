"""hepfeed at one and two processes on this machine, against what the model of a cluster makes of its parameters.

A process is a node with one reader, the disk is the shared file system.  The parameters come from other measurements
than those that are predicted: the processor's time of an event from one process and another set, page cache warm; the
disk's from plain reads of the same size, all places once in random order, by one thread and by four.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from hepfeed.bench.cluster import Cluster, FileSystem, Node, Stored, Work, run
from hepfeed.bench.record import Record
from hepfeed.progress import Progress

BATCH = 128
PROCESSES = (1, 2)
WITHIN = 0.3
"""Part of the measured rate that a prediction may be off."""
_THREADS = 4
_ROUNDS = 3
_EVENTS = 6_000
"""Of each process; those that calibrate are a quarter."""
_NEVER = 1e15
_VALUES = 4096
"""float32 of an event."""


@dataclass(frozen=True)
class Form:
    """How a set is stored.

    Attributes:
        name: For people.
        chunk: Events of a compressed chunk; 0: contiguous and not compressed.
    """

    name: str
    chunk: int


FORMS = (Form("contiguous, 16 kB an event", 0), Form("gzip, 16 events a chunk", 16))


def validate(directory: str | None, progress: Progress) -> Record:
    """Measure and compare; a set of 200 MB and a small one are written for each form, and deleted.

    Args:
        directory: Where to; on the disk that is measured.
        progress: Called with (what, done, total).
    """
    rows: list[dict[str, Any]] = []
    for form in FORMS:
        with tempfile.TemporaryDirectory(dir=directory, prefix="hepfeed-cluster-") as scratch:
            os.environ["HEPFEED_INDEX"] = f"{scratch}/index.sqlite"
            files = [_write(f"{scratch}/{number}.h5", _EVENTS, form, number) for number in range(2)]
            small = _write(f"{scratch}/small.h5", _EVENTS // 4, form, 2)
            os.sync()
            work = _work(form, files, _calibrated_s(small))
            disk = _disk(files, work.sources.request_bytes)
            for warm in (True, False):
                for processes in PROCESSES:
                    rows.append(_compare(form, files, work, disk, warm, processes))
                    progress("measuring hepfeed against the model", len(rows), 4 * len(FORMS))
    notes = [
        f"{sum(abs(row['error, %']) <= 100 * WITHIN for row in rows)} of {len(rows)} predictions are within"
        f" {100 * WITHIN:.0f} % of what was measured",
        f"measured: medians of {_ROUNDS} epochs; each process reads files of its own, with one core and no readers"
        " beside it. predicted: hepfeed.bench.cluster with the parameters of the same row, which were measured apart.",
    ]
    settings = {"batch_size": BATCH, "cores": len(os.sched_getaffinity(0))}
    return Record.now("table", "hepfeed against the model of a cluster, on this machine", settings, rows, notes)


def _compare(form: Form, files: list[str], work: Work, disk: FileSystem, warm: bool, processes: int) -> dict[str, Any]:
    """Return one row: the prediction, and what was measured."""
    per_process = files[:processes]
    memory = _NEVER if warm else 0.0
    node = Node(1, _NEVER, memory, 0.0, _NEVER, 0.0)
    shared = FileSystem(_NEVER, _NEVER, _NEVER, 0.0) if warm else disk
    predicted = run(Cluster(processes, node, shared, work), "sources", 1).epochs[0]
    rates = [sum(rate for rate, _ in _epoch(per_process, warm)) for _ in range(_ROUNDS)]
    measured = float(np.median(rates))
    rate = predicted.node_events_per_s * processes
    return {
        "stored": form.name,
        "page cache": "warm" if warm else "cold",
        "processes": processes,
        "us an event": work.sources.event_s * 1e6,
        "kB a read": work.sources.request_bytes / 1e3,
        "disk, ms": None if warm else disk.latency_s * 1e3,
        "disk, MB/s": None if warm else disk.bytes_per_s / 1e6,
        "predicted, events/s": rate,
        "measured, events/s": measured,
        "error, %": 100 * (rate / measured - 1),
    }


def _write(path: str, events: int, form: Form, seed: int) -> str:
    random = np.random.default_rng(seed)
    storage: dict[str, Any] = {"chunks": (form.chunk, _VALUES), "compression": "gzip", "compression_opts": 1}
    with h5py.File(path, "w") as file:
        values = file.create_dataset("values", (events, _VALUES), np.float32, **(storage if form.chunk else {}))
        for first in range(0, events, 1000):
            some = random.standard_normal((min(1000, events - first), _VALUES), np.float32)
            values[first : first + len(some)] = np.round(some * 16) / 16
    return path


def _work(form: Form, files: list[str], event_s: float) -> Work:
    """Return what is read of a set, by the sizes of its stored chunks."""
    with h5py.File(files[0]) as file:
        stored = file["values"].id.get_storage_size()
        events = len(file["values"])
    event_bytes = stored / events
    sources = Stored(len(files), event_bytes, event_bytes * max(1, form.chunk), 1, event_s)
    return Work(events * len(files), sources, sources, 0.0, BATCH, 1e-9, 0.0)


def _disk(files: list[str], size: float) -> FileSystem:
    """Measure plain reads in random order of files that are in no cache: latency of one thread, bandwidth of four."""
    spent = [[_read_s(files, int(size), threads) for threads in (1, _THREADS)] for _ in range(1 + _ROUNDS)]
    one, many = np.median(spent[1:], axis=0).tolist()  # the first round fills the caches of the host
    bandwidth = size / many
    return FileSystem(bandwidth, _NEVER, _NEVER, max(0.0, one - many))


def _read_s(files: list[str], size: int, threads: int) -> float:
    """Return the seconds of a read, by the wall clock, where some threads read at a time.

    Each place is read once, as in an epoch: what the system reads ahead is found in memory later.
    """
    for path in files:
        evict(path)
    descriptors = [os.open(path, os.O_RDONLY) for path in files]
    try:
        steps = [
            (descriptor, step) for descriptor in descriptors for step in range(os.fstat(descriptor).st_size // size)
        ]
        places = [steps[n] for n in np.random.default_rng().permutation(len(steps)).tolist()]

        def work(some: list[tuple[int, int]]) -> int:
            return sum(len(os.pread(descriptor, size, step * size)) for descriptor, step in some)

        with ThreadPoolExecutor(threads) as pool:
            begun = time.perf_counter()
            read = sum(pool.map(work, [places[thread::threads] for thread in range(threads)]))
            spent = time.perf_counter() - begun
        assert read == size * len(places)
        return spent / len(places)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def evict(path: str) -> None:
    """Take a file out of the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _calibrated_s(path: str) -> float:
    """Return the processor's seconds of an event, of one process that reads another set that is in memory."""
    return float(np.median([_epoch([path], warm=True)[0][1] for _ in range(_ROUNDS)]))


def _epoch(files: Sequence[str], warm: bool) -> list[tuple[float, float]]:
    """Return events/s of an epoch of each process, and the processor's seconds of an event.

    The processes begin together, after an epoch that nobody times.
    """
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        for path in files
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", "a process failed"
        if not warm:
            for path in files:
                evict(path)
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
        replies = [json.loads(process.communicate()[0]) for process in processes]
        return [(rate, event_s) for rate, event_s in replies]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main() -> None:
    """Be one process: read a file once, wait for a word, and read it again against the clock."""
    import torch

    import hepfeed as hf

    torch.set_num_threads(1)
    dataset = hf.EventDataset([[sys.argv[1], ["values"], "one", 1.0]])
    loader = hf.DataLoader(dataset, BATCH, shuffle=True, seed=0)
    assert sum(len(batch["label"]) for batch in loader) == len(dataset)
    print("ready", flush=True)
    assert sys.stdin.readline() == "go\n"
    begun, used, seen = time.perf_counter(), time.process_time(), torch.zeros(len(dataset), dtype=torch.int64)
    for batch in loader:
        seen[batch["event"][:, 1]] += 1
    spent, used = time.perf_counter() - begun, time.process_time() - used
    assert bool((seen == 1).all()), "an epoch was not every event once"
    print(json.dumps([len(dataset) / spent, used / len(dataset)]))


if __name__ == "__main__":
    main()
