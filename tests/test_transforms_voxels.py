"""Steps between points, voxels, images and graphs."""

import h5py
import numpy as np
import pytest
from step_batches import batch_of, draws_of, jagged, padded, part_of, sparse

from hepfeed.errors import KeyMissingError, ProcessError, SpecError
from hepfeed.kernel_map import build_kernel_map
from hepfeed.pipeline import Pipeline
from hepfeed.tensors import Graph, Jagged, Sparse
from hepfeed.transforms import BuildGraph, Densify, Histogram, KernelMaps, Sparsify, Voxelise


def run(step, **arrays):
    batch = batch_of(**arrays)
    return step(batch, draws_of(batch))


def deposits():
    """Three events, of 3, 0 and 2 hits in a box of 4 x 4."""
    return {
        "xy": jagged([(0.5, 0.5), (3.5, 1.5), (0.9, 0.1)], [], [(1.5, 2.5), (9.0, 0.0)], item=(2,)),
        "charge": jagged([1, 2, 4], [], [8, 16]),
        "particle": jagged([5, 6, 7], [], [8, 9], dtype=np.int32),
    }


GRID = {"shape": (4, 4), "low": 0.0, "high": 4.0}
STEPS = [
    Voxelise(points="xy", features="charge", into="image", **GRID),
    Voxelise(points="xy", features="charge", labels="particle", rows_into="rows", into="image", **GRID),
    Histogram(points="xy", weights="charge", bins=(4, 4), ranges=((0, 4), (0, 4)), into="image"),
    BuildGraph(points="xy", k=2),
    BuildGraph(points="xy", radius=2.0),
    Sparsify(keys="dense"),
    Densify(keys="sites"),
    KernelMaps(keys="sites", maps=({"kernel_size": 3, "submanifold": True},)),
]


def everything():
    dense = np.zeros((3, 4, 4), np.float32)
    dense[0, 1, 2], dense[2, 3, 3] = 3, 4
    return {**deposits(), "dense": dense, "sites": sparse([(0, 1, 2), (2, 3, 3)], [3, 4], (4, 4), 3)}


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
class TestEveryStep:
    def test_an_event_gets_the_same_in_any_batch(self, step):
        batch = batch_of(**everything())
        whole = step(batch, draws_of(batch))
        for events in ([2, 0], [1], [2]):
            part = part_of(batch, events)
            made = step(part, draws_of(part))
            assert made.keys() == whole.keys()
            for key, value in part_of(whole, events).items():
                for one, other in zip(arrays_of(made[key]), arrays_of(value), strict=True):
                    assert np.array_equal(one, other)

    def test_what_came_stays_as_it_was(self, step):
        batch = batch_of(**everything())
        before = {key: [array.copy() for array in arrays_of(value)] for key, value in batch.items()}
        for value in batch.values():
            for array in arrays_of(value):
                array.flags.writeable = False  # as a view of shared memory may be
        made = step(batch, draws_of(batch))
        assert made is not batch
        assert batch.keys() == before.keys()
        for key, value in batch.items():
            assert all(np.array_equal(a, b) for a, b in zip(arrays_of(value), before[key], strict=True))

    def test_batches_without_events_go_through(self, step):
        batch = part_of(batch_of(**everything()), [])
        made = step(batch, draws_of(batch))
        assert all((value.events if hasattr(value, "events") else len(value)) == 0 for value in made.values())

    def test_it_is_saved_and_read_again(self, step):
        written = Pipeline([step]).to_spec()
        assert Pipeline(written).steps == [step]

    def test_a_missing_key_names_the_nearest(self, step):
        batch = batch_of(xyz=jagged([1]), sitse=jagged([1]), denze=jagged([1]))
        with pytest.raises(KeyMissingError, match=r"did you mean '(xyz|sitse|denze)'"):
            step(batch, draws_of(batch))


def arrays_of(value):
    """The arrays of a value; kernel maps, which ``take`` leaves out, aside."""
    if isinstance(value, Sparse):
        return [value.features, value.indices]
    return list(value.arrays().values()) if hasattr(value, "arrays") else [value]


# ---- voxelise


def test_voxelise_replaces_points_by_sparse_images():
    made = run(Voxelise(points="xy", features="charge", into="image", **GRID), **deposits())
    assert set(made) == {"label", "event", "particle", "image"}
    image = made["image"]
    assert image.indices.tolist() == [[0, 0, 0], [0, 3, 1], [2, 1, 2]]
    assert image.features.tolist() == [[5], [2], [8]]
    assert (image.batch_size, image.spatial_shape) == (3, (4, 4))


