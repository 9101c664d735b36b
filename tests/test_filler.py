"""The filler: every event exactly once, in the shares of the rates, in an order that only seed and epoch decide."""

import functools
from itertools import pairwise

import numpy as np
import pytest
import xxhash
from events import images, write_file
from hypothesis import given
from hypothesis import strategies as st

from hepfeed.dataset import EventDataset
from hepfeed.errors import SpecError
from hepfeed.filler import BatchSpec, Filler, windows_of
from hepfeed.index import EventIndex
from hepfeed.lane import unit_starts
from hepfeed.loader import DataLoader
from hepfeed.spec import SampleSpec
from hepfeed.store import IndexStore

ORDERS = ["auto", "full", "window", "mixed", "sequential"]
MIXING = ["full", "window", "mixed"]


@pytest.fixture(scope="module")
def make_index(tmp_path_factory):
    """Make the index of classes, each a tuple of (events, layout) a file, with rates or without."""
    folder = tmp_path_factory.mktemp("filler")
    store = IndexStore(None)

    @functools.cache
    def path(number, file, events, layout):
        return str(write_file(folder / f"{number}_{file}_{events}_{layout}.h5", events, number=number, layout=layout))

    def make(classes, rates=None):
        samples = []
        for number, files in enumerate(classes):
            paths = [path(number, file, *content) for file, content in enumerate(files)]
            samples.append([paths, ["image"], f"class{number}", *([rates[number]] if rates else [])])
        return EventIndex(SampleSpec(samples), store=store)

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


packing_strategy = st.fixed_dictionaries(
    {
        "length_matched": st.booleans(),
        "max_points": st.none() | st.integers(1, 60),
        "oversize": st.just("alone"),
    }
).filter(lambda packing: packing["length_matched"] or packing["max_points"])
PACKINGS = [{"length_matched": True}, {"max_points": 30}, {"length_matched": True, "max_points": 30}]


def points(index):
    """Give each event of an index a number of points, 0 to 19, or 99 for a few."""
    random = np.random.default_rng(len(index))
    made = random.integers(0, 20, len(index))
    made[random.random(len(index)) < 0.03] = 99
    return made


def packing_filler(index, **options):
    return Filler(index, lengths=lambda positions: points(index)[positions], **options)


def points_of(index, batch):
    return points(index)[index.file_start[batch.file] + batch.row]  # nothing is filtered: row i is event i of its file


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


@pytest.mark.parametrize("packing", [{}, *PACKINGS, {"max_points": 30, "oversize": "skip"}])
@pytest.mark.parametrize("order", ["window", "mixed", "sequential"])
def test_a_chunk_is_in_one_window_or_its_rest_is_kept(make_index, order, packing):
    index = make_index([[(40, "all_filters"), (40, "all_filters")], [(40, "all_filters")]])  # chunks of 16
    filler = packing_filler(index, batch_size=7, order=order, window_events=20, **packing)
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


@pytest.mark.parametrize("order", ["window", "mixed"])
def test_what_is_kept_is_all_that_the_next_window_asks_of_a_unit_even_where_a_class_starts_again(make_index, order):
    index = make_index([[(24, "all_filters")], [(200, "all_filters")]], [1.0, 1.0])
    kept, cut = {}, 0
    for window in Filler(index, batch_size=8, order=order, exhausted="wrap", window_events=40).windows(0):
        for unit in set(kept) & set(window.unit.tolist()):
            assert set(window.row[window.unit == unit].tolist()) <= set(kept[unit].tolist())
            cut += 1
        kept = window.kept
    assert cut > 2


@pytest.mark.parametrize("order", ["window", "mixed"])
def test_events_of_a_class_that_starts_again_are_read_right(tmp_path, order):
    paths = [str(write_file(tmp_path / f"{i}.h5", n, number=i, layout="all_filters")) for i, n in enumerate((24, 200))]
    dataset = EventDataset(SampleSpec([[path, ["image"], path, 1.0] for path in paths]))
    stored = [images(i, 0, n) for i, n in enumerate((24, 200))]
    with DataLoader(dataset, 8, order, exhausted="wrap", seed=0, window_events=40) as loader:
        for batch in loader:
            expected = [stored[file][row] for file, row in batch["event"].tolist()]
            np.testing.assert_array_equal(batch["image"].numpy(), expected)


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


