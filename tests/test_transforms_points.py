"""Steps that move, mirror, scale and drop points."""

import numpy as np
import pytest
from step_batches import batch_of, draws_of, jagged, padded, part_of

from hepfeed.errors import KeyMissingError, ProcessError, SpecError
from hepfeed.pipeline import Pipeline
from hepfeed.tensors import Jagged
from hepfeed.transforms import DropPoints, FlipPoints, Jitter, RotatePoints, ScalePoints, ShiftPoints


def cloud(lengths=(3, 0, 1, 40, 3), width=3, dtype=np.float32):
    """Points of random places, different in every event."""
    rng = np.random.default_rng(1)
    return jagged(*(rng.normal(size=(n, width)) for n in lengths), dtype=dtype, item=(width,))


STEPS = [
    Jitter(coords="xyz", sigma=0.1),
    RotatePoints(coords="xyz", axis="z"),
    RotatePoints(coords="xyz", axis="any", about="mean"),
    RotatePoints(coords="xyz", axis="any", degrees=20),
    FlipPoints(coords="xyz", axes=(0, 2)),
    ShiftPoints(coords="xyz", shift=(1, 2, 0)),
    ScalePoints(coords="xyz", low=0.5, high=2),
    DropPoints(keys="xyz", probability=0.5),
]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
class TestEveryStep:
    def test_an_event_gets_the_same_in_any_batch(self, step):
        batch = batch_of(xyz=cloud())
        whole = step(batch, draws_of(batch))["xyz"]
        for events in ([3, 0], [1], [4, 2, 1]):
            part = part_of(batch, events)
            made = step(part, draws_of(part, number=7))["xyz"]
            for i, e in enumerate(events):
                assert made[i].tolist() == whole[e].tolist()

    def test_it_changes_with_seed_epoch_and_event_and_not_with_the_batch(self, step):
        batch = batch_of(xyz=jagged(*([np.arange(60)] * 6), item=(3,)))

        def made(draws):
            return step(batch, draws)["xyz"]

        first = made(draws_of(batch))
        assert first.values.tolist() == made(draws_of(batch, number=5)).values.tolist()
        assert first.values.tolist() != made(draws_of(batch, seed=1)).values.tolist()
        assert first.values.tolist() != made(draws_of(batch, epoch=1)).values.tolist()
        assert len({first[e].tobytes() for e in range(6)}) > 2

    def test_what_came_stays_as_it_was(self, step):
        batch = batch_of(xyz=cloud())
        before = batch["xyz"].values.copy()
        batch["xyz"].values.flags.writeable = False  # as a view of shared memory may be
        keys = dict(batch)
        made = step(batch, draws_of(batch))
        assert (batch["xyz"].values == before).all()
        assert batch == keys
        assert made is not batch

    def test_batches_without_events_or_without_points_go_through(self, step):
        for lengths in ((), (0,), (0, 0)):
            batch = batch_of(xyz=cloud(lengths) if lengths else Jagged(np.zeros((0, 3), "f4"), np.zeros(1, np.int64)))
            made = step(batch, draws_of(batch))["xyz"]
            assert made.values.shape == (0, 3)
            assert made.events == len(lengths)

    def test_padded_points_are_treated_as_jagged_ones(self, step):
        batch = batch_of(xyz=cloud((2, 0, 3)))
        mask = np.arange(3) < np.array([2, 0, 3])[:, None]
        values = np.full((3, 3, 3), 0, np.float32)
        values[mask] = batch["xyz"].values
        both = batch_of(xyz=padded(mask, values))
        expected = step(batch, draws_of(batch))["xyz"]
        made = step(both, draws_of(both))["xyz"]
        assert made.mask.sum(1).tolist() == expected.lengths().tolist()
        assert made.values[made.mask].tolist() == expected.values.tolist()
        assert (made.values[~made.mask] == 0).all()

    def test_it_is_random_and_survives_a_specification(self, step):
        assert step.random
        written = Pipeline([step]).to_spec()
        assert Pipeline(written).steps == [step]

    def test_a_missing_key_is_named_with_its_neighbours(self, step):
        batch = batch_of(xyz_=cloud())
        with pytest.raises(KeyMissingError, match=r"no key 'xyz' at this step: did you mean 'xyz_'\?"):
            step(batch, draws_of(batch))


