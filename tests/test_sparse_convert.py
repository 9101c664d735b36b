"""Weights of other libraries, against their published definitions, written out here a second time."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import hepfeed.sparse as hsp
from hepfeed.errors import SpecError
from hepfeed.sparse import convert

SHAPE = (5, 4, 6)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def some_sites(rng, shape=SHAPE, occupancy=0.3):
    return np.argwhere(rng.random((2, *shape)) < occupancy).astype(np.int32)


def tensor_of(sites, features, shape=SHAPE):
    return hsp.SparseTensor(torch.from_numpy(features), torch.from_numpy(sites), shape, 2)


def loaded(module, weight, bias=None):
    module = module.double()
    module.load_state_dict({"weight": weight} if bias is None else {"weight": weight, "bias": bias})
    return module


def minkowski(sites, features, kernel, offsets, stride=1):
    """``out[u] = sum over k of x[u + offsets[k]] @ kernel[k]``; u are sites, those on coarse places with a stride."""
    places = {tuple(site): row for row, site in enumerate(sites.tolist())}
    outputs = sorted({(b, *(x // stride * stride for x in place)) for b, *place in places})
    out = np.zeros((len(outputs), kernel.shape[-1]))
    for row, (b, *u) in enumerate(outputs):
        for tap, offset in enumerate(offsets):
            found = places.get((b, *(x + d for x, d in zip(u, offset, strict=True))))
            if found is not None:
                out[row] += features[found] @ kernel[tap]
    return np.array(outputs), out


def minkowski_offsets(kernel_size):
    """All offsets, the first axis fastest; odd sizes are centred, even ones begin at 0."""
    ranges = [range(-(size // 2), size // 2 + 1) if size % 2 else range(size) for size in kernel_size]
    return [offset[::-1] for offset in itertools.product(*reversed(ranges))]


def test_offsets_of_minkowski_engine_have_the_first_axis_fastest():
    assert minkowski_offsets((3, 2)) == [(-1, 0), (0, 0), (1, 0), (-1, 1), (0, 1), (1, 1)]
    kernel = torch.arange(6.0).reshape(6, 1, 1)
    assert convert.minkowski_weight(kernel, (3, 2))[0, :, :, 0].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_offsets_of_sparseconvnet_and_spconv_have_the_last_axis_fastest():
    taps = torch.arange(6.0)
    in_c_order = [[0, 1], [2, 3], [4, 5]]
    assert convert.sparseconvnet_weight(taps.reshape(6, 1, 1, 1), (3, 2))[0, :, :, 0].tolist() == in_c_order
    assert convert.spconv_weight(taps.reshape(1, 3, 2, 1))[0, :, :, 0].tolist() == in_c_order
    assert convert.spconv_weight(taps.reshape(3, 2, 1, 1), layout="RSCK")[0, :, :, 0].tolist() == in_c_order
    assert convert.dense_weight(taps.reshape(1, 1, 3, 2))[0, :, :, 0].tolist() == in_c_order


@pytest.mark.parametrize("kernel_size", [(3, 3, 3), (5, 1, 3), (1, 1, 1)])
def test_a_kernel_of_minkowski_engine_gives_its_convolution(rng, kernel_size):
    sites, kernel = some_sites(rng), rng.normal(size=(np.prod(kernel_size), 2, 3))
    features = rng.normal(size=(len(sites), 2))
    _, expected = minkowski(sites, features, kernel, minkowski_offsets(kernel_size))
    weight = convert.minkowski_weight(torch.from_numpy(kernel), kernel_size)
    conv = loaded(hsp.SubMConv3d(2, 3, kernel_size, bias=False), weight)
    assert np.allclose(conv(tensor_of(sites, features)).features.detach().numpy(), expected, atol=1e-13)


def test_a_strided_kernel_of_minkowski_engine_and_its_transpose_give_the_same(rng):
    shape = (4, 6, 4)
    sites = some_sites(rng, shape)
    down, up = rng.normal(size=(8, 2, 3)), rng.normal(size=(8, 3, 4))
    features = rng.normal(size=(len(sites), 2))
    offsets = minkowski_offsets((2, 2, 2))
    coarse, expected = minkowski(sites, features, down, offsets, stride=2)
    # Transposed: what reached u by tap k goes back from u by tap k.
    places = {tuple(site): row for row, site in enumerate(sites.tolist())}
    back = np.zeros((len(sites), 4))
    for row, (b, *u) in enumerate(coarse.tolist()):
        for tap, offset in enumerate(offsets):
            found = places.get((b, *(x + d for x, d in zip(u, offset, strict=True))))
            if found is not None:
                back[found] += expected[row] @ up[tap]
    net = hsp.SparseSequential(
        hsp.SparseConv3d(2, 3, 2, stride=2, bias=False, indice_key="down"),
        hsp.SparseInverseConv3d(3, 4, 2, "down", bias=False),
    ).double()
    state = {"0.kernel": torch.from_numpy(down), "1.kernel": torch.from_numpy(up)}
    net.load_state_dict(convert.from_minkowski(state, net))
    x = tensor_of(sites, features, shape)
    made = net[0](x)
    assert (made.indices[:, 1:] * 2).tolist() == coarse[:, 1:].tolist()
    assert np.allclose(made.features.detach().numpy(), expected, atol=1e-13)
    assert np.allclose(net[1](made).features.detach().numpy(), back, atol=1e-13)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_weight_of_sparseconvnet_gives_its_convolution(rng, groups):
    sites, weight = some_sites(rng), rng.normal(size=(27, groups, 4 // groups, 6 // groups))
    features = rng.normal(size=(len(sites), 4))
    offsets = list(itertools.product(range(-1, 2), repeat=3))
    places = {tuple(site): row for row, site in enumerate(sites.tolist())}
    expected = np.zeros((len(sites), groups, 6 // groups))
    for row, (b, *u) in enumerate(sites.tolist()):
        for tap, offset in enumerate(offsets):
            found = places.get((b, *(x + d for x, d in zip(u, offset, strict=True))))
            if found is not None:
                grouped = features[found].reshape(groups, -1)
                expected[row] += np.einsum("gi,gio->go", grouped, weight[tap])
    made = convert.sparseconvnet_weight(torch.from_numpy(weight), (3, 3, 3))
    conv = loaded(hsp.SubMConv3d(4, 6, 3, groups=groups, bias=False), made)
    got = conv(tensor_of(sites, features)).features.detach().numpy()
    assert np.allclose(got, expected.reshape(len(sites), 6), atol=1e-13)
    if groups == 1:
        older = torch.from_numpy(weight[:, 0])
        assert torch.equal(convert.sparseconvnet_weight(older, (3, 3, 3)), made)


def test_a_weight_of_spconv_stays_as_it_is():
    weight = torch.randn(5, 3, 3, 3, 2)
    assert convert.spconv_weight(weight) is weight
    assert torch.equal(convert.spconv_weight(weight.movedim(0, -1), layout="RSCK"), weight)


def test_a_weight_of_one_tap_of_spconv_is_read_as_spconv_reads_it():
    # Facts of spconv 2.3.8: for a kernel and stride of 1, out = features @ weight.view(C_in, C_out).
    weight, features = torch.randn(5, 1, 1, 1, 3), torch.randn(7, 3)
    made = convert.spconv_weight(weight)
    assert torch.allclose(features @ made.view(5, 3).t(), features @ weight.view(3, 5))
    assert torch.equal(convert.spconv_weight(weight, stride=2), weight)
    older = torch.randn(1, 1, 1, 3, 5)
    assert torch.equal(convert.spconv_weight(older, layout="RSCK").view(5, 3), older.view(3, 5).t())


@pytest.mark.parametrize(
    ("dense", "sparse"),
    [
        (nn.Conv1d(4, 6, 3, padding=1, groups=2), hsp.SubMConv1d(4, 6, 3, groups=2)),
        (nn.Conv2d(2, 3, (3, 5), padding=(1, 2)), hsp.SubMConv2d(2, 3, (3, 5))),
        (nn.Conv3d(2, 3, 3, padding=1), hsp.SubMConv3d(2, 3, 3)),
        (nn.Conv3d(4, 2, 2, stride=2, groups=2), hsp.SparseConv3d(4, 2, 2, stride=2, groups=2)),
        (nn.ConvTranspose2d(2, 3, 3, stride=2), hsp.SparseConvTranspose2d(2, 3, 3, stride=2)),
        (nn.ConvTranspose2d(4, 6, 2, groups=2), hsp.SparseConvTranspose2d(4, 6, 2, groups=2)),
    ],
    ids=lambda module: type(module).__name__,
)
def test_a_dense_convolution_gives_the_same_on_images_that_are_active_everywhere(dense, sparse):
    dense, sparse = dense.double(), sparse.double()
    sparse.load_state_dict(convert.from_dense(dense.state_dict(), sparse))
    image = torch.randn(2, dense.in_channels, *(4, 5, 6)[: sparse.dims], dtype=torch.float64) + 10
    expected = dense(image)
    assert torch.allclose(sparse(hsp.SparseTensor.from_dense(image)).dense(), expected, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    kernel_size=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_layouts_are_permutations_of_each_other(kernel_size, channels):
    inputs, outputs = channels
    weight = torch.randn(outputs, *kernel_size, inputs)
    c_order = weight.flatten(1, -2).permute(1, 2, 0)
    first_fastest = weight.permute(*range(len(kernel_size), 0, -1), -1, 0).flatten(0, -3)
    assert torch.equal(convert.sparseconvnet_weight(c_order[:, None], kernel_size), weight)
    assert torch.equal(convert.sparseconvnet_weight(c_order, kernel_size), weight)
    assert torch.equal(convert.minkowski_weight(first_fastest, kernel_size), weight)
    assert torch.equal(convert.dense_weight(weight.movedim(-1, 1)), weight)
    assert torch.equal(convert.dense_weight(weight.movedim(-1, 0), transposed=True), weight)
    if len(set(kernel_size)) > 1 or kernel_size[0] > 1:
        assert torch.equal(convert.spconv_weight(weight), weight)


class Net(nn.Module):
    """Three layers with names."""

    def __init__(self):
        super().__init__()
        self.conv = hsp.SubMConv3d(2, 4, 3)
        self.norm = hsp.SparseBatchNorm(4)
        self.mix = hsp.SubMConv3d(4, 3, 1, bias=False)
        self.head = nn.Linear(3, 2)


def test_a_whole_state_dict_of_minkowski_engine_is_converted():
    source = {
        "module.conv.kernel": torch.randn(27, 2, 4),
        "module.conv.bias": torch.randn(1, 4),
        "module.norm.bn.weight": torch.randn(4),
        "module.norm.bn.bias": torch.randn(4),
        "module.norm.bn.running_mean": torch.randn(4),
        "module.norm.bn.running_var": torch.rand(4),
        "module.norm.bn.num_batches_tracked": torch.tensor(7),
        "module.mix.kernel": torch.randn(4, 3),
        "module.head.linear.weight": torch.randn(2, 3),
        "module.head.linear.bias": torch.randn(2),
    }
    net = Net()
    made = convert.from_minkowski(source, net, rename={r"^module\.": ""})
    net.load_state_dict(made)
    assert list(made) == list(net.state_dict())
    assert torch.equal(net.conv.bias, source["module.conv.bias"][0])
    assert torch.equal(net.mix.weight.view(3, 4), source["module.mix.kernel"].t())
    assert torch.equal(net.head.weight, source["module.head.linear.weight"])
    assert net.norm.num_batches_tracked == 7
    assert torch.equal(net.norm.running_var, source["module.norm.bn.running_var"])
    # The same by order alone.
    for name, value in convert.from_minkowski(source, Net(), rename="order").items():
        assert torch.equal(value, made[name])


def test_a_kernel_of_one_tap_of_minkowski_engine_goes_to_a_linear_layer():
    kernel, features = torch.randn(3, 3), torch.randn(5, 3)
    for layer in (nn.Linear(3, 3, bias=False), hsp.SparseLinear(3, 3, bias=False)):
        layer.load_state_dict(convert.from_minkowski({"kernel": kernel}, layer))
        assert torch.allclose(nn.functional.linear(features, layer.weight), features @ kernel, atol=1e-6)


def test_a_whole_state_dict_of_sparseconvnet_is_converted():
    source = {
        "0.weight": torch.randn(27, 1, 2, 4),
        "0.bias": torch.randn(4),
        "1.weight": torch.randn(4),
        "1.bias": torch.randn(4),
        "1.runningMean": torch.randn(4),
        "1.runningVar": torch.rand(4),
        "2.weight": torch.randn(4, 3),
        "linear.weight": torch.randn(2, 3),
        "linear.bias": torch.randn(2),
    }
    names = {"^0": "conv", "^1": "norm", "^2": "mix", "^linear": "head"}
    net = Net()
    made = convert.from_sparseconvnet(source, net, rename=names)
    net.load_state_dict(made)  # torch adds num_batches_tracked, which old state dicts have not
    assert torch.equal(net.norm.running_mean, source["1.runningMean"])
    assert torch.equal(net.mix.weight.view(3, 4), source["2.weight"].t())
    for name, value in convert.from_sparseconvnet(source, Net(), rename="order").items():
        assert torch.equal(value, made[name])


def test_a_whole_state_dict_of_spconv_is_converted():
    net = Net()
    source = {name: torch.randn(value.shape) for name, value in net.state_dict().items() if value.ndim}
    source |= {"ema.conv.weight": torch.randn(1)}
    made = convert.from_spconv(source, net, rename={"^ema": None})
    assert torch.equal(made["conv.weight"], source["conv.weight"])
    assert torch.equal(made["mix.weight"].view(3, 4), source["mix.weight"].view(4, 3).t())
    assert torch.equal(made["norm.running_mean"], source["norm.running_mean"])
    older = {"conv.weight": source["conv.weight"].movedim(0, -1), "mix.weight": torch.randn(1, 1, 1, 4, 3)}
    made = convert.from_spconv(older, net, layout="RSCK")
    assert torch.equal(made["conv.weight"], source["conv.weight"])
    assert torch.equal(made["mix.weight"].view(3, 4), older["mix.weight"].view(4, 3).t())


def test_a_function_renames_and_leaves_out():
    source = {"a_conv_weight": torch.randn(4, 3, 3, 3, 2), "epoch": torch.tensor(3)}

    def rename(name):
        return None if name == "epoch" else name.removeprefix("a_").replace("_", ".")

    assert list(convert.from_spconv(source, Net(), rename=rename)) == ["conv.weight"]


def test_converted_tensors_need_no_gradient():
    source = {"conv.weight": nn.Parameter(torch.randn(4, 3, 3, 3, 2))}
    assert not convert.from_spconv(source, Net())["conv.weight"].requires_grad


@pytest.mark.parametrize(
    ("state", "rename", "message"),
    [
        ({"conv.kernel": torch.zeros(7, 2, 4)}, None, r"'conv.kernel' of MinkowskiEngine .* 27 taps .* not the 7 of"),
        ({"conv.kernel": torch.zeros(27, 1, 2, 4)}, None, "two or three axes"),
        ({"conv.kernel": torch.zeros(27, 4, 2)}, None, r"\(2, 3, 3, 3, 4\) here, and \(4, 3, 3, 3, 2\) was expected"),
        ({"norm.bn.weight": torch.zeros(5)}, None, r"'norm.bn.weight' .* 'norm.weight' .* \(5,\) .* \(4,\)"),
        ({"cov.kernel": torch.zeros(27, 2, 4)}, None, "'cov.weight' here, .* did you mean 'conv.weight'"),
        ({"conv.kernel": torch.zeros(27, 2, 4), "conv.weight": torch.zeros(1)}, None, "both become 'conv.weight'"),
        ({"state_dict": {}}, None, "'state_dict' is of type dict"),
        ({"conv.kernel": torch.zeros(27, 2, 4)}, "order", "1 layers .* the 4 of"),
        ({"conv.running_var": torch.zeros(4)}, "order", "'conv.running_var' .* has 'conv', which has no 'running_var'"),
        ({"conv.kernel": torch.zeros(27, 2, 4)}, "sorted", "or 'order', not 'sorted'"),
    ],
)
def test_what_does_not_fit_is_an_error_that_names_both_sides(state, rename, message):
    with pytest.raises(SpecError, match=message):
        convert.from_minkowski(state, Net(), rename=rename)


def test_single_weights_that_do_not_fit_are_errors():
    with pytest.raises(SpecError, match="27 taps"):
        convert.sparseconvnet_weight(torch.zeros(8, 1, 2, 2), (3, 3, 3))
    with pytest.raises(SpecError, match="three axes or more"):
        convert.spconv_weight(torch.zeros(3, 3))
    with pytest.raises(SpecError, match="'KRSC' or 'RSCK', not 'RSKC'"):
        convert.spconv_weight(torch.zeros(3, 3, 3), layout="RSKC")
    with pytest.raises(SpecError, match="multiple of 3 groups"):
        convert.dense_weight(torch.zeros(4, 2, 3), 3)
