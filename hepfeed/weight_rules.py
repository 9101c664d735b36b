"""Rules for the weights of events, as a specification has them.

A rule is one of these, or a list of them, each seeing the product of those before it:

==============================================  ===============================================================
rule                                            factor of an event
==============================================  ===============================================================
``"mc_weight"``, ``"abs(w) / 2"``               the key or expression (:mod:`hepfeed.expression`)
``{"flat": ["jets.pt", "jets.eta"]}``           makes each class flat in one or two variables; with ``per: all``
                                                all classes together
``{"to": "b", "variables": ["jets.pt"]}``       gives each class the distribution that class ``b`` has
``{"classes": "balanced"}``                     gives all classes the same sum
``{"classes": {"electron": 2.0}}``              of its class; 1 for classes that are not named
``{"normalise": "all"}``, ``"class"``           makes the mean weight 1, of all events or of each class
==============================================  ===============================================================

``flat`` and ``to`` take ``bins`` (a number or edges), ``range`` (lowest and highest edge; by default those of the
data) and ``outside`` (``"zero"``, or ``"edge"`` for the weight of the nearest bin).  For two variables ``bins`` and
``range`` may be lists of one for each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, PlainValidator, model_validator

from hepfeed.errors import SpecError, nearest
from hepfeed.expression import Expression
from hepfeed.spec_options import Label, validate

__all__ = [
    "Balance",
    "ClassFactors",
    "Classes",
    "Flat",
    "FromKey",
    "Normalise",
    "Reference",
    "Rule",
    "Shape",
    "class_of",
    "parse_rules",
    "read_rule",
]

Rule: TypeAlias = str | dict[str, Any] | list[str | dict[str, Any]]
"""A rule as YAML and JSON have it; see the table of this module."""

Classes: TypeAlias = Mapping[Label, int]
"""Label -> class index."""


def _listed(value: Any) -> Any:
    """Turn tuples and NumPy's arrays and numbers into lists and numbers."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return [_listed(part) for part in value] if isinstance(value, list | tuple) else value


def _read_variables(value: Any) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not 1 <= len(texts) <= 2 or not all(isinstance(t, str) for t in texts):
        raise SpecError(f"weights take one or two variables, e.g. ['jets.pt', 'jets.eta'], not {value!r}")
    for text in texts:
        Expression(text, "weight")
    return tuple(texts)


def _are_edges(value: Any) -> bool:
    if not isinstance(value, list) or len(value) < 2:
        return False
    numbers = all(type(edge) in (int, float) and math.isfinite(edge) for edge in value)
    return numbers and all(low < high for low, high in pairwise(value))


Listed = Annotated[Any, PlainValidator(_listed)]
Variables = Annotated[tuple[str, ...], PlainValidator(_read_variables)]


