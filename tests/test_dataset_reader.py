"""The dataset reader: does what a worker of torch's loader does, and a successor goes on where it died."""

import array
import collections
import functools
import io
import multiprocessing
import os
import pickle
import random
import threading
from collections import OrderedDict, UserDict, UserList, namedtuple

import h5py
import numpy as np
import pytest
import torch
from reader_process import File, Noise, NoiseStream, ReaderProcess, Rows
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset, default_collate, default_convert
from torch.utils.data._utils.worker import _generate_state

from hepfeed import h5_handles
from hepfeed.dataset_reader import Caught, DatasetJob, DatasetReader, Ended
from hepfeed.errors import SourceError, SpecError
from hepfeed.parcel import pack, unpack
from hepfeed.plain_collate import NeedsTorch, plain_collate, plain_convert
from hepfeed.random_states import numpy_seed
from hepfeed.ring import Ring, RingView
from hepfeed.room import Room

Pair = namedtuple("Pair", ["left", "right"])


@pytest.fixture
def ring():
    ring = Ring()
    yield ring
    ring.close()


def job_of(dataset, **options):
    return DatasetJob(
        **{
            "dataset": dataset,
            "iterable": isinstance(dataset, IterableDataset) or hasattr(dataset, "__iter__"),
            "auto_collation": True,
            "collate_fn": None,
            "drop_last": False,
            "worker_init_fn": None,
            "base_seed": 12345678901,
            "worker_id": 1,
            "num_workers": 2,
            **options,
        }
    )


class Local:
    """A reader in this process."""

    def __init__(self, ring, dataset, state_slot=None, **options):
        self.ring = ring
        self.state_slot = ring.acquire(1) if state_slot is None else state_slot
        self.reader = DatasetReader(job_of(dataset, **options), RingView(ring.descriptor), self.state_slot)
        self.count = 0

    def answer(self, index):
        slot = self.ring.acquire(1)
        answer = self.reader.fetch(self.count, index, slot)
        self.count += 1
        if isinstance(answer, Caught | Ended):
            self.ring.release(slot)
            return answer
        self.last = answer
        return unpack(answer, self.ring.lease(slot, max(answer.bytes, 1)))

    def answers(self, count, index=(0, 1)):
        found = [self.answer(list(index)) for _ in range(count)]
        return [each.tolist() if isinstance(each, torch.Tensor) else each for each in found]


@pytest.fixture
def local(ring):
    made = []
    before = torch.get_num_threads()

    def start(dataset, **options):
        for each in made:  # one at a time in a process
            each.reader.close()
        made.append(Local(ring, dataset, **options))
        return made[-1]

    yield start
    for each in made:
        each.reader.close()
    assert torch.utils.data.get_worker_info() is None
    assert torch.get_num_threads() == before


@pytest.fixture
def no_shared_files(monkeypatch):
    """Fail where torch makes a file in /dev/shm."""

    def forbidden(*_, **__):
        raise AssertionError("torch made a file in shared memory")

    monkeypatch.setattr(torch.UntypedStorage, "_new_shared", forbidden)


# ---- collation -----------------------------------------------------------------------------------------------------

BATCHES = [
    [1, 2, 3],
    [True, False],
    [1.5, 2.5],
    ["a", "b"],
    [b"a", b"b"],
    [np.float32(1), np.float32(2)],
    [np.int16(1), np.int16(2)],
    [np.bool_(True), np.bool_(False)],
    [np.complex128(1j)],
    [np.float64(1), np.float64(2)],
    [np.arange(3), np.arange(3) + 1],
    [np.arange(6).reshape(2, 3).T, np.arange(6).reshape(2, 3).T],
    [np.array(1.5), np.array(2.5)],
    [np.empty((0, 2)), np.empty((0, 2))],
    [np.array([1], np.uint16), np.array([2], np.uint16)],
    [np.array([1 + 2j], np.complex64)],
    [{"a": 1, "b": {"c": np.ones(2)}}, {"a": 2, "b": {"c": np.zeros(2)}}],
    [OrderedDict(a=1.0), OrderedDict(a=2.0)],
    [collections.defaultdict(list, a=1), collections.defaultdict(list, a=2)],
    [UserDict(a=1), UserDict(a=2)],
    [Pair(1, "x"), Pair(2, "y")],
    [(1, 2.0, "x"), (2, 3.0, "y")],
    [[1, np.ones(2)], [2, np.zeros(2)]],
    [UserList([1, 2]), UserList([3, 4])],
    [range(3), range(3)],
    [[], []],
    [((1, 2), [3.0]), ((4, 5), [6.0])],
]


