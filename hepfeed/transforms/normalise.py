"""The step that scales and shifts numbers, or makes their mean 0 and their width 1."""

from __future__ import annotations

from pydantic import model_validator

from hepfeed.errors import SpecError
from hepfeed.programs import Operation
from hepfeed.transforms.known import Figures, Values, figure_of
from hepfeed.transforms.lookup import names_of
from hepfeed.transforms.pointwise import Numbers, Pointwise, check_channels, read_numbers

__all__ = ["Normalise"]


class Normalise(Pointwise):
    """Maps numbers linearly: ``x scale + shift``, or ``(x - mean) / std``.

    Give scale or shift, or mean and std, or statistics.

    Attributes:
        keys: See :class:`~hepfeed.transforms.pointwise.Pointwise`.
        scale: Factor, of all channels or of each.
        shift: Summand.
        mean: Subtracted first.
        std: Divides, above 0.
        axis: Axis of one event that holds the channels, for options of each channel; -1 is the last.
        statistics: ``{key: {"mean": .., "std": ..}}`` for every key, with lists for channels and then ``channel_axis``
            where ``axis`` is not given; or the path of a YAML or JSON file that has this under ``keys``, as
            :mod:`hepfeed.statistics` writes it.
        values: Of which values the statistics count: all finite ones, or the ``"active"`` ones, which are not 0.

    Raises:
        KeyMissingError: There are no statistics of a key.
        SpecError: Options do not fit each other, statistics can't be read, or a width is not above 0.
    """

    scale: Numbers | None = None
    shift: Numbers | None = None
    mean: Numbers | None = None
    std: Numbers | None = None
    axis: int | None = None
    statistics: Figures = None
    values: Values = "finite"

    @model_validator(mode="after")
    def _check(self) -> Normalise:
        linear, standard = (self.scale, self.shift) != (None, None), (self.mean, self.std) != (None, None)
        if linear + standard + (self.statistics is not None) != 1:
            raise SpecError("give scale or shift, or mean and std, or statistics: one of the three")
        if standard and (self.mean is None or self.std is None):
            raise SpecError("mean and std must be given together: (x - mean) / std")
        if self.statistics is None:
            check_channels(self.axis, scale=self.scale, shift=self.shift, mean=self.mean, std=self.std)
        for key in names_of(self.keys):
            self.operations(key)
        return self

    def operations(self, key: str) -> tuple[Operation, ...]:
        """Return the linear function."""
        if self.scale is not None or self.shift is not None:
            return (
                Operation(
                    "linear", 0.0, 1.0 if self.scale is None else self.scale, 0.0 if self.shift is None else self.shift
                ),
            )
        mean, std = self.mean, self.std
        if self.statistics is not None:
            mean = read_numbers(figure_of(self.statistics, key, "mean", self.values))
            std = read_numbers(figure_of(self.statistics, key, "std", self.values))
            check_channels(self.channel_axis(key), mean=mean, std=std)
        assert mean is not None  # checked when the step was made
        assert std is not None
        widths = std if isinstance(std, tuple) else (std,)
        if min(widths) <= 0:
            raise SpecError(f"std must be above 0, and is {min(widths)!r} for key {key!r}: does the key vary?", key=key)
        factors = tuple(1.0 / width for width in widths)
        return (Operation("linear", mean, factors if isinstance(std, tuple) else factors[0], 0.0),)

    def channel_axis(self, key: str) -> int | None:
        """Return ``axis``, or that of the statistics."""
        if self.axis is None and self.statistics is not None:
            axis: int | None = self.statistics.get(key, {}).get("channel_axis")
            return axis
        return self.axis
