"""The sample specification: which files, keys, labels and rates make up a stream of events.

The short form is a list of ``[files, keys, label, rate]``, one entry a sample::

    SampleSpec([
        ["data/EleEscan/*.h5", ["ECAL", "HCAL", "target"], "electron", 1.0],
        ["data/ChPiEscan/*.h5", ["ECAL", "HCAL", "target"], "pion", 1.0],
    ])

The long form of an entry is a mapping of the options ``files``, ``keys``, ``label``, ``rate`` and ``filter``.
Both can be kept in a YAML or JSON file.  Everything is validated when the specification is made; no file of
events is opened for that.
"""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import itertools
import json
import math
import os
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, cast

import numpy as np
import xxhash
import yaml
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, model_validator

from hepfeed.errors import FilterError, HepfeedError, SpecError, nearest
from hepfeed.filters import Filter

__all__ = ["HDF5_SUFFIXES", "RESERVED_NAMES", "LabelRule", "Sample", "SampleSpec", "hdf5_files"]

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5")
RESERVED_NAMES = ("label", "event", "weight")

Label: TypeAlias = str | int
Path: TypeAlias = str | os.PathLike[str]
FilterLike: TypeAlias = str | Callable[[dict[str, Any]], Any] | Filter


# ---- files


def hdf5_files(directory: Path) -> list[str]:
    """Return the files of a directory tree with a suffix of HDF5, sorted.

    Links to directories are followed; names that begin with a dot are left out.
    """
    found: list[str] = []
    visited: set[str] = set()
    for folder, folders, names in os.walk(directory, followlinks=True):
        real = os.path.realpath(folder)
        seen = real in visited
        visited.add(real)
        folders[:] = [] if seen else [name for name in folders if not name.startswith(".")]
        if not seen:
            names = [name for name in names if name.lower().endswith(HDF5_SUFFIXES)]
            found += [os.path.join(folder, name) for name in names if not name.startswith(".")]
    return sorted(found)


def _match(pattern: str, root: str) -> list[str]:
    """Return the absolute paths that ``pattern``, relative to ``root``, names: none when it is wrong."""
    path = os.path.abspath(os.path.join(root, os.path.expanduser(pattern)))
    if os.path.isdir(path):
        return hdf5_files(path)
    if os.path.exists(path):
        return [path]
    names = glob.glob(os.path.expanduser(pattern), root_dir=root, recursive=True)
    paths = [os.path.abspath(os.path.join(root, name)) for name in names]
    return sorted(itertools.chain.from_iterable(hdf5_files(p) if os.path.isdir(p) else [p] for p in paths))


def _expand(patterns: Iterable[str], root: str) -> tuple[str, ...]:
    """Return the files of all patterns in order, each once."""
    files: dict[str, str] = {}
    for pattern in patterns:
        matches = _match(pattern, root)
        if not matches:
            raise SpecError(f"no file matches {pattern!r} (from {root!r}): {_siblings(pattern, root)}")
        for path in matches:
            files.setdefault(os.path.realpath(path), path)
    return tuple(files.values())


def _siblings(pattern: str, root: str) -> str:
    """Phrase what exists beside the first part of ``pattern`` that does not."""
    folder = root
    for part in os.path.join(root, os.path.expanduser(pattern)).split(os.sep):
        below = os.path.join(folder, part) if part else os.sep
        if not os.path.isdir(below):
            names = os.listdir(folder) if os.access(folder, os.R_OK) else []
            return f"in {folder!r} {nearest(part, names)}"
        folder = below
    return f"{folder!r} is a directory without files *{', *'.join(HDF5_SUFFIXES)}"


# ---- options, as they are written


def _plain(value: Any) -> Any:
    """Turn a NumPy scalar into Python's."""
    return value.item() if isinstance(value, np.generic) else value


def _read_files(value: Any) -> tuple[str, ...]:
    patterns = [value] if isinstance(value, (str, os.PathLike)) else value
    if not isinstance(patterns, (list, tuple)) or not patterns:
        raise SpecError(f"files must be a path, a glob, a directory or a list of them, not {value!r}")
    for pattern in patterns:
        if not isinstance(pattern, (str, os.PathLike)) or not os.fspath(pattern):
            raise SpecError(f"files must be paths, globs or directories, and {pattern!r} is none")
    return tuple(os.fspath(pattern) for pattern in patterns)


