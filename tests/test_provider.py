"""One provider for training, validation and test: parts without overlap, one pool of readers."""

import itertools
import os

import numpy as np
import psutil
import pytest
from events import KEYS, all_events, bits, events_of, same_bits, stored, write_classes
from processes import children_of

import hepfeed as hf
from hepfeed.errors import SpecError

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


@pytest.fixture
def samples(tmp_path):
    return write_classes(tmp_path, {"electron": [150, 60], "pion": [190]}, layout="all_filters")


@pytest.mark.parametrize("split_by", ["event", "block", "file"])
def test_parts_do_not_overlap_and_cover_everything(tmp_path, split_by):
    samples = write_classes(tmp_path, {"electron": [20] * 30, "pion": [20] * 30})
    with hf.DataProvider(samples, 64, num_workers=0, split_by=split_by, seed=2) as provider:
        parts = {name: events_of(provider[name]) for name in provider}
    assert list(parts) == ["train", "val", "test"]
    everything = list(itertools.chain.from_iterable(parts.values()))
    assert len(everything) == len(set(everything)) == 1200
    if split_by != "file":
        assert {name: len(part) for name, part in parts.items()} == pytest.approx(
            {"train": 960, "val": 120, "test": 120}, abs=12
        )


def test_all_loaders_share_one_pool_of_readers(samples):
    def where(batch):
        import os

        return {"pid": np.array([os.getpid()]), "event": batch["event"]}

    with hf.DataProvider(samples, 16, num_workers=2, process_fn=where) as provider:
        pids = {name: {int(batch["pid"]) for batch in provider[name]} for name in provider}
        assert len(provider.pids) == 2
        assert pids["train"] == set(provider.pids)
        assert pids["val"] | pids["test"] <= set(provider.pids)
        assert {child.pid for child in children_of()} == set(provider.pids)
    assert provider.pids == []


@pytest.mark.parametrize("num_workers", [0, 2])
def test_loaders_may_be_iterated_alternately(samples, num_workers):
    options = {"splits": {"train": 0.5, "val": 0.5}, "seed": 3, "window_events": 48}
    with hf.DataProvider(samples, 8, num_workers=num_workers, **options) as provider:
        alone = {name: bits(provider[name]) for name in provider}
        provider.train.set_epoch(0)
        pairs = list(zip(provider.train, provider.val, strict=False))
        assert bits(batch for batch, _ in pairs) == alone["train"][: len(pairs)]
        assert bits(batch for _, batch in pairs) == alone["val"][: len(pairs)]
        assert len(pairs) >= 24


def test_a_validation_in_the_middle_of_an_epoch_changes_nothing(samples):
    with hf.DataProvider(samples, 16, num_workers=2, seed=1) as provider:
        undisturbed = bits(provider.train)
        provider.train.set_epoch(0)
        batches = []
        for number, batch in enumerate(provider.train):
            batches.append(batch)
            if number in (3, 11):
                assert len(events_of(provider.val)) == len(provider.val.dataset)
        assert bits(batches) == undisturbed


def test_values_are_those_of_the_files(samples):
    with hf.DataProvider(samples, 32, num_workers=1) as provider:
        for name in provider:
            for batch in provider[name]:
                for key in KEYS:
                    assert same_bits(batch[key], stored(provider[name].dataset, batch["event"], key))


def test_only_the_training_part_is_shuffled_and_cut_to_full_batches(samples):
    with hf.DataProvider(samples, 16, num_workers=0, drop_last=True, splits={"train": 0.7, "val": 0.3}) as provider:
        train, val = events_of(provider.train), events_of(provider.val)
        assert train != sorted(train)
        assert events_of(provider.train) != train
        assert val == sorted(val) == events_of(provider.val)
        assert len(train) == 272  # of 280
        assert len(val) == 120


def test_the_seed_decides_parts_and_order(samples):
    def epoch(seed):
        with hf.DataProvider(samples, 16, num_workers=0, seed=seed) as provider:
            return events_of(provider.train)

    assert epoch(1) == epoch(1)
    assert set(epoch(1)) != set(epoch(2))


def test_options_reach_the_loaders(samples):
    def negate(batch):
        return {**batch, "image": -batch["image"]}

    options = {"transform": negate, "outputs": ("image", "onehot"), "max_events": 20}
    with hf.DataProvider(samples, 10, num_workers=0, **options) as provider:
        batches = list(provider.test)
        assert [image.shape[0] for image, _ in batches] == [10, 10]
        assert batches[0][1].shape == (10, 2)
        assert (batches[0][0] <= 0).any()


def test_a_provider_from_a_file(samples, tmp_path):
    hf.SampleSpec(samples).save(tmp_path / "set.yaml")
    with hf.DataProvider(tmp_path / "set.yaml", num_workers=0, splits={"all": 1.0}) as provider:
        assert set(events_of(provider.all)) == all_events(provider.all.dataset)
        assert provider.classes == {"electron": 0, "pion": 1}
        assert repr(provider) == "DataProvider(all: 400 events; 0 readers)"


def test_the_readers_of_a_forgotten_provider_end(samples):
    provider = hf.DataProvider(samples, 16, num_workers=2)
    batch = next(iter(provider.train))
    readers = [psutil.Process(pid) for pid in provider.pids]
    del provider
    assert psutil.wait_procs(readers, 3)[1] == []
    assert batch["image"].shape == (16, 5, 4)
    assert os.getpid() == psutil.Process().pid


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"splits": {"close": 1.0}}, "split 'close' can't be an attribute of the provider"),
        ({"splits": {"my part": 1.0}}, "split 'my part' can't be an attribute"),
        ({"cache": True}, "cache=True is no cache"),
        ({"cache": "memory"}, "cache='memory' is no cache: use 'auto', 'ram', None or a path such as './memory'"),
        ({"cache": None, "cache_size": 1e9}, "cache_size is given without a cache"),
        ({"cache_size": -1}, "cache_size=-1 is no number of bytes"),
        ({"splits": {"train": 2}}, "split 'train' must be a fraction"),
    ],
)
def test_wrong_options_are_refused(samples, options, message):
    with pytest.raises(SpecError, match=message):
        hf.DataProvider(samples, num_workers=0, **options)


def test_an_unknown_part_is_named_with_the_nearest(samples):
    with hf.DataProvider(samples, num_workers=0) as provider:
        with pytest.raises(SpecError, match="split 'vall' is not defined: did you mean 'val'"):
            provider["vall"]
        with pytest.raises(AttributeError, match="the provider has no 'tran': did you mean 'train'"):
            provider.tran  # noqa: B018


def test_what_is_not_given_comes_from_the_specification(samples, tmp_path):
    options = {"batch_size": 24, "num_workers": 0, "prefetch_factor": 3, "window_events": 48, "cache": None}
    spec = hf.SampleSpec(samples, loader=options)
    with hf.DataProvider(spec, splits={"all": 1.0}) as provider:
        assert [len(batch["label"]) for batch in provider["all"]][:2] == [24, 24]
        assert provider.pids == []
        assert provider["all"].window_events == 48
    assert not (tmp_path / "caches").exists()
    with hf.DataProvider(spec, 32, num_workers=1, cache=tmp_path / "cache", prefetch_factor=4) as provider:
        assert len(next(iter(provider.train))["label"]) == 32
        assert len(provider.pids) == 1
        assert provider.train.prefetch_factor == 4
        assert (tmp_path / "cache").exists()