def test_labels_and_rows_follow_the_voxels():
    options = {"features": "charge", "labels": "particle", "rows_into": "voxel", "into": "image", **GRID}
    made = run(Voxelise(points="xy", **options), **deposits())
    assert made["particle"].values.tolist() == [7, 6, 8]
    assert made["particle"].values.dtype == np.int32
    assert made["particle"].offsets.tolist() == made["image"].offsets().tolist() == [0, 2, 2, 3]
    assert made["voxel"].values.tolist() == [0, 1, 0, 0, -1]
    made = run(Voxelise(points="xy", labels_into="truth", keep=True, **options), **deposits())
    assert made["truth"].values.tolist() == [7, 6, 8]
    assert made["particle"].values.tolist() == [5, 6, 7, 8, 9]
    assert {"xy", "charge"} <= set(made)
    majority = Voxelise(points="xy", labels="particle", label_by="majority", into="image", **GRID)
    made = run(majority, **deposits())
    assert made["particle"].values.tolist() == [5, 6, 8]
    assert made["image"].features.tolist() == [[2], [1], [1]]


def test_coordinates_may_be_keys_of_their_own_or_padded():
    xy = deposits()["xy"]
    x, y = Jagged(xy.values[:, 0], xy.offsets), Jagged(xy.values[:, 1], xy.offsets)
    expected = run(Voxelise(points="xy", into="image", **GRID), xy=xy)["image"]
    apart = run(Voxelise(points=("x", "y"), into="image", **GRID), x=x, y=y)["image"]
    mask = np.arange(3) < xy.lengths()[:, None]
    values = np.full((3, 3, 2), 1.0)
    values[mask] = xy.values
    filled = run(Voxelise(points="xy", into="image", **GRID), xy=padded(mask, values))["image"]
    for made in (apart, filled):
        assert made.indices.tolist() == expected.indices.tolist()
        assert made.features.tolist() == expected.features.tolist()


def test_a_hit_that_is_at_fault_names_file_and_row():
    points = jagged([(0, 0)], [(1, np.nan)], item=(2,))
    with pytest.raises(ProcessError, match=r"'xy': point \[1\.0, nan\].* in event 11 of file number 3") as raised:
        run(Voxelise(points="xy", into="image", **GRID), xy=points)
    assert (raised.value.key, raised.value.event) == ("xy", 11)
    with pytest.raises(ProcessError, match=r"point \[9\.0, 0\.0\] is outside.* in event 12 of file number 3"):
        run(Voxelise(points="xy", into="image", outside="raise", **GRID), **deposits())
    with pytest.raises(ProcessError, match=r"point \[1\.0, nan\].* in event 11 of file number 3"):
        run(Histogram(points="xy", bins=(4, 4), ranges=((0, 4), (0, 4)), into="image"), xy=points)
    with pytest.raises(ProcessError, match=r"point \[1\.0, nan\] is not finite.* in event 11 of file number 3"):
        run(BuildGraph(points="xy", k=1), xy=points)


def test_keys_that_do_not_fit_the_points_are_refused():
    step = Voxelise(points="xy", features="charge", into="image", **GRID)
    cases = [
        ({"xy": np.zeros((3, 4, 2))}, "must be jagged or padded points, and is dense"),
        ({"xy": jagged([1], [], [])}, "must hold vectors"),
        ({"charge": jagged([1, 2, 4], [3], [8])}, "the same points, and have 0 and 1, in event 11"),
        ({"charge": Jagged(np.zeros((5, 2, 2)), np.array([0, 3, 3, 5]))}, "one or several numbers"),
        ({"image": np.zeros(3)}, "a key 'image' already"),
    ]
    for changed, message in cases:
        with pytest.raises(ProcessError, match=message):
            run(step, **{**deposits(), **changed})
    with pytest.raises(SpecError, match=r"\(T, 2\) were expected.*key 'xy'"):
        run(step, **{**deposits(), "xy": jagged([(0,) * 3] * 3, [], [(0,) * 3] * 2, item=(3,))})
    with pytest.raises(SpecError, match=r"labels must be.*key 'charge'"):
        run(Voxelise(points="xy", labels="charge", label_by="majority", into="image", **GRID), **deposits())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": ()}, "points must name one key or more"),
        ({"points": ("x", "y", "z")}, "one for each of 2 axes"),
        ({"low": None}, "low and high, or low and size"),
        ({"shape": (4, 0)}, "1 to 2"),
        ({"features": ("a", "a")}, "twice"),
        ({"features": ("a", "b"), "reduce": ("sum",)}, "for each of features"),
        ({"into": "label"}, "into.*can't be 'label'"),
        ({"labels": "p"}, "label_by 'largest' needs features"),
        ({"labels_into": "p"}, "needs labels"),
        ({"labels": "p", "label_by": "majority", "keep": True}, "labels_into must be given"),
        ({"rows_into": "image"}, "need different keys"),
    ],
)
def test_options_of_voxelise_that_do_not_fit_are_refused(options, message):
    with pytest.raises(SpecError, match=message):
        Pipeline([{"voxelise": {"points": "xy", "into": "image", **GRID, **options}}])


