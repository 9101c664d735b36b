"""Which steps run on a device, and by which function."""

from __future__ import annotations

from typing import Any

from hepfeed.device.transforms.casting import cast_keys, one_hot, stack
from hepfeed.device.transforms.context import Context, DeviceStep
from hepfeed.device.transforms.density import densify, sparsify
from hepfeed.device.transforms.drop_out import drop_out
from hepfeed.device.transforms.moving import move_images
from hepfeed.device.transforms.noise import add_gaussian_noise, draw_poisson
from hepfeed.device.transforms.points import flip_points, jitter, rotate_points, scale_points, shift_points
from hepfeed.device.transforms.pointwise import map_numbers
from hepfeed.device.transforms.voxels import histogram, voxelise
from hepfeed.transforms.cast import Cast
from hepfeed.transforms.clip import Clip
from hepfeed.transforms.crop import Crop
from hepfeed.transforms.densify import Densify
from hepfeed.transforms.drop import Drop
from hepfeed.transforms.drop_out import DropOut
from hepfeed.transforms.embed import Embed
from hepfeed.transforms.flip import Flip
from hepfeed.transforms.flip_points import FlipPoints
from hepfeed.transforms.gaussian_noise import GaussianNoise
from hepfeed.transforms.histogram import Histogram
from hepfeed.transforms.jitter import Jitter
from hepfeed.transforms.log import Log
from hepfeed.transforms.log_tanh import LogTanh
from hepfeed.transforms.min_max import MinMax
from hepfeed.transforms.normalise import Normalise
from hepfeed.transforms.one_hot import OneHot
from hepfeed.transforms.pad import Pad
from hepfeed.transforms.pointwise import Fused
from hepfeed.transforms.poisson_noise import PoissonNoise
from hepfeed.transforms.rename import Rename
from hepfeed.transforms.rotate90 import Rotate90
from hepfeed.transforms.rotate_points import RotatePoints
from hepfeed.transforms.scale_points import ScalePoints
from hepfeed.transforms.select import Select
from hepfeed.transforms.shift_points import ShiftPoints
from hepfeed.transforms.sparsify import Sparsify
from hepfeed.transforms.stack import Stack
from hepfeed.transforms.step import Batch, Step
from hepfeed.transforms.translate import Translate
from hepfeed.transforms.voxelise import Voxelise

__all__ = ["FUNCTIONS", "why_not_on_device"]


def _arrange(step: Step, batch: Batch, context: Context) -> Batch:
    """Do what the step does: it changes keys alone and looks at no number."""
    return step(batch, context.draws)


FUNCTIONS: dict[type[Step], DeviceStep] = {
    Densify: densify,
    Sparsify: sparsify,
    Voxelise: voxelise,
    Histogram: histogram,
    Normalise: map_numbers,
    MinMax: map_numbers,
    Log: map_numbers,
    LogTanh: map_numbers,
    Clip: map_numbers,
    Fused: map_numbers,
    Cast: cast_keys,
    Flip: move_images,
    Rotate90: move_images,
    Translate: move_images,
    Crop: move_images,
    Pad: move_images,
    Embed: move_images,
    GaussianNoise: add_gaussian_noise,
    PoissonNoise: draw_poisson,
    DropOut: drop_out,
    FlipPoints: flip_points,
    RotatePoints: rotate_points,
    ScalePoints: scale_points,
    ShiftPoints: shift_points,
    Jitter: jitter,
    Stack: stack,
    OneHot: one_hot,
    Select: _arrange,
    Rename: _arrange,
    Drop: _arrange,
}
"""Class of a step -> what does the same on a device."""


def why_not_on_device(step: Any) -> str:
    """Return why something can't run on a device, and what to do; empty where it can."""
    if type(step) not in FUNCTIONS:
        names = ", ".join(sorted(kind.__name__ for kind in FUNCTIONS if kind is not Fused))
        return f"it can't run on a device: put it into the dataset's transform; on a device run {names}"
    if isinstance(step, Crop) and step.at in ("maximum", "box"):
        return f"at={step.at!r} looks at the images before it cuts them: put it into the dataset's transform"
    if isinstance(step, RotatePoints | ScalePoints) and step.about == "mean":
        return "about='mean' looks at the points first: put it into the dataset's transform, or give a centre"
    return ""
