"""Expressions over events, such as ``"Energy > 0.61 and abs(eta) < 2.5"``, evaluated over NumPy columns.

Filters, targets and weights are written in this language.

The language is a white list of Python's expression grammar.  The text is parsed into a syntax tree, the tree
is checked and turned into nested terms once, and the terms are evaluated over whole columns; no text is run.

===================  =============================================================================
what                 how
===================  =============================================================================
keys                 ``Energy``, ``Event.energy`` (the data set ``Event/energy``, or the key ``Event.energy``),
                     ``key("any/path")``
part of an event     ``target[0, 1]`` is ``target[:, 0, 1]`` of the data set
conditions           ``== != < <= > >=`` (chained too), ``in [11, -11]``, ``not in``, ``and or not``
arithmetic           ``+ - * / // % **``, constants: numbers, strings, True, False
functions            ``abs sqrt log log10 exp sin cos tan arctan2 hypot min max floor ceil``
                     ``isfinite isnan where``
===================  =============================================================================

Arithmetic is NumPy's: on float32 or float64 as stored (float16 is widened to float32), on int64 for integers,
and on floats for ``/`` and ``**``.  A value that becomes NaN on the way, such as ``log(-1)``, fails every
comparison but ``!=``.
"""

from __future__ import annotations

import ast
import functools
import keyword
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from hepfeed.errors import FilterError, KeyMissingError, SpecError, nearest

__all__ = ["Columns", "Expression", "find_name", "look_up", "spell"]

_LENGTH_LIMIT = 10_000  # characters; keeps Python's own parser inside its stack
_DEPTH_LIMIT = 100  # nested terms; each takes a few of Python's 1,000 frames

Columns: TypeAlias = Mapping[str, NDArray[Any]]
"""Data set -> values, events on the first axis."""
_Scalar: TypeAlias = bool | int | float | str
_Value: TypeAlias = _Scalar | NDArray[Any]
_Term: TypeAlias = Callable[[Columns], _Value]


def _power(base: Any, exponent: Any) -> Any:
    """Raise in floating point: integers would wrap in NumPy and grow without bound in Python."""
    if isinstance(base, np.ndarray):
        return (base.astype(np.float64) if base.dtype.kind == "i" else base) ** exponent
    return float(base) ** exponent


_ARITHMETIC: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
}
_EQUALITY: dict[type[ast.AST], Callable[[Any, Any], Any]] = {ast.Eq: operator.eq, ast.NotEq: operator.ne}
_ORDER: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_FUNCTIONS: dict[str, tuple[Callable[..., Any], int]] = {
    "abs": (np.abs, 1),
    "sqrt": (np.sqrt, 1),
    "log": (np.log, 1),
    "log10": (np.log10, 1),
    "exp": (np.exp, 1),
    "sin": (np.sin, 1),
    "cos": (np.cos, 1),
    "tan": (np.tan, 1),
    "floor": (np.floor, 1),
    "ceil": (np.ceil, 1),
    "isfinite": (np.isfinite, 1),
    "isnan": (np.isnan, 1),
    "arctan2": (np.arctan2, 2),
    "hypot": (np.hypot, 2),
    "min": (np.minimum, 2),
    "max": (np.maximum, 2),
    "where": (np.where, 3),
}
_VARIADIC = {"min", "max"}
_NAN_TESTS = {"isfinite", "isnan"}
_ALLOWED = (
    "allowed are keys, key('path'), subscripts by integers, numbers, strings, comparisons, 'in' a list, "
    "and/or/not, + - * / // % ** and the functions " + ", ".join(_FUNCTIONS)
)


def _is_text(value: _Value) -> bool:
    return value.dtype.kind == "U" if isinstance(value, np.ndarray) else isinstance(value, str)


def _is_condition(value: _Value) -> bool:
    return value.dtype.kind == "b" if isinstance(value, np.ndarray) else isinstance(value, bool)


@dataclass(frozen=True)
class _Constant:
    """A term that reads no column."""

    value: _Scalar

    def __call__(self, columns: Columns) -> _Value:
        return self.value


