"""Parcels: any object goes through a slot and comes out equal, in views of the slot."""

import gc
import threading
import weakref
from collections import OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hepfeed.errors import ProcessError
from hepfeed.parcel import AsTensor, pack, unpack
from hepfeed.ring import Ring
from hepfeed.room import Room

Pair = namedtuple("Pair", ["left", "right"])

DTYPES = [
    *(torch.bool, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32),
    *(torch.uint64, torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex32, torch.complex64),
    *(torch.complex128, torch.float8_e4m3fn, torch.float8_e5m2),
]
ARRAYS = [
    np.arange(12, dtype=np.float32).reshape(3, 4),
    np.arange(12).reshape(3, 4).T,
    np.arange(24)[::2],
    np.arange(10)[::-1],
    np.arange(1000).reshape(100, 10)[:, 3],
    np.array(3.5),
    np.empty((0, 3), np.int16),
    np.arange(5, dtype=">i4"),
    np.array(["2017-01-01", "NaT"], "M8[D]"),
    np.array([3, 4], "m8[ns]"),
    np.array(["abc", "d"]),
    np.array([b"abc", b"d"]),
    np.array([(1, 2.5), (3, 4.5)], [("a", "i1"), ("b", ">f8")]),
    np.broadcast_to(np.arange(3), (1000, 3)),
    np.array([True, False]),
    np.arange(3, dtype=np.float16),
    np.arange(3, dtype=np.longdouble),
    np.arange(3) * 1j,
    np.array([1, "a", None, np.arange(3)], dtype=object),
]


@dataclass
class Event:
    energy: Any
    name: str


class Marked(torch.Tensor):
    pass


@pytest.fixture
def ring():
    ring = Ring()
    yield ring
    ring.close()


@pytest.fixture
def send(ring):
    """Pack and unpack, by way of a lease of the slot."""

    def sent(value):
        slot = ring.acquire(1)
        parcel = pack(value, Room(ring.view, slot))
        return unpack(parcel, ring.lease(slot, max(parcel.bytes, 1)))

    return sent


def same(a, b):
    """Whether two objects are equal in types, dtypes, shapes, strides and bits."""
    if isinstance(a, torch.Tensor):
        return (
            type(a) is type(b)
            and (a.dtype, a.shape, a.requires_grad, a.layout) == (b.dtype, b.shape, b.requires_grad, b.layout)
            and same_numbers(a, b)
        )
    if isinstance(a, np.ndarray):
        if type(a) is not type(b) or a.dtype != b.dtype or a.shape != b.shape:
            return False
        if a.dtype.hasobject:
            return all(same(x, y) for x, y in zip(a.flat, b.flat))
        return a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return type(a) is type(b) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or a != a)


def same_numbers(a, b):
    if a.layout is not torch.strided:
        return torch.equal(a.to_dense().detach(), b.to_dense().detach())
    a, b = a.detach().contiguous().resolve_conj().resolve_neg(), b.detach().contiguous()
    return a.flatten().view(torch.uint8).tolist() == b.flatten().view(torch.uint8).tolist()


def random_tensor(dtype, shape):
    made = torch.randint(0, 2, (*shape, dtype.itemsize), dtype=torch.uint8)
    return made.view(dtype).reshape(shape)


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (5, 7), (2, 3, 4, 5)], ids=str)
def test_dense_tensors_of_every_dtype_and_shape_come_out_bit_for_bit(send, dtype, shape):
    given_ = random_tensor(dtype, shape)
    assert same(given_, send(given_))
    assert send(given_).stride() == given_.stride()


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{a.shape}")
def test_arrays_of_every_dtype_and_order_come_out_bit_for_bit(send, array):
    made = send(array)
    assert same(array, made)
    assert made.flags.writeable


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x.to(memory_format=torch.channels_last),
        lambda x: x.transpose(0, 3),
        lambda x: x[:, :, ::2],
        lambda x: x[:, 1:],
        lambda x: x[:1].expand(6, -1, -1, -1),
        lambda x: x[0, 0, 0, :1].expand(1000, 1000),
    ],
)
def test_strides_are_kept_and_expanded_tensors_are_not_blown_up(ring, make):
    tensor = make(torch.randn(2, 3, 4, 6))
    slot = ring.acquire(1)
    parcel = pack(tensor, Room(ring.view, slot))
    made = unpack(parcel, ring.lease(slot, parcel.bytes))
    assert torch.equal(made, tensor)
    assert made.stride() == tensor.stride()
    assert parcel.bytes <= 2 * 3 * 4 * 6 * 4 + 128


