"""The plan of a convolution: the pairs of a kernel map by rows of its output, as the kernels read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import torch

from hepfeed import _convolution
from hepfeed.device import native
from hepfeed.device.keeper import Keeper
from hepfeed.device.sorting import sort_pairs

__all__ = ["Plan", "has_plan", "pairs_of", "plan_of"]

_MOST_ROWS = 2**31 - 1
_WORD_BITS = 64
_KEY_BITS = 62


@dataclass(frozen=True)
class Plan:
    """For each row of the output, which row of the input each tap has there.

    Output rows are sorted by the set of their taps, of the first 62 of them, so that blocks of rows pass over taps
    that none of them has.  The table takes ``4 * taps * out_rows`` bytes.

    Attributes:
        table: ``(taps, out_rows) int32``: row of the input of each tap and position, -1 where it has none.
        rows: ``(out_rows,) int32``: row of the output of each position.
        tile_taps: ``(tiles, words) int32``: bits of the taps that some position of a tile has.
        in_rows: Rows of the input.
    """

    table: torch.Tensor
    rows: torch.Tensor
    tile_taps: torch.Tensor
    in_rows: int

    @property
    def taps(self) -> int:
        """Number of taps."""
        return self.table.shape[0]

    @property
    def out_rows(self) -> int:
        """Rows of the output."""
        return self.table.shape[1]

    def tensors(self) -> tuple[torch.Tensor, ...]:
        """Return what lies on the device."""
        return self.table, self.rows, self.tile_taps


def pairs_of(
    in_maps: torch.Tensor, out_maps: torch.Tensor, back_in: torch.Tensor, back_out: torch.Tensor, swapped: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows of the input and of the output of the pairs of a map, or of the swapped pairs.

    Args:
        in_maps: As of :func:`hepfeed.sparse.convolution.sparse_conv`, like the next three.
        out_maps: See above.
        back_in: See above.
        back_out: See above.
        swapped: Whether inputs and outputs change places.
    """
    if not swapped:
        return in_maps, out_maps
    if len(back_in) or len(back_out):
        return back_in, back_out
    return out_maps, in_maps  # input and output rows rise together, so these are sorted as well


def plan_of(out_maps: torch.Tensor, in_maps: torch.Tensor, offsets: torch.Tensor, out_rows: int, in_rows: int) -> Plan:
    """Return the plan of pairs; made at the first request, which waits for the device, and kept while they live.

    A CUDA graph can be captured only with plans that are there already.

    Args:
        out_maps: ``(P,) int32`` rows of the output, rising strictly within each tap.
        in_maps: ``(P,) int32`` rows of the input.
        offsets: ``(taps + 1,) int64``: tap k has pairs ``offsets[k]`` to ``offsets[k + 1] - 1``.
        out_rows: Rows of the output.
        in_rows: Rows of the input.

    Raises:
        TypeError: A tensor has another dtype.
        ValueError: Shapes do not fit each other, or the pairs are not those of a map of these rows.
    """
    return _plans.of((out_maps, in_maps, offsets), out_rows, in_rows)


def has_plan(out_maps: torch.Tensor, in_maps: torch.Tensor, offsets: torch.Tensor, out_rows: int, in_rows: int) -> bool:
    """Return whether pairs have a plan already, so that they were found to be right; arguments of :func:`plan_of`."""
    return _plans.has((out_maps, in_maps, offsets), out_rows, in_rows)


def _make(out_maps: torch.Tensor, in_maps: torch.Tensor, offsets: torch.Tensor, out_rows: int, in_rows: int) -> Plan:
    given = out_maps, in_maps, offsets, out_rows, in_rows
    dtypes = out_maps.dtype, in_maps.dtype, offsets.dtype
    shaped = out_maps.ndim == in_maps.ndim == offsets.ndim == 1 and out_maps.shape == in_maps.shape
    taps, pairs = offsets.numel() - 1, out_maps.numel()
    if dtypes != (torch.int32, torch.int32, torch.int64) or not shaped or taps < 0 or (taps == 0 and pairs):
        _refuse(*given)
    if max(out_rows, in_rows) > _MOST_ROWS:
        raise ValueError("there are 2^31 rows or more")
    kernels, device, stream = native.kernels(), offsets.device, native.stream(offsets)
    words = -(-taps // _WORD_BITS)
    tiles = -(-out_rows // kernels.TILE_ROWS)
    out_maps, in_maps, offsets = out_maps.contiguous(), in_maps.contiguous(), offsets.contiguous()
    lists = [native.address(in_maps), native.address(out_maps), native.address(offsets), pairs, taps, in_rows, out_rows]

    def empty(*shape: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    with native.on_device(offsets):
        fault = torch.zeros((1,), dtype=torch.int32, device=device)
        row_taps = torch.zeros((words, out_rows), dtype=torch.int64, device=device)
        kernels.mark_taps(*lists, native.address(row_taps), native.address(fault), stream)
        rows = torch.arange(out_rows, dtype=torch.int32, device=device)
        if taps and out_rows:
            bits = min(taps, _KEY_BITS)
            _, rows = sort_pairs(row_taps[0] & (1 << bits) - 1, rows, 1 << bits)
        positions, tile_taps = empty(out_rows), empty(tiles, 2 * words)
        addresses = native.address(positions), native.address(tile_taps)
        kernels.join_taps(native.address(row_taps), native.address(rows), out_rows, words, *addresses, stream)
        table = torch.full((taps, out_rows), -1, dtype=torch.int32, device=device)
        kernels.place_pairs(*lists, native.address(positions), native.address(table), stream)
        if fault.item():
            _refuse(*given)
    return Plan(table, rows, tile_taps, in_rows)


def _refuse(
    out_maps: torch.Tensor, in_maps: torch.Tensor, offsets: torch.Tensor, out_rows: int, in_rows: int
) -> NoReturn:
    """Say what is wrong with pairs, in the words of the kernels of the CPU."""
    ins, outs, bounds = (tensor.cpu().contiguous().numpy() for tensor in (in_maps, out_maps, offsets))
    features, out = np.zeros((in_rows, 1), np.float32), np.empty((out_rows, 1), np.float32)
    weight = np.zeros((1, max(offsets.numel() - 1, 0), 1), np.float32)
    _convolution.forward(features, weight, None, ins, outs, bounds, out, 1, 1)
    raise RuntimeError("the device found a fault in the pairs of a kernel map, and the processor found none")


_plans = Keeper(_make, Plan.tensors)
