"""Random numbers of events: the definition, and what they do not depend on."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hepfeed.draws import Draws
from hepfeed.errors import SpecError
from hepfeed.reference import images as reference

EVENTS = np.array([[0, 0], [0, 1], [3, 2**40], [7, 12], [0, 5]], np.int64)


def draws(seed=11, epoch=4, step=2):
    return Draws(seed, epoch, 0, EVENTS, step)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**31), st.integers(0, 2**40), st.integers(0, 41))
@settings(max_examples=40, deadline=None)
def test_the_words_are_those_of_numpys_philox(seed, epoch, step, count):
    some = draws(seed, epoch, step)
    made = some.raw(count)
    assert made.dtype == np.uint64
    np.testing.assert_array_equal(made, reference.raw(some, count))


def test_the_words_of_one_event_are_those_that_the_docstring_says():
    expected = np.random.Philox(key=[11, 2], counter=[0, 2**40, 3, 4]).random_raw(6)
    np.testing.assert_array_equal(draws().raw(6)[2], expected)


def test_a_negative_seed_counts_modulo_two_to_the_64():
    np.testing.assert_array_equal(draws(-1).raw(3), draws(2**64 - 1).raw(3))


def test_uniform_numbers_are_their_twin_and_within_their_bounds():
    np.testing.assert_array_equal(draws().uniform(101), reference.uniform(draws(), 101))
    scaled = draws().uniform(1000, -2.0, 3.0)
    np.testing.assert_array_equal(scaled, -2.0 + 5.0 * reference.uniform(draws(), 1000))
    assert scaled.min() >= -2
    assert scaled.max() < 3


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 255, 256, 257, 1001])
def test_normal_numbers_are_their_twin(count):
    np.testing.assert_allclose(draws().normal(count), reference.normal(draws(), count), rtol=1e-13, atol=1e-15)


def test_normal_numbers_have_mean_zero_and_variance_one_and_no_correlation():
    made = draws().normal(100_000)
    assert abs(made.mean()) < 5 / math.sqrt(made.size)
    assert abs(made.var() - 1) < 5 * math.sqrt(2 / made.size)
    assert abs(np.mean(made[:, 0::2] * made[:, 1::2])) < 5 / math.sqrt(made.size / 2)
    assert abs(np.mean(made**4) - 3) < 5 * math.sqrt(96 / made.size)


@pytest.mark.parametrize("method", ["raw", "uniform", "normal"])
def test_the_first_numbers_do_not_depend_on_how_many_are_drawn(method):
    longest = getattr(draws(), method)(600)
    for count in (1, 2, 3, 7, 256, 300):
        np.testing.assert_array_equal(getattr(draws(), method)(count), longest[:, :count])


@pytest.mark.parametrize("method", ["raw", "uniform", "normal"])
def test_jagged_numbers_are_the_first_of_each_event(method):
    offsets = np.array([0, 3, 3, 303, 304, 310])
    flat = getattr(draws(), f"{method}_jagged")(offsets)
    rows = getattr(draws(), method)(300)
    for row, start, stop in zip(rows, offsets[:-1], offsets[1:]):
        np.testing.assert_array_equal(flat[start:stop], row[: stop - start])


def test_numbers_follow_their_events():
    chosen = np.array([3, 0, 3])
    np.testing.assert_array_equal(draws().take(chosen).normal(9), draws().normal(9)[chosen])


@pytest.mark.parametrize("change", [{"seed": 12}, {"epoch": 5}, {"step": 3}])
def test_other_seeds_epochs_and_steps_give_other_numbers(change):
    assert not (replace(draws(), **change).raw(8) == draws().raw(8)).any()


def test_the_place_of_the_batch_does_not_count():
    np.testing.assert_array_equal(replace(draws(), batch=9).raw(8), draws().raw(8))


def test_the_parts_of_a_step_have_numbers_of_their_own():
    assert draws().part(0) == draws()
    made = [draws().part(number).raw(4) for number in range(3)] + [draws().at(3).raw(4)]
    assert len(np.unique(np.concatenate(made))) == 4 * 5 * 4
    np.testing.assert_array_equal(draws().part(5).part(1).raw(4), draws().part(1).raw(4))


def test_integers_are_within_their_bounds_and_reach_them():
    made = draws().integers(2000, -2, 3)
    assert set(made.ravel()) == {-2, -1, 0, 1, 2}
    low = np.arange(5)[:, None]
    each = draws().integers(50, low, low + 1)
    np.testing.assert_array_equal(each, np.broadcast_to(low, (5, 50)))


@pytest.mark.parametrize(("low", "high"), [(3, 3), (4, 3), (0, 2**53)])
def test_integers_of_no_or_too_many_numbers_are_refused(low, high):
    with pytest.raises(SpecError, match="drawn from 1 to 2\\^53 - 1 numbers"):
        draws().integers(2, low, high)


def test_no_events_draw_nothing():
    none = draws().take(np.zeros(0, np.int64))
    for method in ("raw", "uniform", "normal"):
        assert getattr(none, method)(5).shape == (0, 5)
    assert none.integers(5, 0, 2).shape == (0, 5)