def test_components_move_as_vectors_do():
    batch = batch_of(xyz=cloud())
    for axis, name in enumerate("xyz"):
        batch[name] = Jagged(batch["xyz"].values[:, axis].copy(), batch["xyz"].offsets)
    for step in STEPS[:-1]:
        both = step.model_copy(update={"coords": ("x", "y", "z")})
        expected = step(batch, draws_of(batch))["xyz"].values
        made = both(batch, draws_of(batch))
        assert np.stack([made[name].values for name in "xyz"], axis=-1).tolist() == expected.tolist()


def test_types_of_results_are_floats_that_hold_the_numbers():
    expected = {"f2": "f4", "f4": "f4", "f8": "f8", "i2": "f4", "i4": "f8", "u1": "f4", ">f4": "f4"}
    for given, dtype in expected.items():
        batch = batch_of(x=jagged([[1, 2]], [[3, 4], [5, 6]], dtype=given, item=(2,)))
        made = RotatePoints(coords="x", degrees=(90, 90))(batch, draws_of(batch))["x"].values
        assert made.dtype == np.dtype(dtype)
        assert made == pytest.approx(np.array([[-2, 1], [-4, 3], [-6, 5]]))


# ---- jitter


def test_jitter_has_the_standard_deviation_of_each_axis():
    batch = batch_of(x=jagged(np.zeros((20_000, 2)), np.ones((1, 2)), dtype="f8", item=(2,)))
    made = Jitter(coords="x", sigma=(0.5, 3))(batch, draws_of(batch))["x"]
    assert made[0].std(0) == pytest.approx([0.5, 3], rel=0.02)
    assert made[0].mean(0) == pytest.approx([0, 0], abs=0.08)
    assert abs(np.corrcoef(made[0].T)[0, 1]) < 0.03


def test_jitter_takes_its_numbers_from_the_draws_of_each_event():
    batch = batch_of(x=jagged(np.zeros((3, 2)), np.zeros((1, 2)), dtype="f8", item=(2,)))
    draws = draws_of(batch)
    made = Jitter(coords="x", sigma=2)(batch, draws)["x"]
    assert made[0].ravel().tolist() == (2 * draws.take(np.array([0])).normal(6)[0]).tolist()
    assert made[1].ravel().tolist() == (2 * draws.take(np.array([1])).normal(2)[0]).tolist()


def test_several_keys_of_the_same_points_jitter_alike_and_of_others_not_at_all():
    batch = batch_of(a=cloud(), b=cloud(), c=cloud((1, 1, 1, 1, 1)))
    made = Jitter(coords=("a", "b"), sigma=1)(batch, draws_of(batch))
    assert (made["a"].values == made["b"].values).all()
    with pytest.raises(ProcessError, match="'a' and 'c' have different points"):
        Jitter(coords=("a", "c"), sigma=1)(batch, draws_of(batch))


# ---- rotation


@pytest.mark.parametrize(
    ("options", "x", "y", "z"),
    [
        ({"axis": "z"}, (0, 1, 0), (-1, 0, 0), (0, 0, 1)),
        ({"axis": "x"}, (1, 0, 0), (0, 0, 1), (0, -1, 0)),
        ({"axis": "y"}, (0, 0, -1), (0, 1, 0), (1, 0, 0)),
        ({"plane": (1, 0)}, (0, -1, 0), (1, 0, 0), (0, 0, 1)),
    ],
)
def test_a_quarter_turn_is_right_handed(options, x, y, z):
    batch = batch_of(xyz=jagged(np.eye(3), dtype="f8", item=(3,)))
    made = RotatePoints(coords="xyz", degrees=(90, 90), **options)(batch, draws_of(batch))["xyz"].values
    assert made == pytest.approx(np.array([x, y, z]), abs=1e-15)


def test_points_turn_about_a_centre_and_directions_do_not():
    batch = batch_of(
        hits=jagged([[1, 1], [3, 1]], [[10, 0]], item=(2,)),
        vertex=np.array([[2, 2], [10, 1]], np.float32),
        direction=np.array([[1, 0], [0, 1]], np.float32),
    )
    options = {"degrees": (90, 90), "directions": "direction"}
    made = RotatePoints(coords=("hits", "vertex"), about="mean", **options)(batch, draws_of(batch))
    assert made["hits"].values == pytest.approx(np.array([[2, 0], [2, 2], [10, 0]]), abs=1e-6)
    assert made["vertex"] == pytest.approx(np.array([[1, 1], [9, 0]]), abs=1e-6)
    assert made["direction"] == pytest.approx(np.array([[0, 1], [-1, 0]]), abs=1e-6)
    made = RotatePoints(coords="hits", about=(1, 0), **options)(batch, draws_of(batch))
    assert made["hits"].values == pytest.approx(np.array([[0, 0], [0, 2], [1, 9]]), abs=1e-6)


