"""Kernel maps as an equation, both ways: every pair satisfies it, and every solution is in the map."""

import functools
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hepfeed import _sites
from hepfeed.errors import ProcessError, SpecError
from hepfeed.kernel_map import build_kernel_map, check_convolution, output_shape
from hepfeed.reference import kernel_map as reference
from hepfeed.sites import sort_sites


def sites(rng, shape, events, occupancy):
    return np.argwhere(rng.random((events, *shape)) < occupancy).astype(np.int32)


def pairs_of(made):
    """(tap, input row, output row) of every pair."""
    tap = np.repeat(np.arange(len(made.offsets) - 1), np.diff(made.offsets))
    return list(zip(tap.tolist(), made.in_maps.tolist(), made.out_maps.tolist(), strict=True))


def moved(place, tap, made):
    """Where a tap takes the coordinates of an input, or None."""
    axes = zip(place, tap, made.stride, made.padding, made.dilation, strict=True)
    if made.transposed:
        out = [i * s - p + k * d for i, k, s, p, d in axes]
    else:
        scaled = [(i + p - k * d, s) for i, k, s, p, d in axes]
        if any(x % s for x, s in scaled):
            return None
        out = [x // s for x, s in scaled]
    return tuple(out) if all(0 <= o < n for o, n in zip(out, made.spatial_shape, strict=True)) else None


def solutions(indices, made):
    """All that satisfies the equation of the map, by trying."""
    outputs = {tuple(site): row for row, site in enumerate(made.indices.tolist())}
    found = []
    for k, tap in enumerate(itertools.product(*map(range, made.kernel_size))):
        reached = [
            (row, (event, *(moved(place, tap, made) or ()))) for row, (event, *place) in enumerate(indices.tolist())
        ]
        found += sorted(((k, row, outputs[site]) for row, site in reached if site in outputs), key=lambda it: it[2])
    return found


def assert_is_the_map(indices, shape, made):
    pairs = pairs_of(made)
    assert pairs == solutions(indices, made)
    assert {array.dtype for array in (made.in_maps, made.out_maps, made.back_in, made.back_out, made.indices)} == {
        np.dtype(np.int32)
    }
    assert made.offsets.dtype == np.int64
    assert (made.offsets[0], made.offsets[-1]) == (0, len(made.in_maps))
    if made.submanifold:
        assert np.array_equal(made.indices, indices)
        assert made.spatial_shape == tuple(shape)
    else:  # Every place of the output grid that some input reaches is an output, and no other.
        taps = list(itertools.product(*map(range, made.kernel_size)))
        reached = {(event, moved(place, tap, made)) for event, *place in indices.tolist() for tap in taps}
        reached = {(event, *place) for event, place in reached if place}
        assert [tuple(site) for site in made.indices.tolist()] == sorted(reached)
    # The same pairs swapped, whose output rows rise.
    back_in, back_out = made.swapped_pairs()
    taps = np.repeat(np.arange(len(made.offsets) - 1), np.diff(made.offsets))
    back = list(zip(taps.tolist(), back_out.tolist(), back_in.tolist(), strict=True))
    assert back == sorted(pairs)


def assert_same(one, other):
    for name, array in one.arrays().items():
        np.testing.assert_array_equal(array, other.arrays()[name], err_msg=name)


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
    {"kernel_size": 2, "stride": 2, "transposed": True},
    {"kernel_size": 3, "stride": 2, "padding": 1, "transposed": True},
    {"kernel_size": 3, "stride": 3, "dilation": 2, "padding": 2, "transposed": True},
    {"kernel_size": 3, "transposed": True},
]


def test_a_submanifold_map_of_three_sites_in_a_row():
    indices = np.array([[0, 1], [0, 2], [0, 4]], np.int32)
    made = build_kernel_map(indices, (5,), 1, 3, submanifold=True)
    # Tap 0 is the site before, tap 1 the site itself, tap 2 the site behind.
    assert (made.in_maps.tolist(), made.out_maps.tolist()) == ([0, 0, 1, 2, 1], [1, 0, 1, 2, 0])
    assert made.offsets.tolist() == [0, 1, 4, 5]
    assert len(made.back_in) == len(made.back_out) == 0
    assert (made.padding, made.stride, made.dilation, made.kernel_size) == ((1,), (1,), (1,), (3,))


