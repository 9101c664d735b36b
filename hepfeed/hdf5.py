"""What an HDF5 file holds, and where: the one module that opens files through h5py.

h5py reads metadata and the chunk table.  Data that are contiguous, or chunked with {none, deflate, shuffle,
fletcher32}, are afterwards read by :class:`hepfeed._core.ChunkReader` with ``pread``, outside HDF5 and its global lock.
Everything else (virtual and external data sets, other filters) has ``storage == "library"`` and is read through h5py.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from hepfeed.columns import Column, Extents
from hepfeed.errors import (
    CodecMissingError,
    CorruptDataError,
    FileFormatError,
    KeyMissingError,
    SourceError,
    SpecError,
)

__all__ = [
    "ChunkTable",
    "DatasetInfo",
    "FileInfo",
    "KeyTable",
    "SourceTable",
    "describe_columns",
    "keys_of",
    "open_file",
    "read_rows",
]

Storage = Literal["contiguous", "chunked", "library"]

_DEFLATE, _SHUFFLE, _FLETCHER32 = 1, 2, 3
_HDF5_FILTERS = {
    1: "deflate",
    2: "shuffle",
    3: "fletcher32",
    4: "szip",
    5: "nbit",
    6: "scaleoffset",
    32000: "lzf",
}
_PLUGIN_FILTERS = {
    307: "bzip2",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32013: "zfp",
    32015: "zstd",
    32017: "sz",
    32024: "sz3",
    32026: "blosc2",
}
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_OTHER_FORMATS = (
    (b"version https://git-lfs", "a Git LFS pointer: run 'git lfs pull' to fetch the file itself"),
    (b"root", "a ROOT file: convert it to HDF5 first"),
    (b"\x1f\x8b", "a gzip file: unpack it with gunzip first"),
    (b"PK\x03\x04", "a zip or npz archive: convert it to HDF5 first"),
    (b"\x93NUMPY", "a NumPy .npy file: convert it to HDF5 first"),
    (b"\x28\xb5\x2f\xfd", "a zstd file: unpack it first"),
    (b"<", "a text (HTML or XML) file, perhaps a failed download"),
)


@dataclass(frozen=True)
class ChunkTable:
    """Where the chunks of a data set lie, in C order of the chunk grid.

    Attributes:
        offset: ``(n_chunks,) int64`` byte in the file; -1 for a chunk that was never written.
        size: ``(n_chunks,) int64`` stored bytes.
        mask: ``(n_chunks,) uint32``, bit i set where filter i was left out for that chunk.
    """

    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    mask: NDArray[np.uint32]

    def __reduce__(self) -> tuple[Any, ...]:
        return ChunkTable.frombytes, (self.tobytes(),)  # readers are told of thousands

    def tobytes(self) -> bytes:
        """Pack the table for the index file."""
        return self.offset.tobytes() + self.size.tobytes() + self.mask.tobytes()

    @classmethod
    def frombytes(cls, data: bytes) -> ChunkTable:
        """Unpack what :meth:`tobytes` packed."""
        n = len(data) // 20
        return cls(
            np.frombuffer(data, np.int64, n),
            np.frombuffer(data, np.int64, n, 8 * n),
            np.frombuffer(data, np.uint32, n, 16 * n),
        )

    @classmethod
    def empty(cls) -> ChunkTable:
        """Return the table of a data set without chunks."""
        return cls.frombytes(b"")


@dataclass(frozen=True)
class DatasetInfo:
    """One data set of one file; its first axis counts events, or the rows of events.

    Attributes:
        key: Path within the file.
        shape: ``(rows, *shape of a row)``.
        dtype: NumPy code with byte order, as stored; of compound types see :func:`type_text`.
        storage: How it is read; ``"library"`` means through h5py, slower.
        reason: Why it is read through h5py; empty otherwise.
        offset: First byte of contiguous data in the file, -1 where nothing was written yet.
        chunk: Chunk shape, empty for contiguous data.
        filters: HDF5 numbers of the filters, in the order of writing.
        fill: The fill value, one item as stored.
        stored_bytes: Bytes that the data take in the file.
    """

    key: str
    shape: tuple[int, ...]
    dtype: str
    storage: Storage
    reason: str = ""
    offset: int = -1
    chunk: tuple[int, ...] = ()
    filters: tuple[int, ...] = ()
    fill: bytes = b""
    stored_bytes: int = 0

    @property
    def events(self) -> int:
        """Number of rows."""
        return self.shape[0]

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return self.shape[1:]

    @property
    def item(self) -> np.dtype[Any]:
        """Type of the items."""
        return type_of(self.dtype)

    @property
    def event_bytes(self) -> int:
        """Bytes of one row as stored in memory."""
        return math.prod(self.shape[1:]) * self.item.itemsize

    @property
    def chunk_events(self) -> int:
        """Rows that share a chunk; 1 where each row can be read alone."""
        if self.storage == "contiguous" or not self.chunk:
            return 1
        whole_rows = self.chunk[1:] == self.shape[1:]
        return 1 if self.storage == "chunked" and not self.filters and whole_rows else self.chunk[0]

    @property
    def codec(self) -> str:
        """The filters in words, e.g. ``"shuffle+deflate"``."""
        names = (_HDF5_FILTERS.get(f) or _PLUGIN_FILTERS.get(f) or f"filter {f}" for f in self.filters)
        return "+".join(names) or "none"


@dataclass(frozen=True)
class FileInfo:
    """A file with those of its data sets that were asked for.

    Attributes:
        path: Absolute path.
        size: Bytes.
        mtime_ns: Time of the last change.
        datasets: By path within the file.
        absent: Keys that were asked for and are not in the file.
        tables: Chunk tables of the chunked ones; may be empty where they are loaded later.
        events: Number of events.
        columns: Key -> how it is read, for those that are in the file.
        extents: By the names that columns have in ``rows``.
        layout: What was recognised; empty for dense rows.
        form: The same text where files differ in nothing but their numbers of rows and where these lie; empty where
            that is not known.
    """

    path: str
    size: int
    mtime_ns: int
    datasets: dict[str, DatasetInfo]
    absent: frozenset[str] = frozenset()
    tables: dict[str, ChunkTable] = field(default_factory=dict, compare=False)
    events: int = 0
    columns: dict[str, Column] = field(default_factory=dict)
    extents: dict[str, Extents] = field(default_factory=dict, compare=False)
    layout: str = ""
    form: str = field(default="", compare=False)


@dataclass(frozen=True)
class KeyTable:
    """A key of a file as a reader needs it.

    Attributes:
        column: Which part of which rows.
        info: The data set.
        chunks: Its chunks.
        dtype: To deliver.
    """

    column: Column
    info: DatasetInfo
    chunks: ChunkTable
    dtype: str

    @property
    def direct(self) -> bool:
        """Whether its rows go from the file's bytes to their places without a step between."""
        return self.column.plain and self.info.storage != "library"


