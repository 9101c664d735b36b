"""Normalisation of sparse tensors: against torch's modules, event by event, and at the ends of what is possible."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

import hepfeed.sparse as hsp
from hepfeed.errors import SpecError
from hepfeed.sparse.batch_norm import batch_norm, batch_norm_grad


def tensor(channels=6, shape=(9, 8), events=4, dtype=torch.float64, seed=0):
    """A tensor with its rows in no order, whose last event has no site."""
    generator = torch.Generator().manual_seed(seed)
    active = torch.rand(events, *shape, generator=generator) < 0.4
    active[-1] = False
    indices = active.nonzero().int()
    indices = indices[torch.randperm(len(indices), generator=generator)]
    features = 2 * torch.randn(len(indices), channels, dtype=torch.float64, generator=generator) + 1
    return hsp.SparseTensor(features.to(dtype), indices, shape, events)


def drawn(module, seed=0):
    """The module with parameters and statistics that are not those it begins with."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in [*module.parameters(), *module.buffers()]:
        if tensor.is_floating_point():
            tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return module


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("tracked", [True, False])
@pytest.mark.parametrize("relu", [True, False])
def test_batch_norm_and_its_gradients_and_statistics_are_those_of_torch(training, affine, tracked, relu):
    x, options = tensor(), {"eps": 1e-3, "momentum": 0.3, "affine": affine, "track_running_stats": tracked}
    ours = drawn(hsp.SparseBatchNorm(6, **options, relu=relu).double()).train(training)
    torchs = nn.BatchNorm1d(6, **options).double().train(training)
    torchs.load_state_dict(ours.state_dict())
    grad = torch.randn(len(x), 6, dtype=torch.float64)
    found = []
    for module in (ours, nn.Sequential(torchs, nn.ReLU()) if relu else torchs):
        features = x.features.clone().requires_grad_()
        out = module(features)
        out.backward(grad)
        found.append([out, features.grad, *(p.grad for p in module.parameters())])
    torch.testing.assert_close(*found)
    torch.testing.assert_close(ours.state_dict(), torchs.state_dict())
    sparse = copy.deepcopy(ours).eval()(x)
    assert sparse.sites is x.sites


def test_running_statistics_without_a_momentum_are_means_over_all_batches():
    ours, torchs = hsp.SparseBatchNorm(6, momentum=None).double(), nn.BatchNorm1d(6, momentum=None).double()
    for seed in range(3):
        x = tensor(seed=seed)
        torch.testing.assert_close(ours(x).features, torchs(x.features))
    torch.testing.assert_close(ours.state_dict(), torchs.state_dict())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("relu", [True, False])
def test_batch_norm_can_be_differentiated_twice(training, relu):
    generator = torch.Generator().manual_seed(0)
    x, weight, bias, mean = (
        torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in ((5, 3), (3,), (3,), (3,))
    )
    variance = torch.rand(3, dtype=torch.float64, generator=generator)

    def affine(x, weight, bias):
        return batch_norm(x, weight, bias, mean, variance, training, 1e-3, relu)[0]

    def plain(x):
        return batch_norm(x, None, None, mean, variance, training, 1e-3, relu)[0]

    inputs = [each.requires_grad_() for each in (x, weight, bias)]
    assert gradcheck(affine, inputs)
    assert gradgradcheck(affine, inputs)
    assert gradcheck(plain, (x,))
    assert gradgradcheck(plain, (x,))


def test_operators_pass_the_checks_of_torch():
    x, grad = (torch.randn(7, 3, requires_grad=True) for _ in range(2))
    weight, bias, mean, variance = (torch.rand(3) for _ in range(4))
    torch.library.opcheck(batch_norm, (x, weight.requires_grad_(), bias, mean, variance, True, 1e-3, True))
    torch.library.opcheck(batch_norm_grad, (grad, x, weight, bias, mean, variance, True, 1e-3, True))