@dataclass(frozen=True)
class _Column:
    """A term that reads one value of each event: data set ``key``, entry ``index`` of the event."""

    key: str
    index: tuple[int, ...]
    noun: str

    def __call__(self, columns: Columns) -> NDArray[Any]:
        """Return the values, ``(N,)``, as bool, int64, float32, float64 or text."""
        column = look_up(self.key, columns, self.noun)
        entry: tuple[Any, ...] = (slice(None), *self.index)
        try:
            values = column[entry]
        except IndexError:
            raise _fault(self.noun)(
                f"the {self.noun} takes entry {list(self.index)} of each event of {self.key!r}, "
                f"which has the shape {column.shape} (events first): choose a subscript inside it",
                key=self.key,
            ) from None
        if math.prod(values.shape[1:]) != 1:
            zeros = ", ".join("0" * (column.ndim - 1))
            raise _fault(self.noun)(
                f"the {self.noun} needs one value an event, but {self.key!r} gives the shape {values.shape}: "
                f"select one with a subscript such as {spell(self.key)}[{zeros}]",
                key=self.key,
            )
        return _widen(values.reshape(len(values)), self.key, self.noun)


def spell(key: str) -> str:
    """Write the data set ``key`` as the filter language does."""
    names = key.split("/")
    plain = all(name.isidentifier() and not keyword.iskeyword(name) for name in names)
    return ".".join(names) if plain else f"key({key!r})"


def find_name(key: str, names: Iterable[str]) -> str | None:
    """Return the one of ``names`` that ``key`` of an expression means, where ``jets/pt`` may be named ``jets.pt``."""
    pool = list(names)
    return key if key in pool else next((name for name in pool if name.replace(".", "/") == key), None)


def look_up(key: str, columns: Columns, noun: str = "filter") -> NDArray[Any]:
    """Return the column ``key``, ``(N, ...)`` with its events on the first axis.

    Args:
        key: As in an expression.
        columns: See :data:`Columns`.
        noun: What needs it, for errors.

    Raises:
        KeyMissingError: There is no such column.
        FilterError: It is a scalar; a SpecError where it is no filter that needs it.
    """
    name = find_name(key, columns)
    if name is None:
        raise KeyMissingError(f"the {noun} needs the key {key!r}; {nearest(key, columns)}", key=key)
    column = np.asarray(columns[name])
    if column.ndim == 0:
        raise _fault(noun)(f"the {noun} needs events on the first axis of {key!r}, which is a scalar", key=key)
    return column


def _fault(noun: str) -> type[SpecError]:
    return FilterError if noun == "filter" else SpecError


def _widen(values: NDArray[Any], key: str, noun: str) -> NDArray[Any]:
    """Convert ``(N,)`` values to one of few types, so that small integers and float16 do not overflow."""
    kind = values.dtype.kind
    if kind in "bU" or (kind == "f" and values.dtype.itemsize >= 4):
        return values
    if kind == "f":
        return values.astype(np.float32)
    if kind in "iu":
        fits = kind == "i" or values.dtype.itemsize < 8 or not np.any(values > np.iinfo(np.int64).max)
        return values.astype(np.int64 if fits else np.float64)
    if kind == "S":
        return np.char.decode(values, "utf-8", "replace").astype(str)  # of no values NumPy 1 makes floats
    if kind in "OT" and all(isinstance(value, (str, bytes)) for value in values):
        return np.array([v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in values], dtype=str)
    raise _fault(noun)(
        f"the {noun} can use booleans, integers, floats and strings, but {key!r} has the type {values.dtype}",
        key=key,
    )


