"""Statistics of keys as options of steps: a mapping, or the path of a file of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator

from hepfeed.errors import KeyMissingError, SpecError, nearest

__all__ = ["Figures", "Values", "figure_of"]

_NAMES = ("mean", "std", "minimum", "maximum", "channel_axis")

Values = Literal["finite", "active"]
"""Which values' statistics count: those of all finite ones, or of those that are not 0."""


def _read_figures(given: Any) -> dict[str, Any] | None:
    if given is None:
        return None
    if isinstance(given, (str, os.PathLike)):
        given = _load(os.fspath(given))
    if not isinstance(given, Mapping):
        raise SpecError(
            f"statistics must be a path or a mapping such as {{'ECAL': {{'mean': 1, 'std': 2}}}}, not {given!r}"
        )
    found = given["keys"] if isinstance(given.get("keys"), Mapping) else given
    made = {}
    for key, figures in found.items():
        if not isinstance(figures, Mapping):
            raise SpecError(
                f"statistics of key {key!r} must be a mapping such as {{'mean': 1, 'std': 2}}, not {figures!r}"
            )
        made[str(key)] = {name: figures[name] for name in _NAMES if figures.get(name) is not None}
        if isinstance(figures.get("active"), Mapping):
            active = figures["active"]
            made[str(key)]["active"] = {name: active[name] for name in _NAMES if active.get(name) is not None}
    return made


def _load(path: str) -> Any:
    try:
        with open(path, encoding="utf-8") as stream:
            return yaml.safe_load(stream)
    except OSError as error:
        raise SpecError(f"the statistics {path!r} can't be read ({error.strerror}): collect them", file=path) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(f"the statistics {path!r} are neither YAML nor JSON: {error}", file=path) from None


Figures = Annotated[dict[str, Any] | None, BeforeValidator(_read_figures)]
"""Key -> figures by name.  A path is read once, when the step is made, so that the step carries its numbers along."""


def figure_of(statistics: Mapping[str, Any], key: str, name: str, values: Values) -> Any:
    """Return a figure of a key, a number or a list of one for each channel.

    Raises:
        KeyMissingError: There are no statistics of that key.
        SpecError: They lack the figure.
    """
    if key not in statistics:
        raise KeyMissingError(f"there are no statistics of key {key!r}: {nearest(key, statistics)}", key=key)
    figures = statistics[key] if values == "finite" else statistics[key].get("active", {})
    if name not in figures:
        raise SpecError(
            f"the statistics of the {values} values of key {key!r} lack {name!r}: {nearest(name, figures)}", key=key
        )
    return figures[name]
