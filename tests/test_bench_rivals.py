"""The libraries that ``hepfeed bench feed`` compares with: each delivers the same events, or says why it does not."""

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import h5py
import numpy as np
import pytest

from hepfeed.bench.feeds import (
    grain_sides,
    litdata_sides,
    maps_sides,
    mosaic_sides,
    spdl_sides,
    webdataset_sides,
)
from hepfeed.bench.feeds.blocks import BlockReader, blocks_of
from hepfeed.bench.feeds.checking import Checker, Expected
from hepfeed.bench.feeds.events import EventSet
from hepfeed.bench.feeds.jets import make_ragged
from hepfeed.bench.feeds.maps import Maps, random_order, staged
from hepfeed.bench.feeds.sides import all_sides
from hepfeed.bench.feeds.stored import Form
from hepfeed.spec import SampleSpec
from hepfeed.tensors import Jagged

EVENTS, BATCH = 40, 16
MODULES = (maps_sides, spdl_sides, grain_sides, litdata_sides, mosaic_sides, webdataset_sides)
RIVALS = {side.name: side for module in MODULES for side in module.SIDES}
SPAWNED = ("spdl", *(name for name in RIVALS if name.startswith("grain")))
"""Their workers are new interpreters, which takes seconds: here they have none."""

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries: their warnings are not hepfeed's


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    """Two classes of two files of 40 events: images of which 1 cell of 8 is not 0, a number and a vector."""
    folder = tmp_path_factory.mktemp("events")
    random = np.random.default_rng(5)
    for label in ("electron", "pion"):
        for number in range(2):
            with h5py.File(folder / f"{label}_{number}.h5", "w") as file:
                image = random.random((EVENTS, 6, 5, 4), np.float32)
                image[random.random(image.shape) < 7 / 8] = 0
                image[number] = 0
                file.create_dataset("image", data=image, chunks=(10, 6, 5, 4), compression="gzip")
                file.create_dataset("energy", data=random.random(EVENTS), chunks=(7,))
                file.create_dataset("small", data=random.integers(0, 2, (EVENTS, 3)).astype(np.uint8))
    keys = ["image", "energy", "small"]
    return [[str(folder / f"{label}_*.h5"), keys, label, 1.0] for label in ("electron", "pion")]


def plain(entries, **options):
    return EventSet.of("p", "p", SampleSpec(entries), **options)


@pytest.fixture(scope="module")
def jets_spec(tmp_path_factory):
    """Two classes of two files of 40 jets, whose particles have offsets."""
    return make_ragged(tmp_path_factory.mktemp("jets"), 2, EVENTS)


def ragged(jets_spec, **options):
    return EventSet.of("r", "r", SampleSpec(jets_spec), **options)


def check(feed, events, number):
    checker = Checker(events, Expected.of(events), BATCH)
    for batch in feed.epoch(number):
        checker.add(batch)
    return checker.findings(complete=True)


