"""``hepfeed bench feed``: throughput against other loaders, each verified, and against what the machine can do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hepfeed.cli.bench_output import JsonFile, PlotFile, PlotStyle, StyleOption, deliver, wide_console

if TYPE_CHECKING:
    from hepfeed.bench.feeds.bench import Options
    from hepfeed.bench.feeds.events import EventSet
    from hepfeed.bench.feeds.row import Row
    from hepfeed.bench.record import Record

_EVENTS, _FILES, _SECONDS, _ROUNDS = 16000, 4, 8.0, 3
_QUICK_EVENTS, _QUICK_FILES, _QUICK_SECONDS, _QUICK_ROUNDS = 2000, 2, 2.0, 1
_LEAST_S = 1.0
"""A turn of a fast side has as many epochs as that takes."""


def register(app: typer.Typer) -> None:
    """Add ``feed`` to ``app``."""
    app.command("feed")(feed)


def feed(
    spec: Annotated[
        Path | None,
        typer.Argument(help="A sample specification, to feed your own events as they are stored.", show_default="none"),
    ] = None,
    inputs: Annotated[
        str | None,
        typer.Option(help="Names, separated by commas; see --list.", show_default="all, or the specification alone"),
    ] = None,
    sides: Annotated[
        str | None, typer.Option(help="Names, separated by commas; see --list.", show_default="all")
    ] = None,
    prepared: Annotated[
        bool,
        typer.Option("--prepared", help="Read the specification's events from formats that each side writes first."),
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes or threads of each side.")] = 2,
    batch_size: Annotated[int, typer.Option(min=2, help="Events of a batch.")] = 128,
    rounds: Annotated[int | None, typer.Option(min=1, help="In which all take turns.", show_default="3")] = None,
    events: Annotated[
        int | None, typer.Option(min=1, help="Of each input that is made, about.", show_default="16000")
    ] = None,
    files: Annotated[int | None, typer.Option(min=1, help="Of each class of those.", show_default="4")] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="That an epoch may take; slower ones are stopped.", show_default="8")
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="One round, 2000 events, 2 files a class, 2 seconds, if not said otherwise."),
    ] = False,
    folder: Annotated[
        Path | None,
        typer.Option(
            file_okay=False, writable=True, help="Keep the sets that are made here.", show_default="a temporary one"
        ),
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List inputs and sides, and measure nothing.")] = False,
    json: JsonFile = None,
    plot: PlotFile = None,
    style: StyleOption = PlotStyle.default,
) -> None:
    """Time [bold]shuffled batches[/] of hepfeed and of other loaders over the same events, side by side.

    Each side runs in a process of its own, and is tuned as its documentation advises; what is set is printed. Before a
    side is timed, all events of an epoch are compared with what h5py reads: values, labels, and that each came once.
    A side that is too slow for that is compared as far as it comes. Then all sides take turns, and ratios are formed
    round by round. How well each side shuffles is measured and shown. The [bold]floor[/] inflates each chunk once and
    copies each byte once, and does nothing else.

    What is not installed is listed with the command that installs it. The file of --json is written anew after each
    round, so that a run that is cut off leaves what it has measured.

    [bold]Examples[/]

        hepfeed bench feed --quick

        hepfeed bench feed --inputs lcd-auto,lcd-100 --sides hepfeed,torch-map,torch-block --json feed.json

        hepfeed bench feed my.yaml --workers 4 --batch-size 256

        hepfeed bench feed my.yaml --prepared
    """
    from copy import deepcopy
    from dataclasses import asdict
    from tempfile import TemporaryDirectory

    from hepfeed.bench.feeds.bench import Options, bench_feed
    from hepfeed.bench.feeds.inputs import INPUTS, given, input_of
    from hepfeed.bench.feeds.sides import all_sides, sides_of
    from hepfeed.errors import SpecError
    from hepfeed.progress import progress_bars

    if listed:
        _list()
        return
    if prepared and spec is None:
        raise SpecError("--prepared is for the events of a specification: name one, or use --inputs cached-cells")
    count = rounds or (_QUICK_ROUNDS if quick else _ROUNDS)
    most_s = seconds or (_QUICK_SECONDS if quick else _SECONDS)
    each, per_class = events or (_QUICK_EVENTS if quick else _EVENTS), files or (_QUICK_FILES if quick else _FILES)
    names = ([] if spec else list(INPUTS)) if inputs is None else _names("inputs", inputs)
    chosen = list(all_sides().values()) if sides is None else sides_of(_names("sides", sides))
    makers = [input_of(name) for name in names]
    options = Options(
        workers=workers, batch_size=batch_size, rounds=count, least_s=min(_LEAST_S, most_s), most_s=most_s
    )
    settings = {**asdict(options), "events": each, "files": per_class, "spec": str(spec) if spec else None}
    inputs_in_all = len(makers) + (spec is not None)
    rows: list[Row] = []
    present: list[Row] = []

    def keep(some: list[Row]) -> None:
        present[:] = deepcopy(some)  # the next round changes them
        if json is not None:
            _record([*rows, *present], options, settings, inputs_in_all).save(json)

    try:
        with TemporaryDirectory(prefix="hepfeed-bench-") as scratch, progress_bars() as progress:
            sets = folder or Path(scratch) / "sets"
            try:
                sets.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise SpecError(f"--folder can't be made: {error.strerror}", file=str(sets)) from None
            work = Path(scratch) / "sides"
            if spec is not None:
                rows += bench_feed(_several(given(spec, prepared)), chosen, options, work, progress, keep)
                present.clear()
            for number, maker in enumerate(makers):
                progress("inputs", number, len(makers))
                made = _several(maker.make(sets, each, per_class))
                rows += bench_feed(made, chosen, options, work, progress, keep)
                present.clear()
    except KeyboardInterrupt:
        if rows or present:
            deliver(_record([*rows, *present], options, settings, inputs_in_all), json, plot, style)
        raise
    deliver(_record(rows, options, settings, inputs_in_all), json, plot, style)


def _record(rows: list[Row], options: Options, settings: dict[str, Any], inputs: int) -> Record:
    """Return the results so far, plainly marked where there are more to come."""
    from dataclasses import asdict

    from hepfeed.bench.feeds.bench import held_notes, mixing_notes
    from hepfeed.bench.feeds.row import FLOOR
    from hepfeed.bench.record import Record

    rounds = options.rounds
    title = f"Shuffled batches of {options.batch_size}, {options.workers} workers: medians of {rounds} round"
    title += "s" if rounds > 1 else ""
    notes = [*_absent(rows), *mixing_notes(rows), *held_notes(rows)]
    done = [len(row.rates) for row in rows if row.side == FLOOR]
    whole = sum(count == rounds for count in done)
    if whole < inputs:
        part = f", and {done[-1]} of {rounds} rounds of {rows[-1].input}" if done[-1] < rounds else ""
        title = f"Incomplete: {title}"
        notes.insert(0, f"incomplete: {whole} of {inputs} inputs{part}; the run was cut off, or is not over")
    return Record.now("feed", title, settings, [asdict(row) for row in rows], notes)


def _names(option: str, text: str) -> list[str]:
    """Read names that are separated by commas, each once.

    Raises:
        SpecError: There is none.
    """
    from hepfeed.errors import SpecError

    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise SpecError(f"--{option} {text!r} names none: see --list")
    return names


def _several(events: EventSet) -> EventSet:
    """Events enough to be shuffled.

    Raises:
        SpecError: There are less than two.
    """
    from hepfeed.errors import SpecError

    if len(events) < 2:
        raise SpecError(f"{events.name} has {len(events)} events, too few to be measured: give more by --events")
    return events


def _absent(rows: list[Row]) -> Iterator[str]:
    """Say who has no rate, and why; the same reason once."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.fault is not None:
            reasons.setdefault((row.side, f"is left out, for it failed: {row.fault}"), []).append(row.input)
        elif row.missing is not None:
            reasons.setdefault((row.side, f"did not take part: {row.missing}"), []).append(row.input)
    everywhere = {row.input for row in rows}
    for (side, reason), where in reasons.items():
        yield f"{side} {reason}" if set(where) == everywhere else f"{', '.join(where)}: {side} {reason}"


def _list() -> None:
    """Print inputs and sides, and who can't take part here."""
    from hepfeed.bench.feeds.inputs import INPUTS
    from hepfeed.bench.feeds.sides import all_sides
    from hepfeed.bench.sheet import Sheet

    console = wide_console()
    inputs = [[name, each.title] for name, each in INPUTS.items()]
    console.print(Sheet("Inputs", ["name", "what it is"], inputs, frozenset({"name", "what it is"})))
    columns = ["name", "what it is", "missing"]
    known = [[name, side.title, side.missing() or ""] for name, side in all_sides().items()]
    console.print(Sheet("Sides", columns, known, frozenset(columns)))
