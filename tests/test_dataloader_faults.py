"""What hepfeed's readers survive and torch's do not: signals, stops and hangs, with the same epoch to the last bit."""

import os
import random
import signal
import threading
import time

import psutil
import pytest
import torch
from loader_datasets import Count, Deadly, Noise, NoisyShards
from outcomes import error_of
from same_batches import assert_same

import hepfeed as hf

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.timeout(60),  # a fault is an error, never a hang
]

DATASETS = {"map": Noise(64), "stream": NoisyShards(64)}


def loader_of(dataset, **options):
    options = {"batch_size": 4, "num_workers": 2, "generator": torch.Generator().manual_seed(5), **options}
    return hf.DataLoader(dataset, **options)


def strike(iterator, number, how):
    """Send a signal to a reader, if it is there."""
    with_pid = iterator._workers[number]
    if with_pid.exitcode is None:
        os.kill(with_pid.pid, how)


# ---- dead readers


@pytest.mark.parametrize("kind", DATASETS)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
@pytest.mark.parametrize("seed", range(4))
def test_an_epoch_is_the_same_when_readers_die_between_batches(kind, how, seed):
    dataset, moments = DATASETS[kind], random.Random(seed)
    undisturbed = list(loader_of(dataset))
    dying = set(moments.sample(range(len(undisturbed) - 1), 3))
    iterator, batches = iter(loader_of(dataset)), []
    for number, batch in enumerate(iterator):
        batches.append(batch)
        if number in dying:
            strike(iterator, moments.randrange(2), how)
    assert_same(batches, undisturbed)


@pytest.mark.parametrize("kind", DATASETS)
@pytest.mark.parametrize("seed", range(6))
def test_an_epoch_is_the_same_when_a_reader_dies_at_any_moment(kind, seed):
    dataset, moments = DATASETS[kind], random.Random(seed)
    undisturbed = list(loader_of(dataset))
    iterator = iter(loader_of(dataset))
    workers = list(iterator._workers)
    killer = threading.Timer(moments.uniform(0.0, 0.05), lambda: workers[moments.randrange(2)].kill())
    killer.start()
    assert_same(list(iterator), undisturbed)
    killer.join()


@pytest.mark.parametrize("kind", DATASETS)
@pytest.mark.parametrize("persistent", [False, True])
def test_an_epoch_is_the_same_when_all_readers_die_at_once(kind, persistent):
    undisturbed = list(loader_of(DATASETS[kind], persistent_workers=persistent))
    loader = loader_of(DATASETS[kind], persistent_workers=persistent)
    iterator = iter(loader)
    batches = [next(iterator), next(iterator), next(iterator)]
    for number in range(2):
        strike(iterator, number, signal.SIGKILL)
    assert_same(batches + list(iterator), undisturbed)


@pytest.mark.parametrize("kind", DATASETS)
def test_persistent_readers_that_die_between_epochs_are_replaced(kind):
    def epochs(how):
        loader = loader_of(DATASETS[kind], persistent_workers=True)
        batches = []
        for _ in range(3):
            batches += list(loader)
            if how:
                strike(loader._iterator, 1, how)
        return batches

    assert_same(epochs(signal.SIGKILL), epochs(None))


def test_an_event_that_kills_one_reader_is_read_by_the_next(tmp_path):
    undisturbed = list(loader_of(Noise(24)))
    for how in (signal.SIGKILL, signal.SIGSEGV, "exit", "SystemExit"):
        assert_same(list(loader_of(Deadly(24, 7, how, tmp_path / str(how)))), undisturbed)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV, "exit"])
def test_an_event_that_kills_every_reader_is_named_and_the_loop_may_go_on(how):
    undisturbed = list(loader_of(Noise(16), batch_size=2))
    iterator = iter(loader_of(Deadly(16, 7, how), batch_size=2))
    batches = [next(iterator) for _ in range(3)]
    error = error_of(next, iterator)
    assert type(error) is hf.errors.ReaderError
    assert "3 workers died of index [6, 7]" in str(error)
    batches += list(iterator)
    assert [batch["index"].tolist() for batch in batches] == [
        batch["index"].tolist() for number, batch in enumerate(undisturbed) if number != 3
    ]


def test_a_dead_reader_does_not_disturb_the_order_of_others():
    loader = loader_of(Count(30), batch_size=None, in_order=False)
    iterator, numbers = iter(loader), []
    for number in iterator:
        numbers.append(number)
        if len(numbers) == 5:
            strike(iterator, 0, signal.SIGKILL)
    assert sorted(numbers) == sorted([*range(30)] * 2)


# ---- readers that stand still


@pytest.mark.parametrize("kind", DATASETS)
def test_a_stopped_reader_is_replaced_after_the_time_out(kind):
    undisturbed = list(loader_of(DATASETS[kind]))
    iterator = iter(loader_of(DATASETS[kind], timeout=2))
    batches = [next(iterator)]
    stopped = iterator._workers[1].pid
    os.kill(stopped, signal.SIGSTOP)
    assert_same(batches + list(iterator), undisturbed)
    assert not psutil.pid_exists(stopped)


class Hanging(Noise):
    """One event never comes."""

    def __getitem__(self, index):
        while index == 5:
            time.sleep(0.05)
        return super().__getitem__(index)


def test_finished_batches_come_before_the_error_of_one_that_never_does():
    iterator = iter(loader_of(Hanging(16), batch_size=2, timeout=1))
    assert [next(iterator)["index"].tolist() for _ in range(2)] == [[0, 1], [2, 3]]
    error = error_of(next, iterator)
    assert type(error) is hf.errors.FeedTimeoutError
    assert isinstance(error, RuntimeError | TimeoutError)
    assert str(error).startswith("DataLoader timed out after 1 seconds")
    assert "[4, 5]" in str(error)