@dataclass(frozen=True)
class SourceTable:
    """A file as a reader needs it.

    Attributes:
        path: Absolute path.
        size: Bytes when it was indexed.
        mtime_ns: Time of its last change then.
        keys: By name in the batch.
        extents: By the names that columns have in ``rows``.
    """

    path: str
    size: int
    mtime_ns: int
    keys: dict[str, KeyTable]
    extents: dict[str, Extents] = field(default_factory=dict)


def stat(path: str) -> os.stat_result:
    """``os.stat`` with a hepfeed error that says what to do."""
    try:
        return os.stat(path)
    except OSError as error:
        raise SourceError(f"can't read {path!r}: {_why(error)}", file=path) from error


def _why(error: OSError) -> str:
    reason = os.strerror(error.errno) if error.errno else str(error)
    advice = {
        errno.ENOENT: "; was it moved or deleted? Build the specification again",
        errno.EACCES: "; ask for read permission",
        errno.ESTALE: "; the network file system was remounted: start again",
    }.get(error.errno or 0, "")
    return reason + advice


def not_hdf5(path: str) -> str | None:
    """Say what a file is that is not HDF5; None where it may be HDF5."""
    with open(path, "rb") as stream:
        head = stream.read(512)
        if not head:
            return "the file is empty (zero bytes): its writer failed or is not finished"
        if head.startswith(_HDF5_MAGIC):
            return None
        offset, size = 512, os.fstat(stream.fileno()).st_size
        while offset < size:  # behind a user block the signature lies at 512, 1024, 2048, ...
            stream.seek(offset)
            if stream.read(8) == _HDF5_MAGIC:
                return None
            offset *= 2
    for magic, what in _OTHER_FORMATS:
        if head.startswith(magic):
            return f"the file is {what}"
    return f"the file does not begin with the HDF5 signature but with {head[:8]!r}"


