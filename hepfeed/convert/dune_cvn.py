"""DUNE CVN pixel maps.

The experiment's software writes them for its convolutional visual network as a folder a class and two small files
an event: ``eventN.gz``, a raw zlib stream (not gzip, for all its name) of the pixel map, and ``eventN.info``, 15
lines of truth.
The task and the network are described in B. Abi et al. (DUNE), Phys. Rev. D 102 (2020) 092003.
"""

from __future__ import annotations

import math
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt

from hepfeed.convert.block import Block, Column, Field, sparsify
from hepfeed.convert.engine import convert
from hepfeed.convert.plan import Class
from hepfeed.convert.report import Converted, Skipped
from hepfeed.convert.settings import ConvertOptions, Settings
from hepfeed.errors import CorruptDataError, FileFormatError, SourceError, SpecError
from hepfeed.fault import Fault

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["IMAGE_SHAPE", "INFO_LINES", "PixelMapForm", "convert_dune_cvn", "read_info", "read_pixel_map"]

PixelMapForm = Literal["dense", "sparse", "both"]

IMAGE_SHAPE = (3, 500, 500)
"""Pixel map of one event: view, plane, cell.  The beam enters at plane 0; a cell is a bin of drift time."""

INFO_LINES = 15
"""Lines of one ``.info`` file."""

_IMAGE_BYTES = math.prod(IMAGE_SHAPE)
_ENERGY_LINE, _LEPTON_ENERGY_LINE, _PDG_LINE, _N_HITS_LINE = 1, 2, 7, 14

_TRUTH = {
    "energy": Field.dense(np.float32, units="GeV", description="energy of the neutrino"),
    "lepton_energy": Field.dense(np.float32, units="GeV", description="energy of the outgoing lepton"),
    "pdg": Field.dense(np.int32, description="PDG code of the neutrino; 1 stands for any neutral current"),
    "n_hits": Field.dense(np.int32, description="reconstructed hits; several may share a pixel or miss the map"),
    "event_number": Field.dense(np.int64, description="N of the source file eventN.gz"),
}


def convert_dune_cvn(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    form: PixelMapForm = "dense",
    **options: Unpack[ConvertOptions],
) -> Converted:
    """Gather DUNE CVN pixel maps into HDF5 files ``out/<class>/<class>_<k>.h5``, a folder a class.

    Events are in the order of their numbers (``event2`` before ``event10``).  A file of N events holds:

    ============== ====================== ====================================================================
    key            shape, type            meaning
    ============== ====================== ====================================================================
    image          (N, 3, 500, 500) uint8 view, plane, cell; an event a chunk (``dense`` and ``both``)
    hits/coords    (M, 3) int16           view, plane, cell of a pixel above 0, sorted (``sparse``, ``both``)
    hits/value     (M,) uint8             charge of that pixel
    hits/offsets   (N + 1,) int64         event i owns hits ``offsets[i]:offsets[i + 1]``; it may own none
    info           (N, 15) float32        every line of ``eventN.info``
    energy         (N,) float32           energy of the neutrino in GeV, line 2
    lepton_energy  (N,) float32           energy of the outgoing lepton in GeV, line 3
    pdg            (N,) int32             PDG code of the neutrino, line 8; 1 in neutral-current events
    n_hits         (N,) int32             reconstructed hits, line 15: at least the number of pixels above 0
    event_number   (N,) int64             N of ``eventN.gz``
    ============== ====================== ====================================================================

    ``info`` and ``pdg`` give the class away: never train on them.

    A file appears under its name only when it is complete.

    Args:
        source: Folder with one folder a class; the class is the folder's name.
        out: Folder to write into, made if it is missing.
        form: ``"dense"`` images, ``"sparse"`` hits (0.01-3 % of the pixels), or ``"both"``.
        **options: See :class:`hepfeed.convert.Settings`; ``events_per_file`` is 100 unless given.

    Returns:
        The files written, by class and then by event number; a sequence of paths.

    Raises:
        SpecError: An option is out of its range.
        SourceError: A folder or a file is missing or can't be read, or ``out`` has other HDF5 files.
        CorruptDataError: A pixel map is truncated or is no zlib stream.
        FileFormatError: A pixel map has another size, or an ``.info`` file other lines, than expected.
        ResourceError: An output file can't be written.
        ReaderError: A worker died.
    """
    if form not in get_args(PixelMapForm):
        raise SpecError(f"form must be one of {', '.join(map(repr, get_args(PixelMapForm)))}; got {form!r}")
    options.setdefault("events_per_file", 100)
    settings = Settings(**options)
    classes, found = _find_classes(Path(source), form, skip=settings.on_error == "skip")
    return convert(classes, out, settings, source_format="DUNE CVN pixel maps", form=form, options={}, found=found)


