"""The floor of reading: inflate every chunk once with the fastest library, and copy every byte once, on all cores."""

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


def _work(files: list[str], keys: list[str], barrier: Barrier, rounds: int) -> None:
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
        barrier.wait()


def floor_seconds(files: list[str], keys: list[str], processes: int = 2, rounds: int = 3) -> float:
    """Median seconds of an epoch that only inflates each chunk (or reads, where it is not compressed) and copies it."""
    context = get_context("fork")
    barrier = context.Barrier(processes + 1)
    workers = [
        context.Process(target=_work, args=(files[i::processes], keys, barrier, rounds)) for i in range(processes)
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
