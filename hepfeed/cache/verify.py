"""Verification: whether a cache holds what was written, and every event once."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from hepfeed.cache.inventory import Inventory
from hepfeed.cache.lock import LOCK, writer_lock
from hepfeed.cache.manifest import MANIFEST
from hepfeed.errors import HepfeedError, SourceError
from hepfeed.parts.part import BOOKS, Part
from hepfeed.parts.writer import unfinished
from hepfeed.worker import call_everywhere

__all__ = ["Verification", "damaged_blocks", "damaged_parts", "verify_cache"]

Ints = NDArray[np.int64]
_READ_BYTES = 4 << 20


@dataclass
class Verification:
    """What was found of a cache.

    Attributes:
        directory: Of the cache.
        events: Events that it holds, each counted once; those that the steps took out too.
        expected: Events that it is to hold; None where no manifest tells.
        skipped: Of these, events that the build left out because of an error.
        bytes: That were compared with their checksums.
        faults: In words, what is wrong.
        damaged: Name of a part -> its damaged blocks; -1 is all of it.
    """

    directory: str
    events: int = 0
    expected: int | None = None
    skipped: int = 0
    bytes: int = 0
    faults: list[str] = field(default_factory=list)
    damaged: dict[str, list[int]] = field(default_factory=dict)


def verify_cache(
    directory: str, workers: int | None = None, progress: Callable[[int, int], None] | None = None
) -> Verification:
    """Compare all checksums of a cache, and count its events.  Nothing is changed.

    Args:
        directory: Of the cache.
        workers: Processes; by default one a processor.
        progress: Called with (bytes that were compared, bytes in all).
    """
    stock = Inventory.take(directory)
    found = Verification(directory, faults=list(stock.faults))
    if stock.manifest is None and not stock.faults:
        found.faults.append(f"there is no {MANIFEST}: 'hepfeed cache merge' writes it, or the next build or training")
    for name, blocks in stock.damaged.items():
        found.faults.append(f"part {name}: {_blocks(blocks)} known to be damaged")
    _compare(stock, found, workers, progress)
    _count(stock, found)
    found.faults += _strays(directory, stock)
    return found


def damaged_parts(directory: str, parts: Mapping[str, Part], workers: int | None = None) -> list[str]:
    """Return the names of those of some parts that fail a checksum or can't be read."""
    stock = Inventory(directory, parts=dict(parts))
    found = Verification(directory)
    _compare(stock, found, workers, None)
    return sorted(found.damaged)


def mark(found: Verification) -> int:
    """Write damaged blocks into the manifest, so that they are processed again; returns how many there are.

    Raises:
        SourceError: There is no manifest, it can't be written, or another process writes to the cache.
    """
    with writer_lock(found.directory):
        manifest = Inventory.take(found.directory).manifest
        if manifest is None:
            raise SourceError(f"{found.directory!r} has no manifest to mark damage in", file=found.directory)
        for name, blocks in found.damaged.items():
            manifest.damaged[name] = sorted({*manifest.damaged.get(name, []), *blocks})
        try:
            manifest.save(found.directory)
        except OSError as error:
            raise SourceError(f"can't write the manifest of {found.directory!r}: {error}") from error
    return sum(map(len, found.damaged.values()))


def damaged_blocks(directory: str, part: Part) -> list[int]:
    """Return the numbers of a part's blocks whose bytes are not those that were written; ``[-1]``: all of it.

    A part whose tables of where events lie are damaged, or tell another story than the manifest, is damaged as a whole.
    """
    path = os.path.join(directory, part.name)
    try:
        there, _, _ = Part.open(path)
        if there != part:
            return [-1]
        for name, stored in part.stored.items():
            if stored.xxh3:
                part.read(name, directory)
        sums = part.read(f"{BOOKS}/checksums", directory)
        if sums.shape != (part.blocks, len(part.columns)):
            return [-1]
        wrong: set[int] = set()
        with open(path, "rb", buffering=0) as stream:
            for column, expected in zip(part.columns, sums.T):
                edges = part.edges(column, directory) + part.stored[column].offset
                wrong.update(_differing(stream.fileno(), edges, expected))
        return sorted(wrong)
    except (HepfeedError, OSError):
        return [-1]


