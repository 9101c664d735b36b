"""Filters of events: which to keep, as an expression of :mod:`hepfeed.expression` or as a function."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import xxhash
from numpy.typing import NDArray

from hepfeed.code import code_of
from hepfeed.errors import FilterError, HepfeedError, ProcessError
from hepfeed.expression import Columns, Expression, look_up, spell

__all__ = ["Filter"]

_FilterFunction: TypeAlias = Callable[[dict[str, NDArray[Any]]], NDArray[np.bool_]]


@dataclass(frozen=True)
class _Function:
    """A user function and the keys that it reads."""

    call: _FilterFunction
    keys: frozenset[str]

    @property
    def name(self) -> str:
        return getattr(self.call, "__qualname__", repr(self.call))

    def __call__(self, columns: Columns) -> NDArray[np.bool_]:
        given = {key: look_up(key, columns) for key in sorted(self.keys)}
        count = len(next(iter(given.values())))
        try:
            mask = self.call(given)
        except Exception as error:
            raise ProcessError(f"the filter function {self.name} raised {type(error).__name__}: {error}") from error
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (count,):
            came = f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
            raise FilterError(f"the filter function {self.name} must return a bool array of ({count},), not {came}")
        return mask


class Filter:
    """Which events to keep, as an expression or as a function; immutable and picklable.

    A filter made from a function pickles where the function does (with ``cloudpickle`` also a lambda).

    Attributes:
        expression: The expression as written, or None when a function is part of the filter.
        keys: Names of the data sets that it reads.
    """

    expression: str | None
    keys: frozenset[str]

    def __init__(self, condition: str | _FilterFunction, *, keys: Iterable[str] | None = None) -> None:
        """Make a filter.

        Args:
            condition: An expression, see :mod:`hepfeed.expression`; or a function that takes the columns
                ``{key: (N, ...)}`` as stored and returns a bool mask ``(N,)``.
            keys: The data sets that the function reads; an expression names its own.

        Raises:
            FilterError: The expression is not in the language, or ``keys`` does not go with ``condition``.
        """
        if isinstance(condition, str):
            if keys is not None:
                raise FilterError(f"filter {condition!r} names its keys itself: give keys= with a function only")
            self._set(Expression(condition), ())
            return
        if not callable(condition):
            raise FilterError(f"a filter is an expression (str) or a function, not {condition!r}")
        names = [keys] if isinstance(keys, str) else list(keys or ())
        if not names or not all(isinstance(name, str) and name.strip("/") for name in names):
            raise FilterError(
                "a filter function needs the names of the keys that it reads, e.g. Filter(f, keys=['Energy'])"
            )
        self._set(None, (_Function(condition, frozenset(name.strip("/") for name in names)),))

    def _set(self, expression: Expression | None, functions: tuple[_Function, ...]) -> None:
        self._expression = expression
        self._functions = functions
        self.expression = expression.text if expression and not functions else None
        self.keys = frozenset().union(*(term.keys for term in self._terms))

    @property
    def _terms(self) -> tuple[Expression | _Function, ...]:
        return (self._expression, *self._functions) if self._expression else self._functions

    @classmethod
    def all_of(cls, filters: Iterable[Filter]) -> Filter:
        """Combine filters: an event is kept when every one keeps it.

        Expressions are joined with ``and``: a key that one of them tests with ``isfinite`` may be NaN in all.

        Raises:
            FilterError: There are no filters.
        """
        parts = list(filters)
        if not parts:
            raise FilterError("Filter.all_of needs one filter or more, and none came")
        if len(parts) == 1:
            return parts[0]
        texts = [f"({part._expression.canonical})" for part in parts if part._expression]
        functions = tuple(function for part in parts for function in part._functions)
        return _rebuild(" and ".join(texts) or None, functions)

    def __and__(self, other: Filter) -> Filter:
        return Filter.all_of([self, other]) if isinstance(other, Filter) else NotImplemented

    def evaluate(self, columns: Columns, *, file: str | None = None, first_row: int = 0) -> NDArray[np.bool_]:
        """Return which events to keep.

        Args:
            columns: ``{key: (N, ...)}`` with all of ``keys``; others are ignored.
            file: Where the columns come from, for errors.
            first_row: Row of ``file`` that ``columns`` start from, for errors.

        Returns:
            ``(N,) bool``, True for an event to keep.

        Raises:
            FilterError: A key that the expression uses is NaN and not tested with ``isnan`` or ``isfinite``,
                does not give one value an event, or can't be compared; or a function returned no mask.
            KeyMissingError: ``columns`` lacks a key.
            ProcessError: A function raised.
        """
        try:
            keep = np.ones(self._count(columns), dtype=np.bool_)
            for key, nan in self._nans(columns).items():
                event = first_row + int(np.argmax(nan))
                raise FilterError(
                    f"the filter can't decide on event {event}, where {key!r} is NaN (as in "
                    f"{np.count_nonzero(nan)} of {len(nan)} events): test it with isfinite({spell(key)}) "
                    "in the filter, or set on_error='skip'",
                    key=key,
                    event=event,
                )
            for term in self._terms:
                keep &= term(columns)
            return keep
        except HepfeedError as error:
            error.file = file
            raise

    def nan_rows(self, columns: Columns) -> NDArray[np.bool_]:
        """Return the events on which :meth:`evaluate` can't decide for a NaN, ``(N,) bool``.

        A caller that skips them evaluates the others.  What a function does with NaN is its own affair.

        Raises:
            FilterError: As :meth:`evaluate`.
            KeyMissingError: As :meth:`evaluate`.
        """
        rows = np.zeros(self._count(columns), dtype=np.bool_)
        for nan in self._nans(columns).values():
            rows |= nan
        return rows

    def _nans(self, columns: Columns) -> dict[str, NDArray[np.bool_]]:
        return self._expression.nans(columns) if self._expression else {}

    def _count(self, columns: Columns) -> int:
        lengths = {key: len(look_up(key, columns)) for key in sorted(self.keys)}
        if len(set(lengths.values())) > 1:
            raise FilterError(f"the keys of a filter must have the same number of events, not {lengths}")
        return next(iter(lengths.values()))

    def fingerprint(self) -> str:
        """Return 32 hexadecimal digits that change with the expression, or with the code of the functions."""
        digest = xxhash.xxh3_128((self._expression.canonical if self._expression else "").encode())
        for function in self._functions:
            digest.update(repr(sorted(function.keys)).encode())
            digest.update(code_of(function.call))
        return digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Filter):
            return NotImplemented
        if (self.keys, len(self._functions)) != (other.keys, len(other._functions)):
            return False
        return self._identity == other._identity or self.fingerprint() == other.fingerprint()

    def __hash__(self) -> int:
        return hash(self.keys)

    @property
    def _identity(self) -> tuple[str | None, tuple[_Function, ...]]:
        return self._expression.canonical if self._expression else None, self._functions

    def __repr__(self) -> str:
        parts = [f"Filter({self._expression.text!r})"] if self._expression else []
        parts += [f"Filter({function.name}, keys={sorted(function.keys)})" for function in self._functions]
        return " & ".join(parts)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self._expression.text if self._expression else None, self._functions)


def _rebuild(text: str | None, functions: tuple[_Function, ...]) -> Filter:
    rebuilt = Filter.__new__(Filter)
    rebuilt._set(Expression(text) if text else None, functions)
    return rebuilt
