"""What is converted: files of events, and how each of them is read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from fnmatch import fnmatchcase
from glob import glob, has_magic
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hepfeed.convert.block import Block, Field
from hepfeed.errors import KeyMissingError, SourceError, SpecError, nearest
from hepfeed.patterns import beside

__all__ = [
    "STEP_BYTES",
    "Reader",
    "Source",
    "as_keys",
    "check_names",
    "find_files",
    "key_name",
    "natural",
    "select",
    "unsuited",
]

STEP_BYTES = 32 << 20
"""Most bytes of events that are in memory at once, unless one event has more."""


class Reader(Protocol):
    """An open source."""

    @property
    def events(self) -> int:
        """How many events it has."""

    @property
    def fields(self) -> dict[str, Field]:
        """What it has of each event."""

    @property
    def left_out(self) -> dict[str, str]:
        """What else it has and can't be converted, and why."""

    def steps(self, start: int, stop: int, added_bytes: int) -> Iterator[tuple[int, int]]:
        """Cut events into runs that fit :data:`STEP_BYTES`, if each takes ``added_bytes`` more than is stored."""

    def read(self, start: int, stop: int) -> Block:
        """Read a run of events.

        Raises:
            SourceError: They can't be read.
        """


class Source(Protocol):
    """A file, or a folder of files, that has events; it pickles."""

    @property
    def path(self) -> str:
        """Where it is."""

    @property
    def sequential(self) -> bool:
        """Whether to read from the middle costs as much as to read all before it."""

    def files(self, start: int, stop: int) -> list[str]:
        """Files that hold these events."""

    def verify(self) -> None:
        """Check what :meth:`Reader.read` would not notice in time.

        Raises:
            SourceError: The source is damaged.
        """

    def open(self) -> AbstractContextManager[Reader]:
        """Open it.

        Raises:
            SourceError: It can't be read.
            SpecError: It has not the keys that were asked for.
        """


def as_keys(keys: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """Return one or several names as a tuple, None as it is."""
    if keys is None:
        return None
    return (keys,) if isinstance(keys, str) else tuple(keys)


def find_files(
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], suffixes: tuple[str, ...]
) -> list[tuple[str, list[str]]]:
    """List the files of paths, globs and directories, by the folder that they are in.

    Files that are named, or match a glob, belong to the folder ``""``.  Below a directory all files with one of
    ``suffixes`` are taken, and each belongs to its folder relative to that directory.  Numbers in names count:
    ``run2`` comes before ``run10``.

    Returns:
        Folder and its absolute paths; folders in the order of their names, no file twice.

    Raises:
        SpecError: A source names no file.
    """
    several = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    if not several:
        raise SpecError("expected at least one file, glob or directory to convert, got none")
    found: dict[str, dict[str, str]] = {}
    seen: set[str] = set()
    for source in several:
        name = os.path.abspath(os.path.expanduser(os.fspath(source)))
        if os.path.isdir(name):
            matches = _below(name, suffixes)
            if not matches:
                raise SpecError(f"there is no file *{', *'.join(suffixes)} below {name}: name another directory")
        elif os.path.exists(name):
            matches = [("", name)]
        else:
            matches = [("", path) for path in sorted(glob(name, recursive=True), key=natural) if os.path.isfile(path)]
            if not matches:
                what = "no file matches" if has_magic(name) else "there is no file"
                raise SpecError(f"{what} {os.fspath(source)!r}: {beside(name, os.sep)}")
        for folder, path in matches:
            if (real := os.path.realpath(path)) not in seen:
                seen.add(real)
                found.setdefault(folder, {})[path] = path
    return [(folder, list(found[folder])) for folder in sorted(found, key=natural)]


def _below(directory: str, suffixes: tuple[str, ...]) -> list[tuple[str, str]]:
    found = [
        path
        for path in Path(directory).rglob("*")
        if path.name.lower().endswith(suffixes) and not path.name.startswith(".") and path.is_file()
    ]
    folders = [(path.parent.relative_to(directory).as_posix(), str(path)) for path in found]
    return sorted(
        (("" if folder == "." else folder, path) for folder, path in folders), key=lambda each: natural(each[1])
    )


def natural(text: str) -> list[tuple[int, int | str]]:
    """Return what sorts ``run2`` before ``run10``."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", text) if part]


def select(names: Iterable[str], patterns: Sequence[str] | None, *, file: str, noun: str) -> list[str]:
    """Choose among names by exact name or glob, in the order of the names.

    Args:
        names: What there is.
        patterns: What to choose; None for all.
        file: For the message.
        noun: What a name is, e.g. ``"branch"``.

    Raises:
        KeyMissingError: A pattern matches no name.
    """
    there = list(names)
    if patterns is None:
        return there
    chosen: set[str] = set()
    for pattern in patterns:
        matches = {name for name in there if name == pattern} or {name for name in there if fnmatchcase(name, pattern)}
        if not matches:
            raise KeyMissingError(
                f"{file} has no {noun} {pattern!r}: {nearest(pattern, there)}", file=file, key=pattern
            )
        chosen |= matches
    return [name for name in there if name in chosen]


def key_name(name: str) -> str:
    """Return the name that a key gets: brackets, which select a part of a key, become underscores."""
    return re.sub(r"[\[\]]", "_", name.strip("/")) or "_"


def unsuited(dtype: np.dtype[Any], shape: tuple[int, ...]) -> str:
    """Say why numbers of this type, ``shape`` an event or a row, can't be converted; empty where they can."""
    if 0 in shape:
        return f"its shape {shape} has no elements"
    if dtype.names is not None:
        bad = [name for name in dtype.names if unsuited(dtype[name].base, dtype[name].shape)]
        return f"its field {bad[0]!r} holds no numbers" if bad else ""
    if dtype.kind not in "biufc" or dtype.itemsize > (16 if dtype.kind == "c" else 8):
        return f"its type {dtype} is no number that the feed reads"
    return ""


def check_names(fields: dict[str, Field], file: str) -> None:
    """Check that no two keys want the same place in the HDF5 file.

    Raises:
        SpecError: One key would lie within another.
        SourceError: There is no key.
    """
    if not fields:
        raise SourceError(f"{file} has nothing that can be converted: name another file, or other keys", file=file)
    for name in fields:
        for other in fields:
            if other != name and other.startswith(f"{name}/"):
                raise SpecError(
                    f"keys {name!r} and {other!r} of {file} can't both be data sets: choose one of them",
                    file=file,
                    key=other,
                )
