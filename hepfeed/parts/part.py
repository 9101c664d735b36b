"""One file of a cache, and where everything lies in it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import h5py
import numpy as np
import xxhash
from numpy.typing import NDArray

from hepfeed.errors import CorruptDataError, FileFormatError, SourceError
from hepfeed.hdf5 import open_file
from hepfeed.parts.form import ArrayForm

__all__ = ["BOOKS", "FORMAT", "Part", "Stored"]

FORMAT = 1
BOOKS = "_cache"
"""Group of what a part says of itself."""


@dataclass(frozen=True)
class Stored:
    """A contiguous data set.

    Attributes:
        offset: First byte in the file (of a part in memory: in its slot).
        dtype: NumPy code.
        shape: Rows and shape of a row.
        xxh3: Of all its bytes, for those that tell where events lie; else empty.
    """

    offset: int
    dtype: str
    shape: tuple[int, ...]
    xxh3: str = ""

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return int(np.prod(self.shape[1:], dtype=np.int64)) * np.dtype(self.dtype).itemsize

    @property
    def bytes(self) -> int:
        """Bytes of all rows."""
        return self.shape[0] * self.row_bytes


@dataclass(frozen=True)
class Part:
    """One file of a cache, or a slot of shared memory in its place.

    Attributes:
        name: Of the file, within the directory of its cache.
        bytes: Of the file.
        events: Events that it holds.
        removed: Events that the steps took out and that need not be asked for again.
        block_events: Events of a block, which has a checksum for each column.
        stored: All data sets, by path.
        columns: Path of what has a row or a run of rows for each event -> path of its offsets, or empty.
        slot: Where it lies in shared memory, or -1.
    """

    name: str
    bytes: int
    events: int
    removed: int
    block_events: int
    stored: dict[str, Stored]
    columns: dict[str, str] = field(default_factory=dict)
    slot: int = -1

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return -(-self.events // self.block_events)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Part:
        """Rebuild what :meth:`to_json` wrote."""
        stored = {path: Stored(**{**each, "shape": tuple(each["shape"])}) for path, each in content["stored"].items()}
        return cls(**{**content, "stored": stored})

    def edges(self, column: str, directory: str) -> NDArray[np.int64]:
        """Return where the blocks of a column begin and end, ``(blocks + 1,)`` bytes from its first one."""
        events = np.minimum(np.arange(self.blocks + 1) * self.block_events, self.events)
        if self.columns[column]:
            events = self.read(self.columns[column], directory)[events]
        return np.asarray(events * self.stored[column].row_bytes, np.int64)

    def read(self, path: str, directory: str) -> NDArray[Any]:
        """Read a whole data set of a file, and compare its checksum where it has one.

        Raises:
            SourceError: The file can't be read.
            CorruptDataError: It is too short, or the checksum is another one.
        """
        there, stored = os.path.join(directory, self.name), self.stored[path]
        array = np.empty(stored.shape, stored.dtype)
        try:
            descriptor = os.open(there, os.O_RDONLY | os.O_CLOEXEC)
            try:
                view, done = array.reshape(-1).view(np.uint8).data if array.nbytes else memoryview(b""), 0
                while done < len(view):
                    count = os.preadv(descriptor, [view[done:]], stored.offset + done)
                    if not count:
                        raise CorruptDataError(f"{there!r} is cut short: build it again", file=there, key=path)
                    done += count
            finally:
                os.close(descriptor)
        except OSError as error:
            if isinstance(error, SourceError):
                raise
            raise SourceError(f"can't read {there!r}: {error.strerror}", file=there, key=path) from error
        if stored.xxh3 and xxhash.xxh3_64_hexdigest(array.tobytes()) != stored.xxh3:
            raise CorruptDataError(f"{path!r} of {there!r} fails its checksum: build it again", file=there, key=path)
        return array

    @classmethod
    def open(cls, path: str) -> tuple[Part, str, tuple[ArrayForm, ...]]:
        """Read what a file says of itself; returns the part, the key of its cache, and the arrays of a batch.

        Raises:
            SourceError: The file can't be read.
            FileFormatError: It is no part, or one of another format.
        """
        with open_file(path) as file:
            try:
                books = file[BOOKS]
                if int(books.attrs["format"]) != FORMAT:
                    raise FileFormatError(
                        f"{path!r} has format {books.attrs['format']}, this is {FORMAT}: build it again", file=path
                    )
                columns = json.loads(books.attrs["columns"])
                forms = tuple(ArrayForm.from_json(each) for each in json.loads(books.attrs["arrays"]))
                found: dict[str, Stored] = {}

                def visit(name: str, node: object) -> None:
                    if isinstance(node, h5py.Dataset):
                        offset = node.id.get_offset()
                        sum_ = str(node.attrs.get("xxh3", ""))
                        found[name] = Stored(-1 if offset is None else offset, node.dtype.str, node.shape, sum_)

                file.visititems(visit)
                events, removed = found["event"].shape[0], found[f"{BOOKS}/removed"].shape[0]
                size = os.path.getsize(path)
                part = cls(
                    os.path.basename(path), size, events, removed, int(books.attrs["block_events"]), found, columns
                )
                if any(each.bytes and not 0 <= each.offset <= size - each.bytes for each in found.values()):
                    raise FileFormatError(f"{path!r} is cut short: build it again", file=path)
                return part, str(books.attrs["key"]), forms
            except (KeyError, ValueError, TypeError, RuntimeError, OSError) as error:  # h5py raises any of them
                if isinstance(error, SourceError):
                    raise
                raise FileFormatError(f"{path!r} is no part of a cache: {error}", file=path) from error
