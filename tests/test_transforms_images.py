"""The steps on images: what they do, what goes together, and what they refuse."""

import json
import math
import pickle

import h5py
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hepfeed import images
from hepfeed.draws import Draws
from hepfeed.errors import KeyMissingError, ProcessError, SpecError
from hepfeed.pipeline import Pipeline
from hepfeed.reference import images as reference
from hepfeed.tensors import Graph, Jagged, Padded, Sparse
from hepfeed.transforms import (
    Clip,
    Crop,
    Downsample,
    DropOut,
    Elastic,
    Embed,
    Flip,
    GaussianNoise,
    Log,
    LogTanh,
    MinMax,
    Normalise,
    Pad,
    PoissonNoise,
    Rotate,
    Rotate90,
    Translate,
    Zoom,
)
from hepfeed.transforms.pointwise import Fused, fuse

RANDOM = [
    Flip(keys=("image", "mask"), axes=(0, 1)),
    Rotate90(keys=("image", "mask"), axes=(0, 1)),
    Rotate(keys=("image", "mask"), degrees=40, nearest="mask"),
    Translate(keys=("image", "mask"), pixels=(2, 3), axes=(0, 1)),
    Zoom(keys=("image", "mask"), low=0.7, high=1.4, axes=(0, 1), nearest="mask"),
    Elastic(keys=("image", "mask"), alpha=8, sigma=2, nearest="mask"),
    Crop(keys=("image", "mask"), shape=(5, 4), at="maximum", shift=2),
    Embed(keys=("image", "mask"), shape=(11, 12), at="random"),
    GaussianNoise(keys="image", sigma=0.5),
    PoissonNoise(keys="image", scale=3),
    DropOut(keys=("image", "mask"), probability=0.3),
    DropOut(keys=("image", "mask"), probability=0.3, per=1),
]
names = [type(step).__name__ for step in RANDOM]


