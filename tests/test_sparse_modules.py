"""Modules over sparse tensors: spconv's names, arguments, keys and containers."""

import copy
import inspect
import io
import pickle
from collections import OrderedDict

import pytest
import torch
from torch import nn

import hepfeed.sparse as hsp
from hepfeed.errors import SpecError
from hepfeed.sparse import maps
from hepfeed.sparse.modules.convolution import Convolution

SHAPES = {1: (16,), 2: (8, 6), 3: (6, 5, 4), 4: (4, 3, 4, 3)}


def tensor(dims=3, channels=4, events=2, occupancy=0.3, dtype=torch.float32, seed=0):
    rng = torch.Generator().manual_seed(seed)
    indices = torch.nonzero(torch.rand(events, *SHAPES[dims], generator=rng) < occupancy).int()
    indices = indices[torch.randperm(len(indices), generator=rng)]
    features = torch.randn(len(indices), channels, generator=rng, dtype=dtype)
    return hsp.SparseTensor(features, indices, SHAPES[dims], events)


def module(kind, dims):
    return getattr(hsp, f"{kind}{dims}d")


@pytest.mark.parametrize("dims", SHAPES)
def test_every_convolution_is_there_in_one_to_four_dimensions(dims):
    torch.manual_seed(0)
    x = tensor(dims)
    y = module("SubMConv", dims)(4, 6, 3, indice_key="a")(x)
    assert y.sites is x.sites
    y = module("SparseConv", dims)(6, 8, 2, 2, indice_key="down")(y)
    assert y.spatial_shape == tuple(n // 2 for n in x.spatial_shape)
    back = module("SparseInverseConv", dims)(8, 3, 2, "down")(y)
    assert back.sites is x.sites
    grown = module("SparseConvTranspose", dims)(8, 3, 2, 2)(y)
    assert grown.spatial_shape == tuple(n // 2 * 2 for n in x.spatial_shape)
    assert len(grown) == len(y) * 2**dims
    assert (back.features.shape, grown.channels) == ((len(x), 3), 3)
    (back.features.sum() + grown.features.sum()).backward()


@pytest.mark.parametrize("kind", ["SubMConv", "SparseConv", "SparseConvTranspose"])
def test_arguments_have_the_order_of_spconv(kind):
    names = list(inspect.signature(module(kind, 3)).parameters)
    expected = "in_channels out_channels kernel_size stride padding dilation groups bias indice_key"
    assert names == expected.split()
    names = list(inspect.signature(hsp.SparseInverseConv3d).parameters)
    assert names == ["in_channels", "out_channels", "kernel_size", "indice_key", "bias"]


def test_weights_have_the_layout_of_spconv_and_are_drawn_as_torch_draws_its_own():
    torch.manual_seed(3)
    conv = hsp.SparseConv3d(4, 6, (2, 3, 1), groups=2)
    assert conv.weight.shape == (6, 2, 3, 1, 2)
    assert conv.bias.shape == (6,)
    torch.manual_seed(3)
    twin = nn.Conv3d(4, 6, (2, 3, 1), groups=2)
    torch.testing.assert_close(conv.weight.flatten(), twin.weight.flatten())
    torch.testing.assert_close(conv.bias, twin.bias)
    assert hsp.SubMConv2d(1, 1, 3, bias=False).bias is None
    assert isinstance(conv, Convolution)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hsp.SubMConv3d(1, 1, 3, stride=2), "odd kernels and stride 1"),
        (lambda: hsp.SubMConv3d(1, 1, 2), "odd kernels and stride 1"),
        (lambda: hsp.SubMConv3d(1, 1, 3, padding=2), r"padding \(1, 1, 1\)"),
        (lambda: hsp.SparseConv3d(1, 1, (3, 3)), "one for each of 3 axes"),
        (lambda: hsp.SparseConv3d(1, 1, 0), "kernel_size must be"),
        (lambda: hsp.SparseConv3d(1, 1, 3, dilation=0), "dilation must be"),
        (lambda: hsp.SparseConv3d(0, 1, 3), "in_channels must be an integer of 1 or more, not 0"),
        (lambda: hsp.SparseConv3d(1, 2.0, 3), "out_channels must be an integer of 1 or more, not 2.0"),
        (lambda: hsp.SparseConv3d(4, 6, 3, groups=3), "multiples of groups 3, not 4 and 6"),
        (lambda: hsp.SparseConv3d(4, 6, 3, groups=True), "groups must be"),
        (lambda: hsp.SparseInverseConv3d(4, 6, 3, None), "indice_key must be that of the layer that is undone"),
    ],
)
def test_arguments_of_no_convolution_are_refused(make, message):
    with pytest.raises(SpecError, match=message):
        make()


