"""Transforms of hits, with their twins and rivals."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from hepfeed.bench.inputs import CELL_MM, SIDE, Hits, Place
from hepfeed.bench.transform_case import TransformCase
from hepfeed.draws import Draws
from hepfeed.grid import edges_of
from hepfeed.reference import voxels as reference
from hepfeed.tensors import Padded, Sparse
from hepfeed.transforms.histogram import Histogram
from hepfeed.transforms.pad_rows import PadRows
from hepfeed.transforms.voxelise import Voxelise

__all__ = ["point_cases"]

BINS = 64
_ROUNDED = 2e-6
"""Error of sums in another order, over the largest number."""


def point_cases(hits: Hits, draws: Draws, place: Place) -> Iterator[TransformCase]:
    """Yield the cases.

    Args:
        hits: Of some events.
        draws: Of these events.
        place: Makes the tensors that torch computes with.
    """
    size = f"{len(hits.points.values):,} hits of {hits.points.events} events"
    yield _voxelised(hits, size, draws, place)
    yield _binned(hits, size, draws, place)
    yield _padded(hits, size, draws, place)


def _voxelised(hits: Hits, size: str, draws: Draws, place: Place) -> TransformCase:
    points, offsets, charge = hits.points.values, hits.points.offsets, hits.charge.values
    events, shape = hits.points.events, (SIDE,) * 3
    there, charge_there = place(points), place(charge)
    event = np.repeat(np.arange(events), np.diff(offsets))
    event_there = place(event)

    def by_numpy() -> Sparse:
        cells = np.floor(points / np.float64(CELL_MM)).astype(np.int64)
        sites, inverse = np.unique(np.ravel_multi_index((event, *cells.T), (events, *shape)), return_inverse=True)
        sums = np.bincount(inverse, charge).astype(np.float32)
        indices = np.stack(np.unravel_index(sites, (events, *shape)), axis=1).astype(np.int32)
        return Sparse(sums[:, None], indices, shape, events)

    def by_torch() -> Sparse:
        cells = (there.double() / CELL_MM).floor().long()
        keys = event_there
        for axis in range(3):
            keys = keys * SIDE + cells[:, axis]
        sites, inverse = torch.unique(keys, return_inverse=True)
        sums = torch.zeros(len(sites), dtype=torch.float64, device=there.device)
        sums.index_add_(0, inverse, charge_there.double())
        indices = torch.stack(torch.unravel_index(sites, (events, *shape)), dim=1).int()
        return Sparse(sums.float()[:, None], indices, shape, events)

    return TransformCase(
        f"voxelise in {SIDE}^3, {size}",
        {"points": hits.points, "charge": hits.charge},
        draws,
        "voxels",
        lambda: reference.voxelise(points, offsets, charge[:, None], shape, (0.0,) * 3, (CELL_MM,) * 3),
        points.nbytes + charge.nbytes,
        (Voxelise(points="points", features="charge", shape=shape, low=0.0, size=CELL_MM, into="voxels"),),
        rivals={"NumPy": by_numpy, "torch": by_torch},
        tolerance=_ROUNDED,
    )


def _binned(hits: Hits, size: str, draws: Draws, place: Place) -> TransformCase:
    points, offsets, charge = hits.points.values, hits.points.offsets, hits.charge.values
    events, bins, ranges = hits.points.events, (BINS,) * 3, ((0.0, CELL_MM * SIDE),) * 3
    volume, width = BINS**3, CELL_MM * SIDE / BINS
    first = np.repeat(np.arange(events) * volume, np.diff(offsets))
    there, charge_there, first_there = place(points), place(charge), place(first)

    def by_numpy() -> NDArray[np.float32]:
        cells = np.floor(points / width).astype(np.int64)
        flat = first + (cells[:, 0] * BINS + cells[:, 1]) * BINS + cells[:, 2]
        return np.bincount(flat, charge, events * volume).astype(np.float32).reshape(events, *bins)

    def by_torch() -> torch.Tensor:
        cells = (there / width).floor().long()
        flat = first_there + (cells[:, 0] * BINS + cells[:, 1]) * BINS + cells[:, 2]
        return torch.bincount(flat, charge_there.double(), events * volume).float().view(events, *bins)

    return TransformCase(
        f"histogram of {BINS}^3 bins, {size}",
        {"points": hits.points, "charge": hits.charge},
        draws,
        "images",
        lambda: reference.histogram(points, offsets, edges_of(bins, ranges), charge),
        points.nbytes + charge.nbytes,
        (Histogram(points="points", bins=bins, ranges=ranges, weights="charge", into="images"),),
        rivals={"NumPy": by_numpy, "torch": by_torch},
        tolerance=_ROUNDED,
    )


def _padded(hits: Hits, size: str, draws: Draws, place: Place) -> TransformCase:
    """All events as long as the longest."""
    points, offsets = hits.points.values, hits.points.offsets
    lengths = np.diff(offsets)
    longest = int(lengths.max())
    there, lengths_there, parts = place(points), place(lengths), lengths.tolist()

    def twin() -> Padded:
        made = Padded(np.zeros((len(lengths), longest, 3), points.dtype), np.zeros((len(lengths), longest), np.bool_))
        for number, (start, stop) in enumerate(itertools.pairwise(offsets.tolist())):
            made.values[number, : stop - start] = points[start:stop]
            made.mask[number, : stop - start] = True
        return made

    def by_torch() -> Padded:
        values = torch.nn.utils.rnn.pad_sequence(list(torch.split(there, parts)), batch_first=True)
        return Padded(values, torch.arange(longest, device=there.device) < lengths_there[:, None])

    return TransformCase(
        f"pad to {longest:,} rows, {size}",
        {"points": hits.points},
        draws,
        "points",
        twin,
        points.nbytes + offsets.nbytes,
        (PadRows(keys="points", length=longest),),
        rivals={"torch": by_torch},
    )
