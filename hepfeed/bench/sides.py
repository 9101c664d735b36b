"""Who takes part in the race of sparse convolutions: hepfeed, and those that are installed of its rivals."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import psutil
import torch
import torch.nn.functional as F

import hepfeed.sparse as hsp
from hepfeed.bench.layer import Layer, convolve_by_taps
from hepfeed.tensors import KernelMap

__all__ = ["SIDES", "Absent", "Prepared", "Side"]

_DENSE_PART = 0.25
"""Of the free memory, that dense images may take."""


class Absent(Exception):
    """Why a side can't take part in a row."""


@dataclass(frozen=True)
class Prepared:
    """A layer as a side computes it, on a kernel map that is there.

    Attributes:
        forward: Returns ``(M, C_out)``, rows in the order of the side.
        features: The leaf to differentiate by, in the order of the layer's rows.
        weight: The other one, in the side's own layout.
        layer_weight: Makes ``(C_out, taps, C_in)`` of something laid out as the weight.
        order: The side's row of each row of the layer's output; None where they are the same.
    """

    forward: Callable[[], torch.Tensor]
    features: torch.Tensor
    weight: torch.Tensor
    layer_weight: Callable[[torch.Tensor], torch.Tensor]
    order: torch.Tensor | None = None

    def backward(self, grad: torch.Tensor) -> Callable[[], tuple[torch.Tensor, ...]]:
        """Return what computes output and both gradients, for a gradient in the order of the layer's rows."""
        own = grad if self.order is None else torch.empty_like(grad).index_copy_(0, self.order, grad)

        def run() -> tuple[torch.Tensor, ...]:
            out = self.forward()
            return (out, *torch.autograd.grad(out, [self.features, self.weight], own))

        return run

    def as_layer(self, results: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Return output, or output and gradients, as the layer has them."""
        out, *gradients = results
        out = out if self.order is None else out[self.order]
        return (out, gradients[0], self.layer_weight(gradients[1])) if gradients else (out,)


class Side(ABC):
    """One that can compute layers.

    Attributes:
        name: In the table.
        package: That it needs beside hepfeed's own.
        orders_taps: Whether its order of taps is known; else its results are compared for a weight that is the same
            for all taps.
    """

    name: ClassVar[str]
    package: ClassVar[str | None] = None
    orders_taps: ClassVar[bool] = True

    def missing(self) -> str | None:
        """Return why it can't take part at all, or None."""
        if self.package is None:
            return None
        try:
            importlib.import_module(self.package)
        except ImportError as error:
            return str(error)
        return None

    @abstractmethod
    def kernel_map(self, layer: Layer) -> Callable[[], Any]:
        """Return what builds the kernel map of sites that it has not seen.

        Raises:
            Absent: It has no such thing.
        """

    @abstractmethod
    def prepare(self, layer: Layer, backward: bool) -> Prepared:
        """Return the layer as it computes it.

        Args:
            layer: See there.
            backward: Whether gradients will be asked for.

        Raises:
            Absent: It can't.
        """


class Hepfeed(Side):
    """This package."""

    name = "hepfeed"

    def kernel_map(self, layer: Layer) -> Callable[[], Any]:
        """Check and sort the sites, and build the map."""
        indices = layer.indices.to(layer.features.device)
        made = layer.kernel_map
        options = made.kernel_size, made.stride, made.padding, made.dilation, made.submanifold
        features = layer.features.detach()[:, :1]

        def build() -> KernelMap:
            return hsp.SparseTensor(features, indices, (layer.side,) * 3, layer.events).sites.link(*options).kernel_map

        return build

    def prepare(self, layer: Layer, backward: bool) -> Prepared:
        """Call a module."""
        module = _module(hsp, layer, layer.channels)
        module.weight = torch.nn.Parameter(layer.weight.detach().reshape(module.weight.shape))
        indices = layer.indices.to(layer.features.device)
        x = hsp.SparseTensor(layer.features, indices, (layer.side,) * 3, layer.events)
        return Prepared(lambda: module(x).features, layer.features, module.weight, lambda weight: weight.flatten(1, -2))


class Twin(Side):
    """The kernel map's plain form in NumPy, with a binary search for each tap."""

    name = "twin"

    def kernel_map(self, layer: Layer) -> Callable[[], Any]:
        """Search on the host."""
        if layer.features.device.type != "cpu":
            raise Absent("it runs on the host")
        return layer.twin_map

    def prepare(self, layer: Layer, backward: bool) -> Prepared:
        """Leave it to :class:`Taps`."""
        raise Absent("the plain form of a convolution is: gather, mm, scatter")


class Taps(Side):
    """torch's own functions, tap by tap, on hepfeed's kernel map."""

    name = "gather, mm, scatter"

    def kernel_map(self, layer: Layer) -> Callable[[], Any]:
        """There is none."""
        raise Absent("torch has no kernel maps")

    def prepare(self, layer: Layer, backward: bool) -> Prepared:
        """Convolve by taps."""
        pairs, rows = layer.pairs(), len(layer.grad)
        return Prepared(
            lambda: convolve_by_taps(layer.features, layer.weight, pairs, rows),
            layer.features,
            layer.weight,
            lambda weight: weight,
        )


class Dense(Side):
    """torch's convolution of dense images, which are made of the features and read at the output sites."""

    name = "dense conv3d"

    def kernel_map(self, layer: Layer) -> Callable[[], Any]:
        """There is none."""
        raise Absent("a dense convolution needs no kernel map")

    def prepare(self, layer: Layer, backward: bool) -> Prepared:
        """Convolve images with the channels last in memory, the faster layout."""
        device, made = layer.features.device, layer.kernel_map
        channels_in, channels_out = layer.channels
        needed = 3 * layer.events * layer.side**3 * (channels_in + channels_out) * layer.features.element_size()
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
        if needed > _DENSE_PART * free:
            raise Absent(f"dense images would take {needed / 2**30:,.0f} GiB")
        rows = tuple(layer.indices.long().to(device).t())
        out_rows = tuple(torch.from_numpy(made.indices).long().to(device).t())
        padding = [size // 2 for size in made.kernel_size] if made.submanifold else list(made.padding)

        def run() -> torch.Tensor:
            images = layer.features.new_zeros(layer.events, *(layer.side,) * 3, channels_in)
            images = images.index_put(rows, layer.features).movedim(-1, 1)
            kernel = layer.weight.reshape(channels_out, *made.kernel_size, channels_in).movedim(-1, 1)
            return F.conv3d(images, kernel, None, list(made.stride), padding).movedim(1, -1)[out_rows]

        return Prepared(run, layer.features, layer.weight, lambda weight: weight)


class Spconv(Side):
    """spconv, with its own choice of algorithm."""

    name = "spconv"
    package = "spconv.pytorch"

    def kernel_map(self, layer: Layer) -> Callable[[], Any]:
        """Let a module of one channel build it; its products are small beside."""
        spconv = importlib.import_module(self.package)
        module = _module(spconv, layer, (1, 1))
        features, indices = layer.features.detach()[:, :1].contiguous(), layer.indices.to(layer.features.device)
        make = spconv.SparseConvTensor
        return torch.no_grad()(lambda: module(make(features, indices, [layer.side] * 3, layer.events)))

    def prepare(self, layer: Layer, backward: bool) -> Prepared:
        """Call a module on a tensor that keeps the map under the module's key."""
        if backward and layer.features.device.type == "cpu":
            raise Absent("spconv's gradients need a CUDA device")
        if layer.features.dtype == torch.bfloat16:
            raise Absent("spconv has no bfloat16")
        spconv = importlib.import_module(self.package)
        module = _module(spconv, layer, layer.channels, indice_key="layer")
        module.weight = torch.nn.Parameter(layer.weight.detach().reshape(module.weight.shape))
        indices = layer.indices.to(layer.features.device)
        x = spconv.SparseConvTensor(layer.features, indices, [layer.side] * 3, layer.events)
        order = _order(module(x).indices, layer)
        return Prepared(
            lambda: module(x).features, layer.features, module.weight, lambda weight: weight.flatten(1, -2), order
        )


class TorchSparse(Side):
    """TorchSparse++, whose order of taps is its own."""

    name = "TorchSparse"
    package = "torchsparse"
    orders_taps = False

    def missing(self) -> str | None:
        """It has no kernels for the processor."""
        return super().missing() or (None if torch.cuda.is_available() else "torchsparse needs a CUDA device")

    def kernel_map(self, layer: Layer) -> Callable[[], Any]:
        """Let a module of one channel build it; its products are small beside."""
        torchsparse = importlib.import_module(self.package)
        module = self._module(layer, (1, 1))
        features, indices = layer.features.detach()[:, :1].contiguous(), layer.indices.to(layer.features.device)
        return torch.no_grad()(lambda: module(torchsparse.SparseTensor(features, indices)))

    def prepare(self, layer: Layer, backward: bool) -> Prepared:
        """Call a module on a tensor that keeps the map."""
        torchsparse = importlib.import_module(self.package)
        module = self._module(layer, layer.channels)
        module.kernel = torch.nn.Parameter(layer.weight.detach().permute(1, 2, 0).contiguous())
        x = torchsparse.SparseTensor(layer.features, layer.indices.to(layer.features.device))
        order = _order(module(x).coords, layer)
        return Prepared(
            lambda: module(x).feats, layer.features, module.kernel, lambda weight: weight.permute(2, 0, 1), order
        )

    def _module(self, layer: Layer, channels: tuple[int, int]) -> Any:
        nn = importlib.import_module(f"{self.package}.nn")
        made = layer.kernel_map
        module = nn.Conv3d(*channels, made.kernel_size, made.stride)
        return module.to(layer.features.device, layer.features.dtype)


SIDES: tuple[Side, ...] = (Hepfeed(), Spconv(), TorchSparse(), Twin(), Taps(), Dense())
"""Those that are known; hepfeed is the first."""


def _module(package: Any, layer: Layer, channels: tuple[int, int], **options: Any) -> Any:
    """A module of hepfeed or of spconv, whose names and arguments are the same."""
    make = package.SubMConv3d if layer.kernel_map.submanifold else package.SparseConv3d
    sizes = {key: value for key, value in layer.options.items() if key != "submanifold"}
    return make(*channels, **sizes, bias=False, **options).to(layer.features.device, layer.features.dtype)


def _order(indices: torch.Tensor, layer: Layer) -> torch.Tensor | None:
    """Which of a side's output rows each row of the layer's is; None where they are the same."""
    if layer.kernel_map.submanifold:
        return None
    side = layer.kernel_map.spatial_shape[0]
    places = torch.tensor([side**3, side**2, side, 1], device=indices.device)
    return (indices.long() * places).sum(1).argsort()  # the layer's are sorted
