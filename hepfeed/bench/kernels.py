"""Kernel maps and sparse convolutions on a device: verified, timed against rivals, and beside what bounds them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from hepfeed.bench.cards import Card, card_of
from hepfeed.bench.clock import Clock
from hepfeed.bench.layer import STRIDED, SUBMANIFOLD, Layer, ground_truth
from hepfeed.bench.row import Row
from hepfeed.bench.sides import SIDES, Absent, Prepared, Side
from hepfeed.bench.tracks import noise, tracks
from hepfeed.bench.transform_case import wrong
from hepfeed.errors import ProcessError, SpecError
from hepfeed.tensors import KernelMap

__all__ = ["GROUPS", "KINDS", "Case", "Group", "Kind", "bench_kernels", "cases"]

Group = Literal["maps", "convolutions"]
GROUPS: tuple[Group, ...] = ("maps", "convolutions")
Kind = Literal["float32", "tf32", "bfloat16", "float16"]
KINDS: dict[Kind, tuple[torch.dtype, str, float]] = {
    "float32": (torch.float32, "float32", 2e-5),
    "tf32": (torch.float32, "tf32", 2e-3),
    "bfloat16": (torch.bfloat16, "16", 2e-2),
    "float16": (torch.float16, "16", 4e-3),
}
"""For each kind of numbers: the dtype, whose peak bounds it, and the largest error over the largest number."""
EVENTS = 16
IMAGES = (0.02, 25, 64)
"""Occupancy, cells of an axis and number of images of a calorimeter, which dense convolutions can compute as well."""
_SIDE_OF = {20_000: 256, 100_000: 512}
"""Cells of an axis for so many sites of all events; other numbers have those of the next."""


@dataclass(frozen=True)
class Case:
    """One row to be.

    Attributes:
        layer: What is computed.
        products: 0: the kernel map alone; 1: the output; 3: the gradients, too.
        kind: Of numbers.
    """

    layer: Layer
    products: int
    kind: Kind

    def __str__(self) -> str:
        made = self.layer.kernel_map
        name = f"{made.kernel_size[0]}^3" if made.submanifold else f"{made.kernel_size[0]}^3, stride {made.stride[0]}"
        sites = f"{len(self.layer.indices):,} sites"
        if self.layer.side == IMAGES[1]:
            sites += f" of {self.layer.events} images of {self.layer.side}^3"
        if not self.products:
            return f"map {name}, {sites}"
        what = "forward" if self.products == 1 else "forward + backward"
        return f"{name}, {self.kind}, {what}, C {self.layer.channels[0]}, {sites}"

    @property
    def group(self) -> Group:
        """Which part of the table it belongs to."""
        return "convolutions" if self.products else "maps"

    def bound(self, peaks: Card) -> float:
        """Return the seconds that it takes at least."""
        work = self.layer.work(self.products) if self.products else self.layer.map_work
        return peaks.bound(work, KINDS[self.kind][1])

    def run(self, side: Side) -> Callable[[], Any]:
        """Return what a side does, once its result is found to be right."""
        if not self.products:
            return _verified_map(side, self.layer)
        prepared = _verified(side, self.layer, self.products == 3, KINDS[self.kind][2])
        return prepared.backward(self.layer.grad) if self.products == 3 else _without_grad(prepared.forward)


def bench_kernels(
    device: torch.device,
    sites: Sequence[int],
    channels: Sequence[int],
    kinds: Sequence[Kind],
    rounds: int,
    card: Card | None = None,
    groups: Collection[Group] = GROUPS,
) -> Iterator[Row]:
    """Measure, row by row.

    Sites are random walks as tracks of a time projection chamber, of 16 events; and last, with the first number of
    channels, small images of which 2 % are active.  Before anything is timed, output and gradients of every side are
    compared with float64, and hepfeed's kernel maps with those of their plain twin.

    Args:
        device: Where all sides compute, on torch's present number of threads.
        sites: Numbers of sites of all events, multiples of 16.
        channels: Of input and output of the layers.
        kinds: Of numbers.
        rounds: In which all sides are timed one after another.
        card: Peaks; None: those of the device.
        groups: What of the table.

    Raises:
        ProcessError: hepfeed's result is wrong.
        SpecError: The device does not have such numbers.
    """
    if device.type != "cuda" and (foreign := {"tf32", "float16"}.intersection(kinds)):
        raise SpecError(f"{' and '.join(sorted(foreign))} need a CUDA device: use float32 or bfloat16 on {device}")
    peaks = card_of(device) if card is None else card
    clock = Clock(device)
    for case in cases(device, sites, channels, kinds, groups):
        with _tf32(case.kind == "tf32"):
            yield _timed(case, peaks, clock, rounds)


def cases(
    device: torch.device,
    sites: Sequence[int],
    channels: Sequence[int],
    kinds: Sequence[Kind],
    groups: Collection[Group] = GROUPS,
) -> Iterator[Case]:
    """Yield what is measured, in the order of the table; arguments as of :func:`bench_kernels`."""
    for count in sites:
        indices = torch.from_numpy(tracks(count, _side(count), EVENTS))
        for options in (SUBMANIFOLD, STRIDED) if "maps" in groups else ():
            layer = Layer.make(indices, _side(count), EVENTS, options, (1, 1), torch.float32, device)
            yield Case(layer, 0, "float32")
        if "convolutions" not in groups:
            continue
        for kind, options, wide in itertools.product(kinds, (SUBMANIFOLD, STRIDED), channels):
            layer = Layer.make(indices, _side(count), EVENTS, options, (wide, wide), KINDS[kind][0], device)
            for products in (1, 3):
                yield Case(layer, products, kind)
    if "convolutions" not in groups:
        return
    images = torch.from_numpy(noise(*IMAGES))
    for kind, wide in itertools.product(kinds, channels[:1]):
        layer = Layer.make(images, *IMAGES[1:], SUBMANIFOLD, (wide, wide), KINDS[kind][0], device)
        for products in (1, 3):
            yield Case(layer, products, kind)


def _timed(case: Case, peaks: Card, clock: Clock, rounds: int) -> Row:
    """Let all sides that can take turns."""
    row = Row(case.group, str(case), case.bound(peaks))
    runs = {}
    for side in SIDES:
        trouble = side.missing()
        try:
            if trouble is None:
                runs[side.name] = case.run(side)
        except Absent as reason:
            trouble = str(reason)
        except Exception as error:
            if side is SIDES[0]:
                raise
            trouble = f"{type(error).__name__}: {error}"
        if trouble is not None:
            row.absent[side.name] = trouble
    row.race(runs, clock, rounds)
    return row


def _verified_map(side: Side, layer: Layer) -> Callable[[], Any]:
    """What builds a kernel map; where it is one of hepfeed's form, it is the right one."""
    build = side.kernel_map(layer)
    made = build()
    if isinstance(made, KernelMap):
        found = [made.in_maps, made.out_maps, made.offsets, *made.swapped_pairs(), made.indices]
        for got, wanted in zip(found, layer.twin_map()):
            if (trouble := wrong(got, [wanted], 0.0)) is not None:
                raise ProcessError(f"{side.name}'s kernel map is wrong: {trouble}")
    return build


