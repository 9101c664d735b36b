"""Samplers on the fast path: exactly their batches, read together, never asked further ahead than torch asks them."""

import os
import sys

import cloudpickle
import numpy as np
import pytest
import torch
from events import KEYS, bits, events_of, same_bits, stored, write_classes
from torch.utils.data import BatchSampler, DistributedSampler, RandomSampler, SequentialSampler, default_collate

import hepfeed as hf
from hepfeed.errors import SpecError
from hepfeed.pool import ReaderPool

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
cloudpickle.register_pickle_by_value(sys.modules[__name__])

CLASSES = {"electron": [60, 45], "pion": [83]}


@pytest.fixture
def dataset(tmp_path):
    return hf.EventDataset(write_classes(tmp_path, CLASSES, layout="all_filters"))  # chunks of 16


def pairs(dataset, indices):
    """File and row of places in the dataset."""
    places = np.asarray(list(indices), np.int64) % len(dataset)
    return list(zip(dataset.index.file_of(places).tolist(), dataset.index.rows[places].tolist(), strict=True))


def check(dataset, batches, expected):
    """Whether batches hold the events of lists of indices, as h5py reads them."""
    assert [events_of([batch]) for batch in batches] == [pairs(dataset, indices) for indices in expected]
    for key in KEYS:
        assert same_bits(torch.cat([batch[key] for batch in batches]), stored(dataset, events_of(batches), key))


# ---- what is delivered


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_are_those_of_the_sampler(dataset, num_workers):
    order = np.random.default_rng(1).permutation(188).tolist()
    with hf.DataLoader(
        dataset, 10, sampler=order, num_workers=num_workers, persistent_workers=num_workers > 0
    ) as loader:
        assert len(loader) == 19
        for _ in range(2):
            check(dataset, list(loader), [order[i : i + 10] for i in range(0, 188, 10)])
    with hf.DataLoader(dataset, 10, sampler=order, num_workers=num_workers, drop_last=True) as loader:
        check(dataset, list(loader), [order[i : i + 10] for i in range(0, 180, 10)])


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_of_any_sizes_come_as_they_are(dataset, num_workers):
    sizes = [1, 3, 2, 30, 4, 31, 5, 60, 1, 1]
    batches = [list(range(i, i + size)) for i, size in enumerate(sizes)]
    with hf.DataLoader(dataset, batch_sampler=batches, num_workers=num_workers) as loader:
        assert len(loader) == 10
        check(dataset, list(loader), batches)


def test_indices_may_be_negative_repeated_and_of_any_integer_type(dataset):
    batches = [[-1, 0, -188], [7, 7, 7], (np.int32(3), np.uint8(4)), torch.tensor([5, 6])]
    with hf.DataLoader(dataset, batch_sampler=batches) as loader:
        check(dataset, list(loader), [[-1, 0, -188], [7, 7, 7], [3, 4], [5, 6]])


def test_weights_steps_and_arrangements_work_with_a_sampler(dataset):
    def negate(batch):
        return {**batch, "energy": -batch["energy"]}

    options = {"process_fn": negate, "outputs": ("energy", "onehot"), "seed": 3}
    with hf.DataLoader(dataset, 4, sampler=[9, 3, 1, 180], **options) as loader:
        ((energy, onehot),) = loader
    assert energy.tolist() == [-9.0, -3.0, -1.0, -75.0]
    assert onehot.argmax(1).tolist() == [0, 0, 0, 1]


def test_epochs_from_the_cache_follow_the_sampler_too(tmp_path):
    samples = write_classes(tmp_path, CLASSES, layout="all_filters")
    dataset = hf.EventDataset(samples, cache=str(tmp_path / "cache"))
    order = np.random.default_rng(2).permutation(188).tolist()
    with hf.DataLoader(dataset, 10, sampler=order, num_workers=1, persistent_workers=True) as loader:
        for _ in range(3):
            check(dataset, list(loader), [order[i : i + 10] for i in range(0, 188, 10)])
        assert loader._from_cache()


