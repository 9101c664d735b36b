"""Lists of rows on a device: each kernel against its plain NumPy form and against the kernels of the CPU."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hepfeed import _rows
from hepfeed.device import rows
from hepfeed.errors import SpecError
from hepfeed.reference import rows as reference

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
CHUNK = 128  # entries; a longer list is of several threads
NONE = np.empty(0, np.int32)


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request):
    return request.param


class Lists:
    """Different pairs in any order as lists both ways, made by the CPU and put on a device."""

    def __init__(self, pairs, targets, sources, device):
        target, source = (np.ascontiguousarray(each, np.int32) for each in pairs)
        self.forth = _rows.list_rows(target, source, targets, sources, True)
        self.back = _rows.list_rows(source, target, sources, targets, True)
        self.tensors = [torch.from_numpy(each).to(device) for each in (*self.forth, *self.back)]


def random_lists(seed, targets, sources, pairs, device="cpu"):
    at = np.random.default_rng(seed).choice(targets * sources, size=pairs, replace=False)
    return Lists((at // sources, at % sources), targets, sources, device)


def lists_of_lengths(lengths, sources, device, seed=0):
    """Lists of given lengths, of rows drawn for each, none twice in a list."""
    random = np.random.default_rng(seed)
    target = np.repeat(np.arange(len(lengths)), lengths)
    source = np.concatenate([random.choice(sources, size=length, replace=False) for length in lengths] or [NONE])
    return Lists((target, source), len(lengths), sources, device)


def whole_numbers(shape, dtype, device, seed=0, most=4):
    """Integers, whose sums of a few thousand are exact in every dtype that sums are in."""
    numbers = np.random.default_rng(seed).integers(-most, most + 1, shape)
    return torch.from_numpy(numbers).to(dtype).to(device)


def wide(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


def plain(tensor):
    return tensor.cpu().double().numpy()


def assert_equal(made, expected, dtype):
    assert made.dtype == dtype
    torch.testing.assert_close(made.cpu(), torch.from_numpy(expected).to(dtype), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("places", [False, True])
@pytest.mark.parametrize("pairs", [0, 1, 31, 32, 33, 255, 256, 257, 700])
def test_lists_equal_those_of_the_cpu(backend, pairs, places):
    random = np.random.default_rng(pairs)
    target, source = (random.integers(0, 30, pairs).astype(np.int32) for _ in range(2))
    for order in (np.arange(pairs), np.argsort(target, kind="stable"), np.argsort(source, kind="stable")):
        pair = target[order], source[order]
        made = rows.row_lists(*(torch.from_numpy(each).to(backend.device) for each in pair), 30, 33, places)
        expected = (*_rows.list_rows(*pair, 30, 33, places), *_rows.list_rows(*pair[::-1], 33, 30, places))
        for ours, theirs in zip(made, expected, strict=True):
            assert ours.dtype == torch.from_numpy(theirs).dtype
            np.testing.assert_array_equal(ours.cpu().numpy(), theirs)


@pytest.mark.parametrize("count", [0, 1, 2, 300])
def test_lists_of_no_pairs_are_empty(backend, count):
    none = torch.empty(0, dtype=torch.int32, device=backend.device)
    made = rows.row_lists(none, none, count, count, True)
    assert [len(each) for each in made] == [count + 1, 0, 0, count + 1, 0, 0]
    assert not made[0].any()


@pytest.mark.parametrize(
    ("target", "source", "options", "message"),
    [
        ([0, 3], [0, 0], (3, 1, True), "target 1 must be one of 3 rows, not 3"),
        ([0, 1], [0, -1], (3, 1, True), "source 1 must be one of 1 rows, not -1"),
        ([0] * 300 + [-7], [0] * 301, (3, 1, False), "target 300 must be one of 3 rows, not -7"),
        ([0], [], (3, 1, True), "an item for each pair"),
        ([], [], (-1, 1, True), "less than 2\\^31 - 1 rows"),
        ([], [], (2**31 - 1, 1, True), "less than 2\\^31 - 1 rows"),
    ],
)
def test_pairs_of_no_rows_are_refused_in_the_words_of_the_cpu(backend, target, source, options, message):
    pair = [torch.tensor(each, dtype=torch.int32, device=backend.device) for each in (target, source)]
    with pytest.raises(ValueError, match=message):
        rows.row_lists(*pair, *options)


def sums(features, lists, coefficients=None):
    return rows.row_sum(features, coefficients, *lists.tensors)


def test_sums_of_whole_numbers_are_exact(backend, dtype):
    lists = random_lists(0, 70, 40, 500, backend.device)
    for channels in (0, 1, 2, 3, 4, 8, 17, 33):
        features = whole_numbers((40, channels), dtype, backend.device, channels)
        factors = whole_numbers((500,), wide(dtype), backend.device)
        starts, columns, places = lists.forth
        assert_equal(sums(features, lists), reference.row_sum(plain(features), starts, columns), dtype)
        expected = reference.row_sum(plain(features), starts, columns, plain(factors)[places])
        assert_equal(sums(features, lists, factors), expected, dtype)


@pytest.mark.parametrize("lists", [0, 1, 31, 32, 33, 63, 64, 65])
def test_every_number_of_lists_and_rows_is_served(backend, lists):
    made = lists_of_lengths([number % 3 for number in range(lists)], 5, backend.device)
    features = whole_numbers((5, 16), torch.float32, backend.device)
    assert_equal(sums(features, made), reference.row_sum(plain(features), *made.forth[:2]), torch.float32)


LONG = [
    [CHUNK - 1],
    [CHUNK],
    [CHUNK + 1],
    [2 * CHUNK],
    [2 * CHUNK + 1],
    [0, 5, CHUNK + 1, 0, 0, 2 * CHUNK, 3],
    [CHUNK, 2 * CHUNK, CHUNK + 1, 0],
    [100, 200, 1, 300, 0, 130, 130, 2],
    [3 * CHUNK - 1, 0, CHUNK + 2],
]
"""Lengths of lists that begin and end within chunks, at their ends, and cover some."""


@pytest.mark.parametrize("lengths", LONG, ids=str)
@pytest.mark.parametrize("channels", [1, 5, 16])
def test_long_lists_are_summed_in_parts(backend, lengths, channels):
    lists = lists_of_lengths(lengths, 600, backend.device)
    features = whole_numbers((600, channels), torch.float32, backend.device)
    expected = reference.row_sum(plain(features), *lists.forth[:2])
    assert_equal(sums(features, lists), expected, torch.float32)


def test_rows_of_more_pieces_than_a_block_has_threads_are_folded(backend):
    lists = lists_of_lengths([2, 0, CHUNK + 5], 150, backend.device)
    features = whole_numbers((150, 514), torch.float64, backend.device)
    starts, columns, _ = lists.forth
    assert_equal(sums(features, lists), reference.row_sum(plain(features), starts, columns), torch.float64)
    largest, argmax = rows.row_max(features, *maxima_arguments(lists))
    twin, places = reference.row_max(plain(features), starts, columns)
    assert_equal(largest, twin, torch.float64)
    np.testing.assert_array_equal(argmax.cpu().numpy(), places)


def test_long_sums_have_small_errors(backend):
    length = 3000
    lists = lists_of_lengths([length, 7], length, backend.device)
    features = torch.rand(length, 3, generator=torch.Generator().manual_seed(0)).add(1).to(backend.device)
    expected = reference.row_sum(plain(features), *lists.forth[:2])
    np.testing.assert_allclose(plain(sums(features, lists)), expected, rtol=3e-7)


def test_sums_are_those_of_the_cpu_to_rounding(backend, dtype):
    if dtype == torch.float16:
        pytest.skip("the CPU has no kernels of float16")
    lists = random_lists(1, 60, 50, 400, backend.device)
    random = torch.Generator().manual_seed(0)
    features = torch.randn(50, 9, dtype=torch.float64, generator=random).to(dtype)
    factors = torch.randn(400, dtype=torch.float64, generator=random).to(wide(dtype))
    out = torch.empty(60, 9, dtype=dtype)
    given = (each.view(torch.uint16).numpy() if dtype == torch.bfloat16 else each.numpy() for each in (features, out))
    numbers, room = given
    _rows.row_sum(numbers, factors.numpy(), *lists.forth, room, 1)
    made = sums(features.to(backend.device), lists, factors.to(backend.device)).cpu()
    torch.testing.assert_close(made, out, **({"rtol": 1e-2, "atol": 1e-2} if dtype == torch.bfloat16 else {}))


def test_products_of_rows_of_whole_numbers_are_exact(backend, dtype):
    lists = random_lists(0, 70, 40, 300, backend.device)
    starts, columns, places = lists.forth
    for channels in (0, 1, 4, 7, 33, 140):
        left = whole_numbers((70, channels), dtype, backend.device, 1)
        right = whole_numbers((40, channels), dtype, backend.device, 2)
        twin = np.empty(300)
        twin[places] = reference.row_dot(plain(left), plain(right), starts, columns)
        assert_equal(rows.row_dot(left, right, *lists.tensors), twin, wide(dtype))


def maxima_arguments(lists):
    starts, columns, _, back_starts, back_columns, _ = lists.tensors
    return starts, columns, back_starts, back_columns


def test_maxima_and_their_rows_equal_their_twin(backend, dtype):
    lists = random_lists(0, 70, 40, 300, backend.device)
    starts, columns, _ = lists.forth
    arguments = maxima_arguments(lists)
    for channels in (0, 1, 3, 8, 17):
        features = whole_numbers((40, channels), dtype, backend.device, channels, most=3)  # with many ties
        largest, argmax = rows.row_max(features, *arguments)
        twin, places = reference.row_max(plain(features), starts, columns)
        assert_equal(largest, twin, dtype)
        np.testing.assert_array_equal(argmax.cpu().numpy(), places)
        picked = rows.row_pick(features, argmax, *arguments[2:])
        assert_equal(picked, reference.row_pick(plain(features), places), dtype)
        grad = whole_numbers((70, channels), dtype, backend.device, 9)
        put = rows.row_put(grad, argmax, *arguments[2:])
        assert_equal(put, reference.row_put(plain(grad), places, 40), dtype)


@pytest.mark.parametrize("lengths", LONG, ids=str)
def test_maxima_of_long_lists_name_the_first_row(backend, lengths):
    lists = lists_of_lengths(lengths, 600, backend.device)
    features = whole_numbers((600, 6), torch.float32, backend.device, most=9)
    largest, argmax = rows.row_max(features, *maxima_arguments(lists))
    twin, places = reference.row_max(plain(features), *lists.forth[:2])
    assert_equal(largest, twin, torch.float32)
    np.testing.assert_array_equal(argmax.cpu().numpy(), places)


@pytest.mark.parametrize("inputs", [1, 3])
def test_what_goes_back_to_a_row_of_many_outputs_is_summed_in_parts(backend, inputs):
    outputs = 300
    lists = Lists((np.arange(outputs), np.arange(outputs) % inputs), outputs, inputs, backend.device)
    features = whole_numbers((inputs, 5), torch.float32, backend.device)
    _, argmax = rows.row_max(features, *maxima_arguments(lists))
    grad = whole_numbers((outputs, 5), torch.float32, backend.device, 3)
    put = rows.row_put(grad, argmax, *maxima_arguments(lists)[2:])
    assert_equal(put, reference.row_put(plain(grad), argmax.cpu().numpy(), inputs), torch.float32)


def test_a_maximum_is_nan_where_a_row_is(backend, dtype):
    numbers = torch.tensor([1.0, torch.nan, -torch.inf, torch.inf, -2.0, torch.nan])[:, None]
    lists = Lists(([0, 0, 0, 1, 1, 2, 3, 4, 4], [0, 1, 3, 2, 4, 2, 4, 5, 1]), 5, 6, backend.device)
    for channels in (1, 4, 9):
        features = numbers.repeat(1, channels).to(dtype).to(backend.device)
        largest, argmax = rows.row_max(features, *maxima_arguments(lists))
        np.testing.assert_array_equal(plain(largest)[:, 0], [np.nan, -2.0, -np.inf, -2.0, np.nan])
        np.testing.assert_array_equal(argmax.cpu().numpy()[:, channels - 1], [1, 4, 2, 4, 1])


def test_nan_is_found_in_every_part_of_a_long_list(backend):
    length = 2 * CHUNK + 40
    lists = Lists((np.zeros(length), np.arange(length)), 1, length, backend.device)
    for row in (0, CHUNK - 1, CHUNK, 2 * CHUNK + 39):
        features = whole_numbers((length, 3), torch.float32, backend.device)
        features[row] = torch.nan
        largest, argmax = rows.row_max(features, *maxima_arguments(lists))
        assert largest.isnan().all()
        assert (argmax == row).all()


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_results_are_the_same_bits_in_every_order_of_threads(backend, seed):
    lists = lists_of_lengths([3, 0, 2 * CHUNK + 3, 20, CHUNK + 1], 300, backend.device)
    features = torch.randn(300, 10, generator=torch.Generator().manual_seed(0)).to(backend.device)
    arguments = maxima_arguments(lists)

    def everything():
        largest, argmax = rows.row_max(features, *arguments)
        total = sums(features, lists)
        dots = rows.row_dot(total, features, *lists.tensors)
        put = rows.row_put(total, argmax, *arguments[2:])
        made = rows.row_lists(
            lists.tensors[4], torch.arange(len(lists.tensors[4])).int().to(backend.device), 300, 500, True
        )
        return [largest, argmax, total, dots, put, *made]

    expected = everything()
    backend.seed(seed)
    for made, one in zip(everything(), expected, strict=True):
        assert torch.equal(made, one)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.sampled_from([0, 1, 2, 7, 127, 128, 129, 140]), min_size=1, max_size=5),
    channels=st.integers(1, 6),
)
def test_any_lists_are_folded_as_by_their_twins(backend, lengths, channels):
    lists = lists_of_lengths(lengths, 150, backend.device)
    features = whole_numbers((150, channels), torch.float32, backend.device)
    starts, columns, _ = lists.forth
    assert_equal(sums(features, lists), reference.row_sum(plain(features), starts, columns), torch.float32)
    _, argmax = rows.row_max(features, *maxima_arguments(lists))
    np.testing.assert_array_equal(argmax.cpu().numpy(), reference.row_max(plain(features), starts, columns)[1])


def test_matrices_that_do_not_lie_well_are_read_number_by_number(backend, dtype):
    lists = random_lists(0, 30, 20, 100, backend.device)
    storage = whole_numbers((20 * 8 + 1,), dtype, backend.device)
    shifted = storage[1:].view(20, 8)  # no multiple of 16 bytes
    assert_equal(sums(shifted, lists), reference.row_sum(plain(shifted), *lists.forth[:2]), dtype)
    transposed = whole_numbers((8, 20), dtype, backend.device).t()
    assert_equal(sums(transposed, lists), reference.row_sum(plain(transposed), *lists.forth[:2]), dtype)


BROKEN = [
    ([0, 9, 1], [0]),
    ([0, 2], [0]),
    ([-5, 1], [0]),
    ([0, 2**40, -(2**40), 300], [0] * 300),
    ([300, 200, 0], [0] * 300),
    ([0, 1, 2], [0, -1]),
    ([0, 2], [5, 2**31 - 1]),
]


@pytest.mark.parametrize(("starts", "columns"), BROKEN, ids=str)
def test_lists_that_are_none_read_nothing_out_of_bounds(backend, starts, columns):
    features = whole_numbers((5, 3), torch.float32, backend.device)
    starts = torch.tensor(starts, device=backend.device)
    columns = torch.tensor(columns, dtype=torch.int32, device=backend.device)
    lists = starts, columns, columns, starts, columns, columns
    count = len(starts) - 1
    assert rows.row_sum(features, None, *lists).shape == (count, 3)
    largest, argmax = rows.row_max(features, starts, columns, starts, columns)
    rows.row_dot(largest, features, *lists)
    rows.row_sum(features, torch.ones(len(columns), device=backend.device), *lists)
    wild = torch.full_like(argmax, 2**31 - 1)
    assert not rows.row_pick(features, wild, starts, columns).any()
    rows.row_put(features, torch.zeros_like(features, dtype=torch.int32), starts, columns)


def test_a_column_that_is_no_row_is_left_out(backend):
    features = whole_numbers((4, 3), torch.float32, backend.device)
    starts = torch.tensor([0, 3], device=backend.device)
    columns = torch.tensor([1, 4, 2], dtype=torch.int32, device=backend.device)
    made = rows.row_sum(features, None, starts, columns, columns[:0], starts, columns, columns[:0])
    assert torch.equal(made[0], features[1] + features[2])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda x, lists: rows.row_sum(x.int(), None, *lists),
            SpecError,
            "must be float32, float64, bfloat16 or float16",
        ),
        (
            lambda x, lists: rows.row_sum(x, x.new_ones(3), *lists),
            ValueError,
            "coefficients must have an item for each entry",
        ),
        (
            lambda x, lists: rows.row_sum(x, x.new_ones(100).double(), *lists),
            SpecError,
            "coefficients must be torch.float32",
        ),
        (
            lambda x, lists: rows.row_sum(x, x.new_ones(100), *lists[:2], lists[2][:0], *lists[3:]),
            ValueError,
            "places must have",
        ),
        (lambda x, lists: rows.row_sum(x, None, lists[0].int(), *lists[1:]), ValueError, "lists are starts"),
        (lambda x, lists: rows.row_sum(x, None, lists[0], lists[1].long(), *lists[2:]), ValueError, "lists are starts"),
        (lambda x, lists: rows.row_sum(x, None, lists[0].to("meta"), *lists[1:]), SpecError, "starts must be on"),
        (lambda x, lists: rows.row_dot(x, x, *lists), ValueError, r"left must be \(30, 3\), not \(20, 3\)"),
        (lambda x, lists: rows.row_dot(x, x.double(), *lists), SpecError, "right must be torch.float32"),
        (lambda x, lists: rows.row_put(x, x[:2].int(), lists[3], lists[4]), ValueError, r"argmax must be \(20, 3\)"),
        (lambda x, lists: rows.row_put(x, x.long(), lists[3], lists[4]), ValueError, "argmax must be int32"),
        (lambda x, lists: rows.row_pick(x, x.bfloat16(), lists[3], lists[4]), ValueError, "argmax must be int32"),
        (
            lambda x, lists: rows.row_pick(x, x[:, :2].int(), lists[3], lists[4]),
            ValueError,
            r"argmax must be \(20, 3\)",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(backend, call, error, message):
    lists = random_lists(0, 30, 20, 100, backend.device)
    features = whole_numbers((20, 3), torch.float32, backend.device)
    with pytest.raises(error, match=message):
        call(features, lists.tensors)
