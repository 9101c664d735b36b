"""The files by which processes tell what their feeds are doing: one for each process, in a directory of the user's.

The directory belongs to the user and nobody else may look into it.  It is ``$HEPFEED_TOP_DIR``; or ``hepfeed`` in
``$XDG_RUNTIME_DIR``; or ``hepfeed-UID`` in the temporary directory.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import socket
import stat
import tempfile
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from hepfeed.errors import SourceError
from hepfeed.stats import FeedStats

__all__ = ["Snapshot", "directories", "read_snapshots", "remove_snapshot", "unused_name", "write_snapshot"]

_VERSION = 1
_SAME_START_S = 5.0  # the system computes the start of a process from its own, which a corrected clock moves
_UNFINISHED_S = 60.0
_logger = logging.getLogger("hepfeed")


@dataclass(frozen=True)
class Snapshot:
    """What the feeds of a process had done at some time.

    Attributes:
        pid: Of the process.
        created: When it started, in seconds since 1970.
        command: Its command line.
        written: When this was written, in seconds since 1970.
        readers: Process numbers of its readers.
        loaders: Figures since the start of each loader, by its name.
        host: Machine.
        version: Of this form.
    """

    pid: int
    created: float
    command: str
    written: float
    readers: list[int]
    loaders: dict[str, FeedStats]
    host: str
    version: int = _VERSION

    @property
    def is_alive(self) -> bool:
        """Whether the process runs still."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < _SAME_START_S
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


def directories() -> list[Path]:
    """Return where files may be, the place to write to first."""
    named = os.environ.get("HEPFEED_TOP_DIR")
    if named:
        return [Path(named)]
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}")
    places = [runtime / "hepfeed"] if os.access(runtime, os.W_OK | os.X_OK) else []
    return [*places, Path(tempfile.gettempdir()) / f"hepfeed-{os.geteuid()}"]


def write_snapshot(snapshot: Snapshot) -> Path:
    """Write the file of a process, which is whole whenever it is there; returns its path.

    Raises:
        SourceError: The directory is not the user's own, or others may look into it.
        OSError: It can't be written.
    """
    directory = directories()[0]
    with contextlib.suppress(FileExistsError):
        os.makedirs(directory, 0o700)
    _need_private(directory)
    path = directory / _name(snapshot.host, snapshot.pid)
    unfinished = path.with_suffix(".tmp")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w") as file:
            file.write(json.dumps(vars(snapshot), separators=(",", ":")))
        # Some file systems (ext4) write to the disk at once what replaces a file, which would take milliseconds.
        remove_snapshot(path)
        os.rename(unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise
    return path


def read_snapshots() -> list[Snapshot]:
    """Return what all processes of this user on this machine tell; files of those that are gone are removed.

    Raises:
        SourceError: A directory is not the user's own, or others may look into it.
    """
    found = []
    for directory in directories():
        if not os.path.lexists(directory):
            continue
        _need_private(directory)
        for path, pid in _files(directory):
            snapshot = _read(path)
            if snapshot is None:
                continue
            if snapshot.pid == pid and snapshot.is_alive:
                found.append(snapshot)
            else:
                remove_snapshot(path)
    return sorted(found, key=lambda snapshot: snapshot.created)


def remove_snapshot(path: Path) -> None:
    """Remove a file, if it is there."""
    with contextlib.suppress(OSError):
        path.unlink()


def unused_name(name: str, used: Collection[str]) -> str:
    """Return a name for a loader that no other one has: ``"train"``, ``"train 2"`` and so on."""
    unused, count = name, 2
    while unused in used:
        unused, count = f"{name} {count}", count + 1
    return unused


def _files(directory: Path) -> Iterator[tuple[Path, int]]:
    """Yield the files of processes of this machine, and remove what processes that were killed left unfinished."""
    form = re.compile(re.escape(_name(socket.gethostname(), 0)).replace(r"0\.json", r"(\d+)\.(json|tmp)"))
    for path in sorted(directory.iterdir()):
        match = form.fullmatch(path.name)
        if match is None:
            continue
        if match[2] == "json":
            yield path, int(match[1])
            continue
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _UNFINISHED_S:
                path.unlink()


def _read(path: Path) -> Snapshot | None:
    """Return what a file says; None where it is gone by now, or is none of this version."""
    try:
        fields: dict[str, Any] = json.loads(path.read_text())
        if fields["version"] != _VERSION:
            return None
        fields["loaders"] = {name: FeedStats(stats) for name, stats in fields["loaders"].items()}
        return Snapshot(**fields)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _logger.debug("%s is no snapshot of a feed: %s", path, error)
        return None


def _name(host: str, pid: int) -> str:
    return f"{host}-{pid}.json"


def _need_private(directory: Path) -> None:
    found = os.lstat(directory)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise SourceError(
            f"{str(directory)!r} must be a directory of user {os.geteuid()} with mode 0700, not of user"
            f" {found.st_uid} with mode {stat.S_IMODE(found.st_mode):04o}: remove it, or name another one in"
            " HEPFEED_TOP_DIR",
            file=str(directory),
        )
