"""The filler: every event exactly once, in the shares of the rates, in an order that only seed and epoch decide."""

import functools

import numpy as np
import pytest
from events import write_file
from hypothesis import given
from hypothesis import strategies as st

from hepfeed.errors import SpecError
from hepfeed.filler import BatchSpec, Filler, windows_of
from hepfeed.index import EventIndex
from hepfeed.spec import SampleSpec
from hepfeed.store import IndexStore

ORDERS = ["auto", "full", "window", "mixed", "sequential"]
MIXING = ["full", "window", "mixed"]


@pytest.fixture(scope="module")
def make_index(tmp_path_factory):
    """Make the index of classes, each a tuple of (events, layout) a file, with rates or without."""
    folder = tmp_path_factory.mktemp("filler")

    @functools.cache
    def path(number, file, events, layout):
        return str(write_file(folder / f"{number}_{file}_{events}_{layout}.h5", events, number=number, layout=layout))

    def make(classes, rates=None):
        samples = []
        for number, files in enumerate(classes):
            paths = [path(number, file, *content) for file, content in enumerate(files)]
            samples.append([paths, ["image"], f"class{number}", *([rates[number]] if rates else [])])
        return EventIndex(SampleSpec(samples), store=IndexStore(None))

    return make


file_strategy = st.tuples(st.integers(1, 40), st.sampled_from(["contiguous", "all_filters", "edge_chunks"]))
classes_strategy = st.lists(st.lists(file_strategy, min_size=1, max_size=3), min_size=1, max_size=4)
rates_strategy = st.lists(st.floats(0.1, 10.0), min_size=4, max_size=4)
options_strategy = st.fixed_dictionaries(
    {
        "batch_size": st.integers(1, 30),
        "order": st.sampled_from(ORDERS),
        "composition": st.sampled_from(["exact", "random"]),
        "seed": st.integers(0, 3),
        "window_events": st.none() | st.integers(1, 60),
    }
)


def events(batches):
    return [pair for batch in batches for pair in zip(batch.file.tolist(), batch.row.tolist(), strict=True)]


def everything(index):
    return [(file, row) for file, source in enumerate(index.sources) for row in range(source.events)]


def same(batches, others):
    return [batch.to_json() for batch in batches] == [batch.to_json() for batch in others]


# ---- which events


@given(classes=classes_strategy, rates=st.none() | rates_strategy, options=options_strategy, epoch=st.integers(0, 2))
def test_every_event_comes_exactly_once(make_index, classes, rates, options, epoch):
    index = make_index(classes, rates)
    filler = Filler(index, **options)
    batches = list(filler.batches(epoch))
    assert sorted(events(batches)) == everything(index)
    assert filler.events(epoch) == len(index)
    assert filler.batches_in(epoch) == len(batches)
    assert [len(batch) for batch in batches[:-1]] == [filler.batch_size] * (len(batches) - 1)
    assert [(batch.epoch, batch.index) for batch in batches] == [(epoch, i) for i in range(len(batches))]
    for batch in batches:
        assert (batch.label == index.file_class[batch.file]).all()


@given(classes=classes_strategy, options=options_strategy)
def test_dropping_the_last_batch_leaves_full_ones(make_index, classes, options):
    filler = Filler(make_index(classes), **options, drop_last=True)
    batches = list(filler.batches(0))
    assert len(batches) == filler.batches_in(0) == len(filler.index) // filler.batch_size
    assert {len(batch) for batch in batches} <= {filler.batch_size}
    if filler.order != "window":  # there the events of the last window are dealt to the full batches alone
        assert same(batches, list(Filler(filler.index, **options).batches(0))[: len(batches)])


@given(
    classes=classes_strategy,
    options=options_strategy,
    skip=st.integers(0, 60),
    most=st.none() | st.integers(1, 60),
)
def test_skip_and_maximum_cut_the_epoch_at_both_ends(make_index, classes, options, skip, most):
    filler = Filler(make_index(classes), **options, skip=skip, max_events=most)
    batches = list(filler.batches(0))
    left = max(0, len(filler.index) - skip)
    assert sum(map(len, batches)) == filler.events(0) == (left if most is None else min(left, most))
    assert len(set(events(batches))) == filler.events(0)


