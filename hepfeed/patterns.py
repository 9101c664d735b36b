"""The files that a path, a glob or a directory names."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Iterable

from hepfeed.errors import SpecError, nearest

__all__ = ["HDF5_SUFFIXES", "beside", "expand", "hdf5_files", "match", "relocate"]

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5")


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
    return sorted(itertools.chain.from_iterable(hdf5_files(p) if os.path.isdir(p) else [p] for p in paths))


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
        for path in matches:
            files.setdefault(os.path.realpath(path), path)
    return tuple(files.values())


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