class Opaque:
    """What nobody can collate, with the same name in every process."""

    def __repr__(self):
        return "Opaque()"


TORCH_ONLY = [
    [1, 2.5],
    [True, 2],
    [1.0, 2],
    [2**70],
    [np.float32(1), np.float64(2)],
    [np.arange(3), np.arange(3.0)],
    [np.arange(3), np.arange(4)],
    [np.arange(3)[::-1]],
    [np.array(["a"])],
    [np.array([None])],
    [np.array(["2017-01-01"], "M8[D]")],
    [np.arange(3, dtype=">i4")],
    [None, None],
    [Opaque()],
    [[1, 2], [1]],
    [torch.ones(2), torch.zeros(2)],
    [array.array("i", [1])],
    [{1, 2}],
]


def same(a, b):
    if isinstance(a, torch.Tensor):
        return type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return type(a) is type(b) and a.dtype == b.dtype and a.tolist() == b.tolist()
    if isinstance(a, dict | UserDict):
        return type(a) is type(b) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple | UserList):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def error_of(function, *args):
    with pytest.raises(Exception) as caught:  # noqa: PT011
        function(*args)
    return type(caught.value), str(caught.value)


@pytest.mark.parametrize("batch", BATCHES, ids=repr)
def test_plain_collation_gives_what_torch_gives_bit_for_bit(ring, batch):
    slot = ring.acquire(1)
    room = Room(ring.view, slot)
    parcel = pack(plain_collate(batch, room.array), room)
    assert same(unpack(parcel, ring.lease(slot, max(parcel.bytes, 1))), default_collate(batch))


@pytest.mark.parametrize("batch", [*BATCHES, 1, np.float32(2), np.array(["a"]), np.str_("x"), None, object], ids=repr)
def test_plain_conversion_gives_what_torch_gives_bit_for_bit(ring, batch):
    room = Room(ring.view, ring.acquire(1))
    parcel = pack(plain_convert(batch), room)
    assert same(unpack(parcel, room._ring.bytes(room._slot, max(parcel.bytes, 1))), default_convert(batch))


@pytest.mark.parametrize("batch", TORCH_ONLY, ids=repr)
def test_what_only_torch_can_collate_or_refuse_is_left_to_it(batch):
    with pytest.raises(NeedsTorch):
        plain_collate(batch, np.empty)


@pytest.mark.parametrize("value", [np.arange(3)[::-1], np.array(1, "M8[s]"), np.bytes_(b"x"), array.array("i", [1])])
def test_what_only_torch_can_convert_or_refuse_is_left_to_it(value):
    with pytest.raises(NeedsTorch):
        plain_convert(value)


class Listed(Dataset):
    def __init__(self, examples):
        self.examples = examples

    def __getitem__(self, i):
        return self.examples[i]


@pytest.mark.parametrize("batch", [*BATCHES, *TORCH_ONLY, [{"a": 1}, {"b": 1}]], ids=repr)
def test_a_reader_with_torch_gives_torchs_batches_and_errors_without_its_shared_files(local, no_shared_files, batch):
    made = local(Listed(batch)).answer(list(range(len(batch))))
    if isinstance(made, Caught):
        kind, text = error_of(default_collate, batch)
        assert text in made.text
        assert made.type is kind
    else:
        assert same(made, default_collate(batch))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool, torch.complex64, torch.uint16])
def test_tensors_are_stacked_straight_into_the_slot(local, no_shared_files, dtype):
    examples = [torch.ones(300, 5, dtype=dtype), torch.zeros(300, 5, dtype=dtype)]
    reader = local(Listed(examples))
    assert same(reader.answer([0, 1]), torch.stack(examples))
    size = 2 * 300 * 5 * dtype.itemsize
    assert reader.last.bytes == size, "stacked and copied"


def test_a_user_collate_function_that_calls_torchs_gets_the_slot_too(local, no_shared_files):
    def collate(examples):
        both = default_collate(examples), default_collate([each + 1 for each in examples])
        return {"sum": both[0] + both[1], "second": both[1]}

    made = local(Listed([torch.arange(4), torch.arange(4)]), collate_fn=collate).answer([0, 1])
    assert made["sum"].tolist() == [[1, 3, 5, 7]] * 2
    assert made["second"].tolist() == [[1, 2, 3, 4]] * 2


