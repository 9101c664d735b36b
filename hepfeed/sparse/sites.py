"""Where a sparse tensor is active, and what was found out about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from hepfeed.errors import SpecError
from hepfeed.kernel_map import output_shape
from hepfeed.sparse import maps
from hepfeed.sparse.arrays import check_device
from hepfeed.tensors import KernelMap

__all__ = ["Axes", "Link", "Mover", "Parameters", "Sites", "parameters_of"]

T = TypeVar("T")

Axes = tuple[int, ...]
"""One number for each spatial axis."""
Parameters = tuple[Axes, Axes, Axes, Axes, bool, bool]
"""Kernel size, stride, padding, dilation, whether it is submanifold, whether it is transposed."""


class Sites:
    """Active sites of the images of a batch, shared by all tensors that lie on them.

    Kernel maps are kept with the sites: layers of the same parameters on the same sites find the map that the first of
    them built, whether they were given an ``indice_key`` or not.  The maps go when the last tensor on the sites does.

    Attributes:
        indices: ``(N, 1 + D) int32``: event and coordinates, each site once, in any order.
        spatial_shape: ``D`` numbers.
        batch_size: Events; those without a site count.
        order: ``(N,) int32``: row numbers by (event, coordinates); of length 0 where the rows are sorted already.
    """

    def __init__(
        self, indices: torch.Tensor, spatial_shape: Axes, batch_size: int, order: torch.Tensor | None = None
    ) -> None:
        """Take sites; nothing is copied.

        Args:
            indices: See above.
            spatial_shape: See above.
            batch_size: See above.
            order: See above.  None: the sites are checked and sorted here.

        Raises:
            ProcessError: A site is outside of the images, or two are equal.
        """
        self.indices = indices
        self.spatial_shape = spatial_shape
        self.batch_size = batch_size
        self.order = maps.sort_sites(indices, spatial_shape, batch_size) if order is None else order
        # A target of None stands for the sites themselves: without cycles, maps are freed with their last user.
        self._found: dict[Parameters, tuple[KernelMap, Sites | None]] = {}

    def __len__(self) -> int:
        return self.num_sites

    def __repr__(self) -> str:
        images = " x ".join(map(str, self.spatial_shape))
        return f"Sites({len(self)} in {self.batch_size} images of {images}, {len(self._found)} kernel maps)"

    @property
    def num_sites(self) -> int:
        """Number of rows; unlike what ``len`` returns, it may be a symbol while a network is compiled."""
        return self.indices.shape[0]

    @property
    def device(self) -> torch.device:
        """Where the indices are."""
        return self.indices.device

    def equal(self, other: Sites) -> bool:
        """Whether others are the same sites in the same order of rows, of the same images."""
        if self is other:
            return True
        images = (self.spatial_shape, self.batch_size) == (other.spatial_shape, other.batch_size)
        return images and (self.indices is other.indices or torch.equal(self.indices, other.indices))

    def link(
        self,
        kernel_size: Axes,
        stride: Axes,
        padding: Axes,
        dilation: Axes,
        submanifold: bool = False,
        transposed: bool = False,
    ) -> Link:
        """Return the kernel map of a convolution on these sites, built by the first that asks for it.

        Args:
            kernel_size: Taps, of each axis, as the ones that follow; as
                :func:`hepfeed.kernel_map.check_convolution` returns them.
            stride: Of the output grid.
            padding: Of the input grid.
            dilation: Of the taps.
            submanifold: Whether outputs lie where inputs do.
            transposed: Whether sites follow ``o = i * stride - padding + k * dilation``.

        Raises:
            SpecError: The kernel does not fit the images, or there are no kernels for the device of the sites.
        """
        key = (kernel_size, stride, padding, dilation, submanifold, transposed)
        found = self._found.get(key)
        if found is None:
            if torch.compiler.is_compiling() or not torch.is_inference_mode_enabled():
                found = self._build(*key)
            else:
                with torch.inference_mode(False):  # training may use the map later
                    found = self._build(*key)
            self._found[key] = found
        kernel_map, target = found
        return Link(self, kernel_map, self if target is None else target)

    def adopt(self, kernel_map: KernelMap) -> Sites:
        """Take a kernel map that was built elsewhere; return the sites of its outputs.

        Args:
            kernel_map: Of these sites, with tensors on their device.

        Raises:
            SpecError: The map is of other sites, or its arrays do not fit each other.
        """
        axes = len(self.spatial_shape)
        taps = 1
        for size in kernel_map.kernel_size:
            taps *= size
        if len(kernel_map.kernel_size) != axes or kernel_map.offsets.shape != (taps + 1,):
            raise SpecError(
                f"a kernel map for images of {axes} axes was expected, not one with kernel {kernel_map.kernel_size} and"
                f" offsets {tuple(kernel_map.offsets.shape)}"
            )
        if kernel_map.in_maps.shape != kernel_map.out_maps.shape or kernel_map.indices.shape[1:] != (1 + axes,):
            raise SpecError(
                f"in_maps, out_maps (P,) and indices (M, {1 + axes}) were expected in a kernel map, not"
                f" {tuple(kernel_map.in_maps.shape)}, {tuple(kernel_map.out_maps.shape)} and"
                f" {tuple(kernel_map.indices.shape)}"
            )
        target = None
        if not kernel_map.submanifold:
            sorted_already = kernel_map.indices.new_empty((0,))
            target = Sites(kernel_map.indices, kernel_map.spatial_shape, self.batch_size, sorted_already)
        elif kernel_map.indices.shape != self.indices.shape:
            raise SpecError(
                f"a submanifold kernel map of {len(self)} sites was expected, not of {len(kernel_map.indices)}"
            )
        kernel_map, target = self._found.setdefault(parameters_of(kernel_map), (kernel_map, target))
        return self if target is None else target

    def to(self, device: torch.device) -> Sites:
        """Return the same sites with all their maps on another device."""
        return Mover(device).sites(self)

    def _build(
        self, kernel_size: Axes, stride: Axes, padding: Axes, dilation: Axes, submanifold: bool, transposed: bool
    ) -> tuple[KernelMap, Sites | None]:
        check_device(indices=self.indices)
        out_shape = output_shape(self.spatial_shape, kernel_size, stride, padding, dilation, transposed)
        options = (kernel_size, stride, padding, dilation)
        if submanifold and set(kernel_size) == {1}:
            # Every site takes itself: nothing is searched, so that readers need not build this map either.
            in_maps = out_maps = torch.arange(self.num_sites, dtype=torch.int32, device=self.device)
            back_in = back_out = outputs = in_maps.new_empty((0,))
            offsets = torch.arange(2, device=self.device) * self.num_sites
        else:
            in_maps, out_maps, offsets, back_in, back_out, outputs = maps.kernel_map(
                self.indices, self.order, self.batch_size, self.spatial_shape, *options, submanifold, transposed
            )
        indices = self.indices if submanifold else outputs
        kernel_map = KernelMap(
            in_maps=in_maps,
            out_maps=out_maps,
            offsets=offsets,
            back_in=back_in,
            back_out=back_out,
            indices=indices,
            kernel_size=kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            submanifold=submanifold,
            transposed=transposed,
            spatial_shape=out_shape,
        )
        if submanifold:
            return kernel_map, None
        return kernel_map, Sites(indices, out_shape, self.batch_size, indices.new_empty((0,)))


@dataclass(frozen=True)
class Link:
    """What a convolution connects: the sites that it reads, the pairs, the sites that it writes.

    Attributes:
        source: Sites of the inputs.
        kernel_map: Its pairs.
        target: Sites of the outputs; the source itself where the map is submanifold.
    """

    source: Sites
    kernel_map: KernelMap
    target: Sites


class Mover:
    """Moves tensors and sites to a device, each once: what is shared here is shared there.

    Args:
        device: Where to.
        non_blocking: As of ``torch.Tensor.to``.
    """

    def __init__(self, device: torch.device, non_blocking: bool = False) -> None:
        self._device = device
        self._non_blocking = non_blocking
        self._moved: dict[int, tuple[Any, Any]] = {}  # by id, with what has it, so that none is given out again

    def tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor on the device."""
        return self._once(tensor, lambda: tensor.to(self._device, non_blocking=self._non_blocking))

    def sites(self, sites: Sites) -> Sites:
        """Return sites on the device, with all their maps."""
        return self._once(sites, lambda: self._move(sites))

    def _move(self, sites: Sites) -> Sites:
        indices, order = self.tensor(sites.indices), self.tensor(sites.order)
        made = Sites(indices, sites.spatial_shape, sites.batch_size, order)
        for key, (kernel_map, target) in sites._found.items():
            made._found[key] = (kernel_map.map(self.tensor), None if target is None else self.sites(target))
        return made

    def _once(self, thing: T, move: Callable[[], T]) -> T:
        if id(thing) not in self._moved:
            self._moved[id(thing)] = (thing, move())
        moved: T = self._moved[id(thing)][1]
        return moved


def parameters_of(kernel_map: KernelMap) -> Parameters:
    """Return what a kernel map was built for, in the order of the arguments of :meth:`Sites.link`."""
    made = kernel_map
    return made.kernel_size, made.stride, made.padding, made.dilation, made.submanifold, made.transposed
