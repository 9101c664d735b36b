"""The step that finds what sparse convolutions connect, so that the training process need not."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from hepfeed.draws import Draws
from hepfeed.errors import ProcessError, SpecError
from hepfeed.kernel_map import build_kernel_map, check_convolution
from hepfeed.tensors import KernelMap, Sparse
from hepfeed.transforms.lookup import describe, find, names_of
from hepfeed.transforms.points import naming
from hepfeed.transforms.step import Batch, Keys, Step

__all__ = ["KernelMaps", "MapOptions"]


class MapOptions(BaseModel):
    """One convolution; see :func:`hepfeed.kernel_map.build_kernel_map`.

    Attributes:
        kernel_size: Taps, along all axes or each.
        stride: Of the output grid.
        padding: Of the input grid; of a submanifold convolution it is left out.
        dilation: Of the taps.
        submanifold: Whether outputs lie where inputs do.
        transposed: Whether it is a transposed convolution.  The inverse of a convolution needs no map of its own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kernel_size: int | tuple[int, ...]
    stride: int | tuple[int, ...] = 1
    padding: int | tuple[int, ...] = 0
    dilation: int | tuple[int, ...] = 1
    submanifold: bool = False
    transposed: bool = False

    @model_validator(mode="after")
    def _check(self) -> MapOptions:
        given = (self.kernel_size, self.stride, self.padding, self.dilation)
        dims = max(len(each) if isinstance(each, tuple) else 1 for each in given)
        check_convolution(dims, *given, self.submanifold, self.transposed)
        return self

    def build(self, sparse: Sparse) -> KernelMap:
        """Return the map of the sites of sparse images."""
        return build_kernel_map(
            sparse.indices,
            sparse.spatial_shape,
            sparse.batch_size,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.submanifold,
            transposed=self.transposed,
        )


class KernelMaps(Step):
    """Adds the kernel maps of a network to sparse images, in the order of its layers.

    The first map is of the images' sites.  Behind a map that is not submanifold, the next ones are of its outputs, as
    in a network; layers that share a map, such as several submanifold ones in a row, need it once.

    Attributes:
        keys: Sparse images; each gets the same maps.  None: all sparse images of the batch, which must be one or more.
        maps: Options of each map: ``kernel_size``, and ``stride``, ``padding``, ``dilation``, ``submanifold``,
            ``transposed``.

    Raises:
        ProcessError: A key is not sparse, or has kernel maps already.
        SpecError: A map does not fit the images.
    """

    batchwise: ClassVar[bool] = True

    keys: Keys | None = None
    maps: tuple[MapOptions, ...]

    @field_validator("keys")
    @classmethod
    def _check_keys(cls, keys: Keys | None) -> Keys | None:
        if keys is not None:
            names_of(keys)
        return keys

    @field_validator("maps")
    @classmethod
    def _check_maps(cls, maps: tuple[MapOptions, ...]) -> tuple[MapOptions, ...]:
        if not maps:
            raise SpecError(
                "maps must have the options of one map or more, e.g. {'kernel_size': 3, 'submanifold': True}"
            )
        return maps

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with kernel maps."""
        made = dict(batch)
        for key in self._names(batch):
            sparse = find(batch, key)
            if not isinstance(sparse, Sparse):
                raise ProcessError(f"key {key!r} must be sparse images, and is {describe(sparse)}", key=key)
            if sparse.kernel_maps:
                raise ProcessError(f"key {key!r} has kernel maps already: give all of them in one step", key=key)
            with naming(key):
                made[key] = replace(sparse, kernel_maps=self._built(sparse))
        return made

    def _names(self, batch: Batch) -> tuple[str, ...]:
        if self.keys is not None:
            return names_of(self.keys)
        found = tuple(name for name, value in batch.items() if isinstance(value, Sparse))
        if not found:
            raise ProcessError(
                f"kernel maps need sparse images, and the batch has none, but {', '.join(map(repr, batch))}: make them"
                " with Sparsify or Voxelise"
            )
        return found

    def _built(self, sparse: Sparse) -> tuple[KernelMap, ...]:
        built = []
        for options in self.maps:
            built.append(options.build(sparse))
            sparse = replace(sparse, indices=built[-1].indices, spatial_shape=built[-1].spatial_shape)
        return tuple(built)
