"""An epoch of any data set goes on where a state was taken: at the batch that the loop has seen."""

import itertools
import pickle

import pytest
import torch
from loader_datasets import Images, Noise, NoisyShards, Numbers, Resumable, Shards
from outcomes import error_of
from same_batches import assert_same

import hepfeed as hf

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.timeout(60),
]


def interrupted(make, taken):
    """Run a loader; return its whole first epoch, its second, and what another one makes of a state taken midway."""
    torch.manual_seed(31)
    loader, batches, state = make(), [], None
    if taken == 0:
        iterator = iter(loader)
        state = loader.state_dict()
        batches += iterator
    else:
        for number, batch in enumerate(loader, start=1):
            batches.append(batch)
            if number == taken:
                state = pickle.loads(pickle.dumps(loader.state_dict()))
    torch.manual_seed(777)
    again = make()
    again.load_state_dict(state)
    return batches, list(again), again


CASES = {
    "in order": (lambda: Numbers(21), {"batch_size": 2}),
    "shuffled": (lambda: Images(21), {"batch_size": 2, "shuffle": True}),
    "one by one": (lambda: Numbers(15), {"batch_size": None, "shuffle": True}),
    "batch sampler": (lambda: Numbers(9), {"batch_sampler": [[0], [1, 2], [3], [4, 5, 6], [8], [0]]}),
    "shards": (lambda: Shards(21), {"batch_size": 2}),
}
NOISY = {
    "noise": (lambda: Noise(21), {"batch_size": 2}),
    "shuffled noise": (lambda: Noise(21), {"batch_size": 2, "shuffle": True}),
    "noisy shards": (lambda: NoisyShards(21), {"batch_size": 2}),
}


@pytest.mark.parametrize("name", CASES | NOISY)
@pytest.mark.parametrize("taken", [0, 1, 5])
def test_the_rest_of_an_epoch_is_the_same_bit_for_bit(name, taken):
    dataset, options = (CASES | NOISY)[name]
    batches, rest, _ = interrupted(lambda: hf.DataLoader(dataset(), num_workers=2, **options), taken)
    assert len(batches) > 5
    assert_same(rest, batches[taken:])


@pytest.mark.parametrize("name", [name for name in CASES if name != "shards"])
@pytest.mark.parametrize("workers", [(2, 1), (1, 3), (2, 0), (0, 2), (0, 0)], ids=str)
def test_the_number_of_readers_may_change(name, workers):
    dataset, options = CASES[name]
    numbers = iter(workers)
    batches, rest, _ = interrupted(lambda: hf.DataLoader(dataset(), num_workers=next(numbers), **options), 4)
    assert_same(rest, batches[4:])


@pytest.mark.parametrize("persistent", [False, True])
def test_the_next_epoch_after_a_resumed_one_is_whole(persistent):
    def make():
        return hf.DataLoader(Numbers(12), 2, shuffle=True, num_workers=2, persistent_workers=persistent)

    _, rest, again = interrupted(make, 3)
    assert len(rest) == 3
    assert sorted(itertools.chain(*(batch.tolist() for batch in again))) == list(range(12))


def test_a_state_of_a_resumed_epoch_counts_from_the_beginning():
    def make():
        return hf.DataLoader(Noise(24), 2, shuffle=True, num_workers=2)

    torch.manual_seed(4)
    first, batches, state = make(), [], None
    for number, batch in enumerate(first, start=1):
        batches.append(batch)
        if number == 3:
            state = first.state_dict()
    for position in (3, 6, 9):
        loader = make()
        loader.load_state_dict(state)
        rest = []
        for batch in loader:
            rest.append(batch)
            if len(rest) == 3:
                state = loader.state_dict()
        assert_same(rest, batches[position:])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_state_at_the_end_of_an_epoch_begins_the_next(num_workers):
    loader = hf.DataLoader(Numbers(6), 2, num_workers=num_workers)
    for _ in loader:
        pass
    again = hf.DataLoader(Numbers(6), 2, num_workers=num_workers)
    again.load_state_dict(loader.state_dict())
    assert [batch.tolist() for batch in again] == [[0, 1], [2, 3], [4, 5]]


def test_a_stream_that_knows_where_it_is_reads_nothing_twice(tmp_path):
    journals = iter([tmp_path / "first", tmp_path / "second"])

    def make():
        return hf.DataLoader(Resumable(40, next(journals)), 2, num_workers=2)

    batches, rest, _ = interrupted(make, 6)
    assert_same(rest, batches[6:])
    read_again = [int(line) for line in (tmp_path / "second").read_text().split()]
    assert min(read_again) >= 12
    assert sorted(read_again) == sorted(set(read_again))


def test_a_state_is_small_whatever_the_number_of_events():
    loader = hf.DataLoader(range(10**6), 1000, shuffle=True, num_workers=2)
    next(iterator := iter(loader))
    assert len(pickle.dumps(loader.state_dict())) < 64_000
    del iterator
    small = hf.DataLoader(Numbers(5), num_workers=2).state_dict()
    assert len(pickle.dumps(small)) < 64_000


@pytest.mark.parametrize("num_workers", [0, 2])
def test_what_is_no_state_is_an_error_that_says_so(num_workers):
    loader = hf.DataLoader(Numbers(5), num_workers=num_workers)

    def resume():
        loader.load_state_dict({"anything": 1})
        iter(loader)

    error = error_of(resume)
    assert type(error) is hf.errors.SpecError
    assert "not the state of a" in str(error)
