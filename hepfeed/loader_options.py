"""The section ``loader`` of a specification: how its events are best read on a machine."""

from __future__ import annotations

import os
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt

from hepfeed.errors import SpecError
from hepfeed.spec_options import validate

__all__ = ["LoaderOptions"]

_NO_FOLDERS = ("auto", "ram")


def _path(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


class LoaderOptions(BaseModel):
    """Options of :class:`hepfeed.DataProvider` that it takes from the specification where it is not given them.

    They change how fast batches come, and how large they are, but not which events there are.

    Attributes:
        batch_size: Events of a batch.
        num_workers: Readers.
        prefetch_factor: Batches ahead for each reader.
        cache: A folder, ``"auto"``, ``"ram"`` or None for no cache.
        window_events: Events of a window, at least.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch_size: Annotated[StrictInt, Field(ge=1)] = 128
    num_workers: Annotated[StrictInt, Field(ge=0)] = 2
    prefetch_factor: Annotated[StrictInt, Field(ge=1)] | None = None
    cache: Annotated[str | None, BeforeValidator(_path)] = "auto"
    window_events: Annotated[StrictInt, Field(ge=1)] | None = None

    @classmethod
    def read(cls, options: Any, root: str) -> LoaderOptions:
        """Check options; a relative folder of the cache starts from ``root``.

        Raises:
            SpecError: One is wrong or unknown.
        """
        if not isinstance(options, dict):
            raise SpecError(f"loader must be a mapping such as {{'num_workers': 4}}, not {options!r}")
        try:
            read = validate(cls, options)
        except SpecError as error:
            error.message = f"loader: {error.message}"
            raise
        if read.cache is None or read.cache in _NO_FOLDERS:
            return read
        return read.model_copy(update={"cache": os.path.join(root, os.path.expanduser(read.cache))})

    @property
    def given(self) -> dict[str, Any]:
        """The options that were given, the cache's folder as an absolute path."""
        return self.model_dump(include=self.model_fields_set)

    def written(self, directory: str) -> dict[str, Any]:
        """Return the options as a file in ``directory`` has them: a folder of a cache below it is relative."""
        options = self.given
        folder = options.get("cache")
        if folder is not None and folder not in _NO_FOLDERS:
            relative = os.path.relpath(folder, directory)
            options["cache"] = folder if relative.startswith(os.pardir) else relative
        return options

    def chosen(self, **arguments: Any) -> dict[str, Any]:
        """Return these options; those among ``arguments`` that are not None count instead."""
        return self.model_dump() | {name: value for name, value in arguments.items() if value is not None}