def test_a_view_of_something_large_sends_its_own_bytes_only(ring):
    large = torch.arange(1_000_000)
    rows = np.arange(1_000_000).reshape(1000, 1000)
    for view in (large[500:510], large[::1000], rows[3:5], rows[:, 7]):
        slot = ring.acquire(1)
        parcel = pack(view, Room(ring.view, slot))
        assert parcel.bytes <= 2 * view.nbytes + 128
        assert unpack(parcel, ring.lease(slot, parcel.bytes)).tolist() == view.tolist()


def test_conjugated_and_negated_views_have_the_right_numbers(send):
    x = torch.tensor([1 + 2j, 3 - 4j])
    assert send(x.conj()).tolist() == [1 - 2j, 3 + 4j]
    assert send(x.conj().imag).tolist() == [-2.0, 4.0]


def test_tensors_that_share_memory_share_it_afterwards(send):
    x = torch.arange(12.0)
    parts = send(
        {
            "part": x[2:5],
            "whole": x,
            "matrix": x.view(3, 4),
            "again": x,
            "array": x.numpy(),
            "bytes": x.view(torch.uint8),
        }
    )
    assert parts["whole"] is parts["again"]
    parts["whole"][3] = 100
    assert parts["part"][1] == parts["matrix"][0, 3] == parts["array"][3] == 100
    assert parts["bytes"].view(torch.float32)[3] == 100
    assert parts["part"].untyped_storage().data_ptr() == parts["matrix"].untyped_storage().data_ptr()


def test_neighbours_in_memory_are_not_joined(send):
    x = torch.arange(12.0)
    left, right = send((x[:6], x[6:]))
    left += 1
    assert right.tolist() == [6, 7, 8, 9, 10, 11]


def test_arrays_that_share_memory_share_it_afterwards(send):
    x = np.arange(12)
    whole, part, backwards = send((x, x[3:6], x[::-1]))
    whole[4] = 100
    assert part[1] == backwards[7] == 100


def test_a_leaf_keeps_its_gradient_flag_and_anything_else_is_refused_as_torch_does(send):
    leaf = torch.randn(3, requires_grad=True)
    made = send(leaf)
    assert made.requires_grad
    assert made.is_leaf
    for wrong in (leaf * 2, (leaf * 2).as_subclass(Marked)):
        with pytest.raises(RuntimeError, match="Cowardly refusing to serialize non-leaf tensor which requires_grad"):
            send([wrong])


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.nn.Parameter(torch.randn(4, 3)),
        lambda: torch.nn.Parameter(torch.randn(3), requires_grad=False),
        lambda: torch.randn(4, 3).as_subclass(Marked),
        lambda: torch.randn(4, 3).as_subclass(Marked).requires_grad_(),
        lambda: torch.eye(5).to_sparse(),
        lambda: torch.eye(5).to_sparse().requires_grad_(),
        lambda: torch.sparse_coo_tensor([[0, 0], [1, 1]], [1.0, 2.0], (2, 2), check_invariants=False),
    ],
)
def test_parameters_subclasses_and_sparse_tensors_come_out_as_they_were(send, make):
    tensor = make()
    assert same(tensor, send(tensor))
    if tensor.layout is torch.sparse_coo:
        assert send(tensor).is_coalesced() == tensor.is_coalesced()


@pytest.mark.filterwarnings("ignore:Sparse .* is in beta")
@pytest.mark.parametrize("layout", ["csr", "csc", "bsr", "bsc"])
def test_compressed_sparse_tensors_come_out_as_they_were(ring, layout):
    tensor = getattr(torch.eye(64), f"to_sparse_{layout}")(*([(2, 2)] if layout.startswith("b") else []))
    slot = ring.acquire(1)
    parcel = pack(tensor, Room(ring.view, slot))
    made = unpack(parcel, ring.lease(slot, parcel.bytes))
    assert same(tensor, made)
    assert parcel.bytes > 64 * 8
    assert len(parcel.structure) < 400


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_come_out_as_they_were(send):
    parts = [torch.randn(2, 3), torch.randn(4, 3)]
    for layout in (torch.strided, torch.jagged):
        made = send(torch.nested.nested_tensor(parts, layout=layout))
        assert made.is_nested
        assert all(torch.equal(a, b) for a, b in zip(made.unbind(), parts))