def _read_keys(value: Any) -> dict[str, tuple[str, ...]]:
    if isinstance(value, Mapping):
        pairs = list(value.items())
    elif isinstance(value, (list, tuple)):
        pairs = []
        for item in value:
            pairs += item.items() if isinstance(item, Mapping) else [(item, item)]
    else:
        raise SpecError(f"keys must be a list such as ['ECAL', 'HCAL'], not {value!r}")
    if not pairs:
        raise SpecError("keys must name one data set or more, and the list is empty")
    keys: dict[str, tuple[str, ...]] = {}
    for name, paths in pairs:
        candidates = [paths] if isinstance(paths, str) else paths
        if not isinstance(candidates, (list, tuple)) or not candidates:
            raise SpecError(f"key {name!r} must have the path of a data set or a list of them, not {paths!r}")
        for text in (name, *candidates):
            if not isinstance(text, str) or not text.strip("/"):
                raise SpecError(f"a key must be the path of a data set (str), not {text!r}")
        name = name.strip("/")
        if name in RESERVED_NAMES:
            raise SpecError(
                f"key {name!r} is reserved for what the loader adds to a batch: rename it, "
                f"e.g. {{'{name}_': ['{name}']}}"
            )
        if name in keys:
            raise SpecError(f"key {name!r} is given twice: keep one")
        keys[name] = tuple(dict.fromkeys(path.strip("/") for path in candidates))
    return keys


class LabelRule(BaseModel):
    """How to label files one by one: ``{"from": "directory"}`` or ``{"from": "filename", "pattern": ...}``.

    Attributes:
        source: ``directory`` takes the name of the directory that holds the file; ``filename`` matches
            ``pattern`` from the start of the file name and takes the group named ``label``, or else group 1.
        pattern: Regular expression, for ``filename`` only.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Literal["directory", "filename"] = Field(alias="from")
    pattern: str | None = None

    @model_validator(mode="after")
    def _check(self) -> LabelRule:
        if (self.source == "filename") != (self.pattern is not None):
            raise SpecError("a label rule is {'from': 'directory'} or {'from': 'filename', 'pattern': '(...)_\\d+'}")
        if self.pattern is not None:
            try:
                groups = re.compile(self.pattern).groups
            except re.error as error:
                raise SpecError(f"the label pattern {self.pattern!r} is no regular expression: {error}") from None
            if not groups:
                raise SpecError(f"the label pattern {self.pattern!r} needs a group, e.g. '([A-Za-z]+)_\\d+'")
        return self

    def label(self, path: str) -> str:
        """Return the label of a file.

        Raises:
            SpecError: The file name does not match.
        """
        folder, name = os.path.split(path)
        if self.pattern is None:
            return os.path.basename(folder)
        found = re.match(self.pattern, name)
        label = found and (found.groupdict().get("label") or found[1])
        if not label:
            raise SpecError(f"the label pattern {self.pattern!r} does not match the file name {name!r}", file=path)
        return cast(str, label)


def _read_label(value: Any) -> Label | LabelRule:
    if isinstance(value, LabelRule):
        return value
    if isinstance(value, Mapping):
        return _validate(LabelRule, value)
    value = _plain(value)
    if type(value) not in (str, int) or value == "":
        raise SpecError(f"label must be a str, an int or a rule such as {{'from': 'directory'}}, not {value!r}")
    return cast(Label, value)


Rate: TypeAlias = float | tuple[float, ...] | dict[str, float] | None


def _read_rate(value: Any) -> Rate:
    if value is None:
        return None
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) for name in value):
            raise SpecError(f"rate must be given by file names, not {list(value)!r}")
        return {name: _read_number(rate) for name, rate in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(_read_number(rate) for rate in value)
    return _read_number(value)


def _read_number(value: Any) -> float:
    value = _plain(value)
    if type(value) not in (int, float) or not 0 < value < math.inf:
        raise SpecError(
            f"rate must be a finite number above 0 (leave it out for 'as many as there are'), not {value!r}"
        )
    return float(value)


def _read_filter(value: Any) -> FilterLike | None:
    if value is None or isinstance(value, Filter):
        return value
    if isinstance(value, str):
        return Filter(value)
    if callable(value):
        return cast(FilterLike, value)
    raise FilterError(f"filter must be an expression such as 'Energy > 0.6' or a function, not {value!r}")


def _read_classes(value: Any) -> dict[Label, int] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise SpecError(f"classes must map every label to a class index, e.g. {{'electron': 0}}, not {value!r}")
    classes: dict[Label, int] = {}
    for label, index in value.items():
        label, index = _plain(label), _plain(index)
        if type(label) not in (str, int):
            raise SpecError(f"classes must have labels (str or int) before the indices, not {label!r}")
        if type(index) is not int or index < 0:
            raise SpecError(f"class index of {label!r} must be an int of 0 or more, not {index!r}")
        if index in classes.values():
            raise SpecError(f"class index {index} is given to several labels: give each its own")
        classes[label] = index
    return classes


def _read_dtypes(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise SpecError(f"dtypes must map keys to NumPy types, e.g. {{'ECAL': 'float32'}}, not {value!r}")
    dtypes = {}
    for name, given in value.items():
        try:
            dtype = np.dtype(given) if given is not None else None
        except TypeError:
            dtype = None
        if dtype is None or dtype.kind not in "biuf":
            raise SpecError(f"dtype of {name!r} must be the name of a NumPy number, e.g. 'float32', not {given!r}")
        dtypes[name.strip("/")] = dtype.name
    return dtypes


class _Entry(BaseModel):
    """One entry of the list, as it is written."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    files: Annotated[tuple[str, ...], PlainValidator(_read_files)]
    keys: Annotated[dict[str, tuple[str, ...]], PlainValidator(_read_keys)]
    label: Annotated[Any, PlainValidator(_read_label)]
    rate: Annotated[Rate, PlainValidator(_read_rate)] = None
    filter: Annotated[Any, PlainValidator(_read_filter)] = None


