"""The faults that were measured in the data providers of the 2017 lecture, each kept out by a test of its name."""

import itertools
import time

import h5py
import numpy as np
import pytest
import torch
from events import all_events, bits, events_of, write_classes, write_file

import hepfeed as hf
from hepfeed.errors import FeedTimeoutError, ReaderError
from hepfeed.order import neighbour_distance

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


@pytest.mark.parametrize(("batch_size", "batches"), [(128, 79), (1024, 10)])
def test_1_no_event_is_lost_neither_the_last_of_a_file_nor_the_last_batch(tmp_path, batch_size, batches):
    samples = write_classes(tmp_path, {"electron": [1000] * 5, "pion": [1000] * 5}, keys=["energy"])
    dataset = hf.EventDataset(samples)
    with hf.DataLoader(dataset, batch_size, True, num_workers=2, seed=0) as loader:
        delivered = [events_of([batch]) for batch in loader]
    events = list(itertools.chain.from_iterable(delivered))
    assert (len(delivered), len(events)) == (batches, 10_000)
    assert set(events) == {(file, row) for file in range(10) for row in range(1000)}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_2_a_filter_delivers_the_rows_that_it_selected(tmp_path, num_workers):
    samples = []
    for number, label in enumerate(["electron", "pion"]):
        ratio = np.random.default_rng(number).random(400).astype(np.float32)
        path = write_file(tmp_path / f"{label}.h5", 400, number=number, layout="all_filters", extra={"ratio": ratio})
        samples.append([str(path), ["image", "id", "ratio"], label])
    dataset = hf.EventDataset(hf.SampleSpec(samples, filter="ratio < 0.25"))
    with hf.DataLoader(dataset, 32, True, num_workers=num_workers, seed=0) as loader:
        batches = list(loader)
    expected = set()
    for file, path in enumerate(dataset.files):
        with h5py.File(path) as opened:
            expected |= {(file, row) for row in np.flatnonzero(opened["ratio"][()] < 0.25).tolist()}
    assert 150 < len(expected) < 250
    assert len(events_of(batches)) == len(expected)
    assert set(events_of(batches)) == expected
    for batch in batches:
        assert (batch["ratio"] < 0.25).all()
        assert torch.equal(batch["id"][:, 2].long(), batch["event"][:, 1])


def test_3_a_batch_is_not_overwritten_while_the_consumer_holds_it(tmp_path):
    dataset = hf.EventDataset(write_classes(tmp_path, {"a": [400], "b": [400]}))
    with hf.DataLoader(dataset, 8, True, num_workers=2, persistent_workers=True, seed=0) as loader:
        held, copies = [], []
        for batch in loader:
            held.append(batch)
            copies.append(bits([batch])[0])
        list(loader)  # a second epoch through the same memory
    assert len(held) == 100
    assert bits(held) == copies


def test_4_each_class_has_its_share_of_every_batch_and_each_file_its_rate(tmp_path):
    classes = {"electron": [320, 320], "photon": [640], "pion": [320, 320], "pi0": [640]}
    dataset = hf.EventDataset(write_classes(tmp_path, classes, rates=dict.fromkeys(classes, 1.0)))
    with hf.DataLoader(dataset, 128, True, num_workers=1, seed=0) as loader:
        counts = [np.bincount(batch["label"], minlength=4).tolist() for batch in loader]
    assert counts == [[32, 32, 32, 32]] * 20

    path = str(tmp_path / "electron" / "*.h5")
    by_file = hf.EventDataset([[path, ["energy"], "electron", {"electron_0.h5": 3.0, "electron_1.h5": 1.0}]])
    with hf.DataLoader(by_file, 32, True, seed=0, exhausted="stop") as loader:
        counts = [np.bincount(batch["event"][:, 0], minlength=2).tolist() for batch in loader]
    assert counts == [[24, 8]] * 13  # until the first file has no 24 left


