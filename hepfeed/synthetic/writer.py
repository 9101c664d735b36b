"""Writing the events of generators to HDF5 files."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import h5py
import numpy as np

from hepfeed.errors import CodecMissingError, SpecError
from hepfeed.synthetic.event import Array, Block, EventGenerator, Ragged, head, stream
from hepfeed.synthetic.pool import Report, run_tasks

if TYPE_CHECKING:
    from typing_extensions import Unpack

VERSION = 1
"""Raised whenever the same seed would give other events."""

Compression = Literal["gzip", "lzf", "zstd", "blosc"]
_AUTO_CHUNK_BYTES = 1 << 20
_SMALLEST_CHUNK_CACHE = 16 << 20


class WriterOptions(TypedDict, total=False):
    """Options of :func:`write_files`."""

    chunks: Literal["auto", "contiguous"] | int
    compression: Compression | None
    level: int
    shuffle: bool
    fletcher32: bool
    ragged: bool
    workers: int | None
    progress: Callable[[int], None] | None


@dataclass(frozen=True)
class _Storage:
    """How data sets are laid out in a file."""

    chunks: Literal["auto", "contiguous"] | int
    compression: Compression | None
    level: int
    shuffle: bool
    fletcher32: bool

    def __post_init__(self) -> None:
        if isinstance(self.chunks, str):
            if self.chunks not in ("auto", "contiguous"):
                raise SpecError(
                    f"expected chunks 'auto', 'contiguous' or events a chunk, got {self.chunks!r}"
                )
        elif self.chunks < 1:
            raise SpecError(f"expected at least 1 event a chunk, got {self.chunks}")
        if self.compression not in (None, "gzip", "lzf", "zstd", "blosc"):
            raise SpecError(
                f"expected compression None, 'gzip', 'lzf', 'zstd' or 'blosc', got {self.compression!r}"
            )
        if not 0 <= self.level <= 9:
            raise SpecError(f"expected a compression level of 0 to 9, got {self.level}")
        filtered = self.compression is not None or self.shuffle or self.fletcher32
        if self.chunks == "contiguous" and filtered:
            raise SpecError(
                "expected no compression, shuffle or fletcher32 for contiguous data, which HDF5 can't "
                "filter; choose chunks 'auto' or a number of events"
            )

    def create(self, file: h5py.File, name: str, shape: tuple[int, ...], dtype: Any) -> None:
        """Create a data set with one row an event."""
        file.create_dataset(name, shape=shape, dtype=dtype, **self.arguments(shape, dtype))

    def arguments(self, shape: tuple[int, ...], dtype: Any, rows_per_event: float = 1) -> dict[str, Any]:
        """Arguments of h5py's ``create_dataset``."""
        if self.chunks == "contiguous" or 0 in shape:
            # HDF5 has no chunk of 0 rows.
            return {}
        if self.chunks == "auto":
            wanted = _AUTO_CHUNK_BYTES // max(1, math.prod(shape[1:]) * np.dtype(dtype).itemsize)
        else:
            wanted = round(self.chunks * rows_per_event)
        chunk = (min(shape[0], max(1, wanted)), *shape[1:])
        return {"chunks": chunk, "shuffle": self.shuffle, "fletcher32": self.fletcher32, **self._codec()}

    def cache_bytes(self, block: Block, events: int) -> int:
        """Chunk cache for two of the largest chunks, so that each is compressed once, when it is full."""
        largest = _SMALLEST_CHUNK_CACHE
        for value in block.values():
            if not isinstance(value, Ragged):
                chunk = self.arguments((events, *value.shape[1:]), value.dtype).get("chunks", ())
                largest = max(largest, 2 * math.prod(chunk) * value.itemsize)
        return largest

    def _codec(self) -> dict[str, Any]:
        if self.compression == "gzip":
            return {"compression": "gzip", "compression_opts": self.level}
        if self.compression in (None, "lzf"):
            return {"compression": self.compression}
        try:
            import hdf5plugin
        except ImportError as error:
            raise CodecMissingError(
                f"expected the package hdf5plugin for compression {self.compression!r}; "
                "run pip install 'hepfeed[plugins]'"
            ) from error
        if self.compression == "zstd":
            return dict(hdf5plugin.Zstd(clevel=self.level))
        return dict(hdf5plugin.Blosc(clevel=self.level))


