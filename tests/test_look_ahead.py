"""The next epoch's beginning, which readers that stay read while this one ends: never another one's."""

import os
import signal
import time

import pytest
from events import bits, events_of, write_classes

import hepfeed as hf

EPOCHS = 3


@pytest.fixture
def dataset(tmp_path):
    return hf.EventDataset(write_classes(tmp_path, {"electron": [60, 45], "pion": [83]}, layout="all_filters"))


@pytest.fixture
def epochs(dataset):
    """What each epoch must be."""
    made = []
    for epoch in range(EPOCHS):
        loader = hf.DataLoader(dataset, 16, shuffle=True, seed=3, window_events=32)
        loader.set_epoch(epoch)
        made.append(bits(loader))
    return made


def persistent(dataset, **options):
    return hf.DataLoader(
        dataset, 16, shuffle=True, num_workers=2, persistent_workers=True, seed=3, window_events=32, **options
    )


def test_epochs_follow_each_other(dataset, epochs):
    with persistent(dataset) as loader:
        for expected in epochs:
            assert bits(loader) == expected
            assert loader._ahead is not None


def test_what_was_read_ahead_is_not_read_again(dataset):
    with persistent(dataset) as loader:
        for _ in range(2):
            list(loader)
        chunks = loader.stats()["chunks"]
        loader._drop_ahead()
    with hf.DataLoader(dataset, 16, shuffle=True, seed=3, window_events=32) as plain:
        for _ in range(3):
            list(plain)
        assert chunks <= plain.stats()["chunks"]


def test_another_epoch_than_the_next_may_be_chosen(dataset, epochs):
    with persistent(dataset) as loader:
        assert bits(loader) == epochs[0]
        loader.set_epoch(1)
        assert bits(loader) == epochs[1]
        loader.set_epoch(0)
        assert bits(loader) == epochs[0]
        loader.set_epoch(2)
        assert bits(loader) == epochs[2]


def test_a_state_may_be_loaded_after_an_epoch(dataset, epochs):
    with persistent(dataset) as loader:
        batches = iter(loader)
        first = [next(batches) for _ in range(5)]
        state = loader.state_dict()
        rest = bits(batches)
        assert bits(first) + rest == epochs[0]
        loader.load_state_dict(state)
        assert bits(loader) == rest
        assert bits(loader) == epochs[1]


def test_a_loop_may_be_left_near_the_end(dataset, epochs):
    with persistent(dataset) as loader:
        for number, _ in enumerate(loader):
            if number == len(loader) - 2:
                break
        assert loader._ahead is not None
        assert bits(loader) == epochs[1]


def test_a_replay_reads_nothing_ahead(dataset, epochs):
    with persistent(dataset) as loader:
        specs = list(loader.filler.batches(0))
        assert bits(loader.replay(specs)) == epochs[0]
        assert loader._ahead is None
        assert bits(loader) == epochs[0]


def test_readers_that_die_between_epochs_lose_nothing(dataset, epochs):
    with persistent(dataset) as loader:
        assert bits(loader) == epochs[0]
        for pid in loader._own_pool.pids:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)
        assert bits(loader) == epochs[1]


def test_parts_of_a_provider_take_turns(tmp_path):
    spec = write_classes(tmp_path, {"electron": [60, 45], "pion": [83]}, layout="all_filters")
    expected = None
    for readers in (0, 2):
        with hf.DataProvider(spec, 16, num_workers=readers, seed=3, window_events=32) as provider:
            seen = [events_of(part) for _ in range(3) for part in (provider.train, provider.val)]
        expected = expected or seen
        assert seen == expected
