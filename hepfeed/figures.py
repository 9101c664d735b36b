"""Figures of keys over many events, and the file that they are kept in."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray

from hepfeed.errors import SpecError

__all__ = ["After", "Figure", "KeyStatistics", "Statistics", "Summary", "default_path"]

After = Literal["read", "cache"]
Figure = Any
"""A number, or a list of one for each channel; None where there are no values."""
_VERSION = 1


@dataclass(frozen=True)
class Summary:
    """Figures of some values.

    Attributes:
        count: How many.
        mean: Their mean.
        std: Their standard deviation, as ``numpy.std``.
        minimum: The least.
        maximum: The greatest.
        percentiles: By name, e.g. ``"99.9"``.
    """

    count: Figure
    mean: Figure
    std: Figure
    minimum: Figure
    maximum: Figure
    percentiles: dict[str, Figure]


@dataclass(frozen=True)
class KeyStatistics(Summary):
    """Figures of a key: those of its finite values, and further ones.

    Attributes:
        zeros: Part of the finite values that are 0.
        nonfinite: How many values are NaN or infinite; they are in no other figure.
        channel_axis: Axis of one event whose entries the figures are lists of; None: one figure for all.
        active: Figures of the values that are not 0.
    """

    zeros: Figure
    nonfinite: Figure
    channel_axis: int | None
    active: Summary


@dataclass(frozen=True)
class Statistics:
    """What :func:`hepfeed.statistics.collect` found.

    Attributes:
        fingerprint: Changes with the specification, the events and the transforms before.
        split: Part of the events; None for all.
        after: ``"read"`` or ``"cache"``.
        events: How many were measured.
        keys: Figures by key.
        spectra: Key -> ``(bins + 1,)`` edges and ``(bins,)`` active values in each; of all channels, for plots.  Not
            saved.
    """

    fingerprint: str
    split: str | None
    after: After
    events: int
    keys: dict[str, KeyStatistics]
    spectra: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = field(
        default_factory=dict, compare=False, repr=False
    )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write YAML: ``keys: {NAME: {mean, std, minimum, maximum, percentiles: {"1": ..}, active: {...}, ...}}``."""
        document = {"version": _VERSION, **{name: value for name, value in asdict(self).items() if name != "spectra"}}
        path = os.fspath(path)
        unfinished = f"{path}.{os.getpid()}.part"
        with open(unfinished, "w", encoding="utf-8") as stream:
            yaml.safe_dump(document, stream, sort_keys=False, allow_unicode=True, width=110)
        os.replace(unfinished, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Statistics:
        """Read what :meth:`save` wrote; :func:`hepfeed.statistics.load` also looks whether it is stale.

        Raises:
            SpecError: The file is missing, or is no such file.
        """
        path = os.fspath(path)
        try:
            with open(path, encoding="utf-8") as stream:
                document = yaml.safe_load(stream)
        except OSError as error:
            raise SpecError(
                f"the statistics {path!r} can't be read ({error.strerror}): collect them", file=path
            ) from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise SpecError(f"the statistics {path!r} are no YAML: {error}", file=path) from None
        if not isinstance(document, dict) or document.pop("version", None) != _VERSION:
            raise SpecError(f"{path!r} holds no statistics of version {_VERSION}: collect them again", file=path)
        try:
            keys = {
                name: KeyStatistics(**{**figures, "active": Summary(**figures["active"])})
                for name, figures in document.pop("keys").items()
            }
            made = cls(**document, keys=keys)
        except (TypeError, KeyError, AttributeError) as error:
            raise SpecError(f"{path!r} holds no statistics ({error}): collect them again", file=path) from None
        return made


def default_path(spec: str | os.PathLike[str]) -> str:
    """Return where the statistics of a specification file lie: ``lcd.yaml`` has ``lcd.stats.yaml``."""
    return os.path.splitext(os.fspath(spec))[0] + ".stats.yaml"