class _Document(BaseModel):
    """The arguments of :class:`SampleSpec`, or the contents of its file."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    samples: list[Any]
    filter: Annotated[Any, PlainValidator(_read_filter)] = None
    classes: Annotated[dict[Label, int] | None, PlainValidator(_read_classes)] = None
    dtypes: Annotated[dict[str, str], PlainValidator(_read_dtypes)] = {}


_Model = TypeVar("_Model", bound=BaseModel)


def _validate(model: type[_Model], options: Any) -> _Model:
    """Check options; pydantic's report becomes one sentence on the first fault."""
    try:
        return model.model_validate(options)
    except ValidationError as report:
        # A misspelt option is often also a missing one: the misspelling is what to tell.
        fault = min(report.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    option = str(fault["loc"][0]) if fault["loc"] else "?"
    cause = fault.get("ctx", {}).get("error")
    if fault["type"] == "extra_forbidden":
        names = [field.alias or name for name, field in model.model_fields.items()]
        raise SpecError(f"there is no option {option!r}; {nearest(option, names)}")
    if fault["type"] == "missing":
        raise SpecError(f"the option {option!r} is missing: give it")
    raise cause if isinstance(cause, HepfeedError) else SpecError(f"option {option!r}: {fault['msg']}")


@contextlib.contextmanager
def _naming(where: str) -> Iterator[None]:
    """Put ``where`` before the message of an error."""
    try:
        yield
    except HepfeedError as error:
        error.message = f"{where}: {error.message}"
        raise


# ---- samples, as they are used


@dataclass(frozen=True, repr=False)
class Sample:
    """A set of files of one class; made by :class:`SampleSpec`, and accepted by another one.

    Attributes:
        files: Absolute paths, in order, each once.
        patterns: Paths and globs as written, which name exactly ``files``.
        keys: Batch name -> paths of data sets, tried in order in each file.
        label: Label of every event.
        rate: Events of this sample relative to the others; None: as many as there are, or rates per file.
        file_rates: Rate of each of ``files``, or None.
        filter: Which events to keep, beside the filter of the specification, or None for all.
        root: Directory that relative ``patterns`` start from.
    """

    files: tuple[str, ...]
    patterns: tuple[str, ...] = field(compare=False)
    keys: dict[str, tuple[str, ...]]
    label: Label
    rate: float | None
    file_rates: tuple[float, ...] | None
    filter: Filter | None
    root: str = field(compare=False)

    def __repr__(self) -> str:
        rate = self.rate if self.file_rates is None else "per file"
        return f"Sample({self.label!r}, {len(self.files)} files, keys={[*self.keys]}, rate={rate})"


def _read_entry(given: Any) -> _Entry:
    """Read an entry in any of its forms."""
    if isinstance(given, Sample):
        options: Any = {name: getattr(given, name) for name in ("keys", "label", "filter")}
        options |= {"files": given.patterns, "rate": given.file_rates or given.rate}
    elif isinstance(given, (list, tuple)) and 2 <= len(given) <= 4:
        options = dict(zip(("files", "keys", "label", "rate"), given, strict=False))
    elif isinstance(given, Mapping):
        options = dict(given)
    else:
        raise SpecError(f"a sample is [files, keys, label, rate] or a mapping of these options, not {given!r}")
    return _validate(_Entry, options)


def _resolve(entry: _Entry, root: str) -> list[Sample]:
    """Find the files of an entry: one sample, or one a label when the entry has a label rule."""
    files = _expand(entry.files, root)
    sample = Sample(
        files=files,
        patterns=entry.files,
        keys=entry.keys,
        label=entry.label,
        rate=entry.rate if isinstance(entry.rate, float) else None,
        file_rates=_file_rates(entry.rate, files, root),
        filter=_as_filter(entry.filter, entry.keys),
        root=root,
    )
    if not isinstance(entry.label, LabelRule):
        return [sample]
    groups: dict[str, list[int]] = {}
    for at, path in enumerate(files):
        groups.setdefault(entry.label.label(path), []).append(at)
    return [_part(sample, label, members) for label, members in groups.items()]


def _part(sample: Sample, label: str, members: list[int]) -> Sample:
    """Return the files ``members`` of a sample as a sample of their own."""
    files = tuple(sample.files[at] for at in members)
    rates = sample.file_rates and tuple(sample.file_rates[at] for at in members)
    return replace(sample, label=label, files=files, patterns=files, file_rates=rates)


def _file_rates(rate: Rate, files: tuple[str, ...], root: str) -> tuple[float, ...] | None:
    """Give every file its rate, or return None when the rate is not per file."""
    if isinstance(rate, tuple) and len(rate) != len(files):
        raise SpecError(f"a list of rates needs one for each of the {len(files)} files, and {len(rate)} came")
    if not isinstance(rate, dict):
        return rate if isinstance(rate, tuple) else None
    members = set(files)
    rates: dict[str, float] = {}
    for name, value in rate.items():
        matches = [path for path in _match(name, root) if path in members] or [
            path for path in files if fnmatch.fnmatchcase(os.path.basename(path), name)
        ]
        if not matches:
            raise SpecError(
                f"rate names {name!r}, which is no file here; {nearest(name, map(os.path.basename, files))}"
            )
        for path in matches:
            if rates.setdefault(path, value) != value:
                raise SpecError(f"rate gives {path!r} both {rates[path]} and {value}: keep one")
    for path in files:
        if path not in rates:
            raise SpecError(f"rate is given by file, but not for {path!r}: add it")
    return tuple(rates[path] for path in files)


def _as_filter(condition: FilterLike | None, names: Iterable[str]) -> Filter | None:
    """Make a filter; a bare function reads all keys of the batch."""
    if condition is None or isinstance(condition, Filter):
        return condition
    return Filter(condition) if isinstance(condition, str) else Filter(condition, keys=names)


class SampleSpec:
    """Which events to feed: the lecture's list ``[[files, keys, label, rate], ...]``, validated.

    Files are found and every option is checked here; no file is opened.

    Attributes:
        samples: One for each entry, or several where an entry has a label rule.
        names: Names of the keys in a batch, the same in all samples.
        classes: Label -> class index.
        filter: Which events to keep in all samples, or None for all.
        dtypes: Batch name -> NumPy type that it is converted to, for those that are.
    """

    def __init__(
        self,
        samples: Sequence[Any],
        *,
        filter: FilterLike | None = None,
        classes: Mapping[Label, int] | None = None,
        dtypes: Mapping[str, Any] | None = None,
        root: Path | None = None,
    ) -> None:
        """Make a specification.

        Args:
            samples: Entries ``[files, keys, label, rate]``, mappings of these options and ``filter``, or
                samples of another specification.

                - ``files`` is a path, a glob (``**`` too), a directory (its HDF5 files) or a list of them.
                - ``keys`` is a list of data sets; ``{"ECAL": ["ECAL", "ECAL/ECAL"]}`` in it names candidates
                  that are tried in order.
                - ``label`` is a str, an int, or a :class:`LabelRule` as a mapping.
                - ``rate`` is the number of events relative to other samples, or one for each file (a list, or
                  a mapping from path, glob or file name).  Without rates, events come as many as there are.
            filter: Condition on the events of all samples, beside their own: an expression of
                :mod:`hepfeed.filters`, a :class:`~hepfeed.filters.Filter`, or a function, which gets all keys
                of the batch.
            classes: Index of every label, and perhaps of others.  By default str labels are numbered in
                alphabetical order, and int labels are their own index.
            dtypes: NumPy type to convert a key to, by batch name.
            root: Directory that relative paths start from; default: the working directory.

        Raises:
            SpecError: An option is wrong or unknown, a pattern matches no file, a file is in two samples, or
                samples do not go together.
            FilterError: A filter is wrong.
        """
        given = {"samples": samples, "filter": filter, "classes": classes, "dtypes": dtypes}
        document = _validate(_Document, {name: value for name, value in given.items() if value is not None})
        if not document.samples:
            raise SpecError("a specification needs one sample or more, and the list is empty")
        self._entries: list[tuple[_Entry, str]] = []
        resolved: list[Sample] = []
        for number, sample in enumerate(document.samples, 1):
            with _naming(f"sample {number} of {len(document.samples)}"):
                start = sample.root if isinstance(sample, Sample) else os.path.abspath(root or os.curdir)
                entry = _read_entry(sample)
                self._entries.append((entry, start))
                resolved += _resolve(entry, start)
        self.samples = tuple(resolved)
        self.names = _common_names(resolved)
        self.classes = _class_map(resolved, document.classes)
        self.filter = _as_filter(document.filter, self.names)
        self.dtypes = document.dtypes
        _check_files(resolved)
        _check_rates(resolved)
        for name in self.dtypes:
            if name not in self.names:
                raise SpecError(f"dtypes names {name!r}, which is no key; {nearest(name, self.names)}", key=name)

    @property
    def files(self) -> list[str]:
        """All files in the order of the samples."""
        return [path for sample in self.samples for path in sample.files]

    @property
    def n_classes(self) -> int:
        """Length of a one-hot label: the largest class index and one."""
        return max(self.classes.values()) + 1

    def event_filter(self, sample: Sample) -> Filter | None:
        """Return the common filter and the sample's own as one, or None when there is neither."""
        filters = [condition for condition in (self.filter, sample.filter) if condition is not None]
        return Filter.all_of(filters) if filters else None

    def fingerprint(self) -> str:
        """Return 32 hexadecimal digits that change with any option or the list of files.

        What is in the files is not looked at.
        """
        samples = [
            {
                "files": sample.files,
                "keys": list(sample.keys.items()),
                "label": sample.label,
                "rate": sample.rate,
                "file_rates": sample.file_rates,
                "filter": sample.filter and sample.filter.fingerprint(),
            }
            for sample in self.samples
        ]
        canonical = {
            "samples": samples,
            "filter": self.filter and self.filter.fingerprint(),
            "classes": sorted(self.classes.items(), key=lambda item: item[1]),
            "dtypes": self.dtypes,
        }
        return xxhash.xxh3_128(json.dumps(canonical, sort_keys=True).encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SampleSpec):
            return NotImplemented
        return (self.samples, self.filter, self.classes, self.dtypes) == (
            other.samples,
            other.filter,
            other.classes,
            other.dtypes,
        )

    def __hash__(self) -> int:
        return hash((self.names, tuple(self.files)))

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self._options().items() if name != "classes")
        return (
            f"SampleSpec({len(self.samples)} samples, {len(self.files)} files, keys={list(self.names)}, "
            f"classes={self.classes}{options})"
        )

    def _options(self) -> dict[str, Any]:
        options = {"filter": self.filter, "classes": self.classes, "dtypes": self.dtypes}
        return {name: value for name, value in options.items() if value}

    # ---- files of specifications

    @classmethod
    def load(cls, path: Path) -> SampleSpec:
        """Read a YAML or JSON file: the list of samples, or a mapping ``samples, filter, classes, dtypes``.

        Relative paths in it start from its directory.

        Raises:
            SpecError: As the constructor; or the file is missing or is neither YAML nor JSON, with the line.
            FilterError: A filter is wrong.
        """
        path = os.path.abspath(os.path.expanduser(path))
        try:
            contents = _parse(path)
            options = {"samples": contents} if isinstance(contents, list) else contents
            if not isinstance(options, dict):
                raise SpecError(f"a specification is a list of samples or a mapping, not {contents!r}")
            _validate(_Document, options)
            return cls(**options, root=os.path.dirname(path))
        except HepfeedError as error:
            error.file = error.file or path
            raise

    def save(self, path: Path) -> None:
        """Write a file that :meth:`load` reads into an equal specification, from any working directory.

        Relative patterns are rewritten to start from the file's directory.  Classes are always written, so
        that a class keeps its index when others are added.

        Args:
            path: File to write; its suffix chooses between ``.yaml``, ``.yml`` and ``.json``.

        Raises:
            SpecError: A filter is a function, or the suffix is another one.
        """
        path = os.path.abspath(os.path.expanduser(path))
        suffix = os.path.splitext(path)[1].lower()
        if suffix not in (".yaml", ".yml", ".json"):
            raise SpecError(f"a specification is saved as .yaml, .yml or .json, not {suffix!r}", file=path)
        document = self._document(os.path.dirname(path))
        text = json.dumps(document, indent=2) + "\n" if suffix == ".json" else _dump(document)
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(text)

    def to_yaml(self, directory: Path | None = None) -> str:
        """Return what :meth:`save` writes to a YAML file in ``directory`` (default: the working directory).

        Raises:
            SpecError: A filter is a function.
        """
        return _dump(self._document(os.path.abspath(directory or os.curdir)))

    def _document(self, directory: str) -> dict[str, Any]:
        document: dict[str, Any] = {"samples": []}
        for number, (entry, root) in enumerate(self._entries, 1):
            with _naming(f"sample {number} of {len(self._entries)}"):
                document["samples"].append(_written(entry, root, directory))
        options = self._options()
        if self.filter:
            options["filter"] = _written_filter(self.filter)
        return document | options


