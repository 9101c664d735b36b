"""The pipeline: what is a step, where the cache is, and whose random numbers are drawn."""

import random

import numpy as np
import pytest

from hepfeed.draws import Draws
from hepfeed.errors import SpecError
from hepfeed.pipeline import Pipeline
from hepfeed.transforms import STEPS, Flip, Normalise, step_class


def draws(epoch=0, batch=0, events=2):
    event = np.stack([np.zeros(events, np.int64), np.arange(events)], 1)
    return Draws(7, epoch, batch, event)


def double(batch):
    return {name: values * 2 for name, values in batch.items()}


@pytest.mark.parametrize("name", STEPS)
def test_every_step_has_a_class_that_says_what_it_does(name):
    kind = step_class(name)
    assert kind.__doc__
    assert kind.__module__ == f"hepfeed.transforms.{STEPS[name].partition(':')[0]}"


def test_steps_and_functions_run_in_their_order():
    pipeline = Pipeline([double, {"normalise": {"keys": "x", "shift": 1.0}}, double])
    result = pipeline({"x": np.array([1.0, 2.0], np.float32)}, draws())
    assert result["x"].tolist() == [6.0, 10.0]


def test_the_cache_lies_before_the_first_random_step_unless_it_is_said():
    flip, normalise = Flip(keys="x", axes=(0,)), Normalise(keys="x", scale=2.0)
    assert Pipeline([normalise, flip, normalise]).cached == 1
    assert Pipeline([normalise, normalise]).cached == 2
    assert Pipeline(["cache", normalise, flip]).cached == 0
    assert (Pipeline(normalise) + Pipeline([normalise, "cache", flip])).cached == 2


def test_a_random_step_before_the_cache_is_refused():
    with pytest.raises(SpecError, match="Flip draws random numbers, and comes before the cache point"):
        Pipeline([Flip(keys="x", axes=(0,)), "cache"])


def test_the_cache_can_be_given_once():
    with pytest.raises(SpecError, match="'cache' comes twice"):
        Pipeline(["cache", "cache"])


def test_validation_goes_without_random_steps():
    pipeline = Pipeline([Normalise(keys="x", scale=2.0), "cache", Flip(keys="x", axes=(0,)), double])
    plain = pipeline.without_augmentation()
    assert [type(step).__name__ for step in plain.steps] == ["Normalise", "function"]
    assert plain.cached == 1


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        ({"flop": {}}, "there is no transform 'flop': did you mean 'flip'"),
        ({"flip": {"keys": "x", "axis": 0}}, "transform 'flip': there is no option 'axis'; did you mean 'axes'"),
        ({"flip": {}, "crop": {}}, "a transform is a step, a function"),
        (3, "a transform is a step, a function"),
    ],
)
def test_what_is_no_step_is_refused(transform, message):
    with pytest.raises(SpecError, match=message):
        Pipeline([transform])


def test_a_pipeline_is_written_as_it_is_read():
    written = [{"normalise": {"keys": "x", "scale": 2.0}}, "cache", {"flip": {"keys": ["x", "y"], "axes": [0, 1]}}]
    assert Pipeline(written).to_spec() == written


def test_functions_can_not_be_written():
    with pytest.raises(SpecError, match="can't be saved"):
        Pipeline([double]).to_spec()


def test_a_function_must_return_a_dict():
    with pytest.raises(TypeError, match="len must return a dict of arrays, not int"):
        Pipeline([len])({}, draws())


def test_functions_have_random_numbers_of_the_batch_and_leave_the_callers_alone():
    def draw(batch):
        return {"x": np.array([*np.random.random(3), random.random()])}  # noqa: NPY002

    pipeline = Pipeline([draw])
    before = np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    first = pipeline({}, draws())["x"].tolist()
    assert pipeline({}, draws())["x"].tolist() == first
    assert pipeline({}, draws(epoch=1))["x"].tolist() != first
    assert pipeline({}, draws(batch=1))["x"].tolist() != first
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before  # noqa: NPY002


def test_an_event_has_the_same_random_numbers_in_every_batch():
    flip = Pipeline([Flip(keys="x", axes=(0,))])
    images = np.arange(64.0, dtype=np.float32).reshape(16, 4)
    together = flip({"x": images}, draws(events=16))["x"]
    alone = [flip({"x": images[i : i + 1]}, draws(events=16).take(np.array([i])))["x"][0] for i in range(16)]
    assert (together == np.stack(alone)).all()
    assert 0 < sum((together == images).all(1)) < 16


def test_neighbours_are_done_in_one_pass_with_the_same_bits():
    steps = [
        {"normalise": {"keys": "x", "shift": 1.0, "scale": 3.0}},
        {"log": {"keys": "x"}},
        {"clip": {"keys": "x", "low": 0.5}},
    ]
    image = np.random.default_rng(1).exponential(size=(2, 50)).astype(np.float32)
    pipeline = Pipeline(steps)
    assert (len(pipeline), len(pipeline._before)) == (3, 1)
    one_by_one = {"x": image}
    for step in steps:
        one_by_one = Pipeline([step])(one_by_one, draws())
    assert pipeline({"x": image}, draws())["x"].tobytes() == one_by_one["x"].tobytes()
    divided = Pipeline([steps[0], "cache", *steps[1:]])
    assert (len(divided._before), len(divided._after)) == (1, 1)
