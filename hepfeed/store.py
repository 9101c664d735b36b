"""The index file: what is known of every HDF5 file that was opened once.

Opening thousands of HDF5 files takes minutes, so what is read once is kept in a small SQLite file, keyed by
(path, size, time of change).  The second start reads that file alone and opens no HDF5 file.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hepfeed import hdf5
from hepfeed.errors import HepfeedError
from hepfeed.hdf5 import ChunkTable, DatasetInfo, FileInfo
from hepfeed.progress import Progress
from hepfeed.worker import call_everywhere

__all__ = ["IndexStore", "describe_files", "load_tables"]

_FORMAT = 1
_APPLICATION = 0x48464944  # "HFID" in SQLite's application_id: no other program's tables are ever dropped
_logger = logging.getLogger("hepfeed")


def default_store_path() -> Path:
    """``$HEPFEED_INDEX``, else ``hepfeed/index.sqlite`` in the user's cache directory."""
    named = os.environ.get("HEPFEED_INDEX")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "hepfeed" / "index.sqlite"


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

    def files(self, paths: Sequence[str]) -> dict[str, FileInfo]:
        """Return what is kept of those files that have not changed since.  Chunk tables are left for later."""
        found: dict[str, FileInfo] = {}
        for start in range(0, len(paths), 500):
            some = paths[start : start + 500]
            marks = ",".join("?" * len(some))
            rows = self._database.execute(f"SELECT * FROM files WHERE path IN ({marks})", some)
            for path, size, mtime_ns, text in rows:
                with contextlib.suppress(OSError):
                    status = os.stat(path)
                    if (status.st_size, status.st_mtime_ns) == (size, mtime_ns):
                        found[path] = FileInfo(path, size, mtime_ns, *_unpacked(text))
        return found

    def put_files(self, files: Iterable[FileInfo]) -> None:
        """Keep files with their chunk tables."""
        with self._writing() as database:
            if database is None:
                return
            for file in files:
                known = self.files([file.path]).get(file.path)
                if known is not None:
                    merged = {**known.datasets, **file.datasets}
                    file = replace(file, datasets=merged, absent=known.absent | file.absent)
                database.execute(
                    "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)",
                    (file.path, file.size, file.mtime_ns, _packed(file)),
                )
                database.executemany(
                    "INSERT OR REPLACE INTO chunks VALUES (?, ?, ?, ?)",
                    [(file.path, key, file.mtime_ns, table.tobytes()) for key, table in file.tables.items()],
                )

    def tables(self, file: FileInfo) -> dict[str, ChunkTable]:
        """Return the chunk tables of a file; empty where they are not kept."""
        rows = self._database.execute(
            "SELECT key, content FROM chunks WHERE path = ? AND mtime_ns = ?", (file.path, file.mtime_ns)
        )
        return {key: ChunkTable.frombytes(content) for key, content in rows}

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
            for table in ("files", "chunks", "selections"):
                database.execute(f"DROP TABLE IF EXISTS {table}")
            database.execute(f"PRAGMA user_version = {_FORMAT}")
        database.execute(
            "CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, size INT, mtime_ns INT, datasets TEXT)"
        )
        database.execute(
            "CREATE TABLE IF NOT EXISTS chunks (path TEXT, key TEXT, mtime_ns INT, content BLOB,"
            " PRIMARY KEY (path, key))"
        )
        database.execute(
            "CREATE TABLE IF NOT EXISTS selections (path TEXT, filter TEXT, size INT, mtime_ns INT, content BLOB,"
            " PRIMARY KEY (path, filter))"
        )


def _packed(file: FileInfo) -> str:
    datasets = [{**asdict(info), "fill": info.fill.hex()} for info in file.datasets.values()]
    return json.dumps({"datasets": datasets, "absent": sorted(file.absent)})


def _unpacked(text: str) -> tuple[dict[str, DatasetInfo], frozenset[str]]:
    content = json.loads(text)
    found = {}
    for item in content["datasets"]:
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in item.items()}
        found[item["key"]] = DatasetInfo(**{**fields, "fill": bytes.fromhex(item["fill"])})
    return found, frozenset(content["absent"])


def describe_files(
    wanted: Sequence[tuple[str, Sequence[str]]],
    *,
    store: IndexStore,
    workers: int = 1,
    on_error: str = "raise",
    progress: Progress | None = None,
) -> tuple[dict[str, FileInfo], list[HepfeedError]]:
    """Describe files, from the store where it knows them and else by opening them, in parallel.

    Args:
        wanted: ``(path, candidate keys)`` for each file; keys that a file lacks are left out.
        store: Where descriptions are kept.
        workers: Processes that open files.
        on_error: ``"raise"`` the first error, or ``"skip"`` such files and return their errors.
        progress: Called as files are done.

    Returns:
        The files by path (without chunk tables where they came from the store), and the errors of skipped files.
    """
    known = store.files([path for path, _ in wanted])
    missing = [(path, tuple(keys)) for path, keys in wanted if not _covers(known.get(path), keys)]
    errors: list[HepfeedError] = []
    fresh: list[FileInfo] = []
    few = len(missing) < 32  # starting processes takes longer than opening some files
    calls = [(path, keys, True) for path, keys in missing]
    with contextlib.closing(call_everywhere("hepfeed.hdf5:describe", calls, 1 if few else workers)) as replies:
        for done, (_, succeeded, value) in enumerate(replies, 1):
            if succeeded:
                fresh.append(value)
            elif on_error == "skip" and isinstance(value, HepfeedError):
                errors.append(value)
            else:
                raise value
            if progress:
                progress("opening files", done, len(missing))
    store.put_files(fresh)
    fresh_paths = [file.path for file in fresh]
    known.update(store.files(fresh_paths))  # merged with what was known, and without the tables
    known.update((file.path, file) for file in fresh if file.path not in known)
    return known, errors


def _covers(file: FileInfo | None, keys: Sequence[str]) -> bool:
    """Whether a description says of every key that it is there or that it is not."""
    return file is not None and all(key in file.datasets or key in file.absent for key in keys)


def load_tables(file: FileInfo, store: IndexStore) -> dict[str, ChunkTable]:
    """Return the chunk tables of a file: those it carries, those kept, or read anew from the file."""
    if file.tables:
        return file.tables
    kept = store.tables(file)
    if all(key in kept for key, info in file.datasets.items() if info.storage == "chunked"):
        return kept
    return hdf5.describe(file.path, list(file.datasets), optional=True).tables
