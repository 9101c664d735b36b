"""Weights of events: rules, and cases that were worked by hand."""

import json
import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hepfeed.errors import KeyMissingError, SpecError
from hepfeed.weight_rules import read_rule
from hepfeed.weights import event_weights, weight_keys

CLASSES = {"b": 0, "light": 1}


def weigh(rule, label, classes=CLASSES, **columns):
    arrays = {name: np.array(values, np.float64) for name, values in columns.items()}
    weights = event_weights(rule, arrays, np.array(label, np.int64), classes)
    assert weights.dtype == np.float32
    return weights


def expect(weights, expected):
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


# ---- single rules


def test_a_key_and_an_expression_are_the_weight():
    expect(weigh("w", [0, 1], w=[2.0, -3.0]), [2, -3])
    expect(weigh("abs(mc.w) / 2", [0, 1], **{"mc/w": [2.0, -3.0]}), [1, 1.5])
    expect(weigh("jets.w", [0, 1], **{"jets.w": [2.0, 3.0]}), [2, 3])


def test_a_class_becomes_flat_and_keeps_its_sum():
    # Class 0 has 3 events in [0, 1) and 1 in [1, 2]: 2 in each are wanted.  Class 1 is flat.
    weights = weigh({"flat": "x", "bins": [0, 1, 2]}, [0, 0, 0, 0, 1, 1], x=[0.1, 0.2, 0.3, 1.5, 0.5, 2.0])
    expect(weights, [2 / 3, 2 / 3, 2 / 3, 2, 1, 1])


def test_flat_means_equal_density_in_bins_of_any_width():
    # Widths 1 and 3: of 4 events 1 and 3 are wanted.
    expect(weigh({"flat": "x", "bins": [0, 1, 4]}, [0] * 4, x=[0.5, 0.5, 2, 3]), [0.5, 0.5, 1.5, 1.5])


def test_an_empty_bin_takes_no_part():
    expect(weigh({"flat": "x", "bins": [0, 1, 2, 3]}, [0] * 3, x=[0.5, 0.5, 2.5]), [0.75, 0.75, 1.5])


def test_all_classes_together_become_flat():
    rule = {"flat": "x", "bins": 2, "range": [0, 2], "per": "all"}
    expect(weigh(rule, [0, 0, 1, 1], x=[0.5, 0.5, 0.5, 1.5]), [2 / 3, 2 / 3, 2 / 3, 2])


def test_two_variables_become_flat_together():
    rule = {"flat": ["x", "y"], "bins": [[0, 1, 2], 2], "range": [None, [0, 4]]}
    # Cells of one size: (0, 0) has 2 events, (0, 1) and (1, 1) one each, (1, 0) none.
    expect(weigh(rule, [0] * 4, x=[0, 0, 0, 1], y=[0, 1, 2, 4]), [2 / 3, 2 / 3, 4 / 3, 4 / 3])


def test_classes_get_the_shape_of_the_reference():
    rule = {"to": "b", "variables": "pt", "bins": [0, 10, 20]}
    # b: 3 and 1 events; light: 1 and 3.  light gets 3/4 and 1/4 of its sum of 4.
    label, pt = [0, 0, 0, 0, 1, 1, 1, 1], [5, 5, 5, 15, 5, 15, 15, 15]
    expect(weigh(rule, label, pt=pt), [1, 1, 1, 1, 3, 1 / 3, 1 / 3, 1 / 3])


def test_bins_that_the_reference_lacks_get_weight_0_and_a_warning(caplog):
    rule = {"to": "b", "variables": "pt", "bins": [0, 10, 20]}
    with caplog.at_level(logging.WARNING, "hepfeed"):
        expect(weigh(rule, [0, 1, 1, 1], pt=[5, 5, 15, 15]), [1, 3, 0, 0])
    assert caplog.messages == [
        "weights: 2 of 4 events lie in bins where the reference class has no events of pt and get weight 0"
    ]


def test_events_outside_the_bins_get_weight_0_or_that_of_the_edge(caplog):
    columns = {"x": [-5.0, 0.5, 1.5, 1.5, np.inf]}
    with caplog.at_level(logging.WARNING, "hepfeed"):
        expect(weigh({"flat": "x", "bins": [0, 1, 2]}, [0] * 5, **columns), [0, 1.5, 0.75, 0.75, 0])
    assert "2 of 5 events lie outside the bins of x and get weight 0" in caplog.text
    caplog.clear()
    edge = {"flat": "x", "bins": [0, 1, 2], "outside": "edge"}
    expect(weigh(edge, [0] * 5, **columns), [1.25, 1.25, 5 / 6, 5 / 6, 5 / 6])
    assert not caplog.messages


