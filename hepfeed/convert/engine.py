"""The conversion itself: look at all sources, plan the files, write them in parallel, count what arrived."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hepfeed.convert.block import Field
from hepfeed.convert.form import Shaper
from hepfeed.convert.job import Job, chains, write_job
from hepfeed.convert.plan import Class, Inspection, Output, plan_outputs, prepare_folders
from hepfeed.convert.provenance import FileRecord, checksum, command_line, read_conversion, stamp
from hepfeed.convert.report import Converted, Skipped
from hepfeed.convert.settings import Settings
from hepfeed.convert.source import Source
from hepfeed.errors import ResourceError, SourceError, SpecError
from hepfeed.fault import Fault
from hepfeed.worker import call_everywhere

__all__ = ["convert", "inspect_source", "verify_source"]

# Below that a helper process takes longer to start than to open files, or to read them.
_MANY_SOURCES = 32
_MANY_BYTES = 256 << 20


@dataclass
class _Tally:
    """What was found so far.

    Attributes:
        written: Events in files.
        lost: Planned events that are in none.
        skipped: What is damaged, planned or not.
        left_out: Parts of the sources that can't be converted.
    """

    written: int = 0
    lost: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def lose(self, skipped: Sequence[Skipped]) -> None:
        """Count planned events that are damaged."""
        self.skipped += skipped
        self.lost += sum(each.events or 0 for each in skipped)


def convert(
    classes: Sequence[Class],
    out: str | os.PathLike[str],
    settings: Settings,
    *,
    source_format: str,
    form: str,
    options: dict[str, Any],
    shaper: Shaper | None = None,
    found: Sequence[Skipped] = (),
) -> Converted:
    """Write the events of all classes to ``out/<folder>/<last part of folder>_<k>.h5``.

    Args:
        classes: Sources; those of the folder ``""`` become ``out/events_<k>.h5``.
        out: Folder to write into, made if it is missing.
        settings: Options that all formats share.
        source_format: For the attributes.
        form: For the attributes.
        options: Of the format; for the attributes.
        shaper: Brings images into one form; None where the sources do that.
        found: Damage that was found already.

    Raises:
        SpecError: Sources differ in their keys.
        SourceError: A source can't be read, there are no events, or ``out`` has other HDF5 files.
        ResourceError: An output file can't be written.
        ReaderError: A worker died.
    """
    tally = _Tally(skipped=list(found))
    inspections = _inspect([source for each in classes for source in each.sources], settings, tally)
    fields = _common_fields(inspections)
    if shaper is not None:
        shaper.fields(fields)
    told = {"form": form, **options, "events_per_file": settings.events_per_file, "level": settings.level}
    attributes = {
        "source_format": source_format,
        "form": form,
        "options": json.dumps(told),
        "command": command_line(),
    }
    if tally.left_out:
        attributes["left_out"] = json.dumps(tally.left_out)
    outputs = plan_outputs(classes, inspections, Path(out), settings.events_per_file, attributes)
    if not outputs:
        raise SourceError(
            f"expected events of {source_format}, found none"
            + (f"; the first fault: {tally.skipped[0].fault.message}" if tally.skipped else ": name other sources")
        )
    prepare_folders(outputs)
    total = sum(output.events for output in outputs)
    pending, kept = _pending(outputs, settings, tally)
    made = _write(_verify(pending, settings, tally), fields, shaper, settings, tally)
    if tally.written + tally.lost != total:
        raise ResourceError(
            f"expected {total} events, wrote {tally.written} and skipped {tally.lost}; "
            "check the disk, and convert again"
        )
    files = tuple(str(output.path) for output in outputs if output.path in kept | made)
    return Converted(files, tally.written, len(kept), tuple(tally.skipped), tally.left_out)


def inspect_source(source: Source) -> Inspection:
    """Look at what a source has."""
    with source.open() as reader:
        return Inspection(reader.events, reader.fields, reader.left_out)


def _inspect(sources: list[Source], settings: Settings, tally: _Tally) -> dict[str, Inspection]:
    """Look at all sources, and leave out those that can't be opened if that was asked for."""
    found: dict[str, Inspection] = {}
    processes = settings.processes if len(sources) >= _MANY_SOURCES else 1
    calls = [(source,) for source in sources]
    with closing(call_everywhere(f"{__name__}:inspect_source", calls, processes)) as replies:
        for done, (place, succeeded, value) in enumerate(replies, 1):
            if succeeded:
                found[sources[place].path] = value
                tally.left_out.update(value.left_out)
            elif settings.on_error == "skip" and isinstance(value, SourceError):
                tally.skipped.append(Skipped(Fault.of(value), None, None))
            else:
                raise value
            settings.tell("opening files", done, len(sources))
    return {source.path: found[source.path] for source in sources if source.path in found}


