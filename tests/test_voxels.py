"""Voxels of points and images: by hand, and against their plain NumPy forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hepfeed import _voxels
from hepfeed.errors import ProcessError, SpecError
from hepfeed.grid import Box, edges_of
from hepfeed.reference import voxels as reference
from hepfeed.tensors import Sparse
from hepfeed.voxels import Voxels, densify, histogram, resite, sparsify, voxelise

NUMBERS = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"]


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
    assert one.spatial_shape == tuple(other.spatial_shape)
    assert one.batch_size == other.batch_size
    for name in ("indices", "features"):
        a, b = getattr(one, name), getattr(other, name)
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        np.testing.assert_array_equal(a, b)


# ---- voxelise


def test_points_of_one_voxel_are_summed_and_voxels_sorted():
    points = np.array([[2.5, 0.5], [0.1, 1.9], [2.9, 0.0], [0.0, 0.0]], np.float32)
    made = voxelise(points, offsets_of(3, 0, 1), [np.array([1, 2, 4, 8], np.float32)], Box.of((3, 2), 0, (3, 2)))
    assert made.indices.tolist() == [[0, 0, 1], [0, 2, 0], [2, 0, 0]]
    assert made.features.tolist() == [[2], [5], [8]]
    assert (made.batch_size, made.spatial_shape) == (3, (3, 2))
    assert (made.indices.dtype, made.features.dtype) == (np.int32, np.float32)


def test_a_point_on_an_edge_belongs_to_the_upper_voxel_and_on_the_last_edge_is_outside():
    points = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])[:, None]
    made = voxelise(points, offsets_of(5), (), Box.of((2,), -1, 1))
    assert made.indices[:, 1].tolist() == [0, 1]
    assert made.features.ravel().tolist() == [2, 2]


def test_each_feature_has_its_reduction():
    points = np.zeros((3, 1))
    features = [np.array([1.0, 5.0, 3.0]), np.array([[1, 2], [2, 2], [6, 2]]), np.array([4.0, -1.0, 2.0])]
    made = voxelise(points, offsets_of(3), features, Box.of((1,), 0, 1), ("max", "mean", "sum"))
    assert made.features.tolist() == [[5, 3, 2, 5]]


def test_integer_coordinates_are_voxel_numbers():
    points = np.array([[3, 1], [0, 0], [3, 1], [4, 0], [0, -1]], np.int16)
    made = voxelise(points, offsets_of(5), (), Box.of((4, 2)))
    assert made.indices[:, 1:].tolist() == [[0, 0], [3, 1]]
    assert made.features.tolist() == [[1], [2]]


def test_voxels_know_the_points_that_are_in_them():
    points = np.array([[1.5], [0.5], [9.0], [0.7], [1.0]])
    voxels = Voxels.of_points(points, offsets_of(4, 1), Box.of((2,), 0, 2))
    assert voxels.rows().tolist() == [1, 0, -1, 0, 0]
    assert voxels.counts().tolist() == [2, 1, 1]
    labels = np.array([7, 5, 9, 6, 3], np.uint8)
    assert voxels.labels(labels, np.array([1, 1, 9, 1, 0.0])).tolist() == [5, 7, 3]
    assert voxels.labels(labels, np.array([1, np.nan, 9, -1, 0.0])).tolist() == [6, 7, 3]
    assert voxels.labels(labels).dtype == np.uint8


def test_the_majority_of_labels_wins_and_of_several_the_least():
    voxels = Voxels.of_points(np.zeros((5, 1)), offsets_of(5), Box.of((1,)))
    assert voxels.labels(np.array([4, 2, 4, 2, 9])).tolist() == [2]
    assert voxels.labels(np.array([4, 2, 4, 4, -1])).tolist() == [4]


def test_points_outside_are_dropped_moved_or_refused():
    points, offsets, box = np.array([[-0.5], [0.5], [np.inf], [-np.inf]]), offsets_of(0, 2, 2), Box.of((2,), 0, 2)
    assert voxelise(points, offsets, (), box).indices.tolist() == [[1, 0]]
    clipped = voxelise(points, offsets, (), box, outside="clip")
    assert clipped.indices.tolist() == [[1, 0], [2, 0], [2, 1]]
    assert clipped.features.tolist() == [[2], [1], [1]]
    with pytest.raises(ProcessError, match=r"\[-0\.5\] is outside of the grid.*event 1 of the batch"):
        voxelise(points, offsets, (), box, outside="raise")


@pytest.mark.parametrize("outside", ["drop", "clip", "raise"])
def test_a_nan_coordinate_is_an_error_that_names_the_event(outside):
    points = np.zeros((900, 2))
    points[700, 1] = np.nan
    with pytest.raises(ProcessError, match=r"\[0\.0, nan\] has a NaN.*event 1 of the batch"):
        voxelise(points, offsets_of(600, 300), (), Box.of((2, 2), 0, 1), outside=outside)


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("form", ["together", "apart"])
def test_coordinates_and_features_of_every_type_equal_their_twin(isa, dtype, form):
    rng = np.random.default_rng(3)
    points = rng.uniform(0, 100, (1500, 3)).astype(dtype)
    features = rng.uniform(0, 100, (1500, 2)).astype(dtype)
    offsets, box = offsets_of(700, 0, 1, 799), Box.of((9, 5, 30), (3, 0, -2), (77, 50.5, 90))
    given = points if form == "together" else [points[:, d].copy() for d in range(3)]
    for reduce in ("sum", "mean", "max"):
        for outside in ("drop", "clip"):
            expected = reference.voxelise(points, offsets, features, *_of(box), reduce, outside)
            assert_same(voxelise(given, offsets, [features], box, reduce, outside), expected)


def _of(box):
    return box.shape, box.low, box.size


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(-3, 12), st.integers(-3, 12), st.integers(-9, 9)), max_size=12), max_size=4
    ),
    st.floats(0.07, 3.0),
    st.sampled_from(["sum", "mean", "max"]),
)
def test_any_points_equal_their_twin(events, size, reduce):
    rows = [row for event in events for row in event]
    offsets = offsets_of(*map(len, events))
    points = np.array([row[:2] for row in rows], np.float32).reshape(-1, 2) * np.float32(0.3)
    features = np.array([row[2] for row in rows], np.float64)[:, None]
    box = Box.of((7, 11), (-0.4, 0.0), size=size)
    assert_same(
        voxelise(points, offsets, [features], box, reduce),
        reference.voxelise(points, offsets, features, *_of(box), reduce),
    )


@pytest.mark.parametrize("shape", [(40,), (1000, 1000, 1000), (2**30, 2**20)])
def test_grids_of_few_and_of_very_many_voxels_equal_their_twin(isa, shape):
    rng = np.random.default_rng(0)
    points = rng.integers(0, shape, (3000, len(shape)))
    points[1000:2000] = points[:1000]
    offsets, features = offsets_of(2500, 3, 497), rng.normal(size=(3000, 1))
    box = Box.of(shape)
    assert_same(voxelise(points, offsets, [features], box), reference.voxelise(points, offsets, features, *_of(box)))
    voxels = Voxels.of_points(points, offsets, box)
    order, starts, cells, groups = reference.group_rows(reference.cells_of_points(points, *_of(box)), offsets)
    for made, expected in zip(
        (voxels.order, voxels.starts, voxels.cell, voxels.offsets), (order, starts, cells, groups)
    ):
        assert made.tolist() == expected.tolist()
    labels = rng.integers(0, 4, 3000)
    assert voxels.labels(labels).tolist() == reference.labels_of_majority(labels, order, starts).tolist()
    largest = reference.labels_of_largest(labels, features[:, 0], order, starts)
    assert voxels.labels(labels, features[:, 0]).tolist() == largest.tolist()


def test_a_million_points_of_one_event_and_events_without_points():
    points = np.random.default_rng(0).integers(0, 300, (10**6, 2)).astype(np.float32)
    offsets = offsets_of(0, 10**6, 0)
    made = voxelise(points, offsets, (), Box.of((300, 300)))
    counts = np.zeros((300, 300))
    np.add.at(counts, tuple(points.astype(int).T), 1)
    assert np.array_equal(densify(made)[1], counts)
    assert made.offsets().tolist() == [0, 0, len(made.features), len(made.features)]


@pytest.mark.parametrize("events", [0, 1, 3])
def test_events_without_points_make_images_without_sites(events):
    offsets = np.zeros(events + 1, np.int64)
    empty = np.zeros((0, 2), np.float32)
    made = voxelise(empty, offsets, [np.zeros((0, 3))], Box.of((4, 4)))
    assert (made.features.shape, made.indices.shape, made.batch_size) == ((0, 3), (0, 3), events)
    assert histogram(empty, offsets, edges_of((2, 2), ((0, 1), (0, 1)))).shape == (events, 2, 2)
    assert densify(Sparse(made.features[:, :1], made.indices, (4, 4), events)).shape == (events, 4, 4)
    assert sparsify(np.zeros((events, 4, 4))).indices.shape == (0, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": ()}, "one axis or more"),
        ({"shape": (3, 0)}, "1 to 2\\^31 - 1 cells"),
        ({"shape": (2**31,)}, "1 to 2\\^31 - 1 cells"),
        ({"shape": (2**30, 2**30, 2**30)}, "less than 2\\^62"),
        ({"shape": (3,), "low": 1}, "low and high, or low and size"),
        ({"shape": (3,), "size": 1}, "low and high, or low and size"),
        ({"shape": (3,), "low": 0, "high": 1, "size": 1}, "low and high, or low and size"),
        ({"shape": (3,), "low": 1, "high": 1}, "larger than 0"),
        ({"shape": (3,), "low": 0, "size": -1}, "larger than 0"),
        ({"shape": (3,), "low": 0, "high": float("inf")}, "high must be a finite number"),
        ({"shape": (3, 3), "low": (0, 0), "high": (1, 1, 1)}, "one for each of 2 axes"),
    ],
)
def test_a_grid_that_is_none_is_refused(options, message):
    with pytest.raises(SpecError, match=message):
        Box.of(**options)


def test_arrays_that_do_not_fit_are_refused():
    box, offsets = Box.of((2, 2)), offsets_of(3)
    with pytest.raises(SpecError, match=r"\(T, 2\) were expected.*\(3, 3\)"):
        voxelise(np.zeros((3, 3)), offsets, (), box)
    with pytest.raises(SpecError, match="2 coordinates"):
        voxelise([np.zeros(3), np.zeros(2)], offsets, (), box)
    with pytest.raises(SpecError, match="offsets up to 2"):
        voxelise(np.zeros((2, 2)), offsets, (), box)
    with pytest.raises(SpecError, match=r"features of shape \(3,\)"):
        voxelise(np.zeros((3, 2)), offsets, [np.zeros(2)], box)
    with pytest.raises(SpecError, match="one for each of 1 columns"):
        voxelise(np.zeros((3, 2)), offsets, [np.zeros(3)], box, ("sum", "max"))
    with pytest.raises(SpecError, match="not complex128"):
        voxelise(np.zeros((3, 2), complex), offsets, (), box)
    with pytest.raises(SpecError, match="labels must be"):
        Voxels.of_points(np.zeros((3, 2)), offsets, box).labels(np.zeros(3))


def test_arrays_of_another_byte_order_or_with_gaps_are_read_right():
    points = np.arange(12.0).reshape(6, 2)[::2]
    made = voxelise(points.astype(">f8"), offsets_of(3), [np.arange(6).astype(">i4")[::2]], Box.of((12, 12)))
    assert made.indices[:, 1:].tolist() == [[0, 1], [4, 5], [8, 9]]
    assert made.features.ravel().tolist() == [0, 2, 4]


# ---- histogram


def test_the_last_edge_belongs_to_the_last_bin_on_request():
    points, offsets, edges = np.array([[0.0], [1.0], [2.0], [2.0]]), offsets_of(3, 1), edges_of((2,), ((0, 2),))
    assert histogram(points, offsets, edges).tolist() == [[1, 1], [0, 0]]
    assert histogram(points, offsets, edges, last_closed=True).tolist() == [[1, 2], [0, 1]]
    assert histogram(points, offsets, edges, outside="clip").tolist() == [[1, 2], [0, 1]]
    with pytest.raises(ProcessError, match=r"\[2\.0\] is outside of the grid.*event 0 of the batch"):
        histogram(points, offsets, edges, outside="raise")


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("closed", [False, True])
def test_histograms_equal_those_of_numpy(dtype, closed):
    rng = np.random.default_rng(5)
    points = rng.uniform(-1 if dtype[0] in "if" else 0, 12, (900, 2)).astype(dtype)
    offsets, weights = offsets_of(500, 0, 400), rng.uniform(0, 100, 900).astype(dtype)
    for bins in ((10, 7), (10, (0, 0.5, 3, 9.9, 11)), ((0.1, 0.2, 7), 3)):
        edges = edges_of(bins, ((0, 10), (1.1, 11)))
        for weight in (None, weights):
            made = histogram(points, offsets, edges, weight, closed)
            expected = reference.histogram(points, offsets, edges, weight, closed)
            assert made.dtype == np.float32
            np.testing.assert_array_equal(made, expected)
    if closed:
        one = np.histogramdd(points[:500].astype(float), (10, 7), ((0, 10), (1.1, 11)), weights=weights[:500])[0]
        np.testing.assert_array_equal(
            histogram(points, offsets, edges_of((10, 7), ((0, 10), (1.1, 11))), weights, True)[0], one.astype("f4")
        )


def test_points_on_the_rounded_edges_of_a_histogram_are_where_numpy_puts_them():
    edges = edges_of((49,), ((-0.7, 1.3),))
    on = np.concatenate([edges[0], np.nextafter(edges[0], -9), np.nextafter(edges[0], 9)])[:, None]
    made = histogram(on, offsets_of(len(on)), edges, last_closed=True)
    np.testing.assert_array_equal(made[0], np.histogram(on, 49, (-0.7, 1.3))[0])


@pytest.mark.parametrize(
    ("bins", "ranges", "message"),
    [
        ((3,), None, "ranges must be given where bins are numbers"),
        ((3, 3), ((0, 1),), "each of 2 axes"),
        ((0,), ((0, 1),), "one bin or more"),
        ((3,), ((1, 1),), "rising"),
        (((0, 2, 1),), None, "rising"),
        (((0.0,),), None, "two or more"),
        (((0.0, float("nan")),), None, "finite"),
    ],
)
def test_bins_that_are_none_are_refused(bins, ranges, message):
    with pytest.raises(SpecError, match=message):
        edges_of(bins, ranges)


# ---- sparsify and densify


def test_sites_are_strictly_above_the_threshold():
    dense = np.array([[[0, 0.5], [1, -2]], [[0, 0], [0, 3]]], np.float32)
    made = sparsify(dense, 0.5)
    assert made.indices.tolist() == [[0, 1, 0], [1, 1, 1]]
    assert made.features.tolist() == [[1], [3]]
    made = sparsify(dense, 0.5, absolute=True)
    assert made.indices.tolist() == [[0, 1, 0], [0, 1, 1], [1, 1, 1]]
    assert made.features.ravel().tolist() == [1, -2, 3]


def test_a_site_is_where_any_channel_is_above():
    dense = np.zeros((1, 2, 3), np.float32)
    dense[0, :, 1] = 0, 5
    for images, axis in ((dense, 0), (np.moveaxis(dense, 1, 2).copy(), 1), (np.moveaxis(dense, 1, 2).copy(), -1)):
        made = sparsify(images, channel_axis=axis)
        assert made.indices.tolist() == [[0, 1]]
        assert made.features.tolist() == [[0, 5]]
        assert made.spatial_shape == (3,)
        assert np.array_equal(densify(made, axis), images)


def test_a_nan_is_not_dropped_silently(isa):
    for dtype in ("f2", "f4", "f8"):
        dense = np.zeros((1, 200), dtype)
        dense[0, [3, 150]] = np.nan, -np.inf
        assert sparsify(dense, 10).indices[:, 1].tolist() == [3]
        assert sparsify(dense, 10, absolute=True).indices[:, 1].tolist() == [3, 150]


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("occupancy", [0.0, 0.02, 0.6, 1.0])
def test_sparse_images_of_every_type_equal_their_twin(isa, dtype, occupancy):
    rng = np.random.default_rng(1)
    values = rng.normal(0, 40, (3, 4, 33, 35))
    dense = np.where(rng.random(values.shape) < occupancy, values if dtype[0] in "if" else np.abs(values), 0)
    dense = np.clip(dense, -100, 120).astype(dtype)
    for axis in (None, 0, 1, 2):
        for threshold, absolute in ((0.0, False), (17.25, False), (17, True), (0.0, True), (-3.5, False), (500, False)):
            made = sparsify(dense, threshold, absolute, axis)
            assert_same(made, reference.sparsify(dense, threshold, absolute, axis))
            assert made.features.dtype == (np.float64 if dtype == "f8" else np.float32)


@pytest.mark.parametrize("dtype", NUMBERS[:8])
def test_thresholds_beyond_the_range_of_integers_select_all_or_nothing(isa, dtype):
    limits = np.iinfo(dtype)
    dense = np.array([[limits.min, 0, 1, limits.max] * 40], dtype)

    def sites(threshold, absolute=False):
        return _voxels.sparsify(dense, threshold, absolute, None, True)[0]

    assert len(sites(2.0**70)) == 0
    assert len(sites(-(2.0**70))) == 160
    assert len(sites(2.0**70, absolute=True)) == 0
    assert sites(0.5)[:2, 1].tolist() == [2, 3]
    assert len(sites(float(limits.max // 2), absolute=True)) == (80 if limits.min else 40)


def test_more_sites_than_fit_at_first_are_all_found(isa):
    dense = np.arange(1, 100_001, dtype=np.float32).reshape(2, 50, 1000)
    made = sparsify(dense)
    assert made.features.ravel().tolist() == list(range(1, 100_001))
    wide = sparsify(dense.reshape(1, 10, 10_000), channel_axis=1)
    assert wide.features.shape == (10, 10_000)
    assert np.array_equal(wide.features, dense.reshape(10, 10_000))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 3), st.integers(1, 5), st.integers(1, 70), st.integers(0, 2), st.integers(0, 2**31))
def test_densify_undoes_sparsify(events, height, width, axis, seed):
    rng = np.random.default_rng(seed)
    dense = rng.exponential(1, (events, height, 2, width)).astype(np.float32) * (
        rng.random((events, height, 2, width)) < 0.2
    )
    back = densify(sparsify(dense, channel_axis=axis), axis)
    assert back.dtype == dense.dtype
    assert np.array_equal(back, dense)
    assert np.array_equal(densify(sparsify(dense)), dense)


@pytest.mark.parametrize("dtype", [*NUMBERS, "?"])
def test_dense_images_of_every_type_equal_their_twin(dtype):
    rng = np.random.default_rng(2)
    indices = np.argwhere(rng.random((3, 6, 5, 4)) < 0.1).astype(np.int32)
    for channels, axes in ((1, (None, 0, 3)), (3, (0, 1, 2, 3))):
        features = rng.uniform(0, 99, (len(indices), channels)).astype(dtype)
        sparse = Sparse(features, indices, (6, 5, 4), 3)
        for axis in axes:
            made = densify(sparse, axis)
            assert made.dtype == features.dtype
            assert np.array_equal(made, reference.densify(sparse, axis))
    assert densify(sparse, -1).shape == (3, 6, 5, 4, 3)


def test_dense_images_are_written_to_a_given_array():
    sparse = Sparse(np.ones((1, 1), np.float32), np.array([[1, 2]], np.int32), (3,), 2)
    out = np.full((2, 3), 9, np.float32)
    assert densify(sparse, out=out) is out
    assert out.tolist() == [[0, 0, 0], [0, 0, 1]]
    for wrong in (out.astype("f8"), np.zeros((3, 2), np.float32), np.zeros((2, 6), np.float32)[:, ::2]):
        with pytest.raises(SpecError, match=r"out must be \(2, 3\) float32 in C order"):
            densify(sparse, out=wrong)


def test_images_that_can_not_be_made_are_refused():
    with pytest.raises(SpecError, match="channel axis 2 is not among"):
        sparsify(np.zeros((1, 2, 3)), channel_axis=2)
    with pytest.raises(SpecError, match="one axis or more"):
        sparsify(np.zeros((1, 2)), channel_axis=0)
    with pytest.raises(SpecError, match="0 or more, not -1"):
        sparsify(np.zeros((1, 2)), -1, absolute=True)
    with pytest.raises(SpecError, match="not nan"):
        sparsify(np.zeros((1, 2)), np.nan)
    two = Sparse(np.ones((1, 2), np.float32), np.array([[0, 2]], np.int32), (3,), 1)
    with pytest.raises(SpecError, match="2 channels need a channel axis"):
        densify(two)
    with pytest.raises(SpecError, match="channel axis 2 is not among"):
        densify(two, 2)
    for site in ([0, 3], [1, 0], [0, -1], [-1, 0]):
        with pytest.raises(ProcessError, match="is outside of 1 images"):
            densify(Sparse(np.ones((1, 1), np.float32), np.array([site], np.int32), (3,), 1))


# ---- resite


def image(sites, features, shape, events, dtype=np.float32):
    return Sparse(np.array(features, dtype), np.array(sites, np.int32).reshape(-1, 1 + len(shape)), shape, events)


def test_moved_sites_are_sorted_merged_and_left_out():
    sparse = image([[0, 0], [0, 1], [0, 2], [1, 0], [1, 3]], [[1], [2], [4], [8], [16]], (4,), 3)
    coords = np.array([[5], [5], [1], [-1], [2]])
    made = resite(sparse, coords, np.array([1, 1, 1, 1, 1], bool), (6,))
    assert made.indices.tolist() == [[0, 1], [0, 5], [1, 2]]
    assert made.features.tolist() == [[4], [3], [16]]
    assert (made.spatial_shape, made.batch_size, made.kernel_maps) == ((6,), 3, ())
    made = resite(sparse, coords, np.array([1, 0, 0, 1, 0], bool), (6,), "max")
    assert made.indices.tolist() == [[0, 5]]


@pytest.mark.parametrize("dtype", [*NUMBERS, "?"])
@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
def test_moved_sites_of_every_type_equal_their_twin(dtype, reduce):
    rng = np.random.default_rng(4)
    indices = np.argwhere(rng.random((3, 12, 12)) < 0.5).astype(np.int32)
    features = rng.uniform(0, 20, (len(indices), 2)).astype(dtype)
    coords, keep = rng.integers(-2, 9, (len(indices), 2)), rng.random(len(indices)) < 0.8
    sparse = Sparse(features, indices, (12, 12), 3)
    if reduce == "mean" and dtype[0] in "iu":
        with pytest.raises(SpecError, match=r"floating point, not u?int"):
            resite(sparse, coords, keep, (8, 7), reduce)
        return
    expected = reference.resite(sparse, coords, keep, (8, 7), "max" if dtype == "?" else reduce)
    assert_same(resite(sparse, coords, keep, (8, 7), reduce), expected)
    far = coords + 2**62
    assert len(resite(sparse, far, None, (8, 7)).features) == 0


def test_a_sum_that_does_not_fit_its_integers_is_an_error():
    for dtype, values in (("u1", (200, 100)), ("i1", (-100, -100)), ("i8", (2**62, 2**62)), ("u8", (2**63, 2**63))):
        sparse = image([[0, 0], [2, 0], [2, 1]], [[1], [values[0]], [values[1]]], (2,), 3, dtype)
        with pytest.raises(ProcessError, match=r"does not fit their type.*event 2 of the batch"):
            resite(sparse, np.zeros((3, 1), np.int64), None, (2,))
        assert len(resite(sparse, np.zeros((3, 1), np.int64), None, (2,), "max").features) == 2


def test_sites_and_features_that_do_not_fit_are_refused():
    sparse = image([[0, 0]], [[1]], (2,), 1)
    with pytest.raises(SpecError, match=r"coordinates \(N, 2\) were expected"):
        resite(sparse, np.zeros((1, 1), np.int64), None, (2, 2))
    with pytest.raises(SpecError, match="spatial_shape"):
        resite(sparse, np.zeros((1, 1), np.int64), None, (0,))


# ---- the border to the kernels


def test_the_kernels_refuse_what_does_not_fit():
    ints, uints = np.zeros(3, np.int64), np.zeros(3, np.uint32)
    cases = [
        (lambda: _voxels.set_isa("mmx"), "'mmx' is none"),
        (lambda: _voxels.group_rows(ints, np.array([0, 2]), 4), "an item for each row"),
        (lambda: _voxels.group_rows(ints, np.array([1, 3]), 4), "begin with 0"),
        (lambda: _voxels.group_rows(ints, np.array([0, 4, 3]), 4), "must not fall"),
        (lambda: _voxels.sites_of_cells(ints + 9, np.array([0, 3]), [3, 3]), "beyond the grid"),
        (lambda: _voxels.reduce_groups(np.zeros((2, 1)), uints, np.array([0, 2]), "sum", np.zeros((1, 1))), "differ"),
        (
            lambda: _voxels.reduce_groups(np.zeros((2, 1)), uints + 2, np.array([0, 3]), "sum", np.zeros((1, 1))),
            "beyond",
        ),
        (lambda: _voxels.reduce_groups(np.zeros((2, 1)), uints, np.array([0, 3]), "min", np.zeros((1, 1))), "'sum'"),
        (
            lambda: _voxels.reduce_groups(np.zeros((2, 1)), uints, np.array([0, 3]), "sum", np.zeros((1, 1), "i4")),
            "float32",
        ),
        (lambda: _voxels.histogram(ints + 4, None, np.array([0, 3]), [4]), "beyond the grid"),
        (lambda: _voxels.sparsify(np.zeros((2, 4))[:, ::2], 0.0, False, None, False), "C order"),
        (lambda: _voxels.sparsify(np.zeros((2, 4), ">f4"), 0.0, False, None, False), "byte order"),
        (lambda: _voxels.sparsify(np.zeros((2, 4), complex), 0.0, False, None, False), "numbers"),
        (lambda: _voxels.cells_of_points([(np.zeros(2), 0.0, 1.0, 2), (np.zeros(3), 0.0, 1.0, 2)], False), "a point"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError):
        _voxels.group_rows(ints.astype(np.int32), np.array([0, 3]), 4)


@pytest.mark.parametrize("dtype", ["i4", "u4", "i8", "u8"])
def test_integers_that_float32_would_round_are_refused(dtype):
    image = np.array([[0, 2**24 - 1]], dtype)
    assert sparsify(image).features.tolist() == [[2.0**24 - 1]]
    image[0, 0] = 2**24 + 1
    with pytest.raises(ProcessError, match="which float32 features would round: cast them to float64 first"):
        sparsify(image)
