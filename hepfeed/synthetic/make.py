"""A sample of each kind of detector with one call."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hepfeed.synthetic import lartpc, lcd, next_tracks, vertices
from hepfeed.synthetic.writer import WriterOptions, write_classes

if TYPE_CHECKING:
    from typing_extensions import Unpack


def make_lcd(
    directory: str | os.PathLike[str],
    *,
    classes: Sequence[str] = tuple(lcd.KINDS),
    files: int = 4,
    events: int = 1000,
    energy: tuple[float, float] = (10.0, 500.0),
    schema: lcd.Schema = "v1",
    seed: int = 0,
    **options: Unpack[WriterOptions],
) -> list[list[Any]]:
    """Write calorimeter events, one directory a class: 10,000 with gzip in a quarter of a minute on two CPUs.

    Args:
        directory: Where to.
        classes: Of ``EleEscan``, ``ChPiEscan``, ``GammaEscan``, ``Pi0Escan``.
        files: Files of each class.
        events: Events in each file; 68 kB each uncompressed.
        energy: Lowest and highest energy in GeV.
        schema: ``"v1"`` or ``"nested"``, see :class:`hepfeed.synthetic.LcdGenerator`.
        seed: Same seed, same bits.
        **options: Of :func:`hepfeed.synthetic.write_files`.

    Returns:
        ``[[glob, keys, label, rate], ...]``, ready for a sample specification.

    Raises:
        SpecError: An argument out of range.
    """
    generators = [lcd.LcdGenerator(name, energy, schema) for name in classes]
    return write_classes(directory, generators, files=files, events=events, seed=seed, **options)


def make_lartpc(
    directory: str | os.PathLike[str],
    *,
    classes: Sequence[str] = lartpc.CLASSES,
    files: int = 4,
    events: int = 100,
    energy: tuple[float, float] = (100.0, 800.0),
    shape: tuple[int, int] = (240, 4096),
    seed: int = 0,
    **options: Unpack[WriterOptions],
) -> list[list[Any]]:
    """Write liquid-argon events of one particle each, one directory a class.

    Args:
        directory: Where to.
        classes: Of ``Muon``, ``Pion``, ``Proton``, ``Electron``, ``Photon``.
        files: Files of each class.
        events: Events in each file; 3.9 MB each uncompressed at the default shape.
        energy: Lowest and highest kinetic energy in MeV.
        shape: Wires and time bins of an image.
        seed: Same seed, same bits.
        **options: Of :func:`hepfeed.synthetic.write_files`.

    Returns:
        ``[[glob, keys, label, rate], ...]``, ready for a sample specification.

    Raises:
        SpecError: An argument out of range.
    """
    generators = [lartpc.LartpcGenerator(name, energy, shape) for name in classes]
    return write_classes(directory, generators, files=files, events=events, seed=seed, **options)


def make_next(
    directory: str | os.PathLike[str],
    *,
    classes: Sequence[str] = tuple(next_tracks.CLASSES),
    files: int = 4,
    events: int = 1000,
    pressure: float = 15.0,
    seed: int = 0,
    **options: Unpack[WriterOptions],
) -> list[list[Any]]:
    """Write xenon events, one directory a class.

    Args:
        directory: Where to.
        classes: Of ``TwoElectron`` (signal), ``OneElectron`` (background).
        files: Files of each class.
        events: Events in each file; 96 kB each uncompressed.
        pressure: Of the xenon, in bar.
        seed: Same seed, same bits.
        **options: Of :func:`hepfeed.synthetic.write_files`.

    Returns:
        ``[[glob, keys, label, rate], ...]``, ready for a sample specification.

    Raises:
        SpecError: An argument out of range.
    """
    generators = [next_tracks.NextGenerator(name, pressure) for name in classes]
    return write_classes(directory, generators, files=files, events=events, seed=seed, **options)


def make_vertices(
    directory: str | os.PathLike[str],
    *,
    files: int = 4,
    events: int = 100,
    energy: tuple[float, float] = (50.0, 300.0),
    tracks: tuple[int, int] = (1, 3),
    showers: tuple[int, int] = (1, 2),
    shape: tuple[int, int] = (240, 4096),
    seed: int = 0,
    **options: Unpack[WriterOptions],
) -> list[list[Any]]:
    """Write liquid-argon events of several particles from one point, with the class of each point where ``ragged``.

    Args:
        directory: Where to.
        files: Number of files.
        events: Events in each file; as points 8 kB each uncompressed, as images 3.9 MB at the default shape.
        energy: Lowest and highest kinetic energy of each particle in MeV.
        tracks: Smallest and largest number of tracks.
        showers: Smallest and largest number of showers.
        shape: Wires and time bins of an image.
        seed: Same seed, same bits.
        **options: Of :func:`hepfeed.synthetic.write_files`.

    Returns:
        ``[[glob, keys, label, rate]]``, ready for a sample specification.

    Raises:
        SpecError: An argument out of range.
    """
    generator = vertices.VertexGenerator(energy, tracks, showers, shape)
    return write_classes(directory, [generator], files=files, events=events, seed=seed, **options)
