"""Data sets by index: which events make which batch, and in which order."""

import itertools

import pytest
import torch
from loader_datasets import Bulk, Images, Keyed, Numbers, Whereabouts, only_list, reader_number
from outcomes import error_of
from same_batches import assert_same
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    StackDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    random_split,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.timeout(60),
]

WORKERS = pytest.mark.parametrize("num_workers", [0, 2])


def lists(loader):
    return [batch.tolist() for batch in loader]


# ---- order


@WORKERS
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [[0], [1], [2], [3], [4], [5], [6]]),
        ({"batch_size": 3}, [[0, 1, 2], [3, 4, 5], [6]]),
        ({"batch_size": 3, "drop_last": True}, [[0, 1, 2], [3, 4, 5]]),
        ({"batch_size": 7}, [[0, 1, 2, 3, 4, 5, 6]]),
        ({"batch_size": 99}, [[0, 1, 2, 3, 4, 5, 6]]),
        ({"batch_size": 99, "drop_last": True}, []),
        ({"batch_size": 2, "sampler": [6, 0, 0, 5]}, [[6, 0], [0, 5]]),
        ({"batch_sampler": [[1, 2], [6], [], [3, 3, 3]], "collate_fn": torch.tensor}, [[1, 2], [6], [], [3, 3, 3]]),
    ],
    ids=lambda value: str(value).partition(" at 0x")[0],  # workers must find the same names
)
def test_batches_are_those_of_the_sampler_in_its_order(Loader, options, expected, num_workers):
    loader = Loader(Numbers(7), num_workers=num_workers, **options)
    assert lists(loader) == expected
    assert lists(loader) == expected
    assert len(loader) == len(expected)


@WORKERS
def test_without_a_batch_size_events_come_as_they_are(Loader, num_workers):
    events = list(Loader(Numbers(4), None, num_workers=num_workers))
    assert_same(events, [0, 1, 2, 3])
    assert_same(list(Loader(Numbers(4), None, sampler=[3, 1], num_workers=num_workers)), [3, 1])


@WORKERS
def test_more_workers_than_batches_do_no_harm(Loader, num_workers):
    assert lists(Loader(Numbers(1), num_workers=2 * num_workers)) == [[0]]
    assert lists(Loader(Numbers(0), num_workers=num_workers)) == []


@WORKERS
def test_prefetching_changes_nothing(Loader, num_workers):
    for factor in (1, 5) if num_workers else (None,):
        loader = Loader(Numbers(9), 2, num_workers=num_workers, prefetch_factor=factor)
        assert lists(loader) == [[0, 1], [2, 3], [4, 5], [6, 7], [8]]


@WORKERS
def test_a_shuffled_epoch_has_every_event_once_in_another_order_each_time(Loader, num_workers):
    loader = Loader(Numbers(50), 8, shuffle=True, num_workers=num_workers)
    first, second = (list(itertools.chain(*lists(loader))) for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(50))
    assert len({tuple(first), tuple(second), tuple(range(50))}) == 3


@WORKERS
@pytest.mark.parametrize("seeded_by", ["generator", "global"])
def test_the_same_seed_shuffles_the_same_way(Loader, num_workers, seeded_by):
    def epochs():
        torch.manual_seed(5)
        generator = torch.Generator().manual_seed(5) if seeded_by == "generator" else None
        loader = Loader(Numbers(20), 6, shuffle=True, num_workers=num_workers, generator=generator)
        return lists(loader) + lists(loader)

    assert epochs() == epochs()


@WORKERS
def test_iterators_of_one_loader_do_not_disturb_each_other(Loader, num_workers):
    loader = Loader(Numbers(5), 2, num_workers=num_workers)
    pairs = [(a.tolist(), b.tolist()) for a, b in zip(loader, loader, strict=True)]
    assert pairs == [([0, 1], [0, 1]), ([2, 3], [2, 3]), ([4], [4])]
    assert [(a.item(), b.tolist()) for a in Loader(Numbers(2)) for b in loader] == [
        (a, b) for a in range(2) for b in ([0, 1], [2, 3], [4])
    ]


@WORKERS
def test_an_iterator_stays_at_its_end(Loader, num_workers):
    iterator = iter(Loader(Numbers(2), 2, num_workers=num_workers))
    assert iter(iterator) is iterator
    assert len(iterator) == 1
    assert next(iterator).tolist() == [0, 1]
    for _ in range(3):
        assert next(iterator, None) is None


# ---- samplers


class Evens(Sampler):
    """Even numbers, and how many were asked for."""

    def __init__(self, n):
        self.n = n
        self.asked = 0

    def __len__(self):
        return self.n // 2

    def __iter__(self):
        for number in range(0, self.n, 2):
            self.asked += 1
            yield number


@WORKERS
@pytest.mark.parametrize(
    "make",
    [
        lambda dataset: RandomSampler(dataset, replacement=True, num_samples=11),
        lambda dataset: RandomSampler(dataset, generator=torch.Generator().manual_seed(3)),
        lambda dataset: WeightedRandomSampler([0.1, 0.9, 0.5], 9),
        lambda dataset: SubsetRandomSampler([4, 2, 9]),
        lambda dataset: DistributedSampler(dataset, 3, 1, shuffle=True),
        lambda dataset: Evens(10),
    ],
    ids=["replacement", "own generator", "weighted", "subset", "distributed", "own class"],
)
def test_every_kind_of_sampler_is_followed(Loader, make, num_workers):
    dataset = Numbers(13)
    torch.manual_seed(2)
    expected = list(make(dataset))
    loader = Loader(dataset, None, sampler=make(dataset), num_workers=num_workers, generator=torch.Generator())
    torch.manual_seed(2)
    assert list(loader) == expected