@pytest.mark.parametrize(
    ("options", "digest"),
    [
        ({"order": "full", "batch_size": 7}, "6e9151e671825f72"),
        ({"order": "window", "batch_size": 5, "window_events": 20}, "f7e5b7323f13be38"),
        ({"order": "window", "batch_size": 6, "exhausted": "wrap", "seed": 3}, "f26b18807d5defe4"),
        ({"order": "mixed", "batch_size": 7, "skip": 3}, "243528d7042fc727"),
        ({"order": "sequential", "batch_size": 6, "max_events": 70, "drop_last": True}, "eabe721f1722037b"),
        ({"order": "full", "batch_size": 6, "composition": "random", "exhausted": "stop"}, "9e0f66336f3d757c"),
        (
            {"order": "window", "batch_size": 4, "partition": 1, "partitions": 3, "window_events": 9},
            "e998740e199e1d59",
        ),
    ],
)
def test_orders_are_those_of_earlier_versions(make_index, options, digest):
    """A state that was saved is to be resumed by a later version: these orders never change."""
    index = make_index([[(40, "all_filters"), (25, "contiguous")], [(33, "edge_chunks")]], [2.0, 1.0])
    found = xxhash.xxh3_64()
    for epoch in (0, 2):
        for batch in Filler(index, **options).batches(epoch):
            rows = np.stack([np.full(len(batch), batch.index), batch.file, batch.row, batch.label])
            found.update(rows.astype(np.int64).tobytes())
    assert found.hexdigest() == digest


# ---- batches by length


@given(
    classes=classes_strategy,
    rates=st.none() | rates_strategy,
    options=options_strategy,
    packing=packing_strategy,
    epoch=st.integers(0, 2),
    skip=st.sampled_from([0, 0, 5]),
    most=st.sampled_from([None, None, 37]),
)
def test_packed_batches_hold_every_event_once_within_their_limits(
    make_index, classes, rates, options, packing, epoch, skip, most
):
    index = make_index(classes, rates)
    filler = packing_filler(index, **options, **packing, skip=skip, max_events=most)
    batches = list(filler.batches(epoch))
    found = events(batches)
    assert len(found) == len(set(found)) == filler.events(epoch) == min(max(0, len(index) - skip), most or len(index))
    assert filler.batches_in(epoch) == len(batches)
    assert [(batch.epoch, batch.index) for batch in batches] == [(epoch, i) for i in range(len(batches))]
    for batch in batches:
        assert 1 <= len(batch) <= filler.batch_size
        if packing["max_points"]:
            assert len(batch) == 1 or points_of(index, batch).sum() <= packing["max_points"]
    if not packing["max_points"]:
        assert {len(batch) for batch in batches[:-1]} <= {filler.batch_size}
    else:
        large = sum(points_of(index, batch).sum() > packing["max_points"] for batch in batches)
        assert filler.oversize_events(epoch) == large


@pytest.mark.parametrize("exhausted", ["drain", "stop", "wrap"])
@pytest.mark.parametrize("order", MIXING)
@pytest.mark.parametrize("packing", [*PACKINGS, {"max_points": 15, "oversize": "skip"}])
def test_packed_batches_from_a_first_one_on_are_those_of_the_whole_epoch(make_index, packing, order, exhausted):
    index = make_index([[(11, "all_filters")], [(40, "all_filters"), (7, "contiguous")]], [2.0, 1.0])
    options = {"batch_size": 5, "order": order, "exhausted": exhausted, "window_events": 12, "skip": 3, **packing}
    filler = packing_filler(index, **options)
    whole = list(filler.batches(2))
    assert len(whole) == filler.batches_in(2) > 1
    for first in range(len(whole) + 2):
        resumed = filler if first % 2 else packing_filler(index, **options)  # with its plan at hand, or without
        windows = list(resumed.windows(2, first))
        assert same((batch for window in windows for batch in window.batches), whole[first:])
        for window in windows:
            for batch, place, file, row in zip(window.batch, window.place, window.file, window.row, strict=True):
                assert (window.batches[batch].file[place], window.batches[batch].row[place]) == (file, row)


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("order", ["full", "window"])
def test_packed_orders_change_with_seed_and_epoch_alone(make_index, order, packing):
    index = make_index([[(40, "all_filters")], [(40, "all_filters")]])
    options = {"batch_size": 8, "order": order, **packing}
    orders = [events(packing_filler(index, seed=s, **options).batches(e)) for s, e in [(0, 0), (0, 1), (1, 0), (0, 0)]]
    assert len({tuple(order) for order in orders}) == 3
    assert orders[0] == orders[3]


@pytest.mark.parametrize("packing", PACKINGS)
def test_the_sequential_order_packs_without_chance(make_index, packing):
    index = make_index([[(40, "contiguous")], [(40, "contiguous")]])
    options = {"batch_size": 8, "order": "sequential", "window_events": 40, **packing}
    batches = list(packing_filler(index, **options).batches(0))
    assert same(packing_filler(index, seed=1, **options).batches(5), [replaced(batch, 5) for batch in batches])
    for batch in batches:
        assert events([batch]) == sorted(events([batch]))


def replaced(batch, epoch):
    return BatchSpec(epoch, batch.index, batch.file, batch.row, batch.label)