def batch_of(events, shape=(8, 8), dtype="f4", occupancy=0.4, seed=0):
    random = np.random.default_rng(seed)
    image = (random.exponential(5, (events, *shape)) * (random.random((events, *shape)) < occupancy)).astype(dtype)
    event = np.stack([np.arange(events) // 4, np.arange(events) * 3], axis=1).astype(np.int64)
    return {"image": image, "mask": (image > 4).astype(np.uint8), "event": event, "label": np.zeros(events, np.int64)}


def draws_of(batch, seed=3, epoch=1, place=0):
    return Draws(seed, epoch, place, batch["event"], step=2)


def run(step, batch, **options):
    """Run a step; what came must not have changed."""
    before = pickle.dumps(batch)
    made = step(batch, draws_of(batch, **options))
    assert pickle.dumps(batch) == before
    assert made is not batch
    return made


def sparse_of(dense, extra=None):
    """The sites of dense images of one channel that are not 0."""
    places = np.argwhere(dense)
    features = dense[tuple(places.T)][:, None]
    return Sparse(features, places.astype(np.int32), dense.shape[1:], len(dense))


def dense_of(sparse):
    out = np.zeros((sparse.batch_size, *sparse.spatial_shape), sparse.features.dtype)
    out[tuple(sparse.indices.T)] = sparse.features[:, 0]
    return out


def assert_ordered(sparse):
    """Sites are unique, in order and within the grid."""
    flat = np.ravel_multi_index(tuple(sparse.indices.T), (sparse.batch_size, *sparse.spatial_shape))
    assert (np.diff(flat) > 0).all()


# ---- all random steps


@pytest.mark.parametrize("step", RANDOM, ids=names)
def test_results_do_not_depend_on_how_events_are_put_into_batches(step):
    batch = batch_of(9)
    whole = run(step, batch)
    order = np.array([4, 0, 8, 7, 1])
    part = run(step, {key: value[order] for key, value in batch.items()}, place=5)
    for key in whole:
        np.testing.assert_array_equal(part[key], whole[key][order])


@pytest.mark.parametrize("step", RANDOM, ids=names)
def test_epochs_and_seeds_give_other_results_and_the_same_ones_again(step):
    batch = batch_of(9)
    first = run(step, batch)["image"]
    np.testing.assert_array_equal(first, run(step, batch)["image"])
    assert (first != run(step, batch, epoch=2)["image"]).any()
    assert (first != run(step, batch, seed=4)["image"]).any()


@pytest.mark.parametrize("step", RANDOM, ids=names)
def test_random_steps_say_so_and_a_specification_holds_them(step):
    assert step.random
    pipeline = Pipeline([step])
    assert pipeline.cached == 0
    assert len(pipeline.without_augmentation()) == 0
    written = json.loads(json.dumps(pipeline.to_spec()))
    assert Pipeline(written).steps == [step]
    assert pickle.loads(pickle.dumps(step)) == step


@pytest.mark.parametrize("step", RANDOM, ids=names)
@pytest.mark.parametrize("events", [0, 1])
@pytest.mark.parametrize("occupancy", [0.0, 0.4])
def test_batches_of_no_event_and_events_of_nothing_go_through(step, events, occupancy):
    made = run(step, batch_of(events, occupancy=occupancy))
    assert len(made["image"]) == events
    if occupancy == 0 and not isinstance(step, GaussianNoise):
        assert not made["image"].any()


@pytest.mark.parametrize("step", RANDOM, ids=names)
def test_a_missing_key_is_named_with_its_neighbours(step):
    batch = batch_of(2)
    batch["imago"] = batch.pop("image")
    with pytest.raises(KeyMissingError, match="no key 'image' at this step: did you mean 'imago'"):
        step(batch, draws_of(batch))


@pytest.mark.parametrize("step", [s for s in RANDOM if not isinstance(s, (GaussianNoise, PoissonNoise))])
def test_images_are_dense_or_sparse(step):
    batch = batch_of(2)
    batch["image"] = Jagged(np.zeros((3, 2)), np.array([0, 1, 3]))
    with pytest.raises(ProcessError, match="'image' must be a dense or sparse image, and is Jagged"):
        step(batch, draws_of(batch))


@pytest.mark.parametrize(
    "step",
    [
        Flip(keys="image", axes=2),
        Rotate90(keys="image", axes=(0, 2)),
        Rotate(keys="image", degrees=3, axes=(0, 2)),
        Zoom(keys="image", low=1, high=2, axes=2),
        Translate(keys="image", pixels=1, axes=2),
        Crop(keys="image", shape=3, axes=2),
        Pad(keys="image", shape=30, axes=2),
        Downsample(keys="image", factor=2, axes=2),
        DropOut(keys="image", probability=0.1, per=2),
    ],
)
def test_an_axis_that_images_lack_is_an_error(step):
    batch = batch_of(2)
    with pytest.raises(ProcessError, match=r"key 'image' must have axes .*2.* counted from 0, and .* shape \(8, 8\)"):
        step(batch, draws_of(batch))


# ---- labels follow geometry


@pytest.mark.parametrize("index", [0, 1, 3, 6, 7, 10, 11])
def test_a_mask_goes_where_its_image_goes(index):
    batch = batch_of(20)
    batch["mask"] = (batch["image"] > 0).astype(np.uint8)
    made = run(RANDOM[index], batch)
    assert made["mask"].dtype == np.uint8
    np.testing.assert_array_equal(made["mask"], made["image"] > 0)


@pytest.mark.parametrize(
    "step",
    [
        Rotate(keys=("image", "mask"), degrees=180, nearest="mask"),
        Zoom(keys=("image", "mask"), low=0.5, high=2, nearest=("mask",)),
        Elastic(keys=("image", "mask"), alpha=20, sigma=3, nearest="mask"),
    ],
)
def test_a_mask_of_labels_keeps_its_labels_and_stays_with_its_image(step):
    batch = batch_of(20, (16, 16))
    smooth = np.hypot(*(np.indices((16, 16)) - 7.2)) + batch["event"][:, 1, None, None]
    batch["image"] = smooth.astype(np.float64)
    batch["mask"] = (batch["image"] * 3).astype(np.int16)
    made = run(step, batch)
    assert made["mask"].dtype == np.int16
    inside = (run(step, {**batch, "image": np.ones((20, 16, 16))})["image"] > 0.999) & (made["mask"] > 0)
    assert inside.sum() > 500
    assert np.abs(made["mask"] / 3.0 - made["image"])[inside].max() < 1.1


# ---- geometry, one by one


def test_flips_reverse_each_axis_about_half_of_the_time():
    batch = {"image": np.tile(np.arange(4).reshape(2, 2), (1000, 1, 1))}
    batch["event"] = np.stack([np.zeros(1000), np.arange(1000)], axis=1).astype(np.int64)
    corner = run(Flip(keys="image", axes=(0, 1)), batch)["image"][:, 0, 0]
    assert (np.bincount(corner) > 200).all()
    certain = run(Flip(keys="image", axes=1, probability=1), batch)["image"]
    np.testing.assert_array_equal(certain, batch["image"][:, :, ::-1])
    assert run(Flip(keys="image", axes=1, probability=0), batch)["image"] is batch["image"]


def test_quarter_turns_are_all_equally_likely():
    batch = batch_of(1000, (3, 3))
    batch["image"][:] = np.arange(9).reshape(3, 3)
    turned = run(Rotate90(keys="image"), batch)["image"]
    seen = {tuple(image.ravel()) for image in turned}
    assert seen == {tuple(np.rot90(np.arange(9.0).reshape(3, 3), k).ravel()) for k in range(4)}
    assert (np.unique(turned[:, 0, 0], return_counts=True)[1] > 200).all()


def test_a_rotation_about_a_fixed_angle_is_the_quarter_turn():
    batch = batch_of(3, (7, 7), "f8")
    for degrees, quarters in ((90, 1), (180, 2), (-90, 3)):
        turned = run(Rotate(keys="image", degrees=(degrees, degrees)), batch)["image"]
        np.testing.assert_allclose(turned, np.rot90(batch["image"], quarters, axes=(1, 2)), atol=1e-12)


def test_rotations_take_floats_and_keep_half_precision_only_where_nearest():
    batch = batch_of(2, dtype="f2")
    assert run(Rotate(keys="image", degrees=9), batch)["image"].dtype == np.float32
    assert run(Rotate(keys="image", degrees=9, order=0), batch)["image"].dtype == np.float16


def test_a_zoom_by_two_of_a_step_by_hand():
    batch = {"image": np.array([[0.0, 1.0, 2.0, 3.0]]), "event": np.zeros((1, 2), np.int64)}
    assert run(Zoom(keys="image", low=2, high=2), batch)["image"].tolist() == [[0.75, 1.25, 1.75, 2.25]]
    assert run(Zoom(keys="image", low=0.5, high=0.5, fill=-1), batch)["image"].tolist() == [[-1, 0.5, 2.5, -1]]


def test_translations_are_within_their_limits_and_reach_them():
    batch = batch_of(300, (9, 9))
    batch["image"][:] = 0
    batch["image"][:, 4, 4] = 1
    moved = np.argwhere(run(Translate(keys="image", pixels=(0, 2)), batch)["image"])
    assert set(moved[:, 1]) == {4}
    assert set(moved[:, 2]) == {2, 3, 4, 5, 6}
    filled = run(Translate(keys="image", pixels=2, fill=7), batch)["image"]
    assert set(np.unique(filled)) == {0, 1, 7}


def test_elastic_distortion_is_that_of_its_twin_also_for_many_events_at_a_time(monkeypatch):
    batch = batch_of(5, (6, 7))
    step = Elastic(keys="image", alpha=9, sigma=1.5)
    draws = draws_of(batch)
    field = reference.elastic_field(draws, (6, 7), 9, 1.5)
    made = run(step, batch)["image"]
    np.testing.assert_allclose(made, reference.warp(batch["image"], (0, 1), 1, field=field), atol=1e-4)
    monkeypatch.setattr("hepfeed.transforms.elastic._FIELD_ITEMS", 100)
    np.testing.assert_array_equal(run(step, batch)["image"], made)


def test_crops_by_hand():
    image = np.zeros((1, 6, 5))
    image[0, 1, 4], image[0, 5, 0] = 9, 2
    batch = {"image": image, "event": np.zeros((1, 2), np.int64)}

    def cropped(**options):
        return run(Crop(keys="image", **options), batch)["image"]

    np.testing.assert_array_equal(cropped(shape=(3, 2)), image[:, 1:4, 1:3])
    np.testing.assert_array_equal(cropped(shape=(3, 3), at="maximum"), image[:, 0:3, 2:5])
    np.testing.assert_array_equal(cropped(shape=(2, 5), at="box"), image[:, 2:4])
    np.testing.assert_array_equal(cropped(shape=(2, 2), at=(4, 0)), image[:, 4:6, 0:2])
    np.testing.assert_array_equal(cropped(shape=2, axes=1, at="maximum"), image[:, :, 3:5])
    padded = cropped(shape=(2, 9))
    np.testing.assert_array_equal(padded, np.pad(image[:, 2:4], ((0, 0), (0, 0), (2, 2))))


@pytest.mark.parametrize("at", ["maximum", "box"])
def test_the_window_of_an_event_of_nothing_is_in_the_centre(at):
    batch = {"image": np.zeros((1, 9)), "place": np.arange(9.0)[None], "event": np.zeros((1, 2), np.int64)}
    made = run(Crop(keys=("image", "place"), shape=3, at=at), batch)
    assert made["place"].tolist() == [[3, 4, 5]]


def test_shifted_windows_stay_within_the_image_and_reach_every_shift():
    count = 400
    image = np.tile(np.arange(1.0, 11.0), (count, 1))
    batch = {"image": image, "event": np.stack([np.zeros(count), np.arange(count)], axis=1).astype(np.int64)}
    step = Crop(keys="image", shape=4, shift=2)
    assert step.random
    assert set(run(step, batch)["image"][:, 0]) == {2, 3, 4, 5, 6}
    assert set(run(Crop(keys="image", shape=4, at="maximum", shift=2), batch)["image"][:, 3]) == {9, 10}
    assert not Crop(keys="image", shape=4).random


@given(st.lists(st.integers(1, 6), min_size=1, max_size=3), st.data())
@settings(max_examples=40, deadline=None)
def test_a_crop_at_the_centre_undoes_a_pad(shape, data):
    larger = tuple(n + data.draw(st.integers(0, 5)) for n in shape)
    batch = batch_of(2, tuple(shape), occupancy=1)
    for image in (batch["image"], sparse_of(batch["image"])):
        some = {"image": image, "event": batch["event"]}
        padded = run(Pad(keys="image", shape=larger), some)
        back = run(Crop(keys="image", shape=tuple(shape)), padded)["image"]
        np.testing.assert_array_equal(dense_of(back) if isinstance(back, Sparse) else back, batch["image"])


def test_pad_and_embed_by_hand():
    batch = {"image": np.array([[1, 2]], np.int16), "event": np.zeros((1, 2), np.int64)}
    assert run(Pad(keys="image", shape=5, value=7), batch)["image"].tolist() == [[7, 1, 2, 7, 7]]
    assert run(Embed(keys="image", shape=5, at=(3,), value=7), batch)["image"].tolist() == [[7, 7, 7, 1, 2]]
    assert not Embed(keys="image", shape=5, at=(3,)).random


def test_random_places_are_all_that_fit():
    batch = batch_of(300, (2,), occupancy=1)
    made = run(Embed(keys="image", shape=5, at="random"), batch)["image"]
    assert set((made != 0).argmax(axis=1)) == {0, 1, 2, 3}
    np.testing.assert_array_equal(made[made != 0].reshape(-1, 2), batch["image"])


def test_coarser_images_by_hand():
    batch = {"image": np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float16)[None], "event": np.zeros((1, 2), np.int64)}
    assert run(Downsample(keys="image", factor=2), batch)["image"].tolist() == [[[14, 22]]]
    assert run(Downsample(keys="image", factor=(1, 4), reduce="mean"), batch)["image"].tolist() == [[[2.5], [6.5]]]
    assert run(Downsample(keys="image", factor=2, axes=0, reduce="max"), batch)["image"].tolist() == [[[5, 6, 7, 8]]]
    made = run(Downsample(keys="image", factor=3, axes=1, partial=True), batch)["image"]
    assert made.tolist() == [[[6, 4], [18, 8]]]
    assert made.dtype == np.float32
    with pytest.raises(ProcessError, match=r"not whole blocks of \(1, 3\)") as caught:
        run(Downsample(keys="image", factor=3, axes=1), batch)
    assert caught.value.key == "image"


# ---- sparse images do as dense ones

SPARSE = [
    Flip(keys="image", axes=(0, 1)),
    Rotate90(keys="image", axes=(0, 1)),
    Rotate90(keys="image", axes=(1, 0)),
    Translate(keys="image", pixels=3),
    Translate(keys="image", pixels=3, axes=1),
    Crop(keys="image", shape=(3, 4)),
    Crop(keys="image", shape=(3, 4), at="maximum", shift=1),
    Crop(keys="image", shape=(3, 12), at="box"),
    Crop(keys="image", shape=4, at="maximum", axes=1),
    Pad(keys="image", shape=(9, 11)),
    Embed(keys="image", shape=(9, 11), at=(1, 2)),
    Embed(keys="image", shape=(9, 11), at="random"),
    Downsample(keys="image", factor=2),
    Downsample(keys="image", factor=(4, 2), reduce="mean"),
    Downsample(keys="image", factor=(4, 2), reduce="max"),
    Downsample(keys="image", factor=3, reduce="mean", partial=True),
    Downsample(keys="image", factor=(1, 8), reduce="max", axes=(0, 1)),
    DropOut(keys="image", probability=0.4, per=0),
    DropOut(keys="image", probability=0.4, per=(0, 1)),
    Rotate(keys="image", degrees=(90, 90), order=0),
    Rotate(keys="image", degrees=(-90, -90), order=0),
]


@pytest.mark.parametrize("step", SPARSE, ids=lambda step: f"{type(step).__name__}")
@pytest.mark.parametrize("occupancy", [0.0, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("dtype", ["f4", "f2", "i4"])
def test_sparse_images_give_what_dense_ones_give(step, occupancy, dtype):
    batch = batch_of(12, occupancy=occupancy)
    sign = np.where(np.random.default_rng(1).random(batch["image"].shape) < 0.3, -1, 1)
    dense = (np.round(batch["image"] * 4) * sign).astype(dtype)
    expected = run(step, {**batch, "image": dense})["image"]
    made = run(step, {**batch, "image": sparse_of(dense)})["image"]
    assert made.batch_size == 12
    assert_ordered(made)
    assert made.features.dtype == expected.dtype
    np.testing.assert_array_equal(dense_of(made), expected)


def test_sparse_zooms_keep_the_sum_and_labels_keep_their_values():
    batch = batch_of(6, (16, 16))
    batch["image"][:, :4] = batch["image"][:, -4:] = batch["image"][:, :, :4] = batch["image"][:, :, -4:] = 0
    some = {"image": sparse_of(np.round(batch["image"] * 8)), "event": batch["event"]}
    made = run(Zoom(keys="image", low=0.4, high=1.3, order=0), some)["image"]
    assert_ordered(made)
    np.testing.assert_array_equal(dense_of(made).sum(axis=(1, 2)), dense_of(some["image"]).sum(axis=(1, 2)))
    labels = run(Zoom(keys="image", low=0.4, high=0.5, nearest="image"), some)["image"]
    assert set(np.unique(labels.features)) <= set(np.unique(some["image"].features))


def test_dropped_sites_go_and_the_others_stay():
    batch = batch_of(40, occupancy=1)
    sparse = sparse_of(batch["image"])
    made = run(DropOut(keys="image", probability=0.25), {**batch, "image": sparse})["image"]
    assert_ordered(made)
    assert 0.7 < len(made.features) / len(sparse.features) < 0.8
    kept = dense_of(made)
    np.testing.assert_array_equal(kept, np.where(kept != 0, batch["image"], 0))


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Rotate(keys="image", degrees=5), "order 0 and fill 0 only"),
        (Zoom(keys="image", low=1, high=2, order=0, fill=1), "order 0 and fill 0 only"),
        (Elastic(keys="image", alpha=1, sigma=1), "densify it first"),
        (Pad(keys="image", shape=(9, 9), value=1), "filled with 0 only"),
        (Downsample(keys="image", factor=3), "not whole blocks"),
    ],
)
def test_what_sparse_images_cannot_do_is_an_error(step, message):
    batch = batch_of(2)
    with pytest.raises(ProcessError, match=message):
        step({**batch, "image": sparse_of(batch["image"])}, draws_of(batch))


