"""The shares of the lanes in a batch."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hepfeed.quotas import Quotas

MANY = 10**9
rates_strategy = st.lists(st.floats(0.01, 100.0), min_size=1, max_size=8)


def batches(quotas, size, count):
    return [quotas.next(size) for _ in range(count)]


def test_equal_rates_share_a_batch_equally():
    assert batches(Quotas([1, 1, 1, 1], [MANY] * 4), 128, 3) == [[32, 32, 32, 32]] * 3


def test_what_is_owed_is_carried_over():
    assert batches(Quotas([2, 1], [MANY] * 2), 4, 3) == [[3, 1], [2, 2], [3, 1]]


def test_a_lane_of_a_small_rate_comes_in_its_turn():
    counts = np.array(batches(Quotas([99, 1], [MANY] * 2), 10, 20))
    assert counts.sum(0).tolist() == [198, 2]
    assert np.flatnonzero(counts[:, 1]).tolist() == [4, 14]


@given(rates=rates_strategy, sizes=st.lists(st.integers(1, 50), min_size=1, max_size=60))
def test_no_lane_is_ever_more_than_one_event_away_from_its_share(rates, sizes):
    quotas = Quotas(rates, [MANY] * len(rates))
    share = np.array(rates) / sum(rates)
    delivered = np.zeros(len(rates))
    for size in sizes:
        counts = quotas.next(size)
        assert sum(counts) == size
        assert min(counts) >= 0
        delivered += counts
        assert np.abs(delivered - delivered.sum() * share).max() <= 1 + 1e-6


@given(
    lanes=st.lists(st.tuples(st.floats(0.01, 100.0), st.integers(0, 60)), min_size=1, max_size=6),
    size=st.integers(1, 40),
    composition=st.sampled_from(["exact", "random"]),
)
@example(lanes=[(6.0, 2), (6.0, 1), (2.0, 3), (2.0, 1)], size=4, composition="exact")
@example(lanes=[(3.0, 1), (3.0, 1), (2.0, 8), (3.0, 4)], size=1, composition="exact")
def test_draining_delivers_every_event_of_every_lane_in_full_batches(lanes, size, composition):
    rates, sizes = zip(*lanes, strict=True)
    quotas = Quotas(rates, sizes, composition=composition, seed=1)
    counts = np.array(batches(quotas, size, -(-sum(sizes) // size) + 1))
    assert counts.sum(0).tolist() == list(sizes)
    full, rest = divmod(sum(sizes), size)
    assert counts.sum(1).tolist() == [size] * full + ([rest, 0] if rest else [0])


def test_a_drained_lane_leaves_its_places_to_the_others_by_their_rates():
    quotas = Quotas([1, 2, 1], [4, MANY, MANY])
    assert batches(quotas, 12, 3) == [[3, 6, 3], [1, 7, 4], [0, 8, 4]]


def test_stopping_ends_with_the_first_lane_that_can_not_fill_its_share():
    quotas = Quotas([1, 1], [7, 100], exhausted="stop")
    assert batches(quotas, 6, 4) == [[3, 3], [3, 3], [0, 0], [0, 0]]


def test_stopping_ends_where_a_lane_is_used_up_exactly():
    quotas = Quotas([1, 1], [6, 100], exhausted="stop")
    assert batches(quotas, 6, 4) == [[3, 3], [3, 3], [0, 0], [0, 0]]


@pytest.mark.parametrize("exhausted", ["drain", "stop", "wrap"])
def test_a_lane_without_events_has_no_share(exhausted):
    assert Quotas([1, 1, 1], [10, 0, 10], exhausted=exhausted).next(4) == [2, 0, 2]


def test_wrapping_never_ends():
    quotas = Quotas([1, 1], [3, 100], exhausted="wrap")
    assert batches(quotas, 6, 4) == [[3, 3]] * 4


def test_random_shares_have_the_means_of_the_rates_and_repeat_with_their_seed():
    def counts(seed, epoch=0):
        quotas = Quotas([3, 1], [MANY] * 2, composition="random", seed=seed, epoch=epoch)
        return np.array(batches(quotas, 100, 400))

    first = counts(1)
    assert (first.sum(1) == 100).all()
    assert first.mean(0) == pytest.approx([75, 25], abs=1)  # 4.6 standard deviations of the mean
    assert first.std(0) == pytest.approx([4.33, 4.33], abs=0.6)
    assert (counts(1) == first).all()
    assert (counts(2) != first).any()
    assert (counts(1, epoch=1) != first).any()
