"""``hepfeed convert``: other formats into HDF5 events."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Form(str, Enum):
    """How a pixel map is stored."""

    dense = "dense"
    sparse = "sparse"
    both = "both"


def register(app: typer.Typer) -> None:
    """Add ``convert`` and its formats to ``app``."""
    formats = typer.Typer(
        help="Convert other formats into HDF5 events: one command a format.",
        no_args_is_help=True,
        rich_markup_mode="rich",
    )

    # A callback keeps the format a command of its own while there is only one.
    @formats.callback()
    def convert() -> None:
        pass

    formats.command("dune-cvn")(dune_cvn)
    app.add_typer(formats, name="convert")


def dune_cvn(
    source: Annotated[
        Path,
        typer.Argument(metavar="SRC", help="Folder with one folder a class of eventN.gz and eventN.info."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write OUT/CLASS/CLASS_K.h5 into.")],
    form: Annotated[Form, typer.Option(help="Dense images, sparse hits with offsets, or both.")] = Form.dense,
    events_per_file: Annotated[int, typer.Option(min=1, help="Most events in one file.")] = 100,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes, at most one a file.", show_default="one a core")
    ] = None,
    level: Annotated[int, typer.Option(min=0, max=9, help="Deflate level: 0 stores as it is, 9 is the smallest.")] = 4,
) -> None:
    """Convert [bold]DUNE CVN pixel maps[/] (zlib streams of 3 x 500 x 500 bytes) into HDF5, a folder a class.

    Every event keeps its truth: info (15 lines), energy and lepton_energy in GeV, pdg, n_hits, event_number.

    [bold]Examples[/]

    Images, one event a chunk:

    [cyan]$ hepfeed convert dune-cvn raw/ h5/[/]

    Only the pixels above 0, as coordinates, values and offsets:

    [cyan]$ hepfeed convert dune-cvn raw/ h5/ --form sparse --level 6[/]

    Both, fewer and larger files, 8 processes:

    [cyan]$ hepfeed convert dune-cvn raw/ h5/ --form both --events-per-file 500 --workers 8[/]
    """
    from rich.console import Console
    from rich.filesize import decimal
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from hepfeed.convert import convert_dune_cvn

    console = Console()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("events"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("converting", total=None)
        paths = convert_dune_cvn(
            source,
            out,
            form=form.value,
            events_per_file=events_per_file,
            workers=workers,
            level=level,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    size = sum(Path(path).stat().st_size for path in paths)
    console.print(f"{len(paths)} files, {decimal(size)}, in {out}", highlight=False)
