"""The step that maps a range of numbers onto another."""

from __future__ import annotations

from pydantic import field_validator, model_validator

from hepfeed.errors import SpecError
from hepfeed.programs import Operation
from hepfeed.transforms.known import Figures, Values, figure_of
from hepfeed.transforms.lookup import names_of
from hepfeed.transforms.pointwise import Numbers, Pointwise, check_channels, read_numbers

__all__ = ["MinMax"]


class MinMax(Pointwise):
    """Maps low to a and high to b, and what is between or beyond linearly: ``a + (x - low) (b - a) / (high - low)``.

    Give low and high, or statistics, whose minimum and maximum they then are.

    Attributes:
        keys: See :class:`~hepfeed.transforms.pointwise.Pointwise`.
        low: Of all channels, or of each.
        high: Above low.
        to: a and b, which differ.
        axis: Axis of one event that holds the channels, for options of each channel; -1 is the last.
        statistics: As of :class:`~hepfeed.transforms.Normalise`, with minimum and maximum.
        values: Of which values the statistics count: all finite ones, or the ``"active"`` ones, which are not 0.

    Raises:
        KeyMissingError: There are no statistics of a key.
        SpecError: Options do not fit each other, or statistics can't be read.
    """

    low: Numbers | None = None
    high: Numbers | None = None
    to: tuple[float, float] = (0.0, 1.0)
    axis: int | None = None
    statistics: Figures = None
    values: Values = "finite"

    @field_validator("to")
    @classmethod
    def _check_to(cls, to: tuple[float, float]) -> tuple[float, float]:
        read_numbers(to)
        if to[0] == to[1]:
            raise SpecError(f"to must be two numbers that differ, not {to!r}")
        return to

    @model_validator(mode="after")
    def _check(self) -> MinMax:
        if (self.low is None) != (self.high is None) or (self.low is None) == (self.statistics is None):
            raise SpecError("give low and high, or statistics: one of the two")
        if self.statistics is None:
            check_channels(self.axis, low=self.low, high=self.high)
        for key in names_of(self.keys):
            self.operations(key)
        return self

    def operations(self, key: str) -> tuple[Operation, ...]:
        """Return the linear function."""
        low, high = self.low, self.high
        if self.statistics is not None:
            low = read_numbers(figure_of(self.statistics, key, "minimum", self.values))
            high = read_numbers(figure_of(self.statistics, key, "maximum", self.values))
            check_channels(self.channel_axis(key), low=low, high=high)
        assert low is not None  # checked when the step was made
        assert high is not None
        count = max(len(each) if isinstance(each, tuple) else 1 for each in (low, high))
        lows = low if isinstance(low, tuple) else (low,) * count
        highs = high if isinstance(high, tuple) else (high,) * count
        for least, most in zip(lows, highs):
            if not least < most:
                raise SpecError(f"low must be below high, and is {least!r} to {most!r} for key {key!r}", key=key)
        start, end = self.to
        factors = tuple((end - start) / (most - least) for least, most in zip(lows, highs))
        each = isinstance(low, tuple) or isinstance(high, tuple)
        return (Operation("linear", low, factors if each else factors[0], start),)

    def channel_axis(self, key: str) -> int | None:
        """Return ``axis``, or that of the statistics."""
        if self.axis is None and self.statistics is not None:
            axis: int | None = self.statistics.get(key, {}).get("channel_axis")
            return axis
        return self.axis
