"""A cache over the course of a training: when it is another one, and how it is filled, left and taken up again."""

import functools
import gc
import os
import shutil
import sys

import cloudpickle
import h5py
import numpy as np
import pytest
from cached import (
    KEYS,
    all_bits,
    assert_same,
    cached_epochs,
    contents,
    directories,
    epochs,
    manifest_of,
    parts_of,
    stored_events,
    write_file,
    write_set,
)

import hepfeed as hf
from hepfeed.cache.key import CacheKey, make_key
from hepfeed.errors import SpecError
from hepfeed.pipeline import Pipeline
from hepfeed.pool import ReaderPool

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # readers can't import tests

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


@pytest.fixture
def spec(tmp_path):
    return write_set(tmp_path / "data")


@pytest.fixture
def small(tmp_path):
    """One file of 20 events."""
    write_file(tmp_path / "small.h5", 1, 20)
    return [[str(tmp_path / "small.h5"), KEYS, "electron"]]


def assert_each_event_once(root, events=240):
    stored = stored_events(root)
    assert len(stored) == len(set(stored)) == events


# ---- the key


def scaled(batch, factor=2.0):
    return {**batch, "energy": batch["energy"] * factor}


def with_factor(factor):
    return lambda batch: {**batch, "energy": batch["energy"] * factor}


class Scale:
    """A user's object with a state."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, batch):
        return {**batch, "energy": batch["energy"] * self.factor}

    def apply(self, batch):
        return self(batch)


def digest(samples, transform=None, **options):
    """Return the key of a specification and its steps."""
    dataset = hf.EventDataset(hf.SampleSpec(samples, **options), transform=transform)
    return make_key(dataset.index, dataset.pipeline)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"log": {"keys": "energy"}}, {"log": {"keys": "energy", "base": 10}}),
        ({"log": {"keys": "energy"}}, {"log": {"keys": "ECAL"}}),
        ([{"log": {"keys": "energy"}}], []),
        (with_factor(2.0), with_factor(3.0)),
        (scaled, functools.partial(scaled, factor=3.0)),
        (Scale(2.0), Scale(3.0)),
        (Scale(2.0).apply, Scale(3.0).apply),
        (lambda batch, factor=2.0: scaled(batch, factor), lambda batch, factor=3.0: scaled(batch, factor)),
    ],
    ids=["option", "key", "step", "closure", "partial", "object", "method", "default"],
)
def test_another_step_or_function_is_another_cache(small, one, other):
    assert digest(small, one).digest == digest(small, one).digest
    assert digest(small, one).digest != digest(small, other).digest


@pytest.mark.parametrize(
    "change",
    [
        {"keys": ["ECAL", "energy"]},
        {"keys": list(reversed(KEYS))},
        {"label": "pion"},
        {"filter": "energy > 2.05"},
        {"filter": hf.Filter(lambda columns: columns["energy"] > 2.05, keys=["energy"])},
    ],
    ids=["keys", "order of keys", "label", "filter", "filter function"],
)
def test_another_sample_is_another_cache(small, change):
    plain = {"files": small[0][0], "keys": KEYS, "label": "electron"}
    assert digest([plain]).digest == digest(small).digest
    assert digest([{**plain, **change}]).digest != digest(small).digest


def test_a_file_that_was_touched_changed_or_renamed_is_another_cache(small, tmp_path):
    path = small[0][0]
    known = {digest(small).digest}
    os.utime(path, ns=(1, 1))
    known.add(digest(small).digest)
    with h5py.File(path, "r+") as file:
        file["energy"][0] = 17.0
    known.add(digest(small).digest)
    os.rename(path, tmp_path / "renamed.h5")
    known.add(digest([[str(tmp_path / "renamed.h5"), KEYS, "electron"]]).digest)
    shutil.copy(tmp_path / "renamed.h5", tmp_path / "more.h5")
    known.add(digest([[str(tmp_path / "*.h5"), KEYS, "electron"]]).digest)
    assert len(known) == 5


def test_the_content_of_files_may_be_their_identity(small, tmp_path):
    def of(path):
        dataset = hf.EventDataset([[str(path), KEYS, "electron"]])
        return make_key(dataset.index, dataset.pipeline, "content").digest

    first = of(small[0][0])
    shutil.copy(small[0][0], tmp_path / "copy.h5")
    assert of(tmp_path / "copy.h5") == first
    with h5py.File(tmp_path / "copy.h5", "r+") as file:
        file["energy"][0] = 17.0
    assert of(tmp_path / "copy.h5") != first
    with pytest.raises(SpecError, match="use 'stat' or 'content'"):
        make_key(hf.EventDataset(small).index, Pipeline(), "name")


MODULE = """
    LIMIT = {limit}

    def helper(values):
        return values {sign} LIMIT

    def step(batch):
        # It uses a constant and another function of its module.
        return {{**batch, "energy": helper(batch["energy"])}}

    class Step:
        def __call__(self, batch):
            return {{**batch, "energy": batch["energy"] {sign} 1}}

    chosen = {chosen}
