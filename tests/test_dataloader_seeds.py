"""Seeds: the readers' generators are torch's, bit for bit, and the consumer's are left as torch leaves them."""

import random

import numpy as np
import pytest
import torch
from loader_datasets import Noise, NoisyShards, Numbers, Uneven, Whereabouts, lengthen_in_reader, only_list
from same_batches import assert_same
from torch.utils.data import DataLoader as Torch
from torch.utils.data import Dataset, get_worker_info
from torch.utils.data.datapipes.iter import IterableWrapper

import hepfeed as hf

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.timeout(60),
]


def seed_all():
    """Seed the generators of this process."""
    torch.manual_seed(11)
    np.random.seed(12)  # noqa: NPY002 (the generator that a reader seeds)
    random.seed(13)


def next_draws():
    """What the generators of this process give next."""
    return torch.rand(2), np.random.random(), random.random(), torch.initial_seed()  # noqa: NPY002


# ---- in a reader


def test_a_reader_knows_its_number_its_seed_and_its_copy(Loader):
    generator = torch.Generator().manual_seed(4)
    base_seed = int(torch.empty((), dtype=torch.int64).random_(generator=torch.Generator().manual_seed(4)))
    loader = Loader(Whereabouts(6), None, num_workers=2, generator=generator)
    for number, (index, reader, readers, seed, torch_seed, threads) in enumerate(loader):
        assert (index, reader, readers) == (number, number % 2, 2)
        assert seed == torch_seed == base_seed + reader
        assert threads == 1
    assert get_worker_info() is None


def test_there_is_no_reader_in_the_main_process(Loader):
    class Here(Dataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return get_worker_info()

    assert list(Loader(Here(), None)) == [None]


def test_the_data_set_that_a_reader_tells_of_is_the_one_it_reads(Loader):
    loader = Loader(Uneven([2, 2]), None, num_workers=2, worker_init_fn=lengthen_in_reader)
    for _ in range(2):
        numbers = list(loader)
        assert [sum(reader == number for reader, _ in numbers) for number in range(2)] == [3, 4]
    assert loader.dataset.sizes == [2, 2]


class Drawing(Dataset):
    """Keeps what was drawn before it was first asked."""

    drawn = None

    def draw(self, number):
        self.drawn = number, *next_draws()

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return self.drawn


def test_generators_are_seeded_before_the_init_function_runs():
    def batches(loader):
        torch.manual_seed(1)
        dataset = Drawing()
        return list(loader(dataset, None, num_workers=2, worker_init_fn=dataset.draw))

    theirs = batches(Torch)
    assert [draws[0] for draws in theirs] == [0, 1, 0, 1]
    assert len({draws[2] for draws in theirs}) == 2
    assert_same(batches(hf.DataLoader), theirs)


@pytest.mark.parametrize("seeded_by", ["generator", "global"])
@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("dataset", [Noise(7), NoisyShards(7)], ids=["map", "stream"])
def test_random_numbers_of_readers_are_torchs_bit_for_bit(dataset, seeded_by, persistent):
    def epochs(loader):
        torch.manual_seed(6)
        generator = torch.Generator().manual_seed(2**62 + 5) if seeded_by == "generator" else None
        loader = loader(dataset, 2, num_workers=2, generator=generator, persistent_workers=persistent)
        return [list(loader) for _ in range(2)]

    theirs = epochs(Torch)
    assert str(theirs[0]) != str(theirs[1])
    assert_same(epochs(hf.DataLoader), theirs)


def test_the_same_seed_gives_the_same_numbers(Loader):
    def epoch():
        return list(Loader(Noise(6), 2, num_workers=2, generator=torch.Generator().manual_seed(3)))

    assert_same(epoch(), epoch())


def test_all_readers_draw_different_numbers(Loader):
    events = list(Loader(Noise(6), None, num_workers=3))
    for name in ("torch", "numpy", "python"):
        assert len({float(event[name]) for event in events}) == 6


# ---- in the consumer


OPTIONS = [
    {},
    {"shuffle": True},
    {"num_workers": 2},
    {"num_workers": 2, "shuffle": True},
    {"num_workers": 2, "shuffle": True, "persistent_workers": True},
    {"num_workers": 1, "batch_size": None, "shuffle": True, "prefetch_factor": 5},
    {"num_workers": 2, "in_order": False},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("with_generator", [False, True])
@pytest.mark.parametrize("leave_at", [None, 1])
def test_the_consumers_generators_go_on_as_after_torchs_epochs(options, with_generator, leave_at):
    def run(loader):
        seed_all()
        generator = torch.Generator().manual_seed(9) if with_generator else None
        loader = loader(Numbers(8), generator=generator, **options)
        for _ in range(2):
            for number, _ in enumerate(loader):
                if number == leave_at:
                    break
        return next_draws(), torch.rand(2, generator=generator)

    assert_same(run(hf.DataLoader), run(Torch))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_pipe_takes_as_many_numbers_of_the_consumer_as_with_torch(num_workers):
    def run(loader):
        seed_all()
        pipe = IterableWrapper(range(9)).shuffle().sharding_filter()
        numbers = [list(loader(pipe, 2, num_workers=num_workers, collate_fn=only_list)) for _ in range(2)]
        return numbers, next_draws()

    assert_same(run(hf.DataLoader), run(Torch))


def test_the_main_process_draws_in_turn_with_the_data_set_where_there_are_no_readers():
    def run(loader):
        seed_all()
        return [(batch, next_draws()) for batch in loader(Noise(5), 2, shuffle=True)]

    assert_same(run(hf.DataLoader), run(Torch))


def test_making_a_loader_draws_nothing(Loader):
    seed_all()
    before = next_draws()
    seed_all()
    Loader(Numbers(5), 2, shuffle=True, num_workers=2)
    assert_same(next_draws(), before)
