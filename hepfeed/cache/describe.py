"""What a cache is: what is in it, where that came from, and what it takes."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hepfeed.cache.inventory import Inventory
from hepfeed.cache.sums import part_sums, statistics
from hepfeed.parts.form import ArrayForm

__all__ = ["ArrayReport", "CacheReport", "describe_cache"]


@dataclass(frozen=True)
class ArrayReport:
    """One array of a batch.

    Attributes:
        name: In the batch.
        kind: As in :class:`~hepfeed.parts.form.ArrayForm`, and so are ``dtype``, ``shape`` and ``grid``.
        dtype: NumPy code.
        shape: Of one event, or of one row.
        grid: Spatial shape of sparse arrays.
        storage: Storage -> number of events that are stored so: ``"rows"`` or ``"cells"``, else the kind.
        bytes: On disk.
        dense_bytes: Of the same events as they are delivered; of sparse arrays, as dense images.
        occupancy: Share of cells that are kept, of images that are stored as cells and of sparse arrays; else None.
        statistics: Figures of its values, or empty.
    """

    name: str
    kind: str
    dtype: str
    shape: tuple[int, ...]
    grid: tuple[int, ...]
    storage: dict[str, int]
    bytes: int
    dense_bytes: int
    occupancy: float | None
    statistics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CacheReport:
    """A cache.

    Attributes:
        directory: Of the cache.
        key: Its digest.
        identity: ``"stat"`` or ``"content"``; empty where no manifest tells.
        written: When the manifest was written.
        files: Paths of the sources.
        classes: Label -> class index.
        steps: Names of the steps before the cache point.
        expected: Events of a complete cache; None where no manifest tells.
        events: That it holds; an event that comes twice counts twice.
        removed: That the steps took out.
        skipped: That the build left out because of an error.
        parts: Number of files.
        bytes: Of all of them.
        arrays: Of a batch.
        faults: What is wrong, as far as it shows without reading the data.
    """

    directory: str
    key: str
    identity: str
    written: str
    files: tuple[str, ...]
    classes: dict[str | int, int]
    steps: tuple[str, ...]
    expected: int | None
    events: int
    removed: int
    skipped: int
    parts: int
    bytes: int
    arrays: tuple[ArrayReport, ...]
    faults: tuple[str, ...]

    @property
    def dense_bytes(self) -> int:
        """Bytes of the events as they are delivered."""
        return sum(array.dense_bytes for array in self.arrays)

    @property
    def complete(self) -> bool:
        """Whether it has every event, but those that were skipped."""
        return self.expected is not None and self.events + self.removed + self.skipped >= self.expected


def describe_cache(directory: str, measure: bool = False) -> CacheReport:
    """Describe a cache by its manifest and its parts, without reading their data.

    Args:
        directory: Of the cache.
        measure: Read the data of parts whose statistics are not known, as of those that training wrote.
    """
    stock = Inventory.take(directory)
    faults = list(stock.faults)
    faults += [f"part {name} has damaged blocks" for name in stock.damaged if name in stock.parts]
    manifest = stock.manifest
    about = manifest.about if manifest is not None else {}
    sums = {name: each for name, each in about.get("sums", {}).items() if name in stock.parts}
    if measure:
        for name, part in stock.parts.items():
            if name not in sums:
                sums[name] = part_sums(part, directory, stock.forms)
    figures = statistics(sums) if len(sums) == len(stock.parts) else {}
    made_of = manifest.key.made_of if manifest is not None else {}
    return CacheReport(
        directory,
        stock.key,
        made_of.get("identity", ""),
        about.get("written", ""),
        tuple(manifest.files if manifest is not None else ()),
        dict(made_of.get("classes", [])),
        tuple(name.rpartition(":")[2] for name, _ in made_of.get("steps", [])),
        None if manifest is None else manifest.events,
        sum(part.events for part in stock.parts.values()),
        sum(part.removed for part in stock.parts.values()),
        len(about.get("skipped", [])),
        len(stock.parts),
        stock.bytes,
        tuple(_array(form, stock, figures.get(form.name, {})) for form in stock.forms),
        tuple(faults),
    )


def _array(form: ArrayForm, stock: Inventory, figures: dict[str, Any]) -> ArrayReport:
    storage: dict[str, int] = {}
    size = dense = kept = places = 0
    for part in stock.parts.values():
        cells = f"{form.path}/coords" in part.columns
        as_what = ("cells" if cells else "rows") if form.kind == "dense" else form.kind
        storage[as_what] = storage.get(as_what, 0) + part.events
        own = [path for path in part.stored if path == form.path or os.path.dirname(path) == form.path]
        size += sum(part.stored[path].bytes for path in own)
        volume = int(np.prod((*form.grid, *form.shape), dtype=np.int64)) if form.kind == "sparse" else form.items
        if form.kind in ("dense", "padded", "sparse"):
            dense += part.events * volume * np.dtype(form.dtype).itemsize
        else:
            dense += sum(part.stored[path].bytes for path in own if path in part.columns)
        if cells:
            kept += part.stored[f"{form.path}/coords"].shape[0]
            places += part.events * int(np.prod(form.grid or form.shape, dtype=np.int64))
    occupancy = kept / places if places else None
    return ArrayReport(
        form.name, form.kind, form.dtype, form.shape, form.grid, storage, size, dense, occupancy, figures
    )