@pytest.mark.filterwarnings("ignore")
def test_quantised_tensors_travel_outside_of_the_pickle(ring):
    tensor = torch.quantize_per_tensor(torch.randn(100, 100), 0.1, 3, torch.qint8)
    slot = ring.acquire(1)
    parcel = pack(tensor, Room(ring.view, slot))
    assert parcel.bytes >= 10_000 > 10 * len(parcel.structure)
    made = unpack(parcel, ring.lease(slot, parcel.bytes))
    assert torch.equal(made.int_repr(), tensor.int_repr())
    assert made.q_scale() == tensor.q_scale()


def test_storages_travel_too(send):
    storage = torch.arange(5.0).untyped_storage()
    assert send(storage).tolist() == storage.tolist()
    assert send(torch.UntypedStorage(0)).nbytes() == 0


def test_attributes_of_tensors_are_kept(send):
    tensor, sparse = torch.arange(3), torch.eye(3).to_sparse()
    tensor.note = sparse.note = {"run": torch.arange(2)}
    assert send(tensor).note["run"].tolist() == send(sparse).note["run"].tolist() == [0, 1]
    marked = torch.arange(3).as_subclass(Marked)
    marked.note = "m"
    assert send(marked).note == "m"


def test_misaligned_tensors_have_the_right_numbers(send):
    data = bytearray(b"x" + np.arange(5.0).tobytes())
    tensor = torch.frombuffer(data, dtype=torch.float64, offset=1, count=5)
    assert send(tensor).tolist() == [0, 1, 2, 3, 4]
    array = np.frombuffer(data, np.float64, offset=1)
    assert send(array).tolist() == [0, 1, 2, 3, 4]
    assert send(AsTensor(array)).tolist() == [0, 1, 2, 3, 4]


def test_subclasses_of_arrays_come_out_as_they_were(send, tmp_path):
    mapped = np.memmap(tmp_path / "x", np.int32, "w+", shape=(10,))
    mapped[:] = range(10)
    made = send(mapped)
    assert type(made) is np.memmap
    assert made.tolist() == list(range(10))
    record = send(np.array([(1, 2.0)], [("a", "i4"), ("b", "f4")]).view(np.recarray))
    assert record.b.tolist() == [2.0]
    masked = send(np.ma.array([1, 2], mask=[False, True]))
    assert masked.tolist() == [1, None]
    del mapped


def test_an_array_can_come_out_as_a_tensor(send):
    for array in (
        np.arange(6).reshape(2, 3),
        np.arange(6.0).reshape(2, 3).T,
        np.array(True),
        np.empty((0, 2), np.uint16),
    ):
        made = send(AsTensor(array))
        assert type(made) is torch.Tensor
        assert made.numpy().dtype == array.dtype
        assert made.tolist() == array.tolist()
        assert not array.size or made.stride() == torch.from_numpy(array).stride()


def test_everything_else_is_pickled_as_usual(send):
    value = {
        "pair": Pair(torch.arange(3), "x"),
        "ordered": OrderedDict(a=1, b=np.arange(2)),
        "default": defaultdict(list, a=[torch.ones(2)]),
        "set": {1, 2},
        "bytes": b"123",
        "none": None,
        "number": np.float32(1.5),
        "size": torch.Size([1, 2]),
        "dtype": torch.bfloat16,
    }
    made = send(value)
    assert {key: type(each) for key, each in made.items()} == {key: type(each) for key, each in value.items()}
    assert made["pair"].left.tolist() == [0, 1, 2]
    assert made["default"]["new"] == []
    event = send(Event(torch.arange(2), "e"))
    assert isinstance(event, Event)
    assert event.energy.tolist() == [0, 1]
    assert send(SimpleNamespace(x=np.arange(2))).x.tolist() == [0, 1]
    packed = torch.nn.utils.rnn.pack_sequence([torch.arange(3.0), torch.arange(2.0)])
    made = send(packed)
    assert type(made) is type(packed)
    assert made.data.tolist() == packed.data.tolist()


def test_cycles_come_out_as_cycles(send):
    value = [torch.arange(3)]
    value.append(value)
    made = send(value)
    assert made[1] is made


def test_what_cannot_be_pickled_is_named(send):
    with pytest.raises(ProcessError, match=r"a batch must be picklable, and _thread.lock in it is not .*collate_fn"):
        send({"x": [threading.Lock()]})
    with pytest.raises(ProcessError, match=r"must be picklable, and builtins\.function"):
        send([lambda: 0])


