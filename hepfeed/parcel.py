"""Parcels: any object on its way through a slot of the ring.

The arrays and tensors of a batch lie in the slot, everything else is a pickle that names them by number.  So numbers
are copied once at most (not at all where they were made in the slot), and what the consumer gets are views of it.

Memory that arrays and tensors of one batch share is sent once, and shared again afterwards.  Nothing is blown up:
strides are kept, and so are dimensions of stride 0.  Of a view of something larger only the bytes between its first
and its last element are sent, or a contiguous copy where these would be over twice its own.

This module does not import torch: there are no tensors to pack where nobody has.
"""

from __future__ import annotations

import ctypes
import functools
import io
import itertools
import pickle
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfeed.errors import ProcessError
from hepfeed.room import Room

__all__ = ["AsTensor", "Parcel", "pack", "unpack"]

_Octets = bytes
_ALIGN = 64  # a cache line
_WIDEST = 16  # bytes of the largest number, complex128: torch counts a tensor's place in its storage in numbers
_WASTE = 2  # a view that spans over so many times its own bytes is made contiguous
_BUILTIN_TYPES = 24  # numbers of NumPy's own dtypes; others are not described by their letters
_NON_LEAF = (
    "Cowardly refusing to serialize non-leaf tensor which requires_grad, since autograd does not support crossing"
    " process boundaries.  If you just want to transfer the data, call detach() on the tensor before serializing"
    " (e.g., putting it on the queue)."
)

_NUMPY = {
    name: np.dtype(name)
    for name in (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64", "complex64", "complex128"),
    )
}
"""Dtypes that torch and NumPy share, by their names; tensors of these are made of arrays, which is the fastest."""
_ARRAY, _TENSOR, _STORAGE = range(3)


@dataclass(frozen=True)
class AsTensor:
    """An array that the consumer gets as a torch tensor.

    Attributes:
        array: Of a dtype that torch has, in native byte order, with strides that torch can have.
    """

    array: NDArray[Any]


@dataclass
class Parcel:
    """What is needed beside the memory of a slot to make an object again.

    Attributes:
        structure: The pickled object, arrays and tensors by number.
        places: ``(first byte, bytes)`` of each piece of memory in the slot.
        records: What each array and tensor is: kind, piece (-1: no bytes), first byte, shape, strides (None:
            contiguous; of arrays in bytes, of tensors in numbers), dtype, and a subclass or ``requires_grad``.
        bytes: Of the slot that are in use.
        state: Pickled state of a stateful dataset after this fetch, or None.
        random: Random states after this fetch, or None where they are as after the last.
        examples: Of the dataset that the object was made of.
        spent_ns: For making it.
    """

    structure: _Octets
    places: tuple[tuple[int, int], ...]
    records: tuple[tuple[Any, ...], ...]
    bytes: int
    state: _Octets | None = None
    random: _Octets | None = None
    examples: int = 1
    spent_ns: int = 0


def pack(value: object, room: Room) -> Parcel:
    """Put an object's arrays and tensors into a slot.

    Dense CPU tensors of every dtype travel so, and the dense parts of sparse, nested and quantised tensors, parameters
    and subclasses; arrays of every dtype but those of Python objects.

    Args:
        value: Anything that pickles.
        room: Around the slot; what was made in it is left where it is.

    Raises:
        ProcessError: Something in ``value`` can't be pickled.
        RuntimeError: A tensor requires a gradient and is no leaf; as torch's own loader.
        ResourceError: There is no memory for it.
    """
    stream = io.BytesIO()
    packer = _Packer(stream)
    try:
        packer.dump(value)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        kind = packer.last
        raise ProcessError(
            f"a batch must be picklable, and {kind.__module__}.{kind.__qualname__} in it is not ({error}):"
            " leave it out, or turn it into arrays, tensors or plain objects in the dataset or in collate_fn"
        ) from error
    places, records = _placed(packer, room)
    return Parcel(stream.getvalue(), places, records, room.used)