@dataclass(frozen=True)
class _Folder:
    """The events of one class, and their reader; there is nothing to keep open."""

    folder: Path
    numbers: tuple[int, ...]
    form: PixelMapForm
    sequential: bool = False

    @property
    def path(self) -> str:
        """The folder."""
        return str(self.folder)

    @property
    def events(self) -> int:
        """How many events it has."""
        return len(self.numbers)

    @property
    def fields(self) -> dict[str, Field]:
        """What it has of each event."""
        fields = {}
        if self.form != "sparse":
            fields["image"] = Field.dense(np.uint8, IMAGE_SHAPE, axes="event, view, plane, cell")
        if self.form != "dense":
            fields["hits"] = Field.sparse(np.uint8, IMAGE_SHAPE, axes="view, plane, cell")
        return {**fields, "info": Field("dense", {"": Column(np.dtype(np.float32), (INFO_LINES,))}), **_TRUTH}

    @property
    def left_out(self) -> dict[str, str]:
        """Nothing."""
        return {}

    def files(self, start: int, stop: int) -> list[str]:
        """Both files of each of these events."""
        return [str(self._file(n, suffix)) for n in self.numbers[start:stop] for suffix in (".gz", ".info")]

    def verify(self) -> None:
        """Do nothing: an event is read as a whole or not at all."""

    @contextmanager
    def open(self) -> Iterator[_Folder]:
        """Return itself."""
        yield self

    def steps(self, start: int, stop: int, added_bytes: int) -> Iterator[tuple[int, int]]:
        """Go event by event, so that a damaged one costs no other."""
        return ((event, event + 1) for event in range(start, stop))

    def read(self, start: int, stop: int) -> Block:
        """Read a run of events."""
        numbers = self.numbers[start:stop]
        info = np.stack([read_info(self._file(number, ".info")) for number in numbers])
        image = np.stack([read_pixel_map(self._file(number, ".gz")) for number in numbers])
        truth = {
            "energy": info[:, _ENERGY_LINE],
            "lepton_energy": info[:, _LEPTON_ENERGY_LINE],
            "pdg": info[:, _PDG_LINE],
            "n_hits": info[:, _N_HITS_LINE],
            "event_number": np.array(numbers, np.int64),
        }
        block: Block = {key: truth[key].astype(field.columns[""].dtype) for key, field in _TRUTH.items()}
        block["info"] = info.astype(np.float32)
        if self.form != "sparse":
            block["image"] = image
        if self.form != "dense":
            block["hits"] = sparsify(image)
        return block

    def _file(self, number: int, suffix: str) -> Path:
        return self.folder / f"event{number}{suffix}"


