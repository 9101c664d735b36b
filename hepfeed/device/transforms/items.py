"""The numbers that a key holds on a device, whichever way, without asking the device how many there are."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from hepfeed.device import native
from hepfeed.device.transforms.arrays import has_numbers, movable
from hepfeed.device.transforms.faults import Refusal
from hepfeed.tensors import Jagged, Padded, Sparse, Structured
from hepfeed.transforms.items import axis_of_rows
from hepfeed.transforms.lookup import find
from hepfeed.transforms.step import Batch

__all__ = ["DeviceItems", "site_offsets"]


@dataclass(frozen=True)
class DeviceItems:
    """The numbers of a key, events one after another: the twin of :class:`hepfeed.transforms.items.Items`.

    Attributes:
        key: Where they come from.
        value: What the batch holds for it.
        rows: ``(T, *item)``, contiguous: a dense tensor itself, values of jagged ones, features.  Of padded ones all
            rows, those that are there first.
        order: ``(T,) int64``: of padded tensors, which row each of ``rows`` was.
    """

    key: str
    value: Any
    rows: torch.Tensor
    order: torch.Tensor | None = None

    @classmethod
    def of(cls, batch: Batch, key: str) -> DeviceItems:
        """Return the numbers of a key.

        Raises:
            KeyMissingError: The batch has no such key.
            Refusal: It holds no numbers.
        """
        value = find(batch, key)
        if isinstance(value, Jagged):
            made = cls(key, value, value.values.contiguous())
        elif isinstance(value, Padded):
            order = torch.argsort(~value.mask.reshape(-1), stable=True)
            flat = movable(value.values).reshape(len(order), *value.values.shape[2:])
            made = cls(key, value, flat.index_select(0, order).view(value.values.dtype), order)
        elif isinstance(value, Sparse):
            made = cls(key, value, value.features.contiguous())
        elif isinstance(value, Structured) or not isinstance(value, torch.Tensor):
            raise Refusal
        else:
            made = cls(key, value, value.contiguous())
        if not has_numbers(made.rows):
            raise Refusal
        return made

    @cached_property
    def offsets(self) -> torch.Tensor:
        """``(B + 1,) int64``: rows of event e are ``offsets[e] .. offsets[e + 1] - 1``.

        Of padded tensors the last offset may be less than T.
        """
        value = self.value
        if isinstance(value, Jagged):
            given: torch.Tensor = value.offsets.contiguous()
            return given
        if isinstance(value, Padded):
            counts = value.mask.sum(1).cumsum(0)
            return torch.cat([counts.new_zeros(1), counts])
        if isinstance(value, Sparse):
            return site_offsets(value)
        return torch.arange(len(self.rows) + 1, device=self.rows.device)

    @property
    def width(self) -> int:
        """Numbers of a row."""
        return math.prod(self.rows.shape[1:])

    @property
    def total(self) -> int:
        """Numbers that there may be."""
        return self.rows.numel()

    def events(self) -> tuple[int, int, int]:
        """Return the events as kernels take them."""
        return native.address(self.offsets), len(self.offsets) - 1, self.width

    def present(self) -> tuple[int, int]:
        """Return where the number of rows that are there lies, and the numbers of a row; 0 where all rows are there."""
        if self.order is None:
            return 0, self.width
        return native.address(self.offsets) + 8 * (len(self.offsets) - 1), self.width

    def axis(self, axis: int) -> int:
        """Return the axis of ``rows`` that an axis of one event is; see :meth:`Items.axis`.

        Raises:
            ProcessError: There is no such axis, or rows lie along it.
        """
        return axis_of_rows(self.key, self.value, self.rows.ndim, axis)

    def put(self, rows: torch.Tensor) -> Any:
        """Return the value with other numbers; padding is 0."""
        if isinstance(self.value, Jagged):
            return replace(self.value, values=rows)
        if isinstance(self.value, Sparse):
            return replace(self.value, features=rows)
        if self.order is None:
            return rows
        mask, items = self.value.mask, movable(rows)
        values = torch.empty_like(items).index_copy_(0, self.order, items).reshape(*mask.shape, *rows.shape[1:])
        there = mask.reshape(*mask.shape, *[1] * (values.ndim - 2))
        return replace(self.value, values=torch.where(there, values, values.new_zeros(())).view(rows.dtype))


def site_offsets(value: Sparse) -> torch.Tensor:
    """Return ``(B + 1,) int64``: where the sites of each event begin."""
    events = torch.arange(value.batch_size + 1, dtype=torch.int32, device=value.indices.device)
    return torch.searchsorted(value.indices[:, 0].contiguous(), events)
