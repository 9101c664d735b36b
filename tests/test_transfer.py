"""Batches on their way to a device: every tensor as it was, few copies, and memory that is let go of in time.

Most tests run on a twin of the device, whose copies are made late by a thread; those marked ``gpu`` on a device too.
"""

import collections
import contextlib
import gc
import logging
import mmap
import threading
import weakref

import numpy as np
import pytest
import torch
from delayed_engine import PATTERN, standing_in
from same_batches import assert_same

from hepfeed import cuda_engine
from hepfeed.cuda_engine import CudaEngine
from hepfeed.errors import SpecError
from hepfeed.ring import Ring
from hepfeed.shipment import Shipment
from hepfeed.tensors import Graph, Jagged, KernelMap, Padded, Sparse
from hepfeed.transfer import Transfer, as_device
from hepfeed.walk import map_tensors

LARGE = 64 << 10
has_cuda = torch.cuda.is_available()


@pytest.fixture
def twin(monkeypatch):
    with standing_in(monkeypatch) as kind:
        yield kind


@pytest.fixture(params=["twin", pytest.param("cuda", marks=pytest.mark.gpu)])
def moved(request):
    """A transfer to a device, or to its twin."""
    if request.param == "twin":
        request.getfixturevalue("twin")
    elif not has_cuda:
        pytest.skip("there is no CUDA device")
    made = Transfer(torch.device("cuda"))
    yield made
    made.finish()


@pytest.fixture
def ring():
    made = Ring()
    yield made
    made.close()


def lease(ring, size):
    """A slot's number and its bytes, as readers leave it."""
    slot = ring.acquire(size)
    memory = ring.lease(slot, size)
    memory[:] = np.random.default_rng(slot).integers(0, 256, size, np.uint8)
    return slot, memory


def on_host(value):
    return map_tensors(value, lambda tensor: tensor.cpu())


def there_and_back(moved, batch, *args, **options):
    return on_host(moved.receive(moved.send(batch, *args, **options)))


# ---- which devices


@pytest.mark.parametrize("given", [None, "cpu", torch.device("cpu")])
def test_nothing_is_moved_to_the_host(given):
    device = as_device(given)
    assert device is None if given is None else device == torch.device("cpu")


@pytest.mark.parametrize(("given", "said"), [("gpu", "is none: give"), ("mps", "CUDA devices only"), (3.5, "is none")])
def test_what_is_no_device_for_batches_is_refused(given, said):
    with pytest.raises(SpecError, match=said):
        as_device(given)


