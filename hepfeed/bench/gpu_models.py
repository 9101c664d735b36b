"""Networks to train while the feed is measured: small ones that take any batch, and the user's own by import path."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import hepfeed.sparse as hsp
from hepfeed.errors import SpecError, nearest
from hepfeed.tensors import Jagged, Padded, Sparse

__all__ = ["MODELS", "fitting", "make_model"]

Batch = dict[str, Any]

_NOT_INPUTS = ("label", "event", "weight")
_HIDDEN = 256
_STAGES = 4
_MOST_CHANNELS = 4


def make_model(name: str, batch: Batch, classes: int, seed: int = 0) -> nn.Module:
    """Return a network that takes a batch and gives logits ``(B, classes)``, with the same first weights each time.

    Args:
        name: One of :data:`MODELS`; or ``"package.module:function"``, where the function is called with a batch and the
            number of classes and returns a ``torch.nn.Module``.  The working directory is searched as well::

                # mymodels.py
                class Net(torch.nn.Module):
                    def __init__(self, cells, classes):
                        super().__init__()
                        self.head = torch.nn.Linear(cells, classes)

                    def forward(self, batch):
                        return self.head(batch["ECAL"].flatten(1))

                def make(batch, classes):
                    return Net(batch["ECAL"][0].numel(), classes)

            is ``"mymodels:make"``.
        batch: Any batch of the feed, on the CPU.
        classes: Logits.
        seed: Of the first weights.

    Raises:
        SpecError: There is no such network, or it can't take such batches.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if ":" in name:
            return _imported(name, batch, classes)
        if name not in MODELS:
            known = nearest(name, MODELS)
            raise SpecError(f"--model {name!r} is none of {', '.join(MODELS)}, nor a package.module:function: {known}")
        return MODELS[name](batch, classes)


def fitting(batch: Batch) -> str:
    """Return the name of the network that suits a batch: sparse images, then dense ones, then anything."""
    if any(isinstance(value, Sparse) for value in batch.values()):
        return "sparse"
    return "cnn" if _images(batch) else "mlp"


class Linear(nn.Module):
    """One linear layer on all numbers of an event."""

    def __init__(self, batch: Batch, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(_features(batch).shape[1], classes)

    def forward(self, batch: Batch) -> Tensor:
        """Return logits ``(B, classes)``."""
        logits: Tensor = self.head(_features(batch))
        return logits


class Mlp(nn.Module):
    """Two hidden layers of 256 on all numbers of an event."""

    def __init__(self, batch: Batch, classes: int) -> None:
        super().__init__()
        width = _features(batch).shape[1]
        hidden = [nn.Linear(width, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, _HIDDEN), nn.ReLU()]
        self.layers = nn.Sequential(*hidden, nn.Linear(_HIDDEN, classes))

    def forward(self, batch: Batch) -> Tensor:
        """Return logits ``(B, classes)``."""
        logits: Tensor = self.layers(_features(batch))
        return logits


class Cnn(nn.Module):
    """Two strided convolutions on each dense image, averages over the cells, and a linear layer.

    Images are ``(B, x, y)`` and ``(B, x, y, z)``, or have up to 4 channels before these axes.
    """

    def __init__(self, batch: Batch, classes: int) -> None:
        super().__init__()
        images = _images(batch)
        if not images:
            raise SpecError(f"--model cnn needs dense images (B, x, y) or (B, x, y, z), and there are {_named(batch)}")
        self.towers = nn.ModuleDict()
        for number, image in enumerate(images.values()):
            convolution, pool = (
                (nn.Conv2d, nn.AdaptiveAvgPool2d) if image.ndim == 4 else (nn.Conv3d, nn.AdaptiveAvgPool3d)
            )
            first, second = convolution(image.shape[1], 8, 3, 2, 1), convolution(8, 16, 3, 2, 1)
            self.towers[str(number)] = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), pool(1), nn.Flatten())
        self.head = nn.Linear(16 * len(images), classes)

    def forward(self, batch: Batch) -> Tensor:
        """Return logits ``(B, classes)``."""
        found = [tower(image) for tower, image in zip(self.towers.values(), _images(batch).values())]
        logits: Tensor = self.head(torch.cat(found, 1))
        return logits