def test_a_strided_map_of_a_row_merges_pairs_of_sites():
    indices = np.array([[0, 0], [0, 1], [0, 5], [1, 2]], np.int32)
    made = build_kernel_map(indices, (6,), 3, 2, stride=2)
    assert made.indices.tolist() == [[0, 0], [0, 2], [1, 1]]
    assert (made.in_maps.tolist(), made.out_maps.tolist()) == ([0, 3, 1, 2], [0, 2, 0, 1])
    assert made.offsets.tolist() == [0, 2, 4]
    assert made.spatial_shape == (3,)


def test_a_transposed_map_of_a_row_spreads_its_sites():
    indices = np.array([[0, 2], [0, 1]], np.int32)
    made = build_kernel_map(indices, (3,), 1, 3, stride=2, transposed=True)
    assert made.spatial_shape == (7,)
    assert made.indices.tolist() == [[0, 2], [0, 3], [0, 4], [0, 5], [0, 6]]
    assert pairs_of(made) == [(0, 1, 0), (0, 0, 2), (1, 1, 1), (1, 0, 3), (2, 1, 2), (2, 0, 4)]
    assert (made.back_in.tolist(), made.back_out.tolist()) == ([2, 0, 3, 1, 4, 2], [0, 1, 0, 1, 0, 1])


def test_a_transposed_convolution_has_the_pairs_of_its_convolution_the_other_way_round():
    indices = sites(np.random.default_rng(3), (6, 7), 2, 0.3)
    down = build_kernel_map(indices, (6, 7), 2, (2, 3), 2, (0, 1))
    up = build_kernel_map(down.indices, down.spatial_shape, 2, (2, 3), 2, (0, 1), transposed=True)
    assert up.spatial_shape == (6, 7)
    place = {tuple(site): row for row, site in enumerate(indices.tolist())}
    back = [(k, o, place.get(tuple(up.indices[i].tolist()))) for k, o, i in pairs_of(up)]
    assert sorted((k, i, o) for k, o, i in back if i is not None) == sorted(pairs_of(down))


def test_rows_keep_the_numbers_that_they_came_with():
    rng = np.random.default_rng(2)
    indices = sites(rng, (6, 5), 3, 0.4)
    mixed = rng.permutation(len(indices))
    for options in ({"kernel_size": 3, "submanifold": True}, {"kernel_size": 3, "stride": 2, "padding": 1}):
        tidy = build_kernel_map(indices, (6, 5), 3, **options)
        made = build_kernel_map(indices[mixed], (6, 5), 3, **options)
        out = mixed if "submanifold" in options else np.arange(len(tidy.indices))
        assert sorted((k, mixed[i], out[o]) for k, i, o in pairs_of(made)) == sorted(pairs_of(tidy))
        given = build_kernel_map(indices[mixed], (6, 5), 3, order=sort_sites(indices[mixed], (6, 5), 3), **options)
        assert_same(given, made)


