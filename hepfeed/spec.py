"""The sample specification: which files, keys, labels and rates make up a stream of events.

The short form is a list of ``[files, keys, label, rate]``, one entry a sample::

    SampleSpec([
        ["data/EleEscan/*.h5", ["ECAL", "HCAL", "target"], "electron", 1.0],
        ["data/ChPiEscan/*.h5", ["ECAL", "HCAL", "target"], "pion", 1.0],
    ])

The long form of an entry is a mapping of the options ``files``, ``keys``, ``label``, ``rate``, ``filter`` and
``layout``.  Both can be kept in a YAML or JSON file, with what is made of the events::

    samples:
      - [EleEscan/*.h5, [ECAL, HCAL, pdgID, target], electron, 1.0]
      - {files: ChPiEscan/*.h5, keys: [ECAL, HCAL, pdgID, target], label: pion, rate: 1.0, layout: dense}
    filter: ECAL_HCAL_ERatio < 0.025
    targets:
      energy: target[0, 1]
      signal: abs(pdgID) == 11
      species: {key: pdgID, map: {11: 0, 211: 1}}
    transforms:
      - sparsify: {keys: ECAL, threshold: 1.0e-4}
      - cache
      - flip: {keys: ECAL, axes: [0, 1]}
    weights: {flat: "target[0, 1]", bins: 20}

Everything is validated when the specification is made; no file of events is opened for that.
"""

from __future__ import annotations

import contextlib
import copy
import fnmatch
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import xxhash

from hepfeed import spec_file
from hepfeed.columns import parse_key
from hepfeed.errors import HepfeedError, KeyMissingError, SpecError, nearest
from hepfeed.expression import find_name
from hepfeed.filters import Filter
from hepfeed.loader_options import LoaderOptions
from hepfeed.patterns import HDF5_SUFFIXES, expand, hdf5_files, match, real_paths
from hepfeed.pipeline import CACHE, Pipeline, Transform
from hepfeed.spec_options import (
    RESERVED_NAMES,
    Document,
    Entry,
    FilterLike,
    Label,
    LabelRule,
    Layout,
    Rate,
    read_entry,
    validate,
)
from hepfeed.transforms.target import Target
from hepfeed.weight_rules import Rule, read_rule

__all__ = ["HDF5_SUFFIXES", "RESERVED_NAMES", "LabelRule", "Sample", "SampleSpec", "as_spec", "hdf5_files"]

Path: TypeAlias = str | os.PathLike[str]


@dataclass(frozen=True, repr=False)
class Sample:
    """A set of files of one class; made by :class:`SampleSpec`, and accepted by another one.

    Attributes:
        files: Absolute paths, in order, each once.
        patterns: Paths and globs as written, which name exactly ``files``.
        keys: Batch name -> data sets or parts of them (:func:`hepfeed.columns.parse_key`), tried in order in each
            file.
        label: Label of every event.
        rate: Events of this sample relative to the others; None: as many as there are, or rates per file.
        file_rates: Rate of each of ``files``, or None.
        filter: Which events to keep, beside the filter of the specification, or None for all.
        layout: How its files store events, see :mod:`hepfeed.schemas`, or None to find out.
        root: Directory that relative ``patterns`` start from.
    """

    files: tuple[str, ...]
    patterns: tuple[str, ...] = field(compare=False)
    keys: dict[str, tuple[str, ...]]
    label: Label
    rate: float | None
    file_rates: tuple[float, ...] | None
    filter: Filter | None
    layout: Layout
    root: str = field(compare=False)

    def __repr__(self) -> str:
        rate = self.rate if self.file_rates is None else "per file"
        return f"Sample({self.label!r}, {len(self.files)} files, keys={[*self.keys]}, rate={rate})"

    def entry(self) -> dict[str, Any]:
        """Return the entry of a specification that makes this sample again, from ``root``."""
        rate = self.rate if self.file_rates is None else self.file_rates
        return {
            "files": self.patterns,
            "keys": self.keys,
            "label": self.label,
            "rate": rate,
            "filter": self.filter,
            "layout": self.layout,
        }


