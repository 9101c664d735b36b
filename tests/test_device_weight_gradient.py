"""The gradients of weight and bias on devices: against their twins in float64 and the kernels of the CPU."""

import types

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sparse_convolution import link_of, lists_of, tensor, weights

from hepfeed.device import column_sum as sums
from hepfeed.device import native, tuning, weight_gradient
from hepfeed.device.pairs import work_items
from hepfeed.device.plan import plan_of
from hepfeed.errors import SpecError
from hepfeed.reference import convolution as reference
from hepfeed.sparse import convolution
from hepfeed.sparse.functional import convolve

DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
TOLERANCE = {"float32": 2e-6, "tf32": 2e-3, "float64": 1e-14, "bfloat16": 8e-3, "float16": 1e-3}
NARROW = torch.empty(0, dtype=torch.int32)


@pytest.fixture
def allow_tf32():
    """Set whether torch's products may round to TF32, for the time of a test."""
    before = torch.backends.cuda.matmul.allow_tf32

    def allow(allowed):
        torch.backends.cuda.matmul.allow_tf32 = allowed

    yield allow
    allow(before)


@pytest.fixture(params=DTYPES)
def arithmetic(request, allow_tf32):
    allow_tf32(request.param == "tf32")
    return request.param


@pytest.fixture(autouse=True)
def _small_items(monkeypatch):
    """Taps of these sizes are cut, at places that are no multiples of what a block takes at once."""
    monkeypatch.setattr(weight_gradient, "_LEAST_PAIRS", 50)


def integers(rng, rows, channels, dtype):
    return torch.from_numpy(rng.integers(-3, 4, (rows, channels))).to(dtype)


def pairs(rng, rows, out_rows, counts):
    """Pairs of random rows, outputs rising within a tap."""
    outs = [np.sort(rng.choice(out_rows, count, replace=False)) for count in counts]
    ins = [rng.integers(0, max(rows, 1), count) for count in counts]
    joined = [np.concatenate([np.empty(0, np.int64), *lists]).astype(np.int32) for lists in (ins, outs)]
    return *map(torch.from_numpy, joined), torch.from_numpy(np.cumsum([0, *counts]))


def gradient(backend, x, grad, lists, groups=1, back=(NARROW, NARROW), inverse=False):
    given = (each.to(backend.device) for each in (x, grad, *lists, *back))
    return weight_gradient.sparse_conv_weight_grad(*given, groups, inverse).cpu()


def twin(x, grad, lists, groups=1):
    numbers = [each.double().numpy() for each in (x, grad)]
    return torch.from_numpy(reference.weight_grad(*numbers, *(each.numpy() for each in lists), groups))


def assert_exact(made, expected):
    """Sums of integers are exact, so that a result is rounded but once."""
    assert torch.equal(made, expected.to(made.dtype))


def use(monkeypatch, variant):
    """Compute in one way, whatever the rule says."""
    monkeypatch.setattr(tuning, "choose", lambda case, variants, run: variant)


# Channels of the input and of the output that are just more than one tile, and just fewer.
STRADDLING = {"128x128": [(129, 127)], "64x64": [(65, 63), (63, 65)], "32x32": [(33, 31)], "64x8": [(9, 65), (65, 7)]}


def test_every_tile_gives_the_exact_sums_of_integers_in_every_order_of_threads(backend, arithmetic, monkeypatch):
    monkeypatch.setattr(weight_gradient, "_LEAST_PAIRS", 290)  # more steps of a block than it has buffers
    rng = np.random.default_rng(0)
    dtype = DTYPES[arithmetic]
    tiles = weight_gradient._tiles(arithmetic)
    assert {"32x32", "64x8"} <= set(tiles) <= set(STRADDLING)
    for name in tiles:
        use(monkeypatch, name)
        for seed, (channels, out_channels) in enumerate(STRADDLING[name]):
            backend.seed(seed)
            lists = pairs(rng, 40, 300, [0, 1, 300, 33])
            x, grad = integers(rng, 40, channels, dtype), integers(rng, 300, out_channels, dtype)
            made = gradient(backend, x, grad, lists)
            assert made.dtype == dtype
            assert_exact(made, twin(x, grad, lists))


