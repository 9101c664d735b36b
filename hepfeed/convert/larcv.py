"""larcv3 files: sparse images, particles and event numbers of liquid-argon detectors.

Layout (https://github.com/DeepLearnPhysics/larcv3): a product is a group ``Data/<type>_<producer>_group``.  Its
``extents {first, N}`` say which rows of ``voxel_extents {first, N, ID}`` belong to each event; each of those is the
image of a projection ``ID``, and says which rows of ``voxels {id, value}`` are its occupied sites.  Beside it
``image_meta`` has, row by row, the image's ``number_of_voxels``.  The id of a voxel counts the grid in C order, the
last axis first.  Particles have only ``extents`` and ``particles``; ``Events/event_id`` has one row an event.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hepfeed import hdf5
from hepfeed.convert.block import Block, Column, Field, Rows, bounded_steps
from hepfeed.convert.engine import convert
from hepfeed.convert.form import Form, Shaper
from hepfeed.convert.plan import Class
from hepfeed.convert.report import Converted
from hepfeed.convert.settings import ConvertOptions, Settings
from hepfeed.convert.source import STEP_BYTES, as_keys, check_names, find_files, select, unsuited
from hepfeed.errors import CorruptDataError, FileFormatError, SpecError
from hepfeed.patterns import HDF5_SUFFIXES

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["convert_larcv"]

_EVENT_ID = "event_id"
_GROUP = re.compile(r"(?P<type>sparse2d|sparse3d|particle)_(?P<producer>.+)_group")


def convert_larcv(
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    products: str | Sequence[str] | None = None,
    form: Form = "sparse",
    threshold: float = 0.0,
    **options: Unpack[ConvertOptions],
) -> Converted:
    """Write the events of larcv3 files into HDF5 files ``out/events_<k>.h5``.

    Events of several files go end to end; below a directory each folder is a class of its own,
    ``out/<folder>/<folder>_<k>.h5``.  A file of N events holds:

    =========================== ==================== =========================================================
    key                         shape, type          meaning
    =========================== ==================== =========================================================
    sparse3d_NAME/coords        (T, 3) int16         site of each voxel, sorted within each event
    sparse3d_NAME/value         (T,) float32         its value
    sparse3d_NAME/offsets       (N + 1,) int64       event i owns voxels ``offsets[i]:offsets[i + 1]``
    sparse2d_NAME_P/...         coords (T, 2)        the same of projection P
    particle_NAME/FIELD         (T,)                 each number of the particles, beside their ``offsets``
    event_id/FIELD              (N,)                 run, subrun and event
    =========================== ==================== =========================================================

    A 3D product with several projections becomes ``sparse3d_NAME_P``.  Coordinates are int32 where the grid is larger
    than 32768.  The attribute ``spatial_shape`` is the grid; ``origin`` and ``image_sizes`` are the detector's, where
    all events agree.  An image that an event lacks has no voxels.

    Args:
        sources: Files, globs or directories.
        out: Folder to write into, made if it is missing.
        products: Names or globs of products, e.g. ``"sparse3d_*"``; None for all that can be converted.
        form: ``"sparse"``, or ``"dense"`` for whole images: mind that 512^3 float32 voxels are 512 MB an event.
        threshold: A voxel stays where ``|value| > threshold``; 0 keeps all, those of value 0 too.
        **options: See :class:`hepfeed.convert.Settings`.

    Returns:
        The files; a sequence of paths.

    Raises:
        SpecError: An option is out of its range, the grid changes from event to event, or files differ in their keys.
        KeyMissingError: A file has no product of that name.
        SourceError: A file can't be read, or ``out`` has other HDF5 files.
        FileFormatError: A file is no larcv3 file.
        CorruptDataError: Extents or voxels contradict each other, or fail to inflate.
        ResourceError: An output file can't be written.
        ReaderError: A worker died.
    """
    settings = Settings(**options)
    if not (math.isfinite(threshold) and threshold >= 0):
        raise SpecError(f"threshold must be a number of at least 0; got {threshold}")
    shaper = Shaper(form)
    wanted = as_keys(products)
    found = find_files(sources, HDF5_SUFFIXES)
    inside = os.path.realpath(out) + os.sep
    for path in (path for _, paths in found for path in paths):
        if os.path.realpath(path).startswith(inside):
            raise SpecError(f"expected to write beside the sources, but {path} lies in {out}; name another folder")
    classes = [
        Class(folder, tuple(_LarcvFile(path, wanted, float(threshold)) for path in paths)) for folder, paths in found
    ]
    told = {"products": wanted, "threshold": threshold}
    return convert(classes, out, settings, source_format="larcv3", form=form, options=told, shaper=shaper)


@dataclass(frozen=True)
class _LarcvFile:
    """One larcv3 file."""

    path: str
    products: tuple[str, ...] | None
    threshold: float
    sequential: bool = False

    def files(self, start: int, stop: int) -> list[str]:
        """The file itself."""
        return [self.path]

    def verify(self) -> None:
        """Do nothing: what fails to inflate is noticed when it is read."""

    @contextmanager
    def open(self) -> Iterator[_LarcvReader]:
        """Open it."""
        with hdf5.open_file(self.path) as file:
            yield _LarcvReader(file, self)


class _LarcvReader:
    """The products of an open file."""

    def __init__(self, file: h5py.File, source: _LarcvFile) -> None:
        self._path = source.path
        self.left_out: dict[str, str] = {}
        self.fields: dict[str, Field] = {}
        self._products: dict[str, _Images | _Particles | _EventIds] = {}
        groups = {name.removesuffix("_group"): node for name, node in _groups(file, source.path).items()}
        there = [*groups, *([_EVENT_ID] if f"Events/{_EVENT_ID}" in file else [])]
        for name in select(there, source.products, file=source.path, noun="product"):
            if name == _EVENT_ID:
                self._products[name] = _EventIds(file[f"Events/{_EVENT_ID}"], source.path)
                continue
            node = groups[name]
            match = _GROUP.fullmatch(f"{name}_group")
            if match is None:
                reason = "only sparse2d, sparse3d and particle products are converted"
                if source.products is not None and name in source.products:
                    raise SpecError(f"product {name!r} of {source.path}: {reason}", file=source.path, key=name)
                self.left_out[name] = reason
            elif match["type"] == "particle":
                particles = _Particles(node, source.path, name)
                self._products[name] = particles
                self.left_out.update(particles.left_out)
            else:
                self._products[name] = _Images(node, source, name, int(match["type"][6]))
        for product in self._products.values():
            self.fields.update(product.fields)
        check_names(self.fields, source.path)
        counts = {name: product.events for name, product in self._products.items()}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{name!r} {count}" for name, count in counts.items())
            raise CorruptDataError(
                f"expected one number of events in all products of {source.path}, got {told}; "
                "write the file again, or name products that agree",
                file=source.path,
            )
        self.events = next(iter(counts.values()))

    def steps(self, start: int, stop: int, added_bytes: int) -> Iterator[tuple[int, int]]:
        """Cut events into runs of bounded memory."""
        sizes = np.full(stop - start, added_bytes, np.int64)
        for product in self._products.values():
            sizes += product.event_bytes(start, stop)
        return bounded_steps(sizes, start, STEP_BYTES)

    def read(self, start: int, stop: int) -> Block:
        """Read a run of events."""
        block: Block = {}
        for name, product in self._products.items():
            try:
                block.update(product.read(start, stop))
            except CorruptDataError:
                raise
            except OSError as error:  # h5py's words for what HDF5 can't inflate
                raise CorruptDataError(
                    f"could not read events {start} to {stop - 1} of {name!r} in {self._path}: {error}; "
                    "fetch the file again",
                    file=self._path,
                    key=name,
                    event=start,
                ) from error
        return block


def _groups(file: h5py.File, path: str) -> dict[str, h5py.Group]:
    data = file.get("Data")
    if not isinstance(data, h5py.Group):
        raise FileFormatError(
            f"expected a group 'Data' of larcv3 in {path}, found {', '.join(file) or 'nothing'}; name a larcv3 file",
            file=path,
        )
    return {name: data[name] for name in data if name.endswith("_group")}


def _table(node: h5py.Group, part: str, path: str) -> h5py.Dataset:
    dataset = node.get(part)
    if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 1 or not dataset.dtype.names:
        raise FileFormatError(
            f"expected a table {part!r} in {node.name} of {path}, found none", file=path, key=node.name
        )
    return dataset


def _column(table: NDArray[Any], name: str, path: str, key: str) -> NDArray[Any]:
    """Return a column of a table; releases of larcv3 differ in the case of their names."""
    for there in table.dtype.names or ():
        if there.lower() == name:
            return np.asarray(table[there])
    raise FileFormatError(
        f"expected a column {name!r} in {key} of {path}, found {', '.join(table.dtype.names or ())}", file=path, key=key
    )


def _extents(table: NDArray[Any], rows: int, path: str, key: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return first row and number of rows, which lie within a table of ``rows``."""
    first = _column(table, "first", path, key).astype(np.int64)
    count = _column(table, "n", path, key).astype(np.int64)
    wrong = np.flatnonzero((count < 0) | ((first < 0) & (count > 0)) | ((count > 0) & (first + count > rows)))
    if len(wrong):
        place = int(wrong[0])
        raise CorruptDataError(
            f"expected extents within {rows} rows in {key} of {path}, got {count[place]} rows from {first[place]} "
            f"in row {place}; write the file again",
            file=path,
            key=key,
        )
    return first, count


