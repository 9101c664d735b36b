"""Where the events of a converted file come from: attributes of the file, as text and JSON.

=============== =====================================================================================
attribute       meaning
=============== =====================================================================================
source_format   e.g. ``"npz"``
source          the source's path, or the folder that all of them are in
class           name of the folder, where sources are a folder a class
form            ``"dense"``, ``"sparse"``, ...
options         JSON: the options of the conversion
sources         JSON: path, bytes, xxh64 of each file, and which of its events are here, as [first, end)
events          number of events
skipped         JSON: damaged events that were left out; absent where there are none
left_out        JSON: parts of the sources that can't be converted, and why; absent where there are none
command         command line of the process
creator         ``"hepfeed <version>"``
created         date and time (UTC); that of ``SOURCE_DATE_EPOCH`` where it is set
conversion      digest of sources and options; the same conversion is not done twice
=============== =====================================================================================
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

import h5py
import xxhash

from hepfeed import __version__
from hepfeed.convert.report import Skipped
from hepfeed.errors import SourceError
from hepfeed.fault import Fault

__all__ = ["FileRecord", "checksum", "command_line", "digest", "read_conversion", "sign", "stamp"]

_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class FileRecord:
    """A source file of some events.

    Attributes:
        path: Absolute.
        bytes: Its size.
        xxh64: Checksum of its content (XXH64, seed 0), in hexadecimal.
        first: Number of the first of its events that are here.
        end: One more than that of the last.
    """

    path: str
    bytes: int
    xxh64: str
    first: int
    end: int


def checksum(path: str) -> str:
    """Return the XXH64 of a file's content, as ``xxhsum -H1`` prints it.

    Raises:
        SourceError: The file can't be read.
    """
    state = xxhash.xxh64()
    try:
        with open(path, "rb") as file:
            while piece := file.read(_PIECE_BYTES):
                state.update(piece)
    except OSError as error:
        raise SourceError(
            f"could not read {path}: {error.strerror}; check that it is there and readable", file=path
        ) from error
    return state.hexdigest()


def stamp(path: str) -> tuple[str, int, int]:
    """Return path, bytes and time of the last change, which tell that a file is the same.

    Raises:
        SourceError: The file is gone.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise SourceError(
            f"could not read {path}: {error.strerror}; check that it is there and readable", file=path
        ) from error
    return path, status.st_size, status.st_mtime_ns


def digest(value: Any) -> str:
    """Return a checksum of what JSON can say."""
    return xxhash.xxh3_128_hexdigest(json.dumps(value, sort_keys=True).encode())


def command_line() -> str:
    """Return the command line of this process."""
    return shlex.join(sys.argv) if sys.argv and sys.argv[0] else "python"


def sign(
    file: h5py.File, attributes: dict[str, Any], records: list[FileRecord], events: int, skipped: list[Skipped]
) -> None:
    """Write the attributes of a file."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    when = datetime.fromtimestamp(int(epoch), timezone.utc) if epoch else datetime.now(timezone.utc)
    file.attrs.update(
        {
            **attributes,
            "sources": json.dumps([asdict(record) for record in records]),
            "events": events,
            "creator": f"hepfeed {__version__}",
            "created": when.isoformat(timespec="seconds"),
        }
    )
    if skipped:
        file.attrs["skipped"] = json.dumps([asdict(each) for each in skipped])


def read_conversion(path: str) -> tuple[str, int, list[Skipped]] | None:
    """Return digest, events and skipped events of a file that a conversion finished; None for other files."""
    try:
        with h5py.File(path, "r") as file:
            told = json.loads(file.attrs.get("skipped", "[]"))
            skipped = [Skipped(Fault(**each.pop("fault")), **each) for each in told]
            return str(file.attrs["conversion"]), int(file.attrs["events"]), skipped
    except (OSError, KeyError, TypeError, ValueError):
        return None