class _Builder(ast.NodeVisitor):
    """Check a syntax tree against the white list and turn it into a term.

    Attributes:
        columns: Every column that the expression reads.
        nan_tested: Keys that stand inside ``isfinite`` or ``isnan``.
    """

    def __init__(self, text: str, noun: str) -> None:
        self.text = text
        self.noun = noun
        self.columns: list[_Column] = []
        self.nan_tested: set[str] = set()
        self._depth = 0

    def error(self, node: ast.AST, what: str) -> SpecError:
        place = f"column {getattr(node, 'col_offset', 0) + 1}"
        if "\n" in self.text:
            place = f"line {getattr(node, 'lineno', 1)}, {place}"
        return _fault(self.noun)(f"{self.noun} {self.text!r}, {place}: {what}")

    def visit(self, node: ast.AST) -> _Term:
        """Build the term of ``node``; one that reads no column is evaluated at once."""
        if self._depth == _DEPTH_LIMIT:
            raise self.error(node, f"the expression is nested more than {_DEPTH_LIMIT} deep: simplify it")
        self._depth += 1
        known = len(self.columns)
        term = cast(_Term, super().visit(node))
        self._depth -= 1
        return term if len(self.columns) > known else self._constant(node, term)

    def generic_visit(self, node: ast.AST) -> _Term:
        raise self._unknown(node, node)

    def _unknown(self, place: ast.AST, construct: ast.AST) -> SpecError:
        bitwise = isinstance(construct, (ast.BitAnd, ast.BitOr, ast.Invert))
        hint = " (for conditions write and, or, not)" if bitwise else ""
        name = type(construct).__name__
        return self.error(place, f"{name} is not part of the {self.noun} language{hint}; {_ALLOWED}")

    def _constant(self, node: ast.AST, term: _Term) -> _Constant:
        try:
            with np.errstate(all="ignore"):
                value: Any = term({})
        except ArithmeticError as error:
            raise self.error(node, f"the constant can't be computed: {error}") from None
        if isinstance(value, (np.ndarray, np.generic)):
            value = value.item()
        if type(value) not in (bool, int, float, str):
            raise self.error(node, f"a constant must be a number, a string, True or False, not {value!r}")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise self.error(node, "an integer constant must fit 64 bits: write it as a float, e.g. 1e20")
        return _Constant(value)

    # ---- values: what a term must be where it stands

    def _number(self, node: ast.AST, value: _Value) -> _Value:
        if _is_text(value):
            raise self.error(node, "a number was expected and a string came")
        if _is_condition(value):
            return value.astype(np.int64) if isinstance(value, np.ndarray) else int(value)
        return value

    def condition(self, node: ast.AST, value: _Value) -> Any:
        if not _is_condition(value):
            raise self.error(
                node, "a condition (true or false) was expected and a value came: compare it, e.g. '... != 0'"
            )
        return value

    def _equal(self, node: ast.AST, operation: Callable[[Any, Any], Any], left: _Value, right: _Value) -> _Value:
        if _is_text(left) != _is_text(right):
            raise self.error(node, "a string can only be compared with a string, and a number with a number")
        return cast(_Value, operation(left, right))

    # ---- columns

    def _path(self, node: ast.AST) -> str | None:
        """Return the data set that ``Name``, ``Group.name`` or ``key("path")`` means, None for others."""
        if isinstance(node, ast.Name):
            return node.id
        if isinstance(node, ast.Attribute):
            group = self._path(node.value)
            return None if group is None else f"{group}/{node.attr}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "key":
            match node.args, node.keywords:
                case [ast.Constant(value=str(path))], [] if path.strip("/"):
                    return path.strip("/")
            raise self.error(node, "key(...) takes the path of a data set as one string, e.g. key('Event/energy')")
        return None

    def _column(self, node: ast.AST, path: str | None, index: tuple[int, ...] = ()) -> _Term:
        if path is None:
            raise self.error(node, "only a key can stand before '.' and '[...]', e.g. Event.energy or target[0, 1]")
        self.columns.append(_Column(path, index, self.noun))
        return self.columns[-1]

    def visit_Name(self, node: ast.Name) -> _Term:
        return self._column(node, self._path(node))

    def visit_Attribute(self, node: ast.Attribute) -> _Term:
        return self._column(node, self._path(node))

    def visit_Subscript(self, node: ast.Subscript) -> _Term:
        index = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        entries: list[int] = []
        for entry in index:
            match entry:
                case ast.Constant(value=int(at)) if type(at) is int:
                    entries.append(at)
                case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int(at))) if type(at) is int:
                    entries.append(-at)
                case _:
                    raise self.error(entry, "a subscript must be integer constants, e.g. target[0, 1]")
        return self._column(node, self._path(node.value), tuple(entries))

    # ---- everything else

    def visit_Constant(self, node: ast.Constant) -> _Term:
        return _Constant(cast(_Scalar, node.value))

    def visit_BinOp(self, node: ast.BinOp) -> _Term:
        operation = _ARITHMETIC.get(type(node.op))
        if operation is None:
            raise self._unknown(node, node.op)
        left, right = self.visit(node.left), self.visit(node.right)
        return lambda columns: operation(
            self._number(node.left, left(columns)), self._number(node.right, right(columns))
        )

    def visit_UnaryOp(self, node: ast.UnaryOp) -> _Term:
        operand = self.visit(node.operand)
        match node.op:
            case ast.Not():
                return lambda columns: np.logical_not(self.condition(node.operand, operand(columns)))
            case ast.USub():
                return lambda columns: cast(_Value, operator.neg(cast(Any, self._number(node, operand(columns)))))
            case ast.UAdd():
                return lambda columns: self._number(node, operand(columns))
        raise self._unknown(node, node.op)

    def visit_BoolOp(self, node: ast.BoolOp) -> _Term:
        combine = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
        terms = [(value, self.visit(value)) for value in node.values]
        return lambda columns: functools.reduce(
            combine, [self.condition(value, term(columns)) for value, term in terms]
        )

    def visit_Compare(self, node: ast.Compare) -> _Term:
        links: list[_Term] = []
        left_node, left = node.left, self.visit(node.left)
        for comparison, right_node in zip(node.ops, node.comparators, strict=True):
            if isinstance(comparison, (ast.In, ast.NotIn)):
                links.append(self._membership(left_node, left, comparison, right_node))
                if right_node is not node.comparators[-1]:
                    raise self.error(right_node, "a list can only end a chain of comparisons")
                continue
            right = self.visit(right_node)
            links.append(self._comparison(left_node, left, comparison, right_node, right))
            left_node, left = right_node, right
        return lambda columns: functools.reduce(np.logical_and, [link(columns) for link in links])

    def _comparison(
        self, left_node: ast.expr, left: _Term, comparison: ast.cmpop, right_node: ast.expr, right: _Term
    ) -> _Term:
        equality, order = _EQUALITY.get(type(comparison)), _ORDER.get(type(comparison))
        if equality:
            return lambda columns: self._equal(right_node, equality, left(columns), right(columns))
        if order:
            return lambda columns: cast(
                _Value,
                order(self._number(left_node, left(columns)), self._number(right_node, right(columns))),
            )
        raise self._unknown(left_node, comparison)

    def _membership(self, left_node: ast.expr, left: _Term, comparison: ast.cmpop, right: ast.expr) -> _Term:
        terms = [self.visit(e) for e in right.elts] if isinstance(right, (ast.List, ast.Tuple)) else []
        choices = [term.value for term in terms if isinstance(term, _Constant)]
        if not choices or len(choices) < len(terms):
            raise self.error(right, "'in' takes a list of constants, e.g. pdg in [11, -11]")

        def found(columns: Columns) -> _Value:
            value = left(columns)
            equal = [self._equal(left_node, operator.eq, value, choice) for choice in choices]
            return functools.reduce(np.logical_or, equal)

        if isinstance(comparison, ast.In):
            return found
        return lambda columns: np.logical_not(found(columns))

    def visit_Call(self, node: ast.Call) -> _Term:
        if (path := self._path(node)) is not None:
            return self._column(node, path)
        name = node.func.id if isinstance(node.func, ast.Name) else ast.unparse(node.func)
        if name not in _FUNCTIONS:
            raise self.error(node, f"there is no function {name!r}; {_ALLOWED}")
        function, count = _FUNCTIONS[name]
        if node.keywords or len(node.args) < count or (len(node.args) > count and name not in _VARIADIC):
            more = " or more" if name in _VARIADIC else ""
            raise self.error(node, f"{name} takes {count}{more} values by position, and {len(node.args)} came")
        known = len(self.columns)
        arguments = [(argument, self.visit(argument)) for argument in node.args]
        if name in _NAN_TESTS:
            self.nan_tested.update(column.key for column in self.columns[known:])
        if name == "where":
            (test_node, test), *arguments = arguments
            return lambda columns: function(
                self.condition(test_node, test(columns)), *(self._number(n, t(columns)) for n, t in arguments)
            )
        if name in _VARIADIC:
            return lambda columns: functools.reduce(function, [self._number(n, t(columns)) for n, t in arguments])
        return lambda columns: function(*(self._number(n, t(columns)) for n, t in arguments))