@WORKERS
def test_a_sampler_may_ask_for_several_events_at_once(Loader, num_workers):
    images = torch.arange(24.0).view(8, 3)
    sampler = BatchSampler(SequentialSampler(images), 3, drop_last=False)
    batches = list(Loader(TensorDataset(images), None, sampler=sampler, num_workers=num_workers))
    assert_same(batches, [[images[:3]], [images[3:6]], [images[6:]]])


@WORKERS
def test_a_batch_sampler_may_be_any_iterable_and_begins_anew_each_epoch(Loader, num_workers):
    class Rotating:
        first = 0

        def __iter__(self):
            for number in (self.first, self.first + 1):
                yield [number, number]
            self.first += 1

    options = {"num_workers": num_workers, "persistent_workers": num_workers > 0}
    loader = Loader(Numbers(5), batch_sampler=Rotating(), **options)
    assert [lists(loader) for _ in range(3)] == [[[n, n], [n + 1, n + 1]] for n in range(3)]


@pytest.mark.parametrize("factor", [1, 3])
def test_a_sampler_is_asked_for_what_is_prefetched_and_no_more(Loader, factor):
    sampler = Evens(60)
    iterator = iter(Loader(Numbers(60), 2, sampler=sampler, num_workers=2, prefetch_factor=factor))
    assert sampler.asked == 2 * 2 * factor
    for taken in (1, 2, 3):
        next(iterator)
        assert sampler.asked == 2 * (2 * factor + taken)


@WORKERS
def test_an_error_of_the_sampler_comes_from_the_loop(Loader, num_workers):
    def sampler():
        yield from range(7)
        raise LookupError("out of numbers")

    loader = Loader(Numbers(50), None, sampler=sampler(), num_workers=num_workers)
    error = error_of(list, loader)
    assert (type(error), str(error)) == (LookupError, "out of numbers")


def test_lists_of_many_indices_do_not_block_the_end(Loader):
    def loop():
        for batch in Loader([torch.empty(0)] * 100_000, 40_000, num_workers=1):
            assert batch.numel() == 0
            raise ZeroDivisionError

    assert type(error_of(loop)) is ZeroDivisionError


# ---- fetching


@WORKERS
def test_many_events_are_fetched_at_once_where_the_data_set_can(Loader, num_workers):
    assert lists(Loader(Bulk(5), 2, num_workers=num_workers)) == [[1000, 1001], [1002, 1003], [1004]]
    assert list(Loader(Bulk(2), None, num_workers=num_workers)) == [0, 1]


@WORKERS
def test_events_may_have_any_keys(Loader, num_workers):
    dataset = Keyed({"a": 1, ("b", 2): 2.5, None: "c"})
    events = list(Loader(dataset, None, sampler=list(dataset.values), num_workers=num_workers))
    assert_same(events, [["a", 1], [["b", 2], 2.5], [None, "c"]])


@WORKERS
@pytest.mark.parametrize("dataset", [list(range(5)), tuple(range(5)), range(5), "abcde", dict(enumerate("abcde"))])
def test_anything_with_items_is_a_data_set(Loader, dataset, num_workers):
    loader = Loader(dataset, 2, collate_fn=only_list, num_workers=num_workers)
    assert list(itertools.chain(*loader)) == [dataset[index] for index in range(5)]


@WORKERS
def test_torchs_own_data_sets_are_fed(Loader, num_workers):
    numbers = torch.arange(6)
    twice = ConcatDataset([TensorDataset(numbers), TensorDataset(-numbers)])
    dataset = StackDataset(x=Subset(twice, [7, 1, 8, 2]), y=list("abcd"))
    batches = list(Loader(dataset, 3, num_workers=num_workers))
    assert_same(batches[0], {"x": [torch.tensor([-1, 1, -2])], "y": ["a", "b", "c"]})
    parts = random_split(range(10), [0.7, 0.3], generator=torch.Generator().manual_seed(0))
    assert sorted(n for part in parts for batch in lists(Loader(part, 4, num_workers=num_workers)) for n in batch) == [
        *range(10)
    ]


# ---- collating


@WORKERS
def test_a_collate_function_gets_the_list_of_events_in_the_reader(Loader, num_workers):
    def collate(events):
        return type(events), events, reader_number()

    batches = list(Loader(Numbers(5), 2, collate_fn=collate, num_workers=num_workers))
    readers = [0, 1, 0] if num_workers else [-1] * 3
    assert batches == [(list, events, reader) for events, reader in zip([[0, 1], [2, 3], [4]], readers, strict=True)]


@WORKERS
def test_without_a_batch_size_it_gets_each_event(Loader, num_workers):
    assert list(Loader(Numbers(3), None, collate_fn=str, num_workers=num_workers)) == ["0", "1", "2"]


@WORKERS
def test_a_collate_function_may_call_torchs_own(Loader, num_workers):
    def collate(events):
        images, numbers = torch.utils.data.default_collate(events)
        return {"images": images, "again": torch.utils.data.default_collate(events), "sum": int(numbers.sum())}

    images = torch.tensor([0.0, 1.0]).view(2, 1, 1).expand(2, 3, 5)
    expected = {"images": images, "again": [images, torch.tensor([0, 1])], "sum": 1}
    assert_same(list(Loader(Images(2), 2, collate_fn=collate, num_workers=num_workers)), [expected])


# ---- readers take turns


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_batches_go_to_the_readers_in_turn(Loader, num_workers):
    loader = Loader(Whereabouts(14), 2, num_workers=num_workers)
    for _ in range(2):
        assert [batch[1].tolist() for batch in loader] == [[number % num_workers] * 2 for number in range(7)]
