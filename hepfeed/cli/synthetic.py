"""``hepfeed synthetic``: write physics-like events."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

if TYPE_CHECKING:
    import h5py
    from rich.console import Console

    from hepfeed.synthetic.event import EventGenerator
    from hepfeed.synthetic.writer import WriterOptions


class Compression(str, Enum):
    """How to compress."""

    NONE = "none"
    GZIP = "gzip"
    LZF = "lzf"
    ZSTD = "zstd"
    BLOSC = "blosc"


class Schema(str, Enum):
    """Layout of calorimeter files."""

    V1 = "v1"
    NESTED = "nested"


Directory = Annotated[Path, typer.Argument(help="Where to; each class gets a directory in it.", file_okay=False)]
Files = Annotated[int, typer.Option(help="Files of each class.", min=1)]
Events = Annotated[int, typer.Option(help="Events in each file.", min=1)]
Chunks = Annotated[
    str,
    typer.Option(
        help="Events in an HDF5 chunk, or [bold]auto[/] (h5py's own choice, which cuts events into pieces), "
        "or [bold]contiguous[/]."
    ),
]
Codec = Annotated[Compression, typer.Option(help="How to compress; zstd and blosc need hdf5plugin.")]
Level = Annotated[int, typer.Option(help="Of gzip, zstd and blosc.", min=0, max=9)]
Shuffle = Annotated[bool, typer.Option(help="Shuffle bytes before compression.")]
Seed = Annotated[int, typer.Option(help="Same seed, same bits.", min=0)]
IsRagged = Annotated[bool, typer.Option("--ragged", help="Write points with offsets instead of images.")]
Workers = Annotated[int | None, typer.Option(help="Processes; one a CPU if left out.", min=1)]
Plot = Annotated[Path | None, typer.Option(help="Draw the mean profiles of each class into this file.", dir_okay=False)]


def register(app: typer.Typer) -> None:
    """Add ``hepfeed synthetic`` and its commands."""
    group = typer.Typer(
        help="Write physics-like events, from published parametrisations of showers and tracks.",
        no_args_is_help=True,
        rich_markup_mode="rich",
    )
    group.command("lcd")(lcd)
    group.command("lartpc")(lartpc)
    group.command("next")(next_)
    group.command("vertices")(vertices)
    app.add_typer(group, name="synthetic")


def lcd(
    directory: Directory,
    files: Files = 4,
    events: Events = 1000,
    energy: Annotated[tuple[float, float], typer.Option(help="Lowest and highest energy in GeV.")] = (
        10.0,
        500.0,
    ),
    schema: Annotated[Schema, typer.Option(help="Names of the data sets.")] = Schema.V1,
    chunks: Chunks = "auto",
    compression: Codec = Compression.GZIP,
    level: Level = 4,
    shuffle: Shuffle = False,
    seed: Seed = 0,
    ragged: IsRagged = False,
    workers: Workers = None,
    plot: Plot = None,
) -> None:
    """Electrons, photons, neutral and charged pions in the CLIC calorimeters.

    [bold]Examples[/]

    hepfeed synthetic lcd data/lcd

    hepfeed synthetic lcd data/lcd --files 10 --events 10000 --chunks 100 --plot profiles.png

    hepfeed synthetic lcd data/sparse --ragged --schema nested --compression none
    """
    from hepfeed.synthetic.lcd import KINDS, LcdGenerator

    generators = [LcdGenerator(name, energy, schema.value) for name in KINDS]
    options = _options(chunks, compression, level, shuffle, ragged, workers)
    _write(directory, generators, files, events, seed, options, plot)


def lartpc(
    directory: Directory,
    files: Files = 4,
    events: Events = 100,
    energy: Annotated[tuple[float, float], typer.Option(help="Lowest and highest kinetic energy in MeV.")] = (
        100.0,
        800.0,
    ),
    shape: Annotated[tuple[int, int], typer.Option(help="Wires and time bins of an image.")] = (240, 4096),
    chunks: Chunks = "auto",
    compression: Codec = Compression.GZIP,
    level: Level = 4,
    shuffle: Shuffle = False,
    seed: Seed = 0,
    ragged: IsRagged = False,
    workers: Workers = None,
    plot: Plot = None,
) -> None:
    """Muons, pions, protons, electrons and photons in liquid argon, on two wire planes.

    [bold]Examples[/]

    hepfeed synthetic lartpc data/lartpc --shape 240 512

    hepfeed synthetic lartpc data/points --ragged --events 10000
    """
    from hepfeed.synthetic.lartpc import CLASSES, LartpcGenerator

    generators = [LartpcGenerator(name, energy, shape) for name in CLASSES]
    options = _options(chunks, compression, level, shuffle, ragged, workers)
    _write(directory, generators, files, events, seed, options, plot)


def next_(
    directory: Directory,
    files: Files = 4,
    events: Events = 1000,
    pressure: Annotated[float, typer.Option(help="Of the xenon, in bar.")] = 15.0,
    chunks: Chunks = "auto",
    compression: Codec = Compression.GZIP,
    level: Level = 4,
    shuffle: Shuffle = False,
    seed: Seed = 0,
    ragged: IsRagged = False,
    workers: Workers = None,
    plot: Plot = None,
) -> None:
    """Double beta decays and single electrons in high-pressure xenon.

    [bold]Examples[/]

    hepfeed synthetic next data/next --chunks 64

    hepfeed synthetic next data/hits --ragged --pressure 10 --plot next.png
    """
    from hepfeed.synthetic.next_tracks import CLASSES, NextGenerator

    generators = [NextGenerator(name, pressure) for name in CLASSES]
    options = _options(chunks, compression, level, shuffle, ragged, workers)
    _write(directory, generators, files, events, seed, options, plot)


def vertices(
    directory: Directory,
    files: Files = 4,
    events: Events = 100,
    energy: Annotated[
        tuple[float, float], typer.Option(help="Lowest and highest kinetic energy of each particle in MeV.")
    ] = (50.0, 300.0),
    tracks: Annotated[tuple[int, int], typer.Option(help="Smallest and largest number of tracks.")] = (1, 3),
    showers: Annotated[tuple[int, int], typer.Option(help="Smallest and largest number of showers.")] = (1, 2),
    shape: Annotated[tuple[int, int], typer.Option(help="Wires and time bins of an image.")] = (240, 4096),
    chunks: Chunks = "auto",
    compression: Codec = Compression.GZIP,
    level: Level = 4,
    shuffle: Shuffle = False,
    seed: Seed = 0,
    ragged: IsRagged = False,
    workers: Workers = None,
    plot: Plot = None,
) -> None:
    """Tracks and showers from a common point in liquid argon; the points have the class of their trace.

    [bold]Examples[/]

    hepfeed synthetic vertices data/vertices --ragged

    hepfeed synthetic vertices data/showers --ragged --tracks 0 0 --showers 1 4 --events 10000
    """
    from hepfeed.synthetic.vertices import VertexGenerator

    options = _options(chunks, compression, level, shuffle, ragged, workers)
    _write(directory, [VertexGenerator(energy, tracks, showers, shape)], files, events, seed, options, plot)


def _options(
    chunks: str, compression: Compression, level: int, shuffle: bool, ragged: bool, workers: int | None
) -> WriterOptions:
    codec = None if compression is Compression.NONE else compression.value
    # The writer says what is wrong with a word that it doesn't know.
    wanted = int(chunks) if chunks.isdecimal() else cast(Literal["auto", "contiguous"], chunks)
    return {
        "chunks": wanted,
        "compression": codec,
        "level": level,
        "shuffle": shuffle,
        "ragged": ragged,
        "workers": workers,
    }


def _write(
    directory: Path,
    generators: Sequence[EventGenerator],
    files: int,
    events: int,
    seed: int,
    options: WriterOptions,
    plot: Path | None,
) -> None:
    from rich.console import Console

    from hepfeed.synthetic.profile import plot_profiles
    from hepfeed.synthetic.writer import write_classes

    console = Console()
    with _progress(console, len(generators) * files * events) as advance:
        options["progress"] = advance
        lecture = write_classes(directory, generators, files=files, events=events, seed=seed, **options)
    _print_table(console, lecture)
    if plot is not None:
        plot_profiles(plot, generators, seed=seed)
        console.print(f"profiles in {plot}", highlight=False)


@contextmanager
def _progress(console: Console, events: int) -> Iterator[Callable[[int], None]]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("writing"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} events"),
        TextColumn("{task.fields[rate]:.0f} events/s"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=events, rate=0.0)

        def advance(count: int) -> None:
            progress.advance(task, count)
            state = progress.tasks[0]
            progress.update(task, rate=state.completed / max(state.elapsed or 0, 1e-3))

        yield advance


def _print_table(console: Console, lecture: list[list[Any]]) -> None:
    import h5py
    from rich.table import Table

    table = Table("class", "files", "events", "size", "occupancy")
    for column in table.columns[1:]:
        column.justify = "right"
    for pattern, *_ in lecture:
        paths = sorted(Path(path) for path in glob(pattern))
        events, occupancy = 0, ""
        for path in paths:
            with h5py.File(path) as file:
                events += int(file.attrs["events"])
                occupancy = ", ".join(_occupancy(file))
        size = sum(path.stat().st_size for path in paths)
        table.add_row(paths[0].parent.name, str(len(paths)), str(events), f"{size / 1e6:.1f} MB", occupancy)
    console.print(table)


def _occupancy(file: h5py.File) -> list[str]:
    """Phrase how full each image of a file is, or how many rows an event has."""
    found: list[str] = []

    def visit(name: str, node: h5py.Dataset | h5py.Group) -> None:
        if "occupancy" in node.attrs:
            found.append(f"{name.rsplit('/', 1)[-1]} {100 * node.attrs['occupancy']:.2g} %")
        if "mean_rows" in node.attrs:
            found.append(f"{name.rpartition('/')[0]} {node.attrs['mean_rows']:.0f} rows/event".lstrip())

    file.visititems(visit)
    return found
