"""The kernels of the convolution in bfloat16, against their twins in float64."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hepfeed import _convolution
from hepfeed.reference import convolution as reference

SETS = ["baseline", "avx2", "avx512", "avx512_bf16", "amx"]


def available():
    before, names = _convolution.isa(), []
    for name in SETS:
        try:
            _convolution.set_isa(name)
        except ValueError:  # this processor lacks it
            continue
        names.append(name)
    _convolution.set_isa(before)
    return names


@pytest.fixture(params=SETS)
def isa(request):
    """Each instruction set that the processor has."""
    if request.param not in available():
        pytest.skip(f"this processor has no {request.param}")
    before = _convolution.isa()
    _convolution.set_isa(request.param)
    yield request.param
    _convolution.set_isa(before)


def test_the_sets_nest_and_the_best_is_the_first_choice():
    names = available()
    assert names == SETS[: len(names)]
    script = "from hepfeed import _convolution; print(_convolution.isa())"
    for wanted in ("", names[-1]):
        environment = {**os.environ, "HEPFEED_ISA": wanted}
        made = subprocess.run(
            [sys.executable, "-c", script], env=environment, cwd="/", capture_output=True, text=True, check=True
        )
        assert made.stdout.strip() == names[-1]


def test_an_unknown_set_is_refused_with_the_names_of_all():
    with pytest.raises(ValueError, match="'sse' is none of 'baseline', 'avx2', 'avx512', 'avx512_bf16', 'amx'"):
        _convolution.set_isa("sse")


SMALL_SIGNAL_STACK = """
import ctypes
import numpy as np
class Stack(ctypes.Structure):
    _fields_ = [("memory", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]
memory = ctypes.create_string_buffer(8192)  # too small for the state of the tiles, so the system refuses it
stack = Stack(ctypes.addressof(memory), 0, 8192)
assert ctypes.CDLL(None).sigaltstack(ctypes.byref(stack), None) == 0
from hepfeed import _convolution
assert _convolution.isa() == "amx"
ones, out = np.full((40, 8), 0x3F80, np.uint16), np.zeros((40, 8), np.uint16)
run = np.arange(40, dtype=np.int32)
_convolution.forward(ones, ones[:8].reshape(8, 1, 8).copy(), None, run, run, np.array([0, 40]), out, 1, 2)
assert (out == 0x4100).all()
try:
    _convolution.set_isa("amx")
except ValueError as error:
    print(error)
"""


def test_kernels_do_without_tiles_where_the_system_refuses_them():
    if "amx" not in available():
        pytest.skip("this processor has no amx")
    environment = {name: value for name, value in os.environ.items() if name != "HEPFEED_ISA"}
    command = [sys.executable, "-c", SMALL_SIGNAL_STACK]
    made = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True)
    assert made.stderr == ""
    assert "the system refuses the state of amx" in made.stdout


def narrow(values):
    """The bits of bfloat16, rounded to nearest even from float32."""
    bits = np.asarray(values, np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)


def wide(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def some_map(rng, rows, counts):
    """A map of ``counts[k]`` pairs of tap k, from any of ``rows[0]`` rows to ``rows[1]`` rows that rise."""
    outs = [np.sort(rng.permutation(rows[1])[:count]) for count in counts]
    out_maps = np.concatenate([*outs, []]).astype(np.int32)
    in_maps = rng.integers(0, max(rows[0], 1), len(out_maps)).astype(np.int32)
    return in_maps, out_maps, np.cumsum([0, *map(len, outs)])


def forward(features, weight, bias, pairs, out_rows, groups=1, threads=1):
    out = np.full((out_rows, len(weight)), 0x7FC1, np.uint16)
    _convolution.forward(features, weight, bias, *pairs, out, groups, threads)
    return out


def input_grad(grad, weight, pairs, in_rows, groups=1, threads=1):
    """Of pairs that are swapped already."""
    out = np.full((in_rows, weight.shape[2] * groups), 0x7FC1, np.uint16)
    _convolution.input_grad(grad, weight, *pairs, out, groups, threads)
    return out


def weight_grad(features, grad, pairs, groups=1, threads=1):
    out = np.full((grad.shape[1], len(pairs[2]) - 1, features.shape[1] // groups), 0x7FC1, np.uint16)
    _convolution.weight_grad(features, grad, *pairs, out, groups, threads)
    return out


def swapped(pairs):
    return pairs[1], pairs[0], pairs[2]


def whole_numbers(rng, *shape):
    """Small enough that all sums of their products are exact in float32."""
    return narrow(rng.integers(-8, 9, shape))


def assert_all_exact(rng, rows, counts, channels, groups=1, threads=1):
    """The three kernels on whole numbers: their sums are exact, so the twins, rounded once, are the results."""
    pairs = some_map(rng, rows, counts)
    features, grad = whole_numbers(rng, rows[0], channels[0]), whole_numbers(rng, rows[1], channels[1])
    weight = whole_numbers(rng, channels[1], len(counts), channels[0] // groups)
    bias = whole_numbers(rng, channels[1])
    x, g, w, b = map(wide, (features, grad, weight, bias))
    for given_bias, wide_bias in ((None, None), (bias, b)):
        made = forward(features, weight, given_bias, pairs, rows[1], groups, threads)
        assert np.array_equal(made, narrow(reference.forward(x, w, wide_bias, *pairs, rows[1], groups)))
    # Rows of what this kernel makes must rise, so it takes the same pairs as though they were swapped.
    back_grad = whole_numbers(rng, rows[0], channels[1])
    back = input_grad(back_grad, weight, pairs, rows[1], groups, threads)
    assert np.array_equal(back, narrow(reference.input_grad(wide(back_grad), w, *swapped(pairs), rows[1], groups)))
    made = weight_grad(features, grad, pairs, groups, threads)
    assert np.array_equal(made, narrow(reference.weight_grad(x, g, *pairs, groups)))


@pytest.mark.parametrize(
    "channels",
    [(1, 1), (1, 16), (2, 3), (3, 48), (5, 8), (16, 17), (31, 32), (32, 33), (33, 31), (64, 64), (96, 10), (10, 130)],
)
def test_sums_of_whole_numbers_are_exact_and_rounded_once(isa, channels):
    rng = np.random.default_rng(channels[0])
    assert_all_exact(rng, (70, 90), [90, 0, 33, 1, 16], channels)


@pytest.mark.parametrize("rows", [(0, 0), (1, 1), (0, 5), (16, 16), (17, 15), (33, 31), (129, 127), (40, 1030)])
def test_any_number_of_rows_and_pairs(isa, rows):
    rng = np.random.default_rng(rows[1])
    most = rows[1] if rows[0] else 0
    assert_all_exact(rng, rows, [most, most // 2, min(most, 1)], (6, 20), threads=2)


@pytest.mark.parametrize(("channels", "groups"), [((4, 4), 4), ((6, 9), 3), ((64, 64), 2), ((40, 72), 2), ((35, 5), 5)])
def test_groups_of_channels_see_their_own_alone(isa, channels, groups):
    assert_all_exact(np.random.default_rng(groups), (50, 60), [60, 21, 7], channels, groups, threads=2)


@pytest.mark.parametrize("channels", [(32, 16), (64, 33), (20, 20)])
def test_runs_of_neighbouring_rows_are_taken_as_they_lie(isa, channels):
    rng = np.random.default_rng(1)
    features, weight = whole_numbers(rng, 200, channels[0]), whole_numbers(rng, channels[1], 3, channels[0])
    run = np.arange(200, dtype=np.int32)
    in_maps = np.concatenate([run, run[40:113], run[:64]])
    out_maps = np.concatenate([run, run[3:76], run[136:]])
    pairs = in_maps, out_maps, np.array([0, 200, 273, 337])
    twin = reference.forward(wide(features), wide(weight), None, *pairs, 200)
    assert np.array_equal(forward(features, weight, None, pairs, 200), narrow(twin))
    grad = whole_numbers(rng, 200, channels[1])
    twin = reference.input_grad(wide(grad), wide(weight), *pairs, 200)
    assert np.array_equal(input_grad(grad, weight, swapped(pairs), 200), narrow(twin))


@pytest.mark.parametrize("pairs", [255, 257, 4095, 4097, 8200])
def test_the_gradient_of_the_weight_joins_its_parts(isa, pairs):
    rng = np.random.default_rng(pairs)
    features, grad = whole_numbers(rng, 60, 3), whole_numbers(rng, 50, 18)
    rows = rng.integers(0, 50, (2, pairs + 5)).astype(np.int32)  # rows of the output in any order
    maps = rows[0], rows[1], np.array([0, 5, 5 + pairs])
    twin = reference.weight_grad(wide(features), wide(grad), *maps)
    assert np.array_equal(weight_grad(features, grad, maps, threads=2), narrow(twin))


def assert_close(made, twin, magnitude):
    """Equal but for sums in float32 and one rounding to 8 bits; ``magnitude``: sums of magnitudes of the terms."""
    np.testing.assert_array_less(np.abs(wide(made) - twin), 2**-8 * np.abs(twin) + 2e-6 * magnitude + 1e-30)


def test_sums_of_any_numbers_are_those_of_the_twins(isa):
    rng = np.random.default_rng(2)
    pairs = some_map(rng, (300, 280), [280, 140, 66, 0, 31])
    normal = [narrow(rng.normal(size=size)) for size in [(300, 50), (20, 5, 50), (20,), (280, 20), (300, 20)]]
    values = [wide(each) for each in normal]
    (features, weight, bias, grad, back), (x, w, b, g, r) = normal, values
    size = [np.abs(value) for value in values]
    assert_close(
        forward(features, weight, bias, pairs, 280),
        reference.forward(x, w, b, *pairs, 280),
        reference.forward(*size[:3], *pairs, 280),
    )
    assert_close(
        input_grad(back, weight, pairs, 280),
        reference.input_grad(r, w, *swapped(pairs), 280),
        reference.input_grad(size[4], size[1], *swapped(pairs), 280),
    )
    assert_close(
        weight_grad(features, grad, pairs),
        reference.weight_grad(x, g, *pairs),
        reference.weight_grad(size[0], size[3], *pairs),
    )


def test_a_tie_is_rounded_to_even_and_a_sum_only_once(isa):
    # 256 + 1 is a tie between 256 and 258; 258 + 1 between 258 and 260; 256 + 1 + 1 needs no rounding.
    features = narrow([[256, 1, 0], [258, 1, 0], [256, 1, 1]])
    run = np.arange(3, dtype=np.int32)
    made = forward(features, narrow(np.ones((1, 1, 3))), None, (run, run, np.array([0, 3])), 3)
    assert wide(made).tolist() == [[256], [260], [258]]


def test_not_a_number_and_infinity_reach_their_own_rows_and_groups_alone(isa):
    features = narrow(np.ones((40, 6)))
    features[3, 1], features[20, 4] = 0x7FC0, 0x7F80  # in groups 0 and 2
    weight = narrow(np.ones((9, 1, 2)))
    run = np.arange(40, dtype=np.int32)
    pairs = run, run, np.array([0, 40])
    expected = np.full((40, 9), 2.0)
    expected[3, :3], expected[20, 6:] = np.nan, np.inf
    np.testing.assert_array_equal(wide(forward(features, weight, None, pairs, 40, 3)), expected)
    back = input_grad(features, narrow(np.ones((6, 1, 3))), pairs, 40, 3)
    np.testing.assert_array_equal(wide(back), expected)
    grad = narrow(np.ones((40, 6)))
    expected = np.full((6, 1, 2), 40.0)
    expected[:2, 0, 1], expected[4:, 0, 0] = np.nan, np.inf
    np.testing.assert_array_equal(wide(weight_grad(features, grad, pairs, 3)), expected)


def test_a_sum_beyond_the_range_is_infinite(isa):
    features, weight = np.full((1, 2), 0x7F7F, np.uint16), narrow(np.ones((1, 1, 2)))
    one = np.zeros(1, np.int32)
    assert wide(forward(features, weight, None, (one, one, np.array([0, 1])), 1)).tolist() == [[np.inf]]


def test_numbers_of_the_smallest_size_count_as_they_are_or_as_zero(isa):
    features, weight = np.array([[1, 0x8001]], np.uint16), narrow(np.ones((2, 1, 2)))
    one = np.zeros(1, np.int32)
    made = forward(features, weight, None, (one, one, np.array([0, 1])), 1)
    assert np.abs(wide(made)).max() < 2**-126


def test_results_are_the_same_bits_for_any_number_of_threads(isa):
    rng = np.random.default_rng(3)
    rows, counts = (3000, 2900), [2900, 1500, 400, 4]
    pairs = some_map(rng, rows, counts)
    features, grad = narrow(rng.normal(size=(3000, 24))), narrow(rng.normal(size=(2900, 40)))
    weight, bias = narrow(rng.normal(size=(40, 4, 24))), narrow(rng.normal(size=40))
    many = (*(np.tile(part, 4) for part in pairs[:2]), np.array([0, 0, 9000, 12000, 4 * len(pairs[0])]))
    back_grad = narrow(rng.normal(size=(3000, 40)))
    for call in (
        lambda threads: forward(features, weight, bias, pairs, 2900, threads=threads),
        lambda threads: input_grad(back_grad, weight, pairs, 2900, threads=threads),
        lambda threads: weight_grad(features, grad, many, threads=threads),
    ):
        first = call(1)
        assert all(np.array_equal(call(threads), first) for threads in (2, 3))


# The side and place of a row that is changed, to what, and the first pair that is bad then.
BAD = [
    ("in", 0, -1, 0),
    ("in", 2050, 50, 2050),
    ("in", 2300, 2**31 - 1, 2300),
    ("out", 0, -1, 0),
    ("out", 2099, 2100, 2099),
    ("out", 1024, 3, 1024),  # from the second block of rows into the first
    ("out", 1023, 1500, 1024),  # in order itself, but not the one after it
    ("out", 700, 699, 700),  # as the one before
    ("out", 2100, 2**31 - 1, 2100),
    ("out", 2102, -(2**31), 2102),
]


@pytest.mark.parametrize(("side", "place", "row", "bad"), BAD)
@pytest.mark.parametrize("threads", [1, 2])
def test_the_first_bad_pair_is_named(isa, side, place, row, bad, threads):
    rows, run = 2100, np.arange(2100, dtype=np.int32)
    in_maps = np.concatenate([run % 50, run[:300] % 50])
    out_maps = np.concatenate([run, run[:300]])
    (in_maps if side == "in" else out_maps)[place] = row
    pairs = in_maps, out_maps, np.array([0, 2100, 2400])
    features, weight = narrow(np.ones((50, 4))), narrow(np.ones((4, 2, 4)))
    message = f"pair {bad} of tap {int(bad >= 2100)} "
    with pytest.raises(ValueError, match=message):
        forward(features, weight, None, pairs, rows, threads=threads)
    with pytest.raises(ValueError, match=message):
        input_grad(features, weight, pairs, rows, threads=threads)
    grad = narrow(np.ones((rows, 4)))
    if 0 <= row < (50 if side == "in" else rows):  # rows of the output may be in any order here
        weight_grad(features, grad, pairs, threads=threads)
    else:
        with pytest.raises(ValueError, match=message):
            weight_grad(features, grad, pairs, threads=threads)


@pytest.mark.parametrize("rows", [(0, 3), (3, 0), (0, 0)])
def test_a_pair_is_bad_where_there_are_no_rows(isa, rows):
    pairs = *np.zeros((2, 1), np.int32), np.array([0, 0, 1])
    features, grad, weight = narrow(np.ones((rows[0], 8))), narrow(np.ones((rows[1], 8))), narrow(np.ones((8, 2, 8)))
    with pytest.raises(ValueError, match="pair 0 of tap 1 "):
        forward(features, weight, None, pairs, rows[1])
    with pytest.raises(ValueError, match="pair 0 of tap 1 "):
        input_grad(features, weight, pairs, rows[1])
    with pytest.raises(ValueError, match="pair 0 of tap 1 "):
        weight_grad(features, grad, pairs)


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_any_sizes_channels_and_groups(data):
    groups = data.draw(st.integers(1, 3))
    channels = tuple(groups * data.draw(st.integers(1, 40)) for _ in range(2))
    rows = tuple(data.draw(st.integers(1, 150)) for _ in range(2))
    counts = data.draw(st.lists(st.integers(0, rows[1]), max_size=4))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    before = _convolution.isa()
    try:
        for name, threads in itertools.product(available(), [1, 2]):
            _convolution.set_isa(name)
            assert_all_exact(rng, rows, counts, channels, groups, threads)
    finally:
        _convolution.set_isa(before)
