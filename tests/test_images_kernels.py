"""The native kernels on images, each against its plain twin, for every instruction set."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hepfeed import _images, images, noise, programs
from hepfeed.draws import Draws
from hepfeed.errors import ProcessError, SpecError
from hepfeed.programs import Operation
from hepfeed.reference import images as reference

ITEMS = ["u1", "i2", "f2", "f4", "i8", "f8", "c16", "?"]
NUMBERS = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "?"]


@pytest.fixture(params=["baseline", "avx2", "avx512"])
def isa(request):
    """Each instruction set that the processor has."""
    before = _images.isa()
    try:
        _images.set_isa(request.param)
    except ValueError:
        pytest.skip(f"this processor has no {request.param}")
    yield request.param
    _images.set_isa(before)


def some(shape, dtype="f4", seed=0):
    """Numbers of any type, a third of them 0."""
    random = np.random.default_rng(seed)
    values = random.normal(0, 40, shape) * (random.random(shape) > 1 / 3)
    dtype = np.dtype(dtype)
    return (values if dtype.kind in "fc" else np.abs(values)).astype(dtype)


def draws_of(events, seed=5, epoch=2, step=3):
    event = np.stack([np.arange(events) % 3, 1000 + np.arange(events)], axis=1).astype(np.int64)
    return Draws(seed, epoch, 0, event, step)


def assert_same(got, expected):
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    np.testing.assert_array_equal(got, expected)


# ---- movements

shapes = st.lists(st.integers(0, 9), min_size=1, max_size=4).map(tuple)


@given(shapes, st.integers(0, 4), st.sampled_from(ITEMS), st.data())
@settings(max_examples=150, deadline=None)
def test_a_window_is_its_twin_for_every_origin_and_shape(shape, events, dtype, data):
    values = some((events, *shape), dtype)
    new = tuple(data.draw(st.integers(0, 9)) for _ in shape)
    origin = np.array([[data.draw(st.integers(-12, 12)) for _ in shape] for _ in range(events)], np.int64)
    origin = origin.reshape(events, len(shape))
    assert_same(images.window(values, origin, new, 1), reference.window(values, origin, new, 1))


@pytest.mark.parametrize("length", [1, 15, 16, 17, 31, 255, 256, 257, 300])
def test_rows_of_a_window_are_its_twin_however_long_they_are(length):
    values, origin = some((4, 3, length + 2), "u1"), np.array([[0, 0], [1, 1], [-1, 2], [0, -1]])
    assert_same(images.window(values, origin, (3, length), 7), reference.window(values, origin, (3, length), 7))


def test_a_window_of_one_event_by_hand():
    got = images.window(np.array([[[1, 2], [3, 4]]]), np.array([[-1, 1]]), (3, 2), 9)
    assert got.tolist() == [[[9, 9], [2, 9], [4, 9]]]


def test_a_window_far_beyond_the_image_is_all_fill():
    far = np.iinfo(np.int64)
    origin = np.array([[far.min, 0], [far.max, 0]])
    assert images.window(np.ones((2, 2, 2)), origin, (2, 2), -1).tolist() == [[[-1, -1], [-1, -1]]] * 2


@pytest.mark.parametrize(("fill", "dtype"), [(300, "u1"), (-1, "u4"), (0.5, "i4"), (1e6, "f2"), (math.nan, "i8")])
def test_a_fill_that_the_type_cannot_hold_is_refused(fill, dtype):
    with pytest.raises(SpecError, match="can't be filled with"):
        images.fill_item(fill, np.dtype(dtype))


@pytest.mark.parametrize(("fill", "dtype"), [(0.1, "f2"), (math.nan, "f4"), (math.inf, "f8"), (255, "u1")])
def test_a_fill_that_the_type_holds_or_rounds_is_taken(fill, dtype):
    np.testing.assert_array_equal(images.fill_item(fill, np.dtype(dtype)), np.array(fill, dtype))


@given(shapes, st.integers(0, 4), st.sampled_from(ITEMS), st.data())
@settings(max_examples=150, deadline=None)
def test_flips_are_their_twin(shape, events, dtype, data):
    values = some((events, *shape), dtype)
    flags = np.array([[data.draw(st.booleans()) for _ in shape] for _ in range(events)], bool)
    flags = flags.reshape(events, len(shape))
    assert_same(images.flip(values, flags), reference.flip(values, flags))


@pytest.mark.parametrize("dtype", ITEMS)
@pytest.mark.parametrize("length", [1, 7, 8, 15, 16, 31, 32, 33, 63, 64, 65, 129])
def test_a_long_row_is_reversed(isa, dtype, length):
    values = some((2, length), dtype)
    assert_same(images.flip(values, np.array([[True], [False]])), np.stack([values[0, ::-1], values[1]]))


def test_items_that_do_not_lie_at_multiples_of_their_size_are_moved():
    data = np.arange(1 + 2 * 3 * 4 * 4, dtype=np.uint8)[1:].view("f4").reshape(2, 3, 4)
    assert not data.flags.aligned
    assert_same(images.flip(data, np.ones((2, 2), bool)), data[:, ::-1, ::-1].copy())


@pytest.mark.parametrize("dtype", ITEMS)
@pytest.mark.parametrize(
    ("shape", "axes"),
    [((5, 5), (0, 1)), ((5, 5), (1, 0)), ((19, 19), (0, 1)), ((3, 8, 2, 8, 3), (1, 3)), ((9, 2, 9), (2, 0))],
)
def test_quarter_turns_are_those_of_rot90(isa, shape, axes, dtype):
    values, quarters = some((7, *shape), dtype), np.array([0, 1, 2, 3, 4, -1, 1001])
    assert_same(images.rotate90(values, quarters, axes), reference.rotate90(values, quarters, axes))


def test_a_quarter_turn_by_hand():
    assert images.rotate90(np.array([[[1, 2], [3, 4]]]), np.array([1]), (0, 1)).tolist() == [[[2, 4], [1, 3]]]


def test_a_plane_that_is_not_square_is_not_turned():
    with pytest.raises(ProcessError, match=r"axes \(0, 1\) must be of equal length .* are \(2, 3\)"):
        images.rotate90(np.zeros((1, 2, 3)), np.array([1]), (0, 1))


@given(shapes, st.integers(0, 3), st.sampled_from(NUMBERS), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_extents_are_their_twin(shape, events, dtype, occupancy):
    random = np.random.default_rng(0)
    values = (random.random((events, *shape)) < occupancy * 0.2).astype(dtype)
    assert_same(images.extents(values), reference.extents(values))


def test_minus_zero_is_zero_and_nan_is_not():
    values = np.array([[0.0, -0.0, 0.0, -0.0], [-0.0, np.nan, 0.0, -1.0]])
    for dtype in ("f2", "f4", "f8"):
        assert images.extents(values.astype(dtype)).tolist() == [[[0, 0]], [[1, 4]]]


# ---- resampling


def turn(degrees):
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[c, s], [-s, c]])


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("dtype", ["u1", "f2", "f4", "f8", "i4"])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((11,), (0,)),
        ((9, 12), (0, 1)),
        ((9, 12), (1, 0)),
        ((2, 7, 3, 8, 2), (1, 3)),
        ((5, 6, 7), (0, 1, 2)),
        ((4, 1), (0,)),
    ],
)
def test_warps_by_a_matrix_are_their_twin(shape, axes, dtype, order):
    values = some((5, *shape), dtype)
    matrix = np.random.default_rng(1).normal(0, 0.7, (5, len(axes), len(axes)))
    got = images.warp(values, axes, order, 3, matrix=matrix)
    assert_same(got, reference.warp(values, axes, order, 3, matrix=matrix))


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize(("shape", "axes"), [((40,), (0,)), ((9, 12), (0, 1)), ((3, 5, 6, 7), (1, 2, 3))])
def test_warps_by_a_field_are_their_twin(shape, axes, order):
    values = some((3, *shape), "f4")
    lengths = [shape[a] for a in axes]
    field = np.random.default_rng(1).normal(0, 3, (3, len(axes), *lengths)).astype(np.float32)
    field[0, 0].flat[0] = np.nan
    field[0, 0].flat[1] = np.inf
    got = images.warp(values, axes, order, -2, field=field)
    assert_same(got, reference.warp(values, axes, order, -2, field=field))


@pytest.mark.parametrize("run", [3, 4, 32, 33, 65])
def test_items_that_lie_together_are_mixed_as_each_of_them_alone(isa, run):
    values, matrix = some((3, 6, 7, run)), np.stack([turn(30.0), turn(-200.0), turn(1.0)])
    got = images.warp(values, (0, 1), 1, 3, matrix=matrix)
    each = [images.warp(values[..., r], (0, 1), 1, 3, matrix=matrix) for r in range(run)]
    assert_same(got, np.stack(each, axis=-1))
    assert_same(got, reference.warp(values, (0, 1), 1, 3, matrix=matrix))


@pytest.mark.parametrize("order", [0, 1])
def test_the_identity_changes_nothing_not_even_infinities(order):
    values = some((2, 5, 6), "f8")
    values[0, 2, 2], values[1, 0, 0] = np.inf, np.nan
    assert_same(images.warp(values, (0, 1), order, matrix=np.stack([np.eye(2)] * 2)), values)
    assert_same(images.warp(values, (0, 1), order, field=np.zeros((2, 2, 5, 6), np.float32)), values)


@pytest.mark.parametrize(("order", "tolerance"), [(0, 0), (1, 1e-13)])
@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_rotation_by_90_degrees_is_a_quarter_turn(order, tolerance, quarters):
    values = some((1, 8, 8), "f8")
    got = images.warp(values, (0, 1), order, matrix=turn(90 * quarters)[None])
    np.testing.assert_allclose(got, images.rotate90(values, np.array([quarters]), (0, 1)), rtol=0, atol=100 * tolerance)


def test_half_a_pixel_is_the_mean_of_two():
    got = images.warp(np.array([[2.0, 4.0, 8.0]]), (0,), 1, 10.0, field=np.full((1, 1, 3), 0.5, np.float32))
    assert got.tolist() == [[3.0, 6.0, 9.0]]


def test_a_linear_warp_is_what_grid_sample_of_torch_gives():
    values = np.random.default_rng(0).normal(size=(2, 9, 12))
    field = np.random.default_rng(1).normal(0, 3, (2, 2, 9, 12)).astype(np.float32)
    y = np.indices((9, 12)) + field.astype(np.float64)
    grid = np.stack([2 * y[:, 1] / 11 - 1, 2 * y[:, 0] / 8 - 1], axis=-1)
    expected = torch.nn.functional.grid_sample(
        torch.as_tensor(values)[:, None], torch.as_tensor(grid), padding_mode="zeros", align_corners=True
    )
    np.testing.assert_allclose(images.warp(values, (0, 1), 1, field=field), expected[:, 0].numpy(), atol=1e-12)


@pytest.mark.parametrize("lengths", [(1,), (70,), (5, 40), (33, 7), (4, 5, 18), (0, 3)])
@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_elastic_fields_are_their_twin(isa, lengths, sigma):
    draws = draws_of(2)
    got = images.elastic_field(draws, lengths, 3.0, sigma)
    assert got.shape == (2, len(lengths), *lengths)
    np.testing.assert_allclose(got, reference.elastic_field(draws, lengths, 3.0, sigma), rtol=3e-7, atol=1e-7)


def test_taps_are_a_gaussian_of_sum_one():
    taps = images.gaussian_taps(0.5)
    assert len(taps) == 5
    assert taps.sum() == pytest.approx(1)
    assert taps[1] / taps[2] == pytest.approx(math.exp(-2))


# ---- blocks


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize(
    ("shape", "factor"),
    [
        ((12,), (3,)),
        ((6, 8), (2, 2)),
        ((6, 8), (3, 4)),
        ((6, 8), (1, 8)),
        ((4, 6, 5), (2, 3, 1)),
        ((7, 40), (3, 16)),
        ((5, 3), (9, 9)),
    ],
)
def test_blocks_are_their_twin(isa, shape, factor, dtype, reduce):
    values = some((3, *shape), dtype)
    got = images.block_reduce(values, factor, reduce, partial=True)
    expected = reference.block_reduce(values, factor, reduce, partial=True)
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, rtol=1e-6 if got.dtype == np.float32 else 1e-13, atol=1e-6)


def test_half_precision_is_added_up_in_more():
    values = np.full((1, 4096), 1.0, np.float16)
    values[0, 0] = 65504
    assert images.block_reduce(values, (4096,)).tolist() == [[65504 + 4095]]


def test_blocks_that_are_not_whole_are_refused_or_taken_as_they_are():
    values = np.array([[1, 2, 3, 4, 6]], np.uint8)
    with pytest.raises(ProcessError, match=r"images of \(5,\) are not whole blocks of \(2,\)"):
        images.block_reduce(values, (2,))
    assert images.block_reduce(values, (2,), partial=True).tolist() == [[3, 7, 6]]
    assert images.block_reduce(values, (2,), "mean", partial=True).tolist() == [[1.5, 3.5, 6.0]]
    assert images.block_reduce(values, (2,), "max", partial=True).tolist() == [[2, 4, 6]]


@pytest.mark.parametrize("shape", [(2, 2), (4, 1), (1, 4)])
@pytest.mark.parametrize(("dtype", "value"), [("i8", 2**62), ("i8", -(2**62) - 1), ("u8", 2**62), ("u8", 2**63)])
def test_a_sum_beyond_64_bits_is_refused(shape, dtype, value):
    values = np.full((1, *shape), value, dtype)
    with pytest.raises(ProcessError, match="does not fit int64"):
        images.block_reduce(values, shape)


def test_a_sum_of_64_bits_is_exact():
    values = np.array([[2**62, 2**62 - 1, -5, 2**53 + 6]])
    assert images.block_reduce(values, (2,)).tolist() == [[2**63 - 1, 2**53 + 1]]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_a_maximum_is_nan_where_an_item_is(isa, dtype):
    values = np.zeros((1, 4, 4), dtype)
    values[0, 0, 1] = values[0, 3, 2] = np.nan
    values[0, 1, 2] = -np.inf
    assert np.isnan(images.block_reduce(values, (2, 2), "max")).tolist() == [[[True, False], [False, True]]]


# ---- programs

EVERY = [
    Operation("linear", 1.5, 0.25, -3.0),
    Operation("clip", -4.0, 5.0),
    Operation("round"),
    Operation("log", 7.0, 1 / math.log(10)),
    Operation("log_tanh", 0.4),
]


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("length", [0, 1, 255, 256, 257, 1000])
def test_programs_are_their_twin(isa, dtype, length):
    values = some((length,), dtype)
    got, refused = programs.run_program(values, EVERY)
    expected, none = reference.run_program(values, EVERY)
    assert (refused, none) == (-1, -1)
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, rtol=2e-7 if got.dtype == np.float32 else 1e-14, atol=1e-14)


@pytest.mark.parametrize("occupancy", [0.0, 0.03, 0.5])
@pytest.mark.parametrize("length", [7, 100, 256, 301])
def test_images_of_mostly_zeros_have_the_bits_of_each_number_alone(isa, length, occupancy):
    random = np.random.default_rng(length)
    values = np.where(random.random((3, length)) < occupancy, random.uniform(-0.4, 9, (3, length)), 0).astype("f4")
    values[1, length // 2] = -0.0
    program = [Operation("log_tanh", (0.5, 1.0, 2.0)), Operation("log", (2.0, 3.0, 4.0), 0.5)]
    for count in (1, 2):
        got, refused = programs.run_program(values, program[:count], 0)
        assert refused == -1
        for channel, row in enumerate(values):
            alone = [Operation("log_tanh", 0.5 * 2.0**channel), Operation("log", 2.0 + channel, 0.5)][:count]
            each = np.concatenate([programs.run_program(row[i : i + 1], alone)[0] for i in range(length)])
            assert_same(got[channel].view("u4"), each.view("u4"))


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((7, 3), 1),
        ((7, 3), -1),
        ((5, 3, 80), 1),
        ((5, 3, 4, 5), 1),
        ((3, 1000), 0),
        ((4, 3, 0), 1),
        ((0, 3), 1),
        ((600, 3), 1),
    ],
)
def test_channels_have_parameters_of_their_own(isa, shape, axis):
    values = some(shape, "f8")
    program = [Operation("linear", (1.0, 2.0, 3.0), (0.5, 0.25, 4.0), 1.0), Operation("clip", (-1.0, 0.0, 1.0), 9.0)]
    got, _ = programs.run_program(values, program, axis)
    np.testing.assert_allclose(got, reference.run_program(values, program, axis)[0], rtol=1e-15)


@pytest.mark.parametrize("channels", [1, 5000])
def test_one_channel_and_very_many(channels):
    values = some((3, channels), "f4")
    program = [Operation("linear", tuple(float(c) for c in range(channels)), 2.0, 0.0)]
    got, _ = programs.run_program(values, program, 1)
    assert_same(got, ((values.astype("f8") - np.arange(channels)) * 2).astype("f4"))


def test_parameters_must_fit_the_channels():
    program = [Operation("linear", (1.0, 2.0))]
    with pytest.raises(ProcessError, match=r"parameters for 2 channels, and axis 1 of \(4, 3\) has 3"):
        programs.run_program(np.zeros((4, 3)), program, 1)
    with pytest.raises(ProcessError, match="give the axis of the channels"):
        programs.run_program(np.zeros((4, 3)), program)


def test_a_logarithm_keeps_its_digits_near_one_and_over_the_whole_range(isa):
    x = np.concatenate([10.0 ** np.arange(-320, 309), 1 + np.arange(-50, 50) * 2.0**-52, [0.5, 2.0, 5e-324]])
    plain, _ = programs.run_program(x, [Operation("log", 0.0)])
    np.testing.assert_allclose(plain, np.log(x), rtol=3e-16, atol=0)
    shifted, _ = programs.run_program(x, [Operation("log", 1.0)])
    np.testing.assert_allclose(shifted, np.log1p(x), rtol=4e-16, atol=0)
    squashed, _ = programs.run_program(x, [Operation("log_tanh", 1.0)])
    np.testing.assert_allclose(squashed, np.tanh(np.log1p(x)), rtol=1e-15, atol=0)


def test_special_numbers_go_through_programs(isa):
    x = np.array([np.nan, np.inf, -np.inf, 0.0] * 20)
    for operation, expected in [
        (Operation("clip", -1.0, 2.0), [np.nan, 2.0, -1.0, 0.0]),
        (Operation("linear", 1.0, 2.0, 3.0), [np.nan, np.inf, -np.inf, 1.0]),
    ]:
        np.testing.assert_array_equal(programs.run_program(x, [operation])[0], np.array(expected * 20))
    x = np.array([np.nan, np.inf, 0.0] * 20)
    np.testing.assert_array_equal(programs.run_program(x, [Operation("log", 1.0)])[0], [np.nan, np.inf, 0.0] * 20)
    np.testing.assert_array_equal(programs.run_program(x, [Operation("log_tanh", 1.0)])[0], [np.nan, 1.0, 0.0] * 20)


@pytest.mark.parametrize("place", [0, 255, 256, 700])
@pytest.mark.parametrize("axis", [None, 1])
@pytest.mark.parametrize("operation", ["log", "log_tanh"])
def test_the_first_refused_item_is_found(isa, operation, place, axis):
    values = np.zeros((300, 3))
    values.flat[[place, 850]] = -1
    program = [Operation("linear", (0.0, 0.0, 0.0) if axis else 0.0), Operation(operation, 1.0)]
    assert programs.run_program(values, program, axis)[1] == place
    assert reference.run_program(values, program, axis)[1] == place


# ---- noise


def offsets_of(lengths, width=1):
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64) * width


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "i4", "u1"])
@pytest.mark.parametrize(("relative", "only_active"), [(False, False), (True, False), (False, True)])
def test_gaussian_noise_is_its_twin(isa, dtype, relative, only_active):
    offsets = offsets_of([0, 1, 3, 600, 0, 257])
    values, draws = some((int(offsets[-1]),), dtype), draws_of(6)
    arguments = (values, offsets, draws, 0.5, relative, only_active)
    got, expected = noise.gaussian_noise(*arguments), reference.gaussian_noise(*arguments)
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, rtol=2e-7 if got.dtype == np.float32 else 1e-13, atol=1e-13)


@pytest.mark.parametrize("first", [0, 2**64 - 1, 2**64 - 2, 2**64 - 20, 2**64 - 65, 2**64 - 66])
def test_the_words_of_a_counter_that_overflows_are_those_of_numpys_philox(isa, first):
    key, counter = np.array([3, 2**64 - 5], np.uint64), np.array([first, 2**64 - 1, 2**64 - 1, 9], np.uint64)
    words = np.empty(263, np.uint64)
    _images.raw(key, counter, np.array([0, 263]), words)
    np.testing.assert_array_equal(words, np.random.Philox(key=key, counter=counter).random_raw(263))


def test_normal_numbers_are_the_same_bits_for_every_instruction_set(isa):
    made = draws_of(3).normal(1000)
    _images.set_isa("baseline")
    assert_same(made, draws_of(3).normal(1000))


@pytest.mark.parametrize("mean", [0.0, 1e-9, 0.3, 2.0, 9.99, 10.0, 30.0, 1e4, 1e9, 2.0**40])
def test_poisson_noise_is_its_twin(mean):
    offsets, draws = offsets_of([0, 1, 60]), draws_of(3)
    values = np.full(61, mean / 4)
    got, refused = noise.poisson_noise(values, offsets, draws, 4.0)
    expected, none = reference.poisson_noise(values, offsets, draws, 4.0)
    assert (refused, none) == (-1, -1)
    assert_same(got, expected)


@pytest.mark.parametrize("mean", [0.7, 5.0, 9.5, 10.5, 40.0, 3e5])
def test_poisson_numbers_have_the_mean_and_variance_of_their_law(mean):
    count = 200_000
    counts, _ = noise.poisson_noise(np.full(count, mean), offsets_of([count]), draws_of(1))
    assert (counts == np.floor(counts)).all()
    assert abs(counts.mean() - mean) < 5 * math.sqrt(mean / count)
    assert abs(counts.var() / mean - 1) < 5 * math.sqrt((2 + 1 / mean) / count)


def test_the_law_of_poisson_holds_number_by_number():
    count, mean = 200_000, 12.0
    counts, _ = noise.poisson_noise(np.full(count, mean), offsets_of([count]), draws_of(1))
    for k in range(30):
        share = math.exp(k * math.log(mean) - mean - math.lgamma(k + 1))
        assert abs((counts == k).mean() - share) < 5 * math.sqrt(share / count) + 1e-5


@pytest.mark.parametrize("bad", [-1e-3, np.nan, np.inf, 2.0**40 * 1.1])
@pytest.mark.parametrize("place", [0, 256, 299])
def test_a_mean_that_poisson_numbers_cannot_have_is_refused(bad, place):
    values = np.zeros(300)
    values[place] = bad
    offsets, draws = offsets_of([100, 200]), draws_of(2)
    assert noise.poisson_noise(values, offsets, draws)[1] == place
    assert reference.poisson_noise(values, offsets, draws)[1] == place


@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "f8"])
@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_dropped_items_are_those_of_the_twin(dtype, probability):
    offsets, draws = offsets_of([0, 5, 300, 1]), draws_of(4)
    values = some((306,), dtype)
    expected = reference.drop_items(values, offsets, draws, probability)
    assert_same(noise.drop_items(values, offsets, draws, probability), expected)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("dtype", ITEMS)
def test_dropped_slices_are_those_of_the_twin(axis, dtype):
    values = some((3, 4, 5, 6), dtype)
    keep = np.random.default_rng(0).random((3, 4 + axis)) < 0.5
    assert_same(images.drop_slices(values, keep, axis), reference.drop_slices(values, keep, axis))


# ---- arrays as they come


def test_arrays_in_another_byte_order_or_not_contiguous_give_the_same():
    values = some((3, 6, 8), "f4")
    for other in (values.astype(">f4"), np.asfortranarray(values), np.repeat(values, 2, axis=2)[:, :, ::2]):
        assert_same(images.flip(other, np.ones((3, 2), bool)), values[:, ::-1, ::-1].copy())
        assert_same(images.block_reduce(other, (2, 2)), images.block_reduce(values, (2, 2)))
        assert_same(programs.run_program(other, EVERY)[0], programs.run_program(values, EVERY)[0])
        assert_same(images.extents(other), images.extents(values))


@pytest.mark.parametrize("dtype", ["S3", "c8", "g"])
def test_what_is_no_number_is_not_computed_with(dtype):
    with pytest.raises(ProcessError, match="must be integers or floats of at most 64 bits"):
        programs.run_program(np.zeros(3, dtype), EVERY)


def test_the_kernels_refuse_what_does_not_fit():
    good = np.zeros((2, 3), np.float32)
    cases = [
        (lambda: _images.flip(good[:, ::-1], good, np.zeros((2, 1), np.uint8)), "not in C order"),
        (lambda: _images.flip(good, good.astype("f8"), np.zeros((2, 1), np.uint8)), "differ in form"),
        (lambda: _images.flip(good, good.copy(), np.zeros((2, 1), bool)), "another type"),
        (lambda: _images.flip(good, good.copy(), np.zeros((3, 1), np.uint8)), "another size"),
        (lambda: _images.raw(*draws_of(1).counters(), np.array([0, 5]), np.zeros(4, np.uint64)), "offsets"),
        (lambda: _images.raw(*draws_of(2).counters(), np.array([0, 5, 4]), np.zeros(4, np.uint64)), "go back"),
        (lambda: _images.pointwise(good, good, np.array([9]), np.zeros((1, 3, 1)), 1), "unknown operation"),
        (lambda: _images.pointwise(good.astype(">f4"), good, np.array([0]), np.zeros((1, 3, 1)), 1), "byte order"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("events", [0, 1])
def test_batches_without_events_or_items_go_through(events):
    for shape in [(0,), (4, 0), (0, 4), (4, 4)]:
        values = np.zeros((events, *shape), np.float32)
        axes = len(shape)
        assert images.flip(values, np.ones((events, axes), bool)).shape == values.shape
        assert images.window(values, np.zeros((events, axes), np.int64), (3,) * axes).shape == (events, *(3,) * axes)
        assert images.extents(values).tolist() == [[[0, 0]] * axes] * events
        assert images.block_reduce(values, (2,) * axes, partial=True).shape == (events, *((n + 1) // 2 for n in shape))
        assert (
            images.warp(
                values,
                range(axes),
                1,
                matrix=np.stack([np.eye(axes)] * events or [])[:events] if events else np.zeros((0, axes, axes)),
            ).shape
            == values.shape
        )
        assert programs.run_program(values, EVERY)[0].shape == values.shape
        offsets = np.arange(events + 1, dtype=np.int64) * math.prod(shape)
        assert noise.gaussian_noise(values, offsets, draws_of(events), 1.0).shape == values.shape
