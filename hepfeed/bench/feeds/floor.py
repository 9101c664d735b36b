"""What no feed can beat: each chunk inflated once with the fastest library, and each byte copied once, on all cores.

The floor of building a cache is the same, and then as many bytes written and synced as the cache has.  That of a cache
in memory is to copy each byte of the events once or, where only cells that are not 0 are kept, to clear as many bytes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import deflate
import h5py
import numpy as np
from zlib_ng import zlib_ng

from hepfeed.bench.feeds.events import EventSet
from hepfeed.errors import ReaderError
from hepfeed.worker import Worker

__all__ = ["Copying", "Floor", "Inflating", "floor_seconds"]

_Spans = list[tuple[int, int]]
_Decode = Callable[[bytes, int], Any]
_FILE_BYTES = 32 << 20
_TARGET_BYTES = 128 << 20
"""As many bytes as batches take that are on their way."""
_SOURCE_BYTES = 512 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>
_TRIED = 50
"""Chunks of which the fastest library is found."""


def _libdeflate(raw: bytes, size: int) -> Any:
    return deflate.zlib_decompress(raw, size)


def _zlib_ng(raw: bytes, size: int) -> Any:
    return zlib_ng.decompress(raw, 15, size)


class Inflating:
    """One process's part of the floor of reading files.

    Args:
        files: Its files.
        datasets: What is read of each.
        written: Bytes that it writes and syncs in the end.
        folder: Where to.
    """

    def __init__(self, files: Sequence[str], datasets: Sequence[str], written: int = 0, folder: str = "") -> None:
        _keep_memory()
        self._plan: list[tuple[int, _Spans, int, _Decode | None]] = []
        for path in files:
            for spans, size, packed in _chunks(path, datasets):
                descriptor = os.open(path, os.O_RDONLY)
                self._plan.append((descriptor, spans, size, _fastest(descriptor, spans, size) if packed else None))
        self._target = np.zeros(_TARGET_BYTES, np.uint8)
        self._written, self._folder = written, folder

    def run(self) -> None:
        """Do it once."""
        self.warm()
        self._write()

    def warm(self) -> None:
        """Read, and write nothing."""
        at, target = 0, self._target
        for descriptor, spans, size, decode in self._plan:
            for offset, stored in spans:
                if at + max(size, stored) > len(target):
                    at = 0
                if decode is None:  # the kernel copies
                    at += os.preadv(descriptor, [target.data[at : at + stored]], offset)
                    continue
                out = np.frombuffer(decode(os.pread(descriptor, stored, offset), size), np.uint8)
                target[at : at + len(out)] = out
                at += len(out)

    def _write(self) -> None:
        """Write files as large as parts of a cache, each synced."""
        for number, at in enumerate(range(0, self._written, _FILE_BYTES)):
            path = os.path.join(self._folder, f"floor-{os.getpid()}-{number}")
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                os.write(descriptor, self._target.data[: min(_FILE_BYTES, self._written - at)])
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def close(self) -> None:
        """Close the files."""
        for descriptor, *_ in self._plan:
            os.close(descriptor)


def _keep_memory() -> None:
    """Let large decoded chunks come to memory that this process has had before, and not to pages that are new."""
    with contextlib.suppress(AttributeError):  # another C library than GNU's
        options = ctypes.CDLL(None).mallopt
        options(_M_MMAP_THRESHOLD, _FILE_BYTES)
        options(_M_TRIM_THRESHOLD, _SOURCE_BYTES)


def _chunks(path: str, datasets: Sequence[str]) -> list[tuple[_Spans, int, bool]]:
    """For each data set: where its chunks lie, bytes of a decoded one, and whether they are deflated."""
    found = []
    with h5py.File(path) as file:
        for name in datasets:
            node = file[name]
            if node.chunks is None:
                step, start = 1 << 20, node.id.get_offset() or 0
                spans = [(start + at, min(step, node.nbytes - at)) for at in range(0, node.nbytes, step)]
                found.append((spans, step, False))
                continue
            infos: list[Any] = []
            node.id.chunk_iter(infos.append)
            size = int(np.prod(node.chunks)) * node.dtype.itemsize
            filters = node.id.get_create_plist()
            order = [filters.get_filter(number)[0] for number in range(filters.get_nfilters())]
            tail = 0
            if h5py.h5z.FILTER_FLETCHER32 in order:  # four bytes behind what it has got
                if order[-1] == h5py.h5z.FILTER_FLETCHER32:
                    tail = 4
                else:
                    size += 4
            spans = [(info.byte_offset, info.size - tail) for info in infos]
            found.append((spans, size, h5py.h5z.FILTER_DEFLATE in order))
    return found


def _fastest(descriptor: int, spans: _Spans, size: int) -> _Decode:
    raw = [os.pread(descriptor, n, at) for at, n in spans[:: max(1, len(spans) // _TRIED)]]
    spent = {}
    for decode in (_libdeflate, _zlib_ng):
        best = np.inf
        for _ in range(3):
            begun = time.perf_counter()
            for data in raw:
                decode(data, size)
            best = min(best, time.perf_counter() - begun)
        spent[decode] = best
    return min(spent, key=lambda decode: spent[decode])


class Copying:
    """One process's part of the floor of reading a cache that is in memory.

    Args:
        size: Bytes of its events in batches.
        clear: Clear the target, and copy nothing.
    """

    def __init__(self, size: int, clear: bool) -> None:
        self._size, self._clear = size, clear
        self._source = np.ones(1 if clear else min(size, _SOURCE_BYTES), np.uint8)
        self._target = np.ones(min(size, _TARGET_BYTES), np.uint8)

    def run(self) -> None:
        """Do it once."""
        step = min(len(self._target), 8 << 20)
        for at in range(0, self._size, step):
            some = min(step, self._size - at)
            to = at % (len(self._target) // step * step)
            if self._clear:
                self._target[to : to + some] = 0
            else:
                start = at % (len(self._source) // step * step)
                self._target[to : to + some] = self._source[start : start + some]

    def warm(self) -> None:
        """Touch all memory."""
        self.run()


class Floor:
    """Processes that do the least that a feed must do; a context manager.

    Args:
        target: ``"module:Class"`` with a method ``run``.
        parts: Arguments of each process.
    """

    def __init__(self, target: str, parts: Sequence[tuple[Any, ...]]) -> None:
        self._workers: list[Worker] = []
        try:
            for arguments in parts:
                self._workers.append(Worker(target, arguments))
            self._call("warm")
        except BaseException:
            self.close()
            raise

    @classmethod
    def of(cls, events: EventSet, processes: int) -> Floor:
        """Return that of an input: its own format in memory where it is prepared, else its files."""
        if events.prepared:
            size = len(events) * events.event_bytes // processes
            return cls(f"{__name__}:Copying", [(size, events.sparse)] * processes)
        datasets = sorted({column.dataset for source in events.sources for column in source.columns.values()})
        return cls(f"{__name__}:Inflating", [(events.files[i::processes], datasets) for i in range(processes)])

    def turn(self) -> float:
        """Let all do their part once at the same time; returns the seconds of the slowest.

        Raises:
            ReaderError: A process died.
        """
        begun = time.perf_counter()
        self._call("run")
        return time.perf_counter() - begun

    def _call(self, method: str) -> None:
        for worker in self._workers:
            worker.call(0, method)
        waiting = set(self._workers)
        while waiting:
            for worker in select.select(waiting, [], [])[0]:
                replies = worker.receive()
                if replies is None:
                    raise ReaderError("a process that measures the floor died: check the memory")
                for _, succeeded, value in replies:
                    if not succeeded:
                        raise value
                    waiting.discard(worker)

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.close()

    def __enter__(self) -> Floor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def floor_seconds(
    files: Sequence[str],
    datasets: Sequence[str],
    processes: int = 2,
    rounds: int = 3,
    written: int = 0,
    folder: str = "",
) -> float:
    """Return the median seconds of an epoch that only inflates each chunk, or reads it where it is not deflated.

    Args:
        files: All files.
        datasets: What is read of each.
        processes: That share the files.
        rounds: How often it is done.
        written: Bytes that are then written to files in ``folder``, and synced, by all together.
        folder: Where to.
    """
    share = -(-written // processes)
    parts = [(list(files[i::processes]), list(datasets), share, folder) for i in range(processes)]
    with Floor(f"{__name__}:Inflating", parts) as floor:
        return float(np.median([floor.turn() for _ in range(rounds)]))