def _verified(side: Side, layer: Layer, backward: bool, tolerance: float) -> Prepared:
    """A side that computes what it should."""
    tested = layer
    if not side.orders_taps:
        same = layer.weight.detach()[:, :1].expand_as(layer.weight).contiguous()
        tested = replace(layer, weight=same.requires_grad_())
    prepared = side.prepare(tested, backward)
    expected = ground_truth(tested)
    results = prepared.backward(tested.grad)() if backward else (prepared.forward(),)
    for got, wanted in zip(prepared.as_layer(results), expected):
        if not side.orders_taps and got.ndim == 3:  # the gradients of the taps, in some order
            got, wanted = got.sum(1), wanted.sum(1)
        error = float((got.detach().cpu().double() - wanted.detach()).abs().max() / wanted.detach().abs().max())
        if not error <= tolerance:
            message = f"{side.name} is wrong by {error:.2g} of the largest number, more than {tolerance:g}"
            raise ProcessError(message) if side is SIDES[0] else Absent(message)
    return prepared if tested is layer else side.prepare(layer, backward)


def _without_grad(forward: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    def run() -> torch.Tensor:
        with torch.no_grad():
            return forward()

    return run


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    """Let float32 products be computed with TF32, or not."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def _side(sites: int) -> int:
    """Cells of an axis for so many sites."""
    return next((side for count, side in _SIDE_OF.items() if sites <= count), max(_SIDE_OF.values()))
