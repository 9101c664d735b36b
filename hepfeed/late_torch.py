"""Late torch: something to do as soon as torch is there, without importing it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["LateTorch"]


class LateTorch(MetaPathFinder):
    """Calls a function once: at once if torch was imported, else right after whoever imports it first.

    Args:
        function: Called in the thread that imports torch, before its ``import`` statement ends.
    """

    def __init__(self, function: Callable[[], None]) -> None:
        self._function = function
        if "torch" in sys.modules:
            function()
        else:
            sys.meta_path.insert(0, self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find torch as the other finders do, and load it so that the function is called."""
        if fullname != "torch":
            return None
        self.close()
        try:
            spec = importlib.util.find_spec("torch")
        finally:
            sys.meta_path.insert(0, self)  # until it was loaded: an import may fail, and be tried again
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self)
        return spec

    def loaded(self) -> None:
        """Do what was waiting for torch."""
        self.close()
        self._function()

    def close(self) -> None:
        """Wait no longer."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)


class _Loader(Loader):
    """Loads a module as another loader, and says so."""

    def __init__(self, loader: Any, waiting: LateTorch) -> None:
        self._loader = loader
        self._waiting = waiting

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        made: ModuleType | None = self._loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._waiting.loaded()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)
