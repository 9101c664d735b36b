"""Exact resume: the rest of an epoch bit for bit, with any number of readers and of ranks."""

import itertools
import json
import sys

import cloudpickle
import numpy as np
import pytest
import torch
from events import bits, events_of, write_classes

import hepfeed as hf
from hepfeed.errors import SpecError

cloudpickle.register_pickle_by_value(sys.modules[__name__])

CLASSES = {"electron": [60, 45, 3], "pion": [83, 7]}
OPTIONS = {"seed": 4, "window_events": 32}


def blurred(batch):
    """Draw random numbers that depend on seed, epoch and batch."""
    return {**batch, "image": batch["image"] + np.random.normal(size=batch["image"].shape)}  # noqa: NPY002


@pytest.fixture
def dataset(tmp_path):
    samples = write_classes(tmp_path, CLASSES, layout="all_filters")
    return hf.EventDataset(samples, transform=[{"flip": {"keys": ["image"], "axes": [0, 1]}}])


def loaders(dataset, world_size, **options):
    """Make the loader of each rank."""
    return [
        hf.DataLoader(dataset, 8, True, rank=rank, world_size=world_size, process_fn=blurred, **{**OPTIONS, **options})
        for rank in range(world_size)
    ]


def delivered(ranks, epochs=1):
    """Return what all ranks deliver, in the order of the global batches, epoch by epoch."""
    made = []
    for _ in range(epochs):
        parts = [bits(loader) for loader in ranks]
        made.append([batch for step in zip(*parts, strict=True) for batch in step])
    for loader in ranks:
        loader.close()
    return made


def left_after(ranks, steps):
    """Take some batches on each rank; returns the states, and the rest of the epoch and the next one."""
    iterators = [iter(loader) for loader in ranks]
    for iterator in iterators:
        list(itertools.islice(iterator, steps))
    states = [loader.state_dict() for loader in ranks]
    parts = [bits(iterator) for iterator in iterators]
    rest = [batch for step in zip(*parts, strict=True) for batch in step]
    return states, [rest, *delivered(ranks)]


@pytest.mark.parametrize(("before", "steps"), [(1, 4), (2, 2), (4, 1), (4, 0), (1, 28)])
def test_an_epoch_goes_on_with_another_number_of_ranks_and_readers(dataset, before, steps):
    states, rest = left_after(loaders(dataset, before, partitions=4), steps)
    assert states == [states[0]] * before
    assert states[0]["batch"] == before * steps
    assert len(json.dumps(states[0])) < 500
    for world_size, num_workers in ((1, 2), (2, 0), (4, 0)):
        resumed = loaders(dataset, world_size, num_workers=num_workers)
        for loader in resumed:
            loader.load_state_dict(json.loads(json.dumps(states[0])))
            assert loader.state_dict() == states[0]
        assert delivered(resumed, 2) == rest


def test_a_state_goes_on_after_a_state(dataset):
    (whole,) = delivered(loaders(dataset, 1, partitions=2))
    state, found = None, []
    for world_size, steps in ((2, 3), (1, 4), (2, 2)):
        ranks = loaders(dataset, world_size, partitions=2)
        for loader in ranks:
            if state is not None:
                loader.load_state_dict(state)
        parts = [bits(itertools.islice(iter(loader), steps)) for loader in ranks]
        found += [batch for step in zip(*parts, strict=True) for batch in step]
        states = [loader.state_dict() for loader in ranks]
        assert states[0] == states[-1]
        state = states[0]
        for loader in ranks:
            loader.close()
    assert found == whole[: len(found)]
    assert state["batch"] == len(found) == 14


def test_the_state_of_a_loop_is_that_of_the_batch_that_the_consumer_has(dataset):
    (loader,) = loaders(dataset, 1, num_workers=2)
    for number, _ in enumerate(loader, 1):
        assert loader.state_dict()["batch"] == number
        if number == 5:
            break
    loader.close()


def test_the_epoch_of_a_state_may_be_set_again(dataset):
    states, rest = left_after(loaders(dataset, 1), 3)
    (resumed,) = loaders(dataset, 1)
    resumed.load_state_dict(states[0])
    resumed.set_epoch(0)
    assert delivered([resumed]) == rest[:1]
    (other,) = loaders(dataset, 1)
    other.load_state_dict(states[0])
    other.set_epoch(1)
    assert delivered([other]) == rest[1:]


def test_a_state_of_the_first_version_is_that_of_one_partition(dataset):
    states, rest = left_after(loaders(dataset, 1), 3)
    old = {name: states[0][name] for name in ("seed", "epoch", "batch", "order")}
    (resumed,) = loaders(dataset, 1)
    resumed.load_state_dict({"version": 1, **old})
    assert delivered([resumed], 2) == rest


def test_the_order_of_one_partition_keeps_its_fingerprint(dataset):
    with hf.DataLoader(dataset, 8, True, **OPTIONS) as loader:
        filler = hf.Filler(dataset.index, batch_size=8, order="auto", seed=4, window_events=32)
        assert loader.state_dict()["order"] == filler.fingerprint()


