"""Filter expressions and filter functions."""

import ast
import pickle

import cloudpickle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hepfeed.errors import FilterError, KeyMissingError, ProcessError
from hepfeed.filters import Filter

COLUMNS = {
    "Energy": np.array([0.5, 0.61, 1.0, 2.0], np.float32),
    "eta": np.array([-3.0, -2.0, 0.0, 2.5]),
    "pdg": np.array([11, -11, 211, 22], np.int32),
    "adc": np.array([250, 255, 0, 7], np.uint8),
    "charge": np.array([60000, 1, 2, 3], np.float16),
    "good": np.array([True, False, True, True]),
    "name": np.array([b"nue", b"numu", b"nue", b"nutau"]),
    "target": np.arange(20, dtype=np.float32).reshape(4, 1, 5),
    "one": np.array([[[1]], [[2]], [[3]], [[4]]]),
    "Event/energy": np.array([1.0, 2.0, 3.0, 4.0]),
    "run-1/energy": np.array([1.0, 2.0, 3.0, 4.0]),
}


@pytest.mark.parametrize(
    ("expression", "kept"),
    [
        ("Energy > 0.61", [False, False, True, True]),
        ("Energy > 0.61 and abs(eta) < 2.5", [False, False, True, False]),
        ("not good or Energy == 2", [False, True, False, True]),
        ("0.5 < Energy <= 1", [False, True, True, False]),
        ("pdg in [11, -11]", [True, True, False, False]),
        ("pdg not in (11, -11)", [False, False, True, True]),
        ("name == 'nue'", [True, False, True, False]),
        ("name in ['numu', 'nutau'] and good == True", [False, False, False, True]),
        ("target[0, 1] > 6", [False, False, True, True]),
        ("target[0, -1] == 4", [True, False, False, False]),
        ("one >= 3", [False, False, True, True]),
        ("Event.energy == 3", [False, False, True, False]),
        ("key('run-1/energy') == 3", [False, False, True, False]),
        ("key('/Event/energy') == 3", [False, False, True, False]),
        ("adc + 10 > 255", [True, True, False, False]),
        ("adc - 8 < 0", [False, False, True, True]),
        ("charge * 2 == 120000", [True, False, False, False]),
        ("pdg ** 2 == 121", [True, True, False, False]),
        ("pdg ** -1 < 0", [False, True, False, False]),
        ("pdg % 2 == 1 and pdg // 100 == 2", [False, False, True, False]),
        ("pdg / 2 == 5.5", [True, False, False, False]),
        ("-eta == +3", [True, False, False, False]),
        ("sqrt(Energy) == 1 or log(Energy) == 0", [False, False, True, False]),
        ("hypot(3 * Energy, 4 * Energy) == 5", [False, False, True, False]),
        ("min(Energy, 1, pdg) == 1", [False, False, True, True]),
        ("max(eta, 0) == 2.5", [False, False, False, True]),
        ("where(good, Energy, 0) > 0", [True, False, True, True]),
        ("floor(Energy) == 0 and ceil(Energy) == 1", [True, True, False, False]),
        ("(Energy > 0.5) + (eta > -1) + good == 3", [False, False, True, True]),
        ("log(eta) > -9", [False, False, False, True]),
    ],
)
def test_an_expression_keeps_the_events_worked_out_by_hand(expression, kept):
    mask = Filter(expression).evaluate(COLUMNS)
    assert mask.dtype == np.bool_
    assert mask.tolist() == kept


