"""Statistics of loaders over any dataset: what was delivered, by whom, and where the time went."""

import time

import pytest
import torch
from torch.utils.data import IterableDataset, TensorDataset, get_worker_info

import hepfeed as hf

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

UNKNOWN = ("read", "inflate", "scatter", "skipped", "removed", "bytes_read", "bytes_inflated", "chunks")


class Slow:
    """Takes its time for each example."""

    def __len__(self):
        return 10

    def __getitem__(self, place):
        time.sleep(0.01)
        return torch.full((3,), float(place))


class Columns:
    """Gives whole batches, as columns."""

    def __len__(self):
        return 10

    def __getitems__(self, places):
        return {"place": places, "half": [place / 2 for place in places], "three": [3] * len(places)}


class Slices:
    """Is asked for slices, which have no length."""

    def __getitem__(self, some):
        return list(range(10))[some]

    def __getitems__(self, some):
        return self[some]


class Stream(IterableDataset):
    """Seven examples, shared by the workers."""

    def __iter__(self):
        worker = get_worker_info()
        return iter(range(7) if worker is None else range(worker.id, 7, worker.num_workers))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_examples_and_batches_of_all_epochs_are_counted(num_workers):
    loader = hf.DataLoader(TensorDataset(torch.arange(10)), batch_size=4, num_workers=num_workers)
    assert loader.stats()["batches"] == 0
    for epoch in (1, 2):
        list(loader)
        stats = loader.stats()
        assert (stats["events"], stats["batches"], stats["readers"]) == (10 * epoch, 3 * epoch, num_workers)
    assert [stats[name] for name in UNKNOWN] == [0] * len(UNKNOWN)
    assert stats["restarts"] == 0
    assert stats["events_per_s"] == 20 / stats["seconds"]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_time_of_a_slow_dataset_is_named(num_workers):
    loader = hf.DataLoader(Slow(), batch_size=5, num_workers=num_workers)
    list(loader)
    stats = loader.stats()
    assert 0.1 <= stats["transform"] <= stats["seconds"]
    assert stats["bottleneck"] == "transform"
    assert 0 < stats["busy"] <= 1
    assert (stats["wait"] > 0) == (num_workers > 0)
    assert "dataset" in str(stats)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(
    ("dataset", "options", "events", "batches"),
    [
        (Stream(), {"batch_size": 3}, 7, (3, 3)),  # two workers have 4 and 3
        (Stream(), {"batch_size": 3, "drop_last": True}, 6, (2, 2)),
        (Stream(), {"batch_size": None}, 7, (7, 7)),
        (TensorDataset(torch.arange(10)), {"batch_size": None}, 10, (10, 10)),
        (Columns(), {"batch_size": 4, "collate_fn": dict}, 10, (3, 3)),
        (Slices(), {"batch_sampler": [slice(0, 4), slice(4, 10)], "collate_fn": tuple}, 10, (2, 2)),
        (TensorDataset(torch.arange(10)), {"batch_sampler": [[1], [2, 3, 4]]}, 4, (2, 2)),
    ],
    ids=["iterable", "drop_last", "single iterable", "single", "columns", "slices", "batch_sampler"],
)
def test_examples_are_counted_wherever_they_come_from(num_workers, dataset, options, events, batches):
    loader = hf.DataLoader(dataset, num_workers=num_workers, **options)
    assert len(list(loader)) == batches[num_workers > 0]
    stats = loader.stats()
    assert (stats["events"], stats["batches"]) == (events, batches[num_workers > 0])


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_loop_that_is_left_counts_what_it_got(num_workers):
    loader = hf.DataLoader(TensorDataset(torch.arange(10)), batch_size=4, num_workers=num_workers)
    iterator = iter(loader)
    next(iterator)
    assert (loader.stats()["events"], loader.stats()["batches"]) == (4, 1)
    del iterator
