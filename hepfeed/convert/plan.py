"""The plan of a conversion: which events go into which file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hepfeed.convert.block import Field
from hepfeed.convert.provenance import FileRecord, digest, stamp
from hepfeed.convert.report import Skipped
from hepfeed.convert.source import Source
from hepfeed.errors import ResourceError, SourceError

__all__ = ["Class", "Inspection", "Output", "Segment", "plan_outputs", "prepare_folders"]


@dataclass(frozen=True)
class Class:
    """Sources whose events go end to end into files of their own.

    Attributes:
        folder: Relative to the output folder; ``""`` for that folder itself.
        sources: In the order of their events.
    """

    folder: str
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Inspection:
    """What a source has."""

    events: int
    fields: dict[str, Field]
    left_out: dict[str, str]


@dataclass(frozen=True)
class Segment:
    """Events ``[start, stop)`` of a source."""

    source: Source
    start: int
    stop: int


@dataclass(frozen=True)
class Output:
    """A file to write.

    Attributes:
        path: Where.
        segments: Its events.
        attributes: Those of :mod:`hepfeed.convert.provenance` that are known before it is written.
        records: Its source files.
        skipped: Events of it that are known to be damaged; they are in no segment.
    """

    path: Path
    segments: tuple[Segment, ...]
    attributes: dict[str, Any]
    records: tuple[FileRecord, ...] = ()
    skipped: tuple[Skipped, ...] = ()

    @property
    def events(self) -> int:
        """Planned number of events."""
        return sum(segment.stop - segment.start for segment in self.segments)


def plan_outputs(
    classes: Sequence[Class],
    inspections: dict[str, Inspection],
    out: Path,
    events_per_file: int,
    attributes: dict[str, Any],
) -> list[Output]:
    """Deal the events of each class out to files of at most ``events_per_file``.

    Args:
        classes: Sources.
        inspections: Of each source, by path; sources without one are left out.
        out: The output folder.
        events_per_file: Most events in one file.
        attributes: Of every file.
    """
    outputs = []
    for each in classes:
        sources = [source for source in each.sources if source.path in inspections]
        stem = Path(each.folder).name or "events"
        own = {"source": _common_path([source.path for source in sources]), **attributes}
        if each.folder:
            own["class"] = stem
        counts = [inspections[source.path].events for source in sources]
        for number, segments in enumerate(_deal(sources, counts, events_per_file)):
            told = {**own, "conversion": _conversion(attributes, segments)}
            outputs.append(Output(out / each.folder / f"{stem}_{number}.h5", segments, told))
    return outputs


def _deal(sources: Sequence[Source], counts: Sequence[int], events_per_file: int) -> Iterator[tuple[Segment, ...]]:
    """Cut the events of sources, end to end, into runs of one length; the last may be shorter."""
    segments: list[Segment] = []
    room = events_per_file
    for source, stop in zip(sources, counts):
        start = 0
        while start < stop:
            count = min(room, stop - start)
            segments.append(Segment(source, start, start + count))
            start, room = start + count, room - count
            if not room:
                yield tuple(segments)
                segments, room = [], events_per_file
    if segments:
        yield tuple(segments)


def _conversion(attributes: dict[str, Any], segments: Sequence[Segment]) -> str:
    """Return a digest of what decides the content of a file."""
    stamps = [
        [list(map(stamp, segment.source.files(segment.start, segment.stop))), segment.start, segment.stop]
        for segment in segments
    ]
    return digest([attributes["source_format"], attributes["options"], stamps])


def _common_path(paths: list[str]) -> str:
    if len(paths) == 1:
        return os.path.realpath(paths[0])
    return os.path.realpath(os.path.commonpath(paths)) if paths else ""


def prepare_folders(outputs: list[Output]) -> None:
    """Make the output folders, and refuse HDF5 files there that would mix with those of ``outputs``."""
    planned = {output.path for output in outputs}
    for folder in sorted({output.path.parent for output in outputs}):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResourceError(
                f"could not make the folder {folder}: {error.strerror}; choose another one to write into",
                file=str(folder),
            ) from error
        for path in sorted(folder.glob("*.h5")):
            if path not in planned and not path.name.startswith("."):
                raise SourceError(
                    f"expected only files of this conversion in {folder}, found {path.name}, whose events "
                    "would be fed too; remove it, or write into another folder",
                    file=str(path),
                )
