"""Writing the events of generators to HDF5 files."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import cloudpickle
import h5py
import numpy as np

from hepfeed.errors import SpecError
from hepfeed.synthetic.event import Array, Block, EventGenerator, Ragged, head, stream
from hepfeed.synthetic.storage import Chunks, Compression, Storage
from hepfeed.worker import call_everywhere, note

if TYPE_CHECKING:
    from typing_extensions import Unpack

VERSION = 1
"""Raised whenever the same seed would give other events."""


class WriterOptions(TypedDict, total=False):
    """Options of :func:`write_files`."""

    chunks: Chunks
    compression: Compression | None
    level: int
    shuffle: bool
    fletcher32: bool
    ragged: bool
    workers: int | None
    progress: Callable[[int], None] | None


def write_files(
    directory: str | os.PathLike[str],
    generator: EventGenerator | Sequence[EventGenerator],
    *,
    files: int,
    events: int,
    seed: int = 0,
    chunks: Chunks = "auto",
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
        chunks: Events in an HDF5 chunk, which holds them whole; in ragged data, as many rows as that many
            events have on average.  ``"auto"``: what h5py chooses by itself, and what most files in use have:
            (125, 4, 4, 7) of images (1000, 25, 25, 25) float32, so that an event is spread over 196 chunks.
            ``"contiguous"``: no chunks.
        compression: ``"gzip"``, ``"lzf"``, or with hdf5plugin ``"zstd"`` or ``"blosc"``.
        level: Of gzip, zstd and blosc, 0 to 9; lzf has none.
        shuffle: HDF5's byte shuffle.
        fletcher32: HDF5's checksum.
        ragged: Write points or hits with offsets instead of images.
        workers: Processes; None for one a CPU that this process may use.  Each needs memory for the images
            of one chunk's events: 11 MB for automatic chunks of 1,000 LCD events, 55 MB for those of 10,000.
        progress: Called with the number of events written since the last call.

    Returns:
        The files, class by class.

    Raises:
        SpecError: A number or an option out of range, or options that exclude each other.
        CodecMissingError: hdf5plugin is needed and not there.
        ReaderError: A worker died.
    """
    storage = Storage(chunks, compression, level, shuffle, fletcher32)
    storage.arguments((1,), np.float32)  # a codec that is missing is an error here, not in a worker
    for name, value, least in (("files", files, 1), ("events", events, 1), ("seed", seed, 0)):
        if value < least:
            raise SpecError(f"expected {name} of at least {least}, got {value}")
    if workers is not None and workers < 1:
        raise SpecError(f"expected at least 1 worker, or None for one a CPU, got {workers}")
    generators = list(generator) if isinstance(generator, Sequence) else [generator]
    names = [one.name for one in generators]
    if not names or len(set(names)) < len(names):
        raise SpecError(f"expected at least one class, and each of them once, got {', '.join(names) or 'none'}")
    tasks = []
    for one in generators:
        folder = Path(directory) / one.name
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(1, files + 1):
            path = folder / f"{one.name}_{number}.h5"
            tasks.append(_FileTask(path, one, number, events, seed, storage, ragged))
    # By value, since a generator may be a class of the main script, which workers don't import.
    calls = [(cloudpickle.dumps(task),) for task in tasks]
    processes = workers or len(os.sched_getaffinity(0))
    with closing(call_everywhere(f"{__name__}:write_file", calls, processes, progress)) as replies:
        for _, succeeded, value in replies:
            if not succeeded:
                raise value
    return [task.path for task in tasks]


def write_file(task: bytes) -> None:
    """Carry out a pickled task of :func:`write_files`; notes the events as they are written."""
    pickle.loads(task).write()


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
    """One file to write; what a worker gets."""

    path: Path
    generator: EventGenerator
    number: int
    events: int
    seed: int
    storage: Storage
    ragged: bool

    def write(self) -> None:
        """Write the file under another name, and rename it."""
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        blocks = self._blocks()
        first = next(blocks)
        cache = self.storage.chunk_cache(first, self.events)
        try:
            with h5py.File(temporary, "w", **cache._asdict()) as file:
                self._fill(file, chain([first], blocks))
                self._sign(file)
            temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)

    def _blocks(self) -> Iterator[Block]:
        size = self.generator.block
        for index, first in enumerate(range(0, self.events, size)):
            rng = stream(self.seed, self.generator.name, self.number, index)
            block = self.generator.generate(rng, size, ragged=self.ragged)
            yield head(block, min(size, self.events - first))

    def _fill(self, file: h5py.File, blocks: Iterable[Block]) -> None:
        images: dict[str, h5py.Dataset] = {}  # open to the end, since closing one empties its chunk cache
        occupied: dict[str, int] = {}
        tables: dict[str, list[Ragged]] = {}
        first = 0
        for block in blocks:
            count = 0
            for name, value in block.items():
                if isinstance(value, Ragged):
                    tables.setdefault(name, []).append(value)
                    continue
                if name not in images:
                    shape = (self.events, *value.shape[1:])
                    arguments = self.storage.arguments(shape, value.dtype)
                    images[name] = file.create_dataset(name, shape=shape, dtype=value.dtype, **arguments)
                count = len(value)
                images[name][first : first + count] = value
                occupied[name] = occupied.get(name, 0) + int(np.count_nonzero(value))
            first += count
            note(count)
        for name, dataset in images.items():
            if dataset.ndim > 3:
                dataset.attrs["occupancy"] = occupied[name] / dataset.size
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


def _write_ragged(group: h5py.Group, table: Ragged, storage: Storage) -> None:
    columns: dict[str, Array] = {**table.columns, "offsets": table.offsets}
    events = len(table.offsets) - 1
    for name, column in columns.items():
        rows = 1.0 if name == "offsets" else len(column) / events
        arguments = storage.arguments(column.shape, column.dtype, rows)
        group.create_dataset(name, data=column, **arguments)
    group["offsets"].attrs["mean_rows"] = int(table.offsets[-1]) / events