def test_the_range_is_that_of_the_finite_data_by_default():
    expect(weigh({"flat": "x", "bins": 2}, [0] * 3, x=[0, 0.5, 2]), [0.75, 0.75, 1.5])
    expect(weigh({"flat": "x", "bins": 3}, [0] * 2, x=[7, 7]), [1, 1])


def test_classes_get_equal_sums_or_given_factors():
    expect(weigh({"classes": "balanced"}, [0, 0, 0, 1]), [2 / 3, 2 / 3, 2 / 3, 2])
    expect(weigh({"classes": {"light": 2.5}}, [0, 1, 1]), [1, 2.5, 2.5])
    expect(weigh({"classes": {"11": 0.0}}, [3, 1], classes={11: 3, 22: 1}), [0, 1])


def test_the_mean_weight_becomes_1():
    expect(weigh(["w", {"normalise": "all"}], [0, 0, 1, 1], w=[1, 1, 2, 4]), [0.5, 0.5, 1, 2])
    expect(weigh(["w", {"normalise": "class"}], [0, 0, 1, 1], w=[1, 3, 2, 4]), [0.5, 1.5, 2 / 3, 4 / 3])


# ---- several rules


def test_each_rule_sees_the_weights_of_those_before():
    # Sums of w in the bins: 3 and 1; half of 4 in each is wanted.
    rules = ["w", {"flat": "x", "bins": [0, 1, 2]}]
    expect(weigh(rules, [0, 0, 0], w=[1, 2, 1], x=[0.5, 0.5, 1.5]), [2 / 3, 4 / 3, 2])
    expect(weigh(["w", {"classes": "balanced"}], [0, 0, 1], w=[1, 2, 1]), [2 / 3, 4 / 3, 2])


def test_a_class_without_weight_stays_without():
    expect(weigh([{"classes": {"b": 0}}, {"classes": "balanced"}], [0, 1, 1]), [0, 1, 1])
    expect(weigh([{"classes": {"b": 0}}, {"flat": "x", "bins": 2}], [0, 1, 1], x=[0, 0, 1]), [0, 1, 1])
    expect(weigh([{"classes": {"b": 0}}, {"normalise": "class"}], [0, 1, 1]), [0, 1, 1])


def test_no_events_have_no_weights():
    for rule in ("w", {"flat": "w"}, {"to": "b", "variables": "w"}, {"classes": "balanced"}, {"normalise": "all"}):
        assert weigh(rule, [], w=[]).shape == (0,)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_weighted_distributions_are_equal_where_both_have_events(data):
    count = data.draw(st.integers(20, 60))
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    label = np.concatenate([[0] * 5, [1] * 5, random.integers(0, 2, count)])
    # Every class has events in every bin.
    x = np.concatenate([np.arange(5) + 0.5, np.arange(5) + 0.5, random.uniform(0, 5, count)])
    weights = weigh({"to": "b", "variables": "x", "bins": 5, "range": [0, 5]}, label, x=x).astype(float)
    shapes = [np.histogram(x[label == c], 5, (0, 5), weights=weights[label == c])[0] for c in (0, 1)]
    np.testing.assert_allclose(shapes[0] / shapes[0].sum(), shapes[1] / shapes[1].sum(), rtol=1e-5)
    np.testing.assert_allclose(weights[label == 0], 1, rtol=1e-6)
    flat = weigh({"flat": "x", "bins": 5, "range": [0, 5]}, label, x=x).astype(float)
    for c in (0, 1):
        contents = np.histogram(x[label == c], 5, (0, 5), weights=flat[label == c])[0]
        np.testing.assert_allclose(contents, np.count_nonzero(label == c) / 5, rtol=1e-5)


# ---- how rules are written


