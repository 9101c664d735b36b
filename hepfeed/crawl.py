"""Crawl a directory tree of HDF5 files into a sample specification.

A class is a directory, named after it; where one directory holds files of several prefixes, such as
``EleEscan_1_1.h5`` and ``ChPiEscan_2.h5``, a class is a prefix.
"""

from __future__ import annotations

import glob
import itertools
import os
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import h5py

from hepfeed.errors import KeyMissingError, SourceError, SpecError, nearest
from hepfeed.hdf5 import keys_of, open_file
from hepfeed.patterns import HDF5_SUFFIXES, hdf5_files
from hepfeed.schemas import LAYOUTS, recognise
from hepfeed.spec import SampleSpec
from hepfeed.spec_options import RESERVED_NAMES

__all__ = ["ClassSurvey", "Survey", "crawl", "survey"]

LabelSource: TypeAlias = Literal["directory", "filename"]
_Contents: TypeAlias = tuple[int, dict[str, tuple[tuple[int, ...], str]], dict[str, str], frozenset[str], str | None]
Track: TypeAlias = Callable[[Sequence[str]], Iterable[str]]

# "Pi0_12_3" is "Pi0" and "event7" is "event": numbers behind separators, or digits at the end.
_PREFIX = re.compile(r"(.*?)(?:(?:[_.-]\d+)+|\d+)?")


@dataclass(frozen=True)
class ClassSurvey:
    """The files of one class, and what the first of them holds.

    Attributes:
        label: Name of the directory, or prefix of the files.
        files: Paths, in order.
        events: Number of events in the first file.
        keys: Key -> shape of an event (or of a row, where events differ in length) and NumPy type, in the first file.
        left_out: Other data sets of the first file, and why they are no keys.
        jagged: The keys whose events differ in length.
        layout: How the first file stores events, see :mod:`hepfeed.schemas`; None where that needs no saying.
    """

    label: str
    files: tuple[str, ...]
    events: int
    keys: dict[str, tuple[tuple[int, ...], str]]
    left_out: dict[str, str]
    jagged: frozenset[str] = frozenset()
    layout: str | None = None

    @property
    def patterns(self) -> list[str]:
        """A glob for each directory whose files it names exactly, otherwise the files."""
        patterns: list[str] = []
        for folder, group in itertools.groupby(self.files, os.path.dirname):
            files = list(group)
            suffix = os.path.splitext(files[0])[1]
            label = glob.escape(self.label)
            stems = ("*", f"{label}_*", f"{label}*")
            globs = [os.path.join(glob.escape(folder), stem + suffix) for stem in stems]
            exact = [pattern for pattern in globs if sorted(glob.glob(pattern)) == files]
            patterns += exact[:1] if len(files) > 1 and exact else files
        return patterns


@dataclass(frozen=True)
class Survey:
    """What a directory tree holds.

    Attributes:
        directory: Where the tree starts.
        classes: By label.
        skipped: Files that can't be opened as HDF5, and why.
    """

    directory: str
    classes: tuple[ClassSurvey, ...]
    skipped: dict[str, str]

    @property
    def keys(self) -> list[str]:
        """Keys that the first file of every class has."""
        first, *others = self.classes
        return [key for key in first.keys if all(key in other.keys for other in others)]

    def spec(
        self, *, keys: Sequence[str] | None = None, rate: float | None = None, filter: str | None = None
    ) -> SampleSpec:
        """Make a specification of one sample a class.

        Args:
            keys: Keys to feed; default: all that the classes have in common.
            rate: Rate of every class; default: as many events as there are.
            filter: Condition on the events of all classes.

        Raises:
            SpecError: The classes have no key in common, or an option is wrong.
            KeyMissingError: A class has no such key.
        """
        for key in keys or ():
            for found in self.classes:
                if key not in found.keys:
                    why = found.left_out.get(key)
                    problem = f"is no key ({why})" if why else f"does not exist; {nearest(key, found.keys)}"
                    raise KeyMissingError(
                        f"{key!r} of the class {found.label!r} {problem}", file=found.files[0], key=key
                    )
        names = list(keys or self.keys)
        if not names:
            held = "; ".join(f"{found.label!r} has {', '.join(found.keys) or 'none'}" for found in self.classes)
            raise SpecError(f"the classes in {self.directory!r} have no key in common: {held}")
        return SampleSpec(
            [
                {
                    "files": found.patterns,
                    "keys": names,
                    "label": found.label,
                    "rate": rate,
                    "layout": found.layout if found.jagged.intersection(names) else None,
                }
                for found in self.classes
            ],
            filter=filter,
        )