# ---- how samples go together


def _common_names(samples: list[Sample]) -> tuple[str, ...]:
    first, *others = samples
    for number, sample in enumerate(others, 2):
        if difference := sorted(first.keys.keys() ^ sample.keys.keys()):
            raise SpecError(
                f"all samples must have the same keys, but {difference[0]!r} is only in one of the samples "
                f"1 ({first.label!r}) and {number} ({sample.label!r}): name candidates as in "
                "{'ECAL': ['ECAL', 'ECAL/ECAL']} where files differ",
                key=difference[0],
            )
    return tuple(first.keys)


def _check_files(samples: list[Sample]) -> None:
    owner: dict[str, Sample] = {}
    for sample in samples:
        for path in sample.files:
            other = owner.setdefault(os.path.realpath(path), sample)
            if other is not sample:
                raise SpecError(
                    f"the file {path!r} is in two samples ({other.label!r} and {sample.label!r}), and its "
                    "events would come twice: leave it out of one",
                    file=path,
                )


def _check_rates(samples: list[Sample]) -> None:
    without = [sample for sample in samples if sample.rate is None and sample.file_rates is None]
    if without and len(without) < len(samples):
        raise SpecError(
            "rates must be given for all samples or for none, and the sample of "
            f"{without[0].label!r} has none: add its rate"
        )


