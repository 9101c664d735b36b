"""The files that a path, a glob or a directory names."""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Sequence

from hepfeed.errors import SpecError, nearest

__all__ = ["HDF5_SUFFIXES", "beside", "expand", "hdf5_files", "match", "real_paths", "relocate"]

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5")
_MANY = 32  # files of a directory, from which on it is listed


def hdf5_files(directory: str | os.PathLike[str]) -> list[str]:
    """Return the files of a directory tree with a suffix of HDF5, sorted.

    Links to directories are followed; names that begin with a dot are left out.
    """
    found: list[str] = []
    visited: set[str] = set()
    for folder, folders, names in os.walk(directory, followlinks=True):
        real = os.path.realpath(folder)
        seen = real in visited
        visited.add(real)
        folders[:] = [] if seen else [name for name in folders if not name.startswith(".")]
        if not seen:
            names = [name for name in names if name.lower().endswith(HDF5_SUFFIXES)]
            found += [os.path.join(folder, name) for name in names if not name.startswith(".")]
    return sorted(found)


def match(pattern: str, root: str) -> list[str]:
    """Return the absolute paths that ``pattern``, relative to ``root``, names: none when it is wrong."""
    path = os.path.abspath(os.path.join(root, os.path.expanduser(pattern)))
    if os.path.isdir(path):
        return hdf5_files(path)
    if os.path.exists(path):
        return [path]
    names = glob.glob(os.path.expanduser(pattern), root_dir=root, recursive=True)
    paths = [os.path.abspath(os.path.join(root, name)) for name in names]
    entries = _entries(paths)
    folders = {p for p in paths if (entries[p].is_dir() if p in entries else os.path.isdir(p))}
    return sorted(itertools.chain.from_iterable(hdf5_files(p) if p in folders else [p] for p in paths))


def expand(patterns: Iterable[str], root: str) -> tuple[str, ...]:
    """Return the files of all patterns, relative to ``root``, in order, each once.

    Raises:
        SpecError: A pattern names no file.
    """
    files: dict[str, str] = {}
    for pattern in patterns:
        matches = match(pattern, root)
        if not matches:
            raise SpecError(f"no file matches {pattern!r} (from {root!r}): {beside(pattern, root)}")
        for real, path in zip(real_paths(matches), matches):
            files.setdefault(real, path)
    return tuple(files.values())


def real_paths(paths: Sequence[str]) -> list[str]:
    """Return ``os.path.realpath`` of absolute paths, looking at each directory once and not for each file."""
    entries = _entries(paths)
    folders: dict[str, str] = {}
    found = []
    for path in paths:
        folder, _, name = path.rpartition(os.sep)
        real = folders.get(folder)
        if real is None:
            real = folders[folder] = os.path.realpath(folder or os.sep).rstrip(os.sep)
        place = f"{real}{os.sep}{name}"
        linked = entries[path].is_symlink() if path in entries else os.path.islink(place)
        found.append(os.path.realpath(place) if linked else place)
    return found


def _entries(paths: Iterable[str]) -> dict[str, os.DirEntry[str]]:
    """Return what lists of directories say of absolute paths, for directories that many of them are in.

    A list has the types of all files, each of which would be a round trip to a network file system.
    """
    found: dict[str, os.DirEntry[str]] = {}
    for folder, count in Counter(path.rpartition(os.sep)[0] for path in paths).items():
        if count >= _MANY:
            with contextlib.suppress(OSError), os.scandir(folder or os.sep) as entries:
                found.update((entry.path, entry) for entry in entries)
    return found


def beside(pattern: str, root: str) -> str:
    """Phrase what exists beside the first part of ``pattern`` that does not."""
    folder = root
    for part in os.path.join(root, os.path.expanduser(pattern)).split(os.sep):
        below = os.path.join(folder, part) if part else os.sep
        if not os.path.isdir(below):
            names = os.listdir(folder) if os.access(folder, os.R_OK) else []
            return f"in {folder!r} {nearest(part, names)}"
        folder = below
    return f"{folder!r} is a directory without files *{', *'.join(HDF5_SUFFIXES)}"


def relocate(pattern: str, root: str, directory: str) -> str:
    """Rewrite a pattern that starts from ``root`` to start from ``directory``; absolute ones stay."""
    if os.path.isabs(os.path.expanduser(pattern)):
        return pattern
    return os.path.relpath(os.path.join(root, pattern), directory)