def test_angles_are_uniform_between_their_limits():
    batch = batch_of(x=np.tile([[1.0, 0.0]], (4000, 1)))
    for degrees, low, high in ((30, -30, 30), ((10, 50), 10, 50), (None, -180, 180)):
        made = RotatePoints(coords="x", degrees=degrees)(batch, draws_of(batch))["x"]
        angles = np.sort(np.degrees(np.arctan2(made[:, 1], made[:, 0])))
        assert low <= angles[0]
        assert angles[-1] <= high
        expected = low + (high - low) * (np.arange(4000) + 0.5) / 4000
        assert np.abs(angles - expected).max() < 0.04 * (high - low)


def test_any_rotation_is_uniform_on_the_rotation_group():
    batch = batch_of(
        a=np.tile([[1.0, 0, 0]], (6000, 1)), b=np.tile([[0, 1.0, 0]], (6000, 1)), c=np.tile([[0, 0, 1.0]], (6000, 1))
    )
    made = RotatePoints(coords=("a", "b", "c"), axis="any")(batch, draws_of(batch))
    columns = np.stack([made[name] for name in "abc"], axis=-1)
    assert np.einsum("nij,nik->njk", columns, columns) == pytest.approx(np.tile(np.eye(3), (6000, 1, 1)), abs=1e-12)
    assert np.linalg.det(columns) == pytest.approx(np.ones(6000))
    # Under the Haar measure every entry is uniform in [-1, 1], and the angle a has the density (1 - cos a) / pi.
    for i in range(3):
        for j in range(3):
            assert np.abs(np.sort(columns[:, i, j]) - (2 * (np.arange(6000) + 0.5) / 6000 - 1)).max() < 0.07
    angle = np.sort(np.arccos(np.clip((np.trace(columns, axis1=1, axis2=2) - 1) / 2, -1, 1)))
    assert np.abs((angle - np.sin(angle)) / np.pi - (np.arange(6000) + 0.5) / 6000).max() < 0.03


def test_a_limited_turn_about_any_axis_stays_within_its_angle():
    batch = batch_of(a=np.tile(np.eye(3), (500, 1, 1)))
    made = RotatePoints(coords="a", axis="any", degrees=(20, 20))(batch, draws_of(batch))["a"]
    assert np.trace(made, axis1=1, axis2=2) == pytest.approx(np.full(500, 1 + 2 * np.cos(np.radians(20))))


def test_rotations_that_do_not_fit_the_points_are_refused():
    batch = batch_of(x=cloud(width=2), y=cloud(width=3), label_=np.zeros((5, 4), np.float32))
    for options, words in [
        ({"coords": "x", "axis": "z"}, "needs points of 3 coordinates, and those of key 'x' have 2"),
        ({"coords": "y"}, "have 3 coordinates: give axis"),
        ({"coords": "x", "plane": (0, 2)}, "not within the 2 coordinates"),
        ({"coords": "x", "about": (1, 2, 3)}, "about has 3 coordinates"),
        ({"coords": ("x", "y")}, "same number of coordinates, and have 2 and 3"),
        ({"coords": "x", "directions": "label_"}, "directions of key 'label_' have 4"),
        ({"coords": "label"}, "must hold vectors"),
    ]:
        with pytest.raises(ProcessError, match=words):
            RotatePoints(**options)(batch, draws_of(batch))


# ---- flip


def test_a_flip_mirrors_axes_for_themselves():
    batch = batch_of(x=jagged(*([[[1, 2, 3]]] * 400), item=(3,)))
    made = FlipPoints(coords="x", axes=(0, 2), about=(0, 5))(batch, draws_of(batch))["x"].values
    found, counts = np.unique(made, axis=0, return_counts=True)
    assert found.tolist() == [[-1, 2, 3], [-1, 2, 7], [1, 2, 3], [1, 2, 7]]
    assert counts.min() > 70


def test_a_certain_flip_twice_is_nothing_and_probability_0_too():
    batch = batch_of(x=cloud(), d=cloud())
    step = FlipPoints(coords="x", axes=1, probability=1, about=0.5, directions="d")
    once = step(batch, draws_of(batch))
    assert once["x"].values[:, 1] == pytest.approx(1 - batch["x"].values[:, 1])
    assert (once["d"].values[:, 1] == -batch["d"].values[:, 1]).all()
    twice = step(once, draws_of(batch))
    assert twice["x"].values == pytest.approx(batch["x"].values, abs=1e-6)
    never = FlipPoints(coords="x", axes=1, probability=0)(batch, draws_of(batch))
    assert (never["x"].values == batch["x"].values).all()


