"""Steps of a pipeline, one a file: what readers do to batches, in NumPy arrays and native kernels.

Every step is a class here and a name in a specification::

    transform=[Sparsify(keys="ECAL", threshold=1e-4), "cache", Flip(keys="ECAL", axes=(0, 1))]

    transforms:
      - sparsify: {keys: ECAL, threshold: 1.0e-4}
      - cache
      - flip: {keys: ECAL, axes: [0, 1]}
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hepfeed.transforms.step import Step

STEPS: dict[str, str] = {
    # images: dense (B, ...) arrays and Sparse
    "flip": "flip:Flip",
    "rotate90": "rotate90:Rotate90",
    "rotate": "rotate:Rotate",
    "translate": "translate:Translate",
    "zoom": "zoom:Zoom",
    "elastic": "elastic:Elastic",
    "crop": "crop:Crop",
    "pad": "pad:Pad",
    "embed": "embed:Embed",
    "downsample": "downsample:Downsample",
    "normalise": "normalise:Normalise",
    "min_max": "min_max:MinMax",
    "log": "log:Log",
    "log_tanh": "log_tanh:LogTanh",
    "clip": "clip:Clip",
    "gaussian_noise": "gaussian_noise:GaussianNoise",
    "poisson_noise": "poisson_noise:PoissonNoise",
    "drop_out": "drop_out:DropOut",
    # between points, voxels, images and graphs
    "voxelise": "voxelise:Voxelise",
    "histogram": "histogram:Histogram",
    "sparsify": "sparsify:Sparsify",
    "densify": "densify:Densify",
    "graph": "graph:BuildGraph",
    "kernel_maps": "kernel_maps:KernelMaps",
    # points and jets
    "jitter": "jitter:Jitter",
    "rotate_points": "rotate_points:RotatePoints",
    "flip_points": "flip_points:FlipPoints",
    "shift_points": "shift_points:ShiftPoints",
    "scale_points": "scale_points:ScalePoints",
    "drop_points": "drop_points:DropPoints",
    "jet_centre": "jet_centre:JetCentre",
    "jet_rotate": "jet_rotate:JetRotate",
    "jet_flip": "jet_flip:JetFlip",
    "boost": "boost:Boost",
    # several events
    "mix_up": "mix_up:MixUp",
    "overlay": "overlay:Overlay",
    # arrangement
    "stack": "stack:Stack",
    "select": "select:Select",
    "rename": "rename:Rename",
    "drop": "drop:Drop",
    "cast": "cast:Cast",
    "pad_rows": "pad_rows:PadRows",
    "compact": "compact:Compact",
    "finite": "finite:Finite",
    # targets
    "target": "target:Target",
    "one_hot": "one_hot:OneHot",
}
"""Name in a specification -> module and class."""

_CLASSES = {place.partition(":")[2]: place for place in STEPS.values()}

__all__ = ["STEPS", *_CLASSES]


def step_class(name: str) -> type[Step]:
    """Return the class of a step by its name in a specification."""
    module, _, noun = STEPS[name].partition(":")
    found: type[Step] = getattr(importlib.import_module(f"{__name__}.{module}"), noun)
    return found


def __getattr__(name: str) -> Any:
    if name not in _CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _CLASSES[name].partition(":")[0]
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