def test_bfloat16_features_are_normalised_in_float32_and_rounded_once():
    x = tensor(dtype=torch.bfloat16)
    module = hsp.SparseBatchNorm(6)
    out = module(x).features
    assert out.dtype == torch.bfloat16
    exact = nn.BatchNorm1d(6)(x.features.float())
    torch.testing.assert_close(out.float(), exact, rtol=2**-8, atol=1e-5)
    out.float().square().sum().backward()
    assert module.weight.grad.dtype == torch.float32
    module = hsp.SparseBatchNorm(6).bfloat16()
    module(x).features.float().square().sum().backward()
    assert module.weight.grad.dtype == module.running_mean.dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_results_and_gradients_are_the_same_bits_for_any_number_of_threads(dtype):
    x, before, found = tensor(shape=(60, 50), dtype=dtype), torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        features, outputs = x.features.clone().requires_grad_(), []
        for module in (
            hsp.SparseBatchNorm(6, relu=True),
            hsp.SparseInstanceNorm(6, affine=True),
            hsp.SparseGroupNorm(2, 6),
        ):
            out = module(x.replace_feature(features)).features
            out.float().pow(3).sum().backward()
            outputs += [out, *(parameter.grad for parameter in module.parameters())]
        found.append([*outputs, features.grad])
    torch.set_num_threads(before)
    for others in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], others, strict=True))


def test_a_batch_without_a_site_leaves_the_running_statistics_alone():
    module = drawn(hsp.SparseBatchNorm(2))
    before = {name: each.clone() for name, each in module.state_dict().items()}
    features = torch.zeros(0, 2, requires_grad=True)
    out = module(features)
    out.sum().backward()
    assert out.shape == features.grad.shape == (0, 2)
    assert module.weight.grad.tolist() == [0.0, 0.0]
    assert torch.equal(module.running_mean, before["running_mean"])
    assert torch.equal(module.running_var, before["running_var"])
    assert hsp.SparseBatchNorm(2, track_running_stats=False)(features).shape == (0, 2)


def test_a_batch_of_one_site_is_normalised_by_the_running_statistics():
    module, features = drawn(hsp.SparseBatchNorm(2)), torch.tensor([[1.0, -2.0]], requires_grad=True)
    before = module.running_var.clone()
    out, expected = module(features), copy.deepcopy(module).eval()(features)
    assert torch.equal(out, expected)
    assert torch.equal(module.running_var, before)
    grads = (torch.autograd.grad(each.square().sum(), features)[0] for each in (out, expected))
    assert torch.equal(*grads)
    with pytest.raises(SpecError, match="without running statistics needs two sites or more in training, not 1"):
        hsp.SparseBatchNorm(2, track_running_stats=False)(features)


def test_a_nan_stays_in_its_channel():
    features = torch.randn(9, 3)
    features[4, 1] = torch.nan
    out = hsp.SparseBatchNorm(3, relu=True)(features)
    assert out.isnan().all(0).tolist() == [False, True, False]
    assert not out[:, [0, 2]].isnan().any()


def by_event(x, module):
    """torch's module on each event alone: ``(1, C, sites)``."""
    out = torch.empty_like(x.features)
    for event in range(x.batch_size):
        rows = x.indices[:, 0] == event
        if rows.any():
            out[rows] = module(x.features[rows].t()[None])[0].t()
    return out


@pytest.mark.parametrize("affine", [True, False])
def test_instance_and_group_norm_are_those_of_torch_on_each_event(affine):
    x = tensor()
    for ours, torchs in (
        (hsp.SparseInstanceNorm(6, 1e-3, affine), nn.InstanceNorm1d(6, 1e-3, affine=affine)),
        (hsp.SparseGroupNorm(3, 6, 1e-3, affine), nn.GroupNorm(3, 6, 1e-3, affine)),
        (hsp.SparseGroupNorm(1, 6, affine=affine), nn.GroupNorm(1, 6, affine=affine)),
    ):
        drawn(ours.double())
        torchs.double().load_state_dict(ours.state_dict())
        torch.testing.assert_close(ours(x).features, by_event(x, torchs))
        assert ours(x).sites is x.sites


