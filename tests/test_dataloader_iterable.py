"""Data sets that are streams: each reader has a copy, and what it makes of it."""

import itertools

import pytest
import torch
from loader_datasets import Count, CountWithLength, Draining, Shards, Uneven, only_list
from outcomes import outcome
from same_batches import assert_same
from torch.utils.data import DataLoader as Torch
from torch.utils.data import IterableDataset
from torch.utils.data.datapipes.iter import IterableWrapper
from torch.utils.data.datapipes.map import SequenceWrapper

import hepfeed as hf

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.timeout(60),
]

WORKERS = pytest.mark.parametrize("num_workers", [0, 2])


def lists(loader):
    return [batch.tolist() for batch in loader]


# ---- order


@pytest.mark.parametrize(
    ("num_workers", "options", "expected"),
    [
        (0, {"batch_size": 2}, [[0, 1], [2, 3], [4]]),
        (0, {"batch_size": 2, "drop_last": True}, [[0, 1], [2, 3]]),
        (1, {"batch_size": 2}, [[0, 1], [2, 3], [4]]),
        (1, {"batch_size": 9, "drop_last": True}, []),
        (2, {"batch_size": 2}, [[0, 1], [0, 1], [2, 3], [2, 3], [4], [4]]),
        (2, {"batch_size": 2, "drop_last": True}, [[0, 1], [0, 1], [2, 3], [2, 3]]),
        (2, {"batch_size": 5, "prefetch_factor": 1}, [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]),
    ],
    ids=str,
)
def test_readers_take_turns_and_each_makes_batches_of_its_own_copy(Loader, num_workers, options, expected):
    loader = Loader(Count(5), num_workers=num_workers, **options)
    assert lists(loader) == expected
    assert lists(loader) == expected


@WORKERS
def test_without_a_batch_size_numbers_come_as_they_are(Loader, num_workers):
    assert_same(list(Loader(Shards(6), None, num_workers=num_workers)), list(range(6)))


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_a_stream_may_be_shared_out_between_the_readers(Loader, num_workers):
    assert lists(Loader(Shards(12), 1, num_workers=num_workers)) == [[number] for number in range(12)]


@pytest.mark.parametrize("sizes", [[0, 4, 10], [10, 0, 1], [3, 3, 3], [0, 0, 0], [0, 0, 7]], ids=str)
@pytest.mark.parametrize("factor", [1, 4])
@pytest.mark.parametrize("persistent", [False, True])
def test_readers_may_end_at_different_times(Loader, sizes, factor, persistent):
    loader = Loader(Uneven(sizes), None, num_workers=3, prefetch_factor=factor, persistent_workers=persistent)
    for _ in range(2):
        numbers = list(loader)
        for reader, size in enumerate(sizes):
            assert [pair[1] for pair in numbers if pair[0] == reader] == list(range(size))
        assert len(numbers) == sum(sizes)


def test_the_last_incomplete_batch_of_each_reader_is_dropped(Loader):
    sizes = {"drop_last": [2, 2, 2], "keep": [2, 2, 2, 1]}
    for name, expected in sizes.items():
        loader = Loader(Uneven([3, 4]), 2, num_workers=2, drop_last=name == "drop_last", collate_fn=only_list)
        assert sorted(map(len, loader), reverse=True) == expected


@WORKERS
def test_streams_can_be_chained(Loader, num_workers):
    chain = Shards(4) + Shards(3)
    batches = list(Loader(chain, None, num_workers=num_workers))
    assert sorted(batches) == [0, 0, 1, 1, 2, 2, 3]
    if num_workers == 0:
        assert batches == [0, 1, 2, 3, 0, 1, 2]


class Endless(IterableDataset):
    def __iter__(self):
        return itertools.count()


@WORKERS
def test_an_endless_stream_may_be_left(Loader, num_workers):
    for epoch in range(2):
        first = list(itertools.islice(Loader(Endless(), 3, num_workers=num_workers), 3 + epoch))
        assert first[0].tolist() == [0, 1, 2]
        assert len(first) == 3 + epoch


@pytest.mark.parametrize("num_workers", [1, 2])
def test_each_epoch_begins_with_a_fresh_copy_unless_workers_persist(Loader, num_workers):
    fresh = Loader(Draining(3), None, num_workers=num_workers)
    assert [len(list(fresh)) for _ in range(2)] == [3 * num_workers] * 2
    kept = Loader(Draining(3), None, num_workers=num_workers, persistent_workers=True)
    assert [len(list(kept)) for _ in range(3)] == [3 * num_workers, 0, 0]


# ---- length


@pytest.mark.parametrize("num_workers", [0, 2])
def test_more_than_the_length_is_warned_of_as_by_torch(num_workers):
    class Liar(CountWithLength):
        def __len__(self):
            return 3

    dataset = Liar(5)

    def run(loader):
        loader = loader(dataset, num_workers=num_workers)
        assert len(loader) == 3
        assert len(list(loader)) == 5 * max(1, num_workers)

    theirs = outcome(run, Torch)
    assert "was reported to be 3(when accessing len(dataloader)), but 4 samples" in theirs[2][0][1]
    assert outcome(run, hf.DataLoader) == theirs


@WORKERS
def test_without_a_look_at_the_length_nothing_is_warned_of(Loader, num_workers):
    class Liar(CountWithLength):
        def __len__(self):
            return 1

    assert len(list(Loader(Liar(5), num_workers=num_workers))) == 5 * max(1, num_workers)


# ---- data pipes


def scale(row):
    return [10 * number for number in row]


def is_long(row):
    return len(row) > 1


@WORKERS
def test_a_pipe_is_filtered_mapped_and_batched(Loader, num_workers):
    pipe = IterableWrapper([[1, 2], [3], [4, 5]]).filter(is_long).map(scale).sharding_filter()
    rows = list(Loader(pipe, None, num_workers=num_workers, collate_fn=only_list))
    assert rows == [[10, 20], [40, 50]]


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_a_sharding_pipe_gives_everything_once(Loader, num_workers):
    pipe = IterableWrapper(range(11)).sharding_filter()
    for _ in range(2):
        assert sorted(number for batch in lists(Loader(pipe, 3, num_workers=num_workers)) for number in batch) == [
            *range(11)
        ]
    assert list(pipe) == list(range(11))


@WORKERS
@pytest.mark.parametrize("shuffle", [True, False, None])
@pytest.mark.parametrize("persistent", [False, True])
def test_a_shuffling_pipe_is_shuffled_as_by_torch(num_workers, shuffle, persistent):
    def epochs(loader):
        torch.manual_seed(8)
        pipe = IterableWrapper(range(20)).shuffle().sharding_filter()
        options = {"num_workers": num_workers, "persistent_workers": persistent and num_workers > 0}
        loader = loader(pipe, None, shuffle=shuffle, **options)
        return [list(loader) for _ in range(3)]

    theirs = epochs(Torch)
    assert epochs(hf.DataLoader) == theirs
    assert all(sorted(epoch) == list(range(20)) for epoch in theirs)
    assert (theirs[0] == theirs[1]) == (shuffle is False)


@WORKERS
def test_a_pipe_by_index_is_a_data_set_by_index(Loader, num_workers):
    pipe = SequenceWrapper(range(5)).map(float)
    assert lists(Loader(pipe, 2, num_workers=num_workers)) == [[0.0, 1.0], [2.0, 3.0], [4.0]]
