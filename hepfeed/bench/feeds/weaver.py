"""weaver's dataset over HDF5 files: columns with a row a jet."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.utils.data
import yaml

from hepfeed.bench.feeds.events import EventSet
from hepfeed.bench.feeds.ftag import unnumbered
from hepfeed.bench.feeds.side import Feed, Side
from hepfeed.tensors import Batch

__all__ = ["SIDES", "Weaver"]

_NUMBER = "number"
_FILES = 4
"""Files of a fetch.  HDF5 files are read whole at each fetch: fetching parts of them would read all each time."""


def _groups(events: EventSet) -> dict[str, list[str]]:
    """Keys of one shape belong together: group -> keys."""
    groups: dict[str, list[str]] = {}
    for key, (_, shape) in events.shapes.items():
        if key != _NUMBER:
            groups.setdefault("x".join(["events", *map(str, shape)]), []).append(key)
    return groups


def _config(events: EventSet) -> dict[str, Any]:
    """The data configuration: values as they are stored."""
    inputs = {}
    for group, keys in _groups(events).items():
        shape = events.shapes[keys[0]][1]
        inputs[group] = {"length": shape[0] if shape else None, "vars": [[key, None] for key in keys]}
    return {
        "inputs": inputs,
        "labels": {"type": "simple", "value": [f"label_{name}" for name in events.classes]},
        "monitor_variables": [_NUMBER],
    }


class _Feed(Feed):
    def __init__(self, events: EventSet, folder: Path, workers: int, batch_size: int, seed: int) -> None:
        package = importlib.import_module("weaver.utils.dataset")
        torch.manual_seed(seed)
        self._events, self._groups = events, _groups(events)
        config = folder / "data.yaml"
        config.write_text(yaml.safe_dump(_config(events)))
        files: dict[str, list[str]] = {name: [] for name in events.classes}
        for source in events.sources:
            files[events.classes[source.label]].append(source.path)
        dataset = package.SimpleIterDataset(
            files, str(config), batch_size=batch_size, fetch_by_files=True, fetch_step=_FILES, name="train"
        )
        self._loader: Any = torch.utils.data.DataLoader(
            dataset,
            batch_size,
            num_workers=min(workers, *map(len, files.values())),  # each needs a file of each class
            persistent_workers=workers > 0,
        )

    def epoch(self, number: int) -> Iterator[Batch]:
        for inputs, labels, others in self._loader:
            batch: Batch = {}
            for group, keys in self._groups.items():
                values = inputs[group]
                batch |= (
                    {key: values[:, place] for place, key in enumerate(keys)} if values.ndim > 1 else {keys[0]: values}
                )
            numbers = others[_NUMBER]
            where = self._events.place(np.asarray(numbers, np.int64))
            yield {**batch, _NUMBER: numbers, "label": labels["_label_"], "event": where}

    def close(self) -> None:
        self._loader = None


class Weaver(Side):
    """weaver's own dataset in torch's DataLoader, by files, without standardisation and weights."""

    name = "weaver"
    title = "weaver, HDF5"
    package = "weaver-core"
    settings: ClassVar[dict[str, Any]] = {
        "fetch_by_files": True,
        "fetch_step": _FILES,
        "async_load": True,
        "persistent_workers": True,
    }
    advice = "https://github.com/hqucms/weaver-core#performance-considerations-on-data-loading"

    def missing(self) -> str | None:
        """Its dataset needs numba, tables and vector, which pip installs with it."""
        absent = [name for name in ("numba", "tables", "vector") if importlib.util.find_spec(name) is None]
        also = f"its dataset needs {', '.join(absent)}: pip install {' '.join(absent)}" if absent else None
        return super().missing() or also

    def takes(self, events: EventSet) -> str | None:
        """Columns at the top of each file, float32 with one or two axes, and one of 0 and 1 for each class."""
        for source in events.sources:
            for key, column in source.columns.items():
                dtype, shape = events.shapes[key]
                plain = column.plain and not column.rows and column.dataset == key and "/" not in key
                if not plain or len(shape) > 1 or (dtype != np.float32 and key != _NUMBER):
                    return "it reads float32 columns at the top of a file, of one or two axes and a row an event"
        return super().takes(events) or _unlabelled(events) or unnumbered(events)

    def open(self, events: EventSet, folder: Path, workers: int, batch_size: int, seed: int) -> Feed:
        """Open a loader."""
        return _Feed(events, folder, workers, batch_size, seed)


def _unlabelled(events: EventSet) -> str | None:
    import h5py

    for source in events.sources:
        with h5py.File(source.path) as file:
            if any(f"label_{name}" not in file for name in events.classes):
                return "it needs a column of 0 and 1 for each class, label_<class>"
    return None


SIDES: tuple[Side, ...] = (Weaver(),)