def test_a_batch_that_the_users_code_keeps_is_its_own(local):
    kept = []

    def collate(examples):
        kept.append(default_collate(examples))
        return kept[-1]

    reader = local(Listed([torch.full((3000,), i) for i in range(4)]), collate_fn=collate)
    first = reader.answer([0, 1])
    first += 100
    second = reader.answer([2, 3])
    assert kept[0][:, 0].tolist() == [0, 1]
    assert kept[1][:, 0].tolist() == [2, 3]
    kept[0] -= 1
    assert first[:, 0].tolist() == [100, 101]
    assert second[:, 0].tolist() == [2, 3]


def test_a_collate_function_of_the_users_for_tensors_is_left_alone(local, monkeypatch):
    from torch.utils.data._utils import collate

    monkeypatch.setitem(collate.default_collate_fn_map, torch.Tensor, lambda batch, *, collate_fn_map: "mine")
    assert local(Listed([torch.ones(1)])).answer([0]) == "mine"


def test_sparse_and_nested_batches_are_refused_as_torch_does(local):
    answer = local(Listed([torch.eye(2).to_sparse()])).answer([0])
    assert answer.type is RuntimeError
    assert "Batches of sparse tensors are not currently supported by the default collate_fn" in answer.text


# ---- fetching ------------------------------------------------------------------------------------------------------


class Stream(IterableDataset):
    def __init__(self, stop):
        self.stop = stop

    def __iter__(self):
        return iter(range(self.stop))


def test_whole_batches_are_asked_for_where_the_dataset_can(local):
    class Batched(Rows):
        def __getitems__(self, index):
            return [-i for i in index]

    assert local(Batched()).answer([1, 2]).tolist() == [-1, -2]
    assert local(Batched(), auto_collation=False).answer(3)["label"] == 3


def test_an_iterable_dataset_ends_with_what_is_left_or_without_it(local):
    assert local(Stream(5)).answers(5) == [[0, 1], [2, 3], [4], Ended(), Ended()]
    assert local(Stream(5), drop_last=True).answers(4) == [[0, 1], [2, 3], Ended(), Ended()]
    assert local(Stream(0)).answers(2) == [Ended(), Ended()]
    single = local(Stream(2), auto_collation=False)
    assert [single.answer(None) for _ in range(4)] == [0, 1, Ended(), Ended()]


def test_a_new_epoch_makes_the_iterator_anew(local):
    reader = local(Stream(2), persistent=True)
    assert reader.answers(2) == [[0, 1], Ended()]
    reader.reader.resume(None)
    assert reader.answers(2) == [[0, 1], Ended()]


class Failing(Dataset):
    def __init__(self, make):
        self.make = make

    def __getitem__(self, i):
        if i:
            raise self.make()
        return i


class Strange(Exception):
    def __init__(self, one, two):
        super().__init__(one, two)


class Named(Exception):
    message = "of the class"

    def __init__(self, message):
        super().__init__(message)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: ValueError("bad"), ValueError),
        (lambda: KeyError("bad"), KeyError),
        (lambda: StopIteration("bad"), StopIteration),
        (lambda: Strange("bad", 2), RuntimeError),
        (lambda: Named(message="bad"), Named),
        (lambda: type("Inner", (LookupError,), {})("bad"), LookupError),
    ],
)
def test_an_exception_of_the_users_code_is_raised_again_as_torch_does_and_the_next_batch_comes(local, make, kind):
    reader = local(Failing(make))
    caught = reader.answer([1])
    again = pickle.loads(pickle.dumps(caught))
    with pytest.raises(kind, match=r"Caught \w+ in DataLoader worker process 1\.\nOriginal Traceback") as raised:
        again.reraise()
    assert type(raised.value) is kind
    assert "\\n" not in str(raised.value)
    assert "raise self.make()" in str(raised.value)
    assert reader.answer([0]).tolist() == [0]


def test_an_error_of_hepfeeds_keeps_its_file_and_event(local):
    caught = local(Failing(lambda: SourceError("broken", file="a.h5", event=3))).answer([1])
    with pytest.raises(SourceError) as raised:
        caught.reraise()
    assert (raised.value.file, raised.value.event) == ("a.h5", 3)


