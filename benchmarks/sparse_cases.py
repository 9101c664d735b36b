"""Sites and convolutions that all sides of a benchmark compute, verified against float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import sparse_rivals as rivals
import torch
from numpy.typing import NDArray
from race import Run, Side

import hepfeed.sparse as hsp
from hepfeed.bench import tracks
from hepfeed.bench.kernels import EVENTS
from hepfeed.kernel_map import build_kernel_map
from hepfeed.tensors import KernelMap

TOLERANCE = 5e-6
"""Largest error of a float32 result, over the largest number of the same result in float64."""
RIVAL_TOLERANCE = 2e-5


@dataclass(frozen=True)
class Sites:
    """Active cells of some events.

    Attributes:
        rows: ``(N, 4) int32``, sorted and unique.
        side: Cells of an axis.
        events: Number of events.
    """

    rows: NDArray[Any]
    side: int
    events: int = EVENTS

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        return f"{len(self):,} sites"

    @property
    def shape(self) -> tuple[int, int, int]:
        """The spatial shape."""
        return (self.side,) * 3

    @property
    def indices(self) -> torch.Tensor:
        """The rows, in the same memory."""
        return torch.from_numpy(self.rows)

    def features(self, channels: int) -> torch.Tensor:
        """Return normal numbers, ``(N, channels) float32``."""
        return torch.randn(len(self), channels, generator=torch.Generator().manual_seed(channels))

    def tensor(self, features: torch.Tensor) -> hsp.SparseTensor:
        """Return a tensor that has no kernel map yet; its sites are checked."""
        return hsp.SparseTensor(features, self.indices, self.shape, self.events)

    def map(self, options: dict[str, Any], threads: int = 1) -> KernelMap:
        """Build a kernel map; its sites are checked."""
        return build_kernel_map(self.rows, self.shape, self.events, **options, threads=threads)

    def spconv_pairs(self, options: dict[str, Any]) -> rivals.SpconvPairs:
        """Build spconv's kernel map."""
        return rivals.SpconvPairs(
            self.indices, self.side, self.events, options["kernel_size"], options.get("stride", 1)
        )


def track_sites(quick: bool) -> Iterator[Sites]:
    """Yield the sets of tracks; the first alone, where it is to be quick."""
    for count, side in ((20_000, 256), (100_000, 512))[: 1 if quick else 2]:
        yield Sites(tracks.tracks(count, side, EVENTS), side)