def test_5_events_are_shuffled_over_all_files_anew_each_epoch_and_by_a_seed(tmp_path):
    dataset = hf.EventDataset(write_classes(tmp_path, {"a": [500, 500, 500, 500]}, keys=["id"]))

    def epochs(seed):
        with hf.DataLoader(dataset, 50, True, seed=seed) as loader:
            return [events_of(loader), events_of(loader)]

    first, second = epochs(1)
    assert first != second
    assert epochs(1) == [first, second]
    assert epochs(2)[0] != first
    files = np.array(first).reshape(40, 50, 2)[:, :, 0]
    assert all(len(np.unique(batch)) == 4 for batch in files)  # not one read, which is one file, after another
    position = np.array([file * 500 + row for file, row in first])
    assert neighbour_distance(position) > 0.9


def test_6_neither_a_dead_reader_nor_the_end_of_the_stream_hangs_the_consumer(tmp_path):
    def die(batch):
        import os

        os._exit(3)

    def hang(batch):
        time.sleep(600)

    dataset = hf.EventDataset(write_classes(tmp_path, {"a": [40]}))
    with hf.DataLoader(dataset, 16, num_workers=2) as loader:
        iterator = iter(loader)
        assert len(list(iterator)) == 3
        with pytest.raises(StopIteration):
            next(iterator)
    with (
        hf.DataLoader(dataset, 16, num_workers=2, process_fn=die) as loader,
        pytest.raises(ReaderError, match="ended with code 3"),
    ):
        list(loader)
    with (
        hf.DataLoader(dataset, 16, num_workers=2, process_fn=hang, timeout=1) as loader,
        pytest.raises(FeedTimeoutError),
    ):
        list(loader)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_7_tensors_keep_their_dtypes(tmp_path, num_workers):
    types = ["float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool"]
    extra = {name: np.arange(24).reshape(12, 2).astype(name) for name in types}
    path = write_file(tmp_path / "a.h5", 12, extra=extra)
    with hf.DataLoader(hf.EventDataset([[str(path), types, "a"]]), 12, num_workers=num_workers) as loader:
        (batch,) = loader
    for name in types:
        assert batch[name].dtype == getattr(torch, name)
        assert np.array_equal(batch[name].numpy(), extra[name])


def test_8_shapes_may_differ_from_batch_to_batch_and_functions_run_once_for_each(tmp_path):
    def hits(batch):
        with open(log, "a") as stream:
            stream.write("called\n")
        event, y, x = np.nonzero(batch["image"] > 100)
        return {"hits": np.stack([event, y, x], 1), "charge": batch["image"][event, y, x], "event": batch["event"]}

    log = str(tmp_path / "calls")
    dataset = hf.EventDataset(write_classes(tmp_path, {"a": [100]}))
    with hf.DataLoader(dataset, 20, num_workers=2, process_fn=hits) as loader:
        batches = list(loader)
    assert set(events_of(batches)) == all_events(dataset)
    assert len({len(batch["hits"]) for batch in batches}) > 1
    assert all(batch["charge"].shape == batch["hits"].shape[:1] for batch in batches)
    with open(log) as stream:
        assert len(stream.readlines()) == len(batches) == 5  # none was run to guess a shape


@pytest.mark.parametrize("batch_size", [7, 64, 100])
def test_10_no_stale_values_are_left_where_reads_and_batches_differ_in_size(tmp_path, batch_size):
    def ones(batch):
        assert (batch["image"] != -1.0).all()
        batch["image"][...] = -1.0  # what a later batch in the same memory must not show
        return {"image": batch["image"], "n": np.array([len(batch["label"])])}

    dataset = hf.EventDataset(write_classes(tmp_path, {"a": [150], "b": [83]}, layout="hundred_event_chunks"))
    with hf.DataLoader(dataset, batch_size, True, num_workers=2, seed=0, process_fn=ones) as loader:
        sizes = [(len(batch["image"]), int(batch["n"])) for _ in range(2) for batch in loader]
    assert sum(size for size, _ in sizes) == 2 * 233
    assert all(size == n for size, n in sizes)