def test_what_is_packed_is_what_was_there_and_changes_of_the_result_stay_there(send):
    tensor = torch.arange(5)
    made = send(tensor)
    made += 1
    assert tensor.tolist() == [0, 1, 2, 3, 4]
    assert not made._is_view()


@pytest.fixture
def no_collector():
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_the_slot_comes_back_at_once_when_the_last_of_its_views_is_gone(ring):
    value = {"a": torch.randn(3, 3), "b": np.arange(4), "c": torch.randn(4).bfloat16(), "d": torch.eye(3).to_sparse()}
    for last in value:
        slot = ring.acquire(1)
        parcel = pack(value, Room(ring.view, slot))
        lease = ring.lease(slot, parcel.bytes)
        dead = weakref.ref(lease)
        made = unpack(parcel, lease)
        del lease
        kept = made[last]
        del made
        assert dead() is not None, last
        del kept
        assert dead() is None, last
        ring.reclaim()
        assert ring.leased == 0


def test_a_copy_of_the_memory_frees_the_slot_at_once(ring):
    slot = ring.acquire(1)
    parcel = pack(torch.arange(5), Room(ring.view, slot))
    lease = ring.lease(slot, parcel.bytes)
    made = unpack(parcel, lease.copy())
    lease[:] = 0
    del lease
    ring.reclaim()
    assert ring.leased == 0
    assert made.tolist() == [0, 1, 2, 3, 4]


def test_arrays_that_were_made_in_the_slot_are_not_copied(ring):
    slot = ring.acquire(1)
    room = Room(ring.view, slot)
    array = room.array((1000,), np.float32)
    array[:] = np.arange(1000)
    used = room.used
    parcel = pack({"array": array, "part": array[10:20], "tensor": torch.from_numpy(array)}, room)
    assert parcel.bytes == used == 4000
    made = unpack(parcel, ring.view.bytes(slot, parcel.bytes))
    array[12] = -1
    assert made["array"][12] == made["part"][2] == made["tensor"][12] == -1


def test_a_slot_that_grows_keeps_what_was_made_in_it(ring):
    slot = ring.acquire(1)
    room = Room(ring.view, slot)
    arrays = [room.array((3000 * (i + 1),), np.uint8) for i in range(10)]
    for i, array in enumerate(arrays):
        array[:] = i
    used = room.used
    parcel = pack([*arrays, torch.full((100_000,), 7)], room)
    made = unpack(parcel, ring.view.bytes(slot, parcel.bytes))
    assert [set(array.tolist()) for array in made[:10]] == [{i} for i in range(10)]
    assert (made[10] == 7).all()
    assert parcel.bytes <= used + 800_000 + 128


def test_an_array_of_the_slot_that_outlives_its_batch_is_neither_changed_nor_changes_anything(ring):
    slot = ring.acquire(1)
    room = Room(ring.view, slot)
    kept = room.array((5000,), np.int32)
    kept[:] = 1
    other = room.array((5000,), np.int32)
    other[:] = 2
    parcel = pack([kept, other], room)
    del other
    room.leave()
    made = unpack(parcel, ring.lease(slot, parcel.bytes))
    made[0][:] = 5
    made[1][:] = 6
    assert set(kept.tolist()) == {1}
    kept[:] = 9
    assert set(made[0].tolist()) == {5}
    del made
    room = Room(ring.view, ring.acquire(1))
    room.array((5000,), np.int32)[:] = 3
    room.leave()
    assert set(kept.tolist()) == {9}


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.binary(max_size=5),
    hnp.arrays(hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)),
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_side=4)).map(torch.from_numpy),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.builds(Pair, inner, inner),
        st.dictionaries(st.text(max_size=3), inner, max_size=4),
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(TREES)
def test_any_nesting_of_containers_arrays_and_objects_comes_out_equal(value):
    ring = Ring()
    slot = ring.acquire(1)
    parcel = pack(value, Room(ring.view, slot))
    assert same(value, unpack(parcel, ring.lease(slot, max(parcel.bytes, 1)).copy()))
    ring.close()


def test_a_batch_in_a_pickle_alone_says_how_to_load_it(ring):
    import pickle

    parcel = pack(torch.arange(3), Room(ring.view, ring.acquire(1)))
    with pytest.raises(ProcessError, match=r"use hepfeed.parcel.unpack"):
        pickle.loads(parcel.structure)