class Expression:
    """A parsed expression on events.

    Args:
        text: In the language of this module.
        noun: What it is, for errors.

    Attributes:
        text: As written.
        canonical: As Python would write it: equal for expressions that differ in blanks and brackets only.
        keys: Data sets that it reads.

    Raises:
        FilterError: The text is not in the language, too long or nested too deep, or names no key; a SpecError
            where ``noun`` is not ``"filter"``.
    """

    def __init__(self, text: str, noun: str = "filter") -> None:
        self.text = text.strip()
        self.noun = noun
        fault = _fault(noun)
        if len(self.text) > _LENGTH_LIMIT:
            raise fault(f"a {noun} can have {_LENGTH_LIMIT:,} characters, and {len(self.text):,} came")
        self._builder = _Builder(self.text, noun)
        try:
            self._tree = ast.parse(self.text, mode="eval").body
            self._term = self._builder.visit(self._tree)
            self.canonical = ast.unparse(self._tree)
        except SpecError:
            raise
        except SyntaxError as error:
            raise fault(f"{noun} {self.text!r}, column {error.offset or 1}: {error.msg}; {_ALLOWED}") from None
        except (MemoryError, RecursionError):
            raise fault(f"{noun} {self.text[:60]!r}... is nested too deep: simplify it") from None
        except ValueError as error:  # a null character
            raise fault(f"{noun} {self.text!r} can't be parsed: {error}") from None
        if not self._builder.columns:
            raise fault(f"{noun} {self.text!r} names no key, so it is the same for every event: remove it")
        self.keys = frozenset(column.key for column in self._builder.columns)

    @property
    def is_key(self) -> bool:
        """Whether it is one key, or one entry of it, and nothing is done with that."""
        return isinstance(self._term, _Column)

    def __call__(self, columns: Columns) -> NDArray[np.bool_]:
        """Return on which events the condition holds, ``(N,) bool``.

        Raises:
            FilterError: A column has no single value an event, or a value is of the wrong kind.
            KeyMissingError: A column is missing.
        """
        with np.errstate(all="ignore"):
            return cast(NDArray[np.bool_], self._builder.condition(self._tree, self._term(columns)))

    def value(self, columns: Columns) -> NDArray[Any]:
        """Return the value of each event, ``(N,)``: bool, int64, float32, float64 or text.

        Raises:
            SpecError: A column has no single value an event, or a value is of the wrong kind.
            KeyMissingError: A column is missing.
        """
        with np.errstate(all="ignore"):
            return np.asarray(self._term(columns))

    def nans(self, columns: Columns) -> dict[str, NDArray[np.bool_]]:
        """Return, for each key with a NaN that the expression does not test for, where it is: ``(N,)``."""
        found: dict[str, NDArray[np.bool_]] = {}
        for column in self._builder.columns:
            if column.key in self._builder.nan_tested:
                continue
            values = column(columns)
            if values.dtype.kind == "f" and (nan := np.isnan(values)).any():
                found[column.key] = found.get(column.key, False) | nan
        return found