class SampleSpec:
    """Which events to feed: the lecture's list ``[[files, keys, label, rate], ...]``, validated.

    Files are found and every option is checked here; no file is opened.

    Attributes:
        samples: One for each entry, or several where an entry has a label rule.
        names: Names of the keys in a batch, the same in all samples.
        classes: Label -> class index.
        filter: Which events to keep in all samples, or None for all.
        dtypes: Batch name -> NumPy type that it is converted to, for those that are.
        targets: Name in a batch -> the step that makes it.
        pipeline: What readers do to a batch after the targets are made.
        weights: Rule for the weights of events, see :mod:`hepfeed.weight_rules`, or None for none.
        loader: How the events are best read on a machine; :class:`hepfeed.DataProvider` goes by it.
    """

    def __init__(
        self,
        samples: Sequence[Any],
        *,
        filter: FilterLike | None = None,
        classes: Mapping[Label, int] | None = None,
        dtypes: Mapping[str, Any] | None = None,
        transforms: Sequence[Transform] | Transform | Pipeline | None = None,
        targets: Mapping[str, Any] | None = None,
        weights: Any = None,
        loader: Mapping[str, Any] | None = None,
        root: Path | None = None,
    ) -> None:
        """Make a specification.

        Args:
            samples: Entries ``[files, keys, label, rate]``, mappings of these options, ``filter`` and ``layout``, or
                samples of another specification.

                - ``files`` is a path, a glob (``**`` too), a directory (its HDF5 files) or a list of them.
                - ``keys`` is a list of data sets or parts of them (``"jets.pt"``, ``"jets[pt, eta]"``,
                  ``"HitData[1:4]"``), which are also their names in a batch; ``{"ECAL": ["ECAL", "ECAL/ECAL"]}``
                  in it gives a name to candidates that are tried in order.
                - ``label`` is a str, an int, or a :class:`LabelRule` as a mapping.
                - ``rate`` is the number of events relative to other samples, or one for each file (a list, or
                  a mapping from path, glob or file name).  Without rates, events come as many as there are.
                - ``layout`` says how the files store events, where that is not recognised or not as wanted; see
                  :mod:`hepfeed.schemas`.
            filter: Condition on the events of all samples, beside their own: an expression of
                :mod:`hepfeed.expression`, a :class:`~hepfeed.filters.Filter`, or a function, which gets all keys
                of the batch.
            classes: Index of every label, and perhaps of others.  By default str labels are numbered in
                alphabetical order, and int labels are their own index.
            dtypes: NumPy type to convert a key to, by batch name.
            transforms: Steps and functions for the readers, see :class:`hepfeed.pipeline.Pipeline`.
            targets: Name in a batch -> a key, an expression over keys of the batch, or the options of
                :class:`hepfeed.transforms.target.Target`.  They are made in this order, before the transforms; one
                may use those before it.
            weights: Rule for the weights of events, see :mod:`hepfeed.weight_rules`.
            loader: Options of :class:`hepfeed.loader_options.LoaderOptions`, such as ``{"num_workers": 4}``, which
                :class:`hepfeed.DataProvider` takes where it is not given them.
            root: Directory that relative paths start from; default: the working directory.

        Raises:
            SpecError: An option is wrong or unknown, a pattern matches no file, a file is in two samples, or
                samples do not go together.
            FilterError: A filter is wrong.
        """
        given: dict[str, Any] = {"samples": samples, "filter": filter, "classes": classes, "dtypes": dtypes}
        given |= {"transforms": transforms, "targets": targets, "weights": weights, "loader": loader}
        document = validate(Document, {name: value for name, value in given.items() if value is not None})
        if not document.samples:
            raise SpecError("a specification needs one sample or more, and the list is empty")
        self._entries: list[tuple[Entry, str]] = []
        resolved: list[Sample] = []
        for number, sample in enumerate(document.samples, 1):
            with _naming(f"sample {number} of {len(document.samples)}"):
                start = sample.root if isinstance(sample, Sample) else os.path.abspath(root or os.curdir)
                entry = read_entry(sample.entry() if isinstance(sample, Sample) else sample)
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
        self.targets = _read_targets(document.targets, self.names)
        steps = document.transforms
        self.pipeline = (
            steps if isinstance(steps, Pipeline) else Pipeline(_located(steps, os.path.abspath(root or ".")))
        )
        self.weights: Rule | None = None if document.weights is None else read_rule(document.weights, self.classes)
        self.loader = LoaderOptions.read(document.loader or {}, os.path.abspath(root or os.curdir))

    @property
    def steps(self) -> Pipeline:
        """What readers do to a batch: the targets, then the transforms."""
        return Pipeline(list(self.targets.values())) + self.pipeline if self.targets else self.pipeline

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

    def as_read(self) -> SampleSpec:
        """Return the specification without targets, transforms and weights."""
        return SampleSpec(self.samples, filter=self.filter, classes=self.classes, dtypes=self.dtypes)

    def with_steps(
        self,
        transform: Sequence[Transform] | Transform | None,
        on_nonfinite: Literal["raise", "zero", "drop"] | None = None,
    ) -> Pipeline:
        """Return all steps of a data set: what is done with numbers that are not finite, :attr:`steps`, and these."""
        first: list[Transform] = [] if on_nonfinite is None else [{"finite": {"action": on_nonfinite}}]
        return Pipeline(first) + self.steps + Pipeline(transform)

    def with_loader(self, options: Mapping[str, Any]) -> SampleSpec:
        """Return the specification with other options :attr:`loader`; a relative folder starts from the working one.

        Raises:
            SpecError: An option is wrong or unknown.
        """
        other = copy.copy(self)
        other.loader = LoaderOptions.read(dict(options), os.getcwd())
        return other

    def fingerprint(self) -> str:
        """Return 32 hexadecimal digits that change with any option but :attr:`loader`, or the list of files.

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
                "layout": sample.layout,
            }
            for sample in self.samples
        ]
        canonical = {
            "samples": samples,
            "filter": self.filter and self.filter.fingerprint(),
            "classes": sorted(self.classes.items(), key=lambda item: item[1]),
            "dtypes": self.dtypes,
            "steps": self.steps.fingerprint(),
            "weights": self.weights,
        }
        return xxhash.xxh3_128(json.dumps(canonical, sort_keys=True).encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SampleSpec):
            return NotImplemented
        return self._identity() == other._identity()

    def _identity(self) -> tuple[Any, ...]:
        made = (self.targets, self.pipeline.fingerprint(), self.weights)
        return self.samples, self.filter, self.classes, self.dtypes, self.loader, *made

    def __hash__(self) -> int:
        return hash((self.names, tuple(self.files)))

    def __repr__(self) -> str:
        options = {"filter": self.filter, "dtypes": self.dtypes, "targets": [*self.targets], "weights": self.weights}
        options |= {"transforms": [getattr(step, "__name__", type(step).__name__) for step in self.pipeline.steps]}
        options |= {"loader": self.loader.given}
        written = "".join(f", {name}={value!r}" for name, value in options.items() if value)
        return (
            f"SampleSpec({len(self.samples)} samples, {len(self.files)} files, keys={list(self.names)}, "
            f"classes={self.classes}{written})"
        )

    @classmethod
    def load(cls, path: Path, until: Literal["read", "cache"] | None = None) -> SampleSpec:
        """Read a YAML or JSON file: the list of samples, or a mapping of the options of the constructor.

        Relative paths in it, of statistics too, start from its directory.

        Args:
            path: The file.
            until: ``"read"`` leaves out targets, transforms and weights, and ``"cache"`` weights and the transforms
                after the word ``cache``: those may name statistics that are yet to be collected.

        Raises:
            SpecError: As the constructor; or the file is missing or is neither YAML nor JSON, with the line.
            FilterError: A filter is wrong.
        """
        path = os.path.abspath(os.path.expanduser(path))
        try:
            options = spec_file.read(path)
            for name in {"read": ("targets", "transforms", "weights"), "cache": ("weights",), None: ()}[until]:
                options.pop(name, None)
            transforms = options.get("transforms")
            if until and isinstance(transforms, list) and CACHE in transforms:
                options["transforms"] = transforms[: transforms.index(CACHE)]
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
            SpecError: A filter or a transform is a function, or the suffix is another one.
        """
        path = os.path.abspath(os.path.expanduser(path))
        spec_file.write(self._document(os.path.dirname(path)), path)

    def to_yaml(self, directory: Path | None = None) -> str:
        """Return what :meth:`save` writes to a YAML file in ``directory`` (default: the working directory).

        Raises:
            SpecError: A filter or a transform is a function.
        """
        return spec_file.to_yaml(self._document(os.path.abspath(directory or os.curdir)))

    def _document(self, directory: str) -> dict[str, Any]:
        document: dict[str, Any] = {"samples": []}
        for number, (entry, root) in enumerate(self._entries, 1):
            with _naming(f"sample {number} of {len(self._entries)}"):
                document["samples"].append(spec_file.written_entry(entry, root, directory))
        known = {*self.names, *self.targets, "label", "event"}
        options = {
            "filter": self.filter and spec_file.written_filter(self.filter),
            "classes": self.classes,
            "dtypes": self.dtypes,
            "targets": {name: _written_target(target, known) for name, target in self.targets.items()},
            "transforms": self.pipeline.to_spec(),
            "weights": self.weights,
            "loader": self.loader.written(directory),
        }
        return document | {name: value for name, value in options.items() if value}


