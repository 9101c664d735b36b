"""The key of a cache: all that its contents depend on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import xxhash

from hepfeed.errors import SpecError
from hepfeed.index import EventIndex
from hepfeed.parts.part import FORMAT
from hepfeed.pipeline import Pipeline

__all__ = ["CacheKey", "Identity", "make_key"]

Identity = Literal["stat", "content"]
"""What makes a file the same: its path, size and time of change, or its contents."""
_SHOWN = 5


@dataclass(frozen=True)
class CacheKey:
    """What the contents of a cache depend on.

    Attributes:
        made_of: JSON: ``format``, ``files``, ``samples`` (keys, labels, filters, layouts), ``classes``, ``dtypes`` and
            ``steps`` (those before the cache point, and a hash of the code of functions).
    """

    made_of: dict[str, Any]

    @cached_property
    def digest(self) -> str:
        """32 hexadecimal digits that change with any of it."""
        return xxhash.xxh3_128_hexdigest(json.dumps(self.made_of, sort_keys=True).encode())

    def differences(self, other: CacheKey) -> list[str]:
        """Say in words what differs, from this one to the other."""
        found: list[str] = []
        for name in dict.fromkeys([*self.made_of, *other.made_of]):
            one, two = self.made_of.get(name), other.made_of.get(name)
            if one == two:
                continue
            found += _list_differences(name, one, two) if isinstance(one, list) and isinstance(two, list) else []
            if not isinstance(one, list) or not isinstance(two, list):
                found.append(f"{name}: {_short(one)} there, {_short(two)} here")
        return found


def make_key(index: EventIndex, pipeline: Pipeline, identity: Identity = "stat") -> CacheKey:
    """Return the key of the cache for the events of a specification, whichever part of them an index selects.

    Rates, weights and splits are not in it: they choose among events and do not change them.

    Args:
        index: Describes the files.
        pipeline: The steps; those before the cache point count.
        identity: ``"content"`` reads every file once and takes its hash in the place of path and time, so that files
            may be moved or copied.  The hashes are kept in the index.

    Raises:
        SpecError: ``identity`` is none of these.
        SourceError: A file can't be read.
    """
    if identity not in ("stat", "content"):
        raise SpecError(f"cache identity {identity!r} is unknown: use 'stat' or 'content'")
    spec = index.spec
    infos = [source.info for source in index.sources]
    if identity == "content":
        digests = index.store.contents(infos)
        files: list[list[Any]] = [[digests[info.path], info.size] for info in infos]
    else:
        files = [[info.path, info.size, info.mtime_ns] for info in infos]
    made_of = {
        "format": FORMAT,
        "identity": identity,
        "files": files,
        "samples": [
            {
                "files": files_of,
                "keys": [[name, list(keys)] for name, keys in sample.keys.items()],
                "label": sample.label,
                "filter": sample.filter.fingerprint() if sample.filter else None,
                "layout": sample.layout,
            }
            for files_of, sample in zip(index.sample_files, spec.samples)
        ],
        "filter": spec.filter.fingerprint() if spec.filter else None,
        "classes": sorted(spec.classes.items(), key=lambda item: item[1]),
        "dtypes": spec.dtypes,
        "steps": pipeline.cached_steps(),
    }
    return CacheKey(json.loads(json.dumps(made_of)))


def _list_differences(name: str, one: Sequence[Any], two: Sequence[Any]) -> list[str]:
    found = []
    if len(one) != len(two):
        found.append(f"{name}: {len(one)} there, {len(two)} here")
    different = [(i, a, b) for i, (a, b) in enumerate(zip(one, two)) if a != b]
    for i, a, b in different[:_SHOWN]:
        found.append(f"{name}[{i}]: {_short(a)} there, {_short(b)} here")
    if len(different) > _SHOWN:
        found.append(f"{name}: {len(different) - _SHOWN} more differ")
    return found


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else text[:197] + "..."
