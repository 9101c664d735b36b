"""``hepfeed convert``: other formats into HDF5 events."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hepfeed.progress import progress_bars

if TYPE_CHECKING:
    from hepfeed.convert import Converted

_MOST_LINES = 20  # of what was skipped or left out; attributes of the files have all


class Form(str, Enum):
    """How an image is stored."""

    dense = "dense"
    sparse = "sparse"


class PixelMapForm(str, Enum):
    """How a pixel map is stored."""

    dense = "dense"
    sparse = "sparse"
    both = "both"


class OnError(str, Enum):
    """What to do with damaged events."""

    raise_ = "raise"
    skip = "skip"


Sources = Annotated[list[Path], typer.Argument(metavar="SRC", help="Files, globs or directories.")]
Out = Annotated[
    Path,
    typer.Option("--out", "-o", help="Folder to write OUT/events_K.h5 into, or OUT/CLASS/CLASS_K.h5 for a directory."),
]
Threshold = Annotated[float, typer.Option(min=0, help="A site is kept where |value| is larger; with --form sparse.")]
Images = Annotated[
    list[str] | None,
    typer.Option(
        "--image",
        help="Key that is an image; repeat it. With --form sparse.",
        show_default="those with two axes",
    ),
]
EventsPerFile = Annotated[int, typer.Option(min=1, help="Most events in one file.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes, at most one a file.", show_default="one a core")]
Level = Annotated[int, typer.Option(min=0, max=9, help="Deflate level: 0 stores as it is, 9 is the smallest.")]
Error = Annotated[OnError, typer.Option("--on-error", help="Stop at damaged events, or skip, count and report them.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Write again what an earlier run finished, instead of keeping it.")
]


def register(app: typer.Typer) -> None:
    """Add ``convert`` and its formats to ``app``."""
    formats = typer.Typer(
        help="Convert other formats into HDF5 events: one command a format.",
        no_args_is_help=True,
        rich_markup_mode="rich",
    )
    formats.command("npz")(npz)
    formats.command("root")(root)
    formats.command("larcv")(larcv)
    formats.command("dune-cvn")(dune_cvn)
    app.add_typer(formats, name="convert")


def npz(
    sources: Sources,
    out: Out,
    keys: Annotated[
        list[str] | None, typer.Option("--key", "-k", help="Array, or glob of them; repeat it.", show_default="all")
    ] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read arrays of objects, of files that you [bold]trust[/].")
    ] = False,
    form: Annotated[Form, typer.Option(help="Images as they are, or only their occupied sites.")] = Form.dense,
    threshold: Threshold = 0.0,
    images: Images = None,
    events_per_file: EventsPerFile = 10_000,
    workers: Workers = None,
    level: Level = 4,
    on_error: Error = OnError.raise_,
    overwrite: Overwrite = False,
) -> None:
    """Convert [bold]NumPy archives[/] (.npz): each array by its name, the first axis counts events.

    Arrays of objects become values with offsets. Below a directory, each folder is a class.

    [bold]Examples[/]

    All arrays of one file:

    [cyan]$ hepfeed convert npz jets.npz --out h5/[/]

    A folder a class, two of the arrays, only the occupied pixels above 0.5:

    [cyan]$ hepfeed convert npz raw/ --out h5/ -k image -k energy --form sparse --threshold 0.5[/]

    Clouds of any number of points, one array an event:

    [cyan]$ hepfeed convert npz 'clouds_*.npz' --out h5/ --allow-pickle[/]
    """
    from hepfeed.convert import convert_npz

    _run(
        convert_npz,
        sources,
        out,
        keys=keys,
        allow_pickle=allow_pickle,
        form=form.value,
        threshold=threshold,
        images=images,
        events_per_file=events_per_file,
        workers=workers,
        level=level,
        on_error=on_error.value,
        overwrite=overwrite,
    )


def root(
    sources: Sources,
    out: Out,
    trees: Annotated[
        list[str] | None,
        typer.Option("--tree", "-t", help="Tree, or glob of them; repeat it.", show_default="the only one"),
    ] = None,
    branches: Annotated[
        list[str] | None,
        typer.Option("--branches", "-b", help="Branch, or glob of them; repeat it.", show_default="all"),
    ] = None,
    form: Annotated[Form, typer.Option(help="Images as they are, or only their occupied sites.")] = Form.dense,
    threshold: Threshold = 0.0,
    images: Images = None,
    events_per_file: EventsPerFile = 10_000,
    workers: Workers = None,
    level: Level = 4,
    on_error: Error = OnError.raise_,
    overwrite: Overwrite = False,
) -> None:
    """Convert [bold]ROOT trees and RNTuples[/]: an entry is an event, a branch is a key.

    Arrays of one shape stay arrays; those of any length become values with offsets. Needs uproot.

    [bold]Examples[/]

    The muons and the missing energy of NanoAOD:

    [cyan]$ hepfeed convert root nano/*.root --out h5/ -t Events -b 'Muon_*' -b MET_pt[/]

    Delphes, a folder a class, larger files:

    [cyan]$ hepfeed convert root delphes/ --out h5/ -t Delphes -b 'Jet.*' --events-per-file 100000[/]

    Go on where an interrupted conversion was, and past damaged entries:

    [cyan]$ hepfeed convert root nano/*.root --out h5/ -t Events --on-error skip[/]
    """
    from hepfeed.convert import convert_root

    _run(
        convert_root,
        sources,
        out,
        trees=trees,
        branches=branches,
        form=form.value,
        threshold=threshold,
        images=images,
        events_per_file=events_per_file,
        workers=workers,
        level=level,
        on_error=on_error.value,
        overwrite=overwrite,
    )


def larcv(
    sources: Sources,
    out: Out,
    products: Annotated[
        list[str] | None,
        typer.Option("--product", "-p", help="Product, or glob of them; repeat it.", show_default="all"),
    ] = None,
    form: Annotated[Form, typer.Option(help="Occupied voxels, or whole images.")] = Form.sparse,
    threshold: Annotated[float, typer.Option(min=0, help="A voxel is kept where |value| is larger; 0 keeps all.")] = 0,
    events_per_file: EventsPerFile = 10_000,
    workers: Workers = None,
    level: Level = 4,
    on_error: Error = OnError.raise_,
    overwrite: Overwrite = False,
) -> None:
    """Convert [bold]larcv3[/] files: sparse images in 2D and 3D, particles, and event numbers.

    [bold]Examples[/]

    Everything that can be converted:

    [cyan]$ hepfeed convert larcv sim_*.h5 --out h5/[/]

    One product, its voxels above 0.01, small files:

    [cyan]$ hepfeed convert larcv sim/ --out h5/ -p sparse3d_pcluster --threshold 0.01 --level 9[/]

    Images of three wire planes, whole:

    [cyan]$ hepfeed convert larcv sim/ --out h5/ -p 'sparse2d_*' --form dense --events-per-file 500[/]
    """
    from hepfeed.convert import convert_larcv

    _run(
        convert_larcv,
        sources,
        out,
        products=products,
        form=form.value,
        threshold=threshold,
        events_per_file=events_per_file,
        workers=workers,
        level=level,
        on_error=on_error.value,
        overwrite=overwrite,
    )


def dune_cvn(
    source: Annotated[
        Path,
        typer.Argument(metavar="SRC", help="Folder with one folder a class of eventN.gz and eventN.info."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write OUT/CLASS/CLASS_K.h5 into.")],
    form: Annotated[
        PixelMapForm, typer.Option(help="Dense images, sparse hits with offsets, or both.")
    ] = PixelMapForm.dense,
    events_per_file: EventsPerFile = 100,
    workers: Workers = None,
    level: Level = 4,
    on_error: Error = OnError.raise_,
    overwrite: Overwrite = False,
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
    from hepfeed.convert import convert_dune_cvn

    _run(
        convert_dune_cvn,
        source,
        out,
        form=form.value,
        events_per_file=events_per_file,
        workers=workers,
        level=level,
        on_error=on_error.value,
        overwrite=overwrite,
    )


def _run(function: Callable[..., Converted], sources: Path | list[Path], out: Path, **options: Any) -> None:
    """Convert with progress bars, and print what came of it."""
    from rich.console import Console
    from rich.filesize import decimal

    with progress_bars() as progress:
        converted = function(sources, out, progress=progress, **options)
    console = Console(highlight=False)
    size = sum(Path(path).stat().st_size for path in converted)
    kept = f" ({converted.kept} of them from an earlier run)" if converted.kept else ""
    files, events = _count(len(converted), "file"), _count(converted.events, "event")
    console.print(f"{files}{kept}, {events}, {decimal(size)}, in {out}", soft_wrap=True)
    for name, reason in list(converted.left_out.items())[:_MOST_LINES]:
        console.print(f"left out: {name}: {reason}", markup=False, soft_wrap=True)
    if len(converted.left_out) > _MOST_LINES:
        console.print(f"and {len(converted.left_out) - _MOST_LINES} more, see the attribute left_out")
    if converted.skipped:
        unknown = sum(each.events is None for each in converted.skipped)
        what = _count(converted.skipped_events, "event") + (f" and {_count(unknown, 'whole file')}" if unknown else "")
        console.print(f"[bold red]skipped {what}[/] that are damaged:", soft_wrap=True)
        for each in converted.skipped[:_MOST_LINES]:
            console.print(f"  {each.fault.message}", markup=False, soft_wrap=True)
        if len(converted.skipped) > _MOST_LINES:
            console.print(f"  and {len(converted.skipped) - _MOST_LINES} more")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
