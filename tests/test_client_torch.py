"""An EventDataset in torch's own DataLoader, as any map-style dataset."""

import os
import pickle
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from events import all_events, bits, events_of, same_bits, stored, write_classes

import hepfeed as hf
from hepfeed.source_reader import SourceReader

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
CLASSES = {"electron": [110, 20], "pion": [40]}


@pytest.fixture
def dataset(tmp_path):
    return hf.EventDataset(write_classes(tmp_path / "data", CLASSES, layout="hundred_event_chunks"))


@pytest.fixture
def chunks(monkeypatch):
    """The number of chunks that each call has decoded in this process."""
    counted, read = [], SourceReader.read_events

    def counting(*args):
        costs, failed = read(*args)
        counted.append(int(costs[5]))
        return costs, failed

    monkeypatch.setattr(SourceReader, "read_events", counting)
    return counted


def plain(dataset, **options):
    return torch.utils.data.DataLoader(dataset, batch_size=8, **options)


def expect(dataset, batches):
    """Every event once, with the values that h5py reads."""
    events = events_of(batches)
    assert set(events) == all_events(dataset)
    assert len(events) == len(dataset)
    for key in ("image", "energy", "id"):
        assert same_bits(torch.cat([batch[key] for batch in batches]), stored(dataset, events, key))


@pytest.mark.usefixtures("multiprocessing_helpers")
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_however_they_start_read_what_is_stored(dataset, method):
    dataset[0]  # files are open when the workers start
    generator = torch.Generator().manual_seed(1)
    loader = plain(dataset, num_workers=2, multiprocessing_context=method, shuffle=True, generator=generator)
    batches = list(loader)
    expect(dataset, batches)
    alone = list(plain(dataset, shuffle=True, generator=torch.Generator().manual_seed(1)))
    assert bits(batches) == bits(alone)


def test_a_copy_by_pickle_reads_the_same_also_after_reading(dataset):
    copies = [pickle.loads(pickle.dumps(dataset))]
    event = dataset[3]
    copies.append(pickle.loads(pickle.dumps(dataset)))
    for copy in copies:
        assert bits([copy[3]]) == bits([event])
        assert len(copy) == len(dataset)


def test_a_batch_decodes_each_of_its_chunks_once(dataset, chunks):
    list(plain(dataset))
    # Of 22 batches, that of events 96 to 103 has two chunks, and two have events of two files.
    assert sum(chunks) == 25
    chunks.clear()
    for i in range(len(dataset)):
        dataset[i]
    assert sum(chunks) == len(dataset)  # of the images; the other keys have no chunks


def test_a_process_that_is_forked_amid_reading_reads_on_and_so_does_its_parent(dataset):
    first = [dataset[i] for i in range(0, 60)]
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reading)
            with os.fdopen(writing, "wb") as pipe:
                pickle.dump([dataset[i]["id"].numpy() for i in range(60, 170)], pipe)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    rest = [dataset[i]["id"].numpy() for i in range(60, 170)]
    with os.fdopen(reading, "rb") as pipe:
        from_child = pickle.load(pipe)
    assert os.waitpid(pid, 0)[1] == 0
    assert np.array_equal(from_child, rest)
    everything = [event["id"].numpy() for event in first] + rest
    assert np.array_equal(everything, np.concatenate([batch["id"] for batch in plain(dataset)]))


def test_threads_read_at_the_same_time(dataset, monkeypatch):
    monkeypatch.setattr("hepfeed.source_reader.max_open_files", lambda: 1)  # each file closes the one before
    expected = [event["id"].tolist() for event in map(dataset.__getitem__, range(170))]
    barrier = threading.Barrier(4)

    def read(seed):
        order = np.random.default_rng(seed).permutation(170)
        barrier.wait()
        return [dataset[i]["id"].tolist() == expected[i] for i in order]

    with ThreadPoolExecutor(4) as threads:
        assert all(all(same) for same in threads.map(read, range(4)))


def test_weights_come_with_the_events(tmp_path):
    spec = hf.SampleSpec(write_classes(tmp_path, CLASSES), weights={"classes": "balanced"})
    dataset = hf.EventDataset(spec)
    batches = list(plain(dataset, num_workers=2))
    weight, label = (torch.cat([batch[name] for batch in batches]) for name in ("weight", "label"))
    assert weight.dtype == torch.float32
    assert torch.isclose(weight[label == 0].sum(), weight[label == 1].sum())


def test_workers_read_the_cache_once_it_is_there(tmp_path):
    spec = write_classes(tmp_path / "data", CLASSES, layout="hundred_event_chunks")
    dataset = hf.EventDataset(
        spec, cache=tmp_path / "cache", transform=[{"clip": {"keys": "image", "low": 0.0, "high": 50.0}}]
    )
    expected = bits(list(plain(dataset)))
    with hf.DataLoader(dataset, 8) as loader:
        list(loader)
    shutil.rmtree(tmp_path / "data")
    assert bits(list(plain(dataset, num_workers=2))) == expected