def test_a_sampler_is_begun_anew_for_each_epoch_and_told_of_it(dataset):
    class Turning(torch.utils.data.Sampler):
        def __init__(self):
            self.epoch = 0

        def set_epoch(self, epoch):
            self.epoch = epoch

        def __iter__(self):
            return iter([self.epoch, self.epoch + 1])

        def __len__(self):
            return 2

    for options in ({"sampler": Turning()}, {"batch_sampler": BatchSampler(Turning(), 1, False)}):
        with hf.DataLoader(dataset, **options) as loader:
            found = []
            for epoch in (0, 5, 7):
                loader.set_epoch(epoch)
                found.append([row for _, row in events_of(loader)])
        assert found == [[0, 1], [5, 6], [7, 8]]


def test_an_endless_loader_begins_the_sampler_again(dataset):
    from itertools import islice

    with hf.DataLoader(dataset, 2, sampler=[4, 5, 6], infinite=True) as loader:
        assert [len(batch["label"]) for batch in islice(loader, 5)] == [2, 1, 2, 1, 2]
    with (
        hf.DataLoader(dataset, 2, sampler=[], infinite=True) as loader,
        pytest.raises(SpecError, match="epoch 0 has no batches, so that infinite=True would look for one for ever"),
    ):
        next(iter(loader))


# ---- how it is read


class Asked:
    """Batches, and how many of them were asked for."""

    def __init__(self, batches):
        self.batches, self.count = batches, 0

    def __iter__(self):
        for batch in self.batches:
            self.count += 1
            yield batch

    def __len__(self):
        return len(self.batches)


@pytest.mark.parametrize(("num_workers", "prefetch_factor"), [(0, None), (1, 1), (1, 2), (2, 2)])
def test_a_sampler_is_asked_no_further_ahead_than_torch_asks_it(dataset, num_workers, prefetch_factor):
    sampler = Asked([[i, i + 1] for i in range(0, 60, 2)])
    ahead = num_workers * (prefetch_factor or 0)
    options = {"num_workers": num_workers, "prefetch_factor": prefetch_factor}
    with hf.DataLoader(dataset, batch_sampler=sampler, **options) as loader:
        for number, _ in enumerate(loader, 1):
            assert number <= sampler.count <= number + ahead
    assert sampler.count == 30


def test_chunks_that_batches_share_are_decoded_once(dataset):
    order = [i + j for j in range(4) for i in range(0, 16, 4)]  # four batches of one chunk
    with hf.DataLoader(dataset, 4, sampler=order, num_workers=1, prefetch_factor=8) as loader:
        check(dataset, list(loader), [order[i : i + 4] for i in range(0, 16, 4)])
        assert loader.stats()["chunks"] == 1


# ---- errors


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([3, 188], "batch 2 of the sampler has index 188, but the dataset has 188 events: give -188..187"),
        ([-189], "batch 2 of the sampler has index -189"),
        (["a"], "batch 2 of the sampler must be a list of integers"),
        ([1.0], "batch 2 of the sampler must be a list of integers"),
        (3, "batch 2 of the sampler must be a list of integers"),
        ([], "batch 2 of the sampler is empty"),
    ],
)
def test_a_wrong_index_is_an_error_in_its_turn(dataset, num_workers, wrong, message):
    batches = [[0], [1], wrong, [2]]
    with hf.DataLoader(dataset, batch_sampler=batches, num_workers=num_workers) as loader:
        iterator = iter(loader)
        check(dataset, [next(iterator), next(iterator)], [[0], [1]])
        with pytest.raises(SpecError) as caught:
            next(iterator)
    assert message in str(caught.value)


def test_an_error_of_the_sampler_comes_after_its_batches(dataset):
    def failing():
        yield [1]
        yield [2]
        raise KeyError("no such shard")

    with hf.DataLoader(dataset, batch_sampler=failing(), num_workers=1) as loader:
        iterator = iter(loader)
        assert len([next(iterator), next(iterator)]) == 2
        with pytest.raises(KeyError, match="no such shard"):
            next(iterator)