def test_sites_at_opposite_borders_and_of_other_events_are_no_neighbours():
    indices = np.array([[0, 0, 3], [0, 1, 0], [0, 3, 3], [1, 0, 0]], np.int32)
    made = build_kernel_map(indices, (4, 4), 2, 3, submanifold=True)
    assert pairs_of(made) == [(4, row, row) for row in range(4)]


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("shape", [(13,), (7, 8), (5, 6, 7), (5, 3, 4, 5), (2, 3, 2, 2, 3)])
@pytest.mark.parametrize("occupancy", [0.0, 0.15, 1.0])
@pytest.mark.parametrize("mixed", [False, True])
def test_every_pair_satisfies_the_equation_and_every_solution_is_a_pair(options, shape, occupancy, mixed):
    events = 1 if len(shape) > 3 else 3
    reach = (options["kernel_size"] - 1) * options.get("dilation", 1)
    dense = not options.get("submanifold") and not options.get("transposed")
    if dense and reach >= min(shape) + 2 * options.get("padding", 0):
        with pytest.raises(SpecError, match="does not fit the shape"):
            build_kernel_map(np.zeros((0, 1 + len(shape)), np.int32), shape, events, **options)
        return
    if len(shape) > 2:
        occupancy = min(occupancy, 0.05 if len(shape) > 3 else 0.3)  # the trial of all pairs is slow
    rng = np.random.default_rng(0)
    indices = sites(rng, shape, events, occupancy)
    if mixed:
        indices = indices[rng.permutation(len(indices))]
    assert_is_the_map(indices, shape, build_kernel_map(indices, shape, events, **options))


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 8), st.integers(1, 4)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.integers(0, 3),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_axes_of_different_options_satisfy_the_equation(
    shape, kernel, stride, padding, dilation, events, transposed, seed
):
    rng = np.random.default_rng(seed)
    indices = rng.permuted(sites(rng, shape, events, 0.3), axis=0)
    try:
        out = output_shape(shape, kernel, stride, padding, dilation, transposed)
    except SpecError:
        with pytest.raises(SpecError, match="does not fit the shape"):
            build_kernel_map(indices, shape, events, kernel, stride, padding, dilation, transposed=transposed)
        return
    indices = np.unique(indices % np.array([max(events, 1), *shape], np.int32), axis=0)
    indices = indices[rng.permutation(len(indices))]
    made = build_kernel_map(indices, shape, events, kernel, stride, padding, dilation, transposed=transposed)
    assert made.spatial_shape == out
    assert_is_the_map(indices, shape, made)
    odd = tuple(k + 1 - k % 2 for k in kernel)
    made = build_kernel_map(indices, shape, events, odd, dilation=dilation, submanifold=True)
    assert_is_the_map(indices, shape, made)


def walks(side):
    """Sites of three events of five along random walks, sorted."""
    walk = np.cumsum(np.random.default_rng(1).integers(-1, 2, (3, 3000, 3)), axis=1) % side
    event = np.repeat([0, 1, 3], 3000)[:, None]
    return np.unique(np.concatenate([event, walk.reshape(-1, 3)], axis=1), axis=0).astype(np.int32)


@functools.cache
def sites_and_twin(mixed, **options):
    """Many sites, and what the twin makes of them."""
    indices, shape = walks(90), (90, 90, 90)
    if mixed:
        indices = indices[np.random.default_rng(2).permutation(len(indices))]
    given = {"stride": 1, "padding": 0, "dilation": 1, "submanifold": False, "transposed": False, **options}
    submanifold, transposed = given.pop("submanifold"), given.pop("transposed")
    sizes = check_convolution(3, **given, submanifold=submanifold, transposed=transposed)
    out = output_shape(shape, *sizes, transposed)
    return indices, shape, reference.build_kernel_map(indices, shape, out, 5, *sizes, submanifold, transposed)


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("mixed", [False, True])
def test_maps_of_many_sites_equal_their_twin_for_any_number_of_threads(options, mixed, isa, instruction_set):
    instruction_set(isa)
    indices, shape, expected = sites_and_twin(mixed, **options)
    made = build_kernel_map(indices, shape, 5, **options)
    pairs = (made.in_maps, made.out_maps, made.offsets, *made.swapped_pairs(), made.indices)
    for array, twin in zip(pairs, expected, strict=True):
        assert array.dtype == twin.dtype
        np.testing.assert_array_equal(array, twin)
    assert len(made.back_in) == len(made.back_out) == (len(made.in_maps) if mixed else 0)
    for threads in (2, 3):
        assert_same(build_kernel_map(indices, shape, 5, **options, threads=threads), made)