def test_a_submanifold_convolution_takes_its_padding_given_or_left_out():
    torch.manual_seed(0)
    x, left_out = tensor(), hsp.SubMConv3d(4, 2, 3)
    given = hsp.SubMConv3d(4, 2, 3, padding=1)
    given.load_state_dict(left_out.state_dict())
    assert torch.equal(left_out(x).features, given(x).features)


def test_inputs_that_do_not_fit_are_refused():
    conv = hsp.SubMConv3d(4, 2, 3)
    with pytest.raises(SpecError, match="SubMConv3d takes 4 channels, not 3"):
        conv(tensor(channels=3))
    with pytest.raises(SpecError, match=r"SubMConv3d takes images of 3 axes, not of \(8, 6\)"):
        conv(tensor(2))
    with pytest.raises(SpecError, match=r"SubMConv3d takes a SparseTensor, not a tensor \(5, 4\).*SparseSequential"):
        nn.Sequential(conv)(torch.ones(5, 4))
    with pytest.raises(SpecError, match="not a list"):
        conv([1])
    with pytest.raises(SpecError, match=r"kernel of \(9, 9, 9\).*does not fit"):
        hsp.SparseConv3d(4, 2, 9)(tensor())
    with pytest.raises(SpecError, match=r"weight must be torch.float64, as features is, not torch.float32"):
        conv(tensor(dtype=torch.float64))


@pytest.mark.parametrize("kind", ["SubMConv", "SparseConv", "SparseConvTranspose"])
def test_a_kernel_of_one_tap_keeps_the_rows(kind):
    torch.manual_seed(0)
    x, conv = tensor(), module(kind, 3)(4, 6, 1)
    y = conv(x)
    assert y.sites is x.sites
    expected = nn.functional.linear(x.features, conv.weight.flatten(1), conv.bias)
    torch.testing.assert_close(y.features, expected)
    strided = hsp.SparseConv3d(4, 6, 1, 2)(x)
    assert strided.spatial_shape == (3, 3, 2)


class TestKeys:
    """Kernel maps under names."""

    def test_layers_of_one_key_share_a_kernel_map(self):
        x = tensor()
        first, second = hsp.SubMConv3d(4, 4, 3, indice_key="a"), hsp.SubMConv3d(4, 2, 3, indice_key="a")
        y = first(x)
        z = second(y)
        assert x.indice_dict == {}
        assert z.indice_dict["a"] is y.indice_dict["a"] is z.find_indice_pair("a")

    def test_a_key_of_other_parameters_is_refused(self):
        x = hsp.SubMConv3d(4, 4, 3, indice_key="a")(tensor())
        message = (
            r"indice_key 'a' is taken by a layer with submanifold kernel \(3, 3, 3\).* this one has submanifold kernel"
            r" \(5, 5, 5\)"
        )
        with pytest.raises(SpecError, match=message):
            hsp.SubMConv3d(4, 4, 5, indice_key="a")(x)
        with pytest.raises(SpecError, match="this one has transposed kernel"):
            hsp.SparseConvTranspose3d(4, 4, 3, indice_key="a")(x)

    def test_a_key_of_other_sites_is_refused(self):
        x = hsp.SubMConv3d(4, 4, 3, indice_key="a")(tensor())
        with pytest.raises(SpecError, match=r"'a' is taken by a layer on Sites\(.*this one is on Sites\("):
            hsp.SubMConv3d(4, 4, 3, indice_key="a")(hsp.SparseConv3d(4, 4, 2, 2)(x))

    def test_an_inverse_needs_the_key_of_a_layer_before_it(self):
        x = hsp.SubMConv3d(4, 4, 3, indice_key="a")(tensor())
        y = hsp.SparseConv3d(4, 4, 2, 2, indice_key="down")(x)
        with pytest.raises(SpecError, match=r"'up' must be that of a layer before .* and the tensor has 'a', 'down'"):
            hsp.SparseInverseConv3d(4, 4, 2, "up")(y)
        with pytest.raises(SpecError, match="the tensor has none"):
            hsp.SparseInverseConv3d(4, 4, 2, "up")(tensor())
        with pytest.raises(SpecError, match="'a' is that of a submanifold layer"):
            hsp.SparseInverseConv3d(4, 4, 3, "a")(y)
        with pytest.raises(
            SpecError, match=r"kernel_size must be \(2, 2, 2\), as of the layer .*'down', not \(3, 3, 3\)"
        ):
            hsp.SparseInverseConv3d(4, 4, 3, "down")(y)
        with pytest.raises(SpecError, match=r"'down' led to Sites.*, and this one is on Sites"):
            hsp.SparseInverseConv3d(4, 4, 2, "down")(hsp.SparseConv3d(4, 4, 2, 1)(y))

    def test_layers_without_a_key_share_kernel_maps_too(self, monkeypatch):
        built = []
        kernel_map = maps.kernel_map
        monkeypatch.setattr(maps, "kernel_map", lambda *a: (built.append(a), kernel_map(*a))[1])
        net = hsp.SparseSequential(
            hsp.SubMConv3d(4, 4, 3), nn.ReLU(), hsp.SubMConv3d(4, 4, 3, indice_key="a"), hsp.SparseConv3d(4, 4, 2, 2)
        )
        x = tensor()
        net(x)
        net(x)
        assert len(built) == 2