"""
KEY_OF = """
    import sys
    sys.path.insert(0, sys.argv[1])
    import user_steps
    from hepfeed.cache.key import make_key
    from hepfeed.index import EventIndex
    from hepfeed.pipeline import Pipeline
    from hepfeed.spec import SampleSpec

    index = EventIndex(SampleSpec([[sys.argv[2], ["energy"], "a"]]))
    print(make_key(index, Pipeline(user_steps.chosen)).digest)
"""


def key_with(run_script, folder, path, chosen, limit=3, sign="+", seed="0"):
    import textwrap

    folder.mkdir(exist_ok=True)
    text = textwrap.dedent(MODULE).format(limit=limit, sign=sign, chosen=chosen)
    (folder / "user_steps.py").write_text(text)
    return run_script(KEY_OF, folder, path, env={"PYTHONHASHSEED": seed, "PYTHONDONTWRITEBYTECODE": "1"}).strip()


@pytest.mark.parametrize("chosen", ["step", "Step()"])
def test_what_a_function_of_a_module_calls_is_in_the_key(small, tmp_path, run_script, chosen):
    key = functools.partial(key_with, run_script, tmp_path / "user", small[0][0], chosen)
    first = key()
    assert key(seed="1") == first
    assert key(sign="*") != first
    assert chosen != "step" or key(limit=4) != first


def test_the_key_of_a_function_is_the_same_in_every_process(small, tmp_path, run_script):
    chosen = "lambda batch: {k: v for k, v in batch.items() if k not in {'a', 'b', 'c', 'd', 'e'}}"
    keys = {key_with(run_script, tmp_path / "user", small[0][0], chosen, seed=seed) for seed in "01"}
    assert len(keys) == 1


def test_what_chooses_among_events_is_no_part_of_the_key(spec, tmp_path):
    root = tmp_path / "cache"
    list(cached_epochs(spec, root))
    parts = parts_of(root)
    rated = [[*sample, rate] for sample, rate in zip(spec, (1.0, 2.0, 5.0), strict=True)]
    for samples, options in (
        (rated, {}),
        (hf.SampleSpec(spec, weights={"classes": "balanced"}), {}),
        (spec, {"batch_size": 7, "seed": 3, "shuffle": "full"}),
        (spec, {"readers": 1}),
        (spec, {"dataset": {"split": "a", "splits": {"a": 0.3, "b": 0.7}, "split_seed": 5}}),
    ):
        cached_epochs(samples, root, **options)
    assert parts_of(root) == parts
    assert len(directories(root)) == 1


def test_a_changed_option_makes_another_cache_beside_the_old_one(spec, tmp_path):
    root = tmp_path / "cache"
    for base in ("e", 10, "e"):
        steps = [{"log": {"keys": "energy", "base": base}}]
        assert_same(cached_epochs(spec, root, transform=steps)[0], epochs(spec, transform=steps)[0])
    assert len(directories(root)) == 2
    for directory in directories(root):
        assert_each_event_once(directory)


def test_differences_of_keys_are_told_in_words(small):
    one, other = (digest(small, [{"log": {"keys": "energy", "base": base}}]) for base in ("e", 10))
    (words,) = one.differences(other)
    assert words.startswith("steps[0]: ")
    assert '\\"base\\":\\"e\\"' in words
    assert '\\"base\\":10' in words
    assert one.differences(one) == []
    assert CacheKey({"files": [1, 2]}).differences(CacheKey({"files": [1, 2, 3], "format": 1})) == [
        "files: 2 there, 3 here",
        "format: null there, 1 here",
    ]


# ---- epochs that end early


@pytest.mark.parametrize("readers", [0, 2])
def test_an_epoch_that_was_left_is_taken_up_again(spec, tmp_path, readers):
    (expected,) = epochs(spec)
    root, counts = tmp_path / "cache", []
    for batches in (3, 5, 4, 15):
        dataset = hf.EventDataset(spec, cache=root)
        with hf.DataLoader(dataset, 16, True, num_workers=readers, seed=7) as loader:
            for number, _ in enumerate(loader, 1):
                if number == batches:
                    break
        counts.append(len(stored_events(root)))
    stored = stored_events(root)
    assert len(stored) == len(set(stored))
    assert counts[0] > 0
    assert counts == sorted(counts)
    for found in cached_epochs(spec, root, 2, readers=readers):
        assert_same(found, expected)
    assert_each_event_once(root)


def test_other_processes_take_up_what_one_has_left(spec, tmp_path, run_script):
    script = """
        import json, sys
        import hepfeed as hf

        dataset = hf.EventDataset(json.loads(sys.argv[1]), cache=sys.argv[2])
        with hf.DataLoader(dataset, 16, True, num_workers=1, seed=7) as loader:
            for number, _ in enumerate(loader):
                if number == int(sys.argv[3]):
                    break
    """
    import json

    for batches in (2, 4, 100):
        run_script(script, json.dumps(spec), tmp_path / "cache", batches)
        stored = stored_events(tmp_path / "cache")
        assert len(stored) == len(set(stored)) > 0
    assert_each_event_once(tmp_path / "cache")
    assert_same(cached_epochs(spec, tmp_path / "cache", seed=9)[0], epochs(spec)[0])


@pytest.mark.parametrize(
    ("options", "events"),
    [({"max_events": 70}, 70), ({"drop_last": True, "batch_size": 100}, 200), ({"skip": 40}, 200)],
)
@pytest.mark.parametrize("shuffle", [False, "full"])
def test_epochs_of_some_of_the_events_cache_these(spec, tmp_path, options, events, shuffle):
    expected = epochs(spec, 3, shuffle=shuffle, **options)
    for found, one in zip(
        cached_epochs(spec, tmp_path / "cache", 3, shuffle=shuffle, **options), expected, strict=True
    ):
        assert_same(found, one)
    stored = stored_events(tmp_path / "cache")
    assert len(stored) == len(set(stored)) >= events
    assert set(stored) == set().union(*expected)


@pytest.mark.parametrize("readers", [0, 2])
def test_an_event_that_comes_twice_in_an_epoch_is_stored_once(spec, tmp_path, readers):
    rated = [[*sample, rate] for sample, rate in zip(spec, (1.0, 1.0, 30.0), strict=True)]
    options = {"shuffle": "full", "seed": 1, "exhausted": "wrap", "max_events": 960, "num_workers": readers}

    def some(cache):
        with hf.DataLoader(hf.EventDataset(rated, cache=cache), 48, **options) as loader:
            return [all_bits(loader) for _ in range(2)]

    assert some(tmp_path / "cache") == some(None)
    stored = stored_events(tmp_path / "cache")
    assert len(stored) == len(set(stored))


def test_events_that_fail_are_tried_again_in_every_epoch(spec, tmp_path):
    with h5py.File(tmp_path / "data" / "pion" / "pion_0.h5", "r+") as file:
        file["energy"][7] = -3.0
    steps = [{"log": {"keys": "energy", "offset": 0.0}}]
    dataset = hf.EventDataset(spec, transform=steps, on_error="skip", cache=tmp_path / "cache")
    with hf.DataLoader(dataset, 16, True, seed=1) as loader:
        for epoch in range(1, 4):
            assert len(contents(loader)) == 239
            assert loader.stats()["skipped"] == epoch
    assert_each_event_once(tmp_path / "cache", 239)


# ---- states


def first_and_rest(loader, batches):
    """Return what comes in some batches of an epoch, the state then, and the rest."""
    iterator = iter(loader)
    first = [next(iterator) for _ in range(batches)]
    state = loader.state_dict()
    return all_bits(first), state, all_bits(iterator)


def rest_of(spec, state, cache, transform=None, shuffle=True):
    dataset = hf.EventDataset(spec, transform=transform, cache=cache)
    with hf.DataLoader(dataset, 16, shuffle, seed=99) as loader:
        loader.load_state_dict(state)
        return all_bits(loader), all_bits(loader)


NOISE = [{"gaussian_noise": {"keys": "ECAL", "sigma": 0.1}}]


@pytest.mark.parametrize("epoch", [0, 2])
def test_a_state_goes_on_batch_for_batch_with_a_complete_cache_or_without(spec, tmp_path, epoch):
    root = tmp_path / "cache"
    with hf.DataLoader(hf.EventDataset(spec, transform=NOISE, cache=root), 16, True, seed=4) as loader:
        for _ in range(epoch):
            list(loader)
        _, state, rest = first_and_rest(loader, 6)
        following = all_bits(loader)
    assert rest_of(spec, state, root, NOISE) == (rest, following)  # the cache is complete
    shutil.rmtree(root)
    assert rest_of(spec, state, root, NOISE)[0] == rest  # it is not there
    assert rest_of(spec, state, None, NOISE)[0] == rest


def test_a_state_without_a_cache_goes_on_with_one(spec, tmp_path):
    cached_epochs(spec, tmp_path / "cache", transform=NOISE)
    with hf.DataLoader(hf.EventDataset(spec, transform=NOISE), 16, True, seed=4) as loader:
        list(loader)
        _, state, rest = first_and_rest(loader, 6)
    assert rest_of(spec, state, tmp_path / "cache", NOISE)[0] == rest


# ---- loaders


def test_endless_loaders_go_over_to_the_cache(spec, tmp_path):
    (expected,) = epochs(spec)
    dataset = hf.EventDataset(spec, cache=tmp_path / "cache")
    with hf.DataLoader(dataset, 16, True, seed=7, infinite=True, num_workers=1) as loader:
        iterator = iter(loader)
        for _ in range(3):
            assert_same(contents(next(iterator) for _ in range(15)), expected)
    assert_each_event_once(tmp_path / "cache")


@pytest.mark.parametrize("persistent", [False, True])
def test_readers_that_end_with_their_epoch_leave_a_complete_cache(spec, tmp_path, persistent):
    found = cached_epochs(spec, tmp_path / "cache", 3, readers=2, persistent_workers=persistent)
    assert found[0] == found[1] == found[2]
    assert_each_event_once(tmp_path / "cache")
    assert manifest_of(tmp_path / "cache")["events"] == 240


@pytest.mark.parametrize("readers", [0, 1])
def test_batches_are_replayed_from_the_cache(spec, tmp_path, readers):
    dataset = hf.EventDataset(spec, cache=tmp_path / "cache")
    with hf.DataLoader(dataset, 16, True, seed=7, num_workers=readers, persistent_workers=readers > 0) as loader:
        specs = list(loader.filler.batches(0))[3:6]
        before = all_bits(loader.replay(specs))
        assert before == all_bits(loader)[3:6]
        assert all_bits(loader.replay(specs)) == before
    assert_each_event_once(tmp_path / "cache")


def test_the_figures_of_cached_epochs_are_told(spec, tmp_path):
    with hf.DataLoader(hf.EventDataset(spec, cache=tmp_path / "cache"), 16, seed=1) as loader:
        list(loader)
        inflated = loader.stats()["bytes_inflated"]
        assert inflated > 0
        list(loader)
        stats = loader.stats()
    assert stats["bytes_inflated"] == inflated
    assert (stats["events"], stats["batches"], stats["removed"]) == (480, 30, 0)


def test_auto_leaves_rows_alone_that_lie_as_they_are_delivered(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"] = np.arange(24.0).reshape(6, 4)
    plain = [[str(tmp_path / "a.h5"), ["image"], "a"]]
    list(hf.DataLoader(hf.EventDataset(plain, cache="auto"), 2))
    assert directories(tmp_path / "caches") == []
    list(hf.DataLoader(hf.EventDataset(plain, cache="auto", transform=scaled_image), 2))
    assert_each_event_once(tmp_path / "caches", 6)


def scaled_image(batch):
    return {**batch, "image": 2 * batch["image"]}


def test_readers_outlive_the_store_that_told_them_of_its_parts(spec, tmp_path):
    """Parts are known in the order in which they are written, and by name when a cache is opened again."""
    (expected,) = epochs(spec)
    pool = ReaderPool(2)
    try:
        for number in range(4):
            for _ in range(2):
                for found in cached_epochs(spec, tmp_path / str(number), 2, readers=2, pool=pool):
                    assert_same(found, expected)
                gc.collect()
            assert len(parts_of(tmp_path / str(number))) > 1
    finally:
        pool.close()
