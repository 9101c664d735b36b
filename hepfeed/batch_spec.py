"""Which events make a batch, and which batches are read together."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfeed.errors import SpecError

__all__ = ["BatchSpec", "Window", "joined", "numbered", "part_of", "window_of"]

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class BatchSpec:
    """Which events make a batch, in the order of its rows.

    Attributes:
        epoch: Epoch.
        index: Place of the batch in its epoch.
        file: ``(size,) int64`` place of each event's file in the list of files.
        row: ``(size,) int64`` row in that file.
        label: ``(size,) int64`` class index.
        event: ``(size,) int64`` place of each event in the index, where the filler made it.
    """

    epoch: int
    index: int
    file: Ints
    row: Ints
    label: Ints
    event: Ints | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.row)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object: per class and file the rows, and their places in the batch."""
        classes: dict[str, list[dict[str, Any]]] = {}
        for label in np.unique(self.label).tolist():
            for file in np.unique(self.file[self.label == label]).tolist():
                here = np.flatnonzero((self.label == label) & (self.file == file))
                reads = {"file": file, "rows": self.row[here].tolist(), "places": here.tolist()}
                classes.setdefault(str(label), []).append(reads)
        return {"epoch": self.epoch, "index": self.index, "size": len(self), "classes": classes}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> BatchSpec:
        """Rebuild what :meth:`to_json` wrote.

        Raises:
            SpecError: The object is not a batch specification.
        """
        try:
            size = int(content["size"])
            file, row, label = (np.full(size, -1, np.int64) for _ in range(3))
            for name, reads in content["classes"].items():
                for read in reads:
                    places = np.asarray(read["places"], np.int64)
                    file[places], row[places], label[places] = read["file"], read["rows"], int(name)
            epoch, index = int(content["epoch"]), int(content["index"])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise SpecError(f"not a batch specification: {type(error).__name__} {error}") from error
        if (row < 0).any():
            raise SpecError(f"batch specification {index} leaves {int((row < 0).sum())} of {size} places empty")
        return cls(epoch, index, file, row, label)

    @staticmethod
    def dump(path: str, specs: Iterable[BatchSpec]) -> None:
        """Write batch specifications to a file, one JSON object a line."""
        with open(path, "w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(spec.to_json()) + "\n" for spec in specs)

    @staticmethod
    def load(path: str) -> list[BatchSpec]:
        """Read what :meth:`dump` wrote."""
        with open(path, encoding="utf-8") as stream:
            return [BatchSpec.from_json(json.loads(line)) for line in stream if line.strip()]


@dataclass(frozen=True)
class Window:
    """Batches whose events are read together, and their events sorted by file and row.

    Attributes:
        batches: The batches.
        batch: ``(n,) int64`` place in ``batches`` of each event.
        place: ``(n,) int64`` row in that batch.
        file: ``(n,) int64`` file of each event.
        row: ``(n,) int64`` row in that file.
        unit: ``(n,) int64`` block of events that share chunks, counted over the whole index; -1 where every event
            stands alone.
        kept: Unit -> rows of it that the next windows need; who decodes the unit keeps them.
    """

    batches: tuple[BatchSpec, ...]
    batch: Ints
    place: Ints
    file: Ints
    row: Ints
    unit: Ints
    kept: dict[int, Ints] = field(default_factory=dict)


def window_of(specs: Sequence[BatchSpec], unit: Ints | None = None) -> Window:
    """Let batches be read together.

    Args:
        specs: The batches.
        unit: ``(n,)`` unit of their events, batch by batch; None where every one stands alone.
    """
    file, row = (np.concatenate([getattr(spec, name) for spec in specs]) for name in ("file", "row"))
    batch = np.repeat(np.arange(len(specs)), [len(spec) for spec in specs])
    place = np.concatenate([np.arange(len(spec)) for spec in specs])
    unit = np.full(len(row), -1, np.int64) if unit is None else unit
    order = np.lexsort((row, file))
    return Window(tuple(specs), batch[order], place[order], file[order], row[order], unit[order])


def part_of(window: Window, first: int, last: int) -> Window:
    """Return the window of the batches ``first .. last - 1`` of another one."""
    if (first, last) == (0, len(window.batches)):
        return window
    some = np.flatnonzero((window.batch >= first) & (window.batch < last))
    fields = {name: getattr(window, name)[some] for name in ("place", "file", "row", "unit")}
    return replace(window, batches=window.batches[first:last], batch=window.batch[some] - first, **fields)


def numbered(window: Window, numbers: Sequence[int]) -> Window:
    """Return a window whose batches have other places in the epoch."""
    batches = tuple(replace(spec, index=number) for spec, number in zip(window.batches, numbers, strict=True))
    return replace(window, batches=batches)


def joined(windows: Sequence[Window]) -> Window:
    """Let the batches of several windows be read together, in the order of their places in the epoch.

    The windows have no unit in common.
    """
    if len(windows) == 1:
        return windows[0]
    specs = [spec for window in windows for spec in window.batches]
    turn = np.argsort([spec.index for spec in specs])
    place_of = np.empty(len(specs), np.int64)
    place_of[turn] = np.arange(len(specs))
    firsts = np.cumsum([0, *(len(window.batches) for window in windows)])
    batch = place_of[np.concatenate([window.batch + first for window, first in zip(windows, firsts)])]
    place, file, row, unit = (
        np.concatenate([getattr(window, name) for window in windows]) for name in ("place", "file", "row", "unit")
    )
    order = np.lexsort((row, file))
    kept = {unit: rows for window in windows for unit, rows in window.kept.items()}
    batches = tuple(specs[i] for i in turn.tolist())
    return Window(batches, batch[order], place[order], file[order], row[order], unit[order], kept)