# ---- the samples of an entry


def _resolve(entry: Entry, root: str) -> list[Sample]:
    """Find the files of an entry: one sample, or one a label when the entry has a label rule."""
    files = expand(entry.files, root)
    sample = Sample(
        files=files,
        patterns=entry.files,
        keys=entry.keys,
        label=entry.label,
        rate=entry.rate if isinstance(entry.rate, float) else None,
        file_rates=_file_rates(entry.rate, files, root),
        filter=_as_filter(entry.filter, entry.keys),
        layout=entry.layout,
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
        matches = [path for path in match(name, root) if path in members] or [
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


# ---- transforms and targets


def _located(transforms: Any, root: str) -> Any:
    """Let relative paths of statistics start from ``root``."""
    if isinstance(transforms, list | tuple):
        return [_located(step, root) for step in transforms]
    if not isinstance(transforms, Mapping):
        return transforms
    located = dict(transforms)
    for name, options in transforms.items():
        path = options.get("statistics") if isinstance(options, Mapping) else None
        if isinstance(path, str | os.PathLike):
            located[name] = {**options, "statistics": os.path.join(root, os.path.expanduser(path))}
    return located


def _read_targets(rules: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Target]:
    """Make the steps of targets; each may use the keys and the targets before it."""
    targets: dict[str, Target] = {}
    for name, rule in rules.items():
        known = [*names, *targets, "label", "event"]
        with _naming(f"target {name!r}"):
            if name in names:
                raise SpecError("there is a key of that name, which the target would hide: choose another name")
            if isinstance(rule, str):
                rule = {"key": rule} if rule in known else {"expression": rule}
            if not isinstance(rule, Mapping):
                raise SpecError(
                    f"a target is a key, an expression or a mapping such as {{'key': 'pdgID'}}, not {rule!r}"
                )
            if "name" in rule:
                raise SpecError("the name of a target stands before its rule: leave the option 'name' out")
            target = validate(Target, {"name": name, **rule})
            for key in target.needs:
                path = key if key in known else parse_key(key)[0]
                if find_name(path, known) is None:
                    raise KeyMissingError(f"no key {key!r} is fed; {nearest(key, known)}", key=key)
        targets[name] = target
    return targets


def _written_target(target: Target, known: set[str]) -> Any:
    """Return the rule of a target as a file has it: the text alone where that says which of both it is."""
    options = target.model_dump(exclude_defaults=True, exclude={"name"})
    kind, text = next(iter(options.items()))
    return text if len(options) == 1 and (kind == "key") == (text in known) else options


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
        for path, real in zip(sample.files, real_paths(sample.files)):
            other = owner.setdefault(real, sample)
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


@contextlib.contextmanager
def _naming(where: str) -> Iterator[None]:
    """Put ``where`` before the message of an error."""
    try:
        yield
    except HepfeedError as error:
        error.message = f"{where}: {error.message}"
        raise


def as_spec(spec: SampleSpec | Sequence[Any] | str | os.PathLike[str]) -> SampleSpec:
    """Return a specification from any of its forms."""
    if isinstance(spec, SampleSpec):
        return spec
    if isinstance(spec, str | os.PathLike):
        return SampleSpec.load(os.fspath(spec))
    return SampleSpec(spec)