def in_a_process_of_its_own(function, *arguments):
    """What a library keeps to the end of a process must not stay in this one."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as process:
        return process.submit(function, *arguments).result()


def prepared(side, events, place):
    """Skip where the library is not there, else let it write its format."""
    if reason := side.missing():
        pytest.skip(f"{side.name}: {reason}")
    folder = place / "place" / "own"
    folder.mkdir(parents=True)
    in_a_process_of_its_own(side.prepare, events, folder)
    assert [path.name for path in folder.parent.iterdir()] == ["own"], "something is left beside its format"
    return folder


def opened(side, events, folder):
    return side.open(events, folder, 0 if side.name in SPAWNED else 2, BATCH, seed=3)


def epochs(side, events, folder):
    """What comes in two epochs, and in one behind an epoch that was left early."""
    feed = opened(side, events, folder)
    try:
        found = [check(feed, events, 0), check(feed, events, 1)]
        batches = feed.epoch(2)
        next(batches)
        batches.close()
        return [*found, check(feed, events, 3)]
    finally:
        feed.close()


@pytest.mark.parametrize("name", RIVALS)
def test_every_event_of_an_epoch_comes_once_with_its_values_and_label(name, entries, tmp_path):
    side = RIVALS[name]
    events = plain(entries, prepared=side.own_format, sparse=True)
    folder = prepared(side, events, tmp_path)
    keeps = name.startswith("mosaic")  # shared memory, until the process ends
    found = in_a_process_of_its_own(epochs, side, events, folder) if keeps else epochs(side, events, folder)
    assert [each.faults for each in found] == [[], [], []]
    assert [each.delivered for each in found] == [4 * EVENTS] * 3
    assert not np.array_equal(found[0].events, found[1].events), "both epochs have the same order"


@pytest.mark.parametrize("name", ["torch-maps", "spdl", "spdl-maps", "grain", "grain-arrayrecord"])
def test_events_of_different_lengths_come_too(name, jets_spec, tmp_path):
    side = RIVALS[name]
    events = ragged(jets_spec, prepared=side.own_format)
    feed = opened(side, events, prepared(side, events, tmp_path))
    try:
        found = check(feed, events, 0)
        assert (found.faults, found.delivered) == ([], 4 * EVENTS)
    finally:
        feed.close()


def test_every_side_prints_settings_and_the_page_that_advises_them():
    for side in RIVALS.values():
        assert side.settings, side.name
        assert side.advice.startswith("https://"), side.name
        assert all_sides()[side.name] is side, f"{side.name} takes no part"


@pytest.mark.parametrize("module", MODULES)
def test_a_library_that_is_not_installed_is_missing_with_the_command_that_helps(module):
    class Absent(type(module.SIDES[0])):
        package = "hepfeed-no-such-library"

    assert Absent().missing() == "it is not installed: pip install hepfeed-no-such-library"


def test_a_library_takes_what_it_is_made_for(entries, jets_spec):
    files, formats = plain(entries), plain(entries, prepared=True)
    sparse = replace(formats, sparse=True)
    for side in RIVALS.values():
        assert (side.takes(files) is None) == (not side.own_format), side.name
        assert (side.takes(formats) is None) == (side.own_format and not side.name.endswith("-cells")), side.name
        assert (side.takes(sparse) is None) == side.own_format, side.name
    assert "cells" in RIVALS["torch-maps-cells"].takes(formats)
    assert "one shape" in RIVALS["torch-maps-event"].takes(ragged(jets_spec, prepared=True))


def test_images_are_stored_as_cells_and_small_arrays_whole(entries):
    form = Form.of(plain(entries), cells=True)
    assert form.sparse == {"image"}
    found = {name: (field.dtype.name, field.shape, field.variable) for name, field in form.fields.items()}
    assert found == {
        "event": ("int64", (3,), False),
        "c0": ("uint16", (), True),
        "k0": ("float32", (), True),
        "k1": ("float64", (1,), False),
        "k2": ("uint8", (3,), False),
    }


@pytest.mark.parametrize("cells", [False, True])
def test_a_gather_is_what_a_collate_function_makes_of_the_same_events(entries, tmp_path, cells):
    events = plain(entries)
    numbers = np.array([159, 0, 40, 41, 7])
    with staged(events, Form.of(events, cells), tmp_path / "own") as maps:
        gathered, joined = maps.take(numbers), maps.form.collate([maps.record(number) for number in numbers])
        assert gathered.keys() == joined.keys() == {"image", "energy", "small", "label", "event"}
        for key, value in gathered.items():
            np.testing.assert_array_equal(value, joined[key], err_msg=key)
        assert len(maps) == 4 * EVENTS
    assert not list(tmp_path.glob("own*")), "the staged events are deleted"


def test_a_gather_of_ragged_events_is_what_a_collate_function_makes_of_them(jets_spec, tmp_path):
    events = ragged(jets_spec)
    numbers = np.array([3, 159, 0, 3])
    with staged(events, Form.of(events, cells=False), tmp_path / "own") as maps:
        gathered, joined = maps.take(numbers), maps.form.collate([maps.record(number) for number in numbers])
    assert events.jagged
    for key in events.jagged:
        assert isinstance(gathered[key], Jagged)
        np.testing.assert_array_equal(gathered[key].offsets, joined[key].offsets)
        np.testing.assert_array_equal(gathered[key].values, joined[key].values)


def test_blocks_are_whole_chunks_and_cover_every_event_once(entries):
    events = plain(entries)
    assert blocks_of(events) == [(file, 0, EVENTS) for file in range(4)]  # chunks of 10 are too small to read alone
    reader = BlockReader(events)
    assert [record["event"].tolist() for record in reader.read((2, 5, 7))] == [[1, 2, 5], [1, 2, 6]]


def test_mixed_blocks_come_back_once_in_whole_batches(entries, monkeypatch):
    monkeypatch.setattr(spdl_sides, "WINDOW_EVENTS", 64)
    events = plain(entries)
    reader = BlockReader(events)
    mixer = spdl_sides._Mixer(reader.form, 24, np.random.default_rng(0), [])
    batches = []
    for block in blocks_of(events):
        batches += mixer.accumulate(reader.read(block)) or []
    assert {len(batch["label"]) for batch in batches} == {24}
    (rest,) = mixer.flush()
    assert len(rest["label"]) == 160 % 24
    came = np.concatenate([batch["event"] for batch in [*batches, rest]])
    assert sorted(map(tuple, came.tolist())) == [(file, row) for file in range(4) for row in range(EVENTS)]
    assert mixer.flush() is None


def test_a_batch_of_the_next_epoch_waits_until_this_one_is_over():
    class Batches:
        def __init__(self):
            self.left = iter([(0, 0), (1, 2), (0, 1), (1, 3)])  # of epoch, first event: two events each

        def __iter__(self):
            return self

        def __next__(self):
            epoch, first = next(self.left)
            return {"epoch": np.array(epoch), "label": np.array([first, first])}

        def close(self):
            pass

    feed = grain_sides._GrainFeed(4, lambda epoch: Batches())
    assert [batch["label"].tolist() for batch in feed.epoch(0)] == [[0, 0], [1, 1]]
    assert [batch["label"].tolist() for batch in feed.epoch(1)] == [[2, 2], [3, 3]]


def test_stored_events_have_an_order_that_is_random_and_always_the_same():
    order = random_order(1000)
    assert order == random_order(1000)
    assert sorted(order) == list(range(1000))
    assert np.abs(np.diff(order)).mean() > 200  # 333 on the average


def test_maps_pickle_without_their_arrays(entries, tmp_path):
    events = plain(entries)
    with staged(events, Form.of(events, cells=False), tmp_path / "own") as maps:
        assert len(maps) == 160
        assert len(pickle.dumps(maps)) < 2000
        again = pickle.loads(pickle.dumps(maps))
        assert isinstance(again, Maps)
        np.testing.assert_array_equal(again.record(77)["k1"], maps.record(77)["k1"])