class SparseNet(nn.Module):
    """A :class:`hepfeed.sparse.SparseResNet` for each sparse image, with 16 channels; their logits are added."""

    def __init__(self, batch: Batch, classes: int) -> None:
        super().__init__()
        images = [value for _, value in _inputs(batch) if isinstance(value, Sparse)]
        if not images:
            raise SpecError(
                f"--model sparse needs sparse images, and there are {_named(batch)}: add the step sparsify to the"
                " specification's transforms"
            )
        nets = []
        for image in images:
            stages = min(_STAGES, max(1, min(image.spatial_shape).bit_length()))
            dims = len(image.spatial_shape)
            nets.append(hsp.SparseResNet(image.features.shape[1], classes, depth=(1,) * stages, dims=dims))
        self.nets = nn.ModuleList(nets)

    def forward(self, batch: Batch) -> Tensor:
        """Return logits ``(B, classes)``."""
        images = [value for _, value in _inputs(batch) if isinstance(value, Sparse)]
        logits: list[Tensor] = []
        for net, image in zip(self.nets, images):
            made = hsp.SparseTensor.from_feed(image)
            logits.append(net(made.replace_feature(made.features.float())))
        return torch.stack(logits).sum(0)


MODELS: dict[str, type[nn.Module]] = {"linear": Linear, "mlp": Mlp, "cnn": Cnn, "sparse": SparseNet}


def _inputs(batch: Batch) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in sorted(batch.items()) if name not in _NOT_INPUTS)


def _images(batch: Batch) -> dict[str, Tensor]:
    """Dense images as float32 ``(B, channels, *cells)``."""
    found = {}
    for name, value in _inputs(batch):
        if isinstance(value, Tensor) and 3 <= value.ndim <= 5 and not value.is_complex():
            has_channels = value.ndim == 5 or (value.ndim == 4 and value.shape[1] <= _MOST_CHANNELS)
            found[name] = (value if has_channels else value[:, None]).float()
    return found


def _features(batch: Batch) -> Tensor:
    """All numbers of each event as ``(B, F)`` float32; where events differ in length, the sum over their rows."""
    columns = [
        _row(value).float() for _, value in _inputs(batch) if isinstance(value, Tensor | Jagged | Padded | Sparse)
    ]
    if not columns:
        raise SpecError(f"a linear network needs tensors, and there are {_named(batch)}")
    return torch.cat(columns, 1)


def _row(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.reshape(len(value), -1)
    if isinstance(value, Padded):
        values, mask = torch.as_tensor(value.values), torch.as_tensor(value.mask)
        return (values.reshape(*mask.shape, -1).float() * mask[..., None]).sum(1)
    if isinstance(value, Sparse):
        values, number, events = value.features, value.indices[:, 0].long(), value.batch_size
    else:
        lengths = value.lengths()
        number = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
        values, events = value.values, len(lengths)
    flat = values.reshape(len(values), -1).float()
    sums: Tensor = flat.new_zeros((events, flat.shape[1])).index_add_(0, number, flat)
    return sums


def _named(batch: Batch) -> str:
    kinds = {name: tuple(v.shape) if isinstance(v, Tensor) else type(v).__name__ for name, v in _inputs(batch)}
    return ", ".join(f"{name} {kind}" for name, kind in kinds.items()) or "no keys"


def _imported(path: str, batch: Batch, classes: int) -> nn.Module:
    module, _, name = path.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SpecError(f"--model {path!r} can't be imported: {error}") from error
    made = function(batch, classes)
    if not isinstance(made, nn.Module):
        raise SpecError(f"--model {path!r} must return a torch.nn.Module, not a {type(made).__name__}")
    return made