# ---- functions of one number


def forms():
    """The same numbers 1 .. 6 of two events, in every form."""
    rows = np.arange(1, 7, dtype=np.float32).reshape(3, 2)
    padded = np.zeros((2, 2, 2), np.float32)
    padded[0, 0], padded[1] = rows[0], rows[1:]
    mask = np.array([[True, False], [True, True]])
    indices = np.array([[0, 4], [1, 0], [1, 3]], np.int32)
    return {
        "dense": rows.reshape(3, 2),
        "jagged": Jagged(rows, np.array([0, 1, 3])),
        "padded": Padded(padded, mask),
        "sparse": Sparse(rows, indices, (5,), 2),
    }


def numbers_of(value):
    if isinstance(value, Jagged):
        return value.values
    if isinstance(value, Padded):
        assert not value.values[~value.mask].any()
        return value.values[value.mask]
    return value.features if isinstance(value, Sparse) else value


@pytest.mark.parametrize("form", ["dense", "jagged", "padded", "sparse"])
@pytest.mark.parametrize(
    ("options", "function"),
    [
        ((Normalise, {"scale": 2, "shift": 1}), lambda x: 2 * x + 1),
        ((Normalise, {"mean": 3, "std": 4}), lambda x: (x - 3) / 4),
        ((Normalise, {"mean": [3, 1], "std": [4, 0.5], "axis": -1}), lambda x: (x - [3, 1]) / [4, 0.5]),
        ((MinMax, {"low": 1, "high": 5, "to": (-1, 1)}), lambda x: (x - 3) / 2),
        ((Log, {"base": 10}), lambda x: np.log10(x + 1)),
        ((Log, {"offset": 0, "base": 2}), np.log2),
        ((LogTanh, {"scale": 2}), lambda x: np.tanh(np.log(1 + x / 2))),
        ((Clip, {"low": 2, "high": 4.5}), lambda x: np.clip(x, 2, 4.5)),
    ],
)
def test_every_form_of_numbers_is_mapped(form, options, function):
    kind, given = options
    value = forms()[form]
    made = kind(keys="x", **given)({"x": value}, None)["x"]
    assert type(made) is type(value)
    assert numbers_of(made).dtype == np.float32
    np.testing.assert_allclose(numbers_of(made), function(numbers_of(value).astype("f8")), rtol=2e-7, atol=1e-7)


