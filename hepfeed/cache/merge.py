"""The merge: makes one cache of what the shards of a build wrote, by writing its manifest."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hepfeed.cache.inventory import Inventory
from hepfeed.cache.lock import not_writable, writer_lock
from hepfeed.cache.manifest import MANIFEST
from hepfeed.cache.shards import read_notes, remove_notes
from hepfeed.cache.stock import summary
from hepfeed.cache.sums import Sums, part_sums
from hepfeed.errors import FileFormatError

__all__ = ["Merged", "merge_cache"]

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Merged:
    """What a merge found.

    Attributes:
        directory: Of the cache.
        events: Events that it has, or that the steps took out; each counted once.
        expected: Events that it is to have.
        skipped: Events that shards left out because of an error.
        twice: Events that are there more than once; the first counts.
        parts: Number of parts.
        bytes: Of all parts.
        missing: Path of a source -> events of it that are missing.
        shards: Shards that have ended, e.g. ``0/16``.
    """

    directory: str
    events: int
    expected: int
    skipped: int
    twice: int
    parts: int
    bytes: int
    missing: dict[str, int]
    shards: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every event is there, but those that were skipped."""
        return self.events + self.skipped >= self.expected


def merge_cache(directory: str, partial: bool = False) -> Merged:
    """Write the manifest of the parts in a directory.  No event is read, and no specification is needed.

    Args:
        directory: Of the cache, with the manifest that each shard writes when it begins.
        partial: Write it even if events are missing; without, nothing is written then.

    Raises:
        FileFormatError: There is no manifest, or a part or a note can't be read or belongs to another cache.
        SourceError: A shard is still at work, or the directory can't be written.
        ResourceError: The disk is full.
    """
    with writer_lock(directory):
        stock = Inventory.take(directory)
        manifest = stock.manifest
        if manifest is None or stock.faults:
            why = "; ".join(stock.faults[:3]) or f"it has no {MANIFEST}, which each shard writes when it begins"
            raise FileFormatError(
                f"{directory!r} can't be merged: {why}; delete such files and run those shards again", file=directory
            )
        notes = read_notes(directory)
        sums: dict[str, Sums] = dict(manifest.about.get("sums", {}))
        skipped = {(file, row) for file, row in manifest.about.get("skipped", [])}
        for note in notes:
            sums |= note.sums
            skipped |= {(file, row) for file, row in note.skipped}
        numbers, twice, base = _numbers(stock)
        lost = np.array(sorted(skipped), np.int64).reshape(-1, 2)
        lost = lost[~np.isin(lost[:, 0] * base + lost[:, 1], numbers)]
        merged = Merged(
            directory,
            len(numbers),
            manifest.events,
            len(lost),
            twice,
            len(stock.parts),
            stock.bytes,
            _missing(manifest.files, manifest.about["events_of_files"], numbers // base, lost[:, 0]),
            tuple(str(note.shard) for note in notes),
        )
        if merged.complete or partial:
            for name, part in stock.parts.items():
                if name not in sums:
                    sums[name] = part_sums(part, directory, stock.forms)
            manifest.parts, manifest.forms = stock.parts, stock.forms
            manifest.about |= {"skipped": lost.tolist(), **summary({name: sums[name] for name in stock.parts})}
            try:
                manifest.save(directory)
            except OSError as error:
                raise not_writable(directory, error) from error
        if merged.complete:
            with contextlib.suppress(OSError):
                remove_notes(directory)
        return merged


def _numbers(stock: Inventory) -> tuple[Ints, int, int]:
    """Return a number for each event that is there, how many come twice, and what ``file`` is multiplied with in it."""
    found = [np.concatenate([event, removed]) for _, event, removed in stock.events()]
    every = np.concatenate([np.empty((0, 2), np.int64), *found])
    base = int(every[:, 1].max(initial=0)) + 1
    numbers, times = np.unique(every[:, 0] * base + every[:, 1], return_counts=True)
    return numbers, int((times > 1).sum()), base


def _missing(files: list[str], expected: list[int], there: Ints, skipped: Ints) -> dict[str, int]:
    have = np.bincount(there, minlength=len(files)) + np.bincount(skipped, minlength=len(files))
    return {path: n - int(h) for path, n, h in zip(files, expected, have) if n > h}
