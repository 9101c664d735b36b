"""What a batch consists of, beside plain arrays: jagged, padded and sparse arrays, and graphs.

The same classes hold NumPy arrays in the readers and torch tensors in the training loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Batch", "Graph", "Jagged", "KernelMap", "Padded", "Sparse", "Structured", "concatenate", "take"]

Array = Any
"""A NumPy array or a torch tensor."""
Batch = dict[str, Any]
"""Name -> array ``(B, ...)`` or :class:`Structured` of B events; and ``"label"``, ``"event"``, perhaps ``"weight"``."""
_Self = TypeVar("_Self", bound="Structured")


@dataclass(frozen=True)
class Structured:
    """Several arrays that belong together."""

    def arrays(self) -> dict[str, Array]:
        """Return the arrays by name; those of kernel maps are ``"kernel_maps.0.in_maps"`` and so on."""
        found: dict[str, Array] = {}
        for name, value in vars(self).items():
            if hasattr(value, "dtype"):
                found[name] = value
            elif isinstance(value, tuple):
                for i, part in enumerate(value):
                    if isinstance(part, Structured):
                        found.update({f"{name}.{i}.{inner}": array for inner, array in part.arrays().items()})
        return found

    def map(self: _Self, function: Callable[[Array], Array]) -> _Self:
        """Return the same with ``function`` applied to every array."""
        return self.with_arrays({name: function(array) for name, array in self.arrays().items()})

    def with_arrays(self: _Self, arrays: dict[str, Array]) -> _Self:
        """Return the same with other arrays, named as in :meth:`arrays`."""
        if not any("." in name for name in arrays):
            return type(self)(**{**vars(self), **arrays})
        inside: dict[tuple[str, int], dict[str, Array]] = {}
        changed: dict[str, Any] = dict(vars(self))
        for name, array in arrays.items():
            outer, _, rest = name.partition(".")
            if rest:
                number, _, inner = rest.partition(".")
                inside.setdefault((outer, int(number)), {})[inner] = array
            else:
                changed[outer] = array
        for outer in {outer for outer, _ in inside}:
            parts = enumerate(getattr(self, outer))
            changed[outer] = tuple(part.with_arrays(inside.get((outer, i), {})) for i, part in parts)
        return type(self)(**changed)

    def without_arrays(self: _Self) -> _Self:
        """Return the same with nothing in the place of its arrays, to send it without them."""
        if any(
            isinstance(value, tuple) and any(isinstance(part, Structured) for part in value)
            for value in vars(self).values()
        ):
            return self.map(lambda array: np.empty(0, array.dtype))
        return type(self)(**{name: None if hasattr(value, "dtype") else value for name, value in vars(self).items()})

    def to(self: _Self, *args: Any, **options: Any) -> _Self:
        """Return the same on another device; arguments as of ``torch.Tensor.to``, a dtype for floating point only."""
        import torch

        places = [each.device if isinstance(each, torch.Tensor) else each for each in args]
        places = [each for each in places if not isinstance(each, torch.dtype)]
        others = {name: value for name, value in options.items() if name != "dtype"}

        def moved(tensor: Any) -> Any:
            if tensor.is_floating_point():
                return tensor.to(*args, **options)
            return tensor.to(*places, **others) if places or others else tensor

        return self.map(moved)

    def pin_memory(self: _Self) -> _Self:
        """Return the same in page-locked memory."""
        return self.map(lambda tensor: tensor.pin_memory())

    @property
    def events(self) -> int:
        """Number of events."""
        raise NotImplementedError

    def take(self: _Self, events: NDArray[np.int64]) -> _Self:
        """Return some of the events, in that order; of NumPy arrays only."""
        raise NotImplementedError


@dataclass(frozen=True)
class Jagged(Structured):
    """Events of different lengths: event e is ``values[offsets[e]:offsets[e + 1]]``.

    Attributes:
        values: ``(total, *item)``.
        offsets: ``(events + 1,) int64``, from 0 to ``total``.
    """

    values: Array
    offsets: Array

    @property
    def events(self) -> int:
        """Number of events."""
        return len(self.offsets) - 1

    def lengths(self) -> Array:
        """Return ``(events,)``."""
        return self.offsets[1:] - self.offsets[:-1]

    def __getitem__(self, event: int) -> Array:
        return self.values[int(self.offsets[event]) : int(self.offsets[event + 1])]

    def take(self, events: NDArray[np.int64]) -> Jagged:
        """Return some of the events, in that order."""
        lengths = self.lengths()[events]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return Jagged(self.values[_rows(self.offsets[:-1][events], lengths, offsets)], offsets)

    def nested(self) -> Any:
        """Return a jagged ``torch.nested`` tensor that shares the values."""
        import torch

        return torch.nested.nested_tensor_from_jagged(torch.as_tensor(self.values), torch.as_tensor(self.offsets))


@dataclass(frozen=True)
class Padded(Structured):
    """Events of different lengths in arrays of one length.

    Attributes:
        values: ``(events, length, *item)``; what the mask leaves out is padding.
        mask: ``(events, length) bool``, True for what is there.
    """

    values: Array
    mask: Array

    @property
    def events(self) -> int:
        """Number of events."""
        return len(self.mask)

    def take(self, events: NDArray[np.int64]) -> Padded:
        """Return some of the events, in that order."""
        return Padded(self.values[events], self.mask[events])


@dataclass(frozen=True)
class KernelMap(Structured):
    """Which input and output rows a sparse convolution connects (= rulebook = indice pairs).

    Output site o and tap k take input site ``i = o * stride - padding + k * dilation``; where it is transposed,
    ``o = i * stride - padding + k * dilation``.  The pairs of tap k, in C order of the kernel, are
    ``in_maps[offsets[k]:offsets[k + 1]]`` and the same of ``out_maps``.

    Attributes:
        in_maps: ``(P,) int32``: input rows.
        out_maps: ``(P,) int32``: output rows, which rise strictly for each tap.
        offsets: ``(K + 1,) int64``.
        back_in: ``(P,) int32``: the output rows of the same pairs, sorted by ``back_out``; of length 0 where the sites
            of the input are sorted, as input rows rise with output rows then.
        back_out: ``(P,) int32``: their input rows, which rise strictly for each tap; or of length 0.
        indices: ``(M, 1 + D) int32`` coordinates of the outputs; those of the input where it is submanifold.
        kernel_size: Taps along each axis.
        stride: Of the output grid, or, where it is transposed, of the input grid.
        padding: Of the input grid, or, where it is transposed, what is cut off the output grid.
        dilation: Of the taps.
        submanifold: Whether outputs lie where inputs do.
        transposed: Whether it is the map of a transposed convolution.
        spatial_shape: Of the outputs.
    """

    in_maps: Array
    out_maps: Array
    offsets: Array
    back_in: Array
    back_out: Array
    indices: Array
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    submanifold: bool
    transposed: bool
    spatial_shape: tuple[int, ...]

    def swapped_pairs(self) -> tuple[Array, Array]:
        """Return ``in_maps`` and ``out_maps`` of the convolution from the outputs back to the inputs."""
        return (self.back_in, self.back_out) if len(self.back_in) else (self.out_maps, self.in_maps)


@dataclass(frozen=True)
class Sparse(Structured):
    """Active sites of images, sorted by (event, coordinates), each site once.

    Attributes:
        features: ``(N, C)``.
        indices: ``(N, 1 + D) int32``: place of the event in the batch, then coordinates.
        spatial_shape: ``D`` numbers.
        batch_size: Events; those without sites count.
        kernel_maps: Built by the readers, where that was asked for.
    """

    features: Array
    indices: Array
    spatial_shape: tuple[int, ...]
    batch_size: int
    kernel_maps: tuple[KernelMap, ...] = ()

    @property
    def events(self) -> int:
        """Number of events."""
        return self.batch_size

    def offsets(self) -> NDArray[np.int64]:
        """Return ``(events + 1,) int64``: where the sites of each event begin; of NumPy arrays only."""
        return np.searchsorted(self.indices[:, 0], np.arange(self.batch_size + 1)).astype(np.int64)

    def take(self, events: NDArray[np.int64]) -> Sparse:
        """Return some of the events, in that order; kernel maps are left out."""
        starts = self.offsets()
        lengths = np.diff(starts)[events]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        rows = _rows(starts[:-1][events], lengths, offsets)
        indices = self.indices[rows]
        indices[:, 0] = np.repeat(np.arange(len(events), dtype=np.int32), lengths)
        return Sparse(self.features[rows], indices, self.spatial_shape, len(events))


@dataclass(frozen=True)
class Graph(Structured):
    """Edges between the rows of a jagged array, events one after another (as in PyTorch Geometric).

    Attributes:
        edge_index: ``(2, E) int64``: source and target row, sorted by (target, source).
        offsets: ``(events + 1,) int64``: nodes of each event.
        edge_offsets: ``(events + 1,) int64``: edges of each event.
    """

    edge_index: Array
    offsets: Array
    edge_offsets: Array

    @property
    def events(self) -> int:
        """Number of events."""
        return len(self.offsets) - 1

    def take(self, events: NDArray[np.int64]) -> Graph:
        """Return some of the events, in that order."""
        nodes = np.diff(self.offsets)[events]
        edges = np.diff(self.edge_offsets)[events]
        offsets = np.concatenate([[0], np.cumsum(nodes)]).astype(np.int64)
        edge_offsets = np.concatenate([[0], np.cumsum(edges)]).astype(np.int64)
        shift = np.repeat(offsets[:-1] - self.offsets[:-1][events], edges)
        chosen = _rows(self.edge_offsets[:-1][events], edges, edge_offsets)
        return Graph(self.edge_index[:, chosen] + shift, offsets, edge_offsets)


def _rows(starts: NDArray[np.int64], lengths: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of runs, one run after another."""
    rows: NDArray[np.int64] = np.arange(int(offsets[-1])) + np.repeat(starts - offsets[:-1], lengths)
    return rows


