"""Graphs of nearest points: by hand, and against the distances of all pairs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hepfeed import _voxels
from hepfeed.errors import ProcessError, SpecError
from hepfeed.graphs import build_graph
from hepfeed.reference import graphs as reference


@pytest.fixture(params=["baseline", "avx2", "avx512"])
def isa(request):
    """Each instruction set that the processor has."""
    before = _voxels.isa()
    try:
        _voxels.set_isa(request.param)
    except ValueError as error:
        pytest.skip(str(error))
    yield request.param
    _voxels.set_isa(before)


def offsets_of(*lengths):
    return np.cumsum([0, *lengths]).astype(np.int64)


def assert_same(one, other):
    for name, array in one.arrays().items():
        expected = other.arrays()[name]
        assert array.dtype == expected.dtype == np.int64
        assert array.shape == expected.shape
        np.testing.assert_array_equal(array, expected)


def test_edges_go_from_the_nearest_points_of_the_same_event():
    points = np.array([[0.0], [1.0], [3.0], [0.1], [9.0]])
    made = build_graph(points, offsets_of(3, 0, 2), k=1)
    assert made.edge_index.tolist() == [[1, 0, 1, 4, 3], [0, 1, 2, 3, 4]]
    assert made.offsets.tolist() == [0, 3, 3, 5]
    assert made.edge_offsets.tolist() == [0, 3, 3, 5]


def test_of_points_at_the_same_distance_the_lower_row_is_nearer():
    points = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1], [0, 0]])
    made = build_graph(points, offsets_of(5), k=2)
    assert made.edge_index[0, made.edge_index[1] == 4].tolist() == [0, 1]
    made = build_graph(points[::-1], offsets_of(5), k=3)
    assert made.edge_index[0, made.edge_index[1] == 0].tolist() == [1, 2, 3]


def test_points_at_exactly_the_radius_are_neighbours():
    points = np.array([[0, 0], [3, 4], [3.0001, 4]])
    assert build_graph(points, offsets_of(3), radius=5).edge_index.tolist() == [[1, 0, 2, 1], [0, 1, 1, 2]]
    assert build_graph(points, offsets_of(3), radius=0).edge_index.shape == (2, 0)


def test_a_point_is_its_own_first_neighbour_with_a_loop():
    points = np.zeros((4, 2))  # all at the same place
    assert build_graph(points, offsets_of(4), k=1, loop=True).edge_index.tolist() == [[0, 1, 2, 3]] * 2
    made = build_graph(points, offsets_of(4), k=2, loop=True)
    assert made.edge_index.tolist() == [[0, 1, 0, 1, 0, 2, 0, 3], [0, 0, 1, 1, 2, 2, 3, 3]]
    assert build_graph(points, offsets_of(4), radius=0, loop=True).edge_index.shape == (2, 16)


def test_small_events_connect_all_their_points():
    made = build_graph(np.zeros((3, 1)), offsets_of(1, 0, 2), k=5)
    assert made.edge_index.tolist() == [[2, 1], [1, 2]]
    assert made.edge_offsets.tolist() == [0, 0, 0, 2]


OPTIONS = [{"k": 1}, {"k": 7}, {"k": 300}, {"radius": 0.4}, {"radius": 0.7, "max_neighbours": 5}, {"radius": 50.0}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dims", [1, 2, 3, 6])
@pytest.mark.parametrize("loop", [False, True])
def test_graphs_equal_those_of_all_distances(isa, options, dims, loop):
    rng = np.random.default_rng(dims)
    points = rng.normal(size=(560, dims)).astype(np.float32)
    points[100:130] = points[:30]
    offsets = offsets_of(250, 0, 1, 33, 276)
    assert_same(
        build_graph(points, offsets, **options, loop=loop),
        reference.build_graph(points, offsets, **options, loop=loop),
    )


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 150), st.integers(1, 3), st.sampled_from(OPTIONS), st.booleans(), st.integers(0, 2**31))
def test_graphs_of_a_lattice_full_of_ties_equal_those_of_all_distances(count, dims, options, loop, seed):
    points = np.random.default_rng(seed).integers(0, 5, (count, dims)) * 0.35
    offsets = offsets_of(count // 3, count - count // 3)
    assert_same(
        build_graph(points, offsets, **options, loop=loop),
        reference.build_graph(points, offsets, **options, loop=loop),
    )


def test_points_far_apart_and_points_in_a_clump_are_searched_alike():
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(0, 1e-6, (300, 3)), rng.normal(0, 1e6, (300, 3))])
    for options in ({"k": 9}, {"radius": 2e-6}):
        assert_same(
            build_graph(points, offsets_of(600), **options), reference.build_graph(points, offsets_of(600), **options)
        )


def test_a_graph_of_a_hundred_thousand_points_has_the_nearest():
    rng = np.random.default_rng(0)
    points = rng.random((100_000, 2))
    made = build_graph(points, offsets_of(100_000), k=3)
    assert made.edge_index[1].tolist() == np.repeat(np.arange(100_000), 3).tolist()
    for i in rng.integers(0, 100_000, 20):
        squared = ((points - points[i]) ** 2).sum(axis=1)
        assert made.edge_index[0, 3 * i : 3 * i + 3].tolist() == sorted(np.argsort(squared)[1:4].tolist())


@pytest.mark.parametrize("events", [0, 1, 3])
def test_events_without_points_have_no_edges(events):
    made = build_graph(np.zeros((0, 3)), np.zeros(events + 1, np.int64), k=4)
    assert made.edge_index.shape == (2, 0)
    assert made.edge_offsets.tolist() == [0] * (events + 1)
    assert made.events == events


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "k or radius, one of them"),
        ({"k": 1, "radius": 1.0}, "k or radius, one of them"),
        ({"k": 0}, "k must be 1 or more"),
        ({"radius": -1.0}, "radius must be"),
        ({"radius": float("nan")}, "radius must be"),
        ({"radius": 1.0, "max_neighbours": 0}, "max_neighbours must be 1 or more"),
        ({"k": 1, "max_neighbours": 2}, "leave it out"),
    ],
)
def test_options_that_say_no_neighbours_are_refused(options, message):
    with pytest.raises(SpecError, match=message):
        build_graph(np.zeros((2, 2)), offsets_of(2), **options)


def test_points_that_have_no_neighbours_are_refused():
    with pytest.raises(SpecError, match=r"points \(T, D\)"):
        build_graph(np.zeros(3), offsets_of(3), k=1)
    with pytest.raises(SpecError, match="offsets up to 3"):
        build_graph(np.zeros((3, 2)), offsets_of(2), k=1)
    for bad in (np.nan, np.inf):
        points = np.zeros((4, 2))
        points[3, 1] = bad
        with pytest.raises(ProcessError, match=r"\[0\.0, (nan|inf)\] is not finite.*event 1 of the batch"):
            build_graph(points, offsets_of(2, 2), k=1)
