"""The floor of reading: inflate every chunk once with the fastest library, and copy every byte once, on all cores.

The floor of building a cache is the same, and then as many bytes written and synced as the cache has.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from typing import Any

import deflate
import h5py
import numpy as np
from zlib_ng import zlib_ng

Chunks = list[tuple[int, int]]
_FILE_BYTES = 32 << 20
DECODERS: dict[str, Callable[[bytes, int], Any]] = {
    "libdeflate": lambda raw, size: deflate.zlib_decompress(raw, size),
    "zlib-ng": lambda raw, size: zlib_ng.decompress(raw, 15, size),
}


def _chunks(path: str, keys: list[str]) -> list[tuple[Chunks, int, bool]]:
    """For each key: where its chunks lie, bytes of a decoded one, and whether it is compressed."""
    found = []
    with h5py.File(path) as file:
        for key in keys:
            node = file[key]
            if node.chunks is None:
                step = 1 << 20
                spans = [(node.id.get_offset() + at, min(step, node.nbytes - at)) for at in range(0, node.nbytes, step)]
                found.append((spans, step, False))
                continue
            infos: list[Any] = []
            node.id.chunk_iter(infos.append)
            size = int(np.prod(node.chunks)) * node.dtype.itemsize
            found.append(([(i.byte_offset, i.size) for i in infos], size, node.compression is not None))
    return found


def _fastest(path: str, spans: Chunks, size: int) -> Callable[[bytes, int], Any]:
    with open(path, "rb") as stream:
        raw = [os.pread(stream.fileno(), n, at) for at, n in spans[:: max(1, len(spans) // 50)]]
    spent = {}
    for name, decode in DECODERS.items():
        best = np.inf
        for _ in range(3):
            begun = time.perf_counter()
            for data in raw:
                decode(data, size)
            best = min(best, time.perf_counter() - begun)
        spent[name] = best
    return DECODERS[min(spent, key=lambda name: spent[name])]


def _write(data: memoryview, size: int, folder: str) -> None:
    """Write ``size`` bytes to files as large as parts of a cache, each synced."""
    for number, at in enumerate(range(0, size, _FILE_BYTES)):
        path = os.path.join(folder, f"floor-{os.getpid()}-{number}")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        some = data[: min(_FILE_BYTES, size - at)]
        assert os.write(descriptor, some) == len(some)
        os.fsync(descriptor)
        os.close(descriptor)


def _work(files: list[str], keys: list[str], barrier: Barrier, rounds: int, written: int, folder: str) -> None:
    plan = []
    for path in files:
        for spans, size, packed in _chunks(path, keys):
            plan.append((os.open(path, os.O_RDONLY), spans, size, _fastest(path, spans, size) if packed else None))
    target = np.zeros(128 << 20, np.uint8)  # as many bytes as batches take that are on their way
    for _ in range(rounds):
        barrier.wait()
        at = 0
        for descriptor, spans, size, decode in plan:
            for offset, stored in spans:
                if at + max(size, stored) > len(target):
                    at = 0
                if decode is None:  # the kernel copies
                    at += os.preadv(descriptor, [memoryview(target)[at : at + stored]], offset)
                    continue
                out = np.frombuffer(decode(os.pread(descriptor, stored, offset), size), np.uint8)
                target[at : at + len(out)] = out
                at += len(out)
        _write(memoryview(target), written, folder)
        barrier.wait()


def floor_seconds(
    files: list[str], keys: list[str], processes: int = 2, rounds: int = 3, written: int = 0, folder: str = ""
) -> float:
    """Median seconds of an epoch that only inflates each chunk (or reads, where it is not compressed) and copies it.

    With ``written``, that many bytes are then written to files in ``folder``, and synced.
    """
    context = get_context("fork")
    barrier = context.Barrier(processes + 1)
    share = -(-written // processes)
    workers = [
        context.Process(target=_work, args=(files[i::processes], keys, barrier, rounds, share, folder))
        for i in range(processes)
    ]
    for worker in workers:
        worker.start()
    spent = []
    for _ in range(rounds):
        barrier.wait()
        begun = time.perf_counter()
        barrier.wait()
        spent.append(time.perf_counter() - begun)
    for worker in workers:
        worker.join()
    return float(np.median(spent))