def _open_unlocked(path: str) -> h5py.File:
    for locking in (False, None, True):
        try:
            return h5py.File(path, "r", locking=locking)
        except OSError as error:
            if "flag values don't match" not in str(error):
                raise
    # This process has it open, in a way that all its openings must agree with.
    return h5py.File(path, "r", locking="best-effort")


@contextlib.contextmanager
def open_file(path: str) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading, without file locks.

    Raises:
        SourceError: The file is gone or not permitted.
        FileFormatError: It is not HDF5, or truncated; the message says what it is instead.
    """
    stat(path)
    try:
        what = not_hdf5(path)
    except OSError as error:
        raise SourceError(f"can't read {path!r}: {_why(error)}", file=path) from error
    if what is not None:
        raise FileFormatError(f"{path!r} is not an HDF5 file: {what}", file=path)
    try:
        file = _open_unlocked(path)
    except OSError as error:
        text = str(error)
        if "truncated" in text:
            raise FileFormatError(
                f"{path!r} is truncated ({os.path.getsize(path)} bytes on disk): copy or produce it again",
                file=path,
            ) from error
        raise FileFormatError(f"HDF5 can't open {path!r}: {text}", file=path) from error
    with file:
        yield file


def keys_of(file: h5py.File) -> list[str]:
    """Paths of all data sets of an open file; names of index groups (``_i_...``) are left out."""
    found: list[str] = []

    def visit(name: str, node: object) -> None:
        if isinstance(node, h5py.Dataset) and "/_i_" not in f"/{name}":
            found.append(name)

    file.visititems(visit)
    return found


def describe_columns(
    file: h5py.File, path: str, columns: Mapping[str, Column]
) -> tuple[dict[str, DatasetInfo], dict[str, ChunkTable]]:
    """Describe the data sets of columns, by path of the data set, with their chunk tables.

    Raises:
        SpecError: A column has no row axis, or items that are not numbers.
        CodecMissingError: A filter plug-in is missing.
        FileFormatError: HDF5 can't read it.
    """
    datasets: dict[str, DatasetInfo] = {}
    tables: dict[str, ChunkTable] = {}
    for key, column in columns.items():
        name = column.dataset
        try:
            if name not in datasets:
                _need_rows(path, key, file[name])
                datasets[name], tables[name] = _describe(path, name, file[name], file.userblock_size)
            _need_numbers(path, key, column, datasets[name], file[name])
        except (OSError, RuntimeError) as error:
            if isinstance(error, SourceError):
                raise
            raise FileFormatError(f"HDF5 can't read key {key!r} of {path!r}: {error}", file=path, key=key) from error
    return datasets, tables


def _need_rows(path: str, key: str, node: h5py.Dataset) -> None:
    if node.shape is None or node.ndim == 0:
        raise SpecError(
            f"key {key!r} of {path!r} is a single value without an event axis: name a data set of shape (events, ...)",
            file=path,
            key=key,
        )


def _need_numbers(path: str, key: str, column: Column, info: DatasetInfo, node: h5py.Dataset) -> None:
    """Check that what is delivered are numbers.

    Raises:
        SpecError: They are not.
    """
    dtype, _ = column.form(info.item, info.event_shape)
    jagged = h5py.check_vlen_dtype(node.dtype) is not None and not column.variable
    if dtype.kind in "biufc" and dtype.itemsize <= 16 and dtype.subdtype is None and not jagged:
        return
    remedy = "name a numeric data set"
    if dtype.names:
        first, *_ = dtype.names
        remedy = (
            f"name a field, as {key + '.' + first!r}, or several, as {key + '[' + ', '.join(dtype.names[:2]) + ']'!r}"
        )
    what = f"fields {', '.join(dtype.names)}" if dtype.names else f"dtype {_kind_of(node.dtype)}"
    raise SpecError(
        f"key {key!r} of {path!r} has {what}, but events are fed as numbers (float, integer, bool): {remedy}",
        file=path,
        key=key,
    )


def type_text(dtype: np.dtype[Any]) -> str:
    """Write a type as text that :func:`type_of` reads: NumPy's code, or JSON for compound and array types."""
    return dtype.str if dtype.names is None and dtype.subdtype is None else json.dumps(_type_tree(dtype))


