"""``hepfeed spec``: crawl a directory tree into a sample specification."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from hepfeed.crawl import Survey


class LabelSource(str, Enum):
    """Where the label of a file comes from."""

    directory = "directory"
    filename = "filename"


def register(app: typer.Typer) -> None:
    """Add ``spec`` to ``app``."""
    app.command("spec")(spec)


def spec(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory with HDF5 files, however deep.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write .yaml or .json; default: print YAML."),
    ] = None,
    keys: Annotated[
        list[str] | None,
        typer.Option(help="Data set to feed, again for each or separated by commas; default: all in common."),
    ] = None,
    label: Annotated[
        LabelSource | None,
        typer.Option(
            help="What names a class.",
            show_default="directory, or file prefix where one directory has several",
        ),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Rate of every class; default: as many events as there are.")
    ] = None,
    filter_: Annotated[
        str | None, typer.Option("--filter", metavar="EXPR", help="Which events to keep, of all classes.")
    ] = None,
) -> None:
    """Crawl a [bold]directory tree[/] of HDF5 files into a sample specification, one class a directory.

    Where one directory holds files of several prefixes, such as EleEscan_1.h5 and ChPiEscan_1.h5, a class is
    a prefix.  Keys are those that all classes have: data sets with one row an event, and events of different
    lengths in any layout that [cyan]hepfeed check[/] knows.

    [bold]Examples[/]

    Look at a tree, and keep what it says:

    [cyan]$ hepfeed spec data/ > lcd.yaml[/]

    Two keys, the classes in equal parts, events above 60 GeV:

    [cyan]$ hepfeed spec data/ -o lcd.yaml --keys ECAL,HCAL --rate 1 --filter 'Energy > 60'[/]

    Classes by file prefix in any directory:

    [cyan]$ hepfeed spec data/ --label filename -o lcd.json[/]
    """
    from rich.console import Console
    from rich.progress import track

    from hepfeed.crawl import survey

    notes = Console(stderr=True, highlight=False)
    found = survey(
        directory,
        label=label.value if label else None,
        track=lambda files: track(files, "Opening files", console=notes, transient=True),
    )
    for why in found.skipped.values():
        notes.print(f"warning: left out: {why}", style="yellow", markup=False)
    notes.print(_table(found))
    names = [name for given in keys or () for name in given.split(",") if name]
    made = found.spec(keys=names, rate=rate, filter=filter_)
    if output is None:
        typer.echo(made.to_yaml(), nl=False)
        return
    made.save(output)
    notes.print(f"{len(made.samples)} classes, {len(made.files)} files: wrote {output}", markup=False)


def _table(found: Survey) -> Table:
    """Show each class with what its first file holds."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(found.directory), title_justify="left")
    table.add_column("class")
    table.add_column("files", justify="right")
    table.add_column("events in the first", justify="right")
    table.add_column("keys of the first: shape of an event, type")
    for sort in found.classes:
        lines = Text("\n").join(
            Text(f"{key} {f'rows of {shape}' if key in sort.jagged else shape} {dtype}")
            for key, (shape, dtype) in sort.keys.items()
        )
        for key, why in sort.left_out.items():
            lines.append(f"{lines and chr(10)}{key}: {why}", style="dim")
        table.add_row(Text(sort.label), f"{len(sort.files):,}", f"{sort.events:,}", lines)
    return table
