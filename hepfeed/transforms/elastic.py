"""The step that distorts images at random."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from pydantic import model_validator

from hepfeed.draws import Draws
from hepfeed.errors import ProcessError, SpecError
from hepfeed.images import elastic_field, real_type, warp
from hepfeed.tensors import Sparse
from hepfeed.transforms.geometry import Axes, lengths_along, same_lengths
from hepfeed.transforms.step import Batch
from hepfeed.transforms.warping import WarpStep

__all__ = ["Elastic"]

_FIELD_ITEMS = 1 << 22  # numbers of the fields made at a time: 32 MiB and half as much again


class Elastic(WarpStep):
    """Distorts images by displacements that vary smoothly (Simard, Steinkraus and Platt, ICDAR 2003).

    ``out[x] = in[x + f(x)]``: each component of f is a uniform random number in [-1, 1) at every item, smoothed with a
    Gaussian of width ``sigma`` along each axis and multiplied by ``alpha``.  Smoothed numbers are not normalised, so
    their width is about ``alpha / sqrt(3) (2 sqrt(pi) sigma)^(-D/2)`` items in D axes; the paper used alpha = 34 and
    sigma = 4 for digits of 29 x 29.

    Attributes:
        keys: Dense images; several are distorted alike and have the same lengths along the axes.
        alpha: Size of the displacements, in items.
        sigma: Width of the Gaussian, in items.
        axes: Which axes are distorted, three at most; None: all.
        order: See :class:`~hepfeed.transforms.warping.WarpStep`.
        fill: What is beyond the image.
        nearest: Those of ``keys`` that are images of labels.

    Raises:
        ProcessError: A key holds no dense images, lacks an axis, has more than three, or keys differ in length.
    """

    random: ClassVar[bool] = True

    alpha: float
    sigma: float
    axes: Axes | None = None

    @model_validator(mode="after")
    def _check_sizes(self) -> Elastic:
        if not 0 <= self.alpha < math.inf:
            raise SpecError(f"alpha must be a number from 0, not {self.alpha!r}")
        if not 0 < self.sigma <= 1000:
            raise SpecError(f"sigma must be a number above 0 and at most 1000, not {self.sigma!r}")
        return self

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with distorted images."""
        made = dict(batch)
        first: tuple[str, tuple[int, ...]] | None = None
        plans = []
        for key, value, axes in self.images(batch, self.axes):
            if isinstance(value, Sparse):
                raise ProcessError(f"key {key!r} is sparse, which can't be distorted: densify it first", key=key)
            self._check_axes(key, axes)
            first = first or (key, lengths_along(key, value, axes))
            same_lengths(first, key, lengths_along(key, value, axes), axes)
            dtype = real_type(value.dtype) if self._order_of(key) else value.dtype.newbyteorder("=")
            made[key] = np.empty(value.shape, dtype)
            plans.append((key, value, axes))
        assert first is not None  # there is one key at least
        lengths = first[1]
        # The fields of a batch may be much larger than its images: a few events at a time.
        some = max(1, _FIELD_ITEMS // max(1, len(lengths) * math.prod(lengths)))
        for start in range(0, len(draws), some):
            part = slice(start, start + some)
            field = elastic_field(draws.take(np.arange(len(draws))[part]), lengths, self.alpha, self.sigma)
            for key, value, axes in plans:
                made[key][part] = warp(value[part], axes, self._order_of(key), self.fill, field=field)
        return made
