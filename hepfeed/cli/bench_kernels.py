"""``hepfeed bench kernels``: kernels against their rivals and against what the device can do."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hepfeed.cli.bench_output import JsonFile, PlotFile, PlotStyle, StyleOption, deliver, numbers_of

if TYPE_CHECKING:
    from hepfeed.bench.cards import Card
    from hepfeed.bench.row import Row

_GROUPS = ("transforms", "maps", "convolutions")


class Device(str, Enum):
    """Where kernels run."""

    cpu = "cpu"
    cuda = "cuda"


def register(app: typer.Typer) -> None:
    """Add ``kernels`` to ``app``."""
    app.command("kernels")(kernels)


def kernels(
    device: Annotated[Device, typer.Option(help="Where all sides compute.")] = Device.cpu,
    groups: Annotated[str, typer.Option(help="What is measured, separated by commas.")] = ",".join(_GROUPS),
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
    """Time [bold]transforms[/], [bold]kernel maps[/] and [bold]sparse convolutions[/], on images and tracks.

    Transforms and kernel maps are compared with their plain twins before they are timed, convolutions with float64.
    Twins and rivals take turns with hepfeed in the same process: the best form in NumPy and in torch; and, where they
    are installed, spconv and TorchSparse, beside torch's gather, mm and scatter, and its dense convolution where the
    images fit into memory. The [bold]bound[/] is what the device can't beat, computed from its peaks: it is not
    measured. A transform has one thread, as in a reader: give --threads 1 to compare it with one thread of torch.

    [bold]Examples[/]

        hepfeed bench kernels --groups transforms --threads 1

        hepfeed bench kernels --groups maps,convolutions --sites 20000 --channels 16,64

        hepfeed bench kernels --device cuda --json kernels.json
    """
    from dataclasses import asdict
    from itertools import chain

    import torch

    from hepfeed.bench.cards import card_of
    from hepfeed.bench.kernels import KINDS, bench_kernels
    from hepfeed.bench.record import Record
    from hepfeed.bench.transforms import bench_transforms, transform_cases
    from hepfeed.errors import SpecError
    from hepfeed.progress import progress_bars

    place = torch.device(device.value)
    if place.type == "cuda":
        from hepfeed.device import native

        native.kernels()
    asked: list[Any] = [name.strip() for name in groups.split(",")]
    for group in asked:
        if group not in _GROUPS:
            raise SpecError(f"--groups must be some of {', '.join(_GROUPS)}, not {group!r}")
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
    steps = list(transform_cases(place)) if "transforms" in asked else []
    of_maps, of_convolutions = 2 * len(counts), (4 * len(counts) * len(widths) + 2) * len(kinds)
    total = len(steps) + of_maps * ("maps" in asked) + of_convolutions * ("convolutions" in asked)
    rows: list[Row] = []
    left_out: list[str] = []
    with progress_bars() as progress:
        for row in chain(
            bench_transforms(steps, place, rounds, card),
            bench_kernels(place, counts, widths, kinds, rounds, card, asked),
        ):
            if row.seconds:
                rows.append(row)
            else:
                left_out.append(f"{row.what}: hepfeed does not take part, {row.absent['hepfeed']}")
            progress("kernels", len(rows) + len(left_out), total)
    absent = dict.fromkeys(pair for row in rows for pair in row.absent.items())
    notes = [*left_out, *(f"{side} did not take part in some rows: {reason}" for side, reason in absent)]
    notes.append(f"bound, not measured: computed from {_peaks(card, {KINDS[kind][1] for kind in kinds})}")
    settings = {
        "device": name,
        "groups": list(asked),
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
    threads = torch.get_num_threads()
    return f"{processor()}, {threads} thread{'' if threads == 1 else 's'}"


def _peaks(card: Card, kinds: set[str]) -> str:
    """Say the peaks that the bounds of some kinds of numbers are computed from."""
    names = {"16": "bfloat16 and float16"}
    rates = ", ".join(
        f"{names.get(kind, kind)} {rate / 1e12:,.3g} TFLOP/s" for kind, rate in card.flops.items() if kind in kinds
    )
    return f"{card.bandwidth / 1e9:,.0f} GB/s, {rates} ({card.source})"
