"""The index file: what is known of every HDF5 file that was opened once.

Opening thousands of HDF5 files takes minutes, so what is read once is kept in a small SQLite file, keyed by
(path, size, time of change).  The second start reads that file alone and opens no HDF5 file.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import xxhash

from hepfeed import hdf5
from hepfeed.columns import Column, Extents
from hepfeed.errors import HepfeedError, SourceError
from hepfeed.file_events import Layout
from hepfeed.hdf5 import ChunkTable, DatasetInfo, FileInfo
from hepfeed.progress import Progress
from hepfeed.worker import call_everywhere

__all__ = [
    "LOOKERS",
    "IndexStore",
    "Wanted",
    "collector_paused",
    "describe_files",
    "load_tables",
    "load_tables_of",
    "user_cache",
]

_FORMAT = 3
_APPLICATION = 0x48464944  # "HFID" in SQLite's application_id: no other program's tables are ever dropped
_AT_A_TIME = 500  # paths of a query; SQLite before 3.32 takes 999 values
LOOKERS = 32
"""Threads that look at files where each look takes a round trip over a network."""
_SLOW_S = 1e-4
_logger = logging.getLogger("hepfeed")


@dataclass(frozen=True)
class Wanted:
    """What is to be known of a file: the arguments of :func:`hepfeed.file_events.describe_events`."""

    path: str
    keys: tuple[str, ...]
    also: tuple[str, ...] = ()
    layout: Layout = None

    @property
    def request(self) -> str:
        """Stands for all but the path in the index file."""
        text = json.dumps([self.keys, self.also, self.layout], sort_keys=True)
        return xxhash.xxh3_128_hexdigest(text.encode())


def default_store_path() -> Path:
    """``$HEPFEED_INDEX``, else ``hepfeed/index.sqlite`` in the user's cache directory."""
    named = os.environ.get("HEPFEED_INDEX")
    if named:
        return Path(named)
    return user_cache() / "index.sqlite"


