"""Sparse convolutions of :mod:`hepfeed.sparse` on the CPU against spconv, torch's own functions and what bounds them.

Sites are random walks, as tracks of a time projection chamber (``tracks.py``): 16 events of 20,000 sites together in
256^3 cells, and of 100,000 in 512^3.  Every result is compared with one in float64 before it is timed, and that of more
threads with that of one, bit by bit.  All sides of a row take turns in one process; the ratio is the median of those of
the rounds.  ``should be`` is what the project asks of itself.

The rivals:

- *spconv* from PyPI, on one thread, because its results are wrong on two (the first lines show it), and with a backward
  pass that runs without CUDA (``sparse_rivals.py``).
- *gather, mm, scatter*: torch's functions, tap by tap.
- *mm of all pairs*, *mm of all sites*: ``torch.mm`` of as many rows with one square weight, as often as it takes to
  multiply as much as the convolution does.  The ratio is the share of its GFLOP/s.
- *copy*: copying memory, so that as many bytes are read and written as features and pairs have.
- *dense conv3d* of torch, channels last, which is the faster of its layouts.

    python benchmarks/bench_sparse.py                       # about 15 minutes
    python benchmarks/bench_sparse.py --quick               # 20,000 sites alone, three rounds
    python benchmarks/bench_sparse.py --only maps forward   # some of the groups
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import sparse_rivals as rivals
import torch
import torch.nn.functional as F
from race import Report, Side, Times, race
from sparse_cases import TOLERANCE, Convolution, Sites, track_sites
from sparse_nets import UnetStep

from hepfeed import _convolution
from hepfeed.bench import tracks
from hepfeed.bench.clock import processor
from hepfeed.bench.layer import STRIDED, SUBMANIFOLD
from hepfeed.reference import kernel_map as kernel_map_reference

CHANNELS = (16, 32, 64, 128)
SCALING = 1.7
"""Of two threads over one."""
FORWARD = {16: 2.0, 32: 1.8, 64: 2.0, 128: 1.3}
BACKWARD = {16: 1.5, 32: 1.6, 64: 1.7, 128: 1.3}
PEAK = {64: 0.85, 128: 0.7}
PEAK_OF_MORE = {64: 0.78}
PEAK_WITH_BACKWARD = {64: 0.68}
SECOND_LEVEL_CACHE = 4 << 20
"""Bytes that are beyond it."""
BFLOAT16_TOLERANCE = 2.0**-8
"""Half of a unit in the last place of the largest number."""


class Bench:
    """What all groups of rows share.

    Attributes:
        report: Where rows go.
        threads: The most that are used: 2, where there are as many processors.
        quick: Whether the small set alone is measured.
        worst: The largest error of hepfeed's float32 results, over the largest number of the result.
    """

    def __init__(self, report: Report, quick: bool) -> None:
        self.report, self.quick = report, quick
        self.threads = min(2, psutil.cpu_count() or 1)
        self.worst = 0.0

    def verify(self, convolution: Convolution) -> None:
        """Verify all sides of a convolution."""
        self.worst = max(self.worst, convolution.verify(self.threads))

    def race(self, sides: dict[str, Side]) -> Times:
        """Time all sides."""
        return race(sides, self.report.rounds)

    def compare(self, what: str, times: Times, aims: dict[str, float | None], more: dict[str, float | None]) -> None:
        """Add the rows of one race.

        Args:
            what: Its name.
            times: With the sides "hepfeed" and, on more threads, "more hepfeed".
            aims: Rivals of one thread, and the ratios asked for; those that did not take part are left out.
            more: Rivals of more threads.
        """
        for key, rivals_of, threads in (("hepfeed", aims, 1), ("more hepfeed", more, self.threads)):
            for rival, aim in rivals_of.items():
                if key in times and rival in times:
                    name = "one thread" if rival == "hepfeed" else rival.removeprefix("more ")
                    self.report.add(what, threads, times[key], name, times[rival], aim)


def map_rows(bench: Bench) -> None:
    """Kernel maps of sites that are checked and, where they are not sorted, sorted, too."""
    for sites in track_sites(bench.quick):
        for name, options, aim in (("3^3", SUBMANIFOLD, 6.0), ("2^3, stride 2", STRIDED, None)):
            made = sites.map(options)
            sizes = (made.kernel_size, made.stride, made.padding, made.dilation)
            twin = kernel_map_reference.build_kernel_map(
                sites.rows, sites.shape, made.spatial_shape, sites.events, *sizes, made.submanifold, made.transposed
            )
            for one in (made, sites.map(options, bench.threads)):
                backward = one.swapped_pairs()
                for ours, expected in zip((one.in_maps, one.out_maps, one.offsets, *backward, one.indices), twin):
                    np.testing.assert_array_equal(ours, expected)

            def run(threads: int, sites: Sites = sites, options: Any = options) -> Callable[[], Any]:
                return lambda: sites.map(options, threads)

            sides = {"hepfeed": Side(run(1))}
            if rivals.spconv:
                sides["spconv"] = Side(lambda sites=sites, options=options: sites.spconv_pairs(options))
            if bench.threads > 1:
                sides["more hepfeed"] = Side(run(bench.threads), bench.threads)
            scaling = SCALING if aim else None
            bench.compare(f"map {name}, {sites}", bench.race(sides), {"spconv": aim}, {"hepfeed": scaling})
    bench.report.table.add_section()


def convolution_rows(bench: Bench, backward: bool) -> None:
    """Submanifold convolutions whose kernel map is there."""
    name, aims = ("forward + backward", BACKWARD) if backward else ("forward", FORWARD)
    for sites in track_sites(bench.quick):
        for channels in CHANNELS:
            convolution = Convolution(sites, SUBMANIFOLD, (channels, channels))
            bench.verify(convolution)
            times = bench.race(convolution.sides(bench.threads, backward))
            peak = PEAK_WITH_BACKWARD.get(channels) if backward else PEAK.get(channels)
            more_peak = None if backward else PEAK_OF_MORE.get(channels)
            bench.compare(
                f"{name}, C {channels}, {sites}",
                times,
                {
                    "spconv": aims[channels],
                    "gather, mm, scatter": None,
                    "mm of all pairs": peak,
                    "mm of all sites": peak,
                },
                {
                    "hepfeed": None if more_peak else SCALING,
                    "more mm of all pairs": more_peak,
                    "more mm of all sites": more_peak,
                },
            )
        bench.report.table.add_section()


def forward_rows(bench: Bench) -> None:
    """Without gradients."""
    convolution_rows(bench, backward=False)


def backward_rows(bench: Bench) -> None:
    """With the gradients of input and weight."""
    convolution_rows(bench, backward=True)


def together_rows(bench: Bench) -> None:
    """The convolution of sites that come new: map, forward and backward."""
    for sites in track_sites(bench.quick):
        convolution = Convolution(sites, SUBMANIFOLD, (16, 16))
        bench.verify(convolution)

        def ours(convolution: Convolution = convolution) -> rivals.Tensors:
            return convolution.with_gradients(convolution.forward_and_map, convolution.grad)

        def theirs(convolution: Convolution = convolution) -> rivals.Tensors:
            return convolution.with_gradients(convolution.spconv_forward_and_map, convolution.spconv_grad)

        sides = {"hepfeed": Side(ours)}
        if rivals.spconv:
            sides["spconv"] = Side(theirs)
        if bench.threads > 1:
            sides["more hepfeed"] = Side(ours, bench.threads)
        what = f"map + forward + backward, C 16, {sites}"
        bench.compare(what, bench.race(sides), {"spconv": 3.0}, {"hepfeed": None})
    bench.report.table.add_section()


def strided_rows(bench: Bench) -> None:
    """A convolution that halves each axis."""
    for sites in track_sites(bench.quick):
        convolution = Convolution(sites, STRIDED, (64, 64))
        bench.verify(convolution)
        times = bench.race(convolution.sides(bench.threads, backward=True))
        aims = {"spconv": 2.0, "gather, mm, scatter": None, "mm of all pairs": None}
        bench.compare(f"2^3, stride 2, forward + backward, C 64, {sites}", times, aims, {"hepfeed": None})
    bench.report.table.add_section()


def first_rows(bench: Bench) -> None:
    """The first layer: one input channel."""
    for sites in track_sites(bench.quick):
        convolution = Convolution(sites, SUBMANIFOLD, (1, 16))
        bench.verify(convolution)
        made = convolution.map
        moved = 4 * (len(sites) + convolution.grad.numel()) + made.in_maps.nbytes + made.out_maps.nbytes
        source = np.ones(moved // 2, np.uint8)
        target = np.ones_like(source)
        sides = convolution.sides(bench.threads, backward=False)
        sides["copy"] = Side(lambda target=target, source=source: np.copyto(target, source))
        aim = 0.5 if moved > SECOND_LEVEL_CACHE else None  # less is not bound by memory
        what = f"forward, C 1 to 16, {sites}"
        bench.compare(what, bench.race(sides), {"copy": aim, "spconv": None}, {"hepfeed": None})
    bench.report.table.add_section()


def dense_rows(bench: Bench) -> None:
    """Images of a calorimeter's size, 2 % of them active: map, forward and backward against a dense convolution."""
    sites = Sites(tracks.noise(0.02, 25, 64), 25, 64)
    convolution = Convolution(sites, SUBMANIFOLD, (16, 16))
    bench.verify(convolution)
    rows = tuple(sites.indices.long().t())

    def dense(features: torch.Tensor) -> torch.Tensor:
        image = features.new_zeros(sites.events, *sites.shape, features.shape[1])
        image[rows] = features.detach()
        return image.movedim(-1, 1)

    def run(image: torch.Tensor, weight: torch.Tensor, grad: torch.Tensor) -> rivals.Tensors:
        out = F.conv3d(image, weight, padding=1)
        return (out, *torch.autograd.grad(out, [image, weight], grad))

    def arguments(dtype: torch.dtype) -> list[torch.Tensor]:
        image = dense(convolution.features.to(dtype)).requires_grad_()
        weight = convolution.weight.detach().to(dtype).movedim(-1, 1)  # channels last in memory, too
        return [image, weight.requires_grad_(), dense(convolution.grad.to(dtype))]

    def ours() -> rivals.Tensors:
        return convolution.with_gradients(convolution.forward_and_map, convolution.grad)

    out, image_grad, weight_grad = (tensor.detach().movedim(1, -1) for tensor in run(*arguments(torch.float64)))
    error = rivals.error(ours(), (out[rows], image_grad[rows], weight_grad))
    assert error <= TOLERANCE, f"error {error:.2g} against a dense convolution in float64"
    bench.worst = max(bench.worst, error)
    dense_arguments = arguments(torch.float32)
    name = "dense conv3d"
    sides = {"hepfeed": Side(ours), name: Side(lambda: run(*dense_arguments))}
    if bench.threads > 1:
        sides["more hepfeed"] = Side(ours, bench.threads)
        sides[f"more {name}"] = Side(sides[name].run, bench.threads)
    what = "map + forward + backward, C 16, 64 x 25^3 at 2 %"
    bench.compare(what, bench.race(sides), {name: 50.0}, {f"more {name}": None})
    bench.report.table.add_section()