@pytest.mark.parametrize(
    ("expression", "column", "message"),
    [
        ("Energy > > 1", 10, "invalid syntax"),
        ("Energy > 1 & eta < 2", 10, "write and, or, not"),
        ("Energy > 1 and ~good", 16, "Invert is not part"),
        ("__import__('os').system('true')", 1, "no function"),
        ("Energy.sum() > 1", 1, "no function 'Energy.sum'"),
        ("sqr(Energy) > 1", 1, "sqrt"),
        ("(lambda: 1) == Energy", 2, "Lambda"),
        ("[e for e in Energy]", 1, "ListComp"),
        ("Energy is 1", 1, "Is is not part"),
        ("f'{Energy}' == 'a'", 1, "JoinedStr"),
        ("(x := Energy) > 1", 2, "NamedExpr"),
        ("Energy > 1j", 10, "1j"),
        ("Energy > None", 10, "None"),
        ("Energy in pdg", 11, "list of constants"),
        ("Energy in [pdg]", 11, "list of constants"),
        ("pdg in []", 8, "list of constants"),
        ("pdg in [1] in [2]", 8, "end a chain"),
        ("target[0:1] > 1", 8, "integer constants"),
        ("target[True] > 1", 8, "integer constants"),
        ("(Energy + 1)[0] > 1", 1, "only a key"),
        ("(Energy + 1).real > 1", 1, "only a key"),
        ("key(Energy) > 1", 1, "path of a data set"),
        ("max(Energy) > 1", 1, "2 or more"),
        ("abs(Energy, 1) > 1", 1, "takes 1 values"),
        ("abs(x=Energy) > 1", 1, "takes 1 values"),
        ("Energy > 1 / 0", 10, "division by zero"),
        ("Energy > 9 ** 9 ** 9", 10, "can't be computed"),
        ("Energy > (-8) ** 0.5", 10, "must be a number"),
        ("Energy > 10 ** 400", 10, "can't be computed"),
        ("pdg == 123456789012345678901234567890", 8, "64 bits"),
        ("pdg == 'a' + 1", 8, "a number was expected"),
    ],
)
def test_what_is_not_in_the_language_is_refused_with_its_column(expression, column, message):
    with pytest.raises(FilterError) as caught:
        Filter(expression)
    assert f"column {column}:" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("expression", ["True", "1 < 2", "sqrt(4) == 2"])
def test_an_expression_without_a_key_is_refused(expression):
    with pytest.raises(FilterError, match="names no key"):
        Filter(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "-" * 9000 + "Energy > 1",
        "Energy" + " + Energy" * 1000 + " > 1",
        "a" + ".b" * 3000 + " > 1",
        "E\0 > 1",
    ],
)
def test_an_expression_that_is_nested_too_deep_or_broken_is_refused(expression):
    with pytest.raises(FilterError, match=r"deep|null|parsed"):
        Filter(expression)


def test_an_expression_that_is_too_long_is_refused():
    with pytest.raises(FilterError, match="10,000 characters"):
        Filter("Energy > 1" + " or Energy > 1" * 1000)


def test_the_line_is_named_in_an_expression_of_several_lines():
    with pytest.raises(FilterError, match="line 2, column 7"):
        Filter("(Energy > 1\n and (lambda: 1))")


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("Energy", "a condition .* was expected"),
        ("Energy and good", "a condition .* was expected"),
        ("where(Energy, 1, 0) == 1", "a condition .* was expected"),
        ("name > 1", "a number was expected"),
        ("name == 1", "a string can only be compared with a string"),
        ("pdg == 'electron'", "a string can only be compared with a string"),
        ("isfinite(name)", "a number was expected"),
    ],
)
def test_values_of_the_wrong_kind_are_refused(expression, message):
    with pytest.raises(FilterError, match=message):
        Filter(expression).evaluate(COLUMNS, file="a.h5")


def test_several_values_an_event_are_refused_with_a_subscript_to_use():
    with pytest.raises(FilterError) as caught:
        Filter("target > 1").evaluate(COLUMNS, file="a.h5")
    assert caught.value.key == "target"
    assert caught.value.file == "a.h5"
    assert "(4, 1, 5)" in str(caught.value)
    assert "target[0, 0]" in str(caught.value)
    with pytest.raises(FilterError, match=r"shape \(0, 1, 5\)"):
        Filter("target > 1").evaluate({"target": np.empty((0, 1, 5))})


