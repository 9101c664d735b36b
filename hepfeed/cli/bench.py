"""``hepfeed bench``: how fast it is here, against its rivals and against what the machine can do."""

from __future__ import annotations

import importlib

import typer

_COMMANDS = ("feed", "gpu", "kernels", "report")


def register(app: typer.Typer) -> None:
    """Add ``bench`` to ``app``."""
    group = typer.Typer(
        help="Measure hepfeed on this machine, against its rivals and its peaks.",
        no_args_is_help=True,
        rich_markup_mode="rich",
    )
    for name in _COMMANDS:
        importlib.import_module(f"hepfeed.cli.bench_{name}").register(group)
    app.add_typer(group, name="bench")
