"""The ``hepfeed`` command."""

from __future__ import annotations

import importlib
import sys

import typer
from rich.console import Console
from rich.markup import escape

from hepfeed.errors import HepfeedError

COMMANDS = ("demo", "spec", "check", "stats", "convert", "cache", "synthetic", "bench", "top")

app = typer.Typer(
    name="hepfeed",
    help="Feed particle-physics events from HDF5 files to PyTorch, as fast as the machine allows.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
for _name in COMMANDS:
    importlib.import_module(f"hepfeed.cli.{_name}").register(app)


def main() -> None:
    """Run the command line; a hepfeed error is printed as one line and exits with 1."""
    try:
        app()
    except HepfeedError as error:
        Console(stderr=True).print(f"[bold red]{type(error).__name__}:[/] {escape(str(error))}", highlight=False)
        sys.exit(1)