def test_the_keys_of_a_rule_are_those_of_its_expressions():
    assert weight_keys("abs(w)") == ("w",)
    rules = ["mc.w", {"flat": ["jets.pt", "abs(jets.eta)"]}, {"to": "b", "variables": "E"}, {"classes": "balanced"}]
    assert weight_keys(rules) == ("E", "jets/eta", "jets/pt", "mc/w")


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("w", "w"),
        (["w"], ["w"]),
        ({"flat": ("x",), "bins": 50, "per": "class"}, {"flat": "x"}),
        ({"bins": np.array([0, 1.5]), "flat": ["x"]}, {"flat": "x", "bins": [0.0, 1.5]}),
        ({"flat": ["x", "y"], "bins": (np.int64(3), [0, 1])}, {"flat": ["x", "y"], "bins": [3, [0, 1]]}),
        (({"to": "b", "variables": "x"},), [{"to": "b", "variables": "x"}]),
        ({"classes": {"b": 2}}, {"classes": {"b": 2.0}}),
        ({"classes": "balanced"}, {"classes": "balanced"}),
        ({"normalise": "all"}, {"normalise": "all"}),
    ],
)
def test_a_rule_has_one_form_which_survives_json(given, written):
    assert read_rule(given, CLASSES) == written
    assert read_rule(json.loads(json.dumps(written)), CLASSES) == written


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (3, "weights are a key, an expression, a mapping"),
        ([], "the list is empty"),
        ("w >", "weight 'w >', column"),
        ({"falt": "x"}, "has one of 'flat', 'to', 'classes', 'normalise', not {'falt': 'x'}; did you mean 'flat'"),
        ({"flat": "x", "to": "b"}, "has one of"),
        ({"flat": "x", "bin": 3}, "no option 'bin'; did you mean 'bins'"),
        ({"flat": []}, "one or two variables"),
        ({"flat": ["x", "y", "z"]}, "one or two variables"),
        ({"flat": "x +"}, "weight 'x +', column"),
        ({"flat": "x", "bins": 0}, "bins must be a number above 0 or ascending edges"),
        ({"flat": "x", "bins": [1, 0]}, "not [1, 0]"),
        ({"flat": "x", "bins": [1]}, "not [1]"),
        ({"flat": ["x", "y"], "bins": [3, 3, 3]}, "not [3, 3, 3]"),
        ({"flat": "x", "range": [1]}, "range must be [lowest, highest]"),
        ({"flat": ["x", "y"], "range": [0, 1]}, "range must be"),
        ({"flat": "x", "bins": [0, 1], "range": [0, 1]}, "leave range out"),
        ({"flat": "x", "per": "event"}, "'class' or 'all'"),
        ({"flat": "x", "outside": "drop"}, "'zero' or 'edge'"),
        ({"to": "b"}, "'variables' is missing"),
        ({"to": "c", "variables": "x"}, "the class 'c', which is not there: there are 'b', 'light'"),
        ({"classes": {"ligth": 1}}, "did you mean 'light'"),
        ({"classes": {"b": -1}}, "finite and not negative, not -1.0"),
        ({"classes": "equal"}, "'balanced'"),
        ({"normalise": "each"}, "'all' or 'class'"),
    ],
)
def test_a_wrong_rule_is_refused(rule, message):
    with pytest.raises(SpecError) as caught:
        read_rule(rule, CLASSES)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("rule", "columns", "message"),
    [
        ("w", {"w": [1, np.nan, np.nan]}, "weight 'w' is NaN for 2 of 3 events, first for number 1"),
        ("w", {"w": [1, 1, np.inf]}, "not finite in float32 for 1 of 3 events, first for number 2"),
        ("w", {"w": [1, 1, 1e39]}, "not finite in float32"),
        ({"to": "b", "variables": "w", "bins": [5, 6]}, {"w": [1, 2, 3]}, "'b' of the weights has no events"),
        ({"to": "b", "variables": "w", "bins": [0, 1, 2]}, {"w": [0.5, 1.5, 1.5]}, "class 'light' has no event in a"),
        (["w", {"flat": "w", "bins": 1}], {"w": [-1, 1, 1]}, "class 'b' have the negative sum -1 in a bin"),
        (["w", {"classes": "balanced"}], {"w": [-1, 1, 1]}, "class 'b' have the negative sum -1"),
        (["w", {"normalise": "all"}], {"w": [-3, 1, 1]}, "all classes have the negative sum -1"),
    ],
)
def test_what_can_not_be_weighed_is_refused(rule, columns, message):
    with pytest.raises(SpecError) as caught:
        weigh(rule, [0, 1, 1], **columns)
    assert message in str(caught.value)


def test_a_missing_column_is_named_with_the_nearest():
    with pytest.raises(KeyMissingError, match="the weight needs the key 'mcweight'; did you mean 'mc_weight'"):
        weigh("mcweight", [0], mc_weight=[1])
