"""``hepfeed bench kernels``: kernels against their rivals and against what the device can do."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hepfeed.cli.bench_output import JsonFile, PlotFile, PlotStyle, StyleOption, deliver, numbers_of

if TYPE_CHECKING:
    from hepfeed.bench.cards import Card
    from hepfeed.bench.kernels import Row


class Device(str, Enum):
    """Where kernels run."""

    cpu = "cpu"
    cuda = "cuda"


def register(app: typer.Typer) -> None:
    """Add ``kernels`` to ``app``."""
    app.command("kernels")(kernels)


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
    json: JsonFile = None,
    plot: PlotFile = None,
    style: StyleOption = PlotStyle.default,
) -> None:
    """Time kernel maps and [bold]sparse convolutions[/], forward and backward, on tracks and on calorimeter images.

    Every result is compared with float64 before it is timed. Rivals that are installed take turns with hepfeed in the
    same process: spconv, TorchSparse, torch's gather, mm and scatter, and its dense convolution where the images fit
    into memory. The [bold]bound[/] is what the device can't beat, computed from its peaks: it is not measured.

    [bold]Examples[/]

        hepfeed bench kernels --sites 20000 --channels 16,64

        hepfeed bench kernels --device cuda --json kernels.json
    """
    from dataclasses import asdict

    import torch

    from hepfeed.bench.cards import card_of
    from hepfeed.bench.kernels import KINDS, bench_kernels
    from hepfeed.bench.record import Record
    from hepfeed.errors import SpecError
    from hepfeed.progress import progress_bars

    place = torch.device(device.value)
    if place.type == "cuda":
        from hepfeed.device import native

        native.kernels()
    counts, widths = numbers_of("sites", sites), numbers_of("channels", channels)
    if any(count % 16 for count in counts):
        raise SpecError(f"--sites must be multiples of 16, the number of events, not {sites}")
    default = "float32,bfloat16" if place.type == "cpu" else ",".join(KINDS)
    kinds: list[Any] = [name.strip() for name in (numbers or default).split(",")]
    for kind in kinds:
        if kind not in KINDS:
            raise SpecError(f"--numbers must be some of {', '.join(KINDS)}, not {kind!r}")
    if threads is not None:
        torch.set_num_threads(threads)
    card = card_of(place)
    name = _name(place)
    total = len(counts) * (2 + 4 * len(widths) * len(kinds)) + 2 * len(kinds)
    rows: list[Row] = []
    with progress_bars() as progress:
        for row in bench_kernels(place, counts, widths, kinds, rounds, card):
            rows.append(row)
            progress("kernels", len(rows), total)
    absent = dict.fromkeys(pair for row in rows for pair in row.absent.items())
    notes = [f"{side} did not take part in some rows: {reason}" for side, reason in absent]
    notes.append(f"bound, not measured: {_peaks(card)}")
    settings = {
        "device": name,
        "threads": torch.get_num_threads() if place.type == "cpu" else None,
        "numbers": list(kinds),
        "peaks": asdict(card),
    }
    title = f"{name}: medians of {rounds} rounds, ms"
    deliver(Record.now("kernels", title, settings, [asdict(row) for row in rows], notes), json, plot, style)


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
