"""Sparse convolutions and gradients of their inputs on devices: against their twins in float64 and those of the CPU."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_device_plan import random_pairs
from test_sparse_convolution import link_of, lists_of, tensor, weights

from hepfeed.device import convolution as device
from hepfeed.device import tuning
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
TENSOR_TILES = {"64x32", "64x64", "128x64", "128x128"}
KERNELS = {
    "float32": {"rows", "64x32", "64x64", "128x64"},
    "tf32": {"rows"} | TENSOR_TILES,
    "float64": {"rows", "64x32"},
    "bfloat16": {"rows"} | TENSOR_TILES,
    "float16": {"rows"} | TENSOR_TILES,
}
NONE = torch.empty(0, dtype=torch.int32)
SIZES = [0, 1, 31, 32, 33, 63, 64, 65, 127, 128, 129]


@pytest.fixture
def allow_tf32():
    """Set whether torch may round to TF32, until the end of the test."""
    before = torch.backends.cuda.matmul.allow_tf32

    def allow(allowed):
        torch.backends.cuda.matmul.allow_tf32 = allowed

    yield allow
    allow(before)


@pytest.fixture(params=DTYPES)
def arithmetic(request, allow_tf32):
    allow_tf32(request.param == "tf32")
    return request.param


def use(monkeypatch, variant):
    """Compute in one way, whatever the rule says."""
    monkeypatch.setattr(tuning, "choose", lambda case, variants, run: variant)


class Layer:
    """Numbers of one convolution on the host, and what is made of them."""

    def __init__(self, rng, pairs, in_rows, out_rows, c_in, c_out, groups=1, dtype=torch.float32, integers=True):
        self.pairs, self.in_rows, self.out_rows, self.groups = pairs, in_rows, out_rows, groups
        taps = len(pairs[2]) - 1

        def draw(*shape):
            numbers = rng.integers(-3, 4, shape) if integers else rng.normal(size=shape)
            return torch.from_numpy(numbers).to(dtype)

        self.features, self.bias = draw(in_rows, c_in), draw(c_out)
        self.weight = draw(c_out, taps, c_in // groups)

    def on(self, backend, variant=None, bias=True):
        """The output, by one of the kernels or as the rule has it."""
        out_maps, in_maps, offsets = (each.to(backend.device) for each in self.pairs)
        x, w, b = (each.to(backend.device) for each in (self.features, self.weight, self.bias))
        b = b if bias else None
        if variant is None:
            lists = in_maps, out_maps, offsets, NONE.to(backend.device), NONE.to(backend.device)
            return device.sparse_conv(x, w, b, *lists, self.out_rows, self.groups, False).cpu()
        plan = plan_of(out_maps, in_maps, offsets, self.out_rows, self.in_rows)
        return device.convolve(plan, x, w, b, self.groups, variant).cpu()

    def twin(self, bias=True):
        """The same by the twin, as float64."""
        out_maps, in_maps, offsets = (each.numpy() for each in self.pairs)
        x, w, b = (each.double().numpy() for each in (self.features, self.weight, self.bias))
        made = reference.forward(x, w, b if bias else None, in_maps, out_maps, offsets, self.out_rows, self.groups)
        return torch.from_numpy(made)


def assert_exact(made, twin):
    """Integers are summed without an error, and rounded once."""
    assert made.shape == twin.shape
    assert torch.equal(made, twin.to(made.dtype))


def assert_near(made, twin, arithmetic):
    scale = float(twin.abs().max()) if twin.numel() else 1.0
    torch.testing.assert_close(made.double(), twin, rtol=0, atol=TOLERANCE[arithmetic] * max(scale, 1e-30))


def test_all_kernels_are_offered_where_they_fit():
    for arithmetic, names in KERNELS.items():
        offered = set()
        for depth, width, blocks in itertools.product([1, 8, 64, 512], [8, 32, 64, 128, 512], [1, 64, 4096]):
            ways = device.variants(arithmetic, depth, width, blocks)
            assert ways[-1] == "mm" or ways[0] == "mm"
            assert len(set(ways)) == len(ways) >= 2
            assert ("rows" in ways) == (depth <= 8)
            offered |= {*ways}
        assert offered == names | {"mm"}


def test_the_rule_takes_few_channels_by_rows_and_many_by_products():
    assert device.variants("float32", 1, 32, 64)[0] == "rows"
    assert device.variants("bfloat16", 3, 32, 64)[0] == "rows"
    assert device.variants("bfloat16", 3, 128, 4096)[0] == "128x128"
    assert device.variants("bfloat16", 16, 16, 64)[0] == "64x32"
    assert device.variants("bfloat16", 128, 128, 4096)[0] == "128x128"
    assert device.variants("bfloat16", 128, 128, 2)[0] == "64x32"  # more blocks
    assert device.variants("float32", 512, 512, 64)[0] == "mm"


# Positions and channels that are just fewer and just more than a tile, or than what a warp of it has.
STRADDLING = {
    "rows": [(129, 33), (127, 16)],
    "64x32": [(65, 31), (63, 33)],
    "64x64": [(65, 63), (127, 65)],
    "128x64": [(129, 65), (127, 33)],
    "128x128": [(129, 129), (65, 63)],
}


def test_every_kernel_gives_the_exact_sums_of_integers_in_every_order_of_threads(backend, arithmetic):
    rng = np.random.default_rng(0)
    for name in sorted(KERNELS[arithmetic]):
        for seed, (rows, width) in enumerate(STRADDLING[name]):
            depth = 5 if name == "rows" else 24
            layer = Layer(rng, random_pairs(rng, 40, rows, 4), 40, rows, depth, width, dtype=DTYPES[arithmetic])
            backend.seed(seed)
            assert_exact(layer.on(backend, name), layer.twin())
            backend.seed(seed + 7)
            assert_exact(layer.on(backend, name, bias=False), layer.twin(bias=False))


def test_every_number_of_rows_gives_the_exact_sums(backend):
    rng = np.random.default_rng(1)
    for seed, rows in enumerate(SIZES):
        backend.seed(seed)
        for dtype, depth, names in (
            (torch.float32, 3, ("rows", "64x32", "128x64")),
            (torch.bfloat16, 8, ("64x32", "128x128")),
        ):
            layer = Layer(rng, random_pairs(rng, 9, rows, 3), 9, rows, depth, 5, dtype=dtype)
            for name in names:
                assert_exact(layer.on(backend, name), layer.twin())


CHANNELS = [(1, 1), (1, 16), (2, 17), (3, 5), (8, 8), (9, 3), (15, 40), (16, 16), (31, 7), (33, 1), (63, 9), (65, 12)]


@pytest.mark.parametrize("dtype", dict.fromkeys(DTYPES.values()), ids=str)
def test_every_number_of_channels_gives_the_exact_sums(backend, dtype):
    rng = np.random.default_rng(2)
    for c_in, c_out in CHANNELS:
        layer = Layer(rng, random_pairs(rng, 20, 40, 5), 20, 40, c_in, c_out, dtype=dtype)
        assert_exact(layer.on(backend), layer.twin())
        assert_exact(layer.on(backend, "64x32"), layer.twin())


@pytest.mark.parametrize("taps", [0, 1, 27, 33, 64, 65, 81, 125, 255, 256, 257, 343])
def test_every_number_of_taps_gives_the_exact_sums(backend, taps):
    rng = np.random.default_rng(taps)
    pairs = random_pairs(rng, 20, 70, taps, 0.1)
    assert_exact((layer := Layer(rng, pairs, 20, 70, 1, 3)).on(backend, "rows"), layer.twin())
    assert_exact((layer := Layer(rng, pairs, 20, 70, 8, 5, dtype=torch.bfloat16)).on(backend, "64x32"), layer.twin())
    full = random_pairs(rng, 3, 2, taps, 1.0)  # every tap in every row
    assert_exact((layer := Layer(rng, full, 3, 2, 3, 2)).on(backend, "rows"), layer.twin())
    assert_exact((layer := Layer(rng, full, 3, 2, 4, 2)).on(backend, "64x32"), layer.twin())


def test_groups_of_channels_see_their_own_alone(backend, arithmetic):
    rng = np.random.default_rng(3)
    dtype = DTYPES[arithmetic]
    for c_in, c_out, groups in ((2, 2, 2), (6, 9, 3), (48, 80, 2), (18, 34, 2)):
        layer = Layer(rng, random_pairs(rng, 20, 70, 3), 20, 70, c_in, c_out, groups, dtype)
        assert_exact(layer.on(backend), layer.twin())
        assert_exact(layer.on(backend, "64x32"), layer.twin())


def test_real_numbers_are_near_their_twin_and_what_the_processor_makes(backend, arithmetic):
    rng = np.random.default_rng(4)
    dtype = DTYPES[arithmetic]
    pairs = random_pairs(rng, 60, 70, 9)
    for c_in, c_out in ((3, 20), (40, 33)):
        layer = Layer(rng, pairs, 60, 70, c_in, c_out, dtype=dtype, integers=False)
        for name in sorted(KERNELS[arithmetic] - ({"rows"} if c_in > 8 else set())):
            assert_near(layer.on(backend, name), layer.twin(), arithmetic)
        if dtype == torch.float16:
            continue  # the processor has no kernels for it
        out_maps, in_maps, offsets = pairs
        lists = in_maps, out_maps, offsets, NONE, NONE
        host = convolution.sparse_conv(layer.features, layer.weight, layer.bias, *lists, 70, 1, False)
        assert_near(layer.on(backend), host.double(), arithmetic)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_bits_depend_neither_on_the_kernel_nor_on_the_order_of_threads(backend, dtype):
    rng = np.random.default_rng(5)
    layer = Layer(rng, random_pairs(rng, 90, 129, 7), 90, 129, 5, 35, dtype=dtype, integers=False)
    expected = layer.on(backend, "64x32")
    for seed, name in enumerate(sorted(KERNELS[str(dtype).removeprefix("torch.")])):
        backend.seed(seed)
        assert torch.equal(layer.on(backend, name), expected)


def test_bits_of_tensor_cores_do_not_depend_on_the_order_of_threads(backend):
    rng = np.random.default_rng(6)
    layer = Layer(rng, random_pairs(rng, 90, 129, 7), 90, 129, 24, 35, dtype=torch.bfloat16, integers=False)
    for name in sorted(TENSOR_TILES):
        backend.seed(0)
        expected = layer.on(backend, name)
        backend.seed(3)
        assert torch.equal(layer.on(backend, name), expected)


def test_numbers_of_tf32_are_rounded_not_cut(backend, allow_tf32):
    allow_tf32(True)
    ulp = 2.0**-10  # of 1 in TF32
    one = torch.zeros(1, dtype=torch.int32)
    layer = Layer(np.random.default_rng(0), (one, one, torch.tensor([0, 1])), 1, 1, 4, 1)
    layer.features[:] = torch.tensor([[1 + 0.75 * ulp, 1 + 0.25 * ulp, -1 - 0.75 * ulp, 0]])
    layer.weight[:] = torch.tensor([1.0, 4.0, 16.0, 0.0])
    layer.bias[:] = 0
    assert layer.on(backend, "64x32").item() == (1 + ulp) + 4 - 16 * (1 + ulp)
    assert layer.on(backend, "rows").item() == layer.twin().float().item()  # that kernel rounds nothing


def test_rows_without_a_pair_hold_the_bias(backend, arithmetic):
    rng = np.random.default_rng(7)
    none = torch.empty(0, dtype=torch.int32)
    for taps in (0, 1, 27):
        layer = Layer(
            rng, (none, none, torch.zeros(taps + 1, dtype=torch.int64)), 0, 70, 8, 3, dtype=DTYPES[arithmetic]
        )
        for name in sorted(KERNELS[arithmetic]):
            assert torch.equal(layer.on(backend, name), layer.bias.expand(70, -1))
            assert not layer.on(backend, name, bias=False).any()


def test_tensors_may_begin_anywhere_and_be_strided(backend):
    rng = np.random.default_rng(8)
    for dtype in (torch.float32, torch.bfloat16):
        layer = Layer(rng, random_pairs(rng, 9, 20, 3), 9, 20, 8, 5, dtype=dtype)
        expected = layer.twin()
        memory = torch.zeros(9 * 8 + 1, dtype=dtype)
        memory[1:] = layer.features.flatten()
        layer.features = memory[1:].view(9, 8)
        layer.weight = layer.weight.transpose(0, 1).contiguous().transpose(0, 1)
        layer.bias = layer.bias.repeat_interleave(2)[::2]
        for name in ("rows", "64x32", None):
            assert_exact(layer.on(backend, name), expected)
        layer.features = layer.features.T.contiguous().T
        assert_exact(layer.on(backend), expected)


def test_features_that_are_not_finite_stay_in_their_rows(backend, arithmetic):
    rng = np.random.default_rng(9)
    layer = Layer(rng, random_pairs(rng, 30, 70, 3), 30, 70, 8, 5, dtype=DTYPES[arithmetic])
    layer.features[11] = np.nan
    layer.features[12] = np.inf
    layer.weight[layer.weight == 0] = 1
    out_maps, in_maps, _ = layer.pairs
    touched = torch.zeros(70, dtype=torch.bool)
    touched[out_maps[(in_maps == 11) | (in_maps == 12)].long()] = True
    assert 0 < touched.sum() < 70
    for name in sorted(KERNELS[arithmetic]):
        made = layer.on(backend, name)
        assert not made[touched].isfinite().any()
        assert_exact(made[~touched], layer.twin()[~touched])


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 90),
    st.integers(0, 140),
    st.integers(1, 3),
    st.integers(1, 20),
    st.integers(1, 20),
    st.sampled_from(sorted(KERNELS)),
    st.integers(0, 2**31),
)
def any_convolution(backend, allow_tf32, in_rows, out_rows, groups, c_in, c_out, arithmetic, seed):
    backend.seed(seed)
    allow_tf32(arithmetic == "tf32")
    rng = np.random.default_rng(seed)
    pairs = random_pairs(rng, in_rows, out_rows, int(rng.integers(1, 9)))
    layer = Layer(rng, pairs, in_rows, out_rows, groups * c_in, groups * c_out, groups, DTYPES[arithmetic])
    names = sorted(KERNELS[arithmetic] - ({"rows"} if c_in > 8 else set()))
    assert_exact(layer.on(backend, names[seed % len(names)]), layer.twin())


def test_any_convolution_equals_its_twin(backend, allow_tf32):
    any_convolution(backend, allow_tf32)


LINKS = {
    "submanifold": {"kernel": 3, "padding": 1, "submanifold": True},
    "strided": {"kernel": 3, "stride": 2, "padding": 1},
    "transposed": {"kernel": 2, "stride": 2, "transposed": True},
}


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("name", LINKS)
@pytest.mark.parametrize("way", [None, "rows", "64x32", "mm"])
def test_maps_of_all_kinds_give_the_outputs_and_gradients_of_the_processor(backend, name, inverse, way, monkeypatch):
    x = tensor(2, dtype=torch.float32)
    link = link_of(x, **LINKS[name])
    source, target = (link.target, link.source) if inverse else (link.source, link.target)
    lists = lists_of(link)
    mine = [each.to(backend.device) for each in lists]
    if way is not None:
        use(monkeypatch, way)
    for groups in (1, 2):
        weight, bias = weights(2, 6, LINKS[name]["kernel"], 4 // groups, dtype=torch.float32)
        weight = weight.flatten(1, -2)
        rng = torch.Generator().manual_seed(0)
        features, grad = torch.randn(len(source), 4, generator=rng), torch.randn(len(target), 6, generator=rng)
        on_host = convolution.sparse_conv(features, weight, bias, *lists, len(target), groups, inverse)
        back_on_host = convolution.sparse_conv_input_grad(grad, weight, *lists, len(source), groups, inverse)
        x, w, b, g = (each.to(backend.device) for each in (features, weight, bias, grad))
        made = device.sparse_conv(x, w, b, *mine, len(target), groups, inverse)
        assert_near(made.cpu(), on_host.double(), "float32")
        back = device.sparse_conv_input_grad(g, w, *mine, len(source), groups, inverse)
        assert_near(back.cpu(), back_on_host.double(), "float32")


def test_gradients_of_inputs_of_all_dtypes_equal_their_twin(backend, arithmetic):
    rng = np.random.default_rng(10)
    dtype = DTYPES[arithmetic]
    x = tensor(2)
    link = link_of(x, 3, padding=1, submanifold=True)
    lists = lists_of(link)
    for c_in, c_out, groups in ((3, 5, 1), (40, 24, 1), (6, 4, 2)):
        grad = torch.from_numpy(rng.integers(-3, 4, (len(x), c_out))).to(dtype)
        weight = torch.from_numpy(rng.integers(-3, 4, (c_out, 9, c_in // groups))).to(dtype)
        given = [each.to(backend.device) for each in (grad, weight, *lists)]
        made = device.sparse_conv_input_grad(*given, len(x), groups, False).cpu()
        in_maps, out_maps, offsets, _, _ = (each.numpy() for each in lists)
        numbers = [each.double().numpy() for each in (grad, weight)]
        twin = reference.input_grad(*numbers, in_maps, out_maps, offsets, len(x), groups)
        assert_exact(made, torch.from_numpy(twin))


@pytest.mark.parametrize(("groups", "inverse"), [(1, False), (2, True)])
def test_gradients_are_right_and_can_be_differentiated_again(backend, groups, inverse):
    x = tensor(1, occupancy=0.15, events=2)
    link = link_of(x.to(backend.device), 2, 2)
    weight, bias = weights(1, 2, 2, 2 // groups)
    features = torch.randn(len(link.target) if inverse else len(x), 2, dtype=torch.float64)
    given = [each.to(backend.device).requires_grad_() for each in (features, weight, bias)]

    def function(*inputs):
        return convolve(*inputs, link, groups, inverse)

    with backend.operators():
        assert torch.autograd.gradcheck(function, given)
        assert torch.autograd.gradgradcheck(function, given)


def test_operators_share_one_plan_with_their_gradients(backend, monkeypatch):
    from hepfeed.device import plan

    made = []
    make = plan._plans._make
    monkeypatch.setattr(plan._plans, "_make", lambda *given: made.append(given[3:]) or make(*given))
    x = tensor(2, dtype=torch.float32)
    link = link_of(x.to(backend.device), 3, padding=1, submanifold=True)
    weight, bias = (each.to(backend.device) for each in weights(2, 4, 3, 4, dtype=torch.float32))
    with backend.operators():
        for _ in range(2):
            features = x.features.to(backend.device).requires_grad_()
            out = convolve(convolve(features, weight, bias, link), weight, bias, link)
            out.sum().backward()
    assert made == [(len(x), len(x))] * 2  # one for each direction


def test_all_ways_are_offered_to_the_autotuner_and_give_the_same(backend, arithmetic, monkeypatch):
    asked = []

    def choose(case, variants, run):
        results = [run(variant) for variant in variants]
        asked.append((case, variants, results))
        return variants[0]

    monkeypatch.setattr(tuning, "choose", choose)
    rng = np.random.default_rng(11)
    layer = Layer(rng, random_pairs(rng, 30, 70, 9), 30, 70, 8, 40, dtype=DTYPES[arithmetic])
    assert_exact(layer.on(backend), layer.twin())
    [(case, variants, results)] = asked
    pairs = len(layer.pairs[0])
    expected = "sparse_conv", arithmetic, (8, 40), 9, 1, 70, pairs, torch.device(results[0].device)
    assert case == tuning.Case.of(*expected)
    assert {"rows", "mm"} < set(variants)
    for result in results:
        assert_exact(result.cpu(), layer.twin())


def refusal(function, *given):
    with pytest.raises((ValueError, TypeError)) as refused:
        function(*given)
    return type(refused.value), str(refused.value)


def test_shapes_that_do_not_fit_are_refused_in_the_words_of_the_processor(backend):
    rng = np.random.default_rng(12)
    out_maps, in_maps, offsets = random_pairs(rng, 9, 20, 3)
    lists = in_maps, out_maps, offsets, NONE, NONE
    x, w, b = torch.zeros(9, 4), torch.zeros(6, 3, 4), torch.zeros(6)
    for features, weight, bias, groups in (
        (x[:, :3], w, b, 1),
        (x[0], w, b, 1),
        (x, w[:, :2], b, 1),
        (x, w[0], b, 1),
        (x, w[:5, :, :2], b[:5], 2),
        (x, w, b[:5], 1),
        (x, w, b[:, None], 1),
        (x[:, :0], w[:, :, :0], b, 1),
        (x, w[:0], b[:0], 1),
        (x[:5], w, b, 1),
        (x, w, b, 0),
    ):
        given = [each.to(backend.device) for each in (features, weight, bias, *lists)]
        expected = refusal(convolution.sparse_conv, features, weight, bias, *lists, 20, groups, False)
        assert refusal(device.sparse_conv, *given, 20, groups, False) == expected
    for grad, weight, groups in ((b[None], w[:, :2], 1), (torch.zeros(20, 5), w, 1), (torch.zeros(19, 6), w, 1)):
        given = [each.to(backend.device) for each in (grad, weight, *lists)]
        expected = refusal(convolution.sparse_conv_input_grad, grad, weight, *lists, 9, groups, False)
        assert refusal(device.sparse_conv_input_grad, *given, 9, groups, False) == expected


@pytest.mark.parametrize("row", [-1, 20, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("side", ["in", "out"])
def test_pairs_of_other_rows_are_refused_in_the_words_of_the_processor(backend, side, row):
    out_maps, in_maps, offsets = random_pairs(np.random.default_rng(13), 9, 20, 3)
    (in_maps if side == "in" else out_maps)[2] = row
    given = torch.zeros(9, 4), torch.zeros(6, 3, 4), torch.zeros(6), in_maps, out_maps, offsets, NONE, NONE
    expected = refusal(convolution.sparse_conv, *given, 20, 1, False)
    mine = [each.to(backend.device) for each in given]
    assert refusal(device.sparse_conv, *mine, 20, 1, False) == expected


def test_an_output_row_twice_in_a_tap_is_refused(backend):
    rows = torch.tensor([3, 3], dtype=torch.int32, device=backend.device)
    offsets = torch.tensor([0, 2], device=backend.device)
    none = NONE.to(backend.device)
    x, w = torch.zeros(9, 4, device=backend.device), torch.zeros(6, 1, 4, device=backend.device)
    with pytest.raises(ValueError, match="pair 1 of tap 0 has rows"):
        device.sparse_conv(x, w, None, rows, rows, offsets, none, none, 9, 1, False)


def test_dtypes_and_devices_that_differ_are_refused(backend):
    pairs = random_pairs(np.random.default_rng(14), 9, 20, 3)
    out_maps, in_maps, offsets = (each.to(backend.device) for each in pairs)
    none = NONE.to(backend.device)
    x, w = torch.zeros(9, 4, device=backend.device), torch.zeros(6, 3, 4, device=backend.device)
    lists = in_maps, out_maps, offsets, none, none
    with pytest.raises(SpecError, match=r"weight must be torch\.float32, as features is, not torch\.float64"):
        device.sparse_conv(x, w.double(), None, *lists, 20, 1, False)
    with pytest.raises(SpecError, match=r"features must be float32, float64, bfloat16 or float16, not torch\.int32"):
        device.sparse_conv(x.int(), w.int(), None, *lists, 20, 1, False)
    with pytest.raises(SpecError, match=r"offsets must be on .*, as features is, not on meta"):
        device.sparse_conv(x, w, None, in_maps, out_maps, offsets.to("meta"), none, none, 20, 1, False)
    with pytest.raises(SpecError, match=r"weight must be on .*, as grad is, not on meta"):
        device.sparse_conv_input_grad(torch.zeros(20, 6, device=backend.device), w.to("meta"), *lists, 9, 1, False)


def test_variants_that_are_not_there_are_refused(backend):
    pairs = random_pairs(np.random.default_rng(15), 9, 20, 3)
    for variant, depth, dtype, words in (
        ("128x128", 4, torch.float32, "no such variant"),
        ("64x64", 4, torch.float64, "no such variant"),
        ("rows", 9, torch.float32, "8 channels"),
        ("7x7", 4, torch.float32, "no variant 7x7"),
    ):
        layer = Layer(np.random.default_rng(15), pairs, 9, 20, depth, 3, dtype=dtype)
        with pytest.raises(ValueError, match=words):
            layer.on(backend, variant)