def write_files(
    directory: str | os.PathLike[str],
    generator: EventGenerator | Sequence[EventGenerator],
    *,
    files: int,
    events: int,
    seed: int = 0,
    chunks: Literal["auto", "contiguous"] | int = "auto",
    compression: Compression | None = None,
    level: int = 4,
    shuffle: bool = False,
    fletcher32: bool = False,
    ragged: bool = False,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Path]:
    """Write events to ``<directory>/<class>/<class>_<n>.h5``, with n from 1.

    A file appears under its name once it is complete, and replaces one that was there.  Its events depend
    only on the seed, the class and n; the first events of a longer file are those of a shorter one.
    Attributes of the file say how it was made; ``occupancy`` of an image is the part of its cells that is
    not 0.

    Args:
        directory: Where to; made if missing.
        generator: One or several; all files of all of them are shared among the workers.
        files: Files of each class.
        events: Events in each file.
        seed: At least 0.
        chunks: Events in an HDF5 chunk; ``"auto"``: as many as fit into 1 MiB; ``"contiguous"``: no chunks.
            In ragged data a chunk has as many rows as that many events have on average.
        compression: ``"gzip"``, ``"lzf"``, or with hdf5plugin ``"zstd"`` or ``"blosc"``.
        level: Of gzip, zstd and blosc, 0 to 9; lzf has none.
        shuffle: HDF5's byte shuffle.
        fletcher32: HDF5's checksum.
        ragged: Write points or hits with offsets instead of images.
        workers: Processes; None for one a CPU that this process may use.
        progress: Called with the number of events written since the last call.

    Returns:
        The files, class by class.

    Raises:
        SpecError: A number or an option out of range, or options that exclude each other.
        CodecMissingError: hdf5plugin is needed and not there.
        ResourceError: A worker died.
    """
    storage = _Storage(chunks, compression, level, shuffle, fletcher32)
    storage.arguments((1,), np.float32)
    for name, value, least in (("files", files, 1), ("events", events, 1), ("seed", seed, 0)):
        if value < least:
            raise SpecError(f"expected {name} of at least {least}, got {value}")
    if workers is not None and workers < 1:
        raise SpecError(f"expected at least 1 worker, or None for one a CPU, got {workers}")
    generators = list(generator) if isinstance(generator, Sequence) else [generator]
    names = [one.name for one in generators]
    if not names or len(set(names)) < len(names):
        raise SpecError(
            f"expected at least one class, and each of them once, got {', '.join(names) or 'none'}"
        )
    tasks = []
    for one in generators:
        folder = Path(directory) / one.name
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(1, files + 1):
            path = folder / f"{one.name}_{number}.h5"
            tasks.append(_FileTask(path, one, number, events, seed, storage, ragged))
    paths: list[Path] = run_tasks(
        tasks, workers or len(os.sched_getaffinity(0)), progress or (lambda _: None)
    )
    return paths


def write_classes(
    directory: str | os.PathLike[str],
    generators: Sequence[EventGenerator],
    *,
    files: int,
    events: int,
    seed: int,
    **options: Unpack[WriterOptions],
) -> list[list[Any]]:
    """Write files of several classes, and list them as ``[glob, keys, label, rate]`` each."""
    write_files(directory, generators, files=files, events=events, seed=seed, **options)
    ragged = options.get("ragged", False)
    return [
        [str(Path(directory) / one.name / f"{one.name}_*.h5"), one.keys(ragged=ragged), one.label, 1.0]
        for one in generators
    ]


@dataclass(frozen=True)
class _FileTask:
    """Makes one file when called; what a worker gets."""

    path: Path
    generator: EventGenerator
    number: int
    events: int
    seed: int
    storage: _Storage
    ragged: bool

    def __call__(self, report: Report) -> Path:
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        blocks = self._blocks()
        first = next(blocks)
        try:
            with h5py.File(temporary, "w", rdcc_nbytes=self.storage.cache_bytes(first, self.events)) as file:
                self._fill(file, chain([first], blocks), report)
                self._sign(file)
            temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)
        return self.path

    def _blocks(self) -> Iterator[Block]:
        size = self.generator.block
        for index, first in enumerate(range(0, self.events, size)):
            rng = stream(self.seed, self.generator.name, self.number, index)
            block = self.generator.generate(rng, size, ragged=self.ragged)
            yield head(block, min(size, self.events - first))

    def _fill(self, file: h5py.File, blocks: Iterable[Block], report: Report) -> None:
        tables: dict[str, list[Ragged]] = {}
        occupied: dict[str, int] = {}
        first = 0
        for block in blocks:
            count = 0
            for name, value in block.items():
                if isinstance(value, Ragged):
                    tables.setdefault(name, []).append(value)
                    continue
                if first == 0:
                    self.storage.create(file, name, (self.events, *value.shape[1:]), value.dtype)
                count = len(value)
                file[name][first : first + count] = value
                occupied[name] = occupied.get(name, 0) + int(np.count_nonzero(value))
            first += count
            report(count)
        for name, cells in occupied.items():
            if file[name].ndim > 3:
                file[name].attrs["occupancy"] = cells / file[name].size
        for name, parts in tables.items():
            _write_ragged(file.require_group(name), Ragged.concatenate(parts), self.storage)

    def _sign(self, file: h5py.File) -> None:
        file.attrs["generator"] = f"hepfeed.synthetic.{type(self.generator).__name__}"
        file.attrs["version"] = VERSION
        file.attrs["class"] = self.generator.name
        file.attrs["seed"] = self.seed
        file.attrs["file"] = self.number
        file.attrs["events"] = self.events
        file.attrs["parameters"] = json.dumps(self.generator.parameters())


def _write_ragged(group: h5py.Group, table: Ragged, storage: _Storage) -> None:
    columns: dict[str, Array] = {**table.columns, "offsets": table.offsets}
    events = len(table.offsets) - 1
    for name, column in columns.items():
        rows = 1.0 if name == "offsets" else len(column) / events
        arguments = storage.arguments(column.shape, column.dtype, rows)
        group.create_dataset(name, data=column, **arguments)
    group["offsets"].attrs["mean_rows"] = int(table.offsets[-1]) / events
