"""Division into parts: without overlap, exactly by the fractions, and the same wherever the files lie."""

import numpy as np
import pytest
from events import write_file
from hypothesis import given
from hypothesis import strategies as st

from hepfeed.errors import SpecError
from hepfeed.index import EventIndex
from hepfeed.spec import SampleSpec
from hepfeed.splits import Splits

THREE = {"train": 0.8, "val": 0.1, "test": 0.1}

fractions_strategy = st.lists(st.integers(1, 20), min_size=1, max_size=5).map(
    lambda parts: {f"part{i}": part / sum(parts) for i, part in enumerate(parts)}
)


def rows(splits, events=1000, path="/data/EleEscan/EleEscan_1.h5", values=None):
    return {name: splits.rows(name, path, events, values).tolist() for name in splits.fractions}


@given(
    fractions=fractions_strategy,
    by=st.sampled_from(["event", "block", "file", "key:run"]),
    events=st.integers(0, 300),
    seed=st.integers(0, 5),
)
def test_every_event_is_in_exactly_one_part(fractions, by, events, seed):
    values = np.arange(events) // 7 if by == "key:run" else None
    parts = rows(Splits(fractions, by, seed), events, values=values)
    assert sorted(row for part in parts.values() for row in part) == list(range(events))
    assert all(part == sorted(part) for part in parts.values())


@pytest.mark.parametrize("by", ["event", "block"])
def test_parts_have_their_fractions_of_every_file(by):
    counts = {name: len(part) for name, part in rows(Splits(THREE, by)).items()}
    assert counts == {"train": 800, "val": 100, "test": 100}


@pytest.mark.parametrize("by", ["event", "block"])
def test_fractions_hold_over_many_files_of_few_events(by):
    splits = Splits(THREE, by)
    counts = [len(splits.rows("val", f"/data/{number}.h5", 3)) for number in range(2000)]
    assert set(counts) == {0, 1}
    assert sum(counts) == pytest.approx(600, abs=80)  # 3.9 standard deviations


def test_what_the_fractions_leave_over_is_not_used():
    parts = rows(Splits({"train": 0.5, "val": 0.2}))
    assert (len(parts["train"]), len(parts["val"])) == (500, 200)
    assert not set(parts["train"]) & set(parts["val"])


def test_events_are_drawn_at_random_and_blocks_are_neighbours():
    events, blocks = rows(Splits(THREE, "event"))["val"], rows(Splits(THREE, "block"))["val"]
    assert np.diff(events).max() > 1
    gaps = np.diff(blocks)
    assert (gaps != 1).sum() <= 1  # one run, which may go around the end


def test_whole_files_are_in_one_part_by_file():
    splits = Splits({"train": 0.5, "val": 0.5}, "file")
    owner = ["".join(name for name, part in rows(splits, 5, f"/data/{i}.h5").items() if part) for i in range(400)]
    assert set(owner) == {"train", "val"}
    assert owner.count("val") == pytest.approx(200, abs=40)


def test_events_of_one_value_stay_together_in_all_files():
    splits = Splits({"train": 0.5, "val": 0.5}, "key:run")
    runs = np.random.default_rng(0).integers(0, 50, 1000)
    owner = {}
    for path in ("/data/a.h5", "/data/b.h5"):
        for name, part in rows(splits, path=path, values=runs).items():
            for run in runs[part].tolist():
                assert owner.setdefault(run, name) == name
    assert set(owner.values()) == {"train", "val"}


def test_the_division_depends_on_seed_and_file_and_not_on_where_it_lies():
    first = rows(Splits(THREE))
    assert rows(Splits(THREE), path="/elsewhere/EleEscan/EleEscan_1.h5") == first
    assert rows(Splits(THREE, seed=1)) != first
    assert rows(Splits(THREE), path="/data/EleEscan/EleEscan_2.h5") != first


def test_the_first_part_does_not_depend_on_how_the_others_are_cut():
    assert rows(Splits({"train": 0.8, "val": 0.2}))["train"] == rows(Splits(THREE))["train"]


def test_the_parts_of_an_index_do_not_overlap_with_a_filter_too(tmp_path):
    paths = [write_file(tmp_path / f"{i}.h5", 50, file=i) for i in range(3)]
    spec = SampleSpec([[list(map(str, paths)), ["image"], "a"]], filter="energy % 2 == 0")
    found = []
    for name in THREE:
        index = EventIndex(spec, splits=Splits(THREE), split=name)
        found += list(zip(index.file_of(np.arange(len(index))).tolist(), index.rows.tolist(), strict=True))
    assert sorted(found) == [(file, row) for file in range(3) for row in range(0, 50, 2)]


def test_an_index_is_divided_by_a_key(tmp_path):
    run = np.repeat([11, 12, 13, 14, 15, 16], 5)
    path = write_file(tmp_path / "a.h5", 30, extra={"run": run.reshape(30, 1)})
    spec = SampleSpec([[str(path), ["image"], "a"]])
    halves = Splits({"train": 0.5, "val": 0.5}, "key:run", seed=1)
    runs = [set(run[EventIndex(spec, splits=halves, split=name).rows].tolist()) for name in halves.fractions]
    assert not runs[0] & runs[1]
    assert runs[0] | runs[1] == {11, 12, 13, 14, 15, 16}


@pytest.mark.parametrize(
    ("fractions", "by", "message"),
    [
        ({}, "event", "splits is empty"),
        ({"train": 0}, "event", "split 'train' must be a fraction above 0 and up to 1, not 0"),
        ({"train": True}, "event", "not True"),
        ({"train": "0.5"}, "event", "not '0.5'"),
        ({"train": 0.8, "val": 0.3}, "event", "sum to 1.1, which is more than 1"),
        ({"train": 1}, "evnt", "split_by='evnt' is unknown: did you mean 'event'"),
        ({"train": 1}, "key:", "split_by='key:' is unknown"),
    ],
)
def test_wrong_fractions_and_ways_are_refused(fractions, by, message):
    with pytest.raises(SpecError, match=message):
        Splits(fractions, by)


def test_an_unknown_part_is_named_with_the_nearest():
    with pytest.raises(SpecError, match="split 'vall' is not defined: did you mean 'val'"):
        Splits(THREE).rows("vall", "/data/a.h5", 10)


def test_a_key_with_several_values_an_event_does_not_divide(tmp_path):
    path = write_file(tmp_path / "a.h5", 30)
    with pytest.raises(SpecError, match=r"key 'image' of .* has shape \(30, 5, 4\); one value for each of 30 events"):
        EventIndex(SampleSpec([[str(path), ["id"], "a"]]), splits=Splits(THREE, "key:image"), split="val")
