"""Faults: errors that were found and are reported, instead of raised."""

from __future__ import annotations

from dataclasses import dataclass

from hepfeed.errors import HepfeedError

__all__ = ["Fault"]


@dataclass(frozen=True)
class Fault:
    """An error that hepfeed would raise.

    Attributes:
        error: Name of its class, of :mod:`hepfeed.errors`.
        message: One sentence: what, where, and what to do.
        file: File at fault, or None.
        key: Data set at fault, or None.
        event: Row at fault, or None.
    """

    error: str
    message: str
    file: str | None
    key: str | None
    event: int | None

    @classmethod
    def of(cls, error: Exception) -> Fault:
        """Describe an error, by the first line of its message."""
        message = str(error).partition("\n")[0]
        if isinstance(error, HepfeedError):
            return cls(type(error).__name__, message, error.file, error.key, error.event)
        return cls(type(error).__name__, message, None, None, None)
