"""What is cached of a batch: the kind, dtype and shape of each of its arrays."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from hepfeed.errors import ProcessError
from hepfeed.tensors import Batch, Graph, Jagged, Padded, Sparse

__all__ = ["NOT_CACHED", "ArrayForm", "cell_type", "forms_of", "structured"]

Kind = Literal["dense", "jagged", "padded", "sparse", "graph"]

NOT_CACHED = ("event", "weight")
"""Come with each batch: weights depend on which events are selected."""


@dataclass(frozen=True)
class ArrayForm:
    """One array of a batch as it is delivered.

    Attributes:
        name: In the batch.
        kind: ``"dense"`` (B, *shape); or which class of :mod:`hepfeed.tensors`.
        dtype: NumPy code; of sparse arrays that of their features.
        shape: Of one event; of jagged arrays, of a row; of padded ones, of the values; of sparse ones ``(channels,)``.
        grid: Spatial shape of sparse arrays.
        stored_as: Path in a part, where that is not the name.
    """

    name: str
    kind: Kind
    dtype: str
    shape: tuple[int, ...]
    grid: tuple[int, ...] = ()
    stored_as: str = ""

    @property
    def path(self) -> str:
        """Path of its data set or group in a part."""
        return self.stored_as or self.name

    @property
    def items(self) -> int:
        """Items of one event or row."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def row_bytes(self) -> int:
        """Bytes of one event or row."""
        return self.items * np.dtype(self.dtype).itemsize

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> ArrayForm:
        """Rebuild what :meth:`to_json` wrote."""
        return cls(**{**content, "shape": tuple(content["shape"]), "grid": tuple(content["grid"])})


def cell_type(volume: int) -> np.dtype[Any]:
    """Return the smallest unsigned integer type, of 2 bytes or more, for flat numbers of ``volume`` cells."""
    return np.dtype("uint16" if volume <= 1 << 16 else "uint32" if volume <= 1 << 32 else "uint64")


def structured(form: ArrayForm, arrays: Mapping[str, Any], events: int) -> Any:
    """Return what a batch has, of its arrays by the names that its class gives them; of dense ones the name is empty.

    Args:
        form: What it is.
        arrays: NumPy arrays or torch tensors.
        events: How many events they have.
    """
    if form.kind == "dense":
        return arrays[""]
    if form.kind == "sparse":
        return Sparse(arrays["features"], arrays["indices"], form.grid, events)
    return {"jagged": Jagged, "padded": Padded, "graph": Graph}[form.kind](**arrays)


def forms_of(batch: Batch) -> tuple[ArrayForm, ...]:
    """Describe the arrays of a batch, in its order.

    Raises:
        ProcessError: The batch has something that can't be kept event by event.
    """
    if "event" not in batch:
        raise ProcessError(
            "nothing is cached, because a function before the cache point leaves out 'event', which says what each row"
            " is: let it return batch['event'] too, or use cache=None"
        )
    events = len(batch["event"])
    forms = [_form_of(name, value, events) for name, value in batch.items() if name not in NOT_CACHED]
    return tuple(replace(form, stored_as=_other_path(form.name, batch)) for form in forms)


def _other_path(name: str, names: Collection[str]) -> str:
    """Return where an array lies that can't have its name as its path, since what would be its group is an array."""
    if not any(name.startswith(f"{other}/") for other in names):
        return ""
    path = name.replace("/", ".")
    while path in names:
        path += "."
    return path


def _form_of(name: str, value: Any, events: int) -> ArrayForm:
    if isinstance(value, Jagged) and value.values.dtype.kind in "biufc":
        form = ArrayForm(name, "jagged", value.values.dtype.str, value.values.shape[1:])
    elif isinstance(value, Padded) and value.values.dtype.kind in "biufc":
        form = ArrayForm(name, "padded", value.values.dtype.str, value.values.shape[1:])
    elif isinstance(value, Sparse) and not value.kernel_maps and value.features.dtype.kind in "biufc":
        features = value.features
        form = ArrayForm(name, "sparse", features.dtype.str, features.shape[1:], tuple(value.spatial_shape))
    elif isinstance(value, Graph):
        form = ArrayForm(name, "graph", "<i4", (2,))
    elif isinstance(value, np.ndarray) and value.dtype.kind in "biufc" and value.dtype.itemsize <= 16 and value.ndim:
        form = ArrayForm(name, "dense", value.dtype.newbyteorder("=").str, value.shape[1:])
    else:
        what = f"{type(value).__name__} of {value.dtype}" if hasattr(value, "dtype") else type(value).__name__
        raise ProcessError(f"{name!r} is {what}, which can't be cached: put 'cache' before the step that makes it")
    found = len(value) if form.kind == "dense" else value.events
    if found != events:
        raise ProcessError(
            f"{name!r} has {found} rows for {events} events, so that it can't be cached event by event: put 'cache'"
            " before the step that makes it"
        )
    return form