def test_cell_numbers_stay_integers_when_they_are_mirrored():
    batch = batch_of(cell=jagged([[0, 1], [3, 9]], dtype=np.uint8, item=(2,)))
    made = FlipPoints(coords="cell", axes=1, probability=1, about=4.5)(batch, draws_of(batch))["cell"].values
    assert made.dtype == np.uint8
    assert made.tolist() == [[0, 8], [3, 0]]
    with pytest.raises(ProcessError, match=r"key 'cell' has -1, which uint8 can't hold.* event 10 of file"):
        FlipPoints(coords="cell", axes=1, probability=1)(batch, draws_of(batch))
    made = FlipPoints(coords="cell", axes=1, probability=1, about=0.25)(batch, draws_of(batch))["cell"].values
    assert made.tolist() == [[0, -0.5], [3, -8.5]]


# ---- shift and scale


def test_all_points_of_an_event_shift_alike_and_within_limits():
    batch = batch_of(x=jagged(*([[[0, 0], [5, 5]]] * 2000), dtype="f8", item=(2,)))
    made = ShiftPoints(coords="x", shift=(3, 0))(batch, draws_of(batch))["x"].values.reshape(2000, 2, 2)
    assert made[:, 1] - made[:, 0] == pytest.approx(np.full((2000, 2), 5))
    assert (made[:, 0, 1] == 0).all()
    assert np.abs(np.sort(made[:, 0, 0]) - (6 * (np.arange(2000) + 0.5) / 2000 - 3)).max() < 0.3


def test_integers_shift_by_whole_numbers():
    batch = batch_of(x=jagged(*([[[10, 10]]] * 900), dtype=np.int16, item=(2,)))
    made = ShiftPoints(coords="x", shift=(1, 0.5))(batch, draws_of(batch))["x"].values
    assert made.dtype == np.int16
    found, counts = np.unique(made, axis=0, return_counts=True)
    assert found.tolist() == [[9, 10], [10, 10], [11, 10]]
    assert counts.min() > 240


def test_points_scale_about_their_centre():
    batch = batch_of(x=jagged([[1, 1], [3, 5]], [[4, 4]], dtype="f8", item=(2,)))
    made = ScalePoints(coords="x", low=2, high=2, about="mean")(batch, draws_of(batch))["x"].values
    assert made.tolist() == [[0, -1], [4, 7], [4, 4]]
    made = ScalePoints(coords="x", low=2, high=2, about=(1, 0))(batch, draws_of(batch))["x"].values
    assert made.tolist() == [[1, 2], [5, 10], [7, 8]]
    many = batch_of(x=np.ones((3000, 2)))
    for per_axis in (False, True):
        factors = ScalePoints(coords="x", low=0.5, high=1.5, per_axis=per_axis)(many, draws_of(many))["x"]
        assert (factors[:, 0] == factors[:, 1]).all() != per_axis
        assert np.abs(np.sort(factors[:, 0]) - (0.5 + (np.arange(3000) + 0.5) / 3000)).max() < 0.04


# ---- drop


def test_keys_lose_the_same_points_and_keep_their_order():
    rows = [np.arange(200), [], np.arange(1000, 1300)]
    batch = batch_of(a=jagged(*rows), b=jagged(*rows, dtype=np.int64))
    made = DropPoints(keys=("a", "b"), probability=0.3)(batch, draws_of(batch))
    assert made["a"].values.tolist() == made["b"].values.tolist()
    assert made["b"].values.dtype == np.int64
    assert made["a"].lengths().tolist() == made["b"].lengths().tolist()
    kept = made["a"].lengths()
    assert kept[1] == 0
    assert 110 < kept[0] < 170
    assert 175 < kept[2] < 245
    assert (np.diff(made["a"][2]) > 0).all()


def test_at_least_so_many_points_stay():
    batch = batch_of(a=jagged([1], [], np.arange(100), np.arange(3)))
    made = DropPoints(keys="a", probability=0.9999, at_least=4)(batch, draws_of(batch))["a"]
    assert made.lengths().tolist() == [1, 0, 4, 3]
    made = DropPoints(keys="a", probability=0.9999, at_least=0)(batch, draws_of(batch))["a"]
    assert made.lengths().tolist() == [0, 0, 0, 0]