def test_every_number_of_pairs_is_summed_exactly(backend, arithmetic, monkeypatch):
    rng = np.random.default_rng(1)
    monkeypatch.setattr(weight_gradient, "_LEAST_PAIRS", 65)
    counts = [0, 1, 15, 16, 17, 31, 32, 33, 49, 63, 64, 65, 127, 128, 129, 131]
    lists = pairs(rng, 20, 140, counts)
    x, grad = integers(rng, 20, 16, DTYPES[arithmetic]), integers(rng, 140, 8, DTYPES[arithmetic])
    for seed in (0, 3):
        backend.seed(seed)
        assert_exact(gradient(backend, x, grad, lists), twin(x, grad, lists))


@pytest.mark.parametrize("least", [7, 40, 150])
def test_many_items_of_a_tap_are_added_exactly(backend, monkeypatch, least):
    monkeypatch.setattr(weight_gradient, "_LEAST_PAIRS", least)
    rng = np.random.default_rng(least)
    lists = pairs(rng, 20, 300, [300, 0, 3])
    x, grad = integers(rng, 20, 5, torch.float32), integers(rng, 300, 33, torch.float32)
    for seed in (0, 1):
        backend.seed(seed)
        assert_exact(gradient(backend, x, grad, lists), twin(x, grad, lists))


def test_gradients_are_near_their_twins_and_those_of_the_cpu(backend, arithmetic):
    rng = np.random.default_rng(2)
    dtype = DTYPES[arithmetic]
    x, grad = (torch.from_numpy(rng.normal(size=(90, channels))).to(dtype) for channels in (24, 40))
    lists = pairs(rng, 90, 90, [90, 5, 70])
    made, expected = gradient(backend, x, grad, lists), twin(x, grad, lists)
    scale = TOLERANCE[arithmetic] * expected.abs().max()
    assert (made.double() - expected).abs().max() < scale
    if arithmetic != "float16":
        on_cpu = convolution.sparse_conv_weight_grad(x, grad, *lists, NARROW, NARROW, 1, False)
        assert (made.double() - on_cpu.double()).abs().max() < scale


@pytest.mark.parametrize("channels", range(1, 10))
def test_few_channels_on_either_side(backend, channels):
    rng = np.random.default_rng(channels)
    lists = pairs(rng, 30, 40, [3, 0, 40])
    for arithmetic in ("float32", "bfloat16", "float64"):
        narrow, wide = integers(rng, 30, channels, DTYPES[arithmetic]), integers(rng, 40, 20, DTYPES[arithmetic])
        assert_exact(gradient(backend, narrow, wide, lists), twin(narrow, wide, lists))
        wide, narrow = integers(rng, 30, 20, DTYPES[arithmetic]), integers(rng, 40, channels, DTYPES[arithmetic])
        assert_exact(gradient(backend, wide, narrow, lists), twin(wide, narrow, lists))


@pytest.mark.parametrize("groups", [2, 3])
def test_groups_see_their_own_channels_alone(backend, arithmetic, groups):
    rng = np.random.default_rng(groups)
    lists = pairs(rng, 50, 60, [60, 0, 7])
    for per_group, out_per_group in ((8, 4), (5, 11), (40, 3)):
        x = integers(rng, 50, groups * per_group, DTYPES[arithmetic])
        grad = integers(rng, 60, groups * out_per_group, DTYPES[arithmetic])
        assert_exact(gradient(backend, x, grad, lists, groups), twin(x, grad, lists, groups))