def test_errors_of_the_start_are_the_answer_of_the_fetches(local):
    def fail(worker_id):
        raise ValueError(f"no worker {worker_id}")

    reader = local(Rows(), worker_init_fn=fail)
    for _ in range(2):
        assert "ValueError: no worker 1" in reader.answer([0]).text

    class Broken(IterableDataset):
        def __iter__(self):
            raise KeyError("no iterator")

    assert "KeyError: 'no iterator'" in local(Broken()).answer([0]).text


def test_what_cannot_be_sent_is_an_exception_too(local):
    caught = local(Failing(Rows), collate_fn=lambda _: threading.Lock()).answer([0])
    assert "_thread.lock in it is not" in caught.text


def test_an_interrupt_ends_the_reader_quietly(local):
    reader = local(Failing(KeyboardInterrupt))
    with pytest.raises(SystemExit) as end:
        reader.answer([1])
    assert end.value.code == 0


# ---- torch's side --------------------------------------------------------------------------------------------------


class Looking(Dataset):
    def __getitem__(self, i):
        info = torch.utils.data.get_worker_info()
        return info.id, info.num_workers, info.seed, info.dataset is self, torch.get_num_threads(), torch.initial_seed()


def test_the_dataset_sees_torchs_worker_info_seed_and_one_thread(local):
    seed = 12345678901 + 1
    assert local(Looking(), collate_fn=list).answer([0]) == [(1, 2, seed, True, 1, seed)]


def test_the_worker_init_function_runs_after_the_seeds_and_with_the_worker_info(local):
    seen = []
    local(Rows(), worker_init_fn=lambda i: seen.append((i, random.random(), torch.utils.data.get_worker_info().id)))
    assert seen == [(1, random.Random(12345678901 + 1).random(), 1)]


@pytest.mark.parametrize("base_seed", [0, 1, 2**32, 2**32 - 1, 2**62 + 12345])
@pytest.mark.parametrize("worker_id", [0, 3, 1000])
def test_numpy_is_seeded_with_torchs_numbers(base_seed, worker_id):
    assert numpy_seed(base_seed, worker_id) == _generate_state(base_seed, worker_id)


def test_a_data_pipe_takes_the_seed_that_all_readers_share(local):
    from torch.utils.data.datapipes.iter import IterableWrapper

    def order(**options):
        pipe = IterableWrapper(range(10)).shuffle()
        return local(pipe, **options).answers(1, range(10))

    assert order(shared_seed=5) == order(shared_seed=5, worker_id=0)
    assert order(shared_seed=5) != order(shared_seed=6)
    reader = local(IterableWrapper(range(10)).shuffle(), shared_seed=6)
    reader.reader.resume(5)
    assert reader.answers(1, range(10)) == order(shared_seed=5)


@pytest.mark.parametrize("name", ["fork", "spawn"])
def test_a_reader_in_a_process_gives_the_same_and_needs_no_torch_itself(ring, name):
    process = ReaderProcess(name, job_of(Rows()), ring, ring.acquire(1))
    slot = ring.acquire(1)
    made = [unpack(process("fetch", number, [number, 3], slot), ring.view.bytes(slot, 4096)) for number in range(3)]
    assert process("loaded", "torch") == (name == "fork")
    process.end()
    assert all(same(each, default_collate([Rows()[i], Rows()[3]])) for i, each in enumerate(made[2:], 2))


def test_torch_that_comes_late_is_set_up_as_if_it_had_been_there(ring, local):
    process = ReaderProcess("spawn", job_of(Noise(with_torch=True)), ring, ring.acquire(1))
    slot = ring.acquire(1)
    made = unpack(process("fetch", 0, [0, 1], slot), ring.view.bytes(slot, 4096)).tolist()
    assert process("loaded", "torch")
    process.end()
    assert made == local(Noise(with_torch=True)).answer([0, 1]).tolist()