def test_axes_of_channels_count_from_both_ends_and_never_along_rows():
    for form, axis in (("dense", 0), ("jagged", 1), ("padded", 1), ("sparse", 1)):
        value = forms()[form]
        step = Normalise(keys="x", shift=(1, 2), axis=axis)
        np.testing.assert_array_equal(numbers_of(step({"x": value}, None)["x"]), numbers_of(value) + np.array([1, 2]))
    for form, axis in (("dense", 1), ("dense", -2), ("jagged", 0), ("padded", -2), ("sparse", 0)):
        with pytest.raises(ProcessError, match=f"axis {axis} of the events of key 'x' holds no channels"):
            Normalise(keys="x", shift=(1, 2), axis=axis)({"x": forms()[form]}, None)
    with pytest.raises(ProcessError, match="parameters for 3 channels") as caught:
        Normalise(keys="x", shift=(1, 2, 3), axis=-1)({"x": forms()["jagged"]}, None)
    assert caught.value.key == "x"


@pytest.mark.parametrize(
    ("dtype", "expected"), [("f2", "f4"), ("f4", "f4"), ("f8", "f8"), ("u1", "f4"), ("i8", "f4"), ("?", "f4")]
)
def test_the_type_of_results(dtype, expected):
    made = Clip(keys="x", low=0)({"x": np.ones((2, 3), dtype)}, None)["x"]
    assert made.dtype == expected


