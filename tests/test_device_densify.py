"""Dense images of sites on a device, and back: against the operators of the CPU."""

import math

import pytest
import torch

from hepfeed.device import densify as device
from hepfeed.errors import SpecError
from hepfeed.sparse import densify as operators

DTYPES = [torch.bool, torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.int64, torch.complex128]
SHAPES = [(7,), (5, 6), (3, 4, 5), (2, 3, 2, 3)]


def some_sites(shape, events, count, seed=0):
    """Different sites of the images, in any order: ``(N, 1 + D) int32``."""
    cells = math.prod(shape) * events
    at = torch.randperm(cells, generator=torch.Generator().manual_seed(seed))[:count]
    return torch.stack(torch.unravel_index(at, (events, *shape)), 1).int()


def numbers(shape, dtype, seed=0):
    drawn = torch.randint(0, 100, shape, generator=torch.Generator().manual_seed(seed))
    return drawn.to(dtype) if dtype != torch.bool else drawn > 50


@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_images_of_every_kind_of_number_are_those_of_the_cpu(backend, dtype, channels_first):
    for channels in (1, 2, 3, 8, 16):
        indices = some_sites((5, 6), 3, 40)
        features = numbers((40, channels), dtype)
        expected = operators.densify(features, indices, (5, 6), 3, channels_first)
        made = device.densify(features.to(backend.device), indices.to(backend.device), (5, 6), 3, channels_first)
        assert torch.equal(made.cpu(), expected)
        back = device.take_sites(made, indices.to(backend.device), channels_first)
        assert torch.equal(back.cpu(), features)


@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_images_of_any_axes_go_there_and_back(backend, shape, channels_first):
    cells = 2 * math.prod(shape)
    for count in (0, 1, cells // 2, cells):
        indices = some_sites(shape, 2, count).to(backend.device)
        features = numbers((count, 3), torch.float32).add(1).to(backend.device)
        dense = device.densify(features, indices, shape, 2, channels_first)
        assert torch.equal(dense.cpu(), operators.densify(features.cpu(), indices.cpu(), shape, 2, channels_first))
        assert torch.equal(device.take_sites(dense, indices, channels_first), features)
        active = device.active_sites(dense, channels_first)
        assert torch.equal(active.cpu(), operators.active_sites(dense.cpu(), channels_first))
        assert len(active) == count


@pytest.mark.parametrize("sites", [31, 32, 33, 127, 128, 129, 255, 256, 257])
@pytest.mark.parametrize("seed", [0, 5])
def test_every_number_of_sites_is_served_in_any_order_of_threads(backend, sites, seed):
    backend.seed(seed)
    indices = some_sites((16, 18), 1, sites).to(backend.device)
    for channels in (1, 2, 300):
        features = numbers((sites, channels), torch.int64).to(backend.device)
        dense = device.densify(features, indices, (16, 18), 1, True)
        assert torch.equal(dense.cpu(), operators.densify(features.cpu(), indices.cpu(), (16, 18), 1, True))


def test_arrays_that_do_not_lie_well_are_copied_in_smaller_items(backend):
    indices = some_sites((5, 6), 1, 20).to(backend.device)
    storage = numbers((20 * 8 + 1,), torch.float32).to(backend.device)
    for features in (storage[1:].view(20, 8), storage[:160].view(8, 20).t()):
        dense = device.densify(features, indices, (5, 6), 1, False)
        assert torch.equal(device.take_sites(dense, indices, False), features)
        assert torch.equal(device.take_sites(dense.transpose(1, 2), indices[:, [0, 2, 1]], False), features)


OUTSIDE = [[0, -1, 0], [0, 5, 0], [0, 0, 6], [3, 0, 0], [-1, 0, 0], [2**31 - 1, 2**31 - 1, 2**31 - 1], [-(2**31), 0, 0]]


@pytest.mark.parametrize("channels_first", [False, True])
def test_a_site_outside_of_the_images_is_left_out(backend, channels_first):
    inside = some_sites((5, 6), 3, 4)
    indices = torch.cat([inside, torch.tensor(OUTSIDE, dtype=torch.int32)]).to(backend.device)
    features = numbers((len(indices), 2), torch.float32).add(1).to(backend.device)
    dense = device.densify(features, indices, (5, 6), 3, channels_first)
    assert torch.equal(dense.cpu(), operators.densify(features[:4].cpu(), inside, (5, 6), 3, channels_first))
    back = device.take_sites(dense, indices, channels_first)
    assert torch.equal(back[:4], features[:4])
    assert not back[4:].any()


def test_no_channels_and_no_events_are_no_trouble(backend):
    none = torch.zeros(0, 3, dtype=torch.int32, device=backend.device)
    assert device.densify(torch.zeros(0, 2, device=backend.device), none, (5, 6), 0, True).shape == (0, 2, 5, 6)
    dense = device.densify(torch.zeros(3, 0, device=backend.device), none.new_zeros(3, 3), (5, 6), 1, False)
    assert dense.shape == (1, 5, 6, 0)
    assert device.take_sites(dense, none.new_zeros(3, 3), False).shape == (3, 0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x, i: device.densify(x[1:], i, (5, 6), 1, True), ValueError, "one row for each of 3 sites, not 2"),
        (lambda x, i: device.densify(x, i.long(), (5, 6), 1, True), ValueError, r"indices must be \(N, 3\) int32"),
        (lambda x, i: device.densify(x, i[:, 1:], (5, 6), 1, True), ValueError, r"indices must be \(N, 3\) int32"),
        (lambda x, i: device.densify(x, i.to("meta"), (5, 6), 1, True), SpecError, "indices must be on"),
        (lambda x, i: device.take_sites(x[None, None], i[:, 1:], True), ValueError, r"indices must be \(N, 3\) int32"),
        (
            lambda x, i: device.densify(x, i[:, :1].repeat(1, 18), (1,) * 17, 1, True),
            ValueError,
            "images have 16 axes at most, not 17",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(backend, call, error, message):
    features = torch.ones(3, 2, device=backend.device)
    indices = some_sites((5, 6), 1, 3).to(backend.device)
    with pytest.raises(error, match=message):
        call(features, indices)
