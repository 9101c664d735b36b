"""Packing: batches within their limits, of similar lengths, about equally full, with every event in one of them."""

from itertools import pairwise

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from hepfeed.packing import Packing, cut, cut_evenly

lengths_strategy = st.lists(st.integers(0, 12), max_size=40).map(lambda points: np.array(points, np.int64))


def packing(length, batch_size=4, matched=False, max_points=None, oversize="alone"):
    return Packing(np.array(length, np.int64), batch_size, matched, max_points, oversize)


def packed(packing, event=None, random=None, drop_last=False):
    """Return the places of each batch."""
    event = np.arange(len(packing.length)) if event is None else np.array(event)
    place, bounds = packing.pack(event, random, drop_last)
    return [place[low:high].tolist() for low, high in pairwise(bounds)]


def reference_cut(length, most_events, most_points):
    """Cut greedily, one event after another."""
    bounds, events, points = [0], 0, 0
    for i, n in enumerate(length):
        if events and (events == most_events or points + n > most_points):
            bounds.append(i)
            events = points = 0
        events, points = events + 1, points + n
    return [*bounds, len(length)] if events else bounds


# ---- cuts


def test_a_batch_ends_before_the_first_event_that_does_not_fit():
    length = np.array([3, 3, 4, 1, 9, 2, 2, 2, 2])
    assert cut(length, 3, 10).tolist() == [0, 3, 5, 8, 9]


def test_an_event_that_fits_nowhere_is_cut_out_alone():
    assert cut(np.array([1, 20, 1, 1]), 8, 10).tolist() == [0, 1, 2, 4]


def test_no_events_make_no_batch():
    for function in (cut, cut_evenly):
        assert function(np.array([], np.int64), 3, 10).tolist() == [0]


def test_events_without_points_are_limited_by_their_number():
    assert cut(np.zeros(5, np.int64), 2, 1).tolist() == [0, 2, 4, 5]
    assert cut_evenly(np.zeros(5, np.int64), 4, 1000).tolist() == [0, 3, 5]


def test_an_even_cut_leaves_no_batch_nearly_empty():
    length = np.ones(11, np.int64)
    assert cut(length, 100, 10).tolist() == [0, 10, 11]
    assert cut_evenly(length, 100, 10).tolist() == [0, 6, 11]


@given(length=lengths_strategy, most_events=st.integers(1, 9), most_points=st.integers(1, 30))
def test_a_cut_equals_the_cut_of_one_event_after_another(length, most_events, most_points):
    assert cut(length, most_events, most_points).tolist() == reference_cut(length, most_events, most_points)


@given(length=lengths_strategy, most_events=st.integers(1, 9), most_points=st.integers(1, 30))
@example(length=np.array([5, 1, 1, 1]), most_events=9, most_points=5)
def test_an_even_cut_keeps_limits_and_number_of_batches(length, most_events, most_points):
    greedy, even = (function(length, most_events, most_points) for function in (cut, cut_evenly))
    assert len(even) == len(greedy)
    assert even[-1] == len(length)
    sizes = np.diff(even)
    points = np.diff(np.append(0, np.cumsum(length))[even])
    assert (sizes >= 1).all()
    assert (sizes <= most_events).all()
    assert ((points <= most_points) | (sizes == 1)).all()
    if (length <= most_points).all() and most_events >= len(length):
        assert points.max(initial=0) == least_largest(length, len(greedy) - 1)


def least_largest(length, batches):
    """The least largest number of points of a batch, over all cuts into so many batches or fewer."""
    ends = np.append(0, np.cumsum(length)).tolist()
    best = [0] + [10**9] * len(length)
    for _ in range(batches):
        best = [min(max(best[j], ends[i] - ends[j]) for j in range(i + 1)) for i in range(len(ends))]
    return best[-1]


# ---- batches of a window


def test_matched_batches_are_runs_of_the_sorted_lengths():
    length = [5, 1, 9, 1, 5, 2, 9, 8]  # sorted: 1 1 | 2 5 | 5 8 | 9 9
    assert packed(packing(length, 2, matched=True)) == [[0, 5], [1, 3], [2, 6], [4, 7]]


def test_matched_batches_come_in_random_order_and_the_incomplete_one_last():
    orders = set()
    for seed in range(40):
        *full, rest = packed(packing([4, 1, 3, 2, 5], 2, matched=True), random=np.random.default_rng(seed))
        assert [len(batch) for batch in full] == [2, 2]
        assert len(rest) == 1
        orders.add(str([*full, rest]))
    # the incomplete batch is the shortest, the middle or the longest event; the others come in either order
    assert orders == {
        str([*full, rest])
        for a, b, rest in [([2, 3], [0, 4], [1]), ([1, 3], [0, 4], [2]), ([1, 3], [0, 2], [4])]
        for full in ([a, b], [b, a])
    }


