"""hepfeed: events of particle physics from HDF5 files to PyTorch, as fast as the machine allows.

The names below are the public face; torch is imported with the first of them that needs it, so that readers start fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hepfeed import errors
from hepfeed.late import Late, in_starting_worker

if TYPE_CHECKING:
    __version__: str
    from hepfeed.dataset import EventDataset
    from hepfeed.filler import BatchSpec, Filler
    from hepfeed.filters import Filter
    from hepfeed.index import EventIndex
    from hepfeed.loader import DataLoader
    from hepfeed.provider import DataProvider
    from hepfeed.spec import SampleSpec

_HOME = {
    "BatchSpec": "filler",
    "DataLoader": "loader",
    "DataProvider": "provider",
    "EventDataset": "dataset",
    "EventIndex": "index",
    "Filler": "filler",
    "Filter": "filters",
    "SampleSpec": "spec",
}
_NEEDS_TORCH = ("DataLoader", "DataProvider", "EventDataset")

__all__ = [
    "BatchSpec",
    "DataLoader",
    "DataProvider",
    "EventDataset",
    "EventIndex",
    "Filler",
    "Filter",
    "SampleSpec",
    "errors",
]


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("hepfeed")
    except PackageNotFoundError:  # run from a source tree that was built in place
        return "0+unknown"


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name in _NEEDS_TORCH and in_starting_worker():
        return Late(f"hepfeed.{_HOME[name]}", name)
    if name in _HOME:
        value = getattr(importlib.import_module(f"hepfeed.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'hepfeed' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
