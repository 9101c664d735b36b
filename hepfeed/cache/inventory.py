"""What lies in the directory of a cache, without its specification."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hepfeed.cache.manifest import MANIFEST, Manifest, part_files
from hepfeed.errors import FileFormatError, HepfeedError, SourceError
from hepfeed.parts.form import ArrayForm
from hepfeed.parts.part import Part

__all__ = ["Inventory", "caches_below", "open_part"]

Ints = NDArray[np.int64]


@dataclass
class Inventory:
    """The manifest of a cache, and the parts that are there.

    Attributes:
        directory: Of the cache.
        key: Its digest; empty where nothing tells.
        manifest: None where there is none that can be read.
        parts: Those that can be read, by name.
        forms: The arrays of a batch; empty without parts.
        damaged: Name -> blocks that the manifest lists as damaged.
        unlisted: Parts that are not in the manifest: written since by a process that was killed, or that still runs.
        faults: In words: what can't be read, or belongs to another cache.
        unusable: Names of the parts that ``faults`` speak of.
    """

    directory: str
    key: str = ""
    manifest: Manifest | None = None
    parts: dict[str, Part] = field(default_factory=dict)
    forms: tuple[ArrayForm, ...] = ()
    damaged: dict[str, list[int]] = field(default_factory=dict)
    unlisted: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)

    @classmethod
    def take(cls, directory: str, key: str = "") -> Inventory:
        """Look at a directory.

        Args:
            directory: Of the cache; it may be missing or empty.
            key: Digest that its parts must have; by default that of the manifest, or else of the first part.
        """
        found = cls(directory, key)
        try:
            found.manifest = Manifest.load(directory)
        except HepfeedError as error:
            found.faults.append(str(error))
        listed: dict[str, Part] = {}
        if found.manifest is not None:
            digest = found.manifest.key.digest
            if key and digest != key:
                found.faults.append(f"{os.path.join(directory, MANIFEST)!r} belongs to another cache")
                found.manifest = None
            else:
                found.key, found.forms, listed = digest, found.manifest.forms, found.manifest.parts
                found.damaged = {name: blocks for name, blocks in found.manifest.damaged.items() if blocks}
        names = part_files(directory) if os.path.isdir(directory) else []
        for name in names:
            found.adopt(name, listed.get(name))
        found.faults += [f"part {name} is gone" for name in sorted(set(listed) - set(names))]
        return found

    def adopt(self, name: str, part: Part | None = None) -> None:
        """Take in a part that is on disk, given what is known of it; a fault where it can't be read."""
        try:
            found, self.key, self.forms = open_part(self.directory, name, part, self.key, self.forms)
        except (HepfeedError, OSError) as error:
            self.faults.append(str(error))
            self.unusable.append(name)
            return
        if found is not part:
            self.unlisted.append(name)
        self.parts[name] = found

    @property
    def bytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.bytes for part in self.parts.values())

    def events(self) -> Iterator[tuple[Part, Ints, Ints]]:
        """Yield each part with its events ``(n, 2)``, without those of damaged blocks, and with the removed ones.

        A part that turns out to be damaged is a fault.
        """
        for name, part in list(self.parts.items()):
            try:
                yield part, *read_events(part, self.directory, self.damaged.get(name, []))
            except SourceError as error:
                self.faults.append(str(error))
                self.unusable.append(name)
                del self.parts[name]


def open_part(
    directory: str, name: str, listed: Part | None, key: str, forms: tuple[ArrayForm, ...]
) -> tuple[Part, str, tuple[ArrayForm, ...]]:
    """Return a part that is on disk, the key of its cache, and the arrays of a batch.

    Args:
        directory: Of the cache.
        name: Of the part.
        listed: What the manifest says of it; the file is looked at where it says nothing, or has another size.
        key: Digest of the key that it must have; empty for any.
        forms: The arrays that it must have; empty for any.

    Raises:
        SourceError: It can't be read, is cut short, or belongs to another cache.
        OSError: It is gone.
    """
    path = os.path.join(directory, name)
    size = os.path.getsize(path)
    if listed is not None and listed.bytes == size:
        return listed, key, forms
    if listed is not None and size < listed.bytes:
        raise FileFormatError(f"{path!r} is cut short", file=path)
    part, its_key, its_forms = Part.open(path)
    if its_key != (key or its_key):
        raise SourceError(f"{path!r} belongs to another cache", file=path)
    if forms and its_forms != forms:
        raise SourceError(f"{path!r} has other arrays than the parts before", file=path)
    return part, its_key, its_forms


def read_events(part: Part, directory: str, damaged: list[int]) -> tuple[Ints, Ints]:
    """Return the events of a part ``(n, 2)``, without those of damaged blocks, and the removed ones ``(m, 2)``.

    Raises:
        SourceError: The part can't be read.
    """
    if -1 in damaged:
        none = np.empty((0, 2), np.int64)
        return none, none
    event, removed = part.read("event", directory), part.read("_cache/removed", directory)
    if damaged:
        event = event[~np.isin(np.arange(len(event)) // part.block_events, damaged)]
    return event, removed


def caches_below(directory: str | os.PathLike[str]) -> list[str]:
    """Return the directories of all caches: the one given if it is a cache, or those in it.

    Raises:
        SourceError: There is no such directory, or no cache in it.
    """
    root = os.path.abspath(os.fspath(directory))
    if not os.path.isdir(root):
        raise SourceError(f"there is no directory {root!r}: name the directory of a cache, or one of caches", file=root)
    if _is_cache(root):
        return [root]
    found = sorted(entry.path for entry in os.scandir(root) if entry.is_dir() and _is_cache(entry.path))
    if not found:
        raise SourceError(f"there is no cache in {root!r}: 'hepfeed cache build' makes one", file=root)
    return found


def _is_cache(directory: str) -> bool:
    return os.path.exists(os.path.join(directory, MANIFEST)) or bool(part_files(directory))
