"""One process's share of a conversion: files that it reads and writes one after another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from hepfeed.convert.block import Field
from hepfeed.convert.form import Shaper
from hepfeed.convert.plan import Output, Segment
from hepfeed.convert.provenance import sign
from hepfeed.convert.report import Skipped
from hepfeed.convert.source import Reader, Source
from hepfeed.convert.writer import EventWriter, check_counts, complete_file
from hepfeed.errors import SourceError
from hepfeed.fault import Fault
from hepfeed.worker import note

__all__ = ["Job", "chains", "write_job"]


@dataclass(frozen=True)
class Job:
    """Files that one process writes one after another, so that a source is read once from its beginning."""

    outputs: tuple[Output, ...]
    fields: dict[str, Field]
    shaper: Shaper | None
    level: int
    skip: bool


def chains(outputs: list[Output]) -> list[list[Output]]:
    """Put files that share a source which is read from its beginning into one job."""
    found: list[list[Output]] = []
    for output in outputs:
        last = found[-1][-1].segments[-1].source if found else None
        if last is not None and last.sequential and output.segments[0].source.path == last.path:
            found[-1].append(output)
        else:
            found.append([output])
    return found


def write_job(job: Job) -> list[tuple[Path, int, list[Skipped]]]:
    """Write the files of a job; return path, events and newly skipped events of each."""
    with _Shelf() as shelf:
        return [_write_output(output, job, shelf) for output in job.outputs]


class _Shelf(ExitStack):
    """Keeps the last source open."""

    def __init__(self) -> None:
        super().__init__()
        self._path = ""
        self._reader: Reader | None = None

    def reader(self, source: Source) -> Reader:
        """Return the open source."""
        if self._reader is None or self._path != source.path:
            self.close()
            self._reader = self.enter_context(source.open())
            self._path = source.path
        return self._reader


class _NoEvents(Exception):
    """All events of a file are damaged."""


def _write_output(output: Output, job: Job, shelf: _Shelf) -> tuple[Path, int, list[Skipped]]:
    fields = job.fields if job.shaper is None else job.shaper.fields(job.fields)
    skipped: list[Skipped] = []
    try:
        with complete_file(output.path) as file:
            writer = EventWriter(file, fields, output.events, job.level)
            for segment in output.segments:
                skipped += _write_segment(segment, job, shelf, writer)
            if not writer.events:
                raise _NoEvents
            writer.finish()
            sign(file, output.attributes, list(output.records), writer.events, [*output.skipped, *skipped])
            check_counts(file, fields, writer.events)
    except _NoEvents:
        output.path.unlink(missing_ok=True)
    return output.path, writer.events, skipped


def _write_segment(segment: Segment, job: Job, shelf: _Shelf, writer: EventWriter) -> Iterator[Skipped]:
    """Write events; yield those that are damaged, if they are to be skipped."""
    path, start = segment.source.path, segment.start
    try:
        reader = shelf.reader(segment.source)
        if reader.events < segment.stop:
            raise SourceError(f"expected {segment.stop} events in {path}, found {reader.events}", file=path)
        added = job.shaper.added_bytes(job.fields) if job.shaper else 0
        steps = list(reader.steps(segment.start, segment.stop, added))
    except SourceError as error:
        if not job.skip:
            raise
        yield Skipped(Fault.of(error), start, segment.stop - start)
        return
    for start, stop in steps:
        try:
            block = reader.read(start, stop)
            if job.shaper is not None:
                block = job.shaper.block(block, job.fields)
            writer.append(block, stop - start, path)
        except SourceError as error:
            if not job.skip:
                raise
            yield Skipped(Fault.of(error), start, stop - start)
        note(stop - start)