# ---- a successor ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", [Noise(True), NoiseStream(True)], ids=["map", "iterable"])
@pytest.mark.parametrize("died", range(6))
def test_a_successor_goes_on_with_the_same_numbers(local, dataset, died):
    undisturbed = local(dataset, persistent=True)
    wanted = undisturbed.answers(6)
    undisturbed.reader.resume(None)
    undisturbed.count = 0
    second = undisturbed.answers(6)

    first = local(dataset, persistent=True)
    assert first.answers(died) == wanted[:died]
    if died:
        first.reader.fetch(died, [0, 1], first.ring.acquire(1))  # it died before this was answered
    successor = local(dataset, persistent=True, state_slot=first.state_slot)
    successor.reader.recover(died) if died else None
    successor.count = died
    assert successor.answers(6 - died) == wanted[died:]
    successor.reader.resume(None)
    successor.count = 0
    assert successor.answers(died) == second[:died]
    third = local(dataset, persistent=True, state_slot=first.state_slot)
    third.reader.recover(died)
    third.count = died
    assert third.answers(6 - died) == second[died:]


def test_a_successor_of_a_process_that_was_killed_goes_on_with_the_same_numbers(ring, local):
    wanted = local(Noise()).answers(4)
    state_slot, slot = ring.acquire(1), ring.acquire(1)

    def fetch(process, number):
        return unpack(process("fetch", number, [0, 1], slot), ring.view.bytes(slot, 4096).copy()).tolist()

    first = ReaderProcess("spawn", job_of(Noise()), ring, state_slot)
    made = [fetch(first, number) for number in range(2)]
    first.end("die")
    second = ReaderProcess("spawn", job_of(Noise()), ring, state_slot)
    second("recover", 2)
    made += [fetch(second, number) for number in (2, 3)]
    second.end()
    assert made == wanted


def test_a_successor_of_a_reader_that_never_fetched_begins_as_it_would_have(local):
    stale = local(Noise(), base_seed=99)
    stale.answers(2)
    wanted = local(Noise()).answers(2)
    successor = local(Noise(), state_slot=stale.state_slot)
    successor.reader.recover(0)
    assert successor.answers(2) == wanted
    idle = local(Noise(), base_seed=7, state_slot=stale.state_slot, persistent=True)
    idle.reader.resume(None)  # it had nothing to do in the first epoch
    assert idle.answers(2) == local(Noise(), base_seed=7).answers(2)


@pytest.mark.parametrize("resumed", [False, True])
def test_a_successor_of_a_reader_that_died_between_epochs_goes_on_with_the_same_numbers(local, resumed):
    undisturbed = local(NoiseStream(), persistent=True)
    undisturbed.answers(6)
    undisturbed.reader.resume(None)
    wanted = undisturbed.answers(2)
    first = local(NoiseStream(), persistent=True)
    first.answers(6)
    if resumed:  # and died before it said so
        first.reader.resume(None)
    successor = local(NoiseStream(), persistent=True, state_slot=first.state_slot)
    successor.reader.recover(6)
    successor.reader.resume(None)
    assert successor.answers(2) == wanted


def test_a_successor_that_is_told_nothing_finds_where_it_is(local):
    undisturbed = local(NoiseStream(), persistent=True)
    wanted = undisturbed.answers(4)
    undisturbed.reader.resume(None)
    second = undisturbed.answers(2)
    first = local(NoiseStream(), persistent=True)
    first.answers(2)
    successor = local(NoiseStream(), persistent=True, state_slot=first.state_slot)
    successor.count = 2
    assert successor.answers(2) == wanted[2:]
    third = local(NoiseStream(), persistent=True, state_slot=first.state_slot)
    third.reader.resume(None)
    assert third.answers(2) == second


@pytest.mark.parametrize("with_torch", [False, True])
def test_an_epoch_can_begin_with_the_random_states_of_a_batch(local, with_torch):
    reader = local(Noise(with_torch), persistent=True)
    reader.answers(2)
    states = reader.last.random
    wanted = reader.answers(2)
    start = reader.reader.resume(None)
    second = reader.answers(2)
    again = local(Noise(with_torch), base_seed=1)
    again.reader.set_random(states, 1)
    assert again.answers(2) == wanted
    again = local(Noise(with_torch), base_seed=1)
    again.reader.set_random(start, 1)
    assert again.answers(2) == second
    again = local(Noise(with_torch), base_seed=1)
    random.random()
    again.reader.set_random(None, 1)
    assert again.answers(2) == local(Noise(with_torch), base_seed=1).answers(2)


def test_random_states_are_told_only_where_they_changed(local):
    reader = local(Rows())
    reader.answer([0])
    assert reader.last.random is None
    drawing = local(Noise())
    drawing.answer([0])
    assert drawing.last.random is not None


