"""The kernels of the sparse convolution against their twins, for every instruction set and number of threads."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hepfeed import _convolution
from hepfeed.kernel_map import build_kernel_map
from hepfeed.reference import convolution as reference

ERROR = {"f4": 5e-6, "f8": 1e-13}


@pytest.fixture(params=["baseline", "avx2", "avx512"])
def isa(request):
    """Each instruction set that the processor has."""
    before = _convolution.isa()
    try:
        _convolution.set_isa(request.param)
    except ValueError as error:
        pytest.skip(str(error))
    yield request.param
    _convolution.set_isa(before)


def some_pairs(rng, in_rows, out_rows, taps, part=0.2):
    """Pairs as of a map that covers every output with its first tap, and never an input twice with one tap."""
    in_maps, out_maps = [], []
    for tap in range(taps):
        count = min(in_rows, out_rows) if tap == 0 else int(part * min(in_rows, out_rows))
        in_maps.append(rng.choice(in_rows, count, replace=False) if count else np.zeros(0))
        out_maps.append(np.sort(rng.choice(out_rows, count, replace=False)) if count else np.zeros(0))
    offsets = np.cumsum([0, *map(len, in_maps)], dtype=np.int64)
    return np.concatenate(in_maps).astype(np.int32), np.concatenate(out_maps).astype(np.int32), offsets


def swapped(in_maps, out_maps, offsets):
    """The pairs (output row, input row), for each tap by input rows."""
    orders = [first + np.argsort(in_maps[first:last]) for first, last in itertools.pairwise(offsets)]
    order = np.concatenate([np.zeros(0, np.int64), *orders])
    return out_maps[order], in_maps[order]


class Layer:
    """Numbers of one convolution, and what its kernels make of them."""

    def __init__(self, rng, pairs, in_rows, out_rows, c_in, c_out, groups=1, dtype="f4"):
        self.pairs, self.in_rows, self.out_rows, self.groups = pairs, in_rows, out_rows, groups
        taps = len(pairs[2]) - 1
        self.features = rng.normal(size=(in_rows, c_in)).astype(dtype)
        self.weight = rng.normal(size=(c_out, taps, c_in // groups)).astype(dtype)
        self.bias = rng.normal(size=c_out).astype(dtype)
        self.grad = rng.normal(size=(out_rows, c_out)).astype(dtype)

    def kernels(self, threads=1):
        """(output, gradients of input, weight and bias); outputs hold NaN before."""
        in_maps, out_maps, offsets = self.pairs
        out, in_grad, weight_grad, bias_grad = (
            np.full_like(like, np.nan) for like in (self.grad, self.features, self.weight, self.bias)
        )
        _convolution.forward(
            self.features, self.weight, self.bias, in_maps, out_maps, offsets, out, self.groups, threads
        )
        back = swapped(*self.pairs)
        _convolution.input_grad(self.grad, self.weight, *back, offsets, in_grad, self.groups, threads)
        _convolution.weight_grad(
            self.features, self.grad, in_maps, out_maps, offsets, weight_grad, self.groups, threads
        )
        _convolution.column_sum(self.grad, bias_grad, threads)
        return out, in_grad, weight_grad, bias_grad

    def twins(self):
        """The same of the twins."""
        return (
            reference.forward(self.features, self.weight, self.bias, *self.pairs, self.out_rows, self.groups),
            reference.input_grad(self.grad, self.weight, *self.pairs, self.in_rows, self.groups),
            reference.weight_grad(self.features, self.grad, *self.pairs, self.groups),
            reference.column_sum(self.grad),
        )

    def check(self):
        made = self.kernels()
        for array, twin in zip(made, self.twins(), strict=True):
            assert array.shape == twin.shape
            if twin.size:
                assert np.abs(array - twin).max() <= ERROR[array.dtype.str[1:]] * max(np.abs(twin).max(), 1e-30)
        for threads in (2, 3):
            for array, other in zip(made, self.kernels(threads), strict=True):
                np.testing.assert_array_equal(array, other)


CHANNELS = [
    (1, 1),
    (1, 16),
    (16, 1),
    (3, 5),
    (8, 10),
    (16, 16),
    (17, 33),
    (20, 48),
    (64, 64),
    (65, 80),
    (130, 9),
    (5, 129),
]


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(("c_in", "c_out"), CHANNELS, ids=str)
def test_every_number_of_channels_equals_the_twin(isa, c_in, c_out, dtype):
    rng = np.random.default_rng(0)
    Layer(rng, some_pairs(rng, 300, 230, 4), 300, 230, c_in, c_out, dtype=dtype).check()


@pytest.mark.parametrize(
    ("c_in", "c_out", "groups"), [(2, 2, 2), (6, 6, 6), (8, 4, 2), (40, 72, 4), (96, 34, 2)], ids=str
)
def test_groups_of_channels_see_their_own_alone(isa, c_in, c_out, groups):
    rng = np.random.default_rng(1)
    Layer(rng, some_pairs(rng, 150, 200, 3), 150, 200, c_in, c_out, groups).check()


@pytest.mark.parametrize("rows", [(0, 0), (0, 3), (3, 0), (1, 1), (511, 513), (2047, 2049), (4097, 2048)], ids=str)
@pytest.mark.parametrize(("c_in", "c_out"), [(2, 18), (32, 16)], ids=str)
def test_rows_that_end_anywhere_in_a_block_equal_the_twin(isa, rows, c_in, c_out):
    rng = np.random.default_rng(2)
    Layer(rng, some_pairs(rng, *rows, 3), *rows, c_in, c_out).check()


def test_taps_of_many_pairs_are_summed_by_parts(isa):
    rng = np.random.default_rng(3)
    Layer(rng, some_pairs(rng, 13000, 13000, 2, 0.7), 13000, 13000, 4, 8).check()
    Layer(rng, some_pairs(rng, 9000, 9000, 1), 9000, 9000, 3, 70).check()
    Layer(rng, some_pairs(rng, 9000, 9000, 12, 0.3), 9000, 9000, 60, 64).check()  # parts of several blocks


@pytest.mark.parametrize("taps", [0, 1, 27])
def test_taps_without_pairs_add_nothing(isa, taps):
    rng = np.random.default_rng(4)
    none = np.zeros(0, np.int32)
    layer = Layer(rng, (none, none, np.zeros(taps + 1, np.int64)), 5, 7, 6, 3)
    layer.check()
    out, in_grad, weight_grad, _ = layer.kernels()
    np.testing.assert_array_equal(out, np.broadcast_to(layer.bias, out.shape))
    assert not in_grad.any()
    assert not weight_grad.any()


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 90),
    st.integers(0, 90),
    st.integers(1, 3),
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(0, 2**31),
)
def test_any_convolution_equals_the_twin(in_rows, out_rows, groups, c_in, c_out, seed):
    rng = np.random.default_rng(seed)
    pairs = some_pairs(rng, in_rows, out_rows, int(rng.integers(1, 5)))
    Layer(rng, pairs, in_rows, out_rows, groups * c_in, groups * c_out, groups).check()


def test_the_sites_of_a_curve_give_what_a_dense_convolution_gives(isa):
    """An error of 5e-6 at most, relative to the largest number, with the channels and taps of a real layer."""
    rng = np.random.default_rng(5)
    walk = np.cumsum(rng.integers(-1, 2, (1500, 3)), axis=0) % 40
    sites = np.unique(walk, axis=0)
    indices = np.concatenate([np.zeros((len(sites), 1)), sites], axis=1).astype(np.int32)
    found = build_kernel_map(indices, (40, 40, 40), 1, 3, submanifold=True)
    in_maps, out_maps, offsets = (found.in_maps, found.out_maps, found.offsets)
    layer = Layer(rng, (in_maps, out_maps, offsets), len(sites), len(sites), 64, 32)
    layer.check()
    # Dense: the features in a grid with a margin of one cell, moved by each tap.
    grid = np.zeros((42, 42, 42, 64))
    grid[tuple(sites.T + 1)] = layer.features
    dense = np.zeros((len(sites), 32)) + layer.bias
    for tap, shift in enumerate(np.ndindex(3, 3, 3)):
        dense += grid[tuple((sites + shift).T)] @ layer.weight[:, tap].astype(np.float64).T
    out = layer.kernels()[0]
    assert np.abs(out - dense).max() <= 5e-6 * np.abs(dense).max()


def test_a_convolution_needs_no_bias(isa):
    rng = np.random.default_rng(6)
    layer = Layer(rng, some_pairs(rng, 40, 50, 3), 40, 50, 7, 20)
    out = np.full_like(layer.grad, np.nan)
    _convolution.forward(layer.features, layer.weight, None, *layer.pairs, out, 1, 1)
    np.testing.assert_allclose(out, layer.twins()[0] - layer.bias, rtol=1e-4, atol=1e-4)


def test_numbers_that_are_not_finite_stay_in_their_rows(isa):
    rng = np.random.default_rng(7)
    layer = Layer(rng, some_pairs(rng, 60, 60, 3), 60, 60, 5, 5)
    layer.features[11] = np.nan
    layer.features[12] = np.inf
    out = layer.kernels()[0]
    touched = np.isin(np.arange(60), layer.pairs[1][np.isin(layer.pairs[0], [11, 12])])
    assert not np.isfinite(out[touched]).any()
    assert np.isfinite(out[~touched]).all()


BAD = [
    ([0, 9, 1], [0, 1, 2], 1, "9, 1"),
    ([0, -1, 1], [0, 1, 2], 1, "-1, 1"),
    ([0, 1, 2], [0, 1, 7], 2, "2, 7"),
    ([0, 1, 2], [-3, 1, 2], 0, "0, -3"),
    ([2**31 - 1, 1, 2], [0, 1, 2], 0, "2147483647, 0"),
]
FALLING = [([0, 1, 2], [0, 2, 1], 2, "2, 1"), ([0, 1, 2], [3, 3, 4], 1, "1, 3")]


@pytest.mark.parametrize(("in_maps", "out_maps", "pair", "rows"), [*BAD, *FALLING], ids=str)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_bad_pair_is_refused_by_its_number_and_rows(isa, in_maps, out_maps, pair, rows, threads):
    features, grad = np.ones((5, 2), np.float32), np.ones((6, 3), np.float32)
    weight = np.ones((3, 2, 2), np.float32)
    maps = np.array(in_maps, np.int32), np.array(out_maps, np.int32)
    offsets = np.array([0, 0, 3])
    message = rf"pair {pair} of tap 1 has rows \({rows}\), which must lie in \(5, 6\)"
    with pytest.raises(ValueError, match=message):
        _convolution.forward(features, weight, None, *maps, offsets, np.empty_like(grad), 1, threads)
    with pytest.raises(ValueError, match=message):
        _convolution.input_grad(np.ones((5, 3), np.float32), weight, *maps, offsets, np.empty((6, 2), "f4"), 1, threads)
    if (in_maps, out_maps, pair, rows) in BAD:
        with pytest.raises(ValueError, match=message):
            _convolution.weight_grad(features, grad, *maps, offsets, np.empty_like(weight), 1, threads)
    else:
        _convolution.weight_grad(features, grad, *maps, offsets, np.empty_like(weight), 1, threads)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 3000), st.integers(0, 4000))
def test_pairs_that_are_garbage_give_an_error_or_a_result(seed, rows, count):
    """The first bad pair, wherever blocks of rows or of pairs begin."""
    rng = np.random.default_rng(seed)
    count = min(count, rows)
    in_maps = rng.integers(0, rows, count).astype(np.int32)
    out_maps = np.sort(rng.choice(rows, count, replace=False)).astype(np.int32)
    for _ in range(int(rng.integers(0, 4)) if count else 0):
        array = in_maps if rng.random() < 0.5 else out_maps
        array[rng.integers(count)] = rng.choice([-1, 0, rows - 1, rows, 2**31 - 1, -(2**31)])
    offsets = np.array([0, count])
    features, weight = np.ones((rows, 1), np.float32), np.ones((1, 1, 1), np.float32)
    inside = (in_maps >= 0) & (in_maps < rows) & (out_maps >= 0) & (out_maps < rows)
    rises = np.concatenate([[True], np.diff(out_maps.astype(np.int64)) > 0])[:count]
    first_bad = np.flatnonzero(~inside | ~rises)
    arguments = (features, weight, None, in_maps, out_maps, offsets, np.empty((rows, 1), "f4"), 1, 2)
    if len(first_bad):
        with pytest.raises(ValueError, match=f"pair {first_bad[0]} of tap 0 "):
            _convolution.forward(*arguments)
    else:
        _convolution.forward(*arguments)


def test_arrays_that_do_not_fit_are_refused():
    rng = np.random.default_rng(8)
    layer = Layer(rng, some_pairs(rng, 6, 5, 2), 6, 5, 4, 2)
    x, w, b, g = layer.features, layer.weight, layer.bias, layer.grad
    maps, offsets = layer.pairs[:2], layer.pairs[2]

    def forward(x=x, w=w, b=b, in_maps=maps[0], out_maps=maps[1], offsets=offsets, out=None, groups=1):
        _convolution.forward(x, w, b, in_maps, out_maps, offsets, np.empty_like(g) if out is None else out, groups, 1)

    for arguments, message in (
        ({"x": x.astype("f8")}, "must all be float32, all float64 or all uint16"),
        ({"x": np.asfortranarray(x)}, "in C order"),
        ({"x": x[:, :3].copy()}, r"features is \(6, 3\), not \(6, 4\)"),
        ({"x": x[0]}, "features must have rows and channels"),
        ({"b": b[:1]}, r"bias is \(1,\), not \(2,\)"),
        ({"out": np.empty((5, 3), "f4")}, r"out is \(5, 3\), not \(5, 2\)"),
        ({"w": w[:, :1].copy()}, r"the weight must be \(C_out, taps, C_in / groups\)"),
        ({"groups": 0}, "C_out must be a multiple of groups"),
        ({"groups": 3}, "C_out must be a multiple of groups"),
        ({"offsets": offsets[1:].copy()}, "offsets must begin with 0"),
        ({"offsets": np.array([0, 4, 2])}, "offsets must not fall"),
        ({"offsets": np.array([0, 1, 2])}, "offsets must end with the number of pairs"),
        ({"in_maps": maps[0][1:].copy()}, r"maps must be \(pairs,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            forward(**arguments)
    frozen = np.empty_like(g)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="not writeable"):
        forward(out=frozen)
    for arguments in ({"in_maps": maps[0].astype(np.int64)}, {"offsets": offsets.astype(np.int32)}, {"x": x.tolist()}):
        with pytest.raises(TypeError):
            forward(**arguments)
    forward()


@pytest.mark.parametrize("rows", [0, 1, 1023, 1025, 5000])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_sums_of_columns_equal_the_twin(isa, rows, dtype):
    values = np.random.default_rng(9).normal(size=(rows, 19)).astype(dtype)
    sums = [np.full(19, np.nan, dtype) for _ in range(3)]
    for threads, out in enumerate(sums, 1):
        _convolution.column_sum(values, out, threads)
        np.testing.assert_array_equal(out, sums[0])
    np.testing.assert_allclose(sums[0], reference.column_sum(values), rtol=1e-6, atol=1e-6)


def test_sums_of_columns_of_bfloat16_are_rounded_to_nearest():
    values = np.random.default_rng(10).normal(size=(3000, 7)).astype(np.float32)
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    out = np.empty(7, np.uint16)
    _convolution.column_sum(bits, out, 2)
    expected = reference.column_sum((bits.astype(np.uint32) << 16).view(np.float32))
    made = (out.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_allclose(made, expected, rtol=2**-8)
