"""ROOT files: the branches of trees, and the fields of RNTuples, through uproot.

uproot is described in J. Pivarski et al., https://doi.org/10.5281/zenodo.4340632.
"""

from __future__ import annotations

import importlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hepfeed.convert.block import Block, Column, Field, Rows, bounded_steps
from hepfeed.convert.engine import convert
from hepfeed.convert.form import Form, Shaper
from hepfeed.convert.plan import Class
from hepfeed.convert.report import Converted
from hepfeed.convert.settings import ConvertOptions, Settings
from hepfeed.convert.source import STEP_BYTES, as_keys, check_names, find_files, key_name, select, unsuited
from hepfeed.errors import (
    CorruptDataError,
    FileFormatError,
    HepfeedError,
    SourceError,
    SpecError,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["convert_root"]

_TREES = ("TTree", "TNtuple", "TNtupleD", "TChain", "ROOT::RNTuple")
_INSTALL = "pip install 'hepfeed[root]'"


def convert_root(
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    trees: str | Sequence[str] | None = None,
    branches: str | Sequence[str] | None = None,
    form: Form = "dense",
    threshold: float = 0.0,
    images: str | Sequence[str] | None = None,
    **options: Unpack[ConvertOptions],
) -> Converted:
    """Write the entries of trees of ROOT files into HDF5 files ``out/events_<k>.h5``; an entry is an event.

    Entries of several files go end to end; below a directory each folder is a class of its own,
    ``out/<folder>/<folder>_<k>.h5``.  They are read in steps of about 32 MB.

    ============================== ======================================================================
    branch                         becomes
    ============================== ======================================================================
    number, or array of one shape  data set ``key (N, *shape)``
    array of any length, vector    ``key/values (T, *item)`` and ``key/offsets (N + 1,) int64``
    vector of objects of numbers   ``key/<member> (T,)`` for each member, and ``key/offsets``
    several leaves                 ``key.<leaf> (N,)`` for each
    text, vector of vectors, ...   left out, and reported; an error where it is named
    ============================== ======================================================================

    A key has the name of its branch, dots and all (``Jet.PT``, ``Muon_pt``); brackets become underscores.  A branch of
    the same name as another has the path of both in front (``Electron.Eta``).  With several trees, which must have as
    many entries, the tree comes first (``Events/Muon_pt``).

    Args:
        sources: Files, globs or directories.
        out: Folder to write into, made if it is missing.
        trees: Names or globs of trees or RNTuples, with their directories; None for the only one.
        branches: Names or globs of branches, e.g. ``["Muon_*", "MET_pt"]``; None for all.
        form: ``"sparse"`` keeps only the occupied sites of images: ``key/coords (T, D)``, ``key/value (T,)`` and
            ``key/offsets``.  An image is an array of one shape with at least two axes longer than 1.
        threshold: A site is occupied where ``|value| > threshold``; only with ``form="sparse"``.
        images: Keys that are images, in place of that rule; only with ``form="sparse"``.
        **options: See :class:`hepfeed.convert.Settings`.

    Returns:
        The files; a sequence of paths.

    Raises:
        SpecError: uproot is missing, an option is out of its range, a file has several trees and none is named, or
            files differ in their keys.
        KeyMissingError: A file has no tree or no branch of that name.
        SourceError: A file can't be read, or ``out`` has other HDF5 files.
        FileFormatError: A file is no ROOT file, or has no tree.
        CorruptDataError: A branch fails to inflate.
        ResourceError: An output file can't be written.
        ReaderError: A worker died.
    """
    settings = Settings(**options)
    shaper = Shaper(form, threshold, as_keys(images))
    _uproot()
    named, wanted = as_keys(trees), as_keys(branches)
    classes = [
        Class(folder, tuple(_RootFile(path, named, wanted) for path in paths))
        for folder, paths in find_files(sources, (".root",))
    ]
    told = {"trees": named, "branches": wanted, "threshold": threshold, "images": shaper.images}
    return convert(classes, out, settings, source_format="ROOT", form=form, options=told, shaper=shaper)


def _uproot() -> Any:
    try:
        importlib.import_module("awkward")
        return importlib.import_module("uproot")
    except ImportError as error:
        raise SpecError(
            f"ROOT files are read with uproot and awkward, and {error.name} is missing: {_INSTALL}"
        ) from error


@dataclass(frozen=True)
class _RootFile:
    """One ROOT file."""

    path: str
    trees: tuple[str, ...] | None
    branches: tuple[str, ...] | None
    sequential: bool = False

    def files(self, start: int, stop: int) -> list[str]:
        """The file itself."""
        return [self.path]

    def verify(self) -> None:
        """Do nothing: what fails to inflate is noticed when it is read."""

    @contextmanager
    def open(self) -> Iterator[_RootReader]:
        """Open it."""
        try:
            # The default handler of local files starts an event loop that stays.
            file = _uproot().open(self.path, handler=_uproot().source.file.MemmapSource)
        except FileNotFoundError as error:
            raise SourceError(f"could not read {self.path}: it is not there", file=self.path) from error
        except Exception as error:  # uproot has no class for a file that is no ROOT file
            what = str(error).strip().partition("\n")[0]
            raise FileFormatError(
                f"expected a ROOT file at {self.path}, but uproot can't open it ({what}); fetch it again",
                file=self.path,
            ) from error
        with file:
            yield _RootReader(file, self)


class _RootReader:
    """The branches of an open file."""

    def __init__(self, file: Any, source: _RootFile) -> None:
        self._path = source.path
        self.fields: dict[str, Field] = {}
        self.left_out: dict[str, str] = {}
        self._branches: dict[str, Any] = {}
        trees = _trees(file, source)
        self.events = _entries(trees, source.path)
        stored = 0
        names: dict[str, tuple[str, Any]] = {}
        for tree_name, tree in trees.items():
            prefix = f"{key_name(tree_name)}/" if len(trees) > 1 else ""
            for name, branch in _leaves(tree).items():
                names[prefix + name] = (prefix, branch)
        # A pattern holds for the name of a branch in any tree.
        plain = {full: full.removeprefix(prefix) for full, (prefix, _) in names.items()}
        chosen = set(select(dict.fromkeys([*plain.values(), *plain]), source.branches, file=source.path, noun="branch"))
        for full, (_, branch) in names.items():
            if full not in chosen and plain[full] not in chosen:
                continue
            key = key_name(full)
            try:
                found = _describe(_empty(branch))
            except _UnsuitedError as error:
                self._leave_out(full, str(error), source)
                continue
            except Exception as error:  # uproot raises many classes for types that it does not know
                self._leave_out(full, f"uproot can't read it ({_first_line(error)})", source)
                continue
            for suffix, field in found.items():
                if key + suffix in self.fields:
                    raise SpecError(
                        f"two branches of {source.path} would both become {key + suffix!r}: choose one of them",
                        file=source.path,
                        key=full,
                    )
                self.fields[key + suffix] = Field(
                    field.kind, field.columns, field.spatial_shape, {"branch": full, **field.attributes}
                )
            self._branches[key] = branch
            stored += int(getattr(branch, "uncompressed_bytes", 0) or 0)
        if not stored:  # RNTuples don't say; compression gains a factor of four or so
            stored = 4 * os.path.getsize(source.path)
        self._event_bytes = max(1, stored // max(1, self.events))
        check_names(self.fields, source.path)

    def _leave_out(self, name: str, reason: str, source: _RootFile) -> None:
        if source.branches is not None and name in source.branches:
            raise SpecError(
                f"branch {name!r} of {source.path} can't be converted: {reason}", file=source.path, key=name
            )
        self.left_out[name] = reason

    def steps(self, start: int, stop: int, added_bytes: int) -> Iterator[tuple[int, int]]:
        """Cut entries into runs of bounded memory, if all take as much as their average."""
        sizes = np.full(stop - start, self._event_bytes + added_bytes, np.int64)
        return bounded_steps(sizes, start, STEP_BYTES)

    def read(self, start: int, stop: int) -> Block:
        """Read a run of entries."""
        block: Block = {}
        for key, branch in self._branches.items():
            try:
                layout = _array(branch, start, stop).layout
                values = _values(layout)
            except MemoryError:
                raise
            except Exception as error:  # uproot raises what its decompressors raise, and errors of NumPy
                raise CorruptDataError(
                    f"could not read entries {start} to {stop - 1} of branch {key!r} in {self._path}: "
                    f"{_first_line(error)}; fetch the file again",
                    file=self._path,
                    key=key,
                    event=start,
                ) from error
            for suffix, value in values.items():
                if (there := _length(value)) != stop - start:
                    raise CorruptDataError(
                        f"expected entries {start} to {stop - 1} of branch {key!r} in {self._path}, got {there}; "
                        "fetch the file again",
                        file=self._path,
                        key=key,
                        event=start,
                    )
                block[key + suffix] = value
        return block


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _length(value: NDArray[Any] | Rows) -> int:
    return len(value.counts) if isinstance(value, Rows) else len(value)


def _trees(file: Any, source: _RootFile) -> dict[str, Any]:
    classes = file.classnames(cycle=False)
    there = [name for name, of in classes.items() if of in _TREES]
    if not there:
        raise FileFormatError(
            f"expected a tree in {source.path}, found {', '.join(classes) or 'nothing'}; name another file",
            file=source.path,
        )
    if source.trees is None and len(there) > 1:
        raise SpecError(
            f"{source.path} has several trees, {', '.join(map(repr, there))}: name those to convert", file=source.path
        )
    try:
        return {name: file[name] for name in select(there, source.trees, file=source.path, noun="tree")}
    except HepfeedError:
        raise
    except Exception as error:
        raise CorruptDataError(
            f"could not read the trees of {source.path}: {_first_line(error)}; fetch it again", file=source.path
        ) from error


def _entries(trees: dict[str, Any], path: str) -> int:
    entries = {name: int(tree.num_entries) for name, tree in trees.items()}
    if len(set(entries.values())) > 1:
        told = ", ".join(f"{name!r} {count}" for name, count in entries.items())
        raise SpecError(
            f"expected trees of {path} with as many entries as each other, got {told}; convert them one by one",
            file=path,
        )
    return next(iter(entries.values()))


def _leaves(tree: Any) -> dict[str, Any]:
    """Return what has data, by its shortest name that is unique."""
    if not hasattr(tree, "branches"):  # an RNTuple; what a field consists of comes with the field
        return {name: tree[name] for name in tree.keys(recursive=False)}
    found = {path: branch for path, branch in tree.iteritems(recursive=True) if not branch.branches}
    times = Counter(branch.name for branch in found.values())
    return {
        (branch.name if times[branch.name] == 1 else path.replace("/", ".")): branch for path, branch in found.items()
    }


def _array(branch: Any, start: int, stop: int) -> Any:
    return branch.array(entry_start=start, entry_stop=stop, library="ak")


def _empty(branch: Any) -> Any:
    """Return the layout of no entry; no basket is read, so that a damaged one is not taken for an unknown type."""
    if not hasattr(branch, "interpretation"):
        return _array(branch, 0, 0).layout
    return branch.interpretation.awkward_form(branch.file).length_zero_array(highlevel=False)


class _UnsuitedError(Exception):
    """A branch has a type that can't be converted."""


def _describe(layout: Any) -> dict[str, Field]:
    """Return what an array becomes: suffix of the key -> field."""
    fields = {}
    for suffix, values in _values(layout).items():
        if isinstance(values, Rows):
            columns = {name: Column(array.dtype, array.shape[1:]) for name, array in values.columns.items()}
            fields[suffix] = Field.ragged(columns)
        else:
            fields[suffix] = Field.dense(values.dtype, values.shape[1:])
    return fields


def _values(layout: Any) -> dict[str, NDArray[Any] | Rows]:
    """Return the values of an awkward array: suffix of the key -> array or rows.

    Raises:
        _UnsuitedError: It is neither of one shape nor rows of one shape.
    """
    import awkward as ak

    layout = _plain(layout)
    if layout.is_record:
        made = {}
        for name in layout.fields:
            for suffix, values in _values(layout.content(name)).items():
                made[f".{name}{suffix}"] = values
        return made
    if isinstance(layout, ak.contents.ListOffsetArray | ak.contents.ListArray):
        listed = layout.to_ListOffsetArray64(True)
        offsets = np.asarray(listed.offsets.data)
        content = _plain(listed.content[: int(offsets[-1])])
        parts = {name: content.content(name) for name in content.fields} if content.is_record else {"values": content}
        if "offsets" in parts:
            raise _UnsuitedError("a member is called 'offsets', which is the name of the events' bounds")
        columns = {name: _numbers(part) for name, part in parts.items()}
        return {"": Rows(columns, np.diff(offsets).astype(np.int64))}
    return {"": _numbers(layout)}


def _plain(layout: Any) -> Any:
    if layout.parameter("__array__") in ("string", "bytestring", "char", "byte"):
        raise _UnsuitedError("it is text")
    if layout.is_indexed and not layout.is_option:
        return _plain(layout.project())
    if layout.is_option:
        raise _UnsuitedError("some of its values may be missing")
    if layout.is_union:
        raise _UnsuitedError("its values are of several types")
    return layout


def _numbers(layout: Any) -> NDArray[Any]:
    import awkward as ak

    inner = layout = _plain(layout)
    while inner.is_regular:
        inner = _plain(inner.content)
    if inner.is_list:
        raise _UnsuitedError("it has lists of any length within lists of any length")
    if inner.is_record:
        raise _UnsuitedError("it has objects within arrays")
    array = ak.to_numpy(layout, allow_missing=False)
    if reason := unsuited(array.dtype, array.shape[1:]):
        raise _UnsuitedError(reason)
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))