@pytest.mark.parametrize("expression", ["target[0, 5] > 1", "target[0, -6] > 1", "Energy[0] > 1"])
def test_a_subscript_outside_the_event_is_refused_with_the_shape(expression):
    with pytest.raises(FilterError, match="which has the shape"):
        Filter(expression).evaluate(COLUMNS)


def test_a_missing_key_is_named_with_the_nearest():
    with pytest.raises(KeyMissingError, match="did you mean 'Energy'"):
        Filter("Enery > 1").evaluate(COLUMNS)


def test_scalars_other_types_and_unequal_lengths_are_refused():
    with pytest.raises(FilterError, match="is a scalar"):
        Filter("run > 1").evaluate({"run": np.array(3)})
    with pytest.raises(FilterError, match="complex128"):
        Filter("z == 1").evaluate({"z": np.zeros(2, complex)})
    with pytest.raises(FilterError, match="'a': 2, 'b': 3"):
        Filter("a > b").evaluate({"a": np.zeros(2), "b": np.zeros(3)})


def test_text_columns_of_every_storage_compare_with_strings():
    for stored in (np.array(["é", "b"]), np.array(["é".encode(), b"b"]), np.array(["é", b"b"], object)):
        assert Filter("name == 'é'").evaluate({"name": stored}).tolist() == [True, False]


def test_large_unsigned_integers_keep_their_order():
    columns = {"id": np.array([2**64 - 1, 5], np.uint64)}
    assert Filter("id > 1e19").evaluate(columns).tolist() == [True, False]
    assert Filter("id - 6 < 0").evaluate({"id": np.array([5, 7], np.uint64)}).tolist() == [True, False]


def test_no_event_gives_an_empty_mask():
    mask = Filter("Energy > 1 and name == 'a'").evaluate({"Energy": np.empty(0, np.float32), "name": np.empty(0, "S4")})
    assert (mask.shape, mask.dtype) == ((0,), np.bool_)


def test_the_mask_is_not_the_column_itself():
    columns = {"good": np.array([True, False])}
    mask = Filter("good").evaluate(columns)
    mask[:] = False
    assert columns["good"].tolist() == [True, False]


# ---- NaN


def test_a_nan_is_refused_with_file_key_and_event():
    columns = {"ratio": np.array([1.0, 2.0, np.nan, np.nan]), "E": np.ones(4)}
    with pytest.raises(FilterError) as caught:
        Filter("E > 0 and ratio < 2").evaluate(columns, file="a.h5", first_row=100)
    error = caught.value
    assert (error.file, error.key, error.event) == ("a.h5", "ratio", 102)
    for part in ("a.h5", "ratio", "102", "isfinite(ratio)", "on_error='skip'"):
        assert part in str(error)


def test_nan_rows_are_the_events_that_evaluate_refuses():
    columns = {"a": np.array([1.0, np.nan, 3.0, 4.0]), "b": np.array([1.0, 2.0, np.nan, np.inf])}
    keep = Filter("a > 2 and b > 2")
    rows = keep.nan_rows(columns)
    assert rows.tolist() == [False, True, True, False]
    assert keep.evaluate({key: values[~rows] for key, values in columns.items()}).tolist() == [False, True]


def test_a_key_that_is_tested_for_nan_may_be_nan():
    columns = {"a": np.array([1.0, np.nan, 3.0]), "b": np.array([1.0, 1.0, np.nan])}
    assert Filter("isfinite(a) and a > 2").evaluate(columns).tolist() == [False, False, True]
    assert Filter("isnan(a + b)").evaluate(columns).tolist() == [False, True, True]
    assert Filter("isfinite(a) and a > 2").nan_rows(columns).tolist() == [False, False, False]
    with pytest.raises(FilterError, match="'b' is NaN"):
        Filter("isfinite(a) and b > 0").evaluate(columns)


