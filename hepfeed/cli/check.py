"""``hepfeed check``: what a specification or a file holds, what is wrong, what it costs, what to change."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hepfeed.progress import Progress, progress_bars

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from hepfeed.advice import Advice
    from hepfeed.check import SpecReport
    from hepfeed.fault import Fault
    from hepfeed.layouts import DirectoryReport, FileReport

_SPEC_SUFFIXES = (".yaml", ".yml", ".json")


def register(app: typer.Typer) -> None:
    """Add ``check`` to ``app``."""
    app.command("check")(check)


def check(
    path: Annotated[
        Path,
        typer.Argument(metavar="PATH", help="Specification (.yaml, .json), HDF5 file, or directory of them."),
    ],
    events: Annotated[
        int | None,
        typer.Option(min=1, help="Measure with at least so many events.", show_default="2048, or 5 s"),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option("--measure/--no-measure", help="Read events to find occupancy and cost."),
    ] = True,
    advice: Annotated[
        bool, typer.Option("--advice", help="Predict events/s, as it is and with other storage, readers or a cache.")
    ] = False,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Of the prediction.", show_default="the specification's, or 128")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Readers of today's feed.", show_default="the specification's, or 2")
    ] = None,
    step_ms: Annotated[
        float | None,
        typer.Option("--step-ms", min=1e-3, help="Time of the device for a batch: does the feed keep it busy?"),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.01, help="Measure for the prediction, about.", show_default="10")
    ] = None,
    cold: Annotated[
        bool, typer.Option("--cold", help="Predict for files that come from the disk, and not from the page cache.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all findings as JSON.")] = False,
    write: Annotated[
        Path | None,
        typer.Option(metavar="SPEC", help="Of files: write the specification there (.yaml, .json); default: print it."),
    ] = None,
) -> None:
    """Open everything; tell what it holds, [bold]what is wrong[/], what reading it costs and what to change.

    Of a specification: events of each class, how each key is stored and how full it is, faults, cost, advice.
    Of a file or a directory: all data sets, how they store events, which keys can be fed, and the specification
    that feeds them, labelled by directory or file name.
    The exit code is 1 where a file has a fault.

    [bold]Examples[/]

    A training set before the first epoch:

    [cyan]$ hepfeed check lcd.yaml[/]

    Read every event of it, however long that takes:

    [cyan]$ hepfeed check lcd.yaml --events 1000000000[/]

    What is in a file, and can it be fed?

    [cyan]$ hepfeed check run_6229.h5[/]

    Feed all that can be fed of it:

    [cyan]$ hepfeed check run_6229.h5 --write run.yaml[/]

    How fast can it be fed here, would a cache or other chunks help, and does it keep a GPU of 20 ms a step busy?

    [cyan]$ hepfeed check lcd.yaml --advice --workers 2 --step-ms 20[/]

    The faults of a whole directory, for a script:

    [cyan]$ hepfeed check data/ --json[/]
    """
    from rich.console import Console

    from hepfeed.check import check_spec
    from hepfeed.cli.check_view import directory_lines, file_lines, spec_lines
    from hepfeed.layouts import check_directory, check_file

    console = Console(highlight=False)
    is_spec = path.suffix.lower() in _SPEC_SUFFIXES
    if is_spec and write is not None:
        raise typer.BadParameter(f"--write is for a file or a directory, not for a specification such as {path}")
    if not is_spec and (events is not None or not measure):
        raise typer.BadParameter(f"--events and --no-measure are for a specification (.yaml, .json), not {path}")
    named = {"--batch-size": batch_size, "--workers": workers, "--step-ms": step_ms, "--seconds": seconds}
    given = [name for name, value in {**named, "--cold": cold or None}.items() if value is not None]
    if advice and not is_spec:
        raise typer.BadParameter(f"--advice is for a specification (.yaml, .json), not {path}")
    if given and not advice:
        raise typer.BadParameter(f"{' and '.join(given)}: of the prediction, which --advice asks for")
    found: Advice | None = None
    with progress_bars() as progress:
        report: SpecReport | DirectoryReport | FileReport
        faults: tuple[Fault, ...] = ()
        if is_spec:
            report = check_spec(path, measure=measure, events=events, progress=progress)
            faults, lines = report.faults, spec_lines(report)
            if advice and report.keys:
                found = _predicted(path, batch_size, workers, step_ms, seconds, cold, progress)
        elif path.is_dir():
            report = check_directory(path, progress=progress)
            faults, lines = report.faults, directory_lines(report)
        else:
            report = check_file(path)
            lines = file_lines(report)
    if as_json:
        predicted = {"prediction": None if found is None else asdict(found)} if advice else {}
        typer.echo(json.dumps({**asdict(report), **predicted}, indent=2))
    else:
        _print(console, lines)
        if found is not None:
            from hepfeed.cli.check_advice import advice_lines

            _print(console, advice_lines(found))
    if not is_spec and (write is not None or not as_json):
        _specify(console, path, write)
    if faults:
        raise typer.Exit(1)


def _predicted(
    path: Path,
    batch_size: int | None,
    workers: int | None,
    step_ms: float | None,
    seconds: float | None,
    cold: bool,
    progress: Progress,
) -> Advice:
    from hepfeed.advice import advise

    return advise(
        path,
        batch_size=batch_size,
        readers=workers,
        step_s=None if step_ms is None else step_ms / 1e3,
        seconds=seconds,
        cold=cold,
        progress=progress,
    )


def _print(console: Console, lines: Iterator[RenderableType]) -> None:
    for line in lines:
        console.print(line, markup=False)


def _specify(console: Console, path: Path, write: Path | None) -> None:
    """Write or print the specification of a file or a directory.

    Raises:
        SpecError: There is nothing to feed, or classes have no key in common, and it was to be written.
    """
    from hepfeed.crawl import survey
    from hepfeed.errors import SpecError

    try:
        spec = survey(path).spec()
    except SpecError as error:
        if write is not None:
            raise
        console.print(f"no specification: {error}", style="yellow", markup=False)
        return
    if write is None:
        console.print("Specification (--write keeps it):", style="bold")
        typer.echo(spec.to_yaml(), nl=False)
    else:
        spec.save(write)
        console.print(f"wrote {write}", markup=False)
