"""Sums, products, maxima and normalisation of rows: each kernel against its plain NumPy form."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hepfeed import _rows
from hepfeed.reference import rows as reference

CHANNELS = [0, 1, 3, 4, 15, 16, 17, 21, 36]
TOLERANCE = {"float32": 2e-6, "float64": 1e-13, "bfloat16": 2.0**-8}


@pytest.fixture(params=["baseline", "avx2", "avx512"])
def isa(request):
    before = _rows.isa()
    try:
        _rows.set_isa(request.param)
    except ValueError as error:
        pytest.skip(str(error))
    yield request.param
    _rows.set_isa(before)


@pytest.fixture(params=["float32", "float64", "bfloat16"])
def dtype(request):
    return request.param


def matrix(rng, rows, channels, dtype):
    """Numbers as the kernels take them; bfloat16 as their bits."""
    return narrowed(rng.normal(size=(rows, channels)), dtype)


def narrowed(numbers, dtype):
    if dtype == "bfloat16":
        return torch.from_numpy(np.asarray(numbers, np.float32)).bfloat16().view(torch.uint16).numpy()
    return np.asarray(numbers, dtype)


def widened(numbers):
    if numbers.dtype == np.uint16:
        numbers = torch.from_numpy(numbers).view(torch.bfloat16).float().numpy()
    return numbers.astype(np.float64)


def wide(dtype):
    return np.float64 if dtype == "float64" else np.float32


def lists(rng, targets, sources, pairs):
    """Different pairs in any order as lists both ways."""
    at = rng.choice(targets * sources, size=pairs, replace=False)
    target, source = (at // sources).astype(np.int32), (at % sources).astype(np.int32)
    forth = _rows.list_rows(target, source, targets, sources, True)
    back = _rows.list_rows(source, target, sources, targets, True)
    return forth, back


def summed(features, coefficients, starts, columns, places, threads=1):
    out = np.empty((len(starts) - 1, features.shape[1]), features.dtype)
    _rows.row_sum(features, coefficients, starts, columns, places, out, threads)
    return out


def largest(features, starts, columns, threads=1):
    out = np.empty((len(starts) - 1, features.shape[1]), features.dtype)
    argmax = np.empty(out.shape, np.int32)
    _rows.row_max(features, starts, columns, out, argmax, threads)
    return out, argmax


def assert_near(made, expected, dtype, scale=1.0):
    np.testing.assert_allclose(widened(made), expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * scale)


def test_lists_of_four_pairs():
    target, source = np.array([2, 0, 2, 0], np.int32), np.array([1, 1, 0, 2], np.int32)
    starts, columns, places = _rows.list_rows(target, source, 3, 4, True)
    assert starts.tolist() == [0, 2, 2, 4]
    assert columns.tolist() == [1, 2, 1, 0]  # in the order of the pairs
    assert places.tolist() == [1, 3, 0, 2]
    assert len(_rows.list_rows(target, source, 3, 4, False)[2]) == 0


@pytest.mark.parametrize("pairs", [0, 1, 700])
def test_lists_equal_their_twin(isa, pairs):
    rng = np.random.default_rng(pairs)
    target, source = (rng.integers(0, 30, pairs).astype(np.int32) for _ in range(2))
    for made, twin in zip(
        _rows.list_rows(target, source, 30, 30, True), reference.list_rows(target, source, 30), strict=True
    ):
        assert made.dtype == twin.dtype
        np.testing.assert_array_equal(made, twin)


def test_sums_with_and_without_coefficients_equal_their_twin(isa, dtype):
    rng = np.random.default_rng(0)
    for channels in CHANNELS:
        (starts, columns, places), _ = lists(rng, 270, 40, 500)  # more lists than a block has, some of them empty
        features = matrix(rng, 40, channels, dtype)
        factors = rng.normal(size=len(columns)).astype(wide(dtype))
        plain = summed(features, None, starts, columns, np.empty(0, np.int32))
        assert_near(plain, reference.row_sum(widened(features), starts, columns), dtype, 4)
        weighted = summed(features, factors, starts, columns, places)
        twin = reference.row_sum(widened(features), starts, columns, factors[places].astype(np.float64))
        assert_near(weighted, twin, dtype, 4)


def test_long_lists_are_summed_with_small_errors(isa):
    rng = np.random.default_rng(0)
    for length in (255, 256, 257, 512, 2000):
        features = (rng.random((length, 5)) + 1).astype(np.float32)
        rows = np.arange(length, dtype=np.int32)
        starts, columns = np.array([0, 0, length, length, length + 3]), np.append(rows, rows[:3])
        made = summed(features, None, starts, columns, np.empty(0, np.int32))
        twin = reference.row_sum(features.astype(np.float64), starts, columns)
        np.testing.assert_allclose(made, twin, rtol=1e-6)


def test_products_of_rows_equal_their_twin(isa, dtype):
    rng = np.random.default_rng(0)
    for channels in CHANNELS:
        (starts, columns, places), _ = lists(rng, 270, 40, 500)
        left, right = matrix(rng, 270, channels, dtype), matrix(rng, 40, channels, dtype)
        made = np.empty(len(columns), wide(dtype))
        _rows.row_dot(left, right, starts, columns, places, made, 1)
        twin = np.empty(len(columns))
        twin[places] = reference.row_dot(widened(left), widened(right), starts, columns)
        near = "float64" if dtype == "float64" else "float32"  # they are not rounded to bfloat16
        np.testing.assert_allclose(made, twin, rtol=TOLERANCE[near], atol=10 * TOLERANCE[near])


def test_maxima_and_their_rows_equal_their_twin(isa, dtype):
    rng = np.random.default_rng(0)
    for channels in CHANNELS:
        (starts, columns, _), (back_starts, back_columns, _) = lists(rng, 270, 40, 500)
        features = narrowed(rng.integers(-3, 4, (40, channels)), dtype)  # with many ties
        made, argmax = largest(features, starts, columns)
        twin, rows = reference.row_max(widened(features), starts, columns)
        np.testing.assert_array_equal(widened(made), twin)
        np.testing.assert_array_equal(argmax, rows)
        picked = np.empty_like(made)
        _rows.row_pick(features, argmax, picked, 1)
        np.testing.assert_array_equal(widened(picked), reference.row_pick(widened(features), argmax))
        grad, put = matrix(rng, 270, channels, dtype), np.empty_like(features)
        _rows.row_put(grad, argmax, back_starts, back_columns, put, 1)
        assert_near(put, reference.row_put(widened(grad), argmax, 40), dtype, 8)


def test_maxima_of_long_lists_equal_their_twin(isa, dtype):
    rng = np.random.default_rng(0)
    for length in (256, 257, 700):
        features = narrowed(rng.integers(-9, 9, (length, 19)), dtype)
        starts, columns = np.array([0, length, length]), rng.permutation(length).astype(np.int32)
        made, argmax = largest(features, starts, columns)
        twin, rows = reference.row_max(widened(features), starts, columns)
        np.testing.assert_array_equal(widened(made), twin)
        np.testing.assert_array_equal(argmax, rows)


def test_a_maximum_is_nan_where_a_row_is(isa, dtype):
    for channels in (1, 4, 16):
        numbers = np.array([1.0, np.nan, -np.inf, np.inf, -2.0])[:, None].repeat(channels, 1)
        features = narrowed(numbers, dtype)
        starts, columns = np.array([0, 3, 5, 6, 7]), np.array([0, 1, 3, 2, 4, 2, 4], np.int32)
        made, argmax = largest(features, starts, columns)
        np.testing.assert_array_equal(widened(made)[:, 0], [np.nan, -2.0, -np.inf, -2.0])
        np.testing.assert_array_equal(argmax[:, channels - 1], [1, 4, 2, 4])
        np.testing.assert_array_equal(made, made[:, :1].repeat(channels, 1))
        out = widened(summed(features, None, starts, columns, np.empty(0, np.int32)))
        assert np.isnan(out[0]).all()
        assert (out[1] == -np.inf).all()


@pytest.mark.parametrize("relu", [False, True])
def test_normalisation_equals_its_twin(isa, dtype, relu):
    rng = np.random.default_rng(0)
    for rows, channels in itertools.product([0, 1, 2, 127, 128, 129, 401], [1, 5, 16, 33]):
        x, grad = matrix(rng, rows, channels, dtype), matrix(rng, rows, channels, dtype)
        kind, eps = wide(dtype), 1e-3
        weight, bias = (rng.normal(size=channels).astype(kind) for _ in range(2))
        mean, squares = np.empty(channels, kind), np.empty(channels, kind)
        _rows.column_moments(x, mean, squares, 1)
        if rows == 0:
            assert not mean.any()
            assert not squares.any()
            continue
        exact, fine = widened(x), "float64" if dtype == "float64" else "float32"
        twin, centre, variance = reference.batch_norm(exact, weight, bias, eps, relu)
        np.testing.assert_allclose(mean, centre, rtol=0, atol=2 * TOLERANCE[fine])
        np.testing.assert_allclose(squares / rows, variance, rtol=4 * TOLERANCE[fine], atol=TOLERANCE[fine])
        inverse = (1 / np.sqrt(squares / rows + eps)).astype(kind)
        how = mean, inverse * weight, bias, relu
        out = np.empty_like(x)
        _rows.normalise(x, *how, out, 1)
        assert_near(out, twin, dtype, 30)
        if rows == 1:
            continue  # all is rounding then, and ReLU may cut either way
        sums, products = np.empty(channels, kind), np.empty(channels, kind)
        _rows.gradient_sums(grad, x, *how, sums, products, 1)
        slope = inverse * inverse * weight * (products * inverse) / rows
        _rows.normalise_back(grad, x, *how, inverse * weight * sums / rows, slope.astype(kind), out, 1)
        expected = reference.batch_norm_grad(widened(grad), exact, weight, bias, eps, relu)
        assert_near(out, expected[0], dtype, 100)
        np.testing.assert_allclose(products * inverse, expected[1], rtol=0, atol=rows * 10 * TOLERANCE[fine])
        np.testing.assert_allclose(sums, expected[2], rtol=0, atol=rows * 10 * TOLERANCE[fine])


def test_moments_far_from_zero_keep_their_digits(isa):
    x = (np.random.default_rng(0).normal(size=(1000, 3)) + 1000).astype(np.float32)
    mean, squares = np.empty(3, np.float32), np.empty(3, np.float32)
    _rows.column_moments(x, mean, squares, 1)
    np.testing.assert_allclose(mean, x.astype(np.float64).mean(axis=0), rtol=1e-7)
    np.testing.assert_allclose(squares / 1000, x.astype(np.float64).var(axis=0), rtol=1e-4)


def everything(dtype, threads):
    """The bits of every kernel's result."""
    rng = np.random.default_rng(7)
    (starts, columns, places), back = lists(rng, 900, 1500, 4000)
    starts, columns = np.append(starts, len(columns) + 1200), np.append(columns, np.arange(1200, dtype=np.int32))
    places = np.append(places, np.arange(len(places), len(columns), dtype=np.int32))
    features = matrix(rng, 1500, 21, dtype)
    factors = rng.normal(size=len(columns)).astype(wide(dtype))
    made = [summed(features, factors, starts, columns, places, threads), *largest(features, starts, columns, threads)]
    dots = np.empty(len(columns), wide(dtype))
    _rows.row_dot(made[0], features, starts, columns, places, dots, threads)
    picked, put = np.empty_like(made[0]), np.empty_like(features)
    _rows.row_pick(features, made[2], picked, threads)
    _rows.row_put(made[0][:-1].copy(), made[2][:-1].copy(), *back[:2], put, threads)
    moments = np.empty((6, 21), wide(dtype))
    mean, squares, scale, shift, sums, products = moments
    scale[:], shift[:] = 1.5, 0.25
    _rows.column_moments(features, mean, squares, threads)
    out, grad = np.empty_like(features), np.empty_like(features)
    _rows.normalise(features, mean, scale, shift, True, out, threads)
    _rows.gradient_sums(out, features, mean, scale, shift, True, sums, products, threads)
    _rows.normalise_back(out, features, mean, scale, shift, True, sums, products, grad, threads)
    return [each.tobytes() for each in (*made, dots, picked, put, moments, out, grad)]


