"""Other formats into HDF5 events.

DUNE CVN pixel maps, as the experiment's software writes them for its convolutional visual network, come as a
folder a class and two small files an event: ``eventN.gz``, a raw zlib stream (not gzip, for all its name) of
the pixel map, and ``eventN.info``, 15 lines of truth.  :func:`convert_dune_cvn` gathers them into a few HDF5
files a class.
The task and the network are described in B. Abi et al. (DUNE), Phys. Rev. D 102 (2020) 092003.
"""

from __future__ import annotations

import math
import os
import re
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import h5py
import numpy as np
import numpy.typing as npt

from hepfeed import __version__
from hepfeed.errors import (
    CorruptDataError,
    FileFormatError,
    HepfeedError,
    ResourceError,
    SourceError,
    SpecError,
)
from hepfeed.worker import call_everywhere

__all__ = ["IMAGE_SHAPE", "INFO_LINES", "Form", "convert_dune_cvn", "read_info", "read_pixel_map"]

Form = Literal["dense", "sparse", "both"]

IMAGE_SHAPE = (3, 500, 500)
"""Pixel map of one event: view, plane, cell.  The beam enters at plane 0; a cell is a bin of drift time."""

INFO_LINES = 15
"""Lines of one ``.info`` file."""

_IMAGE_BYTES = math.prod(IMAGE_SHAPE)
_ENERGY_LINE, _LEPTON_ENERGY_LINE, _PDG_LINE, _N_HITS_LINE = 1, 2, 7, 14

# A chunk of coordinates is 96 kB: small beside HDF5's 1 MB chunk cache, large beside the cost of a read.
_HITS_PER_CHUNK = 16384

_TRUTH: dict[str, tuple[type[np.generic], dict[str, str]]] = {
    "energy": (np.float32, {"units": "GeV", "description": "energy of the neutrino"}),
    "lepton_energy": (np.float32, {"units": "GeV", "description": "energy of the outgoing lepton"}),
    "pdg": (np.int32, {"description": "PDG code of the neutrino; 1 stands for any neutral current"}),
    "n_hits": (np.int32, {"description": "reconstructed hits; several may share a pixel or miss the map"}),
    "event_number": (np.int64, {"description": "N of the source file eventN.gz"}),
}


@dataclass(frozen=True)
class _Job:
    """One output file and the events that go into it."""

    path: Path
    folder: Path
    numbers: tuple[int, ...]
    form: Form
    level: int


