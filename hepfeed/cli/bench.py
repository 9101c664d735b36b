"""``hepfeed bench``: how fast it is here, against its rivals and against what the machine can do."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from hepfeed.bench.cards import Card
    from hepfeed.bench.kernels import Kind, Row

_WIDTH = 180
"""Columns of the table in a file or a pipe."""


class Device(str, Enum):
    """Where kernels run."""

    cpu = "cpu"
    cuda = "cuda"


def register(app: typer.Typer) -> None:
    """Add ``bench`` to ``app``."""
    group = typer.Typer(help="Measure hepfeed on this machine, against its rivals and its peaks.", no_args_is_help=True)
    group.command("kernels")(kernels)
    app.add_typer(group, name="bench")


def kernels(
    device: Annotated[Device, typer.Option(help="Where all sides compute.")] = Device.cpu,
    sites: Annotated[str, typer.Option(help="Active sites of 16 events, separated by commas.")] = "20000,100000",
    channels: Annotated[str, typer.Option(help="Of the layers, separated by commas.")] = "16,32,64,128",
    numbers: Annotated[
        str | None,
        typer.Option(
            help="float32, tf32, bfloat16, float16, separated by commas.",
            show_default="float32,bfloat16; on cuda all",
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="In which all sides take turns.")] = 5,
    threads: Annotated[int | None, typer.Option(min=1, help="Of torch, on the CPU.", show_default="torch's")] = None,
    output: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all times, with the machine's names.")
    ] = None,
) -> None:
    """Time kernel maps and [bold]sparse convolutions[/], forward and backward, on tracks and on calorimeter images.

    Every result is compared with float64 before it is timed. Rivals that are installed take turns with hepfeed in the
    same process: spconv, TorchSparse, torch's gather, mm and scatter, and its dense convolution where the images fit
    into memory. The [bold]bound[/] is what the device can't beat, computed from its peaks: it is not measured.

    [bold]Examples[/]

        hepfeed bench kernels --sites 20000 --channels 16,64

        hepfeed bench kernels --device cuda --json kernels.json
    """
    import torch
    from rich.console import Console

    from hepfeed.bench.cards import card_of
    from hepfeed.bench.kernels import KINDS, bench_kernels
    from hepfeed.errors import SpecError
    from hepfeed.progress import progress_bars

    place = torch.device(device.value)
    if place.type == "cuda":
        from hepfeed.device import native

        native.kernels()
    counts, widths = _numbers("sites", sites), _numbers("channels", channels)
    if any(count % 16 for count in counts):
        raise SpecError(f"--sites must be multiples of 16, the number of events, not {sites}")
    default = "float32,bfloat16" if place.type == "cpu" else ",".join(KINDS)
    kinds: list[Any] = [name.strip() for name in (numbers or default).split(",")]
    for kind in kinds:
        if kind not in KINDS:
            raise SpecError(f"--numbers must be some of {', '.join(KINDS)}, not {kind!r}")
    if threads is not None:
        torch.set_num_threads(threads)
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    card = card_of(place)
    name = _name(place)
    total = len(counts) * (2 + 4 * len(widths) * len(kinds)) + 2 * len(kinds)
    rows: list[Row] = []
    with progress_bars() as progress:
        for row in bench_kernels(place, counts, widths, kinds, rounds, card):
            rows.append(row)
            progress("kernels", len(rows), total)
    console.print(_table(rows, f"{name}: medians of {rounds} rounds, ms"))
    for side, reason in dict.fromkeys(pair for row in rows for pair in row.absent.items()):
        console.print(f"{side} did not take part in some rows: {reason}", highlight=False, markup=False)
    console.print(f"bound, not measured: {_peaks(card)}", highlight=False, markup=False)
    if output is not None:
        output.write_text(json.dumps(_record(rows, name, place, card, kinds), indent=1))


def _numbers(option: str, text: str) -> list[int]:
    from hepfeed.errors import SpecError

    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise SpecError(f"--{option} must be integers of 1 or more, separated by commas, not {text!r}")
    return numbers


def _name(device: Any) -> str:
    """What the system calls a device."""
    import torch

    from hepfeed.bench.clock import processor

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor()}, {torch.get_num_threads()} threads"


def _peaks(card: Card) -> str:
    rates = ", ".join(f"{kind} {rate / 1e12:,.3g} TFLOP/s" for kind, rate in card.flops.items())
    return f"{card.bandwidth / 1e9:,.0f} GB/s, {rates} ({card.source})"


def _table(rows: Sequence[Row], title: str) -> Table:
    import numpy as np
    from rich.table import Table

    from hepfeed.bench.clock import milliseconds

    rivals = [name for name in dict.fromkeys(side for row in rows for side in row.seconds) if name != "hepfeed"]
    table = Table(title=title)
    for column in ("what", "bound", "hepfeed", "of bound"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for name in rivals:
        table.add_column(name, justify="right")
    for row in rows:
        cells = [
            row.what,
            milliseconds(row.bound),
            milliseconds(float(np.median(row.seconds["hepfeed"]))),
            f"{100 * row.of_bound():.0f} %",
        ]
        for name in rivals:
            there = name in row.seconds
            cells.append(
                f"{milliseconds(float(np.median(row.seconds[name])))} ({row.ratio(name):.2f} x)" if there else ""
            )
        table.add_row(*cells)
    return table


def _record(rows: Sequence[Row], name: str, device: Any, card: Card, kinds: Sequence[Kind]) -> dict[str, Any]:
    """What is written as JSON."""
    from dataclasses import asdict

    import torch

    import hepfeed

    return {
        "hepfeed": hepfeed.__version__,
        "torch": torch.__version__,
        "device": name,
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "numbers": list(kinds),
        "peaks": asdict(card),
        "rows": [asdict(row) for row in rows],
    }