def read_pixel_map(path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """Read one ``eventN.gz``.

    Returns:
        (3, 500, 500) uint8: view, plane, cell.

    Raises:
        SourceError: The file can't be read.
        CorruptDataError: The zlib stream is truncated or broken.
        FileFormatError: The stream holds another number of bytes.
    """
    stream = _read_bytes(Path(path))
    inflator = zlib.decompressobj()
    try:
        # One byte more than an event has is enough to know that the file is something else.
        pixels = inflator.decompress(stream, _IMAGE_BYTES + 1)
    except zlib.error as error:
        raise CorruptDataError(
            f"expected a zlib stream in {path}, but it fails to inflate ({error}); fetch the file again",
            file=str(path),
        ) from error
    if len(pixels) <= _IMAGE_BYTES and not inflator.eof:
        raise CorruptDataError(
            f"expected a whole zlib stream in {path}, but it ends after {len(stream)} bytes with "
            f"{len(pixels)} of {_IMAGE_BYTES} pixels; fetch the file again",
            file=str(path),
        )
    if len(pixels) != _IMAGE_BYTES:
        came = f"more than {_IMAGE_BYTES}" if len(pixels) > _IMAGE_BYTES else str(len(pixels))
        raise FileFormatError(
            f"expected {_IMAGE_BYTES} pixels of one byte (view 3, plane 500, cell 500) in {path}, "
            f"got {came}; convert only pixel maps of that size",
            file=str(path),
        )
    return np.frombuffer(pixels, np.uint8).reshape(IMAGE_SHAPE)


def read_info(path: str | os.PathLike[str]) -> npt.NDArray[np.float64]:
    """Read one ``eventN.info``.

    Returns:
        (15,) float64, a number a line.

    Raises:
        SourceError: The file can't be read.
        FileFormatError: There are not 15 lines of one finite number each, or a code or a count is not whole.
    """
    lines = _read_bytes(Path(path)).decode("utf-8", "replace").splitlines()
    if len(lines) != INFO_LINES:
        raise FileFormatError(
            f"expected {INFO_LINES} lines in {path}, got {len(lines)}; fetch the file again", file=str(path)
        )
    values = np.empty(INFO_LINES, np.float64)
    for index, line in enumerate(lines):
        try:
            values[index] = float(line)
        except ValueError:
            values[index] = math.nan
        whole = index in (_PDG_LINE, _N_HITS_LINE)
        if not math.isfinite(values[index]) or (whole and not _is_int32(values[index])):
            raise FileFormatError(
                f"expected {'a whole' if whole else 'one finite'} number in line {index + 1} of {path}, "
                f"got {line!r}; mend the line, or remove the event's two files",
                file=str(path),
            )
    return values


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceError(
            f"could not read {path}: {error.strerror}; check that it is there and readable", file=str(path)
        ) from error


def _is_int32(value: float) -> bool:
    return float(value).is_integer() and abs(value) < 2**31


def _find_classes(source: Path, form: PixelMapForm, *, skip: bool) -> tuple[list[Class], list[Skipped]]:
    """List the class folders of ``source`` by name, and events that lack one of their files."""
    if not source.is_dir():
        raise SourceError(
            f"expected a folder at {source}, found none; give the one with a folder a class", file=str(source)
        )
    classes, skipped = [], []
    for folder in sorted(path for path in source.iterdir() if path.is_dir()):
        maps, infos = _event_numbers(folder, ".gz"), _event_numbers(folder, ".info")
        for number in sorted(maps ^ infos):
            there, lacking = (".gz", ".info") if number in maps else (".info", ".gz")
            missing = folder / f"event{number}{lacking}"
            error = SourceError(
                f"expected {missing} beside event{number}{there}, found none; fetch it, or remove event{number}{there}",
                file=str(missing),
            )
            if not skip:
                raise error
            skipped.append(Skipped(Fault.of(error), None, 1))
        if maps & infos:
            numbers = tuple(sorted(maps & infos))
            classes.append(Class(folder.name, (_Folder(folder, numbers, form),)))
    if not classes:
        hint = f"; give its parent, {source.parent}" if any(source.glob("event*.gz")) else ""
        raise SourceError(
            f"expected folders with files eventN.gz in {source}, one folder a class, found none{hint}",
            file=str(source),
        )
    return classes, skipped


def _event_numbers(folder: Path, suffix: str) -> set[int]:
    numbers = set()
    for path in folder.glob(f"*{suffix}"):
        match = re.fullmatch(r"event(0|[1-9][0-9]*)", path.stem)
        if match is None:
            raise FileFormatError(
                f"expected names like event7{suffix} in {folder}, found {path.name}; rename it or move it away",
                file=str(path),
            )
        numbers.add(int(match[1]))
    return numbers