@pytest.mark.parametrize("value", [np.array(["a"]), Graph(np.zeros((2, 0)), np.zeros(2), np.zeros(2)), "text"])
def test_what_holds_no_numbers_is_an_error(value):
    with pytest.raises(ProcessError, match="key 'x' must hold"):
        Clip(keys="x", low=0)({"x": value}, None)


@pytest.mark.parametrize(("step", "bad"), [(Log(keys="image"), -1), (LogTanh(keys="image", scale=2), -2)])
def test_a_logarithm_of_too_little_names_the_event(step, bad):
    batch = batch_of(6)
    batch["image"][5, 3, 2] = bad
    with pytest.raises(
        ProcessError, match=rf"key 'image': x .*{float(bad)!r}.* in event 15 of file number 1"
    ) as caught:
        step(batch, draws_of(batch))
    assert (caught.value.event, caught.value.key) == (15, "image")


def test_negative_numbers_count_as_zero_where_asked():
    x = np.array([[-5.0, 0.0, 3.0]])
    assert Log(keys="x", on_negative="clip")({"x": x}, None)["x"].tolist() == [[0, 0, pytest.approx(math.log(4))]]
    assert LogTanh(keys="x", on_negative="clip")({"x": x}, None)["x"].tolist() == [[0, 0, pytest.approx(15 / 17)]]


def test_padding_is_never_refused():
    value = Padded(np.array([[2.0, 0.0]]), np.array([[True, False]]))
    made = Log(keys="x", offset=0)({"x": value}, None)["x"]
    assert made.values.tolist() == [[math.log(2), 0]]


FIGURES = {
    "image": {"mean": 2.0, "std": 4.0, "minimum": 0.0, "maximum": 8.0, "active": {"mean": 5.0, "std": 2.0}},
    "hits": {"mean": [1.0, 2.0], "std": [0.5, 4.0], "minimum": [0, 0], "maximum": [2, 4], "channel_axis": 1},
}


