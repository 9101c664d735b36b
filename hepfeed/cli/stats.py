"""``hepfeed stats``: mean, spread and percentiles of keys, from one parallel pass."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from hepfeed.figures import KeyStatistics, Statistics


class Stage(str, Enum):
    """What is measured."""

    read = "read"
    cache = "cache"


def register(app: typer.Typer) -> None:
    """Add ``stats`` to ``app``."""
    app.command("stats")(stats)


def stats(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="Specification, .yaml or .json.")],
    split: Annotated[str, typer.Option(help="Part of the events; 'all' for all of them.")] = "train",
    splits: Annotated[
        str | None, typer.Option(metavar="NAME=FRACTION,...", show_default="train=.8,val=.1,test=.1")
    ] = None,
    split_by: Annotated[str, typer.Option(help="event, block, file or key:NAME.")] = "event",
    split_seed: Annotated[int, typer.Option(help="Another seed, another division.")] = 0,
    keys: Annotated[
        list[str] | None, typer.Option(help="Key to measure, again for each; default: all.", show_default=False)
    ] = None,
    channel_axis: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[KEY=]AXIS",
            help="Axis of one event whose entries are measured one by one (0 first, -1 last), of KEY or of all.",
            show_default=False,
        ),
    ] = None,
    percentiles: Annotated[str, typer.Option(help="Separated by commas.")] = "0.1,1,50,99,99.9",
    after: Annotated[Stage, typer.Option(help="Keys as read, or after the transforms before the cache.")] = Stage.read,
    max_events: Annotated[int | None, typer.Option(min=1, help="Measure the first events only.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Readers; 0: this process.", show_default="one a processor, 8 at most")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", show_default="SPEC with .stats.yaml")
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="PNG", help="Draw the distributions of active values.")] = None,
) -> None:
    """Measure the [bold]keys[/] of a specification: mean, standard deviation, extremes, percentiles, zeros.

    Figures are also given for active values, which are not 0.  They are written beside the specification, for the
    option statistics of the transforms normalise and min_max.

    [bold]Examples[/]

    The training part, into lcd.stats.yaml:

    [cyan]$ hepfeed stats lcd.yaml[/]

    Each of the last axis' channels of one key, of all events, with a plot:

    [cyan]$ hepfeed stats lcd.yaml --split all --keys tracks --channel-axis -1 --plot tracks.png[/]

    After the transforms before the cache point, in another split, with 16 readers:

    [cyan]$ hepfeed stats lcd.yaml --after cache --splits train=.5,val=.5 --workers 16[/]
    """
    from rich.console import Console

    from hepfeed.figures import default_path
    from hepfeed.statistics import collect

    found = collect(
        spec,
        keys or None,
        None if split == "all" else split,
        splits=None if splits is None else _fractions(splits),
        split_by=split_by,
        split_seed=split_seed,
        channel_axis=_axes(channel_axis or []),
        percentiles=_numbers(percentiles),
        max_events=max_events,
        num_workers=workers,
        after=after.value,
    )
    path = output or Path(default_path(spec))
    found.save(path)
    console = Console(highlight=False)
    console.print(_table(found))
    console.print(f"wrote {path}", markup=False)
    if plot is not None:
        draw(found, plot)
        console.print(f"wrote {plot}", markup=False)


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise typer.BadParameter(f"{text!r} are no numbers separated by commas") from None


def _fractions(text: str) -> dict[str, float]:
    pairs = [part.partition("=") for part in text.split(",")]
    try:
        return {name.strip(): float(fraction) for name, _, fraction in pairs}
    except ValueError:
        raise typer.BadParameter(f"{text!r} are no fractions such as train=.8,val=.2") from None


def _axes(texts: list[str]) -> int | dict[str, int] | None:
    pairs = [text.rpartition("=") for text in texts]
    try:
        axes = {key: int(axis) for key, _, axis in pairs}
    except ValueError:
        raise typer.BadParameter(f"channel axes are numbers such as -1 or ECAL=0, not {' '.join(texts)!r}") from None
    if "" in axes and len(texts) > 1:
        raise typer.BadParameter("give one channel axis for all keys, or one for each as KEY=AXIS")
    return axes.get("", axes or None)


def _table(found: Statistics) -> Table:
    from rich.table import Table
    from rich.text import Text

    part = f"{found.split}: " if found.split else ""
    table = Table(title=Text(f"{part}{found.events:,} events"), title_justify="left")
    names = next(iter(found.keys.values())).percentiles if found.keys else {}
    table.add_column("key")
    for heading in ("values", "not finite", "zeros", "mean", "std", "min", *(f"{name} %" for name in names), "max"):
        table.add_column(heading, justify="right")
    for key, figures in found.keys.items():
        count = 1 if figures.channel_axis is None else len(figures.count)
        for channel in range(count):
            name = key if figures.channel_axis is None else f"{key} channel {channel}"
            zeros = figures.zeros if figures.channel_axis is None else figures.zeros[channel]
            for active in (False, True) if zeros else (False,):  # without zeros all values are active
                row = _row(figures, channel, active)
                table.add_row(Text(f"{'  active' if active else name}", style="dim" if active else ""), *row)
    return table


def _row(figures: KeyStatistics, channel: int, active: bool) -> list[str]:
    def one(figure: Any) -> Any:
        return figure if figures.channel_axis is None else figure[channel]

    part = figures.active if active else figures
    cells = [f"{one(part.count):,}"]
    cells += ["", ""] if active else [f"{one(figures.nonfinite):,}", f"{100 * one(figures.zeros):.2f} %"]
    numbers = [part.mean, part.std, part.minimum, *part.percentiles.values(), part.maximum]
    return cells + ["" if one(number) is None else f"{one(number):.5g}" for number in numbers]


def draw(found: Statistics, path: Path) -> None:
    """Draw the spectrum of each key's active values."""
    from matplotlib.figure import Figure

    columns = min(3, max(1, len(found.spectra)))
    rows = -(-max(1, len(found.spectra)) // columns)
    figure = Figure(figsize=(4.5 * columns, 3.2 * rows), layout="constrained")
    for place, (key, (edges, counts)) in enumerate(found.spectra.items(), 1):
        axes = figure.add_subplot(rows, columns, place)
        axes.stairs(counts, edges, fill=True)
        axes.set_title(key)
        axes.set_xlabel("value (not 0)")
        axes.set_ylabel("values / bin")
        if counts.any():
            axes.set_yscale("log")
    figure.savefig(path)