def bfloat16_rows(bench: Bench) -> None:
    """Features and weights of 16 bits against float32, where the processor multiplies them."""
    isa = _convolution.isa()
    if isa not in ("amx", "avx512_bf16"):
        bench.report.console.print(f"bfloat16: the instruction set {isa} has no products of it")
        return
    for sites in track_sites(bench.quick):
        single = Convolution(sites, SUBMANIFOLD, (64, 64))
        half = Convolution(sites, SUBMANIFOLD, (64, 64))
        bench.verify(single)
        half.use_bfloat16()
        error = half.error_of_hepfeed()
        assert error <= BFLOAT16_TOLERANCE, f"{half}: error {error:.2g} in bfloat16"
        for backward, name in ((False, "forward"), (True, "forward + backward")):
            sides = {}
            for more, threads in (("", 1), ("more ", bench.threads))[: bench.threads]:
                sides[f"{more}hepfeed"] = Side(half.run(backward), threads)
                sides[f"{more}float32"] = Side(single.run(backward), threads)
            what = f"bfloat16, {name}, C 64, {sites}"
            aim = 1.5 if isa == "amx" else None
            bench.compare(what, bench.race(sides), {"float32": aim}, {"hepfeed": None, "more float32": None})
    bench.report.table.add_section()


def unet_rows(bench: Bench) -> None:
    """A training step of the same network, kernel maps and optimiser included."""
    for sites in track_sites(bench.quick):
        step = UnetStep(sites)
        step.verify()
        sides = {"hepfeed": Side(step.ours)}
        if rivals.spconv:
            sides["spconv"] = Side(step.theirs)
        if bench.threads > 1:
            sides["more hepfeed"] = Side(step.ours, bench.threads)
        bench.compare(f"step of {step}, {sites}", bench.race(sides), {"spconv": 1.7}, {"hepfeed": None})


