"""Sets of sites against their twin: sorted, merged, looked up."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hepfeed import _sites
from hepfeed.errors import ProcessError, SpecError
from hepfeed.reference import sites as reference
from hepfeed.sites import check_grid, find_sites, merge_sites, sort_sites, unique_sites

SHAPES = [(60000,), (300, 200), (40, 40, 40), (15, 16, 17, 18), (8, 9, 7, 6, 9), (2**20, 2**20, 2**20)]
EVENTS = 4


def drawn(rng, shape, rows):
    """Sites in no order, some of them equal."""
    return rng.integers(0, [EVENTS, *shape], (rows, 1 + len(shape))).astype(np.int32)


def distinct(rng, shape, rows):
    return rng.permutation(np.unique(drawn(rng, shape, rows), axis=0))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rows", [0, 1, 2, 150, 33_000])
def test_sites_in_no_order_are_sorted_as_by_their_twin(shape, rows):
    indices = distinct(np.random.default_rng(0), shape, rows)
    order = sort_sites(indices, shape, EVENTS)
    assert order.dtype == np.int32
    expected = reference.sort_sites(indices)
    np.testing.assert_array_equal(order if len(order) else np.arange(len(indices)), expected)
    for threads in (2, 3):
        np.testing.assert_array_equal(sort_sites(indices, shape, EVENTS, threads), order)
    # Sorted sites need no order.
    assert sort_sites(indices[expected], shape, EVENTS).shape == (0,)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rows", [0, 1, 2, 150, 17_000])
def test_equal_sites_are_merged_as_by_their_twin(shape, rows):
    rng = np.random.default_rng(1)
    indices = np.concatenate([drawn(rng, shape, rows)] * 2)
    indices = indices[rng.permutation(len(indices))]
    expected, expected_rows = reference.unique_sites(indices)
    for threads in (1, 2, 3):
        sites, row_of = unique_sites(indices, shape, EVENTS, threads)
        assert sites.dtype == row_of.dtype == np.int32
        np.testing.assert_array_equal(sites, expected)
        np.testing.assert_array_equal(row_of, expected_rows)
    again, row_of = unique_sites(sites, shape, EVENTS)
    assert np.shares_memory(again, sites) or not rows
    assert row_of.tolist() == list(range(len(sites)))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rows", [0, 1, 2, 150, 17_000])
@pytest.mark.parametrize("is_sorted", [False, True])
def test_sites_are_found_as_by_their_twin(shape, rows, is_sorted):
    rng = np.random.default_rng(2)
    indices = distinct(rng, shape, rows)
    if is_sorted:
        indices = indices[reference.sort_sites(indices)]
    order = sort_sites(indices, shape, EVENTS)
    near = rng.permutation(np.repeat(indices, 2, axis=0))
    near[:, -1] += rng.integers(-1, 2, len(near), np.int32)
    queries = np.concatenate([near, drawn(rng, shape, 50), np.full((1, 1 + len(shape)), -(2**31), np.int32)])
    expected = reference.find_sites(indices, queries)
    for threads in (1, 2, 3):
        found = find_sites(indices, order, queries, shape, EVENTS, threads)
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(
        find_sites(indices, order, indices[::-1], shape, EVENTS), np.arange(len(indices))[::-1]
    )


def test_sets_of_sites_are_united():
    one = np.array([[0, 3], [0, 1], [1, 0]], np.int32)
    other = np.array([[0, 2], [0, 3]], np.int32)
    none = np.empty((0, 2), np.int32)
    union, rows = merge_sites([one, none, other], (4,), 2)
    assert union.tolist() == [[0, 1], [0, 2], [0, 3], [1, 0]]
    assert [each.tolist() for each in rows] == [[2, 0, 3], [], [1, 2]]
    union, rows = merge_sites([], (4,), 2)
    assert (union.shape, rows) == ((0, 2), [])


def test_two_equal_sites_are_named_with_their_rows():
    indices = np.array([[0, 5], [1, 2], [0, 1], [1, 2]], np.int32)
    with pytest.raises(ProcessError, match=r"rows 1 and 3 are both \[1, 2\]"):
        sort_sites(indices, (6,), 2)
    with pytest.raises(ProcessError, match=r"rows 0 and 1 are both \[0, 0\]"):
        sort_sites(np.zeros((2, 2), np.int32), (6,), 2)


@pytest.mark.parametrize("site", [[2, 0, 0], [-1, 0, 0], [0, 3, 0], [0, -1, 0], [0, 0, 4], [0, 0, -(2**31)]])
def test_a_site_outside_is_named_with_its_row(site):
    indices = np.array([[0, 0, 0], [1, 2, 3], [0, 1, 1]], np.int32)
    for row in range(3):
        wrong = indices.copy()
        wrong[row] = site
        with pytest.raises(ProcessError, match=rf"in row {row} is outside of 2 images of \(3, 4\)") as error:
            sort_sites(wrong, (3, 4), 2)
        assert str(site) in str(error.value)
        with pytest.raises(ProcessError, match=f"in row {row} is outside"):
            unique_sites(wrong, (3, 4), 2)
    with pytest.raises(ProcessError, match="in row 4 is outside"):
        merge_sites([indices, np.array([[0, 0, 0], site], np.int32)], (3, 4), 2)


@pytest.mark.parametrize(
    ("shape", "events", "message"),
    [
        ((), 1, "1 to 16 axes"),
        ((2,) * 17, 1, "1 to 16 axes"),
        ((0, 3), 1, "1 to 2.31 - 1 cells"),
        ((2**31, 3), 1, "1 to 2.31 - 1 cells"),
        ((3, 2.5), 1, "must be integers"),
        ((3, 3), -1, "batch_size must be 0"),
        ((3, 3), 2**31, "batch_size must be 0"),
        ((3, 3), 1.0, "must be integers"),
        ((2**31 - 1, 2**31 - 1), 2, r"up to 2\^62 places, and 2 grids of \(2147483647, 2147483647\)"),
    ],
)
def test_batches_that_are_no_grids_are_refused(shape, events, message):
    with pytest.raises(SpecError, match=message):
        check_grid(shape, events)
    with pytest.raises(SpecError, match=message):
        sort_sites(np.zeros((0, 1 + len(shape)), np.int32), shape, events)


def test_places_may_fill_the_bits_to_the_last():
    shape = (2**31 - 1, 2**31 - 1)
    indices = np.array([[0, 2**31 - 2, 2**31 - 2], [0, 0, 0], [0, 2**31 - 2, 0]], np.int32)
    order = sort_sites(indices, shape, 1)
    assert order.tolist() == [1, 2, 0]
    assert find_sites(indices, order, indices, shape, 1).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        (np.zeros((3, 2), np.int32), r"indices \(N, 3\) of integers were expected for a shape of 2 axes, not \(3, 2\)"),
        (np.zeros(3, np.int32), r"not \(3,\)"),
        (np.zeros((3, 3)), "float64"),
        (np.full((3, 3), 2**31), "must fit int32, and are 2147483648"),
        (np.full((3, 3), 2**63, np.uint64), "must fit int32"),
    ],
)
def test_indices_that_are_no_sites_are_refused(indices, message):
    with pytest.raises(SpecError, match=message):
        sort_sites(indices, (4, 4), 1)
    with pytest.raises(SpecError, match="queries"):
        find_sites(np.zeros((0, 3), np.int32), np.zeros(0, np.int32), indices, (4, 4), 1)
    with pytest.raises(SpecError, match=r"parts\[1\]"):
        merge_sites([np.zeros((0, 3), np.int32), indices], (4, 4), 1)


def test_sites_of_other_integers_are_taken():
    indices = np.array([[0, 3], [0, 1]])
    assert sort_sites(indices, (4,), 1).tolist() == sort_sites(indices.astype(np.uint8), (4,), 1).tolist() == [1, 0]
    assert sort_sites(np.asfortranarray(indices.astype(np.int32)), (4,), 1).tolist() == [1, 0]


def test_an_order_of_other_sites_is_refused():
    indices = np.array([[0, 3], [0, 1]], np.int32)
    with pytest.raises(ValueError, match="in order and unique"):
        find_sites(indices, np.array([0, 1], np.int32), indices, (4,), 1)
    with pytest.raises(SpecError, match=r"order must be \(0,\) or \(2,\) int32"):
        find_sites(indices, np.array([0], np.int32), indices, (4,), 1)


ARRAYS = st.tuples(
    st.lists(st.integers(0, 4), min_size=1, max_size=3),
    st.sampled_from([np.int32, np.int32, np.int64, np.float32]),
    st.sampled_from([1, 5, 2**31 - 1]),
    st.booleans(),
)


@settings(max_examples=100, deadline=None)
@given(
    ARRAYS,
    ARRAYS,
    ARRAYS,
    st.lists(st.sampled_from([0, -1, 1, 3, 5, 2**20, 2**31 - 1, 2**40]), max_size=3),
    st.sampled_from([-1, 0, 1, 3, 2**31 - 1, 2**31, 2**62]),
    st.integers(-1, 3),
    st.integers(0, 2**31),
)
def test_any_arguments_of_the_kernels_give_a_result_or_an_error(indices, order, queries, shape, events, threads, seed):
    rng = np.random.default_rng(seed)

    def made(array):
        extents, dtype, most, reverse = array
        values = rng.integers(-1, most, extents).astype(dtype)
        return values[::-1] if reverse else values

    arrays = [made(array) for array in (indices, order, queries)]
    for name, given_arrays in (("sort_sites", 1), ("unique_sites", 1), ("find_sites", 3)):
        try:
            found = getattr(_sites, name)(*arrays[:given_arrays], shape, events, threads)
        except (TypeError, ValueError):
            continue
        rows = len(arrays[0])
        if name == "find_sites":
            assert ((found >= -1) & (found < rows)).all()
        elif name == "sort_sites":
            assert found[1] < rows
            assert sorted(found[0].tolist()) in ([], list(range(rows)))
        elif found[2] < 0:
            assert np.array_equal(found[0][found[1]], arrays[0])
