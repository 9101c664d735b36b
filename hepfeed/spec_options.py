"""The options of a sample specification as they are written, each read into its one form."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, cast

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, model_validator

from hepfeed.columns import parse_key
from hepfeed.errors import FilterError, HepfeedError, SpecError, nearest
from hepfeed.filters import Filter

__all__ = [
    "RESERVED_NAMES",
    "Document",
    "Entry",
    "FilterLike",
    "Label",
    "LabelRule",
    "Layout",
    "Rate",
    "first_fault",
    "read_entry",
    "validate",
]

RESERVED_NAMES = ("label", "event", "weight")

Label: TypeAlias = str | int
Rate: TypeAlias = float | tuple[float, ...] | dict[str, float] | None
Layout: TypeAlias = str | dict[str, Any] | None
FilterLike: TypeAlias = str | Callable[[dict[str, Any]], Any] | Filter


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


# ---- one by one


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
        for path in candidates:
            parse_key(path)
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


def _read_label(value: Any) -> Label | LabelRule:
    if isinstance(value, LabelRule):
        return value
    if isinstance(value, Mapping):
        return validate(LabelRule, value)
    value = _plain(value)
    if type(value) not in (str, int) or value == "":
        raise SpecError(f"label must be a str, an int or a rule such as {{'from': 'directory'}}, not {value!r}")
    return cast(Label, value)


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


def _read_layout(value: Any) -> Layout:
    if value is None:
        return None
    from hepfeed import schemas  # with h5py, which a specification without a layout does not need

    return schemas.check_layout(value)


def _read_targets(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise SpecError(f"targets must map names to rules, e.g. {{'signal': 'abs(pdgID) == 11'}}, not {value!r}")
    return dict(value)


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


# ---- all of them together


class Entry(BaseModel):
    """One entry of the list of samples.

    Attributes:
        files: Paths, globs and directories.
        keys: Batch name -> paths of data sets, tried in order.
        label: Of every event, or a rule that labels files one by one.
        rate: Relative number of events: of all files, of each, by name, or None for "as many as there are".
        filter: Which events to keep, or None for all.
        layout: How its files store events, see :mod:`hepfeed.schemas`, or None to find out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    files: Annotated[tuple[str, ...], PlainValidator(_read_files)]
    keys: Annotated[dict[str, tuple[str, ...]], PlainValidator(_read_keys)]
    label: Annotated[Any, PlainValidator(_read_label)]
    rate: Annotated[Rate, PlainValidator(_read_rate)] = None
    filter: Annotated[Any, PlainValidator(_read_filter)] = None
    layout: Annotated[Layout, PlainValidator(_read_layout)] = None


class Document(BaseModel):
    """The arguments of :class:`hepfeed.SampleSpec`, or the contents of its file.

    Attributes:
        samples: Entries, not yet read.
        filter: Which events to keep in all samples, or None for all.
        classes: Label -> class index; None: to be numbered.
        dtypes: Batch name -> name of the NumPy type that it is converted to.
        transforms: Of :class:`hepfeed.pipeline.Pipeline`, not yet read.
        targets: Name -> rule, not yet read.
        weights: Rule of :mod:`hepfeed.weights`, not yet read.
        loader: Options of :class:`hepfeed.loader_options.LoaderOptions`, not yet read.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    samples: list[Any]
    filter: Annotated[Any, PlainValidator(_read_filter)] = None
    classes: Annotated[dict[Label, int] | None, PlainValidator(_read_classes)] = None
    dtypes: Annotated[dict[str, str], PlainValidator(_read_dtypes)] = {}
    transforms: Any = None
    targets: Annotated[dict[str, Any], PlainValidator(_read_targets)] = {}
    weights: Any = None
    loader: Any = None


def read_entry(given: Any) -> Entry:
    """Read an entry ``[files, keys, label, rate]``, or a mapping of its options.

    Raises:
        SpecError: It is neither, or an option is wrong, missing or unknown.
        FilterError: The filter is wrong.
    """
    if isinstance(given, (list, tuple)) and 2 <= len(given) <= 4:
        options: dict[Any, Any] = dict(zip(("files", "keys", "label", "rate"), given, strict=False))
    elif isinstance(given, Mapping):
        options = dict(given)
    else:
        raise SpecError(f"a sample is [files, keys, label, rate] or a mapping of these options, not {given!r}")
    return validate(Entry, options)


_Model = TypeVar("_Model", bound=BaseModel)


def validate(model: type[_Model], options: Any) -> _Model:
    """Check options; pydantic's report becomes one sentence on the first fault.

    Raises:
        HepfeedError: Of the fault; a SpecError where an option is missing or unknown.
    """
    try:
        return model.model_validate(options)
    except ValidationError as report:
        fault = first_fault(model, report)
    # Not inside the handler: pydantic's report would be the context of the error that it holds, and a circle through it
    # is never collected.
    raise fault


def first_fault(model: type[BaseModel], report: ValidationError) -> HepfeedError:
    """Return pydantic's report as one error on the first fault."""
    # A misspelt option is often also a missing one: the misspelling is what to tell.
    fault = min(report.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    option = str(fault["loc"][0]) if fault["loc"] else "?"
    cause = fault.get("ctx", {}).get("error")
    if isinstance(cause, HepfeedError):
        return cause
    if fault["type"] == "extra_forbidden":
        names = [field.alias or name for name, field in model.model_fields.items()]
        return SpecError(f"there is no option {option!r}; {nearest(option, names)}")
    if fault["type"] == "missing":
        return SpecError(f"the option {option!r} is missing: give it")
    return SpecError(f"option {option!r}: {fault['msg']}")