def test_a_successor_without_its_predecessors_states_says_so(local):
    reader = local(Noise())
    reader.reader.recover(3)
    assert "no random state of the start of the epoch was left" in reader.answer([0]).text


def test_a_successor_passes_over_fetches_that_failed(local):
    class Sometimes(IterableDataset):
        def __iter__(self):
            return (i for i in range(8))

    def collate(examples):
        if examples[0] == 2:
            raise ValueError("two")
        return examples

    reader = local(Sometimes(), collate_fn=collate)
    assert [type(each) for each in reader.answers(2)] == [list, Caught]
    after = local(Sometimes(), collate_fn=collate, state_slot=reader.state_slot)
    after.reader.recover(2)
    assert after.answers(3) == [[4, 5], [6, 7], Ended()]


class Counting(IterableDataset):
    """A stateful dataset, by torchdata's convention."""

    def __init__(self, stop=10):
        self.at, self.stop, self.made = 0, stop, 0

    def __iter__(self):
        while self.at < self.stop:
            self.at += 1
            self.made += 1
            yield self.at - 1
        self.at = 0

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


class StatefulIterator(IterableDataset):
    class Iterator:
        def __init__(self):
            self.at = 0

        def __next__(self):
            self.at += 1
            return self.at - 1

        def state_dict(self):
            return {"at": self.at}

        def load_state_dict(self, state):
            self.at = state["at"]

    def __iter__(self):
        return self.Iterator()


@pytest.mark.parametrize("make", [Counting, StatefulIterator])
def test_a_stateful_dataset_goes_on_at_its_state_without_making_batches_again(local, make):
    reader = local(make())
    assert reader.answers(2) == [[0, 1], [2, 3]]
    state = reader.last.state
    dataset = make()
    resumed = local(dataset)
    resumed.reader.restore(state, 2)
    assert resumed.answers(2) == [[4, 5], [6, 7]]
    assert getattr(dataset, "made", 4) == 4
    successor = local(make(), state_slot=resumed.state_slot)
    successor.reader.restore(state, 2)
    successor.reader.recover(1)
    assert successor.answers(1) == [[6, 7]]
    successor = local(make(), state_slot=reader.state_slot)
    successor.reader.recover(2, state)
    assert successor.answers(1) == [[4, 5]]


def test_an_epoch_can_begin_by_passing_over_fetches(local):
    reader = local(Stream(9))
    reader.reader.restore(None, 3)
    assert reader.answers(3) == [[6, 7], [8], Ended()]
    successor = local(Stream(9), state_slot=reader.state_slot)
    successor.reader.restore(None, 3)
    successor.reader.recover(1)
    assert successor.answers(2) == [[8], Ended()]
    assert reader.last.state is None


# ---- open HDF5 files -----------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    made = str(tmp_path / "x.h5")
    with h5py.File(made, "w") as file:
        file["x"] = np.arange(100)
        file["group/y"] = np.arange(10.0)
    return made


@pytest.mark.parametrize("name", ["fork", "spawn"])
def test_datasets_with_open_files_work_in_readers(ring, path, name):
    dataset = ConcatDataset([Subset(File(path), range(10, 20)), Subset(File(path), range(50, 60))])
    process = ReaderProcess(name, job_of(dataset, iterable=False), ring, ring.acquire(1))
    slot = ring.acquire(1)
    parcel = process("fetch", 0, [0, 5, 19], slot)
    assert isinstance(parcel, Caught) is False, parcel
    assert unpack(parcel, ring.view.bytes(slot, 4096)).tolist() == [20, 30, 118]
    process.end()
    assert dataset[0] == 20
    for each in dataset.datasets:
        each.dataset.file.close()


class MyFile(h5py.File):
    pass


class Slotted:
    __slots__ = ("__hidden", "__weakref__")

    def __init__(self, file):
        self.__hidden = file


def holders(path):
    file = h5py.File(path, "r", rdcc_nbytes=1 << 16)
    mine = MyFile(path, "r")
    mine.note = "kept"
    me = {"list": [file["x"]], "group": file["group"], "slots": Slotted(file), "mine": mine}
    me["self"] = me
    me["closure"] = lambda: file
    me["partial"] = functools.partial(len, mine["x"])
    return me


def test_all_handles_of_an_object_are_found(path):
    me = holders(path)
    assert len(h5_handles.handles_in(me)) == 5
    me["slots"]._Slotted__hidden.close()
    me["mine"].close()
    assert h5_handles.handles_in(me) == []


