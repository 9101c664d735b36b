"""Every error that hepfeed raises, in one tree.

::

    HepfeedError
    ├── SpecError(ValueError)             a sample specification is wrong
    │   ├── KeyMissingError(KeyError)     a file has no data set of that name
    │   └── FilterError                   a filter expression or its data is wrong
    ├── SourceError(OSError)              a file can't be read
    │   ├── FileFormatError               the file is not HDF5, truncated, or empty
    │   ├── CodecMissingError             an HDF5 filter plug-in is not installed
    │   └── CorruptDataError              stored bytes fail their check
    ├── ProcessError(RuntimeError)        a user function raised in a reader or in the consumer
    ├── ReaderError(RuntimeError)         a helper process died, a reader again and again
    ├── FeedTimeoutError(TimeoutError)    nothing arrived within the time-out
    └── ResourceError(OSError)            shared memory or descriptors are exhausted

A leaf also inherits the builtin that a caller would catch.  Messages are one sentence: what was expected, what
came, where (file, key, event) and what to do.  Errors travel between processes, so they pickle with their fields.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

__all__ = [
    "CodecMissingError",
    "CorruptDataError",
    "FeedTimeoutError",
    "FileFormatError",
    "FilterError",
    "HepfeedError",
    "KeyMissingError",
    "ProcessError",
    "ReaderError",
    "ResourceError",
    "SourceError",
    "SpecError",
    "nearest",
]


class HepfeedError(Exception):
    """Base class.

    Attributes:
        file: Path of the file at fault, or None.
        key: Data set at fault, or None.
        event: Row in ``file`` at fault, or None.
        file_number: Number of the file in ``batch["event"]``, where what raised knows no path; or None.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        key: str | None = None,
        event: int | None = None,
        file_number: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.file = file
        self.key = key
        self.event = event
        self.file_number = file_number

    def __str__(self) -> str:
        where = [
            f"{name} {value!r}"
            for name, value in (("file", self.file), ("key", self.key))
            if value is not None and value not in self.message
        ]
        if self.event is not None and not re.search(rf"\bevent {self.event}\b", self.message):
            where.append(f"event {self.event}")
        return f"{self.message} [{', '.join(where)}]" if where else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.__dict__)


def _rebuild(cls: type[HepfeedError], message: str, fields: dict[str, Any]) -> HepfeedError:
    error = cls(message)
    error.__dict__.update(fields)
    return error


class SpecError(HepfeedError, ValueError):
    """A sample specification is wrong, or does not fit its files."""


class KeyMissingError(SpecError, KeyError):
    """A file has no data set of that name; the message lists the nearest names that it has."""


class FilterError(SpecError):
    """A filter expression can't be parsed, or its data has NaN or the wrong shape."""


class SourceError(HepfeedError, OSError):
    """A file can't be read: gone, not permitted, or broken."""


class FileFormatError(SourceError):
    """A file is not HDF5, is truncated, or is empty."""


class CodecMissingError(SourceError):
    """Data are compressed with an HDF5 filter that is not installed here."""


class CorruptDataError(SourceError):
    """Stored bytes fail to inflate, or fail their checksum."""


class ProcessError(HepfeedError, RuntimeError):
    """A user function raised; ``__cause__`` or the message holds its traceback."""


class ReaderError(HepfeedError, RuntimeError):
    """A helper process died; a reader on the same events several times."""


class FeedTimeoutError(HepfeedError, TimeoutError, RuntimeError):
    """No batch arrived within the time-out; torch's loader raises a RuntimeError then."""


class ResourceError(HepfeedError, OSError):
    """Shared memory, disk or file descriptors are exhausted."""


def nearest(name: str, names: Iterable[str], count: int = 4) -> str:
    """Phrase the ``count`` nearest of ``names`` for an error message, e.g. ``"did you mean 'ECAL'?"``."""
    pool = sorted(set(names))
    close = difflib.get_close_matches(name, pool, n=count, cutoff=0.5)
    tail = name.rsplit("/", 1)[-1].lower()
    close += [other for other in pool if other.rsplit("/", 1)[-1].lower() == tail and other not in close]
    if close:
        return "did you mean " + " or ".join(repr(other) for other in close[:count]) + "?"
    if pool:
        shown = ", ".join(repr(other) for other in pool[:12]) + (", ..." if len(pool) > 12 else "")
        return f"there are {shown}"
    return "there are none"
