"""Images of points: sums of weights in the cells of a grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from hepfeed.synthetic.event import Array


def accumulate(index: Array, weights: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Sum ``weights (M,)`` into the cells ``index (M,)`` of a new C-ordered array.

    Only cells that are hit are summed, in float64, so that a large and nearly empty image costs its memory
    and no more.
    """
    image = np.zeros(shape, dtype)
    cells, inverse = np.unique(index, return_inverse=True)
    image.reshape(-1)[cells] = np.bincount(inverse, weights=weights, minlength=len(cells))
    return image
