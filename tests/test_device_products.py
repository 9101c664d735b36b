"""The sparse convolution by torch's products: against its twins in float64, and as one of the ways of the operators."""

import itertools

import numpy as np
import pytest
import torch
from test_device_weight_gradient import DTYPES, NARROW, TOLERANCE, integers, pairs, use

from hepfeed.device import convolution as device_convolution
from hepfeed.device import products, weight_gradient
from hepfeed.reference import convolution as reference
from hepfeed.sparse import convolution

COUNTS = [0, 1, 17, 40, 5]


@pytest.fixture(params=list(dict.fromkeys(DTYPES.values())), ids=str)
def dtype(request):
    return request.param


def case(rng, groups, dtype, draw=integers):
    """Features ``(30, 6)``, weight, bias, gradient ``(40, 4)`` and pairs that are unique both ways."""
    ins, outs, offsets = pairs(rng, 30, 40, [min(count, 30) for count in COUNTS])
    for first, last in zip(offsets.tolist(), offsets.tolist()[1:]):
        ins[first:last] = torch.from_numpy(rng.permutation(30)[: last - first]).int()
    weight = draw(rng, 4 * 5, 6 // groups, dtype).view(4, 5, 6 // groups)
    return draw(rng, 30, 6, dtype), weight, draw(rng, 1, 4, dtype)[0], draw(rng, 40, 4, dtype), (ins, outs, offsets)


def normal(rng, rows, channels, dtype):
    return torch.from_numpy(rng.normal(size=(rows, channels))).to(dtype)


def all_three(backend, x, weight, bias, grad, lists, groups):
    """Output, gradient of the input and gradient of the weight, as torch computes them."""
    x, weight, bias, grad, *lists = (each.to(backend.device) for each in (x, weight, bias, grad, *lists))
    made = (
        products.forward(x, weight, bias, *lists, 40, groups),
        products.input_grad(grad, weight, *lists, 30, groups),
        products.weight_grad(x, grad, *lists, groups),
    )
    return [each.cpu() for each in made]


def twins(x, weight, bias, grad, lists, groups):
    x, weight, bias, grad = (each.double().numpy() for each in (x, weight, bias, grad))
    lists = [each.numpy() for each in lists]
    return (
        reference.forward(x, weight, bias, *lists, 40, groups),
        reference.input_grad(grad, weight, *lists, 30, groups),
        reference.weight_grad(x, grad, *lists, groups),
    )


@pytest.mark.parametrize("groups", [1, 2])
def test_all_three_products_of_integers_are_exact(backend, dtype, groups):
    given = case(np.random.default_rng(groups), groups, dtype)
    for made, expected in zip(all_three(backend, *given, groups), twins(*given, groups), strict=True):
        assert made.dtype == dtype
        assert torch.equal(made, torch.from_numpy(expected).to(dtype))


def test_all_three_products_are_near_their_twins_and_the_same_bits_each_time(backend, dtype):
    given = case(np.random.default_rng(0), 1, dtype, normal)
    tolerance = TOLERANCE[str(dtype).removeprefix("torch.")]
    made, again = (all_three(backend, *given, 1) for _ in range(2))
    for one, other, expected in zip(made, again, twins(*given, 1), strict=True):
        assert torch.equal(one, other)
        assert (one.double() - torch.from_numpy(expected)).abs().max() < tolerance * np.abs(expected).max()


def test_sums_of_16_bit_numbers_over_taps_are_rounded_once(backend):
    ones = torch.ones(1, 1, dtype=torch.bfloat16)
    weight = torch.tensor([256.0, 1.0, 1.0, 1.0]).bfloat16().view(1, 4, 1)
    rows, offsets = torch.zeros(4).int(), torch.arange(5)
    given = (each.to(backend.device) for each in (ones, weight))
    lists = [each.to(backend.device) for each in (rows, rows, offsets)]
    made = products.forward(*given, None, *lists, 1, 1)
    assert made.item() == 260.0  # 259 lies between 258 and 260; one by one, 256 + 1 is 256


def test_maps_without_pairs_give_the_bias_and_zeros(backend, dtype):
    x, weight, bias, grad, _ = case(np.random.default_rng(0), 1, dtype)
    lists = [NARROW, NARROW, torch.zeros(6, dtype=torch.int64)]
    out, in_grad, weight_grad = all_three(backend, x, weight, bias, grad, lists, 1)
    assert torch.equal(out, bias.expand(40, 4))
    assert not in_grad.any()
    assert not weight_grad.any()
    assert out.dtype == in_grad.dtype == weight_grad.dtype == dtype


def test_the_operators_may_take_this_way(backend, monkeypatch):
    x, weight, bias, grad, lists = case(np.random.default_rng(3), 2, torch.float32)
    out, in_grad, weight_grad = twins(x, weight, bias, grad, lists, 2)
    order = torch.cat([n + torch.argsort(part) for n, part in _parts(lists)])
    back = lists[1][order], lists[0][order]
    use(monkeypatch, "mm")
    for module in (device_convolution, weight_gradient):
        assert module._MM == "mm"
    x, weight, bias, grad, *maps = (each.to(backend.device) for each in (x, weight, bias, grad, *lists, *back))
    with backend.operators():
        assert torch.equal(convolution.sparse_conv(x, weight, bias, *maps, 40, 2, False).cpu().double(), _of(out))
        made = convolution.sparse_conv_input_grad(grad, weight, *maps, 30, 2, False)
        assert torch.equal(made.cpu().double(), _of(in_grad))
        made = convolution.sparse_conv_weight_grad(x, grad, *maps, 2, False)
        assert torch.equal(made.cpu().double(), _of(weight_grad))


def test_many_channels_are_multiplied_in_this_way_by_the_fixed_rule(backend):
    assert weight_gradient._variants("bfloat16", 512, 512)[0] == "mm"
    assert weight_gradient._variants("bfloat16", 256, 512)[0] == "128x128"
    assert weight_gradient._variants("bfloat16", 64, 64)[0] == "64x64"
    assert weight_gradient._variants("float32", 3, 32)[0] == "64x8"
    assert weight_gradient._variants("float64", 16, 16)[0] == "32x32"


def _parts(lists):
    bounds = lists[2].tolist()
    return [(first, lists[0][first:last]) for first, last in itertools.pairwise(bounds)]


def _of(numbers):
    return torch.from_numpy(numbers)