# ---- histogram


def test_histogram_of_each_event_equals_numpy():
    given = deposits()
    step = Histogram(
        points="xy",
        weights="charge",
        bins=(4, (0.0, 0.5, 9.0)),
        ranges=((0, 9), (0, 9)),
        into="image",
        last_closed=True,
    )
    made = run(step, **given)
    assert set(made) == {"label", "event", "particle", "image"}
    for e in range(3):
        expected = np.histogramdd(
            given["xy"][e], (np.linspace(0, 9, 5), [0, 0.5, 9]), weights=given["charge"][e].astype(float)
        )[0]
        assert made["image"][e].tolist() == expected.tolist()
    open_ = run(step.model_copy(update={"last_closed": False, "weights": None, "keep": True}), **given)
    assert open_["image"].sum(axis=(1, 2)).tolist() == [3, 0, 1]
    assert "xy" in open_


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ranges": None}, "ranges must be given"),
        ({"bins": ((0.0, 1.0), (0.0, 1.0))}, "ranges must be left out"),
        ({"bins": (3,)}, "each of 1 axes"),
        ({"points": ("x",)}, "one for each of 2 axes"),
        ({"into": "event"}, "can't be 'event'"),
    ],
)
def test_options_of_histogram_that_do_not_fit_are_refused(options, message):
    with pytest.raises(SpecError, match=message):
        Pipeline([{"histogram": {"points": "xy", "bins": (2, 2), "ranges": ((0, 1), (0, 1)), "into": "i", **options}}])


# ---- sparsify and densify


def test_sparsify_and_densify_are_inverse():
    rng = np.random.default_rng(0)
    ecal = rng.exponential(size=(3, 5, 5, 5)).astype(np.float32) * (rng.random((3, 5, 5, 5)) < 0.1)
    views = rng.integers(0, 3, (3, 2, 30, 40), np.uint8)
    batch = batch_of(ecal=ecal, views=views)
    steps = Pipeline(
        [
            Sparsify(keys="ecal", into="ecal_sites"),
            Sparsify(keys="views", channel_axis=0),
            Densify(keys="ecal_sites", into="again"),
            Densify(keys="views", channel_axis=0, dtype="uint8"),
        ]
    )
    made = steps(batch, draws_of(batch))
    assert set(made) == {"label", "event", "ecal", "ecal_sites", "again", "views"}
    assert np.array_equal(made["again"], ecal)
    assert np.array_equal(made["views"], views)
    assert made["views"].dtype == np.uint8


def test_a_type_that_can_not_hold_a_feature_is_an_error():
    image = sparse([(0, 1), (1, 0)], [1.0, 1e5], (2,), 2)
    with pytest.raises(ProcessError, match=r"float16 can't hold.*event 11 of file number 3"):
        run(Densify(keys="image", dtype="float16"), image=image)


