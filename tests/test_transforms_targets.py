"""Targets and one-hot vectors: steps that make what a training predicts."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hepfeed.draws import Draws
from hepfeed.errors import KeyMissingError, ProcessError, SpecError
from hepfeed.pipeline import Pipeline
from hepfeed.tensors import Graph, Jagged, Padded, Sparse
from hepfeed.transforms import OneHot, Target

EVENT = np.array([[0, 10], [0, 11], [2, 7]])
DRAWS = Draws(0, 0, 0, EVENT)


def batch(**keys):
    return {**keys, "label": np.array([0, 1, 1]), "event": EVENT}


def made(step, **keys):
    return step(batch(**keys), DRAWS)[step.name]


def same(array, expected, dtype):
    assert array.dtype == dtype
    np.testing.assert_array_equal(array, expected)


# ---- expressions


def test_a_condition_becomes_0_and_1_of_int64():
    target = Target(name="signal", expression="abs(pdgID) == 11")
    same(made(target, pdgID=np.array([11, -11, 211], np.int16)), [1, 1, 0], np.int64)


def test_a_float_stays_what_it_is_and_dtype_changes_it():
    energies = np.array([[[0.0, 10.5]], [[0.0, 20.0]], [[0.0, 0.1]]])
    same(made(Target(name="e", expression="target[0, 1]"), target=energies), [10.5, 20.0, 0.1], np.float64)
    short = made(Target(name="e", expression="target[0, 1]", dtype="f4"), target=energies)
    same(short, np.array([10.5, 20.0, 0.1], np.float32), np.float32)
    half = made(Target(name="e", expression="log10(x)"), x=np.array([1, 10, 100], np.float32))
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, [0, 1, 2], rtol=1e-6)


def test_an_expression_reads_the_label_other_targets_and_keys_with_dots():
    first = Target(name="hard", expression="jets.pt > 20")
    second = Target(name="both", expression="hard * 10 + label")
    keys = {"jets.pt": np.array([10.0, 30.0, 40.0])}
    after = second(first(batch(**keys), DRAWS), DRAWS)
    same(after["both"], [0, 11, 11], np.int64)
    assert first.needs == ("jets/pt",)
    assert second.needs == ("hard", "label")


def test_the_batch_is_not_changed():
    before = batch(x=np.array([1.0, 2.0, 3.0]))
    after = Target(name="y", expression="x * 2")(before, DRAWS)
    assert "y" not in before
    assert after["x"] is before["x"]


def test_nan_is_an_error_where_it_would_decide_and_passes_where_it_is_the_value():
    x = np.array([1.0, 2.0, np.nan])
    with pytest.raises(ProcessError, match="'signal' is undefined where 'x' is NaN") as caught:
        made(Target(name="signal", expression="x > 1"), x=x)
    assert (caught.value.event, caught.value.file_number) == (7, 2)
    same(made(Target(name="signal", expression="isfinite(x) and x > 1"), x=x), [0, 1, 0], np.int64)
    same(made(Target(name="value", expression="x"), x=x), x, np.float64)


# ---- keys


def test_a_key_is_taken_as_it_is():
    mask = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    same(made(Target(name="mask", key="seg"), seg=mask), mask, np.uint8)
    same(made(Target(name="mask", key="on"), on=mask > 4), (mask > 4).astype(int), np.int64)
    jagged = Jagged(np.array([1.5, 2.5]), np.array([0, 0, 2, 2]))
    assert made(Target(name="t", key="hits"), hits=jagged) is jagged
    graph = Graph(np.zeros((2, 0), np.int64), np.zeros(4, np.int64), np.zeros(4, np.int64))
    assert made(Target(name="t", key="edges"), edges=graph) is graph


def test_items_of_a_key_are_those_of_each_event_or_row():
    rows = np.arange(24).reshape(3, 2, 4)
    same(made(Target(name="t", key="x[1, 1:3]"), x=rows), rows[:, 1, 1:3], np.int64)
    same(made(Target(name="t", key="x[0]"), **{"x[0]": np.zeros(3), "x": rows}), np.zeros(3), np.float64)
    jagged = Jagged(np.arange(6.0).reshape(3, 2), np.array([0, 2, 2, 3]))
    taken = made(Target(name="t", key="x[1]"), x=jagged)
    same(taken.values, [1.0, 3.0, 5.0], np.float64)
    assert taken.offsets is jagged.offsets
    padded = Padded(np.arange(12.0).reshape(3, 2, 2), np.ones((3, 2), bool))
    same(made(Target(name="t", key="x[1]"), x=padded).values, [[1, 3], [5, 7], [9, 11]], np.float64)
    with pytest.raises(SpecError, match=r"\[4\] is not within a row of 'x'"):
        made(Target(name="t", key="x[4]"), x=rows)


# ---- maps


def test_a_map_makes_class_indices_of_values():
    target = Target(name="species", key="pdg", map={11: 0, 211: 1, -11: 0})
    for dtype in (np.int16, np.int64, np.uint16, np.float32):
        values = np.array([11, 211, 11], dtype)
        same(made(target, pdg=values), [0, 1, 0], np.int64)
    same(made(target, pdg=np.array([[11], [-11], [211]])), [[0], [0], [1]], np.int64)
    wide = Target(name="t", key="x", map={-(2**62): 1, 2**62: 2})
    same(made(wide, x=np.array([2**62, -(2**62), 2**62])), [2, 1, 2], np.int64)
    texts = Target(name="t", key="x", map={"nue": 0, "numu": 1, "12": 2})
    same(made(texts, x=np.array([b"numu", b"12", b"nue"])), [1, 2, 0], np.int64)
    floats = Target(name="t", expression="abs(x)", map={1: 0.5, 2: 1}, dtype="float32")
    same(made(floats, x=np.array([-1, 2, 1])), [0.5, 1.0, 0.5], np.float32)
    same(made(Target(name="t", key="x", map={True: 3, False: 4}), x=np.array([True, False, True])), [3, 4, 3], np.int64)


@pytest.mark.parametrize("values", [[11, 12, 13], [11.0, 12.0, np.nan], [11, 2**40, 3]])
def test_an_unknown_value_names_its_event_unless_there_is_a_default(values):
    values = np.array(values)
    with pytest.raises(ProcessError, match=r"'species' has no value for .*, in event 11 of file number 0") as caught:
        made(Target(name="species", key="pdg", map={11: 0}), pdg=values)
    assert (caught.value.event, caught.value.file_number, caught.value.key) == (11, 0, "pdg")
    same(made(Target(name="species", key="pdg", map={11: 0}, default=9), pdg=values), [0, 9, 9], np.int64)
    floats = made(Target(name="species", key="pdg", map={11: 0}, default=0.5), pdg=values)
    same(floats, [0.0, 0.5, 0.5], np.float64)


def test_a_map_reaches_every_point_and_voxel():
    target = Target(name="t", key="x", map={5: 0, 6: 1})
    jagged = Jagged(np.array([5, 6, 6, 5]), np.array([0, 3, 3, 4]))
    same(made(target, x=jagged).values, [0, 1, 1, 0], np.int64)
    sparse = Sparse(np.array([[5], [6]]), np.array([[0, 1], [2, 1]], np.int32), (4,), 3)
    same(made(target, x=sparse).features, [[0], [1]], np.int64)
    padded = Padded(np.array([[5, 99], [6, 6], [99, 99]]), np.array([[True, False], [True, True], [False, False]]))
    same(made(target, x=padded).values, [[0, 0], [1, 1], [0, 0]], np.int64)
    with pytest.raises(ProcessError, match=r"no value for 7 .*event 7 of file number 2"):
        made(target, x=Jagged(np.array([5, 6, 6, 7]), np.array([0, 3, 3, 4])))
    with pytest.raises(ProcessError, match=r"no value for 7 .*event 11 of file number 0"):
        made(target, x=Padded(np.array([[99], [7], [99]]), np.array([[False], [True], [False]])))


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(st.integers(-300, 300), st.integers(-5, 5), min_size=1),
    st.lists(st.integers(-300, 300), min_size=3, max_size=3),
    st.sampled_from([np.int16, np.int32, np.int64, np.float64]),
)
def test_a_map_equals_a_dictionary(table, values, dtype):
    target = Target(name="t", key="x", map=table, default=77)
    same(made(target, x=np.array(values, dtype)), [table.get(value, 77) for value in values], np.int64)


def test_a_batch_without_events_gives_targets_of_no_events():
    empty = {"x": np.zeros(0, np.int64), "label": np.zeros(0, np.int64), "event": np.zeros((0, 2), np.int64)}
    for target in (
        Target(name="t", expression="x > 1"),
        Target(name="t", key="x", map={1: 2}),
        OneHot(classes=3, into="t"),
    ):
        assert len(target(empty, Draws(0, 0, 0, empty["event"]))["t"]) == 0


# ---- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "t"}, "target 't' needs an expression or a key"),
        ({"name": "t", "key": "a", "expression": "b"}, "and not both"),
        ({"name": "t", "expression": "a >"}, "target 'a >', column"),
        ({"name": "t", "expression": "3"}, "names no key"),
        ({"name": "t", "key": "a[1, x]"}, "mixes fields and items"),
        ({"name": "t", "key": "a", "default": 1}, "has a default, which needs a map"),
        ({"name": "t", "key": "a", "map": {}}, "map must map values to numbers"),
        ({"name": "t", "key": "a", "map": {1: "b"}}, "not 1 to 'b'"),
        ({"name": "t", "key": "a", "map": {1: 0, "1": 1}}, "map gives a value twice"),
        ({"name": "label", "key": "a"}, "name can't be 'label'"),
        ({"name": "t", "key": "a", "dtype": "float3"}, "not 'float3'"),
        ({"name": "t", "keys": "a"}, "no option 'keys'; did you mean 'key'"),
    ],
)
def test_a_wrong_target_is_refused_when_it_is_made(options, message):
    with pytest.raises(SpecError) as caught:
        Target(**options)
    assert message in str(caught.value)


def test_what_does_not_fit_the_batch_is_refused():
    with pytest.raises(KeyMissingError, match="the target needs the key 'pdgid'; did you mean 'pdgID'"):
        made(Target(name="t", expression="pdgid == 1"), pdgID=np.zeros(3))
    with pytest.raises(KeyMissingError, match="no key 'y'"):
        made(Target(name="t", key="y"), x=np.zeros(3))
    with pytest.raises(SpecError, match="one value an event, and key 'x' is Jagged"):
        made(Target(name="t", expression="x > 1"), x=Jagged(np.zeros(2), np.array([0, 1, 1, 2])))
    with pytest.raises(ProcessError, match="300"):
        made(Target(name="t", key="x", dtype="int8"), x=np.array([1, 300, 2]))
    with pytest.raises(ProcessError, match=r"0\.5"):
        made(Target(name="t", key="x", dtype="int64"), x=np.array([1.0, 2.0, 0.5]))


# ---- one-hot


def test_one_hot_vectors_are_1_at_the_class():
    one = OneHot(classes=3)
    same(one(batch(), DRAWS)["onehot"], [[1, 0, 0], [0, 1, 0], [0, 1, 0]], np.float32)
    mask = np.array([[[0, 1]], [[1, 1]], [[0, 0]]], np.uint8)
    vectors = OneHot(key="mask", classes=2, into="planes", dtype="uint8")(batch(mask=mask), DRAWS)["planes"]
    same(vectors, [[[[1, 0], [0, 1]]], [[[0, 1], [0, 1]]], [[[1, 0], [1, 0]]]], np.uint8)


def test_one_hot_vectors_of_points_keep_their_form():
    jagged = Jagged(np.array([1, 0]), np.array([0, 0, 1, 2]))
    vectors = OneHot(key="x", classes=2)(batch(x=jagged), DRAWS)["onehot"]
    same(vectors.values, [[0, 1], [1, 0]], np.float32)
    assert vectors.offsets is jagged.offsets
    padded = Padded(np.array([[1, -1], [0, -1], [-1, -1]]), np.array([[1, 0], [1, 0], [0, 0]], bool))
    vectors = OneHot(key="x", classes=2)(batch(x=padded), DRAWS)["onehot"]
    same(vectors.values, [[[0, 1], [0, 0]], [[1, 0], [0, 0]], [[0, 0], [0, 0]]], np.float32)


def test_one_hot_refuses_a_class_that_it_does_not_hold():
    with pytest.raises(ProcessError, match=r"has class 2, .* of 2 classes hold 0 \.\. 1, in event 7 of file number 2"):
        OneHot(key="x", classes=2)(batch(x=np.array([0, 1, 2])), DRAWS)
    with pytest.raises(ProcessError, match="has class -1"):
        OneHot(key="x", classes=2)(batch(x=np.array([0, -1, 0])), DRAWS)
    with pytest.raises(ProcessError, match="integers"):
        OneHot(key="x", classes=2)(batch(x=np.zeros(3)), DRAWS)
    with pytest.raises(SpecError, match="classes"):
        OneHot(classes=0)
    with pytest.raises(SpecError, match="into can't be 'event'"):
        OneHot(classes=2, into="event")


# ---- as parts of a pipeline


def test_targets_survive_json_and_pickling():
    pipeline = Pipeline(
        [
            {"target": {"name": "species", "key": "pdg", "map": {11: 0, 1.5: 1, "a": 2}, "default": 3}},
            {"target": {"name": "signal", "expression": "pdg == 11", "dtype": "float32"}},
            {"one_hot": {"key": "species", "classes": 4, "into": "vector"}},
        ]
    )
    again = Pipeline(json.loads(json.dumps(pipeline.to_spec())))
    assert again.steps == pipeline.steps
    assert again.fingerprint() == pipeline.fingerprint()
    loaded = pickle.loads(pickle.dumps(pipeline))
    result = loaded(batch(pdg=np.array([11.0, 1.5, 8.0])), DRAWS)
    same(result["species"], [0, 1, 3], np.int64)
    same(result["signal"], [1, 0, 0], np.float32)
    same(result["vector"].argmax(1), [0, 1, 3], np.int64)


def test_the_fingerprint_of_a_pipeline_changes_with_any_part():
    steps = [{"target": {"name": "a", "key": "x"}}, {"one_hot": {"classes": 2}}]
    variants = [
        Pipeline(),
        Pipeline(steps),
        Pipeline(steps[::-1]),
        Pipeline([steps[0], "cache", steps[1]]),
        Pipeline([{"target": {"name": "b", "key": "x"}}, steps[1]]),
        Pipeline([*steps, lambda batch: batch]),
        Pipeline([*steps, lambda batch: dict(batch)]),
    ]
    assert len({pipeline.fingerprint() for pipeline in variants}) == len(variants)