@pytest.mark.parametrize(
    "option",
    [
        {"composition": "random"},
        {"exhausted": "wrap"},
        {"skip": 1},
        {"max_events": 5},
        {"length_matched": True},
        {"max_points": 5},
        {"window_events": 9},
        {"partitions": 2},
        {"rank": 0, "world_size": 1},
        {"uneven": "drop"},
    ],
)
def test_options_without_a_meaning_are_refused(dataset, option):
    message = rf"{', '.join(option)} can't be used with a sampler, which chooses the events itself"
    with pytest.raises(SpecError, match=message):
        hf.DataLoader(dataset, 4, sampler=[1, 2], **option)
    with pytest.raises(SpecError, match="can't be used with a batch_sampler"):
        hf.DataLoader(dataset, batch_sampler=[[1, 2]], **option)


def test_what_a_sampler_makes_impossible_says_so(dataset):
    loader = hf.DataLoader(dataset, batch_sampler=[[1, 2]])
    with pytest.raises(SpecError, match="filler is not there with a sampler"):
        loader.filler  # noqa: B018
    with pytest.raises(SpecError, match=r"replay\(\) needs a batch_size"):
        next(loader.replay([]))
    with pytest.raises(ValueError, match="mutually exclusive"):
        hf.DataLoader(dataset, 4, "full", sampler=[1])


# ---- a DistributedSampler


def test_a_distributed_sampler_gives_rank_seed_epoch_and_ends(dataset):
    def batches(rank, **options):
        sampler = DistributedSampler(dataset, 2, rank, seed=6, **options)
        with hf.DataLoader(dataset, 8, sampler=sampler, window_events=32) as loader:
            sampler.set_epoch(3)
            assert loader.epoch == 3
            length = len(loader)
            found = bits(loader)
            assert len(found) == length
            assert bits(loader) == found  # as in torch, until the epoch is set
            return found

    for rank in range(2):
        options = {"seed": 6, "rank": rank, "world_size": 2, "window_events": 32}
        with hf.DataLoader(dataset, 8, True, **options) as loader:
            loader.set_epoch(3)
            assert batches(rank) == bits(loader)
        with hf.DataLoader(dataset, 8, False, **options, uneven="drop") as loader:
            loader.set_epoch(3)
            assert batches(rank, shuffle=False, drop_last=True) == bits(loader)


def test_a_distributed_sampler_of_other_events_is_followed(dataset):
    sampler = DistributedSampler(range(50), 2, 1, seed=6)
    with hf.DataLoader(dataset, 8, sampler=sampler) as loader:
        assert events_of(loader) == pairs(dataset, list(sampler))
    with pytest.raises(SpecError, match="rank, world_size can't be used with a DistributedSampler"):
        hf.DataLoader(dataset, 8, sampler=DistributedSampler(dataset, 2, 1), rank=0, world_size=2)


# ---- attributes


def public(loader):
    return {name: getattr(loader, name) for name in vars(loader) if not name.startswith("_")}


def test_public_attributes_are_arguments_of_the_constructor(dataset):
    import inspect

    loader = hf.DataLoader(dataset, 8, True)
    arguments = set(inspect.signature(hf.DataLoader.__init__).parameters) - {"self"}
    assert set(public(loader)) == arguments - {"shuffle", "multiprocessing_context"}
    assert loader.shuffle is True
    with pytest.raises(AttributeError):
        loader.shuffle = False
    for name in ("batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers"):
        with pytest.raises(ValueError, match=f"{name} attribute should not be set after DataLoader is initialized"):
            setattr(loader, name, None)


def test_a_loader_is_rebuilt_with_another_batch_sampler(dataset):
    loader = hf.DataLoader(dataset, 8, True, seed=3, num_workers=1)
    attributes = {
        name: value for name, value in public(loader).items() if name not in ("batch_size", "sampler", "drop_last")
    }
    attributes["batch_sampler"] = BatchSampler(SequentialSampler(dataset), 50, False)
    with hf.DataLoader(**attributes) as rebuilt:
        check(dataset, list(rebuilt), [range(i, min(i + 50, 188)) for i in range(0, 188, 50)])
        assert rebuilt.seed == 3
        assert rebuilt.stats()["events"] == 188


