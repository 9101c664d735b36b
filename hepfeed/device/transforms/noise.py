"""Noise: each number draws by its place in its event."""

from __future__ import annotations

import torch

from hepfeed.device import native
from hepfeed.device.transforms.arrays import as_array, real_type
from hepfeed.device.transforms.context import Context
from hepfeed.device.transforms.items import DeviceItems
from hepfeed.transforms.gaussian_noise import GaussianNoise
from hepfeed.transforms.lookup import names_of
from hepfeed.transforms.poisson_noise import PoissonNoise
from hepfeed.transforms.step import Batch

__all__ = ["add_gaussian_noise", "draw_poisson"]


def add_gaussian_noise(step: GaussianNoise, batch: Batch, context: Context) -> Batch:
    """Add normal random numbers, with the bits of the CPU."""
    made = dict(batch)
    for number, key in enumerate(names_of(step.keys)):
        items = DeviceItems.of(batch, key)
        out = torch.empty_like(items.rows, dtype=real_type(items.rows.dtype))
        native.kernels().gaussian_noise(
            as_array(items.rows),
            as_array(out),
            items.events(),
            items.total,
            context.part(number).key(),
            step.sigma,
            step.relative,
            step.only_active,
            context.stream,
        )
        made[key] = items.put(out)
    return made


def draw_poisson(step: PoissonNoise, batch: Batch, context: Context) -> Batch:
    """Replace numbers by Poisson counts; those of the CPU but where exp or log is rounded otherwise at a bound."""
    made = dict(batch)
    for number, key in enumerate(names_of(step.keys)):
        items = DeviceItems.of(batch, key)
        out = torch.empty_like(items.rows, dtype=real_type(items.rows.dtype))
        native.kernels().poisson_noise(
            as_array(items.rows),
            as_array(out),
            items.events(),
            items.total,
            context.part(number).key(),
            step.scale,
            context.faults.address(),
            context.stream,
        )
        made[key] = items.put(out)
    return made