@given(
    classes=classes_strategy, packing=packing_strategy, partitions=st.integers(1, 4), order=st.sampled_from(MIXING[:2])
)
def test_packed_partitions_cover_every_event_exactly_once(make_index, classes, packing, partitions, order):
    index = make_index(classes)
    parts = [
        packing_filler(index, batch_size=6, order=order, seed=1, partition=p, partitions=partitions, **packing)
        for p in range(partitions)
    ]
    assert sorted(events(batch for part in parts for batch in part.batches(1))) == everything(index)
    assert sum(part.events(1) for part in parts) == len(index)


def test_matched_batches_differ_little_in_length_and_keep_the_shares_of_the_window(make_index):
    index = make_index([[(40, "contiguous")] * 6, [(40, "contiguous")] * 3])
    filler = packing_filler(index, batch_size=10, order="full", window_events=90, length_matched=True)
    batches = list(filler.batches(0))
    for i in range(0, 36, 9):
        window = sorted((points_of(index, batch) for batch in batches[i : i + 9]), key=lambda length: length.min())
        assert all(a.max() <= b.min() for a, b in pairwise(window))
        assert np.bincount(np.concatenate([batch.label for batch in batches[i : i + 9]])).tolist() == [60, 30]
    first = [points_of(index, batch).mean() for batch in batches[:9]]
    assert first != sorted(first)


def test_batches_of_a_budget_are_about_equally_full(make_index):
    index = make_index([[(40, "contiguous")] * 6])
    filler = Filler(index, batch_size=100, order="full", window_events=240, max_points=50, lengths=lambda e: e * 0 + 7)
    assert [len(batch) for batch in filler.batches(0)] == [7] * 34 + [2]
    filler = Filler(index, batch_size=100, order="full", window_events=240, max_points=105, lengths=lambda e: e * 0 + 5)
    assert [len(batch) for batch in filler.batches(0)] == [20] * 12  # not 21 and a rest of 9


@pytest.mark.parametrize("order", MIXING)
@pytest.mark.parametrize("matched", [False, True])
def test_dropping_the_last_batch_of_a_budget_leaves_out_less_than_a_batch(make_index, order, matched):
    index = make_index([[(40, "contiguous"), (33, "all_filters")]])
    options = {"batch_size": 9, "order": order, "max_points": 200, "length_matched": matched, "window_events": 30}
    filler = packing_filler(index, **options, drop_last=True)
    batches = list(filler.batches(0))
    dropped = set(everything(index)) - set(events(batches))
    assert 0 < len(dropped) == len(index) - filler.events(0) < 9
    assert len(batches) == filler.batches_in(0)
    assert len(batches) < packing_filler(index, **options).batches_in(0)


# ---- events with too many points


def test_an_event_beyond_the_budget_is_a_batch_of_its_own(make_index, caplog):
    index = make_index([[(40, "all_filters")], [(40, "contiguous")]])
    large = int((points(index) > 30).sum())
    filler = packing_filler(index, batch_size=8, max_points=30)
    assert not caplog.records
    batches = list(filler.batches(1))
    assert filler.oversize_events(1) == large > 0
    assert sum(points_of(index, batch).sum() > 30 for batch in batches) == large
    message = f"{large} events of epoch 1 have more than 30 points and are batches of their own"
    assert [record.getMessage() for record in caplog.records] == [message]
    assert filler.batches_in(2) > 0
    assert len(caplog.records) == 1  # said once


def test_an_event_beyond_the_budget_can_be_left_out_and_is_counted(make_index, caplog):
    index = make_index([[(40, "all_filters")], [(40, "contiguous")]])
    large = {pair for pair, n in zip(everything(index), points(index), strict=True) if n > 30}
    filler = packing_filler(index, batch_size=8, max_points=30, oversize="skip")
    assert sorted(events(filler.batches(0))) == sorted(set(everything(index)) - large)
    assert filler.oversize_events(0) == len(large) == len(index) - filler.events(0)
    assert [record.getMessage().partition(" points ")[2] for record in caplog.records] == ["and are left out"]


def test_an_event_beyond_the_budget_can_be_an_error_that_names_it(make_index):
    index = make_index([[(10, "contiguous")], [(10, "contiguous")]])
    with pytest.raises(SpecError, match="max_points=15, but 4 events have more points, the most event 9 of") as caught:
        Filler(index, batch_size=4, max_points=15, oversize="raise", lengths=lambda positions: positions)
    assert (caught.value.file, caught.value.event) == (index.sources[1].path, 9)
    fitting = Filler(index, batch_size=4, max_points=19, oversize="raise", lengths=lambda positions: positions)
    assert fitting.events(0) == 20


