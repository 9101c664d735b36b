"""How the options of ``hepfeed bench gpu`` are read."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from hepfeed.cli.bench_output import file_to_write, numbers_of
from hepfeed.errors import SpecError

if TYPE_CHECKING:
    from hepfeed.bench.gpu_place import Place
    from hepfeed.bench.gpu_sides import Source
    from hepfeed.bench.sweep import Grid

__all__ = ["Device", "cache_of", "grid_of", "place_of", "refuse", "spec_to_write"]


class Device(str, Enum):
    """Where the training loop runs."""

    cuda = "cuda"
    cpu = "cpu"
    simulated = "simulated"


def refuse(options: dict[str, Any], needs: str) -> None:
    """Refuse options that mean nothing here."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise SpecError(f"{' and '.join(given)} can only be given with {needs}")


def spec_to_write(path: Path | None) -> Path | None:
    """Return the path of a specification to write, as an option's callback: before anything is measured.

    Raises:
        SpecError: Its suffix is unknown, or it can't be written.
    """
    if path is not None and path.suffix.lower() not in (".yaml", ".yml", ".json"):
        raise SpecError(f"a specification is saved as .yaml, .yml or .json, not {path.suffix!r}", file=str(path))
    return file_to_write(path)


def place_of(
    device: Device | None,
    step_ms: float | None,
    bus_gb_s: float | None,
    ahead: int | None,
    threads: int | None,
    model: str | None,
    workers: int,
) -> Place:
    """Choose the device, and torch's threads beside the readers."""
    import torch

    from hepfeed.bench.gpu_place import Place

    kind = device.value if device is not None else ("cuda" if torch.cuda.is_available() else "simulated")
    if kind == "simulated":
        refuse({"--model": model}, "--device cuda or cpu: a simulated device has no network")
    else:
        refuse({"--step-ms": step_ms, "--bus-gb-s": bus_gb_s}, "--device simulated")
    if kind == "cpu":
        refuse({"--ahead": ahead}, "--device cuda or simulated: a loop on the CPU is never ahead")
        torch.set_num_threads(threads or max(1, _cores() - workers))
    else:
        refuse({"--threads": threads}, "--device cpu")
    return Place(
        cast(Literal["cuda", "cpu", "simulated"], kind),
        (10.0 if step_ms is None else step_ms) / 1e3,
        (12.0 if bus_gb_s is None else bus_gb_s) * 1e9,
        1 if ahead is None else ahead,
    )


def _cores() -> int:
    from hepfeed.processors import usable_processors

    return max(1, int(usable_processors()))


def cache_of(text: str) -> str | None:
    """Return the option ``cache`` of a loader."""
    return None if text == "none" else text


def grid_of(
    source: Source, workers: str | None, batch_size: str | None, prefetch: str | None, cache: str | None
) -> Grid:
    """Read the values of a sweep; None stands for the usual ones, which have the source's own cache among them."""
    from hepfeed.bench.sweep import Grid

    cores = _cores()
    powers = [2**n for n in range(cores.bit_length()) if 2**n < cores]
    return Grid(
        [*powers, cores] if workers is None else numbers_of("sweep-workers", workers),
        [source.batch_size] if batch_size is None else numbers_of("sweep-batch-size", batch_size),
        numbers_of("sweep-prefetch", "2,4" if prefetch is None else prefetch),
        [cache_of(part.strip()) for part in (f"{source.cache or 'auto'},none" if cache is None else cache).split(",")],
    )