GROUPS: dict[str, Callable[[Bench], None]] = {
    "maps": map_rows,
    "forward": forward_rows,
    "backward": backward_rows,
    "together": together_rows,
    "strided": strided_rows,
    "first": first_rows,
    "dense": dense_rows,
    "bfloat16": bfloat16_rows,
    "unet": unet_rows,
}


def introduce(bench: Bench) -> dict[str, Any]:
    """Say what is measured where, and whether spconv is right on two threads."""
    say = bench.report.console.print
    where = {
        "processor": processor(),
        "processors": psutil.cpu_count(),
        "instruction set": _convolution.isa(),
        "torch": torch.__version__,
        "spconv": rivals.SPCONV_VERSION or "not installed: its rows are left out",
    }
    for sites in track_sites(bench.quick):
        where[f"pairs a site, {sites}"] = round(len(sites.map(SUBMANIFOLD).in_maps) / len(sites), 2)
    if rivals.spconv and bench.threads > 1:
        convolution = Convolution(next(track_sites(True)), SUBMANIFOLD, (16, 16))
        where["error of spconv on two threads, worst of ten calls"] = f"{convolution.error_of_spconv(2, 10):.2g}"
    for name, value in where.items():
        say(f"{name}: {value}", highlight=False)
    return where


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", choices=GROUPS, default=list(GROUPS), metavar="GROUP", help=", ".join(GROUPS)
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="20,000 sites alone, three rounds")
    parser.add_argument("--best", action="store_true", help="compare the best rounds: for a machine with other work")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    if rivals.spconv:
        rivals.repair_spconv_backward()
    report = Report(3 if options.quick else options.rounds, options.best)
    bench = Bench(report, options.quick)
    where = introduce(bench)
    for group in options.only:
        report.console.print(f"measuring {group} ...")
        GROUPS[group](bench)
    report.table.caption = f"{psutil.cpu_count()} processors; largest error of hepfeed in float32: {bench.worst:.1e}"
    report.console.print(report.table)
    if options.json:
        report.save(options.json, {**where, "rounds": report.rounds}, [str(report.table.caption)])


if __name__ == "__main__":
    main()
