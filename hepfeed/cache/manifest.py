"""The manifest of a cache: its key and its parts, written last."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from dataclasses import dataclass, field
from typing import Any

import xxhash

from hepfeed.cache.key import CacheKey
from hepfeed.errors import FileFormatError, SourceError
from hepfeed.parts.form import ArrayForm
from hepfeed.parts.part import FORMAT, Part

__all__ = ["MANIFEST", "Manifest", "part_files"]

MANIFEST = "manifest.json"


@dataclass
class Manifest:
    """What a cache holds.

    Attributes:
        key: What its contents depend on.
        files: Paths of the sources; ``event[:, 0]`` of the parts counts in this list.
        events: Events that the specification selects, which is how many a complete cache has, removed ones too.
        forms: The arrays of a batch; empty before the first part.
        parts: By name.
        damaged: Name of a part -> numbers of its blocks that can't be read; -1 is all of them.
        about: For readers: versions, when it was made.
    """

    key: CacheKey
    files: list[str]
    events: int
    forms: tuple[ArrayForm, ...] = ()
    parts: dict[str, Part] = field(default_factory=dict)
    damaged: dict[str, list[int]] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    def save(self, directory: str) -> None:
        """Write the manifest in the place of the one that is there, in one step.

        Raises:
            OSError: It can't be written.
        """
        from hepfeed import __version__

        content = {
            "format": FORMAT,
            "about": {**self.about, "hepfeed": __version__, "written": time.strftime("%Y-%m-%dT%H:%M:%S%z")},
            "made_of": self.key.made_of,
            "files": self.files,
            "events": self.events,
            "arrays": [form.to_json() for form in self.forms],
            "damaged": self.damaged,
            "parts": [part.to_json() for part in self.parts.values()],
        }
        content["xxh3"] = _sum_of(content)
        descriptor, path = tempfile.mkstemp(prefix=f".{MANIFEST}.", suffix=".tmp", dir=directory)
        try:
            with open(descriptor, "w", encoding="utf-8") as stream:
                json.dump(content, stream)
                stream.write("\n")
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(path, 0o666 & ~_umask())
            os.rename(path, os.path.join(directory, MANIFEST))
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise

    @classmethod
    def load(cls, directory: str) -> Manifest | None:
        """Read the manifest of a directory; None where there is none.

        Raises:
            SourceError: It can't be read.
            FileFormatError: It is damaged or of another format.
        """
        path = os.path.join(directory, MANIFEST)
        try:
            with open(path, encoding="utf-8") as stream:
                content = json.load(stream)
            if content["format"] != FORMAT:
                raise FileFormatError(f"{path!r} has format {content['format']}, this is {FORMAT}", file=path)
            if content.pop("xxh3") != _sum_of(content):
                raise FileFormatError(f"{path!r} fails its checksum", file=path)
            parts = [Part.from_json(each) for each in content["parts"]]
            return cls(
                CacheKey(content["made_of"]),
                content["files"],
                content["events"],
                tuple(ArrayForm.from_json(each) for each in content["arrays"]),
                {part.name: part for part in parts},
                content["damaged"],
                content["about"],
            )
        except FileNotFoundError:
            return None
        except (NotADirectoryError, PermissionError) as error:
            raise SourceError(f"can't read {path!r}: {error.strerror}", file=path) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FileFormatError(f"{path!r} is no manifest of a cache: {error}", file=path) from error


def _sum_of(content: dict[str, Any]) -> str:
    return xxhash.xxh3_64_hexdigest(json.dumps(content, sort_keys=True).encode())


def part_files(directory: str) -> list[str]:
    """Return the names of the parts in a directory, in their order."""
    return sorted(name for name in os.listdir(directory) if name.startswith("part-") and name.endswith(".h5"))


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
