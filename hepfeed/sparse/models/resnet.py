"""A residual network that classifies whole images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from hepfeed.errors import SpecError
from hepfeed.sparse.models.block import Norm, ResBlock, check_counts, convolution, normalised
from hepfeed.sparse.modules.base import SparseModule, sparse_input
from hepfeed.sparse.modules.pooling import SparseGlobalAvgPool, SparseGlobalMaxPool, SparseGlobalSumPool
from hepfeed.sparse.modules.sequential import SparseSequential
from hepfeed.sparse.tensor import SparseTensor

__all__ = ["SparseResNet"]

_BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
_POOLS = {"mean": SparseGlobalAvgPool, "max": SparseGlobalMaxPool, "sum": SparseGlobalSumPool}


class SparseResNet(SparseModule):
    """Logits for every image, by residual blocks of submanifold convolutions.

    A submanifold convolution brings the input to ``width`` channels.  Stage s has ``2^s * width`` channels.  Between
    stages a convolution with 2^D taps and stride 2 makes the grid coarser: kernels do not overlap, so that there are
    fewer sites each time.  Normalisation, ReLU, a global pool and a linear layer give the logits.  All convolutions but
    the first follow normalisation and ReLU; none has a bias.  Depth is counted as by He et al., arXiv:1512.03385: 18 is
    8 blocks of two convolutions, the first one and the linear layer.

    Parameters with ``dims=3``, ``width=16``, one input channel and two classes: 1,263,186 with depth 10, 2,439,186 with
    depth 18 and 4,334,930 with depth 34.

    An image without a site has features of 0 behind the pool.  Along an axis with an odd number of cells the last one
    has no coarse cell, and its sites are lost there: choose spatial shapes that ``2^(stages - 1)`` divides.

    All but the linear layer, torch's own, gives the same bits for any number of threads.

    Args:
        in_channels: Of the input.
        classes: Logits of an image.
        depth: 10, 18 or 34; or the number of blocks of each stage, such as ``(1, 1, 2)``.
        dims: Axes of the images, 1 to 4.
        width: Channels of the first stage; each stage has twice those of the one before.
        pool: Mean, largest value or sum of each channel over the sites of the last stage.
        norm: Makes the normalisations; None: :class:`hepfeed.sparse.SparseBatchNorm`.

    Raises:
        SpecError: An argument is out of range.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        depth: int | Sequence[int] = 18,
        dims: int = 3,
        width: int = 16,
        pool: Literal["mean", "max", "sum"] = "mean",
        norm: Norm | None = None,
    ) -> None:
        super().__init__()
        if isinstance(depth, int) and depth not in _BLOCKS:
            raise SpecError(f"depth must be {', '.join(map(str, _BLOCKS))} or blocks of each stage, not {depth}")
        self.blocks = _BLOCKS[depth] if isinstance(depth, int) else tuple(depth)
        if not self.blocks or min(self.blocks) < 1:
            raise SpecError(f"depth must give one block or more for each of one stage or more, not {depth!r}")
        check_counts(classes=classes, width=width)
        if pool not in _POOLS:
            raise SpecError(f"pool must be {', '.join(map(repr, _POOLS))}, not {pool!r}")
        self.stem = convolution("SubMConv", dims)(in_channels, width, 3, bias=False)
        stages = []
        for number, blocks in enumerate(self.blocks):
            here, layers = width * 2**number, list[nn.Module]()
            if number:
                down = convolution("SparseConv", dims)(here // 2, here, 2, stride=2, bias=False)
                layers.append(SparseSequential(**normalised(here // 2, norm), conv=down))
            layers += [ResBlock(here, here, dims=dims, norm=norm) for _ in range(blocks)]
            stages.append(SparseSequential(*layers))
        self.stages = SparseSequential(*stages)
        self.norm = SparseSequential(**normalised(here, norm))
        self.pool = _POOLS[pool]()
        self.head = nn.Linear(here, classes)

    def forward(self, x: SparseTensor) -> Tensor:
        """Return logits ``(batch_size, classes)``.

        Args:
            x: ``in_channels`` features on sites in any order.

        Raises:
            SpecError: It is no sparse tensor, or its images have fewer than ``2^(stages - 1)`` cells along an axis.
        """
        logits: Tensor = self.head(self.pool(self.features(x)))
        return logits

    def features(self, x: SparseTensor) -> SparseTensor:
        """Return what is pooled, on the sites of the last stage."""
        x = sparse_input(x, self)
        least = 2 ** (len(self.blocks) - 1)
        if min(x.spatial_shape) < least:
            raise SpecError(
                f"a SparseResNet of {len(self.blocks)} stages needs images of {least} cells or more along each axis,"
                f" not {x.spatial_shape}: give it fewer stages"
            )
        made: SparseTensor = self.norm(self.stages(self.stem(x)))
        return made

    def kernel_maps(self) -> list[dict[str, Any]]:
        """Return the kernel maps of a pass, for ``prebuild`` of :class:`hepfeed.DataLoader`, which builds them ahead.

        They are ``2 * stages - 1``: one of each stage and one from each stage to the next.
        """
        here: dict[str, Any] = {"kernel_size": 3, "submanifold": True}
        down: dict[str, Any] = {"kernel_size": 2, "stride": 2}
        return [here, *[each for _ in self.blocks[1:] for each in (down, here)]]