def survey(directory: str | os.PathLike[str], *, label: LabelSource | None = None, track: Track = iter) -> Survey:
    """Open all HDF5 files below a directory, and look into the first of each class.

    Args:
        directory: Where to start, links are followed; or a single file.
        label: ``"directory"`` or ``"filename"`` (the prefix); default: the directory, and the prefix where
            one directory holds several.
        track: Wraps the list of files that is gone through, e.g. in a progress bar.

    Raises:
        SpecError: There is no directory, or no HDF5 file in it.
    """
    directory = os.path.expanduser(os.fspath(directory))
    if not os.path.exists(directory):
        parent, name = os.path.split(os.path.abspath(directory))
        beside = os.listdir(parent) if os.path.isdir(parent) else []
        raise SpecError(f"{directory!r} is no directory; {nearest(name, beside)}")
    files = hdf5_files(directory) if os.path.isdir(directory) else [directory]
    if not files:
        raise SpecError(f"there is no file *{', *'.join(HDF5_SUFFIXES)} in {directory!r}: name another directory")
    skipped: dict[str, str] = {}
    contents: dict[str, _Contents] = {}
    members: defaultdict[str, list[str]] = defaultdict(list)
    labels = _labels(files, label)
    for path in track(files):
        try:
            with open_file(path) as file:
                if labels[path] not in contents:
                    contents[labels[path]] = _inspect(file, path)
        except SourceError as error:
            skipped[path] = error.message
        else:
            members[labels[path]].append(path)
    if not members:
        path, why = next(iter(skipped.items()))
        raise SpecError(f"none of the {len(files)} files in {directory!r} is HDF5: {why}", file=path)
    classes = [ClassSurvey(name, tuple(members[name]), *contents[name]) for name in sorted(members)]
    return Survey(directory, tuple(classes), skipped)


def _labels(files: Sequence[str], source: LabelSource | None) -> dict[str, str]:
    """Return the label of each file."""
    labels: dict[str, str] = {}
    for folder, group in itertools.groupby(sorted(files, key=os.path.dirname), os.path.dirname):
        prefixes = {path: _prefix(path) for path in group}
        by_prefix = source == "filename" or (source is None and len(set(prefixes.values())) > 1)
        name = os.path.basename(os.path.abspath(folder))
        labels |= {path: (by_prefix and prefix) or name for path, prefix in prefixes.items()}
    return labels


def _prefix(path: str) -> str:
    """Return the file name without its suffix and numbers; empty for a number."""
    found = _PREFIX.fullmatch(os.path.splitext(os.path.basename(path))[0])
    assert found is not None, "the pattern matches every text"
    return found[1]


def _inspect(file: h5py.File, path: str) -> _Contents:
    """Return the number of events, the keys, what is no key and why, which keys are jagged, and the layout."""
    found = recognise(file, path)
    keys = {key: (offer.shape, offer.dtype) for key, offer in found.keys.items() if key not in RESERVED_NAMES}
    jagged = frozenset(key for key, offer in found.keys.items() if offer.jagged)
    fed = {offer.dataset for offer in found.keys.values()} - set(RESERVED_NAMES)
    left_out = {name: _why(file[name], name, found.events) for name in keys_of(file) if name not in fed}
    shown = {name: why for name, why in left_out.items() if not any(part.startswith("_") for part in name.split("/"))}
    known = found.layout in LAYOUTS  # of several layouts none is to be stated: they are found again
    return found.events, keys, shown, jagged, found.layout if known else None


def _why(node: h5py.Dataset, name: str, events: int) -> str:
    """Say why a data set has no keys."""
    if not node.shape:
        return "no event axis"
    if name in RESERVED_NAMES:
        return "a reserved name"
    if node.dtype.kind not in "biufcV":
        return "no numbers"
    return f"{node.shape[0]:,} rows for {events:,} events"


def crawl(
    directory: str | os.PathLike[str],
    *,
    keys: Sequence[str] | None = None,
    label: LabelSource | None = None,
    rate: float | None = None,
    filter: str | None = None,
) -> SampleSpec:
    """Make a specification of a directory tree; files that are not HDF5 are left out with a warning.

    Args:
        directory: Where to start.
        keys: Data sets to feed; default: all that the classes have in common.
        label: As in :func:`survey`.
        rate: Rate of every class; default: as many events as there are.
        filter: Condition on the events of all classes.

    Raises:
        SpecError: There is no HDF5 file, the classes have no key in common, or an option is wrong.
        KeyMissingError: A class has no such key.
    """
    found = survey(directory, label=label)
    for why in found.skipped.values():
        warnings.warn(f"left out: {why}", stacklevel=2)
    return found.spec(keys=keys, rate=rate, filter=filter)
