"""The step that makes a training target: from an expression over keys, from a key, through a map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import PlainValidator, field_validator, model_validator

from hepfeed.columns import Column, parse_key
from hepfeed.draws import Draws
from hepfeed.errors import ProcessError, SpecError
from hepfeed.expression import Expression, find_name
from hepfeed.tensors import Graph, Jagged, Padded, Sparse, Structured
from hepfeed.transforms.cast import cast_value, check_dtype
from hepfeed.transforms.lookup import at_event, check_made, describe, find, measured, owners
from hepfeed.transforms.step import Batch, Step

__all__ = ["Target"]

_TABLE = 1 << 16  # integers in a range of so many are mapped through a table, without sorting them


def _read_map(value: Any) -> dict[Any, Any] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping) or not value:
        raise SpecError(f"map must map values to numbers, e.g. {{11: 0, 211: 1}}, not {value!r}")
    plain = {_number(_plain(key)): _plain(number) for key, number in value.items()}
    if len(plain) < len(value):
        raise SpecError(f"map gives a value twice: {list(value)!r}")
    for key, number in plain.items():
        if type(key) not in (str, int, float, bool) or type(number) not in (int, float, bool):
            raise SpecError(f"map must map numbers or texts to numbers, not {key!r} to {number!r}")
    return plain


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _number(key: Any) -> Any:
    """Turn a key of JSON, which has texts only, into the number that it was."""
    for kind in (int, float) if isinstance(key, str) else ():
        try:
            number = kind(key)
        except ValueError:
            continue
        if str(number) == key:
            return number
    return key


class Target(Step):
    """Makes one target.

    ::

        {target: {name: signal, expression: "abs(pdgID) == 11"}}
        {target: {name: species, key: pdgID, map: {11: 0, 211: 1}, default: 2}}
        {target: {name: energy, expression: "target[0, 1]", dtype: float32}}

    An expression gives one value an event, ``(B,)``.  A key is taken as it is: dense of any shape, jagged, padded or
    sparse (of which features are mapped), so it can be the target of each voxel or point.  Conditions and booleans
    become int64, and mapped values int64 where all of the map are integers, otherwise float64.

    Attributes:
        name: Of the target in the batch.
        expression: In the language of :mod:`hepfeed.expression`, over keys of the batch.  NaN in a key that it does
            something with, and does not test with ``isnan`` or ``isfinite``, is an error.
        key: A key of the batch; ``"target[0, 1]"`` or ``"hits[2]"`` takes items of each event or row of a key.
        map: Value -> number, for each value of the expression or key.
        default: For values that the map lacks; None: they are an error.
        dtype: NumPy type of the target; a number that it can't hold is an error.

    Raises:
        SpecError: Options are wrong or do not go together.
        KeyMissingError: The batch has no such key.
        ProcessError: A value is not in the map, is NaN, or does not fit ``dtype``.
    """

    name: str
    expression: str | None = None
    key: str | None = None
    map: Annotated[dict[Any, Any] | None, PlainValidator(_read_map)] = None
    default: int | float | None = None
    dtype: str | None = None

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        return check_made(name, "name")

    @field_validator("dtype", mode="before")
    @classmethod
    def _check_dtype(cls, dtype: Any) -> str | None:
        return None if dtype is None else check_dtype(dtype)

    @model_validator(mode="after")
    def _check(self) -> Target:
        if (self.expression is None) == (self.key is None):
            raise SpecError(f"target {self.name!r} needs an expression or a key, and not both")
        if self.default is not None and self.map is None:
            raise SpecError(f"target {self.name!r} has a default, which needs a map")
        if self.key is not None:
            parse_key(self.key)
        _ = self._parsed  # a wrong expression is found here
        return self

    @property
    def _parsed(self) -> Expression | None:
        return None if self.expression is None else _parse(self.expression)

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys that it reads, as in expressions; of a key with items, the key as it is written."""
        return (self.key or "",) if self._parsed is None else tuple(sorted(self._parsed.keys))

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with the target."""
        value = self._of_key(batch) if self._parsed is None else self._of_expression(self._parsed, batch)
        if self.map is not None:
            value = self._mapped(value, batch)
        if self.dtype is not None:
            value = cast_value(value, np.dtype(self.dtype), batch, self.name)
        elif not isinstance(value, Graph) and measured(value).dtype.kind == "b":
            value = cast_value(value, np.dtype(np.int64), batch, self.name)
        return {**batch, self.name: value}

    def _of_expression(self, parsed: Expression, batch: Batch) -> NDArray[Any]:
        for key in parsed.keys:
            value = batch.get(find_name(key, batch) or "")
            if isinstance(value, Structured):
                raise SpecError(
                    f"target {self.name!r} needs one value an event, and key {key!r} is {describe(value)}: take it as"
                    f" {{'key': {key!r}}}",
                    key=key,
                )
        for key, nan in {} if parsed.is_key else parsed.nans(batch).items():
            raise at_event(
                ProcessError,
                f"target {self.name!r} is undefined where {key!r} is NaN (test it with isfinite in the expression)",
                batch,
                key,
                int(np.argmax(nan)),
            )
        return parsed.value(batch)

    def _of_key(self, batch: Batch) -> Any:
        key = self.key or ""
        path, _, items = parse_key(key)
        if key in batch or not items or path not in batch:
            return find(batch, key)
        value = batch[path]
        if isinstance(value, Graph):
            raise ProcessError(f"key {path!r} is a graph, which has no items to take", key=path)
        array = measured(value)
        rows = array.reshape(-1, *array.shape[2:]) if isinstance(value, Padded) else array
        made = Column(path, items=items).apply(rows)
        made = made.reshape(*array.shape[:2], *made.shape[1:]) if isinstance(value, Padded) else made
        return _with(value, made)

    def _mapped(self, value: Any, batch: Batch) -> Any:
        if isinstance(value, Graph):
            raise ProcessError(f"target {self.name!r} is a graph, which can't be mapped", key=self.key)
        array = measured(value)
        present = np.asarray(value.mask) if isinstance(value, Padded) else None
        made, known = self._look_up(array if present is None else array[present])
        if not known.all():
            wrong = np.argwhere(~known)[0]
            if present is None:
                shown, event = array[tuple(wrong)], int(owners(value, wrong[:1])[0])
            else:
                shown, event = array[present][tuple(wrong)], int(np.nonzero(present)[0][wrong[0]])
            raise at_event(
                ProcessError,
                f"the map of target {self.name!r} has no value for {_plain(shown)!r} (add it, or give a default)",
                batch,
                self.key or str(self.expression),
                event,
            )
        if present is not None:
            filled = np.zeros(array.shape, made.dtype)
            filled[present] = made
            made = filled
        return _with(value, made)

    def _look_up(self, array: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return mapped values, and which of them are."""
        if array.dtype.kind == "b":
            array = array.astype(np.uint8)
        low, high = (int(array.min()), int(array.max())) if array.dtype.kind in "iu" and array.size else (0, _TABLE)
        if high - low < _TABLE:
            values: list[Any] = list(range(low, high + 1))
            place = (array - array.dtype.type(low)) if array.dtype.kind == "u" else array.astype(np.int64) - low
        else:
            unique, place = np.unique(array, return_inverse=True)
            values = unique.tolist()
        numbers, default = self.map or {}, self.default
        if array.dtype.kind in "SUO":
            numbers = {str(key): number for key, number in numbers.items()}
            values = [value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in values]
        whole = all(isinstance(number, int) for number in [*numbers.values(), *([] if default is None else [default])])
        found = [numbers.get(value, default) for value in values]
        table = np.array([0 if number is None else number for number in found], np.int64 if whole else np.float64)
        known = np.array([number is not None for number in found], bool)
        place = place.reshape(array.shape)
        return table[place], known[place]


@lru_cache(256)
def _parse(text: str) -> Expression:
    """Parse an expression; what comes of it does not pickle, so it is no part of the step."""
    return Expression(text, "target")


def _with(value: Any, array: NDArray[Any]) -> Any:
    """Return the same kind of value with other numbers."""
    if isinstance(value, Jagged | Padded):
        return replace(value, values=array)
    return replace(value, features=array) if isinstance(value, Sparse) else array
