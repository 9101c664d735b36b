"""What comes from the cache is what comes from the sources: over every layout of files, and every kind of step."""

import contextlib
import logging
import sys

import cloudpickle
import h5py
import numpy as np
import pytest
from cached import (
    all_bits,
    assert_same,
    cached_epochs,
    contents,
    directories,
    epochs,
    parts_of,
    stored_events,
    write_set,
)
from layout_files import FILES, larcv3_million

import hepfeed as hf
from hepfeed.errors import ProcessError, SpecError
from hepfeed.pool import ReaderPool
from hepfeed.tensors import KernelMap, take

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # readers can't import tests

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


@pytest.fixture
def spec(tmp_path):
    return write_set(tmp_path / "data")


def one_sample(path, events):
    sample = {"files": str(path), "keys": events.keys, "label": "x"}
    return [sample if events.layout is None else {**sample, "layout": events.layout}]


def assert_three_epochs_are_those_of_the_sources(spec, root, **options):
    (expected,) = epochs(spec, batch_size=4, **options)
    for found in cached_epochs(spec, root, 3, batch_size=4, **options):
        assert_same(found, expected)
    stored = stored_events(root)
    assert sorted(stored) == sorted(expected)


# ---- layouts


@pytest.mark.parametrize("name", FILES)
def test_every_epoch_has_the_events_of_every_layout(tmp_path, name):
    events = FILES[name](tmp_path / "events.h5")
    assert_three_epochs_are_those_of_the_sources(one_sample(tmp_path / "events.h5", events), tmp_path / "cache")


def test_readers_cache_the_events_of_every_layout(tmp_path):
    pool = ReaderPool(2)
    for name, write in FILES.items():
        path = tmp_path / name / "events.h5"
        path.parent.mkdir()
        spec = one_sample(path, write(path))
        assert_three_epochs_are_those_of_the_sources(spec, tmp_path / name / "cache", readers=2, pool=pool)
    pool.close()


def test_an_event_of_a_million_voxels_is_cached_between_empty_ones(tmp_path):
    events = larcv3_million(tmp_path / "events.h5")
    assert_three_epochs_are_those_of_the_sources(one_sample(tmp_path / "events.h5", events), tmp_path / "cache")


@pytest.mark.parametrize("readers", [0, 2])
def test_images_hits_and_features_are_the_same_in_every_epoch(spec, tmp_path, readers):
    (expected,) = epochs(spec)
    assert len(expected) == 240
    for found in cached_epochs(spec, tmp_path / "cache", 3, readers=readers):
        assert_same(found, expected)
    (again,) = cached_epochs(spec, tmp_path / "cache", readers=readers, shuffle=False, batch_size=7)
    assert_same(again, expected)
    assert sorted(stored_events(tmp_path / "cache")) == sorted(expected)


def test_weights_come_with_cached_events(spec, tmp_path):
    weighted = hf.SampleSpec(spec, weights={"classes": {"electron": 2.0, "pion": 0.5}})
    (expected,) = epochs(weighted)
    assert len({arrays["weight"] for arrays in expected.values()}) == 3
    for found in cached_epochs(weighted, tmp_path / "cache", 3):
        assert_same(found, expected)
    balanced = hf.SampleSpec(spec, weights={"classes": "balanced"})
    (other,) = cached_epochs(balanced, tmp_path / "cache")
    assert len(directories(tmp_path / "cache")) == 1  # weights are no part of what is cached
    assert_same(other, epochs(balanced)[0])


def test_an_image_without_any_active_cell_is_cached(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"] = np.zeros((6, 16, 16), "f4")
    assert_three_epochs_are_those_of_the_sources([[str(tmp_path / "a.h5"), ["image"], "a"]], tmp_path / "cache")


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "u1", "i2", "u8", "?", "c8", "c16"])
@pytest.mark.parametrize("occupancy", [0.02, 1.0])
def test_images_of_any_type_keep_their_bits(tmp_path, dtype, occupancy):
    random = np.random.default_rng(3)
    image = np.where(random.random((12, 20, 30)) < occupancy, random.integers(1, 100, (12, 20, 30)), 0).astype(dtype)
    if np.dtype(dtype).kind == "f":
        image[0, 0, :3] = -0.0, np.nan, np.inf  # a negative zero has a bit of its own
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"] = image
    assert_three_epochs_are_those_of_the_sources([[str(tmp_path / "a.h5"), ["image"], "a"]], tmp_path / "cache")


# ---- steps


def halves(batch):
    """Half of the energy, and the number of hits."""
    return {**batch, "energy": batch["energy"] / 2, "hits": np.diff(batch["hits/xyz"].offsets)}


def two_of_three(batch):
    return {name: take(value, np.flatnonzero(batch["event"][:, 1] % 3)) for name, value in batch.items()}