@pytest.fixture
def instruction_set():
    """A function that restricts the kernels to an instruction set, for one test."""
    before = _sites.isa()

    def restrict(name):
        try:
            _sites.set_isa(name)
        except ValueError as error:
            pytest.skip(str(error))

    yield restrict
    _sites.set_isa(before)


def test_places_far_apart_in_the_largest_grids_do_not_meet():
    shape = (2**20, 2**20, 2**20)
    last = 2**20 - 1
    indices = np.array([[0, 0, 0, 0], [0, 0, 0, last], [0, 0, 1, 0], [2, last, last, last]], np.int32)
    for options in ({"kernel_size": 3, "stride": 2, "padding": 1}, {"kernel_size": 2, "stride": 2}):
        assert_is_the_map(indices, shape, build_kernel_map(indices, shape, 4, **options))
    made = build_kernel_map(indices[:3], (2**20 - 1, 2**20 - 1, 2**20), 1, 3, submanifold=True)
    assert_is_the_map(indices[:3], (2**20 - 1, 2**20 - 1, 2**20), made)
    with pytest.raises(SpecError, match=r"up to 2\^62 places, and 4 grids of \(1048577, 1048577, 1048577\)"):
        build_kernel_map(indices, shape, 4, 3, submanifold=True)
    with pytest.raises(SpecError, match=r"up to 2\^62 places, and 4 grids of \(4194304, 4194304, 4194304\)"):
        build_kernel_map(indices, shape, 4, 3, stride=2, transposed=True)


def test_one_axis_may_be_as_long_as_rows_can_count():
    shape, last = (2**31 - 1,), 2**31 - 2
    indices = np.array([[0, last], [0, 0], [0, last - 1]], np.int32)
    for options in (
        {"kernel_size": 3, "submanifold": True},
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 2, "stride": 2**31 - 1, "padding": 2**31 - 1, "dilation": 2**31 - 1},
        {"kernel_size": 7, "stride": 2, "dilation": 3},
    ):
        assert_is_the_map(indices, shape, build_kernel_map(indices, shape, 1, **options))


def test_kernels_of_many_taps_equal_their_twin():
    rng = np.random.default_rng(4)
    indices = np.unique(np.stack([rng.integers(0, 3, 300), rng.integers(0, 5000, 300)], axis=1), axis=0).astype(
        np.int32
    )
    for options in ({"kernel_size": 31, "stride": 2, "padding": 3}, {"kernel_size": 1024, "transposed": True}):
        made = build_kernel_map(indices, (5000,), 3, **options)
        sizes = made.kernel_size, made.stride, made.padding, made.dilation
        expected = reference.build_kernel_map(indices, (5000,), made.spatial_shape, 3, *sizes, False, made.transposed)
        for array, twin in zip((made.in_maps, made.out_maps, made.offsets), expected, strict=False):
            np.testing.assert_array_equal(array, twin)


@pytest.mark.parametrize("events", [0, 1, 3])
def test_images_without_sites_have_maps_without_pairs(events):
    for submanifold in (False, True):
        made = build_kernel_map(np.zeros((0, 4), np.int32), (8, 8, 8), events, 3, submanifold=submanifold)
        assert made.in_maps.shape == made.out_maps.shape == (0,)
        assert made.offsets.tolist() == [0] * 28
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
        ({"kernel_size": (1024, 65)}, "65536 in all"),
        ({"kernel_size": 3, "stride": 2**31}, r"go up to 2\^31 - 1"),
        ({"kernel_size": 3, "dilation": 2**31}, r"go up to 2\^31 - 1"),
        ({"kernel_size": 9, "dilation": 2**30, "submanifold": True}, r"paddings go up to 2\^31 - 1"),
        ({"kernel_size": 3, "submanifold": True, "transposed": True}, "both submanifold and transposed"),
        ({"kernel_size": 2, "padding": 9, "transposed": True}, "transposed kernel .* does not fit the shape"),
        ({"kernel_size": 2, "stride": 2**30, "transposed": True}, "cells an axis, and the output"),
        ({"kernel_size": 2, "submanifold": True}, "odd kernels and stride 1"),
        ({"kernel_size": 3, "stride": 2, "submanifold": True}, "odd kernels and stride 1"),
        ({"kernel_size": 3, "padding": 2, "submanifold": True}, r"has padding \(1, 1\), not \(2, 2\)"),
    ],
)
def test_options_of_no_convolution_are_refused(options, message):
    with pytest.raises(SpecError, match=message):
        build_kernel_map(np.zeros((0, 3), np.int32), (8, 8), 1, **options)