def test_only_the_entry_that_is_used_may_not_be_nan():
    target = np.array([[[np.nan, 1.0]], [[np.nan, 3.0]]])
    assert Filter("target[0, 1] > 2").evaluate({"target": target}).tolist() == [False, True]
    assert Filter("target[0, 0] > 2").nan_rows({"target": target}).tolist() == [True, True]


# ---- functions


def test_a_function_gets_its_columns_as_stored_and_returns_the_mask():
    seen = {}

    def hot(columns):
        seen.update(columns)
        return columns["target"].sum(axis=(1, 2)) > 50

    assert Filter(hot, keys=["target"]).evaluate(COLUMNS).tolist() == [False, False, True, True]
    assert list(seen) == ["target"]
    assert seen["target"].shape == (4, 1, 5)


@pytest.mark.parametrize(
    ("returned", "came"),
    [
        (np.ones(4), r"float64 \(4,\)"),
        (np.ones((4, 1), bool), r"bool \(4, 1\)"),
        (np.ones(3, bool), r"bool \(3,\)"),
        ([True] * 4, "list"),
    ],
)
def test_a_function_that_returns_no_mask_is_refused(returned, came):
    with pytest.raises(FilterError, match=rf"bool array of \(4,\), not {came}"):
        Filter(lambda columns: returned, keys=["Energy"]).evaluate(COLUMNS)


def test_an_error_in_a_function_names_the_function_and_the_file():
    def broken(columns):
        return columns["eta"] > 1

    with pytest.raises(ProcessError, match="broken raised KeyError") as caught:
        Filter(broken, keys=["Energy"]).evaluate(COLUMNS, file="a.h5")
    assert caught.value.file == "a.h5"
    assert isinstance(caught.value.__cause__, KeyError)


def test_keys_go_with_a_function_only_and_a_function_needs_them():
    with pytest.raises(FilterError, match="needs the names of the keys"):
        Filter(lambda columns: columns)
    with pytest.raises(FilterError, match="names its keys itself"):
        Filter("Energy > 1", keys=["Energy"])
    with pytest.raises(FilterError, match="not 3"):
        Filter(3)


# ---- identity


def test_keys_are_the_data_sets_that_the_expression_reads():
    keep = Filter("Event.energy > 1 and isfinite(target[0, 1]) and key('/a b/c') in [1]")
    assert keep.keys == {"Event/energy", "target", "a b/c"}
    assert keep.expression == "Event.energy > 1 and isfinite(target[0, 1]) and key('/a b/c') in [1]"


def test_filters_combine_to_those_events_that_all_keep():
    both = Filter("Energy > 0.6 or good") & Filter("eta > -1")
    assert both.evaluate(COLUMNS).tolist() == [False, False, True, True]
    three = Filter.all_of([both, Filter(lambda c: c["pdg"] > 100, keys=["pdg"])])
    assert three.evaluate(COLUMNS).tolist() == [False, False, True, False]
    assert three.keys == {"Energy", "good", "eta", "pdg"}
    assert three.expression is None
    with pytest.raises(FilterError, match="one filter or more"):
        Filter.all_of([])


def test_filters_are_equal_when_they_differ_in_blanks_and_brackets_only():
    assert Filter("Energy>1") == Filter(" (Energy > 1) ")
    assert Filter("Energy>1").fingerprint() == Filter("(Energy > 1)").fingerprint()
    assert hash(Filter("Energy>1")) == hash(Filter("(Energy > 1)"))
    assert Filter("Energy>1") != Filter("Energy>2")
    assert Filter("Energy>1").fingerprint() != Filter("Energy>=1").fingerprint()
    assert (Filter("a > 1") & Filter("b > 1")) == Filter("a > 1 and b > 1")


def test_the_fingerprint_of_a_function_changes_with_its_code_and_its_values():
    def above(cut):
        return Filter(lambda columns: columns["Energy"] > cut, keys=["Energy"])

    assert above(1).fingerprint() == above(1).fingerprint()
    assert above(1) == above(1)
    assert above(1).fingerprint() != above(2).fingerprint()
    other = Filter(lambda columns: columns["Energy"] < 1, keys=["Energy"])
    assert other.fingerprint() != above(1).fingerprint()


