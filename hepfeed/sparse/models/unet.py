"""The U-ResNet, which labels every active site."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hepfeed.errors import SpecError
from hepfeed.sparse.models.block import Norm, ResBlock, check_counts, convolution, normalised
from hepfeed.sparse.modules.base import SparseModule, sparse_input
from hepfeed.sparse.modules.linear import SparseLinear
from hepfeed.sparse.modules.sequential import SparseSequential
from hepfeed.sparse.tensor import SparseTensor

__all__ = ["SparseUNet"]


class SparseUNet(SparseModule):
    """Logits for every active site, by the U-ResNet of Domine and Terao, arXiv:1903.05663.

    A submanifold convolution brings the input to ``width`` channels.  Level l of ``depth`` has ``(l + 1) * width``
    channels and ``blocks`` residual blocks; a convolution with 2^D taps and stride 2 leads to the next one, its inverse
    back to the same sites; there the two are concatenated and go through ``blocks`` blocks more.  Normalisation, ReLU
    and a linear layer give the logits.  All convolutions but the first follow normalisation and ReLU; none has a bias.

    With the defaults, one input channel and five classes it has 2,741,477 parameters.  On thin tracks each level has a
    little more than half of the sites of the one above.

    Cells of a coarse grid are pairs of cells along each axis.  Along an axis with an odd number of cells the last one
    has no coarse cell, and what lies there only sees its neighbours on that level: choose spatial shapes that
    ``2^(depth - 1)`` divides.

    Logits and all gradients are the same bits for any number of threads.

    Example::

        model = SparseUNet(in_channels=1, classes=3)
        loader = hepfeed.DataLoader(dataset, 16, prebuild=model.kernel_maps(), num_workers=2)
        for batch in loader:
            logits = model(SparseTensor.from_feed(batch["image"]))  # (N, 3), row by row
            loss = torch.nn.functional.cross_entropy(logits, labels)

    Args:
        in_channels: Of the input.
        classes: Logits of a site.
        dims: Axes of the images, 1 to 4.
        width: Channels of the first level; level l has l + 1 times as many.
        depth: Levels; the coarsest grid is ``2^(depth - 1)`` times coarser.
        blocks: Residual blocks of a level, on the way down and again on the way up.
        norm: Makes the normalisations; None: :class:`hepfeed.sparse.SparseBatchNorm`.

    Raises:
        SpecError: An argument is out of range.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        dims: int = 3,
        width: int = 16,
        depth: int = 5,
        blocks: int = 2,
        norm: Norm | None = None,
    ) -> None:
        super().__init__()
        check_counts(classes=classes, width=width, depth=depth, blocks=blocks)
        self.depth = depth
        # The layers come in the order of SparseConvNet's U-ResNet: weights of it go over in order.
        self.stem = convolution("SubMConv", dims)(in_channels, width, 3, bias=False)
        self.levels = _Level([width * (level + 1) for level in range(depth)], 0, dims, blocks, norm)
        self.norm = SparseSequential(**normalised(width, norm))
        self.head = SparseLinear(width, classes)

    def forward(self, x: SparseTensor) -> Tensor:
        """Return logits.

        Args:
            x: ``in_channels`` features on sites in any order.

        Returns:
            ``(N, classes)``, the rows of ``x``.

        Raises:
            SpecError: It is no sparse tensor, or its images have fewer than ``2^(depth - 1)`` cells along an axis.
        """
        logits: SparseTensor = self.head(self.features(x))
        return logits.features

    def features(self, x: SparseTensor) -> SparseTensor:
        """Return what the logits are made of, ``width`` channels on the sites of ``x``."""
        x = sparse_input(x, self)
        least = 2 ** (self.depth - 1)
        if min(x.spatial_shape) < least:
            raise SpecError(
                f"a SparseUNet of depth {self.depth} needs images of {least} cells or more along each axis, not"
                f" {x.spatial_shape}: give it less depth"
            )
        # Links of the levels are known inside only, so that networks may follow each other.
        inside = SparseTensor._on(x.features, x.sites, {})
        made: SparseTensor = self.norm(self.levels(self.stem(inside)))
        return SparseTensor._on(made.features, x.sites, x.indice_dict)

    def kernel_maps(self) -> list[dict[str, Any]]:
        """Return the kernel maps of a pass, for ``prebuild`` of :class:`hepfeed.DataLoader`, which builds them ahead.

        They are ``2 * depth - 1``: one of each level and one from each level to the next, which serves the way up too.
        """
        here: dict[str, Any] = {"kernel_size": 3, "submanifold": True}
        down: dict[str, Any] = {"kernel_size": 2, "stride": 2}
        return [here, *[each for _ in range(self.depth - 1) for each in (down, here)]]


class _Level(SparseModule):
    """Blocks on one grid, and between them what lies below.

    Args:
        channels: Of this level and of those below.
        number: Of this level, 0 for the finest.
        dims: See :class:`SparseUNet`, as for the others.
        blocks: See above.
        norm: See above.
    """

    def __init__(self, channels: Sequence[int], number: int, dims: int, blocks: int, norm: Norm | None) -> None:
        super().__init__()
        here, *below = channels
        self.encoder = SparseSequential(*[ResBlock(here, here, dims=dims, norm=norm) for _ in range(blocks)])
        self.bottom = not below
        if below:
            key = f"level {number}"
            down = convolution("SparseConv", dims)(here, below[0], 2, stride=2, bias=False, indice_key=key)
            up = convolution("SparseInverseConv", dims)(below[0], here, 2, key, bias=False)
            self.down = SparseSequential(**normalised(here, norm), conv=down)
            self.inner = _Level(below, number + 1, dims, blocks, norm)
            self.up = SparseSequential(**normalised(below[0], norm), conv=up)
            joined = [2 * here] + [here] * (blocks - 1)
            self.decoder = SparseSequential(*[ResBlock(n, here, dims=dims, norm=norm) for n in joined])

    def forward(self, x: SparseTensor) -> SparseTensor:
        skipped: SparseTensor = self.encoder(x)
        if self.bottom:
            return skipped
        risen = self.up(self.inner(self.down(skipped)))
        joined = skipped.replace_feature(torch.cat([skipped.features, risen.features], 1))
        made: SparseTensor = self.decoder(joined)
        return made