def test_a_loader_is_rebuilt_with_another_sampler(dataset):
    loader = hf.DataLoader(dataset, 8, True, seed=3)
    sampler = DistributedSampler(dataset, 2, 1)
    with hf.DataLoader(**{**public(loader), "sampler": sampler, "shuffle": False, "batch_sampler": None}) as rebuilt:
        assert rebuilt.filler.ranks.partitions == 2
        assert len(events_of(rebuilt)) >= 90
    with hf.DataLoader(**{**public(loader), "sampler": RandomSampler(dataset), "batch_sampler": None}) as rebuilt:
        assert len(set(events_of(rebuilt))) == 188


def test_default_collate_counts_as_no_function(dataset):
    with hf.DataLoader(dataset, 8, collate_fn=default_collate, seed=1) as loader:
        list(loader)
        assert loader.stats()["events"] == 188


def test_a_dataset_with_a_getitem_of_its_own_is_asked_itself(tmp_path):
    class Doubled(hf.EventDataset):
        def __getitems__(self, indices):
            return [{"energy": 2 * each["energy"]} for each in super().__getitems__(indices)]

    dataset = Doubled(write_classes(tmp_path, CLASSES))
    assert next(iter(hf.DataLoader(dataset, 3)))["energy"].tolist() == [0.0, 2.0, 4.0]
    with pytest.raises(SpecError, match="seed can't be used with a Doubled with a __getitem__ of its own"):
        hf.DataLoader(dataset, 3, seed=1)


def test_accelerate_leaves_a_loader_that_divides_the_events_itself(dataset):
    assert hf.DataLoader(dataset, 8, True)._is_accelerate_prepared
    sampled = hf.DataLoader(dataset, 8, sampler=[1, 2])
    assert not sampled._is_accelerate_prepared
    sampled._is_accelerate_prepared = True
    assert sampled._is_accelerate_prepared
    assert not hf.DataLoader([1, 2])._is_accelerate_prepared


# ---- worker_init_fn


def leave_number(number):
    os.environ["HEPFEED_TEST_CALLS"] = os.environ.get("HEPFEED_TEST_CALLS", "") + str(number)


def tell_number(batch):
    return {"calls": np.array([int(os.environ.get("HEPFEED_TEST_CALLS", "-1"))])}


def test_worker_init_fn_is_called_once_in_each_reader_with_its_number(dataset):
    options = {"worker_init_fn": leave_number, "process_fn": tell_number}
    with hf.DataLoader(dataset, 4, num_workers=2, persistent_workers=True, **options) as loader:
        assert {int(batch["calls"]) for _ in range(2) for batch in loader} == {0, 1}
    with hf.DataLoader(dataset, 4, **options) as loader:
        assert {int(batch["calls"]) for batch in loader} == {-1}


def fail_with_key(number):
    raise KeyError(f"no licence for reader {number}")


def test_a_failing_worker_init_fn_is_told_in_torchs_words(dataset):
    with (
        hf.DataLoader(dataset, 4, num_workers=1, worker_init_fn=fail_with_key) as loader,
        pytest.raises(KeyError) as caught,
    ):
        next(iter(loader))
    text = str(caught.value.args[0])
    assert text.startswith(
        "Caught KeyError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):"
    )
    assert "no licence for reader 0" in text


def test_readers_may_be_threads(dataset):
    with hf.DataLoader(dataset, 8, True, seed=1) as loader:
        expected = bits(loader)
    with hf.DataLoader(dataset, 8, True, seed=1, num_workers=2, worker_method="thread") as loader:
        assert bits(loader) == expected
        pool = ReaderPool(0, "thread")
        with pytest.raises(SpecError, match="worker_method='process', but the readers of the pool are threads"):
            hf.DataLoader(dataset, 8, pool=pool)
        pool.close()
    with pytest.raises(SpecError, match="worker_method='fibre' is unknown"):
        hf.DataLoader(dataset, 8, worker_method="fibre")


def test_readers_are_there_as_processes(dataset):
    with hf.DataLoader(dataset, 4, num_workers=2) as loader:
        iterator = iter(loader)
        workers = iterator._workers
        assert len(workers) == 2
        assert all(worker.is_alive() for worker in workers)
        assert len({worker.pid for worker in workers}) == 2
    for worker in workers:
        worker.join(5)
        assert not worker.is_alive()