class _Rule(BaseModel):
    """One factor of the weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @property
    def texts(self) -> tuple[str, ...]:
        """Expressions that it reads."""
        return ()

    @property
    def labels(self) -> tuple[Label, ...]:
        """Classes that it names."""
        return ()


class FromKey(_Rule):
    """``"mc_weight"``: the value of a key or expression."""

    key: str

    @property
    def texts(self) -> tuple[str, ...]:
        """Expressions that it reads."""
        return (self.key,)


class Shape(_Rule):
    """A factor that depends on the bin of one or two variables.

    Attributes:
        bins: Number of bins or their edges, for all variables or for each.
        range: Lowest and highest edge, for all variables or for each; None: of the data.
        outside: What an event outside the bins gets: weight 0, or that of the nearest bin.
    """

    bins: Listed = 50
    range: Listed = None
    outside: Literal["zero", "edge"] = "zero"

    @model_validator(mode="after")
    def _check(self) -> Shape:
        bins = [bins for bins, _ in self.axes]
        if len(bins) != len(self.texts) or not all(_are_edges(b) or (type(b) is int and b > 0) for b in bins):
            raise SpecError(
                "bins must be a number above 0 or ascending edges, for two variables perhaps one of these for each, not"
                f" {self.bins!r}"
            )
        ranges = [bounds for _, bounds in self.axes]
        if not all(bounds is None or (_are_edges(bounds) and len(bounds) == 2) for bounds in ranges):
            raise SpecError(
                f"range must be [lowest, highest], for two variables one of these for each, not {self.range!r}"
            )
        if any(isinstance(b, list) and bounds is not None for b, bounds in self.axes):
            raise SpecError("the bins are given by their edges: leave range out")
        return self

    @property
    def axes(self) -> list[tuple[Any, Any]]:
        """Bins and range of each variable."""
        count = len(self.texts)
        one_each = [
            given if isinstance(given, list) and count == 2 else [given] * count for given in (self.bins, self.range)
        ]
        return list(zip(*one_each)) if len({len(each) for each in one_each}) == 1 else []


class Flat(Shape):
    """``{"flat": ["jets.pt", "jets.eta"], "per": "class"}``: each class, or all together, become flat."""

    flat: Variables
    per: Literal["class", "all"] = "class"

    @property
    def texts(self) -> tuple[str, ...]:
        """Expressions that it reads."""
        return self.flat


class Reference(Shape):
    """``{"to": "b", "variables": ["jets.pt", "jets.eta"]}``: each class gets the shape of one of them."""

    to: Label
    variables: Variables

    @property
    def texts(self) -> tuple[str, ...]:
        """Expressions that it reads."""
        return self.variables

    @property
    def labels(self) -> tuple[Label, ...]:
        """Classes that it names."""
        return (self.to,)


class Balance(_Rule):
    """``{"classes": "balanced"}``: all classes get the same sum."""

    classes: Literal["balanced"]


class ClassFactors(_Rule):
    """``{"classes": {"electron": 2.0}}``: a factor for each class."""

    classes: dict[Label, float]

    @model_validator(mode="after")
    def _check(self) -> ClassFactors:
        for label, factor in self.classes.items():
            if not 0 <= factor < math.inf:
                raise SpecError(f"the weight of class {label!r} must be finite and not negative, not {factor!r}")
        return self

    @property
    def labels(self) -> tuple[Label, ...]:
        """Classes that it names."""
        return tuple(self.classes)


class Normalise(_Rule):
    """``{"normalise": "all"}`` or ``{"normalise": "class"}``: the mean weight becomes 1."""

    normalise: Literal["all", "class"]


_KINDS: dict[str, type[_Rule]] = {"flat": Flat, "to": Reference, "classes": ClassFactors, "normalise": Normalise}


def parse_rules(rule: Any) -> list[_Rule]:
    """Return the factors that a rule stands for.

    Raises:
        SpecError: An option is wrong or unknown, or an expression is none.
    """
    several = rule if isinstance(rule, list | tuple) else [rule]
    if not several:
        raise SpecError("weights need one rule or more, and the list is empty")
    return [_parse(each) for each in several]


def _parse(rule: Any) -> _Rule:
    if isinstance(rule, str):
        Expression(rule, "weight")
        return FromKey(key=rule)
    if not isinstance(rule, Mapping):
        raise SpecError(f"weights are a key, an expression, a mapping such as {{'flat': 'pt'}} or a list, not {rule!r}")
    kinds = [kind for name, kind in _KINDS.items() if name in rule]
    if len(kinds) != 1:
        wrong = next((str(name) for name in rule), "")
        hint = "" if kinds else f"; {nearest(wrong, _KINDS)}"
        raise SpecError(f"a rule of the weights has one of {', '.join(map(repr, _KINDS))}, not {dict(rule)!r}{hint}")
    kind = Balance if isinstance(rule.get("classes"), str) else kinds[0]
    return validate(kind, dict(rule))


def read_rule(rule: Any, classes: Classes) -> Rule:
    """Check a rule and return it as YAML and JSON have it, without options that say what is the default.

    Args:
        rule: See the table of this module.
        classes: Which labels there are.

    Raises:
        SpecError: An option is wrong or unknown, an expression is none, or there is no such class.
    """
    rules = parse_rules(rule)
    for each in rules:
        for label in each.labels:
            class_of(label, classes)
    written = [_written(each) for each in rules]
    return written if isinstance(rule, list | tuple) else written[0]


def _written(rule: _Rule) -> str | dict[str, Any]:
    if isinstance(rule, FromKey):
        return rule.key
    options = rule.model_dump(exclude_defaults=True)
    # What a rule is comes before its options.
    written = {name: _listed(options[name]) for name in sorted(options, key=lambda name: name not in _KINDS)}
    for name in ("flat", "variables"):
        if len(written.get(name, ())) == 1:
            (written[name],) = written[name]
    return written


def class_of(label: Label, classes: Classes) -> int:
    """Return the index of a class that a rule names; JSON has no int keys, so that ``"11"`` is the class 11 too.

    Raises:
        SpecError: There is no such class.
    """
    for name, index in classes.items():
        if name == label or str(name) == label:
            return index
    raise SpecError(f"weights name the class {label!r}, which is not there: {nearest(str(label), map(str, classes))}")
