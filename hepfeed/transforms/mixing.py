"""Sums of events of a batch, as mix-up and overlay make them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfeed.errors import ProcessError
from hepfeed.tensors import Graph, Jagged, Sparse, Structured
from hepfeed.transforms.cast import cast_value
from hepfeed.transforms.lookup import describe, float_type
from hepfeed.transforms.step import Batch
from hepfeed.voxels import resite

__all__ = ["Mixture"]


class Mixture:
    """Which events of a batch make up each new event.

    Args:
        parts: ``(P,)`` places in the batch, those of one new event after another; its first part is the event itself.
        offsets: ``(B' + 1,)``: where the parts of each new event begin; none is without parts.
        weights: ``(P,)`` factors of the parts, or None for sums without factors.
    """

    def __init__(
        self, parts: NDArray[np.int64], offsets: NDArray[np.int64], weights: NDArray[np.float64] | None = None
    ) -> None:
        self.parts = parts
        self.offsets = offsets
        self.weights = weights

    @property
    def events(self) -> int:
        """Number of new events."""
        return len(self.offsets) - 1

    @property
    def firsts(self) -> NDArray[np.int64]:
        """Places in the batch of the events themselves, ``(B',)``."""
        return self.parts[self.offsets[:-1]]

    def of(self, value: Any, batch: Batch, key: str) -> Any:
        """Return sums of dense arrays, sums on the union of sites of sparse ones, and jagged arrays one after another.

        Floats are summed in their type (float16 in float32, the type of the result), integers keep their type where
        there are no weights.

        Args:
            value: What the batch has.
            batch: Tells of which event a fault is.
            key: Name of ``value``.

        Raises:
            ProcessError: Such a value can't be summed, or a sum does not fit the type of its integers.
        """
        if isinstance(value, Sparse):
            return self._sparse(value, key)
        if isinstance(value, Jagged | Graph) and self.weights is None:
            return self._joined(value)
        if isinstance(value, Structured):
            remedy = "mix images or sparse images" if self.weights is not None else "overlay before rows are padded"
            raise ProcessError(f"events of key {key!r}, {describe(value)}, can't be added: {remedy}", key=key)
        return self._dense(np.asarray(value), batch, key)

    def ranks(self) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Return for the first, second, ... parts: the new events that have one, and where it is in ``parts``."""
        counts = np.diff(self.offsets)
        found = []
        for rank in range(int(counts.max(initial=0))):
            events = np.flatnonzero(counts > rank)
            found.append((events, self.offsets[events] + rank))
        return found

    def _dense(self, value: NDArray[Any], batch: Batch, key: str) -> NDArray[Any]:
        if value.dtype.kind not in "iuf":
            raise ProcessError(f"events of key {key!r}, {describe(value)}, can't be added: cast it first", key=key)
        whole = self.weights is None and value.dtype.kind in "iu"
        largest = max(-int(value.min(initial=0)), int(value.max(initial=0))) if whole else 0
        if largest * int(np.diff(self.offsets).max(initial=1)) >= 2**63:
            raise ProcessError(f"sums of key {key!r}, {describe(value)}, may leave 64 bits: cast it first", key=key)
        dtype = np.dtype(np.int64) if whole else float_type(value.dtype)
        total = np.zeros((0, *value.shape[1:]), dtype)
        for rank, (events, places) in enumerate(self.ranks()):
            added = value[self.parts[places]].astype(dtype, copy=False)
            if self.weights is not None:
                added *= self.weights[places].astype(dtype).reshape(-1, *[1] * (value.ndim - 1))
            if rank == 0:
                total = added
            elif len(events) == self.events:
                total += added
            else:
                total[events] += added
        if not whole:
            return total
        firsts = {"event": batch["event"][self.firsts]}
        return np.asarray(cast_value(total, value.dtype, firsts, key))

    def _sparse(self, value: Sparse, key: str) -> Sparse:
        taken = value.take(self.parts)
        features = taken.features
        if self.weights is not None:
            dtype = float_type(features.dtype)
            features = features.astype(dtype) * self.weights[taken.indices[:, 0]].astype(dtype)[:, None]
        elif features.dtype.kind == "f":
            features = features.astype(float_type(features.dtype), copy=False)
        indices = taken.indices
        indices[:, 0] = self._new_event(indices[:, 0])
        joined = Sparse(features, indices, value.spatial_shape, self.events)
        try:
            return resite(joined, indices[:, 1:].astype(np.int64), None, value.spatial_shape, "sum")
        except ProcessError as error:
            error.key = key
            raise

    def _joined(self, value: Jagged | Graph) -> Jagged | Graph:
        taken = value.take(self.parts)
        if isinstance(taken, Graph):
            return Graph(taken.edge_index, taken.offsets[self.offsets], taken.edge_offsets[self.offsets])
        return replace(taken, offsets=taken.offsets[self.offsets])

    def _new_event(self, part: NDArray[Any]) -> NDArray[np.int32]:
        """Return which new event each of some parts belongs to."""
        owner = np.repeat(np.arange(self.events, dtype=np.int32), np.diff(self.offsets))
        made: NDArray[np.int32] = owner[part]
        return made

    def origin(self, charge: Any, key: str) -> Any:
        """Return which part of its new event each pixel, site or row belongs to: 0 for the event itself, then 1, 2, ...

        Pixels and sites belong to the part with the largest charge there, at equal ones to the first of them.

        Args:
            charge: Dense ``(B, *shape)``, sparse with one feature, or jagged: then every row has its own part.
            key: Name of ``charge``.

        Returns:
            int32, dense ``(B', *shape)``, sparse ``(N, 1)`` or jagged ``(T,)``.

        Raises:
            ProcessError: Such a value has no pixels, sites or rows, or several features.
        """
        rank = (np.arange(len(self.parts)) - np.repeat(self.offsets[:-1], np.diff(self.offsets))).astype(np.int32)
        if isinstance(charge, Jagged):
            rows = charge.take(self.parts)
            return Jagged(np.repeat(rank, rows.lengths()), rows.offsets[self.offsets])
        if isinstance(charge, Sparse):
            sites, largest = self._largest(charge, key)
            indices = sites.indices[largest]
            ranks = rank[indices[:, 0]][:, None]
            indices[:, 0] = self._new_event(indices[:, 0])
            return Sparse(ranks, indices, charge.spatial_shape, self.events)
        if isinstance(charge, Structured):
            raise ProcessError(f"pixels of key {key!r}, {describe(charge)}, can't be told apart", key=key)
        found = np.zeros((self.events, *charge.shape[1:]), np.int32)
        highest = charge[self.firsts]
        for number, (events, places) in enumerate(self.ranks()[1:], 1):
            added = charge[self.parts[places]]
            larger = added > highest[events]
            highest[events] = np.where(larger, added, highest[events])
            found[events] = np.where(larger, number, found[events])
        return found

    def labels(self, label: Any, charge: Any, key: str, charge_key: str) -> Any:
        """Return the label that each pixel, site or row has in the part that it belongs to; see :meth:`origin`.

        Args:
            label: Of the form of ``charge``, with the same pixels, sites or rows.
            charge: See :meth:`origin`.
            key: Name of ``label``.
            charge_key: Name of ``charge``.

        Raises:
            ProcessError: The forms differ, or see :meth:`origin`.
        """
        if isinstance(label, Jagged) and isinstance(charge, Jagged) and np.array_equal(label.offsets, charge.offsets):
            return self._joined(label)
        if isinstance(label, Sparse) and isinstance(charge, Sparse) and np.array_equal(label.indices, charge.indices):
            _, rows = self._largest(charge, charge_key)
            taken = label.take(self.parts)
            indices = taken.indices[rows]
            indices[:, 0] = self._new_event(indices[:, 0])
            return Sparse(taken.features[rows], indices, label.spatial_shape, self.events)
        if isinstance(label, Structured) or isinstance(charge, Structured) or label.shape != charge.shape:
            raise ProcessError(
                f"key {key!r} must label the pixels, sites or rows of key {charge_key!r}, and they are"
                f" {describe(label)} and {describe(charge)}",
                key=key,
            )
        origin = self.origin(charge, charge_key)
        made = label[self.firsts]
        for number, (events, places) in enumerate(self.ranks()[1:], 1):
            made[events] = np.where(origin[events] == number, label[self.parts[places]], made[events])
        return made

    def _largest(self, charge: Sparse, key: str) -> tuple[Sparse, NDArray[np.int64]]:
        """Return the sites of all parts, and the rows of those with the largest charge of their place, in order."""
        if charge.features.shape[1] != 1:
            raise ProcessError(
                f"key {key!r} must have one feature, the charge, to say which event a site belongs to, and is"
                f" {describe(charge)}",
                key=key,
            )
        taken = charge.take(self.parts)
        places = np.column_stack([self._new_event(taken.indices[:, 0]), taken.indices[:, 1:]])
        amount = taken.features[:, 0].astype(np.result_type(taken.features.dtype, np.float32))
        order = np.lexsort((-amount, *places.T[::-1]))
        ordered = places[order]
        new = np.ones(len(order), bool)
        new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
        return taken, order[new]