@pytest.mark.skipif(has_cuda, reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused_with_what_to_do():
    with pytest.raises(SpecError, match=r"device='cuda', but torch .* finds no CUDA device: use device='cpu'"):
        as_device("cuda")


def test_a_device_whose_number_is_too_high_is_refused(monkeypatch):
    monkeypatch.setattr(cuda_engine.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda_engine.torch.cuda, "device_count", lambda: 2)
    CudaEngine.check(torch.device("cuda:1"))
    with pytest.raises(SpecError, match="device='cuda:2', but there are 2 CUDA devices: give cuda:0 to 1"):
        CudaEngine.check(torch.device("cuda:2"))


# ---- what a batch is made of

Pair = collections.namedtuple("Pair", ["first", "second"])


class Boxed:
    """Has a ``to`` of its own."""

    def __init__(self, tensor):
        self.tensor = tensor

    def to(self, device):
        return Boxed(self.tensor.to(device) + 1)


def test_a_walk_finds_the_tensors_of_all_containers():
    one = torch.ones(1)
    sparse = Sparse(one, one.int(), (3,), 1, (KernelMap(*[one.int()] * 6, (1,), (1,), (0,), (1,), True, False, (3,)),))
    value = {
        "dict": collections.OrderedDict(a=one, b=None),
        "default": collections.defaultdict(list, x=[one]),
        "tuple": (one, "text", 3, (2.5, True)),
        "named": Pair(one, [one]),
        "deque": collections.deque([one]),
        "arrays": [Jagged(one, one.long()), Padded(one, one > 0), Graph(one, one, one), sparse],
        "range": range(3),
        "bytes": b"ab",
    }
    doubled = map_tensors(value, lambda tensor: tensor * 2 if tensor.is_floating_point() else tensor + 7)
    assert_same(value["dict"]["a"], one)
    assert doubled["dict"] == collections.OrderedDict(a=torch.tensor([2.0]), b=None)
    assert type(doubled["dict"]) is collections.OrderedDict
    assert doubled["default"]["there is none"] == []
    assert doubled["default"]["x"][0] == 2
    assert doubled["tuple"] == (torch.tensor([2.0]), "text", 3, (2.5, True))
    assert type(doubled["named"]) is Pair
    assert doubled["named"].second[0] == 2
    assert doubled["deque"] == collections.deque([torch.tensor([2.0])])
    assert doubled["arrays"][0].offsets.tolist() == [8]
    assert doubled["arrays"][3].kernel_maps[0].back_out.tolist() == [8]
    assert doubled["arrays"][3].spatial_shape == (3,)
    assert doubled["range"] == [0, 1, 2]
    assert doubled["bytes"] == b"ab"


def test_a_walk_tells_of_what_it_does_not_know():
    seen = []
    boxed, unknown = Boxed(torch.ones(1)), object()
    map_tensors({"a": boxed, "b": [unknown], "c": np.ones(2), "d": np.float32(1), "e": None}, torch.clone, seen.append)
    assert [type(each) for each in seen] == [Boxed, object, np.ndarray]


# ---- that it arrives as it was

DTYPES = [torch.bool, torch.uint8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float32]
DTYPES += [torch.float64, torch.complex64]


@pytest.mark.parametrize("rows", [0, 1, 31, 32, 33, 63, 64, 65, 127, 128, 129])
def test_tensors_of_every_dtype_arrive_as_they_were(moved, rows):
    random = torch.Generator().manual_seed(rows)
    batch = {str(dtype): torch.randint(0, 99, (rows, 3), generator=random).to(dtype) for dtype in DTYPES}
    batch["scalar"] = torch.tensor(7.5)
    assert_same(there_and_back(moved, batch), batch)


def test_tensors_about_the_size_of_a_copy_arrive_as_they_were(moved, ring):
    slot, memory = lease(ring, 4 * LARGE)
    pieces, at = {}, 0
    for size in (LARGE - 1, LARGE, LARGE + 1, 5):
        pieces[size] = torch.from_numpy(memory[at : at + size])
        at += -(-size // 64) * 64
    kept = {size: piece.clone() for size, piece in pieces.items()}
    assert_same(there_and_back(moved, pieces, memory, lambda *args: ring.pin(slot, len(memory), *args)), kept)
    moved.finish()


def test_layouts_are_kept(moved):
    image = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    batch = {
        "channels_last": image.contiguous(memory_format=torch.channels_last),
        "transposed": image[0, 0].T,
        "sliced": image[:, ::2, 1:],
        "expanded": torch.arange(3).expand(4, 3),
        "one": image[:, :1],
    }
    sent = moved.receive(moved.send(batch))
    assert sent["channels_last"].is_contiguous(memory_format=torch.channels_last)
    assert sent["transposed"].stride() == (1, 5)
    assert_same(on_host(sent), batch)


def test_a_tensor_that_comes_twice_is_sent_once(moved):
    image = torch.rand(100, 100)
    sent = moved.send([image, {"again": image}])
    assert sent.bytes == 40_000
    first, second = moved.receive(sent)
    assert first.data_ptr() == second["again"].data_ptr()


def test_what_is_more_than_numbers_goes_by_its_own_way(moved):
    batch = {
        "sparse": torch.tensor([[0.0, 2.0], [0.0, 0.0]]).to_sparse(),
        "gradient": torch.ones(2, requires_grad=True),
        "parameter": torch.nn.Parameter(torch.ones(3)),
        "packed": torch.nn.utils.rnn.pack_sequence([torch.arange(3.0), torch.arange(2.0)]),
        "conjugate": torch.tensor([1 + 2j]).conj(),
        "boxed": Boxed(torch.ones(2)),
        "array": np.arange(3),
        "plain": torch.arange(4),
    }
    sent = moved.receive(moved.send(batch))
    assert sent["sparse"].to_dense().tolist() == [[0.0, 2.0], [0.0, 0.0]]
    assert sent["gradient"].requires_grad
    assert sent["packed"].data.tolist() == [0.0, 0.0, 1.0, 1.0, 2.0]
    assert sent["conjugate"].tolist() == [1 - 2j]
    assert sent["boxed"].tensor.tolist() == [2.0, 2.0]
    assert sent["array"].tolist() == [0, 1, 2]
    assert sent["plain"].tolist() == [0, 1, 2, 3]
    assert len({tensor.device for tensor in (sent["sparse"], sent["gradient"], sent["boxed"].tensor)}) == 1


@pytest.mark.skipif(not has_cuda, reason="there is no CUDA device")
@pytest.mark.gpu
@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_batches_lie_on_the_device_that_was_asked_for(name):
    moved = Transfer(as_device(name))
    sent = moved.receive(moved.send([torch.arange(5), torch.ones(2, requires_grad=True)]))
    assert [each.device for each in sent] == [torch.device("cuda", 0)] * 2
    moved.finish()


# ---- in how many copies


def shipped(twin, tensors, memory=None, lock=None):
    engine = twin(torch.device("cuda"))
    shipment = Shipment(engine, memory, lock)
    for tensor in tensors:
        shipment.add(tensor)
    with engine.aside():
        shipment.send()
    engine.settle()
    return engine, shipment


def test_neighbours_in_a_locked_slot_share_a_copy_and_small_tensors_another(twin, ring):
    _, memory = lease(ring, 5 * LARGE)
    whole = torch.from_numpy(memory)
    tensors = [whole[:LARGE], whole[LARGE + 64 : 3 * LARGE], torch.arange(3), whole[LARGE : LARGE + 60], torch.ones(5)]
    engine, shipment = shipped(twin, tensors, memory, lambda: True)
    assert engine.copies == [3 * LARGE, 64 * 3]
    assert shipment.bytes == sum(engine.copies)
    twins = [shipment.twin(tensor) for tensor in tensors]
    assert [a.equal(b) for a, b in zip(twins, tensors, strict=True)] == [True] * 5
    storages = [each.untyped_storage().data_ptr() for each in twins]
    assert storages[0] == storages[1] != storages[2] == storages[3] == storages[4]
    assert all(each.storage_offset() * each.itemsize % 64 == 0 for each in twins)


def test_tensors_far_apart_are_copied_apart_and_what_lies_between_stays(twin, ring):
    _, memory = lease(ring, 6 * LARGE)
    whole = torch.from_numpy(memory)
    tensors = [whole[4 * LARGE :], whole[:LARGE]]
    engine, shipment = shipped(twin, tensors, memory, lambda: True)
    assert engine.copies == [LARGE, 2 * LARGE]
    assert [shipment.twin(tensor).equal(tensor) for tensor in tensors] == [True] * 2


def test_a_tensor_that_would_not_be_aligned_has_a_copy_of_its_own(twin, ring):
    _, memory = lease(ring, 3 * LARGE)
    whole = torch.from_numpy(memory)
    tensors = [whole[:LARGE], whole[LARGE + 12 : 2 * LARGE + 12].view(torch.float32)]
    engine, shipment = shipped(twin, tensors, memory, lambda: True)
    assert engine.copies == [LARGE, LARGE]
    assert shipment.twin(tensors[1]).storage_offset() == 0


def test_a_slot_that_can_not_be_locked_is_staged_in_one_copy(twin, ring):
    _, memory = lease(ring, 4 * LARGE)
    whole = torch.from_numpy(memory)
    tensors = [whole[:LARGE], whole[2 * LARGE :], torch.arange(3)]
    engine, shipment = shipped(twin, tensors, memory, lambda: False)
    assert engine.copies == [24 + 40, 3 * LARGE]
    assert [shipment.twin(tensor).equal(tensor) for tensor in tensors] == [True] * 3


def test_a_slot_without_large_tensors_is_not_locked(twin, ring):
    _, memory = lease(ring, LARGE)
    engine, _ = shipped(twin, [torch.from_numpy(memory[:100])], memory, lambda: pytest.fail("locked for nothing"))
    assert engine.copies == [128]


def test_an_empty_shipment_copies_nothing(twin):
    nothing = torch.empty(0, 3, dtype=torch.float64)
    engine, shipment = shipped(twin, [nothing])
    assert engine.copies == []
    assert_same(shipment.twin(nothing), nothing)


# ---- when memory is let go of


def test_a_slot_comes_back_once_its_copy_is_done_and_the_host_did_not_wait(twin, ring):
    moved = Transfer(torch.device("cuda"))
    engine = moved.engine
    engine.gate.clear()
    slot, memory = lease(ring, 2 * LARGE)
    sent = moved.send({"x": torch.from_numpy(memory)}, memory, lambda *args: ring.pin(slot, 2 * LARGE, *args))
    expected = memory.tobytes()
    del memory
    ring.reclaim()
    assert ring.leased == 1
    assert ring.acquire(10) != slot
    engine.gate.set()
    engine.settle()
    moved.send({})
    ring.reclaim()
    assert ring.leased == 0
    assert engine.waits == 0
    assert moved.receive(sent)["x"].numpy().tobytes() == expected
    assert sent.buffers[0].untyped_storage().data_ptr() in engine.recorded


def test_the_host_waits_once_the_device_is_two_batches_behind(twin, ring):
    moved = Transfer(torch.device("cuda"))
    moved.engine.gate.clear()
    for number in range(2):
        moved.send({"x": torch.full((9,), number)})
    third = threading.Thread(target=moved.send, args=({"x": torch.zeros(1)},), name="hepfeed-third")
    third.start()
    third.join(0.1)
    assert third.is_alive()
    moved.engine.gate.set()
    third.join(10)
    assert not third.is_alive()
    assert moved.engine.waits == 1


def test_the_twin_shows_a_slot_that_is_used_again_before_its_copy(twin, ring):
    moved = Transfer(torch.device("cuda"))
    moved.engine.gate.clear()
    slot, memory = lease(ring, 2 * LARGE)
    sent = moved.send({"x": torch.from_numpy(memory)}, memory, lambda *args: ring.pin(slot, len(memory), *args))
    memory[:] = 0
    moved.engine.gate.set()
    with pytest.raises(RuntimeError, match="a source changed before it was copied"):
        moved.receive(sent)


def test_the_twin_shows_a_consumer_that_does_not_wait(twin):
    moved = Transfer(torch.device("cuda"))
    moved.engine.gate.clear()
    sent = moved.send({"x": torch.zeros(9, dtype=torch.uint8)})
    assert sent.batch["x"].tolist() == [PATTERN] * 9
    moved.engine.gate.set()
    assert moved.receive(sent)["x"].tolist() == [0] * 9


def test_what_a_user_may_have_begun_is_waited_for(twin):
    moved = Transfer(torch.device("cuda"))
    moved.send({"x": torch.ones(3)})
    assert moved.engine.consumer_marks == 0
    moved.send({"x": torch.ones(3)}, was_lent=True)
    assert moved.engine.consumer_marks == 1


def test_steps_run_aside_and_their_results_are_recorded(twin):
    moved = Transfer(torch.device("cuda"))
    engine = moved.engine
    made = []

    def late(batch):
        assert engine._aside
        made.append(torch.full((4,), -1.0))
        engine.later(lambda: torch.mul(batch["x"], 2, out=made[0]))
        return {"y": made[0], "same": batch["x"]}, lambda: None

    batch = moved.receive(moved.send({"x": torch.arange(4.0)}, late=late))
    assert batch["y"].tolist() == [0.0, 2.0, 4.0, 6.0]
    assert {each.untyped_storage().data_ptr() for each in batch.values()} <= engine.recorded


def test_a_step_that_fails_leaves_nothing_behind(twin, ring):
    moved = Transfer(torch.device("cuda"))
    moved.engine.gate.clear()
    _, memory = lease(ring, 100)
    with pytest.raises(ValueError, match="no step"):
        moved.send({"x": torch.from_numpy(memory)}, memory, late=lambda batch: int("no step"))
    del memory
    ring.reclaim()
    assert ring.leased == 1  # its copy is still to be made
    moved.engine.gate.set()
    moved.finish()
    gc.collect()
    ring.reclaim()
    assert ring.leased == 0


def test_a_device_that_fails_says_so_with_each_batch_and_lets_go_at_the_end(twin, caplog):
    moved = Transfer(torch.device("cuda"))
    moved.send({"x": torch.ones(1)})
    moved.engine.later(lambda: (_ for _ in ()).throw(RuntimeError("an illegal address")).__next__())
    moved.engine.settle()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="an illegal address"):
            moved.send({"x": torch.ones(1)})
    with caplog.at_level(logging.WARNING, "hepfeed"):
        moved.finish()
    assert "copies to cuda failed: an illegal address" in caplog.text
    assert not moved._going


# ---- page locks


def test_a_slot_is_locked_once_as_a_whole_and_unlocked_before_it_is_unmapped(twin, ring):
    engine = twin(torch.device("cuda"))
    slot = ring.acquire(100)
    assert ring.pin(slot, 100, engine, False)
    assert ring.pin(slot, mmap.PAGESIZE, engine, False)
    assert list(engine.locked.values()) == [mmap.PAGESIZE]
    ring.lease(slot, 3 * mmap.PAGESIZE)  # a reader needed more
    assert engine.locked == {}
    ring.reclaim()
    assert ring.acquire(10) == slot
    assert ring.pin(slot, 10, engine, False)
    assert list(engine.locked.values()) == [3 * mmap.PAGESIZE]
    ring.close()
    assert engine.locked == {}


def test_where_locked_memory_runs_out_no_other_slot_is_tried(twin, ring):
    engine = twin(torch.device("cuda"))
    engine.most_locked = mmap.PAGESIZE
    slots = [ring.acquire(10) for _ in range(4)]
    assert [ring.pin(slot, 10, engine, False) for slot in slots] == [True, False, False, False]
    assert engine.refused == 1
    assert ring.pin(slots[0], 10, engine, False)


def test_exposed_slots_are_not_used_again_before_all_copies_are_done(twin, ring):
    engine = twin(torch.device("cuda"))
    for exposed in (False, True):
        slot = ring.acquire(10)
        memory = ring.lease(slot, 10)
        ring.pin(slot, 10, engine, exposed)
        del memory
        ring.reclaim()
        assert engine.settled == exposed


@pytest.mark.parametrize(("batch", "exposed"), [({"x": torch.ones(1)}, False), ({"x": object()}, True)])
def test_a_batch_whose_parts_nobody_moves_exposes_its_slot(twin, ring, batch, exposed):
    moved = Transfer(torch.device("cuda"))
    slot, memory = lease(ring, 10)
    moved.receive(moved.send(batch, memory, lambda *args: ring.pin(slot, 10, *args)))
    assert (ring._exposed is not None) == exposed


class Runtime:
    """A CUDA runtime whose calls fail."""

    def cudaHostRegister(self, address, size, flags):
        return 2

    def cudaHostUnregister(self, address):
        return 0


def test_a_lock_that_fails_is_warned_of_once(monkeypatch, caplog):
    engine = object.__new__(CudaEngine)
    engine.device, engine._warned = torch.device("cpu"), set()
    monkeypatch.setattr(cuda_engine.torch.cuda, "cudart", Runtime)
    monkeypatch.setattr(cuda_engine.torch.cuda, "device", contextlib.nullcontext)
    with caplog.at_level(logging.WARNING, "hepfeed"):
        assert not engine.lock(4096, 4096)
        assert not engine.lock(8192, 4096)
    assert len(caplog.records) == 1
    assert "can't page-lock 4096 bytes of shared memory (error 2)" in caplog.text
    assert "ulimit -l" in caplog.text


@pytest.mark.skipif(has_cuda, reason="there is page-locked memory")
def test_without_page_locked_memory_batches_are_staged_in_ordinary_memory(caplog):
    engine = object.__new__(CudaEngine)
    engine._warned = set()
    with caplog.at_level(logging.WARNING, "hepfeed"):
        assert engine.host(7).shape == engine.host(7).shape == (7,)
    assert len(caplog.records) == 1


def test_a_transfer_that_dies_holds_nothing(twin, ring):
    moved = Transfer(torch.device("cuda"))
    _, memory = lease(ring, 10)
    moved.send({"x": torch.from_numpy(memory)}, memory)
    moved.finish()
    dead = weakref.ref(moved)
    del moved, memory
    assert dead() is None
    ring.reclaim()
    assert ring.leased == 0