def _differing(descriptor: int, edges: Ints, expected: NDArray[np.uint64]) -> Iterable[int]:
    """Yield the blocks of one column whose xxh3 differs; several are read together."""
    block, blocks = 0, len(expected)
    while block < blocks:
        stop = int(np.searchsorted(edges, edges[block] + _READ_BYTES, side="right")) - 1
        stop = min(max(stop, block + 1), blocks)
        low = int(edges[block])
        data = memoryview(os.pread(descriptor, int(edges[stop]) - low, low))
        for number in range(block, stop):
            some = data[int(edges[number]) - low : int(edges[number + 1]) - low]
            if len(some) != edges[number + 1] - edges[number] or xxhash.xxh3_64_intdigest(some) != int(
                expected[number]
            ):
                yield number
        block = stop


def _compare(
    stock: Inventory, found: Verification, workers: int | None, progress: Callable[[int, int], None] | None
) -> None:
    """Compare the checksums of all parts, in parallel."""
    parts = list(stock.parts.values())
    calls: list[tuple[Any, ...]] = [(stock.directory, part) for part in parts]
    total, done = stock.bytes, 0
    function = f"{__name__}:damaged_blocks"
    with contextlib.closing(call_everywhere(function, calls, workers or os.cpu_count() or 1)) as replies:
        for place, succeeded, value in replies:
            if not succeeded:
                raise value
            part = parts[place]
            done += part.bytes
            if value:
                found.damaged[part.name] = value
                if value != stock.damaged.get(part.name):
                    found.faults.append(f"part {part.name}: {_blocks(value)} damaged")
            if progress:
                progress(done, total)
    found.bytes = done


def _count(stock: Inventory, found: Verification) -> None:
    """Count events that come twice, and those that are missing."""
    damaged = {name: sorted({*stock.damaged.get(name, []), *found.damaged.get(name, [])}) for name in stock.parts}
    stock.damaged = damaged
    events = [np.concatenate([event, removed]) for _, event, removed in stock.events()]
    every = np.concatenate([np.empty((0, 2), np.int64), *events])
    base = int(every[:, 1].max(initial=0)) + 1
    numbers, times = np.unique(every[:, 0] * base + every[:, 1], return_counts=True)
    found.events = len(numbers)
    if twice := int((times > 1).sum()):
        first = divmod(int(numbers[times > 1][0]), base)
        found.faults.append(
            f"{twice:,} events are there more than once, e.g. event {first[1]} of file {first[0]}: a build deletes"
            " parts that add nothing"
        )
    if stock.manifest is None:
        return
    found.expected = stock.manifest.events
    skipped = np.array(stock.manifest.about.get("skipped", []), np.int64).reshape(-1, 2)
    found.skipped = int((~np.isin(skipped[:, 0] * base + skipped[:, 1], numbers)).sum())
    missing = found.expected - found.events - found.skipped
    if missing:
        found.faults.append(f"{missing:,} of {found.expected:,} events are missing")


def _strays(directory: str, stock: Inventory) -> list[str]:
    """Say which files do not belong there."""
    faults = []
    known = {*stock.parts, *stock.unusable, MANIFEST, LOCK}
    for name in sorted(os.listdir(directory)):
        if name in known or (name.startswith("shard-") and name.endswith(".json")):
            continue
        if unfinished(name) or name.endswith(".tmp"):
            if _is_idle(directory):
                faults.append(f"{name} was left by a process that was killed, and can be deleted")
        else:
            faults.append(f"{name} is no file of a cache")
    return faults


def _is_idle(directory: str) -> bool:
    try:
        with writer_lock(directory):
            return True
    except HepfeedError:
        return False


def _blocks(blocks: list[int]) -> str:
    if -1 in blocks:
        return "all of it is"
    shown = ", ".join(map(str, blocks[:5])) + (", ..." if len(blocks) > 5 else "")
    return f"block {shown} is" if len(blocks) == 1 else f"blocks {shown} are"
