"""A cache on disk, as the consumer's process sees it: what it holds, and the right to write to it."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import time
import weakref
from collections.abc import Iterable
from functools import partial
from typing import ClassVar

from hepfeed.cache.inventory import open_part
from hepfeed.cache.key import CacheKey
from hepfeed.cache.lock import open_lock, try_lock
from hepfeed.cache.manifest import Manifest, part_files
from hepfeed.cache.memory import PartMemory
from hepfeed.cache.places import Contents
from hepfeed.errors import HepfeedError, ResourceError, SourceError
from hepfeed.parts.form import ArrayForm
from hepfeed.parts.part import Part
from hepfeed.parts.writer import PartsWritten, unfinished

__all__ = ["CacheStore", "cache_directory"]

_STALE_S = 3600.0  # what a killed writer left may go after that; another writer's part is finished in seconds
_numbers = itertools.count()
_logger = logging.getLogger("hepfeed")


def cache_directory(root: str, key: CacheKey) -> str:
    """Return where the cache of a key lies: ``root`` itself if it is that cache, else a directory in it."""
    with contextlib.suppress(HepfeedError):
        there = Manifest.load(root)
        if there is not None and there.key.digest == key.digest:
            return root
    return os.path.join(root, key.digest[:16])


class CacheStore:
    """The parts of one cache.

    Several processes may read it.  One writes: the others read what is there, and the sources for the rest.

    Args:
        root: Directory of caches.
        key: Of this one.
        files: Paths of the sources, in the order of the specification.
        events: That a complete cache has.
        limit: Most bytes on disk; None for as many as there is room for.

    Attributes:
        directory: Of its files.
        manifest: What it holds.
        contents: The same, as tables.
        memory: Where parts are kept first; None to keep them on disk.
        error: Why nothing more is written; None while all is well, or where nothing was tried.
    """

    _stores: ClassVar[weakref.WeakValueDictionary[str, CacheStore]] = weakref.WeakValueDictionary()

    @classmethod
    def open(
        cls, root: str | os.PathLike[str], key: CacheKey, files: list[str], events: int, limit: int | None = None
    ) -> CacheStore:
        """Return the store of a cache; in a process there is one of each."""
        directory = cache_directory(os.path.abspath(os.fspath(root)), key)
        store = cls._stores.get(directory)
        if store is None or store._owner != os.getpid():
            store = cls._stores[directory] = cls(directory, key, files, events)
        store.limit = limit
        return store

    def __init__(self, directory: str, key: CacheKey, files: list[str], events: int) -> None:
        self.directory = directory
        self.limit: int | None = None
        self.manifest = Manifest(key, files, events)
        self.contents = Contents()
        self.error: HepfeedError | None = None
        self.memory: PartMemory | None = None
        self._lock = -1
        self._number = next(_numbers)
        self._owner = os.getpid()
        self._seen: tuple[int, int] | None = None
        self.refresh()

    @property
    def key(self) -> str:
        """Digest of the key."""
        return self.manifest.key.digest

    @property
    def token(self) -> str:
        """Tells this store from others of the same cache, which may number its parts otherwise."""
        return f"{self.key}:{self._number}"

    @property
    def bytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.bytes for part in self.contents.parts if part.slot < 0)

    @property
    def damaged(self) -> list[tuple[int, int]]:
        """``(part, block)`` that can't be read."""
        return [
            (self.contents.number(name), block)
            for name, blocks in self.manifest.damaged.items()
            if name in self.contents
            for block in blocks
        ]

    # ---- reading ---------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Take in what other processes wrote since."""
        try:
            status = os.stat(self.directory)
        except OSError:
            return
        seen = (status.st_mtime_ns, status.st_ino)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            listed = Manifest.load(self.directory)
        except HepfeedError as error:
            _logger.warning("%s: the parts are looked at one by one", error)
            listed = None
        if listed is not None and listed.key.digest != self.key:
            _logger.warning("%s holds another cache: its manifest is not used", self.directory)
            listed = None
        if listed is not None:
            self.manifest.forms = self.manifest.forms or listed.forms
            self.manifest.about = listed.about
            for name, blocks in listed.damaged.items():
                self.manifest.damaged.setdefault(name, blocks)
        known = listed.parts if listed is not None else {}
        for name in part_files(self.directory):
            if name not in self.contents and not self._given_up(name):
                self._adopt(name, known.get(name))
        missing = [name for name in known if name not in self.contents and not self._given_up(name)]
        if missing:
            _logger.warning("%s lacks %d of its parts: their events are processed again", self.directory, len(missing))
        if listed is None and self.contents.parts and self._lock < 0:
            self._renew()

    def _renew(self) -> None:
        """Write a manifest where there are parts without a good one, unless another process is at it."""
        with contextlib.suppress(HepfeedError):
            if self.acquire():
                self.release()

    def _given_up(self, name: str) -> bool:
        """Whether nothing of a part can be read, which was said before."""
        return -1 in self.manifest.damaged.get(name, ())

    def _adopt(self, name: str, part: Part | None) -> None:
        """Take in a part that is on disk."""
        try:
            part, _, self.manifest.forms = open_part(self.directory, name, part, self.key, self.manifest.forms)
            self.contents.add(part, self.directory)
        except (HepfeedError, OSError) as error:
            _logger.warning("%s; its events are processed again", str(error))
            self.manifest.damaged[name] = [-1]
            return
        self.manifest.parts[name] = part

    def _agree(self, forms: tuple[ArrayForm, ...], path: str) -> None:
        if not self.manifest.forms:
            self.manifest.forms = forms
        elif forms != self.manifest.forms:
            raise SourceError(f"{path!r} has other arrays than the parts before", file=path)

    # ---- writing ---------------------------------------------------------------------------------------------------

    def acquire(self) -> bool:
        """Take the right to write; False where another process has it.

        Raises:
            SourceError: The directory can't be made or written to.
            ResourceError: The disk is full.
        """
        if self._lock >= 0:
            return True
        descriptor = open_lock(self.directory)
        if not try_lock(descriptor):
            os.close(descriptor)
            return False
        self._lock = descriptor
        self.refresh()
        self._clear_unfinished()
        return True

    def repair(self) -> None:
        """Take the right to write, if that can be, because something turned out to be damaged."""
        if self._lock < 0 and self.error is None:
            try:
                self.acquire()
            except HepfeedError as error:
                self.error = error
                _logger.warning("%s", error)

    def _clear_unfinished(self) -> None:
        for name in os.listdir(self.directory):
            path = os.path.join(self.directory, name)
            with contextlib.suppress(OSError):
                if unfinished(name) and os.stat(path).st_mtime < time.time() - _STALE_S:
                    os.unlink(path)

    @property
    def writing(self) -> bool:
        """Whether events are to be written, to disk or to memory."""
        return (self._lock >= 0 or self.memory is not None) and self.error is None

    @property
    def locked(self) -> bool:
        """Whether this process has the right to write to the directory."""
        return self._lock >= 0

    @property
    def complete(self) -> bool:
        """Whether all events are there, as far as their number tells."""
        return sum(part.events + part.removed for part in self.contents.parts) >= self.manifest.events

    def take(self, written: PartsWritten) -> None:
        """Take in what readers have written."""
        for part in written.parts:
            if part.name in self.contents:
                continue
            try:
                self._agree(written.forms, part.name)
                if part.slot >= 0:
                    assert self.memory is not None, "who grants slots has them"
                    self.memory.take(part)
                    self.contents.add(part, self.directory, partial(self.memory.read, part))
                    continue
                self.contents.add(part, self.directory)
            except HepfeedError as error:
                _logger.warning("%s; its events are processed again", str(error))
                continue
            self.manifest.parts[part.name] = part
        reason = written.error
        if reason is None and self.limit is not None and self.bytes > self.limit:
            reason = ResourceError(
                f"the cache in {self.directory!r} has reached its limit of {self.limit / 1e9:.3g} GB: the other events"
                " are read from their sources"
            )
        if reason is not None and self.error is None:
            self.error = reason
            _logger.warning("%s", str(reason))

    def mark(self, damaged: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """Take note of blocks that can't be read; returns those that are new."""
        known = self.damaged
        new = [each for each in damaged if each not in known]
        for number, block in new:
            part = self.contents.parts[number]
            _logger.warning(
                "%s of %s: its events are processed again",
                f"block {block} fails its checksum or can't be read" if block >= 0 else "the file can't be read",
                os.path.join(self.directory, part.name),
            )
            self.manifest.damaged.setdefault(part.name, []).append(block)
        return new

    def commit(self) -> None:
        """Write the manifest.

        Raises:
            OSError: It can't be written.
        """
        if self._lock >= 0 and (self.manifest.parts or self.manifest.damaged):
            self.manifest.save(self.directory)

    def release(self) -> None:
        """Give the right to write back, with a manifest of what there is."""
        if self._lock < 0 or self._owner != os.getpid():
            return
        try:
            self.refresh()
            self.commit()
        except OSError as error:
            _logger.warning("the manifest of %s could not be written: %s", self.directory, error)
        os.close(self._lock)
        self._lock = -1

    def __del__(self) -> None:
        if getattr(self, "_lock", -1) >= 0 and self._owner == os.getpid():
            with contextlib.suppress(OSError):
                os.close(self._lock)