def _gather(first: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows of runs, one run after another."""
    ends = np.cumsum(count)
    rows: NDArray[np.int64] = np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(first - (ends - count), count)
    return rows


def _slab(table: h5py.Dataset, first: NDArray[np.int64], count: NDArray[np.int64]) -> tuple[NDArray[Any], int]:
    """Read the rows from the first to the last that any run has; return them and the number of the first."""
    held = count > 0
    if not held.any():
        return np.empty(0, table.dtype), 0
    start = int(first[held].min())
    return table[start : int((first + count)[held].max())], start


class _EventIds:
    """Run, subrun and event number, one row an event."""

    def __init__(self, table: h5py.Dataset, path: str) -> None:
        if table.ndim != 1 or not table.dtype.names:
            raise FileFormatError(f"expected a table at {table.name} of {path}, got {table.dtype}", file=path)
        self._table = table
        self.events = len(table)
        self.fields = {f"{_EVENT_ID}/{name}": Field.dense(table.dtype[name]) for name in table.dtype.names}

    def event_bytes(self, start: int, stop: int) -> int:
        """Bytes of each of these events."""
        return int(self._table.dtype.itemsize)

    def read(self, start: int, stop: int) -> Block:
        """Read a run of events."""
        rows = self._table[start:stop]
        return {
            f"{_EVENT_ID}/{name}": np.ascontiguousarray(rows[name], rows.dtype[name].newbyteorder("="))
            for name in rows.dtype.names
        }


class _Particles:
    """Particles of each event, as rows."""

    def __init__(self, node: h5py.Group, path: str, name: str) -> None:
        self._table = _table(node, "particles", path)
        extents = _table(node, "extents", path)[()]
        self._first, self._count = _extents(extents, len(self._table), path, f"{node.name}/extents")
        self._name = name
        self.events = len(extents)
        dtype = self._table.dtype
        reasons = {each: unsuited(dtype[each].base, dtype[each].shape) for each in dtype.names}
        self.left_out = {f"{name}/{each}": reason for each, reason in reasons.items() if reason or each == "offsets"}
        # A structured part of a particle (a point, say) stays one column, whose fields the feed can select.
        self._names = [each for each in dtype.names if f"{name}/{each}" not in self.left_out]
        columns = {each: Column(dtype[each].base, dtype[each].shape) for each in self._names}
        self.fields = {name: Field.ragged(columns)} if columns else {}

    def event_bytes(self, start: int, stop: int) -> NDArray[np.int64]:
        """Bytes of each of these events."""
        return self._count[start:stop] * int(self._table.dtype.itemsize)

    def read(self, start: int, stop: int) -> Block:
        """Read a run of events."""
        if not self._names:
            return {}
        first, count = self._first[start:stop], self._count[start:stop]
        rows, base = _slab(self._table, first, count)
        chosen = rows[_gather(first - base, count)]
        native = {
            name: np.ascontiguousarray(chosen[name], self.fields[self._name].columns[name].dtype)
            for name in self._names
        }
        return {self._name: Rows(native, count)}


class _Images:
    """Sparse images of each event, of one or several projections."""

    def __init__(self, node: h5py.Group, source: _LarcvFile, name: str, dimensions: int) -> None:
        path, key = source.path, str(node.name)
        self._path, self._key, self._threshold = path, key, source.threshold
        self._voxels = _table(node, "voxels", path)
        images = _table(node, "voxel_extents", path)[()]
        first, count = _extents(images, len(self._voxels), path, f"{key}/voxel_extents")
        projection = _column(images, "id", path, f"{key}/voxel_extents").astype(np.int64)
        meta = _table(node, "image_meta", path)[()]
        if len(meta) != len(images):
            raise CorruptDataError(
                f"expected a row of image_meta for each of {len(images)} images in {key} of {path}, got {len(meta)}; "
                "write the file again",
                file=path,
                key=key,
            )
        grid = _column(meta, "number_of_voxels", path, f"{key}/image_meta").astype(np.int64)
        if grid.ndim != 2 or grid.shape[1] != dimensions:
            raise FileFormatError(
                f"expected {dimensions} numbers of voxels in {key}/image_meta of {path}, got shape {grid.shape}",
                file=path,
                key=key,
            )
        extents = _table(node, "extents", path)[()]
        begin, length = _extents(extents, len(images), path, f"{key}/extents")
        self.events = len(extents)
        rows = _gather(begin, length)
        event = np.repeat(np.arange(self.events), length)
        # A place that no image fills has no voxels, and no valid grid; an event may have any number of them.
        real = (grid[rows] > 0).all(axis=1)
        if (count[rows][~real] > 0).any():
            bad = int(event[~real & (count[rows] > 0)][0])
            raise CorruptDataError(
                f"expected a grid for the voxels of {key} in {path}, got none in event {bad}; write the file again",
                file=path,
                key=key,
                event=bad,
            )
        rows, event = rows[real], event[real]
        present = np.unique(projection[rows])
        self.fields: dict[str, Field] = {}
        self._first: dict[str, NDArray[np.int64]] = {}
        self._count: dict[str, NDArray[np.int64]] = {}
        for each in present:
            here = projection[rows] == each
            mine, of = rows[here], event[here]
            own = name if dimensions == 3 and len(present) == 1 else f"{name}_{each}"
            self._check(own, grid[mine], of)
            shape = tuple(map(int, grid[mine[0]]))
            attributes: dict[str, Any] = {"product": key, "projection": int(each)}
            for what in ("origin", "image_sizes"):
                if what in (meta.dtype.names or ()) and (meta[what][mine] == meta[what][mine[0]]).all():
                    attributes[what] = meta[what][mine[0]]
            value = self._voxels.dtype["value"] if "value" in self._voxels.dtype.names else np.dtype(np.float32)
            self.fields[own] = Field.sparse(value, shape, **attributes)
            self._first[own], self._count[own] = np.zeros((2, self.events), np.int64)
            self._first[own][of], self._count[own][of] = first[mine], count[mine]

    def _check(self, own: str, grid: NDArray[np.int64], event: NDArray[np.int64]) -> None:
        twice = np.flatnonzero(np.diff(event) == 0)
        if len(twice):
            bad = int(event[twice[0]])
            raise CorruptDataError(
                f"expected one image an event for {own!r} in {self._path}, got two in event {bad}; "
                "write the file again",
                file=self._path,
                key=own,
                event=bad,
            )
        other = np.flatnonzero((grid != grid[0]).any(axis=1))
        if len(other):
            place = other[0]
            raise SpecError(
                f"expected images of one grid for {own!r} in {self._path}, got {tuple(grid[0].tolist())} in event "
                f"{event[0]} and {tuple(grid[place].tolist())} in event {event[place]}; write them with one grid",
                file=self._path,
                key=own,
                event=int(event[place]),
            )

    def event_bytes(self, start: int, stop: int) -> NDArray[np.int64]:
        """Bytes of each of these events."""
        total = sum((count[start:stop] for count in self._count.values()), np.zeros(stop - start, np.int64))
        return total * int(self._voxels.dtype.itemsize)

    def read(self, start: int, stop: int) -> Block:
        """Read a run of events."""
        firsts = {own: first[start:stop] for own, first in self._first.items()}
        counts = {own: count[start:stop] for own, count in self._count.items()}
        if not firsts:
            return {}
        # Projections of an event lie side by side, so that one read serves all.
        rows, base = _slab(self._voxels, np.concatenate([*firsts.values()]), np.concatenate([*counts.values()]))
        ids = _column(rows, "id", self._path, self._key)
        values = _column(rows, "value", self._path, self._key)
        return {own: self._sites(own, ids, values, firsts[own] - base, counts[own], start) for own in self.fields}

    def _sites(
        self,
        own: str,
        ids: NDArray[Any],
        values: NDArray[Any],
        first: NDArray[np.int64],
        count: NDArray[np.int64],
        start: int,
    ) -> Rows:
        field = self.fields[own]
        rows = _gather(first, count)
        site, value = ids[rows], values[rows].astype(field.columns["value"].dtype, copy=False)
        event = np.repeat(np.arange(len(count)), count)
        beyond = np.flatnonzero(site >= math.prod(field.spatial_shape))
        if len(beyond):
            bad = start + int(event[beyond[0]])
            raise CorruptDataError(
                f"expected voxels within a grid of {field.spatial_shape} for {own!r} in {self._path}, got number "
                f"{site[beyond[0]]} in event {bad}; write the file again",
                file=self._path,
                key=own,
                event=bad,
            )
        site = site.astype(np.int64)
        step, same = np.diff(site), np.diff(event) == 0
        if (step[same] <= 0).any():
            order = np.lexsort((site, event))
            site, value = site[order], value[order]
            twice = np.flatnonzero((np.diff(site) == 0) & same)
            if len(twice):
                bad = start + int(event[twice[0]])
                raise CorruptDataError(
                    f"expected each voxel once for {own!r} in {self._path}, got number {site[twice[0]]} twice in event "
                    f"{bad}; write the file again",
                    file=self._path,
                    key=own,
                    event=bad,
                )
        if self._threshold:
            kept = ~(np.abs(value.astype(np.float64)) <= self._threshold)
            site, value, event = site[kept], value[kept], event[kept]
            count = np.bincount(event, minlength=len(count)).astype(np.int64)
        coords = np.stack(np.unravel_index(site, field.spatial_shape), axis=1)
        return Rows({"coords": coords.astype(field.columns["coords"].dtype), "value": value}, count)
