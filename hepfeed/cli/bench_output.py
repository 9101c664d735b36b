"""What becomes of a benchmark's results: tables on the terminal, JSON, plots; and how its options are read."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hepfeed.errors import SpecError

if TYPE_CHECKING:
    from rich.console import Console

    from hepfeed.bench.record import Record

__all__ = [
    "JsonFile",
    "PlotFile",
    "PlotStyle",
    "StyleOption",
    "deliver",
    "file_to_write",
    "numbers_of",
    "wide_console",
]

_WIDTH = 180
"""Columns of a table in a file or a pipe."""


class PlotStyle(str, Enum):
    """Of plots."""

    default = "default"
    mplhep = "mplhep"


def file_to_write(path: Path | None) -> Path | None:
    """Return the path of a file to write, as an option's callback: before anything is measured.

    Raises:
        SpecError: Its folder is not there, it is a folder itself, or it may not be written.
    """
    if path is None:
        return None
    if not path.parent.is_dir():
        raise SpecError(f"there is no folder {str(path.parent)!r}: make it first", file=str(path))
    if path.is_dir():
        raise SpecError("this is a folder: give the name of a file", file=str(path))
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise SpecError("it may not be written: give a file elsewhere", file=str(path))
    return path


def _plot_place(path: Path | None) -> Path | None:
    from hepfeed.bench.drawing import check_suffix

    if path is not None:
        check_suffix(path)
    return file_to_write(path)


JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", callback=file_to_write, help="Write all figures as JSON.")
]
PlotFile = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE", callback=_plot_place, help="Draw them: .png, .svg or .pdf.")
]
StyleOption = Annotated[PlotStyle, typer.Option("--style", help="Of the plots; mplhep is an optional package.")]


def wide_console() -> Console:
    """Return the console that tables are printed on, wide enough for them where it is no terminal."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=_WIDTH)


def deliver(record: Record, json: Path | None, plot: Path | None, style: PlotStyle) -> None:
    """Print a record's tables and notes, and write what was asked for.

    Raises:
        SpecError: A suffix is unknown, or the style is not installed.
    """
    from hepfeed.bench.drawing import drawn_in, save_figures
    from hepfeed.bench.views import view_of

    console = wide_console()
    view = view_of(record)
    for sheet in view.sheets(record):
        console.print(sheet)
    for note in record.notes:
        console.print(note, highlight=False, markup=False)
    if json is not None:
        record.save(json)
        console.print(f"wrote {json}", highlight=False, markup=False)
    if plot is not None:
        with drawn_in(style.value):
            for path in save_figures(view.figures(record), plot):
                console.print(f"wrote {path}", highlight=False, markup=False)


def numbers_of(option: str, text: str) -> list[int]:
    """Read integers of 1 or more, separated by commas.

    Raises:
        SpecError: They are something else.
    """
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise SpecError(f"--{option} must be integers of 1 or more, separated by commas, not {text!r}")
    return numbers