def test_results_are_the_same_bits_for_any_number_of_threads(isa, dtype):
    one = everything(dtype, 1)
    assert everything(dtype, 2) == one
    assert everything(dtype, 3) == one


def test_results_are_the_same_bits_for_every_instruction_set(isa, dtype):
    made = everything(dtype, 1)
    _rows.set_isa("baseline")
    assert everything(dtype, 1) == made


def int32(*numbers):
    return np.array(numbers, np.int32)


def f32(*shape):
    return np.zeros(shape, np.float32)


NO_PLACES = int32()
WRONG_LISTS = [
    (np.array([0, 2]), int32(0), "from 0 to 1, not from 0 to 2"),
    (np.array([1, 1]), int32(0), "not from 1 to 1"),
    (np.array([0, 2, 1]), int32(0), "must not fall"),
    (np.array([0, 9, 1]), int32(0), "must not fall"),
    (np.array([0, 300, 1]), int32(0), "above the number of entries"),
    (np.array([0, 1]), int32(5), "column 0 must be one of 5 rows, not 5"),
    (np.array([0, 1, 2]), int32(0, -1), "column 1 must be one of 5 rows, not -1"),
    (np.array([], np.int64), int32(), "starts"),
]


@pytest.mark.parametrize(("starts", "columns", "message"), WRONG_LISTS)
def test_lists_that_are_none_are_refused(starts, columns, message):
    features, lists_of = f32(5, 2), max(len(starts) - 1, 0)
    out, argmax = f32(lists_of, 2), np.zeros((lists_of, 2), np.int32)
    places = np.arange(len(columns), dtype=np.int32)
    with pytest.raises(ValueError, match=message):
        _rows.row_sum(features, None, starts, columns, NO_PLACES, out, 2)
    with pytest.raises(ValueError, match=message):
        _rows.row_max(features, starts, columns, out, argmax, 2)
    with pytest.raises(ValueError, match=message):
        _rows.row_dot(out, features, starts, columns, places, f32(len(columns)), 2)
    with pytest.raises(ValueError, match=message):
        _rows.row_put(features, np.zeros((5, 2), np.int32), starts, columns, out, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: _rows.list_rows(int32(0, 3), int32(0, 0), 3, 1, True), "target 1 must be one of 3 rows, not 3"),
        (lambda: _rows.list_rows(int32(0), int32(-1), 3, 1, True), "source 0 must be one of 1 rows, not -1"),
        (lambda: _rows.list_rows(int32(0), int32(), 3, 1, True), "an item for each pair"),
        (lambda: _rows.list_rows(int32(), int32(), -1, 1, True), "less than 2\\^31 - 1 rows"),
        (lambda: _rows.list_rows(int32(), int32(), 2**31, 1, True), "less than 2\\^31 - 1 rows"),
        (
            lambda: _rows.row_sum(f32(3, 1), f32(1), np.array([0, 1]), int32(0), int32(7), f32(1, 1)),
            "place 0 must be one of 1",
        ),
        (
            lambda: _rows.row_sum(f32(3, 1), f32(2), np.array([0, 1]), int32(0), int32(0), f32(1, 1)),
            "coefficients must have",
        ),
        (
            lambda: _rows.row_sum(f32(3, 1), np.zeros(1), np.array([0, 1]), int32(0), int32(0), f32(1, 1)),
            "of one dtype",
        ),
        (
            lambda: _rows.row_sum(f32(3, 1), None, np.array([0, 1]), int32(0), NO_PLACES, np.zeros((1, 1))),
            "of one dtype",
        ),
        (
            lambda: _rows.row_sum(f32(3, 1), None, np.array([0, 1]), int32(0), NO_PLACES, f32(2, 1)),
            "differ in rows or channels",
        ),
        (
            lambda: _rows.row_sum(np.zeros((3, 1), int), None, np.array([0, 1]), int32(0), NO_PLACES, f32(1, 1)),
            "must be float32, float64 or uint16",
        ),
        (
            lambda: _rows.row_sum(f32(3, 2)[:, :1], None, np.array([0, 1]), int32(0), NO_PLACES, f32(1, 1)),
            "C order",
        ),
        (lambda: _rows.row_pick(f32(3, 1), int32(3)[:, None], f32(1, 1)), "argmax of row 0 must be -1 or one of 3"),
        (lambda: _rows.row_pick(f32(3, 1), int32(-2)[:, None], f32(1, 1)), "not -2"),
        (lambda: _rows.column_moments(f32(3, 2), f32(1), f32(2)), "number for each channel"),
        (lambda: _rows.normalise(f32(3, 2), f32(2), f32(2), np.zeros(2), False, f32(3, 2)), "of one dtype"),
        (lambda: _rows.set_isa("mmx"), "'mmx' is none"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-2, 9), min_size=1, max_size=6),
    st.lists(st.integers(-2, 6), max_size=8),
    st.integers(0, 4),
    st.integers(0, 3),
)
def test_no_lists_lead_out_of_bounds(starts, columns, rows, channels):
    features, count = f32(rows, channels), len(starts) - 1
    out, argmax = f32(count, channels), np.zeros((count, channels), np.int32)
    entries = np.array(starts), int32(*columns)
    rises = starts[0] == 0 and starts[-1] == len(columns) and np.all(np.diff(starts) >= 0)
    good = rises and all(0 <= column < rows for column in columns)
    for call in (
        lambda: _rows.row_sum(features, None, *entries, NO_PLACES, out, 1),
        lambda: _rows.row_max(features, *entries, out, argmax, 1),
        lambda: _rows.row_put(features, np.zeros((rows, channels), np.int32), *entries, out, 1),
    ):
        if good:
            call()
        else:
            with pytest.raises(ValueError, match=r"must"):
                call()
