"""Transforms of dense calorimeter images, with their twins and rivals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from hepfeed.bench.inputs import Place
from hepfeed.bench.transform_case import TransformCase, arrays_of
from hepfeed.draws import Draws
from hepfeed.reference import images as reference
from hepfeed.transforms.clip import Clip
from hepfeed.transforms.crop import Crop
from hepfeed.transforms.downsample import Downsample
from hepfeed.transforms.drop_out import DropOut
from hepfeed.transforms.flip import Flip
from hepfeed.transforms.gaussian_noise import GaussianNoise
from hepfeed.transforms.log import Log
from hepfeed.transforms.normalise import Normalise
from hepfeed.transforms.pointwise import Pointwise
from hepfeed.transforms.rotate import Rotate
from hepfeed.transforms.rotate90 import Rotate90
from hepfeed.transforms.translate import Translate

__all__ = ["image_cases"]

KEY = "ECAL"
MEAN, STD = 0.02, 0.2
"""Of the cells of an image, about; GeV."""
SHIFT = 3
WINDOW = 16
BLOCK = 5
SIGMA = 0.05
PROBABILITY = 0.1
_ROUNDED = 2e-6
"""Error of float32 arithmetic in another order, over the largest number."""
_INTERPOLATED = 1e-4
"""The same of places that are computed in float32, too."""
_SIGMAS = 6.0
"""By which a mean of random numbers may be off."""

Images = NDArray[np.float32]


def image_cases(images: Images, draws: Draws, place: Place) -> Iterator[TransformCase]:
    """Yield the cases.

    Args:
        images: ``(B, n, n, n)``.
        draws: Of their events.
        place: Makes the tensors that torch computes with.
    """
    there = place(images)
    size = f"{len(images)} images of {images.shape[1]}^3"
    yield from _pointwise(images, there, size, draws)
    yield from _moves(images, there, size, draws, place)
    yield _turned(images, there, size, draws, place)
    yield _coarser(images, there, size, draws)
    yield from _noises(images, there, size, draws)


def _pointwise(images: Images, there: torch.Tensor, size: str, draws: Draws) -> Iterator[TransformCase]:
    normalise, log, clip = Normalise(keys=KEY, mean=MEAN, std=STD), Log(keys=KEY), Clip(keys=KEY, low=0.0, high=10.0)

    def twin(steps: Sequence[Pointwise]) -> Images:
        made = images
        for step in steps:
            made, _ = reference.run_program(made, step.operations(KEY))
        return made

    def scaled(made: Images) -> Images:
        np.subtract(made, np.float32(MEAN), out=made)
        return np.multiply(made, np.float32(1 / STD), out=made)

    def chained() -> Images:
        made = np.clip(images, np.float32(0), np.float32(10))
        return scaled(np.log1p(made, out=made))

    each: list[tuple[str, tuple[Pointwise, ...], Callable[[], Any], Callable[[], Any]]] = [
        (
            "normalise",
            (normalise,),
            lambda: np.multiply(images - np.float32(MEAN), np.float32(1 / STD)),
            lambda: there.sub(MEAN).div_(STD),
        ),
        ("log", (log,), lambda: np.log1p(images), lambda: torch.log1p(there)),
        (
            "clip, log, normalise",
            (clip, log, normalise),
            chained,
            lambda: there.clamp(0, 10).log1p_().sub_(MEAN).div_(STD),
        ),
    ]
    for name, steps, by_numpy, by_torch in each:
        yield TransformCase(
            f"{name}, {size}",
            {KEY: images},
            draws,
            KEY,
            partial(twin, steps),
            images.nbytes,
            steps,
            rivals={"NumPy": by_numpy, "torch": by_torch},
            tolerance=_ROUNDED,
        )


def _moves(images: Images, there: torch.Tensor, size: str, draws: Draws, place: Place) -> Iterator[TransformCase]:
    count, length = images.shape[:2]

    def case(name: str, step: Any, twin: Any, rivals: Any, reads: int = images.nbytes) -> TransformCase:
        return TransformCase(f"{name}, {size}", {KEY: images}, draws, KEY, twin, reads, (step,), rivals=rivals)

    chosen = draws.uniform(2) < 0.5
    flags = np.concatenate([chosen, np.zeros((count, 1), np.bool_)], axis=1)
    pattern = chosen @ np.array([1, 2])
    axes: tuple[tuple[int, ...], ...] = ((), (1,), (2,), (1, 2))
    yield case(
        "flip of two axes",
        Flip(keys=KEY, axes=(0, 1)),
        lambda: reference.flip(images, flags),
        _by_kind(
            images, there, place, pattern, [partial(np.flip, axis=a) for a in axes], [_torch_flip(a) for a in axes]
        ),
    )
    quarters = draws.integers(1, 0, 4)[:, 0]
    yield case(
        "rotate by 90 degrees",
        Rotate90(keys=KEY),
        lambda: reference.rotate90(images, quarters, (0, 1)),
        _by_kind(
            images,
            there,
            place,
            quarters,
            [partial(np.rot90, k=k, axes=(1, 2)) for k in range(4)],
            [partial(torch.rot90, k=k, dims=(1, 2)) for k in range(4)],
        ),
    )
    origin = -draws.integers(3, -SHIFT, SHIFT + 1)
    starts = (np.arange(count), *(SHIFT + origin).T)
    starts_there = tuple(place(np.ascontiguousarray(each)) for each in starts)

    def numpy_shift() -> Images:
        wide = np.pad(images, ((0, 0), *[(SHIFT, SHIFT)] * 3))
        made: Images = sliding_window_view(wide, (length,) * 3, (1, 2, 3))[starts]
        return made

    def torch_shift() -> torch.Tensor:
        wide = F.pad(there, (SHIFT,) * 6)
        return wide.unfold(1, length, 1).unfold(2, length, 1).unfold(3, length, 1)[starts_there]

    yield case(
        f"translate by up to {SHIFT}",
        Translate(keys=KEY, pixels=(SHIFT,)),
        lambda: reference.window(images, origin, images.shape[1:]),
        {"NumPy": numpy_shift, "torch": torch_shift},
    )
    low = (length - WINDOW) // 2
    part = (slice(None), *[slice(low, low + WINDOW)] * 3)
    yield case(
        f"crop to {WINDOW}^3",
        Crop(keys=KEY, shape=(WINDOW,) * 3),
        lambda: reference.window(images, np.full((count, 3), low), (WINDOW,) * 3),
        {"NumPy": lambda: np.ascontiguousarray(images[part]), "torch": lambda: there[part].contiguous()},
        reads=images[part].nbytes,
    )


def _turned(images: Images, there: torch.Tensor, size: str, draws: Draws, place: Place) -> TransformCase:
    """By any angle, in the plane of the first two axes."""
    angle = np.radians(draws.uniform(1, -30.0, 30.0)[:, 0])
    cosine, sine = np.cos(angle), np.sin(angle)
    matrix = np.stack([cosine, sine, -sine, cosine], axis=-1).reshape(-1, 2, 2)
    # torch counts the last axis first, from the centre, and carries channels in front.
    zero = np.zeros_like(angle)
    theta = place(np.stack([cosine, -sine, zero, sine, cosine, zero], axis=-1).reshape(-1, 2, 3).astype(np.float32))

    def by_torch() -> torch.Tensor:
        channels = there.movedim(3, 1)
        grid = F.affine_grid(theta, list(channels.shape), align_corners=True)
        turned = F.grid_sample(channels, grid, "bilinear", "zeros", align_corners=True)
        return turned.movedim(1, 3).contiguous()

    return TransformCase(
        f"rotate by up to 30 degrees, linear, {size}",
        {KEY: images},
        draws,
        KEY,
        lambda: reference.warp(images, (0, 1), 1, matrix=matrix),
        images.nbytes,
        (Rotate(keys=KEY, degrees=30.0, order=1),),
        rivals={"torch": by_torch},
        tolerance=_INTERPOLATED,
    )


def _coarser(images: Images, there: torch.Tensor, size: str, draws: Draws) -> TransformCase:
    few = images.shape[1] // BLOCK
    blocks = (len(images), *(few, BLOCK) * 3)
    return TransformCase(
        f"downsample, sums of {BLOCK}^3, {size}",
        {KEY: images},
        draws,
        KEY,
        lambda: reference.block_reduce(images, (BLOCK,) * 3),
        images.nbytes,
        (Downsample(keys=KEY, factor=(BLOCK,) * 3),),
        rivals={
            "NumPy": lambda: images.reshape(blocks).sum(axis=(2, 4, 6)),
            "torch": lambda: F.avg_pool3d(there[:, None], BLOCK, divisor_override=1)[:, 0],
        },
        tolerance=_ROUNDED,
    )


def _noises(images: Images, there: torch.Tensor, size: str, draws: Draws) -> Iterator[TransformCase]:
    offsets = np.arange(len(images) + 1, dtype=np.int64) * images[0].size
    random = np.random.default_rng(0)

    def unlike_noise(result: Any) -> str | None:
        added = (arrays_of(result)[0].astype(np.float64) - images).ravel() / SIGMA
        off = max(abs(added.mean()), abs(added.var() - 1) / np.sqrt(2)) * np.sqrt(added.size)
        return None if off <= _SIGMAS else f"mean or width of the noise is off by {off:.1f} standard errors"

    def unlike_drops(result: Any) -> str | None:
        made = arrays_of(result)[0]
        if not ((made == images) | (made == 0)).all():
            return "what is left differs"
        active = images != 0
        part, width = float((made[active] == 0).mean()), np.sqrt(PROBABILITY * (1 - PROBABILITY) / active.sum())
        off = abs(part - PROBABILITY) / width
        return None if off <= _SIGMAS else f"the part that is dropped is off by {off:.1f} standard errors"

    yield TransformCase(
        f"Gaussian noise, {size}",
        {KEY: images},
        draws,
        KEY,
        lambda: reference.gaussian_noise(images, offsets, draws, SIGMA),
        images.nbytes,
        (GaussianNoise(keys=KEY, sigma=SIGMA),),
        rivals={
            "NumPy": lambda: images + np.float32(SIGMA) * random.standard_normal(images.shape, np.float32),
            "torch": lambda: torch.add(there, torch.randn_like(there), alpha=SIGMA),
        },
        tolerance=_ROUNDED,
        differs=unlike_noise,
    )
    yield TransformCase(
        f"drop-out of {100 * PROBABILITY:g} % of cells, {size}",
        {KEY: images},
        draws,
        KEY,
        lambda: reference.drop_items(images, offsets, draws, PROBABILITY),
        images.nbytes,
        (DropOut(keys=KEY, probability=PROBABILITY),),
        rivals={
            "NumPy": lambda: np.where(random.random(images.shape, np.float32) < PROBABILITY, np.float32(0), images),
            "torch": lambda: there * (torch.rand_like(there) >= PROBABILITY),
        },
        differs=unlike_drops,
    )


def _by_kind(
    images: Images,
    there: torch.Tensor,
    place: Place,
    kind: NDArray[Any],
    numpy_moves: Sequence[Callable[[Any], Any]],
    torch_moves: Sequence[Callable[[Any], Any]],
) -> dict[str, Callable[[], Any]]:
    """Return the rivals that move all events of one kind together."""
    rows = [np.flatnonzero(kind == number) for number in range(len(numpy_moves))]
    rows_there = [place(each) for each in rows]

    def run(values: Any, made: Any, groups: Any, moves: Any) -> Any:
        for group, move in zip(groups, moves):
            made[group] = move(values[group])
        return made

    return {
        "NumPy": lambda: run(images, np.empty_like(images), rows, numpy_moves),
        "torch": lambda: run(there, torch.empty_like(there), rows_there, torch_moves),
    }


def _torch_flip(axes: tuple[int, ...]) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda tensor: tensor.flip(axes) if axes else tensor