class TestSequential:
    """The container that takes any module."""

    def test_other_modules_are_given_the_features(self):
        torch.manual_seed(0)
        x = tensor()
        net = hsp.SparseSequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), hsp.SubMConv3d(8, 2, 3)
        )
        net.eval()
        y = net(x)
        assert y.sites is x.sites
        assert torch.equal(y.features, net[4](x.replace_feature(net[2](net[1](net[0](x.features))))).features)

    def test_it_is_made_of_a_list_a_dict_or_names(self):
        relu, conv = nn.ReLU(), hsp.SubMConv3d(4, 2, 3)
        by_place = hsp.SparseSequential(conv, relu)
        by_dict = hsp.SparseSequential(OrderedDict([("conv", conv), ("relu", relu)]))
        by_name = hsp.SparseSequential(conv=conv, relu=relu)
        mixed = hsp.SparseSequential(conv, relu=relu)
        assert [list(net.state_dict()) for net in (by_place, by_dict, by_name, mixed)] == [
            ["0.weight", "0.bias"],
            ["conv.weight", "conv.bias"],
            ["conv.weight", "conv.bias"],
            ["0.weight", "0.bias"],
        ]
        for net in (by_place, by_dict, by_name, mixed):
            assert list(net) == [conv, relu]
            assert (len(net), net[0], net[-1]) == (2, conv, relu)
            assert list(net[1:]) == [relu]
        with pytest.raises(IndexError):
            by_place[2]

    def test_modules_are_added_under_a_name_of_their_own(self):
        net = hsp.SparseSequential()
        net.add(nn.ReLU())
        net.add(nn.Tanh(), "last")
        assert list(dict(net.named_children())) == ["0", "last"]
        with pytest.raises(KeyError, match="a module named 'last' already"):
            net.add(nn.ReLU(), "last")
        with pytest.raises(KeyError, match="already"):
            hsp.SparseSequential(nn.ReLU(), **{"0": nn.ReLU()})
        with pytest.raises(TypeError):
            net.add(torch.relu)
        assert len(hsp.SparseSequential()(tensor())) == len(tensor())

    def test_a_module_in_two_places_works_twice(self):
        double = hsp.SparseLinear(4, 4, bias=False)
        with torch.no_grad():
            double.weight.copy_(2 * torch.eye(4))
        x = tensor()
        assert torch.equal(hsp.SparseSequential(double, nn.Identity(), double)(x).features, 4 * x.features)

    def test_behind_a_dense_module_come_torchs_own(self):
        torch.manual_seed(0)
        net = hsp.SparseSequential(
            hsp.SubMConv2d(4, 3, 3), hsp.ToDense(), hsp.SparseReLU(), nn.Conv2d(3, 2, 3), nn.Flatten(), nn.LazyLinear(5)
        )
        assert net(tensor(2)).shape == (2, 5)
        assert hsp.ToDense(channels_first=False)(tensor(2)).shape == (2, 8, 6, 4)

    def test_a_module_that_changes_the_number_of_rows_is_named(self):
        net = hsp.SparseSequential(head=nn.Flatten(0))
        with pytest.raises(SpecError, match=r"module 'head', Flatten: feature must be a tensor \(N, C\)"):
            net(tensor())

    def test_it_may_hold_itself(self):
        inner = hsp.SparseSequential(hsp.SubMConv3d(4, 4, 3), nn.ReLU())
        assert hsp.SparseSequential(inner, inner)(tensor()).channels == 4


