"""Events divided into train, validation and test sets, without overlap and stable under a seed."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

import numpy as np
import xxhash
from numpy.typing import NDArray

from hepfeed.errors import SpecError, nearest

__all__ = ["SPLIT_BY", "Splits"]

SPLIT_BY = ("event", "block", "file")
"""How :class:`Splits` may divide, beside ``"key:NAME"``."""


class Splits:
    """Fractions of events by name, e.g. ``{"train": .8, "val": .1, "test": .1}``.

    Whether an event belongs to a part depends on the seed, on its file's name and its row (or its key's value), and on
    nothing else: files may be added, moved to another directory or listed in another order.

    Args:
        fractions: Part of the events for each name; they sum to 1 at most, and what is left over is not used.
        by: ``"event"``: each file's events are drawn at random, exactly by the fractions.  ``"block"``: each file is
            cut into runs of neighbours, so that parts share few chunks and a validation epoch decodes only its own;
            right where the events of a file are in no order.  ``"file"``: whole files.  ``"key:NAME"``: events
            with an equal value of that key (a run or interaction number) stay together.
        seed: Another seed, other parts.

    Raises:
        SpecError: A fraction is not above 0, they sum to more than 1, or ``by`` is none of these.
    """

    def __init__(self, fractions: Mapping[str, float], by: str = "event", seed: int = 0) -> None:
        if not fractions:
            raise SpecError("splits is empty: give fractions such as {'train': 0.8, 'val': 0.2}")
        for name, fraction in fractions.items():
            if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 < fraction <= 1:
                raise SpecError(f"split {name!r} must be a fraction above 0 and up to 1, not {fraction!r}")
        if sum(fractions.values()) > 1 + 1e-9:
            raise SpecError(f"the splits {dict(fractions)} sum to {sum(fractions.values()):g}, which is more than 1")
        if by not in SPLIT_BY and not (by.startswith("key:") and len(by) > 4):
            raise SpecError(f"split_by={by!r} is unknown: {nearest(by, [*SPLIT_BY, 'key:NAME'])}")
        self.fractions = dict(fractions)
        self.by = by
        self.seed = int(seed)

    @property
    def key(self) -> str | None:
        """The data set whose values decide, for ``by="key:NAME"``."""
        return self.by[4:] if self.by.startswith("key:") else None

    def _bounds(self, name: str) -> tuple[float, float]:
        if name not in self.fractions:
            raise SpecError(f"split {name!r} is not defined: {nearest(name, self.fractions)}")
        names = list(self.fractions)
        edges = [0.0, *np.cumsum(list(self.fractions.values())).tolist()]
        place = names.index(name)
        upper = 1.0 if place == len(names) - 1 and math.isclose(edges[-1], 1.0) else edges[place + 1]
        return edges[place], upper

    def _hash(self, *parts: object) -> int:
        return xxhash.xxh3_64_intdigest(repr((self.seed, *parts)).encode())

    def rows(self, name: str, path: str, events: int, values: NDArray[np.generic] | None = None) -> NDArray[np.int64]:
        """Return the rows of one file that belong to a part.

        Args:
            name: The part.
            path: The file; its last two components count, so that a data set may be moved.
            events: Events in the file.
            values: ``(events,)`` values of :attr:`key`.

        Returns:
            Sorted ``(n,) int64``.
        """
        low, high = self._bounds(name)
        file = os.sep.join(path.split(os.sep)[-2:])
        if self.by == "file":
            position = self._hash("file", file) / 2**64
            return np.arange(events if low <= position < high else 0, dtype=np.int64)
        if values is not None:
            unique, inverse = np.unique(values, return_inverse=True)
            position_of = np.array([self._hash("key", value) / 2**64 for value in unique.tolist()])
            position_of_event = position_of[inverse.reshape(-1)]
            return np.flatnonzero((position_of_event >= low) & (position_of_event < high)).astype(np.int64)
        # A random offset instead of rounding keeps the fractions right over many files of few events.
        offset = self._hash("offset", file) / 2**64
        first, last = (
            min(events, math.floor(round(events * edge, 9) + offset)) if edge < 1 else events for edge in (low, high)
        )
        first = 0 if low == 0 else first
        if self.by == "block":
            turn = self._hash("turn", file) % max(events, 1)
            return np.sort((np.arange(first, last, dtype=np.int64) + turn) % max(events, 1))
        order = np.random.Generator(np.random.Philox(key=self._hash("order", file))).permutation(events)
        return np.sort(order[first:last]).astype(np.int64)