def test_sites_that_are_outside_or_twice_are_refused():
    for rows, message in (
        ([[0, 1, 1], [0, 1, 0], [0, 1, 1]], r"unique, and rows 0 and 2 are both \[0, 1, 1\]"),
        ([[0, 1, 8]], r"row 0 is outside of 2 images of \(8, 8\)"),
        ([[0, 0, 0], [2, 0, 0]], "row 1 is outside of 2 images"),
        ([[0, -1, 0]], "outside"),
    ):
        with pytest.raises(ProcessError, match=message):
            build_kernel_map(np.array(rows, np.int32), (8, 8), 2, 3)
    with pytest.raises(SpecError, match=r"indices \(N, 3\)"):
        build_kernel_map(np.zeros((1, 2), np.int32), (8, 8), 2, 3)
    with pytest.raises(SpecError, match=r"of 1 to 2\^31 - 1 cells"):
        build_kernel_map(np.zeros((0, 2), np.int32), (2**31,), 2, 3)


@pytest.mark.parametrize("order", [[], [0, 1, 2], [2, 1, 1], [2, 1, 3], [2, -1, 0]])
def test_an_order_that_is_not_that_of_the_sites_is_refused(order):
    indices = np.array([[1, 0], [0, 4], [0, 2]], np.int32)
    for submanifold in (False, True):
        with pytest.raises(ValueError, match=r"outside of the shape|in order and unique"):
            build_kernel_map(indices, (5,), 2, 3, submanifold=submanifold, order=np.array(order, np.int32))
    with pytest.raises(SpecError, match=r"order must be \(0,\) or \(3,\) int32"):
        build_kernel_map(indices, (5,), 2, 3, order=np.array([2, 1, 0]))


SIZES = st.one_of(st.integers(-2, 9), st.sampled_from([2**20, 2**31 - 1, 2**31, 2**62]))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_arguments_of_the_kernel_give_a_map_or_an_error(data):
    dims = data.draw(st.integers(0, 4))
    rows = data.draw(st.integers(0, 6))
    values = data.draw(st.sampled_from([5, 2**31 - 1]))
    seed = data.draw(st.integers(0, 2**31))
    indices = (
        np.random.default_rng(seed)
        .integers(-1, values, (rows, 1 + dims))
        .astype(data.draw(st.sampled_from([np.int32, np.int32, np.int64, np.float32])))
    )
    order = np.random.default_rng(seed).permutation(data.draw(st.integers(0, 6))).astype(np.int32)
    numbers = st.lists(SIZES, min_size=max(dims - 1, 0), max_size=dims + 1) | st.lists(
        st.integers(1, 3), min_size=dims, max_size=dims
    )
    lists = [data.draw(numbers) for _ in range(6)]
    flags = data.draw(st.tuples(st.booleans(), st.booleans()))
    try:
        *arrays, outputs = _sites.kernel_map(
            indices, order, data.draw(st.integers(-1, 3)), *lists, *flags, data.draw(st.integers(-1, 3))
        )
    except (TypeError, ValueError, MemoryError):
        return
    in_maps, out_maps, offsets, back_in, back_out = arrays
    assert offsets[-1] == len(in_maps) == len(out_maps)
    assert len(back_in) == len(back_out) == (len(in_maps) if len(order) else 0)
    for array, most in ((in_maps, rows), (out_maps, len(outputs)), (back_in, len(outputs)), (back_out, rows)):
        assert ((array >= 0) & (array < most)).all()
