"""The operators of the sparse convolution: against dense convolutions, their gradients, bits and bad input."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as dense

import hepfeed.sparse as hsp
from hepfeed.errors import SpecError
from hepfeed.reference import convolution as reference
from hepfeed.sparse import convolution
from hepfeed.sparse.functional import convolve

CONV = {1: dense.conv1d, 2: dense.conv2d, 3: dense.conv3d}
TRANSPOSED = {1: dense.conv_transpose1d, 2: dense.conv_transpose2d, 3: dense.conv_transpose3d}
SHAPES = {1: (23,), 2: (9, 8), 3: (6, 5, 7), 4: (3, 4, 3, 4)}


def tensor(dims, channels=4, occupancy=0.3, events=3, seed=0, shuffled=False, dtype=torch.float64):
    rng = torch.Generator().manual_seed(seed)
    indices = torch.nonzero(torch.rand(events, *SHAPES[dims], generator=rng) < occupancy).int()
    if shuffled:
        indices = indices[torch.randperm(len(indices), generator=rng)]
    features = torch.randn(len(indices), channels, generator=rng, dtype=torch.float64).to(dtype)
    return hsp.SparseTensor(features, indices, SHAPES[dims], events)


def weights(dims, out, kernel, per_group, seed=1, dtype=torch.float64):
    rng = torch.Generator().manual_seed(seed)
    shape = (out, *(kernel if isinstance(kernel, tuple) else (kernel,) * dims), per_group)
    weight = torch.randn(shape, generator=rng, dtype=torch.float64).to(dtype)
    return weight, torch.randn(out, generator=rng, dtype=torch.float64).to(dtype)


def link_of(x, kernel, stride=1, padding=0, dilation=1, submanifold=False, transposed=False):
    axes = [n if isinstance(n, tuple) else (n,) * len(x.spatial_shape) for n in (kernel, stride, padding, dilation)]
    return x.sites.link(*axes, submanifold, transposed)


def lists_of(link):
    pairs = link.kernel_map
    return pairs.in_maps, pairs.out_maps, pairs.offsets, pairs.back_in, pairs.back_out


def at_sites(images, sites):
    """Values of dense images ``(B, C, ...)`` at sites."""
    return images.movedim(1, -1)[tuple(sites.indices.long().T)]


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_submanifold_convolution_is_the_dense_one_at_its_sites(dims, groups, shuffled):
    x = tensor(dims, shuffled=shuffled)
    for kernel, dilation in ((1, 1), (3, 1), (3, 2), (5, 1)):
        weight, bias = weights(dims, 6, kernel, 4 // groups)
        padding = dilation * (kernel // 2)
        link = link_of(x, kernel, 1, padding, dilation, submanifold=True)
        made = convolve(x.features, weight, bias, link, groups)
        images = CONV[dims](x.dense(), weight.movedim(-1, 1), bias, 1, padding, dilation, groups)
        torch.testing.assert_close(made, at_sites(images, x.sites), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_convolution_is_the_dense_one_and_0_where_it_has_no_site(dims, shuffled):
    x = tensor(dims, shuffled=shuffled, occupancy=0.1)
    for kernel, stride, padding, dilation in ((2, 2, 0, 1), (3, 2, 1, 1), (3, 1, 1, 1), (2, 3, 2, 2), (1, 2, 0, 1)):
        for groups in (1, 2):
            weight, bias = weights(dims, 6, kernel, 4 // groups)
            link = link_of(x, kernel, stride, padding, dilation)
            made = hsp.SparseTensor._on(convolve(x.features, weight, None, link, groups), link.target, {})
            images = CONV[dims](x.dense(), weight.movedim(-1, 1), None, stride, padding, dilation, groups)
            torch.testing.assert_close(made.dense(), images, rtol=1e-12, atol=1e-12)
            biased = convolve(x.features, weight, bias, link, groups)
            torch.testing.assert_close(biased, made.features + bias, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_transposed_convolution_is_the_dense_one(dims, shuffled):
    x = tensor(dims, shuffled=shuffled, occupancy=0.1)
    for kernel, stride, padding, dilation in ((2, 2, 0, 1), (3, 2, 1, 1), (3, 1, 0, 2), (2, 3, 0, 1)):
        weight, bias = weights(dims, 6, kernel, 4)
        link = link_of(x, kernel, stride, padding, dilation, transposed=True)
        made = hsp.SparseTensor._on(convolve(x.features, weight, None, link), link.target, {})
        images = TRANSPOSED[dims](
            x.dense(), weight.movedim(-1, 0), None, stride=stride, padding=padding, dilation=dilation
        )
        torch.testing.assert_close(made.dense(), images, rtol=1e-12, atol=1e-12)
        biased = convolve(x.features, weight, bias, link)
        torch.testing.assert_close(biased, made.features + bias, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_an_inverse_convolution_is_the_dense_transposed_one_at_the_sites_it_goes_back_to(dims, shuffled):
    x = tensor(dims, shuffled=shuffled)
    for kernel, stride, padding in ((2, 2, 0), (3, 2, 1), (3, 1, 1)):
        link = link_of(x, kernel, stride, padding)
        features = torch.randn(len(link.target), 4, dtype=torch.float64)
        weight, bias = weights(dims, 6, kernel, 4)
        made = convolve(features, weight, bias, link, inverse=True)
        assert made.shape == (len(x), 6)
        below = hsp.SparseTensor._on(features, link.target, {}).dense()
        # Cells that no window of the strided convolution reaches are cut off by it.
        rest = [
            n - ((m - 1) * stride - 2 * padding + kernel)
            for n, m in zip(x.spatial_shape, link.target.spatial_shape, strict=True)
        ]
        images = TRANSPOSED[dims](
            below, weight.movedim(-1, 0), bias, stride=stride, padding=padding, output_padding=rest
        )
        torch.testing.assert_close(made, at_sites(images, x.sites), rtol=1e-12, atol=1e-12)


def test_a_convolution_in_four_dimensions_is_the_sum_over_its_taps():
    x = tensor(4)
    weight, bias = weights(4, 2, 3, 4)
    made = convolve(x.features, weight, bias, link_of(x, 3, 1, 1, submanifold=True))
    rows = {tuple(site): row for row, site in enumerate(x.indices.tolist())}
    expected = bias.repeat(len(x), 1)
    for (event, *place), row in rows.items():
        for tap in itertools.product(range(3), repeat=4):
            source = rows.get((event, *(p + t - 1 for p, t in zip(place, tap, strict=True))))
            if source is not None:
                expected[row] += weight[:, tap[0], tap[1], tap[2], tap[3]] @ x.features[source]
    torch.testing.assert_close(made, expected, rtol=1e-12, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.sampled_from([1, 3]),
    st.booleans(),
    st.integers(0, 1000),
)
def test_any_parameters_give_the_dense_result_and_its_gradients(
    kernel, stride, padding, dilation, groups, transposed, seed
):
    x = tensor(2, 3, 0.2, seed=seed, shuffled=bool(seed % 2))
    if transposed:
        groups = 1
        padding = tuple(min(p, d * (k - 1)) for p, d, k in zip(padding, dilation, kernel, strict=True))
    weight, bias = weights(2, 3, kernel, 3 // groups, seed)
    link = link_of(x, kernel, stride, padding, dilation, transposed=transposed)
    features = x.features.clone().requires_grad_()
    weight.requires_grad_()
    made = convolve(features, weight, bias, link, groups)
    x = x.replace_feature(features)
    if transposed:
        images = dense.conv_transpose2d(x.dense(), weight.movedim(-1, 0), bias, stride, padding, 0, 1, dilation)
    else:
        images = dense.conv2d(x.dense(), weight.movedim(-1, 1), bias, stride, padding, dilation, groups)
    expected = at_sites(images, link.target)
    torch.testing.assert_close(made, expected, rtol=1e-12, atol=1e-12)
    grad = torch.randn_like(made)
    for got, wanted in zip(
        torch.autograd.grad(made, (features, weight), grad),
        torch.autograd.grad(expected, (features, weight), grad),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-11, atol=1e-11)


LINKS = {
    "submanifold": ({"kernel": 3, "padding": 1, "submanifold": True}, False),
    "strided": ({"kernel": 2, "stride": 2}, False),
    "transposed": ({"kernel": 2, "stride": 2, "transposed": True}, False),
    "inverse": ({"kernel": 2, "stride": 2}, True),
}


def case(name, shuffled, groups=2, dtype=torch.float64):
    """Features, weight and bias that need gradients, the link and whether it is walked backwards."""
    options, inverse = LINKS[name]
    x = tensor(2, 4, 0.15, 2, shuffled=shuffled)
    link = link_of(x, **options)
    rows = len(link.target if inverse else link.source)
    features = torch.randn(rows, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(dtype)
    weight, bias = weights(2, 2, options["kernel"], 4 // groups, dtype=dtype)
    return [t.requires_grad_() for t in (features, weight, bias)], link, inverse


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("name", LINKS)
def test_gradients_are_right_and_so_are_theirs(name, shuffled):
    given, link, inverse = case(name, shuffled)
    groups = 2

    def forward(features, weight, bias):
        return convolve(features, weight, bias, link, groups, inverse)

    torch.autograd.gradcheck(forward, given, fast_mode=True)
    torch.autograd.gradgradcheck(forward, given, fast_mode=True)


def test_operators_pass_the_checks_of_torch():
    (features, weight, bias), link, inverse = case("inverse", shuffled=True)
    lists, out_rows = lists_of(link), len(link.source)
    weight = weight.detach().flatten(1, -2).requires_grad_()
    grad = torch.randn(out_rows, 2, dtype=torch.float64, requires_grad=True)
    torch.library.opcheck(convolution.sparse_conv, (features, weight, bias, *lists, out_rows, 2, inverse))
    torch.library.opcheck(convolution.sparse_conv, (features, weight, None, *lists, out_rows, 2, inverse))
    torch.library.opcheck(convolution.sparse_conv_input_grad, (grad, weight, *lists, len(features), 2, inverse))
    torch.library.opcheck(convolution.sparse_conv_weight_grad, (features, grad, *lists, 2, inverse))
    torch.library.opcheck(convolution.column_sum, (grad,))


def test_gradients_that_are_not_needed_are_not_computed(monkeypatch):
    called = []
    for name in ("input_grad", "weight_grad", "column_sum"):
        kernel = getattr(convolution._convolution, name)
        monkeypatch.setattr(
            convolution._convolution, name, lambda *a, name=name, kernel=kernel: (called.append(name), kernel(*a))[1]
        )
    (features, weight, bias), link, inverse = case("submanifold", shuffled=False)
    for needed, expected in (
        ((False, True, True), ["weight_grad", "column_sum"]),
        ((True, False, False), ["input_grad"]),
        ((False, True, False), ["weight_grad"]),
    ):
        given = [t.detach().requires_grad_(need) for t, need in zip((features, weight, bias), needed, strict=True)]
        made = convolve(*given, link, 2, inverse)
        # What no gradient asks for is not kept either.
        kept = [t.shape for t in made.grad_fn.saved_tensors[:2] if t is not None]
        assert len(kept) == sum(needed[:2])
        made.sum().backward()
        assert called == expected
        called.clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", LINKS)
def test_outputs_and_gradients_have_the_same_bits_for_any_number_of_threads(name, dtype):
    before = torch.get_num_threads()
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.integers(-1, 2, (4, 1500, 2)), axis=1) % 64
    indices = np.unique(np.c_[np.repeat(np.arange(4), 1500), walk.reshape(-1, 2)], axis=0).astype(np.int32)
    indices = torch.from_numpy(rng.permutation(indices))
    options, inverse = LINKS[name]
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            x = hsp.SparseTensor(torch.zeros(len(indices), 1), indices, (64, 64), 4)
            link = link_of(x, **options)
            rng_ = torch.Generator().manual_seed(0)
            features = torch.randn(len(link.target if inverse else link.source), 24, generator=rng_).to(dtype)
            weight, bias = weights(2, 20, options["kernel"], 24, dtype=dtype)
            given = [t.requires_grad_() for t in (features, weight, bias)]
            made = convolve(*given, link, inverse=inverse)
            grad = torch.randn(made.shape, generator=rng_).to(dtype)
            results.append((made.detach(), *torch.autograd.grad(made, given, grad)))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            assert torch.equal(one, two)


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 5e-6), (torch.bfloat16, 2e-2)])
def test_lower_precision_is_near_float64(dtype, most):
    (features, weight, bias), link, _ = case("submanifold", shuffled=True)
    grad = torch.randn(len(link.target), 2, dtype=torch.float64)
    results = []
    for each in (torch.float64, dtype):
        rounded = [t.detach().to(dtype).to(each).requires_grad_() for t in (features, weight, bias)]
        made = convolve(*rounded, link, 2)
        results.append((made.detach(), *torch.autograd.grad(made, rounded, grad.to(dtype).to(each))))
        assert made.dtype == each
    for exact, got in zip(*results, strict=True):
        assert (exact - got.double()).abs().max() <= most * exact.abs().max()


def test_it_equals_the_plain_form_of_the_kernels():
    (features, weight, bias), link, _ = case("strided", shuffled=True)
    made = convolve(features, weight, bias, link, 2)
    pairs = link.kernel_map
    lists = [a.numpy() for a in (pairs.in_maps, pairs.out_maps, pairs.offsets)]
    flat = weight.detach().flatten(1, -2).numpy()
    expected = reference.forward(features.detach().numpy(), flat, bias.detach().numpy(), *lists, len(link.target), 2)
    np.testing.assert_allclose(made.detach().numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sites", [[], [[1, 3, 2]]])
@pytest.mark.parametrize("name", LINKS)
def test_no_site_and_one_site_work_forward_and_backward(name, sites):
    options, inverse = LINKS[name]
    indices = torch.tensor(sites, dtype=torch.int32).reshape(-1, 3)
    x = hsp.SparseTensor(torch.ones(len(sites), 1), indices, (6, 6), 3)
    link = link_of(x, **options)
    source, target = (link.target, link.source) if inverse else (link.source, link.target)
    features = torch.ones(len(source), 3, dtype=torch.float64, requires_grad=True)
    weight, bias = weights(2, 5, options["kernel"], 3)
    weight.requires_grad_()
    bias.requires_grad_()
    made = convolve(features, weight, bias, link, inverse=inverse)
    assert made.shape == (len(target), 5)
    made.sum().backward()
    assert features.grad.shape == features.shape
    assert torch.equal(bias.grad, torch.full((5,), float(len(target)), dtype=torch.float64))
    if not sites:
        assert torch.equal(weight.grad, torch.zeros_like(weight))


def test_nan_reaches_what_it_is_connected_to_and_nothing_else():
    indices = torch.tensor([[0, 0], [0, 1], [0, 5]], dtype=torch.int32)
    features = torch.tensor([[1.0], [float("nan")], [2.0]])
    x = hsp.SparseTensor(features, indices, (6,), 1)
    made = convolve(x.features, torch.ones(1, 3, 1), None, link_of(x, 3, 1, 1, submanifold=True))
    assert made.isnan().tolist() == [[True], [True], [False]]
    assert made[2] == 2


def test_autocast_computes_in_bfloat16_and_returns_gradients_in_the_dtype_of_the_parameters():
    (features, weight, bias), link, _ = case("submanifold", shuffled=False, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = convolve(features, weight, bias, link, 2)
        assert convolve(features.double(), weight.double(), None, link, 2).dtype == torch.float64
        with torch.autocast("cpu", enabled=False):
            assert convolve(features, weight, bias, link, 2).dtype == torch.float32
    assert made.dtype == torch.bfloat16
    expected = convolve(features.bfloat16(), weight.bfloat16(), bias.bfloat16(), link, 2)
    assert torch.equal(made, expected)
    made.sum().backward()
    assert features.grad.dtype == weight.grad.dtype == bias.grad.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.float16), pytest.raises(SpecError, match=r"not torch.float16; .*bfloat16"):
        convolve(features, weight, bias, link, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": lambda t: t.half()}, "features must be float32, .* not torch.float16; on the CPU use bfloat16"),
        ({"features": lambda t: t.long()}, "features must be float32, float64 or bfloat16, not torch.int64"),
        ({"features": lambda t: t.float()}, "weight must be torch.float32, as features is, not torch.float64"),
        ({"bias": lambda t: t.float()}, "bias must be torch.float64, as features is, not torch.float32"),
        ({"features": lambda t: t.to("meta")}, "features must be on the CPU, not on meta"),
        ({"features": lambda t: t[:, :3]}, "features must have 4 channels, not 3"),
    ],
)
def test_dtypes_devices_and_channels_that_do_not_fit_are_refused(change, message):
    (features, weight, bias), link, _ = case("submanifold", shuffled=False)
    given = {"features": features.detach(), "weight": weight.detach(), "bias": bias.detach()}
    given = {name: change.get(name, lambda t: t)(tensor) for name, tensor in given.items()}
    with pytest.raises(SpecError, match=message):
        convolve(**given, link=link, groups=2)


def test_rows_that_are_not_those_of_the_link_are_refused():
    (features, weight, bias), link, _ = case("submanifold", shuffled=False)
    with pytest.raises(SpecError, match=f"features must have one row for each of {len(features)} sites, not 5"):
        convolve(features[:5], weight, bias, link, 2)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_pairs_give_a_result_or_an_error(data):
    """Lists that no kernel map has, read out of bounds by none of the kernels."""
    rows = st.integers(-2, 6)
    length = data.draw(st.integers(0, 6))
    back = data.draw(st.sampled_from([0, length, length + 1]))
    sizes = (length, data.draw(st.sampled_from([length, length + 1])), None, back, back)
    lists = [
        torch.tensor(data.draw(st.lists(rows, min_size=size, max_size=size)), dtype=torch.int32)
        for size in sizes
        if size is not None
    ]
    offsets = torch.tensor(data.draw(st.lists(st.integers(-1, 8), min_size=0, max_size=4)), dtype=torch.int64)
    lists.insert(2, offsets)
    taps, groups = data.draw(st.sampled_from([len(offsets) - 1, 1])), data.draw(st.sampled_from([1, 2, 3, 0, -1]))
    inverse = data.draw(st.booleans())
    features, grad = torch.ones(4, 4), torch.ones(data.draw(st.integers(0, 5)), 4)
    weight = torch.ones(4, max(taps, 0), 2)
    calls = {
        lambda: convolution.sparse_conv(features, weight, None, *lists, len(grad), groups, inverse): (4,),
        lambda: convolution.sparse_conv_input_grad(grad, weight, *lists, 4, groups, inverse): (2 * groups,),
        lambda: convolution.sparse_conv_weight_grad(features, grad, *lists, groups, inverse): (
            len(offsets) - 1,
            4 // max(groups, 1),
        ),
    }
    for call, shape in calls.items():
        try:
            made = call()
        except (ValueError, IndexError, RuntimeError):
            continue
        assert made.shape[1:] == shape
