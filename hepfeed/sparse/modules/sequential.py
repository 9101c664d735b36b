"""Modules one after another."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hepfeed.errors import SpecError
from hepfeed.sparse.modules.base import SparseModule
from hepfeed.sparse.tensor import SparseTensor

__all__ = ["SparseSequential"]


class SparseSequential(SparseModule):
    """Modules one after another, sparse ones and torch's own.

    A :class:`SparseModule` is given the sparse tensor, any other module the features, from which it must make one row
    for each site.  Behind a module that returns a plain tensor (:class:`ToDense`, global pools) modules are given that.

    Example::

        SparseSequential(SubMConv3d(1, 16, 3), nn.BatchNorm1d(16), nn.ReLU(), ToDense())
        SparseSequential(OrderedDict([("conv", SubMConv3d(1, 16, 3)), ("relu", nn.ReLU())]))
        SparseSequential(conv=SubMConv3d(1, 16, 3), relu=nn.ReLU())
    """

    def __init__(self, *args: nn.Module | OrderedDict[str, nn.Module], **kwargs: nn.Module) -> None:
        """Take modules, named by their place; or an ordered dict of them; then those that are given by name.

        Raises:
            KeyError: Two modules have one name.
            TypeError: Something is no module.
        """
        super().__init__()
        if len(args) == 1 and isinstance(args[0], OrderedDict):
            named = dict(args[0])
        else:
            named = {str(place): module for place, module in enumerate(args)}  # type: ignore[misc]
        for name, module in [*named.items(), *kwargs.items()]:
            self.add(module, name)

    def add(self, module: nn.Module, name: str | None = None) -> None:
        """Append a module, named by its place where no name is given.

        Raises:
            KeyError: There is a module of that name, or the name has a dot.
            TypeError: It is no module.
        """
        place = str(len(self)) if name is None else name
        if place in self._modules:
            raise KeyError(f"there is a module named {place!r} already")
        self.add_module(place, module)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[nn.Module]:
        return iter([module for _, module in self._named()])

    def __getitem__(self, index: int | slice) -> nn.Module:
        """Return a module, or a :class:`SparseSequential` of some of them, by their names."""
        if isinstance(index, slice):
            return SparseSequential(OrderedDict(self._named()[index]))
        return list(self)[index]

    def forward(self, x: Any) -> Any:
        """Return what the last module returns.

        Raises:
            SpecError: A module made something else than one row of features for each site.
        """
        for name, module in self._named():
            if isinstance(x, SparseTensor) and not isinstance(module, SparseModule):
                x = _on_features(x, module, name)
            else:
                x = module(x)
        return x

    def _named(self) -> list[tuple[str, nn.Module]]:
        # Unlike named_children, with a module in each of its places.
        return [(name, module) for name, module in self._modules.items() if module is not None]


def _on_features(x: SparseTensor, module: nn.Module, name: str) -> SparseTensor:
    if torch.compiler.is_compiling() and isinstance(module, _BatchNorm):
        # Torch's batch norm asks whether there are rows, in training whether there is one, and behind a strided layer
        # the compiler can't answer.  SparseBatchNorm does not ask.
        torch._check(x.features.shape[0] > int(module.training))  # type: ignore[no-untyped-call]
    features = module(x.features)
    try:
        return x.replace_feature(features)
    except SpecError as error:
        raise SpecError(f"module {name!r}, {type(module).__name__}: {error.message}") from error