HITS = {"points": "hits/xyz", "features": "hits/charge", "shape": [8, 8, 8], "low": -4, "high": 4, "outside": "clip"}
STEPS = {
    "nothing": [],
    "sparsify": [{"sparsify": {"keys": "ECAL", "threshold": 0.1}}],
    "sparsify beside": [{"sparsify": {"keys": "ECAL", "into": "sites"}}],
    "densify": [{"sparsify": {"keys": "ECAL"}}, {"densify": {"keys": "ECAL", "dtype": "float16"}}],
    "voxelise": [{"voxelise": {**HITS, "into": "voxels"}}],
    "pad_rows": [{"pad_rows": {"keys": ["hits/xyz", "hits/charge"], "length": 25}}],
    "graph": [{"graph": {"points": "hits/xyz", "k": 3}}],
    "log": [{"log": {"keys": "ECAL"}}, {"normalise": {"keys": "energy", "mean": 3.0, "std": 2.0}}],
    "float16": [{"cast": {"keys": ["ECAL", "energy", "hits/xyz"], "dtype": "float16"}}],
    "uint8": [{"cast": {"keys": ["ECAL"], "dtype": "uint8", "rounding": "nearest"}}],
    "rename": [{"rename": {"names": {"ECAL": "calorimeter", "hits/xyz": "place"}}}],
    "target": [{"target": {"name": "log_energy", "expression": "log(energy)"}}],
    "one_hot": [{"one_hot": {"classes": 3}}],
    "drop": [{"drop": {"keys": ["HCAL", "hits/charge"]}}],
    "select": [{"select": {"keys": ["ECAL"]}}],
    "function": [halves],
}


@pytest.mark.parametrize("name", STEPS)
def test_what_steps_make_of_events_is_the_same_in_every_epoch(spec, tmp_path, name):
    steps = STEPS[name]
    (expected,) = epochs(spec, transform=steps)
    for found in cached_epochs(spec, tmp_path / "cache", 3, transform=steps):
        assert_same(found, expected)
    assert sorted(stored_events(tmp_path / "cache")) == sorted(expected)


