"""What of a specification's events a cache has, while it is built."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfeed.cache.inventory import Inventory
from hepfeed.cache.key import CacheKey
from hepfeed.cache.manifest import MANIFEST, Manifest, part_files
from hepfeed.cache.sums import Sums, part_sums, statistics
from hepfeed.errors import SourceError
from hepfeed.index import EventIndex
from hepfeed.parts.part import Part
from hepfeed.parts.writer import unfinished

__all__ = ["Stock", "summary"]


class Stock:
    """The parts of one cache, and which events they have.

    Parts with damaged blocks, and parts that can't be read, count for nothing: their events are made again, and
    :meth:`clear` deletes them afterwards.

    Args:
        directory: Of the cache.
        key: Of the cache.
        index: All its events.

    Attributes:
        done: ``(events,)`` which events are in the cache, or are known to be taken out by the steps.
        removed: How many the steps took out.
        parts: By name.
        sums: Statistics of parts, as far as they are known.
        skipped: Events that were left out because of an error: ``(file, row)``.
    """

    def __init__(self, directory: str, key: CacheKey, index: EventIndex) -> None:
        self.directory, self._key, self._index = directory, key, index
        self.done: NDArray[np.bool_] = np.zeros(len(index), bool)
        self.removed = 0
        self.parts: dict[str, Part] = {}
        self.sums: dict[str, Sums] = {}
        self.skipped: set[tuple[int, int]] = set()
        found = Inventory.take(directory, key.digest)
        self._forms = found.forms
        self._manifest_there = found.manifest
        about: dict[str, Any] = found.manifest.about if found.manifest is not None else {}
        self.sums.update(about.get("sums", {}))
        self.skipped.update((file, row) for file, row in about.get("skipped", []))
        self._useless = list(found.unusable) + [name for name in found.damaged if name in found.parts]
        # Those with most events first, so that a part whose events all came again is the one without use.
        for part in sorted(found.parts.values(), key=lambda part: (-part.events, part.name)):
            if part.name not in found.damaged:
                self.take(part)

    def take(self, part: Part) -> None:
        """Take in a part, whose events may have come before."""
        try:
            event = part.read("event", self.directory)
            removed = part.read("_cache/removed", self.directory)
        except SourceError:
            self._useless.append(part.name)
            return
        before = int(self.done.sum())
        place, gone = self._index.find(event), self._index.find(removed)
        gone = gone[gone >= 0]
        self.removed += int((~self.done[gone]).sum())
        self.done[place[place >= 0]] = True
        self.done[gone] = True
        if int(self.done.sum()) == before:
            self._useless.append(part.name)
            return
        self.parts[part.name] = part

    def refresh(self) -> None:
        """Take in parts that are on disk and were not reported, as by a process that was killed."""
        found = Inventory(self.directory, self._key.digest, forms=self._forms)
        for name in part_files(self.directory):
            if name not in self.parts and name not in self._useless:
                found.adopt(name)
        self._useless += found.unusable
        for part in found.parts.values():
            self.take(part)

    def reject(self, names: list[str]) -> None:
        """Let parts count for nothing, because they are damaged."""
        self._useless += names
        kept = [part for name, part in self.parts.items() if name not in names]
        self.parts, self.removed = {}, 0
        self.done[:] = False
        for part in kept:
            self.take(part)

    @property
    def bytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.bytes for part in self.parts.values())

    @property
    def missing(self) -> int:
        """Events that the cache does not have."""
        return int(len(self.done) - self.done.sum())

    @property
    def tidy(self) -> bool:
        """Whether the manifest lists what is there, and nothing is left to clear."""
        manifest = self._manifest_there
        return manifest is not None and set(manifest.parts) == set(self.parts) and not self._useless

    def drop(self, name: str) -> None:
        """Delete a part."""
        self.parts.pop(name, None)
        self.sums.pop(name, None)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.directory, name))

    def clear(self) -> None:
        """Delete parts that count for nothing, once their events are elsewhere, and what killed writers left.

        Raises:
            OSError: One can't be deleted.
        """
        for name in self._useless:
            self.drop(name)
        self._useless = []
        for name in os.listdir(self.directory):
            if unfinished(name):
                self.drop(name)

    def remove_all(self) -> None:
        """Delete everything; what is built then is another stock.

        Raises:
            OSError: Something can't be deleted.
        """
        for name in [*self.parts, *self._useless]:
            self.drop(name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.directory, MANIFEST))

    def begin(self) -> None:
        """Write a manifest without parts where there is none, so that what is made can be told without the rest.

        Raises:
            OSError: It can't be written.
        """
        if self._manifest_there is None:
            self._manifest({}, {}).save(self.directory)

    def commit(self) -> None:
        """Write the manifest of what there is.

        Raises:
            OSError: It can't be written.
            SourceError: A part can't be read.
        """
        if not self._forms and self.parts:
            _, _, self._forms = Part.open(os.path.join(self.directory, next(iter(self.parts))))
        for name, part in self.parts.items():
            if name not in self.sums:
                self.sums[name] = part_sums(part, self.directory, self._forms)
        self.sums = {name: sums for name, sums in self.sums.items() if name in self.parts}
        manifest = self._manifest(self.parts, {name: [-1] for name in self._useless})
        manifest.forms = self._forms
        manifest.about |= summary(self.sums)
        manifest.save(self.directory)
        self._manifest_there = manifest

    def _manifest(self, parts: dict[str, Part], damaged: dict[str, list[int]]) -> Manifest:
        index = self._index
        starts = index.file_start
        still = np.array(sorted(self.skipped), np.int64).reshape(-1, 2)
        still = still[~self.done[index.find(still)]] if len(still) else still
        about = {"events_of_files": np.diff(starts).tolist(), "skipped": still.tolist()}
        return Manifest(self._key, index.files, len(index), (), dict(parts), damaged, about)


def summary(sums: dict[str, Sums]) -> dict[str, Any]:
    """Return what a manifest says of the values in its parts: sums of each part, and the figures of all."""
    return {"sums": sums, "statistics": statistics(sums)}