@pytest.mark.parametrize("suffix", [None, "yaml", "json"])
def test_statistics_come_from_a_mapping_or_a_file_that_is_read_once(suffix, tmp_path):
    given = FIGURES
    if suffix:
        given = tmp_path / f"lcd.{suffix}"
        document = {"version": 1, "keys": FIGURES}
        given.write_text(yaml.safe_dump(document) if suffix == "yaml" else json.dumps(document))
    step = Normalise(keys=("image", "hits"), statistics=given)
    active = Normalise(keys="image", statistics=given, values="active")
    scaled = MinMax(keys=("image", "hits"), statistics=given)
    if suffix:
        given.unlink()
    batch = {"image": np.full((1, 3), 6.0), "hits": forms()["jagged"]}
    made = step(batch, None)
    assert made["image"].tolist() == [[1.0] * 3]
    np.testing.assert_allclose(made["hits"].values, (batch["hits"].values - [1, 2]) / [0.5, 4])
    assert active(batch, None)["image"].tolist() == [[0.5] * 3]
    assert scaled(batch, None)["image"].tolist() == [[0.75] * 3]
    np.testing.assert_allclose(scaled(batch, None)["hits"].values, batch["hits"].values / [2, 4])
    assert Pipeline(json.loads(json.dumps(Pipeline([step]).to_spec()))).steps == [step]


# ---- fusion

CHAIN = [
    Clip(keys=("image", "other"), high=20),
    Log(keys=("image", "other")),
    Normalise(keys=("image", "other"), mean=(0.3, 0.7), std=(1.1, 0.9), axis=0),
    LogTanh(keys=("image", "other"), scale=3, on_negative="clip"),
]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "u1"])
def test_fused_steps_give_the_same_bits_as_one_after_another(dtype):
    batch = batch_of(5, (2, 300), dtype)
    batch["other"] = batch["image"][:, :, :7]
    (fused,) = fuse(CHAIN)
    assert isinstance(fused, Fused)
    expected = batch
    for step in CHAIN:
        expected = step(expected, None)
    made = run(fused, batch)
    for key in ("image", "other"):
        assert made[key].dtype == expected[key].dtype
        np.testing.assert_array_equal(made[key], expected[key])


def test_only_neighbours_on_the_same_keys_and_channels_are_fused():
    flip, clip, log = Flip(keys="image", axes=0), Clip(keys="image", low=0), Log(keys="image")
    first, last = Normalise(keys="image", shift=(1, 2), axis=0), Normalise(keys="image", shift=(1, 2), axis=1)

    def function(batch):
        return batch

    kinds = [
        type(step) for step in fuse([clip, flip, log, clip, function, first, clip, last, Clip(keys="mask", low=0)])
    ]
    assert kinds == [Clip, Flip, Fused, type(function), Fused, Normalise, Clip]
    assert fuse([flip, clip]) == [flip, clip]
    assert [len(step.steps) for step in fuse(fuse([clip, log, clip]))] == [3]


def test_a_fused_step_that_refuses_tells_what_came_to_the_logarithm():
    batch = batch_of(2)
    batch["image"][1, 0, 0] = -7
    (fused,) = fuse([Normalise(keys="image", scale=0.5, shift=1), Log(keys="image", offset=2.5)])
    with pytest.raises(
        ProcessError, match=r"x \+ 2.5 must be above 0 for its logarithm, and x is -2.5.* in event 3 of"
    ):
        fused(batch, draws_of(batch))


# ---- noise


def test_noise_is_that_of_the_twin_in_every_form():
    value = forms()
    event = np.array([[0, 1], [0, 2]])
    for key in ("jagged", "padded", "sparse"):
        draws = Draws(1, 2, 3, event, 4)
        made = GaussianNoise(keys="x", sigma=2)({"x": value[key]}, draws)["x"]
        rows = numbers_of(value[key])
        expected = reference.gaussian_noise(rows, np.array([0, 2, 6]), draws, 2)
        np.testing.assert_allclose(numbers_of(made), expected, rtol=1e-6)
        made = PoissonNoise(keys="x", scale=0.5)({"x": value[key]}, draws)["x"]
        np.testing.assert_array_equal(
            numbers_of(made), reference.poisson_noise(rows, np.array([0, 2, 6]), draws, 0.5)[0]
        )


def test_keys_have_noise_of_their_own():
    batch = {"a": np.zeros((3, 50)), "b": np.zeros((3, 50)), "event": batch_of(3)["event"]}
    made = run(GaussianNoise(keys=("a", "b"), sigma=1), batch)
    assert not (made["a"] == made["b"]).any()
    np.testing.assert_array_equal(made["a"], run(GaussianNoise(keys="a", sigma=1), batch)["a"])


def test_noise_only_where_there_is_something():
    batch = batch_of(4, (40, 40), occupancy=0.03)
    plain = run(GaussianNoise(keys="image", sigma=0.5), batch)["image"]
    active = run(GaussianNoise(keys="image", sigma=0.5, only_active=True), batch)["image"]
    np.testing.assert_array_equal(active, np.where(batch["image"] != 0, plain, 0))


def test_a_negative_mean_of_poisson_noise_names_the_event():
    batch = batch_of(6)
    batch["image"][4, 0, 0] = -0.5
    with pytest.raises(
        ProcessError, match=r"must be from 0 to 1.1e\+12, and x is -0.5: .*in event 12 of file number 1"
    ):
        run(PoissonNoise(keys="image"), batch)


