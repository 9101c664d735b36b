"""MosaicML Streaming: MDS shards without compression, read in place."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, ClassVar

from hepfeed.bench.feeds.events import EventSet
from hepfeed.bench.feeds.maps_sides import LoaderFeed
from hepfeed.bench.feeds.side import Feed, Side
from hepfeed.bench.feeds.stored import Field, Form, Record, StoredSide
from hepfeed.tensors import Batch

__all__ = ["SIDES", "Mosaic", "MosaicCells"]

_DTYPES = {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)} | {"float16", "float32", "float64"}
"""Of its arrays."""


def _encoding(field: Field) -> str:
    """Its name of what holds a field: MDS takes no empty arrays, and not all dtypes."""
    if field.variable or field.dtype.name not in _DTYPES:
        return "bytes"
    return f"ndarray:{field.dtype.name}:{','.join(map(str, field.shape))}"


class _Collate:
    """Makes batches of samples."""

    def __init__(self, form: Form) -> None:
        self.form = form

    def __call__(self, samples: list[dict[str, Any]]) -> Batch:
        return self.form.collate([self._record(sample) for sample in samples])

    def _record(self, sample: dict[str, Any]) -> Record:
        return {
            name: field.decode(sample[name]) if isinstance(sample[name], bytes) else sample[name]
            for name, field in self.form.fields.items()
        }


class Mosaic(StoredSide):
    """Its loader over shards that lie where they were written; one canonical node, which shuffles all shards."""

    name = "mosaic"
    title = "MosaicML Streaming"
    package = "mosaicml-streaming"
    settings: ClassVar[dict[str, Any]] = {
        "shuffle": True,
        "shuffle_algo": "py1e",
        "shuffle_block_size": 1 << 18,
        "num_canonical_nodes": 1,
        "persistent_workers": True,
        "size_limit": 1 << 26,
        "compression": None,
        "hashes": None,
    }
    advice = "https://docs.mosaicml.com/projects/streaming/en/stable/dataset_configuration/shuffling.html"

    def prepare(self, events: EventSet, folder: Path) -> None:
        """Write shards, event by event."""
        form = self.form(events)
        columns = {name: _encoding(field) for name, field in form.fields.items()}
        options = {name: self.settings[name] for name in ("size_limit", "compression", "hashes")}
        writer = importlib.import_module("streaming").MDSWriter
        with writer(out=str(folder), columns=columns, progress_bar=False, **options) as shards:
            for file, first, rows in events.blocks():
                for record in form.records(events, file, first, rows):
                    shards.write(
                        {name: array.tobytes() if columns[name] == "bytes" else array for name, array in record.items()}
                    )

    def open(self, events: EventSet, folder: Path, workers: int, batch_size: int, seed: int) -> Feed:
        """Return a feed that shuffles; see :class:`Side`."""
        streaming = importlib.import_module("streaming")
        names = ("shuffle", "shuffle_algo", "shuffle_block_size", "num_canonical_nodes")
        options = {name: self.settings[name] for name in names}
        dataset = streaming.StreamingDataset(local=str(folder), batch_size=batch_size, shuffle_seed=seed, **options)
        return LoaderFeed(
            streaming.StreamingDataLoader(
                dataset,
                batch_size=batch_size,
                num_workers=workers,
                persistent_workers=self.settings["persistent_workers"] and workers > 0,
                collate_fn=_Collate(self.form(events)),
            )
        )


class MosaicCells(Mosaic):
    """The same of the cells that are not 0."""

    name = "mosaic-cells"
    title = "MosaicML Streaming: cells"
    cells = True


SIDES: tuple[Side, ...] = (Mosaic(), MosaicCells())