@pytest.mark.parametrize(
    ("world_size", "steps", "resumed", "options", "message"),
    [
        (4, 1, 3, {}, "world_size 3 does not divide the 4 canonical partitions"),
        (1, 3, 2, {}, "the state was taken after 3 batches of all ranks, which 2 ranks can't share equally"),
        (4, 1, 4, {"uneven": "drop"}, "the state is of another order of events"),
        (4, 1, 4, {"partitions": 8}, "the state is of another order of events"),
        (4, 1, 4, {"window_events": 64}, "the state is of another order of events"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(dataset, world_size, steps, resumed, options, message):
    states, _ = left_after(loaders(dataset, world_size, partitions=4), steps)
    loader = loaders(dataset, resumed, **options)[0]
    with pytest.raises(SpecError) as caught:
        loader.load_state_dict(states[0])
    assert message in str(caught.value)
    assert len(list(loader)) == len(loader)  # it is what it was


# ---- samplers


class Counting(torch.utils.data.Sampler):
    """A sampler that keeps its own state, as torchdata has them."""

    def __init__(self, count):
        self.count, self.at = count, 0

    def __iter__(self):
        while self.at < self.count:
            self.at += 1
            yield self.at * 7 % self.count
        self.at = 0

    def __len__(self):
        return self.count

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


class Drawn(torch.utils.data.Sampler):
    """A sampler that draws from the global generators of Python and NumPy when it begins."""

    def __init__(self, count):
        self.count = count

    def __iter__(self):
        import random

        order = list(range(self.count))
        random.shuffle(order)
        return iter(np.random.permutation(order).tolist())  # noqa: NPY002

    def __len__(self):
        return self.count


class Epochs(torch.utils.data.distributed.DistributedSampler):
    """Followed index by index, because it is a class of its own."""


SAMPLERS = {
    "random": lambda dataset: torch.utils.data.RandomSampler(dataset),
    "with a generator": lambda dataset: torch.utils.data.RandomSampler(
        dataset, generator=torch.Generator().manual_seed(8)
    ),
    "replacement": lambda dataset: torch.utils.data.RandomSampler(dataset, replacement=True, num_samples=100),
    "weighted": lambda dataset: torch.utils.data.WeightedRandomSampler([1.0] * len(dataset), 90),
    "subset": lambda dataset: torch.utils.data.SubsetRandomSampler(range(0, len(dataset), 2)),
    "stateful": lambda dataset: Counting(len(dataset)),
    "drawn": lambda dataset: Drawn(len(dataset)),
    "distributed": lambda dataset: Epochs(dataset, 2, 1, seed=3),
    "list": lambda dataset: [5, 3, -1] * 20,
}


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("taken", [4])
def test_the_order_of_a_sampler_goes_on(dataset, name, taken):
    options = {"batch_size": 8, "seed": 2, "process_fn": blurred}
    loader = hf.DataLoader(dataset, sampler=SAMPLERS[name](dataset), num_workers=1, **options)
    torch.manual_seed(5)
    list(loader)  # an epoch, so that the generators have moved on
    if name == "distributed":
        loader.set_epoch(3)
    iterator = iter(loader)
    list(itertools.islice(iterator, taken))
    state = json.loads(json.dumps(loader.state_dict()))
    rest = bits(iterator)
    loader.close()
    assert len(json.dumps(state)) < 64_000
    torch.manual_seed(99)
    before = torch.get_rng_state()
    with hf.DataLoader(dataset, sampler=SAMPLERS[name](dataset), **options) as resumed:
        resumed.load_state_dict(state)
        assert resumed.state_dict() == state
        assert bits(resumed) == rest
    assert name == "weighted" or len(rest) == -(-len(loader.sampler) // 8) - taken
    assert torch.equal(torch.get_rng_state(), before)  # they are the user's own again


def test_the_state_of_a_sampler_is_that_of_the_batch_that_the_consumer_has(dataset):
    with hf.DataLoader(dataset, 8, sampler=Counting(198), num_workers=2, seed=1) as loader:
        for number, _ in enumerate(loader, 1):
            assert loader.state_dict()["sampler"]["own"] == {"at": 8 * number}
            if number == 5:
                break


def test_states_of_samplers_and_of_the_loaders_own_order_are_not_exchanged(dataset):
    with (
        hf.DataLoader(dataset, 8, sampler=[1, 2, 3], seed=1) as sampled,
        hf.DataLoader(dataset, 8, True, seed=1) as own,
    ):
        for one, other in ((sampled, own), (own, sampled)):
            with pytest.raises(SpecError, match="the state is of another order of events"):
                one.load_state_dict(other.state_dict())


def test_a_shorter_sampler_is_not_the_same(dataset):
    with hf.DataLoader(dataset, 8, sampler=range(100), seed=1) as loader:
        list(itertools.islice(loader, 9))
        state = loader.state_dict()
    with hf.DataLoader(dataset, 8, sampler=range(40), seed=1) as loader:
        loader.load_state_dict(state)
        with pytest.raises(SpecError, match="the sampler ended after 5 batches, but 9 were delivered"):
            next(iter(loader))


def test_a_distributed_sampler_takes_the_epoch_of_a_state(dataset):
    def loader():
        sampler = torch.utils.data.DistributedSampler(dataset, 2, 0, seed=3)
        return hf.DataLoader(dataset, 8, sampler=sampler, window_events=32)

    with loader() as first:
        first.sampler.set_epoch(2)
        iterator = iter(first)
        list(itertools.islice(iterator, 3))
        state = first.state_dict()
        rest = events_of(iterator)
    assert (state["epoch"], state["batch"], state["partitions"], state["seed"]) == (2, 6, 2, 3)
    with loader() as second:
        second.load_state_dict(state)
        assert second.sampler.epoch == 2
        second.sampler.set_epoch(2)  # as frameworks do
        assert events_of(second) == rest