def test_filters_pickle():
    expression = pickle.loads(pickle.dumps(Filter("Energy > 0.61")))
    assert expression == Filter("Energy > 0.61")
    assert expression.evaluate(COLUMNS).tolist() == [False, False, True, True]
    cut = 1.5
    mixed = Filter("good") & Filter(lambda columns: columns["Energy"] < cut, keys=["Energy"])
    travelled = pickle.loads(cloudpickle.dumps(mixed))
    assert travelled.evaluate(COLUMNS).tolist() == [True, False, True, False]


def test_the_repr_shows_the_condition():
    assert repr(Filter("Energy > 1")) == "Filter('Energy > 1')"
    assert repr(Filter("a > 1") & Filter(len, keys=["a"])) == "Filter('(a > 1)') & Filter(len, keys=['a'])"


# ---- against NumPy

NUMBERS = st.sampled_from(["x", "y", "k", "2", "0.5", "-3"])


def _combine(children):
    two = st.tuples(children, st.sampled_from(["+", "-", "*"]), children).map(lambda t: f"({t[0]} {t[1]} {t[2]})")
    one = st.tuples(st.sampled_from(["abs", "floor", "ceil", "isfinite", "-"]), children)
    return two | one.map(lambda t: f"{t[0]}({t[1]})")


VALUES = st.recursive(NUMBERS, _combine, max_leaves=6)
COMPARISONS = st.tuples(VALUES, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), VALUES).map(" ".join)
CONDITIONS = st.recursive(
    COMPARISONS,
    lambda children: (
        st.tuples(children, st.sampled_from(["and", "or"]), children).map(lambda t: f"({t[0]}) {t[1]} ({t[2]})")
        | children.map(lambda c: f"not ({c})")
    ),
    max_leaves=4,
)


class _AsNumPy(ast.NodeTransformer):
    """Write ``and``, ``or``, ``not`` as NumPy's functions, so that Python itself evaluates the expression."""

    def visit_BoolOp(self, node):
        self.generic_visit(node)
        return self._call("logical_and" if isinstance(node.op, ast.And) else "logical_or", *node.values)

    def visit_UnaryOp(self, node):
        self.generic_visit(node)
        return self._call("logical_not", node.operand) if isinstance(node.op, ast.Not) else node

    def visit_Call(self, node):
        self.generic_visit(node)
        if node.func.id == "isfinite":  # NumPy does no arithmetic on booleans
            return ast.BinOp(node, ast.Mult(), ast.Constant(1))
        return node

    def _call(self, name, *arguments):
        return ast.Call(ast.Name(name, ast.Load()), list(arguments), [])


FUNCTIONS = ("abs", "floor", "ceil", "isfinite", "logical_and", "logical_or", "logical_not")


def _of_python(function):
    """Keep constants Python's: a NumPy float64 would widen the float32 column that it meets."""

    def call(*values):
        result = function(*values)
        return result.item() if isinstance(result, np.generic) else result

    return call


@settings(max_examples=150, deadline=None)
@given(
    condition=CONDITIONS.filter(lambda text: any(key in text for key in "xyk")),
    x=st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=3),
    y=st.lists(st.floats(-100, 100), min_size=3, max_size=3),
    k=st.lists(st.integers(-100, 100), min_size=3, max_size=3),
)
def test_any_expression_gives_what_numpy_gives(condition, x, y, k):
    columns = {"x": np.array(x, np.float32), "y": np.array(y), "k": np.array(k)}
    tree = ast.fix_missing_locations(_AsNumPy().visit(ast.parse(condition, mode="eval")))
    names = {name: _of_python(getattr(np, name)) for name in FUNCTIONS} | columns
    with np.errstate(all="ignore"):
        expected = np.broadcast_to(eval(compile(tree, "reference", "eval"), names), 3)
    np.testing.assert_array_equal(Filter(condition).evaluate(columns), expected)