def test_a_skip_passes_over_the_first_events(make_index):
    index = make_index([[(10, "contiguous")], [(10, "contiguous")]])
    filler = Filler(index, batch_size=4, order="sequential", skip=7, max_events=6)
    assert [events([batch]) for batch in filler.batches(0)] == [[(0, 7), (0, 8), (0, 9), (1, 0)], [(1, 1), (1, 2)]]
    mixed = Filler(index, batch_size=4, order="mixed", skip=8)
    assert sorted(events(mixed.batches(0))) == [(file, row) for file in (0, 1) for row in range(4, 10)]


# ---- shares


@given(rates=rates_strategy, batch_size=st.integers(1, 40), order=st.sampled_from(MIXING))
def test_classes_keep_their_shares_within_one_event_until_one_runs_out(make_index, rates, batch_size, order):
    index = make_index([[(40, "contiguous"), (25, "all_filters")]] * 4, rates)
    filler = Filler(index, batch_size=batch_size, order=order, exhausted="stop")
    share = np.array(rates) / sum(rates)
    delivered = np.zeros(4)
    for batch in filler.batches(0):
        delivered += np.bincount(batch.label, minlength=4)
        assert np.abs(delivered - delivered.sum() * share).max() <= 1 + 1e-6
    assert delivered.sum() == filler.events(0)


def test_without_rates_classes_mix_as_many_as_there_are(make_index):
    index = make_index([[(30, "contiguous")], [(10, "contiguous")]])
    for order in MIXING:
        filler = Filler(index, batch_size=8, order=order)
        assert [np.bincount(batch.label).tolist() for batch in filler.batches(0)] == [[6, 2]] * 5