def _type_tree(dtype: np.dtype[Any]) -> Any:
    if dtype.subdtype is not None:
        return {"base": _type_tree(dtype.subdtype[0]), "shape": list(dtype.shape)}
    if dtype.names is None:
        return "|V" + str(dtype.itemsize) if dtype.hasobject else dtype.str
    fields = [dtype.fields[name] for name in dtype.names]  # type: ignore[index]
    return {
        "names": list(dtype.names),
        "formats": [_type_tree(part[0]) for part in fields],
        "offsets": [part[1] for part in fields],
        "itemsize": dtype.itemsize,
    }


def type_of(text: str) -> np.dtype[Any]:
    """Return the type that :func:`type_text` wrote."""
    return _type_from(json.loads(text)) if text.startswith("{") else np.dtype(text)


def _type_from(tree: Any) -> np.dtype[Any]:
    if isinstance(tree, str):
        return np.dtype(tree)
    if "base" in tree:
        return np.dtype((_type_from(tree["base"]), tuple(tree["shape"])))
    fields: Any = {**tree, "formats": [_type_from(part) for part in tree["formats"]]}
    dtype: np.dtype[Any] = np.dtype(fields)
    return dtype


def _describe(path: str, key: str, node: h5py.Dataset, user_block: int) -> tuple[DatasetInfo, ChunkTable]:
    dtype: np.dtype[Any] = node.dtype
    variable = h5py.check_vlen_dtype(dtype)
    if variable is not None and not h5py.check_string_dtype(dtype):
        dtype = np.dtype(variable)
    plist = node.id.get_create_plist()
    filters = tuple(plist.get_filter(i)[0] for i in range(plist.get_nfilters()))
    need_codecs(path, key, node)
    info = DatasetInfo(
        key=key,
        shape=tuple(int(n) for n in node.shape),
        dtype=type_text(dtype),
        storage="library",
        filters=filters,
        chunk=tuple(int(n) for n in node.chunks or ()),
        fill=b"" if node.dtype.hasobject else np.asarray(node.fillvalue, dtype).tobytes(),
        stored_bytes=int(node.id.get_storage_size()),
    )
    layout = plist.get_layout()
    if node.dtype.hasobject:
        return replace(info, reason="variable length" if variable is not None else "references or text"), _NO_TABLE
    if node.id.get_type().get_size() != dtype.itemsize:
        return replace(info, reason="a type that HDF5 converts"), _NO_TABLE
    if dtype.kind == "c" and not dtype.isnative:
        return replace(info, reason="complex numbers of the other byte order"), _NO_TABLE
    if dtype.kind == "f" and dtype.itemsize not in (2, 4, 8):
        return replace(info, reason="extended precision"), _NO_TABLE
    if layout == h5py.h5d.CONTIGUOUS and plist.get_external_count() == 0:
        return _place_contiguous(path, node, info, user_block), _NO_TABLE
    if layout == h5py.h5d.CHUNKED and _decoded_here(filters):
        table = _chunk_table(node, info.shape, info.chunk)
        shift = _chunk_shift(path, node, table, info, user_block)
        if shift is None:
            return replace(info, reason="bytes not where HDF5 says"), _NO_TABLE
        if shift:
            table = ChunkTable(np.where(table.offset >= 0, table.offset + shift, -1), table.size, table.mask)
        return replace(info, storage="chunked"), table
    reasons = {h5py.h5d.COMPACT: "compact", h5py.h5d.VIRTUAL: "virtual", h5py.h5d.CHUNKED: "filters"}
    return replace(info, reason=reasons.get(layout, "external")), _NO_TABLE


