"""The steps of the feed on a device: verified, timed against their twins and rivals, and beside what bounds them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from numpy.typing import NDArray

from hepfeed.bench import inputs
from hepfeed.bench.cards import Card, Work, card_of
from hepfeed.bench.clock import Clock
from hepfeed.bench.image_cases import image_cases
from hepfeed.bench.point_cases import point_cases
from hepfeed.bench.row import Row
from hepfeed.bench.site_cases import site_cases
from hepfeed.bench.transform_case import Run, TransformCase, arrays_of, wrong
from hepfeed.errors import ProcessError

__all__ = ["bench_transforms", "transform_cases"]

HOST_SIDES = ("twin", "NumPy")
"""Rivals that a device has no part in."""


def bench_transforms(
    cases: Iterable[TransformCase], device: torch.device, rounds: int, card: Card | None = None
) -> Iterator[Row]:
    """Measure, row by row.

    Each result is compared with that of the plain twin before anything is timed: those of the steps on a device with
    the twin on the host.  The bound is the time of reading what is needed and writing the result once.

    Args:
        cases: Of :func:`transform_cases` for the device.
        device: Where hepfeed and torch compute.  On the CPU hepfeed's steps use one thread, as in a reader, and torch
            its present number; on a card there is neither twin nor NumPy.
        rounds: In which all sides are timed one after another.
        card: Peaks; None: those of the device.

    Yields:
        A row for each step.  One that the device does not have has no times of hepfeed, and says why.

    Raises:
        ProcessError: hepfeed's result is wrong.
    """
    peaks = card_of(device) if card is None else card
    clock = Clock(device)
    for case in cases:
        yield _timed(case, peaks, clock, rounds)


def transform_cases(device: torch.device) -> Iterator[TransformCase]:
    """Yield what is measured, in the order of the table."""

    def place(array: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(array).to(device)

    images, hits = inputs.images(inputs.IMAGES), inputs.hits(inputs.TRACKS)
    draws = inputs.draws_of(len(images))
    yield from site_cases(images, draws, place)
    yield from image_cases(images, draws, place)
    yield from point_cases(hits, inputs.draws_of(hits.points.events), place)


def _timed(case: TransformCase, peaks: Card, clock: Clock, rounds: int) -> Row:
    """Let all sides that can take turns."""
    expected = [array.copy() for array in arrays_of(case.twin())]
    work = Work(case.reads + sum(array.nbytes for array in expected))
    row = Row("transforms", case.what, peaks.bound(work, "float32"))
    on_host = clock.device.type == "cpu"
    missing = "" if on_host else case.not_on_device()
    if missing:
        row.absent["hepfeed"] = missing
        return row

    def place(array: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(array).to(clock.device)

    ours = case.on_host() if on_host else case.on_device(place)
    if (trouble := wrong(ours(), expected, case.tolerance)) is not None:
        raise ProcessError(f"hepfeed is wrong in {case.what}: {trouble}")
    runs: dict[str, Run] = {"hepfeed": ours}
    for name, run in {"twin": case.twin, **case.rivals}.items():
        if not on_host and name in HOST_SIDES:
            row.absent[name] = "it runs on the host"
            continue
        made = run()
        trouble = case.differs(made) if case.differs and name != "twin" else wrong(made, expected, case.tolerance)
        if trouble is None:
            runs[name] = run
        else:
            row.absent[name] = trouble
    row.race(runs, clock, rounds)
    return row
