"""The U-ResNet of hepfeed, and the same network in modules of spconv."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import sparse_rivals as rivals
import torch
import torch.nn.functional as F
from sparse_cases import Sites
from torch import nn

from hepfeed.sparse.models import SparseUNet

CLASSES = 3
TOLERANCE = 1e-4
"""Of logits behind a whole network, over the largest of them."""
TOLERANCE_OF_FLOAT64 = 1e-10
"""The same, of logits and gradients."""


def activated(channels: int, layer: nn.Module) -> Any:
    """Return normalisation, ReLU and a layer."""
    return rivals.spconv.SparseSequential(nn.BatchNorm1d(channels), nn.ReLU(inplace=True), layer)


class Block(rivals.MODULE):
    """Two submanifold convolutions and a way around them."""

    def __init__(self, c_in: int, c_out: int, key: str) -> None:
        super().__init__()
        around = [nn.Linear(c_in, c_out, bias=False)] if c_in != c_out else []
        self.shortcut = rivals.spconv.SparseSequential(*around)
        self.first = activated(c_in, rivals.spconv.SubMConv3d(c_in, c_out, 3, bias=False, indice_key=key))
        self.second = activated(c_out, rivals.spconv.SubMConv3d(c_out, c_out, 3, bias=False, indice_key=key))

    def forward(self, x: Any) -> Any:
        return self.second(self.first(x)) + self.shortcut(x)


class Level(rivals.MODULE):
    """Blocks on one grid, and between them what lies below."""

    def __init__(self, channels: Sequence[int], number: int, blocks: int) -> None:
        super().__init__()
        here, *below = channels
        key, down = f"sites {number}", f"down {number}"
        self.encoder = rivals.spconv.SparseSequential(*[Block(here, here, key) for _ in range(blocks)])
        self.bottom = not below
        if below:
            conv = rivals.spconv.SparseConv3d(here, below[0], 2, stride=2, bias=False, indice_key=down)
            self.down = activated(here, conv)
            self.inner = Level(below, number + 1, blocks)
            self.up = activated(below[0], rivals.spconv.SparseInverseConv3d(below[0], here, 2, down, bias=False))
            joined = [2 * here] + [here] * (blocks - 1)
            self.decoder = rivals.spconv.SparseSequential(*[Block(n, here, key) for n in joined])

    def forward(self, x: Any) -> Any:
        skipped = self.encoder(x)
        if self.bottom:
            return skipped
        risen = self.up(self.inner(self.down(skipped)))
        return self.decoder(skipped.replace_feature(torch.cat([skipped.features, risen.features], 1)))


class SpconvUnet(nn.Module):
    """``SparseUNet(1, CLASSES)`` in modules of spconv; its parameters come in the same order."""

    def __init__(self, width: int, depth: int, blocks: int) -> None:
        super().__init__()
        self.stem = rivals.spconv.SubMConv3d(1, width, 3, bias=False, indice_key="sites 0")
        self.levels = Level([width * (level + 1) for level in range(depth)], 0, blocks)
        self.norm = rivals.spconv.SparseSequential(nn.BatchNorm1d(width), nn.ReLU(inplace=True))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Any) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.norm(self.levels(self.stem(x))).features)
        return logits

    def load(self, weights: dict[str, torch.Tensor]) -> None:
        """Take the weights of hepfeed's, in order; a convolution of one tap is a linear layer here."""
        mine = self.state_dict()
        pairs = zip(mine.items(), weights.values(), strict=True)
        self.load_state_dict({name: tensor.reshape(place.shape) for (name, place), tensor in pairs})


class UnetStep:
    """Steps of training: kernel maps, forward, cross entropy, backward, update.

    Args:
        sites: Of the images, which have one channel.
        width: Channels of the first level.
        depth: Levels.
        blocks: Residual blocks of a level, down and up.
    """

    def __init__(self, sites: Sites, width: int = 16, depth: int = 5, blocks: int = 2) -> None:
        torch.manual_seed(0)
        self.sites, self.depth, self.width = sites, depth, width
        self.features = sites.features(1)
        self.labels = torch.randint(0, CLASSES, (len(sites),))
        self.net = SparseUNet(1, CLASSES, width=width, depth=depth, blocks=blocks)
        self.optimiser = torch.optim.SGD(self.net.parameters(), lr=1e-3)
        self.spconv_net: SpconvUnet | None = None
        if rivals.spconv:
            self.spconv_net = SpconvUnet(width, depth, blocks)
            self.spconv_net.load(self.net.state_dict())
            self.spconv_optimiser = torch.optim.SGD(self.spconv_net.parameters(), lr=1e-3)

    def __str__(self) -> str:
        return f"SparseUNet, {self.depth} levels"

    def ours(self) -> torch.Tensor:
        """Do a step with hepfeed; return the logits before it."""
        return self._step(self.net, self.sites.tensor(self.features), self.optimiser)

    def theirs(self) -> torch.Tensor:
        """Do a step with spconv; return the logits before it."""
        assert self.spconv_net
        return self._step(self.spconv_net, self._spconv_images(self.features), self.spconv_optimiser)

    def _spconv_images(self, features: torch.Tensor) -> Any:
        return rivals.spconv.SparseConvTensor(features, self.sites.indices, list(self.sites.shape), self.sites.events)

    def _step(self, net: nn.Module, images: Any, optimiser: torch.optim.Optimizer) -> torch.Tensor:
        optimiser.zero_grad()
        logits: torch.Tensor = net(images)
        F.cross_entropy(logits, self.labels).backward()
        optimiser.step()
        return logits.detach()

    def verify(self) -> None:
        """Compare both networks: logits of float32 with those of float64, and all gradients in float64.

        In float32 a ReLU here and there is on the other side of 0, and the gradients differ by what it passes on.
        """
        torch.set_num_threads(1)
        exact = copy.deepcopy(self.net).double()
        expected = self._gradients(exact, self.sites.tensor(self.features.double()))
        errors = {"hepfeed": (rivals.error((self.ours(),), expected[:1]), TOLERANCE)}
        if self.spconv_net:
            twin = copy.deepcopy(self.spconv_net).double()
            same = rivals.error(self._gradients(twin, self._spconv_images(self.features.double())), expected)
            errors["spconv in float64"] = (same, TOLERANCE_OF_FLOAT64)
            errors["spconv"] = (rivals.error((self.theirs(),), expected[:1]), TOLERANCE)
        for name, (error, tolerance) in errors.items():
            assert error <= tolerance, f"{self}: error {error:.2g} of {name}"

    def _gradients(self, net: nn.Module, images: Any) -> rivals.Tensors:
        logits = net(images)
        F.cross_entropy(logits, self.labels).backward()
        return (logits.detach(), *[p.grad for p in net.parameters() if p.grad is not None])