def user_cache() -> Path:
    """Return hepfeed's folder in the user's cache directory; it may not be there yet."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "hepfeed"


class IndexStore:
    """The index file.  A store that can't be written (read-only home, full disk) is reported once and does without.

    Args:
        path: SQLite file; None for one in memory; by default :func:`default_store_path`.
    """

    _connection: sqlite3.Connection | None = None
    _owner = 0

    def __init__(self, path: str | os.PathLike[str] | None = "") -> None:
        self.path = None if path is None else Path(path) if path else default_store_path()

    @property
    def _database(self) -> sqlite3.Connection:
        if self._connection is None or self._owner != os.getpid():  # SQLite must not be used across a fork
            self._connection, self._owner = self._open(), os.getpid()
        return self._connection

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def _open(self) -> sqlite3.Connection:
        if self.path is not None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                return self._connect(str(self.path))
            except (sqlite3.Error, OSError) as error:
                _logger.warning("the index can't be kept in %s (%s): files are opened at each start", self.path, error)
        return self._connect(":memory:")

    @staticmethod
    def _connect(path: str) -> sqlite3.Connection:
        database = sqlite3.connect(path, timeout=10, check_same_thread=False)
        try:
            _prepare(database)
        except BaseException:
            database.close()
            raise
        return database

    def close(self) -> None:
        """Close the file; it is opened again when needed."""
        if self._connection is not None and self._owner == os.getpid():
            self._connection.close()
        self._connection = None

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, TypeError):  # the interpreter ends, and modules are gone
            self.close()

    def __enter__(self) -> IndexStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection | None]:
        """Give the database for writing; a failure to write is reported, never raised: the index is a convenience."""
        try:
            with self._database:
                yield self._database
        except sqlite3.Error as error:
            _logger.warning("the index in %s could not be written: %s", self.path, error)

    def files(self, wanted: Sequence[Wanted]) -> dict[str, FileInfo]:
        """Return what is kept of those files that have not changed since.  Chunk tables are left for later."""
        found: dict[str, FileInfo] = {}
        request = _requests(wanted)
        forms, now = _Forms(), _sizes_and_times(list(request))
        with collector_paused():
            for start in range(0, len(wanted), _AT_A_TIME):
                some = [each.path for each in wanted[start : start + _AT_A_TIME]]
                marks = ",".join("?" * len(some))
                rows = self._database.execute(f"SELECT * FROM files WHERE path IN ({marks})", some)
                for path, asked, size, mtime_ns, form, numbers in rows:
                    if asked == request[path] and now[path] == (size, mtime_ns):
                        content = json.loads(numbers)
                        extents = self._extents(content["extents"])
                        found[path] = FileInfo(path, size, mtime_ns, **forms.unpacked(form, content), extents=extents)
        return found

    def _extents(self, digests: dict[str, str]) -> dict[str, Extents]:
        found = {}
        for name, digest in digests.items():
            (content,) = self._database.execute("SELECT content FROM extents WHERE digest = ?", (digest,)).fetchone()
            found[name] = Extents.frombytes(content)
        return found

    def put_files(self, files: Iterable[tuple[Wanted, FileInfo]]) -> None:
        """Keep files with their chunk tables."""
        with self._writing() as database:
            if database is None:
                return
            for wanted, file in files:
                contents = {name: extents.tobytes() for name, extents in file.extents.items()}
                digests = {name: xxhash.xxh3_128_hexdigest(content) for name, content in contents.items()}
                database.executemany(
                    "INSERT OR REPLACE INTO extents VALUES (?, ?)",
                    [(digests[name], content) for name, content in contents.items()],
                )
                database.execute(
                    "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)",
                    (file.path, wanted.request, file.size, file.mtime_ns, *_packed(file, digests)),
                )
                database.executemany(
                    "INSERT OR REPLACE INTO chunks VALUES (?, ?, ?, ?)",
                    [(file.path, key, file.mtime_ns, table.tobytes()) for key, table in file.tables.items()],
                )

    def tables(self, file: FileInfo) -> dict[str, ChunkTable]:
        """Return the chunk tables of a file; empty where they are not kept."""
        return self.tables_of([file])[file.path]

    def tables_of(self, files: Sequence[FileInfo]) -> dict[str, dict[str, ChunkTable]]:
        """Return the chunk tables of files by path; empty where they are not kept."""
        found: dict[str, dict[str, ChunkTable]] = {file.path: {} for file in files}
        mtime_ns = {file.path: file.mtime_ns for file in files}
        for start in range(0, len(files), _AT_A_TIME):
            some = [file.path for file in files[start : start + _AT_A_TIME]]
            query = f"SELECT path, key, mtime_ns, content FROM chunks WHERE path IN ({','.join('?' * len(some))})"
            for path, key, changed, content in self._database.execute(query, some):
                if changed == mtime_ns[path]:
                    found[path][key] = ChunkTable.frombytes(content)
        return found

    def contents(self, files: Sequence[FileInfo], workers: int = 1) -> dict[str, str]:
        """Return the hash of each file's contents by path; it is kept, so that each is read once.

        Args:
            files: The files.
            workers: Processes that read.

        Raises:
            SourceError: A file can't be read.
        """
        found: dict[str, str] = {}
        for file in files:
            row = self._database.execute(
                "SELECT digest FROM contents WHERE path = ? AND size = ? AND mtime_ns = ?",
                (file.path, file.size, file.mtime_ns),
            ).fetchone()
            if row is not None:
                found[file.path] = str(row[0])
        missing = [file for file in files if file.path not in found]
        calls = [(file.path,) for file in missing]
        with contextlib.closing(call_everywhere("hepfeed.store:content_hash", calls, workers)) as replies:
            for number, succeeded, value in replies:
                if not succeeded:
                    raise value
                found[missing[number].path] = value
        with self._writing() as database:
            if database is not None:
                database.executemany(
                    "INSERT OR REPLACE INTO contents VALUES (?, ?, ?, ?)",
                    [(file.path, file.size, file.mtime_ns, found[file.path]) for file in missing],
                )
        return found

    def selection(self, file: FileInfo, fingerprint: str) -> bytes | None:
        """Return the kept result of a filter on a file."""
        row = self._database.execute(
            "SELECT content FROM selections WHERE path = ? AND filter = ? AND size = ? AND mtime_ns = ?",
            (file.path, fingerprint, file.size, file.mtime_ns),
        ).fetchone()
        return None if row is None else bytes(row[0])

    def put_selections(self, fingerprint: str, selections: Iterable[tuple[FileInfo, bytes]]) -> None:
        """Keep the results of a filter."""
        with self._writing() as database:
            if database is not None:
                database.executemany(
                    "INSERT OR REPLACE INTO selections VALUES (?, ?, ?, ?, ?)",
                    [(f.path, fingerprint, f.size, f.mtime_ns, content) for f, content in selections],
                )


def content_hash(path: str) -> str:
    """Return the xxh3 of a file's bytes, 32 hexadecimal digits.

    Raises:
        SourceError: The file can't be read.
    """
    digest = xxhash.xxh3_128()
    try:
        with open(path, "rb", buffering=0) as stream:
            while some := stream.read(8 << 20):
                digest.update(some)
    except OSError as error:
        raise SourceError(f"can't read {path!r}: {error.strerror}", file=path) from error
    return digest.hexdigest()


def _prepare(database: sqlite3.Connection) -> None:
    """Make the tables, and drop those of another format."""
    with database:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        (application,) = database.execute("PRAGMA application_id").fetchone()
        (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and application != _APPLICATION:
            raise sqlite3.DatabaseError("it is the database of another program: name another file for the index")
        if version != _FORMAT:
            database.execute(f"PRAGMA application_id = {_APPLICATION}")
            for table in ("files", "chunks", "extents", "selections"):
                database.execute(f"DROP TABLE IF EXISTS {table}")
            database.execute(f"PRAGMA user_version = {_FORMAT}")
        database.execute(
            "CREATE TABLE IF NOT EXISTS files (path TEXT, request TEXT, size INT, mtime_ns INT, form TEXT,"
            " numbers TEXT,"
            " PRIMARY KEY (path, request))"
        )
        database.execute("CREATE TABLE IF NOT EXISTS extents (digest TEXT PRIMARY KEY, content BLOB)")
        database.execute(
            "CREATE TABLE IF NOT EXISTS chunks (path TEXT, key TEXT, mtime_ns INT, content BLOB,"
            " PRIMARY KEY (path, key))"
        )
        database.execute(
            "CREATE TABLE IF NOT EXISTS contents (path TEXT PRIMARY KEY, size INT, mtime_ns INT, digest TEXT)"
        )
        database.execute(
            "CREATE TABLE IF NOT EXISTS selections (path TEXT, filter TEXT, size INT, mtime_ns INT, content BLOB,"
            " PRIMARY KEY (path, filter))"
        )


def _requests(wanted: Sequence[Wanted]) -> dict[str, str]:
    """Return the request of each path; neighbours mostly have the same, which is then made once."""
    requests: dict[str, str] = {}
    before: Wanted | None = None
    for each in wanted:
        if before is None or (each.keys, each.also, each.layout) != (before.keys, before.also, before.layout):
            before, request = each, each.request
        requests[each.path] = request
    return requests


def _sizes_and_times(paths: Sequence[str]) -> dict[str, tuple[int, int] | None]:
    """Return size and time of change of files, or None; many at a time where the first ones took long."""
    begun = time.perf_counter()
    found = {path: _size_and_time(path) for path in paths[:LOOKERS]}
    slow = time.perf_counter() - begun > _SLOW_S * len(found)
    rest = paths[LOOKERS:]
    if slow and rest:
        with ThreadPoolExecutor(LOOKERS, "hepfeed-look") as pool:
            found.update(zip(rest, pool.map(_size_and_time, rest)))
    else:
        found.update((path, _size_and_time(path)) for path in rest)
    return found


def _size_and_time(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _packed(file: FileInfo, extents: dict[str, str]) -> tuple[str, str]:
    """Return what files of the same kind have in common, and the numbers of this one; both as JSON."""
    form = {
        "datasets": [
            [
                info.key,
                info.event_shape,
                info.dtype,
                info.storage,
                info.reason,
                info.chunk,
                info.filters,
                info.fill.hex(),
            ]
            for info in file.datasets.values()
        ],
        "absent": sorted(file.absent),
        "columns": {key: asdict(column) for key, column in file.columns.items()},
        "layout": file.layout,
    }
    numbers = {
        "events": file.events,
        "datasets": [(one.events, one.offset, one.stored_bytes) for one in file.datasets.values()],
        "extents": extents,
    }
    return json.dumps(form), json.dumps(numbers)


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Make many objects that stay, without Python's collector looking at all of them again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Forms:
    """What files of the same kind have in common, made once: thousands of files share it in memory, too."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, list[Any], dict[str, Any]]] = {}

    def unpacked(self, form: str, numbers: dict[str, Any]) -> dict[str, Any]:
        """Return arguments of :class:`FileInfo` from what :func:`_packed` made."""
        if form not in self._known:
            self._known[form] = form, *_form(form)
        form, kinds, common = self._known[form]
        datasets = {
            key: DatasetInfo(key, (events, *shape), dtype, storage, reason, offset, chunk, filters, fill, stored)
            for (key, shape, dtype, storage, reason, chunk, filters, fill), (events, offset, stored) in zip(
                kinds, numbers["datasets"]
            )
        }
        return {"datasets": datasets, "events": numbers["events"], "form": form, **common}