def _place_contiguous(path: str, node: h5py.Dataset, info: DatasetInfo, user_block: int) -> DatasetInfo:
    offset = node.id.get_offset()
    if offset is None or not info.stored_bytes:  # nothing was written: all items have the fill value
        return replace(info, storage="contiguous")
    first = node[:1].tobytes()[: 1 << 16] if node.size else b""
    for start in (offset, offset + user_block):
        if _pread(path, len(first), start) == first:
            return replace(info, storage="contiguous", offset=int(start))
    return replace(info, reason="bytes not where HDF5 says")


_NO_TABLE = ChunkTable.empty()


def _decoded_here(filters: tuple[int, ...]) -> bool:
    """Whether the native reader undoes these filters: deflate once at most, and after it only a checksum."""
    known = all(number in (_DEFLATE, _SHUFFLE, _FLETCHER32) for number in filters) and len(filters) <= 8
    return known and (_DEFLATE not in filters or all(f == _FLETCHER32 for f in filters[filters.index(_DEFLATE) + 1 :]))


def _kind_of(dtype: np.dtype[Any]) -> str:
    if h5py.check_string_dtype(dtype):
        return "text"
    if h5py.check_vlen_dtype(dtype):
        return "of variable length"
    if h5py.check_ref_dtype(dtype):
        return "HDF5 reference"
    return str(dtype)


def need_codecs(path: str, key: str, node: h5py.Dataset) -> None:
    """Make the filters of a data set available in this process.

    Raises:
        CodecMissingError: A filter plug-in is missing.
    """
    plist = node.id.get_create_plist()
    for i in range(plist.get_nfilters()):
        number = plist.get_filter(i)[0]
        if h5py.h5z.filter_avail(number):
            continue
        with contextlib.suppress(ImportError):
            import hdf5plugin  # noqa: F401  registers its filters

        if h5py.h5z.filter_avail(number):
            continue
        stored = plist.get_filter(i)[3]
        name = _PLUGIN_FILTERS.get(number) or (stored.decode(errors="replace") if stored else "unknown")
        remedy = (
            "install the package that has it: pip install hdf5plugin"
            if number in _PLUGIN_FILTERS
            else "rewrite the file with gzip, for example: h5repack -f GZIP=4 OLD NEW"
        )
        raise CodecMissingError(
            f"key {key!r} of {path!r} is compressed with HDF5 filter {number} ({name}), which is not installed:"
            f" {remedy}",
            file=path,
            key=key,
        )


def _pread(path: str, size: int, offset: int) -> bytes:
    with open(path, "rb", buffering=0) as stream:
        return os.pread(stream.fileno(), size, offset)


