"""Shards of a build, which run apart: which tasks each takes, and what it leaves for the merge."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from dataclasses import dataclass, field

from hepfeed.cache.sums import Sums
from hepfeed.errors import FileFormatError, SpecError

__all__ = ["Shard", "ShardNote", "read_notes", "remove_notes"]

_NAME = re.compile(r"shard-(\d+)-of-(\d+)\.json")


@dataclass(frozen=True)
class Shard:
    """One of ``count`` builds, which takes tasks ``number``, ``number + count``, ..."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``"2/16"``: shard 2 of 16, counted from 0.

        Raises:
            SpecError: It is none.
        """
        match = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
        if match is None or int(match[1]) >= int(match[2]):
            raise SpecError(f"shard {text!r} is none: use i/n with i = 0 .. n - 1, e.g. 0/16 .. 15/16")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


@dataclass(frozen=True)
class ShardNote:
    """What a shard says when it has ended; the merge takes it into the manifest.

    Attributes:
        shard: Which one.
        sums: Statistics of the parts that it wrote.
        skipped: Events that it left out because of an error: ``[file, row]``.
    """

    shard: Shard
    sums: dict[str, Sums] = field(default_factory=dict)
    skipped: list[list[int]] = field(default_factory=list)

    def save(self, directory: str) -> None:
        """Write the note.

        Raises:
            OSError: It can't be written.
        """
        name = f"shard-{self.shard.number}-of-{self.shard.count}.json"
        descriptor, path = tempfile.mkstemp(prefix=f".{name}.", suffix=".tmp", dir=directory)
        try:
            with open(descriptor, "w", encoding="utf-8") as stream:
                json.dump({"sums": self.sums, "skipped": self.skipped}, stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(path, 0o644)
            os.rename(path, os.path.join(directory, name))
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise


def read_notes(directory: str) -> list[ShardNote]:
    """Return the notes in a directory.

    Raises:
        FileFormatError: One is damaged.
    """
    notes = []
    for name, shard in _names(directory):
        path = os.path.join(directory, name)
        try:
            with open(path, encoding="utf-8") as stream:
                content = json.load(stream)
            notes.append(ShardNote(shard, content["sums"], content["skipped"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FileFormatError(
                f"{path!r} is no note of a shard ({error}): run that shard again", file=path
            ) from error
    return notes


def remove_notes(directory: str) -> None:
    """Delete the notes in a directory."""
    for name, _ in _names(directory):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(directory, name))


def _names(directory: str) -> list[tuple[str, Shard]]:
    matches = [match for name in sorted(os.listdir(directory)) if (match := _NAME.fullmatch(name))]
    return [(match[0], Shard(int(match[1]), int(match[2]))) for match in matches]