def test_points_that_stay_are_those_of_large_random_numbers():
    batch = batch_of(a=jagged(np.arange(10)))
    u = draws_of(batch).uniform(10)[0]
    made = DropPoints(keys="a", probability=0.6)(batch, draws_of(batch))["a"]
    assert made.values.tolist() == np.flatnonzero(u >= 0.6).tolist()
    made = DropPoints(keys="a", probability=0.9999, at_least=3)(batch, draws_of(batch))["a"]
    assert made.values.tolist() == sorted(np.argsort(u)[-3:].tolist())


def test_keys_of_different_points_or_none_are_refused():
    batch = batch_of(a=jagged([1, 2], [3]), b=jagged([1], [2, 3]), c=np.zeros(2))
    with pytest.raises(ProcessError, match="'a' and 'b' must have the same points"):
        DropPoints(keys=("a", "b"), probability=0.5)(batch, draws_of(batch))
    with pytest.raises(ProcessError, match=r"key 'c' must be jagged or padded points, and is dense \(2,\) float64"):
        DropPoints(keys="c", probability=0.5)(batch, draws_of(batch))


def test_a_million_hits_and_one_hit_share_a_batch():
    batch = batch_of(x=jagged(np.zeros((1_000_000, 2)), [[1, 1]], item=(2,)))
    made = RotatePoints(coords="x", about="mean")(batch, draws_of(batch))
    made = Jitter(coords="x", sigma=0.1)(made, draws_of(batch))
    made = DropPoints(keys="x", probability=0.5)(made, draws_of(batch))["x"]
    assert made.lengths()[1] == 1
    assert abs(int(made.lengths()[0]) - 500_000) < 3000


@pytest.mark.parametrize(
    ("step", "options", "words"),
    [
        (Jitter, {"coords": "x", "sigma": -1}, "sigma must be 0 or more"),
        (Jitter, {"coords": "x", "sigma": float("nan")}, "sigma must be 0 or more"),
        (Jitter, {"coords": (), "sigma": 1}, "coords must name one key or more"),
        (Jitter, {"coords": ("x", ("y", "x")), "sigma": 1}, "coords has 'x' twice"),
        (Jitter, {"coords": ("x", ()), "sigma": 1}, "empty group"),
        (Jitter, {"coords": "x", "sigme": 1}, "no option 'sigme'; did you mean 'sigma'"),
        (RotatePoints, {"coords": "x", "axis": "z", "plane": (0, 1)}, "axis or plane, not both"),
        (RotatePoints, {"coords": "x", "plane": (1, 1)}, "two different axes"),
        (RotatePoints, {"coords": "x", "degrees": (5, 1)}, "degrees must be"),
        (RotatePoints, {"coords": "x", "degrees": -5}, "degrees must be"),
        (FlipPoints, {"coords": "x", "axes": ()}, "axes must be different numbers"),
        (FlipPoints, {"coords": "x", "axes": (1, 1)}, "axes must be different numbers"),
        (FlipPoints, {"coords": "x", "axes": -1}, "axes must be different numbers"),
        (FlipPoints, {"coords": "x", "axes": 0, "probability": 1.5}, "probability must be from 0 to 1"),
        (FlipPoints, {"coords": "x", "axes": (0, 1), "about": (1.0,)}, "one for each of axes"),
        (ShiftPoints, {"coords": "x", "shift": (-1, 0)}, "shift must be 0 or more"),
        (ScalePoints, {"coords": "x", "low": 2, "high": 1}, "0 < low <= high"),
        (ScalePoints, {"coords": "x", "low": 0, "high": 1}, "0 < low <= high"),
        (DropPoints, {"keys": "x", "probability": 1}, "from 0 to below 1"),
        (DropPoints, {"keys": "x", "probability": 0.1, "at_least": -1}, "at_least must be 0 or more"),
        (DropPoints, {"keys": ("x", "x"), "probability": 0.1}, "keys has 'x' twice"),
    ],
)  # fmt: skip
def test_wrong_options_are_told_when_the_step_is_made(step, options, words):
    with pytest.raises(SpecError, match=words):
        step(**options)


def test_numbers_of_axes_must_fit_the_points():
    batch = batch_of(x=cloud(width=2))
    for step, words in [
        (Jitter(coords="x", sigma=(1, 2, 3)), "sigma has 3 numbers, and points of key 'x' have 2"),
        (ShiftPoints(coords="x", shift=(1, 2, 3)), "shift has 3 numbers, and points of key 'x' have 2"),
        (FlipPoints(coords="x", axes=2), r"axes \(2,\) are not within the 2 coordinates of key 'x'"),
    ]:
        with pytest.raises(ProcessError, match=words):
            step(batch, draws_of(batch))
