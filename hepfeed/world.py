"""The world of processes that train together, as torch.distributed knows it."""

from __future__ import annotations

import weakref
from typing import Any

import torch
import torch.distributed as dist

__all__ = ["all_agree", "present_world"]

_talks: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
"""For each world the group that its processes talk through on the CPU."""


def present_world() -> tuple[int, int]:
    """Return this process's rank and the number of processes; 0 and 1 where there is no process group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def all_agree(flag: bool) -> bool:
    """Return whether the flag is true in all processes; all of them must ask."""
    if present_world()[1] == 1:
        return flag
    world = dist.group.WORLD
    group = _talks.get(world)
    if group is None:
        group = _talks[world] = dist.new_group(backend="gloo")
    least = torch.tensor([int(flag)])
    dist.all_reduce(least, dist.ReduceOp.MIN, group=group)
    return bool(least)