@pytest.mark.parametrize("readers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 16])
def test_events_that_steps_take_out_are_counted_and_never_read_again(spec, tmp_path, readers, batch_size):
    (expected,) = epochs(spec, transform=two_of_three)
    dataset = hf.EventDataset(spec, transform=two_of_three, cache=tmp_path / "cache")
    with hf.DataLoader(dataset, batch_size, True, num_workers=readers, seed=7) as loader:
        for epoch in range(1, 4):
            assert_same(contents(loader), expected)
            assert loader.stats()["removed"] == epoch * (240 - len(expected))
            if epoch == 1:
                for path in sorted((tmp_path / "data").rglob("*.h5")):  # an event that were read again would be missed
                    path.rename(path.with_suffix(".away"))
    assert sorted(stored_events(tmp_path / "cache")) == [(file, row) for file in range(6) for row in range(40)]


def test_events_that_are_not_finite_stay_away(spec, tmp_path):
    with h5py.File(tmp_path / "data" / "pion" / "pion_0.h5", "r+") as file:
        file["energy"][5] = np.nan
        file["hits/charge"][file["hits/offsets"][9]] = np.inf
    for found in cached_epochs(spec, tmp_path / "cache", 3, dataset={"on_nonfinite": "drop"}):
        assert len(found) == 238
        assert not {(4, 5), (4, 9)} & found.keys()


# ---- random steps


RANDOM = [
    {"sparsify": {"keys": "ECAL", "into": "sites"}},
    {"log": {"keys": "energy"}},
    "cache",
    {"flip": {"keys": ["ECAL", "sites"], "axes": [0, 2]}},
    {"gaussian_noise": {"keys": "ECAL", "sigma": 0.1, "only_active": True}},
    {"jitter": {"coords": "hits/xyz", "sigma": 0.1}},
    {"drop_points": {"keys": ["hits/xyz", "hits/charge"], "probability": 0.2}},
    {"drop_out": {"keys": "sites", "probability": 0.1}},
]


@pytest.mark.parametrize("readers", [0, 2])
@pytest.mark.parametrize("marked", [True, False])
def test_augmented_epochs_have_the_numbers_that_they_have_without_a_cache(spec, tmp_path, readers, marked):
    steps = [step for step in RANDOM if marked or step != "cache"]
    expected = epochs(spec, 3, transform=steps)
    assert expected[0] != expected[1]
    for found, one in zip(cached_epochs(spec, tmp_path / "cache", 3, transform=steps, readers=readers), expected):
        assert_same(found, one)


def test_partners_of_a_mix_up_are_the_same_in_the_same_batches(spec, tmp_path):
    steps = [{"drop": {"keys": ["hits/xyz", "hits/charge"]}}, {"mix_up": {"keys": ["ECAL"], "classes": 3}}]

    def batches(**options):
        with hf.DataLoader(hf.EventDataset(spec, transform=steps, **options), 16, shuffle="full", seed=2) as loader:
            return [all_bits(loader) for _ in range(3)]

    assert batches(cache=tmp_path / "cache") == batches()


def test_functions_behind_the_cache_draw_what_they_draw_without_it(spec, tmp_path):
    def noisy(batch):
        return {**batch, "energy": batch["energy"] + np.random.normal(size=len(batch["energy"]))}  # noqa: NPY002

    def batches(**options):
        dataset = hf.EventDataset(spec, transform=["cache", noisy], **options)
        with hf.DataLoader(dataset, 16, shuffle="full", seed=2) as loader:
            return [all_bits(loader) for _ in range(3)]

    assert batches(cache=tmp_path / "cache") == batches()


def test_training_validation_and_test_share_a_cache(spec, tmp_path):
    splits = {"train": 0.5, "val": 0.3, "test": 0.2}
    options = {"splits": splits, "num_workers": 1, "seed": 3, "transform": RANDOM}
    with hf.DataProvider(spec, 16, cache=None, **options) as provider:
        expected = {name: [contents(provider[name]) for _ in range(2)] for name in splits}
    with hf.DataProvider(spec, 16, cache=tmp_path / "cache", **options) as provider:
        for epoch in range(2):
            for name in splits:
                assert_same(contents(provider[name]), expected[name][epoch])
    assert len(directories(tmp_path / "cache")) == 1
    stored = stored_events(tmp_path / "cache")
    assert len(stored) == len(set(stored)) == 240


@pytest.mark.parametrize("readers", [0, 2])
def test_kernel_maps_are_built_behind_the_cache(spec, tmp_path, readers):
    maps = [{"kernel_size": 3, "submanifold": True}]
    options = {"shuffle": False, "seed": 1, "prebuild": maps, "num_workers": readers}
    steps = [{"sparsify": {"keys": "ECAL"}}, {"select": {"keys": "ECAL"}}]
    expected = all_bits(hf.DataLoader(hf.EventDataset(spec, transform=steps), 16, **options))
    dataset = hf.EventDataset(spec, transform=steps, cache=tmp_path / "cache")
    with hf.DataLoader(dataset, 16, **options) as loader:
        for _ in range(3):
            batches = list(loader)
            assert all(isinstance(batch["ECAL"].kernel_maps[0], KernelMap) for batch in batches)
            assert all_bits(batches) == expected


# ---- what can't be cached


@pytest.mark.parametrize(
    "step", [{"flip": {"keys": "ECAL", "axes": [0]}}, {"kernel_maps": {"maps": [{"kernel_size": 3}]}}]
)
def test_steps_that_are_no_function_of_one_event_can_not_come_before_the_cache(spec, step):
    with pytest.raises(SpecError, match="put 'cache' before it"):
        hf.EventDataset(spec, transform=[step, "cache"])


def drawing(batch):
    return {**batch, "energy": batch["energy"] * np.random.uniform(size=len(batch["energy"]))}  # noqa: NPY002


def weighing(batch):
    return {**batch, "weight": batch["weight"] * 2}


def ragged_shapes(batch):
    return {**batch, "longest": np.zeros((len(batch["event"]), len(batch["hits/charge"].values)))}


def texts(batch):
    return {**batch, "text": np.array(["a"] * len(batch["event"]))}


def of_the_batch(batch):
    return {**batch, "mean": batch["energy"].mean(keepdims=True)}


def nameless(batch):
    return {name: value for name, value in batch.items() if name != "event"}


FAULTS = {
    "draws random numbers": drawing,
    "changes 'weight'": weighing,
    "differ in form before the cache point: 'longest'": ragged_shapes,
    "'text' is ndarray of <U1, which can't be cached": texts,
    "'mean' has 1 rows for 16 events": of_the_batch,
    "leaves out 'event'": nameless,
}


@pytest.mark.parametrize("readers", [0, 1])
def test_what_can_not_be_cached_is_an_error_where_a_cache_was_asked_for(spec, tmp_path, readers):
    weighted = hf.SampleSpec(spec, weights={"classes": {"electron": 2.0}})
    with contextlib.closing(ReaderPool(readers)) as pool:
        for fault, step in FAULTS.items():
            dataset = hf.EventDataset(weighted, transform=step, cache=tmp_path / "cache")
            with (
                hf.DataLoader(dataset, 16, num_workers=readers, seed=1, pool=pool) as loader,
                pytest.raises(ProcessError, match=fault) as caught,
            ):
                list(loader)
            assert "put 'cache' before" in str(caught.value) or fault == "leaves out 'event'"
            assert parts_of(tmp_path / "cache") == []


@pytest.mark.parametrize("readers", [0, 1])
def test_what_can_not_be_cached_is_fed_from_the_sources_otherwise(spec, caplog, readers):
    weighted = hf.SampleSpec(spec, weights={"classes": {"electron": 2.0}})

    def batches(step, pool, cache):
        dataset = hf.EventDataset(weighted, transform=step, cache=cache)
        with hf.DataLoader(dataset, 16, num_workers=readers, seed=1, pool=pool) as loader:
            return [all_bits(loader) for _ in range(2)]

    with contextlib.closing(ReaderPool(readers)) as pool, caplog.at_level(logging.WARNING, "hepfeed"):
        for fault, step in FAULTS.items():
            caplog.clear()
            assert batches(step, pool, "auto") == batches(step, pool, None)
            (warning,) = caplog.messages
            assert fault in warning
