"""A public name that is imported once it is used.

Where multiprocessing starts a process afresh, that imports the main script once more, for its definitions.  A worker
for a dataset without torch need not wait for torch then just because the script names :class:`hepfeed.DataLoader`.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

__all__ = ["Late", "in_starting_worker"]


def in_starting_worker() -> bool:
    """Whether multiprocessing imports the main script in a new process, and nothing has needed torch so far."""
    process: Any = sys.modules.get("multiprocessing.process")
    return (
        process is not None and getattr(process.current_process(), "_inheriting", False) and "torch" not in sys.modules
    )


class Late:
    """Stands for a class: calls, attributes, subclasses and checks are those of the class itself.

    Args:
        module: Where it is.
        name: What it is called there.
    """

    def __init__(self, module: str, name: str) -> None:
        self._home = module, name

    def _class(self) -> Any:
        return _imported(*self._home)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Make an object of the class."""
        return self._class()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._class(), name)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._class(),)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, self._class())

    def __subclasscheck__(self, subclass: type) -> bool:
        return issubclass(subclass, self._class())

    def __or__(self, other: Any) -> Any:
        return self._class() | other

    def __ror__(self, other: Any) -> Any:
        return other | self._class()

    def __reduce__(self) -> tuple[Any, ...]:
        return _imported, self._home


def _imported(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)
