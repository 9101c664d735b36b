"""What a benchmark leaves behind: settings, machine and rows, as JSON."""

from __future__ import annotations

import datetime
import json
import os
import platform
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
from pydantic import BaseModel, ConfigDict, ValidationError

import hepfeed
from hepfeed.bench.clock import processor
from hepfeed.errors import SpecError

__all__ = ["Machine", "Record"]


class Machine(BaseModel):
    """What was measured on.

    Attributes:
        processor: As the system calls it.
        cores: That the process may use.
        memory_bytes: Of the machine.
        cards: Names of the CUDA devices.
        system: Kernel and architecture.
        python: Version.
        torch: Version.
        hepfeed: Version.
    """

    model_config = ConfigDict(frozen=True)

    processor: str
    cores: int
    memory_bytes: int
    cards: tuple[str, ...]
    system: str
    python: str
    torch: str
    hepfeed: str

    @classmethod
    def here(cls) -> Machine:
        """Describe this machine."""
        cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return cls(
            processor=processor(),
            cores=len(os.sched_getaffinity(0)),
            memory_bytes=psutil.virtual_memory().total,
            cards=tuple(torch.cuda.get_device_name(card) for card in range(cards)),
            system=f"{platform.system()} {platform.release()} {platform.machine()}",
            python=platform.python_version(),
            torch=torch.__version__,
            hepfeed=hepfeed.__version__,
        )


class Record(BaseModel):
    """The results of a benchmark.

    Attributes:
        format: Of the file.
        kind: Which benchmark: the name of its module ``hepfeed.bench.<kind>_view``, or ``"table"``.
        title: One line for people.
        settings: Options of the run, as they took effect.
        rows: What was found; their keys depend on the kind.
        notes: Sentences for people: what did not take part, and why; what was not measured.
        machine: What it was measured on.
        created: When, ISO 8601 with the offset of the time zone.
    """

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    kind: str
    title: str
    settings: dict[str, Any]
    rows: list[dict[str, Any]]
    notes: list[str]
    machine: Machine
    created: str

    @classmethod
    def now(
        cls, kind: str, title: str, settings: dict[str, Any], rows: list[dict[str, Any]], notes: list[str]
    ) -> Record:
        """Return a record of this machine and this moment; arguments as the attributes."""
        created = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        machine = Machine.here()
        return cls(kind=kind, title=title, settings=settings, rows=rows, notes=notes, machine=machine, created=created)

    def save(self, path: Path) -> None:
        """Write JSON.

        Raises:
            SpecError: The file can't be written.
        """
        try:
            path.write_text(self.model_dump_json(indent=1) + "\n")
        except OSError as error:
            raise SpecError(f"the results can't be written: {error.strerror}", file=str(path)) from None

    @classmethod
    def load(cls, path: Path) -> Record:
        """Read JSON.

        Raises:
            SpecError: There is no such file, or it was not written by a benchmark of this version's format.
        """
        try:
            return cls.model_validate(json.loads(path.read_text()))
        except OSError as error:
            raise SpecError(f"the results can't be read: {error.strerror}", file=str(path)) from None
        except (UnicodeDecodeError, json.JSONDecodeError):
            raise SpecError("this is no JSON: give what --json of a benchmark has written", file=str(path)) from None
        except ValidationError as report:
            fault = report.errors()[0]
            where = ".".join(str(part) for part in fault["loc"]) or "the whole"
            message = f"these are no results of hepfeed bench ({where}: {fault['msg']}): measure again with --json"
        raise SpecError(message, file=str(path))
