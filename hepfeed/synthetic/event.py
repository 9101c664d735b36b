"""What an event generator is, and the form in which it hands over its events."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]


def float32(values: ArrayLike) -> Array:
    """Convert to float32, in which clouds of spots and points are kept for speed."""
    return np.asarray(values, np.float32)


@dataclass(frozen=True)
class Ragged:
    """Rows of several columns, a different number for each event.

    Attributes:
        offsets: ``(N + 1,) int64``; the rows of event ``i`` are ``offsets[i]:offsets[i + 1]``.
        columns: Name to ``(M, ...)`` array, with ``M = offsets[-1]``.
    """

    offsets: NDArray[np.int64]
    columns: Mapping[str, Array]

    @classmethod
    def from_counts(cls, counts: Array, **columns: Array) -> Ragged:
        """Build from the number of rows of each event, ``counts (N,)``, and columns in event order."""
        return cls(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), columns)

    @classmethod
    def concatenate(cls, parts: list[Ragged]) -> Ragged:
        """Join the events of ``parts``, in order; all have the same columns."""
        counts = np.concatenate([np.diff(part.offsets) for part in parts])
        names = parts[0].columns
        return cls.from_counts(
            counts, **{name: np.concatenate([part.columns[name] for part in parts]) for name in names}
        )

    def head(self, events: int) -> Ragged:
        """Keep the first ``events`` events."""
        rows = int(self.offsets[events])
        return Ragged(self.offsets[: events + 1], {name: column[:rows] for name, column in self.columns.items()})


Block = dict[str, "Array | Ragged"]
"""Some events: HDF5 path to an array with events on axis 0 or, for a group, to :class:`Ragged` columns."""


def head(block: Block, events: int) -> Block:
    """Keep the first ``events`` events of a block."""
    return {name: value.head(events) if isinstance(value, Ragged) else value[:events] for name, value in block.items()}


class EventGenerator(Protocol):
    """Makes events of one class, a block at a time.

    A generator is an immutable value that pickles: worker processes get a copy.
    """

    @property
    def name(self) -> str:
        """Name of the class; names its directory and the prefix of its files."""

    @property
    def label(self) -> str:
        """Label of the class in a sample specification."""

    @property
    def block(self) -> int:
        """Events that :meth:`generate` is asked for at a time."""

    @property
    def axes(self) -> tuple[str, str]:
        """What the two arrays of :meth:`profiles` run over, for the axes of a plot."""

    def keys(self, *, ragged: bool) -> list[str]:
        """List the data sets that a network would train on, of the dense or of the ragged form."""

    def parameters(self) -> dict[str, Any]:
        """Describe the physics that was asked for, as JSON values, for the attributes of a file."""

    def generate(self, rng: np.random.Generator, events: int, *, ragged: bool) -> Block:
        """Make ``events`` events; the dense and the ragged form are made of the same random numbers."""

    def profiles(self, block: Block) -> tuple[Array, Array]:
        """Average a dense block into its longitudinal and its transverse profile, two 1D arrays."""


def stream(seed: int, name: str, file: int, block: int) -> np.random.Generator:
    """Random numbers of one block: they depend on these four and on nothing else.

    Each block has its own Philox key, so that the first events of a file are the same however many follow.
    """
    key = np.random.SeedSequence(seed, spawn_key=(zlib.crc32(name.encode()), file, block))
    return np.random.Generator(np.random.Philox(key))