def test_an_epoch_of_events_that_are_all_left_out_is_empty(make_index):
    index = make_index([[(40, "all_filters")]])
    filler = Filler(index, batch_size=4, max_points=5, oversize="skip", lengths=lambda positions: positions * 0 + 6)
    assert (filler.events(0), filler.batches_in(0), filler.window_batches_in(0)) == (0, 0, 1)
    assert list(filler.windows(0)) == []


def test_events_without_points_are_packed_by_their_number(make_index):
    index = make_index([[(40, "all_filters")]])
    for packing in PACKINGS:
        filler = Filler(index, batch_size=10, lengths=lambda positions: positions * 0, **packing)
        assert [len(batch) for batch in filler.batches(0)] == [10] * 4


# ---- what is read together


def test_packed_batches_are_read_one_by_one_where_they_share_no_chunks(make_index):
    shared, single = make_index([[(80, "all_filters")]]), make_index([[(80, "contiguous")]])
    for packing in PACKINGS:
        for index, order in [(single, "full"), (single, "window"), (single, "mixed"), (shared, "full")]:
            filler = packing_filler(index, batch_size=5, order=order, **packing)
            assert filler.window_batches == filler.window_batches_in(0) == 1
            assert {len(window.batches) for window in filler.windows(0)} == {1}
        filler = packing_filler(shared, batch_size=5, order="window", window_events=40, **packing)
        sizes = [len(window.batches) for window in filler.windows(0)]
        assert max(sizes) == filler.window_batches_in(0) > 1
        assert len(sizes) == 2 or "max_points" in packing


def test_the_fingerprint_changes_with_lengths_and_what_is_made_of_them(make_index):
    index = make_index([[(40, "all_filters")], [(20, "all_filters")]])
    variants = [{}, *PACKINGS, {"max_points": 31}, {"max_points": 30, "oversize": "skip"}]
    prints = [packing_filler(index, batch_size=5, **variant).fingerprint() for variant in variants]
    prints.append(Filler(index, batch_size=5, max_points=30, lengths=lambda e: e).fingerprint())
    assert len(set(prints)) == len(variants) + 1
    assert Filler(index, batch_size=5).fingerprint() == prints[0]  # lengths alone change nothing


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
    assert same((b for window in windows_of(batches, index, 6) for b in window.batches), batches)


@pytest.mark.parametrize(
    ("file", "row", "message"),
    [
        ([0, 0, 0], [1, 2, 3], "batch 0 has 3 events, but batch_size is 2"),
        ([0, 2], [1, 2], "batch 0 names file 2, but there are 2 files"),
        ([0, 1], [1, 10], "batch 0 names event 10 of .*, which has 10"),
    ],
)
def test_replayed_batches_must_fit_the_files(make_index, file, row, message):
    index = make_index([[(10, "contiguous")], [(10, "contiguous")]])
    batch = BatchSpec(0, 0, np.array(file), np.array(row), np.zeros(len(row), np.int64))
    with pytest.raises(SpecError, match=message):
        list(windows_of([batch], index, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, not 0"),
        ({"batch_size": True}, "batch_size must be an integer of at least 1, not True"),
        ({"order": "windo"}, "order='windo' is unknown: did you mean 'window'"),
        ({"partition": 2, "partitions": 2}, r"partition must be in 0\.\.1, not 2"),
        ({"order": "sequential", "exhausted": "wrap"}, "exhausted='wrap' needs lanes"),
        ({"length_matched": True}, "length_matched and max_points need events of different lengths: name a jagged key"),
        ({"max_points": 5}, "length_matched and max_points need events"),
        ({"max_points": 0}, "max_points must be an integer of at least 1, not 0"),
        ({"oversize": "skip"}, "oversize='skip' needs max_points"),
        ({"max_points": 5, "oversize": "cut"}, "oversize='cut' is unknown"),
        (
            {"max_points": 5, "lengths": lambda _: np.ones(3, int)},
            r"10 numbers of points, .* not int64 of shape \(3,\)",
        ),
        ({"max_points": 5, "lengths": lambda e: e * 0.5}, "10 numbers of points, .* not float64"),
        ({"max_points": 5, "lengths": lambda e: -e}, "10 numbers of points, none below 0"),
    ],
)
def test_wrong_options_are_refused(make_index, options, message):
    with pytest.raises(SpecError, match=message):
        Filler(make_index([[(10, "contiguous")]]), **{"batch_size": 2, **options})


@pytest.mark.parametrize("piece", [1, 7, 50, 10**6])
def test_units_do_not_depend_on_the_pieces_that_are_looked_at(make_index, monkeypatch, piece):
    monkeypatch.setattr("hepfeed.lane._LOOKED_AT", piece)
    index = make_index([[(95, "hundred_event_chunks"), (250, "hundred_event_chunks")], [(20, "all_filters")]])
    assert unit_starts(index).tolist() == [0, 95, 195, 295, 345, 361, 365]