@pytest.mark.parametrize(
    ("sparse", "plain"),
    [
        (hsp.SparseIdentity(), nn.Identity()),
        (hsp.SparseReLU(inplace=False), nn.ReLU()),
        (hsp.SparseLeakyReLU(0.2), nn.LeakyReLU(0.2)),
        (hsp.SparsePReLU(4), nn.PReLU(4)),
        (hsp.SparseELU(0.5), nn.ELU(0.5)),
        (hsp.SparseGELU("tanh"), nn.GELU("tanh")),
        (hsp.SparseSiLU(), nn.SiLU()),
        (hsp.SparseSigmoid(), nn.Sigmoid()),
        (hsp.SparseTanh(), nn.Tanh()),
        (hsp.SparseDropout(0.3), nn.Dropout(0.3)),
    ],
    ids=lambda module: type(module).__name__,
)
def test_modules_on_features_are_those_of_torch(sparse, plain):
    x = tensor()
    torch.manual_seed(0)
    y = sparse(x)
    torch.manual_seed(0)
    assert torch.equal(y.features, plain(x.features))
    assert y.sites is x.sites
    assert list(sparse.state_dict()) == list(plain.state_dict())
    assert repr(sparse) == f"Sparse{plain!r}"
    sparse.eval()
    plain.eval()
    assert torch.equal(sparse(x.features), plain(x.features))


def test_the_linear_layer_is_that_of_torch():
    torch.manual_seed(0)
    x, sparse, plain = tensor(dtype=torch.float64), hsp.SparseLinear(4, 7).double(), nn.Linear(4, 7).double()
    sparse.load_state_dict(plain.state_dict())
    made = sparse(x)
    torch.testing.assert_close(made.features, plain(x.features), rtol=1e-12, atol=1e-12)
    made.features.square().sum().backward()
    plain(x.features).square().sum().backward()
    torch.testing.assert_close(sparse.weight.grad, plain.weight.grad, rtol=1e-12, atol=1e-12)
    assert hsp.SparseLinear(4, 7, bias=False)(tensor()).channels == 7
    with pytest.raises(SpecError, match="features must have 4 channels, not 3"):
        sparse(tensor(channels=3))
    with pytest.raises(SpecError, match="SparseLinear takes a SparseTensor"):
        sparse(torch.ones(2, 4))


def net():
    torch.manual_seed(0)
    return hsp.SparseSequential(
        hsp.SubMConv3d(4, 8, 3, indice_key="a"),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        hsp.SparseConv3d(8, 8, 2, 2, groups=2, bias=False, indice_key="down"),
        hsp.SparseInverseConv3d(8, 2, 2, "down", bias=False),
    )


def test_modules_copy_pickle_and_load_each_others_states():
    first, x = net().eval(), tensor()
    expected = first(x).features
    saved = io.BytesIO()
    torch.save(first.state_dict(), saved)
    saved.seek(0)
    loaded = net().eval()
    loaded.load_state_dict(torch.load(saved))
    for each in (copy.deepcopy(first), pickle.loads(pickle.dumps(first)), loaded):
        assert torch.equal(each(x).features, expected)


def test_representations_say_the_arguments():
    lines = [line.strip() for line in repr(net()).splitlines()]
    assert lines[1:] == [
        "(0): SubMConv3d(4, 8, kernel_size=(3, 3, 3), stride=(1, 1, 1), indice_key='a')",
        f"(1): {nn.BatchNorm1d(8)!r}",
        "(2): ReLU()",
        "(3): SparseConv3d(8, 8, kernel_size=(2, 2, 2), stride=(2, 2, 2), groups=2, bias=False, indice_key='down')",
        "(4): SparseInverseConv3d(8, 2, kernel_size=(2, 2, 2), indice_key='down', bias=False)",
        ")",
    ]
    conv = hsp.SparseConv2d(1, 2, 3, padding=1, dilation=2)
    assert repr(conv) == "SparseConv2d(1, 2, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), dilation=(2, 2))"


@pytest.mark.parametrize("rows", [[], [[1, 2, 3, 1]]])
def test_networks_take_no_site_and_one_site(rows):
    indices = torch.tensor(rows, dtype=torch.int32).reshape(-1, 4)
    x = hsp.SparseTensor(torch.ones(len(rows), 4), indices, SHAPES[3], 2)
    layers = net().eval()
    made = layers(x)
    assert made.features.shape == (len(rows), 2)
    made.features.sum().backward()
    assert all(parameter.grad is not None for parameter in layers.parameters())


def test_all_is_complete_and_sorted():
    assert hsp.__all__ == sorted(hsp.__all__)
    for name in hsp.__all__:
        assert inspect.getdoc(getattr(hsp, name)), name
