"""Ways to store events that are worth a prediction: chunk shapes and codecs, and the commands that rewrite files so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import h5py
import numpy as np

from hepfeed.hdf5 import DatasetInfo

__all__ = ["FORMS", "GOOD", "Codec", "Form", "chunk_of", "repack_command"]

Chunks = Literal["contiguous", "one", "megabyte", "auto"]
_GOOD_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Codec:
    """Filters of HDF5.

    Attributes:
        name: In words.
        options: Of ``h5py.Group.create_dataset``.
        filters: As ``DatasetInfo.filters`` has them.
        repack: Of h5repack, each for one ``-f``; None where h5repack does not have it.
    """

    name: str
    options: dict[str, Any]
    filters: tuple[int, ...]
    repack: tuple[str, ...] | None


def _gzip(level: int) -> Codec:
    return Codec(f"gzip-{level}", {"compression": "gzip", "compression_opts": level}, (1,), (f"GZIP={level}",))


_NONE = Codec("no compression", {}, (), ("NONE",))
_SHUFFLED = Codec(
    "shuffle+gzip-4", {"compression": "gzip", "compression_opts": 4, "shuffle": True}, (2, 1), ("SHUF", "GZIP=4")
)
_LZF = Codec("lzf", {"compression": "lzf"}, (32000,), None)


@dataclass(frozen=True)
class Form:
    """A way to store the data sets that matter.

    Attributes:
        chunks: ``"contiguous"``, ``"one"`` event a chunk, about a ``"megabyte"`` of whole events a chunk, or the chunks
            that h5py chooses (``"auto"``).
        codec: Compression.
    """

    chunks: Chunks
    codec: Codec

    @property
    def name(self) -> str:
        """In words."""
        words = {
            "contiguous": "contiguous",
            "one": "1 event a chunk",
            "megabyte": "chunks of 1 MB",
            "auto": "h5py's chunks",
        }
        return f"{words[self.chunks]}, {self.codec.name}"

    def options(self, info: DatasetInfo) -> dict[str, Any]:
        """Return the options of ``h5py.Group.create_dataset`` for a data set."""
        chunk = chunk_of(self, info)
        return {"chunks": chunk, **self.codec.options} if chunk else {}

    def is_that_of(self, info: DatasetInfo) -> bool:
        """Whether a data set is stored so already, as far as that can be seen: levels of gzip can't."""
        return info.chunk == chunk_of(self, info) and info.filters == self.codec.filters


GOOD = Form("megabyte", _gzip(4))
"""What suits the readers: few calls for a chunk, and windows that mix many of them."""
FORMS = (
    Form("contiguous", _NONE),
    Form("one", _gzip(4)),
    Form("auto", _gzip(4)),
    GOOD,
    Form("megabyte", _gzip(1)),
    Form("megabyte", _SHUFFLED),
    Form("megabyte", _LZF),
)
"""What is predicted, where the files are not so already."""


def chunk_of(form: Form, info: DatasetInfo) -> tuple[int, ...]:
    """Return the chunk shape of a data set in a form; empty without chunks."""
    if form.chunks == "contiguous":
        return ()
    if form.chunks == "auto":
        with h5py.File("auto", "w", driver="core", backing_store=False) as file:
            guessed = file.create_dataset("x", info.shape, np.dtype(("V", info.item.itemsize)), chunks=True).chunks
        return tuple(int(n) for n in guessed)
    rows = 1 if form.chunks == "one" else _GOOD_CHUNK_BYTES // max(1, info.event_bytes)
    return (max(1, min(rows, info.events)), *info.event_shape)


def repack_command(form: Form, infos: list[DatasetInfo]) -> str:
    """Return the command that rewrites a file; for filters that h5repack lacks what to write in h5py."""
    if form.codec.repack is None:
        chunks = ", ".join(f"{info.key}: chunks={chunk_of(form, info)}" for info in infos)
        return f"write them with h5py, compression={form.codec.options['compression']!r} ({chunks})"
    words = ["h5repack"]
    for info in infos:
        chunk = chunk_of(form, info)
        layout = f"CHUNK={'x'.join(map(str, chunk))}" if chunk else "CONTI"
        words += ["-l", f"{info.key}:{layout}"]
        for each in form.codec.repack:
            words += ["-f", f"{info.key}:{each}"]
    return " ".join([*words, "OLD.h5", "NEW.h5"])
