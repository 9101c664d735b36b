"""The steps of the feed on a device: to the last bit what the same steps do on the CPU, and the same errors."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from step_batches import batch_of, jagged, padded

from hepfeed.device import native
from hepfeed.device.steps import DeviceSteps
from hepfeed.device.transforms.registry import FUNCTIONS
from hepfeed.draws import Draws
from hepfeed.errors import HepfeedError, KeyMissingError, ProcessError, SpecError
from hepfeed.pipeline import Pipeline
from hepfeed.tensors import Graph, Jagged, Padded, Sparse, Structured
from hepfeed.transforms import (
    Cast,
    Clip,
    Crop,
    Densify,
    Drop,
    DropOut,
    Embed,
    Finite,
    Flip,
    FlipPoints,
    GaussianNoise,
    Histogram,
    Jitter,
    Log,
    LogTanh,
    MinMax,
    Normalise,
    OneHot,
    Pad,
    PoissonNoise,
    Rename,
    Rotate90,
    RotatePoints,
    ScalePoints,
    Select,
    ShiftPoints,
    Sparsify,
    Stack,
    Translate,
    Voxelise,
)
from hepfeed.transforms.pointwise import Fused
from hepfeed.voxels import sparsify


def on(backend, batch):
    """Return a batch of arrays as tensors on the device."""

    def tensor(array):
        return torch.from_numpy(np.array(array)).to(backend.device)

    return {key: value.map(tensor) if isinstance(value, Structured) else tensor(value) for key, value in batch.items()}


def draws_of(batch, seed=3, epoch=1):
    return Draws(seed, epoch, 0, batch["event"])


def same(device, host, key):
    """Check that what a device has is what the CPU has: types, forms and bits."""
    assert type(device) is type(host) or not isinstance(host, Structured), key
    if not isinstance(host, Structured):
        found = device.cpu().numpy()
        assert found.dtype == host.dtype, key
        np.testing.assert_array_equal(found, host, err_msg=key)
        return
    arrays, wanted = device.arrays(), host.arrays()
    assert arrays.keys() == wanted.keys()
    for name in wanted:
        same(arrays[name], np.asarray(wanted[name]), f"{key}.{name}")
    for name in ("spatial_shape", "batch_size"):
        if hasattr(host, name):
            assert tuple(np.atleast_1d(getattr(device, name))) == tuple(np.atleast_1d(getattr(host, name)))


def run_on_host(steps, batch, draws, first=0):
    for place, step in enumerate(steps, first):
        batch = step(batch, draws.at(place))
    return batch


def check(backend, steps, batch, first=0):
    """Run steps on the device and on the CPU; returns what came."""
    steps = [steps] if not isinstance(steps, list) else steps
    draws = draws_of(batch)
    wanted = run_on_host(steps, batch, draws, first)
    there = on(backend, batch)
    made = DeviceSteps(steps, first=first)(there, draws)
    assert list(made) == list(wanted)
    for key in wanted:
        same(made[key], wanted[key], key)
    for key, value in batch.items():  # which stays as it was
        same(there[key], value, key)
    return made


def fails(backend, steps, batch, kind=HepfeedError):
    """Check that the device raises the error of the CPU, and return it."""
    steps = [steps] if not isinstance(steps, list) else steps
    draws = draws_of(batch)
    with pytest.raises(kind) as wanted:
        run_on_host(steps, batch, draws)
    with pytest.raises(kind) as found:
        DeviceSteps(steps)(on(backend, batch), draws)
    assert type(found.value) is type(wanted.value)
    assert str(found.value) == str(wanted.value)
    return found.value


def images(events=5, shape=(6, 6, 2), dtype="f4", occupancy=0.3, seed=0):
    random = np.random.default_rng(seed)
    made = random.exponential(5, (events, *shape)) * (random.random((events, *shape)) < occupancy)
    if events > 2:
        made[1] = 0  # an event without any site
    image = made.astype(dtype)
    return batch_of(image=image, mask=(image > 4).astype(np.uint8))


def sparse_images(channels=1, **options):
    batch = images(shape=options.pop("shape", (6, 6, 3)) + ((channels,) if channels > 1 else ()), **options)
    image = sparsify(batch["image"], channel_axis=-1 if channels > 1 else None)
    mask = Sparse(image.features > 4, image.indices, image.spatial_shape, image.batch_size)
    return {**batch, "image": image, "mask": mask}


MOVES = [
    Flip(keys=("image", "mask"), axes=(0, 1)),
    Flip(keys="image", axes=2, probability=1),
    Rotate90(keys=("image", "mask"), axes=(1, 0)),
    Translate(keys=("image", "mask"), pixels=(2, 3), axes=(0, 1)),
    Translate(keys="image", pixels=9),
    Crop(keys=("image", "mask"), shape=(4, 7), axes=(1, 0), shift=1),
    Crop(keys="image", shape=(3, 3), at=(1, 2), axes=(0, 1)),
    Pad(keys=("image", "mask"), shape=(9, 8), axes=(0, 1)),
    Embed(keys=("image", "mask"), shape=(11, 12), at="random", axes=(0, 1)),
    Embed(keys="image", shape=7, at=(1,), axes=0),
]
RANDOM = [
    GaussianNoise(keys="image", sigma=0.5),
    GaussianNoise(keys=("image",), sigma=0.1, relative=True, only_active=True),
    PoissonNoise(keys="image", scale=3),
    DropOut(keys=("image", "mask"), probability=0.3),
    DropOut(keys=("image", "mask"), probability=0.3, per=1),
    DropOut(keys=("image", "mask"), probability=0.5, per=(2, 0)),
]
NUMBERS = [
    Normalise(keys="image", mean=2.0, std=3.0),
    MinMax(keys="image", low=0, high=20, to=(-1, 1)),
    Log(keys="image", offset=1e-3, base=10),
    LogTanh(keys="image", scale=2),
    Clip(keys="image", high=4),
    Cast(keys="image", dtype="float64"),
]


def named(step):
    return f"{type(step).__name__}"


@pytest.mark.parametrize("step", MOVES + RANDOM + NUMBERS, ids=named)
def test_a_step_on_dense_images_does_what_it_does_on_the_cpu(backend, step):
    for dtype in ("f4", "u2"):
        check(backend, step, images(dtype=dtype), first=4)


@pytest.mark.parametrize("step", MOVES + RANDOM + NUMBERS, ids=named)
def test_a_step_on_sparse_images_does_what_it_does_on_the_cpu(backend, step):
    for channels in (1, 2):
        check(backend, step, sparse_images(channels), first=2)


@pytest.mark.parametrize("step", [MOVES[0], MOVES[2], MOVES[3], RANDOM[0], RANDOM[3], RANDOM[4]], ids=named)
def test_batches_and_images_without_anything_are_treated_too(backend, step):
    for batch in (images(events=0), images(occupancy=0), sparse_images(events=0), sparse_images(occupancy=0)):
        check(backend, step, batch)


@pytest.mark.parametrize("dtype", ["i1", "u4", "i8", "f2", "f8", "?"])
def test_items_of_every_size_are_moved(backend, dtype):
    batch = images(dtype=dtype)
    for step in (MOVES[0], MOVES[2], MOVES[3], RANDOM[4]):
        check(backend, step, batch)


@pytest.mark.parametrize("shape", [(3, 5), (4,), (2, 3, 4, 2), (33, 33), (5, 1, 8)])
def test_images_of_any_number_of_axes_are_moved(backend, shape):
    for occupancy in (0.3, 1):
        batch = images(events=3, shape=shape, occupancy=occupancy)
        step = Translate(keys=("image", "mask"), pixels=2, axes=0, fill=0)
        check(backend, step, batch)
        check(backend, Flip(keys="image", axes=len(shape) - 1), batch)


def test_what_comes_in_is_filled_with_the_number_that_was_given(backend):
    check(backend, Translate(keys="image", pixels=4, fill=-1.5), images())
    check(backend, Pad(keys="mask", shape=(8, 8), axes=(0, 1), value=255), images())
    fails(backend, Pad(keys="mask", shape=(8, 8), axes=(0, 1), value=256), images(), SpecError)
    fails(backend, Pad(keys="image", shape=(8, 8), axes=(0, 1), value=1), sparse_images(), ProcessError)


def test_the_order_of_threads_does_not_matter(backend):
    batch = sparse_images()
    steps = [MOVES[0], MOVES[2], Densify(keys=("image", "mask")), RANDOM[0]]
    for seed in (1, 2, 3):
        backend.seed(seed)
        check(backend, steps, batch)


def test_densify_writes_channels_wherever_they_are_wanted(backend):
    for axis in (0, 1, 2, 3, -1, -4):
        check(backend, Densify(keys="image", channel_axis=axis), sparse_images(3))
    for dtype in ("float16", "float64", "float32"):
        check(backend, Densify(keys="image", dtype=dtype, into="dense"), sparse_images())
    check(backend, Densify(keys=("image", "mask"), channel_axis=0), sparse_images())
    check(backend, Densify(keys="mask"), sparse_images(events=0))


def test_densify_refuses_what_the_cpu_refuses(backend):
    batch = sparse_images()
    fails(backend, Densify(keys="image", dtype="int16"), batch, ProcessError)  # fractions
    fails(backend, Densify(keys="image"), sparse_images(2), SpecError)
    fails(backend, Densify(keys="image", channel_axis=7), batch, SpecError)
    fails(backend, Densify(keys="image"), images(), ProcessError)
    fails(backend, Densify(keys="nothing"), batch, KeyMissingError)
    fails(backend, Densify(keys="image", into="mask"), batch, ProcessError)
    beyond = Sparse(batch["image"].features, batch["image"].indices, (6, 6, 2), 5)
    fails(backend, Densify(keys="image"), {**batch, "image": beyond}, ProcessError)


def test_sparsify_finds_the_sites_of_the_cpu(backend):
    for dtype in ("f4", "u1", "f8", "i4", "f2"):
        batch = images(dtype=dtype)
        check(backend, Sparsify(keys=("image", "mask"), channel_axis=-1), batch)
        check(backend, Sparsify(keys="image", threshold=2.5, into="sites"), batch)
    batch = batch_of(image=np.array([[1, -3, np.nan, 0.1], [0, 0, 2, -0.5]], np.float32))
    check(backend, Sparsify(keys="image", threshold=0.1, absolute=True), batch)
    check(backend, Sparsify(keys="image"), images(events=0))
    wide = batch_of(image=np.array([[1, 2**24]], np.int32))
    fails(backend, Sparsify(keys="image"), wide, ProcessError)
    fails(backend, Sparsify(keys="image"), sparse_images(), ProcessError)


def test_dense_images_come_back_from_their_sites(backend):
    batch = images()
    made = check(backend, [Sparsify(keys="image", channel_axis=-1), Densify(keys="image", channel_axis=-1)], batch)
    np.testing.assert_array_equal(made["image"].cpu().numpy(), batch["image"])


def point_batch(kind="jagged", events=4, dtype="f4", seed=0):
    """Points with energies and labels; the second event has none."""
    random = np.random.default_rng(seed)
    counts = random.integers(0, 40, events)
    if events > 1:
        counts[1] = 0
    longest = int(counts.max(initial=1))
    mask = np.arange(longest) < counts[:, None]
    mask = np.array([random.permutation(row) for row in mask]).reshape(events, longest)
    values = {
        "hits": (random.normal(4, 2, (events, longest, 3))).astype(dtype),
        "energy": random.exponential(1, (events, longest)).astype("f4"),
        "pair": random.normal(size=(events, longest, 2)),
        "track": random.integers(-2, 3, (events, longest)).astype(np.int16),
    }
    if kind == "padded":
        return batch_of(**{key: Padded(value, mask) for key, value in values.items()})
    rows = [np.flatnonzero(row) for row in mask]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    flat = {key: np.concatenate([v[r] for v, r in zip(value, rows)] or [value.reshape(-1, *value.shape[2:])])
            for key, value in values.items()}  # fmt: skip
    return batch_of(**{key: Jagged(value, offsets) for key, value in flat.items()})


VOXELS = [
    Voxelise(points="hits", features="energy", shape=(8, 8, 4), into="voxels"),
    Voxelise(points="hits", features=("energy", "pair"), reduce=("mean", "max"), shape=(6, 6, 6), low=0.5, high=7,
             into="voxels", outside="clip"),
    Voxelise(points="hits", shape=(3, 3, 3), low=0, size=2.5, into="voxels", keep=True, rows_into="rows"),
    Voxelise(points="hits", features="energy", shape=(4, 4, 4), low=0, size=2, into="voxels", labels="track"),
    Voxelise(points="hits", features="pair", shape=(4, 4, 4), low=0, size=2, into="voxels", labels="track",
             labels_into="most", label_by="majority"),
    Histogram(points="hits", bins=(5, 6, 7), ranges=((0, 8), (0, 8), (1, 5)), into="image"),
    Histogram(points="hits", bins=((0, 1, 4, 9), (-1.5, 2, 7), 3), ranges=((0, 1), (0, 1), (1, 5)), weights="energy",
              into="image", outside="clip", last_closed=True, keep=True),
]  # fmt: skip


@pytest.mark.parametrize("step", VOXELS, ids=named)
@pytest.mark.parametrize("kind", ["jagged", "padded"])
def test_points_come_into_the_cells_of_the_cpu(backend, step, kind):
    for dtype in ("f4", "i2"):
        check(backend, step, point_batch(kind, dtype=dtype))


@pytest.mark.parametrize("step", VOXELS, ids=named)
def test_batches_without_points_have_no_voxels(backend, step):
    check(backend, step, point_batch(events=0))
    check(backend, step, point_batch(events=2, seed=1))


@settings(max_examples=8, deadline=None)
@given(st.lists(st.floats(0, 4, width=32), min_size=1, max_size=40), st.integers(1, 7))
def test_points_on_edges_come_into_the_bin_of_the_cpu(places, bins):
    import backends

    found, trouble = backends.find("emulated")
    if found is None:
        pytest.skip(trouble)
    edges = np.linspace(0, 4, bins + 1)
    values = np.concatenate([places, edges, np.nextafter(edges, 9), np.nextafter(edges, -9)])
    batch = batch_of(x=jagged(values, dtype=np.float64))
    with pytest.MonkeyPatch.context() as patch:
        found.use(patch)
        for closed in (False, True):
            step = Histogram(points=("x",), bins=(bins,), ranges=((0, 4),), into="n", last_closed=closed)
            check(found, step, batch)
        check(found, Voxelise(points=("x",), shape=(bins,), low=0, high=4, into="n"), batch)


def test_coordinates_may_be_keys_of_their_own(backend):
    batch = batch_of(
        x=jagged([1, 2, 3], [], [0.5]), y=jagged([3, 2, 2], [], [1.5], dtype=np.int32), e=jagged([1, 2, 3], [], [4])
    )
    check(backend, Voxelise(points=("x", "y"), features="e", shape=(4, 4), into="v"), batch)
    check(backend, Histogram(points=("y", "x"), bins=(2, 3), ranges=((0, 4), (0, 4)), weights="e", into="h"), batch)


def test_points_that_the_cpu_refuses_are_refused(backend):
    batch = batch_of(x=jagged([1, 2], [np.nan]), e=jagged([1], [2, 3]))
    step = Voxelise(points=("x",), shape=(4,), into="v")
    fails(backend, step, batch, ProcessError)
    fails(backend, Histogram(points=("x",), bins=(4,), ranges=((0, 1),), into="v"), batch, ProcessError)
    batch = batch_of(x=jagged([1, 2], [9]), e=jagged([1], [2, 3]))
    fails(backend, Voxelise(points=("x",), shape=(4,), into="v", outside="raise"), batch, ProcessError)
    fails(backend, Voxelise(points=("x",), features="e", shape=(4,), into="v"), batch, ProcessError)
    fails(backend, Voxelise(points="x", shape=(4,), into="v"), batch, ProcessError)
    fails(backend, Voxelise(points=("label",), shape=(4,), into="v"), batch, ProcessError)
    vectors = batch_of(x=jagged([1, 2], [3]), e=jagged([[1, 2], [1, 2]], [[3, 4]], item=(2,)))
    fails(backend, Histogram(points=("x",), bins=(4,), ranges=((0, 1),), weights="e", into="v"), vectors, SpecError)
    labels = Voxelise(points=("x",), features="x", shape=(4,), into="v", labels="x")
    fails(backend, labels, vectors, HepfeedError)


POINTS = [
    FlipPoints(coords="hits", axes=(0, 2), about=(3.5, 0.25)),
    FlipPoints(coords=("track",), axes=0, about=4),
    ShiftPoints(coords="hits", shift=(2, 0, 1.5)),
    ShiftPoints(coords=("track", "energy"), shift=3),
    ScalePoints(coords="hits", low=0.5, high=2, per_axis=True),
    ScalePoints(coords="hits", low=0.5, high=2, about=(1, 2, 3)),
    RotatePoints(coords="hits", axis="z"),
    RotatePoints(coords="hits", axis="any", about=(1, 2, 3), directions=("energy", "track", "energy2")),
    RotatePoints(coords="pair", degrees=30),
    Jitter(coords="hits", sigma=(0.1, 0.2, 0)),
    Jitter(coords=("pair", ("energy", "track")), sigma=0.5),
]


@pytest.mark.parametrize("step", POINTS, ids=named)
def test_points_move_as_they_do_on_the_cpu(backend, step):
    for kind in ("jagged", "padded"):
        for dtype in ("f4", "i4", "f8"):
            batch = point_batch(kind, dtype=dtype)
            check(backend, step, {**batch, "energy2": batch["energy"]}, first=1)
    check(backend, step, {**point_batch(events=0), "energy2": point_batch(events=0)["energy"]})


def test_dense_points_move_as_they_do_on_the_cpu(backend):
    random = np.random.default_rng(0)
    batch = batch_of(vertex=random.normal(size=(4, 3)), hits=random.normal(size=(4, 5, 3)).astype("f4"))
    check(backend, RotatePoints(coords=("vertex", "hits"), axis="x"), batch)
    check(backend, Jitter(coords="hits", sigma=1), batch)
    check(backend, FlipPoints(coords=("hits", "vertex"), axes=1), batch)


def test_points_that_do_not_fit_their_step_are_refused(backend):
    batch = point_batch()
    fails(backend, FlipPoints(coords="hits", axes=3), batch, ProcessError)
    fails(backend, ShiftPoints(coords="hits", shift=(1, 2)), batch, ProcessError)
    fails(backend, ScalePoints(coords="hits", low=1, high=2, about=(1, 2)), batch, ProcessError)
    fails(backend, RotatePoints(coords="hits"), batch, ProcessError)
    fails(backend, RotatePoints(coords="hits", axis="z", directions="pair"), batch, ProcessError)
    fails(backend, Jitter(coords=("hits", "pair"), sigma=1), batch, ProcessError)
    fails(backend, Jitter(coords="label", sigma=1), batch, ProcessError)
    fails(backend, ShiftPoints(coords=("track",), shift=40000), batch, ProcessError)
    other = {"x": jagged([1, 2], [3]), "y": jagged([1], [2, 3])}
    fails(backend, Jitter(coords=("x", "y"), sigma=1), batch_of(**other), ProcessError)


@pytest.mark.parametrize("step", [*NUMBERS, *RANDOM[:3]], ids=named)
def test_numbers_of_points_are_mapped_and_padding_becomes_0(backend, step):
    image = {"image": jagged([1, 2, 3], [], [4, 0.5, 0, 7, 9]), "mask": jagged([0], [1, 1], [])}
    check(backend, step, batch_of(**image))
    values = np.random.default_rng(2).exponential(3, (3, 5, 2)).astype("f4")
    mask = np.array([[1, 0, 1, 1, 0], [0] * 5, [0, 1, 1, 1, 1]], bool)
    values[~mask] = -7  # has no logarithm, and is not there
    if not isinstance(step, Cast):  # which casts the padding as well
        check(backend, step, batch_of(image=padded(mask, values)))
    check(backend, step, batch_of(image=jagged([], [], [])))


def test_channels_have_their_own_parameters_on_any_axis(backend):
    for axis in (0, 2, -1):
        check(backend, Normalise(keys="image", mean=(1, 2), std=(3, 4), axis=axis), images(shape=(2, 3, 2)))
    check(backend, Normalise(keys="image", scale=(1, 2, 3), axis=-1), sparse_images(3))
    check(backend, MinMax(keys="hits", low=(0, 1, 2), high=(5, 6, 7), axis=1), point_batch())
    check(backend, MinMax(keys="hits", low=(0, 1, 2), high=(5, 6, 7), axis=1), point_batch("padded"))
    fails(backend, Normalise(keys="image", scale=(1, 2, 3), axis=-1), images(), ProcessError)
    fails(backend, Normalise(keys="image", scale=(1, 2), axis=5), images(), ProcessError)


def test_neighbours_are_one_pass_and_have_the_bits_of_one_after_another(backend):
    steps = [Clip(keys="image", low=0), Log(keys="image"), Normalise(keys="image", mean=1, std=0.3), RANDOM[0]]
    check(backend, steps, images(), first=3)
    program = DeviceSteps(steps, first=3)._program
    assert [(place, type(step)) for place, step in program] == [(3, Fused), (6, GaussianNoise)]


def test_a_logarithm_of_what_has_none_names_event_and_number(backend):
    batch = images()
    batch["image"][3, 2, 1, 0] = -5
    error = fails(backend, Log(keys="image"), batch, ProcessError)
    assert (error.key, error.event) == ("image", 13)
    fails(backend, [Clip(keys="image", high=9), LogTanh(keys="image")], batch, ProcessError)
    fails(backend, PoissonNoise(keys="image"), batch, ProcessError)
    fails(backend, [Normalise(keys="image", shift=-9), PoissonNoise(keys="image")], images(), ProcessError)


def test_casts_refuse_what_the_cpu_refuses(backend):
    check(backend, Cast(keys=("image", "mask"), dtype="float16"), images())
    check(backend, Cast(keys="image", dtype="int32", rounding="down"), sparse_images())
    check(backend, Cast(keys="track", dtype="int8"), point_batch())
    check(backend, Cast(keys="track", dtype="int64"), point_batch("padded"))
    fails(backend, Cast(keys="image", dtype="uint8"), images(), ProcessError)
    big = batch_of(image=np.array([[1.0], [7e4]], np.float32))
    fails(backend, Cast(keys="image", dtype="float16"), big, ProcessError)
    graph = Graph(np.zeros((2, 0), np.int64), np.zeros(3, np.int64), np.zeros(3, np.int64))
    fails(backend, Cast(keys="graph", dtype="float16"), batch_of(x=np.zeros(2), graph=graph), ProcessError)


def test_keys_are_stacked_selected_renamed_and_dropped(backend):
    batch = batch_of(a=np.arange(3.0), b=np.arange(3, dtype=np.uint16), c=np.arange(3) * 2)
    check(backend, Stack(keys=("a", "b", "c"), into="all"), batch)
    check(backend, Stack(keys=("c", "b"), into="all", dtype="uint16", keep=True), batch)
    check(backend, [Select(keys=("b", "a")), Rename(names={"a": "b", "b": "a"}), Drop(keys="b")], batch)
    points = point_batch("padded")
    check(backend, Stack(keys=("energy", "track"), into="both"), points)
    check(backend, Stack(keys=("energy", "track"), into="both", dtype="float64"), point_batch())
    fails(backend, Stack(keys=("a", "energy"), into="x"), {**batch_of(a=np.zeros(4)), **point_batch()}, ProcessError)
    fails(
        backend, Stack(keys=("x", "y"), into="z"), batch_of(x=jagged([1], [2, 3]), y=jagged([1, 2], [3])), ProcessError
    )
    fails(backend, Stack(keys=("a", "c"), into="x", dtype="int8"), {**batch, "c": np.array([1, 300, 2])}, ProcessError)
    fails(backend, Rename(names={"a": "c"}), batch, ProcessError)
    fails(backend, Drop(keys="z"), batch, KeyMissingError)


def test_classes_become_one_hot_vectors(backend):
    batch = images()
    check(backend, OneHot(classes=2), batch)
    check(backend, OneHot(key="mask", classes=2, into="classes", dtype="uint8"), batch)
    points = point_batch()
    shifted = {**points, "track": Jagged(points["track"].values + 2, points["track"].offsets)}
    check(backend, OneHot(key="track", classes=5, into="which", dtype="float16"), shifted)
    wide = point_batch("padded")
    track = Padded(np.where(wide["track"].mask, wide["track"].values + 2, 99), wide["track"].mask)
    check(backend, OneHot(key="track", classes=5, into="which"), {**wide, "track": track})
    fails(backend, OneHot(key="track", classes=5, into="which"), points, ProcessError)
    fails(backend, OneHot(key="image", classes=5), batch, ProcessError)
    fails(backend, OneHot(classes=1), batch, ProcessError)


def test_parts_are_dropped_alike_or_not_at_all(backend):
    batch = sparse_images()
    other = {**batch, "mask": batch["mask"].take(np.array([0, 1, 2, 4, 3]))}
    fails(backend, RANDOM[3], other, ProcessError)
    fails(backend, RANDOM[3], {**batch, "mask": images()["mask"]}, ProcessError)
    fails(backend, RANDOM[4], {**batch, "mask": images(shape=(6, 7))["mask"]}, ProcessError)
    fails(backend, Rotate90(keys="image", axes=(0, 2)), batch, ProcessError)
    fails(backend, Flip(keys="image", axes=5), batch, ProcessError)


@pytest.mark.parametrize("step", MOVES + RANDOM, ids=named)
def test_a_step_that_moves_to_the_device_keeps_its_random_numbers(backend, step):
    batch = images()
    pipeline = Pipeline([Clip(keys="image", high=9), Cast(keys="mask", dtype="int16"), step])
    wanted = pipeline(batch, draws_of(batch))
    there = on(backend, Pipeline(pipeline.steps[:2])(batch, draws_of(batch)))
    made = DeviceSteps([step], first=2)(there, draws_of(batch))
    for key in wanted:
        same(made[key], wanted[key], key)


def test_steps_may_be_names_and_mappings_as_in_a_specification(backend):
    batch = sparse_images()
    steps = DeviceSteps([{"densify": {"keys": "image"}}, {"log": {"keys": "image", "base": 2}}])
    assert [type(step) for step in steps.steps] == [Densify, Log]
    assert len(steps) == 2
    made = steps(on(backend, batch), draws_of(batch))
    same(made["image"], Log(keys="image", base=2)(Densify(keys="image")(batch, None), None)["image"], "image")
    with pytest.raises(SpecError, match="there is no transform 'densfy': did you mean 'densify'"):
        DeviceSteps([{"densfy": {"keys": "image"}}])


def double(batch):
    return batch


def test_what_no_device_runs_is_refused_when_the_steps_are_made():
    with pytest.raises(SpecError, match=r"Finite: it can't run on a device: .* run Cast, Clip, Crop, Densify, Drop"):
        DeviceSteps([Flip(keys="image", axes=0), Finite()])
    with pytest.raises(SpecError, match="double: it can't run on a device"):
        DeviceSteps([double])
    with pytest.raises(SpecError, match="'cache' is a place among the steps of the readers"):
        DeviceSteps(["cache", Flip(keys="image", axes=0)])
    for at in ("maximum", "box"):
        with pytest.raises(SpecError, match=f"Crop: at='{at}' looks at the images"):
            DeviceSteps([Crop(keys="image", shape=(2, 2), at=at)])
    with pytest.raises(SpecError, match="RotatePoints: about='mean' looks at the points first"):
        DeviceSteps([RotatePoints(coords="hits", about="mean")])


def test_every_step_of_the_registry_is_listed_for_users():
    for kind in set(FUNCTIONS) - {Fused}:
        assert f"``{kind.__name__}``" in DeviceSteps.__doc__


def test_a_batch_must_be_on_one_device(backend):
    steps = DeviceSteps([Flip(keys="image", axes=0)])
    batch = images()
    with pytest.raises(SpecError, match="a batch of tensors on one device was expected, not on none"):
        steps({"image": batch["image"]}, draws_of(batch))
    with pytest.raises(SpecError, match="on one device was expected, not on"):
        steps({**on(backend, batch), "mask": torch.zeros(5, device="meta")}, draws_of(batch))


def test_events_are_taken_from_the_draws_where_the_batch_has_none(backend):
    batch = images()
    there = on(backend, {key: value for key, value in batch.items() if key != "event"})
    made = DeviceSteps([RANDOM[0]])(there, draws_of(batch))
    same(made["image"], RANDOM[0](batch, draws_of(batch))["image"], "image")
    assert "event" not in made


def test_a_check_may_come_later_and_comes_once_something_was_refused(backend):
    batch = images()
    batch["image"][2, 0, 0, 0] = -9
    started = DeviceSteps([Log(keys="image")]).start(on(backend, batch), draws_of(batch))
    assert started.batch["image"].shape == batch["image"].shape
    with pytest.raises(ProcessError, match="must be above 0 for its logarithm"):
        started.check()
    started = DeviceSteps([Log(keys="mask")]).start(on(backend, batch), draws_of(batch))
    started.check()


def test_what_only_the_device_refuses_is_an_error_too(backend):
    batch = sparse_images()
    outside = Sparse(batch["image"].features, batch["image"].indices, (4, 6, 3), 5)
    with pytest.raises(ProcessError, match="the steps Flip refused a batch on the device"):
        DeviceSteps([Flip(keys="image", axes=0, probability=1)])(
            on(backend, {**batch, "image": outside}), draws_of(batch)
        )
    half = {"image": torch.zeros(2, 3, dtype=torch.bfloat16, device=backend.device)}
    with pytest.raises((ProcessError, TypeError)):
        DeviceSteps([Clip(keys="image", low=0)])(half, Draws(0, 0, 0, np.zeros((2, 2), np.int64)))


def test_without_a_device_the_kernels_say_what_to_do(monkeypatch):
    if native.available():
        pytest.skip("there is a device")
    batch = images()
    there = {key: torch.from_numpy(value) for key, value in batch.items()}
    with pytest.raises(SpecError):
        DeviceSteps([RANDOM[0]])(there, draws_of(batch))
