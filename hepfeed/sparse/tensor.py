"""Sparse tensors: features on the active sites of a batch of images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from hepfeed.errors import SpecError
from hepfeed.sites import check_grid
from hepfeed.sparse import densify
from hepfeed.sparse.arrays import check_cuda, check_device, check_features, kind_of
from hepfeed.sparse.duplicates import Duplicates, merge_duplicates
from hepfeed.sparse.sites import Link, Mover, Sites, parameters_of
from hepfeed.tensors import KernelMap, Sparse

__all__ = ["SparseTensor"]


class SparseTensor:
    """Features on the active sites of a batch of images, under spconv's names.

    A tensor is a value: its parts are not assigned to, and operations return new ones, which share the sites.  Rows
    keep the order in which they were given.  It copies and pickles with its kernel maps.

    Example::

        x = SparseTensor(features, indices, spatial_shape=(256, 256, 256), batch_size=16)
        x = x.replace_feature(torch.relu(x.features))

    Attributes:
        sites: Where it is active, with the kernel maps that were found so far.
        indice_dict: The links of layers with an ``indice_key``, which layers behind them may use again.  Outputs of a
            layer have those of its input, and its own.
    """

    sites: Sites
    indice_dict: dict[str, Link]

    def __init__(
        self,
        features: torch.Tensor,
        indices: torch.Tensor,
        spatial_shape: Sequence[int],
        batch_size: int,
        *,
        duplicates: Duplicates = "error",
    ) -> None:
        """Take features and sites; nothing is copied, except where duplicates are merged.

        Args:
            features: ``(N, C)`` of any dtype; convolutions need float32, float64 or bfloat16, and take float16 on a
                CUDA device.
            indices: ``(N, 1 + D) int32``: place of the event in the batch, then coordinates in C order, in any order of
                rows.
            spatial_shape: Of the images, ``D`` numbers.
            batch_size: Events; those without a site count.
            duplicates: What becomes of rows on one site: an error, or their sum, mean or largest value.  Unless it is
                "error", rows of the tensor are sorted by (event, coordinates).

        Raises:
            SpecError: The arguments do not fit each other.
            ProcessError: A site is outside of the images, or two rows are on one site and ``duplicates`` is "error".
        """
        shape, events = check_grid(spatial_shape, batch_size)
        _check_parts(features, indices, len(shape))
        if duplicates not in ("error", "sum", "mean", "max"):
            raise SpecError(f"duplicates must be 'error', 'sum', 'mean' or 'max', not {duplicates!r}")
        indices = indices.contiguous()
        if duplicates == "error":
            self.sites = Sites(indices, shape, events)
        else:
            features, indices = merge_duplicates(features, indices, shape, events, duplicates)
            self.sites = Sites(indices, shape, events, indices.new_empty((0,)))
        self._features = features
        self.indice_dict = {}

    @classmethod
    def _on(cls, features: torch.Tensor, sites: Sites, indice_dict: dict[str, Link]) -> SparseTensor:
        made = cls.__new__(cls)
        made._features = features
        made.sites = sites
        made.indice_dict = indice_dict
        return made

    @classmethod
    def from_dense(cls, dense: torch.Tensor, channels_first: bool = True) -> SparseTensor:
        """Take dense images; a site is where some channel is not 0 (NaN is not 0).

        Args:
            dense: ``(B, C, *spatial_shape)``, or ``(B, *spatial_shape, C)`` unless ``channels_first``.  Gradients go
                back to the sites.
            channels_first: Where the axis of channels is; spconv's ``from_dense`` has it last.

        Returns:
            A tensor with sorted rows.

        Raises:
            SpecError: ``dense`` has no spatial axis.
        """
        if not isinstance(dense, torch.Tensor) or dense.ndim < 3:
            raise SpecError(f"dense must have a batch, a channel and one spatial axis or more, not {kind_of(dense)}")
        check_device(dense=dense)
        shape = dense.shape[2:] if channels_first else dense.shape[1:-1]
        indices = densify.active_sites(dense, channels_first)
        sites = Sites(indices, tuple(shape), dense.shape[0], indices.new_empty((0,)))
        return cls._on(densify.take_sites(dense, indices, channels_first), sites, {})

    @classmethod
    def from_feed(cls, sparse: Sparse) -> SparseTensor:
        """Take sparse images of a batch of the feed, with the kernel maps that came with it.

        The first kernel map is of the images' sites.  Behind one that is not submanifold, the next are of its outputs,
        as in :class:`hepfeed.transforms.KernelMaps`; layers find them by their parameters.

        Args:
            sparse: Of torch tensors, on the CPU or a CUDA device, or NumPy arrays.  They are shared: while the tensor
                lives, so does their memory, perhaps a slot of the feed's ring.

        Raises:
            SpecError: A kernel map does not fit.
            ProcessError: A site is outside of the images, or two are equal.
        """
        held = sparse.map(torch.as_tensor)
        made = cls(held.features, held.indices, held.spatial_shape, held.batch_size)
        sites = made.sites
        for kernel_map in held.kernel_maps:
            sites = sites.adopt(kernel_map)
        return made

    @classmethod
    def batch(cls, tensors: Sequence[SparseTensor]) -> SparseTensor:
        """Join the events of several tensors to one batch; the inverse of :meth:`unbatch`.

        Args:
            tensors: One or more, of the same spatial shape and channels.

        Raises:
            SpecError: They are none, or differ.
        """
        if not tensors:
            raise SpecError("tensors must be one or more, not none")
        first = tensors[0]
        for each in tensors:
            if each.spatial_shape != first.spatial_shape or each.channels != first.channels:
                raise SpecError(
                    f"tensors of spatial shape {first.spatial_shape} with {first.channels} channels were expected, not"
                    f" {each.spatial_shape} with {each.channels}"
                )
        parts, events = [], 0
        for each in tensors:
            moved = each.indices.clone()
            moved[:, 0] += events
            parts.append(moved)
            events += each.batch_size
        indices = torch.cat(parts)
        return cls(torch.cat([each.features for each in tensors]), indices, first.spatial_shape, events)

    @property
    def features(self) -> torch.Tensor:
        """``(N, C)``; other features on the same sites are given by :meth:`replace_feature`."""
        return self._features

    @property
    def indices(self) -> torch.Tensor:
        """``(N, 1 + D) int32``: event and coordinates."""
        return self.sites.indices

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """``D`` numbers."""
        return self.sites.spatial_shape

    @property
    def batch_size(self) -> int:
        """Events, those without a site too."""
        return self.sites.batch_size

    @property
    def F(self) -> torch.Tensor:
        """The features, as MinkowskiEngine calls them."""
        return self._features

    @property
    def C(self) -> torch.Tensor:
        """The indices, as MinkowskiEngine calls them."""
        return self.sites.indices

    @property
    def channels(self) -> int:
        """Number of features of a site."""
        return self._features.shape[1]

    @property
    def num_sites(self) -> int:
        """Number of rows."""
        return self.sites.num_sites

    @property
    def spatial_size(self) -> int:
        """Cells of an image."""
        return math.prod(self.spatial_shape)

    @property
    def occupancy(self) -> float:
        """Share of the cells that are active; 0 for a batch of no events."""
        cells = self.batch_size * self.spatial_size
        return self.num_sites / cells if cells else 0.0

    @property
    def device(self) -> torch.device:
        """Where the features are."""
        return self._features.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the features."""
        return self._features.dtype

    def __len__(self) -> int:
        return self.num_sites

    def __repr__(self) -> str:
        images = " x ".join(map(str, self.spatial_shape))
        keys = f", indice_dict: {', '.join(self.indice_dict)}" if self.indice_dict else ""
        return (
            f"SparseTensor({self.num_sites} sites in {self.batch_size} images of {images}"
            f" ({100 * self.occupancy:.3g} % occupied), {self.channels} channels, {self.dtype}, {self.device}{keys})"
        )

    def replace_feature(self, feature: torch.Tensor) -> SparseTensor:
        """Return other features on the same sites.

        Args:
            feature: ``(N, C')``.

        Raises:
            SpecError: It has not one row for each site.
        """
        check_features("feature", feature, self.num_sites)
        return SparseTensor._on(feature, self.sites, self.indice_dict)

    def find_indice_pair(self, key: str | None) -> Link | None:
        """Return the link of the layer of an ``indice_key``, or None where there is none."""
        return None if key is None else self.indice_dict.get(key)

    def dense(self, channels_first: bool = True) -> torch.Tensor:
        """Return dense images, 0 where there is no site; gradients go back to the features.

        Args:
            channels_first: Where the axis of channels goes.

        Returns:
            ``(B, C, *spatial_shape)``, or ``(B, *spatial_shape, C)``.
        """
        check_device(features=self._features)
        images = (self.spatial_shape, self.batch_size)
        made: torch.Tensor = densify.densify(self._features, self.indices, *images, channels_first)
        return made

    def event(self, number: int) -> SparseTensor:
        """Return one event as a batch of its own, without kernel maps.

        Raises:
            IndexError: There is no such event.
        """
        if not -self.batch_size <= number < self.batch_size:
            raise IndexError(f"event {number} was asked for, and the batch has {self.batch_size}")
        rows = (self.indices[:, 0] == number % self.batch_size).nonzero().squeeze(1)
        return self._event(self._features[rows], self.indices[rows])

    def unbatch(self) -> list[SparseTensor]:
        """Return each event as a batch of its own, without kernel maps."""
        events = self.indices[:, 0].long()
        lengths = torch.bincount(events, minlength=self.batch_size).tolist()
        features, indices = self._features, self.indices
        if self.sites.order.numel():
            rows = torch.argsort(events, stable=True)
            features, indices = features[rows], indices[rows]
        parts = zip(torch.split(features, lengths), torch.split(indices, lengths))
        return [self._event(*part) for part in parts]

    def to(self, *args: Any, **options: Any) -> SparseTensor:
        """Return the same on another device or of another dtype; arguments as of ``torch.Tensor.to``.

        The dtype is that of the features.  Sites move with all kernel maps and links, each array once.

        Raises:
            SpecError: It is a CUDA device, and there are no kernels or no device.
        """
        for given in (*args, *options.values()):
            if isinstance(given, str | torch.device) and torch.device(given).type == "cuda":
                check_cuda("a SparseTensor", torch.device(given))
        features = self._features.to(*args, **options)
        if features.device == self.sites.device:
            return SparseTensor._on(features, self.sites, self.indice_dict)
        mover = Mover(features.device, bool(options.get("non_blocking", False)))
        sites = mover.sites(self.sites)
        links = {}
        for key, link in self.indice_dict.items():
            links[key] = mover.sites(link.source).link(*parameters_of(link.kernel_map))
        return SparseTensor._on(features, sites, links)

    def cpu(self) -> SparseTensor:
        """Return the same in the memory of the processor."""
        return self.to("cpu")

    def cuda(self, device: int | None = None) -> SparseTensor:
        """Return the same on a CUDA device, by default torch's current one.

        Raises:
            SpecError: There are no kernels or no device.
        """
        return self.to("cuda" if device is None else f"cuda:{device}")

    def float(self) -> SparseTensor:
        """Return the same in float32."""
        return self.to(torch.float32)

    def double(self) -> SparseTensor:
        """Return the same in float64."""
        return self.to(torch.float64)

    def bfloat16(self) -> SparseTensor:
        """Return the same in bfloat16."""
        return self.to(torch.bfloat16)

    def half(self) -> SparseTensor:
        """Return the same in float16, which convolutions on the CPU do not take: see :meth:`bfloat16`."""
        return self.to(torch.float16)

    def detach(self) -> SparseTensor:
        """Return the same with features that need no gradient."""
        return self.replace_feature(self._features.detach())

    def __add__(self, other: SparseTensor | torch.Tensor | complex) -> SparseTensor:
        """Add a tensor on the same sites, features or a number; :func:`hepfeed.sparse.add` takes other sites."""
        return self._combined(other, torch.add)

    __radd__ = __add__

    def __mul__(self, other: SparseTensor | torch.Tensor | complex) -> SparseTensor:
        """Multiply by a tensor on the same sites, by features or a number."""
        return self._combined(other, torch.mul)

    __rmul__ = __mul__

    def _combined(
        self, other: SparseTensor | torch.Tensor | complex, operation: Callable[[Any, Any], torch.Tensor]
    ) -> SparseTensor:
        if not isinstance(other, SparseTensor):
            return self.replace_feature(operation(self._features, other))
        if not self.sites.equal(other.sites):
            raise SpecError(
                f"tensors on the same sites were expected, not on {self.sites} and {other.sites}: hepfeed.sparse.add"
                " takes tensors on different sites"
            )
        links = {**other.indice_dict, **self.indice_dict}
        return SparseTensor._on(operation(self._features, other.features), self.sites, links)

    def _event(self, features: torch.Tensor, indices: torch.Tensor) -> SparseTensor:
        alone = indices.clone()
        alone[:, 0] = 0
        order = None if self.sites.order.numel() else alone.new_empty((0,))
        return SparseTensor._on(features, Sites(alone, self.spatial_shape, 1, order), {})


def _check_parts(features: torch.Tensor, indices: torch.Tensor, axes: int) -> None:
    if not isinstance(indices, torch.Tensor) or indices.dtype != torch.int32:
        raise SpecError(f"indices must be an int32 tensor, not {kind_of(indices)}: cast them with .int()")
    if indices.ndim != 2 or indices.shape[1] != 1 + axes:
        raise SpecError(
            f"indices must be (N, {1 + axes}), event and coordinates, for a spatial shape of {axes} axes, not"
            f" {tuple(indices.shape)}"
        )
    check_features("features", features, indices.shape[0])
    check_device(features=features, indices=indices)


# They hold tensors and numbers alone, so torch.load may make them without trust in the file.
torch.serialization.add_safe_globals([KernelMap, Link, Sites, SparseTensor])
