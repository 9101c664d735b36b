"""What a user's function does, as bytes that are the same in every process: for keys of what was made with it."""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import xxhash

__all__ = ["code_of"]

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...))
_OF_NO_MATTER = {
    "__module__",
    "__dict__",
    "__weakref__",
    "__doc__",
    "__firstlineno__",
    "__static_attributes__",
    "__annotations__",
    "__annotate_func__",
    "__annotations_cache__",
    "__abstractmethods__",
    "_abc_impl",
}


def code_of(function: Callable[..., Any]) -> bytes:
    """Return bytes that change with what a function does.

    They are of its bytecode, default arguments, closure, and of the global names that it uses: constants, and in the
    same way the user's other functions and classes.  What comes from installed packages counts by its name and their
    version, unless the function is of that package itself.  Objects count with their class and state.  Comments, names
    of files and numbers of lines do not count.
    """
    return _Description(function).whole()


class _Description:
    """Describes one function, and all that it uses, each once."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._root = function
        named = function
        while isinstance(named, functools.partial):
            named = named.func
        module = getattr(named, "__module__", None) or type(named).__module__
        self._own = module.partition(".")[0]
        self._seen: dict[int, int] = {}
        self._kept: list[object] = []  # so that no id is used twice

    def whole(self) -> bytes:
        return xxhash.xxh3_128_digest(repr(sys.version_info[:2]).encode() + self._of(self._root))

    def _of(self, value: Any) -> bytes:
        if isinstance(value, _PLAIN) and type(value) in _PLAIN:
            return _joined(type(value).__name__, [repr(value).encode()])
        if type(value) is tuple:
            return _joined("tuple", map(self._of, value))
        if type(value) in (set, frozenset):
            return _joined("set", sorted(map(self._of, value)))
        if isinstance(value, types.CodeType):
            return self._code(value)
        if isinstance(value, np.generic | np.ndarray) and not value.dtype.hasobject:
            array = np.ascontiguousarray(value)
            return _joined("array", [array.dtype.str.encode(), repr(np.shape(value)).encode(), array.tobytes()])
        if id(value) in self._seen:
            return _joined("again", [repr(self._seen[id(value)]).encode()])
        self._seen[id(value)] = len(self._seen)
        self._kept.append(value)
        if type(value) is list:
            return _joined("list", map(self._of, value))
        if type(value) is dict:
            return _joined("dict", (self._of(part) for item in value.items() for part in item))
        return self._named(value)

    def _named(self, value: Any) -> bytes:
        """Describe a function, class, module or object."""
        if isinstance(value, types.ModuleType):
            return _name_of(value.__name__, "")
        if isinstance(value, types.MethodType):
            return _joined("method", [self._of(value.__func__), self._of(value.__self__)])
        if isinstance(value, functools.partial):
            return _joined("partial", [self._of(value.func), self._of(value.args), self._of(value.keywords)])
        if isinstance(value, staticmethod | classmethod):
            return _joined(type(value).__name__, [self._of(value.__func__)])
        if isinstance(value, property):
            return _joined("property", map(self._of, (value.fget, value.fset, value.fdel)))
        if isinstance(value, types.FunctionType | type):
            if self._is_library(value.__module__):
                return _name_of(value.__module__, value.__qualname__)
            return self._class(value) if isinstance(value, type) else self._function(value)
        if isinstance(value, types.BuiltinFunctionType | np.ufunc):
            owner = getattr(value, "__self__", None)
            bound = [] if owner is None or isinstance(owner, types.ModuleType) else [self._of(owner)]
            return _joined("builtin", [_name_of(getattr(value, "__module__", None) or "", value.__name__), *bound])
        if hasattr(value, "__wrapped__"):  # functools.lru_cache
            return _joined("wrapper", [self._of(type(value)), self._of(value.__wrapped__)])
        return self._object(value)

    def _function(self, function: types.FunctionType) -> bytes:
        cells = [_content(cell) for cell in function.__closure__ or ()]
        used = [self._of(part) for part in (function.__defaults__, function.__kwdefaults__, tuple(cells))]
        names = sorted(set(_names(function.__code__)))
        for name in names:
            if name in function.__globals__:
                value = function.__globals__[name]
                used += [name.encode(), self._of(value)]
                if isinstance(value, types.ModuleType) and not self._is_library(value.__name__):
                    used += [self._of(vars(value)[each]) for each in names if each in vars(value)]
        return _joined("function", [self._code(function.__code__), *used])

    def _code(self, code: types.CodeType) -> bytes:
        form = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        table = getattr(code, "co_exceptiontable", b"")
        return _joined("code", [code.co_code, table, repr((form, names)).encode(), *map(self._of, code.co_consts)])

    def _class(self, kind: type) -> bytes:
        inside = {name: value for name, value in vars(kind).items() if name not in _OF_NO_MATTER}
        parts = (part for name in sorted(inside) for part in (name.encode(), self._of(inside[name])))
        return _joined("class", [kind.__qualname__.encode(), *map(self._of, kind.__bases__), *parts])

    def _object(self, value: Any) -> bytes:
        kind = type(value)
        if not self._is_library(kind.__module__) and hasattr(value, "__dict__"):
            slots = [name for each in kind.__mro__ for name in vars(each).get("__slots__", ()) if hasattr(value, name)]
            state = {**vars(value), **{name: getattr(value, name) for name in slots if name != "__dict__"}}
            return _joined("object", [self._of(kind), self._of(state)])
        import cloudpickle

        try:
            data: bytes = cloudpickle.dumps(value)
        except Exception:  # a lock, an open file: the function can't be sent to a reader either
            data = b""
        return _joined("object", [self._of(kind), data])

    def _is_library(self, module: str | None) -> bool:
        """Whether a module is of Python, of hepfeed or of an installed package, and not the user's."""
        top = (module or "builtins").partition(".")[0]
        if top in sys.stdlib_module_names and top != "__main__":
            return True
        if top == self._own and top != "hepfeed":
            return False
        place = getattr(sys.modules.get(top), "__file__", None)
        return top == "hepfeed" or (place is not None and os.path.realpath(place).startswith(_installed()))


@functools.cache
def _installed() -> tuple[str, ...]:
    """Directories of installed packages."""
    paths = (sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib"))
    return tuple(os.path.join(os.path.realpath(path), "") for path in paths)


def _name_of(module: str, name: str) -> bytes:
    version = getattr(sys.modules.get(module.partition(".")[0]), "__version__", "")
    return _joined("name", [module.encode(), name.encode(), str(version).encode()])


def _names(code: types.CodeType) -> Iterator[str]:
    """Names of globals and attributes in a function and those inside of it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not set yet
        return None


def _joined(kind: str, parts: Iterable[bytes]) -> bytes:
    """Hash parts, each with its length, so that they do not run into one another."""
    digest = xxhash.xxh3_128(kind.encode())
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()