def test_a_budget_cuts_the_window_where_it_is_full():
    assert packed(packing([6, 4, 5, 5, 1, 9], 9, max_points=10)) == [[0, 1], [2, 3], [4, 5]]


def test_a_budget_of_matched_events_cuts_their_sorted_lengths():
    length = [
        6,
        1,
        5,
        2,
        4,
        2,
    ]  # sorted: 1 2 2 | 4 | 5 6 has more than 10 points; evenly 1 2 2 | 4 | 5 | 6 has 4 batches
    assert packed(packing(length, 9, matched=True, max_points=10)) == [[0], [1, 3, 4, 5], [2]]
    assert packed(packing(length, 9, matched=True, max_points=11)) == [[0, 2], [1, 3, 4, 5]]


def test_an_oversize_event_is_alone_in_its_turn_and_does_not_cut_the_others():
    length = [2, 30, 2, 2, 40, 2]
    alone = packing(length, 9, max_points=4)
    assert packed(alone) == [[0, 2], [1], [3, 5], [4]]
    assert alone.oversized.tolist() == [False, True, False, False, True, False]
    assert not alone.skipped(np.arange(6)).any()


def test_an_oversize_event_can_be_left_out():
    skipping = packing([2, 30, 2, 2, 40, 2], 9, max_points=4, oversize="skip")
    assert packed(skipping) == [[0, 2], [3, 5]]
    assert skipping.skipped(np.array([4, 3, 1])).tolist() == [True, False, True]
    assert packed(skipping, [1, 4]) == []


def test_the_events_that_fill_no_batch_are_dropped_from_the_end_of_the_window():
    length = [3, 3, 4, 5, 4, 2]
    assert packed(packing(length, 9, max_points=10), drop_last=True) == [[0, 1, 2], [3, 4]]
    assert packed(packing([*length[:5], 1], 9, max_points=10), drop_last=True) == [[0, 1, 2], [3, 4, 5]]  # full: 10
    assert packed(packing([1] * 6, 3, max_points=10), drop_last=True) == [[0, 1, 2], [3, 4, 5]]  # full: 3 events
    assert packed(packing([1, 1], 3, max_points=10), drop_last=True) == []


def test_the_typical_size_is_what_the_budget_holds_of_events_of_mean_length():
    assert packing([1, 3, 2, 2], 9, max_points=10).typical_size() == 5
    assert packing([1, 3, 2, 2, 99], 9, max_points=10).typical_size() == 5
    assert packing([1, 3, 2, 2], 4, max_points=10).typical_size() == 4
    assert packing([8, 9], 4, max_points=10).typical_size() == 1
    assert packing([0, 0], 4, max_points=10).typical_size() == 4
    assert packing([11, 12], 4, max_points=10).typical_size() == 1
    assert packing([8, 9], 4, matched=True).typical_size() == 4


@given(
    length=lengths_strategy.filter(len),
    batch_size=st.integers(1, 9),
    matched=st.booleans(),
    max_points=st.none() | st.integers(1, 30),
    oversize=st.sampled_from(["alone", "skip"]),
    seed=st.none() | st.integers(0, 3),
    data=st.data(),
)
def test_every_event_is_in_one_batch_within_the_limits(length, batch_size, matched, max_points, oversize, seed, data):
    made = packing(length, batch_size, matched, max_points, oversize)
    event = np.array(data.draw(st.permutations(range(len(length)))))[: len(length) // 2 + 1]
    batches = packed(made, event, None if seed is None else np.random.default_rng(seed))
    assert sorted(place for batch in batches for place in batch) == np.flatnonzero(~made.skipped(event)).tolist()
    for batch in batches:
        assert batch == sorted(batch)
        assert 1 <= len(batch) <= batch_size
        if max_points is not None:
            assert len(batch) == 1 or length[event[batch]].sum() <= max_points
    if max_points is None:
        assert {len(batch) for batch in batches[:-1]} <= {batch_size}
    if matched:  # lengths of different batches do not overlap
        fitting = [b for b in batches if max_points is None or length[event[b]].sum() <= max_points]
        ranges = sorted((length[event[b]].min(), length[event[b]].max()) for b in fitting)
        assert all(low[1] <= high[0] for low, high in pairwise(ranges))