def unpack(parcel: Parcel, memory: NDArray[np.uint8]) -> Any:
    """Return the object of a parcel.

    Args:
        parcel: From :func:`pack`.
        memory: ``(n,) uint8``, writable: the slot's bytes, at least ``parcel.bytes``, or a copy of them.  The arrays
            and tensors of the object are views of it that may be written to, and keep it alive.
    """
    unpacker = _Unpacker(parcel, memory)
    try:
        return unpacker.load()
    finally:
        unpacker.memo.clear()  # it holds a method of the unpacker, and so the memory until the collector comes


# ---- the reader's side ---------------------------------------------------------------------------------------------


class _Packer(pickle.Pickler):
    """Pickles an object, and notes its arrays and tensors.

    Attributes:
        spans: ``(address, bytes)`` of what each record needs, None for nothing.
        records: As of :class:`Parcel`, with an address in the place of piece and first byte.
        kept: What the addresses point into.
        last: Type of the last object that was looked at.
    """

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream, protocol=5)
        self.spans: list[tuple[int, int] | None] = []
        self.records: list[tuple[Any, ...]] = []
        self.kept: list[object] = []
        self.last: type = object
        torch = self._torch = _torch()
        self._can_be_named = hasattr(torch, "Tensor") and hasattr(torch.Tensor, "has_names")  # newer torch: no more

    def reducer_override(self, value: Any) -> Any:
        """Replace arrays, tensors and storages by their numbers."""
        kind: Any = type(value)
        self.last = kind
        if kind is np.ndarray:
            return NotImplemented if value.dtype.hasobject else self._array(value, None)
        if kind is AsTensor:
            return self._as_tensor(value.array)
        torch = self._torch
        if torch is not None:
            if kind is torch.Tensor:
                return self._tensor(value)
            if isinstance(value, torch.Tensor):
                return self._subclassed(value)
            if kind is torch.UntypedStorage:
                return self._storage(value)
            if kind is torch.TypedStorage:
                untyped = value._untyped_storage
                return NotImplemented if untyped.device.type != "cpu" else (_typed_storage, (untyped, value.dtype))
        if isinstance(value, np.ndarray) and _pickles_as_plain_array(kind) and not value.dtype.hasobject:
            return self._array(value.view(np.ndarray), kind)
        return NotImplemented

    def _note(self, span: tuple[int, int] | None, record: tuple[Any, ...], owner: object) -> tuple[Any, ...]:
        self.spans.append(span)
        self.records.append(record)
        self.kept.append(owner)
        return _made, (len(self.records) - 1,)

    def _array(self, array: NDArray[Any], subclass: type | None) -> tuple[Any, ...]:
        strides = None
        if not array.flags.c_contiguous:
            low, high = _bounds(array)
            if high - low > _WASTE * array.nbytes:
                array = np.ascontiguousarray(array)
            else:
                strides = array.strides
        dtype = _description(array.dtype)
        if not array.nbytes:
            return self._note(None, (_ARRAY, 0, array.shape, None, dtype, subclass), None)
        address = array.__array_interface__["data"][0]
        if strides is None:
            span = address, array.nbytes
        else:
            span = low, high - low
        return self._note(span, (_ARRAY, address, array.shape, strides, dtype, subclass), array)

    def _as_tensor(self, array: NDArray[Any]) -> tuple[Any, ...]:
        item = array.itemsize
        strides = None
        extent = array.nbytes
        if not array.flags.c_contiguous:
            extent = _extent(array.shape, array.strides) + item
            if extent > _WASTE * array.nbytes:
                array, extent = np.ascontiguousarray(array), array.nbytes
            else:
                strides = tuple(stride // item for stride in array.strides)
        address = array.__array_interface__["data"][0]
        if address % item:
            array, strides, extent = array.copy("C"), None, array.nbytes
            address = array.__array_interface__["data"][0]
        record = (_TENSOR, address, array.shape, strides, array.dtype.name, False)
        return self._note((address, extent) if array.size else None, record, array)

    def _tensor(self, tensor: Any) -> Any:
        torch = self._torch
        if tensor.requires_grad and not tensor.is_leaf:
            raise RuntimeError(_NON_LEAF)
        if tensor.is_nested:
            reduced = tensor.detach().__reduce_ex__(5)
            return (_with_gradient, (_Reduced(reduced), True)) if tensor.requires_grad else reduced
        layout = tensor.layout
        if layout is not torch.strided:
            return self._sparse(tensor)
        if tensor.is_quantized or not tensor.is_cpu:
            return NotImplemented
        if self._can_be_named and tensor.has_names():
            torch._namedtensor_internals.check_serializing_named_tensor(tensor)  # raises
        needs_gradient, attributes = tensor.requires_grad, tensor.__dict__
        if needs_gradient:
            tensor = tensor.detach()
        if tensor.is_conj():
            tensor = tensor.resolve_conj()
        if tensor.is_neg():
            tensor = tensor.resolve_neg()
        name, item = _name_and_size(tensor.dtype)
        shape, strides = tuple(tensor.shape), None
        count = extent = tensor.numel()
        if not tensor.is_contiguous():
            strides = tensor.stride()
            extent = _extent(shape, strides) + 1
            if extent > _WASTE * count:
                tensor, strides, extent = tensor.contiguous(), None, count
        address = tensor.data_ptr()
        if count and address % item:
            tensor, strides, extent = tensor.clone(memory_format=torch.contiguous_format), None, count
            address = tensor.data_ptr()
        span = (address, extent * item) if count else None
        record = (_TENSOR, address, shape, strides if count else tensor.stride(), name, needs_gradient)
        reduced = self._note(span, record, tensor)
        return (*reduced, attributes, None, None, _set_attributes) if attributes else reduced

    def _sparse(self, tensor: Any) -> Any:
        torch = self._torch
        layout, plain = tensor.layout, tensor.detach()
        if layout is torch.sparse_coo:
            parts: tuple[Any, ...] = plain._indices(), plain._values()
        elif layout in (torch.sparse_csr, torch.sparse_bsr):
            parts = plain.crow_indices(), plain.col_indices(), plain.values()
        elif layout in (torch.sparse_csc, torch.sparse_bsc):
            parts = plain.ccol_indices(), plain.row_indices(), plain.values()
        else:
            return NotImplemented
        is_coalesced = layout is torch.sparse_coo and plain.is_coalesced()
        arguments = parts, tuple(tensor.shape), str(layout), is_coalesced, tensor.requires_grad
        if not tensor.__dict__:
            return _sparse, arguments
        return _sparse, arguments, tensor.__dict__, None, None, _set_attributes

    def _subclassed(self, tensor: Any) -> Any:
        torch = self._torch
        kind = type(tensor)
        is_plain = (
            kind.__reduce_ex__ is torch.Tensor.__reduce_ex__
            and kind.__torch_dispatch__ is torch.Tensor.__torch_dispatch__
        )
        if not is_plain:  # a parameter, or a tensor made of tensors: it says itself what its parts are
            return NotImplemented
        if tensor.requires_grad and not tensor.is_leaf:
            raise RuntimeError(_NON_LEAF)
        with torch._C.DisableTorchFunctionSubclass():
            plain = tensor.detach().as_subclass(torch.Tensor)
            return _subclass, (plain, kind, tensor.requires_grad, torch._utils._get_obj_state(tensor))

    def _storage(self, storage: Any) -> Any:
        if storage.device.type != "cpu":
            return NotImplemented
        size = storage.nbytes()
        span = (storage.data_ptr(), size) if size else None
        return self._note(span, (_STORAGE, storage.data_ptr(), size), storage)


def _placed(packer: _Packer, room: Room) -> tuple[tuple[tuple[int, int], ...], tuple[tuple[Any, ...], ...]]:
    """Give every piece of memory its place in the slot, and copy it there if it is not there yet."""
    pieces, piece_of = _pieces(packer.spans)
    places: list[tuple[int, int]] = []
    origins, copies = [], []
    is_new, size_of_all = not room.used, 0
    for low, size in pieces:
        pad = low % _WIDEST  # kept, so that numbers are aligned as they were
        place = None if is_new else room.find(low, size)
        if place is None:
            copies.append((len(places), low - pad, size_of_all))
            place = size_of_all + pad
            size_of_all += -(-(pad + size) // _ALIGN) * _ALIGN
        places.append((place - pad, pad + size))
        origins.append(low - pad)
    if copies:
        begin = room.allocate(size_of_all)
        address = room.address(begin)
        for number, origin, at in copies:
            size = places[number][1]
            pad = pieces[number][0] - origin
            ctypes.memmove(address + at + pad, origin + pad, size - pad)
            places[number] = begin + at, size
    users = [0] * len(pieces)
    for piece in piece_of:
        if piece >= 0:
            users[piece] += 1
    records = []
    for (kind, address, *rest), piece in zip(packer.records, piece_of):
        if piece < 0:
            records.append((kind, -1, 0, *rest))
            continue
        if kind == _TENSOR and rest[1] is None and users[piece] > 1:  # strides say that it shares a storage
            rest[1] = _contiguous(rest[0])
        records.append((kind, piece, address - origins[piece], *rest))
    return tuple(places), tuple(records)


def _pieces(spans: list[tuple[int, int] | None]) -> tuple[list[tuple[int, int]], list[int]]:
    """Join spans that overlap; returns ``(address, bytes)`` of the pieces, and which of them each span is in."""
    order = sorted((span[0], span[1], number) for number, span in enumerate(spans) if span is not None)
    pieces: list[tuple[int, int]] = []
    piece_of = [-1] * len(spans)
    end = 0
    for low, size, number in order:
        if pieces and low < end:
            end = max(end, low + size)
            pieces[-1] = pieces[-1][0], end - pieces[-1][0]
        else:
            end = low + size
            pieces.append((low, size))
        piece_of[number] = len(pieces) - 1
    return pieces, piece_of


def _bounds(array: NDArray[Any]) -> tuple[int, int]:
    """Return the address of an array's first byte in memory, and of the one after its last."""
    low = high = array.__array_interface__["data"][0]
    for size, stride in zip(array.shape, array.strides):
        reach = (size - 1) * stride
        low, high = low + min(reach, 0), high + max(reach, 0)
    return low, high + array.itemsize


def _extent(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Return how far the last element lies behind the first; strides are not negative."""
    return sum((size - 1) * stride for size, stride in zip(shape, strides)) if all(shape) else 0


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of a contiguous tensor, in numbers."""
    sizes = [max(size, 1) for size in shape[:0:-1]]
    return tuple(itertools.accumulate(sizes, lambda a, b: a * b, initial=1))[::-1] if shape else ()


def _description(dtype: np.dtype[Any]) -> object:
    """Describe a dtype as shortly as possible."""
    if dtype.num < _BUILTIN_TYPES and dtype.kind != "V" and dtype.metadata is None:
        return dtype.str
    return dtype


@functools.cache
def _pickles_as_plain_array(kind: Any) -> bool:
    """Whether a subclass of arrays keeps nothing but its class when it is pickled, as memory maps do."""
    names = "__reduce__", "__reduce_ex__", "__setstate__"
    return all(getattr(kind, name) is getattr(np.ndarray, name) for name in names)


@functools.cache
def _name_and_size(dtype: Any) -> tuple[str, int]:
    """Return the name and the bytes of a number of torch's."""
    return str(dtype).removeprefix("torch."), dtype.itemsize


def _torch() -> Any:
    """Return torch if it was imported."""
    torch = sys.modules.get("torch")
    return torch if hasattr(torch, "Tensor") else None


# ---- the consumer's side -------------------------------------------------------------------------------------------


def _made(number: int) -> Any:
    """Stand for an array, tensor or storage in a pickle."""
    raise ProcessError(f"array {number} of a batch lies in shared memory: use hepfeed.parcel.unpack to load the batch")


class _Unpacker(pickle.Unpickler):
    """Makes arrays, tensors and storages of memory."""

    def __init__(self, parcel: Parcel, memory: NDArray[np.uint8]) -> None:
        super().__init__(io.BytesIO(parcel.structure))
        self._parcel = parcel
        self._memory = memory
        self._storages: dict[int, Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Import what the pickle names."""
        if name == "_made" and module == __name__:
            return self._make
        return super().find_class(module, name)

    def _make(self, number: int) -> Any:
        kind, piece, at, *rest = self._parcel.records[number]
        if kind == _ARRAY:
            return self._array(piece, at, *rest)
        if kind == _TENSOR:
            return self._tensor(piece, at, *rest)
        return self._storage(piece, at, *rest)

    def _array(
        self,
        piece: int,
        at: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...] | None,
        dtype: Any,
        subclass: type[NDArray[Any]] | None,
    ) -> NDArray[Any]:
        if piece < 0:
            array: NDArray[Any] = np.empty(shape, dtype)
        else:
            array = np.ndarray(shape, dtype, self._memory, self._parcel.places[piece][0] + at, strides)
        return array if subclass is None else array.view(subclass)

    def _tensor(
        self,
        piece: int,
        at: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...] | None,
        dtype: str,
        needs_gradient: bool,
    ) -> Any:
        import torch

        if strides is None and piece >= 0 and dtype in _NUMPY:
            start = self._parcel.places[piece][0] + at
            tensor = torch.from_numpy(np.ndarray(shape, _NUMPY[dtype], self._memory, start))
        else:
            kind = getattr(torch, dtype)
            if strides is None:
                strides = _contiguous(shape)
            if piece < 0:
                tensor = torch.empty_strided(shape, strides, dtype=kind)
            else:
                tensor = torch.empty(0, dtype=kind).set_(self._whole(piece), at // kind.itemsize, shape, strides)
        return tensor.requires_grad_() if needs_gradient else tensor

    def _whole(self, piece: int) -> Any:
        """Return the storage of a piece, the same for all tensors in it."""
        import torch

        if piece not in self._storages:
            start, size = self._parcel.places[piece]
            whole = torch.frombuffer(self._memory, dtype=torch.uint8, count=size, offset=start)
            self._storages[piece] = whole.untyped_storage()
        return self._storages[piece]

    def _storage(self, piece: int, at: int, size: int) -> Any:
        import torch

        if piece < 0:
            return torch.UntypedStorage(0)  # type: ignore[no-untyped-call]
        start = self._parcel.places[piece][0] + at
        return torch.frombuffer(self._memory, dtype=torch.uint8, count=size, offset=start).untyped_storage()


class _Reduced:
    """Pickles as an object that was reduced already."""

    def __init__(self, reduced: tuple[Any, ...]) -> None:
        self._reduced = reduced

    def __reduce__(self) -> tuple[Any, ...]:
        return self._reduced


def _with_gradient(tensor: Any, needs_gradient: bool) -> Any:
    return tensor.requires_grad_(needs_gradient)


def _typed_storage(untyped: Any, dtype: Any) -> Any:
    import torch

    return torch.TypedStorage(wrap_storage=untyped, dtype=dtype, _internal=True)  # type: ignore[no-untyped-call]


def _sparse(parts: tuple[Any, ...], shape: tuple[int, ...], layout: str, is_coalesced: bool, gradient: bool) -> Any:
    import torch

    # Indices and values come from a tensor, so they were checked.
    if layout == "torch.sparse_coo":
        indices, values = parts
        tensor = torch.sparse_coo_tensor(indices, values, shape, check_invariants=False, is_coalesced=is_coalesced)
    else:
        kind = getattr(torch, layout.removeprefix("torch."))
        compressed, plain, values = parts
        tensor = torch.sparse_compressed_tensor(compressed, plain, values, shape, layout=kind, check_invariants=False)
    return tensor.requires_grad_(gradient)


def _subclass(plain: Any, kind: type, needs_gradient: bool, state: Any) -> Any:
    import torch

    tensor = plain.as_subclass(kind).requires_grad_(needs_gradient)
    if state:
        setter = getattr(kind, "__setstate__", None)
        if setter is not None and setter is not torch.Tensor.__setstate__:
            setter(tensor, state)
        else:
            torch._utils._set_obj_state(tensor, state)  # type: ignore[no-untyped-call]
    return tensor


def _set_attributes(value: Any, attributes: dict[str, Any]) -> None:
    vars(value).update(attributes)
