"""``hepfeed bench gpu``: how well a training loop is fed, and how it is fed best."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hepfeed.cli.bench_output import JsonFile, PlotFile, PlotStyle, StyleOption, deliver, file_to_write
from hepfeed.cli.gpu_options import Device, cache_of, grid_of, place_of, refuse, spec_to_write
from hepfeed.errors import SpecError

if TYPE_CHECKING:
    from hepfeed.bench.gpu_loop import Limits
    from hepfeed.bench.gpu_place import Place
    from hepfeed.bench.gpu_sides import Source
    from hepfeed.bench.sweep import Grid

_SECONDS, _SWEEP_SECONDS = 10.0, 3.0


_SWEEP = "Values of a sweep"
_SIMULATED = "Simulated device"


def register(app: typer.Typer) -> None:
    """Add ``gpu`` to ``app``."""
    app.command("gpu")(gpu)


def gpu(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="Specification, .yaml or .json.")],
    device: Annotated[
        Device | None, typer.Option(help="Where the loop trains.", show_default="cuda if there is one, else simulated")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="linear, mlp, cnn, sparse, or package.module:function, called with a batch and the number of classes.",
            show_default="what suits the batches",
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Events of a batch.", show_default="the specification's, or 128")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Readers, and torch's workers.", show_default="the specification's, or 2")
    ] = None,
    prefetch: Annotated[
        int | None, typer.Option(min=1, help="Batches ahead for each.", show_default="the specification's, or 2")
    ] = None,
    cache: Annotated[
        str | None,
        typer.Option(metavar="auto|ram|none|DIR", help="Of hepfeed.", show_default="the specification's, or auto"),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(min=0.01, help="Of each loop.", show_default=f"{_SECONDS:g}; of a sweep {_SWEEP_SECONDS:g}"),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Measured steps of each loop, however long it takes.")
    ] = None,
    epoch: Annotated[bool, typer.Option("--epoch", help="As many steps as an epoch has.")] = False,
    warm_up: Annotated[int, typer.Option(min=1, help="Steps before those that are measured.")] = 50,
    rounds: Annotated[int, typer.Option(min=1, help="In which the sides take turns.")] = 3,
    replay_gb: Annotated[float, typer.Option(min=0.0, help="Most memory of the batches that are replayed.")] = 1.0,
    ahead: Annotated[
        int | None, typer.Option(min=0, help="Steps that the loop is ahead of a GPU.", show_default="1")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the order and of the first weights.")] = 0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of torch, on the CPU.", show_default="cores without a reader")
    ] = None,
    step_ms: Annotated[
        float | None, typer.Option(help="Of a step.", show_default="10", rich_help_panel=_SIMULATED)
    ] = None,
    bus_gb_s: Annotated[
        float | None, typer.Option(help="Of the copies to it.", show_default="12", rich_help_panel=_SIMULATED)
    ] = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Find the best setting of hepfeed.", rich_help_panel=_SWEEP)
    ] = False,
    sweep_workers: Annotated[
        str | None,
        typer.Option(metavar="N,N", help="Readers.", show_default="1, 2, 4 .. cores", rich_help_panel=_SWEEP),
    ] = None,
    sweep_batch_size: Annotated[
        str | None,
        typer.Option(
            metavar="N,N",
            help="Events of a batch; another size is another training.",
            show_default="--batch-size",
            rich_help_panel=_SWEEP,
        ),
    ] = None,
    sweep_prefetch: Annotated[
        str | None,
        typer.Option(metavar="N,N", help="Batches ahead for each reader.", show_default="2,4", rich_help_panel=_SWEEP),
    ] = None,
    sweep_cache: Annotated[
        str | None,
        typer.Option(metavar="CACHE,CACHE", help="As --cache.", show_default="auto,none", rich_help_panel=_SWEEP),
    ] = None,
    write: Annotated[
        bool,
        typer.Option("--write", help="Write the best setting into SPEC, after asking.", rich_help_panel=_SWEEP),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            callback=spec_to_write,
            help="Write it to this file: .yaml or .json.",
            rich_help_panel=_SWEEP,
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Overwrite without asking.", rich_help_panel=_SWEEP)] = False,
    json: JsonFile = None,
    plot: PlotFile = None,
    style: StyleOption = PlotStyle.default,
) -> None:
    """Train through hepfeed, through [bold]torch's DataLoader[/] with h5py, and on batches that are in memory already.

    The last is the [bold]replay[/], the speed if loading were free; the headline is the part of it that hepfeed
    reaches. All sides train the same network on the same events, which are compared with h5py first. A simulated
    device has steps of a fixed time and a bus of a fixed rate, and shows the data wait of a GPU that is not here.

    With [bold]--sweep[/] all combinations of readers, batch size, prefetch and cache are measured. What is given with
    --workers, --prefetch or --cache stays as it is. The best setting goes into the section loader of the
    specification, which DataProvider goes by.

    [bold]Examples[/]

        hepfeed bench gpu lcd.yaml

        hepfeed bench gpu lcd.yaml --device simulated --step-ms 5 --plot waits.png

        hepfeed bench gpu lcd.yaml --device cuda --model mymodels:make --epoch --json gpu.json

        hepfeed bench gpu lcd.yaml --sweep --sweep-workers 1,2,4 --sweep-prefetch 2,4,8 --output tuned.yaml
    """
    from dataclasses import replace

    from hepfeed.bench.gpu_loop import Limits
    from hepfeed.bench.gpu_sides import Source
    from hepfeed.spec import SampleSpec

    if (steps is not None or seconds is not None) and epoch:
        raise SpecError("--epoch says how many steps there are: leave out --steps and --seconds")
    if write and output is not None:
        raise SpecError("--write is into SPEC, and --output into another file: give one of them")
    wide = {"workers": sweep_workers, "batch-size": sweep_batch_size, "prefetch": sweep_prefetch, "cache": sweep_cache}
    single = {"workers": workers, "batch-size": batch_size, "prefetch": prefetch, "cache": cache}
    if not sweep:
        for_sweeps: dict[str, Any] = {f"--sweep-{name}": value for name, value in wide.items()}
        refuse({**for_sweeps, "--output": output, "--write": write or None, "--yes": yes or None}, "--sweep")
    twice = [name for name, value in wide.items() if value is not None and single[name] is not None]
    if twice:
        raise SpecError(f"--{twice[0]} fixes what --sweep-{twice[0]} varies: give one of them")
    read = SampleSpec.load(spec)
    if write:
        file_to_write(spec)
    given = read.loader.chosen(batch_size=batch_size, num_workers=workers, prefetch_factor=prefetch)
    source = Source(
        read,
        given["batch_size"],
        given["num_workers"],
        given["prefetch_factor"] or 2,
        given["cache"] if cache is None else cache_of(cache),
        seed,
        replay_bytes=1e9 * replay_gb,
    )
    if epoch:
        steps = max(1, len(source.dataset(None)) // source.batch_size)
    if seconds is None and steps is None:
        seconds = _SWEEP_SECONDS if sweep else _SECONDS
    limits = Limits(steps, seconds, warm_up, rounds)
    place = place_of(device, step_ms, bus_gb_s, ahead, threads, model, source.num_workers)
    source = replace(source, device=place.device, bus=place.bus)
    settings = _settings(spec, source, place, limits)
    if not sweep:
        _compare(source, place, limits, model, settings, (json, plot, style))
        return
    fixed = [None if value is None else str(value) for value in single.values()]
    grid = grid_of(source, *(many if many is not None else one for many, one in zip(wide.values(), fixed)))
    target = spec if write else output
    _sweep(source, place, limits, grid, model, settings, (json, plot, style), target, yes)


def _compare(
    source: Source, place: Place, limits: Limits, model: str | None, settings: dict[str, Any], files: tuple[Any, ...]
) -> None:
    from dataclasses import asdict

    from hepfeed.bench.gpu import bench_gpu, headline
    from hepfeed.bench.record import Record
    from hepfeed.progress import progress_bars

    with progress_bars() as progress:
        result = bench_gpu(source, place, limits, model=model, progress=progress)
    settings |= {"model": result.model or None, "epoch_events": result.epoch_events, "replayed": result.replayed}
    title = f"{headline(result.rows)} ({place.name})"
    rows = [asdict(row) for row in result.rows]
    absent = [f"{row.side} did not take part: {row.absent}" for row in result.rows if row.absent]
    deliver(Record.now("gpu", title, settings, rows, [*result.notes, *absent]), *files)


def _sweep(
    source: Source,
    place: Place,
    limits: Limits,
    grid: Grid,
    model: str | None,
    settings: dict[str, Any],
    files: tuple[Any, ...],
    target: Path | None,
    yes: bool,
) -> None:
    from dataclasses import asdict

    from hepfeed.bench.record import Record
    from hepfeed.bench.sweep import sweep, tuned
    from hepfeed.progress import progress_bars

    with progress_bars() as progress:
        rows = sweep(source, place, limits, grid, model=model, progress=progress)
    best = next(row for row in rows if row.best)
    settings |= {name: list(values) for name, values in vars(grid).items()}
    title = f"Settings of hepfeed ({place.name})"
    record = Record.now("sweep", title, settings, [asdict(row) for row in rows], [place.waiting])
    deliver(record, *files)
    section = ", ".join(f"{name}: {'null' if value is None else value}" for name, value in best.setting.items())
    if target is None:
        typer.echo(f"best: loader: {{{section}}}; --write or --output FILE keeps it in a specification")
        return
    question = f"{target} is there. Write it anew, with the section loader: {{{section}}}? Comments in it are lost"
    if target.exists() and not yes and not typer.confirm(question):
        typer.echo(f"{target} is as it was")
        return
    tuned(source.spec, best).save(target)
    typer.echo(f"wrote loader: {{{section}}} to {target}")


def _settings(spec: Path, source: Source, place: Place, limits: Limits) -> dict[str, Any]:
    """Return what a record says of the run."""
    from dataclasses import asdict

    named = {name: getattr(source, name) for name in ("batch_size", "num_workers", "prefetch_factor", "seed")}
    cache = None if source.cache is None else str(source.cache)
    simulated = {"step_s": place.step_s, "bus_bytes_s": place.bus_bytes_s} if place.kind == "simulated" else {}
    return {
        "spec": spec.name,
        "device": place.name,
        **simulated,
        "ahead": place.ahead if place.kind != "cpu" else None,
        **named,
        "cache": cache,
        **asdict(limits),
        "replay_bytes": source.replay_bytes,
    }
