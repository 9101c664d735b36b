"""Kernel maps as an equation, both ways: every pair satisfies it, and every solution is in the map."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hepfeed.errors import ProcessError, SpecError
from hepfeed.kernel_map import build_kernel_map
from hepfeed.reference import kernel_map as reference


def sites(rng, shape, events, occupancy):
    return np.argwhere(rng.random((events, *shape)) < occupancy).astype(np.int32)


def pairs_of(made):
    """(tap, input row, output row) of every pair."""
    tap = np.repeat(np.arange(len(made.starts) - 1), np.diff(made.starts))
    return list(zip(tap.tolist(), *made.pairs.tolist(), strict=True))


def solutions(indices, made):
    """All that satisfies ``i = o * stride - padding + k * dilation``, by trying."""
    taps = list(itertools.product(*map(range, made.kernel_size)))
    inputs = {tuple(site): row for row, site in enumerate(indices.tolist())}
    found = []
    for k, tap in enumerate(taps):
        for row, (event, *place) in enumerate(made.indices.tolist()):
            wanted = [
                o * s - p + t * d
                for o, s, p, t, d in zip(place, made.stride, made.padding, tap, made.dilation, strict=True)
            ]
            if (event, *wanted) in inputs:
                found.append((k, inputs[(event, *wanted)], row))
    return found


def assert_is_the_map(indices, shape, events, made):
    assert pairs_of(made) == solutions(indices, made)
    assert made.pairs.dtype == made.indices.dtype == np.int32
    assert made.starts.dtype == np.int64
    assert made.starts[0] == 0
    assert made.starts[-1] == made.pairs.shape[1]
    if made.submanifold:
        assert np.array_equal(made.indices, indices)
        assert made.spatial_shape == tuple(shape)
        return
    # Every place of the output grid that some input reaches is an output, and no other.
    reached = set()
    inputs = [tuple(site) for site in indices.tolist()]
    for event, *place in inputs:
        for tap in itertools.product(*map(range, made.kernel_size)):
            out = [x + p - t * d for x, p, t, d in zip(place, made.padding, tap, made.dilation, strict=True)]
            if all(
                o % s == 0 and 0 <= o // s < n for o, s, n in zip(out, made.stride, made.spatial_shape, strict=True)
            ):
                reached.add((event, *(o // s for o, s in zip(out, made.stride, strict=True))))
    assert [tuple(site) for site in made.indices.tolist()] == sorted(reached)


CONVOLUTIONS = [
    {"kernel_size": 1},
    {"kernel_size": 3, "submanifold": True},
    {"kernel_size": 5, "submanifold": True},
    {"kernel_size": 3, "submanifold": True, "dilation": 2},
    {"kernel_size": 2, "stride": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 4, "stride": 3, "padding": 2},
    {"kernel_size": 3, "dilation": 2, "padding": 2},
    {"kernel_size": 2, "stride": 3},
    {"kernel_size": 1, "stride": 2, "padding": 3},
]


def test_a_submanifold_map_of_three_sites_in_a_row():
    indices = np.array([[0, 1], [0, 2], [0, 4]], np.int32)
    made = build_kernel_map(indices, (5,), 1, 3, submanifold=True)
    # Tap 0 is the site before, tap 1 the site itself, tap 2 the site behind.
    assert made.pairs.tolist() == [[0, 0, 1, 2, 1], [1, 0, 1, 2, 0]]
    assert made.starts.tolist() == [0, 1, 4, 5]
    assert (made.padding, made.stride, made.dilation, made.kernel_size) == ((1,), (1,), (1,), (3,))


def test_a_strided_map_of_a_row_merges_pairs_of_sites():
    indices = np.array([[0, 0], [0, 1], [0, 5], [1, 2]], np.int32)
    made = build_kernel_map(indices, (6,), 3, 2, stride=2)
    assert made.indices.tolist() == [[0, 0], [0, 2], [1, 1]]
    assert made.pairs.tolist() == [[0, 3, 1, 2], [0, 2, 0, 1]]
    assert made.starts.tolist() == [0, 2, 4]
    assert made.spatial_shape == (3,)


def test_sites_at_opposite_borders_and_of_other_events_are_no_neighbours():
    indices = np.array([[0, 0, 3], [0, 1, 0], [0, 3, 3], [1, 0, 0]], np.int32)
    made = build_kernel_map(indices, (4, 4), 2, 3, submanifold=True)
    assert pairs_of(made) == [(4, row, row) for row in range(4)]


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("shape", [(13,), (7, 8), (5, 6, 7), (5, 3, 4, 5)])
@pytest.mark.parametrize("occupancy", [0.0, 0.15, 1.0])
def test_every_pair_satisfies_the_equation_and_every_solution_is_a_pair(options, shape, occupancy):
    events = 1 if len(shape) == 4 else 3
    reach = (options["kernel_size"] - 1) * options.get("dilation", 1)
    if not options.get("submanifold") and reach >= min(shape) + 2 * options.get("padding", 0):
        with pytest.raises(SpecError, match="does not fit the shape"):
            build_kernel_map(np.zeros((0, 1 + len(shape)), np.int32), shape, events, **options)
        return
    if len(shape) == 4 and (occupancy == 1.0 or options["kernel_size"] > 3):
        occupancy = 0.05  # the trial of all pairs is slow
    indices = sites(np.random.default_rng(0), shape, events, occupancy)
    made = build_kernel_map(indices, shape, events, **options)
    assert_is_the_map(indices, shape, events, made)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.integers(0, 3),
    st.integers(0, 2**31),
)
def test_axes_of_different_options_satisfy_the_equation(shape, kernel, stride, padding, dilation, events, seed):
    indices = sites(np.random.default_rng(seed), shape, events, 0.3)
    if any(n + 2 * p < d * (k - 1) + 1 for n, p, d, k in zip(shape, padding, dilation, kernel, strict=True)):
        with pytest.raises(SpecError, match="does not fit the shape"):
            build_kernel_map(indices, shape, events, kernel, stride, padding, dilation)
        return
    made = build_kernel_map(indices, shape, events, kernel, stride, padding, dilation)
    assert_is_the_map(indices, shape, events, made)
    odd = tuple(k + 1 - k % 2 for k in kernel)
    made = build_kernel_map(indices, shape, events, odd, dilation=dilation, submanifold=True)
    assert_is_the_map(indices, shape, events, made)


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("side", [24, 900])
def test_maps_of_many_sites_equal_their_twin(options, side):
    """The larger grid has too many cells for a bit each, so that outputs are sorted."""
    rng = np.random.default_rng(1)
    walk = np.cumsum(rng.integers(-1, 2, (3, 1500, 3)), axis=1) % side
    event = np.repeat([0, 1, 3], 1500)[:, None]
    indices = np.unique(np.concatenate([event, walk.reshape(-1, 3)], axis=1), axis=0).astype(np.int32)
    made = build_kernel_map(indices, (side,) * 3, 5, **options)
    expected = reference.build_kernel_map(
        indices, (side,) * 3, 5, made.kernel_size, made.stride, made.padding, made.dilation, made.submanifold
    )
    for array, twin in zip((made.pairs, made.starts, made.indices), expected, strict=True):
        assert array.dtype == twin.dtype
        np.testing.assert_array_equal(array, twin)


@pytest.mark.parametrize("events", [0, 1, 3])
def test_images_without_sites_have_maps_without_pairs(events):
    for submanifold in (False, True):
        made = build_kernel_map(np.zeros((0, 4), np.int32), (8, 8, 8), events, 3, submanifold=submanifold)
        assert made.pairs.shape == (2, 0)
        assert made.starts.tolist() == [0] * 28
        assert made.indices.shape == (0, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_size": 0}, "kernel_size must be an integer of 1 or more"),
        ({"kernel_size": (3, 3, 3)}, "one for each of 2 axes"),
        ({"kernel_size": 3.0}, "kernel_size must be"),
        ({"kernel_size": 3, "stride": 0}, "stride must be"),
        ({"kernel_size": 3, "padding": -1}, "padding must be"),
        ({"kernel_size": 3, "dilation": 0}, "dilation must be"),
        ({"kernel_size": 9}, "does not fit the shape"),
        ({"kernel_size": 2000}, "up to 1024 taps"),
        ({"kernel_size": 2, "submanifold": True}, "odd kernels and stride 1"),
        ({"kernel_size": 3, "stride": 2, "submanifold": True}, "odd kernels and stride 1"),
        ({"kernel_size": 3, "padding": 2, "submanifold": True}, r"has padding \(1, 1\), not \(2, 2\)"),
    ],
)
def test_options_of_no_convolution_are_refused(options, message):
    with pytest.raises(SpecError, match=message):
        build_kernel_map(np.zeros((0, 3), np.int32), (8, 8), 1, **options)


def test_sites_that_are_outside_unsorted_or_twice_are_refused():
    for rows, message in (
        ([[0, 1, 1], [0, 1, 0]], r"row 1, \[0, 1, 0\], comes after \[0, 1, 1\]"),
        ([[0, 1, 1], [0, 1, 1]], "sorted by .* and unique"),
        ([[1, 0, 0], [0, 1, 1]], "sorted by .* and unique"),
        ([[0, 1, 8]], "row 0 is outside of 2 images"),
        ([[0, 0, 0], [2, 0, 0]], "row 1 is outside of 2 images"),
        ([[0, -1, 0]], "outside"),
    ):
        with pytest.raises(ProcessError, match=message):
            build_kernel_map(np.array(rows, np.int32), (8, 8), 2, 3)
    with pytest.raises(SpecError, match=r"indices \(N, 3\)"):
        build_kernel_map(np.zeros((1, 2), np.int32), (8, 8), 2, 3)
    with pytest.raises(SpecError, match="up to 1048576 cells"):
        build_kernel_map(np.zeros((0, 2), np.int32), (2**21,), 2, 3)
