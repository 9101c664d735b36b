"""h5py handles of user datasets: opened again in every reader.

An open HDF5 file can't be pickled, and one that a process inherits shares its position and, when it is open for
writing, its unwritten data with the parent.  So each reader opens the files again: of a pickled dataset when it is
loaded (:func:`prepare`), of an inherited one in place (:func:`reopen`).
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections import deque
from collections.abc import Iterator
from multiprocessing.reduction import ForkingPickler
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from hepfeed.errors import SpecError

__all__ = ["handles_in", "prepare", "reopen"]

_DRIVERS = "sec2", "stdio", "family"  # that read a file, and need no more than its name and what the file knows
_LOOK_AT = 100_000  # objects
_ELEMENTS = 4096  # of one container: a list of indices is not looked through
_LEAVES = (str, bytes, bytearray, int, float, complex, bool, type(None), type, ModuleType)


def prepare(value: object = None) -> None:
    """Make h5py ready for readers, once it was imported: handles pickle, and no lock of h5py is held over a fork.

    Args:
        value: What is going to be pickled, for handles of classes of the user's own.
    """
    h5py = _h5py()
    if h5py is None:
        return
    _guard_fork()
    kinds = {h5py.File, h5py.Group, h5py.Dataset, h5py.Datatype}
    for kind in kinds | {type(handle) for handle in handles_in(value)}:
        ForkingPickler.register(kind, _reduce)


def reopen(value: object) -> None:
    """Open the handles in a dataset again, after a fork; in place, so that whoever holds them has the new ones.

    Files in memory (``driver="core"``, a ``BytesIO``) are left alone: the process has a copy of its own.

    Raises:
        SpecError: A file is open for writing, or by a driver that can't be opened again.
    """
    found = [(handle, _Origin(handle)) for handle in handles_in(value) if not _is_in_memory(handle)]
    # HDF5 gives the open file for one that is opened twice, so all are closed first.
    for handle, _ in found:
        vars(handle)["_id"] = None
        vars(handle).pop("_cache_props", None)
    _files.clear()
    for handle, origin in found:
        vars(handle).update(vars(origin.open()))


def handles_in(value: object) -> list[Any]:
    """Return the open h5py files, groups, data sets and named types that an object holds.

    Attributes, slots, the elements of containers (the first 4096), closures, defaults and bound objects are looked at,
    100,000 objects at most; variables of modules are not.
    """
    h5py = _h5py()
    if h5py is None or value is None:
        return []
    kinds = h5py.File, h5py.Group, h5py.Dataset, h5py.Datatype
    found: list[Any] = []
    seen: dict[int, object] = {}  # the objects too, so that no number is used again
    waiting = deque([value])
    while waiting and len(seen) < _LOOK_AT:
        one = waiting.popleft()
        if isinstance(one, _LEAVES) or id(one) in seen:
            continue
        seen[id(one)] = one
        if isinstance(one, kinds) and vars(one).get("_id") and one:
            found.append(one)
        waiting.extend(_parts(one))
    return found


def _parts(value: Any) -> Iterator[Any]:
    """Yield what an object is made of."""
    if isinstance(value, FunctionType):
        yield from value.__closure__ or ()
        yield from value.__defaults__ or ()
        yield from (value.__kwdefaults__ or {}).values()
    elif isinstance(value, MethodType):
        yield value.__self__
    elif isinstance(value, CellType):
        try:
            yield value.cell_contents
        except ValueError:  # not set yet
            return
    elif isinstance(value, functools.partial):
        yield from (value.func, value.args, value.keywords)
    elif isinstance(value, dict):
        yield from (each for each, _ in zip(value.values(), range(_ELEMENTS)))
    elif isinstance(value, list | tuple | set | frozenset | deque):
        yield from (each for each, _ in zip(value, range(_ELEMENTS)))
    elif isinstance(value, np.ndarray) and value.dtype.hasobject:
        yield from (each for each, _ in zip(value.flat, range(_ELEMENTS)))
    if type(value).__dictoffset__:
        yield from vars(value).values()
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            mangled = f"_{kind.__name__.lstrip('_')}{name}" if name[:2] == "__" and name[-2:] != "__" else name
            member = vars(kind).get(mangled)
            if inspect.ismemberdescriptor(member):
                try:
                    yield member.__get__(value)
                except AttributeError:  # not set
                    continue


class _Origin:
    """Where a handle comes from: a file, how it was opened, and the name in it.

    Raises:
        SpecError: It can't be opened again.
    """

    def __init__(self, handle: Any) -> None:
        import h5py

        file = handle.file
        kinds = h5py.File, h5py.Group, h5py.Dataset, h5py.Datatype
        self.kind = next(kind.__name__ for kind in kinds if isinstance(handle, kind))
        self.path = os.path.abspath(os.fsdecode(file.filename))
        self.name = handle.name
        advice = "open it in the dataset when it is first read, or by its path"
        if file.driver not in _DRIVERS:
            what = "in memory" if file.driver in ("core", "fileobj") else "a regular file"
            found = "is" if what == "in memory" else "is not"
            raise SpecError(
                f"readers open HDF5 files again by their names, and one that the dataset holds {found} {what}"
                f" (driver {file.driver!r}): {advice}",
                file=self.path,
            )
        if file.mode != "r":
            raise SpecError(
                f"readers need HDF5 files that are open for reading, and one that the dataset holds is open for writing"
                f" (mode {file.mode!r}): close it and open it with mode 'r'",
                file=self.path,
            )
        if self.name is None:
            raise SpecError(
                "readers open HDF5 data sets again by their names, and one that the dataset holds has none:"
                " give it a name in its file",
                file=self.path,
            )
        access = file.id.get_access_plist()
        _, slots, cache_bytes, preemption = access.get_cache()
        self.options: dict[str, Any] = {
            "driver": None if file.driver == "sec2" else file.driver,
            "swmr": bool(file.swmr_mode),
            "rdcc_nslots": slots,
            "rdcc_nbytes": cache_bytes,
            "rdcc_w0": preemption,
        }
        if file.driver == "family":
            self.options["memb_size"] = access.get_fapl_family()[0]
        if hasattr(access, "get_file_locking"):
            is_used, is_optional = access.get_file_locking()
            self.options["locking"] = ("best-effort" if is_optional else True) if is_used else False

    def open(self) -> Any:
        """Open it again; files each for themselves, and all else in one file that this process keeps open."""
        import h5py

        if self.kind == "File":
            return h5py.File(self.path, "r", **self.options)
        key = self.path, tuple(sorted(self.options.items(), key=str))
        if key not in _files or not _files[key]:
            _files[key] = h5py.File(self.path, "r", **self.options)
        return _files[key][self.name]


_files: dict[tuple[Any, ...], Any] = {}
"""Files that groups and data sets were opened in by this process."""


def _is_in_memory(handle: Any) -> bool:
    file = handle.file
    is_buffer = file.driver == "fileobj" and file.filename.startswith("<_io.BytesIO ")  # HDF5 keeps no more of it
    return is_buffer or str(file.driver) == "core"


def _reduce(handle: Any) -> tuple[Any, ...]:
    """Pickle a handle by where it comes from."""
    if not handle:
        raise SpecError("readers can't open an HDF5 handle again that is closed: take it out of the dataset")
    from h5py._objects import ObjectID

    own = {
        name: value
        for name, value in vars(handle).items()
        if name != "_cache_props" and not isinstance(value, ObjectID)  # what h5py makes when it opens
    }
    return _open_as, (_Origin(handle), type(handle), own)


def _open_as(origin: _Origin, kind: Any, own: dict[str, Any]) -> Any:
    handle = origin.open()
    if kind is type(handle):
        return handle
    made = kind.__new__(kind)
    vars(made).update(own)
    vars(made).update(vars(handle))
    return made


@functools.cache
def _guard_fork() -> None:
    """Hold h5py's lock over forks, so that no other thread has it then; newer versions of h5py do this themselves."""
    from h5py import _objects

    if not hasattr(_objects, "_phil_before_fork"):
        lock = _objects.phil
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)


def _h5py() -> Any:
    """Return h5py if it was imported."""
    h5py = sys.modules.get("h5py")
    return h5py if hasattr(h5py, "Dataset") else None
