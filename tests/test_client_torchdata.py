"""torchdata: its StatefulDataLoader and its nodes over an EventDataset, and its conventions on hepfeed's loader."""

import pytest
from events import all_events, bits, events_of, write_classes
from torch.utils.data import RandomSampler, SequentialSampler, default_collate

import hepfeed as hf

pytest.importorskip("torchdata", reason="torchdata is not installed")

from torchdata import nodes
from torchdata.stateful_dataloader import Stateful, StatefulDataLoader

pytestmark = [
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning"),
]


@pytest.fixture
def dataset(tmp_path):
    spec = write_classes(tmp_path / "data", {"electron": [31, 20], "pion": [40]}, layout="hundred_event_chunks")
    return hf.EventDataset(spec)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_stateful_loader_reads_and_resumes(dataset, workers):
    loader = StatefulDataLoader(dataset, batch_size=8, shuffle=True, num_workers=workers)
    iterator = iter(loader)
    batches = [next(iterator) for _ in range(4)]
    state = loader.state_dict()
    left = list(iterator)
    assert set(events_of(batches + left)) == all_events(dataset)
    assert len(events_of(batches + left)) == len(dataset)
    resumed = StatefulDataLoader(dataset, batch_size=8, shuffle=True, num_workers=workers)
    resumed.load_state_dict(state)
    assert bits(resumed) == bits(left)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_feed_follows_the_conventions_of_the_stateful_loader(dataset, workers):
    """What a loop sees of the two loaders is the same, but for the events of a batch."""
    seen = []
    for kind, options in ((StatefulDataLoader, {}), (hf.DataLoader, {"seed": 5})):
        loader = kind(dataset, batch_size=8, shuffle=True, num_workers=workers, **options)
        assert isinstance(loader, Stateful)
        fresh = loader.state_dict()
        iterator = iter(loader)
        batches = [next(iterator) for _ in range(4)]
        first, again = loader.state_dict(), loader.state_dict()
        batches += [next(iterator) for _ in range(3)]
        second = loader.state_dict()
        batches += iterator
        epoch = bits(batches)
        sizes = []
        for state, begin in ((fresh, 0), (first, 4), (again, 4), (second, 7)):
            resumed = kind(dataset, batch_size=8, shuffle=True, num_workers=workers, **options)
            resumed.load_state_dict(state)
            rest = bits(resumed)
            assert len(rest) == len(epoch) - begin
            if begin:
                assert rest == epoch[begin:]
            sizes.append((len(rest), len(bits(resumed)), len(resumed)))  # the next epoch is a whole one
        seen.append(sizes)
    assert seen[0] == seen[1]


def test_nodes_map_a_sampler_through_the_dataset(dataset):
    def make():
        wrapped = nodes.MapStyleWrapper(map_dataset=dataset, sampler=SequentialSampler(dataset))
        return nodes.Loader(nodes.Mapper(nodes.Batcher(wrapped, 8, drop_last=False), default_collate))

    loader = make()
    epoch = list(loader)
    assert events_of(epoch) == events_of(hf.DataLoader(dataset, 8))
    iterator = iter(loader)
    for _ in range(5):
        next(iterator)
    resumed = make()
    resumed.load_state_dict(loader.state_dict())
    assert bits(resumed) == bits(epoch[5:])


def test_parallel_nodes_read_whole_batches(dataset):
    sampler = nodes.SamplerWrapper(RandomSampler(dataset))
    events = nodes.ParallelMapper(nodes.Batcher(sampler, 8, drop_last=False), dataset.__getitems__, 2, method="thread")
    loader = nodes.Loader(nodes.Mapper(events, default_collate))
    for _ in range(2):
        batches = events_of(loader)
        assert set(batches) == all_events(dataset)
        assert len(batches) == len(dataset)


def test_the_feed_is_a_node(dataset):
    with hf.DataLoader(dataset, 8, shuffle=True, num_workers=2, seed=3) as loader:
        node = nodes.Loader(nodes.Mapper(nodes.IterableWrapper(loader), lambda batch: batch["event"]))
        epochs = [[tuple(event) for batch in node for event in batch.tolist()] for _ in range(2)]
        assert set(epochs[0]) == set(epochs[1]) == all_events(dataset)
        assert epochs[0] != epochs[1]
