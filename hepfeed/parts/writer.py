"""The writer of parts: collects processed events, and writes a part whenever there are enough of them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import xxhash
from numpy.typing import NDArray

from hepfeed.errors import HepfeedError, ProcessError, ResourceError, SourceError
from hepfeed.parts.buffer import EventBuffer, bytes_of
from hepfeed.parts.form import ArrayForm, forms_of
from hepfeed.parts.part import BOOKS, FORMAT, Part, Stored
from hepfeed.tensors import Batch, take

__all__ = ["PART_BYTES", "PartWriter", "PartsWritten", "unfinished"]

PART_BYTES = 32 << 20
_ALIGN = 4096  # of data sets: reads past the page cache, and from memory, begin on a page
_METADATA_ROOM = 1 << 20
_PREFIX = "part-"

Ints = NDArray[np.int64]


@dataclass
class PartsWritten:
    """What became of the events that were given to a writer.

    Attributes:
        parts: Parts that are on disk.
        error: Why nothing more can be written; None while all is well.
        forms: The arrays of a batch, once there was one.
    """

    parts: list[Part]
    error: HepfeedError | None = None
    forms: tuple[ArrayForm, ...] = ()


class PartWriter:
    """Writes processed events to parts of a cache, from one process.

    Writing goes on in a thread.  Once it fails (the disk is full) the error is kept and further events are dropped:
    who needs them cached asks :meth:`report`.

    Args:
        directory: Of the cache; empty where nothing may be written to disk.
        key: Of the cache.
        part_bytes: Bytes of a part, about; it takes twice that in memory.
        elsewhere: Asked first for each part; returns it if it was written to memory, and None if it is for the disk.
    """

    def __init__(
        self,
        directory: str,
        key: str,
        part_bytes: int = PART_BYTES,
        elsewhere: Callable[[EventBuffer], Part | None] | None = None,
    ) -> None:
        self._elsewhere = elsewhere
        self._directory = directory
        self._key = key
        self._part_bytes = part_bytes
        self._buffer: EventBuffer | None = None
        self._forms: tuple[ArrayForm, ...] | None = None
        self._thread: threading.Thread | None = None
        self._finished = threading.Event()
        self._lock = threading.Lock()
        self._written: list[Part] = []
        self._error: HepfeedError | None = None

    def add(self, batch: Batch, given: Ints, wanted: NDArray[np.bool_] | None = None) -> None:
        """Keep the events of a batch.

        Args:
            batch: After the steps before the cache point.
            given: ``(n, 2)`` events before those steps.
            wanted: ``(n,)`` which of them are to be cached; None for all.

        Raises:
            ProcessError: The batch can't be cached event by event, or differs in form from those before.
        """
        if self._error is not None:
            return
        forms = forms_of(batch)
        if self._forms is None:
            self._forms = forms
        elif forms != self._forms:
            raise ProcessError(_difference(self._forms, forms))
        kept = np.asarray(batch["event"])
        removed = given[~_among(given, kept)] if len(kept) < len(given) else given[:0]
        if wanted is not None and not wanted.all():
            chosen = given[wanted]
            here = np.flatnonzero(_among(kept, chosen))
            here = here[_first_of_each(kept[here])]
            batch = {name: take(value, here) for name, value in batch.items()}
            removed = removed[_among(removed, chosen)]
            removed = removed[_first_of_each(removed)]
        if self._buffer is None:
            self._buffer = EventBuffer(forms)
        self._buffer.add(batch)
        if len(removed):
            self._buffer.removed.append(np.array(removed, np.int64))
        if self._buffer.bytes >= self._part_bytes:
            self.flush()

    @property
    def failed(self) -> bool:
        """Whether nothing more is written."""
        return self._error is not None

    def refuse(self, error: HepfeedError) -> None:
        """Write nothing more, for a reason that :meth:`report` gives."""
        self._error = self._error or error
        self._buffer = None

    def flush(self) -> None:
        """Begin to write what was collected."""
        buffer, self._buffer = self._buffer, None
        if buffer is None or not buffer.whole or not (buffer.events or buffer.removed):
            return
        self.wait()
        self._finished.clear()
        self._thread = threading.Thread(target=self._write, args=(buffer,), daemon=False)
        self._thread.start()

    def wait(self) -> None:
        """Wait until what was begun is on disk."""
        if self._thread is not None:
            self._finished.wait()  # a join that a signal ends takes the thread for ended
            self._thread.join()
            self._thread = None

    def report(self) -> PartsWritten:
        """Return what was written since the last report."""
        with self._lock:
            written, self._written = self._written, []
        return PartsWritten(written, self._error, self._forms or ())

    def close(self) -> PartsWritten:
        """Write what was collected, and return what was written since the last report."""
        self.flush()
        self.wait()
        return self.report()

    def _write(self, buffer: EventBuffer) -> None:
        try:
            part = self._elsewhere(buffer) if self._elsewhere else None
            if part is None and not self._directory:
                raise ResourceError("the memory for the cache is used up: the other events are read from their sources")
            if part is None:
                part = write_part(self._directory, self._key, buffer)
        except HepfeedError as error:
            self._error = error
        except Exception as error:
            self._error = SourceError(f"can't write a part to {self._directory!r}: {error}", file=self._directory)
        else:
            with self._lock:
                self._written.append(part)
        finally:
            self._finished.set()


def write_part(directory: str, key: str, buffer: EventBuffer) -> Part:
    """Write events to a new part; it has its name only once all of it is on disk.

    Raises:
        ResourceError: The disk is full.
        SourceError: The directory can't be written.
    """
    name = f"{_PREFIX}{uuid.uuid4().hex[:16]}.h5"
    path, final = os.path.join(directory, f".{name}.tmp"), os.path.join(directory, name)
    contents = contents_of(buffer)
    block_events = buffer.block_events()
    needed = sum(array.nbytes for arrays in contents.values() for array in arrays) + _METADATA_ROOM
    try:
        room = os.statvfs(directory)
        if room.f_bavail * room.f_frsize < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        places = _lay_out(path, key, buffer, contents, block_events)
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            for dataset, arrays in contents.items():
                at = places[dataset].offset
                for array in arrays:
                    _pwrite(descriptor, bytes_of(array), at)
                    at += array.nbytes
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(path, final)
        _sync_directory(directory)
        size = os.path.getsize(final)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise _not_written(directory, error, needed) from error
    removed = sum(map(len, buffer.removed))
    return Part(name, size, buffer.events, removed, block_events, places, dict(buffer.counted_by))


def contents_of(buffer: EventBuffer) -> dict[str, list[NDArray[Any]]]:
    """Return the arrays of each data set, in the order of the file."""
    offsets = buffer.offsets()
    empty = np.empty((0, 2), np.int64)
    return {
        "event": buffer.event or [empty],
        **{path: [array] for path, array in offsets.items()},
        f"{BOOKS}/removed": buffer.removed or [empty],
        f"{BOOKS}/checksums": [buffer.checksums(buffer.block_events(), offsets)],
        **buffer.rows,
    }


def _lay_out(
    path: str, key: str, buffer: EventBuffer, contents: dict[str, list[NDArray[Any]]], block_events: int
) -> dict[str, Stored]:
    """Make the file with data sets that have their places but no contents yet."""
    told = set(contents) - set(buffer.rows)
    places = {}
    with h5py.File(path, "w", libver="v110", locking=False, alignment_threshold=_ALIGN, alignment_interval=_ALIGN) as f:
        for dataset, arrays in contents.items():
            first = arrays[0]
            shape = (sum(map(len, arrays)), *first.shape[1:])
            node = _place(f, dataset, shape, first.dtype)
            sum_ = sum_of(arrays) if dataset in told else ""
            if sum_:
                node.attrs["xxh3"] = sum_
            offset = node.id.get_offset()
            places[dataset] = Stored(-1 if offset is None else offset, first.dtype.str, shape, sum_)
        for form in buffer.forms:
            if form.path in f and (shape := buffer.shape_of(form)):
                f[form.path].attrs["shape"] = shape
        books = f[BOOKS]
        books.attrs["format"] = FORMAT
        books.attrs["key"] = key
        books.attrs["block_events"] = block_events
        books.attrs["columns"] = json.dumps(buffer.counted_by)
        books.attrs["arrays"] = json.dumps([form.to_json() for form in buffer.forms])
    return places


def _place(file: h5py.File, path: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> h5py.Dataset:
    """Make a contiguous data set whose bytes are there from the beginning, and are not cleared."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.CONTIGUOUS)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    space = h5py.h5s.create_simple(shape)
    made = h5py.h5d.create(file.id, path.encode(), h5py.h5t.py_create(dtype, logical=True), space, plist, links)
    return h5py.Dataset(made)


