"""The pairs of a kernel map as the weight gradient uses them: checked once, and cut into work items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import torch

from hepfeed import _convolution
from hepfeed.device import native
from hepfeed.device.keeper import Keeper
from hepfeed.device.plan import has_plan

__all__ = ["WorkItems", "check_pairs", "refuse", "work_items"]


@dataclass(frozen=True)
class WorkItems:
    """The pairs of taps, cut into pieces; on their device.

    Attributes:
        first_item: ``(taps + 1,) int64``: items of tap k are ``first_item[k]`` to ``first_item[k + 1] - 1``.
        work: ``(items, 2) int64``: first pair, and the one behind the last; those behind the last item are empty.
    """

    first_item: torch.Tensor
    work: torch.Tensor


def check_pairs(
    in_maps: torch.Tensor, out_maps: torch.Tensor, offsets: torch.Tensor, in_rows: int, out_rows: int
) -> None:
    """Check the pairs of a map, unless a plan was made of them.

    The host waits for that once, and not again while the tensors live unchanged.

    Args:
        in_maps: ``(P,) int32`` rows, in any order.
        out_maps: ``(P,) int32`` rows, in any order.
        offsets: ``(taps + 1,) int64``.
        in_rows: Rows of the input.
        out_rows: Rows of the output.

    Raises:
        ValueError: A row is not one of those, or the offsets are not those of the pairs.
    """
    if not has_plan(out_maps, in_maps, offsets, out_rows, in_rows):
        _checked.of((in_maps, out_maps, offsets), in_rows, out_rows)


def refuse(
    features: Sequence[int],
    grad: Sequence[int],
    in_maps: torch.Tensor,
    out_maps: torch.Tensor,
    offsets: torch.Tensor,
    groups: int,
) -> NoReturn:
    """Say what is wrong with the arguments of a weight gradient, in the words of the kernels of the CPU.

    Args:
        features: Shape.
        grad: Shape.
        in_maps: See above.
        out_maps: See above.
        offsets: See above.
        groups: Of channels.

    Raises:
        ValueError: Always.
    """
    out = np.zeros((grad[1], max(len(offsets) - 1, 0), features[1] // groups), np.float32)
    ins, outs, bounds = (each.cpu().contiguous().numpy() for each in (in_maps, out_maps, offsets))
    left, right = np.zeros(features, np.float32), np.zeros(grad, np.float32)
    _convolution.weight_grad(left, right, ins, outs, bounds, out, groups, 1)
    raise ValueError("the pairs of a kernel map must not change while they are used")


def work_items(offsets: torch.Tensor, pairs: int, chunk: int) -> WorkItems:
    """Cut the pairs of each tap into items of ``chunk`` pairs, the last of a tap with what is left.

    Their number is known on the device alone: there is room for ``pairs // chunk + taps``.

    Args:
        offsets: ``(taps + 1,) int64`` of pairs that were checked.
        pairs: ``P``.
        chunk: Pairs, 1 or more.
    """
    return _items.of((offsets,), pairs, chunk)


def _check(in_maps: torch.Tensor, out_maps: torch.Tensor, offsets: torch.Tensor, in_rows: int, out_rows: int) -> None:
    fault = offsets.new_zeros((1,), dtype=torch.int32)
    native.kernels().check_pairs(
        *map(native.address, (in_maps, out_maps, offsets)),
        in_maps.shape[0],
        offsets.shape[0] - 1,
        in_rows,
        out_rows,
        native.address(fault),
        native.stream(offsets),
    )
    if fault.item():
        refuse((in_rows, 1), (out_rows, 1), in_maps, out_maps, offsets, 1)


def _cut(offsets: torch.Tensor, pairs: int, chunk: int) -> WorkItems:
    taps = offsets.shape[0] - 1
    items = WorkItems(torch.empty_like(offsets), offsets.new_empty((pairs // chunk + taps, 2)))
    native.kernels().make_work_items(
        native.address(offsets),
        taps,
        chunk,
        len(items.work),
        native.address(items.first_item),
        native.address(items.work),
        native.stream(offsets),
    )
    return items


_checked: Keeper[None] = Keeper(_check, lambda _: ())
_items: Keeper[WorkItems] = Keeper(_cut, lambda items: (items.first_item, items.work))
