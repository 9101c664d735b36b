"""Export: the events of a cache in one file or several, for programs that know nothing of caches."""

from __future__ import annotations

import contextlib
import os
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from hepfeed import _cache
from hepfeed.cache.inventory import Inventory
from hepfeed.cache.places import Contents
from hepfeed.convert.writer import complete_file
from hepfeed.errors import CorruptDataError, KeyMissingError, ResourceError, SourceError, SpecError, nearest
from hepfeed.parts.columns import encode
from hepfeed.parts.form import ArrayForm, cell_type
from hepfeed.parts.reader import PartReader
from hepfeed.parts.table import CacheTable
from hepfeed.tensors import Jagged, Padded, Sparse

__all__ = ["Exported", "Format", "export_cache"]

Ints = NDArray[np.int64]
Format = Literal["hdf5", "npz"]
Attributes = Mapping[str, tuple[int, ...]] | None
_SUFFIX = {"hdf5": ".h5", "npz": ".npz"}
_BATCH_BYTES = 8 << 20
_CHUNK_BYTES = 128 << 10  # of compressed data sets: small beside HDF5's chunk cache, large beside the cost of a read


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        files: Paths.
        events: Number of events in all of them.
    """

    files: tuple[str, ...]
    events: int


def export_cache(
    directory: str,
    out: str | os.PathLike[str],
    *,
    format: Format = "hdf5",
    dense: bool = False,
    compress: bool = False,
    keys: Sequence[str] | None = None,
    events_per_file: int | None = None,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Exported:
    """Write the events of a cache to HDF5 or npz files, in the order of their source files and rows.

    Each array of a batch becomes one data set or a group, as in parts (:mod:`hepfeed.parts`): ``name (N, *shape)``;
    an image that is mostly 0 is a group ``coords``, ``values``, ``offsets`` with the flat numbers of its cells; jagged
    arrays are ``values`` and ``offsets (N + 1,)``, padded ones ``values`` and ``mask``, sparse ones ``coords (T, D)``,
    ``values`` and ``offsets``, graphs ``edges``, ``offsets`` and ``nodes``.  Beside them are ``label (N,)`` and
    ``event (N, 2)``, and in HDF5 the attributes ``files`` and ``classes``.  In npz, names have a dot in the place of
    the slash within a group.

    Args:
        directory: Of the cache.
        out: The file; with ``events_per_file`` ``out_0``, ``out_1``, ... with its suffix.
        format: ``"hdf5"`` or ``"npz"``.
        dense: Write images that are stored as cells, and sparse arrays, as dense images.
        compress: With deflate.
        keys: Which arrays; by default all.
        events_per_file: Most events of a file; by default all in one.
        force: Replace files that are there.
        progress: Called with (values written of all events and arrays, in all).

    Raises:
        SpecError: An option is wrong, or a file is there already.
        KeyMissingError: The cache has no such array.
        CorruptDataError: Events can't be read; nothing is left out silently.
        ResourceError: A file can't be written.
    """
    if format not in _SUFFIX:
        raise SpecError(f"format {format!r} is unknown: use 'hdf5' or 'npz'")
    if events_per_file is not None and events_per_file < 1:
        raise SpecError(f"events_per_file={events_per_file} is no number of events: use 1 or more")
    source = _Source(directory)
    names = [form.name for form in source.forms]
    for key in keys or ():
        if key not in names:
            raise KeyMissingError(f"the cache has no {key!r}: {nearest(key, names)}", key=key)
    forms = [form for form in source.forms if not keys or form.name in keys]
    if not keys or "label" in keys:
        forms.sort(key=lambda form: form.name == "label")
    step = events_per_file or max(1, len(source.order))
    starts = range(0, len(source.order), step)
    paths = [_path(Path(out), _SUFFIX[format], None if events_per_file is None else i) for i in range(len(starts))]
    for path in paths:
        if path.exists() and not force:
            raise SpecError(f"{str(path)!r} is there already: name another file, or replace it with --force")
    done, total = 0, len(source.order) * (len(forms) + 1)

    def tell(events: int) -> None:
        nonlocal done
        done += events
        if progress:
            progress(done, total)

    for path, start in zip(paths, starts):
        places = source.order[start : start + step]
        opened = _hdf5(path, compress, source) if format == "hdf5" else _npz(path, compress)
        with opened as sink:
            sink.put("event", (len(places), 2), np.dtype(np.int64), iter([source.event[places]]))
            tell(len(places))
            for form in forms:
                _write(sink, source, form, places, dense, tell)
    return Exported(tuple(map(str, paths)), len(source.order))


def _path(out: Path, suffix: str, number: int | None) -> Path:
    stem = out.with_suffix("") if out.suffix in (".h5", ".hdf5", ".npz") else out
    if number is None:
        return out if out.suffix else out.with_suffix(suffix)
    return stem.with_name(f"{stem.name}_{number}{out.suffix or suffix}")


class _Source:
    """The events of a cache, each once.

    Attributes:
        forms: The arrays.
        event: ``(rows, 2)`` of all parts.
        order: Rows of the cache, sorted by file and row of the source.
        files: Paths of the sources.
        classes: Label and class index.
    """

    def __init__(self, directory: str) -> None:
        stock = Inventory.take(directory)
        if stock.faults or stock.damaged:
            what = "; ".join([*stock.faults[:3], *(f"part {name} is damaged" for name in list(stock.damaged)[:3])])
            raise CorruptDataError(
                f"the cache in {directory!r} is damaged ({what}): build it again, and export it then", file=directory
            )
        if not stock.parts:
            raise SourceError(f"the cache in {directory!r} has no events: build it first", file=directory)
        self.forms = stock.forms
        self._key, self._directory = stock.key, directory
        self.contents = Contents()
        for part in stock.parts.values():
            self.contents.add(part, directory)
        self.event = np.concatenate(self.contents.event)
        order = np.lexsort((self.event[:, 1], self.event[:, 0]))
        sorted_ = self.event[order]
        first = np.ones(len(order), bool)
        first[1:] = (np.diff(sorted_, axis=0) != 0).any(1)
        self.order: Ints = order[first]
        manifest = stock.manifest
        self.files = [] if manifest is None else manifest.files
        self.classes = [] if manifest is None else manifest.key.made_of.get("classes", [])

    def counts(self, path: str, places: Ints) -> Ints:
        """Return how many rows events have, ``(n,)``."""
        _, _, runs = self.contents.locate(places)
        return runs[path][1]

    def batches(self, form: ArrayForm, places: Ints) -> Iterator[tuple[Ints, Any]]:
        """Yield events of the cache and one of their arrays, in batches of some megabytes.

        Raises:
            CorruptDataError: A block fails its checksum.
        """
        memory = np.zeros(int(self.contents.first_block[-1]) + 1, np.uint8)
        reader = PartReader(lambda slot, size: memory[:size], guarded=False, views={})
        try:
            blocks = int(self.contents.first_block[-1])
            reader.add_cache(CacheTable(self._key, self._directory, (form,), 0, blocks, mapped=False))
            starts = self.contents.first_block
            reader.add_parts(self._key, {i: (part, int(starts[i])) for i, part in enumerate(self.contents.parts)})
            for some in np.split(places, np.arange(_step(form), len(places), _step(form))):
                part, at, runs = self.contents.locate(some)
                fetched = reader.fetch(self._key, part, at, runs, lambda dtype, shape: np.empty(shape, dtype))
                if fetched.bad.any():
                    file, row = self.event[some[np.flatnonzero(fetched.bad)[0]]].tolist()
                    raise CorruptDataError(
                        f"event {row} of file {file} in the cache {self._directory!r} is damaged: build it again with"
                        " 'hepfeed cache build --verify', and export it then",
                        file=self._directory,
                        event=row,
                    )
                yield some, fetched.batch[form.name]
        finally:
            reader.close()


def _step(form: ArrayForm) -> int:
    size = form.row_bytes * (1 if form.kind in ("dense", "padded") else 1024)
    return int(np.clip(_BATCH_BYTES // max(1, size), 1, 1 << 16))


class _Sink(ABC):
    """An open file."""

    @abstractmethod
    def put(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        rows: Iterator[NDArray[Any]],
        attrs: Attributes = None,
    ) -> None:
        """Write one array, whose rows come one run after another, and what its group is to say."""


def _write(
    sink: _Sink, source: _Source, form: ArrayForm, places: Ints, dense: bool, tell: Callable[[int], None]
) -> None:
    """Write one array of all events of a file."""
    name, dtype, n = form.path, np.dtype(form.dtype), len(places)

    def rows(pick: Callable[[Any], NDArray[Any]], last: bool = True) -> Iterator[NDArray[Any]]:
        for some, value in source.batches(form, places):
            yield np.ascontiguousarray(pick(value))
            if last:
                tell(len(some))

    cells = form.kind == "dense" and any(f"{form.path}/coords" in part.columns for part in source.contents.parts)
    if form.kind == "dense" and (dense or not cells):
        sink.put(name, (n, *form.shape), dtype, rows(lambda value: value))
    elif form.kind == "dense":
        cell = cell_type(form.items)

        def packed(value: NDArray[Any]) -> tuple[Ints, NDArray[Any], NDArray[Any]]:
            return _cache.pack(np.ascontiguousarray(value), len(value), cell.itemsize)

        numbers = rows(lambda value: packed(value)[0], last=False)
        counts = np.concatenate([np.empty(0, np.int64), *numbers])
        total = int(counts.sum())
        _offsets(sink, f"{name}/offsets", counts, {"shape": form.shape})
        sink.put(f"{name}/coords", (total,), cell, rows(lambda value: packed(value)[1], last=False))
        sink.put(f"{name}/values", (total,), dtype, rows(lambda value: packed(value)[2]))
    elif form.kind == "padded":
        sink.put(f"{name}/values", (n, *form.shape), dtype, rows(lambda value: value.values, last=False))
        sink.put(f"{name}/mask", (n, form.shape[0]), np.dtype(bool), rows(lambda value: value.mask))
    elif form.kind == "sparse" and dense:
        sink.put(name, (n, *form.grid, *form.shape), dtype, rows(lambda value: _image(value)))
    else:
        counts = source.counts(f"{form.path}/offsets", places)
        total = int(counts.sum())
        _offsets(sink, f"{name}/offsets", counts, {"spatial_shape": form.grid} if form.grid else None)
        if form.kind == "jagged":
            sink.put(f"{name}/values", (total, *form.shape), dtype, rows(_values))
        elif form.kind == "sparse":
            coords = rows(lambda value: value.indices[:, 1:], last=False)
            sink.put(f"{name}/coords", (total, len(form.grid)), np.dtype(np.int32), coords)
            sink.put(f"{name}/values", (total, *form.shape), dtype, rows(lambda value: value.features))
        else:
            nodes = source.counts(f"{form.path}/nodes", places)
            _offsets(sink, f"{name}/nodes", nodes)
            edges = rows(lambda value: encode(form, value, "rows").rows[f"{name}/edges"])
            sink.put(f"{name}/edges", (total, 2), np.dtype(np.int32), edges)


def _values(value: Jagged | Padded) -> NDArray[Any]:
    return np.asarray(value.values)


def _image(value: Sparse) -> NDArray[Any]:
    image = np.zeros((value.batch_size, *value.spatial_shape, *value.features.shape[1:]), value.features.dtype)
    image[tuple(value.indices.T)] = value.features
    return image


def _offsets(sink: _Sink, name: str, counts: Ints, attrs: Attributes = None) -> None:
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    sink.put(name, offsets.shape, offsets.dtype, iter([offsets]), attrs)


class _Hdf5(_Sink):
    """An HDF5 file."""

    def __init__(self, file: h5py.File, compress: bool) -> None:
        self._file, self._compress = file, compress

    def put(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        rows: Iterator[NDArray[Any]],
        attrs: Attributes = None,
    ) -> None:
        """Write a data set; attributes go to its group."""
        options: dict[str, Any] = {}
        if self._compress and all(shape):
            row_bytes = max(1, int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize)
            chunk = (int(np.clip(_CHUNK_BYTES // row_bytes, 1, shape[0])), *shape[1:])
            options = {"chunks": chunk, "compression": "gzip", "compression_opts": 4, "shuffle": True}
        dataset = self._file.create_dataset(name, shape, dtype, **options)
        at = 0
        for some in rows:
            dataset[at : at + len(some)] = some
            at += len(some)
        dataset.parent.attrs.update(attrs or {})


@contextlib.contextmanager
def _hdf5(path: Path, compress: bool, source: _Source) -> Iterator[_Sink]:
    with complete_file(path) as file:
        file.attrs["files"] = [str(each) for each in source.files]
        file.attrs["classes"] = [f"{index}: {label}" for label, index in source.classes]
        yield _Hdf5(file, compress)


class _Npz(_Sink):
    """An archive of NumPy arrays, which is written array after array without holding one in memory."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def put(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        rows: Iterator[NDArray[Any]],
        attrs: Attributes = None,
    ) -> None:
        """Write a member, and attributes as members beside it."""
        plain = _member(name)
        for attribute, value in (attrs or {}).items():
            self.put(f"{plain.rpartition('.')[0]}.{attribute}", (len(value),), np.dtype(np.int64), _once(value))
        with self._archive.open(f"{plain}.npy", "w", force_zip64=True) as stream:
            header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_2_0(stream, header)
            for some in rows:
                _pour(stream, np.ascontiguousarray(some, dtype))


def _member(name: str) -> str:
    group, slash, last = name.rpartition("/")
    within = last in ("values", "coords", "offsets", "mask", "edges", "nodes") and slash
    return f"{group}.{last}" if within else name


def _once(value: Sequence[int]) -> Iterator[NDArray[np.int64]]:
    yield np.array(value, np.int64)


def _pour(stream: IO[bytes], array: NDArray[Any]) -> None:
    if array.nbytes:
        stream.write(array.reshape(-1).view(np.uint8).data)


@contextlib.contextmanager
def _npz(path: Path, compress: bool) -> Iterator[_Sink]:
    """Write an archive under a hidden name; it gets its own once it is whole."""
    temporary = path.with_name(f".{path.name}.tmp")
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    try:
        with open(temporary, "wb") as stream:
            with zipfile.ZipFile(stream, "w", method, allowZip64=True) as archive:
                yield _Npz(archive)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        if isinstance(error, SourceError | ResourceError):
            raise
        raise ResourceError(f"could not write {path}: {error}; free space, or choose another folder") from error
    finally:
        temporary.unlink(missing_ok=True)
