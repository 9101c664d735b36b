"""What modules over sparse tensors have in common."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from hepfeed.errors import SpecError
from hepfeed.sparse.tensor import SparseTensor

__all__ = ["FeatureModule", "SparseModule", "sparse_input"]


class SparseModule(nn.Module):
    """Base of modules that take a :class:`SparseTensor`.

    :class:`SparseSequential` gives them the tensor, and other modules its features.
    """


class FeatureModule(SparseModule):
    """Makes a torch module work on the features of a sparse tensor: ``class SparseReLU(FeatureModule, nn.ReLU)``.

    It has that module's arguments and ``state_dict``, and takes plain tensors as that does.
    """

    def forward(self, x: Any) -> Any:
        """Return a sparse tensor on the same sites, or a tensor where one was given."""
        if isinstance(x, SparseTensor):
            return x.replace_feature(super().forward(x.features))
        return super().forward(x)


def sparse_input(x: Any, module: nn.Module) -> SparseTensor:
    """Return what a module was given, a sparse tensor.

    Raises:
        SpecError: It is something else.
    """
    if not isinstance(x, SparseTensor):
        given = f"a tensor {tuple(x.shape)}" if isinstance(x, torch.Tensor) else f"a {type(x).__name__}"
        raise SpecError(
            f"{type(module).__name__} takes a SparseTensor, not {given}: modules within one another go into a"
            " SparseSequential, not into nn.Sequential"
        )
    return x