def test_dropped_parts_are_whole_slices_or_pixels():
    batch = {"image": np.ones((50, 6, 5, 3), np.float32), "event": batch_of(50)["event"]}
    slices = run(DropOut(keys="image", probability=0.3, per=1), batch)["image"]
    assert np.ptp(slices, axis=(1, 3)).max() == 0
    pixels = run(DropOut(keys="image", probability=0.3, per=(1, 0)), batch)["image"]
    assert np.ptp(pixels, axis=3).max() == 0
    assert np.ptp(pixels, axis=1).max() == 1
    apart = run(DropOut(keys="image", probability=0.3, per=(0, 2)), batch)["image"]
    assert np.ptp(apart, axis=2).max() == 0
    for made in (slices, pixels, apart, run(DropOut(keys="image", probability=0.3), batch)["image"]):
        assert 0.6 < made.mean() < 0.8


# ---- options


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Flip(keys=(), axes=0), "keys must name one key or more"),
        (lambda: Flip(keys="x", axes=()), "axes must be different numbers from 0"),
        (lambda: Flip(keys="x", axes=(0, 0)), "axes must be different numbers from 0"),
        (lambda: Flip(keys="x", axes=-1), "axes must be different numbers from 0"),
        (lambda: Flip(keys="x", axes=1.5), "must be whole numbers"),
        (lambda: Flip(keys="x", axes=0, probability=1.5), "probability must be from 0 to 1"),
        (lambda: Flip(keys="x", axes=0, probabilty=1), "no option 'probabilty'; did you mean 'probability'"),
        (lambda: Rotate90(keys="x", axes=(0, 1, 2)), "the two of a plane"),
        (lambda: Rotate(keys="x", degrees=-3), "degrees must be"),
        (lambda: Rotate(keys="x", degrees=(3, math.inf)), "degrees must be"),
        (lambda: Rotate(keys="x", degrees=3, order=2), "order"),
        (lambda: Rotate(keys="x", degrees=3, nearest="y"), "nearest has 'y', which is none of keys"),
        (lambda: Zoom(keys="x", low=0, high=2), "range of factors above 0"),
        (lambda: Zoom(keys="x", low=2, high=1), "range of factors above 0"),
        (lambda: Elastic(keys="x", alpha=-1, sigma=1), "alpha must be"),
        (lambda: Elastic(keys="x", alpha=1, sigma=0), "sigma must be"),
        (lambda: Translate(keys="x", pixels=-1), "pixels must be whole numbers from 0"),
        (lambda: Translate(keys="x", pixels=(1, 2, 3), axes=(0, 1)), "one number or one for each of axes"),
        (lambda: Crop(keys="x", shape=0), "lengths must be whole numbers from 1"),
        (lambda: Crop(keys="x", shape=(2, 2), axes=0), "one length for each of axes"),
        (lambda: Crop(keys="x", shape=2, at="middle"), "at"),
        (lambda: Crop(keys="x", shape=2, at=(1, 2)), "at must have one number"),
        (lambda: Crop(keys="x", shape=2, shift=-1), "shift must be a whole number from 0"),
        (lambda: Pad(keys="x", shape=(2, 2), axes=0), "one length for each of axes"),
        (lambda: Embed(keys="x", shape=2, at=(-1,)), "at must have one number from 0"),
        (lambda: Downsample(keys="x", factor=0), "lengths must be whole numbers from 1"),
        (lambda: Downsample(keys="x", factor=(2, 2), axes=0), "one number or one for each of axes"),
        (lambda: Normalise(keys="x"), "one of the three"),
        (lambda: Normalise(keys="x", scale=2, mean=1, std=1), "one of the three"),
        (lambda: Normalise(keys="x", mean=1), "given together"),
        (lambda: Normalise(keys="x", mean=1, std=0), "std must be above 0"),
        (lambda: Normalise(keys="x", scale=(1, 2)), "give the axis of the channels"),
        (lambda: Normalise(keys="x", scale=2, axis=0), "no option is for each channel"),
        (lambda: Normalise(keys="x", mean=(1, 2), std=(1, 2, 3), axis=0), "must be of one length"),
        (lambda: Normalise(keys="x", scale=math.nan), "finite numbers"),
        (lambda: Normalise(keys="x", statistics={"y": {"mean": 1, "std": 1}}), "no statistics of key 'x'"),
        (lambda: Normalise(keys="x", statistics={"x": {"mean": 1}}), "lack 'std'"),
        (lambda: Normalise(keys="x", statistics={"x": {"mean": 1, "std": 0}}), "std must be above 0"),
        (lambda: Normalise(keys="x", statistics={"x": {"mean": 1, "std": 2}}, values="active"), "lack 'mean'"),
        (lambda: Normalise(keys="x", statistics="/nowhere.yaml"), "can't be read"),
        (lambda: Normalise(keys="x", statistics=5), "a path or a mapping"),
        (lambda: MinMax(keys="x", low=1), "one of the two"),
        (lambda: MinMax(keys="x", low=1, high=1), "low must be below high"),
        (lambda: MinMax(keys="x", low=0, high=1, to=(2, 2)), "two numbers that differ"),
        (lambda: Log(keys="x", base=3), "base"),
        (lambda: Log(keys="x", offset=0, on_negative="clip"), "offset must be above 0"),
        (lambda: Log(keys="x", offset=math.nan), "finite number"),
        (lambda: LogTanh(keys="x", scale=0), "scale must be a number above 0"),
        (lambda: Clip(keys="x"), "give low, high or both"),
        (lambda: Clip(keys="x", low=2, high=1), "low must not be above high"),
        (lambda: Clip(keys="x", low=math.nan), "low must not be above high"),
        (lambda: GaussianNoise(keys="x", sigma=-1), "sigma must be"),
        (lambda: PoissonNoise(keys="x", scale=0), "scale must be"),
        (lambda: DropOut(keys="x", probability=2), "probability must be"),
        (lambda: DropOut(keys="x", probability=0.5, per="wire"), "whole numbers"),
    ],
)
def test_wrong_options_are_found_when_the_step_is_made(make, message):
    with pytest.raises(SpecError, match=message):
        make()


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Rotate90(keys="wide"), "equal lengths along axes"),
        (Translate(keys="image", pixels=(1, 2, 3)), "has 3 numbers, and key 'image' has 2 axes"),
        (Crop(keys="image", shape=(1, 2, 3)), "has 3 lengths, and key 'image' has 2 axes"),
        (Crop(keys=("image", "wide"), shape=(2, 2)), "'image' and 'wide' must have the same lengths"),
        (Crop(keys="image", shape=(5, 5), at=(4, 0)), r"a window of \(5, 5\) at \(4, 0\) is not within"),
        (Pad(keys="image", shape=(9, 7)), r"must fit into \(9, 7\)"),
        (Embed(keys="image", shape=(9, 9), at=(2, 0)), r"must fit into \(9, 9\) at \(2, 0\)"),
        (Downsample(keys="image", factor=(2, 2, 2)), "has 3 numbers, and key 'image' has 2 axes"),
        (Zoom(keys="deep", low=1, high=2), "has 4 axes, and at most 3"),
        (Elastic(keys=("image", "wide"), alpha=1, sigma=1), "must have the same lengths"),
        (DropOut(keys=("image", "wide"), probability=0.1), "must have the same lengths"),
        (DropOut(keys="complex", probability=0.1), "items of 1, 2, 4 or 8 bytes"),
        (Downsample(keys="complex", factor=2), "must be integers or floats"),
        (Rotate(keys="complex", degrees=3), "must be integers or floats"),
    ],
)
def test_images_that_do_not_fit_the_options_are_an_error(step, message):
    batch = batch_of(2)
    batch["wide"] = np.zeros((2, 8, 9))
    batch["deep"] = np.zeros((2, 3, 3, 3, 3))
    batch["complex"] = np.zeros((2, 8, 8), np.complex128)
    with pytest.raises(ProcessError, match=message):
        step(batch, draws_of(batch))


