"""The libraries that inflate: found among the installed packages, opened once a process."""

from __future__ import annotations

import functools
import importlib.util

from hepfeed import _core
from hepfeed.errors import ResourceError

__all__ = ["register_inflaters"]

_PACKAGES = (("libdeflate", "deflate._deflate"), ("zlib-ng", "zlib_ng.zlib_ng"))
_ZLIB = ("libz.so.1", "libz.so")  # HDF5 itself loads it


@functools.cache
def register_inflaters() -> tuple[str, ...]:
    """Open every library that is there; each data set uses the one that is fastest on its first chunks.

    Raises:
        ResourceError: None can be opened.
    """
    for library, module in _PACKAGES:
        try:
            spec = importlib.util.find_spec(module)
        except ModuleNotFoundError:  # the package itself is not installed
            continue
        if spec is not None and spec.origin:
            _core.register_inflater(library, spec.origin)
    if not _core.inflaters():  # always slower than the others, which are not there for every platform
        any(_core.register_inflater("zlib", name) for name in _ZLIB)
    if not _core.inflaters():
        raise ResourceError("no library that inflates was found: pip install deflate zlib-ng")
    return tuple(_core.inflaters())
