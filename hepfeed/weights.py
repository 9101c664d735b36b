"""Weights of events, computed once over a selection, by the rules of :mod:`hepfeed.weight_rules`.

For the rules ``flat`` and ``to`` an event in bin b of a class, whose events have weights of sum ``n[b]``, gets the
factor::

    factor[b] = (sum of n) * t[b] / (sum of t over the bins with events of the class) / n[b]

with ``t`` the volume of the bins (flat in density, whatever their widths) or the sums of the reference class.  So the
sum of the weights of a class stays what it was.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hepfeed.errors import SpecError
from hepfeed.expression import Columns, Expression
from hepfeed.weight_rules import (
    Balance,
    Classes,
    ClassFactors,
    Flat,
    FromKey,
    Normalise,
    Reference,
    Rule,
    Shape,
    class_of,
    parse_rules,
)

__all__ = ["event_weights", "weight_keys"]

Floats = NDArray[np.float64]
_logger = logging.getLogger("hepfeed")


def weight_keys(rule: Rule) -> tuple[str, ...]:
    """Return the names of the columns that a rule reads, sorted, as in expressions: ``jets.pt`` is ``jets/pt``."""
    texts = {text for each in parse_rules(rule) for text in each.texts}
    return tuple(sorted({key for text in texts for key in Expression(text, "weight").keys}))


def event_weights(rule: Rule, columns: Columns, label: NDArray[np.int64], classes: Classes) -> NDArray[np.float32]:
    """Compute the weights of events.

    Events that get weight 0 because they lie outside the bins, or where the reference has no events, are counted in a
    warning of the logger ``hepfeed``.

    Args:
        rule: See :mod:`hepfeed.weight_rules`.
        columns: Name -> ``(N,)`` values, with all of :func:`weight_keys`.
        label: ``(N,) int64`` class indices.
        classes: Label -> class index.

    Returns:
        ``(N,) float32``; the arithmetic is in float64.

    Raises:
        SpecError: A rule is wrong or names a class that is not there, a value is NaN, negative weights outweigh the
            others in a bin, or a class shares no bin with the reference.
        KeyMissingError: A column is missing.
    """
    label = np.asarray(label)
    names = {index: f"class {name!r}" for name, index in classes.items()}
    weights = np.ones(len(label))
    for each in parse_rules(rule) if len(label) else ():
        selection = _Selection(weights, columns, label, classes, names)
        if isinstance(each, FromKey):
            weights = weights * selection.variable(each.key)
        elif isinstance(each, Shape):
            weights = weights * _shape_factors(each, selection)
        elif isinstance(each, ClassFactors):
            for name, factor in each.classes.items():
                weights[label == class_of(name, classes)] *= factor
        elif isinstance(each, Balance):
            weights = weights * _balance_factors(selection)
        elif isinstance(each, Normalise):
            weights = weights * _mean_factors(each, selection)
    with np.errstate(over="ignore"):
        made = weights.astype(np.float32)
    if not np.isfinite(made).all():
        raise SpecError(f"weights are not finite in float32 {_which(~np.isfinite(made))}: leave such events out")
    return made


@dataclass(frozen=True)
class _Selection:
    """Events with their weights so far."""

    weights: Floats
    columns: Columns
    label: NDArray[np.int64]
    classes: Classes
    names: dict[int, str]

    def variable(self, text: str) -> Floats:
        """Evaluate an expression, ``(N,)``."""
        values = Expression(text, "weight").value(self.columns)
        if values.dtype.kind == "U" or values.shape != self.label.shape:
            raise SpecError(
                f"the weight {text!r} must be a number for each of {len(self.label)} events, not {values.dtype}"
                f" {values.shape}"
            )
        values = values.astype(np.float64)
        if (nan := np.isnan(values)).any():
            raise SpecError(f"the weight {text!r} is NaN {_which(nan)}: leave such events out with a filter")
        return values

    def by_class(self) -> Iterator[tuple[NDArray[np.bool_], str]]:
        """Yield the events of each class, and what to call them."""
        for index in np.unique(self.label).tolist():
            yield self.label == index, self.names.get(index, f"class {index}")

    def all(self) -> Iterator[tuple[NDArray[np.bool_], str]]:
        """Yield all events as if they were one class."""
        yield np.ones(len(self.label), bool), "all classes"


# ---- shapes


def _shape_factors(rule: Shape, selection: _Selection) -> Floats:
    values = [selection.variable(text) for text in rule.texts]
    edges = [_edges(bins, bounds, column) for (bins, bounds), column in zip(rule.axes, values)]
    # The last bin includes its upper edge, as in numpy.histogram.
    places = [
        np.clip(np.searchsorted(each, column, "right") - 1, 0, len(each) - 2) for each, column in zip(edges, values)
    ]
    cell = np.ravel_multi_index(places, [len(each) - 1 for each in edges])
    inside = np.ones(len(cell), bool)
    if rule.outside == "zero":
        for each, column in zip(edges, values):
            inside &= (column >= each[0]) & (column <= each[-1])
    target = _volumes(edges)
    if isinstance(rule, Reference):
        chosen = inside & (selection.label == class_of(rule.to, selection.classes))
        target = _sums(cell[chosen], selection.weights[chosen], len(target), f"class {rule.to!r}")
        if not target.any():
            raise SpecError(f"the reference class {rule.to!r} of the weights has no events in the bins: widen them")
    factors = np.zeros(len(cell))
    for events, name in selection.all() if isinstance(rule, Flat) and rule.per == "all" else selection.by_class():
        chosen = events & inside
        sums = _sums(cell[chosen], selection.weights[chosen], len(target), name)
        reached = target * (sums > 0)
        if not reached.any() and sums.any():
            raise SpecError(
                f"{name} has no event in a bin where the reference has some, so that all its weights would be 0: choose"
                " wider bins"
            )
        scale = np.zeros_like(sums)
        np.divide(sums.sum() * reached, max(reached.sum(), 1e-300) * sums, out=scale, where=sums > 0)
        factors[chosen] = scale[cell[chosen]]
    _warn(rule, "outside the bins", ~inside)
    _warn(rule, "in bins where the reference class has no events", inside & (target[cell] == 0))
    return factors


def _edges(bins: int | list[float], bounds: list[float] | None, column: Floats) -> Floats:
    if isinstance(bins, list):
        return np.array(bins, np.float64)
    finite = column[np.isfinite(column)]
    low, high = bounds or ((finite.min(), finite.max()) if finite.size else (0.0, 1.0))
    if low == high:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, bins + 1)


def _volumes(edges: Sequence[Floats]) -> Floats:
    """Return the volumes of bins in C order."""
    volumes: Floats = np.ones(1)
    for each in edges:
        volumes = np.multiply.outer(volumes, np.diff(each)).reshape(-1)
    return volumes


def _sums(cell: NDArray[np.int64], weights: Floats, cells: int, name: str) -> Floats:
    sums: Floats = np.bincount(cell, weights, cells).astype(np.float64)
    if (sums < 0).any():
        raise SpecError(
            f"the weights of {name} have the negative sum {sums.min():.6g} in a bin, which no factor can make right:"
            " choose wider bins"
        )
    return sums


def _warn(rule: Shape, where: str, lost: NDArray[np.bool_]) -> None:
    if count := int(lost.sum()):
        variables = " and ".join(rule.texts)
        _logger.warning("weights: %d of %d events lie %s of %s and get weight 0", count, len(lost), where, variables)


# ---- classes


def _balance_factors(selection: _Selection) -> Floats:
    filled = [
        (events, total)
        for events, name in selection.by_class()
        if _positive(total := float(selection.weights[events].sum()), name)
    ]
    factors = np.ones(len(selection.label))
    for events, total in filled:
        factors[events] = sum(each for _, each in filled) / (len(filled) * total)
    return factors


def _mean_factors(rule: Normalise, selection: _Selection) -> Floats:
    factors = np.ones(len(selection.label))
    for events, name in selection.all() if rule.normalise == "all" else selection.by_class():
        if _positive(total := float(selection.weights[events].sum()), name):
            factors[events] = np.count_nonzero(events) / total
    return factors


def _positive(total: float, name: str) -> bool:
    """Whether there is anything to scale."""
    if total < 0:
        raise SpecError(f"the weights of {name} have the negative sum {total:.6g}, which no factor can make right")
    return total > 0


def _which(wrong: NDArray[np.bool_]) -> str:
    return f"for {int(wrong.sum())} of {len(wrong)} events, first for number {int(np.argmax(wrong))}"