@pytest.mark.parametrize("shuffled", [False, True])
def test_with_inverse_the_pairs_are_swapped(backend, shuffled):
    x = tensor(2, channels=6, shuffled=shuffled)
    link = link_of(x, 3, stride=2, padding=1)
    in_maps, out_maps, offsets, *back = lists_of(link)
    assert bool(len(back[0])) == shuffled
    rng = np.random.default_rng(0)
    features, grad = (integers(rng, len(sites), 6, torch.float32) for sites in (link.target, link.source))
    made = gradient(backend, features, grad, (in_maps, out_maps, offsets), 1, back, inverse=True)
    assert_exact(made, twin(features, grad, (out_maps, in_maps, offsets)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_numbers_may_lie_anywhere_and_in_any_order(backend, dtype):
    rng = np.random.default_rng(0)
    lists = pairs(rng, 30, 40, [20, 40])
    flat = integers(rng, 1, 30 * 16 + 1, dtype).to(backend.device).flatten()
    unaligned = flat[1:].view(30, 16)
    turned = integers(rng, 16, 40, dtype).to(backend.device).T
    lists = [torch.stack([each, each], 1)[:, 0] for each in lists]
    made = gradient(backend, unaligned, turned, lists)
    assert_exact(made, twin(unaligned.cpu(), turned.cpu(), lists))


@pytest.mark.parametrize(
    ("rows", "out_rows", "counts"), [(0, 0, [0, 0]), (5, 0, [0]), (0, 5, [0, 0]), (1, 1, [1]), (1, 1, [1, 0, 1])]
)
def test_maps_without_pairs_or_rows(backend, rows, out_rows, counts):
    rng = np.random.default_rng(0)
    lists = pairs(rng, rows, out_rows, counts)
    x, grad = integers(rng, rows, 3, torch.float32), integers(rng, out_rows, 20, torch.float32)
    assert_exact(gradient(backend, x, grad, lists), twin(x, grad, lists))


def test_a_map_without_taps_has_an_empty_gradient(backend):
    made = gradient(backend, torch.ones(3, 4), torch.ones(2, 5), pairs(None, 3, 2, []))
    assert made.shape == (5, 0, 4)


@settings(max_examples=10, deadline=None)
@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=5),
    channels=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    groups=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_random_maps(counts, channels, groups, seed):
    import backends

    found, trouble = backends.find("emulated")
    if found is None:
        pytest.skip(trouble)
    rng = np.random.default_rng(seed)
    lists = pairs(rng, 11, 40, counts)
    x, grad = (integers(rng, rows, groups * each, torch.bfloat16) for rows, each in zip((11, 40), channels))
    with pytest.MonkeyPatch.context() as patches:
        found.use(patches)
        found.seed(seed)
        made = gradient(found, x, grad, lists, groups)
    assert_exact(made, twin(x, grad, lists, groups))


def test_results_are_the_same_bits_for_every_order_of_threads_and_blocks(backend, arithmetic, monkeypatch):
    monkeypatch.setattr(weight_gradient, "_LEAST_PAIRS", 10)
    rng = np.random.default_rng(0)
    x, grad = (torch.from_numpy(rng.normal(size=(120, 20))).to(DTYPES[arithmetic]) for _ in range(2))
    lists = pairs(rng, 120, 120, [120, 30])
    made = []
    for seed in (0, 1, 2):
        backend.seed(seed)
        made.append(gradient(backend, x, grad, lists))
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])


def test_float32_is_rounded_to_tf32_where_torch_may_do_so_alone(backend, allow_tf32):
    lists = pairs(np.random.default_rng(0), 1, 1, [1])
    x, grad = torch.full((1, 16), 1 + 2**-12), torch.ones(1, 16)
    for allowed, expected in ((False, 1 + 2**-12), (True, 1.0)):
        allow_tf32(allowed)
        made = gradient(backend, x, grad, lists)
        assert torch.equal(made, torch.full((16, 1, 16), expected))


def test_sums_of_16_bit_numbers_are_rounded_once(backend):
    lists = pairs(np.random.default_rng(0), 1, 300, [300])
    x, grad = torch.full((1, 8), 1.0), torch.ones(300, 8)
    grad[0] = 2.0**-9
    for dtype, expected in ((torch.bfloat16, 300.0), (torch.float16, 299.0)):
        made = gradient(backend, x.to(dtype), grad.to(dtype), lists)
        assert torch.equal(made, torch.full((8, 1, 8), expected).to(dtype))


