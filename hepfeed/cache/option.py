"""The option ``cache`` of loaders: which cache they use."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Literal

from hepfeed.cache.feed import CacheFeed
from hepfeed.cache.key import CacheKey, make_key
from hepfeed.cache.location import default_root
from hepfeed.cache.manifest import Manifest
from hepfeed.cache.store import CacheStore, cache_directory
from hepfeed.errors import HepfeedError, SourceError, SpecError
from hepfeed.index import EventIndex
from hepfeed.pipeline import Pipeline

__all__ = ["CacheOption", "open_cache"]

_NOT_PATHS = {
    "auto",
    "ram",
    "none",
    "true",
    "false",
    "on",
    "off",
    "yes",
    "no",
    "always",
    "never",
    "disk",
    "memory",
    "shm",
    "",
}

CacheOption = str | os.PathLike[str] | Literal["auto", "ram"] | None


def open_cache(option: CacheOption, size: float | None, index: EventIndex, pipeline: Pipeline) -> CacheFeed | None:
    """Return the cache that a loader reads and writes; None where it does without.

    Args:
        option: ``"auto"``: the default place, where a cache saves work.  ``"ram"``: memory first, then the default
            place.  Else a directory.
        size: Most bytes; for ``"auto"`` by default half of what is free on the disk, for ``"ram"`` half of the memory.
        index: The loader's events.
        pipeline: Its steps.

    Raises:
        SpecError: ``size`` is no number of bytes, or is given without a cache.
        SourceError: A directory that was named has no such cache and can't be written.
    """
    if size is not None and not size > 0:
        raise SpecError(f"cache_size={size!r} is no number of bytes: use e.g. 20e9")
    if option is None:
        if size is not None:
            raise SpecError("cache_size is given without a cache: name one with cache=")
        return None
    if str(option).lower() in _NOT_PATHS and option not in ("auto", "ram"):
        raise SpecError(f"cache={option!r} is no cache: use 'auto', 'ram', None or a path such as './{option}'")
    automatic = option in ("auto", "ram")
    if option == "auto" and not _saves_work(index, pipeline):
        return None
    root = default_root() if automatic else Path(option)
    limit = None if size is None or option == "ram" else int(size)
    if limit is None and automatic:
        limit = _free(root) // 2
    key = _key(root, index, pipeline)
    store = CacheStore.open(root, key, index.files, index.selected, limit)
    feed = CacheFeed(store, index, required=not automatic, memory=_memory(size) if option == "ram" else 0)
    if feed.missing and not automatic:
        _need_writable(store.directory)
    return feed


def _key(root: Path, index: EventIndex, pipeline: Pipeline) -> CacheKey:
    """Return the key by which files are known in the caches that there are.

    The files are read for their contents only where a cache knows its own so, and none knows them by path and time.
    """
    key = make_key(index, pipeline)
    if os.path.isdir(cache_directory(os.fspath(root), key)):
        return key
    places = [root, *(entry for entry in root.iterdir() if entry.is_dir())] if root.is_dir() else []
    for place in places:
        with contextlib.suppress(HepfeedError):
            there = Manifest.load(os.fspath(place))
            if there is not None and there.key.made_of.get("identity") == "content":
                by_content = make_key(index, pipeline, "content")
                if by_content.digest == there.key.digest:
                    return by_content
    return key


def _saves_work(index: EventIndex, pipeline: Pipeline) -> bool:
    """Whether events are decoded or processed; rows that lie in the files as they are delivered need no cache."""
    if pipeline.cached:
        return True
    return any(
        source.block > 1 or not source.column(key.name).plain or source.dataset(key.name).storage != "contiguous"
        for source in index.sources
        for key in index.keys
    )


def _free(root: Path) -> int:
    there = next((path for path in (root, *root.absolute().parents) if path.exists()), Path("/"))
    return shutil.disk_usage(there).free


def _memory(size: float | None) -> int:
    from hepfeed.ring import available_memory

    return int(size) if size is not None else available_memory() // 2


def _need_writable(directory: str) -> None:
    path = Path(directory)
    there = next((each for each in (path, *path.parents) if each.exists()), Path("/"))
    if not there.is_dir():
        raise SourceError(f"the cache can't be in {directory!r}: {str(there)!r} is a file", file=directory)
    if not os.access(there, os.W_OK | os.X_OK):
        raise SourceError(
            f"the cache in {directory!r} is not there or not complete, and {str(there)!r} can't be written: name a"
            " directory that you may write to, or use cache=None",
            file=directory,
        )
