"""NumPy archives: ``.npz`` files, an array a key."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from hepfeed.convert.block import Block, Column, Field, Rows, bounded_steps
from hepfeed.convert.engine import convert
from hepfeed.convert.form import Form, Shaper
from hepfeed.convert.plan import Class
from hepfeed.convert.report import Converted
from hepfeed.convert.settings import ConvertOptions, Settings
from hepfeed.convert.source import STEP_BYTES, as_keys, check_names, find_files, key_name, select, unsuited
from hepfeed.errors import CorruptDataError, FileFormatError, SourceError, SpecError

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["convert_npz"]

_PIECE_BYTES = 1 << 20
# What zipfile and zlib raise for damaged bytes; NumPy raises ValueError for a header or rows that don't fit.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError)


def convert_npz(
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    keys: str | Sequence[str] | None = None,
    allow_pickle: bool = False,
    form: Form = "dense",
    threshold: float = 0.0,
    images: str | Sequence[str] | None = None,
    **options: Unpack[ConvertOptions],
) -> Converted:
    """Write the arrays of ``.npz`` files into HDF5 files ``out/events_<k>.h5``.

    The first axis of each array counts events.  Events of several files go end to end; below a directory each
    folder is a class of its own, ``out/<folder>/<folder>_<k>.h5``.

    ============================ ======================================================================
    array                        becomes
    ============================ ======================================================================
    ``(N, *shape)`` of numbers   data set ``key (N, *shape)``, or sites with ``form="sparse"``
    structured ``(N, *shape)``   the same, as a compound data set
    objects ``(N,)``, each an    ``key/values (T, *item)`` and ``key/offsets (N + 1,) int64``
    array ``(n, *item)``
    ============================ ======================================================================

    Arrays are read in steps of 32 MB, except those in Fortran order and those of objects, which are read whole.

    Args:
        sources: Files, globs or directories.
        out: Folder to write into, made if it is missing.
        keys: Names or globs of arrays; None for all, which must then have one number of events.
        allow_pickle: Read arrays of Python objects.  They are unpickled, which can run any code: only for files
            that you trust.
        form: ``"sparse"`` keeps only the occupied sites of images: ``key/coords (T, D)``, ``key/value (T,)`` and
            ``key/offsets``.  An image is an array with at least two axes longer than 1 beside that of the events.
        threshold: A site is occupied where ``|value| > threshold``; only with ``form="sparse"``.
        images: Keys that are images, in place of that rule; only with ``form="sparse"``.
        **options: See :class:`hepfeed.convert.Settings`.

    Returns:
        The files; a sequence of paths.

    Raises:
        SpecError: An option is out of its range, an array does not count events, or files differ in their keys.
        KeyMissingError: A file has no array of that name.
        SourceError: A file can't be read, or ``out`` has other HDF5 files.
        FileFormatError: A file is no npz archive.
        CorruptDataError: An array fails its checksum, or is cut short.
        ResourceError: An output file can't be written.
        ReaderError: A worker died.
    """
    settings = Settings(**options)
    shaper = Shaper(form, threshold, as_keys(images))
    wanted = as_keys(keys)
    classes = [
        Class(folder, tuple(_Archive(path, wanted, allow_pickle) for path in paths))
        for folder, paths in find_files(sources, (".npz",))
    ]
    told = {"keys": wanted, "threshold": threshold, "images": shaper.images}
    return convert(classes, out, settings, source_format="npz", form=form, options=told, shaper=shaper)


@dataclass(frozen=True)
class _Archive:
    """One ``.npz`` file."""

    path: str
    keys: tuple[str, ...] | None
    allow_pickle: bool
    sequential: bool = True

    def files(self, start: int, stop: int) -> list[str]:
        """The file itself."""
        return [self.path]

    def verify(self) -> None:
        """Check the CRC of every array that is wanted: it lies at the end, after rows that would be used already."""
        with _opened(self.path) as archive:
            for name in select(_members(archive), self.keys, file=self.path, noun="array"):
                with _damage_of(self.path, name), archive.open(f"{name}.npy") as stream:
                    while stream.read(_PIECE_BYTES):
                        pass

    @contextmanager
    def open(self) -> Iterator[_ArchiveReader]:
        """Open it."""
        with _opened(self.path) as archive:
            reader = _ArchiveReader(archive, self)
            try:
                yield reader
            finally:
                reader.close()


@contextmanager
def _opened(path: str) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise FileFormatError(
            f"expected an npz archive at {path}, but it is no zip file, or is truncated ({error}); fetch it again",
            file=path,
        ) from error
    except OSError as error:
        raise SourceError(
            f"could not read {path}: {error.strerror}; check that it is there and readable", file=path
        ) from error
    with archive:
        yield archive


@contextmanager
def _damage_of(path: str, key: str) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        if isinstance(error, SpecError):
            raise
        raise CorruptDataError(
            f"could not read array {key!r} of {path}: {error}; fetch or write the file again", file=path, key=key
        ) from error
    except OSError as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"could not read array {key!r} of {path}: {error}", file=path, key=key) from error


def _members(archive: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


class _ArchiveReader:
    """The arrays of an open archive."""

    def __init__(self, archive: zipfile.ZipFile, source: _Archive) -> None:
        self.fields: dict[str, Field] = {}
        self.left_out = {name: "it is no array" for name in archive.namelist() if not name.endswith(".npy")}
        self._path = source.path
        self._arrays: dict[str, _Array | _Objects] = {}
        lengths: dict[str, int] = {}
        try:
            for name in select(_members(archive), source.keys, file=source.path, noun="array"):
                array = _Array(archive, source.path, name)
                self._arrays[key_name(name)] = array
                if array.shape and array.dtype.hasobject and array.dtype.names is None:
                    if not source.allow_pickle:
                        raise SpecError(
                            f"array {name!r} of {source.path} holds Python objects: allow pickle if you trust the "
                            "file, since unpickling can run any code, or name other arrays",
                            file=source.path,
                            key=name,
                        )
                    with array:
                        self._arrays[key_name(name)] = _Objects(source.path, name, array.load(allow_pickle=True))
                elif (reason := _unsuited(array)) and source.keys is None:
                    self.left_out[name] = reason
                    del self._arrays[key_name(name)]
                elif reason:
                    raise SpecError(
                        f"array {name!r} of {source.path} can't be converted: {reason}", file=source.path, key=name
                    )
            for key, converted in self._arrays.items():
                self.fields[key] = converted.field
                lengths[key] = converted.events
            if len(set(lengths.values())) > 1:
                told = ", ".join(f"{key!r} {length}" for key, length in lengths.items())
                raise SpecError(
                    f"expected arrays of {source.path} with one number of events, got {told}; name those of the events",
                    file=source.path,
                )
            check_names(self.fields, source.path)
        except BaseException:
            self.close()
            raise
        self.events = next(iter(lengths.values()))

    def steps(self, start: int, stop: int, added_bytes: int) -> Iterator[tuple[int, int]]:
        """Cut events into runs of bounded memory."""
        event_bytes = sum(field.event_bytes for field in self.fields.values()) + added_bytes
        sizes = np.full(stop - start, event_bytes, np.int64)
        for array in self._arrays.values():
            if isinstance(array, _Objects):
                sizes += array.event_bytes()[start:stop]
        return bounded_steps(sizes, start, STEP_BYTES)

    def read(self, start: int, stop: int) -> Block:
        """Read a run of events."""
        block: Block = {}
        for key, array in self._arrays.items():
            with _damage_of(self._path, key):
                block[key] = array.read(start, stop)
        return block

    def close(self) -> None:
        """Close the streams."""
        for array in self._arrays.values():
            if isinstance(array, _Array):
                array.close()


def _unsuited(array: _Array) -> str:
    if not array.shape:
        return "it has no event axis"
    return unsuited(array.dtype, array.shape[1:])


class _Array:
    """An array in an archive, read from its beginning to its end; only what is asked for is in memory."""

    def __init__(self, archive: zipfile.ZipFile, path: str, name: str) -> None:
        self._archive = archive
        self._path = path
        self._name = name
        self._stream: IO[bytes] | None = None
        self._next = 0
        self._whole: NDArray[Any] | None = None
        with _damage_of(path, name):
            self._rewind()
        if self.dtype.hasobject or self._fortran:
            self.close()

    def __enter__(self) -> _Array:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def events(self) -> int:
        """Length of the first axis."""
        return int(self.shape[0])

    @property
    def field(self) -> Field:
        """What it becomes."""
        return Field.dense(self.dtype, self.shape[1:])

    def load(self, *, allow_pickle: bool) -> NDArray[Any]:
        """Read it whole."""
        with _damage_of(self._path, self._name), self._archive.open(f"{self._name}.npy") as stream:
            try:
                loaded: NDArray[Any] = npy.read_array(stream, allow_pickle=allow_pickle)
            except (*_DAMAGE, OSError):
                raise
            except Exception as error:  # unpickling raises what the objects' classes raise
                raise CorruptDataError(
                    f"could not unpickle array {self._name!r} of {self._path}: {error}",
                    file=self._path,
                    key=self._name,
                ) from error
        return loaded

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows ``[start, stop)`` in the byte order of the machine."""
        native = self.dtype.newbyteorder("=")
        if self._fortran:
            if self._whole is None:
                self._whole = self.load(allow_pickle=False)
            return np.ascontiguousarray(self._whole[start:stop], native)
        if self._stream is None or start < self._next:
            self._rewind()
        self._skip((start - self._next) * self._row_bytes)
        rows = np.empty((stop - start, *self.shape[1:]), self.dtype)
        self._fill(rows.reshape(-1).view(np.uint8).data)
        self._next = stop
        return rows.astype(native, copy=False)

    def _fill(self, place: memoryview) -> None:
        done = 0
        assert self._stream is not None
        while done < len(place):
            piece = self._stream.read(min(_PIECE_BYTES, len(place) - done))
            if not piece:
                raise EOFError(f"it ends {len(place) - done} bytes early")
            place[done : done + len(piece)] = piece
            done += len(piece)

    def _skip(self, count: int) -> None:
        assert self._stream is not None
        while count:
            piece = self._stream.read(min(_PIECE_BYTES, count))
            if not piece:
                raise EOFError(f"it ends {count} bytes early")
            count -= len(piece)

    def _rewind(self) -> None:
        self.close()
        self._stream = self._archive.open(f"{self._name}.npy")
        version = npy.read_magic(self._stream)
        if version not in ((1, 0), (2, 0)):
            self._stream.close()
            whole = self.load(allow_pickle=False)
            self._whole, self.shape, self._fortran, self.dtype = whole, whole.shape, True, whole.dtype
        else:
            read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            self.shape, self._fortran, self.dtype = read_header(self._stream)
        self._row_bytes = self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=np.int64))
        self._next = 0

    def close(self) -> None:
        """Close the stream."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None


class _Objects:
    """An array of arrays, one an event."""

    def __init__(self, path: str, name: str, objects: NDArray[Any]) -> None:
        self._objects: list[NDArray[Any]] = []
        kinds: dict[Column, int] = {}
        if objects.ndim != 1:
            raise SpecError(
                f"expected array {name!r} of {path} to hold one array an event, got objects {objects.shape}; "
                "name other arrays",
                file=path,
                key=name,
            )
        for event, value in enumerate(objects):
            try:
                array = np.asarray(value)
            except ValueError:
                array = np.asarray(None)
            if array.ndim == 0 or (array.size and unsuited(array.dtype, array.shape[1:])):
                what = f"{array.dtype} {array.shape}" if array.dtype.kind != "O" else type(value).__name__
                raise SpecError(
                    f"expected rows of numbers in each event of array {name!r} of {path}, got {what} in event {event}; "
                    "name other arrays",
                    file=path,
                    key=name,
                    event=event,
                )
            if len(array):
                kinds.setdefault(Column(array.dtype, array.shape[1:]), event)
            self._objects.append(array)
        if len(kinds) > 1:
            (one, first), (other, second) = list(kinds.items())[:2]
            raise SpecError(
                f"expected rows of one type and shape in array {name!r} of {path}, got {one} in event {first} and "
                f"{other} in event {second}; write it with one of them",
                file=path,
                key=name,
                event=second,
            )
        # Without any row only the type of the empty arrays is known.
        empty = self._objects[0] if self._objects else np.empty(0)
        self._column = next(iter(kinds), Column(empty.dtype, empty.shape[1:]))
        self.events = len(objects)
        self.field = Field("ragged", {"values": self._column}, guessed=not kinds)

    def event_bytes(self) -> NDArray[np.int64]:
        """Return the bytes of each event."""
        return np.array([each.nbytes for each in self._objects], np.int64)

    def read(self, start: int, stop: int) -> Rows:
        """Return the rows of a run of events."""
        events = self._objects[start:stop]
        empty = np.empty((0, *self._column.shape), self._column.dtype)
        # Empty arrays may have any type, which must not decide that of all.
        values = np.concatenate([empty, *(each for each in events if len(each))])
        counts = np.array([len(each) for each in events], np.int64)
        return Rows({"values": values.astype(self._column.dtype, copy=False)}, counts)