def test_handles_are_opened_again_in_place(path):
    me = holders(path)
    before = {id(handle): handle.id.id for handle in h5_handles.handles_in(me)}
    descriptors = {link for link in map(_link, os.listdir("/proc/self/fd")) if link == path}
    h5_handles.reopen(me)
    assert {id(handle) for handle in h5_handles.handles_in(me)} == set(before)
    assert descriptors
    assert me["list"][0][:3].tolist() == [0, 1, 2]
    assert me["group"]["y"][1] == 1.0
    assert type(me["mine"]) is MyFile
    assert me["mine"].note == "kept"
    assert me["closure"]().id.get_access_plist().get_cache()[2] == 1 << 16
    h5_handles._files.clear()
    me["closure"]().close()
    me["mine"].close()


def _link(descriptor):
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return None


def test_pickled_handles_are_opened_again(path):
    me = holders(path)
    parts = me["list"][0], me["group"], me["mine"]
    h5_handles.prepare(parts)
    data = multiprocessing.reduction.ForkingPickler.dumps(parts)
    rows, group, mine = pickle.loads(data)
    assert rows[:3].tolist() == [0, 1, 2]
    assert group["y"][1] == 1.0
    assert (type(mine), mine.note, mine["x"][4]) == (MyFile, "kept", 4)
    assert len(h5_handles._files) == 1
    mine.close()
    for file in h5_handles._files.values():
        file.close()
    h5_handles._files.clear()
    me["closure"]().close()
    me["mine"].close()


def test_files_that_are_written_or_in_memory_are_refused_with_what_to_do(path):
    with h5py.File(path, "r+") as file:
        with pytest.raises(SpecError, match=r"open for reading.*mode 'r\+'.*open it with mode 'r'.*x.h5"):
            multiprocessing.reduction.ForkingPickler.dumps(job_of([file["x"]], iterable=False))
        with pytest.raises(SpecError, match="mode 'r'"):
            h5_handles.reopen(file)
    with h5py.File(io.BytesIO(), "w") as file, pytest.raises(SpecError, match=r"is in memory .*'fileobj'.*open it"):
        multiprocessing.reduction.ForkingPickler.dumps(job_of([file], iterable=False))
    with h5py.File("m.h5", "w", driver="core", backing_store=False) as file:
        with pytest.raises(SpecError, match=r"is in memory .*'core'"):
            multiprocessing.reduction.ForkingPickler.dumps(job_of([file], iterable=False))
        file["x"] = 1
        h5_handles.reopen(file)  # a forked process has its own copy
        assert file["x"][()] == 1


def test_forks_do_not_hang_on_the_lock_of_h5py(ring, path):
    dataset, stop = File(path), threading.Event()

    def hammer():
        while not stop.is_set():
            with h5py.File(path, "r") as file:
                file["x"][:].sum()

    threads = [threading.Thread(target=hammer) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        state_slot, slot = ring.acquire(1), ring.acquire(1)
        for number in range(20):
            process = ReaderProcess("fork", job_of(dataset), ring, state_slot)
            parcel = process("fetch", 0, [number], slot)
            assert unpack(parcel, ring.view.bytes(slot, 4096)).tolist() == [2 * number]
            process.end()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    dataset.file.close()


def test_a_module_that_failed_to_import_torch_can_try_again(run_script):
    out = run_script(
        """
        import sys
        from hepfeed.late_torch import LateTorch
        called = []
        late = LateTorch(lambda: called.append(sys.modules["torch"].__spec__.loader))
        class Refuse:
            def find_spec(self, name, path=None, target=None):
                if name == "torch":
                    raise ImportError("not now")
        refuse = Refuse()
        sys.meta_path.insert(1, refuse)
        try:
            import torch
        except ImportError as error:
            print(error)
        sys.meta_path.remove(refuse)
        import torch
        print(len(called), type(called[0]).__name__, late in sys.meta_path, torch.ones(2).tolist())
        """
    )
    assert out.splitlines() == ["not now", "1 SourceFileLoader False [1.0, 1.0]"]


def test_the_modules_of_a_reader_import_no_torch(run_script):
    script = "import sys, hepfeed.dataset_reader; print('torch' in sys.modules, 'h5py' in sys.modules)"
    assert run_script(script).split() == ["False", "False"]