def _chunk_table(node: h5py.Dataset, shape: tuple[int, ...], chunk: tuple[int, ...]) -> ChunkTable:
    grid = tuple(-(-n // c) for n, c in zip(shape, chunk))
    n_chunks = int(np.prod(grid, dtype=np.int64))
    offset = np.full(n_chunks, -1, np.int64)
    size = np.zeros(n_chunks, np.int64)
    mask = np.zeros(n_chunks, np.uint32)
    infos: list[Any] = []
    if n_chunks and node.id.get_num_chunks():
        node.id.chunk_iter(infos.append)  # its callback must return None, as append does
    if infos:
        cells = np.array([info.chunk_offset for info in infos], np.int64) // np.array(chunk, np.int64)
        inside = (cells < np.array(grid, np.int64)).all(1)  # a shrunken data set may keep chunks beyond its end
        place = np.ravel_multi_index(tuple(cells[inside].T), grid)
        offset[place] = np.array([info.byte_offset for info in infos], np.int64)[inside]
        size[place] = np.array([info.size for info in infos], np.int64)[inside]
        mask[place] = np.array([info.filter_mask for info in infos], np.uint32)[inside]
    return ChunkTable(offset, size, mask)


def _chunk_shift(
    path: str,
    node: h5py.Dataset,
    table: ChunkTable,
    info: DatasetInfo,
    user_block: int,
) -> int | None:
    """Compare a chunk's bytes with HDF5's own reading; return what to add to the offsets, None if nothing fits."""
    written = np.flatnonzero(table.offset >= 0)
    if not written.size:
        return 0
    grid = tuple(-(-n // c) for n, c in zip(info.shape, info.chunk))
    shifts = sorted({0, user_block})
    for chunk in written[np.argsort(table.size[written], kind="stable")].tolist():
        cell = tuple(int(i) * c for i, c in zip(np.unravel_index(chunk, grid), info.chunk))
        direct = node.id.read_direct_chunk(cell)[1]
        size, offset = int(table.size[chunk]), int(table.offset[chunk])
        shifts = [shift for shift in shifts if _pread(path, size, offset + shift) == direct]
        if len(shifts) < 2:  # else the bytes are the same at both places: look at another chunk
            break
    return shifts[0] if shifts else None


def read_rows(
    path: str, key: str, rows: NDArray[np.int64], fields: tuple[str, ...] = ()
) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    """Read rows through h5py: for data sets whose storage is ``"library"``.

    Args:
        path: HDF5 file.
        key: Data set.
        rows: ``(n,)`` sorted rows; repeats are allowed.
        fields: Of a compound type: which ones to read.

    Returns:
        ``(n, ...)`` array in the stored dtype, and None.  Of items of variable length: those of all rows one after
        another, and the number of each row ``(n,)``; of rows of several such items, which must be of one length, they
        are ``(total, items of a row)``.

    Raises:
        KeyMissingError: The data set is gone.
        CodecMissingError: A filter plug-in is missing.
        CorruptDataError: Items of variable length that belong together differ in length.
    """
    unique, inverse = np.unique(rows, return_inverse=True)
    with open_file(path) as file:
        if key not in file:
            raise KeyMissingError(f"key {key!r} is gone from {path!r}", file=path, key=key)
        node = file[key]
        need_codecs(path, key, node)
        variable = h5py.check_vlen_dtype(node.dtype)
        # Rows between two that share a chunk are decoded anyway: take the whole run, and leave them out afterwards.
        cuts = np.flatnonzero(np.diff(unique) > (node.chunks[0] if node.chunks else 1)) + 1
        view = node.fields(list(fields)) if fields else node
        parts = [view[int(run[0]) : int(run[-1]) + 1][run - run[0]] for run in np.split(unique, cuts) if len(run)]
        empty = np.empty((0, *node.shape[1:]), node.dtype)
    values = (np.concatenate(parts) if parts else empty)[inverse]
    return (values, None) if variable is None else _flat(path, key, values, rows, np.dtype(variable))


def _flat(
    path: str, key: str, values: NDArray[Any], rows: NDArray[np.int64], dtype: np.dtype[Any]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Join items of variable length."""
    width = values.shape[1:]
    if not width:
        counts = np.array([len(value) for value in values], np.int64)
        return np.concatenate([np.empty(0, dtype), *values]).astype(dtype, copy=False), counts
    columns = values.reshape(len(values), -1)
    lengths = np.array([[len(value) for value in row] for row in columns], np.int64).reshape(columns.shape)
    uneven = np.flatnonzero((lengths != lengths[:, :1]).any(1))
    if uneven.size:
        event = int(rows[uneven[0]])
        raise CorruptDataError(
            f"event {event} of key {key!r} in {path!r} has arrays of {lengths[uneven[0]].tolist()} items, which must be"
            " of one length",
            file=path,
            key=key,
            event=event,
        )
    joined = [np.concatenate([np.empty(0, dtype), *column]) for column in columns.T]
    return np.stack(joined, axis=-1).reshape(-1, *width), lengths[:, 0]