def sum_of(arrays: Iterable[NDArray[Any]]) -> str:
    """Return the xxh3 of arrays that follow one another."""
    digest = xxhash.xxh3_64()
    for array in arrays:
        digest.update(bytes_of(array))
    return digest.hexdigest()


def _pwrite(descriptor: int, view: memoryview, at: int) -> None:
    done = 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done:], at + done)


def _sync_directory(directory: str) -> None:
    with contextlib.suppress(OSError):  # some network file systems do not sync directories
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _not_written(directory: str, error: OSError, needed: int) -> HepfeedError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    why = os.strerror(error.errno) if error.errno else str(error)
    if full:
        return ResourceError(
            f"the cache in {directory!r} can't take {needed / 1e6:.0f} MB more ({why}): make room or name another"
            " directory; what it has is kept",
            file=directory,
        )
    return SourceError(
        f"the cache in {directory!r} can't be written ({why}): name a directory that you may write to", file=directory
    )


def unfinished(name: str) -> bool:
    """Whether a file is what a writer left that was killed, or is writing."""
    return name.startswith(f".{_PREFIX}") and name.endswith(".tmp")


def _among(events: Ints, others: Ints) -> NDArray[np.bool_]:
    """Whether each of ``(n, 2)`` events is among others, ``(n,)``."""
    both = np.concatenate([events, others])
    base = int(both[:, 1].max(initial=0)) + 1
    return np.isin(events[:, 0] * base + events[:, 1], others[:, 0] * base + others[:, 1])


def _first_of_each(events: Ints) -> Ints:
    """Places of ``(n, 2)`` events that did not come before, in their order."""
    return np.sort(np.unique(events, axis=0, return_index=True)[1])


def _difference(first: tuple[ArrayForm, ...], now: tuple[ArrayForm, ...]) -> str:
    for one, other in zip(first, now):
        if one != other:
            what = (
                f"{one.name!r} was {one.kind} {one.shape} {one.dtype}, and is {other.kind} {other.shape} {other.dtype}"
            )
            if one.name != other.name:
                what = f"{one.name!r} was where {other.name!r} is"
            break
    else:
        what = f"there were {len(first)} arrays, and are {len(now)}"
    return f"batches differ in form before the cache point: {what}; put 'cache' before the step that does that"