def _common_fields(inspections: dict[str, Inspection]) -> dict[str, Field]:
    """Return the keys that all sources have.

    Raises:
        SpecError: They differ.
    """
    common: dict[str, tuple[Field, str]] = {}
    first_path = next(iter(inspections), "")
    for path, inspection in inspections.items():
        for key in sorted(inspection.fields.keys() | common.keys()):
            here, (there, where) = inspection.fields.get(key), common.get(key, (None, first_path))
            if here is None or (there is None and path != first_path) or (there and not here.agrees(there)):
                raise SpecError(
                    f"expected the same keys in all files, but {key!r} is {here or 'not there'} in {path} and "
                    f"{there or 'not there'} in {where}; choose keys that agree, or convert the files apart",
                    file=path,
                    key=key,
                )
            if there is None or there.guessed:
                common[key] = here, path
    order = inspections[first_path].fields if inspections else ()
    return {key: common[key][0] for key in order}


def _pending(outputs: list[Output], settings: Settings, tally: _Tally) -> tuple[list[Output], set[Path]]:
    """Part the files that are still to be written from those that an earlier run finished."""
    pending, kept = [], set()
    for output in outputs:
        if settings.overwrite or not output.path.exists():
            pending.append(output)
            continue
        told = read_conversion(str(output.path))
        if told is None or told[0] != output.attributes["conversion"]:
            raise SourceError(
                f"expected {output.path} to be of the same sources and options, but "
                f"{'no conversion wrote it' if told is None else 'it was converted from others'}; "
                "overwrite it, or write into another folder",
                file=str(output.path),
            )
        _, events, skipped = told
        kept.add(output.path)
        tally.written += events
        tally.lose(skipped)
    return pending, kept


def verify_source(source: Source, files: Sequence[str]) -> dict[str, tuple[int, str]]:
    """Check a source, and return bytes and checksum of some of its files."""
    source.verify()
    return {path: (stamp(path)[1], checksum(path)) for path in files}


def _verify(pending: list[Output], settings: Settings, tally: _Tally) -> list[Output]:
    """Check and sum the files that will be read; return the outputs with their records, without damaged sources."""
    sources: dict[str, Source] = {}
    files: dict[str, dict[str, None]] = {}
    for output in pending:
        for segment in output.segments:
            path = segment.source.path
            sources[path] = segment.source
            files.setdefault(path, {}).update(dict.fromkeys(segment.source.files(segment.start, segment.stop)))
    sums: dict[str, tuple[int, str]] = {}
    damaged: dict[str, Fault] = {}
    paths = list(sources)
    size = sum(stamp(file)[1] for each in files.values() for file in each)
    calls = [(sources[path], list(files[path])) for path in paths]
    processes = settings.processes if size >= _MANY_BYTES else 1
    with closing(call_everywhere(f"{__name__}:verify_source", calls, processes)) as replies:
        for done, (place, succeeded, value) in enumerate(replies, 1):
            if succeeded:
                sums.update(value)
            elif settings.on_error == "skip" and isinstance(value, SourceError):
                damaged[paths[place]] = Fault.of(value)
            else:
                raise value
            settings.tell("checking files", done, len(paths))
    checked = []
    for output in pending:
        whole = tuple(segment for segment in output.segments if segment.source.path not in damaged)
        skipped = tuple(
            Skipped(damaged[segment.source.path], segment.start, segment.stop - segment.start)
            for segment in output.segments
            if segment.source.path in damaged
        )
        tally.lose(skipped)
        records = []
        for segment in whole:
            names = segment.source.files(segment.start, segment.stop)
            # Files that hold one event each have no number in them, but all belong to these events.
            records += [FileRecord(name, *sums[name], segment.start, segment.stop) for name in names]
        if whole:
            checked.append(replace(output, segments=whole, records=tuple(records), skipped=skipped))
    return checked


def _write(
    outputs: list[Output], fields: dict[str, Field], shaper: Shaper | None, settings: Settings, tally: _Tally
) -> set[Path]:
    """Write files in parallel; return those that have events."""
    jobs = [
        (Job(tuple(chain), fields, shaper, settings.level, settings.on_error == "skip"),) for chain in chains(outputs)
    ]
    total, done = sum(output.events for output in outputs), 0
    made: set[Path] = set()

    def listen(events: int) -> None:
        nonlocal done
        done += events
        settings.tell("converting events", done, total)

    with closing(call_everywhere(f"{write_job.__module__}:write_job", jobs, settings.processes, listen)) as replies:
        for _, succeeded, value in replies:
            if not succeeded:
                raise value
            for path, events, skipped in value:
                tally.written += events
                tally.lose(skipped)
                if events:
                    made.add(path)
    return made