class Convolution:
    """A convolution without a bias, of all sides and with all gradients.

    Attributes:
        sites: Of the input.
        options: Of the kernel map, as of :mod:`hepfeed.bench.layer`.
        features: ``(N, C_in)``.
        weight: ``(C_out, *kernel, C_in)``, hepfeed's module's.
        grad: ``(M, C_out)``: gradient of the output.
    """

    def __init__(self, sites: Sites, options: dict[str, Any], channels: tuple[int, int]) -> None:
        torch.manual_seed(0)
        make = hsp.SubMConv3d if "submanifold" in options else hsp.SparseConv3d
        sizes = {key: value for key, value in options.items() if key != "submanifold"}
        self.sites, self.options, self.channels = sites, options, channels
        self.module = make(*channels, **sizes, bias=False)
        self.features = sites.features(channels[0]).requires_grad_()
        self.input, self.weight = sites.tensor(self.features), self.module.weight
        self.map = sites.map(options)
        self.grad = torch.randn(len(self.map.indices), channels[1])
        self.pairs = rivals.pairs_of(self.map, len(sites), len(self.grad))
        self.spconv = sites.spconv_pairs(options) if rivals.spconv else None
        if self.spconv:
            self.order = self.spconv.sorted_rows(self.map.spatial_shape[0])
            assert torch.equal(self.spconv.indices[self.order], torch.as_tensor(self.map.indices))
            self.spconv_grad = torch.empty_like(self.grad).index_copy_(0, self.order, self.grad)

    def __str__(self) -> str:
        return f"{self.options} of {self.sites}, {self.channels} channels"

    def forward(self) -> torch.Tensor:
        """Return hepfeed's features."""
        out: torch.Tensor = self.module(self.input).features
        return out

    def forward_and_map(self) -> torch.Tensor:
        """Return hepfeed's features for sites that it sees for the first time."""
        out: torch.Tensor = self.module(self.sites.tensor(self.features)).features
        return out

    def spconv_forward(self) -> torch.Tensor:
        """Return spconv's features, in its order."""
        assert self.spconv
        return self.spconv.convolve(self.features, self.weight)

    def spconv_forward_and_map(self) -> torch.Tensor:
        """Return spconv's features, with a kernel map of its own."""
        return self.sites.spconv_pairs(self.options).convolve(self.features, self.weight)

    def torch_forward(self) -> torch.Tensor:
        """Return features by gather, ``mm`` and scatter."""
        return rivals.gather_mm_scatter(self.features, self.weight, self.pairs, len(self.grad))

    def with_gradients(self, forward: Callable[[], torch.Tensor], grad: torch.Tensor) -> rivals.Tensors:
        """Return the features and the gradients of input and weight."""
        out = forward()
        return (out, *torch.autograd.grad(out, [self.features, self.weight], grad))

    def verify(self, threads: int) -> float:
        """Compare all sides with float64, and hepfeed on some threads with hepfeed on one, bit by bit.

        Returns:
            The largest error of hepfeed's features and gradients, over the largest number of each.
        """
        expected = self.expected()
        torch.set_num_threads(1)
        ours = self.with_gradients(self.forward, self.grad)
        worst = rivals.error(ours, expected)
        assert worst <= TOLERANCE, f"{self}: error {worst:.2g} of hepfeed"
        their = rivals.error(self.with_gradients(self.torch_forward, self.grad), expected)
        assert their <= RIVAL_TOLERANCE, f"{self}: error {their:.2g} of gather, mm, scatter"
        if self.spconv:
            out, *gradients = self.with_gradients(self.spconv_forward, self.spconv_grad)
            their = rivals.error((out[self.order], *gradients), expected)
            assert their <= RIVAL_TOLERANCE, f"{self}: error {their:.2g} of spconv"
        torch.set_num_threads(threads)
        for one, other in zip(ours, self.with_gradients(self.forward, self.grad)):
            assert torch.equal(one, other), f"{self}: {threads} threads give other bits than one"
        return worst

    def error_of_hepfeed(self) -> float:
        """Return the error of features and gradients against float64."""
        torch.set_num_threads(1)
        return rivals.error(self.with_gradients(self.forward, self.grad), self.expected())

    def error_of_spconv(self, threads: int, calls: int) -> float:
        """Return the error of spconv's features against float64, the worst of some calls."""
        expected = self.expected()[:1]
        torch.set_num_threads(threads)
        return max(rivals.error((self.spconv_forward()[self.order],), expected) for _ in range(calls))

    def expected(self) -> rivals.Tensors:
        """Return features and gradients in float64."""
        inputs = [t.detach().double().requires_grad_() for t in (self.features, self.weight)]
        out = rivals.gather_mm_scatter(*inputs, self.pairs, len(self.grad))
        return (out.detach(), *torch.autograd.grad(out, inputs, self.grad.double()))

    def use_bfloat16(self) -> None:
        """Round features, weight and gradient to bfloat16; hepfeed alone can go on."""
        self.module.to(torch.bfloat16)
        self.weight = self.module.weight
        self.features = self.features.detach().bfloat16().requires_grad_()
        self.input, self.grad = self.sites.tensor(self.features), self.grad.bfloat16()

    def run(self, backward: bool) -> Run:
        """Return what hepfeed does, with the gradients of input and weight or without."""
        if backward:
            return lambda: self.with_gradients(self.forward, self.grad)
        return torch.no_grad()(self.forward)

    def sides(self, threads: int, backward: bool) -> dict[str, Side]:
        """Return who takes part: hepfeed and torch.mm, also on ``threads`` and then called "more", and the rivals.

        Args:
            threads: Where it is 1, nobody is "more".
            backward: Whether gradients of input and weight are computed, too.
        """
        if backward:
            of_torch: Run = lambda: self.with_gradients(self.torch_forward, self.grad)  # noqa: E731
            of_spconv: Run = lambda: self.with_gradients(self.spconv_forward, self.spconv_grad)  # noqa: E731
        else:
            of_torch, of_spconv = map(torch.no_grad(), (self.torch_forward, self.spconv_forward))
        sides = {}
        for name, count in (("", 1), ("more ", threads))[: min(threads, 2)]:
            sides[f"{name}hepfeed"] = Side(self.run(backward), count)
            for what, rows in (("pairs", len(self.map.in_maps)), ("sites", len(self.sites))):
                sides[f"{name}mm of all {what}"] = self.peak(count, backward, rows)
        if self.spconv:
            sides["spconv"] = Side(of_spconv)
        sides["gather, mm, scatter"] = Side(of_torch)
        return sides

    def peak(self, threads: int, backward: bool, rows: int) -> Side:
        """Return torch.mm of so many rows, so often that it multiplies as much as the convolution."""
        features, weight = torch.randn(rows, self.channels[0]), torch.randn(self.channels)
        out = torch.empty(rows, self.channels[1])
        calls = len(self.map.in_maps) / rows * (3 if backward else 1)
        return Side(lambda: torch.mm(features, weight, out=out), threads, calls)
