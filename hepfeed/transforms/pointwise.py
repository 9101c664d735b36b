"""What steps share that map every number of a key by a function, and how several of them become one."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, SerializeAsAny, field_validator

from hepfeed.draws import Draws
from hepfeed.errors import HepfeedError, SpecError
from hepfeed.programs import Operation, run_program
from hepfeed.transforms.items import Items
from hepfeed.transforms.lookup import names_of
from hepfeed.transforms.step import Batch, Keys, Step

__all__ = ["Fused", "Numbers", "OnNegative", "Pointwise", "check_channels", "fuse", "read_numbers"]

OnNegative = Literal["raise", "clip"]
"""What becomes of numbers that a logarithm can't take: an error, or, where they are negative, 0 in their place."""


def read_numbers(value: Any) -> float | tuple[float, ...]:
    """Return a finite number, or a tuple of one for each channel.

    Raises:
        SpecError: It is neither.
    """
    given = value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
    items = given if isinstance(given, (list, tuple)) else (given,)
    for item in items:
        if isinstance(item, bool) or not isinstance(item, (int, float, np.number)) or not math.isfinite(item):
            raise SpecError(f"options of numbers must be finite numbers, or a list of them, not {value!r}")
    if not items:
        raise SpecError("options for each channel must have a number for one channel or more, and the list is empty")
    return tuple(float(item) for item in items) if isinstance(given, (list, tuple)) else float(given)


Numbers = Annotated[float | tuple[float, ...], BeforeValidator(read_numbers)]
"""A finite number, or one for each channel."""


class Pointwise(Step):
    """A step that maps every number by a function of it alone.

    Arithmetic is in float64.  The result is float64 for float64 and float32 for all other types, rounded once.

    Attributes:
        keys: Dense ``(B, *shape)``, jagged, padded or sparse arrays of integers or floats.  Padding becomes 0; of
            sparse arrays the sites alone are mapped.
    """

    keys: Keys

    @field_validator("keys")
    @classmethod
    def _check_keys(cls, keys: Keys) -> Keys:
        names_of(keys)
        return keys

    @abstractmethod
    def operations(self, key: str) -> tuple[Operation, ...]:
        """Return what is done to the numbers of a key, in order."""

    def channel_axis(self, key: str) -> int | None:
        """Return the axis of one event along which parameters differ; None where they don't."""
        return None

    @property
    def domain(self) -> str:
        """What numbers must be, for the error about one that is not; ``{value}`` stands for it."""
        return "the function has no value at {value!r}"

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with mapped numbers.

        Raises:
            KeyMissingError: The batch has no such key.
            ProcessError: A key holds no numbers, has another number of channels than the parameters, or has a number
                that the function is not defined for.
        """
        made = dict(batch)
        for key in names_of(self.keys):
            items = Items.of(batch, key)
            axis = self.channel_axis(key)
            try:
                rows, refused = run_program(
                    items.rows, self.operations(key), None if axis is None else items.axis(axis)
                )
            except HepfeedError as error:
                error.key = error.key or key
                raise
            if refused >= 0:
                raise self._refusal(batch, draws, items, refused)
            made[key] = items.put(rows)
        return made

    def _refusal(self, batch: Batch, draws: Draws, items: Items, place: int) -> HepfeedError:
        return items.fault(batch, place, self.domain)


class Fused(Pointwise):
    """Several steps in one pass over memory; results have the same bits as those of one step after another.

    Attributes:
        steps: In order; all have the same keys and the same axis of channels.
    """

    steps: tuple[SerializeAsAny[Pointwise], ...]

    def operations(self, key: str) -> tuple[Operation, ...]:
        """Return those of all steps, with the rounding to float32 between them."""
        made: list[Operation] = []
        for step in self.steps:
            made += [*([Operation("round")] if made else []), *step.operations(key)]
        return tuple(made)

    def channel_axis(self, key: str) -> int | None:
        """Return the axis of the step that has one."""
        return next((axis for step in self.steps if (axis := step.channel_axis(key)) is not None), None)

    def _refusal(self, batch: Batch, draws: Draws, items: Items, place: int) -> HepfeedError:
        """Return the error of the step that refused, about the number that came to it."""
        try:
            for step in self.steps:
                batch = step(batch, draws)
        except HepfeedError as error:
            return error
        return super()._refusal(batch, draws, items, place)


def fuse(steps: Sequence[Any]) -> list[Any]:
    """Merge neighbours that map the same keys by functions of one number into one :class:`Fused` step.

    None of them draws random numbers; but steps after them change their place, and random ones are told theirs by
    ``draws.at(place)``: count places before steps are merged.

    Args:
        steps: Steps and functions.

    Returns:
        Steps and functions; what was not merged is as it was.
    """
    made: list[Any] = []
    for step in steps:
        last = made[-1] if made else None
        if isinstance(last, Pointwise) and isinstance(step, Pointwise) and _alike(last, step):
            made[-1] = Fused(keys=last.keys, steps=(*_parts(last), *_parts(step)))
        else:
            made.append(step)
    return made


def _parts(step: Pointwise) -> tuple[Pointwise, ...]:
    return step.steps if isinstance(step, Fused) else (step,)


def _alike(one: Pointwise, other: Pointwise) -> bool:
    keys = names_of(one.keys)
    if keys != names_of(other.keys):
        return False
    axes = [{one.channel_axis(key), other.channel_axis(key)} - {None} for key in keys]
    return all(len(each) <= 1 for each in axes)


def check_channels(axis: int | None, **options: float | tuple[float, ...] | None) -> None:
    """Check that options for each channel come with the axis of the channels, and are as many.

    Raises:
        SpecError: They are not.
    """
    lists = {name: len(value) for name, value in options.items() if isinstance(value, tuple)}
    if len(set(lists.values())) > 1:
        raise SpecError(f"options for each channel must be of one length, and are {lists}")
    if lists and axis is None:
        raise SpecError(f"{next(iter(lists))} is given for each channel: give the axis of the channels as well")
    if not lists and axis is not None:
        raise SpecError(f"axis {axis} is given, and no option is for each channel: leave it out")
