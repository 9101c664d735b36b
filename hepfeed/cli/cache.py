"""``hepfeed cache``: build, merge, verify, describe and export caches of processed events."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from hepfeed.cache.build import BuildProgress, BuildReport
    from hepfeed.cache.describe import CacheReport
    from hepfeed.cache.verify import Verification

FULL = 3
"""Exit code of a build that ended because of ``--max-size``."""
_MOST_LINES = 20
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


class OnError(str, Enum):
    """What to do with events at fault."""

    raise_ = "raise"
    skip = "skip"


class OnNonfinite(str, Enum):
    """What to do with values that are not finite."""

    raise_ = "raise"
    zero = "zero"
    drop = "drop"


class FileFormat(str, Enum):
    """Of exported files."""

    hdf5 = "hdf5"
    npz = "npz"


Directory = Annotated[Path, typer.Argument(metavar="DIR", help="Directory of a cache, or of caches.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes.", show_default="one a core")]
Index = Annotated[Path | None, typer.Option(metavar="FILE", help="Index file.", show_default="the user's own")]


def register(app: typer.Typer) -> None:
    """Add ``cache`` and its commands to ``app``."""
    commands = typer.Typer(
        help="Build, merge, verify, describe and export caches of processed events.",
        no_args_is_help=True,
        rich_markup_mode="rich",
    )
    commands.command("build")(build)
    commands.command("merge")(merge)
    commands.command("verify")(verify)
    commands.command("info")(info)
    commands.command("export")(export)
    app.add_typer(commands, name="cache")


# ---- build


def build(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="Specification, .yaml or .json.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Directory of caches; this one becomes DIR/KEY.")
    ],
    workers: Workers = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Fail where there is nothing to continue. Without, it is begun.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete what there is of it, and begin anew.")] = False,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Take one of N shares, 0/N .. N-1/N; 'cache merge' makes one cache of them."),
    ] = None,
    dask: Annotated[
        str | None, typer.Option(metavar="ADDRESS|local", help="Run on a dask.distributed cluster.")
    ] = None,
    max_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Most bytes of the cache, e.g. 20GB; the exit code is 3 then.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare all checksums in the end; build damaged parts again.")
    ] = False,
    by_content: Annotated[
        bool, typer.Option("--hash", help="Know files by their contents, so that they may be copied or moved.")
    ] = False,
    on_error: Annotated[
        OnError, typer.Option("--on-error", help="Stop at files and events at fault, or leave them out.")
    ] = OnError.raise_,
    on_nonfinite: Annotated[
        OnNonfinite | None,
        typer.Option("--on-nonfinite", help="NaN and infinite values, as training has it.", show_default="keep them"),
    ] = None,
    part_size: Annotated[str, typer.Option(metavar="SIZE", help="Of one file of the cache, about.")] = "32MiB",
    index: Index = None,
) -> None:
    """Process [bold]every event[/] of a specification now, so that training reads the result from the first epoch on.

    A DataProvider with the same specification and cache=DIR finds it. What an earlier build or a training left is
    continued: after a crash give the same command again. A complete cache is left as it is.

    [bold]Examples[/]

    All cores, with progress:

    [cyan]$ hepfeed cache build lcd.yaml -o caches/[/]

    After a kill, certain that there is something to continue, then all checksums:

    [cyan]$ hepfeed cache build lcd.yaml -o caches/ --resume --verify[/]

    On a batch system: a Slurm array of 16 jobs (sbatch --array=0-15), or HTCondor (queue 16), then the merge:

    [cyan]$ hepfeed cache build lcd.yaml -o caches/ --workers 1 --shard $SLURM_ARRAY_TASK_ID/16[/]

    [cyan]$ hepfeed cache build lcd.yaml -o caches/ --workers 1 --shard $(Process)/16[/]

    [cyan]$ hepfeed cache merge caches/[/]

    On a running dask cluster, or on one of processes here:

    [cyan]$ hepfeed cache build lcd.yaml -o caches/ --dask tcp://10.0.0.1:8786[/]

    [cyan]$ hepfeed cache build lcd.yaml -o caches/ --dask local --workers 8[/]

    As much as fits into 20 GB; training reads the rest from the sources:

    [cyan]$ hepfeed cache build lcd.yaml -o caches/ --max-size 20GB --on-error skip[/]
    """
    from rich.console import Console

    from hepfeed.cache.build import build_cache
    from hepfeed.cache.shards import Shard
    from hepfeed.progress import progress_bars

    console = Console(highlight=False, soft_wrap=True)
    share = None if shard is None else Shard.parse(shard)
    with progress_bars() as opening, _build_bar() as progress:
        report = build_cache(
            spec,
            out,
            on_nonfinite=None if on_nonfinite is None else on_nonfinite.value,
            on_error=on_error.value,
            identity="content" if by_content else "stat",
            workers=workers,
            resume=resume,
            fresh=fresh,
            shard=share,
            dask=dask,
            max_bytes=None if max_size is None else _size(max_size),
            part_bytes=_size(part_size),
            verify=verify,
            index=index,
            opening=opening,
            progress=progress,
            on_wait=lambda sentence: console.print(sentence, markup=False),
        )
    _print_build(console, report, shard, max_size, verify)
    if report.full:
        raise typer.Exit(FULL)


def _print_build(
    console: Console, report: BuildReport, shard: str | None, max_size: str | None, verified: bool
) -> None:
    from rich.filesize import decimal

    done = report.events - report.missing
    if not report.processed and not report.skipped and report.complete:
        what = "shard is complete" if shard else "cache is complete"
        console.print(f"The {what}, nothing was to be done: {report.directory}", markup=False)
    else:
        rate = report.processed / max(report.seconds, 1e-9)
        console.print(
            f"{report.processed:,} events in {report.seconds:.1f} s ({rate:,.0f} events/s); the cache has"
            f" {done:,} of {report.events:,} events in {decimal(report.bytes)}: {report.directory}",
            markup=False,
        )
    if report.removed:
        console.print(f"The steps took {report.removed:,} events out.")
    if verified:
        console.print("All checksums are right.")
    if report.skipped:
        console.print(f"[bold red]Skipped {report.skipped:,} events[/] at fault, the first:")
        for fault in report.faults[:_MOST_LINES]:
            console.print(f"  {fault.splitlines()[0]}", markup=False)
    if report.full:
        console.print(
            f"--max-size {max_size} is reached: {report.missing:,} events are not in the cache, and training reads them"
            " from their sources.",
            markup=False,
        )
    if shard:
        console.print(f"Once all shards have ended: hepfeed cache merge {report.directory}", markup=False)


@contextmanager
def _build_bar() -> Iterator[Callable[[BuildProgress], None]]:
    """Show events, rate, size and time left on the standard error output, if that is a terminal."""
    from rich.console import Console
    from rich.filesize import decimal
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("processing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
    )
    bars = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bars.add_task("", total=None, figures="", visible=False)
    first: list[tuple[float, int]] = []

    def progress(now: BuildProgress) -> None:
        if not first:
            first.append((time.monotonic(), now.events))
            bars.start()
        begun, before = first[0]
        rate = (now.events - before) / max(time.monotonic() - begun, 1e-9)
        ratio = f", {now.dense_bytes / now.written:.1f} x smaller" if now.written else ""
        figures = f"{rate:,.0f} events/s, {decimal(now.bytes)}{ratio}"
        bars.update(task, completed=now.events, total=now.total, figures=figures, visible=True)

    try:
        yield progress
    finally:
        bars.stop()


def _size(text: str) -> int:
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([kKMGT]?i?)B?\s*", text)
    unit = match[2].replace("K", "k") if match else ""
    unit = "Ki" if unit == "ki" else unit
    try:
        size = int(float(match[1]) * _UNITS[unit]) if match else 0
    except (ValueError, KeyError):
        size = 0
    if size < 1:
        raise typer.BadParameter(f"{text!r} is no size: use e.g. 500MB, 20GB or 32MiB")
    return size


# ---- merge


def merge(
    directory: Directory,
    partial: Annotated[
        bool, typer.Option("--partial", help="Write the manifest even if events are missing; the exit code is 0 then.")
    ] = False,
) -> None:
    """Make one cache of what the [bold]shards[/] of a build wrote, by writing its manifest; no event is read again.

    The exit code is 1 where events are missing.

    [bold]Examples[/]

    [cyan]$ hepfeed cache merge caches/[/]

    Train with what the shards that ended have written:

    [cyan]$ hepfeed cache merge caches/3f2a9c0d11e54b7a --partial[/]
    """
    from rich.console import Console
    from rich.filesize import decimal

    from hepfeed.cache.inventory import caches_below
    from hepfeed.cache.merge import merge_cache

    console = Console(highlight=False, soft_wrap=True)
    incomplete = False
    for where in caches_below(directory):
        merged = merge_cache(where, partial)
        shards = f" from shards {', '.join(merged.shards)}" if merged.shards else ""
        console.print(
            f"{where}: {merged.events:,} of {merged.expected:,} events in {merged.parts:,} parts,"
            f" {decimal(merged.bytes)}{shards}",
            markup=False,
        )
        if merged.skipped:
            console.print(f"  {merged.skipped:,} events were skipped because of errors")
        if merged.twice:
            console.print(f"  {merged.twice:,} events are there more than once, and the first of each counts")
        missing = list(merged.missing.items())
        for path, count in missing[:_MOST_LINES]:
            console.print(f"  {count:,} events of {path} are missing", markup=False)
        if len(missing) > _MOST_LINES:
            console.print(f"  and events of {len(missing) - _MOST_LINES:,} more files")
        if not merged.complete and not partial:
            console.print("  run the shards that did not end again, or write it as it is with --partial")
            incomplete = True
    if incomplete:
        raise typer.Exit(1)


# ---- verify


def verify(
    directory: Directory,
    workers: Workers = None,
    mark: Annotated[
        bool, typer.Option("--mark", help="Write damaged blocks into the manifest, so that they are built again.")
    ] = False,
) -> None:
    """Compare all [bold]checksums[/], and see that every event is there once. Nothing is changed without --mark.

    The exit code is 1 where something is wrong.

    [bold]Examples[/]

    [cyan]$ hepfeed cache verify caches/[/]

    Find damaged blocks, let the next build or training process their events again:

    [cyan]$ hepfeed cache verify caches/3f2a9c0d11e54b7a --mark[/]
    """
    from rich.console import Console
    from rich.filesize import decimal

    from hepfeed.cache.inventory import caches_below
    from hepfeed.cache.verify import mark as write_marks
    from hepfeed.cache.verify import verify_cache
    from hepfeed.progress import progress_bars

    console = Console(highlight=False, soft_wrap=True)
    wrong: list[Verification] = []
    for where in caches_below(directory):
        with progress_bars() as progress:
            found = verify_cache(where, workers, lambda done, total: progress("comparing checksums", done, total))
        expected = "" if found.expected is None else f" of {found.expected:,}"
        console.print(f"{where}: {found.events:,}{expected} events, {decimal(found.bytes)}", markup=False)
        if found.skipped:
            console.print(f"  {found.skipped:,} events were skipped because of errors when it was built")
        for fault in found.faults:
            console.print(f"  {fault}", style="red", markup=False)
        if mark and found.damaged:
            console.print(f"  {write_marks(found):,} damaged blocks are marked in the manifest")
        if found.faults:
            wrong.append(found)
        else:
            console.print("  all checksums are right, and every event is there once", style="green")
    if wrong:
        if any(found.damaged for found in wrong):
            console.print(
                "Training processes the events of damaged blocks again when it meets them, and so does 'hepfeed cache"
                " build SPEC -o DIR --verify'."
            )
        raise typer.Exit(1)


# ---- info


def info(
    directory: Directory,
    spec: Annotated[
        Path | None, typer.Option(metavar="SPEC", help="Say whether it is the cache of that specification.")
    ] = None,
    statistics: Annotated[
        bool, typer.Option("--statistics", help="Read parts whose statistics are not known yet.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    index: Index = None,
) -> None:
    """Tell what a cache [bold]holds[/]: arrays, sources, events, size, occupancy, statistics. Of several: a line each.

    With --spec the exit code is 1 where none of them is the cache of the specification; it says what differs.

    [bold]Examples[/]

    All caches, one line each:

    [cyan]$ hepfeed cache info caches/[/]

    One, with the statistics of its values:

    [cyan]$ hepfeed cache info caches/3f2a9c0d11e54b7a --statistics[/]

    Why does training not use it?

    [cyan]$ hepfeed cache info caches/ --spec lcd.yaml[/]
    """
    from rich.console import Console

    from hepfeed.cache.describe import describe_cache
    from hepfeed.cache.inventory import caches_below

    console = Console(highlight=False, soft_wrap=True)
    reports = [describe_cache(where, statistics) for where in caches_below(directory)]
    if as_json:
        typer.echo(json.dumps([asdict(report) for report in reports], indent=2))
    elif len(reports) > 1:
        console.print(_caches_table(reports))
    else:
        _print_cache(console, reports[0])
    if spec is not None and not _compare(console, reports, spec, index, quiet=as_json):
        raise typer.Exit(1)


def _caches_table(reports: list[CacheReport]) -> Table:
    from rich.filesize import decimal

    table = _table(f"{len(reports)} caches", "directory", "arrays", "events", "complete", "size", "ratio", "written")
    for report in reports:
        table.add_row(
            Path(report.directory).name,
            ", ".join(array.name for array in report.arrays),
            f"{report.events:,}",
            _fraction(report),
            decimal(report.bytes),
            _ratio(report.dense_bytes, report.bytes),
            report.written,
        )
    return table


def _print_cache(console: Console, report: CacheReport) -> None:
    from rich.filesize import decimal
    from rich.text import Text

    facts = _table(report.directory, "", "")
    facts.show_header = False
    facts.columns[1].justify = "left"
    classes = ", ".join(f"{label} = {index}" for label, index in report.classes.items())
    files = [*report.files[:3], *([f"and {len(report.files) - 3:,} more files"] if len(report.files) > 3 else [])]
    for name, text in (
        ("key", report.key + (", files known by their contents" if report.identity == "content" else "")),
        ("sources", "\n".join(files) or "not known: there is no manifest"),
        ("classes", classes),
        ("steps", ", ".join(report.steps) or "none"),
        ("events", f"{report.events:,}"),
        ("taken out by steps", f"{report.removed:,}"),
        ("skipped at fault", f"{report.skipped:,}"),
        ("complete", _fraction(report)),
        ("size", f"{decimal(report.bytes)} in {report.parts:,} parts"),
        ("dense", f"{decimal(report.dense_bytes)}, {_ratio(report.dense_bytes, report.bytes)} x as much"),
        ("written", report.written),
    ):
        facts.add_row(name, Text(text))
    console.print(facts)
    arrays = _table("Arrays", "array", "kind", "type", "shape", "stored as", "size", "ratio", "occupancy")
    for array in report.arrays:
        arrays.add_row(
            Text(array.name),
            array.kind,
            array.dtype,
            str((*array.grid, *array.shape)),
            ", ".join(f"{how} ({events:,})" for how, events in array.storage.items()),
            decimal(array.bytes),
            _ratio(array.dense_bytes, array.bytes),
            "" if array.occupancy is None else f"{array.occupancy:.2%}",
        )
    console.print(arrays)
    if any(array.statistics for array in report.arrays):
        console.print(_statistics_table(report))
    elif report.parts:
        console.print("Statistics of some parts are not known: --statistics reads them.")
    for fault in report.faults:
        console.print(fault, style="red", markup=False)


def _statistics_table(report: CacheReport) -> Table:
    from rich.text import Text

    table = _table("Values", "array", "values", "not finite", "not 0", "mean", "std", "minimum", "maximum")
    for array in report.arrays:
        found = array.statistics
        if not found:
            continue
        cells = [f"{found['values']:,}", f"{found['nonfinite']:,}", _share(found["occupancy"])]
        table.add_row(Text(array.name), *cells, *_figures(found))
        if found["zeros"]:
            active = found["active"]
            table.add_row(Text("  active", style="dim"), f"{active['count']:,}", "", "", *_figures(active))
    return table


def _figures(found: dict[str, Any]) -> list[str]:
    return ["" if found[name] is None else f"{found[name]:.5g}" for name in ("mean", "std", "minimum", "maximum")]


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"


def _fraction(report: CacheReport) -> str:
    if report.expected is None:
        return "not known"
    if report.complete:
        return "yes"
    return f"{(report.events + report.removed) / max(1, report.expected):.1%} of {report.expected:,}"


def _ratio(dense: int, size: int) -> str:
    return f"{dense / size:.1f}" if size else ""


def _compare(console: Console, reports: list[CacheReport], spec: Path, index: Path | None, quiet: bool) -> bool:
    """Say of each cache whether it is that of a specification; returns whether one is."""
    from hepfeed.cache.inventory import Inventory
    from hepfeed.cache.key import make_key
    from hepfeed.index import EventIndex
    from hepfeed.spec import SampleSpec
    from hepfeed.store import IndexStore

    read = SampleSpec.load(spec)
    events = EventIndex(read, store=IndexStore(index or ""))
    one = False
    for report in reports:
        manifest = Inventory.take(report.directory).manifest
        if manifest is None:
            continue
        key = make_key(events, read.steps, "content" if report.identity == "content" else "stat")
        differences = manifest.key.differences(key)
        one = one or not differences
        if quiet:
            continue
        if not differences:
            console.print(f"{report.directory} is the cache of {spec}", style="green", markup=False)
            continue
        console.print(f"{report.directory} is not the cache of {spec}:", style="yellow", markup=False)
        for difference in differences:
            console.print(f"  {difference}", markup=False)
    return one


def _table(title: str, *headers: str) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left")
    for number, header in enumerate(headers):
        table.add_column(header, justify="right" if number else "left", overflow="fold")
    return table


# ---- export


def export(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of a cache.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="File to write.")],
    file_format: Annotated[FileFormat, typer.Option("--format", help="HDF5, or NumPy's npz.")] = FileFormat.hdf5,
    dense: Annotated[
        bool, typer.Option("--dense", help="Write whole images, also of those that are stored as cells or sites.")
    ] = False,
    compress: Annotated[bool, typer.Option("--compress", help="With deflate.")] = False,
    key: Annotated[
        list[str] | None, typer.Option("--key", "-k", help="Array to write; repeat it.", show_default="all")
    ] = None,
    events_per_file: Annotated[
        int | None, typer.Option(min=1, help="Write FILE_0, FILE_1, ... of so many events.", show_default="one file")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
) -> None:
    """Write the events of a cache to [bold]HDF5 or npz[/] files, for programs that know nothing of caches.

    Events come in the order of their source files. Images that are mostly 0 are groups of coords, values and offsets,
    as in the cache, or whole with --dense.

    [bold]Examples[/]

    [cyan]$ hepfeed cache export caches/3f2a9c0d11e54b7a -o events.h5[/]

    Dense compressed images of one key, 5,000 events a file:

    [cyan]$ hepfeed cache export caches/3f2a9c0d11e54b7a -o ecal.h5 -k ECAL --dense --compress --events-per-file 5000[/]

    For NumPy:

    [cyan]$ hepfeed cache export caches/3f2a9c0d11e54b7a -o events.npz --format npz --dense --force[/]
    """
    from rich.console import Console
    from rich.filesize import decimal

    from hepfeed.cache.export import export_cache
    from hepfeed.cache.inventory import caches_below
    from hepfeed.errors import SpecError
    from hepfeed.progress import progress_bars

    found = caches_below(directory)
    if len(found) > 1:
        raise SpecError(f"{str(directory)!r} has {len(found)} caches: name one of them, e.g. {found[0]!r}")
    with progress_bars() as progress:
        exported = export_cache(
            found[0],
            out,
            format=file_format.value,
            dense=dense,
            compress=compress,
            keys=key,
            events_per_file=events_per_file,
            force=force,
            progress=lambda done, total: progress("writing", done, total),
        )
    size = sum(Path(path).stat().st_size for path in exported.files)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{exported.events:,} events in {len(exported.files):,} files, {decimal(size)}: {exported.files[0]}")
