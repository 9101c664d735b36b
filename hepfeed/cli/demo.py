"""``hepfeed demo``: make events, feed them, train on them, and compare."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hepfeed.progress import progress_bars

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from hepfeed.demo import Comparison, Pass, Training
    from hepfeed.spec import SampleSpec


def register(app: typer.Typer) -> None:
    """Add ``demo`` to ``app``."""
    app.command("demo")(demo)


def demo(
    directory: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="New or empty directory for the events; it is kept.", show_default=False),
    ] = None,
    events: Annotated[int, typer.Option(min=10, help="Events in each file.")] = 400,
    files: Annotated[int, typer.Option(min=1, help="Files of each of the 4 classes.")] = 2,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of training.")] = 4,
    workers: Annotated[
        int, typer.Option(min=0, help="Readers, and workers of torch's loader; 0: in this process.")
    ] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Of events, order and network.")] = 0,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the events also without DIR.")] = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw accuracy and throughput.", dir_okay=False)
    ] = None,
) -> None:
    """Make a small calorimeter set, [bold]feed it, train on it[/], and do the same with torch's own loader.

    Electrons, photons, neutral and charged pions of 10 to 100 GeV in the CLIC calorimeters, in gzip'ed HDF5 files
    as h5py writes them by default; a network of some 9,000 weights learns to tell them apart on the CPU.

    [bold]Examples[/]

    Less than a minute, nothing to prepare, nothing left behind:

    [cyan]$ hepfeed demo[/]

    More events, kept, with a figure:

    [cyan]$ hepfeed demo lcd/ --events 1000 --files 4 --plot demo.png[/]
    """
    from rich.console import Console

    from hepfeed.demo import compare, make_events, open_provider, plot_demo, train

    console = Console(highlight=False)
    with _folder(directory, keep) as folder:
        with progress_bars() as progress:
            spec = make_events(folder, files=files, events=events, seed=seed, progress=progress)
        console.print(_made(spec, files * events))
        with open_provider(spec, folder, workers=workers, seed=seed) as provider:
            with progress_bars() as progress:
                training = train(provider, epochs=epochs, seed=seed, progress=progress)
            console.print(_accuracies(training))
            console.print(training.stats)
            with progress_bars() as progress:
                comparison = compare(provider, workers=workers, seed=seed, progress=progress)
        console.print(_comparison(training, comparison))
        if plot is not None:
            plot_demo(plot, training, comparison)
        _summary(console, training, comparison, folder if directory or keep else None, plot)


@contextmanager
def _folder(directory: Path | None, keep: bool) -> Iterator[Path]:
    """Give the directory, or a temporary one that is removed at the end unless it is to be kept."""
    if directory is not None:
        yield directory
    elif keep:
        yield Path(tempfile.mkdtemp(prefix="hepfeed-demo-"))
    else:
        with tempfile.TemporaryDirectory(prefix="hepfeed-demo-") as folder:
            yield Path(folder)


def _made(spec: SampleSpec, events: int) -> Table:
    from rich.filesize import decimal

    table = _table("What was made", "class", "index", "files", "events", "size")
    for sample in spec.samples:
        size = sum(Path(path).stat().st_size for path in sample.files)
        label = str(sample.label)
        table.add_row(label, str(spec.classes[sample.label]), str(len(sample.files)), f"{events:,}", decimal(size))
    return table


def _accuracies(training: Training) -> Table:
    title = f"Training a network of {training.weights:,} weights"
    table = _table(title, "epoch", "training", "validation", "seconds", "events/s", "waited for batches")
    for number, epoch in enumerate(training.epochs, 1):
        done = epoch.train
        table.add_row(
            str(number),
            f"{done.accuracy:.1%}",
            f"{epoch.val.accuracy:.1%}",
            f"{done.seconds:.2f}",
            f"{done.events_per_s:,.0f}",
            _waited(done),
        )
    return table


def _comparison(training: Training, comparison: Comparison) -> Table:
    table = _table("The same events and network", "loader", "task", "events/s", "an epoch", "waited for batches")
    rows = (
        ("hepfeed", "loading", comparison.feeding),
        ("hepfeed", "training", training.epochs[-1].train),
        ("torch + h5py", "loading", comparison.loading),
        ("torch + h5py", "training", comparison.training),
    )
    for loader, task, done in rows:
        seconds = f"{comparison.epoch_events / done.events_per_s:.2f} s"
        if done.events < comparison.epoch_events:
            seconds = f"{seconds}, extrapolated from {done.batches} batches"
        table.add_row(loader, task, f"{done.events_per_s:,.0f}", seconds, _waited(done))
    return table


def _waited(done: Pass) -> str:
    return f"{done.wait_s / max(done.seconds, 1e-9):.0%}"


def _summary(
    console: Console, training: Training, comparison: Comparison, kept: Path | None, plot: Path | None
) -> None:
    from hepfeed.demo import SPEC_NAME

    accuracy = training.epochs[-1].val.accuracy
    console.print(
        f"[bold green]from its cache hepfeed loads {comparison.ratio:,.0f} times as many events a second as torch's"
        f" loader does event by event;[/] {accuracy:.0%} of the validation events are classified rightly, 25% would be"
        " chance."
    )
    if kept is not None:
        console.print(f"The events are in {kept}; look at them: hepfeed check {kept / SPEC_NAME}", markup=False)
    if plot is not None:
        console.print(f"The figure is in {plot}", markup=False)
    console.print("Your own events: hepfeed spec DIR -o my.yaml, then hepfeed check my.yaml, and in Python:")
    console.print('  provider = hepfeed.DataProvider("my.yaml", batch_size=128)')
    console.print("  for batch in provider.train: ...")


def _table(title: str, *headers: str) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for number, header in enumerate(headers):
        table.add_column(header, justify="right" if number else "left")
    return table