@pytest.mark.parametrize("groups", [None, 2])
def test_instance_and_group_norm_can_be_differentiated_twice(groups):
    x = tensor(channels=4, shape=(2, 3), events=3)
    module = hsp.SparseGroupNorm(groups, 4, 1e-2) if groups else hsp.SparseInstanceNorm(4, 1e-2, affine=True)
    drawn(module.double())
    inputs = x.features.requires_grad_(), *module.parameters()

    def net(features, weight, bias):
        given = {"weight": weight, "bias": bias}
        return torch.func.functional_call(module, given, (x.replace_feature(features),)).features

    assert gradcheck(net, inputs)
    assert gradgradcheck(net, inputs)


def test_events_of_one_site_become_the_bias_and_batches_without_a_site_stay():
    x = hsp.SparseTensor(torch.tensor([[3.0, 5.0]]), torch.tensor([[1, 2]]).int(), (4,), 3)
    assert drawn(hsp.SparseInstanceNorm(2))(x).features.tolist() == [[0.0, 0.0]]
    none = hsp.SparseTensor(torch.zeros(0, 2), torch.zeros(0, 2).int(), (4,), 3)
    assert hsp.SparseInstanceNorm(2)(none).features.shape == hsp.SparseGroupNorm(1, 2)(none).features.shape == (0, 2)


def test_norms_within_a_net_compile_to_one_graph():
    net = hsp.SparseSequential(
        hsp.SparseConv2d(6, 4, 2, 2),  # so that the number of rows is not known
        hsp.SparseBatchNorm(4, relu=True),
        hsp.SparseGroupNorm(2, 4),
        hsp.SparseInstanceNorm(4),
        hsp.SparseGlobalMaxPool(),
    ).double()
    x, other = tensor(), copy.deepcopy(net)

    def run(net, features):
        return net(hsp.SparseTensor(features, x.indices, x.spatial_shape, x.batch_size))

    made = torch.compile(run, fullgraph=True, backend="aot_eager")(net, x.features)
    expected = run(other, x.features)
    torch.testing.assert_close(made, expected)
    torch.testing.assert_close(net.state_dict(), other.state_dict())
    first, second = (
        torch.autograd.grad(o.square().sum(), list(n.parameters())) for o, n in ((made, net), (expected, other))
    )
    torch.testing.assert_close(first, second)


def test_norms_keep_their_state_when_saved_and_copied():
    for module in (
        hsp.SparseBatchNorm(4, relu=True),
        hsp.SparseInstanceNorm(4, affine=True),
        hsp.SparseGroupNorm(2, 4),
    ):
        drawn(module)
        buffer = io.BytesIO()
        torch.save(module, buffer)
        buffer.seek(0)
        x = tensor(channels=4, dtype=torch.float32)
        for twin in (copy.deepcopy(module), torch.load(buffer, weights_only=False)):
            assert torch.equal(twin.eval()(x).features, copy.deepcopy(module).eval()(x).features)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: hsp.SparseBatchNorm(5)(x), r"takes features \(N, 5\), not \(\d+, 6\)"),
        (lambda x: hsp.SparseBatchNorm(6)(torch.zeros(2, 6, 3)), r"not \(2, 6, 3\)"),
        (lambda x: hsp.SparseBatchNorm(6)(x.half()), "on the CPU use bfloat16"),
        (lambda x: hsp.SparseBatchNorm(6)(x.to("meta")), "features must be on the CPU"),
        (lambda x: hsp.SparseInstanceNorm(5)(x), "takes 5 channels, not 6"),
        (lambda x: hsp.SparseInstanceNorm(6)(x.features), "takes a SparseTensor"),
        (lambda x: hsp.SparseInstanceNorm(6)(x.half()), "on the CPU use bfloat16"),
        (lambda x: hsp.SparseGroupNorm(1, 3)(x), "takes 3 channels, not 6"),
        (lambda x: hsp.SparseGroupNorm(1, 6)(x.to("meta")), "features must be on the CPU"),
        (lambda x: hsp.SparseGroupNorm(4, 6), "num_channels"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(tensor())


def test_batch_norm_says_its_arguments():
    assert "relu=True" in repr(hsp.SparseBatchNorm(4, relu=True))
    assert "relu" not in repr(hsp.SparseBatchNorm(4))
    assert repr(hsp.SparseInstanceNorm(4)) == "SparseInstanceNorm(4, eps=1e-05, affine=False)"
