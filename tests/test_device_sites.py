"""Sets of sites on a device: the same numbers, and the same errors, as on the host."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hepfeed.device import lookup, native, site_keys
from hepfeed.device import sites as device
from hepfeed.device.sorting import sort_pairs
from hepfeed.errors import HepfeedError, ProcessError, SpecError
from hepfeed.reference import sites as reference
from hepfeed.sparse import lookup as lookup_operators
from hepfeed.sparse import maps as operators

SHAPES = [(60000,), (30, 20), (8, 9, 10), (5, 6, 7, 8), (4, 3, 4, 3, 4), (2**20, 2**20, 2**20)]
ROWS = [0, 1, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257]
EVENTS = 4
DRAWN = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


def drawn(rng, shape, rows):
    """Sites in no order, some of them equal."""
    return rng.integers(0, [EVENTS, *shape], (rows, 1 + len(shape))).astype(np.int32)


def distinct(rng, shape, rows):
    """Up to as many sites in no order."""
    return rng.permutation(np.unique(drawn(rng, shape, rows), axis=0))


def on(backend, array):
    return torch.from_numpy(np.ascontiguousarray(array)).to(backend.device)


def assert_equals(tensor, expected):
    assert tensor.dtype == torch.from_numpy(expected).dtype
    assert tuple(tensor.shape) == expected.shape
    np.testing.assert_array_equal(tensor.cpu().numpy(), expected)


def outcome(function, tensors, *arguments):
    """What a function returns as arrays, or the error that it raises."""
    try:
        made = function(*tensors, *arguments)
    except (HepfeedError, ValueError) as error:
        return type(error).__name__, str(error)
    arrays = [made] if isinstance(made, torch.Tensor) else made
    return [(array.dtype, array.tolist(), tuple(array.shape)) for array in arrays]


def same_outcome(backend, function, operator, arrays, *arguments):
    """What a function makes of arrays on a device, which must be what an operator makes of them on the host."""
    tensors = [torch.from_numpy(array) for array in arrays]
    made = outcome(function, [tensor.to(backend.device) for tensor in tensors], *arguments)
    assert made == outcome(operator, tensors, *arguments)
    return made


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_keys_count_places_in_c_order_with_room_between_them(backend, seed):
    backend.seed(seed)
    rng = np.random.default_rng(seed)
    for shape, rows in itertools.product(SHAPES, (1, 257)):
        widths = [min(n + 3, 2**20) for n in shape]
        indices = distinct(rng, shape, rows)
        order = reference.sort_sites(indices)
        faults = site_keys.no_faults(on(backend, indices))
        keys = site_keys.number_sites(on(backend, indices), on(backend, order), (EVENTS, shape, widths), faults)
        assert_equals(keys, np.ravel_multi_index(tuple(indices[order].T.astype(np.int64)), (EVENTS, *widths)))
        assert int(faults) == 0
        assert_equals(
            site_keys.number_sites(on(backend, indices), None, (EVENTS, shape, widths), None)[order], keys.cpu().numpy()
        )


def test_faults_of_sites_are_found_wherever_they_are(backend):
    grid = (EVENTS, (40, 50), (40, 50))
    indices = np.argwhere(np.ones((1, 20, 30), np.bool_)).astype(np.int32)
    for row in (0, 1, 31, 32, 255, 256, 257, 599):
        for column, value in ((0, EVENTS), (0, -1), (1, 40), (1, -1), (2, 50), (2, -(2**31))):
            wrong = indices.copy()
            wrong[row, column] = value
            faults = site_keys.no_faults(on(backend, indices))
            keys = site_keys.number_sites(on(backend, wrong), None, grid, faults)
            assert int(faults) & 1
            assert np.flatnonzero(keys.cpu().numpy() == -1).tolist() == [row]
        if row:
            wrong = indices.copy()
            wrong[row] = wrong[row - 1]
            faults = site_keys.no_faults(on(backend, indices))
            site_keys.check_sites(on(backend, wrong), on(backend, np.empty(0, np.int32)), grid, faults)
            assert int(faults) == 2
    for place in (0, 300):
        for row in (-1, 600, 2**31 - 1):  # of an order that names no row
            order = np.arange(600, dtype=np.int32)
            order[place] = row
            faults = site_keys.no_faults(on(backend, indices))
            site_keys.check_sites(on(backend, indices), on(backend, order), grid, faults)
            assert int(faults) & 1


@pytest.mark.parametrize("numbers", [1, 2, 255, 256, 257, 2**31, 2**62])
def test_pairs_are_sorted_and_those_of_one_key_keep_their_order(backend, numbers):
    rng = np.random.default_rng(0)
    for count in (0, 1, 300):
        keys, values = rng.integers(0, min(numbers, 2**62 - 1), count), np.arange(count, dtype=np.int32)
        keys[::2] = numbers - 1
        order = np.argsort(keys, kind="stable")
        sorted_keys, sorted_values = sort_pairs(on(backend, keys), on(backend, values), numbers)
        assert_equals(sorted_keys, keys[order])
        assert_equals(sorted_values, values[order])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sites_in_no_order_are_sorted_as_by_their_twin(backend, seed):
    backend.seed(seed)
    for shape, rows in itertools.product(SHAPES, ROWS):
        indices = distinct(np.random.default_rng(seed), shape, rows)
        order, expected = device.sort_sites(on(backend, indices), shape, EVENTS), reference.sort_sites(indices)
        in_order = np.array_equal(expected, np.arange(len(indices)))
        assert_equals(order, expected[:0] if in_order else expected)
        # Sorted sites need no order.
        assert device.sort_sites(on(backend, indices[expected]), shape, EVENTS).shape == (0,)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equal_sites_are_merged_as_by_their_twin(backend, seed):
    backend.seed(seed)
    rng = np.random.default_rng(seed)
    for shape, rows in itertools.product(SHAPES, ROWS):
        indices = rng.permutation(np.concatenate([drawn(rng, shape, rows)] * 2)[: max(rows, 1)])
        sites, row_of = device.unique_sites(on(backend, indices), shape, EVENTS)
        expected, expected_rows = reference.unique_sites(indices)
        assert_equals(sites, expected)
        assert_equals(row_of, expected_rows)
        tidy = on(backend, expected)
        again, row_of = device.unique_sites(tidy, shape, EVENTS)
        assert_equals(again, expected)
        assert_equals(row_of, np.arange(len(expected), dtype=np.int32))
        assert again.data_ptr() != tidy.data_ptr() or not rows  # an operator returns no input


@pytest.mark.parametrize("is_sorted", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_sites_are_found_as_by_their_twin(backend, seed, is_sorted):
    backend.seed(seed)
    rng = np.random.default_rng(seed)
    for shape, rows in itertools.product(SHAPES, ROWS):
        indices = distinct(rng, shape, rows)
        if is_sorted:
            indices = indices[reference.sort_sites(indices)]
        order = device.sort_sites(on(backend, indices), shape, EVENTS)
        near = rng.permutation(np.repeat(indices, 2, axis=0))
        near[:, -1] += rng.integers(-1, 2, len(near), np.int32)
        queries = np.concatenate([near, drawn(rng, shape, 50), np.full((1, 1 + len(shape)), -(2**31), np.int32)])
        found = lookup.find_sites(on(backend, indices), order, on(backend, queries), shape, EVENTS)
        assert_equals(found, reference.find_sites(indices, queries))


@DRAWN
@given(data=st.data())
def test_any_sites_are_ordered_merged_and_found_as_on_the_host(backend, data):
    backend.seed(data.draw(st.integers(0, 3)))
    shape = tuple(data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    events = data.draw(st.integers(0, 3))
    least = data.draw(st.sampled_from([-1, 0, 0]))  # as one site outside is enough
    site = st.tuples(*(st.integers(least, max(0, n - 1 - least)) for n in (events, *shape)))
    indices = np.array(data.draw(st.lists(site, max_size=40)), np.int32).reshape(-1, 1 + len(shape))
    made = same_outcome(backend, device.sort_sites, operators.sort_sites, [indices], shape, events)
    merged = same_outcome(backend, device.unique_sites, operators.unique_sites, [indices], shape, events)
    if isinstance(made, list):
        order = np.array(made[0][1], np.int32)
        queries = np.array(data.draw(st.lists(site, max_size=40)), np.int32).reshape(-1, 1 + len(shape))
        arrays = [indices, order, queries]
        same_outcome(backend, lookup.find_sites, lookup_operators.find_sites, arrays, shape, events)
    elif isinstance(merged, list):
        assert "must be unique" in made[1]
    else:
        assert made == merged


@pytest.mark.parametrize(
    ("indices", "shape", "events"),
    [
        (np.zeros((3, 3), np.int32), (4,), 1),
        (np.zeros(3, np.int32), (4, 4), 1),
        (np.zeros((3, 3), np.float32), (4, 4), 1),
        (np.zeros((3, 3), np.int32), (0, 4), 1),
        (np.zeros((3, 3), np.int32), (2**31 - 1, 2**31 - 1), 9),
        (np.full((3, 2), 2**40, np.int64), (4,), 1),
    ],
)
def test_what_does_not_fit_is_named_as_on_the_host(backend, indices, shape, events):
    order = np.zeros(2, np.int32)
    for made in (
        same_outcome(backend, device.sort_sites, operators.sort_sites, [indices], shape, events),
        same_outcome(backend, device.unique_sites, operators.unique_sites, [indices], shape, events),
        same_outcome(backend, lookup.find_sites, lookup_operators.find_sites, [indices, order, indices], shape, events),
    ):
        assert made[0] == "SpecError"


def test_indices_of_another_width_are_sorted_too(backend):
    indices = np.array([[0, 2], [0, 0], [0, 1]])
    for dtype in (np.int64, np.int16):
        assert_equals(device.sort_sites(on(backend, indices.astype(dtype)), (3,), 1), np.array([1, 2, 0], np.int32))


def test_sites_may_lie_anywhere(backend):
    rng = np.random.default_rng(5)
    indices = distinct(rng, (20, 20, 20), 70)
    room = torch.empty(4 * 70 + 1, dtype=torch.int32, device=backend.device)
    unaligned = room[1 : 1 + indices.size].view(-1, 4)
    unaligned.copy_(on(backend, indices))
    strided = on(backend, np.repeat(indices, 2, axis=1))[:, ::2]
    for sites in (unaligned, strided):
        assert_equals(device.sort_sites(sites, (20, 20, 20), EVENTS), reference.sort_sites(indices))


@pytest.mark.parametrize("coordinate", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int32])
@pytest.mark.parametrize("number", [torch.int32, torch.int64])
def test_cells_of_points_are_those_of_the_host(backend, coordinate, number):
    generator = torch.Generator().manual_seed(0)
    for rows in (0, 1, 33, 257):
        for dims in (1, 3, 4):
            points = (torch.randn((rows, dims), generator=generator) * 20).to(coordinate)
            points[: rows // 2] = points[: rows // 2].round()
            events = torch.randint(-5, 9, (rows,), generator=generator, dtype=number)
            if rows > 1 and coordinate in (torch.float32, torch.float64):
                points[-1] = -1e20
                points[-2, 0] = 1e20
                if number == torch.int64:
                    events[-1], events[-2] = 2**40, -(2**40)
            expected = lookup_operators.cells_of_points(points, events)
            cells = lookup.cells_of_points(points.to(backend.device), events.to(backend.device))
            assert_equals(cells, expected.numpy())


def test_points_that_are_nowhere_are_named(backend):
    for wrong in (float("nan"), float("inf"), -float("inf")):
        points = torch.zeros((300, 2), device=backend.device)
        points[270, 1] = wrong
        with pytest.raises(ProcessError, match=rf"point 270 is at \[0.0, {wrong}\]"):
            lookup.cells_of_points(points, torch.zeros(300, dtype=torch.int32, device=backend.device))


def test_rows_of_a_mask_are_those_of_the_host(backend):
    for rows in (0, 1, 300):
        mask = torch.rand(rows, generator=torch.Generator().manual_seed(rows)) < 0.4
        assert_equals(lookup.rows_of_mask(mask.to(backend.device)), lookup_operators.rows_of_mask(mask).numpy())


def test_the_host_waits_once_for_sorted_sites_and_twice_for_others(backend, monkeypatch):
    waits, read = [], torch.Tensor.__int__
    monkeypatch.setattr(torch.Tensor, "__int__", lambda self: waits.append(None) or read(self))
    indices = on(backend, np.array([[0, 0], [0, 1], [1, 0]], np.int32))
    for function in (device.sort_sites, device.unique_sites):
        for sites, times in ((indices, 1), (indices.flip(0), 2)):
            waits.clear()
            function(sites, (3,), 2)
            assert len(waits) == times


def test_sites_and_queries_must_be_on_one_device():
    indices = torch.zeros((1, 2), dtype=torch.int32)
    elsewhere = torch.zeros((1, 2), dtype=torch.int32, device="meta")
    with pytest.raises(SpecError, match="queries must be on cpu"):
        lookup.find_sites(indices, indices.new_empty((0,)), elsewhere, (3,), 1)
    with pytest.raises(SpecError, match="events must be on cpu"):
        lookup.cells_of_points(indices, elsewhere)


def test_operators_take_the_kernels(backend, monkeypatch):
    indices = on(backend, np.array([[0, 2], [0, 0], [1, 1], [0, 2]], np.int32))
    with backend.operators():
        sites, row_of = operators.unique_sites(indices, (3,), 2)
        assert sites.tolist() == [[0, 0], [0, 2], [1, 1]]
        assert row_of.tolist() == [1, 0, 2, 1]
        assert operators.sort_sites(indices[:3], (3,), 2).tolist() == [1, 0, 2]
        order = sites.new_empty((0,))
        assert lookup_operators.find_sites(sites, order, indices, (3,), 2).tolist() == [1, 0, 2, 1]
        used = []
        kernels = native.kernels()
        monkeypatch.setattr(native, "kernels", lambda: used.append(None) or kernels)
        operators.sort_sites(indices[:3], (3,), 2)
    assert used