def test_images_of_another_kind_are_refused():
    with pytest.raises(ProcessError, match="must be dense images of numbers, and is Jagged"):
        run(Sparsify(keys="image"), image=jagged([1]))
    with pytest.raises(SpecError, match=r"channel axis 3 is not among.*key 'image'"):
        run(Sparsify(keys="image", channel_axis=3), image=np.zeros((1, 2, 2)))
    with pytest.raises(ProcessError, match="must be sparse images, and is dense"):
        run(Densify(keys="image"), image=np.zeros((1, 2, 2)))
    with pytest.raises(ProcessError, match="a key 'b' already"):
        run(Sparsify(keys="a", into="b"), a=np.zeros((1, 2)), b=np.zeros(1))
    with pytest.raises(ProcessError, match="must be sparse images, and is dense"):
        run(KernelMaps(keys="image", maps=({"kernel_size": 2},)), image=np.zeros((1, 2, 2)))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sparsify", {"keys": ("a", "b"), "into": "c"}, "one key for each"),
        ("sparsify", {"keys": "a", "into": "weight"}, "can't be 'weight'"),
        ("sparsify", {"keys": "label"}, "can't be 'label'"),
        ("sparsify", {"keys": "a", "threshold": -1, "absolute": True}, "0 or more"),
        ("sparsify", {"keys": "a", "treshold": 1}, "did you mean 'threshold'"),
        ("densify", {"keys": "a", "into": ("a", "b")}, "one key for each"),
        ("densify", {"keys": "a", "dtype": "floaty"}, "dtype must be"),
        ("graph", {"points": "a"}, "k or radius"),
        ("graph", {"points": "a", "k": 3, "into": "a"}, "is a key of the points"),
        ("kernel_maps", {"keys": "a", "maps": ()}, "one map or more"),
        ("kernel_maps", {"keys": "a", "maps": ({"kernel_size": 2, "submanifold": True},)}, "odd kernels"),
        ("kernel_maps", {"keys": "a", "maps": ({"kernel_size": (3, 3), "stride": (1, 2, 3)},)}, "each of 3 axes"),
        (
            "kernel_maps",
            {"keys": "a", "maps": ({"kernel_size": 3, "submanifold": True, "transposed": True},)},
            "both submanifold and transposed",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(name, options, message):
    with pytest.raises(SpecError, match=message):
        Pipeline([{name: options}])


# ---- graph and kernel maps


def test_a_graph_joins_the_rows_of_its_points():
    made = run(BuildGraph(points="xy", k=1, into="edges"), **deposits())
    assert isinstance(made["edges"], Graph)
    assert made["edges"].edge_index.tolist() == [[2, 2, 0, 4, 3], [0, 1, 2, 3, 4]]
    assert made["edges"].offsets.tolist() == made["xy"].offsets.tolist()
    xy = deposits()["xy"]
    x, y = Jagged(xy.values[:, 0], xy.offsets), Jagged(xy.values[:, 1], xy.offsets)
    apart = run(BuildGraph(points=("x", "y"), k=1), x=x, y=y)
    assert apart["graph"].edge_index.tolist() == made["edges"].edge_index.tolist()
    with pytest.raises(ProcessError, match="must be jagged here, and is Padded"):
        run(BuildGraph(points="xy", k=1), xy=padded([[True]], [[[0.0, 0.0]]]))


def test_maps_are_built_in_the_order_of_a_network():
    rng = np.random.default_rng(0)
    indices = np.argwhere(rng.random((2, 9, 9)) < 0.3).astype(np.int32)
    image = Sparse(np.ones((len(indices), 1), np.float32), indices, (9, 9), 2)
    maps = [
        {"kernel_size": 3, "submanifold": True},
        {"kernel_size": 2, "stride": 2},
        {"kernel_size": 3, "submanifold": True},
        {"kernel_size": (2, 1), "stride": (2, 1)},
        {"kernel_size": 2, "stride": 2, "transposed": True},
    ]
    made = run(Pipeline([{"kernel_maps": {"keys": "image", "maps": maps}}]).steps[0], image=image)["image"]
    assert len(made.kernel_maps) == 5
    first, down, second, last, up = made.kernel_maps
    assert first.submanifold
    assert np.array_equal(first.indices, indices)
    assert (down.spatial_shape, second.spatial_shape, last.spatial_shape) == ((4, 4), (4, 4), (2, 4))
    expected = build_kernel_map(down.indices, (4, 4), 2, 3, submanifold=True)
    assert np.array_equal(second.in_maps, expected.in_maps)
    assert np.array_equal(second.out_maps, expected.out_maps)
    assert np.array_equal(second.indices, down.indices)
    expected = build_kernel_map(down.indices, (4, 4), 2, (2, 1), (2, 1))
    assert np.array_equal(last.out_maps, expected.out_maps)
    expected = build_kernel_map(last.indices, (2, 4), 2, 2, 2, transposed=True)
    assert up.transposed
    assert up.spatial_shape == (4, 8)
    assert np.array_equal(up.indices, expected.indices)
    with pytest.raises(ProcessError, match="kernel maps already"):
        run(KernelMaps(keys="image", maps=({"kernel_size": 1},)), image=made)
    with pytest.raises(SpecError, match=r"does not fit the shape.*key 'image'"):
        run(KernelMaps(keys="image", maps=({"kernel_size": 99},)), image=image)


# ---- stored events


def test_events_of_a_file_become_voxels(tmp_path):
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 40, 6)
    with h5py.File(tmp_path / "hits.h5", "w") as file:
        file["xyz"] = rng.uniform(0, 8, (counts.sum(), 3)).astype(np.float32)
        file["charge"] = rng.exponential(size=counts.sum())
    with h5py.File(tmp_path / "hits.h5") as file:
        xyz, charge = file["xyz"][:], file["charge"][:]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    batch = batch_of(xyz=Jagged(xyz, offsets), charge=Jagged(charge, offsets))
    voxelise = {"points": "xyz", "features": "charge", "shape": (8, 8, 8), "low": 0, "size": 1, "into": "image"}
    made = Pipeline([{"voxelise": voxelise}, {"densify": {"keys": "image"}}])(batch, draws_of(batch))
    for e in range(6):
        rows = slice(offsets[e], offsets[e + 1])
        expected = np.histogramdd(xyz[rows], (8, 8, 8), ((0, 8),) * 3, weights=charge[rows])[0]
        np.testing.assert_array_equal(made["image"][e], expected.astype(np.float32))
