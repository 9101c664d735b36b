"""Steps that arrange keys: stack, select, drop, rename, cast, pad, compact, and look for what is not finite."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from step_batches import batch_of, draws_of, jagged, padded, sparse

from hepfeed.errors import CorruptDataError, KeyMissingError, ProcessError, SpecError
from hepfeed.pipeline import Pipeline
from hepfeed.tensors import Graph, Jagged, Padded, Sparse
from hepfeed.transforms import Cast, Compact, Drop, Finite, PadRows, Rename, Select, Stack


def done(step, batch):
    return step(batch, draws_of(batch))


# ---- stack


def test_columns_of_hits_become_vectors():
    batch = batch_of(x=jagged([1, 2], [], [3]), t=jagged([4, 5], [], [6], dtype=np.int64), other=np.zeros(3))
    made = done(Stack(keys=("t", "x"), into="hits"), batch)
    assert made["hits"].values.tolist() == [[4, 1], [5, 2], [6, 3]]
    assert made["hits"].values.dtype == np.float32
    assert made["hits"].lengths().tolist() == [2, 0, 1]
    assert list(made) == ["label", "event", "other", "hits"]
    kept = done(Stack(keys=("t", "x"), into="x", dtype="float64", keep=True), batch)
    assert kept["x"].values.dtype == np.float64
    assert "t" in kept


def test_dense_and_padded_arrays_are_stacked_on_a_new_last_axis():
    batch = batch_of(a=np.ones((2, 3), np.uint8), b=np.zeros((2, 3)), weight=np.ones(2, np.float32))
    made = done(Stack(keys=("a", "b"), into="ab"), batch)["ab"]
    assert made.tolist() == [[[1, 0]] * 3] * 2
    mask = [[1, 0], [1, 1]]
    batch = batch_of(a=padded(mask, [[1, 0], [2, 3]]), b=padded(mask, [[4, 0], [5, 6]]))
    made = done(Stack(keys=("a", "b"), into="ab"), batch)["ab"]
    assert made.values.tolist() == [[[1, 4], [0, 0]], [[2, 5], [3, 6]]]
    assert made.mask.tolist() == [[True, False], [True, True]]
    scalars = batch_of(a=np.array([1.0, 2.0]), weight=np.array([3.0, 4.0], np.float32))
    made = done(Stack(keys=("a", "weight"), into="ab"), scalars)
    assert made["ab"].tolist() == [[1, 3], [2, 4]]
    assert "weight" in made


def test_different_rows_are_not_stacked():
    batch = batch_of(
        x=jagged([1, 2], [3]), y=jagged([1], [2, 3]), v=np.zeros((2, 2)), s=np.zeros(2), big=np.array([0, 1e300])
    )
    for keys, words in [
        (("x", "y"), "'x' and 'y' must be dense, jagged or padded arrays of the same rows"),
        (("x", "s"), r"Jagged with values \(3,\) float32 and dense \(2,\) float64"),
        (("v", "s"), r"dense \(2, 2\) float64 and dense \(2,\) float64"),
        (("s", "big"), "key 'big' has 1e[+]300, which float32 can't hold: choose another dtype, in event 11 of file"),
    ]:
        with pytest.raises(ProcessError, match=words):
            done(Stack(keys=keys, into="z"), batch)


# ---- select, drop, rename


def test_the_loader_s_keys_are_always_selected():
    batch = batch_of(a=np.zeros(2), b=np.ones(2), c=np.ones(2), weight=np.ones(2))
    assert list(done(Select(keys=("c", "a")), batch)) == ["c", "a", "label", "event", "weight"]
    assert list(done(Drop(keys=("c", "a")), batch)) == ["label", "event", "b", "weight"]
    for step in (Select(keys="bb"), Drop(keys="bb"), Rename(names={"bb": "x"}), Cast(keys="bb", dtype="f4")):
        with pytest.raises(KeyMissingError, match=r"no key 'bb' at this step: did you mean 'b'\?"):
            done(step, batch)


def test_keys_change_their_names_at_once():
    batch = batch_of(a=np.zeros(2), b=np.ones(2), c=np.full(2, 2))
    made = done(Rename(names={"a": "b", "b": "a", "c": "jets.pt"}), batch)
    assert {key: value.tolist() for key, value in made.items() if key not in ("label", "event")} == {
        "b": [0, 0],
        "a": [1, 1],
        "jets.pt": [2, 2],
    }
    with pytest.raises(ProcessError, match="'a' can't be renamed to 'c', which the batch has already"):
        done(Rename(names={"a": "c"}), batch)


# ---- cast


@pytest.mark.parametrize(
    ("given", "dtype", "expected"),
    [
        (np.array([1.0, -128.0, 127.0]), "int8", [1, -128, 127]),
        (np.array([0, 255], np.int64), "uint8", [0, 255]),
        (np.array([2.0**63 - 1024, -(2.0**63)]), "int64", [2**63 - 1024, -(2**63)]),
        (np.array([1.5, np.nan, np.inf]), "float32", [1.5, np.nan, np.inf]),
        (np.array([65504.0]), "float16", [65504]),
        (np.array([0, 1], np.int32), "bool", [False, True]),
        (np.array([True, False]), "float32", [1, 0]),
        (np.array([2**64 - 1], np.uint64), "uint64", [2**64 - 1]),
        (np.array([1, 2], ">i4"), "int32", [1, 2]),
    ],
)  # fmt: skip
def test_numbers_that_fit_are_cast(given, dtype, expected):
    made = done(Cast(keys="x", dtype=dtype), batch_of(x=given))["x"]
    assert made.dtype == np.dtype(dtype)
    assert np.array_equal(made, expected, equal_nan=made.dtype.kind == "f")


@pytest.mark.parametrize(
    ("given", "dtype", "told"),
    [
        (np.array([0.0, 128.0]), "int8", "128.0, which int8"),
        (np.array([0.0, 2.0**63]), "int64", "9.22.*e[+]18, which int64"),
        (np.array([0.0, 2.0**64]), "uint64", "1.8.*, which uint64"),
        (np.array([0.0, -1.0]), "uint64", "-1.0, which uint64"),
        (np.array([0.0, np.nan]), "int32", "nan, which int32"),
        (np.array([0.0, -np.inf]), "int32", "-inf, which int32"),
        (np.array([0, 2**63], np.uint64), "int64", "9223372036854775808, which int64"),
        (np.array([0, -1], np.int8), "uint64", "-1, which uint64"),
        (np.array([0, 256], np.int64), "uint8", "256, which uint8"),
        (np.array([0.0, 65520.0]), "float16", "65520.0, which float16"),
        (np.array([0, 70000]), "float16", "70000, which float16"),
        (np.array([0.0, -1e300]), "float32", "-1e[+]300, which float32"),
        (np.array([0, 2]), "bool", "2, which bool"),
        (np.array([0.0, 1.5]), "int32", "1.5, which int32 can't hold: choose another dtype, or give rounding"),
    ],
)  # fmt: skip
def test_numbers_that_do_not_fit_are_refused(given, dtype, told):
    with pytest.raises(ProcessError, match=f"key 'x' has {told}.* in event 11 of file number 3") as caught:
        done(Cast(keys="x", dtype=dtype), batch_of(x=given))
    assert (caught.value.key, caught.value.event, caught.value.file_number) == ("x", 11, 3)


@given(
    st.lists(st.floats(-300, 300), min_size=1, max_size=8),
    st.sampled_from(["int8", "uint8", "int16", "float16", "float32"]),
    st.sampled_from(["exact", "nearest", "down"]),
)
def test_a_cast_is_exact_or_refused(numbers, dtype, rounding):
    batch = batch_of(x=np.array(numbers))
    rounded = [{"exact": n, "nearest": float(np.rint(n)), "down": float(np.floor(n))}[rounding] for n in numbers]
    integers = np.dtype(dtype).kind in "iu"
    limits = np.iinfo(dtype) if integers else None
    fits = not integers or all(limits.min <= n <= limits.max and n == int(n) for n in rounded)
    if fits:
        made = done(Cast(keys="x", dtype=dtype, rounding=rounding), batch)["x"]
        assert made.tolist() == (rounded if integers else np.array(numbers).astype(dtype).tolist())
    else:
        with pytest.raises(ProcessError):
            done(Cast(keys="x", dtype=dtype, rounding=rounding), batch)


def test_every_form_is_cast_and_its_event_named():
    batch = batch_of(
        j=jagged([1], [], [2, 300]),
        p=padded([[1, 0], [1, 1], [1, 1]], [[1, 0], [1, 1], [300, 1]]),
        s=sparse([[0, 1], [2, 0]], [1, 300], (4,), 3),
        d=np.array([[1, 1], [1, 1], [1, 300]]),
    )
    for key in "jpsd":
        with pytest.raises(ProcessError, match=r"300.* event 12 of file number 3"):
            done(Cast(keys=key, dtype="uint8"), batch)
        made = done(Cast(keys=key, dtype="uint16"), batch)[key]
        assert type(made) is type(batch[key])
        array = made if key == "d" else made.features if key == "s" else made.values
        assert array.dtype == np.uint16
    graph = batch_of(g=Graph(np.zeros((2, 0), np.int64), np.zeros(2, np.int64), np.zeros(2, np.int64)))
    with pytest.raises(ProcessError, match="key 'g' is a Graph"):
        done(Cast(keys="g", dtype="int32"), graph)


# ---- pad and compact


def test_rows_are_padded_to_one_length():
    batch = batch_of(x=jagged([1, 2], [], [3]), v=jagged([[1, 1], [2, 2]], [], [[3, 3]], dtype=np.int16, item=(2,)))
    made = done(PadRows(keys=("x", "v"), length=3, value=-1), batch)
    assert made["x"].values.tolist() == [[1, 2, -1], [-1, -1, -1], [3, -1, -1]]
    assert made["v"].values.tolist() == [[[1, 1], [2, 2], [-1, -1]], [[-1, -1]] * 3, [[3, 3], [-1, -1], [-1, -1]]]
    assert made["v"].values.dtype == np.int16
    assert made["x"].mask.tolist() == [[True, True, False], [False] * 3, [True, False, False]]


@pytest.mark.parametrize("length", [255, 256, 65536])
def test_padding_has_the_bits_of_its_value_at_any_length(length):
    batch = batch_of(x=jagged(np.ones(length), [], [1]))
    for value in (0.0, -0.0, 2.0):
        made = done(PadRows(keys="x", length=length, value=value), batch)["x"]
        assert made.mask.sum(axis=1).tolist() == [length, 0, 1]
        padding = made.values[~made.mask]
        assert (padding.view(np.uint32) == np.float32(value).view(np.uint32)).all()


def test_longer_events_are_an_error_or_cut():
    batch = batch_of(x=jagged([1, 2], [5, 3, 9, 4]))
    with pytest.raises(ProcessError, match=r"key 'x' has 4 rows, and length is 3: .* in event 11 of file number 3"):
        done(PadRows(keys="x", length=3), batch)
    made = done(PadRows(keys="x", length=3, overflow="truncate"), batch)["x"]
    assert made.values.tolist() == [[1, 2, 0], [5, 3, 9]]
    made = done(PadRows(keys="x", length=3, overflow="truncate", sort_by="x"), batch)["x"]
    assert made.values.tolist() == [[2, 1, 0], [9, 5, 4]]


def test_rows_are_sorted_before_they_are_padded():
    pt = jagged([2, 7, 7, 1], [], [3, 4])
    number = jagged([0, 1, 2, 3], [], [0, 1], dtype=np.int64)
    batch = batch_of(pt=pt, number=number, wrong=jagged([1], [2], [3, 4, 5, 6]))
    made = done(PadRows(keys="number", length=4, value=-1, sort_by="pt"), batch)["number"].values
    assert made.tolist() == [[1, 2, 0, 3], [-1] * 4, [1, 0, -1, -1]]  # equal ones keep their order
    made = done(PadRows(keys="number", length=4, value=-1, sort_by="pt", descending=False), batch)["number"].values
    assert made.tolist() == [[3, 0, 1, 2], [-1] * 4, [0, 1, -1, -1]]
    with pytest.raises(ProcessError, match=r"'number' and 'wrong' must have the same rows .* 4 and 1, in event 10"):
        done(PadRows(keys="number", length=4, sort_by="wrong"), batch)
    batch["pt"].values[-1] = np.nan
    with pytest.raises(CorruptDataError, match=r"key 'pt', by which rows are sorted, must not be NaN.* event 12"):
        done(PadRows(keys="number", length=4, sort_by="pt"), batch)
    for dtype in (np.uint8, np.int64):
        batch["pt"] = jagged([2, 7, 7, 1], [], [3, 4], dtype=dtype)
        made = done(PadRows(keys="number", length=4, value=-1, sort_by="pt"), batch)["number"].values
        assert made[0].tolist() == [1, 2, 0, 3]


def test_padding_must_fit_the_type():
    batch = batch_of(n=jagged([1], dtype=np.uint8), x=jagged([1.0]))
    for value in (-1, 256, 0.5, float("nan")):
        with pytest.raises(ProcessError, match="does not fit key 'n' of uint8"):
            done(PadRows(keys="n", length=2, value=value), batch)
    made = done(PadRows(keys="x", length=2, value=float("nan")), batch)["x"]
    assert np.isnan(made.values[0, 1])
    with pytest.raises(ProcessError, match=r"value 1e[+]300 does not fit key 'x' of float32"):
        done(PadRows(keys="x", length=2, value=1e300), batch)
    with pytest.raises(ProcessError, match=r"key 'y' must be jagged here, and is dense \(1,\) float64"):
        done(PadRows(keys="y", length=2), {**batch, "y": np.zeros(1)})


@given(st.lists(st.lists(st.floats(-10, 10, width=32), max_size=5), max_size=5))
def test_padding_and_compacting_are_inverse(events):
    batch = batch_of(x=jagged(*events), n=jagged(*[range(len(rows)) for rows in events], dtype=np.int32))
    wide = done(PadRows(keys=("x", "n"), length=6, value=7), batch)
    back = done(Compact(keys=("x", "n")), wide)
    for key in "xn":
        assert back[key].values.tolist() == batch[key].values.tolist()
        assert back[key].offsets.tolist() == batch[key].offsets.tolist()
        assert back[key].values.dtype == batch[key].values.dtype
    assert back["x"].offsets is back["n"].offsets


def test_a_valid_field_says_what_is_there():
    valid = np.array([[True, False, True], [False, False, False]])
    batch = batch_of(pt=np.array([[1, 2, 3], [4, 5, 6.0]]), v=np.arange(12).reshape(2, 3, 2), valid=valid)
    made = done(Compact(keys=("pt", "v"), valid="valid"), batch)
    assert made["pt"].values.tolist() == [1, 3]
    assert made["pt"].lengths().tolist() == [2, 0]
    assert made["v"].values.tolist() == [[0, 1], [4, 5]]
    assert "valid" not in made
    assert "valid" in batch
    column = np.dstack([batch["pt"], valid])
    made = done(Compact(keys="f", valid="f", column=1), batch_of(f=column))
    assert made["f"].values.tolist() == [[1, 1], [3, 1]]
    batch["valid"] = valid * 1.0
    batch["valid"][1, 2] = 0.5
    with pytest.raises(CorruptDataError, match=r"key 'valid' must be 0 or 1 .* is 0.5, in event 11 of file number 3"):
        done(Compact(keys="pt", valid="valid"), batch)


@pytest.mark.parametrize("fill", [0, -999, float("nan")])
def test_a_fill_value_says_what_is_not_there(fill):
    pt = np.array([[1, fill, 3], [fill, fill, fill]], np.float32)
    eta = np.array([[0, fill, 0], [fill, fill, fill]], np.float32)
    made = done(Compact(keys=("pt", "eta"), fill=fill), batch_of(pt=pt, eta=eta))
    assert made["pt"].values.tolist() == [1, 3]
    assert made["eta"].values.tolist() == [0, 0]
    both = np.stack([pt, eta], axis=-1)
    made = done(Compact(keys="v", fill=fill), batch_of(v=both))
    assert made["v"].values.tolist() == [[1, 0], [3, 0]]
    empty = done(Compact(keys="v", fill=fill), batch_of(v=both[:0]))["v"]
    assert (empty.values.shape, empty.events) == ((0, 2), 0)


def test_what_can_not_be_compacted_is_told():
    batch = batch_of(
        a=np.zeros((2, 3)), b=np.zeros((2, 4)), s=np.zeros(2), j=jagged([1], [2]),
        p=padded([[1, 0], [1, 1]], [[1, 0], [2, 3]]), q=padded([[1, 1], [1, 1]], [[1, 0], [2, 3]]),
    )  # fmt: skip
    for options, words in [
        ({"keys": ("a", "b"), "fill": 0}, r"key 'b' must have the rows \(2, 3\) of 'a', and is dense \(2, 4\)"),
        ({"keys": "a", "valid": "b"}, r"key 'a' must have the rows \(2, 4\) of 'b'"),
        ({"keys": "s", "fill": 0}, r"key 's' must be dense \(B, L, ...\)"),
        ({"keys": "j", "fill": 0}, r"key 'j' must be dense \(B, L, ...\), and is Jagged"),
        ({"keys": "a"}, "key 'a' must be padded with a mask, and is dense .*: give valid or fill"),
        ({"keys": ("p", "q")}, "key 'q' must have the rows"),
        ({"keys": "a", "valid": "a", "column": 1}, "key 'a' must be dense .* with column 1"),
    ]:
        with pytest.raises(ProcessError, match=words):
            done(Compact(**options), batch)


# ---- finite


def faulty():
    """A batch in which of each form one event is not finite: 1 of dense, 0 of jagged, 2 of padded, 3 of sparse ones."""
    return batch_of(
        d=np.array([[0, 1], [2, np.nan], [0, 0], [0, 0]], np.float32),
        j=jagged([1, np.inf], [], [2], [3]),
        p=padded([[1, 0], [0, 0], [1, 1], [1, 0]], [[1, np.nan], [0, 0], [1, -np.inf], [0, 0]]),
        s=sparse([[0, 1], [1, 0], [3, 2]], [1, 2, np.nan], (4,), 4),
        n=np.arange(4),
        weight=np.ones(4, np.float32),
    )


FAULTS = [("d", 1, "nan"), ("j", 0, "inf"), ("p", 2, "-inf"), ("s", 3, "nan")]


@pytest.mark.parametrize(("key", "event", "found"), FAULTS)
def test_what_is_not_finite_is_an_error_that_names_it(key, event, found):
    words = rf"key '{key}' must have finite numbers, and has {found}: .*, in event 1{event} of file number 3"
    with pytest.raises(CorruptDataError, match=words) as caught:
        done(Finite(keys=key), faulty())
    assert (caught.value.key, caught.value.event, caught.value.file_number) == (key, 10 + event, 3)


def test_what_is_not_finite_becomes_zero():
    batch = faulty()
    made = done(Finite(action="zero"), batch)
    assert made["d"].tolist() == [[0, 1], [2, 0], [0, 0], [0, 0]]
    assert made["j"].values.tolist() == [1, 0, 2, 3]
    assert made["p"].values.tolist() == [[1, 0], [0, 0], [1, 0], [0, 0]]
    assert made["s"].features.tolist() == [[1], [2], [0]]
    assert made["d"].dtype == np.float32
    assert made["weight"] is batch["weight"]
    assert np.isnan(batch["d"][1, 1])


def test_events_that_are_not_finite_leave_with_all_their_keys():
    batch = faulty()
    made = done(Finite(keys=("d", "s"), action="drop"), batch)
    assert made["event"].tolist() == [[3, 10], [3, 12]]
    assert made["n"].tolist() == [0, 2]
    assert made["label"].tolist() == [0, 0]
    assert made["weight"].tolist() == [1, 1]
    assert made["j"].lengths().tolist() == [2, 1]
    assert made["p"].mask.tolist() == [[True, False], [True, True]]
    assert made["s"].indices.tolist() == [[0, 1]]
    assert made["s"].batch_size == 2
    none = done(Finite(action="drop"), batch)
    assert all(len(none[key]) == 0 for key in ("d", "n", "label", "event", "weight"))
    assert none["j"].events == none["p"].events == none["s"].events == 0


def test_weights_are_looked_at_and_finite_batches_stay():
    batch = batch_of(x=np.zeros((2, 3)), weight=np.array([1, np.nan], np.float32))
    with pytest.raises(CorruptDataError, match="key 'weight' must have finite numbers, and has nan"):
        done(Finite(), batch)
    assert done(Finite(action="drop"), batch)["event"].tolist() == [[3, 10]]
    kept = done(Finite(keys="x", action="drop"), batch)
    assert all(kept[key] is batch[key] for key in batch)


def test_a_fault_anywhere_in_a_large_array_is_found():
    x = np.zeros((40, 5001), np.float32)
    for event, column in ((0, 0), (17, 4321), (39, 5000)):
        x[event, column] = np.nan
        with pytest.raises(CorruptDataError, match=rf"in event {10 + event} of"):
            done(Finite(), batch_of(x=x))
        with pytest.raises(CorruptDataError, match=rf"in event {10 + event} of"):
            done(Finite(), batch_of(x=np.asfortranarray(x)))
        x[event, column] = 0


# ---- all of them


STEPS = [
    Stack(keys=("x", "y"), into="xy"),
    Select(keys="x"),
    Drop(keys="x"),
    Rename(names={"x": "z"}),
    Cast(keys="x", dtype="float64"),
    PadRows(keys="x", length=8, sort_by="y", descending=False),
    Compact(keys="d", fill=float("nan")),
    Compact(keys="d", valid="v"),
    Finite(),
]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
def test_a_step_leaves_what_came_and_survives_a_specification(step):
    batch = batch_of(x=jagged([1, 2], [3]), y=jagged([1, 2], [3]), d=np.ones((2, 3)), v=np.ones((2, 3), bool))
    before = dict(batch)
    for value in batch.values():
        for array in value.arrays().values() if isinstance(value, Jagged) else (value,):
            array.flags.writeable = False
    step(batch, draws_of(batch))
    assert list(batch) == list(before)
    assert all(batch[key] is before[key] for key in before)
    assert not step.random
    assert Pipeline(Pipeline([step]).to_spec()).steps[0].model_dump_json() == step.model_dump_json()


def test_an_option_of_nan_is_another_pipeline_than_none():
    assert Compact(keys="x", fill=float("nan")).model_dump_json() != Compact(keys="x").model_dump_json()


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
def test_a_batch_without_events_goes_through(step):
    empty = jagged()
    batch = batch_of(x=empty, y=empty, d=np.ones((0, 3)), v=np.ones((0, 3), bool))
    made = step(batch, draws_of(batch))
    for value in made.values():
        assert (value.events if isinstance(value, Jagged | Padded | Sparse) else len(value)) == 0


@pytest.mark.parametrize(
    ("step", "options", "words"),
    [
        (Stack, {"keys": "x", "into": "label"}, "into can't be 'label', which the loader gives to every batch"),
        (Stack, {"keys": (), "into": "y"}, "keys must name one key or more"),
        (Stack, {"keys": "x", "into": "y", "dtype": "str"}, "dtype must be the name of a NumPy number"),
        (Drop, {"keys": ("x", "event")}, "keys can't be 'event'"),
        (Rename, {"names": {}}, "names must give a key or more another name"),
        (Rename, {"names": {"weight": "w"}}, "names can't be 'weight'"),
        (Rename, {"names": {"x": "label"}}, "names can't be 'label'"),
        (Rename, {"names": {"x": "z", "y": "z"}}, "names has 'z' twice"),
        (Cast, {"keys": "label", "dtype": "f4"}, "keys can't be 'label'"),
        (Cast, {"keys": "x", "dtype": "float31"}, "dtype must be the name of a NumPy number"),
        (PadRows, {"keys": "x", "length": 0}, "option 'length'"),
        (PadRows, {"keys": "x", "length": 2, "descending": True}, "descending needs sort_by"),
        (PadRows, {"keys": "x", "length": 2, "overflow": "cut"}, "option 'overflow'"),
        (Compact, {"keys": "x", "valid": "v", "fill": 0}, "give valid or fill, not both"),
        (Compact, {"keys": "x", "column": 0}, "column needs valid"),
        (Finite, {"keys": "label"}, "integers, which are always finite"),
        (Finite, {"action": "skip"}, "option 'action'"),
        (Select, {"kees": "x"}, "there is no option 'kees'; did you mean 'keys'"),
    ],
)  # fmt: skip
def test_wrong_options_are_told_when_the_step_is_made(step, options, words):
    with pytest.raises(SpecError, match=words):
        step(**options)