def _form(text: str) -> tuple[list[Any], dict[str, Any]]:
    content = json.loads(text)
    kinds = [
        (key, tuple(shape), dtype, storage, reason, tuple(chunk), tuple(filters), bytes.fromhex(fill))
        for key, shape, dtype, storage, reason, chunk, filters, fill in content["datasets"]
    ]
    columns = {key: Column(**_tuples(column)) for key, column in content["columns"].items()}
    return kinds, {"absent": frozenset(content["absent"]), "columns": columns, "layout": content["layout"]}


def _tuples(item: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in item.items()}


def describe_files(
    wanted: Sequence[Wanted],
    *,
    store: IndexStore,
    workers: int = 1,
    on_error: str = "raise",
    progress: Progress | None = None,
) -> tuple[dict[str, FileInfo], list[HepfeedError]]:
    """Describe files, from the store where it knows them and else by opening them, in parallel.

    Args:
        wanted: What to find out of each file; keys that a file lacks are left out.
        store: Where descriptions are kept.
        workers: Processes that open files.
        on_error: ``"raise"`` the first error, or ``"skip"`` such files and return their errors.
        progress: Called as files are done.

    Returns:
        The files by path (without chunk tables where they came from the store), and the errors of skipped files.
    """
    known = store.files(wanted)
    missing = [each for each in wanted if each.path not in known]
    errors: list[HepfeedError] = []
    fresh: list[tuple[Wanted, FileInfo]] = []
    few = len(missing) < 32  # starting processes takes longer than opening some files
    calls = [(each.path, each.keys, each.also, each.layout) for each in missing]
    describe = "hepfeed.file_events:describe_events"
    with contextlib.closing(call_everywhere(describe, calls, 1 if few else workers)) as replies:
        for done, (number, succeeded, value) in enumerate(replies, 1):
            if succeeded:
                fresh.append((missing[number], value))
            elif on_error == "skip" and isinstance(value, HepfeedError):
                errors.append(value)
            else:
                raise value
            if progress:
                progress("opening files", done, len(missing))
    store.put_files(fresh)
    known.update((each.path, replace(file, tables={})) for each, file in fresh)
    return known, errors


def load_tables(file: FileInfo, store: IndexStore) -> dict[str, ChunkTable]:
    """Return the chunk tables of a file: those it carries, those kept, or read anew from the file."""
    return load_tables_of([file], store)[file.path]


def load_tables_of(files: Sequence[FileInfo], store: IndexStore) -> dict[str, dict[str, ChunkTable]]:
    """Return the chunk tables of files by path, as :func:`load_tables`; the index file is asked once for all."""
    kept = store.tables_of([file for file in files if not file.tables])
    return {file.path: file.tables or _complete(file, kept[file.path]) for file in files}


def _complete(file: FileInfo, kept: dict[str, ChunkTable]) -> dict[str, ChunkTable]:
    """Return the chunk tables that are kept of a file if those are all, or else read them."""
    if all(key in kept for key, info in file.datasets.items() if info.storage == "chunked"):
        return kept
    with hdf5.open_file(file.path) as opened:
        return hdf5.describe_columns(opened, file.path, {name: Column(name) for name in file.datasets})[1]