def convert_dune_cvn(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    form: Form = "dense",
    events_per_file: int = 100,
    workers: int | None = None,
    level: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
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

    A file appears under its name only when it is complete, and replaces one that an earlier run wrote there.

    Args:
        source: Folder with one folder a class; the class is the folder's name.
        out: Folder to write into, made if it is missing.
        form: ``"dense"`` images, ``"sparse"`` hits (0.01-3 % of the pixels), or ``"both"``.
        events_per_file: Most events in one file.
        workers: Processes, at most one an output file; None for one a usable core.
        level: Deflate level, 1 (fast) to 9 (small); 0 stores without compression.
        progress: Called as ``progress(events done, events in all)`` after each file.

    Returns:
        The paths written, by class and then by event number.

    Raises:
        SpecError: An option is out of its range.
        SourceError: A folder or a file is missing or can't be read, or ``out`` has other HDF5 files.
        CorruptDataError: A pixel map is truncated or is no zlib stream.
        FileFormatError: A pixel map has another size, or an ``.info`` file other lines, than expected.
        ResourceError: An output file can't be written.
        ReaderError: A worker died.
    """
    if form not in get_args(Form):
        raise SpecError(f"form must be one of {', '.join(map(repr, get_args(Form)))}; got {form!r}")
    if events_per_file < 1:
        raise SpecError(f"events_per_file must be at least 1; got {events_per_file}")
    if workers is not None and workers < 1:
        raise SpecError(f"workers must be at least 1, or None for one a core; got {workers}")
    if not 0 <= level <= 9:
        raise SpecError(f"level must be 0 (no compression) to 9 (smallest); got {level}")

    jobs = [
        _Job(
            Path(out, folder.name, f"{folder.name}_{k}.h5"),
            folder,
            numbers[first : first + events_per_file],
            form,
            level,
        )
        for folder, numbers in _find_classes(Path(source))
        for k, first in enumerate(range(0, len(numbers), events_per_file))
    ]
    _prepare(jobs)
    total = sum(len(job.numbers) for job in jobs)
    done = 0
    calls = [(job,) for job in jobs]
    processes = workers or len(os.sched_getaffinity(0))
    with closing(call_everywhere(f"{__name__}:write_file", calls, processes)) as replies:
        for place, succeeded, value in replies:
            if not succeeded:
                raise value
            done += len(jobs[place].numbers)
            if progress is not None:
                progress(done, total)
    return [str(job.path) for job in jobs]


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


def _find_classes(source: Path) -> list[tuple[Path, tuple[int, ...]]]:
    """List the class folders of ``source`` by name, each with its event numbers in ascending order."""
    if not source.is_dir():
        raise SourceError(
            f"expected a folder at {source}, found none; give the one with a folder a class", file=str(source)
        )
    classes = []
    for folder in sorted(path for path in source.iterdir() if path.is_dir()):
        maps, infos = _event_numbers(folder, ".gz"), _event_numbers(folder, ".info")
        for number in sorted(maps ^ infos):
            there, lacking = (".gz", ".info") if number in maps else (".info", ".gz")
            missing = folder / f"event{number}{lacking}"
            raise SourceError(
                f"expected {missing} beside event{number}{there}, found none; fetch it, or remove event{number}{there}",
                file=str(missing),
            )
        if maps:
            classes.append((folder, tuple(sorted(maps))))
    if not classes:
        hint = f"; give its parent, {source.parent}" if any(source.glob("event*.gz")) else ""
        raise SourceError(
            f"expected folders with files eventN.gz in {source}, one folder a class, found none{hint}",
            file=str(source),
        )
    return classes


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


def _prepare(jobs: list[_Job]) -> None:
    """Make the output folders, and refuse HDF5 files there that would mix with those of ``jobs``."""
    planned = {job.path for job in jobs}
    for folder in sorted({job.path.parent for job in jobs}):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResourceError(
                f"could not make the folder {folder}: {error.strerror}; choose another one to write into",
                file=str(folder),
            ) from error
        for path in sorted(folder.glob("*.h5")):
            if path not in planned:
                raise SourceError(
                    f"expected only files of this conversion in {folder}, found {path.name}, whose events "
                    "would be fed too; remove it, or write into another folder",
                    file=str(path),
                )


def write_file(job: _Job) -> None:
    """Write the file of one job of :func:`convert_dune_cvn` under a temporary name, and rename it."""
    temporary = job.path.with_name(f".{job.path.name}.{os.getpid()}.tmp")
    try:
        with h5py.File(temporary, "w") as file:
            _write_events(file, job)
        temporary.replace(job.path)
    except HepfeedError:
        raise
    except OSError as error:
        raise ResourceError(
            f"could not write {job.path}: {error}; free space, or choose another folder", file=str(job.path)
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _write_events(file: h5py.File, job: _Job) -> None:
    n_events = len(job.numbers)
    file.attrs.update(
        {
            "source_format": "DUNE CVN pixel maps",
            "source": str(job.folder.resolve()),
            "class": job.folder.name,
            "form": job.form,
            "creator": f"hepfeed {__version__}",
        }
    )
    deflate = {"compression": "gzip", "compression_opts": job.level} if job.level else {}
    sinks: list[_Images | _Hits] = []
    if job.form != "sparse":
        sinks.append(_Images(file, n_events, deflate))
    if job.form != "dense":
        sinks.append(_Hits(file, n_events, deflate))
    info = np.empty((n_events, INFO_LINES), np.float64)
    for row, number in enumerate(job.numbers):
        info[row] = read_info(job.folder / f"event{number}.info")
        pixels = read_pixel_map(job.folder / f"event{number}.gz")
        for sink in sinks:
            sink.write(row, pixels)
    file["info"] = info.astype(np.float32)
    truth = {
        "energy": info[:, _ENERGY_LINE],
        "lepton_energy": info[:, _LEPTON_ENERGY_LINE],
        "pdg": info[:, _PDG_LINE],
        "n_hits": info[:, _N_HITS_LINE],
        "event_number": np.array(job.numbers, np.int64),
    }
    for key, (dtype, attributes) in _TRUTH.items():
        file.create_dataset(key, data=truth[key].astype(dtype)).attrs.update(attributes)


class _Images:
    """The dense form: an event a chunk, so that any one event is read by one inflate of 750 kB."""

    def __init__(self, file: h5py.File, n_events: int, deflate: dict[str, Any]) -> None:
        self._image = file.create_dataset(
            "image", (n_events, *IMAGE_SHAPE), np.uint8, chunks=(1, *IMAGE_SHAPE), **deflate
        )
        self._image.attrs["axes"] = "event, view, plane, cell"

    def write(self, row: int, pixels: npt.NDArray[np.uint8]) -> None:
        self._image[row] = pixels


class _Hits:
    """The sparse form: the pixels above 0 of all events end to end, and the offsets that part them."""

    def __init__(self, file: h5py.File, n_events: int, deflate: dict[str, Any]) -> None:
        self._coords = file.create_dataset(
            "hits/coords", (0, 3), np.int16, maxshape=(None, 3), chunks=(_HITS_PER_CHUNK, 3), **deflate
        )
        self._value = file.create_dataset(
            "hits/value", (0,), np.uint8, maxshape=(None,), chunks=(_HITS_PER_CHUNK,), **deflate
        )
        self._offsets = file.create_dataset("hits/offsets", data=np.zeros(n_events + 1, np.int64))
        self._coords.attrs["axes"] = "view, plane, cell"
        self._coords.attrs["extents"] = IMAGE_SHAPE

    def write(self, row: int, pixels: npt.NDArray[np.uint8]) -> None:
        hits = np.argwhere(pixels)  # in C order, which is lexicographic
        start = len(self._value)
        for dataset, new in ((self._coords, hits), (self._value, pixels[tuple(hits.T)])):
            dataset.resize(start + len(hits), axis=0)
            dataset[start:] = new
        self._offsets[row + 1] = start + len(hits)