def test_mixed_classes_are_spread_evenly_within_a_batch(make_index):
    index = make_index([[(30, "contiguous")], [(10, "contiguous")]])
    (first, *_) = Filler(index, batch_size=8, order="mixed").batches(0)
    assert first.label.tolist() == [0, 0, 1, 0, 0, 0, 1, 0]
    assert first.row[first.label == 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert first.row[first.label == 1].tolist() == [0, 1]


def test_random_shares_vary_and_still_deliver_every_event_once(make_index):
    index = make_index([[(40, "contiguous")] * 3, [(40, "contiguous")] * 3])
    filler = Filler(index, batch_size=24, order="full", composition="random")
    counts = [int(batch.label.sum()) for batch in filler.batches(0)]
    assert len(set(counts)) > 1
    assert sum(counts) == 120


# ---- when a class runs out


def test_draining_ends_with_batches_of_the_other_classes(make_index):
    index = make_index([[(4, "contiguous")], [(20, "contiguous")]], [1.0, 1.0])
    counts = [np.bincount(batch.label, minlength=2).tolist() for batch in Filler(index, batch_size=6).batches(0)]
    assert counts == [[3, 3], [1, 5], [0, 6], [0, 6]]


def test_stopping_leaves_out_what_can_not_be_mixed(make_index):
    index = make_index([[(7, "contiguous")], [(20, "contiguous")]], [1.0, 1.0])
    filler = Filler(index, batch_size=6, exhausted="stop")
    assert [np.bincount(batch.label).tolist() for batch in filler.batches(0)] == [[3, 3], [3, 3]]
    assert filler.events(0) == 12


@pytest.mark.parametrize("order", MIXING)
def test_wrapping_repeats_the_small_class_in_a_new_order_until_the_large_one_is_through(make_index, order):
    index = make_index([[(5, "all_filters")], [(20, "all_filters")]], [1.0, 1.0])
    filler = Filler(index, batch_size=10, order=order, exhausted="wrap")
    batches = list(filler.batches(0))
    assert [np.bincount(batch.label).tolist() for batch in batches] == [[5, 5]] * 4
    rounds = [batch.row[batch.label == 0].tolist() for batch in batches]
    assert sorted(row for rows in rounds for row in rows) == sorted(4 * [0, 1, 2, 3, 4])
    assert sorted(row for batch in batches for row in batch.row[batch.label == 1].tolist()) == list(range(20))
    assert (len({tuple(rows) for rows in rounds}) > 1) == (order != "mixed")


# ---- the order


@given(classes=classes_strategy, options=options_strategy, first=st.integers(0, 20))
def test_the_order_does_not_depend_on_the_first_batch(make_index, classes, options, first):
    filler = Filler(make_index(classes), **options)
    assert same(filler.batches(1, first), list(filler.batches(1))[first:])


@pytest.mark.parametrize("exhausted", ["drain", "stop", "wrap"])
@pytest.mark.parametrize("order", MIXING)
def test_the_order_from_a_first_batch_holds_for_every_end(make_index, order, exhausted):
    index = make_index([[(11, "all_filters")], [(40, "all_filters"), (7, "contiguous")]], [2.0, 1.0])
    options = {"batch_size": 5, "order": order, "exhausted": exhausted, "window_events": 12, "skip": 3}
    filler = Filler(index, **options)
    whole = list(filler.batches(2))
    assert len(whole) == filler.batches_in(2) > 1
    for first in range(len(whole) + 1):
        assert same(Filler(index, **options).batches(2, first), whole[first:])


@pytest.mark.parametrize("order", MIXING)
def test_shuffled_orders_change_with_seed_and_epoch_and_others_do_not(make_index, order):
    index = make_index([[(40, "all_filters")], [(40, "all_filters")]])
    orders = [events(Filler(index, batch_size=80, order=order, seed=s).batches(e)) for s, e in [(0, 0), (0, 1), (1, 0)]]
    assert len({tuple(order) for order in orders}) == (1 if order == "mixed" else 3)
    assert events(Filler(index, batch_size=80, order=order).batches(0)) == orders[0]


def test_the_automatic_order_is_by_windows_where_events_share_chunks(make_index):
    assert Filler(make_index([[(40, "all_filters")]]), batch_size=4).order == "window"
    assert Filler(make_index([[(40, "contiguous")]]), batch_size=4).order == "full"


@given(classes=classes_strategy, options=options_strategy)
def test_a_window_holds_its_batches_sorted_for_reading(make_index, classes, options):
    filler = Filler(make_index(classes), **options)
    for window in filler.windows(0):
        assert sum(map(len, window.batches)) == len(window.row)
        keys = list(zip(window.file.tolist(), window.row.tolist(), strict=True))
        assert keys == sorted(keys)
        for batch, place, file, row in zip(window.batch, window.place, window.file, window.row, strict=True):
            assert (window.batches[batch].file[place], window.batches[batch].row[place]) == (file, row)


@pytest.mark.parametrize("order", ["window", "mixed", "sequential"])
def test_a_chunk_is_in_one_window_or_its_rest_is_kept(make_index, order):
    index = make_index([[(40, "all_filters"), (40, "all_filters")], [(40, "all_filters")]])  # chunks of 16
    filler = Filler(index, batch_size=7, order=order, window_events=20)
    kept = {}
    for window in filler.windows(0):
        for unit in np.unique(window.unit).tolist():
            here = window.unit == unit
            assert len({(f, r // 16) for f, r in zip(window.file[here], window.row[here], strict=True)}) == 1
            if unit in kept:  # decoded with an earlier window
                assert set(window.row[here].tolist()) <= kept[unit]
                kept[unit] -= set(window.row[here].tolist())
            elif unit in window.kept:
                kept[unit] = set(window.kept[unit].tolist())
    assert all(not rest for rest in kept.values())


@given(
    classes=classes_strategy,
    order=st.sampled_from(["full", "window"]),
    partitions=st.integers(1, 5),
    epoch=st.integers(0, 1),
)
def test_partitions_cover_every_event_exactly_once(make_index, classes, order, partitions, epoch):
    index = make_index(classes)
    parts = [
        Filler(index, batch_size=6, order=order, seed=1, partition=p, partitions=partitions) for p in range(partitions)
    ]
    batches = [batch for part in parts for batch in part.batches(epoch)]
    assert sorted(events(batches)) == everything(index)
    assert sum(part.events(epoch) for part in parts) == len(index)


@pytest.mark.parametrize("exhausted", ["stop", "wrap"])
def test_a_partition_without_events_of_a_class_ends_too(make_index, exhausted):
    index = make_index([[(1, "contiguous")], [(20, "contiguous")]])
    parts = [Filler(index, batch_size=4, exhausted=exhausted, partition=p, partitions=2) for p in range(2)]
    assert [{int(label) for batch in part.batches(0) for label in batch.label} for part in parts][1] == {1}


def test_partitions_do_not_share_chunks_in_windows(make_index):
    index = make_index([[(40, "all_filters")] * 2, [(40, "all_filters")] * 2])
    owners = {}
    for partition in range(3):
        filler = Filler(index, batch_size=6, order="window", partition=partition, partitions=3)
        for file, row in events(filler.batches(0)):
            assert owners.setdefault((file, row // 16), partition) == partition
    assert len(owners) == 12


def test_the_fingerprint_changes_with_all_that_changes_the_order(make_index):
    index = make_index([[(40, "all_filters")], [(20, "all_filters")]])
    variants = [
        {},
        {"batch_size": 6},
        {"seed": 1},
        {"order": "full"},
        {"drop_last": True},
        {"composition": "random"},
        {"exhausted": "wrap"},
        {"skip": 1},
        {"max_events": 9},
        {"window_events": 10},
        {"partitions": 2},
    ]
    prints = [Filler(index, **{"batch_size": 5, **variant}).fingerprint() for variant in variants]
    prints.append(Filler(make_index([[(40, "all_filters")], [(21, "all_filters")]]), batch_size=5).fingerprint())
    assert len(set(prints)) == len(variants) + 1
    assert Filler(index, batch_size=5).fingerprint() == prints[0]


# ---- batch specifications as text


@given(classes=classes_strategy, options=options_strategy)
def test_a_batch_specification_survives_json(make_index, classes, options):
    for batch in Filler(make_index(classes), **options).batches(0):
        again = BatchSpec.from_json(batch.to_json())
        assert (again.epoch, again.index) == (batch.epoch, batch.index)
        for name in ("file", "row", "label"):
            assert getattr(again, name).dtype == np.int64
            assert (getattr(again, name) == getattr(batch, name)).all()


def test_a_batch_specification_names_for_each_class_the_files_and_rows():
    batch = BatchSpec(2, 5, file=np.array([1, 0, 1]), row=np.array([7, 3, 6]), label=np.array([1, 0, 1]))
    assert batch.to_json() == {
        "epoch": 2,
        "index": 5,
        "size": 3,
        "classes": {
            "0": [{"file": 0, "rows": [3], "places": [1]}],
            "1": [{"file": 1, "rows": [7, 6], "places": [0, 2]}],
        },
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "not a batch specification: KeyError 'size'"),
        ({"size": 2, "classes": {}, "epoch": 0, "index": 4}, "batch specification 4 leaves 2 of 2 places empty"),
        ({"size": 1, "classes": {"a": [{"places": [0], "file": 0, "rows": [0]}]}}, "not a batch specification"),
    ],
)
def test_broken_batch_specifications_are_refused(content, message):
    with pytest.raises(SpecError, match=message):
        BatchSpec.from_json(content)


def test_replayed_windows_hold_the_given_batches(make_index):
    index = make_index([[(10, "all_filters")], [(10, "all_filters")]])
    filler = Filler(index, batch_size=6)
    batches = list(filler.batches(0))
    assert same((b for window in windows_of(batches, filler, 6) for b in window.batches), batches)


@pytest.mark.parametrize(
    ("file", "row", "message"),
    [
        ([0, 0, 0], [1, 2, 3], "batch 0 has 3 events, but batch_size is 2"),
        ([0, 2], [1, 2], "batch 0 names file 2, but there are 2 files"),
        ([0, 1], [1, 10], "batch 0 names event 10 of .*, which has 10"),
    ],
)
def test_replayed_batches_must_fit_the_files(make_index, file, row, message):
    filler = Filler(make_index([[(10, "contiguous")], [(10, "contiguous")]]), batch_size=2)
    batch = BatchSpec(0, 0, np.array(file), np.array(row), np.zeros(len(row), np.int64))
    with pytest.raises(SpecError, match=message):
        list(windows_of([batch], filler, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, not 0"),
        ({"batch_size": True}, "batch_size must be an integer of at least 1, not True"),
        ({"order": "windo"}, "order='windo' is unknown: did you mean 'window'"),
        ({"partition": 2, "partitions": 2}, r"partition must be in 0\.\.1, not 2"),
        ({"order": "sequential", "exhausted": "wrap"}, "exhausted='wrap' needs lanes"),
    ],
)
def test_wrong_options_are_refused(make_index, options, message):
    with pytest.raises(SpecError, match=message):
        Filler(make_index([[(10, "contiguous")]]), **{"batch_size": 2, **options})
