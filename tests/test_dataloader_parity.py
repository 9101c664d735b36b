"""The same loop over torch's loader and over hepfeed's: the same batches, bit for bit and type for type."""

import random

import numpy as np
import pytest
import torch
from loader_datasets import Bulk, Count, Images, Noise, NoisyShards, Shards, Uneven, Whereabouts, only_list
from same_batches import assert_same
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    RandomSampler,
    StackDataset,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
)
from torch.utils.data import DataLoader as Torch
from torch.utils.data.datapipes.iter import IterableWrapper

import hepfeed as hf

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.timeout(60),
]

IMAGES = torch.arange(13 * 6.0).view(13, 2, 3)


def as_arrays(events):
    """Collate to arrays."""
    images, numbers = zip(*events)
    return {"images": np.stack([image.numpy() for image in images]), "numbers": np.array(numbers, np.uint8)}


def jittered(event):
    """Add noise to one event."""
    image, number = event
    return image + torch.randn_like(image), number, np.random.normal()  # noqa: NPY002


CASES = {
    "batches of tensors": (lambda: TensorDataset(IMAGES, IMAGES[:, 0]), {"batch_size": 4}),
    "without the last": (lambda: TensorDataset(IMAGES), {"batch_size": 4, "drop_last": True}),
    "shuffled": (lambda: Images(13), {"batch_size": 3, "shuffle": True}),
    "shuffled noise": (lambda: Noise(17), {"batch_size": 3, "shuffle": True}),
    "one at a time": (lambda: Noise(9), {"batch_size": None, "shuffle": True}),
    "one at a time, changed": (lambda: Images(9), {"batch_size": None, "collate_fn": jittered}),
    "deep prefetch": (lambda: Noise(23), {"batch_size": 2, "prefetch_factor": 7}),
    "no prefetch": (lambda: Noise(11), {"batch_size": 2, "prefetch_factor": 1}),
    "persistent": (lambda: Noise(11), {"batch_size": 2, "persistent_workers": True}),
    "persistent, shuffled": (lambda: Noise(11), {"batch_size": 2, "persistent_workers": True, "shuffle": True}),
    "time-out": (lambda: Noise(11), {"batch_size": 2, "timeout": 50}),
    "lists": (lambda: Images(7), {"batch_size": 2, "collate_fn": only_list}),
    "arrays": (lambda: Images(7), {"batch_size": 2, "collate_fn": as_arrays}),
    "fetched at once": (lambda: Bulk(9), {"batch_size": 4, "shuffle": True}),
    "replacement": (lambda: Noise(9), {"sampler": RandomSampler(range(9), replacement=True, num_samples=12)}),
    "weights": (lambda: Noise(4), {"batch_size": 3, "sampler": WeightedRandomSampler([0.1, 0.2, 0.3, 0.4], 10)}),
    "own generator": (
        lambda: Noise(9),
        lambda: {"sampler": RandomSampler(range(9), generator=torch.Generator().manual_seed(4)), "batch_size": 2},
    ),
    "batch sampler": (lambda: Noise(9), {"batch_sampler": [[0, 8], [1], [2, 3, 4], [0]]}),
    "sampler of batches": (
        lambda: Images(10),
        {"batch_sampler": BatchSampler(RandomSampler(range(10)), 3, drop_last=True)},
    ),
    "subset of two": (lambda: Subset(ConcatDataset([Images(5), Images(7)]), [11, 0, 5, 4]), {"batch_size": 3}),
    "stack": (lambda: StackDataset(x=Images(5), y=Noise(5)), {"batch_size": 2, "shuffle": True}),
    "list": (lambda: [{"a": [i, str(i)], "b": (i / 7,)} for i in range(6)], {"batch_size": 4}),
    "stream": (lambda: Count(7), {"batch_size": 3}),
    "stream in shards": (lambda: Shards(7), {"batch_size": None}),
    "noisy stream": (lambda: NoisyShards(12), {"batch_size": 2}),
    "noisy stream, persistent": (lambda: NoisyShards(12), {"batch_size": 2, "persistent_workers": True}),
    "stream without the last": (lambda: Shards(11), {"batch_size": 3, "drop_last": True}),
    "streams of one length": (lambda: Uneven([4, 4]), {"batch_size": 3}),
    "pipe": (lambda: IterableWrapper(range(15)).shuffle().map(float).sharding_filter(), {"batch_size": 4}),
    "readers": (lambda: Whereabouts(9), {"batch_size": 2}),
}


def epochs(loader, case, num_workers, count):
    """Make a loader after seeding, and run through it."""
    torch.manual_seed(21)
    make, options = case
    options = dict(options() if callable(options) else options)
    if not num_workers:
        for name in ("prefetch_factor", "persistent_workers", "timeout"):
            options.pop(name, None)
    loader = loader(make(), num_workers=num_workers, **options)
    return [list(loader) for _ in range(count)]


@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_readers_deliver_what_torchs_workers_deliver(name, num_workers):
    theirs = epochs(Torch, CASES[name], num_workers, 2)
    assert any(len(epoch) > 1 for epoch in theirs)
    assert_same(epochs(hf.DataLoader, CASES[name], num_workers, 2), theirs)


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("readers", "streams of one length")])
def test_the_main_process_delivers_what_it_delivers_with_torch(name):
    runs = []
    for loader in (hf.DataLoader, Torch):
        random.seed(1)
        np.random.seed(2)  # noqa: NPY002
        runs.append(epochs(loader, CASES[name], 0, 2))
    assert_same(*runs)