def test_a_fill_that_does_not_fit_the_type_is_an_error():
    batch = batch_of(2)
    with pytest.raises(SpecError, match="images of uint8 can't be filled with 300"):
        run(Pad(keys="mask", shape=(9, 9), value=300), batch)


# ---- from a file, and large


def test_the_pipeline_of_a_file_of_images(tmp_path):
    random = np.random.default_rng(0)
    ecal = (random.exponential(1, (10, 6, 6, 4)) * (random.random((10, 6, 6, 4)) < 0.2)).astype(np.float16)
    with h5py.File(tmp_path / "events.h5", "w") as file:
        file["ECAL"] = ecal
    with h5py.File(tmp_path / "events.h5") as file:
        batch = {"ECAL": file["ECAL"][2:9], "event": np.stack([np.zeros(7), np.arange(2, 9)], axis=1).astype(np.int64)}
    pipeline = Pipeline(
        [
            {"downsample": {"keys": "ECAL", "factor": [2, 2, 1]}},
            {"log": {"keys": "ECAL"}},
            "cache",
            {"flip": {"keys": "ECAL", "axes": [0, 1]}},
        ]
    )
    draws = Draws(0, 0, 0, batch["event"])
    made = pipeline(batch, draws)["ECAL"]
    coarse = ecal[2:9].astype(np.float64).reshape(7, 3, 2, 3, 2, 4).sum(axis=(2, 4))
    flags = np.zeros((7, 3), bool)
    flags[:, :2] = draws.at(2).uniform(2) < 0.5
    np.testing.assert_allclose(made, reference.flip(np.log1p(coarse), flags), rtol=1e-6)


def test_an_event_of_a_million_hits_goes_through():
    hits = np.full((1_000_000, 1), 3.0, np.float32)
    batch = {"x": Jagged(hits, np.array([0, 0, 1_000_000])), "event": np.array([[0, 0], [0, 1]])}
    made = run(PoissonNoise(keys="x"), run(Log(keys="x"), run(GaussianNoise(keys="x", sigma=0.1), batch)))["x"]
    assert made.values.shape == (1_000_000, 1)
    assert abs(made.values.mean() - math.log(4)) < 0.01


def test_the_functions_on_arrays_take_views_and_other_byte_orders():
    batch = batch_of(3)
    for image in (batch["image"][::2], batch["image"][:, :, ::-1], batch["image"].astype(">f4")):
        made = images.window(image, np.zeros((len(image), 2), np.int64), (8, 8))
        np.testing.assert_array_equal(made, image)