def _class_map(samples: list[Sample], classes: dict[Label, int] | None) -> dict[Label, int]:
    """Check the map, or number the labels: str in alphabetical order, int by themselves."""
    labels = list(dict.fromkeys(sample.label for sample in samples))
    texts = [label for label in labels if isinstance(label, str)]
    numbers = [label for label in labels if isinstance(label, int)]
    if texts and numbers:
        raise SpecError(f"labels must be all str or all int, and there are {texts[0]!r} and {numbers[0]!r}")
    if classes is None:
        for number in numbers:
            if number < 0:
                raise SpecError(f"the label {number} is no class index (0 or more): give classes={{{number}: 0, ...}}")
        return {text: at for at, text in enumerate(sorted(texts))} | {number: number for number in sorted(numbers)}
    if numbers:
        classes = {_number(label): index for label, index in classes.items()}
    for label in labels:
        if label not in classes:
            raise SpecError(f"classes has no index for the label {label!r}; {nearest(str(label), map(str, classes))}")
    return classes


def _number(label: Label) -> Label:
    """Turn a key of JSON, which has no int keys, into what it was."""
    return int(label) if isinstance(label, str) and re.fullmatch(r"-?\d+", label) else label


# ---- reading and writing files


class _Loader(yaml.SafeLoader):
    """YAML 1.1 in which ``1e-3`` is a number, and an option that is given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"{key.value!r} is given twice", problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Flow(list[Any]):
    """A list that YAML writes on one line."""


class _Dumper(yaml.SafeDumper):
    """The counterpart of :class:`_Loader`."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
    )
