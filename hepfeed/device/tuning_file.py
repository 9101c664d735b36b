"""The file in which the autotuner's choices are kept."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from hepfeed.cache.lock import try_lock
from hepfeed.store import user_cache

__all__ = ["Choice", "TuningFile"]

_logger = logging.getLogger("hepfeed")
_FORMAT = 1
_MOST = 4096
"""Choices in a file; where there are more, the oldest are dropped."""
_BYTES = 8 << 20
"""More than any file of ours has."""
_PATIENCE_S = 1.0
"""For a process that writes; after it one writes too, and the other's newest choice may be lost."""

Case = TypeVar("Case")


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        variant: The fastest.
        microseconds: Of each variant.
    """

    variant: str
    microseconds: dict[str, float]


@dataclass(frozen=True)
class TuningFile:
    """JSON: ``{"format": 1, "choices": [{"case": {...}, "variant": ..., "microseconds": {...}}, ...]}``, oldest first.

    It is replaced as a whole, so that a reader sees all of it, and read again before that, so that processes keep each
    other's choices.  A file that is broken or another program's is logged, and rewritten with the next choice.

    Attributes:
        path: Of the file.
    """

    path: Path

    @classmethod
    def default(cls) -> TuningFile:
        """``tuning.json`` in ``$HEPFEED_CACHE``, else in ``hepfeed`` in the user's cache directory."""
        named = os.environ.get("HEPFEED_CACHE")
        return cls((Path(named) if named else user_cache()) / "tuning.json")

    def read(self, case: type[Case]) -> dict[Case, Choice]:
        """Return the choices, oldest first.

        Args:
            case: Made of the numbers and texts of a case.
        """
        return {case(**record["case"]): _choice(record) for record in self._records(case)}

    def add(self, case: Any, choice: Choice) -> None:
        """Add a choice, or replace it; never raises an ``OSError``.

        Args:
            case: A dataclass of numbers and texts.
            choice: For it.
        """
        record = {"case": asdict(case), **asdict(choice)}
        unfinished = self.path.with_name(f"{self.path.name}.{os.getpid()}.{time.monotonic_ns()}.part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._alone():
                others = [each for each in self._records(type(case)) if each["case"] != record["case"]]
                text = json.dumps({"format": _FORMAT, "choices": [*others, record][-_MOST:]}, indent=1)
                try:
                    unfinished.write_text(text, encoding="utf-8")
                    os.replace(unfinished, self.path)
                except OSError:
                    unfinished.unlink(missing_ok=True)
                    raise
        except OSError as error:
            _logger.debug("the choices of the autotuner are not kept in %s: %s", self.path, error)

    def remove(self) -> None:
        """Remove the file, if there is one; never raises an ``OSError``."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            _logger.debug("the choices of the autotuner are kept in %s: %s", self.path, error)

    def _records(self, case: type[Any]) -> list[dict[str, Any]]:
        try:
            if self.path.stat().st_size > _BYTES:
                raise ValueError("it is too large")
            document = json.loads(self.path.read_text(encoding="utf-8"))
            if document["format"] != _FORMAT:
                raise ValueError(f"its format is {document['format']!r}, not {_FORMAT}")
            records: list[dict[str, Any]] = document["choices"]
            for record in records:
                hash(case(**record["case"]))
                _choice(record)
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            _logger.warning("%s holds no choices of the autotuner, and is not used: %r", self.path, error)
            return []
        return records

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from writing meanwhile, if they can be kept from it."""
        descriptor = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            until = time.monotonic() + _PATIENCE_S
            while not try_lock(descriptor) and time.monotonic() < until:
                time.sleep(0.01)
            yield
        finally:
            os.close(descriptor)


def _choice(record: dict[str, Any]) -> Choice:
    variant, spent = record["variant"], record["microseconds"]
    if not isinstance(variant, str):
        raise TypeError(f"a variant is {variant!r}")
    return Choice(variant, {str(name): float(value) for name, value in spent.items()})
