"""Tensors on different sites joined, and sites left out: against the dense images."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import hepfeed.sparse as hsp
from hepfeed.errors import SpecError


def tensor(seed, channels=2, shape=(5, 6), events=3, dtype=torch.float64, occupancy=0.4):
    """A tensor with its rows in no order."""
    generator = torch.Generator().manual_seed(seed)
    indices = (torch.rand(events, *shape, generator=generator) < occupancy).nonzero().int()
    indices = indices[torch.randperm(len(indices), generator=generator)]
    features = torch.randn(len(indices), channels, dtype=dtype, generator=generator)
    return hsp.SparseTensor(features, indices, shape, events)


def is_sorted(x):
    return x.indices.tolist() == sorted(x.indices.tolist())


def test_joined_tensors_of_a_few_sites():
    a = hsp.SparseTensor(torch.tensor([[1.0], [2.0]]), torch.tensor([[0, 3], [0, 1]]).int(), (4,), 1)
    b = hsp.SparseTensor(torch.tensor([[10.0], [20.0]]), torch.tensor([[0, 0], [0, 3]]).int(), (4,), 1)
    total, both = hsp.add(a, b), hsp.concatenate(a, b)
    assert total.indices.tolist() == both.indices.tolist() == [[0, 0], [0, 1], [0, 3]]
    assert total.features.tolist() == [[10.0], [2.0], [21.0]]
    assert both.features.tolist() == [[0.0, 10.0], [2.0, 0.0], [1.0, 20.0]]
    assert [part.features.flatten().tolist() for part in hsp.union(a, b)] == [[0.0, 2.0, 1.0], [10.0, 0.0, 20.0]]


def test_joined_tensors_are_joined_images():
    a, b, c = tensor(1), tensor(2), tensor(3)
    torch.testing.assert_close(hsp.add(a, b, c).dense(), a.dense() + b.dense() + c.dense())
    assert torch.equal(hsp.concatenate(a, b, c).dense(), torch.cat([a.dense(), b.dense(), c.dense()], 1))
    parts = hsp.union(a, b, c)
    assert all(torch.equal(part.dense(), each.dense()) for part, each in zip(parts, (a, b, c), strict=True))
    assert all(part.sites is parts[0].sites for part in parts)
    assert is_sorted(parts[0])
    assert len(parts[0]) == int(((a.dense() != 0) | (b.dense() != 0) | (c.dense() != 0)).any(1).sum())


def test_tensors_that_share_their_sites_keep_them():
    a = tensor(1)
    b = a.replace_feature(torch.ones_like(a.features))
    assert hsp.add(a, b).sites is hsp.concatenate(a, b).sites is hsp.union(a, b)[1].sites is a.sites
    assert torch.equal(hsp.add(a, b).features, a.features + 1)
    assert torch.equal(hsp.concatenate(a, b).features, torch.cat([a.features, b.features], 1))
    assert hsp.add(a).features is a.features


def test_joined_tensors_have_the_links_of_all():
    a, b = hsp.SparseMaxPool2d(2, indice_key="a")(tensor(1)), hsp.SparseMaxPool2d(2, indice_key="b")(tensor(2))
    assert set(hsp.add(a, b).indice_dict) == set(hsp.concatenate(a, b).indice_dict) == {"a", "b"}


def test_a_tensor_and_one_without_a_site_are_joined():
    a, none = tensor(1), tensor(1, occupancy=0.0)
    assert torch.equal(hsp.add(a, none).dense(), a.dense())
    assert torch.equal(hsp.concatenate(none, a).dense()[:, 2:], a.dense())
    assert len(hsp.add(none, tensor(2, occupancy=0.0))) == 0


def test_pruned_sites_are_left_out_and_others_keep_their_order():
    x = tensor(1)
    mask = x.features[:, 0] > 0
    out = hsp.prune(x, mask)
    assert torch.equal(out.indices, x.indices[mask])
    assert torch.equal(out.features, x.features[mask])
    weight = torch.nn.init.ones_(hsp.SubMConv2d(2, 3, 3).double().weight)
    layer = hsp.SubMConv2d(2, 3, 3, bias=False).double()
    layer.weight = weight
    ordered = hsp.SparseTensor(out.features, out.indices, (5, 6), 3)
    assert torch.equal(layer(out).features, layer(ordered).features)
    assert len(hsp.prune(x, torch.zeros(len(x), dtype=torch.bool))) == 0
    assert torch.equal(hsp.prune(x, torch.ones(len(x), dtype=torch.bool)).features, x.features)


def test_joining_and_pruning_can_be_differentiated_twice():
    a, b = tensor(1, shape=(2, 3)), tensor(2, shape=(2, 3))
    mask = torch.arange(len(a)) % 3 != 0

    def net(first, second):
        x, y = a.replace_feature(first), b.replace_feature(second)
        return (
            hsp.add(x, y).features.square(),
            hsp.concatenate(x, y).features,
            hsp.union(x, y)[0].features,
            hsp.prune(x, mask).features,
        )

    inputs = a.features.requires_grad_(), b.features.requires_grad_()
    assert gradcheck(net, inputs)
    assert gradgradcheck(net, inputs)


def test_joining_and_pruning_compile_to_one_graph():
    a, b = tensor(1), tensor(2)

    def net(first, second):
        x, y = (hsp.SparseTensor(f, each.indices, (5, 6), 3) for f, each in ((first, a), (second, b)))
        joined = hsp.concatenate(x, y, hsp.add(x, y))
        return hsp.prune(joined, joined.features.sum(1) > 0).features

    inputs = a.features.requires_grad_(), b.features.requires_grad_()
    made, expected = torch.compile(net, fullgraph=True, backend="aot_eager")(*inputs), net(*inputs)
    assert torch.equal(made, expected)
    for grad, twin in zip(*(torch.autograd.grad(out.square().sum(), inputs) for out in (made, expected)), strict=True):
        assert torch.equal(grad, twin)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_joined_tensors_are_the_same_bits_for_any_number_of_threads(dtype):
    a, b, c = (tensor(seed, shape=(40, 30), dtype=dtype) for seed in (1, 2, 3))
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append([hsp.add(a, b, c).features, hsp.concatenate(a, b).features, hsp.prune(a, a.F[:, 0] > 0).features])
    torch.set_num_threads(before)
    assert found[0][0].dtype == dtype
    for others in found[1:]:
        assert all(torch.equal(x, y) for x, y in zip(found[0], others, strict=True))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: hsp.add(), "one tensor or more"),
        (lambda x: hsp.union(), "one tensor or more"),
        (lambda x: hsp.add(x, tensor(2, channels=3)), "of 2 channels .* not of 3"),
        (lambda x: hsp.add(x, x.float()), "torch.float64, as of the first, were expected, not of 2 and torch.float32"),
        (lambda x: hsp.concatenate(x, x.float()), "tensors of torch.float64"),
        (lambda x: hsp.concatenate(x, tensor(2, shape=(5, 7))), r"images of \(5, 6\), .* not of 3 images of \(5, 7\)"),
        (lambda x: hsp.union(x, tensor(2, events=4)), "not of 4 images"),
        (lambda x: hsp.add(x, x.to("meta")), "features must be on the CPU, not on meta"),
        (lambda x: hsp.add(x.half(), tensor(2).half()), "on the CPU use bfloat16"),
        (lambda x: hsp.prune(x, torch.ones(len(x))), "mask must be .* bool"),
        (lambda x: hsp.prune(x, torch.ones(len(x) + 1, dtype=torch.bool)), "an item for each of"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(call, message):
    with pytest.raises(SpecError, match=message):
        call(tensor(1))