def take(value: Any, events: NDArray[np.int64]) -> Any:
    """Return some events of an array or of structured arrays."""
    return value.take(events) if isinstance(value, Structured) else value[events]


def concatenate(parts: Sequence[Any]) -> Any:
    """Join the events of arrays or of structured arrays of one kind; kernel maps are left out."""
    first = parts[0]
    if not isinstance(first, Structured):
        return np.concatenate([np.asarray(part) for part in parts])
    if isinstance(first, Jagged):
        return Jagged(np.concatenate([p.values for p in parts]), _joined([p.offsets for p in parts]))
    if isinstance(first, Padded):
        length = max(p.mask.shape[1] for p in parts)
        return Padded(*(np.concatenate([_longer(getattr(p, n), length) for p in parts]) for n in ("values", "mask")))
    if isinstance(first, Sparse):
        counts = np.cumsum([0, *(p.batch_size for p in parts)])
        indices = np.concatenate([p.indices for p in parts])
        indices[:, 0] += np.repeat(counts[:-1], [len(p.indices) for p in parts]).astype(np.int32)
        features = np.concatenate([p.features for p in parts])
        return Sparse(features, indices, first.spatial_shape, int(counts[-1]))
    if isinstance(first, Graph):
        nodes = np.cumsum([0, *(int(p.offsets[-1]) for p in parts)])
        edges = np.concatenate([p.edge_index + n for p, n in zip(parts, nodes)], axis=1)
        return Graph(edges, _joined([p.offsets for p in parts]), _joined([p.edge_offsets for p in parts]))
    raise TypeError(f"{type(first).__name__} has no events to join")


def _joined(offsets: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(np.concatenate([np.diff(each) for each in offsets]))]).astype(np.int64)


def _longer(values: NDArray[Any], length: int) -> NDArray[Any]:
    widths = [(0, 0), (0, length - values.shape[1]), *[(0, 0)] * (values.ndim - 2)]
    return np.pad(values, widths)