def test_work_items_are_pieces_of_taps(backend):
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 30, 600) * (rng.random(600) < 0.5)  # of more taps than the block has threads
    offsets = torch.from_numpy(np.cumsum([0, *counts])).to(backend.device)
    for chunk in (1, 7, 1000):
        items = work_items(offsets, int(offsets[-1]), chunk)
        expected = [
            (begin, min(begin + chunk, last))
            for first, last in zip(offsets.tolist(), offsets.tolist()[1:])
            for begin in range(first, last, chunk)
        ]
        assert len(items.work) == int(offsets[-1]) // chunk + 600 >= len(expected)
        assert items.work[: len(expected)].tolist() == [list(each) for each in expected]
        assert not items.work[len(expected) :].any()
        assert items.first_item.tolist() == np.cumsum([0, *(-(-counts // chunk))]).tolist()


BAD_PAIRS = {
    "a row of the input is too large": ([0, 30], [0, 1], [0, 1, 2]),
    "a row of the input is negative": ([-1, 3], [0, 1], [0, 2, 2]),
    "a row of the output is too large": ([0, 1], [0, 40], [0, 1, 2]),
    "a row of the output is negative": ([0, 1], [-2, 0], [0, 1, 2]),
    "offsets do not begin with 0": ([0, 1], [0, 1], [1, 2, 2]),
    "offsets fall": ([0, 1], [0, 1], [0, 2, 1, 2]),
    "offsets end too early": ([0, 1], [0, 1], [0, 1, 1]),
    "offsets end too late": ([0, 1], [0, 1], [0, 1, 3]),
    "lists differ in length": ([0, 1], [0], [0, 1]),
}


@pytest.mark.parametrize("fault", BAD_PAIRS)
def test_bad_pairs_are_refused_in_the_words_of_the_cpu(backend, fault):
    ins, outs, offsets = BAD_PAIRS[fault]
    lists = (torch.tensor(ins).int(), torch.tensor(outs).int(), torch.tensor(offsets, dtype=torch.int64))
    x, grad = torch.ones(30, 4), torch.ones(40, 6)
    with pytest.raises((ValueError, RuntimeError)) as by_cpu:
        convolution.sparse_conv_weight_grad(x, grad, *lists, NARROW, NARROW, 1, False)
    for _ in range(2):  # what was refused is not taken for checked
        with pytest.raises(type(by_cpu.value)) as by_device:
            gradient(backend, x, grad, lists)
        assert str(by_device.value) == str(by_cpu.value)


def test_shapes_and_dtypes_that_do_not_fit_are_refused(backend):
    lists = pairs(np.random.default_rng(0), 30, 40, [20, 40])
    x, grad = torch.ones(30, 4), torch.ones(40, 6)
    for groups in (3, 4):
        with pytest.raises(ValueError, match=r"multiple of groups|features is"):
            gradient(backend, x, grad, lists, groups)
    with pytest.raises(SpecError, match="groups must be 1 or more, not 0"):
        gradient(backend, x, grad, lists, 0)
    with pytest.raises(ValueError, match="one channel or more"):
        gradient(backend, x[:, :0], grad, lists)
    with pytest.raises(SpecError, match=r"grad must be torch\.float32"):
        gradient(backend, x, grad.double(), lists)
    with pytest.raises(SpecError, match="features must be float32"):
        gradient(backend, x.int(), grad.int(), lists)
    with pytest.raises(ValueError, match=r"2\^31 rows or more"):
        gradient(backend, torch.empty(1, 4, device=backend.device).expand(2**31, 4), grad, lists)
    with pytest.raises(SpecError, match="1 and 2 axes"):
        gradient(backend, x[0], grad, lists)
    with pytest.raises(ValueError, match="offsets must begin with 0"):
        gradient(backend, x, grad, (*lists[:2], lists[2][:0]))
    with pytest.raises(TypeError):
        gradient(backend, x, grad, (lists[0].long(), *lists[1:]))


def test_pairs_are_checked_once_a_map_and_again_after_a_change(backend, monkeypatch):
    checks = []

    class Counting(types.SimpleNamespace):
        def __getattr__(self, name):
            return getattr(backend.kernels, name)

        def check_pairs(self, *given):
            checks.append(given)
            backend.kernels.check_pairs(*given)

    monkeypatch.setattr(native, "kernels", Counting)
    rng = np.random.default_rng(0)
    x, grad = torch.ones(30, 4).to(backend.device), torch.ones(40, 6).to(backend.device)
    lists = [each.to(backend.device) for each in pairs(rng, 30, 40, [20, 40])]
    for times in (1, 1):
        gradient(backend, x, grad, lists)
        assert len(checks) == times
    gradient(backend, torch.cat([x, x]), grad, lists)
    assert len(checks) == 2  # of other rows
    lists[0][0] = 30
    with pytest.raises(ValueError, match="pair 0 of tap 0 has rows"):
        gradient(backend, x, grad, lists)
    assert len(checks) == 3
    planned = [each.to(backend.device) for each in pairs(rng, 30, 40, [20, 40])]
    plan_of(planned[1], planned[0], planned[2], 40, 30)
    gradient(backend, x, grad, planned)
    assert len(checks) == 3


@pytest.mark.parametrize(("groups", "inverse"), [(1, False), (2, True)])
def test_convolutions_have_right_gradients_of_first_and_second_order(backend, groups, inverse):
    x = tensor(1, channels=4, occupancy=0.3, events=1, shuffled=True)
    weight, bias = weights(1, 2, 3, 4 // groups)
    link = link_of(x, 3, stride=2, padding=1)
    rows = link.target if inverse else link.source
    features = torch.randn(len(rows), 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    given = [each.to(backend.device).requires_grad_() for each in (features, weight, bias)]
    link = link if backend.device == "cpu" else link.to(backend.device)

    def function(*inputs):
        return convolve(*inputs, link, groups, inverse)

    with backend.operators():
        assert torch.autograd.gradcheck(function, given)
        assert torch.autograd.gradgradcheck(function, given)


COLUMN_ROWS = [0, 1, 255, 256, 257, 513]


@pytest.mark.parametrize("columns", [0, 1, 3, 7, 8, 31, 32, 33, 64, 129])
def test_columns_are_summed_exactly(backend, columns):
    rng = np.random.default_rng(columns)
    rows = COLUMN_ROWS if columns in (3, 32) else [1, 300]
    for seed, count in enumerate(rows):
        backend.seed(seed)
        for dtype in dict.fromkeys(DTYPES.values()):
            values = integers(rng, count, columns, dtype)
            made = sums.column_sum(values.to(backend.device)).cpu()
            assert made.dtype == dtype
            assert torch.equal(made, torch.from_numpy(reference.column_sum(values.double().numpy())).to(dtype))


def test_sums_of_columns_are_near_their_twin_and_the_same_bits_for_every_order_of_threads(backend):
    values = torch.rand(3000, 5, generator=torch.Generator().manual_seed(0))
    made = []
    for seed in (0, 1, 2):
        backend.seed(seed)
        made.append(sums.column_sum(values.to(backend.device)).cpu())
    torch.testing.assert_close(made[0].double(), values.double().sum(0), rtol=5e-7, atol=0)
    torch.testing.assert_close(made[0], convolution.column_sum(values), rtol=5e-7, atol=0)
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])


def test_columns_of_any_memory_are_summed(backend):
    flat = torch.arange(1.0, 2 * 32 * 40 + 2).to(backend.device)
    unaligned = flat[1 : 32 * 40 + 1].view(40, 32)
    for values in (unaligned, unaligned.T, flat[:1280].view(40, 32)[:, 3:20], torch.ones(1, 8).expand(300, 8)):
        values = values.to(backend.device)
        assert torch.equal(sums.column_sum(values).double(), values.double().sum(0))


def test_only_matrices_of_floats_have_sums_of_columns(backend):
    with pytest.raises(SpecError, match=r"\(N, C\), not \(3,\)"):
        sums.column_sum(torch.ones(3).to(backend.device))
    with pytest.raises(SpecError, match=r"not torch\.int32"):
        sums.column_sum(torch.ones(3, 2).int().to(backend.device))


def test_the_operators_take_the_kernels_of_the_device(backend):
    rng = np.random.default_rng(0)
    lists = pairs(rng, 30, 40, [20, 40])
    x, grad = integers(rng, 30, 4, torch.float16), integers(rng, 40, 6, torch.float16)  # which the CPU refuses
    given = [each.to(backend.device) for each in (x, grad, *lists, NARROW, NARROW)]
    with backend.operators():
        made = convolution.sparse_conv_weight_grad(*given, 1, False).cpu()
        summed = convolution.column_sum(given[1]).cpu()
    assert_exact(made, twin(x, grad, lists))
    assert torch.equal(summed.double(), grad.double().sum(0))
