"""Loaders whose batches arrive on a device: the same batches, one ahead of the loop, and nothing left behind.

The tests run on a twin of the device, whose copies are made late by a thread; those marked ``gpu`` on a device too.
"""

import contextlib
import copy
import itertools
import logging
import os
import pickle
import signal
import sys
import time
import types

import cached
import pytest
import torch
from delayed_engine import standing_in
from events import all_events, events_of, write_classes
from loader_datasets import Images, Noise, Shards
from same_batches import assert_same

import hepfeed as hf
from hepfeed.errors import ProcessError, SpecError
from hepfeed.tensors import Graph, Jagged, Padded, Sparse, Structured
from hepfeed.walk import map_tensors

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

CLASSES = {"electron": [30, 25], "pion": [41]}
PATIENCE_S = 20


@pytest.fixture
def twin(monkeypatch):
    with standing_in(monkeypatch) as kind:
        yield kind


@pytest.fixture(params=["twin", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """The name of a device, or of what a twin stands in for."""
    if request.param == "twin":
        request.getfixturevalue("twin")
    elif not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    return "cuda"


@pytest.fixture
def dataset(tmp_path):
    return hf.EventDataset(write_classes(tmp_path, CLASSES, layout="all_filters"))


@pytest.fixture
def rich(tmp_path):
    """Specification of events with images, hits and numbers."""
    return cached.write_set(tmp_path / "rich", labels=("electron", "pion"), files=1)


def feed(dataset, **options):
    return hf.DataLoader(dataset, 16, **{"shuffle": True, "seed": 3, "window_events": 32, **options})


def on_host(value):
    return map_tensors(value, lambda tensor: tensor.cpu())


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.005)


# ---- the same batches


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_every_event_comes_once_as_without_a_device_also_where_batches_are_kept(dataset, device, num_workers):
    expected = list(feed(dataset))
    with feed(dataset, num_workers=num_workers, device=device) as loader:
        assert len(loader) == 6
        batches = list(loader)
    assert_same(on_host(batches), expected)
    assert sorted(events_of(batches)) == sorted(all_events(dataset))


STEPS = [
    {"graph": {"points": "hits/xyz", "k": 3, "into": "graph"}},
    {"sparsify": {"keys": "ECAL", "into": "sites"}},
    {"pad_rows": {"keys": "hits/charge", "length": 40}},
]
MAPS = [{"kernel_size": 3, "submanifold": True}, {"kernel_size": 2, "stride": 2}]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_everything_in_a_batch_that_is_a_tensor_arrives(rich, device, twin_or_none, num_workers):
    options = {"prebuild": MAPS, "window_events": None}
    expected = list(feed(hf.EventDataset(rich, transform=STEPS), **options))
    with feed(hf.EventDataset(rich, transform=STEPS), num_workers=num_workers, device=device, **options) as loader:
        batches = list(loader)
        sent = loader.stats()["bytes_sent"]
    assert_same(on_host(batches), expected)
    kinds = {name: type(value) for name, value in batches[0].items() if isinstance(value, Structured)}
    assert kinds == {"hits/xyz": Jagged, "graph": Graph, "sites": Sparse, "hits/charge": Padded}
    assert [len(batch["sites"].kernel_maps) for batch in batches] == [2] * len(batches)
    assert sent >= sum(tensor_bytes(batch) for batch in batches)
    if twin_or_none:
        (engine,) = twin_or_none.made
        assert sum(engine.copies) == sent
        assert len(engine.copies) <= 2 * len(batches)


@pytest.fixture
def twin_or_none(request, device):
    return request.getfixturevalue("twin") if "twin" in request.fixturenames else None


def tensor_bytes(batch):
    found = []
    map_tensors(batch, lambda tensor: found.append(tensor.nbytes) or tensor)
    return sum(found)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_epochs_from_the_cache_are_the_same(rich, device, tmp_path, num_workers):
    def epochs(folder, **options):
        dataset = hf.EventDataset(rich, transform=STEPS[1:2], cache=str(tmp_path / folder))
        with feed(dataset, num_workers=num_workers, persistent_workers=num_workers > 0, **options) as loader:
            return [on_host(list(loader)) for _ in range(3)]

    assert_same(epochs("device", device=device), epochs("host"))


def test_outputs_and_the_result_of_delivery_fn_go_to_the_device(dataset, device):
    (a, *_), (b, *_) = (
        list(feed(dataset, outputs=(["image", "id"], {"y": "onehot"}), **where)) for where in ({}, {"device": device})
    )
    assert_same(on_host(b), a)

    def deliver(batch):
        assert batch["image"].device.type == "cpu"
        return {
            "big": batch["image"].sum(),
            "rest": (batch["event"], [Sparse(batch["energy"][:, None], batch["id"], (9, 9), 3)]),
        }

    (a, *_), (b, *_) = (list(feed(dataset, delivery_fn=deliver, **where)) for where in ({}, {"device": device}))
    assert_same(on_host(b), a)


def test_batches_with_large_tensors_are_copied_from_their_slots(tmp_path, twin):
    dataset = hf.EventDataset(write_classes(tmp_path, {"electron": [40]}, shape=(40, 30)))
    expected = list(feed(dataset))
    with feed(dataset, num_workers=1, device="cuda", persistent_workers=True) as loader:
        for _ in range(2):
            loader.set_epoch(0)
            assert_same(list(loader), expected)
        (engine,) = twin.made
        assert 1 <= len(engine.locked) <= 6
        assert sorted(set(engine.copies))[-1] == 16 * 40 * 30 * 4
        assert len(engine.copies) == 2 * (2 + 2 + 1)  # the last batch is small
        assert (engine.refused, engine.settled) == (0, 0)
    assert engine.locked == {}


def test_without_page_locks_batches_are_staged(tmp_path, twin):
    twin.most_locked = 0
    dataset = hf.EventDataset(write_classes(tmp_path, {"electron": [40]}, shape=(40, 30)))
    expected = list(feed(dataset))
    with feed(dataset, num_workers=1, device="cuda") as loader:
        assert_same(list(loader), expected)
    assert twin.made[0].refused == 1
    assert twin.made[0].locked == {}


def test_nothing_is_moved_to_the_cpu(dataset):
    with feed(dataset, device="cpu") as loader:
        assert_same(list(loader), list(feed(dataset)))
        assert loader.device == torch.device("cpu")
        assert loader.stats()["bytes_sent"] == 0


# ---- one batch ahead


def test_the_next_batch_is_sent_while_the_loop_has_one(dataset, twin):
    with feed(dataset, num_workers=2, device="cuda") as loader:
        batches = iter(loader)
        first = next(batches)
        stream = batches._stream
        engine = twin.made[0]
        wait_for(lambda: loader._own_pool is None and _all_are_there(batches))
        second = next(batches)
        assert batches._sent is not None
        engine.settle()
        copies = len(engine.copies)
        assert copies == 3
        third = next(batches)
        assert len(engine.copies) == 4
        assert stream.batches[0].delivery is not None
        assert engine.waits == 0
        assert_same([first, second, third], list(itertools.islice(feed(dataset), 3)))


def _all_are_there(batches):
    batches._pool.pump(0.0)
    return len(batches._stream.batches) > 2 and all(batch.ready for batch in batches._stream.batches)


def test_a_batch_does_not_wait_for_the_next_one(dataset, twin):
    options = {"num_workers": 2, "window_events": 8, "timeout": PATIENCE_S}
    with hf.DataLoader(dataset, 4, device="cuda", **options) as loader:
        batches = iter(loader)
        came = [next(batches)]
        wait_for(lambda: _all_are_there(batches))
        readers = [worker.pid for worker in batches._workers]
        for pid in readers:
            os.kill(pid, signal.SIGSTOP)
        there = len(batches._stream.batches)
        came += itertools.islice(batches, there)
        assert batches._sent is None
        for pid in readers:
            os.kill(pid, signal.SIGCONT)
        came += batches
    assert events_of(came) == events_of(hf.DataLoader(dataset, 4))
    assert 2 < there < 20


def test_a_batch_that_was_sent_ahead_does_not_count_as_delivered(dataset, device):
    plain = iter(host := feed(dataset))
    with feed(dataset, num_workers=2, device=device) as loader:
        batches = iter(loader)
        states, seen = [], []
        for _ in range(4):
            seen.append(next(batches))
            next(plain)
            wait_for(lambda: _all_are_there_or_over(batches))
            states.append(pickle.loads(pickle.dumps(loader.state_dict())))
            assert states[-1] == host.state_dict()
        rest = list(batches)
    for taken, state in enumerate(states[::3], start=1):
        with feed(dataset, num_workers=1, device=device) as again:
            again.load_state_dict(state)
            assert_same(on_host(list(again)), on_host([*seen, *rest][3 * taken - 2 :]))


def _all_are_there_or_over(batches):
    batches._pool.pump(0.0)
    return all(batch.ready for batch in batches._stream.batches)


def test_a_sampler_is_not_asked_further_ahead(dataset, twin):
    asked = []

    def places():
        for number in range(6):
            asked.append(number)
            yield list(range(16 * number, min(16 * number + 16, 96)))

    with hf.DataLoader(dataset, batch_sampler=[*places()], num_workers=2, device="cuda") as loader:
        expected = list(hf.DataLoader(dataset, batch_sampler=[*places()]))
        assert_same(list(loader), expected)
    asked.clear()

    class Sampler:
        def __iter__(self):
            return places()

        def __len__(self):
            return 6

    with hf.DataLoader(dataset, batch_sampler=Sampler(), num_workers=1, device="cuda") as loader:
        for number, _ in enumerate(loader, start=1):
            assert len(asked) <= min(6, number + 2)
            assert loader.state_dict()["batch"] == number


# ---- errors


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_error_of_delivery_fn_is_raised_at_its_batch(dataset, device, num_workers):
    def deliver(batch):
        if (batch["event"][0] == torch.tensor([1, 2])).all():  # the third batch
            raise ValueError("no such batch")
        return batch

    with feed(dataset, shuffle=False, num_workers=num_workers, delivery_fn=deliver, device=device) as loader:
        batches, came = iter(loader), []
        for _ in range(2):
            came.append(next(batches))
            time.sleep(0.02)
        with pytest.raises(ProcessError, match="no such batch"):
            next(batches)
        assert loader.state_dict()["batch"] == 3
        assert len(list(batches)) == 3


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_an_event_at_fault_is_met_at_its_batch(dataset, device, num_workers, on_error, caplog):
    def fail(batch):
        if ((batch["event"][:, 0] == 1) & (batch["event"][:, 1] == 9)).any():
            raise ValueError("a broken event")
        return batch

    dataset.on_error = on_error
    options = {"shuffle": False, "process_fn": fail, "num_workers": num_workers}
    with caplog.at_level(logging.CRITICAL, "hepfeed"), feed(dataset, device=device, **options) as loader:
        batches = iter(loader)
        came = list(itertools.islice(batches, 2))
        if on_error == "skip":
            came += batches
            assert len(events_of(came)) == 95
            assert loader.stats()["skipped"] == 1
            return
        with pytest.raises(ProcessError, match="a broken event"):
            next(batches)
        assert len(events_of(came)) == 32


def test_a_failing_copy_is_an_error_of_the_batch_that_finds_it(dataset, twin):
    with feed(dataset, device="cuda", num_workers=1) as loader:
        batches = iter(loader)
        next(batches)
        engine = twin.made[0]
        engine.settle()
        engine.fault = RuntimeError("an illegal address")
        with pytest.raises(RuntimeError, match="an illegal address"):
            list(batches)


def _no_process():
    raise OSError("no process could be started")


def test_what_goes_wrong_with_readers_while_looking_ahead_is_met_at_the_next_batch(dataset, twin, monkeypatch):
    with feed(dataset, device="cuda") as loader:
        batches = iter(loader)
        monkeypatch.setattr(batches._stream, "look", _no_process)
        assert len(next(batches)["event"]) == 16
        with pytest.raises(OSError, match="no process could be started"):
            next(batches)
        assert loader.state_dict()["batch"] == 1
    with hf.DataLoader(Images(6), 2, num_workers=1, device="cuda") as loader:
        batches = iter(loader)
        monkeypatch.setattr(batches, "_look", _no_process)
        assert next(batches)[1].tolist() == [0, 1]
        with pytest.raises(OSError, match="no process could be started"):
            next(batches)
        assert loader.state_dict()["batches"] == 1


# ---- endings


def test_readers_that_are_killed_lose_nothing(dataset, device):
    expected = list(feed(dataset))
    with feed(dataset, num_workers=2, device=device) as loader:
        batches, came = iter(loader), []
        for number, batch in enumerate(batches):
            came.append(batch)
            if number == 1:
                for pid in [worker.pid for worker in batches._workers]:
                    os.kill(pid, signal.SIGKILL)
    assert_same(on_host(came), expected)


def test_loops_that_are_left_early_leave_nothing(dataset, twin):
    expected = list(feed(dataset))
    with feed(dataset, num_workers=2, device="cuda", persistent_workers=True) as loader:
        for taken in (1, 2, 4):
            loader.set_epoch(0)
            came = []
            for batch in loader:
                came.append(batch)
                if len(came) == taken:
                    break
            del batch
            assert_same(came, expected[:taken])
        loader._own_pool.ring.reclaim()
        assert loader._own_pool.ring.leased <= 1  # of what was looked at, while a reader has tasks of the same stream
        loader.set_epoch(0)
        assert_same(list(loader), expected)
        assert not loader._transfer._going
        loader._own_pool.ring.reclaim()
        assert loader._own_pool.ring.leased == 0
        assert len(loader._own_pool.ring) < 20


def test_an_endless_loader_goes_on(dataset, device):
    loader = feed(dataset, device=device, num_workers=1, infinite=True)
    came = list(itertools.islice(loader, 15))
    loader.close()
    whole = feed(dataset)
    assert_same(on_host(came), [*whole, *whole, *itertools.islice(whole, 3)])


def test_two_loaders_at_once_do_not_disturb_each_other(dataset, device):
    expected = list(feed(dataset)), list(feed(dataset, seed=8))
    with feed(dataset, num_workers=1, device=device) as one, feed(dataset, seed=8, device=device) as other:
        pairs = list(zip(one, other, strict=True))
    assert_same(on_host([pair[0] for pair in pairs]), expected[0])
    assert_same(on_host([pair[1] for pair in pairs]), expected[1])


def test_parts_of_a_provider_arrive_on_the_device(tmp_path, device):
    spec = write_classes(tmp_path, CLASSES)
    options = {"num_workers": 1, "seed": 3, "cache": None}
    with hf.DataProvider(spec, 16, **options) as host, hf.DataProvider(spec, 16, device=device, **options) as there:
        for _ in range(2):
            for name in host:
                assert_same(on_host(list(there[name])), list(host[name]))
        train = iter(there.train)
        next(train)
        assert_same(on_host(list(there.val)), list(host.val))
        assert len(list(train)) == len(there.train) - 1


def test_a_loader_pickles_with_its_device(dataset, device):
    with feed(dataset, device=device) as loader:
        next(iter(loader))
        again = pickle.loads(pickle.dumps(loader))
    again.set_epoch(0)
    assert_same(on_host(list(again)), list(feed(dataset)))
    assert copy.copy(again).device == torch.device(device)


def test_a_forked_process_makes_an_engine_of_its_own(dataset, twin):
    with feed(dataset, device="cuda") as loader:
        batches = iter(loader)
        next(batches)
        pid = os.fork()
        if pid == 0:
            os._exit(loader._transfer.engine is twin.made[0])
        assert os.waitpid(pid, 0)[1] == 0
        assert len(list(batches)) == 5


# ---- any dataset


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("options", [{}, {"in_order": False}, {"persistent_workers": True}], ids=str)
def test_batches_of_any_dataset_arrive(device, num_workers, options):
    if not num_workers and options:
        pytest.skip("options of worker processes")
    torch.manual_seed(1)
    expected = list(hf.DataLoader(Images(21, (150, 80)), 4))
    with hf.DataLoader(Images(21, (150, 80)), 4, num_workers=num_workers, device=device, **options) as loader:
        for _ in range(2):
            came = sorted(on_host(list(loader)), key=lambda batch: int(batch[1][0]))
            assert_same(came, expected)
        stats = loader.stats()
    assert stats["batches"] == 12
    assert stats["bytes_sent"] >= 2 * 21 * 150 * 80 * 4


def test_the_next_batch_of_any_dataset_is_sent_ahead(twin):
    with hf.DataLoader(Images(12, (150, 80)), 2, num_workers=2, device="cuda") as loader:
        batches = iter(loader)
        next(batches)

        def there():
            batches._take(batches._crew.pump(0.0))
            return all(task.answer is not None for task in batches._tasks.values())

        wait_for(there)
        next(batches)
        assert [task.sent is not None for _, task in sorted(batches._tasks.items())][:2] == [True, False]
        assert len(twin.made[0].locked) >= 1
        assert len(list(batches)) == 4
        assert twin.made[0].locked == {}


@pytest.mark.parametrize("make", [lambda: Noise(21), lambda: Shards(21)], ids=["map", "iterable"])
def test_an_epoch_of_any_dataset_goes_on_where_it_was_left(device, make):
    torch.manual_seed(5)
    with hf.DataLoader(make(), 2, num_workers=2, device=device) as loader:
        batches = iter(loader)
        came = [next(batches) for _ in range(3)]
        state = pickle.loads(pickle.dumps(loader.state_dict()))
        assert state["batches"] == 3
        rest = list(batches)
    with hf.DataLoader(make(), 2, num_workers=2, device=device) as again:
        again.load_state_dict(state)
        assert_same(on_host(list(again)), on_host(rest))
    assert len(came) + len(rest) == 11


class Failing(Images):
    """Fails at one event."""

    def __getitem__(self, index):
        if index == 5:
            raise ValueError("no such image")
        return super().__getitem__(index)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_error_of_any_dataset_comes_at_its_batch(device, num_workers):
    with hf.DataLoader(Failing(12), 2, num_workers=num_workers, device=device) as loader:
        batches = iter(loader)
        assert [next(batches)[1].tolist() for _ in range(2)] == [[0, 1], [2, 3]]
        time.sleep(0.05)
        with pytest.raises(ValueError, match="no such image"):
            next(batches)
        assert [batch[1].tolist() for batch in batches] == [[6, 7], [8, 9], [10, 11]]


@pytest.mark.parametrize("persistent", [False, True])
def test_loops_over_any_dataset_may_be_left_early(twin, persistent):
    with hf.DataLoader(Images(12), 2, num_workers=2, device="cuda", persistent_workers=persistent) as loader:
        for _ in range(3):
            for number, (_, index) in enumerate(loader):
                assert index.tolist() == [2 * number, 2 * number + 1]
                if number == 2:
                    break
        assert [index.tolist()[0] for _, index in loader] == list(range(0, 12, 2))


# ---- steps on the device


class Doubling:
    """Stands in for the steps of a device: notes what it is called with, and doubles the image later."""

    made: list = []  # noqa: RUF012 (each test empties it)
    refused = None

    def __init__(self, transforms, first):
        self.names = [type(step).__name__ for step in transforms]
        self.first = first
        self.calls = []
        self.made.append(self)

    def start(self, batch, draws):
        place = len(self.calls)
        self.calls.append((sorted(batch), draws))
        doubled = torch.zeros_like(batch["image"])
        engine = self.twin.made[0]
        engine.later(lambda: torch.mul(batch["image"], 2, out=doubled))

        def check():
            assert engine._aside
            assert len(self.calls) == place + 1, "the next batch was sent before this one was checked"
            if place == self.refused:
                raise ProcessError("a number that a step refuses")

        return types.SimpleNamespace(batch={**batch, "image": doubled}, check=check)


@pytest.fixture
def doubling(monkeypatch, twin):
    module = types.ModuleType("hepfeed.device.steps")
    module.DeviceSteps = Doubling
    monkeypatch.setitem(sys.modules, "hepfeed.device.steps", module)
    monkeypatch.setattr(Doubling, "twin", twin, raising=False)
    Doubling.made.clear()
    return Doubling


FLIPS = [{"flip": {"keys": "image", "axes": [0, 1]}}, {"drop": {"keys": "energy"}}]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_steps_run_on_the_device_before_a_batch_is_handed_over(dataset, doubling, num_workers):
    expected = list(feed(dataset))
    options = {"device_transform": FLIPS, "outputs": ("image", "label"), "process_fn": lambda batch: batch}
    with feed(dataset, num_workers=num_workers, device="cuda", **options) as loader:
        came = list(loader)
    (steps,) = doubling.made
    assert (steps.names, steps.first) == (["Flip", "Drop"], 1)
    for (image, label), batch, (names, draws) in zip(came, expected, steps.calls, strict=True):
        assert image.equal(2 * batch["image"])
        assert label.equal(batch["label"])
        assert names == ["energy", "event", "id", "image", "label"]
        assert (draws.seed, draws.epoch) == (3, 0)
        assert draws.event.tolist() == batch["event"].tolist()
    assert [draws.batch for _, draws in steps.calls] == list(range(6))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_what_steps_refuse_is_an_error_of_its_batch(dataset, doubling, monkeypatch, num_workers):
    monkeypatch.setattr(doubling, "refused", 2)
    with feed(dataset, num_workers=num_workers, device="cuda", device_transform=FLIPS) as loader:
        batches = iter(loader)
        assert len(list(itertools.islice(batches, 2))) == 2
        time.sleep(0.02)
        with pytest.raises(ProcessError, match="a number that a step refuses"):
            next(batches)
        assert loader.state_dict()["batch"] == 3
        assert len(list(batches)) == 3


def test_random_steps_are_left_out_of_what_is_not_augmented(tmp_path, doubling):
    spec = write_classes(tmp_path, CLASSES)
    with hf.DataProvider(spec, 16, num_workers=0, cache=None, device="cuda", device_transform=FLIPS) as provider:
        assert set(provider) == {"train", "val", "test"}
    assert [steps.names for steps in doubling.made] == [["Flip", "Drop"], ["Drop"], ["Drop"]]


MOVING = [
    {"sparsify": {"keys": "ECAL"}},
    {"flip": {"keys": "ECAL", "axes": [0, 2]}},
    {"densify": {"keys": "ECAL"}},
    {"gaussian_noise": {"keys": "ECAL", "sigma": 0.5}},
]


def test_steps_give_on_the_device_what_they_give_in_readers(rich, backend, monkeypatch):
    options = {"max_events": 6, "outputs": {"x": "ECAL", "y": "label"}}
    expected = list(feed(hf.EventDataset(rich, transform=MOVING), **options))
    dataset = hf.EventDataset(rich, transform=MOVING[:1])
    with contextlib.ExitStack() as stack:
        if backend.device == "cpu":
            stack.enter_context(standing_in(monkeypatch)).prompt = True
        with feed(dataset, device="cuda", device_transform=MOVING[1:], **options) as loader:
            assert_same(on_host(list(loader)), expected)


NOISE = [
    {"log": {"keys": "energy"}},
    {"flip": {"keys": "image", "axes": [0, 1]}},
    {"gaussian_noise": {"keys": "image", "sigma": 0.5}},
]


@pytest.mark.parametrize("moved", [1, 3])
def test_on_the_cpu_the_same_steps_give_what_they_give_in_readers(tmp_path, moved):
    spec = write_classes(tmp_path, CLASSES)
    expected = list(feed(hf.EventDataset(spec, transform=NOISE)))
    before, after = NOISE[:-moved], NOISE[-moved:]
    with feed(hf.EventDataset(spec, transform=before), device="cpu", device_transform=after, num_workers=1) as loader:
        assert_same(list(loader), expected)


def test_on_the_cpu_steps_take_sparse_images_and_arrange_their_results(rich):
    dataset = hf.EventDataset(rich, transform=[{"sparsify": {"keys": "ECAL"}}])
    options = {"device": "cpu", "device_transform": {"densify": {"keys": "ECAL"}}, "outputs": ["ECAL", "label"]}
    expected = list(feed(hf.EventDataset(rich), outputs=["ECAL", "label"]))
    assert_same(list(feed(dataset, **options)), expected)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "needs to know where to run: give device='cuda', or 'cpu'"),
        ({"device": "cpu", "device_transform": ["cache"]}, "'cache' stands in device_transform"),
        ({"device": "cpu", "device_transform": [print]}, "<built-in function print>, but runs hepfeed's steps only"),
        ({"device": "cpu", "device_transform": "flop"}, "there is no transform 'flop'"),
    ],
)
def test_steps_of_a_device_that_can_not_be_are_refused(dataset, options, said):
    with pytest.raises(SpecError, match=said):
        feed(dataset, **{"device_transform": FLIPS, **options})


def test_steps_need_a_dict(dataset):
    loader = feed(dataset, device="cpu", device_transform=FLIPS, delivery_fn=lambda batch: [batch["image"]])
    with pytest.raises(ProcessError, match="needs a dict of the batch's keys, but delivery_fn returned a list"):
        next(iter(loader))


def test_any_dataset_takes_a_device_but_no_steps_there():
    with pytest.raises(SpecError, match="device_transform can't be used with a Images"):
        hf.DataLoader(Images(3), device_transform=FLIPS)
    assert hf.DataLoader(Images(3), device="cpu").device == torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused_at_once(dataset):
    for made in (dataset, Images(3)):
        with pytest.raises(SpecError, match="finds no CUDA device: use device='cpu'"):
            hf.DataLoader(made, device="cuda")
