"""Kernel maps on a device: the same pairs in the same order, and the same errors, as on the host and by the twin."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hepfeed.device import kernel_map as device
from hepfeed.device import native
from hepfeed.errors import HepfeedError, SpecError
from hepfeed.kernel_map import check_map
from hepfeed.reference import kernel_map as reference
from hepfeed.reference import sites as reference_sites
from hepfeed.sparse import maps as operators

ROWS = [0, 1, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257]
SUBMANIFOLD = [
    {"kernel_size": 1},
    {"kernel_size": 3},
    {"kernel_size": 5},
    {"kernel_size": 3, "dilation": 2},
    {"kernel_size": 3, "dilation": 40},
]
REACHING = [
    {"kernel_size": 1},
    {"kernel_size": 2, "stride": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 4, "stride": 3, "padding": 2},
    {"kernel_size": 3, "dilation": 2, "padding": 2},
    {"kernel_size": 2, "stride": 3},
    {"kernel_size": 1, "stride": 2, "padding": 3},
    {"kernel_size": 2, "stride": 2, "transposed": True},
    {"kernel_size": 3, "stride": 2, "padding": 1, "transposed": True},
    {"kernel_size": 3, "stride": 3, "dilation": 2, "padding": 2, "transposed": True},
    {"kernel_size": 3, "transposed": True},
]
SHAPES = {1: (400,), 2: (30, 20), 3: (9, 8, 10), 4: (5, 6, 4, 7)}
EVENTS = 3


def sites(rng, shape, rows, mixed=False):
    """So many different sites in the order of their places, or in none."""
    at = rng.choice(EVENTS * math.prod(shape), rows, replace=False)
    at = at if mixed else np.sort(at)
    return np.stack(np.unravel_index(at, (EVENTS, *shape)), axis=1).astype(np.int32)


def order_of(indices):
    order = reference_sites.sort_sites(indices)
    return order[:0] if np.array_equal(order, np.arange(len(order))) else order


def options(dims, kernel_size=1, stride=1, padding=0, dilation=1, submanifold=False, transposed=False):
    """The arguments of the operator behind the shape."""
    numbers = [[each] * dims if isinstance(each, int) else each for each in (kernel_size, stride, padding, dilation)]
    return (*numbers, submanifold, transposed)


def outcome(function, indices, order, shape, events, asked):
    """The arrays that a function returns, or the error that it raises."""
    try:
        made = function(indices, order, events, shape, *asked)
    except (HepfeedError, ValueError) as error:
        return type(error).__name__, str(error)
    return [array.cpu() for array in made]


def same_outcome(backend, indices, order, shape, events, asked):
    """What the device makes, which must be what the host makes."""
    tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in (indices, order)]
    made = outcome(device.kernel_map, *(tensor.to(backend.device) for tensor in tensors), shape, events, asked)
    expected = outcome(operators.kernel_map, *tensors, shape, events, asked)
    if isinstance(expected, tuple):
        assert made == expected
        return made
    assert not isinstance(made, tuple), made
    names = ("in_maps", "out_maps", "offsets", "back_in", "back_out", "outputs")
    for name, array, other in zip(names, made, expected, strict=True):
        assert array.dtype == other.dtype, name
        np.testing.assert_array_equal(array.numpy(), other.numpy(), err_msg=name)
    return made


def assert_is_that_of_the_twin(made, indices, order, shape, events, asked):
    of = check_map(shape, events, *asked)
    *expected, outputs = reference.build_kernel_map(
        indices, shape, of.out_shape, events, of.kernel_size, of.stride, of.padding, of.dilation, *asked[-2:]
    )
    if not len(order):
        expected[3:] = expected[3][:0], expected[4][:0]
    for array, other in zip(made, [*expected, outputs[:0] if asked[-2] else outputs], strict=True):
        np.testing.assert_array_equal(array.numpy(), other)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_submanifold_maps_are_those_of_the_host_and_of_the_twin(backend, seed, mixed):
    backend.seed(seed)
    rng = np.random.default_rng(seed)
    for (dims, shape), convolution in itertools.product(SHAPES.items(), SUBMANIFOLD):
        if dims == 4 and convolution["kernel_size"] == 5:
            continue
        asked = options(dims, **convolution, submanifold=True)
        indices = sites(rng, shape, 300, mixed)
        order = order_of(indices)
        made = same_outcome(backend, indices, order, shape, EVENTS, asked)
        assert_is_that_of_the_twin(made, indices, order, shape, EVENTS, asked)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_other_maps_are_those_of_the_host_and_of_the_twin(backend, seed, mixed):
    backend.seed(seed)
    rng = np.random.default_rng(seed)
    for (dims, shape), convolution in itertools.product(SHAPES.items(), REACHING):
        if dims == 4 and convolution["kernel_size"] > 2:
            convolution = {**convolution, "kernel_size": (2, 1, 3, 2)}
        asked = options(dims, **convolution)
        indices = sites(rng, shape, 300, mixed)
        order = order_of(indices)
        made = same_outcome(backend, indices, order, shape, EVENTS, asked)
        if isinstance(made, list):  # a kernel may not fit the images
            assert_is_that_of_the_twin(made, indices, order, shape, EVENTS, asked)


@pytest.mark.parametrize("mixed", [False, True])
def test_maps_of_any_number_of_sites_are_those_of_the_host(backend, mixed):
    rng, shape = np.random.default_rng(5), (8, 12)
    for rows, asked in itertools.product(
        ROWS,
        (
            options(2, kernel_size=(3, 5), submanifold=True),
            options(2, kernel_size=2, stride=2),
            options(2, kernel_size=3, stride=2, padding=1),
            options(2, kernel_size=2, stride=2, transposed=True),
        ),
    ):
        backend.seed(rows)
        indices = sites(rng, shape, rows, mixed)
        same_outcome(backend, indices, order_of(indices), shape, EVENTS, asked)


def test_full_images_have_all_pairs(backend):
    for events, shape in ((1, (1,)), (1, (300,)), (2, (12, 12)), (2, (5, 6, 5))):
        indices = np.argwhere(np.ones((events, *shape), np.bool_)).astype(np.int32)
        asked = options(len(shape), kernel_size=3, submanifold=True)
        made = same_outcome(backend, indices, indices[:0, 0], shape, events, asked)
        assert len(made[0]) == events * math.prod(3 * n - 2 for n in shape)


def test_sites_far_apart_have_no_pair_but_with_themselves(backend):
    shape = (2**20, 2**20, 2**20)
    indices = np.random.default_rng(0).integers(0, 2**20, (257, 4)).astype(np.int32)
    indices[:, 0] = np.sort(indices[:, 0] % 2)
    indices = indices[reference_sites.sort_sites(indices)]
    made = same_outcome(backend, indices, indices[:0, 0], shape, 2, options(3, kernel_size=3, submanifold=True))
    assert made[0].tolist() == list(range(257))
    made = same_outcome(backend, indices, indices[:0, 0], shape, 2, options(3, kernel_size=2, stride=2))
    assert len(made[5]) == 257


def test_the_widest_images_are_searched_to_their_ends(backend):
    most = 2**31 - 2
    ends = [[0, 0, 0], [0, 0, 1], [0, 0, most], [0, 1, 0], [0, most, 0], [0, most, most - 1], [0, most, most]]
    indices, shape = np.array(ends, np.int32), (most + 1, most + 1)
    order = indices[:0, 0]
    made = same_outcome(backend, indices, order, shape, 1, options(2, kernel_size=3, submanifold=True))
    assert len(made[0]) == 7 + 2 * 4
    same_outcome(backend, indices, order, shape, 1, options(2, kernel_size=2, stride=2))
    same_outcome(backend, indices, order, shape, 1, options(2, kernel_size=(1, 3), stride=most, padding=most))


@pytest.mark.parametrize("seed", [0, 1])
def test_kernels_of_more_lines_of_taps_than_a_grid_has_blocks_are_searched(backend, seed):
    backend.seed(seed)
    rng, shape = np.random.default_rng(3), (20, 20, 2)
    for rows, mixed, asked in (
        (257, False, options(3, kernel_size=(23, 25, 1), submanifold=True)),
        (40, True, options(3, kernel_size=(17, 19, 1), submanifold=True)),
        (40, False, options(3, kernel_size=(24, 25, 1), padding=(12, 12, 0))),
    ):
        indices = sites(rng, shape, rows, mixed)
        same_outcome(backend, indices, order_of(indices), shape, EVENTS, asked)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(data=st.data())
def test_any_map_is_that_of_the_host(backend, data):
    backend.seed(data.draw(st.integers(0, 3)))
    dims, submanifold = data.draw(st.integers(1, 4)), data.draw(st.booleans())
    size = st.sampled_from([1, 3, 5] if submanifold and dims < 3 else [1, 3] if submanifold else [1, 2, 3])
    axis = {
        "kernel_size": size,
        "stride": st.just(1) if submanifold else st.integers(1, 3),
        "padding": st.just(0) if submanifold else st.integers(0, 3),
        "dilation": st.integers(1, 3),
    }
    asked = {name: [data.draw(each) for _ in range(dims)] for name, each in axis.items()}
    transposed = not submanifold and data.draw(st.booleans())
    shape = tuple(data.draw(st.integers(1, 7)) for _ in range(dims))
    events, occupancy = data.draw(st.integers(0, 3)), data.draw(st.sampled_from([0.03, 0.3, 1.0]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    indices = np.argwhere(rng.random((events, *shape)) < occupancy).astype(np.int32)[:300]
    if data.draw(st.booleans()):
        indices = rng.permutation(indices)
    every = options(dims, **asked, submanifold=submanifold, transposed=transposed)
    same_outcome(backend, indices, order_of(indices), shape, events, every)


CONVOLUTIONS = [
    options(2, kernel_size=3, submanifold=True),
    options(2, kernel_size=2, stride=2),
    options(2, kernel_size=2, stride=2, transposed=True),
]


@pytest.mark.parametrize("asked", CONVOLUTIONS, ids=["submanifold", "strided", "transposed"])
def test_faulty_sites_and_orders_are_named_as_on_the_host(backend, asked):
    rng, shape = np.random.default_rng(0), (20, 30)
    for mixed in (False, True):
        indices = sites(rng, shape, 290, mixed)
        order = order_of(indices)
        faulty = []
        for row in (0, 33, 289):
            for column, value in ((0, -1), (0, EVENTS), (1, 20), (1, -7), (2, 30), (2, -(2**31)), (2, 2**31 - 1)):
                wrong = indices.copy()
                wrong[row, column] = value
                faulty.append((wrong, order))
        wrong = indices.copy()
        wrong[17] = wrong[18]  # equal sites
        faulty.append((wrong, order))
        if mixed:
            for place, number in ((0, 290), (7, -1), (289, 2**31 - 1), (5, int(order[6]))):
                wrong = order.copy()
                wrong[place] = number
                faulty.append((indices, wrong))
            faulty.append((indices, order[:0]))
        else:
            faulty.append((indices, np.arange(290, dtype=np.int32)[::-1]))
        for made in (same_outcome(backend, *each, shape, EVENTS, asked) for each in faulty):
            assert made[0] == "ValueError"


@pytest.mark.parametrize(
    ("indices", "order", "shape", "events", "asked"),
    [
        (np.zeros((2, 2), np.int32), 0, (4, 4), 1, options(2, kernel_size=3, submanifold=True)),
        (np.zeros((1, 3), np.float32), 0, (4, 4), 1, options(2, kernel_size=3, submanifold=True)),
        (np.zeros((1, 3), np.int32), 2, (4, 4), 1, options(2, kernel_size=3, submanifold=True)),
        (np.zeros((1, 3), np.int32), 0, (4, 4), 1, options(2, kernel_size=2, submanifold=True)),
        (np.zeros((1, 3), np.int32), 0, (4, 4), 1, options(2, kernel_size=3, submanifold=True, transposed=True)),
        (np.zeros((1, 3), np.int32), 0, (4, 4), 1, options(2, kernel_size=5)),
        (np.zeros((1, 3), np.int32), 0, (4, 4), 1, options(2, kernel_size=0)),
        (np.zeros((1, 3), np.int32), 0, (2**31 - 1,) * 2, 1, options(2, kernel_size=3, dilation=2, submanifold=True)),
    ],
)
def test_what_does_not_fit_is_named_as_on_the_host(backend, indices, order, shape, events, asked):
    assert same_outcome(backend, indices, np.zeros(order, np.int32), shape, events, asked)[0] == "SpecError"


def test_more_pairs_than_can_be_sorted_are_found_by_the_host(backend, monkeypatch):
    rng, shape = np.random.default_rng(1), (6, 7)
    built, build = [], device._build
    monkeypatch.setattr(device, "_build", lambda *given, **named: built.append(1) or build(*given, **named))
    indices = sites(rng, shape, 40)
    asked = options(2, kernel_size=3, padding=1)
    pairs = len(same_outcome(backend, indices, indices[:0, 0], shape, EVENTS, asked)[0])
    for most, times in ((pairs + 1, 0), (pairs, 1)):
        monkeypatch.setattr(device, "_MOST_REACHED", most)
        same_outcome(backend, indices, indices[:0, 0], shape, EVENTS, asked)
        assert len(built) == times


def test_pairs_of_a_tap_are_those_of_its_mirror_turned_round(backend):
    indices = sites(np.random.default_rng(2), (9, 8, 10), 300)
    asked = options(3, kernel_size=3, submanifold=True)
    in_maps, out_maps, offsets, *_ = same_outcome(backend, indices, indices[:0, 0], (9, 8, 10), EVENTS, asked)
    for tap in range(27):
        here, there = (slice(*offsets[k : k + 2].tolist()) for k in (tap, 26 - tap))
        assert torch.equal(in_maps[here], out_maps[there])
        assert torch.equal(out_maps[here], in_maps[there])


@pytest.mark.parametrize("mixed", [False, True])
def test_the_host_waits_once_for_a_submanifold_map_and_twice_for_others(backend, monkeypatch, mixed):
    waits, read_one, read_all = [], torch.Tensor.__int__, torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "__int__", lambda self: waits.append(None) or read_one(self))
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: waits.append(None) or read_all(self))
    indices = sites(np.random.default_rng(4), (20, 30), 100, mixed)
    given = [torch.from_numpy(each).to(backend.device) for each in (indices, order_of(indices))]
    for asked, times in zip(CONVOLUTIONS, (1, 2, 2), strict=True):
        waits.clear()
        device.kernel_map(*given, EVENTS, (20, 30), *asked)
        assert len(waits) == times


def test_sites_and_their_order_must_be_on_one_device():
    indices, order = torch.zeros((1, 3), dtype=torch.int32), torch.zeros(1, dtype=torch.int32, device="meta")
    with pytest.raises(SpecError, match="order must be on cpu"):
        device.kernel_map(indices, order, 1, (4, 4), *CONVOLUTIONS[0])


def test_the_operator_takes_the_kernels(backend, monkeypatch):
    indices = torch.tensor([[0, 1], [0, 2], [0, 4]], dtype=torch.int32, device=backend.device)
    kernels, used = native.kernels(), []
    monkeypatch.setattr(native, "kernels", lambda: used.append(None) or kernels)
    with backend.operators():
        made = operators.kernel_map(
            indices, indices.new_empty((0,)), 1, (5,), *options(1, kernel_size=3, submanifold=True)
        )
    # Tap 0 is the site before, tap 1 the site itself, tap 2 the site behind.
    assert [array.tolist() for array in made[:3]] == [[0, 0, 1, 2, 1], [1, 0, 1, 2, 0], [0, 1, 4, 5]]
    assert used
