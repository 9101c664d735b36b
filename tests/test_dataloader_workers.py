"""Readers: how they start, how long they live, and what order they work in."""

import gc
import itertools
import os
import signal

import psutil
import pytest
import torch
from loader_datasets import (
    Cores,
    Deadly,
    Draining,
    Forgetful,
    Gated,
    GatedStream,
    Images,
    Noise,
    NoisyShards,
    Numbers,
    pin_to_last_core,
)
from outcomes import error_of
from same_batches import assert_same
from torch.utils.data import DataLoader as Torch

import hepfeed as hf

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.timeout(90),
]


def pids_of(iterator):
    return [worker.pid for worker in iterator._workers]


# ---- start


@pytest.mark.usefixtures("multiprocessing_helpers")
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("dataset", [Noise(6), NoisyShards(6)], ids=["map", "stream"])
def test_every_start_method_gives_the_bits_that_torch_gives_after_a_fork(dataset, method):
    def batches(loader, method):
        options = {"generator": torch.Generator().manual_seed(3), "multiprocessing_context": method}
        return list(loader(dataset, 2, num_workers=1, **options))

    assert_same(batches(hf.DataLoader, method), batches(Torch, "fork"))


@pytest.mark.usefixtures("multiprocessing_helpers")
def test_torch_itself_gives_the_same_bits_after_a_spawn():
    def batches(method):
        options = {"generator": torch.Generator().manual_seed(3), "multiprocessing_context": method}
        return list(Torch(Noise(6), 2, num_workers=1, **options))

    assert_same(batches("spawn"), batches("fork"))


def test_an_iterator_has_its_processes(Loader):
    iterator = iter(Loader(Numbers(40), num_workers=2))
    workers = list(iterator._workers)
    assert len(workers) == 2
    children = {child.pid for child in psutil.Process().children(recursive=True)}
    for worker in workers:
        assert worker.pid in children
        assert worker.is_alive()
        assert worker.exitcode is None
    del iterator
    for worker in workers:
        worker.join(10)
        assert not worker.is_alive()
        assert worker.exitcode is not None


def test_readers_end_with_the_epoch(Loader):
    iterator = iter(Loader(Numbers(4), num_workers=2))
    pids = pids_of(iterator)
    assert len(list(iterator)) == 4
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_the_init_function_may_bind_a_reader_to_a_core(Loader):
    cores = os.sched_getaffinity(0)
    loader = Loader(Cores(), None, num_workers=2, worker_init_fn=pin_to_last_core)
    assert list(loader) == [max(cores)] * 2
    assert os.sched_getaffinity(0) == cores


# ---- persistent readers


def test_persistent_readers_and_their_copies_outlive_an_epoch(Loader):
    loader = Loader(Forgetful(6), None, num_workers=2, persistent_workers=True)
    pids = []
    for epoch in range(3):
        iterator = iter(loader)
        pids.append(pids_of(iterator))
        assert list(iterator) == [[index, index % 2, 3 * epoch + index // 2 + 1] for index in range(6)]
    assert pids[0] == pids[1] == pids[2]


def test_other_readers_begin_every_epoch_with_fresh_copies(Loader):
    loader = Loader(Forgetful(6), None, num_workers=2)
    for _ in range(2):
        assert list(loader) == [[index, index % 2, index // 2 + 1] for index in range(6)]


@pytest.mark.parametrize("taken", [1, 3])
def test_persistent_readers_that_are_left_early_begin_anew(Loader, taken):
    loader = Loader(Numbers(9), None, num_workers=2, persistent_workers=True)
    for _ in range(2):
        assert list(itertools.islice(loader, taken)) == list(range(taken))
    pids = pids_of(loader._iterator)
    assert list(loader) == list(range(9))
    assert pids_of(loader._iterator) == pids


def test_a_stream_of_persistent_readers_that_is_left_early_goes_on_where_its_copies_are(Loader):
    loader = Loader(Draining(5), None, num_workers=1, persistent_workers=True, prefetch_factor=1)
    assert next(iter(loader)) == 4
    rest = list(loader)
    assert rest == list(range(len(rest)))[::-1]
    assert len(rest) < 4


def test_two_epochs_of_other_readers_may_run_side_by_side(Loader):
    loader = Loader(Numbers(6), 2, num_workers=1)
    first, second = iter(loader), iter(loader)
    assert next(first).tolist() == next(second).tolist() == [0, 1]
    assert set(pids_of(first)).isdisjoint(pids_of(second))
    assert [batch.tolist() for batch in first] == [[2, 3], [4, 5]]
    assert [batch.tolist() for batch in second] == [[2, 3], [4, 5]]


# ---- order


def open_after(gate, count, iterator):
    """Take ``count`` items, then let the rest go on."""
    first = list(itertools.islice(iterator, count))
    gate.touch()
    return first + list(iterator)


@pytest.mark.parametrize("persistent", [False, True])
def test_a_slow_event_is_overtaken_where_order_does_not_matter(Loader, tmp_path, persistent):
    gate = tmp_path / "gate"
    dataset = Gated(10, gate, closed=0)
    loader = Loader(dataset, None, num_workers=2, in_order=False, persistent_workers=persistent)
    for _ in range(2):
        gate.unlink(missing_ok=True)
        assert open_after(gate, 8, iter(loader)) == [1, 3, 4, 5, 6, 7, 8, 9, 0, 2]


def test_a_slow_event_is_waited_for_where_order_matters(Loader, tmp_path):
    gate = tmp_path / "gate"
    iterator = iter(Loader(Gated(10, gate, closed=1), None, num_workers=2))
    assert open_after(gate, 1, iterator) == list(range(10))


def test_a_slow_stream_is_overtaken_where_order_does_not_matter(Loader, tmp_path):
    gate = tmp_path / "gate"
    iterator = iter(Loader(GatedStream(10, gate), None, num_workers=2, in_order=False))
    numbers = open_after(gate, 4, iterator)
    assert numbers[:4] == [0, 2, 4, 6]
    assert sorted(numbers) == list(range(10))


# ---- what takes too long, and what dies


@pytest.mark.parametrize("timeout", [1, 0.5])
def test_a_batch_that_does_not_come_in_time_is_an_error(Loader, tmp_path, timeout):
    gate = tmp_path / "gate"
    iterator = iter(Loader(Gated(4, gate, closed=1), None, num_workers=1, timeout=timeout))
    assert next(iterator) == 0
    error = error_of(next, iterator)
    gate.touch()
    assert isinstance(error, RuntimeError)
    assert str(error).startswith(f"DataLoader timed out after {timeout} seconds")


@pytest.mark.parametrize("how", ["exit", "SystemExit", signal.SIGKILL])
def test_a_reader_that_always_ends_is_an_error(Loader, how):
    error = error_of(list, Loader(Deadly(6, 3, how), 2, num_workers=2))
    assert isinstance(error, RuntimeError)


def test_a_reader_that_is_done_is_not_missed(Loader):
    iterator = iter(Loader(Images(6), 3, num_workers=2, prefetch_factor=1))
    batches = list(iterator)
    del iterator
    gc.collect()
    assert [batch[1].tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5]]


# ---- profiler


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_profiler_shows_the_wait_for_batches(Loader, num_workers):
    loader = Loader(Numbers(3), num_workers=num_workers)
    iterator = iter(loader)
    with torch.autograd.profiler.profile() as profile:
        assert len(list(iterator)) == 3
    names = [event.name for event in profile.function_events]
    assert names.count(f"enumerate(DataLoader)#{type(iterator).__name__}.__next__") == 4