_Dumper.add_representer(
    _Flow, lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)
)
# Only in double quotes does PyYAML escape line breaks of Unicode, which a plain text would lose.
_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"'
    ),
)


def _dump(document: dict[str, Any]) -> str:
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    options = dict(pairs)
    if len(options) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise SpecError(f"{twice!r} is given twice: keep one")
    return options


def _parse(path: str) -> Any:
    """Read JSON, or YAML."""
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read()
        if path.lower().endswith(".json"):
            return json.loads(text, object_pairs_hook=_unique)
        return yaml.load(text, Loader=_Loader)
    except FileNotFoundError:
        folder = os.path.dirname(path)
        raise SpecError(f"there is no specification {path!r}: {_siblings(path, folder)}") from None
    except OSError as error:
        raise SpecError(f"the specification {path!r} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SpecError("a specification is text (YAML or JSON in UTF-8), and this is a binary file") from None
    except json.JSONDecodeError as error:
        raise SpecError(f"the specification is no JSON in line {error.lineno}: {error.msg}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SpecError(f"the specification is no YAML in line {line}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise SpecError(f"the specification is no YAML: {error}") from None


def _relative(pattern: str, root: str, directory: str) -> str:
    """Rewrite a pattern that starts from ``root`` to start from ``directory``; absolute ones stay."""
    if os.path.isabs(os.path.expanduser(pattern)):
        return pattern
    return os.path.relpath(os.path.join(root, pattern), directory)


def _written(entry: _Entry, root: str, directory: str) -> dict[str, Any] | list[Any]:
    """Return an entry as a file has it: the list form where that says all, otherwise the mapping."""
    files = [_relative(pattern, root, directory) for pattern in entry.files]
    rule = entry.label.model_dump(by_alias=True, exclude_none=True) if isinstance(entry.label, LabelRule) else None
    keys = [name if paths == (name,) else {name: list(paths)} for name, paths in entry.keys.items()]
    rate: Any = entry.rate
    if isinstance(rate, tuple):
        rate = _Flow(rate)
    elif isinstance(rate, dict):
        rate = {_relative(n, root, directory) if _match(n, root) else n: value for n, value in rate.items()}
    options = {
        "files": files[0] if len(files) == 1 else files,
        "keys": _Flow(keys),
        "label": rule or entry.label,
        "rate": rate,
        "filter": None if entry.filter is None else _written_filter(entry.filter),
    }
    options = {name: value for name, value in options.items() if value is not None}
    short = len(files) == 1 and rule is None and not isinstance(rate, (list, dict)) and entry.filter is None
    return _Flow(options.values()) if short else options


def _written_filter(condition: FilterLike) -> str:
    expression = condition.expression if isinstance(condition, Filter) else None
    if expression is None:
        raise SpecError(f"a filter function ({condition!r}) can't be saved: write it as an expression")
    return expression
