"""Statistics of what a cache holds, from sums over its parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfeed.moments import Moments
from hepfeed.parts.form import ArrayForm
from hepfeed.parts.part import Part

__all__ = ["Sums", "part_sums", "statistics"]

Sums = dict[str, list[float | None]]
"""Key -> count, mean, spread, minimum and maximum of the active values (finite and not 0; what float64 does not hold is
None), number of zeros, of values that are not finite, and of places in all."""
_CHUNK = 1 << 15  # values that are looked at together, so that they stay in the second cache


def part_sums(part: Part, directory: str, forms: Iterable[ArrayForm]) -> Sums:
    """Return the sums over one part; graphs and complex numbers have none.

    Raises:
        SourceError: The file can't be read.
    """
    found: Sums = {}
    for form in forms:
        if form.kind == "graph" or np.dtype(form.dtype).kind == "c":
            continue
        as_rows = form.kind == "dense" and form.path in part.columns
        values = part.read(form.path if as_rows else f"{form.path}/values", directory)
        places = values.size
        if form.kind == "padded":
            values = values[part.read(f"{form.path}/mask", directory).view(bool)]
            places = values.size
        elif form.kind == "sparse":
            places = part.events * int(np.prod((*form.grid, *form.shape), dtype=np.int64))
        elif form.kind == "dense":
            places = part.events * form.items
        moments, zeros, nonfinite = _sums(values.reshape(-1))
        zeros += places - values.size  # cells and sites that are not kept
        packed = [number if np.isfinite(number) else None for number in moments.packed().tolist()]
        found[form.name] = [*packed, zeros, nonfinite, places]
    return found


def statistics(parts: Mapping[str, Sums]) -> dict[str, dict[str, Any]]:
    """Return the figures of each key over all parts, as ``hepfeed stats`` names them.

    ``occupancy`` is the share of places that are not 0.  Figures of nothing are None.
    """
    joined: dict[str, list[Any]] = {}
    for sums in parts.values():
        for key, numbers in sums.items():
            moments, rest = _moments(numbers[:5]), np.array(numbers[5:], np.float64)
            before = joined.get(key)
            joined[key] = [moments, rest] if before is None else [before[0] + moments, before[1] + rest]
    found = {}
    for key, (active, (zeros, nonfinite, places)) in joined.items():
        every = active + Moments.of_zeros(np.array(int(zeros)))
        found[key] = {
            "values": int(places),
            "zeros": int(zeros),
            "nonfinite": int(nonfinite),
            "occupancy": None if not places else float((places - zeros) / places),
            **_figures(every),
            "active": {"count": int(active.count), **_figures(active)},
        }
    return found


def _figures(moments: Moments) -> dict[str, float | None]:
    if not moments.count:
        return dict.fromkeys(("mean", "std", "minimum", "maximum"))
    figures = {
        "mean": float(moments.mean),
        "std": float(moments.std),
        "minimum": float(moments.minimum),
        "maximum": float(moments.maximum),
    }
    return {name: figure + 0.0 if np.isfinite(figure) else None for name, figure in figures.items()}


def _sums(values: NDArray[Any]) -> tuple[Moments, int, int]:
    """Return the moments of the active values of ``(n,)``, how many are 0, and how many are not finite."""
    total, zeros, nonfinite = Moments.of(np.empty(0)), 0, 0
    for first in range(0, len(values), _CHUNK):
        some = values[first : first + _CHUNK]
        active = int(np.count_nonzero(some))
        zeros += len(some) - active
        chosen = some if active == len(some) else some[some != 0]
        if some.dtype.kind == "f" and not np.isfinite(chosen).all():
            finite = np.isfinite(chosen)
            nonfinite += len(chosen) - int(np.count_nonzero(finite))
            chosen = chosen[finite]
        if len(chosen):
            total += Moments.of(chosen)
    return total, zeros, nonfinite


def _moments(numbers: list[float | None]) -> Moments:
    nothing = not numbers[0]
    unknown = (0.0, 0.0, np.nan, np.inf if nothing else np.nan, -np.inf if nothing else np.nan)
    return Moments.unpacked(np.array([other if n is None else n for n, other in zip(numbers, unknown)], np.float64))
