"""The residual block of submanifold convolutions, of which the networks consist."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from hepfeed.errors import SpecError
from hepfeed.sparse.modules import convolution as convolutions
from hepfeed.sparse.modules.activation import SparseIdentity, SparseReLU
from hepfeed.sparse.modules.base import SparseModule, sparse_input
from hepfeed.sparse.modules.norm import SparseBatchNorm
from hepfeed.sparse.modules.sequential import SparseSequential
from hepfeed.sparse.tensor import SparseTensor

__all__ = ["Norm", "ResBlock", "check_counts", "convolution", "normalised"]

Norm = Callable[[int], nn.Module]
"""Makes the normalisation of so many channels, e.g. ``functools.partial(SparseBatchNorm, eps=1e-4)``."""

_MOST_DIMS = 4


def convolution(kind: str, dims: int) -> Callable[..., SparseModule]:
    """Return the class of a convolution of 1 to 4 axes.

    Args:
        kind: ``"SubMConv"``, ``"SparseConv"`` or ``"SparseInverseConv"``.
        dims: Axes of the images.

    Raises:
        SpecError: There is none for so many axes.
    """
    if not isinstance(dims, int) or isinstance(dims, bool) or not 1 <= dims <= _MOST_DIMS:
        raise SpecError(f"dims must be an integer from 1 to {_MOST_DIMS}, not {dims!r}")
    made: Callable[..., SparseModule] = getattr(convolutions, f"{kind}{dims}d")
    return made


def check_counts(**counts: int) -> None:
    """Check numbers that a network is given.

    Raises:
        SpecError: One is no integer of 1 or more.
    """
    for name, count in counts.items():
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise SpecError(f"{name} must be an integer of 1 or more, not {count!r}")


def normalised(channels: int, norm: Norm | None, relu: bool = True) -> dict[str, nn.Module]:
    """Return a normalisation and a ReLU under their names; batch norms do both in one pass.

    Args:
        channels: Of the features.
        norm: Makes the normalisation.  None: :class:`hepfeed.sparse.SparseBatchNorm`.
        relu: Whether the ReLU is wanted.
    """
    made = SparseBatchNorm(channels) if norm is None else norm(channels)
    if relu and not isinstance(made, SparseBatchNorm):
        return {"norm": made, "relu": SparseReLU()}
    if isinstance(made, SparseBatchNorm):
        made.relu = relu
    return {"norm": made}


class ResBlock(SparseModule):
    """Two submanifold convolutions with a way around them; sites and their order stay as they are.

    ``x + conv(relu(norm(conv(relu(norm(x))))))`` (pre-activated, He et al., arXiv:1603.05027), or as at first
    ``relu(x + norm(conv(relu(norm(conv(x))))))`` (arXiv:1512.03385).  Where the channels differ, x goes through a
    convolution of one tap, which the second form normalises.

    Convolutions have no bias, as what is normalised needs none.  With 3^3 taps there are
    ``27 * C_out * (C_in + C_out)`` weights, and ``C_in * C_out`` more where the channels differ.

    Args:
        in_channels: Of the input.
        out_channels: Of the output.
        dims: Axes of the images, 1 to 4.
        kernel_size: Taps along all axes or each, odd.
        preactivation: Which of the two forms.
        norm: Makes the normalisations.  None: :class:`hepfeed.sparse.SparseBatchNorm`.

    Raises:
        SpecError: An argument is out of range.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        dims: int = 3,
        kernel_size: int | Sequence[int] = 3,
        preactivation: bool = True,
        norm: Norm | None = None,
    ) -> None:
        super().__init__()
        conv = convolution("SubMConv", dims)
        self.preactivation = preactivation
        # The way around comes first, as in SparseConvNet: weights of its networks go over in order.
        self.shortcut = SparseSequential()
        if in_channels != out_channels:
            self.shortcut.add(conv(in_channels, out_channels, 1, bias=False), "conv")
            if not preactivation:
                self.shortcut.add(normalised(out_channels, norm, relu=False)["norm"], "norm")
        first = conv(in_channels, out_channels, kernel_size, bias=False)
        second = conv(out_channels, out_channels, kernel_size, bias=False)
        if preactivation:
            self.first = SparseSequential(**normalised(in_channels, norm), conv=first)
            self.second = SparseSequential(**normalised(out_channels, norm), conv=second)
        else:
            self.first = SparseSequential(conv=first, **normalised(out_channels, norm))
            self.second = SparseSequential(conv=second, **normalised(out_channels, norm, relu=False))
        self.activation = SparseIdentity() if preactivation else SparseReLU()

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Return features ``(N, out_channels)`` on the sites of ``x``.

        Raises:
            SpecError: It is no sparse tensor, or has other channels.
        """
        x = sparse_input(x, self)
        made: SparseTensor = self.activation(self.second(self.first(x)) + self.shortcut(x))
        return made
